/* SPDX-License-Identifier: MIT
 *
 * testing.h - what the test programs share: random numbers with a fixed seed, networks made by
 * hand, buffers between guard pages, one row computed in double, and running every claim on
 * every backend of the build.
 *
 * Include it first. Nothing here calls the code under test except network_check, which derives
 * the shapes, and the backends' own open and device. Left out: anything used by one program.
 */
#ifndef LENET5_TESTING_H
#define LENET5_TESTING_H

#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, mkdtemp */

#include "backend.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- random numbers: splitmix64, the same on every machine ---- */

enum { SEED = 20240229 };

struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline int rng_int(struct rng *r, int low, int high) {
    return low + (int)(rng_next(r) % (uint64_t)(high - low + 1));
}

static inline float rng_real(struct rng *r, float low, float high) {
    const float unit = (float)(rng_next(r) >> 40) * 0x1p-24f;
    return low + (high - low) * unit;
}

/* ---- buffers: a page that must not be touched on either side, and a filled zone before ----
 */

enum { PAGE = 4096, ZONE_BYTE = 0xa5 };

struct guarded {
    void *at; /* size bytes, ending where the upper guard page begins */
    size_t size;
    uint8_t *map; /* owned: guard page, zone, the bytes, guard page */
    size_t map_size;
};

static inline struct guarded guarded_new(size_t size) {
    struct guarded g = {NULL, size, NULL, 0};
    g.map_size = (size + PAGE - 1) / PAGE * PAGE + 3 * PAGE; /* a zone of one to two pages */
    g.map = mmap(NULL, g.map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    memset(g.map, ZONE_BYTE, g.map_size);
    g.at = g.map + g.map_size - PAGE - size;
    assert_int_equal(mprotect(g.map, PAGE, PROT_NONE), 0);
    assert_int_equal(mprotect(g.map + g.map_size - PAGE, PAGE, PROT_NONE), 0);
    return g;
}

/* Floats, all NaN: what nobody writes fails every comparison. */
static inline struct guarded guarded_floats(size_t count) {
    struct guarded g = guarded_new(count * sizeof(float));
    for (size_t k = 0; k < count; k++)
        ((float *)g.at)[k] = NAN;
    return g;
}

static inline void guarded_read_only(struct guarded *g) {
    assert_int_equal(mprotect(g->map + PAGE, g->map_size - 2 * PAGE, PROT_READ), 0);
}

/* Is the zone before the bytes untouched? (What is written behind them crashes at once.) */
static inline int guarded_intact(const struct guarded *g) {
    int intact = 1;
    for (const uint8_t *b = g->map + PAGE; b < (const uint8_t *)g->at; b++)
        intact &= *b == ZONE_BYTE;
    return intact;
}

static inline void guarded_free(struct guarded *g) {
    if (g->map)
        munmap(g->map, g->map_size);
    memset(g, 0, sizeof *g);
}

/* ---- the checker ---- */

/* Where the first of count numbers lies further from want than bound (NULL: 0 everywhere), or
   count if none does. Written so that NaN, in any of the three, is wrong. */
static inline size_t first_wrong(const float *got, const double *want, const float *bound,
                                 double share, size_t count) {
    size_t k = 0;
    while (k < count && fabs((double)got[k] - want[k]) <= (bound ? share * bound[k] : 0.0))
        k++;
    return k;
}

/* ---- networks made by hand ---- */

struct window {
    int kernel_h, kernel_w, stride_h, stride_w, top, left, bottom, right;
};

static const struct window NO_WINDOW = {0, 0, 0, 0, 0, 0, 0, 0};

static inline struct window square(int kernel, int stride, int border) {
    return (struct window){kernel, kernel, stride, stride, border, border, border, border};
}

static inline void model_start(struct model *m, int channels, int height, int width) {
    memset(m, 0, sizeof *m);
    m->input = (struct shape){channels, height, width};
    m->scale = 1.0f / 255.0f;
}

/* The parameters that a model gives to an activation when it says nothing. */
static inline void usual_parameters(struct layer *l) {
    const float p0 = l->activation == ACT_ELU            ? 1.0f
                     : l->activation == ACT_HARD_SIGMOID ? 0.2f
                                                         : 0.0f;
    l->param[0] = p0;
    l->param[1] = 0.0f;
    l->param[2] = l->activation == ACT_RELU ? FLT_MAX : 0.0f;
}

/* One more row. out is read for convolution and dense rows; bias is 1 or 0. */
static inline struct layer *model_add(struct model *m, enum op op, int out, struct window w,
                                      enum activation activation, int bias) {
    struct layer *l = &m->layers[m->count];
    memset(l, 0, sizeof *l);
    snprintf(l->name, sizeof l->name, "%s_%d", op_name(op), m->count++);
    l->op = op;
    l->out.c = out;
    l->kernel_h = w.kernel_h;
    l->kernel_w = w.kernel_w;
    l->stride_h = w.stride_h;
    l->stride_w = w.stride_w;
    l->pad_top = w.top;
    l->pad_left = w.left;
    l->pad_bottom = w.bottom;
    l->pad_right = w.right;
    l->activation = activation;
    usual_parameters(l);
    l->biases = bias != 0;
    return l;
}

static inline struct layer *add_conv(struct model *m, int out, struct window w,
                                     enum activation activation) {
    return model_add(m, OP_CONV, out, w, activation, 1);
}

static inline struct layer *add_pool(struct model *m, enum op op, struct window w) {
    return model_add(m, op, 0, w, ACT_LINEAR, 0);
}

static inline struct layer *add_dense(struct model *m, int out, enum activation activation) {
    return model_add(m, OP_DENSE, out, NO_WINDOW, activation, 1);
}

static inline struct layer *add_activation(struct model *m, enum activation activation) {
    return model_add(m, OP_ACTIVATION, 0, NO_WINDOW, activation, 0);
}

enum fill { WHOLE, REAL }; /* whole numbers -4..4, or reals that keep the variance */

static inline float *fill_tensor(float *to, size_t count, size_t fan_in, enum fill fill,
                                 struct rng *r) {
    const float most = sqrtf(3.0f / (float)fan_in);
    for (size_t k = 0; k < count; k++)
        to[k] = fill == WHOLE ? (float)rng_int(r, -4, 4) : rng_real(r, -most, most);
    return to + (count + 15) / 16 * 16; /* the next multiple of 64 bytes */
}

/* Derives the shapes and makes weights; m then owns its floats (blob_free). */
static inline void model_finish(struct model *m, enum fill fill, struct rng *r) {
    struct lenet5_error err = {""};
    size_t count = 0;
    if (network_check(m->layers, m->count, m->input, &err))
        fail_msg("a network of the test itself: %s", err.message);
    for (int k = 0; k < m->count; k++)
        count += m->layers[k].weights + m->layers[k].biases + 32;
    m->floats = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    assert_non_null(m->floats);
    memset(m->floats, 0, count * sizeof(float));
    float *at = m->floats;
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &m->layers[k];
        const size_t fan_in = l->weights > (size_t)l->out.c ? l->weights / (size_t)l->out.c : 1;
        l->weight = l->weights ? at : NULL;
        at = fill_tensor(at, l->weights, fan_in, fill, r);
        l->bias = l->biases ? at : NULL;
        at = fill_tensor(at, l->biases, fan_in * 4, fill, r);
    }
    m->float_count = count;
}

/* The plain LeNet-5, 61,706 parameters. */
static inline void make_lenet5(struct model *m) {
    model_start(m, 1, 28, 28);
    add_conv(m, 6, square(5, 1, 2), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_conv(m, 16, square(5, 1, 0), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_dense(m, 120, ACT_TANH);
    add_dense(m, 84, ACT_TANH);
    add_dense(m, 10, ACT_LINEAR);
}

/* ---- one row in double, by another road than *_cpu: the map gets its border in memory ---- */

static inline double activate64(enum activation a, const float *p, double x) {
    static const double pi = 3.14159265358979323846;
    switch (a) {
    case ACT_TANH:
        return tanh(x);
    case ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACT_RELU:
        return x < p[1] ? p[0] * (x - p[1]) : fmin(x, p[2]);
    case ACT_ELU:
        return x < 0 ? p[0] * expm1(x) : x;
    case ACT_SOFTPLUS:
        return x > 700 ? x : log1p(exp(x));
    case ACT_SOFTSIGN:
        return x / (fabs(x) + 1);
    case ACT_SWISH:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return x * 0.5 * erfc(-x / sqrt(2.0));
    case ACT_GELU_TANH:
        return x / (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
    case ACT_HARD_SIGMOID:
        return fmin(fmax(0.5 + p[0] * x, 0), 1);
    case ACT_SELU:
        return x > 0 ? 1.0507009873554805 * x : 1.7580993408473766 * expm1(x);
    case ACT_MISH:
        return x * tanh(fmax(x, 0) + log1p(exp(-fabs(x))));
    default:
        return x;
    }
}

static inline void softmax64(const double *x, double *y, size_t count) {
    double most = -INFINITY, sum = 0;
    for (size_t k = 0; k < count; k++)
        most = fmax(most, x[k]);
    for (size_t k = 0; k < count; k++)
        sum += exp(x[k] - most);
    for (size_t k = 0; k < count; k++)
        y[k] = exp(x[k] - most) / sum;
}

/* One channel with its border around it, whose cells all hold outside; the caller frees it. */
static inline double *bordered(const struct layer *l, const double *x, double outside) {
    const int H = l->pad_top + l->in.h + l->pad_bottom;
    const int W = l->pad_left + l->in.w + l->pad_right;
    double *map = malloc((size_t)H * (size_t)W * sizeof *map);
    assert_non_null(map);
    for (int k = 0; k < H * W; k++) {
        const int h = k / W - l->pad_top, w = k % W - l->pad_left;
        const int inside = h >= 0 && h < l->in.h && w >= 0 && w < l->in.w;
        map[k] = inside ? x[h * l->in.w + w] : outside;
    }
    return map;
}

/* y[o] += the cross-correlation of channel c with its kernels, for every o. */
static inline void conv64(const struct layer *l, const double *x, double *y, int c) {
    double *map = bordered(l, x, 0);
    const int W = l->pad_left + l->in.w + l->pad_right, cells = l->kernel_h * l->kernel_w;
    for (int o = 0; o < l->out.c; o++)
        for (int r = 0; r < l->out.h; r++)
            for (int q = 0; q < l->out.w; q++)
                for (int uv = 0; uv < cells; uv++) {
                    const int h = r * l->stride_h + uv / l->kernel_w;
                    const int w = q * l->stride_w + uv % l->kernel_w;
                    y[(o * l->out.h + r) * l->out.w + q] +=
                        (double)l->weight[(o * l->in.c + c) * cells + uv] * map[h * W + w];
                }
    free(map);
}

/* Pools one channel; the border is NaN, which counts for nothing. */
static inline void pool64(const struct layer *l, const double *x, double *y) {
    double *map = bordered(l, x, NAN);
    const int W = l->pad_left + l->in.w + l->pad_right;
    for (int r = 0; r < l->out.h; r++)
        for (int q = 0; q < l->out.w; q++) {
            double sum = 0, most = -INFINITY;
            int cells = 0;
            for (int uv = 0; uv < l->kernel_h * l->kernel_w; uv++) {
                const double a = map[(r * l->stride_h + uv / l->kernel_w) * W +
                                     q * l->stride_w + uv % l->kernel_w];
                if (isnan(a))
                    continue;
                sum += a;
                most = fmax(most, a);
                cells++;
            }
            y[r * l->out.w + q] = l->op == OP_AVERAGE_POOL ? sum / cells : most;
        }
    free(map);
}

/* One row on one image. */
static inline void row64(const struct layer *l, const double *x, double *y) {
    const int in = (int)shape_size(l->in), out = (int)shape_size(l->out);
    const int in_map = l->in.h * l->in.w, out_map = l->out.h * l->out.w;
    for (int k = 0; k < out; k++)
        y[k] = l->bias ? l->bias[k / out_map] : 0;
    for (int c = 0; c < l->in.c; c++) {
        if (l->op == OP_CONV)
            conv64(l, x + c * in_map, y, c);
        if (l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL)
            pool64(l, x + c * in_map, y + c * out_map);
    }
    for (int k = 0; l->op == OP_DENSE && k < out * in; k++)
        y[k / in] += (double)l->weight[k] * x[k % in];
    for (int k = 0; k < out && (l->op == OP_SCALE || l->op == OP_ACTIVATION); k++)
        y[k] = l->op == OP_SCALE ? y[k] + (double)l->weight[k / in_map] * x[k] : x[k];
    if (l->activation == ACT_SOFTMAX)
        softmax64(x, y, (size_t)out);
    for (int k = 0; k < out; k++)
        y[k] = activate64(l->activation, l->param, y[k]);
}

/* ---- every claim on every backend ---- */

enum runs {
    ONCE,
    EACH,       /* once a backend, which it gets as *state */
    EACH_LAYERS /* the same, for backends that have single layers */
};

struct claim {
    const char *name;
    CMUnitTestFunction test;
    enum runs runs;
};

/* Opens a backend for a model, or skips the test where its device is not there. */
static inline void *open_backend(const struct backend *b, const struct model *m,
                                 int max_batch) {
    struct lenet5_error err = {""};
    struct device device;
    void *state = NULL;
    int granted = max_batch;
    if (b->device(&device, &err)) {
        if (!b->on_gpu)
            fail_msg("backend %s: %s", b->name, err.message);
        print_message("# skip: backend %s: %s\n", b->name, err.message);
        skip();
    }
    if (b->open(&state, m, 0, &granted, &err))
        fail_msg("backend %s: %s", b->name, err.message);
    assert_int_equal(granted, max_batch);
    return state;
}

/* Runs the claims, as a main returns them; the names tell the backend. */
static inline int run_claims(const char *group, const struct claim *claims, size_t count) {
    enum { MOST = 128 };
    static struct CMUnitTest tests[MOST];
    static char names[MOST][96];
    size_t used = 0;
    for (size_t k = 0; k < count; k++)
        for (const struct backend *const *b = backends; *b; b++) {
            if ((claims[k].runs == ONCE && b != backends) ||
                (claims[k].runs == EACH_LAYERS && !(*b)->layer))
                continue;
            if (used == MOST)
                return fprintf(stderr, "%s: more than %d tests\n", group, MOST), 1;
            snprintf(names[used], sizeof names[used],
                     claims[k].runs == ONCE ? "%s" : "%s, backend %s", claims[k].name,
                     (*b)->name);
            tests[used] = (struct CMUnitTest){names[used], claims[k].test, NULL, NULL,
                                              (void *)(uintptr_t)*b};
            used++;
        }
    printf("# %s: seed %d\n", group, SEED);
    fflush(stdout);
    return _cmocka_run_group_tests(group, tests, used, NULL, NULL);
}

#endif
