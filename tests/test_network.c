/* SPDX-License-Identifier: MIT
 *
 * test_network.c - whole networks through the public functions of lenet5.h, on every backend:
 * the plain LeNet-5, its relatives and random chains, against a forward pass in double; that an
 * image's logits do not depend on batch size, place in the batch, repetition or thread; what
 * lenet5_info says; and every refusal of network_check and of lenet5_open, to the letter.
 */
#include "testing.h"

#include <pthread.h>

/* ---- the networks ---- */

static void make_valid(struct model *m) {
    model_start(m, 1, 28, 28);
    add_conv(m, 6, square(5, 1, 0), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_conv(m, 16, square(5, 1, 0), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_dense(m, 120, ACT_TANH);
    add_dense(m, 84, ACT_TANH);
    add_dense(m, 10, ACT_LINEAR);
}

/* The border is zeros of what enters the network, which is not what a byte of zero becomes. */
static void make_offset_border(struct model *m) {
    make_lenet5(m);
    m->scale = 2.0f / 255.0f;
    m->offset = -1.0f;
}

/* 32x32 as in LeCun's paper, C5 written as a convolution. */
static void make_c5_as_convolution(struct model *m) {
    model_start(m, 1, 32, 32);
    add_conv(m, 6, square(5, 1, 0), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_conv(m, 16, square(5, 1, 0), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_conv(m, 120, square(5, 1, 0), ACT_TANH);
    add_dense(m, 84, ACT_TANH);
    add_dense(m, 10, ACT_LINEAR);
}

static void make_max_relu(struct model *m) {
    model_start(m, 1, 28, 28);
    add_conv(m, 6, square(5, 1, 2), ACT_RELU);
    add_pool(m, OP_MAX_POOL, square(2, 2, 0));
    add_conv(m, 16, square(5, 1, 0), ACT_RELU);
    add_pool(m, OP_MAX_POOL, square(2, 2, 0));
    add_dense(m, 120, ACT_RELU);
    add_dense(m, 84, ACT_RELU);
    add_dense(m, 10, ACT_LINEAR);
}

static void make_colour(struct model *m) {
    model_start(m, 3, 32, 30);
    m->scale = 1.0f / 127.5f;
    m->offset = -1.0f;
    add_conv(m, 7, (struct window){3, 5, 2, 1, 0, 2, 1, 2}, ACT_ELU);
    add_pool(m, OP_AVERAGE_POOL, (struct window){2, 3, 2, 3, 0, 0, 0, 0});
    add_conv(m, 9, (struct window){3, 1, 1, 2, 1, 0, 1, 0}, ACT_SWISH);
    add_dense(m, 33, ACT_SOFTSIGN);
    add_dense(m, 10, ACT_LINEAR);
}

static void make_overlapping(struct model *m) {
    model_start(m, 1, 28, 28);
    add_conv(m, 6, square(5, 1, 2), ACT_TANH);
    add_pool(m, OP_MAX_POOL, (struct window){3, 3, 2, 2, 0, 0, 1, 1});
    add_conv(m, 16, square(5, 1, 0), ACT_TANH);
    add_pool(m, OP_AVERAGE_POOL, (struct window){3, 3, 2, 2, 1, 1, 1, 1});
    add_dense(m, 10, ACT_SIGMOID);
}

/* Batch normalisation as the converter leaves it, and activations as rows of their own. */
static void make_scale_rows(struct model *m) {
    model_start(m, 1, 28, 28);
    add_conv(m, 6, square(5, 1, 2), ACT_LINEAR)->biases = 0;
    model_add(m, OP_SCALE, 0, NO_WINDOW, ACT_TANH, 1);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_conv(m, 16, square(5, 1, 0), ACT_LINEAR)->biases = 0;
    model_add(m, OP_SCALE, 0, NO_WINDOW, ACT_LINEAR, 0);
    add_activation(m, ACT_GELU);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 0));
    add_dense(m, 84, ACT_LINEAR)->biases = 0;
    add_activation(m, ACT_GELU_TANH);
    model_add(m, OP_DENSE, 10, NO_WINDOW, ACT_LINEAR, 0);
}

static void make_activation_rows(struct model *m) {
    model_start(m, 1, 12, 9);
    add_conv(m, 4, square(3, 1, 1), ACT_LINEAR);
    for (int a = ACT_TANH; a < ACT_END; a++) {
        if (a == ACT_SOFTMAX)
            continue;
        add_activation(m, (enum activation)a);
        add_dense(m, 24, ACT_LINEAR);
    }
}

static void make_softmax_last(struct model *m) {
    make_lenet5(m);
    add_activation(m, ACT_SOFTMAX);
}

static void make_softmax_inside(struct model *m) {
    model_start(m, 1, 8, 8);
    add_dense(m, 20, ACT_TANH);
    add_activation(m, ACT_SOFTMAX);
    add_dense(m, 5, ACT_LINEAR);
}

/* Ends in a map: its logits are channels x rows x columns. */
static void make_fully_convolutional(struct model *m) {
    model_start(m, 1, 20, 13);
    add_conv(m, 5, (struct window){4, 3, 3, 2, 1, 0, 2, 1}, ACT_SOFTPLUS);
    add_conv(m, 4, square(1, 1, 0), ACT_HARD_SIGMOID);
    add_pool(m, OP_AVERAGE_POOL, (struct window){7, 2, 1, 3, 3, 0, 3, 1});
}

static void make_one_dense(struct model *m) {
    model_start(m, 1, 28, 28);
    add_dense(m, 10, ACT_LINEAR);
}

/* A lone softmax is not taken off: there would be nothing left. */
static void make_lone_softmax(struct model *m) {
    model_start(m, 1, 2, 5);
    add_activation(m, ACT_SOFTMAX);
}

static void make_one_pixel(struct model *m) {
    model_start(m, 3, 1, 1);
    add_conv(m, 1, (struct window){3, 2, 1, 1, 1, 0, 1, 1}, ACT_TANH);
}

/* Numbers of those that tests ask for. */
enum { LENET5, NO_BORDER, C5_CONV, MAX_RELU, SOFTMAX_LAST, LONE_SOFTMAX, ONE_DENSE };

static const struct {
    const char *name;
    void (*make)(struct model *m);
    int family; /* 1: a LeNet-5, which a backend for whole networks must take */
} NETWORKS[] = {
    {"LeNet-5", make_lenet5, 1},
    {"no border", make_valid, 1},
    {"32x32, C5 as a convolution", make_c5_as_convolution, 1},
    {"max pooling and relu", make_max_relu, 1},
    {"softmax last", make_softmax_last, 1},
    {"a lone softmax", make_lone_softmax, 0},
    {"one dense row", make_one_dense, 0},
    {"border and offset", make_offset_border, 0},
    {"three channels", make_colour, 0},
    {"overlapping pooling", make_overlapping, 0},
    {"scale rows", make_scale_rows, 0},
    {"activation rows", make_activation_rows, 0},
    {"softmax inside", make_softmax_inside, 0},
    {"fully convolutional", make_fully_convolutional, 0},
    {"one pixel", make_one_pixel, 0},
};

enum {
    NETWORK_COUNT = sizeof NETWORKS / sizeof *NETWORKS,
    FAMILY_COUNT = 36,
    RANDOM_COUNT = 40,
    ALL_COUNT = NETWORK_COUNT + FAMILY_COUNT + RANDOM_COUNT,
    IMAGES = 20
};

/* All close relatives: 3 inputs, 3 activations, 2 poolings, and inputs so large that the first
   layer saturates. Without a border there is an offset; some have activations as rows, some C5
   as a convolution. */
static void make_family(struct model *m, int number) {
    static const enum activation activations[] = {ACT_TANH, ACT_SIGMOID, ACT_RELU};
    const int input = number % 3, rows = number % 4 == 1, conv = number % 5 == 2;
    const enum activation a = activations[number / 3 % 3];
    const enum op pool = number / 9 % 2 ? OP_MAX_POOL : OP_AVERAGE_POOL;
    model_start(m, 1, input == 2 ? 32 : 28, input == 2 ? 32 : 28);
    m->scale = number / 18 ? 0.06f : 1.0f / 255.0f;
    m->offset = input ? -0.4f : 0.0f;
    add_conv(m, 6, square(5, 1, input ? 0 : 2), rows ? ACT_LINEAR : a);
    if (rows)
        add_activation(m, a);
    add_pool(m, pool, square(2, 2, 0));
    add_conv(m, 16, square(5, 1, 0), a);
    add_pool(m, pool, square(2, 2, 0));
    if (conv)
        add_conv(m, 120, square(input == 1 ? 4 : 5, 1, 0), a);
    else
        add_dense(m, 120, rows ? ACT_LINEAR : a);
    if (rows && !conv)
        add_activation(m, a);
    add_dense(m, 84, a)->biases = number % 7 != 0;
    add_dense(m, 10, ACT_LINEAR);
}

/* A chain of 1 to 8 rows that happen to fit. */
static void make_random(struct model *m, struct rng *r) {
    static const enum activation activations[] = {ACT_LINEAR, ACT_TANH, ACT_RELU, ACT_SIGMOID,
                                                  ACT_ELU,    ACT_GELU, ACT_SWISH};
    const int rows = rng_int(r, 1, 8);
    model_start(m, rng_int(r, 0, 1) ? 3 : 1, rng_int(r, 1, 30), rng_int(r, 1, 30));
    m->offset = rng_real(r, -1, 1);
    while (m->count < rows) {
        const enum op op = (enum op)rng_int(r, OP_CONV, OP_ACTIVATION);
        const int kernel = rng_int(r, 1, 5), stride = rng_int(r, 1, 3);
        struct window w = square(kernel, stride, rng_int(r, 0, kernel - 1));
        if (op == OP_DENSE || op == OP_SCALE || op == OP_ACTIVATION)
            w = NO_WINDOW;
        model_add(m, op, rng_int(r, 1, 20), w, activations[rng_int(r, 0, 6)], rng_int(r, 0, 1));
        m->count -= network_check(m->layers, m->count, m->input, NULL) != 0;
    }
}

/* A finished network by number: those of the table, the family, then random ones. */
static const char *make_network(struct model *m, int number) {
    struct rng r = {SEED + (unsigned)number};
    if (number < NETWORK_COUNT)
        NETWORKS[number].make(m);
    else if (number < NETWORK_COUNT + FAMILY_COUNT)
        make_family(m, number - NETWORK_COUNT);
    else
        make_random(m, &r);
    model_finish(m, REAL, &r);
    if (number < NETWORK_COUNT)
        return NETWORKS[number].name;
    return number < NETWORK_COUNT + FAMILY_COUNT ? "one of the family" : "a random chain";
}

static int in_family(int number) {
    return number < NETWORK_COUNT ? NETWORKS[number].family
                                  : number < NETWORK_COUNT + FAMILY_COUNT;
}

/* ---- opening, and the forward pass in double ---- */

/* A network, opened, with images for it. */
struct subject {
    int number, family; /* family: a LeNet-5, which every backend must take */
    const char *name;
    struct model m;     /* owned */
    struct lenet5 *net; /* owned */
    size_t pixels, classes;
    struct guarded images; /* owned: IMAGES of them, read-only */
};

static size_t classes_of(const struct model *m) {
    return shape_size(m->layers[network_logit_rows(m->layers, m->count) - 1].out);
}

/* Opens a model. NULL if the backend has no single layers and declines it, as it may what is
   not in its family; it must then say so. Skips the test where there is no device. */
static struct lenet5 *open_model(const struct model *m, int family, const struct backend *b,
                                 int max_batch) {
    const struct lenet5_options options = {b->name, max_batch, 0};
    struct lenet5_error err = {""};
    struct device device;
    struct lenet5 *net = NULL;
    uint8_t *blob = NULL;
    size_t size;
    if (b->on_gpu && b->device(&device, &err)) {
        print_message("# skip: backend %s: %s\n", b->name, err.message);
        skip();
    }
    assert_int_equal(blob_serialize(m, &blob, &size, &err), 0);
    if (lenet5_open_memory(&net, blob, size, &options, &err)) {
        assert_null(net);
        if (b->layer || (family && !strstr(err.message, "this card")))
            fail_msg("%s", err.message);
        if (family) {
            print_message("# skip: %s\n", err.message);
            skip();
        }
        assert_non_null(strstr(err.message, b->name));
    }
    memset(blob, 0xff, size); /* the library must have its own copy */
    free(blob);
    return net;
}

/* Read-only images: noise, and one all paper, one all ink. */
static struct guarded random_images(size_t n, size_t pixels) {
    struct rng r = {SEED};
    struct guarded g = guarded_new(n * pixels);
    for (size_t k = 0; k < g.size; k++)
        ((uint8_t *)g.at)[k] = (uint8_t)rng_int(&r, 0, 255);
    memset(g.at, 0, pixels);
    memset((uint8_t *)g.at + pixels, 255, pixels);
    guarded_read_only(&g);
    return g;
}

/* Network number with its own scale, or with another; 0 if the backend declines it. */
static int subject_scaled(struct subject *s, int number, const struct backend *b, int max_batch,
                          const float *scale_offset) {
    memset(s, 0, sizeof *s);
    s->number = number;
    s->name = make_network(&s->m, number);
    s->family = in_family(number) && !scale_offset; /* a border excludes an offset */
    if (scale_offset) {
        s->m.scale = scale_offset[0];
        s->m.offset = scale_offset[1];
    }
    s->net = open_model(&s->m, s->family, b, max_batch);
    s->pixels = shape_size(s->m.input);
    s->classes = classes_of(&s->m);
    s->images = random_images(IMAGES, s->pixels);
    return s->net != NULL;
}

static int subject_open(struct subject *s, int number, const struct backend *b, int max_batch) {
    return subject_scaled(s, number, b, max_batch, NULL);
}

static void subject_close(struct subject *s) {
    lenet5_close(s->net);
    guarded_free(&s->images);
    blob_free(&s->m);
}

/* x to 11 significant bits, as halves have them. */
static double to_half(double x) {
    const double unit = x ? ldexp(1.0, ilogb(x) - 10) : 1;
    return unit * rint(x / unit);
}

/* Logits of one image in double; with halves, what lies between two rows is rounded to them. */
static void forward64(const struct model *m, const uint8_t *image, int halves, double *logits) {
    size_t largest = shape_size(m->input);
    for (int k = 0; k < m->count; k++)
        largest =
            shape_size(m->layers[k].out) > largest ? shape_size(m->layers[k].out) : largest;
    double *x = malloc(largest * sizeof *x), *y = malloc(largest * sizeof *y);
    assert_true(x && y);
    for (size_t k = 0; k < shape_size(m->input); k++)
        x[k] = image[k] * (double)m->scale + (double)m->offset;
    for (int k = 0; k < m->count; k++) {
        const int last = k + 1 == m->count && m->count > 1;
        if (last && m->layers[k].activation == ACT_SOFTMAX)
            break;
        if (halves)
            for (size_t j = 0; j < shape_size(m->layers[k].in); j++)
                x[j] = to_half(x[j]);
        row64(&m->layers[k], x, y);
        double *swap = x;
        x = y;
        y = swap;
    }
    memcpy(logits, x, classes_of(m) * sizeof *x);
    free(x);
    free(y);
}

static struct guarded run_network(struct lenet5 *net, const uint8_t *images, size_t n) {
    struct lenet5_error err = {""};
    struct guarded y = guarded_floats(n * (size_t)lenet5_info(net)->classes);
    if (lenet5_run(net, images, n, y.at, &err))
        fail_msg("%s", err.message);
    assert_true(guarded_intact(&y));
    return y;
}

/* ---- right ---- */

/* How far the logits of one network may lie from double. A backend's tolerance is relative to
   the logit itself, above 1. With operands of 16 bits it is computed: halves is the largest
   difference that rounding activations to halves makes; weights and an approximated tanh bring
   as much each: 8 times leaves room. */
static double allowed(const struct backend *b, double want, double halves) {
    return b->tolerance <= EXACT ? b->tolerance * fmax(1, fabs(want)) : 8 * halves + 1e-3;
}

static void compare_with_double(const struct subject *s, const struct backend *b,
                                const float *logits) {
    static const size_t compared[] = {0, 1, 2, 7, 13, 19};
    enum { COUNT = sizeof compared / sizeof *compared };
    const size_t count = COUNT * s->classes;
    double *want = malloc(2 * count * sizeof *want), *rounded = want + count, halves = 0;
    assert_non_null(want);
    for (size_t k = 0; k < COUNT; k++) {
        const uint8_t *image = (uint8_t *)s->images.at + compared[k] * s->pixels;
        forward64(&s->m, image, 0, want + k * s->classes);
        forward64(&s->m, image, 1, rounded + k * s->classes);
    }
    for (size_t k = 0; k < count; k++)
        halves = fmax(halves, fabs(want[k] - rounded[k]));
    for (size_t k = 0; k < count; k++) {
        const size_t i = compared[k / s->classes], j = k % s->classes;
        const double got = logits[i * s->classes + j];
        if (!(fabs(got - want[k]) <= allowed(b, want[k], halves)))
            fail_msg("network %d, %s: image %zu, logit %zu is %.9g, must be %.9g", s->number,
                     s->name, i, j, got, want[k]);
    }
    free(want);
}

static void test_right(void **state) {
    for (int k = 0; k < ALL_COUNT; k++) {
        struct subject s;
        if (subject_open(&s, k, *state, IMAGES)) {
            struct guarded y = run_network(s.net, s.images.at, IMAGES);
            compare_with_double(&s, *state, y.at);
            guarded_free(&y);
        }
        subject_close(&s);
    }
}

/* The logits must tell images apart, or the test above proves nothing. */
static void test_networks_are_alive(void **state) {
    for (int k = 0; k < NETWORK_COUNT + FAMILY_COUNT; k++) {
        struct subject s;
        if (subject_open(&s, k, *state, 0)) {
            struct guarded y = run_network(s.net, s.images.at, 3);
            const float *paper = y.at, *noise = paper + 2 * s.classes;
            double apart = 0;
            for (size_t j = 0; j < s.classes; j++)
                apart += fabs(paper[j] - noise[j]);
            if (!(apart > 1e-3))
                fail_msg("network %d, %s: paper and noise give the same logits", k, s.name);
            guarded_free(&y);
        }
        subject_close(&s);
    }
}

/* ---- the same, however it is asked for ---- */

static void same_in_any_batch(const struct subject *s, const struct backend *b,
                              const float *want) {
    static const int batches[] = {1, 2, 15, 16, 17, 0};
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        struct lenet5 *net = open_model(&s->m, s->family, b, batches[k]);
        assert_int_equal(lenet5_info(net)->max_batch, batches[k] ? batches[k] : 4096);
        for (int repeat = 0; repeat < 2; repeat++) {
            struct guarded y = run_network(net, s->images.at, IMAGES);
            if (memcmp(y.at, want, IMAGES * s->classes * sizeof *want))
                fail_msg("%s: batches of %d, run %d: other bits", s->name, batches[k], repeat);
            guarded_free(&y);
        }
        lenet5_close(net);
    }
}

static void same_in_any_place(const struct subject *s, const float *want) {
    struct rng r = {SEED};
    uint8_t *moved = malloc(IMAGES * s->pixels);
    int from[IMAGES];
    assert_non_null(moved);
    for (int i = 0; i < IMAGES; i++) { /* neighbours repeat and vanish */
        from[i] = rng_int(&r, 0, IMAGES - 1);
        memcpy(moved + (size_t)i * s->pixels,
               (uint8_t *)s->images.at + (size_t)from[i] * s->pixels, s->pixels);
    }
    for (size_t n = 1; n <= IMAGES; n += 6) {
        struct guarded y = run_network(s->net, moved, n);
        for (size_t i = 0; i < n; i++)
            if (memcmp((float *)y.at + i * s->classes, want + (size_t)from[i] * s->classes,
                       s->classes * sizeof *want))
                fail_msg("%s: image %d at place %zu of %zu: other bits", s->name, from[i], i,
                         n);
        guarded_free(&y);
    }
    free(moved);
}

static void test_same(void **state) {
    for (int k = 0; k < NETWORK_COUNT; k++) {
        struct subject s;
        if (subject_open(&s, k, *state, IMAGES)) {
            struct guarded want = run_network(s.net, s.images.at, IMAGES);
            same_in_any_batch(&s, *state, want.at);
            same_in_any_place(&s, want.at);
            guarded_free(&want);
        }
        subject_close(&s);
    }
}

/* Floats that are scaled here must give what bytes give: to the bit where a byte is scaled
   without rounding, so that a fused multiply-add makes no difference. */
static void floats_as_bytes(const struct subject *s, const struct backend *b) {
    const size_t numbers = IMAGES * s->pixels;
    struct lenet5_error err = {""};
    struct guarded x = guarded_floats(numbers);
    struct guarded want = run_network(s->net, s->images.at, IMAGES);
    struct guarded got = guarded_floats(want.size / sizeof(float));
    for (size_t j = 0; j < numbers; j++)
        ((float *)x.at)[j] = (float)((uint8_t *)s->images.at)[j] * s->m.scale + s->m.offset;
    guarded_read_only(&x);
    const int rc = lenet5_run_floats(s->net, x.at, IMAGES, got.at, &err);
    if (b->bytes_only)
        assert_true(rc == -1 && strstr(err.message, "takes images as bytes only"));
    else if (rc)
        fail_msg("%s: %s", s->name, err.message);
    assert_true(guarded_intact(&got));
    if (!rc && memcmp(got.at, want.at, want.size))
        fail_msg("%s: floats and bytes give different bits", s->name);
    guarded_free(&x);
    guarded_free(&want);
    guarded_free(&got);
}

static void test_floats(void **state) {
    static const float exact[2] = {0x1p-8f, -0.5f};
    for (int k = 0; k < NETWORK_COUNT; k++) {
        struct subject s;
        if (subject_scaled(&s, k, *state, 7, exact))
            floats_as_bytes(&s, *state);
        subject_close(&s);
    }
}

static void test_counts_of_images(void **state) {
    const struct backend *b = *state;
    struct subject s;
    assert_true(subject_open(&s, LENET5, b, 3));
    struct guarded all = run_network(s.net, s.images.at, IMAGES); /* six batches and two more */
    assert_true(lenet5_timing(s.net).compute > 0);
    for (size_t n = 0; n <= 7; n++) {
        struct guarded y = run_network(s.net, s.images.at, n);
        assert_memory_equal(y.at, all.at, y.size);
        guarded_free(&y);
    }
    assert_int_equal(lenet5_run(s.net, NULL, 0, NULL, NULL), 0);
    assert_int_equal(lenet5_run_floats(s.net, NULL, 0, NULL, NULL), b->bytes_only ? -1 : 0);
    const struct lenet5_timing t = lenet5_timing(s.net);
    assert_true(t.upload == 0 && t.compute == 0 && t.download == 0);
    guarded_free(&all);
    subject_close(&s);
}

static void test_timing(void **state) {
    const struct backend *b = *state;
    struct subject s;
    assert_true(subject_open(&s, LENET5, b, 0));
    const double start = clock_seconds();
    struct guarded y = run_network(s.net, s.images.at, IMAGES);
    const double most = clock_seconds() - start;
    const struct lenet5_timing t = lenet5_timing(s.net);
    assert_true(t.compute > 0 && t.upload >= 0 && t.download >= 0);
    assert_true(t.upload + t.compute + t.download <= 1.05 * most + 1e-4);
    assert_true(b->on_gpu ? t.upload > 0 && t.download > 0 : t.upload == 0 && t.download == 0);
    guarded_free(&y);
    subject_close(&s);
}

/* ---- info ---- */

static void test_info(void **state) {
    const struct backend *b = *state;
    struct model m;
    make_network(&m, SOFTMAX_LAST);
    m.accuracy = 0.5f;
    m.scale = 0.25f;
    strcpy(m.dataset, "mnist");
    strcpy(m.source, "some file.h5");
    memset(m.source_sha256, 'a', 64);
    strcpy(m.source_version, "Keras 2.15.0");
    struct lenet5 *net = open_model(&m, 1, b, 5);
    const struct lenet5_info *info = lenet5_info(net);
    assert_true(info->channels == 1 && info->height == 28 && info->width == 28);
    assert_true(info->classes == 10 && info->softmax == 1 && info->layers == 8);
    assert_int_equal(info->parameters, 61706);
    assert_int_equal(info->macs, 416520);
    assert_true(info->scale == 0.25f && info->offset == 0);
    assert_true(info->accuracy == 0.5 && info->max_batch == 5);
    assert_string_equal(info->dataset, "mnist");
    assert_string_equal(info->source, "some file.h5");
    assert_string_equal(info->source_sha256, m.source_sha256);
    assert_string_equal(info->source_version, "Keras 2.15.0");
    assert_string_equal(info->backend, b->name);
    assert_string_equal(info->backend_note, "");
    assert_true(strlen(info->device) > 0);
    lenet5_close(net);
    blob_free(&m);
}

static void test_lone_softmax(void **state) {
    struct subject s;
    if (subject_open(&s, LONE_SOFTMAX, *state, 0)) {
        assert_int_equal(lenet5_info(s.net)->softmax, 0);
        assert_int_equal(lenet5_info(s.net)->classes, 10);
        assert_string_equal(lenet5_info(s.net)->dataset, "");
    }
    subject_close(&s);
}

/* "auto", NULL and no options at all: the first exact backend that opens, and why not a better
   one; on the CPU for batches so small that a GPU does not pay. */
static void test_auto(void **state) {
    (void)state;
    const struct lenet5_options none = {NULL, 0, 1}, automatic = {"auto", 512, 1},
                                few = {"auto", 6, 1};
    const struct lenet5_options *const asked[] = {NULL, &none, &automatic, &few};
    static const int batches[] = {4096, 4096, 512, 6};
    const struct backend *const *first = backends;
    struct lenet5_error why = {""}, err = {""};
    char note[600] = "";
    struct device device;
    struct model m;
    uint8_t *blob;
    size_t size;
    for (; (*first)->tolerance > EXACT || (*first)->device(&device, &why); first++)
        if (!*note && (*first)->tolerance <= EXACT)
            snprintf(note, sizeof note, "not %s: %s", (*first)->name, why.message);
    make_network(&m, LENET5);
    assert_int_equal(blob_serialize(&m, &blob, &size, &err), 0);
    for (int k = 0; k < 4; k++) {
        const int on_cpu = asked[k] == &few && (*first)->on_gpu;
        struct lenet5 *net;
        if (lenet5_open_memory(&net, blob, size, asked[k], &err))
            fail_msg("%s", err.message);
        assert_string_equal(lenet5_info(net)->backend, on_cpu ? "simd" : (*first)->name);
        if (asked[k] != &few)
            assert_string_equal(lenet5_info(net)->backend_note, note);
        else if (strcmp(backends[0]->name, "simd"))
            assert_string_equal(lenet5_info(net)->backend_note,
                                "no GPU: batches of 6 are done sooner here, up to 6");
        assert_int_equal(lenet5_info(net)->max_batch, batches[k]);
        lenet5_close(net);
    }
    free(blob);
    blob_free(&m);
}

/* lenet5.h promises floats for whatever "auto" picks. */
static void test_auto_takes_floats(void **state) {
    (void)state;
    struct lenet5_error err = {""};
    struct lenet5 *net;
    struct model m;
    uint8_t *blob;
    size_t size;
    float x[28 * 28] = {0}, y[10], want[10];
    const uint8_t image[28 * 28] = {0};
    make_network(&m, LENET5);
    assert_int_equal(blob_serialize(&m, &blob, &size, &err), 0);
    assert_int_equal(lenet5_open_memory(&net, blob, size, NULL, &err), 0);
    if (lenet5_run_floats(net, x, 1, y, &err) || lenet5_run(net, image, 1, want, &err))
        fail_msg("%s", err.message);
    for (int k = 0; k < 10; k++)
        assert_true(fabs(y[k] - want[k]) <= 1e-4);
    lenet5_close(net);
    free(blob);
    blob_free(&m);
}

/* ---- threads ---- */

enum { THREADS = 4, NETS = 3, ROUNDS = 6 };

struct worker {
    struct lenet5 *net[NETS]; /* each thread's own */
    const uint8_t *images[NETS];
    const float *want[NETS];
    size_t size[NETS]; /* bytes of logits */
    int failures;
};

/* Nothing of cmocka in here: it is not made for threads. */
static void *work(void *argument) {
    struct worker *w = argument;
    for (int k = 0; k < ROUNDS * NETS; k++) {
        const int j = k % NETS;
        float *y = malloc(w->size[j]);
        if (!y || lenet5_run(w->net[j], w->images[j], IMAGES, y, NULL) ||
            memcmp(y, w->want[j], w->size[j]))
            w->failures++;
        free(y);
    }
    return NULL;
}

static void test_threads(void **state) {
    static const int numbers[NETS] = {LENET5, C5_CONV, MAX_RELU};
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    struct subject subjects[NETS];
    struct guarded want[NETS];
    memset(workers, 0, sizeof workers);
    for (int j = 0; j < NETS; j++) {
        struct subject *s = &subjects[j];
        assert_true(subject_open(s, numbers[j], *state, IMAGES));
        want[j] = run_network(s->net, s->images.at, IMAGES);
        for (int t = 0; t < THREADS; t++) {
            workers[t].net[j] = open_model(&s->m, s->family, *state, t + 2);
            workers[t].images[j] = s->images.at;
            workers[t].want[j] = want[j].at;
            workers[t].size[j] = want[j].size;
        }
    }
    for (int t = 0; t < THREADS; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, work, &workers[t]), 0);
    for (int t = 0; t < THREADS; t++)
        assert_int_equal(pthread_join(threads[t], NULL), 0);
    for (int t = 0; t < THREADS; t++) {
        assert_int_equal(workers[t].failures, 0);
        for (int j = 0; j < NETS; j++)
            lenet5_close(workers[t].net[j]);
    }
    for (int j = 0; j < NETS; j++) {
        guarded_free(&want[j]);
        subject_close(&subjects[j]);
    }
}

/* ---- device memory ---- */

/* test_device.cu tests the others. */
static void test_device_memory_refused(void **state) {
    const struct backend *b = *state;
    struct lenet5_error err = {""};
    struct subject s;
    char want[128];
    float logits[10] = {NAN};
    if (b->run_device)
        return;
    snprintf(want, sizeof want,
             "backend %s works in host memory; lenet5_run_device needs a GPU one", b->name);
    assert_true(subject_open(&s, LENET5, b, IMAGES));
    assert_int_equal(lenet5_run_device(s.net, s.images.at, 1, logits, NULL, &err), -1);
    assert_string_equal(err.message, want);
    assert_true(isnan(logits[0]));
    subject_close(&s);
}

/* ---- argmax ---- */

static void test_argmax(void **state) {
    (void)state;
    const float rising[] = {-3, -2, -1}, falling[] = {-1, -2, -3}, tie[] = {1, 5, 5, 2, 5};
    const float zeros[] = {-0.0f, 0.0f}, low[] = {-INFINITY, -FLT_MAX, -FLT_MAX};
    assert_int_equal(lenet5_argmax(rising, 3), 2);
    assert_int_equal(lenet5_argmax(falling, 3), 0);
    assert_int_equal(lenet5_argmax(tie, 5), 1);
    assert_int_equal(lenet5_argmax(tie + 2, 3), 0);
    assert_int_equal(lenet5_argmax(zeros, 2), 0);
    assert_int_equal(lenet5_argmax(low, 3), 1);
    assert_int_equal(lenet5_argmax(rising, 1), 0);
}

/* ---- refusals of lenet5_open ---- */

static void test_open_refused(void **state) {
    (void)state;
    struct lenet5 *const sentinel = (struct lenet5 *)(void *)&state;
    struct lenet5_options options = {"nonsense", 0, 0};
    struct lenet5_error err = {""};
    struct lenet5 *net = sentinel;
    struct model m;
    uint8_t *blob;
    size_t size;
    char want[256] = "backend 'nonsense' is not in this build, which has: ";
    for (const struct backend *const *b = backends; *b; b++) {
        strcat(want, (*b)->name);
        strcat(want, b[1] ? ", " : "");
    }
    make_network(&m, ONE_DENSE);
    assert_int_equal(blob_serialize(&m, &blob, &size, &err), 0);
    assert_int_equal(lenet5_open_memory(&net, blob, size, &options, &err), -1);
    assert_null(net);
    assert_string_equal(err.message, want);
    static const int batches[] = {-1, (1 << 24) + 1};
    for (int k = 0; k < 2; k++) {
        options = (struct lenet5_options){NULL, batches[k], 0};
        net = sentinel;
        assert_int_equal(lenet5_open_memory(&net, blob, size, &options, &err), -1);
        assert_null(net);
        snprintf(want, sizeof want, "max_batch of %d; it must be 1 to 16777216, or 0 for 4096",
                 batches[k]);
        assert_string_equal(err.message, want);
    }
    net = sentinel;
    assert_int_equal(lenet5_open_memory(&net, blob, size - 1, NULL, NULL), -1);
    assert_null(net);
    net = sentinel;
    assert_int_equal(lenet5_open_memory(&net, NULL, 0, NULL, &err), -1);
    assert_null(net);
    assert_string_equal(err.message, "blob in memory: 0 bytes, but a blob's header alone has "
                                     "384; make it again with make convert");
    net = sentinel;
    assert_int_equal(lenet5_open(&net, "no/such.bin", NULL, &err), -1);
    assert_null(net);
    assert_string_equal(err.message, "no/such.bin: there is no such file; make convert makes "
                                     "weights/*.bin");
    lenet5_close(NULL);
    free(blob);
    blob_free(&m);
}

/* ---- refusals of network_check ---- */

/* A good chain of every kind of row, one of which a test then spoils. */
static void make_spoilable(struct model *m) {
    model_start(m, 1, 8, 9);
    add_conv(m, 2, (struct window){3, 4, 1, 2, 1, 1, 0, 2}, ACT_TANH);
    add_pool(m, OP_MAX_POOL, square(2, 2, 0));
    add_dense(m, 3, ACT_RELU);
    model_add(m, OP_SCALE, 0, NO_WINDOW, ACT_LINEAR, 1);
    add_activation(m, ACT_SOFTMAX);
}

static void refused(struct model *m, const char *want) {
    struct lenet5_error err = {""};
    assert_int_equal(network_check(m->layers, m->count, m->input, &err), -1);
    assert_string_equal(err.message, want);
    assert_int_equal(network_check(m->layers, m->count, m->input, NULL), -1);
}

static void test_check_accepts(void **state) {
    (void)state;
    struct lenet5_error err = {""};
    struct model m;
    make_spoilable(&m);
    if (network_check(m.layers, m.count, m.input, &err))
        fail_msg("%s", err.message);
    const struct shape conv = m.layers[0].out, pool = m.layers[1].out;
    assert_true(conv.c == 2 && conv.h == 7 && conv.w == 5);
    assert_true(pool.c == 2 && pool.h == 3 && pool.w == 2);
    assert_int_equal(shape_size(m.layers[4].out), 3);
    assert_int_equal(network_logit_rows(m.layers, m.count), 4);
    assert_int_equal(network_logit_rows(m.layers, 4), 4);
    /* a biasless row stays so, and what cannot have biases gets none */
    m.layers[0].biases = 0;
    m.layers[1].biases = 7;
    assert_int_equal(network_check(m.layers, m.count, m.input, &err), 0);
    assert_true(m.layers[0].biases == 0 && m.layers[1].biases == 0 && m.layers[2].biases == 3);
}

static void test_check_count_and_input(void **state) {
    (void)state;
    static const int counts[] = {0, -1, MAX_LAYERS + 1};
    static const struct shape inputs[] = {{0, 8, 9}, {2, 8, 9},  {4, 8, 9},  {1, 0, 9},
                                          {1, 8, 0}, {1, 65, 9}, {3, 8, 65}, {1, -8, 9}};
    char want[128];
    struct model m;
    make_spoilable(&m);
    for (int k = 0; k < 3; k++) {
        m.count = counts[k];
        snprintf(want, sizeof want, "%d layers; there must be 1 to 64", counts[k]);
        refused(&m, want);
    }
    make_spoilable(&m);
    for (size_t k = 0; k < sizeof inputs / sizeof *inputs; k++) {
        m.input = inputs[k];
        snprintf(want, sizeof want,
                 "input of %d channels, %dx%d; it must have 1 or 3 and at most 64x64",
                 inputs[k].c, inputs[k].h, inputs[k].w);
        refused(&m, want);
    }
}

static void test_check_op_and_activation(void **state) {
    (void)state;
    struct model m;
    make_spoilable(&m);
    m.layers[2].op = (enum op)0;
    refused(&m, "layer 2: operation number 0; known are 1 to 6");
    m.layers[2].op = OP_END;
    refused(&m, "layer 2: operation number 7; known are 1 to 6");
    make_spoilable(&m);
    m.layers[1].activation = ACT_END;
    refused(&m, "layer 1 'max_pool_1': activation number 14; the last known is 13");
    m.layers[1].activation = (enum activation) - 1;
    refused(&m, "layer 1 'max_pool_1': activation number -1; the last known is 13");
    for (int k = 0; k < 4; k++) { /* every op but OP_ACTIVATION */
        char want[128];
        make_spoilable(&m);
        m.layers[k].activation = ACT_SOFTMAX;
        snprintf(want, sizeof want, "layer %d '%s': softmax must be a row of its own", k,
                 m.layers[k].name);
        refused(&m, want);
    }
    for (int k = 0; k < 3; k++) {
        char want[128];
        make_spoilable(&m);
        m.layers[2].param[k] = k ? NAN : INFINITY;
        snprintf(want, sizeof want,
                 "layer 2 'dense_2': parameter %d of its activation is not finite", k);
        refused(&m, want);
    }
}

/* Each of a window's eight numbers, made wrong by itself. */
static void test_check_window(void **state) {
    (void)state;
    static const struct {
        size_t field;
        int value;
        const char *want;
    } wrong[] = {
#define SIZES "layer 0 'conv_0': window %s; each must be 1 to 64"
#define BORDER                                                                                 \
    "layer 0 'conv_0': border %s (top left bottom right); each must be 0 or more and smaller " \
    "than the window, which is 3x4"
        {offsetof(struct layer, kernel_h), 0, "0x4 with stride 1x2"},
        {offsetof(struct layer, kernel_h), 65, "65x4 with stride 1x2"},
        {offsetof(struct layer, kernel_w), -4, "3x-4 with stride 1x2"},
        {offsetof(struct layer, kernel_w), 65, "3x65 with stride 1x2"},
        {offsetof(struct layer, stride_h), 0, "3x4 with stride 0x2"},
        {offsetof(struct layer, stride_h), 65, "3x4 with stride 65x2"},
        {offsetof(struct layer, stride_w), 0, "3x4 with stride 1x0"},
        {offsetof(struct layer, stride_w), 65, "3x4 with stride 1x65"},
        {offsetof(struct layer, pad_top), -1, "-1 1 0 2"},
        {offsetof(struct layer, pad_top), 3, "3 1 0 2"},
        {offsetof(struct layer, pad_left), -1, "1 -1 0 2"},
        {offsetof(struct layer, pad_left), 4, "1 4 0 2"},
        {offsetof(struct layer, pad_bottom), -1, "1 1 -1 2"},
        {offsetof(struct layer, pad_bottom), 3, "1 1 3 2"},
        {offsetof(struct layer, pad_right), -1, "1 1 0 -1"},
        {offsetof(struct layer, pad_right), 4, "1 1 0 4"},
    };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        struct model m;
        char want[256];
        make_spoilable(&m);
        *(int *)(void *)((char *)&m.layers[0] + wrong[k].field) = wrong[k].value;
        snprintf(want, sizeof want, k < 8 ? SIZES : BORDER, wrong[k].want);
        refused(&m, want);
    }
}

/* Rows without a window: none of the eight numbers may be there. */
static void test_check_no_window(void **state) {
    (void)state;
    static const size_t fields[] = {
        offsetof(struct layer, kernel_h),   offsetof(struct layer, kernel_w),
        offsetof(struct layer, stride_h),   offsetof(struct layer, stride_w),
        offsetof(struct layer, pad_top),    offsetof(struct layer, pad_left),
        offsetof(struct layer, pad_bottom), offsetof(struct layer, pad_right)};
    for (int k = 0; k < 3 * 8; k++) {
        struct model m;
        char want[128];
        make_spoilable(&m);
        struct layer *l = &m.layers[2 + k / 8];
        *(int *)(void *)((char *)l + fields[k % 8]) = 1;
        snprintf(want, sizeof want, "layer %d '%s': a %s has no window, stride or border",
                 2 + k / 8, l->name, op_name(l->op));
        refused(&m, want);
    }
}

static void test_check_sizes(void **state) {
    (void)state;
    struct model m;
    make_spoilable(&m);
    m.layers[1].kernel_h = 8; /* of 7 rows */
    refused(&m, "layer 1 'max_pool_1': a window of 8x2 does not fit into a map of 7x5");
    m.layers[1].kernel_h = 7;
    m.layers[1].kernel_w = 6; /* of 5 columns */
    refused(&m, "layer 1 'max_pool_1': a window of 7x6 does not fit into a map of 7x5");
    make_spoilable(&m);
    m.layers[2].out.c = 0;
    refused(&m, "layer 2 'dense_2': output 0x1x1; at most 65536 channels and 4194304 numbers");
    m.layers[2].out.c = -5;
    refused(&m, "layer 2 'dense_2': output -5x1x1; at most 65536 channels and 4194304 numbers");
    m.layers[2].out.c = 65537;
    refused(&m, "layer 2 'dense_2': output 65537x1x1; at most 65536 channels and 4194304 "
                "numbers");
    model_start(&m, 1, 64, 64);
    add_conv(&m, 1025, square(1, 1, 0), ACT_LINEAR);
    refused(&m, "layer 0 'conv_0': output 1025x64x64; at most 65536 channels and 4194304 "
                "numbers");
    m.layers[0].out.c = 1024;
    assert_int_equal(network_check(m.layers, m.count, m.input, NULL), 0);
}

static void test_check_parameters(void **state) {
    (void)state;
    struct model m;
    model_start(&m, 1, 64, 64);
    add_dense(&m, 4095, ACT_LINEAR); /* 4095 * 4096 + 4095 */
    assert_int_equal(network_check(m.layers, m.count, m.input, NULL), 0);
    add_dense(&m, 1, ACT_LINEAR)->biases = 0; /* and 4095: one short of 2^24 and 4096 */
    refused(&m, "layer 1 'dense_1': more than 16777216 parameters in all");
    m.layers[0].biases = 0; /* 4095 * 4096 + 4095 = 2^24 - 1 */
    assert_int_equal(network_check(m.layers, m.count, m.input, NULL), 0);
    m.layers[1].biases = 1; /* 2^24 */
    assert_int_equal(network_check(m.layers, m.count, m.input, NULL), 0);
    add_activation(&m, ACT_LINEAR);
    model_add(&m, OP_SCALE, 0, NO_WINDOW, ACT_LINEAR, 0);
    refused(&m, "layer 3 'scale_3': more than 16777216 parameters in all");
}

int main(void) {
    static const struct claim claims[] = {
        {"argmax", test_argmax, ONCE},
        {"auto takes the first that opens", test_auto, ONCE},
        {"auto takes floats", test_auto_takes_floats, ONCE},
        {"open refuses", test_open_refused, ONCE},
        {"check accepts, and derives shapes", test_check_accepts, ONCE},
        {"check refuses counts and inputs", test_check_count_and_input, ONCE},
        {"check refuses ops and activations", test_check_op_and_activation, ONCE},
        {"check refuses windows", test_check_window, ONCE},
        {"check refuses windows where there is none", test_check_no_window, ONCE},
        {"check refuses sizes", test_check_sizes, ONCE},
        {"check refuses too many parameters", test_check_parameters, ONCE},
        {"logits as in double", test_right, EACH},
        {"logits tell images apart", test_networks_are_alive, EACH},
        {"same bits in any batch, place and repetition", test_same, EACH},
        {"floats give what bytes give", test_floats, EACH},
        {"no image, and more than max_batch", test_counts_of_images, EACH},
        {"timing", test_timing, EACH},
        {"info", test_info, EACH},
        {"a lone softmax stays", test_lone_softmax, EACH},
        {"threads", test_threads, EACH},
        {"device memory is for GPUs", test_device_memory_refused, EACH},
    };
    return run_claims("network", claims, sizeof claims / sizeof *claims);
}
