/* SPDX-License-Identifier: MIT
 *
 * bench_gpu.cu - checks and times the backends that run a whole network in one kernel, on the
 * device: bytes there to logits there.
 *
 *     bench_gpu [--quick] [--check] [--family] [--time] [--limits]
 *               [--blob FILE]... [--images FILE]... [BACKEND...]
 *
 * Checks, each on fresh random images: logits against the same network in double on the CPU;
 * ragged batches with poisoned outputs and guard zones; every result the same to the bit
 * whatever the batch's size, the image's place in it, or the repetition. Then times: medians of
 * event-timed runs. --quick keeps batches small, for compute-sanitizer; --check leaves out the
 * times; --family goes through every member. Lines on stdout are JSON; exits 1 if a check
 * fails.
 */
#include "whole.cuh"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <thread>
#include <vector>

#define TRY(call)                                                                              \
    do {                                                                                       \
        const cudaError_t status_ = (call);                                                    \
        if (status_ != cudaSuccess) {                                                          \
            printf("{\"error\": \"%s:%d %s\"}\n", __FILE__, __LINE__,                          \
                   cudaGetErrorString(status_));                                               \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

struct Subject {
    const char *name;
    const struct backend *backend;
    double bound;   /* on a logit's error, relative above 1; 0: is only timed */
    double trained; /* the same for trained weights, which are larger and raise every rounding;
                       the reference in plain float32 is 2e-5 from float64 with them */
};

static const Subject subjects[] = {
    {"fused", &backend_fused, 1e-5, 4e-5},
    {"tensor", &backend_tensor, 1e-3, 5e-2},
    {"cuda", &backend_cuda, 0, 0},
};

static int failures;
static int quick;
static uint64_t seed = 20240229;

static double uniform(void) { /* splitmix64, [0, 1) */
    uint64_t z = (seed += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* ---- Networks ---- */

static struct layer row(enum op op, int maps, int window, int border, enum activation a) {
    struct layer l = {};
    snprintf(l.name, sizeof l.name, "%s_%d", op_name(op), maps);
    l.op = op;
    l.activation = a;
    if (a == ACT_RELU)
        l.param[2] = FLT_MAX;
    l.out.c = maps;
    l.kernel_h = l.kernel_w = window;
    l.stride_h = l.stride_w = !window ? 0 : op == OP_CONV ? 1 : 2;
    l.pad_top = l.pad_left = l.pad_bottom = l.pad_right = border;
    l.biases = op == OP_CONV || op == OP_DENSE;
    return l;
}

/* Glorot's uniform weights, biases within 0.1. */
static void fill(struct model *m) {
    size_t total = 0;
    for (int k = 0; k < m->count; k++)
        total += m->layers[k].weights + m->layers[k].biases;
    float *p = m->floats = (float *)malloc(total * sizeof *p);
    m->float_count = total;
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &m->layers[k];
        if (!l->weights)
            continue;
        const double in = (double)l->weights / l->out.c;
        const double out = l->op == OP_CONV ? l->out.c * l->kernel_h * l->kernel_w : l->out.c;
        const double limit = sqrt(6.0 / (in + out));
        l->weight = p;
        for (size_t j = 0; j < l->weights; j++)
            *p++ = (float)((2 * uniform() - 1) * limit);
        l->bias = p;
        for (size_t j = 0; j < l->biases; j++)
            *p++ = (float)(0.2 * uniform() - 0.1);
    }
}

static void make_model(struct model *m, int side, int border, enum activation a, enum op pool,
                       int conv5) {
    struct lenet5_error err;
    memset(m, 0, sizeof *m);
    m->input = {1, side, side};
    m->scale = 1.0f / 255.0f;
    m->offset = border ? 0.0f : -0.25f;
    const struct layer rows[] = {row(OP_CONV, 6, 5, border, a),
                                 row(pool, 6, 2, 0, ACT_LINEAR),
                                 row(OP_CONV, 16, 5, 0, a),
                                 row(pool, 16, 2, 0, ACT_LINEAR),
                                 conv5 ? row(OP_CONV, 120, 5, 0, a)
                                       : row(OP_DENSE, 120, 0, 0, a),
                                 row(OP_DENSE, 84, 0, 0, a),
                                 row(OP_DENSE, 10, 0, 0, ACT_LINEAR),
                                 row(OP_ACTIVATION, 10, 0, 0, ACT_SOFTMAX)};
    m->count = (int)(sizeof rows / sizeof *rows);
    memcpy(m->layers, rows, sizeof rows);
    if (network_check(m->layers, m->count, m->input, &err)) {
        printf("{\"error\": \"%s\"}\n", err.message);
        exit(1);
    }
    fill(m);
}

/* ---- The network in double ---- */

static double activate_double(const struct layer *l, double z) {
    switch (l->activation) {
    case ACT_TANH:
        return tanh(z);
    case ACT_SIGMOID:
        return 1.0 / (1.0 + exp(-z));
    case ACT_RELU:
        return z > 0.0 ? z : 0.0;
    default:
        return z;
    }
}

static void layer_double(const struct layer *l, const double *x, double *y) {
    const int dense = l->op == OP_DENSE, pool = l->op != OP_CONV && !dense;
    const int C = l->in.c, H = l->in.h, W = l->in.w;
    const int KH = dense ? H : l->kernel_h, KW = dense ? W : l->kernel_w;
    for (int o = 0; o < l->out.c; o++)
        for (int r = 0; r < l->out.h; r++)
            for (int q = 0; q < l->out.w; q++) {
                double sum = l->bias ? l->bias[o] : 0.0, most = -DBL_MAX;
                for (int c = pool ? o : 0; c < (pool ? o + 1 : C); c++)
                    for (int u = 0; u < KH; u++)
                        for (int v = 0; v < KW; v++) {
                            const int h = r * (dense ? 1 : l->stride_h) - l->pad_top + u;
                            const int w = q * (dense ? 1 : l->stride_w) - l->pad_left + v;
                            if (h < 0 || h >= H || w < 0 || w >= W)
                                continue;
                            const double xv = x[(c * H + h) * W + w];
                            most = xv > most ? xv : most;
                            sum += xv * (pool ? 1.0 / (KH * KW)
                                              : l->weight[((o * C + c) * KH + u) * KW + v]);
                        }
                y[(o * l->out.h + r) * l->out.w + q] =
                    activate_double(l, l->op == OP_MAX_POOL ? most : sum);
            }
}

static void reference(const struct model *m, const uint8_t *bytes, int n, double *logits) {
    const int rows = network_logit_rows(m->layers, m->count);
    const int pixels = (int)shape_size(m->input);
    auto part = [=](int from, int to) {
        std::vector<double> x(8192), y(8192);
        for (int i = from; i < to; i++) {
            for (int k = 0; k < pixels; k++)
                x[k] = bytes[(size_t)i * pixels + k] * (double)m->scale + (double)m->offset;
            for (int k = 0; k < rows; k++) {
                layer_double(&m->layers[k], x.data(), y.data());
                x.swap(y);
            }
            memcpy(logits + (size_t)i * 10, x.data(), 10 * sizeof(double));
        }
    };
    const int cores = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (int t = 0; t < cores; t++)
        threads.emplace_back(part, (int)((int64_t)n * t / cores),
                             (int)((int64_t)n * (t + 1) / cores));
    for (auto &t : threads)
        t.join();
}

/* ---- Device memory ---- */

/* Half of the images noise; half ink on paper: zeros, with a band of noise. */
static __global__ void draw(uint8_t *bytes, size_t size, int pixels, uint64_t seed, int mask) {
    for (size_t k = thread_index(); k < size; k += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = seed + k * 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        const size_t i = k / pixels;
        const int at = (int)(k % pixels), band = (int)(i * 37 % pixels);
        const int ink = i % 2 || (at >= band && at < band + pixels / 4);
        bytes[k] = ink ? (uint8_t)(z >> 40 & mask) : 0;
    }
}

static uint8_t *random_images(size_t n, int pixels, int mask = 255) {
    uint8_t *bytes;
    TRY(cudaMalloc((void **)&bytes, n * pixels));
    draw<<<4096, 256>>>(bytes, n * pixels, pixels, (uint64_t)(uniform() * 0x1p60), mask);
    TRY(cudaGetLastError());
    TRY(cudaDeviceSynchronize());
    return bytes;
}

enum { GUARD = 256 }; /* floats before and after the logits */
static const uint32_t POISON = 0xFFFFA5A5u;

struct Guarded {
    float *block;
    size_t n;
    float *logits(void) const {
        return block + GUARD;
    }
};

static Guarded guarded(size_t n) {
    Guarded g = {NULL, n};
    const std::vector<uint32_t> poison(n * 10 + 2 * GUARD, POISON);
    TRY(cudaMalloc((void **)&g.block, poison.size() * 4));
    TRY(cudaMemcpy(g.block, poison.data(), poison.size() * 4, cudaMemcpyHostToDevice));
    return g;
}

/* Fetches the logits and frees; counts guards that changed and logits that did not. */
static std::vector<uint32_t> fetch(Guarded g, int *bad) {
    std::vector<uint32_t> all(g.n * 10 + 2 * GUARD);
    TRY(cudaDeviceSynchronize());
    TRY(cudaMemcpy(all.data(), g.block, all.size() * 4, cudaMemcpyDeviceToHost));
    TRY(cudaFree(g.block));
    *bad = 0;
    for (size_t k = 0; k < all.size(); k++) {
        const int guard = k < GUARD || k >= GUARD + g.n * 10;
        *bad += (all[k] == POISON) != guard;
    }
    return std::vector<uint32_t>(all.begin() + GUARD, all.end() - GUARD);
}

static float as_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* ---- Checks ---- */

static void *open_or_exit(const Subject &s, const struct model *m, int batch) {
    struct lenet5_error err;
    void *state = NULL;
    if (s.backend->open(&state, m, 0, &batch, &err)) {
        printf("{\"backend\": \"%s\", \"error\": \"%s\"}\n", s.name, err.message);
        exit(1);
    }
    return state;
}

static std::vector<uint32_t> run(const Subject &s, void *state, const uint8_t *bytes, int n) {
    struct lenet5_error err;
    int bad;
    const Guarded g = guarded(n);
    if (whole_run_device(state, bytes, n, g.logits(), NULL, &err)) {
        printf("{\"error\": \"%s\"}\n", err.message);
        exit(1);
    }
    const std::vector<uint32_t> logits = fetch(g, &bad);
    if (bad) {
        printf("{\"backend\": \"%s\", \"check\": \"guards\", \"n\": %d, \"bad\": %d}\n", s.name,
               n, bad);
        failures++;
    }
    return logits;
}

/* Images of an IDX file as the data sets have them; random ones without a file. */
static uint8_t *some_images(const char *file, int *n, int pixels) {
    enum { IDX_HEADER = 16 };
    std::vector<uint8_t> host(IDX_HEADER + (size_t)*n * pixels);
    uint8_t *bytes;
    if (!file)
        return random_images(*n, pixels);
    FILE *f = fopen(file, "rb");
    const size_t size = f ? fread(host.data(), 1, host.size(), f) : 0;
    if (size < IDX_HEADER + (size_t)pixels) {
        printf("{\"error\": \"%s: no images there; it must be an unpacked IDX file\"}\n", file);
        exit(1);
    }
    fclose(f);
    *n = (int)((size - IDX_HEADER) / pixels);
    TRY(cudaMalloc((void **)&bytes, (size_t)*n * pixels));
    TRY(cudaMemcpy(bytes, &host[IDX_HEADER], (size_t)*n * pixels, cudaMemcpyHostToDevice));
    return bytes;
}

/* Logits against the network in double, by n random images or those of a file. A prediction is
   wrong if it differs and the two were no tie within the bound. On real images no prediction of
   an exact backend may differ, and of another's one in 10,000. */
static void check_accuracy(const Subject &s, void *state, const struct model *m, double bound,
                           const char *network, const char *file, int n) {
    const int pixels = (int)shape_size(m->input);
    uint8_t *bytes = some_images(file, &n, pixels);
    std::vector<uint8_t> host((size_t)n * pixels);
    std::vector<double> want((size_t)n * 10);
    TRY(cudaMemcpy(host.data(), bytes, host.size(), cudaMemcpyDeviceToHost));
    reference(m, host.data(), n, want.data());
    const std::vector<uint32_t> got = run(s, state, bytes, n);
    TRY(cudaFree(bytes));
    double worst = 0.0, relative = 0.0, sum = 0.0;
    int differ = 0, wrong = 0, nan = 0;
    for (int i = 0; i < n; i++) {
        int a = 0, b = 0;
        double size = 1.0;
        for (int o = 0; o < 10; o++) {
            const double w = want[i * 10 + o], e = fabs(as_float(got[i * 10 + o]) - w);
            nan += !(e <= DBL_MAX);
            worst = std::max(worst, e);
            relative = std::max(relative, e / std::max(1.0, fabs(w)));
            size = std::max(size, fabs(w));
            sum += e;
            a = w > want[i * 10 + a] ? o : a;
            b = as_float(got[i * 10 + o]) > as_float(got[i * 10 + b]) ? o : b;
        }
        differ += a != b;
        wrong += want[i * 10 + a] - want[i * 10 + b] > 2 * bound * size;
    }
    const int ok = !nan && relative <= bound && !wrong &&
                   (!file || differ <= (s.backend->tolerance > EXACT ? n / 10000 : 0));
    failures += !ok;
    printf(
        "{\"backend\": \"%s\", \"network\": \"%s\", \"images\": \"%s\", \"check\": "
        "\"accuracy\", "
        "\"n\": %d, \"max_error\": %.3g, \"max_relative_above_1\": %.3g, \"mean_error\": %.3g, "
        "\"predictions_differ\": %d, \"wrong\": %d, \"ok\": %d}\n",
        s.name, network, file ? file : "random", n, nan ? NAN : worst, relative,
        sum / (10.0 * n), differ, wrong, ok);
    fflush(stdout);
}

/* Weights of -1, 0 and 1, so few of them, and pixels of 0 to 3: then relu and both poolings
   keep every number, in halves too, as it is, and logits must be those of exact arithmetic. */
static void check_whole_numbers(const Subject &s, int side, int border, enum op pool) {
    const int IMAGES = quick ? 200 : 1000; /* narrow tiles; wide ones */
    struct model m;
    int differ = 0, nonzero = 0;
    make_model(&m, side, border, ACT_RELU, pool, 0);
    m.scale = 1.0f;
    m.offset = 0.0f;
    for (int k = 0; k < m.count; k++) {
        const struct layer *l = &m.layers[k];
        const size_t terms = l->weights / l->out.c, kept = k ? 2 : 4;
        float *weight = (float *)l->weight, *bias = (float *)l->bias; /* into m.floats */
        if (!weight)
            continue;
        memset(weight, 0, l->weights * sizeof *weight);
        for (size_t o = 0; o < (size_t)l->out.c; o++) {
            for (size_t j = 0; j < kept; j++)
                weight[o * terms + (size_t)(uniform() * terms)] = uniform() < 0.3 ? -1 : 1;
            bias[o] = (float)(int)(3 * uniform() - 1);
        }
    }
    void *state = open_or_exit(s, &m, IMAGES);
    uint8_t *bytes = random_images(IMAGES, side * side, 3);
    std::vector<uint8_t> host((size_t)IMAGES * side * side);
    std::vector<double> want(IMAGES * 10);
    TRY(cudaMemcpy(host.data(), bytes, host.size(), cudaMemcpyDeviceToHost));
    reference(&m, host.data(), IMAGES, want.data());
    const std::vector<uint32_t> got = run(s, state, bytes, IMAGES);
    for (size_t k = 0; k < got.size(); k++) {
        differ += as_float(got[k]) != want[k];
        nonzero += want[k] != 0.0;
    }
    TRY(cudaFree(bytes));
    s.backend->close(state);
    free(m.floats);
    failures += differ || nonzero < 100;
    printf("{\"backend\": \"%s\", \"check\": \"whole numbers\", \"side\": %d, \"border\": %d, "
           "\"pool\": \"%s\", \"differ\": %d, \"not_zero\": %d}\n",
           s.name, side, border, op_name(pool), differ, nonzero);
}

/* Batches of every size give the same bits as one large one, from any place in it. */
static void check_ragged(const Subject &s, void *state, const struct model *m) {
    const int pixels = (int)shape_size(m->input);
    /* images a multiprocessor, about which launches change; 32 and 64 are full rounds */
    static const int edges[] = {2, 6, 16, 32, 32 + 6, 32 + 16, 64, 64 + 16, 81};
    int units;
    TRY(cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, 0));
    const int n = 81 * units + 1;
    uint8_t *bytes = random_images(n, pixels);
    const std::vector<uint32_t> all = run(s, state, bytes, n);
    std::vector<int> sizes;
    for (int k = 1; k <= 97; k += quick ? 16 : 1)
        sizes.push_back(k);
    for (int edge : edges)
        for (int k = edge * units - 1; k <= edge * units + 1 && !quick; k++)
            sizes.push_back(k);
    if (!quick && n >= 10000)
        sizes.push_back(10000); /* the test set */
    int differ = 0;
    for (int size : sizes) {
        const int at = (int)(uniform() * (n - size + 1));
        uint8_t *exact; /* so that a checker sees any read past the end */
        TRY(cudaMalloc((void **)&exact, (size_t)size * pixels));
        TRY(cudaMemcpy(exact, bytes + (size_t)at * pixels, (size_t)size * pixels,
                       cudaMemcpyDeviceToDevice));
        const std::vector<uint32_t> part = run(s, state, exact, size);
        TRY(cudaFree(exact));
        differ += memcmp(part.data(), &all[(size_t)at * 10], part.size() * 4) != 0;
    }
    TRY(cudaFree(bytes));
    failures += differ != 0;
    printf("{\"backend\": \"%s\", \"check\": \"ragged\", \"batches\": %d, \"differ\": %d}\n",
           s.name, (int)sizes.size(), differ);
}

static void check_million(const Subject &s, void *state, const uint8_t *bytes, int n) {
    const std::vector<uint32_t> all = run(s, state, bytes, n);
    int differ = memcmp(all.data(), run(s, state, bytes, n).data(), all.size() * 4) != 0;
    for (int k = 0; k < 40; k++) {
        const int size = 1 + (int)(uniform() * 9000);
        const int at = k ? (int)(uniform() * (n - size)) : n - size;
        const std::vector<uint32_t> part = run(s, state, bytes + (size_t)at * 784, size);
        differ += memcmp(part.data(), &all[(size_t)at * 10], part.size() * 4) != 0;
    }
    failures += differ != 0;
    printf("{\"backend\": \"%s\", \"check\": \"million\", \"n\": %d, \"differ\": %d}\n", s.name,
           n, differ);
}

/* Images that lie more than 4 GiB into the batch: the last are those of a small batch. */
static void check_offsets(const Subject &s, void *state) {
    enum { IMAGES = 6000000, LAST = 97 };
    uint8_t *bytes = random_images(IMAGES, 784);
    const std::vector<uint32_t> all = run(s, state, bytes, IMAGES);
    const std::vector<uint32_t> last =
        run(s, state, bytes + (size_t)(IMAGES - LAST) * 784, LAST);
    const int differ = memcmp(last.data(), &all[(size_t)(IMAGES - LAST) * 10], last.size() * 4);
    TRY(cudaFree(bytes));
    failures += differ != 0;
    printf("{\"backend\": \"%s\", \"check\": \"offsets\", \"n\": %d, \"differ\": %d}\n", s.name,
           IMAGES, differ != 0);
}

/* Host pointers, a graph, and what must be refused. */
static void check_calls(const Subject &s, void *state, const struct model *m) {
    struct lenet5_error err;
    struct lenet5_timing timing = {};
    const int n = 100, pixels = (int)shape_size(m->input);
    uint8_t *bytes = random_images(n, pixels);
    std::vector<uint8_t> host((size_t)n * pixels);
    std::vector<float> logits(n * 10);
    TRY(cudaMemcpy(host.data(), bytes, host.size(), cudaMemcpyDeviceToHost));
    const std::vector<uint32_t> want = run(s, state, bytes, n);
    int bad = s.backend->run(state, host.data(), NULL, n, logits.data(), &timing, &err) != 0;
    bad += memcmp(logits.data(), want.data(), want.size() * 4) != 0;
    bad += !(timing.compute > 0);

    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    const Guarded g = guarded(n);
    TRY(cudaStreamCreate(&stream));
    TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    bad += whole_run_device(state, bytes, n, g.logits(), stream, &err) != 0;
    TRY(cudaStreamEndCapture(stream, &graph));
    TRY(cudaGraphInstantiate(&exec, graph, 0));
    TRY(cudaGraphLaunch(exec, stream));
    TRY(cudaStreamSynchronize(stream));
    int guards;
    bad += memcmp(fetch(g, &guards).data(), want.data(), want.size() * 4) != 0;
    bad += guards != 0;
    TRY(cudaGraphExecDestroy(exec));
    TRY(cudaGraphDestroy(graph));
    TRY(cudaStreamDestroy(stream));

    bad += !whole_run_device(state, bytes, 0, (float *)bytes, NULL, &err);
    bad += !whole_run_device(state, bytes + 4, 1, (float *)bytes, NULL, &err);
    bad += !s.backend->run(state, host.data(), NULL, 1 << 20, logits.data(), NULL, &err);
    TRY(cudaFree(bytes));
    failures += bad != 0;
    printf("{\"backend\": \"%s\", \"check\": \"calls\", \"bad\": %d}\n", s.name, bad);
}

static void check_refusals(const Subject &s) {
    static const char *const said[] = {"row 2", "row 0",  "row 3",   "row 0",
                                       "row 5", "offset", "border 1"};
    int bad = 0;
    for (int k = 0; k < 7; k++) {
        struct model m;
        struct lenet5_error err = {""};
        void *state = NULL;
        int batch = 16;
        make_model(&m, 28, 2, k == 1 ? ACT_RELU : ACT_TANH, OP_AVERAGE_POOL, 0);
        if (k == 0)
            m.layers[2].activation = ACT_RELU;
        if (k == 1)
            m.layers[0].param[0] = 0.1f; /* leaky */
        if (k == 2)
            m.layers[3].op = OP_MAX_POOL;
        if (k == 3)
            m.layers[0].out.c = 8;
        if (k == 4)
            m.count = 5;
        if (k == 5)
            m.offset = 1.0f;
        if (k == 6)
            m.layers[0].pad_top = 1;
        const int opened = !s.backend->open(&state, &m, 0, &batch, &err);
        bad += opened || !strstr(err.message, said[k]);
        printf("{\"backend\": \"%s\", \"refusal\": \"%s\", \"must_say\": \"%s\"}\n", s.name,
               err.message, said[k]);
        free(m.floats);
    }
    failures += bad != 0;
}

/* ---- Times ---- */

/* Median over runs of launches one after the other; 0 when a launch is refused. */
template <class F> static double median_seconds(F launch, int launches) {
    const int runs = 9;
    cudaEvent_t from, to;
    std::vector<double> seconds;
    if (launch())
        return 0.0;
    TRY(cudaEventCreate(&from));
    TRY(cudaEventCreate(&to));
    for (int k = -2; k < runs; k++) {
        float ms;
        TRY(cudaEventRecord(from));
        for (int j = 0; j < launches; j++)
            launch();
        TRY(cudaEventRecord(to));
        TRY(cudaEventSynchronize(to));
        TRY(cudaGetLastError());
        TRY(cudaEventElapsedTime(&ms, from, to));
        if (k >= 0)
            seconds.push_back(1e-3 * ms / launches);
    }
    TRY(cudaEventDestroy(from));
    TRY(cudaEventDestroy(to));
    std::sort(seconds.begin(), seconds.end());
    return seconds[runs / 2];
}

static void time_stages(const Subject &s, void *state, const uint8_t *bytes, int n) {
    std::vector<uint8_t> host((size_t)n * 784);
    struct kernel_stage stages[STAGES];
    struct lenet5_error err;
    TRY(cudaMemcpy(host.data(), bytes, host.size(), cudaMemcpyDeviceToHost));
    for (int k = 0; k < 2; k++) /* the first is for warming up */
        if (whole_stages(state, host.data(), n, stages, &err))
            printf("{\"error\": \"%s\"}\n", err.message);
    printf("{\"backend\": \"%s\", \"stages_us\": {", s.name);
    static const char *const names[STAGES] = {"input", "C1", "C3", "C5", "F6", "OUT"};
    for (int k = 0; k < STAGES; k++)
        printf("%s\"%s\": %.1f", k ? ", " : "", names[k], 1e6 * stages[k].seconds);
    printf("}, \"n\": %d}\n", n);
}

static void time_all(const Subject &s, void *state, const uint8_t *bytes) {
    float *logits;
    TRY(cudaMalloc((void **)&logits, 1000001 * 10 * sizeof(float)));
    for (int n : {1, 8, 32, 128, 256, 1024, 2112, 4224, 8448, 10000, 16896, 32768, 100000,
                  300000, 1000000}) {
        auto launch = [&] {
            return s.backend->run_device(state, bytes, n, logits, NULL, NULL);
        };
        const double t = median_seconds(launch, std::max(1, std::min(200, 2000000 / n)));
        if (t > 0.0)
            printf("{\"backend\": \"%s\", \"n\": %d, \"us\": %.2f, \"images_per_s\": %.4g}\n",
                   s.name, n, 1e6 * t, n / t);
        fflush(stdout);
    }
    TRY(cudaFree(logits));
    if (s.bound > 0.0)
        time_stages(s, state, bytes, 100000);
}

/* ---- What the chip can do: independent instructions of one kind, nothing else ---- */

enum { LIMIT_ROUNDS = 2048, LIMIT_THREADS = 256 };

static __global__ void limit_ffma(float *out, float a, float b) {
    float r[16];
    for (int i = 0; i < 16; i++)
        r[i] = (float)(threadIdx.x + i);
    for (int k = 0; k < LIMIT_ROUNDS; k++)
#pragma unroll
        for (int i = 0; i < 16; i++)
            r[i] = fmaf(r[i], a, b);
    float sum = 0.0f;
    for (int i = 0; i < 16; i++)
        sum += r[i];
    out[thread_index()] = sum;
}

static __global__ void limit_tanh(float *out, float a) {
    float r[8];
    for (int i = 0; i < 8; i++)
        r[i] = a * (float)(threadIdx.x + i);
    for (int k = 0; k < LIMIT_ROUNDS; k++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            asm volatile("tanh.approx.f32 %0, %0;" : "+f"(r[i]));
    float sum = 0.0f;
    for (int i = 0; i < 8; i++)
        sum += r[i];
    out[thread_index()] = sum;
}

static __global__ void limit_mma(float *out) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const unsigned a = threadIdx.x;
    float c[8][4] = {};
    for (int k = 0; k < LIMIT_ROUNDS; k++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                         "{%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};"
                         : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
                         : "r"(a));
    float sum = 0.0f;
    for (int i = 0; i < 8; i++)
        sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
    out[thread_index()] = sum;
#else
    out[thread_index()] = 0.0f;
#endif
}

/* What one image of the plain network needs of each, counted as the textbook does. */
static void measure_limits(void) {
    const double macs = 416520.0, tanhs = 6508.0;
    cudaDeviceProp p;
    float *out;
    TRY(cudaGetDeviceProperties(&p, 0));
    const int blocks = 8 * p.multiProcessorCount;
    const double threads = (double)blocks * LIMIT_THREADS * LIMIT_ROUNDS;
    TRY(cudaMalloc((void **)&out, (size_t)blocks * LIMIT_THREADS * sizeof *out));
    const double ffma = threads * 16 /
                        median_seconds(
                            [&] {
                                limit_ffma<<<blocks, LIMIT_THREADS>>>(out, 1.0001f, 0.5f);
                                return 0;
                            },
                            1);
    const double tanh_rate = threads * 8 /
                             median_seconds(
                                 [&] {
                                     limit_tanh<<<blocks, LIMIT_THREADS>>>(out, 1e-3f);
                                     return 0;
                                 },
                                 1);
    const double mma = threads / 32 * 8 * 2048 /
                       median_seconds(
                           [&] {
                               limit_mma<<<blocks, LIMIT_THREADS>>>(out);
                               return 0;
                           },
                           1);
    printf("{\"limit\": \"FFMA\", \"per_s\": %.4g, \"images_per_s\": %.4g}\n", ffma,
           ffma / macs);
    printf("{\"limit\": \"tanh.approx\", \"per_s\": %.4g, \"images_per_s\": %.4g}\n", tanh_rate,
           tanh_rate / tanhs);
    printf("{\"limit\": \"mma.sync fp16\", \"per_s\": %.4g, \"images_per_s\": %.4g}\n", mma,
           mma / macs);
    TRY(cudaFree(out));
}

/* ---- */

static void check_family(const Subject &s) {
    static const enum activation activations[] = {ACT_TANH, ACT_SIGMOID, ACT_RELU};
    static const int sides[][2] = {{28, 2}, {28, 0}, {32, 0}};
    for (const int *side : sides)
        for (enum activation a : activations)
            for (int max = 0; max < 2; max++) {
                struct model m;
                char name[64];
                const int conv5 = side[0] == 32 || (side[1] && max);
                make_model(&m, side[0], side[1], a, max ? OP_MAX_POOL : OP_AVERAGE_POOL, conv5);
                snprintf(name, sizeof name, "%d+%d %s %s%s", side[0], side[1],
                         activation_name(a), max ? "max" : "average", conv5 ? " conv5" : "");
                void *state = open_or_exit(s, &m, 1000);
                check_accuracy(s, state, &m, s.bound, name, NULL, quick ? 33 : 1000);
                check_ragged(s, state, &m);
                s.backend->close(state);
                free(m.floats);
                if (a == ACT_RELU)
                    check_whole_numbers(s, side[0], side[1],
                                        max ? OP_MAX_POOL : OP_AVERAGE_POOL);
            }
}

/* Every check of one backend. */
static void check_all(const Subject &s, void *state, const struct model *m,
                      const std::vector<const char *> &blobs,
                      const std::vector<const char *> &files, int family) {
    check_accuracy(s, state, m, s.bound, "random tanh", NULL, quick ? 70 : 20000);
    check_ragged(s, state, m);
    check_calls(s, state, m);
    check_refusals(s);
    for (const char *blob : blobs) {
        struct lenet5_error err;
        struct model trained;
        if (blob_read(&trained, blob, &err)) {
            printf("{\"error\": \"%s\"}\n", err.message);
            failures++;
            continue;
        }
        void *other = open_or_exit(s, &trained, 1000);
        check_accuracy(s, other, &trained, s.trained, blob, NULL, quick ? 70 : 20000);
        for (const char *file : files)
            check_accuracy(s, other, &trained, s.trained, blob, file, quick ? 70 : 10000);
        s.backend->close(other);
        blob_free(&trained);
    }
    if (family)
        check_family(s);
}

static void describe(void) {
    struct device device;
    struct lenet5_error err;
    if (backend_fused.device(&device, &err)) {
        printf("{\"error\": \"%s\"}\n", err.message);
        exit(1);
    }
    printf("{\"device\": \"%s\", \"capability\": \"%d.%d\", \"seed\": %llu}\n", device.name,
           device.major, device.minor, (unsigned long long)seed);
}

int main(int argc, char **argv) {
    int timed = 1, checked = 1, family = 0, limits = 0;
    std::vector<const char *> names, blobs, files;
    for (int k = 1; k < argc; k++)
        if (!strcmp(argv[k], "--quick"))
            quick = 1, timed = 0;
        else if (!strcmp(argv[k], "--check"))
            timed = 0;
        else if (!strcmp(argv[k], "--time"))
            checked = 0;
        else if (!strcmp(argv[k], "--family"))
            family = 1;
        else if (!strcmp(argv[k], "--limits"))
            limits = 1;
        else if (!strcmp(argv[k], "--blob") && k + 1 < argc)
            blobs.push_back(argv[++k]);
        else if (!strcmp(argv[k], "--images") && k + 1 < argc)
            files.push_back(argv[++k]);
        else if (backend_find(argv[k], NULL))
            names.push_back(argv[k]);
        else
            return fprintf(stderr, "bench_gpu: %s? See the head of bench_gpu.cu\n", argv[k]), 2;
    describe();
    if (limits)
        measure_limits();
    uint8_t *million = timed ? random_images(1000001, 784) : NULL;
    for (const Subject &s : subjects) {
        struct model m;
        const bool named = std::any_of(names.begin(), names.end(),
                                       [&](const char *n) { return !strcmp(n, s.name); });
        if (!named && (!names.empty() || s.bound == 0.0))
            continue;
        make_model(&m, 28, 2, ACT_TANH, OP_AVERAGE_POOL, 0);
        void *state = open_or_exit(s, &m, timed ? 1000000 : 100000);
        if (checked && s.bound > 0.0)
            check_all(s, state, &m, blobs, files, family);
        if (checked && timed && s.bound > 0.0) {
            check_million(s, state, million, 1000001);
            check_offsets(s, state);
        }
        if (timed)
            time_all(s, state, million);
        s.backend->close(state);
        free(m.floats);
    }
    TRY(cudaFree(million));
    TRY(cudaDeviceSynchronize());
    printf("{\"failures\": %d}\n", failures);
    return failures != 0;
}
