// CUDA C as C++: a block's threads are fibers of one system thread; barriers switch between them.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#define __global__
#define __device__ static inline
#define __shared__ static __attribute__((section("cushared")))
typedef unsigned char u8;
typedef unsigned short u16;
typedef long long i64;
struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
void shim_barrier(int line);
#define __syncthreads() shim_barrier(__LINE__)
static inline int min(int a, int b) { return a < b ? a : b; }
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
