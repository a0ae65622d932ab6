// The kernels of the CUDA executor. Maps are channels-last, f32 or bf16 in memory; sums are f32 within a part of the
// rows and f64 over the parts, always in the same order: the same input gives the same bytes.
//
// A map is a matrix here: for batch norm per channel (n h w) x c, per activation n x (h w c). `columns` are what shares
// a mean, `rows` what it is taken over.
//
// Compiles as CUDA C (nvcc, NVRTC), and as C++ for the simulated driver of the tests (HOST_SHIM).
#ifdef HOST_SHIM
#include "shim.h"
#else
typedef unsigned char u8;
typedef unsigned short u16;
typedef long long i64;
#endif

enum { IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID };
enum { NOT_RESAMPLED, NEAREST, MAX_POOL };

__device__ float load(const float *x, i64 i) { return x[i]; }
__device__ float load(const u16 *x, i64 i) { return __uint_as_float((unsigned)x[i] << 16); }
__device__ void store(float *x, i64 i, float value) { x[i] = value; }
// Rounds to the nearest even; NaN stays NaN.
__device__ void store(u16 *x, i64 i, float value) {
    unsigned bits = __float_as_uint(value);
    x[i] = (bits & 0x7fffffffu) > 0x7f800000u ? (u16)((bits >> 16) | 0x40u)
                                              : (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ float activate(float x, int activation, float slope) {
    switch (activation) {
    case RELU: return x <= 0.f ? 0.f : x; // NaN stays NaN
    case LEAKY_RELU: return x > 0.f ? x : slope * x;
    case TANH: return tanhf(x);
    case SIGMOID: return 0.5f * (tanhf(0.5f * x) + 1.f);
    default: return x;
    }
}

// The derivative at the activation's output `y`; a rectifier's output has the sign of its input.
__device__ float derivative(float y, int activation, float slope) {
    switch (activation) {
    case RELU: return y > 0.f ? 1.f : 0.f;
    case LEAKY_RELU: return y > 0.f ? 1.f : slope;
    case TANH: return 1.f - y * y;
    case SIGMOID: return y * (1.f - y);
    default: return 1.f;
    }
}

// Maps have less than 2^31 values: indices have 32 bits.
#define EACH(i, n) for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)(n); i += gridDim.x * blockDim.x)

// ---- conversions

template <class From, class To> __device__ void convert(const From *x, To *y, int n) {
    EACH(i, n) store(y, i, load(x, i));
}

// ---- what a linear map reads: the input resampled, with class labels behind its channels

struct Joined {
    int height, width, channels;           // the layer's input
    int out_height, out_width, classes;    // the linear map's input, and the class weights behind its channels
    int resample, factor;
};

template <class T> __device__ void linear_input(const T *x, const float *labels, T *out, Joined s, int total) {
    int joined = s.channels + s.classes;
    EACH(i, total) {
        int channel = (int)(i % joined), pixel = (int)(i / joined);
        int column = pixel % s.out_width, row = pixel / s.out_width % s.out_height, image = pixel / s.out_width / s.out_height;
        if (channel >= s.channels) {
            store(out, i, labels[image * s.classes + channel - s.channels]);
            continue;
        }
        const T *map = x + (i64)image * s.height * s.width * s.channels + channel;
        if (s.resample == MAX_POOL) {
            float most = 0.f;
            for (int y = 0; y < s.factor; y++) for (int z = 0; z < s.factor; z++) {
                float value = load(map, ((i64)(row * s.factor + y) * s.width + column * s.factor + z) * s.channels);
                if ((y == 0 && z == 0) || value > most) most = value;
            }
            store(out, i, most);
        } else {
            int factor = s.resample == NEAREST ? s.factor : 1;
            store(out, i, load(map, ((i64)(row / factor) * s.width + column / factor) * s.channels));
        }
    }
}

// The gradient of a maximum goes to the first of equal values.
template <class T> __device__ void linear_input_gradient(const T *x, const T *d, T *out, Joined s, int total) {
    int joined = s.channels + s.classes;
    EACH(i, total) {
        int channel = (int)(i % s.channels), pixel = (int)(i / s.channels);
        int column = pixel % s.width, row = pixel / s.width % s.height, image = pixel / s.width / s.height;
        const T *of_image = d + (i64)image * s.out_height * s.out_width * joined + channel;
        float sum = 0.f;
        if (s.resample == MAX_POOL) {
            int top = row / s.factor * s.factor, left = column / s.factor * s.factor;
            const T *map = x + (i64)image * s.height * s.width * s.channels + channel;
            float most = 0.f;
            int first_row = -1, first_column = -1;
            for (int y = top; y < top + s.factor; y++) for (int z = left; z < left + s.factor; z++) {
                float value = load(map, ((i64)y * s.width + z) * s.channels);
                if (first_row < 0 || value > most) { most = value; first_row = y; first_column = z; }
            }
            if (row == first_row && column == first_column)
                sum = load(of_image, ((i64)(row / s.factor) * s.out_width + column / s.factor) * joined);
        } else {
            int factor = s.resample == NEAREST ? s.factor : 1;
            for (int y = 0; y < factor; y++) for (int z = 0; z < factor; z++)
                sum += load(of_image, ((i64)(row * factor + y) * s.out_width + column * factor + z) * joined);
        }
        store(out, i, sum);
    }
}

// ---- biases, and class labels of dense layers

// bias (channels) or null; weight (classes, channels) with labels (n, classes), or null, where an image is one pixel.
template <class T>
__device__ void add_bias(T *x, const float *bias, const float *labels, const float *weight, int classes, int channels, int total) {
    EACH(i, total) {
        int channel = (int)(i % channels);
        float sum = load(x, i) + (bias ? bias[channel] : 0.f);
        if (weight) {
            const float *row = labels + i / channels * classes;
            for (int k = 0; k < classes; k++) sum += row[k] * weight[(i64)k * channels + channel];
        }
        store(x, i, sum);
    }
}

template <class T>
__device__ void label_gradient(const T *d, const float *labels, float *out, int n, int classes, int channels) {
    EACH(i, classes * channels) {
        int channel = (int)(i % channels), k = (int)(i / channels);
        double sum = 0;
        for (int image = 0; image < n; image++) sum += (double)labels[(i64)image * classes + k] * load(d, (i64)image * channels + channel);
        out[i] = (float)sum;
    }
}

// ---- several values at once
//
// A thread reads and writes 16 bytes at a time. N values that follow each other are in columns that do, where N divides
// the number of columns; otherwise N is 1.

template <class T> struct Wide { enum { N = 16 / sizeof(T) }; };

template <int N, class T> __device__ void load_values(const T *x, i64 i, float *to) {
    if constexpr (N == 1) {
        to[0] = load(x, i);
    } else {
        uint4 four = *(const uint4 *)(x + i);
        unsigned words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int k = 0; k < N; k++) {
            if constexpr (sizeof(T) == 4) to[k] = __uint_as_float(words[k]);
            else to[k] = __uint_as_float(k % 2 ? words[k / 2] & 0xffff0000u : words[k / 2] << 16);
        }
    }
}

template <int N, class T> __device__ void store_values(T *x, i64 i, const float *from) {
    if constexpr (N == 1) {
        store(x, i, from[0]);
    } else {
        T values[N];
#pragma unroll
        for (int k = 0; k < N; k++) store(values, k, from[k]);
        unsigned words[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if constexpr (sizeof(T) == 4) words[k] = __float_as_uint(values[k]);
            else words[k] = (unsigned)values[2 * k] | (unsigned)values[2 * k + 1] << 16;
        }
        *(uint4 *)(x + i) = uint4{words[0], words[1], words[2], words[3]};
    }
}

// Calls `f<N>` with as many values at once as the columns allow.
#define BY_COLUMNS(columns, f, ...)                                                                                    \
    if ((columns) % Wide<T>::N == 0) f<Wide<T>::N>(__VA_ARGS__);                                                       \
    else f<1>(__VA_ARGS__)

// Each thread has the columns from `first` on, and goes on by `stride` values: most often these are the same columns.
#define EACH_VALUES(i, n)                                                                                              \
    unsigned first_value = (blockIdx.x * blockDim.x + threadIdx.x) * N, stride = gridDim.x * blockDim.x * N;           \
    for (unsigned i = first_value; i < (unsigned)(n); i += stride)
#define NEW_COLUMNS(i, columns) ((i) == first_value || stride % (columns) != 0)

// ---- sums over the rows of a matrix
//
// Blocks of 256 threads: `lanes` threads that have N columns each, times 256 / lanes rows. The grid is columns / (lanes N)
// rounded up, and the parts. parts: (parts, 2, columns).

// Of the whole file: the sections of variables in templates are lost in g++.
__shared__ float partial_sums[2 * 256 * 8];

// `add` adds what the N values of a row from a column on give to two sums each.
template <int N, class Add> __device__ void column_sums(Add add, float *parts, int rows, int columns, int lanes) {
    int lane = threadIdx.x % lanes, group = threadIdx.x / lanes, groups = 256 / lanes, width = lanes * N;
    int column = (blockIdx.x * lanes + lane) * N;
    int each = (rows + (int)gridDim.y - 1) / (int)gridDim.y;
    int begin = (int)blockIdx.y * each, end = min(begin + each, rows);
    float first[N], second[N];
#pragma unroll
    for (int k = 0; k < N; k++) first[k] = second[k] = 0.f;
    if (column < columns)
        for (int row = begin + group; row < end; row += groups) add((i64)row * columns + column, column, first, second);
#pragma unroll
    for (int k = 0; k < N; k++) {
        partial_sums[group * width + lane * N + k] = first[k];
        partial_sums[(groups + group) * width + lane * N + k] = second[k];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * width; i += 256) {
        int which = i / width, at = i % width, of = (int)blockIdx.x * width + at;
        float sum = 0.f;
        for (int k = 0; k < groups; k++) sum += partial_sums[(which * groups + k) * width + at];
        if (of < columns) parts[((i64)blockIdx.y * 2 + which) * columns + of] = sum;
    }
}

// Sums of x - x[0] and of its square: shifted by the first row, so that a large mean does not cancel the variance.
template <int N, class T> __device__ void moments_of(const T *x, float *parts, int rows, int columns, int lanes) {
    float shift[N];
    int mine = (blockIdx.x * lanes + threadIdx.x % lanes) * N;
    if (mine < columns) load_values<N>(x, mine, shift);
    auto add = [&](i64 at, int, float *first, float *second) {
        float values[N];
        load_values<N>(x, at, values);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float value = values[k] - shift[k];
            first[k] += value;
            second[k] += value * value;
        }
    };
    column_sums<N>(add, parts, rows, columns, lanes);
}
template <class T> __device__ void moments(const T *x, float *parts, int rows, int columns, int lanes) {
    BY_COLUMNS(columns, moments_of, x, parts, rows, columns, lanes);
}

// Sums of x alone.
template <int N, class T> __device__ void sums_of(const T *x, float *parts, int rows, int columns, int lanes) {
    auto add = [&](i64 at, int, float *first, float *) {
        float values[N];
        load_values<N>(x, at, values);
#pragma unroll
        for (int k = 0; k < N; k++) first[k] += values[k];
    };
    column_sums<N>(add, parts, rows, columns, lanes);
}
template <class T> __device__ void sums(const T *x, float *parts, int rows, int columns, int lanes) {
    BY_COLUMNS(columns, sums_of, x, parts, rows, columns, lanes);
}

// Sums of all parts of 32 columns, with 8 threads for each; blocks of 256 threads, columns / 32 of them rounded up. One
// of the 8 threads gets the column, the others get -1.
__shared__ double total_sums_of[2][8][32];
__device__ int total_of_parts(const float *parts, int splits, int columns, double *first, double *second) {
    int lane = threadIdx.x & 31, group = threadIdx.x >> 5, column = blockIdx.x * 32 + lane;
    double a = 0, b = 0;
    if (column < columns)
        for (int part = group; part < splits; part += 8) {
            a += parts[(i64)(2 * part) * columns + column];
            b += parts[(i64)(2 * part + 1) * columns + column];
        }
    total_sums_of[0][group][lane] = a;
    total_sums_of[1][group][lane] = b;
    __syncthreads();
    if (group > 0 || column >= columns) return -1;
    for (int k = 1; k < 8; k++) {
        a += total_sums_of[0][k][lane];
        b += total_sums_of[1][k][lane];
    }
    *first = a;
    *second = b;
    return column;
}

// What a layer takes from the mean and the biased variance of a column.
__device__ void write_moments(double exact_mean, double found, const float *weight, const float *bias, float *variance,
                              float *normal, int column, int rows, int columns, float eps, float *running, float momentum) {
    float mean = (float)exact_mean, inverse = (float)(1.0 / sqrt((double)(float)found + (double)eps));
    float scale = inverse * (weight ? weight[column] : 1.f);
    if (variance) variance[column] = (float)found;
    if (running) {
        float unbiased = (float)((double)(float)found * ((double)rows / (double)(rows > 1 ? rows - 1 : 1)));
        running[column] = (1.f - momentum) * running[column] + momentum * mean;
        running[columns + column] = (1.f - momentum) * running[columns + column] + momentum * unbiased;
    }
    normal[column] = mean;
    normal[columns + column] = inverse;
    normal[2 * columns + column] = scale;
    normal[3 * columns + column] = bias ? bias[column] : 0.f;
}

// Mean and biased variance from the parts of `moments`; normal: (4, columns), mean, 1 / deviation, scale, bias. variance
// may be null; running: (2, columns), the running mean and variance, which take `momentum` of the minibatch's mean and
// unbiased variance, or null.
template <class T>
__device__ void finish_moments(const T *x, const float *parts, const float *weight, const float *bias, float *variance, float *normal,
                               int splits, int rows, int columns, float eps, float *running, float momentum) {
    double sum, square;
    int column = total_of_parts(parts, splits, columns, &sum, &square);
    if (column < 0) return;
    double shifted = sum / rows, found = square / rows - shifted * shifted;
    if (found < 0) found = 0;
    write_moments(load(x, column) + shifted, found, weight, bias, variance, normal, column, rows, columns, eps, running, momentum);
}

// The same from the biased variances and the means of several processes that have equally many rows: moments
// (processes, 2, columns). rows: those of all processes.
__device__ void combine_process_moments(const float *moments, const float *weight, const float *bias, float *variance, float *normal,
                                        int processes, int rows, int columns, float eps, float *running, float momentum) {
    EACH(column, columns) {
        double mean = 0, square = 0;
        for (int process = 0; process < processes; process++) mean += moments[(i64)(2 * process + 1) * columns + column];
        mean /= processes;
        for (int process = 0; process < processes; process++) {
            const float *of = moments + (i64)(2 * process) * columns + column;
            double off = of[columns] - mean;
            square += of[0] + off * off;
        }
        write_moments(mean, square / processes, weight, bias, variance, normal, column, rows, columns, eps, running, momentum);
    }
}

// The same from given statistics.
__device__ void given_moments(const float *mean, const float *variance, const float *weight, const float *bias, float *normal,
                              int columns, float eps) {
    EACH(column, columns) {
        float inverse = (float)(1.0 / sqrt((double)variance[column] + (double)eps));
        float scale = inverse * (weight ? weight[column] : 1.f);
        normal[column] = mean[column];
        normal[columns + column] = inverse;
        normal[2 * columns + column] = scale;
        normal[3 * columns + column] = bias ? bias[column] : 0.f;
    }
}

// ---- batch norm with its activation, forward

// normal may be null: the activation alone.
template <int N, class T>
__device__ void normalize_of(const T *x, const float *normal, T *y, int columns, int activation, float slope, int total) {
    float mean[N], scale[N], bias[N];
    EACH_VALUES(i, total) {
        if (normal && NEW_COLUMNS(i, columns)) {
            const float *of = normal + i % columns;
#pragma unroll
            for (int k = 0; k < N; k++) mean[k] = of[k], scale[k] = of[2 * columns + k], bias[k] = of[3 * columns + k];
        }
        float values[N];
        load_values<N>(x, i, values);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float value = normal ? (values[k] - mean[k]) * scale[k] + bias[k] : values[k];
            values[k] = activate(value, activation, slope);
        }
        store_values<N>(y, i, values);
    }
}
template <class T>
__device__ void normalize(const T *x, const float *normal, T *y, int columns, int activation, float slope, int total) {
    BY_COLUMNS(normal ? columns : total, normalize_of, x, normal, y, columns, activation, slope, total);
}

// ---- batch norm with its activation, backward

// The gradient before the activation, of N values. A rectifier's derivative follows from its input, the normalized x with
// scale and bias: y need not be read.
template <int N, class T>
__device__ void before_activation(const T *y, const T *d, i64 at, const float *x, const float *mean, const float *scale,
                                  const float *bias, int activation, float slope, float *to) {
    load_values<N>(d, at, to);
    if (mean && (activation == RELU || activation == LEAKY_RELU)) {
        float rest = activation == RELU ? 0.f : slope;
#pragma unroll
        for (int k = 0; k < N; k++) to[k] *= (x[k] - mean[k]) * scale[k] + bias[k] > 0.f ? 1.f : rest;
        return;
    }
    float outputs[N];
    load_values<N>(y, at, outputs);
#pragma unroll
    for (int k = 0; k < N; k++) to[k] *= derivative(outputs[k], activation, slope);
}

// Sums of g and of g times the normalized x, where g is the gradient before the activation; y is the activation.
template <int N, class T>
__device__ void gradient_sums_of(const T *x, const T *y, const T *d, const float *normal, float *parts, int rows, int columns,
                                 int activation, float slope, int lanes) {
    float mean[N], inverse[N], scale[N], bias[N];
    int mine = (blockIdx.x * lanes + threadIdx.x % lanes) * N;
    if (mine < columns) {
        const float *of = normal + mine;
#pragma unroll
        for (int k = 0; k < N; k++)
            mean[k] = of[k], inverse[k] = of[columns + k], scale[k] = of[2 * columns + k], bias[k] = of[3 * columns + k];
    }
    auto add = [&](i64 at, int, float *first, float *second) {
        float values[N], g[N];
        load_values<N>(x, at, values);
        before_activation<N>(y, d, at, values, mean, scale, bias, activation, slope, g);
#pragma unroll
        for (int k = 0; k < N; k++) {
            first[k] += g[k];
            second[k] += g[k] * (values[k] - mean[k]) * inverse[k];
        }
    };
    column_sums<N>(add, parts, rows, columns, lanes);
}
template <class T>
__device__ void gradient_sums(const T *x, const T *y, const T *d, const float *normal, float *parts, int rows, int columns,
                              int activation, float slope, int lanes) {
    BY_COLUMNS(columns, gradient_sums_of, x, y, d, normal, parts, rows, columns, activation, slope, lanes);
}

// out: (2, columns), the sums of all parts.
__device__ void finish_sums(const float *parts, float *out, int splits, int columns) {
    double first, second;
    int column = total_of_parts(parts, splits, columns, &first, &second);
    if (column < 0) return;
    out[column] = (float)first;
    out[columns + column] = (float)second;
}

// The gradient with respect to x. sums: those of gradient_sums over all rows, or null where the statistics were given;
// normal: null without batch norm.
template <int N, class T>
__device__ void input_gradient_of(const T *x, const T *y, const T *d, const float *normal, const float *sums, T *out, int rows,
                                  int columns, int activation, float slope, int total) {
    float mean[N], inverse[N], scale[N], bias[N], first[N], second[N];
    EACH_VALUES(i, total) {
        float values[N], g[N];
        if (!normal) {
            before_activation<N>(y, d, i, values, (const float *)0, scale, bias, activation, slope, g);
            store_values<N>(out, i, g);
            continue;
        }
        if (NEW_COLUMNS(i, columns)) {
            unsigned column = i % columns;
            const float *of = normal + column;
#pragma unroll
            for (int k = 0; k < N; k++) {
                mean[k] = of[k], inverse[k] = of[columns + k], scale[k] = of[2 * columns + k], bias[k] = of[3 * columns + k];
                first[k] = sums ? sums[column + k] / rows : 0.f;
                second[k] = sums ? sums[columns + column + k] / rows : 0.f;
            }
        }
        load_values<N>(x, i, values);
        before_activation<N>(y, d, i, values, mean, scale, bias, activation, slope, g);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float normalized = (values[k] - mean[k]) * inverse[k];
            g[k] = (g[k] - (first[k] + normalized * second[k])) * scale[k];
        }
        store_values<N>(out, i, g);
    }
}
template <class T>
__device__ void input_gradient(const T *x, const T *y, const T *d, const float *normal, const float *sums, T *out, int rows,
                               int columns, int activation, float slope, int total) {
    BY_COLUMNS(normal ? columns : total, input_gradient_of, x, y, d, normal, sums, out, rows, columns, activation, slope, total);
}

// sums: (groups, 2, columns), those of gradient_sums for each group of the batch.
__device__ void affine_gradients(const float *sums, float *weight, float *bias, int groups, int columns) {
    EACH(column, columns) {
        float first = 0.f, second = 0.f;
        for (int group = 0; group < groups; group++) {
            first += sums[(i64)(2 * group) * columns + column];
            second += sums[(i64)(2 * group + 1) * columns + column];
        }
        bias[column] = first;
        weight[column] = second;
    }
}

// ---- a training step

// scalars, on the device for the length of a step
enum { OUTPUT_ROW, DISCRIMINATOR_RATE, DISCRIMINATOR_ROOT, GENERATOR_RATE, GENERATOR_ROOT, SCALARS = 16 };

// Images of a batch, and those of the dataset that are kept on the device.
struct Images {
    const u8 *pixels;       // of the images that are given
    u8 *kept;               // (images of the dataset, h, w, c), or null: all images are given
    const int *sources;     // (n, 2): the number in the dataset, and what the image is
    int width, channels, len;
};
enum { MIRRORED = 1, GIVEN = 2 };

// Copies what a step reads from its slot. z: (n, z_len / n); labels (n, classes), `copies` times; pixels as bytes, whose
// values `table` has.
template <class T>
__device__ void step_input(const float *scalars, float *scalars_out, const float *z, T *z_out, int z_len, const float *labels,
                           float *labels_out, int labels_len, int copies, Images s, const float *table, T *x, int x_len) {
    EACH(i, x_len + z_len + labels_len + SCALARS) {
        unsigned at = i;
        if (at < (unsigned)x_len) {
            u8 byte;
            if (s.kept) {
                unsigned image = at / s.len, source = at % s.len;
                int number = s.sources[2 * image], is = s.sources[2 * image + 1];
                if (is & MIRRORED) {
                    unsigned pixel = source / s.channels, column = pixel % s.width;
                    source = (pixel - column + s.width - 1 - column) * s.channels + source % s.channels;
                }
                u8 *kept = s.kept + (i64)number * s.len;
                byte = is & GIVEN ? s.pixels[image * s.len + source] : kept[source];
                if (is & GIVEN) kept[source] = byte;
            } else {
                byte = s.pixels[at];
            }
            store(x, at, table[byte]);
            continue;
        }
        at -= x_len;
        if (at < (unsigned)z_len) {
            store(z_out, at, z[at]);
            continue;
        }
        at -= z_len;
        if (at < (unsigned)labels_len) {
            for (int copy = 0; copy < copies; copy++) labels_out[copy * labels_len + at] = labels[at];
            continue;
        }
        at -= labels_len;
        scalars_out[at] = scalars[at];
    }
}

// Sums over the threads of a block of 256, in the same order always. Ends with a barrier.
__shared__ double totals[2][256];
__device__ void block_sums(double first, double second) {
    totals[0][threadIdx.x] = first;
    totals[1][threadIdx.x] = second;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < (unsigned)half) {
            totals[0][threadIdx.x] += totals[0][threadIdx.x + half];
            totals[1][threadIdx.x] += totals[1][threadIdx.x + half];
        }
        __syncthreads();
    }
}

// Binary cross-entropy of n logits against one target, the mean of sigmoid, and the gradient of the mean loss with
// respect to each logit; means over `total` logits, of which other processes have the rest. One block. Loss and mean go
// to `column` of `found` and the one behind it.
template <class T> __device__ void bce(const T *logits, T *gradient, float *found, int column, int n, int total, float target) {
    double loss = 0, probability = 0;
    for (int i = threadIdx.x; i < n; i += 256) {
        double x = load(logits, i), p = 1.0 / (1.0 + exp(-x));
        loss += fmax(x, 0.0) - x * target + log1p(exp(-fabs(x)));
        probability += p;
        store(gradient, i, (float)((p - target) / total));
    }
    block_sums(loss, probability);
    if (threadIdx.x == 0) {
        found[column] = (float)(totals[0][0] / total);
        found[column + 1] = (float)(totals[1][0] / total);
    }
}

// Sums of squares of pieces of the gradient, a block for each: pieces (blocks, 2), where one starts and its length.
__device__ void square_sums(const float *gradient, const int *pieces, double *out) {
    const float *piece = gradient + pieces[2 * blockIdx.x];
    int len = pieces[2 * blockIdx.x + 1];
    double sum = 0;
    for (int i = threadIdx.x; i < len; i += 256) sum += (double)piece[i] * piece[i];
    block_sums(sum, 0);
    if (threadIdx.x == 0) out[blockIdx.x] = totals[0][0];
}

// The norm of the gradient, and whether an update may be made. tensors: (count + 1), the first piece of each; norms:
// (count), squared, for the moment. output: (rows, width); the row is OUTPUT_ROW of the scalars. Writes the norm to
// `column` of the row and behind it the first tensor whose gradient is not finite, or -1, and copies `losses` pairs of
// loss and mean from `loss_column` of `found` on. Where the gradient or a loss is not finite, `failed` is set, and stays
// so. One block.
__device__ void check_gradient_norm(const double *squares, const int *tensors, double *norms, int count, const float *scalars,
                               const float *found, float *output, int width, int column, int loss_column, int losses,
                               int *failed) {
    double sum = 0;
    for (int tensor = threadIdx.x; tensor < count; tensor += 256) {
        double of_tensor = 0;
        for (int piece = tensors[tensor]; piece < tensors[tensor + 1]; piece++) of_tensor += squares[piece];
        norms[tensor] = of_tensor;
        sum += of_tensor;
    }
    block_sums(sum, 0);
    if (threadIdx.x != 0) return;
    double total = totals[0][0];
    int bad = -1;
    if (!(total - total == 0)) // rarely: the others wait
        for (int tensor = count - 1; tensor >= 0; tensor--)
            if (!(norms[tensor] - norms[tensor] == 0)) bad = tensor;
    float *row = output + (i64)scalars[OUTPUT_ROW] * width;
    row[column] = (float)sqrt(total);
    row[column + 1] = (float)bad;
    bool finite = total - total == 0;
    for (int i = loss_column; i < loss_column + 2 * losses; i++) {
        row[i] = found[i];
        finite = finite && found[i] - found[i] == 0;
    }
    if (!finite) *failed = 1;
}

// p: the parameters; narrow: their copy in bf16, or null; m and v: the moments. scalars[rate] is the learning rate over
// 1 - beta1^t and the one behind it the root of 1 - beta2^t. Nothing happens once a step has failed.
__device__ void adam_step(float *p, u16 *narrow, const float *gradient, float *m, float *v, const float *scalars, int rate,
                          const int *failed, float decay, float beta1, float rest1, float beta2, float rest2, float eps, int n) {
    if (*failed) return;
    float step = scalars[rate], root = scalars[rate + 1];
    EACH(i, n) {
        float g = gradient[i] + decay * p[i];
        float first = beta1 * m[i] + rest1 * g, second = beta2 * v[i] + rest2 * g * g;
        float value = p[i] - step * (first / (sqrtf(second) / root + eps));
        m[i] = first;
        v[i] = second;
        p[i] = value;
        if (narrow) store(narrow, i, value);
    }
}

__device__ void blend_average(float *average, const float *p, const int *failed, float decay, int n) {
    if (*failed) return;
    EACH(i, n) average[i] = decay * average[i] + (1.f - decay) * p[i];
}

// ---- entry points, for maps of f32 and of bf16

#define KERNEL extern "C" __global__ void
#define BOTH(name, parameters, arguments)                                                                              \
    KERNEL name##_f32 parameters(float) { name<float> arguments; }                                                     \
    KERNEL name##_bf16 parameters(u16) { name<u16> arguments; }

KERNEL copy(const float *x, float *y, int n) { convert<float, float>(x, y, n); }
KERNEL zero(float *x, int n) { EACH(i, n) x[i] = 0.f; }
KERNEL narrow(const float *x, u16 *y, int n) { convert<float, u16>(x, y, n); }
KERNEL widen(const u16 *x, float *y, int n) { convert<u16, float>(x, y, n); }

#define JOINED int height, int width, int channels, int out_height, int out_width, int classes, int resample, int factor
#define SHAPE Joined{height, width, channels, out_height, out_width, classes, resample, factor}
#define P(T) (const T *x, const float *labels, T *out, JOINED, int total)
BOTH(linear_input, P, (x, labels, out, SHAPE, total))
#undef P
#define P(T) (const T *x, const T *d, T *out, JOINED, int total)
BOTH(linear_input_gradient, P, (x, d, out, SHAPE, total))
#undef P
#define P(T) (T *x, const float *bias, const float *labels, const float *weight, int classes, int channels, int total)
BOTH(add_bias, P, (x, bias, labels, weight, classes, channels, total))
#undef P
#define P(T) (const T *d, const float *labels, float *out, int n, int classes, int channels)
BOTH(label_gradient, P, (d, labels, out, n, classes, channels))
#undef P
#define P(T) (const T *x, float *parts, int rows, int columns, int lanes)
BOTH(moments, P, (x, parts, rows, columns, lanes))
BOTH(sums, P, (x, parts, rows, columns, lanes))
#undef P
#define P(T)                                                                                                           \
    (const T *x, const float *parts, const float *weight, const float *bias, float *variance, float *normal,           \
     int splits, int rows, int columns, float eps, float *running, float momentum)
BOTH(finish_moments, P, (x, parts, weight, bias, variance, normal, splits, rows, columns, eps, running, momentum))
#undef P
KERNEL given_statistics(const float *mean, const float *variance, const float *weight, const float *bias, float *normal,
                        int columns, float eps) {
    given_moments(mean, variance, weight, bias, normal, columns, eps);
}
#define P(T) (const T *x, const float *normal, T *y, int columns, int activation, float slope, int total)
BOTH(normalize, P, (x, normal, y, columns, activation, slope, total))
#undef P
#define P(T)                                                                                                           \
    (const T *x, const T *y, const T *d, const float *normal, float *parts, int rows, int columns, int activation,     \
     float slope, int lanes)
BOTH(gradient_sums, P, (x, y, d, normal, parts, rows, columns, activation, slope, lanes))
#undef P
KERNEL combine_moments(const float *moments, const float *weight, const float *bias, float *variance, float *normal,
                       int processes, int rows, int columns, float eps, float *running, float momentum) {
    combine_process_moments(moments, weight, bias, variance, normal, processes, rows, columns, eps, running, momentum);
}
// parts: (processes, n); their sums.
KERNEL combine_sums(const float *parts, float *out, int processes, int n) {
    EACH(i, n) {
        double sum = 0;
        for (int process = 0; process < processes; process++) sum += parts[(i64)process * n + i];
        out[i] = (float)sum;
    }
}
KERNEL total_sums(const float *parts, float *out, int splits, int columns) { finish_sums(parts, out, splits, columns); }
#define P(T)                                                                                                           \
    (const T *x, const T *y, const T *d, const float *normal, const float *sums, T *out, int rows, int columns,        \
     int activation, float slope, int total)
BOTH(input_gradient, P, (x, y, d, normal, sums, out, rows, columns, activation, slope, total))
#undef P
KERNEL affine_gradient(const float *sums, float *weight, float *bias, int groups, int columns) {
    affine_gradients(sums, weight, bias, groups, columns);
}
#define P(T)                                                                                                           \
    (const float *scalars, float *scalars_out, const float *z, T *z_out, int z_len, const float *labels,               \
     float *labels_out, int labels_len, int copies, const u8 *pixels, u8 *kept, const int *sources, int width,         \
     int channels, int len, const float *table, T *x, int x_len)
BOTH(step_input, P, (scalars, scalars_out, z, z_out, z_len, labels, labels_out, labels_len, copies,
                     Images{pixels, kept, sources, width, channels, len}, table, x, x_len))
#undef P
#define P(T) (const T *logits, T *gradient, float *found, int column, int n, int total, float target)
BOTH(bce, P, (logits, gradient, found, column, n, total, target))
#undef P
KERNEL squares(const float *gradient, const int *pieces, double *out) { square_sums(gradient, pieces, out); }
KERNEL check_gradient(const double *squares, const int *tensors, double *norms, int count, const float *scalars,
                      const float *found, float *output, int width, int column, int loss_column, int losses, int *failed) {
    check_gradient_norm(squares, tensors, norms, count, scalars, found, output, width, column, loss_column, losses, failed);
}
KERNEL adam(float *p, u16 *narrow, const float *gradient, float *m, float *v, const float *scalars, int rate,
            const int *failed, float decay, float beta1, float rest1, float beta2, float rest2, float eps, int n) {
    adam_step(p, narrow, gradient, m, v, scalars, rate, failed, decay, beta1, rest1, beta2, rest2, eps, n);
}
KERNEL ema(float *average, const float *p, const int *failed, float decay, int n) {
    blend_average(average, p, failed, decay, n);
}
