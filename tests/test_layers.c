/* SPDX-License-Identifier: MIT
 *
 * test_layers.c - every op, on every backend that has single layers, against arithmetic that is
 * written here and in testing.h and shares no line with the code under test.
 *
 *   exact    whole numbers: equal to 64-bit integer arithmetic, number by number
 *   bounded  real numbers: within layer_bound of the reference, and the reference itself
 *            within half of that of a computation in double
 *   edges    batches around every power of two, refusals, guard pages, memory left unwritten
 *
 * The checker is fed a wrong number and a NaN first. Every buffer is NaN before it is written,
 * on the device too, and ends at a page that must not be touched; inputs are read-only.
 */
#include "testing.h"

/* ---- a model around the row under test ---- */

enum { UNDER_TEST = 1, POISON = 2 };

/* Begins a model whose row 1, to be added next, takes maps of this shape: an image may have 1
   or 3 channels only, so that a convolution comes first. */
static void start_case(struct model *m, struct shape in) {
    model_start(m, 1, in.h, in.w);
    add_conv(m, in.c, square(1, 1, 0), ACT_LINEAR);
}

/* Ends it with a row that copies, by which the device's output buffer is poisoned. */
static void finish_case(struct model *m, enum fill fill, struct rng *r) {
    add_activation(m, ACT_LINEAR);
    model_finish(m, fill, r);
}

static const char *describe(const struct layer *l, int n) {
    static char text[256];
    snprintf(text, sizeof text,
             "%s on %d images: %dx%dx%d to %dx%dx%d, window %dx%d, stride %dx%d, border %d %d "
             "%d %d, %s(%g, %g, %g), bias %d",
             op_name(l->op), n, l->in.c, l->in.h, l->in.w, l->out.c, l->out.h, l->out.w,
             l->kernel_h, l->kernel_w, l->stride_h, l->stride_w, l->pad_top, l->pad_left,
             l->pad_bottom, l->pad_right, activation_name(l->activation), l->param[0],
             l->param[1], l->param[2], l->biases != 0);
    return text;
}

/* Fills the device's output buffer with NaN: the copying row has as many outputs. */
static void poison(const struct backend *b, void *state, const struct layer *l, int n) {
    struct lenet5_error err = {""};
    const size_t count = (size_t)n * shape_size(l->out);
    struct guarded x = guarded_floats(count), y = guarded_floats(count);
    double seconds[1];
    if (b->layer(state, POISON, x.at, n, y.at, 1, seconds, &err))
        fail_msg("%s", err.message);
    guarded_free(&x);
    guarded_free(&y);
}

/* Row 1 on n images through the backend into y, which is checked for its guards. */
static void run_row(const struct backend *b, void *state, const struct layer *l, const float *x,
                    int n, struct guarded *y) {
    enum { REPEATS = 2 };
    struct lenet5_error err = {""};
    double seconds[REPEATS + 1] = {-1, -1, -1};
    poison(b, state, l, n);
    *y = guarded_floats((size_t)n * shape_size(l->out));
    if (b->layer(state, UNDER_TEST, x, n, y->at, REPEATS, seconds, &err))
        fail_msg("%s: %s", describe(l, n), err.message);
    if (!guarded_intact(y))
        fail_msg("%s: wrote before its output", describe(l, n));
    for (int k = 0; k < REPEATS; k++)
        assert_true(seconds[k] >= 0 && seconds[k] < 60);
    assert_true(seconds[REPEATS] == -1);
}

static void demand(const struct layer *l, int n, const float *got, const double *want,
                   const float *bound, double share, const char *what) {
    const size_t count = (size_t)n * shape_size(l->out);
    const size_t k = first_wrong(got, want, bound, share, count);
    if (k < count)
        fail_msg("%s: %s: number %zu of %zu is %.9g, must be %.9g within %.3g", describe(l, n),
                 what, k, count, got[k], want[k], bound ? share * bound[k] : 0.0);
}

/* ---- exact: 64-bit integers; each input is scattered to the outputs that it reaches ---- */

/* The output at which cell k of the window meets cell h of the map; -1 if it meets none. */
static int met(int h, int k, int border, int stride, int outputs) {
    const int at = h + border - k;
    return at >= 0 && at % stride == 0 && at / stride < outputs ? at / stride : -1;
}

static void conv_whole(const struct layer *l, const float *x, int64_t *y) {
    for (int k = 0; k < l->in.c * l->in.h * l->in.w * l->kernel_h * l->kernel_w; k++) {
        const int v = k % l->kernel_w, u = k / l->kernel_w % l->kernel_h;
        const int cell = k / (l->kernel_w * l->kernel_h);
        const int w = cell % l->in.w, h = cell / l->in.w % l->in.h;
        const int c = cell / (l->in.w * l->in.h);
        const int r = met(h, u, l->pad_top, l->stride_h, l->out.h);
        const int q = met(w, v, l->pad_left, l->stride_w, l->out.w);
        for (int o = 0; o < l->out.c && r >= 0 && q >= 0; o++) {
            const int weight =
                ((o * l->in.c + c) * l->kernel_h + u) * l->kernel_w + v; /* OIHW */
            y[(o * l->out.h + r) * l->out.w + q] +=
                (int64_t)l->weight[weight] * (int64_t)x[cell];
        }
    }
}

/* sum, largest and number of the cells that each output of a pooling sees */
struct cells {
    int64_t sum, most, count;
};

static void pool_whole(const struct layer *l, const float *x, double *y) {
    const size_t out = shape_size(l->out);
    struct cells *seen = calloc(out, sizeof *seen);
    assert_non_null(seen);
    for (int k = 0; k < l->in.c * l->in.h * l->in.w * l->kernel_h * l->kernel_w; k++) {
        const int v = k % l->kernel_w, u = k / l->kernel_w % l->kernel_h;
        const int cell = k / (l->kernel_w * l->kernel_h);
        const int w = cell % l->in.w, h = cell / l->in.w % l->in.h;
        const int c = cell / (l->in.w * l->in.h);
        const int r = met(h, u, l->pad_top, l->stride_h, l->out.h);
        const int q = met(w, v, l->pad_left, l->stride_w, l->out.w);
        const int64_t a = (int64_t)x[cell];
        if (r < 0 || q < 0)
            continue;
        struct cells *s = &seen[(c * l->out.h + r) * l->out.w + q];
        s->most = !s->count || a > s->most ? a : s->most;
        s->sum += a;
        s->count++;
    }
    for (size_t k = 0; k < out; k++) /* a quotient rounds once, to the float nearest to it */
        y[k] = l->op == OP_MAX_POOL ? (double)seen[k].most
                                    : (float)((double)seen[k].sum / (double)seen[k].count);
    free(seen);
}

/* Row l on one image of whole numbers. */
static void row_whole(const struct layer *l, const float *x, double *y) {
    const int in = (int)shape_size(l->in), out = (int)shape_size(l->out);
    const int map = l->out.h * l->out.w;
    int64_t *sum = calloc((size_t)out, sizeof *sum);
    assert_non_null(sum);
    for (int k = 0; k < out; k++)
        sum[k] = l->bias ? (int64_t)l->bias[k / map] : 0;
    if (l->op == OP_CONV)
        conv_whole(l, x, sum);
    for (int c = 0; c < in && l->op == OP_DENSE; c++)
        for (int o = 0; o < out; o++)
            sum[o] += (int64_t)x[c] * (int64_t)l->weight[o * in + c];
    for (int k = 0; k < out && (l->op == OP_SCALE || l->op == OP_ACTIVATION); k++)
        sum[k] += (int64_t)x[k] * (l->op == OP_SCALE ? (int64_t)l->weight[k / map] : 1);
    for (int k = 0; k < out; k++)
        y[k] = (double)sum[k];
    if (l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL)
        pool_whole(l, x, y);
    if (l->activation == ACT_RELU) /* slopes here are powers of two: exact */
        for (int k = 0; k < out; k++)
            y[k] = activate64(ACT_RELU, l->param, y[k]);
    free(sum);
}

/* n images of whole numbers, through the backend and through integers. */
static void exact_case(const struct backend *b, struct model *m, int n, struct rng *r) {
    finish_case(m, WHOLE, r);
    const struct layer *l = &m->layers[UNDER_TEST];
    const size_t in = shape_size(l->in), out = shape_size(l->out);
    void *state = open_backend(b, m, n);
    struct guarded x = guarded_floats((size_t)n * in), y;
    double *want = malloc((size_t)n * out * sizeof *want);
    assert_non_null(want);
    for (size_t k = 0; k < (size_t)n * in; k++)
        ((float *)x.at)[k] = (float)rng_int(r, -4, 4);
    guarded_read_only(&x);
    run_row(b, state, l, x.at, n, &y);
    for (int i = 0; i < n; i++)
        row_whole(l, (float *)x.at + (size_t)i * in, want + (size_t)i * out);
    demand(l, n, y.at, want, NULL, 0, "not equal to integer arithmetic");
    b->close(state);
    free(want);
    guarded_free(&x);
    guarded_free(&y);
    blob_free(m);
}

/* A window that fits into some map of side 1 to most, with a border of its own on each edge. */
static void random_window(struct rng *r, int most, struct window *w, struct shape *in) {
    w->kernel_h = rng_int(r, 1, 7);
    w->kernel_w = rng_int(r, 1, 7);
    w->stride_h = rng_int(r, 1, 3);
    w->stride_w = rng_int(r, 1, 3);
    w->top = rng_int(r, 0, w->kernel_h - 1);
    w->bottom = rng_int(r, 0, w->kernel_h - 1);
    w->left = rng_int(r, 0, w->kernel_w - 1);
    w->right = rng_int(r, 0, w->kernel_w - 1);
    do {
        in->h = rng_int(r, 1, most);
        in->w = rng_int(r, 1, most);
    } while (in->h + w->top + w->bottom < w->kernel_h ||
             in->w + w->left + w->right < w->kernel_w);
    in->c = rng_int(r, 1, 8);
}

enum { CASES = 120 };

/* Adds one random row of this op to a fresh model, with its input. */
static void random_row(struct model *m, enum op op, enum activation a, struct rng *r) {
    const int windowed = op == OP_CONV || op == OP_AVERAGE_POOL || op == OP_MAX_POOL;
    const int bias = rng_int(r, 0, 3) > 0;
    struct window w;
    struct shape in;
    random_window(r, op == OP_DENSE ? 9 : 17, &w, &in);
    start_case(m, in);
    model_add(m, op, op == OP_DENSE ? rng_int(r, 1, 70) : rng_int(r, 1, 20),
              windowed ? w : NO_WINDOW, a, bias);
}

static void exact_op(const struct backend *b, enum op op, enum activation a) {
    static const int batches[] = {1, 2, 3, 5, 17};
    struct rng r = {SEED + (unsigned)op};
    struct model m;
    for (int k = 0; k < CASES; k++) {
        random_row(&m, op, a, &r);
        exact_case(b, &m, batches[rng_int(&r, 0, 4)], &r);
    }
}

static void test_exact_conv(void **state) {
    exact_op(*state, OP_CONV, ACT_LINEAR);
}

static void test_exact_pool(void **state) {
    exact_op(*state, OP_AVERAGE_POOL, ACT_LINEAR);
    exact_op(*state, OP_MAX_POOL, ACT_LINEAR);
}

static void test_exact_dense(void **state) {
    exact_op(*state, OP_DENSE, ACT_LINEAR);
}

static void test_exact_scale(void **state) {
    exact_op(*state, OP_SCALE, ACT_LINEAR);
}

static void test_exact_identity(void **state) {
    exact_op(*state, OP_ACTIVATION, ACT_LINEAR);
}

/* relu with thresholds, ceilings and slopes that stay whole or dyadic: all its branches, and
   the points between them. */
static void test_exact_relu(void **state) {
    static const float params[][3] = {{0, 0, FLT_MAX},  {0.25f, 0, FLT_MAX}, {0, 0, 6},
                                      {0, 2, FLT_MAX},  {0.5f, -1, 3},       {-2, 1, 1},
                                      {1, -3, FLT_MAX}, {0.125f, 3, 4},      {0, 0, 0},
                                      {0.25f, -4, 4},   {-0.5f, 0, FLT_MAX}};
    static const enum op ops[] = {OP_ACTIVATION, OP_DENSE, OP_CONV, OP_MAX_POOL, OP_SCALE};
    struct rng r = {SEED};
    struct model m;
    for (size_t k = 0; k < sizeof params / sizeof *params; k++)
        for (size_t o = 0; o < sizeof ops / sizeof *ops; o++) {
            random_row(&m, ops[o], ACT_RELU, &r);
            memcpy(m.layers[UNDER_TEST].param, params[k], sizeof params[k]);
            exact_case(*state, &m, 3, &r);
        }
}

/* The rows of LeNet-5 and of its relatives, and shapes at the edges of what is allowed. */
static void test_exact_known_shapes(void **state) {
    static const struct {
        enum op op;
        struct shape in;
        int out;
        struct window w;
    } rows[] = {
        {OP_CONV, {1, 28, 28}, 6, {5, 5, 1, 1, 2, 2, 2, 2}},
        {OP_CONV, {3, 32, 32}, 6, {5, 5, 1, 1, 0, 0, 0, 0}},
        {OP_CONV, {6, 14, 14}, 16, {5, 5, 1, 1, 0, 0, 0, 0}},
        {OP_CONV, {16, 5, 5}, 120, {5, 5, 1, 1, 0, 0, 0, 0}},
        {OP_AVERAGE_POOL, {6, 28, 28}, 0, {2, 2, 2, 2, 0, 0, 0, 0}},
        {OP_MAX_POOL, {16, 10, 10}, 0, {2, 2, 2, 2, 0, 0, 0, 0}},
        {OP_DENSE, {16, 5, 5}, 120, {0, 0, 0, 0, 0, 0, 0, 0}},
        {OP_DENSE, {120, 1, 1}, 84, {0, 0, 0, 0, 0, 0, 0, 0}},
        {OP_DENSE, {84, 1, 1}, 10, {0, 0, 0, 0, 0, 0, 0, 0}},
        {OP_CONV, {3, 64, 64}, 2, {3, 3, 2, 2, 0, 0, 1, 1}}, /* "same" of even maps */
        {OP_CONV,
         {2, 9, 7},
         3,
         {MAX_WINDOW, MAX_WINDOW, MAX_WINDOW, 1, 63, 63, 1, 63}},  /* the largest window */
        {OP_AVERAGE_POOL, {2, 1, 1}, 0, {7, 7, 1, 1, 6, 6, 6, 6}}, /* one real cell */
        {OP_MAX_POOL, {1, 64, 3}, 0, {64, 3, 1, 1, 0, 0, 0, 0}},   /* the whole map */
        {OP_AVERAGE_POOL, {3, 5, 5}, 0, {2, 2, 3, 3, 0, 0, 0, 0}}, /* cells left out */
        {OP_DENSE, {1, 1, 1}, 1, {0, 0, 0, 0, 0, 0, 0, 0}},
        {OP_DENSE, {1, 63, 33}, 17, {0, 0, 0, 0, 0, 0, 0, 0}},
        {OP_DENSE, {15, 1, 1}, 1000, {0, 0, 0, 0, 0, 0, 0, 0}},
    };
    struct rng r = {SEED};
    struct model m;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        start_case(&m, rows[k].in);
        model_add(&m, rows[k].op, rows[k].out, rows[k].w, ACT_LINEAR, 1);
        exact_case(*state, &m, 3, &r);
    }
}

/* ---- batches ---- */

enum { MOST_IMAGES = 50 };

static void test_batches(void **state) {
    static const int batches[] = {1, 2, 15, 16, 17, 31, 33, MOST_IMAGES};
    static const enum op ops[] = {OP_CONV,  OP_AVERAGE_POOL, OP_MAX_POOL,
                                  OP_DENSE, OP_SCALE,        OP_ACTIVATION};
    struct rng r = {SEED};
    struct model m;
    for (size_t o = 0; o < sizeof ops / sizeof *ops; o++)
        for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
            random_row(&m, ops[o], ACT_LINEAR, &r);
            exact_case(*state, &m, batches[k], &r);
        }
}

/* Smaller batches on a state that was opened for more: the same numbers, image by image. */
static void test_batches_of_one_state(void **state) {
    static const int batches[] = {MOST_IMAGES, 1, 33, 2, 31, 15, 17, 16};
    const struct backend *b = *state;
    struct rng r = {SEED};
    struct model m;
    random_row(&m, OP_CONV, ACT_TANH, &r);
    finish_case(&m, REAL, &r);
    const struct layer *l = &m.layers[UNDER_TEST];
    const size_t in = shape_size(l->in), out = shape_size(l->out);
    void *opened = open_backend(b, &m, MOST_IMAGES);
    struct guarded x = guarded_floats(MOST_IMAGES * in), y, all;
    for (size_t k = 0; k < MOST_IMAGES * in; k++)
        ((float *)x.at)[k] = rng_real(&r, -1, 1);
    run_row(b, opened, l, x.at, MOST_IMAGES, &all);
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        const int n = batches[k], from = MOST_IMAGES - n; /* the last n images */
        run_row(b, opened, l, (float *)x.at + (size_t)from * in, n, &y);
        assert_memory_equal(y.at, (float *)all.at + (size_t)from * out, y.size);
        guarded_free(&y);
    }
    b->close(opened);
    guarded_free(&x);
    guarded_free(&all);
    blob_free(&m);
}

static void test_batches_refused(void **state) {
    static const int batches[] = {MOST_IMAGES + 1, 0, -1, 1 << 30};
    const struct backend *b = *state;
    struct rng r = {SEED};
    struct model m;
    float number[2] = {0, NAN};
    uint8_t byte = 0;
    double seconds = -1;
    make_lenet5(&m); /* every backend takes it */
    model_finish(&m, WHOLE, &r);
    void *opened = open_backend(b, &m, MOST_IMAGES);
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        struct lenet5_error layer = {""}, run = {""}, floats = {""};
        char want[128];
        snprintf(want, sizeof want, "batch of %d images; this backend was opened for 1 to %d",
                 batches[k], MOST_IMAGES);
        assert_int_equal(b->run(opened, &byte, NULL, batches[k], number + 1, NULL, &run), -1);
        assert_string_equal(run.message, want);
        if (b->layer) {
            assert_int_equal(
                b->run(opened, NULL, number, batches[k], number + 1, NULL, &floats), -1);
            assert_string_equal(floats.message, want);
            assert_int_equal(
                b->layer(opened, 0, number, batches[k], number + 1, 1, &seconds, &layer), -1);
            assert_string_equal(layer.message, want);
        }
        assert_true(isnan(number[1]) && seconds == -1);
    }
    b->close(opened);
    blob_free(&m);
}

static void test_close_null(void **state) {
    const struct backend *b = *state;
    b->close(NULL);
}

/* ---- bounded ---- */

/* The bound itself must be a small, finite number of the right size: twice what house rules
   for one path, (terms + 1) u S + 4 u, where nothing but tanh stretches. */
static void test_bound_is_its_formula(void **state) {
    (void)state;
    static const enum op ops[] = {OP_CONV, OP_DENSE};
    static const enum activation activations[] = {ACT_LINEAR, ACT_TANH};
    const double u = 0x1p-24;
    struct rng r = {SEED};
    for (int k = 0; k < 4; k++) {
        struct model m;
        random_row(&m, ops[k % 2], activations[k / 2], &r);
        finish_case(&m, REAL, &r);
        struct layer *l = &m.layers[UNDER_TEST];
        const size_t in = shape_size(l->in), out = shape_size(l->out);
        float *x = malloc(in * sizeof *x), *bound = malloc(out * sizeof *bound);
        double *ax = malloc(in * sizeof *ax), *sum = malloc(out * sizeof *sum);
        assert_true(x && bound && ax && sum);
        for (size_t j = 0; j < in; j++)
            ax[j] = fabs((double)(x[j] = rng_real(&r, -1, 1)));
        assert_int_equal(layer_bound(l, x, 1, bound, NULL), 0);
        for (size_t j = 0; j < l->weights; j++)
            m.floats[l->weight - m.floats + (ptrdiff_t)j] = fabsf(l->weight[j]);
        for (size_t j = 0; j < l->biases; j++)
            m.floats[l->bias - m.floats + (ptrdiff_t)j] = fabsf(l->bias[j]);
        l->activation = ACT_LINEAR;
        row64(l, ax, sum);
        const double terms = (double)l->weights / l->out.c, own = k / 2 ? 4 * u : 0;
        for (size_t j = 0; j < out; j++) {
            const double want = 2 * ((terms + 1) * u * sum[j] + own);
            assert_true(fabs(bound[j] - want) <= 1e-4 * want);
        }
        free(x);
        free(bound);
        free(ax);
        free(sum);
        blob_free(&m);
    }
}

/* n images of reals up to size: the reference against double, the backend against it. */
static void bounded_case(const struct backend *b, struct model *m, int n, float size,
                         struct rng *r) {
    finish_case(m, REAL, r);
    const struct layer *l = &m->layers[UNDER_TEST];
    const size_t in = shape_size(l->in), out = shape_size(l->out), outputs = (size_t)n * out;
    void *state = open_backend(b, m, n);
    struct guarded x = guarded_floats((size_t)n * in), reference = guarded_floats(outputs);
    struct guarded bound = guarded_floats(outputs), y;
    double *wide = malloc((size_t)n * in * sizeof *wide);
    double *want = malloc(outputs * sizeof *want);
    assert_true(wide && want);
    for (size_t k = 0; k < (size_t)n * in; k++)
        wide[k] = ((float *)x.at)[k] = rng_real(r, -size, size);
    guarded_read_only(&x);
    for (int i = 0; i < n; i++)
        row64(l, wide + (size_t)i * in, want + (size_t)i * out);
    assert_int_equal(layer_bound(l, x.at, n, bound.at, NULL), 0);
    layer_cpu(l, x.at, reference.at, n);
    assert_true(guarded_intact(&reference) && guarded_intact(&bound));
    demand(l, n, reference.at, want, bound.at, 0.5, "reference and double");
    for (size_t k = 0; k < outputs; k++)
        want[k] = ((float *)reference.at)[k];
    run_row(b, state, l, x.at, n, &y);
    demand(l, n, y.at, want, bound.at, 1.0, "backend and reference");
    b->close(state);
    free(wide);
    free(want);
    guarded_free(&x);
    guarded_free(&y);
    guarded_free(&reference);
    guarded_free(&bound);
    blob_free(m);
}

/* Every activation, some with several parameters; relu without a jump, which no bound covers:
   its thresholds are tested exactly above. */
static const struct {
    enum activation activation;
    float param[3];
} ACTIVATIONS[] = {
    {ACT_LINEAR, {0, 0, 0}},
    {ACT_TANH, {0, 0, 0}},
    {ACT_SIGMOID, {0, 0, 0}},
    {ACT_RELU, {0, 0, FLT_MAX}},
    {ACT_RELU, {0.3f, 0, FLT_MAX}},
    {ACT_RELU, {0, 0, 6}},
    {ACT_RELU, {-0.7f, 0, 0.5f}},
    {ACT_ELU, {1, 0, 0}},
    {ACT_ELU, {0.3f, 0, 0}},
    {ACT_ELU, {2.5f, 0, 0}},
    {ACT_SOFTPLUS, {0, 0, 0}},
    {ACT_SOFTSIGN, {0, 0, 0}},
    {ACT_SWISH, {0, 0, 0}},
    {ACT_GELU, {0, 0, 0}},
    {ACT_GELU_TANH, {0, 0, 0}},
    {ACT_HARD_SIGMOID, {0.2f, 0, 0}},
    {ACT_HARD_SIGMOID, {1.0f / 6.0f, 0, 0}},
    {ACT_SELU, {0, 0, 0}},
    {ACT_MISH, {0, 0, 0}},
};

enum { ACTIVATION_CASES = sizeof ACTIVATIONS / sizeof *ACTIVATIONS };

static void bounded_op(const struct backend *b, enum op op) {
    static const float sizes[] = {1e-3f, 1, 1, 30, 1e4f};
    struct rng r = {SEED + 100 + (unsigned)op};
    struct model m;
    for (int k = 0; k < 3 * ACTIVATION_CASES; k++) {
        random_row(&m, op, ACTIVATIONS[k % ACTIVATION_CASES].activation, &r);
        memcpy(m.layers[UNDER_TEST].param, ACTIVATIONS[k % ACTIVATION_CASES].param,
               sizeof ACTIVATIONS->param);
        bounded_case(b, &m, rng_int(&r, 1, 9), sizes[rng_int(&r, 0, 4)], &r);
    }
}

static void test_bounded_conv(void **state) {
    bounded_op(*state, OP_CONV);
}

static void test_bounded_pool(void **state) {
    bounded_op(*state, OP_AVERAGE_POOL);
    bounded_op(*state, OP_MAX_POOL);
}

static void test_bounded_dense(void **state) {
    bounded_op(*state, OP_DENSE);
}

static void test_bounded_scale(void **state) {
    bounded_op(*state, OP_SCALE);
}

static void test_bounded_activation(void **state) {
    bounded_op(*state, OP_ACTIVATION);
}

/* Does every activation of activation.h stand in the list above? */
static void test_every_activation_is_tested(void **state) {
    (void)state;
    for (int a = 0; a < ACT_END; a++) {
        int found = a == ACT_SOFTMAX; /* which needs a row of its own: test_softmax */
        for (int k = 0; k < ACTIVATION_CASES; k++)
            found += (int)ACTIVATIONS[k].activation == a;
        if (!found)
            fail_msg("activation %s is in no test", activation_name((enum activation)a));
    }
}

/* The curve of each activation, densely where it bends, and where floats end. */
static void test_activation_curves(void **state) {
    static const float far[] = {0.0f,   -0.0f,  1e-45f, -1e-45f, 1e-20f, -1e-20f,
                                87.3f,  -87.3f, 88.8f,  -88.8f,  103.9f, -103.9f,
                                200.0f, -200.f, 1e15f,  -1e15f,  3e38f,  -3e38f};
    enum { SIDE = 64, COUNT = SIDE * SIDE, FAR = sizeof far / sizeof *far };
    const struct backend *b = *state;
    struct rng r = {SEED};
    for (int k = 0; k < ACTIVATION_CASES; k++) {
        struct model m;
        start_case(&m, (struct shape){1, SIDE, SIDE});
        struct layer *l = add_activation(&m, ACTIVATIONS[k].activation);
        memcpy(l->param, ACTIVATIONS[k].param, sizeof l->param);
        finish_case(&m, REAL, &r);
        void *opened = open_backend(b, &m, 1);
        struct guarded x = guarded_floats(COUNT), y;
        float *bound = malloc(COUNT * sizeof *bound);
        double *want = malloc(COUNT * sizeof *want);
        assert_true(bound && want);
        for (int j = 0; j < COUNT; j++) {
            const float a = j < FAR ? far[j] : 24.0f * (float)(j - COUNT / 2) / COUNT;
            ((float *)x.at)[j] = a;
            want[j] = activate64(l->activation, l->param, a);
        }
        assert_int_equal(layer_bound(l, x.at, 1, bound, NULL), 0);
        run_row(b, opened, l, x.at, 1, &y);
        demand(l, 1, y.at, want, bound, b->on_gpu ? 1.0 : 0.5, "the curve");
        b->close(opened);
        free(bound);
        free(want);
        guarded_free(&x);
        guarded_free(&y);
        blob_free(&m);
    }
}

/* ---- softmax ---- */

static void softmax_case(const struct backend *b, int size, int n, float huge, struct rng *r) {
    struct model m;
    start_case(&m, (struct shape){size, 1, 1});
    add_activation(&m, ACT_SOFTMAX);
    finish_case(&m, REAL, r);
    const struct layer *l = &m.layers[UNDER_TEST];
    const size_t count = (size_t)n * (size_t)size;
    void *state = open_backend(b, &m, n);
    struct guarded x = guarded_floats(count), y, bound = guarded_floats(count);
    double *wide = malloc(count * sizeof *wide), *want = malloc(count * sizeof *want);
    assert_true(wide && want);
    for (size_t k = 0; k < count; k++)
        wide[k] = ((float *)x.at)[k] = rng_real(r, -huge, huge);
    for (int i = 0; i < n; i++)
        softmax64(wide + i * size, want + i * size, (size_t)size);
    assert_int_equal(layer_bound(l, x.at, n, bound.at, NULL), 0);
    run_row(b, state, l, x.at, n, &y);
    demand(l, n, y.at, want, bound.at, b->on_gpu ? 1.0 : 0.5, "softmax");
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < size; k++)
            sum += ((float *)y.at)[i * size + k];
        assert_true(fabs(sum - 1) <= (size + 8) * 0x1p-23);
    }
    b->close(state);
    free(wide);
    free(want);
    guarded_free(&x);
    guarded_free(&y);
    guarded_free(&bound);
    blob_free(&m);
}

static void test_softmax(void **state) {
    static const int sizes[] = {1, 2, 10, 333};
    static const float huge[] = {0, 1, 88, 1e4f, 1e38f};
    struct rng r = {SEED};
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < 5; j++)
            softmax_case(*state, sizes[k], 1 + 16 * j, huge[j], &r);
}

/* The public function: rows apart, in place, logits beyond what exp can take. */
static void test_public_softmax(void **state) {
    (void)state;
    float x[4][3] = {
        {0, 0, 0}, {FLT_MAX, FLT_MAX, -FLT_MAX}, {1000, 999, -1000}, {-5e4f, -5e4f, -5e4f}};
    const double e = exp(1.0);
    const double want[4][3] = {{1 / 3., 1 / 3., 1 / 3.},
                               {0.5, 0.5, 0},
                               {e / (e + 1), 1 / (e + 1), 0},
                               {1 / 3., 1 / 3., 1 / 3.}};
    float y[4][3];
    lenet5_softmax(x[0], 4, 3, y[0]);
    for (int k = 0; k < 12; k++)
        assert_true(fabs(y[k / 3][k % 3] - want[k / 3][k % 3]) <= 4 * 0x1p-24);
    lenet5_softmax(x[0], 4, 3, x[0]);
    assert_memory_equal(x, y, sizeof x);
    lenet5_softmax(NULL, 0, 3, NULL);
}

/* ---- names, counts, and the checker itself ---- */

static void test_names(void **state) {
    (void)state;
    static const char *const activations[] = {
        "linear", "tanh", "sigmoid",   "relu",         "elu",     "softplus", "softsign",
        "swish",  "gelu", "gelu_tanh", "hard_sigmoid", "softmax", "selu",     "mish"};
    static const char *const ops[] = {"unknown", "conv",  "average_pool", "max_pool",
                                      "dense",   "scale", "activation"};
    for (int a = 0; a < ACT_END; a++) {
        assert_string_equal(activation_name((enum activation)a), activations[a]);
        assert_int_equal(activation_by_name(activations[a]), a);
    }
    assert_int_equal(activation_by_name("tan"), ACT_END);
    assert_int_equal(activation_by_name(""), ACT_END);
    assert_string_equal(activation_name(ACT_END), "unknown");
    for (int op = 0; op < OP_END; op++)
        assert_string_equal(op_name((enum op)op), ops[op]);
    assert_string_equal(op_name(OP_END), "unknown");
}

static void test_counts(void **state) {
    (void)state;
    static const int64_t macs[] = {117600, 0, 240000, 0, 48000, 10080, 840};
    static const size_t weights[] = {150, 0, 2400, 0, 48000, 10080, 840};
    static const size_t biases[] = {6, 0, 16, 0, 120, 84, 10};
    struct rng r = {SEED};
    struct model m;
    make_lenet5(&m);
    model_finish(&m, REAL, &r);
    for (int k = 0; k < 7; k++) {
        assert_int_equal(layer_macs(&m.layers[k]), macs[k]);
        assert_int_equal(m.layers[k].weights, weights[k]);
        assert_int_equal(m.layers[k].biases, biases[k]);
    }
    blob_free(&m);
}

/* A map that is not square, which LeNet-5 has nowhere. */
static void test_counts_not_square(void **state) {
    (void)state;
    struct rng r = {SEED};
    struct model m;
    model_start(&m, 3, 9, 5);
    add_conv(&m, 2, (struct window){2, 3, 1, 1, 0, 0, 0, 0}, ACT_LINEAR);
    model_add(&m, OP_SCALE, 0, NO_WINDOW, ACT_LINEAR, 1);
    add_dense(&m, 7, ACT_LINEAR);
    model_finish(&m, REAL, &r);
    assert_int_equal(layer_macs(&m.layers[0]), 2 * 3 * 2 * 3 * 8 * 3);
    assert_int_equal(layer_macs(&m.layers[1]), 0);
    assert_int_equal(layer_macs(&m.layers[2]), 7 * 2 * 8 * 3);
    assert_true(m.layers[1].weights == 2 && m.layers[1].biases == 2);
    blob_free(&m);
}

/* Near zero the bounds above are wide: there, no formula may lose small numbers to a
   cancellation. */
static void test_small_arguments(void **state) {
    (void)state;
    static const float small[] = {1e-20f, -1e-20f, 3e-6f, -3e-6f, 0.01f, -0.01f};
    for (int k = 0; k < ACTIVATION_CASES; k++)
        for (int j = 0; j < 6; j++) {
            const double want =
                activate64(ACTIVATIONS[k].activation, ACTIVATIONS[k].param, small[j]);
            const double got =
                activate(ACTIVATIONS[k].activation, ACTIVATIONS[k].param, small[j]);
            if (!(fabs(got - want) <= 1e-6 * fabs(want)))
                fail_msg("%s(%g) is %.9g, must be %.9g",
                         activation_name(ACTIVATIONS[k].activation), small[j], got, want);
        }
}

/* A checker that finds nothing is worth nothing. */
static void test_checker_notices(void **state) {
    (void)state;
    const double want[3] = {1, 2, 3};
    const float good[3] = {1, 2, 3}, off[3] = {1, 2.0001f, 3}, hole[3] = {1, 2, NAN};
    const float bound[3] = {1e-3f, 1e-3f, 1e-3f}, no_bound[3] = {1e-3f, NAN, 1e-3f};
    const double want_hole[3] = {NAN, 2, 3};
    assert_int_equal(first_wrong(good, want, NULL, 1, 3), 3);
    assert_int_equal(first_wrong(off, want, NULL, 1, 3), 1);
    assert_int_equal(first_wrong(off, want, bound, 1, 3), 3);
    assert_int_equal(first_wrong(off, want, bound, 0.05, 3), 1);
    assert_int_equal(first_wrong(hole, want, NULL, 1, 3), 2);
    assert_int_equal(first_wrong(hole, want, bound, 1, 3), 2);
    assert_int_equal(first_wrong(good, want, no_bound, 1, 3), 1);
    assert_int_equal(first_wrong(good, want_hole, bound, 1, 3), 0);
    struct guarded g = guarded_floats(5);
    assert_true(guarded_intact(&g));
    ((uint8_t *)g.at)[-1] ^= 1;
    assert_false(guarded_intact(&g));
    guarded_free(&g);
}

int main(void) {
    static const struct claim claims[] = {
        {"the checker notices a wrong number, a NaN, a torn guard", test_checker_notices, ONCE},
        {"names of ops and activations", test_names, ONCE},
        {"parameters and multiply-adds of LeNet-5", test_counts, ONCE},
        {"the same where maps are not square", test_counts_not_square, ONCE},
        {"activations of small numbers", test_small_arguments, ONCE},
        {"the bound is its formula", test_bound_is_its_formula, ONCE},
        {"every activation is tested", test_every_activation_is_tested, ONCE},
        {"softmax of lenet5.h", test_public_softmax, ONCE},
        {"exact conv", test_exact_conv, EACH_LAYERS},
        {"exact pooling", test_exact_pool, EACH_LAYERS},
        {"exact dense", test_exact_dense, EACH_LAYERS},
        {"exact scale", test_exact_scale, EACH_LAYERS},
        {"exact identity", test_exact_identity, EACH_LAYERS},
        {"exact relu", test_exact_relu, EACH_LAYERS},
        {"exact known shapes", test_exact_known_shapes, EACH_LAYERS},
        {"batches", test_batches, EACH_LAYERS},
        {"batches of one state", test_batches_of_one_state, EACH_LAYERS},
        {"batches refused", test_batches_refused, EACH},
        {"close takes NULL", test_close_null, EACH},
        {"bounded conv", test_bounded_conv, EACH_LAYERS},
        {"bounded pooling", test_bounded_pool, EACH_LAYERS},
        {"bounded dense", test_bounded_dense, EACH_LAYERS},
        {"bounded scale", test_bounded_scale, EACH_LAYERS},
        {"bounded activation", test_bounded_activation, EACH_LAYERS},
        {"activation curves", test_activation_curves, EACH_LAYERS},
        {"softmax", test_softmax, EACH_LAYERS},
    };
    return run_claims("layers", claims, sizeof claims / sizeof *claims);
}
