/* SPDX-License-Identifier: MIT
 *
 * test_simd.c - backend "simd" in every instruction set that runs here.
 *
 *   tanh        within 2 ulp of double, over floats of -10 to 10 and the special ones
 *   rows        random networks: exact on whole numbers, inside layer_bound on real ones, for
 *               one image and for blocks, which are computed in different orders
 *   bits        an image's logits do not depend on its batch, the threads, or on how rows are
 *               taken together
 *   refusals    unknown sets and thread counts
 *   threads     every member works once a job; teams and opened networks side by side
 *
 * Run under the address, undefined-behaviour and thread sanitizers. Left out: what
 * test_layers.c claims of every backend.
 */
#include "testing.h"

#include "simd.h"
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- every set ---- */

static void set_environment(const char *set, int threads) {
    char number[16];
    snprintf(number, sizeof number, "%d", threads);
    assert_int_equal(setenv("LENET5_THREADS", number, 1), 0);
    assert_int_equal(set ? setenv("LENET5_SIMD", set, 1) : unsetenv("LENET5_SIMD"), 0);
}

/* Calls test with each set that runs here, chosen by its name. */
static void for_each_set(void (*test)(const struct simd_set *)) {
    int count = 0;
    for (const struct simd_set *const *s = simd_sets; *s; s++) {
        if (!(*s)->supported()) {
            print_message("# set %s does not run here\n", (*s)->name);
            continue;
        }
        set_environment((*s)->name, 1);
        test(*s);
        count++;
    }
    set_environment(NULL, 1);
    assert_true(count > 0);
}

/* ---- tanh ---- */

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* By how many units in the last place of a float of want's size y is off; NaN if either is. */
static double ulps(float y, double want) {
    int exponent;
    frexp(want, &exponent);
    const int last = exponent - 24 < -149 ? -149 : exponent - 24;
    return fabs((double)y - want) / ldexp(1.0, last);
}

/* Every step'th float from first to last, by its bits, and its negative. */
static void tanh_range(const struct simd_set *set, uint32_t first, uint32_t last,
                       uint32_t step) {
    enum { COUNT = 1024 };
    static float x[COUNT], y[COUNT];
    for (uint64_t at = first; at <= last;) {
        for (int k = 0; k < COUNT; k += 2, at += step) {
            x[k] = from_bits(at > last ? last : (uint32_t)at);
            x[k + 1] = -x[k];
        }
        set->tanh(x, y, COUNT);
        for (int k = 0; k < COUNT; k++) {
            if (!(ulps(y[k], tanh((double)x[k])) <= 2.0))
                fail_msg("%s: tanh(%a) is %a, %.3f ulp off", set->name, x[k], y[k],
                         ulps(y[k], tanh((double)x[k])));
            if (signbit(y[k]) != signbit(x[k]))
                fail_msg("%s: tanh(%a) is %a, the sign is wrong", set->name, x[k], y[k]);
        }
    }
}

static void tanh_of_set(const struct simd_set *set) {
    static const float around[] = {0x1p-126f, 0.0618f, 0.1733f, 0.3466f, 0.5199f,
                                   8.66f,     9.02f,   10.0f,   100.0f,  FLT_MAX};
    float special[64] = {INFINITY, -INFINITY, NAN, -NAN, 0.0f, -0.0f}, y[64];
    tanh_range(set, 0, to_bits(10.0f), 991);
    tanh_range(set, 0, 4096, 1);
    for (size_t k = 0; k < sizeof around / sizeof *around - 1; k++)
        tanh_range(set, to_bits(around[k]) - 3000, to_bits(around[k]) + 3000, 1);
    tanh_range(set, to_bits(FLT_MAX) - 3000, to_bits(FLT_MAX), 1);
    set->tanh(special, y, 64);
    assert_true(y[0] == 1.0f && y[1] == -1.0f);
    assert_true(isnan(y[2]) && isnan(y[3]));
    assert_true(y[4] == 0.0f && !signbit(y[4]) && y[5] == 0.0f && signbit(y[5]));
}

static void test_tanh(void **state) {
    (void)state;
    /* the checker first */
    assert_true(ulps(0x1.000006p-1f, 0.5) == 3.0 && ulps(0x1.fffffep-1f, 1.0) == 0.5);
    assert_false(ulps(NAN, 0.5) <= 2.0);
    for_each_set(tanh_of_set);
}

/* ---- random networks ---- */

static struct window random_window(struct rng *r, int h, int w) {
    struct window k = {
        rng_int(r, 1, h < 6 ? h : 6), rng_int(r, 1, w < 6 ? w : 6), 1, 1, 0, 0, 0, 0};
    if (rng_int(r, 0, 2) == 0) { /* most are plain */
        k.stride_h = rng_int(r, 1, 3);
        k.stride_w = rng_int(r, 1, 3);
    }
    if (rng_int(r, 0, 1)) {
        k.top = rng_int(r, 0, k.kernel_h - 1);
        k.left = rng_int(r, 0, k.kernel_w - 1);
        k.bottom = rng_int(r, 0, k.kernel_h - 1);
        k.right = rng_int(r, 0, k.kernel_w - 1);
    }
    return k;
}

/* Pooling as it usually follows a convolution, which is what simd fuses; or any other. */
static struct window random_pool(struct rng *r, int h, int w) {
    const int side = rng_int(r, 1, 3);
    if (rng_int(r, 0, 2) == 0 || side > h || side > w)
        return random_window(r, h, w);
    return square(side, side, 0);
}

static enum activation random_activation(struct rng *r, enum fill fill) {
    if (fill == WHOLE)
        return rng_int(r, 0, 1) ? ACT_LINEAR : ACT_RELU;
    return (enum activation)rng_int(r, 0, ACT_SOFTMAX - 1);
}

/* One to five rows. WHOLE networks have one convolution or dense row, so that sums stay small
   enough to be exact. */
static void random_network(struct model *m, enum fill fill, struct rng *r) {
    struct lenet5_error err;
    int products = 0;
    model_start(m, rng_int(r, 0, 1) ? 3 : 1, rng_int(r, 1, 21), rng_int(r, 1, 37));
    struct shape at = m->input;
    for (int rows = rng_int(r, 1, 5); rows > 0; rows--) {
        static const enum op ops[] = {OP_CONV,     OP_CONV,  OP_AVERAGE_POOL, OP_AVERAGE_POOL,
                                      OP_MAX_POOL, OP_DENSE, OP_SCALE,        OP_ACTIVATION};
        const enum op op = ops[rng_int(r, 0, 7)];
        const enum activation a = random_activation(r, fill);
        if ((op == OP_CONV || op == OP_DENSE || op == OP_SCALE) && fill == WHOLE && products++)
            continue;
        if (op == OP_CONV)
            model_add(m, op, rng_int(r, 1, 20), random_window(r, at.h, at.w), a, 1);
        else if (op == OP_AVERAGE_POOL || op == OP_MAX_POOL)
            model_add(m, fill == WHOLE ? OP_MAX_POOL : op, 0, random_pool(r, at.h, at.w), a, 0);
        else if (op == OP_DENSE)
            model_add(m, op, rng_int(r, 1, 40), NO_WINDOW, a, rng_int(r, 0, 1));
        else
            model_add(m, op, 0, NO_WINDOW,
                      op == OP_ACTIVATION && fill == REAL && rng_int(r, 0, 3) == 0 ? ACT_SOFTMAX
                                                                                   : a,
                      op == OP_SCALE);
        if (network_check(m->layers, m->count, m->input, &err))
            fail_msg("%s", err.message);
        at = m->layers[m->count - 1].out;
    }
    if (!m->count)
        add_conv(m, 3, square(1, 1, 0), ACT_LINEAR);
    model_finish(m, fill, r);
}

static struct guarded random_images(const struct model *m, int n, enum fill fill,
                                    struct rng *r) {
    const size_t count = (size_t)n * shape_size(m->input);
    struct guarded x = guarded_floats(count);
    for (size_t k = 0; k < count; k++)
        ((float *)x.at)[k] =
            fill == WHOLE ? (float)rng_int(r, -4, 4) : rng_real(r, -1.0f, 1.0f);
    guarded_read_only(&x);
    return x;
}

/* Row by row, n images: the reference's output is the next row's input. */
static void check_rows(const struct simd_set *set, void *simd, const struct model *m,
                       const float *x, int n, enum fill fill) {
    struct lenet5_error err;
    float *in = malloc((size_t)n * shape_size(m->input) * sizeof *in);
    memcpy(in, x, (size_t)n * shape_size(m->input) * sizeof *in);
    for (int row = 0; row < m->count; row++) {
        const struct layer *l = &m->layers[row];
        const size_t count = (size_t)n * shape_size(l->out);
        struct guarded y = guarded_floats(count);
        float *want = malloc(2 * count * sizeof *want), *bound = want + count;
        const float *got = y.at;
        double seconds;
        layer_cpu(l, in, want, n);
        if (layer_bound(l, in, n, bound, &err) ||
            backend_simd.layer(simd, row, in, n, y.at, 1, &seconds, &err))
            fail_msg("%s", err.message);
        for (size_t k = 0; k < count; k++)
            if (!(fabsf(got[k] - want[k]) <= (fill == WHOLE ? 0.0f : bound[k])))
                fail_msg("%s: row %d of %d, %s to %dx%dx%d, %d images: number %zu is %.9g, "
                         "must be %.9g within %.3g",
                         set->name, row, m->count, op_name(l->op), l->out.c, l->out.h, l->out.w,
                         n, k, got[k], want[k], bound[k]);
        assert_true(guarded_intact(&y));
        guarded_free(&y);
        free(in);
        in = realloc(want, count * sizeof *in);
    }
    free(in);
}

/* The first n images in one go, against one by one; and against row by row. */
static void check_bits(const struct simd_set *set, void *simd, const struct model *m,
                       const float *x, int n, float *alone) {
    struct lenet5_error err;
    const int rows = network_logit_rows(m->layers, m->count);
    const size_t pixels = shape_size(m->input), classes = shape_size(m->layers[rows - 1].out);
    struct guarded y = guarded_floats((size_t)n * classes);
    for (int i = 0; i < n; i++)
        if (backend_simd.run(simd, NULL, x + (size_t)i * pixels, 1, alone + i * classes, NULL,
                             &err))
            fail_msg("%s", err.message);
    if (backend_simd.run(simd, NULL, x, n, y.at, NULL, &err))
        fail_msg("%s", err.message);
    if (memcmp(y.at, alone, (size_t)n * classes * sizeof *alone))
        fail_msg("%s: %d images together do not give the bits of each alone", set->name, n);
    guarded_free(&y);
    float *in = malloc((size_t)n * pixels * sizeof *in);
    memcpy(in, x, (size_t)n * pixels * sizeof *in);
    for (int row = 0; row < rows; row++) {
        double seconds;
        float *out = malloc((size_t)n * shape_size(m->layers[row].out) * sizeof *out);
        if (backend_simd.layer(simd, row, in, n, out, 1, &seconds, &err))
            fail_msg("%s", err.message);
        free(in);
        in = out;
    }
    if (memcmp(in, alone, (size_t)n * classes * sizeof *alone))
        fail_msg("%s: rows one by one do not give the bits of all together", set->name);
    free(in);
}

static void random_networks(const struct simd_set *set, enum fill fill, int count) {
    enum { MOST = 40 };
    struct rng r = {SEED + (uint64_t)fill};
    for (int k = 0; k < count; k++) {
        const int batches[] = {1, 2, set->lanes - 1, set->lanes, rng_int(&r, 1, MOST)};
        struct model m;
        random_network(&m, fill, &r);
        void *simd = open_backend(&backend_simd, &m, MOST);
        struct guarded x = random_images(&m, MOST, fill, &r);
        float *alone = malloc((MOST * sizeof *alone) * MAX_CHANNELS);
        for (int b = 0; b < 5; b++) {
            /* from the end, where the guard page shows what reads too far */
            const float *from =
                (const float *)x.at + (size_t)(MOST - batches[b]) * shape_size(m.input);
            check_rows(set, simd, &m, from, batches[b], fill);
            check_bits(set, simd, &m, from, batches[b], alone);
        }
        free(alone);
        guarded_free(&x);
        backend_simd.close(simd);
        blob_free(&m);
    }
}

static void whole_of_set(const struct simd_set *set) {
    random_networks(set, WHOLE, 60);
}

static void real_of_set(const struct simd_set *set) {
    random_networks(set, REAL, 120);
}

static void test_whole(void **state) {
    (void)state;
    for_each_set(whole_of_set);
}

static void test_real(void **state) {
    (void)state;
    for_each_set(real_of_set);
}

/* ---- LeNet-5: bytes, batches, threads ---- */

enum { IMAGES = 301 };

/* Batches of many sizes, from the end of x, have the bits that each image has alone. */
static void check_batches(const struct simd_set *set, void *simd, int threads, const uint8_t *x,
                          const float *alone) {
    static const int batches[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 100, IMAGES};
    struct lenet5_error err;
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        const int n = batches[k], first = IMAGES - n;
        struct guarded y = guarded_floats((size_t)n * 10);
        if (backend_simd.run(simd, x + (size_t)first * 784, NULL, n, y.at, NULL, &err))
            fail_msg("%s", err.message);
        if (memcmp(y.at, alone + 10 * first, (size_t)n * 10 * sizeof(float)))
            fail_msg("%s, %d threads: %d images differ from one by one", set->name, threads, n);
        assert_true(guarded_intact(&y));
        guarded_free(&y);
    }
    struct guarded y = guarded_floats((IMAGES + 1) * 10);
    assert_int_equal(backend_simd.run(simd, x, NULL, IMAGES + 1, y.at, NULL, &err), -1);
    assert_int_equal(backend_simd.run(simd, x, NULL, 0, y.at, NULL, &err), -1);
    guarded_free(&y);
}

static void lenet5_of_set(const struct simd_set *set) {
    static float alone[IMAGES * 10], want[IMAGES * 10];
    struct rng r = {SEED};
    struct lenet5_error err;
    struct model m;
    make_lenet5(&m);
    model_finish(&m, REAL, &r);
    struct guarded x = guarded_new(IMAGES * 784);
    for (size_t k = 0; k < IMAGES * 784; k++)
        ((uint8_t *)x.at)[k] = (uint8_t)rng_int(&r, 0, 255);
    guarded_read_only(&x);
    void *reference = open_backend(&backend_reference, &m, IMAGES);
    assert_int_equal(backend_reference.run(reference, x.at, NULL, IMAGES, want, NULL, &err), 0);
    backend_reference.close(reference);
    for (int threads = 1; threads <= 4; threads++) {
        set_environment(set->name, threads);
        void *simd = open_backend(&backend_simd, &m, IMAGES);
        for (int i = 0; threads == 1 && i < IMAGES; i++)
            assert_int_equal(backend_simd.run(simd, (uint8_t *)x.at + (size_t)i * 784, NULL, 1,
                                              alone + 10 * i, NULL, &err),
                             0);
        check_batches(set, simd, threads, x.at, alone);
        backend_simd.close(simd);
    }
    for (int i = 0; i < IMAGES; i++)
        assert_int_equal(lenet5_argmax(alone + 10 * i, 10), lenet5_argmax(want + 10 * i, 10));
    for (int k = 0; k < 10 * IMAGES; k++)
        assert_true(fabsf(alone[k] - want[k]) <= 1e-5f);
    guarded_free(&x);
    blob_free(&m);
}

static void test_lenet5(void **state) {
    (void)state;
    for_each_set(lenet5_of_set);
}

/* ---- what is refused ---- */

static void refused(const char *variable, const char *value, const char *expect) {
    struct lenet5_error err = {""};
    struct device device;
    struct model m;
    struct rng r = {SEED};
    void *simd = &simd;
    int batch = 1;
    make_lenet5(&m);
    model_finish(&m, REAL, &r);
    set_environment(NULL, 1);
    assert_int_equal(setenv(variable, value, 1), 0);
    assert_int_equal(backend_simd.device(&device, &err), -1);
    assert_non_null(strstr(err.message, expect));
    memset(&err, 0, sizeof err);
    assert_int_equal(backend_simd.open(&simd, &m, 0, &batch, &err), -1);
    assert_null(simd);
    assert_non_null(strstr(err.message, expect));
    set_environment(NULL, 1);
    blob_free(&m);
}

static void test_refusals(void **state) {
    (void)state;
    refused("LENET5_SIMD", "avx1024", "LENET5_SIMD=avx1024");
    refused("LENET5_SIMD", "AVX2", "LENET5_SIMD=AVX2");
    refused("LENET5_THREADS", "0", "LENET5_THREADS=0");
    refused("LENET5_THREADS", "-1", "1 to 1024");
    refused("LENET5_THREADS", "1025", "1 to 1024");
    refused("LENET5_THREADS", "2x", "LENET5_THREADS=2x");
    refused("LENET5_THREADS", "99999999999999999999", "1 to 1024");
    assert_int_equal(setenv("LENET5_THREADS", "", 1), 0); /* empty is unset */
    struct device device;
    assert_int_equal(backend_simd.device(&device, NULL), 0);
    set_environment(NULL, 1);
    backend_simd.close(NULL);
}

/* ---- threads ---- */

enum { TEAM = 4, ROUNDS = 2000 };

struct tally {
    int plain[TEAM]; /* each member's own */
    atomic_int all;
};

static void count_member(void *context, int member) {
    struct tally *t = context;
    t->plain[member]++;
    atomic_fetch_add(&t->all, 1);
}

static void *use_team(void *unused) {
    struct lenet5_error err;
    struct threads *team;
    struct tally t;
    memset(&t, 0, sizeof t);
    if (threads_open(&team, TEAM, &err))
        return unused;
    int expected = 0;
    for (int k = 0; k < ROUNDS; k++) {
        threads_run(team, 1 + k % TEAM, count_member, &t);
        expected += 1 + k % TEAM;
        if (atomic_load(&t.all) != expected)
            return unused;
    }
    threads_close(team);
    for (int k = 0; k < TEAM; k++)
        if (t.plain[k] != ROUNDS * (TEAM - k) / TEAM)
            return unused;
    return NULL;
}

static void test_teams(void **state) {
    (void)state;
    pthread_t other;
    void *result;
    int here = 1;
    assert_true(threads_available() >= 1 && threads_available() <= MAX_THREADS);
    assert_int_equal(pthread_create(&other, NULL, use_team, &here), 0);
    assert_null(use_team(&here));
    assert_int_equal(pthread_join(other, &result), 0);
    assert_null(result);
    threads_close(NULL);
}

struct embedder {
    const struct model *m;
    const uint8_t *x;
    float logits[100 * 10];
};

/* A program's own thread with a network of its own. */
static void *embed(void *argument) {
    struct embedder *e = argument;
    struct lenet5_error err;
    void *simd;
    int batch = 100, rc = -1;
    if (backend_simd.open(&simd, e->m, 0, &batch, &err))
        return argument;
    for (int k = 0; k < 5; k++)
        rc = backend_simd.run(simd, e->x, NULL, 100, e->logits, NULL, &err);
    backend_simd.close(simd);
    return rc ? argument : NULL;
}

static void test_embedders(void **state) {
    (void)state;
    static struct embedder e[3];
    static uint8_t x[100 * 784];
    struct rng r = {SEED};
    struct model m;
    pthread_t thread[3];
    make_lenet5(&m);
    model_finish(&m, REAL, &r);
    for (size_t k = 0; k < sizeof x; k++)
        x[k] = (uint8_t)rng_int(&r, 0, 255);
    set_environment(NULL, 2);
    for (int k = 0; k < 3; k++) {
        e[k] = (struct embedder){&m, x, {0}};
        assert_int_equal(pthread_create(&thread[k], NULL, embed, &e[k]), 0);
    }
    for (int k = 0; k < 3; k++) {
        void *result;
        assert_int_equal(pthread_join(thread[k], &result), 0);
        assert_null(result);
        assert_memory_equal(e[k].logits, e[0].logits, sizeof e[0].logits);
    }
    set_environment(NULL, 1);
    blob_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tanh),     cmocka_unit_test(test_whole),
        cmocka_unit_test(test_real),     cmocka_unit_test(test_lenet5),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_teams),
        cmocka_unit_test(test_embedders)};
    return cmocka_run_group_tests_name("simd", tests, NULL, NULL);
}
