// cuDNN's backend API for one convolution: checks names, types, counts and shapes of attributes, then computes plainly.
//
// Its rules are those of the documentation as read; a real cuDNN may refuse more. SIMULATED_REFUSED=n: the first n plans
// are refused. The heuristics list an engine that is not deterministic, in f32 one that rounds, and a good one.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <string>
#include <vector>
#include <unistd.h>
namespace {
struct Desc { int kind; bool done = false; std::map<int, std::vector<char>> a; int engine = 0; };
std::string error;
int bad(std::string s) { error = std::move(s); return 2000; } // CUDNN_STATUS_BAD_PARAM
template <class V> V one(Desc *d, int name) { V v{}; auto it = d->a.find(name); if (it != d->a.end()) memcpy(&v, it->second.data(), sizeof v); return v; }
std::vector<int64_t> many(Desc *d, int name) { auto &b = d->a[name]; std::vector<int64_t> v(b.size() / 8); memcpy(v.data(), b.data(), b.size()); return v; }
enum { Good, NotDeterministic, Rounds };
int refused = getenv("SIMULATED_REFUSED") ? atoi(getenv("SIMULATED_REFUSED")) : 0;
enum { HANDLE, DATA, BOOL, I64, F32, F64, PTR, MODE, HEUR, DESC = 15 };
struct Rule { int type, count; };
const std::map<int, std::map<int, Rule>> rules = { // kind -> attribute -> type and count, 0 any
    {17, {{906, {I64, 1}}, {901, {DATA, 1}}, {900, {I64, 1}}, {902, {I64, 4}}, {903, {I64, 4}}}},
    {1, {{100, {DATA, 1}}, {101, {MODE, 1}}, {106, {I64, 1}}, {105, {I64, 2}}, {104, {I64, 2}}, {103, {I64, 2}}, {102, {I64, 2}}}},
    {10, {{700, {F32, 1}}, {701, {F32, 1}}, {702, {DESC, 1}}, {703, {DESC, 1}}, {704, {DESC, 1}}, {705, {DESC, 1}}}},
    {12, {{706, {F32, 1}}, {707, {F32, 1}}, {708, {DESC, 1}}, {709, {DESC, 1}}, {710, {DESC, 1}}, {711, {DESC, 1}}}},
    {11, {{712, {F32, 1}}, {713, {F32, 1}}, {714, {DESC, 1}}, {715, {DESC, 1}}, {716, {DESC, 1}}, {717, {DESC, 1}}}},
};
std::map<int, std::string> kinds;
float get(const void *p, int64_t i, int type) { if (type == 0) return ((const float *)p)[i]; uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16; float f; memcpy(&f, &u, 4); return f; }
void put(void *p, int64_t i, int type, float f) { if (type == 0) { ((float *)p)[i] = f; return; } uint32_t u; memcpy(&u, &f, 4); u = (u + 0x7fff + ((u >> 16) & 1)) >> 16; ((uint16_t *)p)[i] = (uint16_t)u; }
int64_t at(const std::vector<int64_t> &s, int64_t a, int64_t b, int64_t c, int64_t d) { return a * s[0] + b * s[1] + c * s[2] + d * s[3]; }
void convolve(Desc *op, void *x, void *w, void *y) {
    int base = op->kind == 10 ? 700 : op->kind == 12 ? 706 : 712;
    Desc *conv = one<Desc *>(op, base + 2);
    Desc *W = one<Desc *>(op, base + 3), *X = one<Desc *>(op, base + 4), *Y = one<Desc *>(op, base + 5);
    auto xd = many(X, 902), xs = many(X, 903), wd = many(W, 902), ws = many(W, 903), yd = many(Y, 902), ys = many(Y, 903), pad = many(conv, 105), st = many(conv, 103);
    int xt = one<int>(X, 901), wt = one<int>(W, 901), yt = one<int>(Y, 901);
    auto loop = [&](auto each) { // over (n, k, p, q, c, r, s) that are inside
        for (int64_t n = 0; n < yd[0]; n++) for (int64_t k = 0; k < yd[1]; k++) for (int64_t p = 0; p < yd[2]; p++) for (int64_t q = 0; q < yd[3]; q++)
            for (int64_t c = 0; c < wd[1]; c++) for (int64_t r = 0; r < wd[2]; r++) for (int64_t s = 0; s < wd[3]; s++) {
                int64_t h = p * st[0] + r - pad[0], v = q * st[1] + s - pad[1];
                if (h >= 0 && h < xd[2] && v >= 0 && v < xd[3]) each(at(xs, n, c, h, v), at(ws, k, c, r, s), at(ys, n, k, p, q));
            }
    };
    auto count = [](const std::vector<int64_t> &d) { return (size_t)(d[0] * d[1] * d[2] * d[3]); };
    std::vector<float> sum;
    if (op->kind == 10) { sum.assign(count(yd), 0); loop([&](int64_t i, int64_t j, int64_t k) { sum[k] += get(x, i, xt) * get(w, j, wt); }); for (size_t i = 0; i < sum.size(); i++) put(y, i, yt, sum[i]); }
    if (op->kind == 12) { sum.assign(count(xd), 0); loop([&](int64_t i, int64_t j, int64_t k) { sum[i] += get(y, k, yt) * get(w, j, wt); }); for (size_t i = 0; i < sum.size(); i++) put(x, i, xt, sum[i]); }
    if (op->kind == 11) { sum.assign(count(wd), 0); loop([&](int64_t i, int64_t j, int64_t k) { sum[j] += get(y, k, yt) * get(x, i, xt); }); for (size_t i = 0; i < sum.size(); i++) put(w, i, wt, sum[i]); }
}
void submit(void *stream, std::function<void()> f) {
    void *cuda = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_LAZY);
    auto s = cuda ? (void (*)(void *, void *))dlsym(cuda, "simulated_submit") : nullptr;
    if (s) s(stream, &f); else f();
}
} // namespace
#define API extern "C" __attribute__((visibility("default"))) int
struct Handle { void *stream = nullptr; };
API cudnnCreate(void **h) { *h = new Handle; return 0; }
API cudnnDestroy(void *h) { delete (Handle *)h; return 0; }
API cudnnSetStream(void *h, void *stream) { ((Handle *)h)->stream = stream; return 0; }
extern "C" size_t cudnnGetVersion() { return 91000; }
extern "C" const char *cudnnGetErrorString(int) { return "simulated"; }
extern "C" void cudnnGetLastErrorString(char *m, size_t n) { snprintf(m, n, "%s", error.c_str()); }
API cudnnBackendCreateDescriptor(int kind, void **d) { *d = new Desc{kind}; return 0; }
API cudnnBackendDestroyDescriptor(void *) { return 0; }
API cudnnBackendSetAttribute(void *p, int name, int type, int64_t count, const void *v) {
    Desc *d = (Desc *)p;
    if (d->done) return bad("attribute set after finalize");
    auto r = rules.find(d->kind);
    if (r != rules.end()) {
        auto a = r->second.find(name);
        if (a == r->second.end()) return bad("attribute " + std::to_string(name) + " does not belong to descriptor " + std::to_string(d->kind));
        if (a->second.type != type || (a->second.count && a->second.count != count)) return bad("attribute " + std::to_string(name) + " has another type or count");
    }
    size_t size = type == DATA || type == MODE || type == HEUR || type == F32 ? 4 : 8;
    if (type == DESC) for (int64_t i = 0; i < count; i++) if (!((Desc **)v)[i]->done) return bad("a descriptor that was not finalized");
    d->a[name].assign((const char *)v, (const char *)v + size * count); return 0;
}
API cudnnBackendFinalize(void *p) {
    Desc *d = (Desc *)p;
    auto r = rules.find(d->kind);
    if (r != rules.end()) for (auto &a : r->second) if (!d->a.count(a.first)) return bad("attribute " + std::to_string(a.first) + " is missing");
    if (d->kind >= 10 && d->kind <= 12) {
        int base = d->kind == 10 ? 700 : d->kind == 12 ? 706 : 712;
        Desc *conv = one<Desc *>(d, base + 2);
        auto w = many(one<Desc *>(d, base + 3), 902), x = many(one<Desc *>(d, base + 4), 902), y = many(one<Desc *>(d, base + 5), 902), pad = many(conv, 105), st = many(conv, 103);
        for (int i = 0; i < 2; i++) if ((x[2 + i] + 2 * pad[i] - w[2 + i]) / st[i] + 1 != y[2 + i]) return bad("output side does not fit");
        if (x[0] != y[0] || x[1] != w[1] || y[1] != w[0]) return bad("dimensions do not fit");
    }
    if (d->kind == 5 && refused-- > 0) return 3000; // an execution plan: CUDNN_STATUS_NOT_SUPPORTED
    d->done = true; return 0;
}
API cudnnBackendGetAttribute(void *p, int name, int, int64_t want, int64_t *count, void *out) {
    Desc *d = (Desc *)p; if (!d->done && d->kind != 2 && d->kind != 3) return bad("get before finalize");
    if (name == 202) {
        int64_t n = want < 3 ? want : 3; *count = n;
        for (int64_t i = 0; i < n; i++) { Desc *c = ((Desc **)out)[i]; c->engine = i == 0 ? NotDeterministic : i == 1 ? Rounds : Good; c->a[1] = d->a[201]; c->done = true; }
        return 0;
    }
    if (name == 300) { Desc *e = *(Desc **)out; e->engine = d->engine; e->done = true; *count = 1; return 0; }
    if (name == 1303) {
        int notes[3], n = 0;
        if (d->engine == Rounds) notes[n++] = 0; // TENSOR_CORE
        if (d->engine == NotDeterministic) notes[n++] = 4;
        *count = n; memcpy(out, notes, n * sizeof(int)); return 0;
    }
    if (name == 1301) { *(int64_t *)out = d->engine; *count = 1; return 0; }
    if (name == 402) { *(int64_t *)out = 4096; *count = 1; return 0; }
    return bad("unknown attribute asked for");
}
API cudnnBackendExecute(void *handle, void *plan, void *pack) {
    Desc *config = one<Desc *>((Desc *)plan, 401), *graph = one<Desc *>(config, 1), *op = one<Desc *>(graph, 801);
    int base = op->kind == 10 ? 700 : op->kind == 12 ? 706 : 712;
    bool wide = one<int>(one<Desc *>(op, base + 4), 901) == 0;
    if (config->engine == NotDeterministic) return bad("the engine that is not deterministic was chosen");
    if (config->engine == Rounds && wide) return bad("an engine that rounds f32 was chosen");
    auto ids = many((Desc *)pack, 1000), pointers = many((Desc *)pack, 1001);
    if (!one<void *>((Desc *)pack, 1003)) return bad("no workspace");
    void *x = 0, *w = 0, *y = 0;
    for (size_t i = 0; i < ids.size(); i++) { void *q = (void *)pointers[i]; if ((uintptr_t)q % 16) return bad("not aligned to 16 bytes"); if (ids[i] == 'x') x = q; if (ids[i] == 'w') w = q; if (ids[i] == 'y') y = q; }
    if (!x || !w || !y) return bad("a pointer is missing");
    submit(((Handle *)handle)->stream, [=] { convolve(op, x, w, y); });
    return 0;
}
