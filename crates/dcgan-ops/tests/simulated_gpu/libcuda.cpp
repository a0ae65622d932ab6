// A CUDA driver that runs the program's own kernels on the CPU: the calls that cudarc makes, and no more.
//
// Blocks and threads run in an order that SIMULATED_SEED shuffles; memory starts as NaN; what runs over the end of an
// allocation faults; pointers that are none of the device end the program. SIMULATED_FULL=n: the n-th allocation fails;
// SIMULATED_MEMORY: bytes of the device.
//
// Streams keep their work until something waits for it. Then the next piece is taken from any stream that does not wait
// for an event: work that is ordered only by chance runs in another order. Copies from pinned memory read it when they
// run, and freed memory is unmapped. A stream that is captured collects its work in a graph; SIMULATED_NO_CAPTURE: it
// ends with an error. SIMULATED_BACKGROUND: a thread runs work as well, so that other processes, which wait for it in
// NCCL, go on while this one waits for them.
#define HOST_SHIM
#include "kernels.cu"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <sys/mman.h>
#include <tuple>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;
extern char __start_cushared[], __stop_cushared[];

namespace {
[[noreturn]] void fail(const char *what) {
    fprintf(stderr, "simulated GPU: %s (block %u,%u thread %u)\n", what, blockIdx.x, blockIdx.y, threadIdx.x);
    _exit(99);
}

int setting(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

enum State { Ready, AtBarrier, Done };
struct Fiber {
    ucontext_t context;
    State state;
    int line;
    dim3 index;
};
std::vector<Fiber> fibers;
std::vector<std::vector<char>> stacks;
ucontext_t scheduler;
Fiber *current;
std::function<void()> body;
std::mt19937 rng(setting("SIMULATED_SEED", 1));

void enter() {
    body();
    current->state = Done;
    swapcontext(&current->context, &scheduler);
}

void run_block() {
    unsigned n = blockDim.x * blockDim.y * blockDim.z;
    fibers.resize(n);
    while (stacks.size() < n) stacks.emplace_back(64 * 1024);
    memset(__start_cushared, 0xff, __stop_cushared - __start_cushared);
    for (unsigned i = 0; i < n; i++) {
        Fiber &f = fibers[i];
        f.state = Ready;
        f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stacks[i].data();
        f.context.uc_stack.ss_size = stacks[i].size();
        f.context.uc_link = nullptr;
        makecontext(&f.context, enter, 0);
    }
    std::vector<unsigned> order(n);
    for (unsigned i = 0; i < n; i++) order[i] = i;
    for (;;) {
        std::shuffle(order.begin(), order.end(), rng);
        for (unsigned i : order)
            if (fibers[i].state == Ready) {
                current = &fibers[i];
                threadIdx = current->index;
                swapcontext(&scheduler, &current->context);
            }
        unsigned waiting = 0;
        int line = 0;
        for (Fiber &f : fibers)
            if (f.state == AtBarrier) {
                if (line && line != f.line) fail("threads of a block wait at different barriers");
                line = f.line;
                waiting++;
            }
        if (waiting == 0) return;
        if (waiting != n) fail("a barrier that not all threads reach");
        for (Fiber &f : fibers) f.state = Ready;
    }
}

void launch(dim3 grid, dim3 block, std::function<void()> f) {
    if (!block.x || block.x * block.y * block.z > 1024 || !grid.x || !grid.y || grid.y > 65535 || grid.z > 65535)
        fail("a launch out of limits");
    gridDim = grid;
    blockDim = block;
    body = std::move(f);
    std::vector<dim3> blocks;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) blocks.push_back({x, y, z});
    std::shuffle(blocks.begin(), blocks.end(), rng);
    for (dim3 b : blocks) {
        blockIdx = b;
        run_block();
    }
}

struct Memory {
    char *base;
    size_t mapped, bytes;
};
// Memory is freed by any thread, also while another one runs a kernel.
std::mutex lock;
std::map<uintptr_t, Memory> memory;
int allocations;
size_t used;

bool is_device(uintptr_t p) {
    std::lock_guard<std::mutex> locked(lock);
    auto it = memory.upper_bound(p);
    if (it == memory.begin()) return false;
    --it;
    return p < it->first + std::max<size_t>(it->second.bytes, 1);
}

struct Kernel {
    const char *name;
    std::function<std::function<void()>(void **)> bind;
};

template <class T> T argument(void *p, const char *name, int i) {
    T value;
    memcpy(&value, p, sizeof value);
    if constexpr (std::is_pointer_v<T>)
        if (value && !is_device((uintptr_t)value)) {
            fprintf(stderr, "simulated GPU: argument %d of %s is no device pointer: %p\n", i, name, (void *)value);
            _exit(98);
        }
    return value;
}

template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), void **p, const char *name, std::index_sequence<I...>) {
    std::tuple<A...> arguments{argument<A>(p[I], name, (int)I)...};
    return [kernel, arguments] { std::apply(kernel, arguments); };
}

template <class... A> Kernel kernel(const char *name, void (*k)(A...)) {
    return {name, [=](void **p) { return bound(k, p, name, std::index_sequence_for<A...>()); }};
}

#define ONE(k) kernel(#k, k)
#define TWO(k) ONE(k##_f32), ONE(k##_bf16)
Kernel kernels[] = {
    ONE(copy), ONE(zero), ONE(narrow), ONE(widen), ONE(given_statistics), ONE(total_sums),
    ONE(combine_moments), ONE(combine_sums),
    TWO(linear_input), TWO(linear_input_gradient), TWO(add_bias), TWO(label_gradient), TWO(moments), TWO(sums),
    TWO(finish_moments), TWO(normalize), TWO(gradient_sums), TWO(input_gradient),
    ONE(affine_gradient), TWO(step_input), TWO(bce), ONE(squares), ONE(check_gradient), ONE(adam), ONE(ema),
};

// Driver calls come from any thread.
std::recursive_mutex calls;
#define LOCKED std::lock_guard<std::recursive_mutex> locked_calls(calls)

struct Event {
    long recorded = 0, done = 0;
};
struct Work {
    std::function<void()> run;
    Event *event = nullptr; // waited for, until this record of it is done
    long record = 0;
};
struct Graph {
    std::vector<std::function<void()>> work;
};
struct Stream {
    std::deque<Work> work;
    Graph *capture = nullptr;
};
std::vector<Stream *> streams;
std::map<uintptr_t, size_t> pinned;

bool is_ready(const Stream &stream) {
    if (stream.work.empty()) return false;
    const Work &next = stream.work.front();
    return !next.event || next.event->done >= next.record;
}

// Runs work of any streams until `done`.
template <class Done> void run_until(Done done) {
    while (!done()) {
        std::vector<Stream *> ready;
        for (Stream *stream : streams)
            if (is_ready(*stream)) ready.push_back(stream);
        if (ready.empty()) fail("streams that wait for each other");
        Stream *stream = ready[rng() % ready.size()];
        auto run = std::move(stream->work.front().run);
        stream->work.pop_front();
        if (run) run();
    }
}

// Runs a piece of work, if one is ready.
bool run_piece() {
    LOCKED;
    std::vector<Stream *> ready;
    for (Stream *stream : streams)
        if (is_ready(*stream)) ready.push_back(stream);
    if (ready.empty()) return false;
    Stream *stream = ready[rng() % ready.size()];
    auto run = std::move(stream->work.front().run);
    stream->work.pop_front();
    if (run) run();
    return true;
}

void run_in_background() {
    static std::once_flag once;
    std::call_once(once, [] {
        std::atexit([] { calls.lock(); }); // no more work while the program ends
        std::thread([] {
            for (;;)
                if (!run_piece()) usleep(200);
        }).detach();
    });
}

void submit(void *stream, std::function<void()> f) {
    Stream *s = (Stream *)stream;
    if (s->capture) s->capture->work.push_back(std::move(f));
    else s->work.push_back({std::move(f)});
}

bool is_pinned(const void *p) {
    auto it = pinned.upper_bound((uintptr_t)p);
    if (it == pinned.begin()) return false;
    --it;
    return (uintptr_t)p < it->first + it->second;
}
} // namespace

void shim_barrier(int line) {
    current->line = line;
    current->state = AtBarrier;
    swapcontext(&current->context, &scheduler);
}

#define API extern "C" __attribute__((visibility("default"))) int
typedef unsigned long long ptr;
enum { CAPTURED = 900 }; // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
API cuInit(unsigned) { return 0; }
API cuDeviceGetCount(int *n) { *n = setting("SIMULATED_GPUS", 1); return 0; }
API cuDeviceGet(int *d, int i) { *d = i; return 0; }
API cuDeviceGetName(char *name, int n, int) { snprintf(name, n, "simulated GPU"); return 0; }
API cuDeviceGetAttribute(int *v, int, int) { *v = 1; return 0; }
API cuDevicePrimaryCtxRetain(void **c, int) { *c = (void *)1; return 0; }
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuCtxGetCurrent(void **c) { *c = (void *)1; return 0; }
API cuCtxSetCurrent(void *) { return 0; }
API cuCtxSynchronize() { return 0; }
static size_t device_memory() { return setting("SIMULATED_MEMORY", 1 << 30); }
API cuMemGetInfo_v2(size_t *free, size_t *total) {
    std::lock_guard<std::mutex> locked(lock);
    *total = device_memory();
    *free = *total - used;
    return 0;
}
API cuStreamCreate(void **s, unsigned) {
    if (setting("SIMULATED_BACKGROUND", 0)) run_in_background();
    LOCKED;
    streams.push_back(new Stream);
    *s = streams.back();
    return 0;
}
API cuStreamSynchronize(void *stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (s->capture) return CAPTURED;
    run_until([=] { return s->work.empty(); });
    return 0;
}
API cuStreamDestroy_v2(void *stream) {
    LOCKED;
    cuStreamSynchronize(stream);
    streams.erase(std::find(streams.begin(), streams.end(), (Stream *)stream));
    delete (Stream *)stream;
    return 0;
}
API cuStreamWaitEvent(void *stream, void *event, unsigned) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (s->capture) return CAPTURED; // waiting for work outside of the capture
    s->work.push_back({nullptr, (Event *)event, ((Event *)event)->recorded});
    return 0;
}
API cuEventCreate(void **e, unsigned) { *e = new Event; return 0; }
API cuEventRecord(void *event, void *stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (s->capture) return CAPTURED;
    Event *e = (Event *)event;
    long record = ++e->recorded;
    s->work.push_back({[=] { e->done = record; }});
    return 0;
}
API cuEventSynchronize(void *event) {
    LOCKED;
    Event *e = (Event *)event;
    run_until([=] { return e->done >= e->recorded; });
    return 0;
}
API cuEventElapsedTime(float *ms, void *, void *) { *ms = 1; return 0; }
API cuEventElapsedTime_v2(float *ms, void *, void *) { *ms = 1; return 0; }
API cuEventDestroy_v2(void *event) {
    LOCKED;
    cuEventSynchronize(event);
    Event *e = (Event *)event;
    for (Stream *stream : streams) // a wait that has not come to the front is over
        for (Work &work : stream->work)
            if (work.event == e) work.event = nullptr;
    delete e;
    return 0;
}
API cuStreamBeginCapture_v2(void *stream, int) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (s->capture) return CAPTURED;
    s->capture = new Graph;
    return 0;
}
API cuStreamEndCapture(void *stream, void **graph) {
    LOCKED;
    Stream *s = (Stream *)stream;
    *graph = s->capture;
    s->capture = nullptr;
    if (setting("SIMULATED_NO_CAPTURE", 0)) {
        *graph = nullptr;
        return 901; // CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    }
    return *graph ? 0 : 1;
}
API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long) { *exec = new Graph(*(Graph *)graph); return 0; }
API cuGraphLaunch(void *exec, void *stream) {
    LOCKED;
    for (auto &work : ((Graph *)exec)->work) submit(stream, work);
    return 0;
}
API cuGraphExecDestroy(void *exec) { delete (Graph *)exec; return 0; }
API cuGraphDestroy(void *graph) { delete (Graph *)graph; return 0; }
API cuMemAllocAsync(ptr *p, size_t bytes, void *stream) {
    LOCKED;
    if (stream && ((Stream *)stream)->capture) return CAPTURED;
    std::lock_guard<std::mutex> locked(lock);
    if (++allocations == setting("SIMULATED_FULL", 0) || used + bytes > device_memory()) return 2; // CUDA_ERROR_OUT_OF_MEMORY
    used += bytes;
    size_t page = 4096, mapped = (std::max<size_t>(bytes, 1) + page - 1) / page * page + page;
    char *base = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(base + mapped - page, page, PROT_NONE);
    char *at = base + mapped - page - (bytes + 15) / 16 * 16;
    memset(base, 0xff, mapped - page);
    memory[(uintptr_t)at] = {base, mapped, bytes};
    *p = (ptr)at;
    return 0;
}
static int free_now(ptr p) {
    std::lock_guard<std::mutex> locked(lock);
    auto it = memory.find((uintptr_t)p);
    if (it == memory.end()) return 1;
    munmap(it->second.base, it->second.mapped);
    used -= it->second.bytes;
    memory.erase(it);
    return 0;
}
API cuMemFreeAsync(ptr p, void *stream) {
    LOCKED;
    if (((Stream *)stream)->capture) return CAPTURED;
    if (!is_device(p)) return 1;
    submit(stream, [=] { free_now(p); });
    return 0;
}
API cuMemAlloc_v2(ptr *p, size_t bytes) { return cuMemAllocAsync(p, bytes, nullptr); }
API cuMemFree_v2(ptr p) { return free_now(p); }
API cuMemHostAlloc(void **p, size_t bytes, unsigned) {
    LOCKED;
    if (++allocations == setting("SIMULATED_FULL", 0)) return 2;
    *p = malloc(std::max<size_t>(bytes, 1));
    memset(*p, 0xff, bytes);
    pinned[(uintptr_t)*p] = bytes;
    return 0;
}
API cuMemFreeHost(void *p) {
    LOCKED;
    if (!pinned.erase((uintptr_t)p)) return 1;
    free(p);
    return 0;
}
API cuMemsetD8Async(ptr p, unsigned char v, size_t n, void *stream) {
    LOCKED;
    submit(stream, [=] { memset((void *)p, v, n); });
    return 0;
}
API cuMemcpyHtoDAsync_v2(ptr d, const void *s, size_t n, void *stream) {
    LOCKED;
    if (!is_device(d)) return 1;
    if (is_pinned(s)) {
        submit(stream, [=] { memcpy((void *)d, s, n); });
        return 0;
    }
    if (((Stream *)stream)->capture) return CAPTURED;
    // Memory that is not pinned is read before the call returns.
    std::vector<char> copy((const char *)s, (const char *)s + n);
    submit(stream, [=] { memcpy((void *)d, copy.data(), n); });
    return 0;
}
API cuMemcpyDtoDAsync_v2(ptr d, ptr s, size_t n, void *stream) {
    LOCKED;
    if (!is_device(d) || !is_device(s)) return 1;
    submit(stream, [=] { memcpy((void *)d, (void *)s, n); });
    return 0;
}
API cuMemcpyDtoHAsync_v2(void *d, ptr s, size_t n, void *stream) {
    LOCKED;
    if (((Stream *)stream)->capture) return CAPTURED;
    if (!is_device(s)) return 1;
    submit(stream, [=] { memcpy(d, (void *)s, n); });
    return is_pinned(d) ? 0 : cuStreamSynchronize(stream);
}
API cuModuleLoadData(void **m, const void *) {
    *m = (void *)4;
    return setting("SIMULATED_OLD_DRIVER", 0) ? 222 : 0; // CUDA_ERROR_UNSUPPORTED_PTX_VERSION
}
API cuModuleUnload(void *) { return 0; }
API cuModuleGetFunction(void **f, void *, const char *name) {
    for (Kernel &k : kernels)
        if (!strcmp(k.name, name)) {
            *f = &k;
            return 0;
        }
    return 500; // CUDA_ERROR_NOT_FOUND
}
API cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   void *stream, void **parameters, void **) {
    LOCKED;
    auto run = ((Kernel *)f)->bind(parameters);
    submit(stream, [=] { launch({gx, gy, gz}, {bx, by, bz}, run); });
    return 0;
}
API cuGetErrorName(int e, const char **s) {
    *s = e == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : e == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" : "CUDA_ERROR";
    return 0;
}
API cuGetErrorString(int, const char **s) { *s = "simulated"; return 0; }
extern "C" __attribute__((visibility("default"))) void simulated_submit(void *stream, void *f) {
    LOCKED;
    submit(stream, *(std::function<void()> *)f);
}
