// NCCL for processes of one machine: the calls that the program makes, in f32. Operations run with the work of the
// stream; a process waits in one until all others are in it.
//
// The id names a file that the processes map: counters, and a place for the values of each. SIMULATED_NCCL_FAIL=n: the
// n-th operation of a process fails.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <functional>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {
constexpr int MOST = 16;
constexpr size_t PLACE = 64 << 20; // bytes of a process
struct Head {
    std::atomic<int> joined;
    std::atomic<long> arrived[MOST]; // barriers that a process has reached
    long kind[MOST];                 // of the operation, and its values
};
struct Comm {
    Head *head;
    char *places;
    int size, rank;
    long barriers = 0;

    char *place(int r) const { return places + r * PLACE; }
    void barrier() {
        head->arrived[rank] = ++barriers;
        for (int r = 0; r < size; r++)
            while (head->arrived[r] < barriers) sched_yield();
    }
    // Runs `combine` when the values of all are there.
    void exchange(long kind, const void *values, size_t bytes, const std::function<void()> &combine) {
        if (bytes > PLACE) { fprintf(stderr, "simulated NCCL: too many values\n"); _exit(97); }
        head->kind[rank] = kind;
        memcpy(place(rank), values, bytes);
        barrier();
        for (int r = 0; r < size; r++)
            if (head->kind[r] != kind) { fprintf(stderr, "simulated NCCL: processes in different operations\n"); _exit(97); }
        combine();
        barrier();
    }
};
int operations;

bool fails() {
    const char *value = getenv("SIMULATED_NCCL_FAIL");
    return ++operations == (value ? atoi(value) : 0);
}

void submit(void *stream, std::function<void()> f) {
    static auto call = (void (*)(void *, void *))dlsym(RTLD_DEFAULT, "simulated_submit");
    if (!call) call = (void (*)(void *, void *))dlsym(dlopen("libcuda.so.1", RTLD_NOW), "simulated_submit");
    call(stream, &f);
}
} // namespace

#define API extern "C" __attribute__((visibility("default"))) int
struct Id { char internal[128]; };
API ncclGetUniqueId(Id *id) {
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "%s/simulated-nccl-%d-XXXXXX", P_tmpdir, (int)getpid());
    int file = mkstemp(id->internal);
    if (file < 0 || ftruncate(file, 4096 + MOST * PLACE)) return 2;
    close(file);
    return 0;
}
API ncclCommInitRank(void **comm, int size, Id id, int rank) {
    int file = open(id.internal, O_RDWR);
    if (size > MOST || file < 0) return 2;
    char *map = (char *)mmap(nullptr, 4096 + MOST * PLACE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED) return 2;
    Comm *c = new Comm{(Head *)map, map + 4096, size, rank};
    c->head->joined++;
    while (c->head->joined < size) sched_yield();
    if (rank == 0) unlink(id.internal);
    *comm = c;
    return 0;
}
API ncclCommDestroy(void *comm) { delete (Comm *)comm; return 0; }
API ncclAllGather(const void *send, void *receive, size_t n, int type, void *comm, void *stream) {
    if (type != 7 || fails()) return 3;
    Comm *c = (Comm *)comm;
    submit(stream, [=] {
        c->exchange((long)n, send, 4 * n, [=] {
            for (int r = 0; r < c->size; r++) memcpy((char *)receive + 4 * n * r, c->place(r), 4 * n);
        });
    });
    return 0;
}
API ncclAllReduce(const void *send, void *receive, size_t n, int type, int op, void *comm, void *stream) {
    if (type != 7 || op != 0 || fails()) return 3;
    Comm *c = (Comm *)comm;
    submit(stream, [=] {
        c->exchange(-(long)n, send, 4 * n, [=] {
            for (size_t i = 0; i < n; i++) {
                float sum = 0;
                for (int r = 0; r < c->size; r++) sum += ((float *)c->place(r))[i];
                ((float *)receive)[i] = sum;
            }
        });
    });
    return 0;
}
extern "C" __attribute__((visibility("default"))) const char *ncclGetErrorString(int) { return "simulated"; }
