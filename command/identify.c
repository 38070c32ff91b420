/* SPDX-License-Identifier: MIT
 *
 * identify.c - lenet5 --eval --identify: tries every reading that a weights-only file leaves
 * open, and names the options that convert it with the best.
 */
#include "command.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { QUICK_IMAGES = 100, FULL_IMAGES = 2000, FINALISTS = 16, MOST_READINGS = 2048 };

/* One way to understand a file that does not say how it is to be understood. */
struct reading {
    int set;     /* index of the data set */
    int scaling; /* row of SCALINGS */
    int invert, flip, chw, wide;
    enum activation activation;
    enum op pool;
    double score;
};

/* A byte enters as byte * scale + offset; for standardised ones these depend on the set. */
static const struct {
    const char *name;
    double scale, offset;
} SCALINGS[] = {
    {"/255", 1.0 / 255, 0}, {"none", 1, 0}, {"-1..1", 2.0 / 255, -1}, {"standardised", 0, 0}};

/* Mean and standard deviation of the training images, in units of 255. */
static const struct {
    const char *name;
    double mean, deviation;
} SETS[] = {{"mnist", 0.1307, 0.3081}, {"fashion_mnist", 0.2860, 0.3530}};

enum {
    SET_COUNT = sizeof SETS / sizeof *SETS,
    SCALING_COUNT = sizeof SCALINGS / sizeof *SCALINGS
};

static void reading_scale(const struct reading *r, double *scale, double *offset) {
    *scale = SCALINGS[r->scaling].scale;
    *offset = SCALINGS[r->scaling].offset;
    if (*scale == 0) {
        *scale = 1 / (255 * SETS[r->set].deviation);
        *offset = -SETS[r->set].mean / SETS[r->set].deviation;
    }
    if (r->invert) {
        *offset += 255 * *scale;
        *scale = -*scale;
    }
}

/* 28x28 with a border of zeros in the first layer could be 32x32 without one. */
static int may_be_wide(const struct model *m) {
    const struct layer *l = &m->layers[0];
    return l->op == OP_CONV && l->pad_top == 2 && l->pad_left == 2 && l->pad_bottom == 2 &&
           l->pad_right == 2 && m->input.h == 28 && m->input.w == 28;
}

/* Columns of the first dense layer from height-width-channel, which the converter assumed, to
   channel-height-width order. */
static void columns_as_chw(const struct layer *l, const float *from, float *to) {
    const size_t size = shape_size(l->in), map = (size_t)l->in.h * l->in.w;
    for (size_t o = 0; o < (size_t)l->out.c; o++)
        for (size_t k = 0; k < size; k++) {
            const size_t c = k % l->in.c, hw = k / l->in.c; /* what position k was taken for */
            to[o * size + k] = from[o * size + c * map + hw];
        }
}

static void rotate_kernels(const struct layer *l, const float *from, float *to) {
    const size_t window = (size_t)l->kernel_h * l->kernel_w;
    for (size_t k = 0; k < l->weights; k++)
        to[k] = from[k / window * window + window - 1 - k % window];
}

/* m becomes base as r understands it; its floats go to room for as many as base has. */
static void apply_reading(const struct model *base, const struct reading *r, struct model *m,
                          float *room) {
    static const float plain_relu[3] = {0, 0, FLT_MAX};
    double scale, offset;
    *m = *base;
    m->floats = room;
    memcpy(room, base->floats, base->float_count * sizeof *room);
    reading_scale(r, &scale, &offset);
    m->scale = (float)scale;
    m->offset = (float)offset;
    if (r->wide) {
        struct layer *l = &m->layers[0];
        m->input.h = m->input.w = 32;
        l->pad_top = l->pad_left = l->pad_bottom = l->pad_right = 0;
    }
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &m->layers[k];
        float *weight = l->weight ? room + (l->weight - base->floats) : NULL;
        if (l->op == OP_CONV && r->flip)
            rotate_kernels(l, l->weight, weight);
        if (l->op == OP_DENSE && r->chw)
            columns_as_chw(l, l->weight, weight);
        if (l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL)
            l->op = r->pool;
        if (l->activation == ACT_TANH || l->activation == ACT_RELU ||
            l->activation == ACT_SIGMOID) {
            l->activation = r->activation;
            memcpy(l->param, plain_relu, sizeof l->param);
        }
        l->weight = weight;
        l->bias = l->bias ? room + (l->bias - base->floats) : NULL;
    }
}

/* The share of the first count images that the network gets right when read as r. */
static int score_reading(const struct model *base, const struct options *o, struct reading *r,
                         const struct dataset *set, size_t count, float *room,
                         struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, FULL_IMAGES, o->threads};
    const size_t pixels = (size_t)set->channels * set->height * set->width;
    struct model m;
    struct lenet5 *net = NULL;
    uint8_t *blob = NULL;
    size_t size, correct = 0;
    float logits[QUICK_IMAGES * CLASSES];
    int rc = -1;

    count = count < set->count ? count : set->count;
    apply_reading(base, r, &m, room);
    if (network_check(m.layers, m.count, m.input, err) ||
        blob_serialize(&m, &blob, &size, err) ||
        lenet5_open_memory(&net, blob, size, &options, err))
        goto out;
    for (size_t i = 0, n; i < count; i += n) {
        n = count - i < QUICK_IMAGES ? count - i : (size_t)QUICK_IMAGES;
        if (lenet5_run(net, set->images + i * pixels, n, logits, err))
            goto out;
        for (size_t k = 0; k < n; k++)
            correct += lenet5_argmax(logits + k * CLASSES, CLASSES) == set->labels[i + k];
    }
    r->score = (double)correct / (double)count;
    rc = 0;
out:
    lenet5_close(net);
    free(blob);
    return rc;
}

static int compare_readings(const void *a, const void *b) {
    const double x = ((const struct reading *)a)->score, y = ((const struct reading *)b)->score;
    return (x < y) - (x > y);
}

/* Every combination that makes sense: options that change nothing are left out. */
static int list_readings(const struct model *base, const struct dataset *sets,
                         struct reading *readings) {
    static const enum activation acts[] = {ACT_TANH, ACT_RELU, ACT_SIGMOID};
    int pools = 0, maps = 0, count = 0;
    for (int k = 0; k < base->count; k++) {
        const struct layer *l = &base->layers[k];
        pools |= l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL;
        maps |= l->op == OP_DENSE && l->in.c > 1 && l->in.h * l->in.w > 1;
    }
    /* the digits of code are the choices, the last varying fastest */
    for (int code = 0; code < SET_COUNT * SCALING_COUNT * 3 * 2 * 2 * 2 * 2 * 2; code++) {
        struct reading r;
        double scale, offset;
        int rest = code;
        r.score = 0;
        r.wide = rest % 2, rest /= 2;
        r.flip = rest % 2, rest /= 2;
        r.chw = rest % 2, rest /= 2;
        r.invert = rest % 2, rest /= 2;
        r.pool = rest % 2 ? OP_MAX_POOL : OP_AVERAGE_POOL, rest /= 2;
        r.activation = acts[rest % 3], rest /= 3;
        r.scaling = rest % SCALING_COUNT, rest /= SCALING_COUNT;
        r.set = rest;
        reading_scale(&r, &scale, &offset);
        if (sets[r.set].count && (pools || r.pool == OP_AVERAGE_POOL) && (maps || !r.chw) &&
            (!r.flip || base->layers[0].op == OP_CONV) &&
            (!r.wide || (offset != 0 && may_be_wide(base))) && count < MOST_READINGS)
            readings[count++] = r;
    }
    return count;
}

/* The options of h5_to_blob that convert as r reads. */
static const char *reading_options(const struct reading *r, char text[320]) {
    struct reading upright = *r;
    double scale, offset;
    upright.invert = 0;
    reading_scale(&upright, &scale, &offset);
    int at = snprintf(text, 320, "--activation %s --pool %s --scale %.9g --offset %.9g",
                      activation_name(r->activation),
                      r->pool == OP_MAX_POOL ? "max" : "average", scale, offset);
    at += snprintf(text + at, 320 - at, "%s%s%s%s --dataset %s", r->invert ? " --invert" : "",
                   r->flip ? " --flip" : "", r->chw ? " --layout chw" : "",
                   r->wide ? " --input 32x32x1 --padding valid" : "", SETS[r->set].name);
    return text;
}

static void print_readings(const struct reading *readings, int count, const char *source) {
    char text[320];
    printf("%8s  %-13s %-13s %-8s %-10s %-8s %s\n", "score", "data set", "scaling", "pooling",
           "activation", "flatten", "also");
    for (int k = 0; k < count; k++) {
        const struct reading *r = &readings[k];
        printf("%7.2f%%  %-13s %-13s %-8s %-10s %-8s%s%s%s\n", 100 * r->score,
               SETS[r->set].name, SCALINGS[r->scaling].name,
               r->pool == OP_MAX_POOL ? "max" : "average", activation_name(r->activation),
               r->chw ? "chw" : "hwc", r->invert ? " inverted" : "",
               r->flip ? " kernels rotated" : "", r->wide ? " 32x32 valid" : "");
    }
    printf("\nthe best of them: ./h5_to_blob %s OUT.bin %s\n", *source ? source : "FILE.h5",
           reading_options(&readings[0], text));
}

static json_t *readings_json(const struct reading *readings, int count, const char *weights) {
    json_t *list = json_array();
    char text[320];
    for (int k = 0; k < count; k++) {
        const struct reading *r = &readings[k];
        json_array_append_new(
            list,
            json_pack("{s:f, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:s}", "score", r->score,
                      "dataset", SETS[r->set].name, "scaling", SCALINGS[r->scaling].name,
                      "pool", r->pool == OP_MAX_POOL ? "max" : "average", "activation",
                      activation_name(r->activation), "layout", r->chw ? "chw" : "hwc",
                      "invert", r->invert, "flip", r->flip, "wide", r->wide, "options",
                      reading_options(r, text)));
    }
    return json_pack("{s:i, s:s, s:o, s:o}", "version", JSON_VERSION, "mode", "identify",
                     "weights", json_name(weights), "readings", list);
}

/* Opens every data set at hand that the network can be fed with, in 28x28 and in 32x32. */
static int open_sets(const struct options *o, const struct lenet5_info *info,
                     struct dataset *sets, struct dataset *wide) {
    struct lenet5_info large = *info;
    struct lenet5_error ignored;
    struct options each = *o;
    int found = 0;
    large.height = large.width = 32;
    each.limit = o->limit ? o->limit : FULL_IMAGES;
    for (int k = 0; k < SET_COUNT; k++) {
        each.dataset = SETS[k].name;
        if ((o->dataset && strcmp(o->dataset, SETS[k].name)) ||
            open_dataset(&sets[k], &each, "", &ignored) || fit_images(&sets[k], info, &ignored))
            dataset_close(&sets[k]);
        else if (open_dataset(&wide[k], &each, "", &ignored) ||
                 fit_images(&wide[k], &large, &ignored))
            dataset_close(&wide[k]);
        found += sets[k].count > 0;
    }
    return found;
}

/* All readings on a few images, the best of them on more. */
int mode_identify(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, 0, o->threads};
    struct reading *readings = (struct reading *)calloc(MOST_READINGS, sizeof *readings);
    struct dataset sets[SET_COUNT], wide[SET_COUNT];
    struct lenet5 *net = NULL;
    struct model base;
    float *room = NULL;
    int rc = -1, count = 0, best = 0;
    const double start = clock_seconds();

    memset(sets, 0, sizeof sets);
    memset(wide, 0, sizeof wide);
    memset(&base, 0, sizeof base);
    if (blob_read(&base, weights_path(o), err) ||
        lenet5_open(&net, weights_path(o), &options, err))
        goto out;
    room = (float *)malloc((base.float_count + 1) * sizeof *room);
    if (!readings || !room) {
        fail(err, "out of memory");
        goto out;
    }
    if (!open_sets(o, lenet5_info(net), sets, wide)) {
        fail(err, "no data set here that this network can be fed with: make data fetches both");
        goto out;
    }
    count = list_readings(&base, sets, readings);
    best = count < FINALISTS ? count : FINALISTS;
    for (int round = 0; round < 2; round++) {
        const int tried = round ? best : count;
        for (int k = 0; k < tried; k++) {
            struct reading *r = &readings[k];
            if (score_reading(&base, o, r, r->wide ? &wide[r->set] : &sets[r->set],
                              round ? FULL_IMAGES : QUICK_IMAGES, room, err))
                goto out;
            progress(o, round ? "finalists" : "readings", start, (size_t)k + 1, (size_t)tried);
        }
        qsort(readings, (size_t)tried, sizeof *readings, compare_readings);
    }
    rc = 0;
    if (o->json)
        rc = print_json(readings_json(readings, best, weights_path(o)), err);
    else
        print_readings(readings, best, base.source);
out:
    for (int k = 0; k < SET_COUNT; k++) {
        dataset_close(&sets[k]);
        dataset_close(&wide[k]);
    }
    lenet5_close(net);
    blob_free(&base);
    free(readings);
    free(room);
    return rc;
}
