/* SPDX-License-Identifier: MIT
 *
 * simd.c - backend "simd": the table run with vectors and threads.
 *
 * Images lie in the lanes of vectors, so that every inner loop is a plain multiply-add; GROUPS
 * vectors' worth of them make a block, whose maps stay in the second cache while the block goes
 * through all rows. Blocks are dealt out to threads. Few images, or one, go one by one through
 * kernels that have columns or channels in lanes instead. An image's bits are the same either
 * way, whatever the batch and the number of threads; they differ a little between instruction
 * sets (fused multiply-adds or not), always within layer_bound.
 *
 * This file makes the plan, deals out the work and chooses the instruction set; the arithmetic
 * is in simd_kernels.h, compiled once for each set. Environment:
 *
 *     LENET5_SIMD=baseline|avx2|avx512|neon   one of those that this processor has
 *     LENET5_THREADS=N                        where the caller names no number; default: all
 *                                             processors that the process may use
 *
 * With one thread nothing is started and everything runs in the caller's.
 */
#include "simd.h"
#include "threads.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A loop that is unrolled completely: its bounds are constants where it is inlined. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define EACH(i, n) UNROLL for (int i = 0; i < (n); i++)

/* Keeps v in a register, where the compiler would load it again for each use. */
#if defined(__x86_64__)
#define KEEP(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define KEEP(v) __asm__("" : "+w"(v))
#else
#define KEEP(v) (void)(v)
#endif

/* Least maximum of the relative error, 2^-26: e^2r - 1 ~ 2r + r^2 (EXP_2 + EXP_3 r + ...) / 1.5
   for |r| <= ln 2 / 4. */
#define EXP_2 (1.5f * 0x1.fffffep+0f)
#define EXP_3 (1.5f * 0x1.5554aep+0f)
#define EXP_4 (1.5f * 0x1.555676p-1f)
#define EXP_5 (1.5f * 0x1.122914p-2f)
#define EXP_6 (1.5f * 0x1.6bebc8p-4f)

enum { TOGETHER = 4 /* vectors that are activated side by side */ };

static const struct layer as_is = {.activation = ACT_LINEAR};
static const struct layer just_tanh = {.activation = ACT_TANH};

/* Activations that vectors go through without leaving their registers; softmax as such does
   nothing to a number. */
static int plain_activation(const struct layer *l) {
    return l->activation == ACT_LINEAR || l->activation == ACT_TANH ||
           l->activation == ACT_RELU || l->activation == ACT_SOFTMAX;
}

/* Is a row of the pooling l, over so many rows, one of the usual 2 x 2 means side by side? */
static int plain_2x2(const struct layer *l, int rows) {
    return l->op == OP_AVERAGE_POOL && rows == 2 && l->kernel_w == 2 && l->stride_w == 2 &&
           l->pad_left + l->pad_right == 0;
}

/* What is left for the pooling of a stage to activate: the convolution, or nothing. */
static const struct layer *due_in_pool(const struct stage *s) {
    const int plain = s->pool && plain_2x2(s->pool, s->pool->kernel_h);
    return plain && plain_activation(s->l) ? s->l : &as_is;
}

/* Lanes 0 to 7, and 8 to 15, of two vectors of 16 bytes in turn. */
#define LOW_HALVES  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

/* Tiles whose sums, operands and one number more fit into 16 registers; into 32 fit all. */
/* clang-format off */
#define NARROW_TILES(T)                                                                        \
    T(1, 1) T(1, 2) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(4, 1) T(4, 2) T(5, 1) T(5, 2) T(6, 1)    \
    T(6, 2) T(8, 1) T(10, 1)
#define TILES_16(T)                                                                            \
    NARROW_TILES(T) T(1, 3) T(1, 4) T(1, 5) T(1, 6) T(1, 8) T(2, 3) T(2, 4) T(2, 5) T(2, 6)    \
    T(3, 3) T(3, 4) T(4, 3)
#define TILES_32(T)                                                                            \
    TILES_16(T) T(2, 8) T(3, 5) T(3, 6) T(3, 8) T(4, 4) T(4, 5) T(4, 6) T(5, 3) T(5, 4)        \
    T(5, 5) T(6, 3) T(6, 4) T(8, 2) T(8, 3) T(10, 2)
/* clang-format on */

#if defined(__x86_64__)
#include <immintrin.h>

static int supported_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

static int supported_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#define SET           avx512
#define SET_NAME      "avx512"
#define LANES         16
#define REGISTERS     32
#define TARGET        __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw")))
#define TILES         TILES_32
#define SPREAD(s)     (vec) _mm512_set1_ps(s)
#define WHOLE(b)      (ivec) _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(b)))
#define FMA(a, b, c)  (vec) _mm512_fmadd_ps(a, b, c)
#define FUSED         FMA
#define LESSER(a, b)  (vec) _mm512_min_ps(a, b)
#define GREATER(a, b) (vec) _mm512_max_ps(a, b)
#define EVENS         0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODDS          1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#include "simd_kernels.h"

#define SET           avx2
#define SET_NAME      "avx2"
#define LANES         8
#define REGISTERS     16
#define TARGET        __attribute__((target("avx2,fma")))
#define TILES         TILES_16
#define SPREAD(s)     (vec) _mm256_set1_ps(s)
#define WHOLE(b)      (ivec) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(b)))
#define FMA(a, b, c)  (vec) _mm256_fmadd_ps(a, b, c)
#define FUSED         FMA
#define LESSER(a, b)  (vec) _mm256_min_ps(a, b)
#define GREATER(a, b) (vec) _mm256_max_ps(a, b)
#define EVENS         0, 2, 4, 6, 8, 10, 12, 14
#define ODDS          1, 3, 5, 7, 9, 11, 13, 15
#include "simd_kernels.h"
#endif

/* What every processor of the kind has: four lanes, in the compiler's own terms. */
static int supported_always(void) {
    return 1;
}

#define SET   baseline
#define LANES 4
#define TARGET
#define SPREAD(s)     ((vec){s, s, s, s})
#define WHOLE(b)      ((ivec){(b)[0], (b)[1], (b)[2], (b)[3]})
#define LESSER(a, b)  PICK((a) < (b), a, b)
#define GREATER(a, b) PICK((a) > (b), a, b)
#define EVENS         0, 2, 4, 6
#define ODDS          1, 3, 5, 7
#if defined(__aarch64__)
#include <arm_neon.h>
#define SET_NAME     "neon"
#define REGISTERS    32
#define TILES        TILES_32
#define FMA(a, b, c) (vec) vfmaq_f32(c, a, b)
#define FUSED        FMA
#else
#define SET_NAME       "baseline"
#define REGISTERS      16
#define TILES          TILES_16
#define FMA(a, b, c)   ((a) * (b) + (c))
#define DOUBLES(v)     __builtin_convertvector(v, doubles)
#define FUSED(a, b, c) __builtin_convertvector(DOUBLES(a) * DOUBLES(b) + DOUBLES(c), vec)
typedef double doubles __attribute__((vector_size(32)));
#endif
#define supported_baseline supported_always
#include "simd_kernels.h"

const struct simd_set *const simd_sets[] = {
#if defined(__x86_64__)
    &set_avx512, &set_avx2,
#endif
    &set_baseline, NULL};

/* Floats that threads may spend on maps before there are fewer threads, and at all. */
static const size_t MOST_FLOATS = (size_t)1 << 28;

enum { SLACK = 64 /* floats behind a map: vectors reach over the end of a single image's */ };

struct worker {
    float *map[2], *strip; /* into the state's memory */
};

struct simd {
    const struct model *model;
    const struct simd_set *set;
    int max_batch, threads, stages;
    int64_t macs;                                   /* of one image */
    struct pack block[MAX_LAYERS], one[MAX_LAYERS]; /* of each row */
    struct stage alone[MAX_LAYERS],
        chain[MAX_LAYERS];   /* each row; and in one go to the logits */
    float *weights, *memory; /* owned */
    struct worker *workers;  /* owned, one a thread */
    struct threads *team;    /* owned */
};

/* ---- plan ------------------------------------------------------------------------------- */

/* The set that the environment asks for, or the best that runs here. */
static const struct simd_set *choose_set(struct lenet5_error *err) {
    const char *asked = getenv("LENET5_SIMD");
    char here[64] = "";
    for (const struct simd_set *const *s = simd_sets; *s; s++) {
        const int runs = (*s)->supported();
        if (runs && (!asked || !*asked || !strcmp(asked, (*s)->name)))
            return *s;
        if (runs)
            snprintf(here + strlen(here), sizeof here - strlen(here), " %s", (*s)->name);
    }
    fail(err, "LENET5_SIMD=%.40s: the sets that run here are:%s; or leave it unset", asked,
         here);
    return NULL;
}

/* As asked for by the caller, else by the environment, else as many as there are. */
static int choose_threads(int wanted, int *count, struct lenet5_error *err) {
    const char *asked = getenv("LENET5_THREADS");
    char *end;
    if (wanted) {
        *count = wanted;
        return 0;
    }
    if (!asked || !*asked) {
        *count = threads_available();
        return 0;
    }
    const long value = strtol(asked, &end, 10);
    if (*end || value < 1 || value > MAX_THREADS)
        return fail(err, "LENET5_THREADS=%.40s: must be a whole number from 1 to %d", asked,
                    MAX_THREADS);
    *count = (int)value;
    return 0;
}

/* Cycles that a tile takes for one tap, roughly: two multiply-adds and two loads a cycle, and
   every sum waits four cycles for its last addition, in practice a little more. Of equals the
   one with fewer loads is faster, and vectors are dearer than numbers. */
static double tile_cost(int a, int b) {
    const double adds = 0.5 * a * b, loads = 0.5 * (a + b);
    return fmax(5.5, fmax(adds, loads)) + 0.02 * (a + 2 * b);
}

/* The same for a side of n, cut into tiles of at most a (or b, where a is fixed). */
static double side_cost(product_tile *const (*tiles)[MOST_B + 1], int a, int b, int n,
                        int along_a) {
    double cost = 0;
    for (int size; n > 0; n -= size) {
        size = along_a ? a : b;
        size = n < size ? n : size;
        while (!(along_a ? tiles[size][b] : tiles[a][size]))
            size--;
        cost += along_a ? tile_cost(size, b) : tile_cost(a, size);
    }
    return cost;
}

/* Picks the tile for an A of na and a B of nb. One of the sides, A if pad_a, is filled up with
   zeros to whole tiles; the other is cut. Returns the cycles of one tap. */
static double choose_tile(struct pack *p, product_tile *const (*tiles)[MOST_B + 1], int na,
                          int nb, int pad_a) {
    double least = HUGE_VAL;
    for (int a = 1; a <= MOST_A; a++)
        for (int b = 1; b <= MOST_B; b++) {
            if (!tiles[a][b])
                continue;
            const int groups = pad_a ? (na + a - 1) / a : (nb + b - 1) / b;
            const double cost = groups * side_cost(tiles, a, b, pad_a ? nb : na, !pad_a);
            if (cost < least) {
                least = cost;
                p->a = a;
                p->b = b;
            }
        }
    return least;
}

/* How row l is cut, for blocks and for one image. */
static void plan_row(struct simd *s, int row) {
    const struct layer *l = &s->model->layers[row];
    const struct simd_set *set = s->set;
    const int O = l->out.c, Q = l->out.w, vectors = (O + set->lanes - 1) / set->lanes;
    struct pack *block = &s->block[row], *one = &s->one[row], pixels;
    if (l->op == OP_DENSE) {
        choose_tile(block, set->strided, O, GROUPS, 1);
        choose_tile(one, set->tiles, 1, vectors, 0);
    }
    if (l->op == OP_CONV) {
        const int straight = l->stride_w == 1;
        choose_tile(block, straight ? set->tiles : set->strided, O, Q, 1);
        const double by_channel =
            choose_tile(one, straight ? set->tiles : set->strided, Q, vectors, 0);
        if (straight && choose_tile(&pixels, set->tiles, O, (Q + set->lanes - 1) / set->lanes,
                                    1) < by_channel) {
            *one = pixels;
            s->alone[row].one_pixels = 1;
        }
    }
}

/* Numbers of one group of outputs that lie side by side. */
static int pack_width(const struct simd *s, int row, const struct pack *p) {
    return p == &s->block[row] || s->alone[row].one_pixels ? p->a : p->b * s->set->lanes;
}

/* Floats that one row's weights and biases take, each a multiple of 16. */
static size_t pack_size(const struct simd *s, int row, const struct pack *p) {
    const struct layer *l = &s->model->layers[row];
    if (l->op != OP_CONV && l->op != OP_DENSE)
        return 0;
    const size_t outs = (size_t)round_up(l->out.c, pack_width(s, row, p));
    return (outs * (l->weights / (size_t)l->out.c) + 15) / 16 * 16 + (outs + 15) / 16 * 16;
}

/* Fills one row's pack at `to`, which is zero, and returns what lies behind it. */
static float *pack_fill(const struct simd *s, int row, struct pack *p, float *to) {
    const struct layer *l = &s->model->layers[row];
    const size_t size = pack_size(s, row, p);
    if (!size)
        return to;
    const size_t taps = l->weights / (size_t)l->out.c, width = (size_t)pack_width(s, row, p);
    const size_t outs = (size_t)round_up(l->out.c, (int)width);
    p->weight = to;
    p->bias = to + (outs * taps + 15) / 16 * 16;
    for (size_t o = 0; o < (size_t)l->out.c; o++) {
        for (size_t k = 0; k < taps; k++)
            p->weight[(o / width * taps + k) * width + o % width] = l->weight[o * taps + k];
        p->bias[o] = l->bias ? l->bias[o] : 0.0f;
    }
    return to + size;
}

/* A map of that shape, with the border that its reader wants. */
static struct plane plane_for(struct shape shape, const struct layer *reader) {
    const int conv = reader && reader->op == OP_CONV;
    struct plane p = {shape.c, shape.h, shape.w, conv ? reader->pad_left : 0, shape.w};
    p.pitch += conv ? reader->pad_left + reader->pad_right : 0;
    return p;
}

/* Does pooling p cut its whole input into windows without border or overlap? */
static int cuts(const struct layer *p) {
    return (p->op == OP_AVERAGE_POOL || p->op == OP_MAX_POOL) &&
           p->pad_top + p->pad_left + p->pad_bottom + p->pad_right == 0 &&
           p->stride_h == p->kernel_h && p->stride_w == p->kernel_w;
}

static void plan_stages(struct simd *s) {
    const struct model *m = s->model;
    const int rows = network_logit_rows(m->layers, m->count);
    for (int row = 0; row < m->count; row++) {
        struct stage *t = &s->alone[row];
        plan_row(s, row);
        t->l = &m->layers[row];
        t->block = &s->block[row];
        t->one = &s->one[row];
        t->in = plane_for(t->l->in, t->l);
        t->out = plane_for(t->l->out, NULL);
    }
    for (int row = 0; row < rows; row++) {
        struct stage *t = &s->chain[s->stages++];
        *t = s->alone[row];
        if (t->l->op == OP_CONV && row + 1 < rows && cuts(&m->layers[row + 1]))
            t->pool = &m->layers[++row];
        t->out = plane_for(m->layers[row].out, row + 1 < rows ? &m->layers[row + 1] : NULL);
    }
}

/* Floats of the strip that this stage wants, in a block or with one image. */
static size_t strip_size(const struct simd *s, const struct stage *t) {
    const struct layer *l = t->l;
    const size_t L = (size_t)s->set->lanes, Q = (size_t)l->out.w, O = (size_t)l->out.c;
    const size_t rows = t->pool ? (size_t)t->pool->kernel_h : 1;
    if (l->op == OP_DENSE)
        return O * L * GROUPS + L * MOST_B;
    if (l->op != OP_CONV)
        return Q * L + L;
    const size_t wide = O + L * MOST_B;
    const size_t block = (size_t)t->block->a * rows * Q * L;
    const size_t one = t->one_pixels ? (size_t)t->one->a * rows * (Q + L) : (rows * wide) * Q;
    return (block > one ? block : one) + 2 * L;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* ---- open and close --------------------------------------------------------------------- */

static int simd_device(struct device *device, struct lenet5_error *err) {
    const struct simd_set *set = choose_set(err);
    int ignored;
    if (!set || choose_threads(0, &ignored, err) || backend_reference.device(device, err))
        return -1;
    char *end = device->name + strlen(device->name);
    snprintf(end, sizeof device->name - strlen(device->name), ", %s", set->name);
    return 0;
}

static void simd_close(void *state) {
    struct simd *s = state;
    if (!s)
        return;
    threads_close(s->team);
    free(s->weights);
    free(s->memory);
    free(s->workers);
    free(s);
}

static int make_packs(struct simd *s, struct lenet5_error *err) {
    size_t floats = 16;
    for (int row = 0; row < s->model->count; row++)
        floats += pack_size(s, row, &s->block[row]) + pack_size(s, row, &s->one[row]);
    s->weights = aligned_alloc(64, floats * sizeof *s->weights);
    if (!s->weights)
        return fail(err, "out of memory: %zu bytes for weights", floats * sizeof *s->weights);
    memset(s->weights, 0, floats * sizeof *s->weights);
    float *at = s->weights;
    for (int row = 0; row < s->model->count; row++) {
        at = pack_fill(s, row, &s->block[row], at);
        at = pack_fill(s, row, &s->one[row], at);
    }
    return 0;
}

/* Two maps and a strip for each thread; fewer threads where that would be too much. */
static int make_workers(struct simd *s, struct lenet5_error *err) {
    const size_t images = (size_t)s->set->lanes * GROUPS;
    size_t cells = 0, strip = 0;
    for (int k = 0; k < s->model->count; k++) {
        const struct stage *all[2] = {&s->alone[k], &s->chain[k]};
        for (int j = 0; j < 2 && all[j]->l; j++) {
            cells = larger(cells, plane_cells(&all[j]->in));
            cells = larger(cells, plane_cells(&all[j]->out));
            strip = larger(strip, strip_size(s, all[j]));
        }
    }
    const size_t map = cells * images + SLACK, strip_up = (strip + 15) / 16 * 16;
    const size_t each = 2 * map + strip_up;
    if (each > MOST_FLOATS)
        return fail(err, "maps of %zu numbers an image are too large for backend simd", cells);
    if ((size_t)s->threads > MOST_FLOATS / each)
        s->threads = (int)(MOST_FLOATS / each);
    s->memory = aligned_alloc(64, each * (size_t)s->threads * sizeof *s->memory);
    s->workers = calloc((size_t)s->threads, sizeof *s->workers);
    if (!s->memory || !s->workers)
        return fail(err, "out of memory: %zu bytes for maps", each * sizeof *s->memory);
    memset(s->memory, 0, each * (size_t)s->threads * sizeof *s->memory);
    for (int k = 0; k < s->threads; k++) {
        struct worker *w = &s->workers[k];
        w->map[0] = s->memory + (size_t)k * each;
        w->map[1] = w->map[0] + map;
        w->strip = w->map[1] + map;
    }
    return 0;
}

static int simd_open(void **state, const struct model *m, int threads, int *max_batch,
                     struct lenet5_error *err) {
    struct simd *s = calloc(1, sizeof *s);
    *state = NULL;
    if (!s)
        return fail(err, "out of memory");
    s->model = m;
    s->max_batch = *max_batch;
    s->macs = network_macs(m->layers, m->count);
    if (!(s->set = choose_set(err)) || choose_threads(threads, &s->threads, err))
        goto failed;
    plan_stages(s);
    if (make_packs(s, err) || make_workers(s, err) || threads_open(&s->team, s->threads, err))
        goto failed;
    *state = s;
    return 0;
failed:
    simd_close(s);
    return -1;
}

/* ---- run -------------------------------------------------------------------------------- */

/* One call of run, dealt out in pieces of images. */
struct deal {
    struct simd *s;
    const uint8_t *bytes;
    const float *floats;
    float *logits;
    int n, members;
    atomic_int next; /* first image that nobody has taken */
};

/* Numbers of n images from lanes to [image][number]. groups' maps lie `map` floats apart. */
static void store(const float *x, int lanes, size_t map, int n, size_t numbers, float *y) {
    for (int i = 0; i < n; i++, y += numbers)
        for (size_t k = 0; k < numbers; k++)
            y[k] = x[(size_t)(i / lanes) * map + k * (size_t)lanes + (size_t)(i % lanes)];
}

/* Images i to i + n - 1, at most a block, to their logits. */
static void run_some(const struct deal *d, const struct worker *w, int i, int n) {
    const struct simd *s = d->s;
    const struct model *m = s->model;
    const struct stage *last = &s->chain[s->stages - 1];
    const struct plane *in = &s->chain[0].in;
    const size_t pixels = shape_size(m->input), classes = plane_cells(&last->out);
    const uint8_t *bytes = d->bytes ? d->bytes + (size_t)i * pixels : NULL;
    const float *floats = d->floats ? d->floats + (size_t)i * pixels : NULL;
    const int lanes = n == 1 ? 1 : s->set->lanes, groups = (n + lanes - 1) / lanes;
    float *x = w->map[0], *y = w->map[1];

    if (n == 1)
        s->set->load_one(in, bytes, floats, m->scale, m->offset, x);
    else
        s->set->load(in, bytes, floats, m->scale, m->offset, n, x);
    for (int k = 0; k < s->stages; k++) {
        if (n == 1)
            s->set->one(&s->chain[k], x, y, w->strip);
        else
            s->set->block(&s->chain[k], x, y, w->strip, groups);
        float *swap = x;
        x = y;
        y = swap;
    }
    store(x, lanes, classes * (size_t)lanes, n, classes, d->logits + (size_t)i * classes);
}

/* Takes the next images for one member: a block while there are many, then whole vectors, then
   an equal share of the rest, so that all end together. Returns how many, from *i on. */
static int take(struct deal *d, int *i) {
    const int lanes = d->s->set->lanes, block = GROUPS * lanes;
    int some;
    *i = atomic_load(&d->next);
    do {
        const int left = d->n - *i, share = (left + d->members - 1) / d->members;
        some = share < 2 * block ? share / 2 : block;
        some = some < lanes ? (share < lanes ? share : lanes) : some / lanes * lanes;
    } while (some > 0 && !atomic_compare_exchange_weak(&d->next, i, *i + some));
    return some;
}

static void run_pieces(void *context, int member) {
    struct deal *d = context;
    const struct worker *w = &d->s->workers[member];
    const int lanes = d->s->set->lanes;
    for (int i, some; (some = take(d, &i)) > 0;)
        for (int n; some > 0; i += n, some -= n) {
            n = some < lanes ? some : some / lanes * lanes; /* whole vectors first */
            if (4 * n < 3 * lanes) /* a few are faster alone than in a vector half empty */
                n = 1;
            run_some(d, w, i, n);
        }
}

static int check_batch(const struct simd *s, int n, struct lenet5_error *err) {
    if (n < 1 || n > s->max_batch)
        return fail(err, "batch of %d images; this backend was opened for 1 to %d", n,
                    s->max_batch);
    return 0;
}

static int simd_run(void *state, const uint8_t *bytes, const float *floats, int n,
                    float *logits, struct lenet5_timing *timing, struct lenet5_error *err) {
    struct simd *s = state;
    const double start = clock_seconds();
    struct deal d = {s, bytes, floats, logits, n, n < s->threads ? n : s->threads, 0};
    if (check_batch(s, n, err))
        return -1;
    if (n * s->macs < 1 << 21) /* tens of microseconds: waking threads would take as long */
        d.members = 1;
    threads_run(s->team, d.members, run_pieces, &d);
    if (timing)
        timing->compute += clock_seconds() - start;
    return 0;
}

/* One row, in the caller's thread; turning images into lanes and back is not timed. */
static int simd_layer(void *state, int row, const float *x, int n, float *y, int repeats,
                      double *seconds, struct lenet5_error *err) {
    struct simd *s = state;
    const struct stage *t = &s->alone[row];
    const struct worker *w = &s->workers[0];
    const size_t in = shape_size(t->l->in), out = shape_size(t->l->out);
    if (check_batch(s, n, err))
        return -1;
    for (int k = 0; k < repeats; k++)
        seconds[k] = 0;
    for (int i = 0, some; i < n; i += some) {
        some = n - i < GROUPS * s->set->lanes ? n - i : GROUPS * s->set->lanes;
        const int lanes = some == 1 ? 1 : s->set->lanes, groups = (some + lanes - 1) / lanes;
        if (some == 1)
            s->set->load_one(&t->in, NULL, x + (size_t)i * in, 1, 0, w->map[0]);
        else
            s->set->load(&t->in, NULL, x + (size_t)i * in, 1, 0, some, w->map[0]);
        for (int k = 0; k < repeats; k++) {
            const double start = clock_seconds();
            if (some == 1)
                s->set->one(t, w->map[0], w->map[1], w->strip);
            else
                s->set->block(t, w->map[0], w->map[1], w->strip, groups);
            seconds[k] += clock_seconds() - start;
        }
        store(w->map[1], lanes, out * (size_t)lanes, some, out, y + (size_t)i * out);
    }
    return 0;
}

const struct backend backend_simd = {
    .name = "simd",
    .summary = "vectors and threads: AVX-512, AVX2, NEON or what there is",
    .device = simd_device,
    .open = simd_open,
    .run = simd_run,
    .layer = simd_layer,
    .close = simd_close,
    .tolerance = EXACT,
};
