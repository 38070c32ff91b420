/* SPDX-License-Identifier: MIT
 *
 * identify.c - lenet5 --eval --identify: tries every reading that a weights-only file leaves
 * open, and names the options that convert it with the best.
 *
 * A reading is tried on the blob, but its options are for the file. So the converter leaves
 * behind the file's version what the file leaves open ("act/pool/pad?": activation, kind of
 * pooling, size and padding), which options it was given, and how kernels and last map lay;
 * what a reading takes over from the blob keeps its option, or none. Where options found no
 * room there, the named command is said to be incomplete.
 */
#define _POSIX_C_SOURCE 200809L
#include "command.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUICK_IMAGES = 100,
    FULL_IMAGES = 2000,
    FINALISTS = 16,
    MOST_READINGS = 2048,
    TEXT = 400
};

enum { AS_IS = -1 };

/* One way to understand a file that does not say how it is to be understood. */
struct reading {
    int place;   /* in the list: of equal scores, the one that changes least comes first */
    int set;     /* index of the data set */
    int scaling; /* row of SCALINGS; AS_IS: the blob's own */
    int invert, wide;
    int flip, chw;  /* kernels rotated, last map flattened channels first: as the file lies */
    int activation; /* AS_IS or enum activation */
    int pool;       /* AS_IS or enum op */
    double score;
};

/* What the blob itself is. */
struct given {
    const struct model *model;
    char options[TEXT]; /* those of h5_to_blob that it records: "--flip --pool max" */
    int incomplete;     /* of others it records only that there were some */
    int open_activation, open_pool, open_padding; /* may the options say otherwise? */
    int flip, chw;
    int activation, pool; /* of all its rows; AS_IS if there are none or several */
};

/* Of the activations that a file may leave open. */
static int is_open_activation(const struct layer *l) {
    return l->activation == ACT_TANH || l->activation == ACT_SIGMOID ||
           (l->activation == ACT_RELU && l->param[0] == 0 && l->param[1] == 0 &&
            l->param[2] == FLT_MAX);
}

static int is_pool(const struct layer *l) {
    return l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL;
}

/* What the converter left behind the version, as keras.c writes it. */
static void read_record(struct given *g, const struct model *m) {
    const char *options = strstr(m->source_version, "--"),
               *end = strchr(m->source_version, '?');
    char *more;
    char open[sizeof m->source_version] = "";
    if (end && (!options || end < options))
        snprintf(open, sizeof open, "%.*s", (int)(end - m->source_version), m->source_version);
    g->open_activation = strstr(open, "act") != NULL;
    g->open_pool = strstr(open, "pool") != NULL;
    g->open_padding = strstr(open, "pad") != NULL;
    g->incomplete = strstr(m->source_version, " ...") != NULL;
    snprintf(g->options, sizeof g->options, "%s", options ? options : "");
    more = strstr(g->options, " ...");
    if (more)
        *more = '\0';
}

static void look_at(struct given *g, const struct model *m) {
    int activations = 0, pools = 0;
    memset(g, 0, sizeof *g);
    g->model = m;
    read_record(g, m);
    g->flip = strstr(g->options, "--flip") != NULL;
    g->chw = strstr(g->options, "--layout chw") != NULL;
    for (int k = 0; k < m->count; k++) {
        const struct layer *l = &m->layers[k];
        activations |= is_open_activation(l) ? 1 << (int)l->activation : 0;
        pools |= is_pool(l) ? 1 << (int)l->op : 0;
    }
    g->activation = g->pool = AS_IS;
    for (int k = 0; k < 31; k++) {
        g->activation = activations == 1 << k ? k : g->activation;
        g->pool = pools == 1 << k ? k : g->pool;
    }
}

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

static void reading_scale(const struct given *g, const struct reading *r, double *scale,
                          double *offset) {
    if (r->scaling == AS_IS) {
        *scale = (double)g->model->scale;
        *offset = (double)g->model->offset;
        return;
    }
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

/* Columns of the first dense layer from height-width-channel, for which the converter took
   them, to channel-height-width order, or back. */
static void swap_columns(const struct layer *l, const float *from, float *to, int chw) {
    const size_t size = shape_size(l->in), map = (size_t)l->in.h * l->in.w;
    for (size_t o = 0; o < (size_t)l->out.c; o++)
        for (size_t k = 0; k < size; k++) {
            const size_t c = k % l->in.c, hw = k / l->in.c; /* of the file's column k, if hwc */
            const size_t other = c * map + hw;
            to[o * size + (chw ? k : other)] = from[o * size + (chw ? other : k)];
        }
}

static void rotate_kernels(const struct layer *l, const float *from, float *to) {
    const size_t window = (size_t)l->kernel_h * l->kernel_w;
    for (size_t k = 0; k < l->weights; k++)
        to[k] = from[k / window * window + window - 1 - k % window];
}

/* m becomes the blob as r understands it; its floats go to room for as many as it has. */
static void apply_reading(const struct given *g, const struct reading *r, struct model *m,
                          float *room) {
    static const float plain_relu[3] = {0, 0, FLT_MAX};
    const struct model *base = g->model;
    double scale, offset;
    *m = *base;
    m->floats = room;
    memcpy(room, base->floats, base->float_count * sizeof *room);
    reading_scale(g, r, &scale, &offset);
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
        if (l->op == OP_CONV && r->flip != g->flip)
            rotate_kernels(l, l->weight, weight);
        if (l->op == OP_DENSE && r->chw != g->chw)
            swap_columns(l, l->weight, weight, r->chw);
        if (is_pool(l) && r->pool != AS_IS)
            l->op = (enum op)r->pool;
        if (is_open_activation(l) && r->activation != AS_IS) {
            l->activation = (enum activation)r->activation;
            memcpy(l->param, plain_relu, sizeof l->param);
        }
        l->weight = weight;
        l->bias = l->bias ? room + (l->bias - base->floats) : NULL;
    }
}

/* The share of the first count images that the network gets right when read as r. */
static int score_reading(const struct given *g, const struct options *o, struct reading *r,
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
    apply_reading(g, r, &m, room);
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
    const struct reading *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->place - y->place;
}

/* Does a reading change nothing that another does not change as well? */
static int is_sensible(const struct given *g, const struct reading *r) {
    const struct model *m = g->model;
    int open = 0, pools = 0, maps = 0;
    double scale, offset;
    for (int k = 0; k < m->count; k++) {
        const struct layer *l = &m->layers[k];
        open |= g->open_activation && is_open_activation(l);
        pools |= g->open_pool && is_pool(l);
        maps |= l->op == OP_DENSE && l->in.c > 1 && l->in.h * l->in.w > 1;
    }
    reading_scale(g, r, &scale, &offset);
    return (r->activation == AS_IS || (open && r->activation != g->activation)) &&
           (r->pool == AS_IS || (pools && r->pool != g->pool)) && (maps || r->chw == g->chw) &&
           (r->flip == g->flip || m->layers[0].op == OP_CONV) &&
           (!r->wide || (offset != 0 && g->open_padding && may_be_wide(m))) &&
           /* a network that scales its bytes itself needs no other scaling */
           (r->scaling == AS_IS ? !r->invert : m->scaling_origin != ORIGIN_FILE);
}

/* Every combination that makes sense; those that change nothing come first. */
static int list_readings(const struct given *g, const struct dataset *sets,
                         struct reading *readings) {
    static const int activations[] = {AS_IS, ACT_TANH, ACT_RELU, ACT_SIGMOID},
                     pools[] = {AS_IS, OP_AVERAGE_POOL, OP_MAX_POOL};
    int count = 0;
    /* the digits of code are the choices, the last varying fastest */
    for (int code = 0; code < SET_COUNT * (SCALING_COUNT + 1) * 4 * 3 * 2 * 2 * 2 * 2; code++) {
        struct reading r;
        int rest = code;
        r.score = 0;
        r.place = code;
        r.wide = rest % 2, rest /= 2;
        r.flip = g->flip ^ rest % 2, rest /= 2;
        r.chw = g->chw ^ rest % 2, rest /= 2;
        r.invert = rest % 2, rest /= 2;
        r.pool = pools[rest % 3], rest /= 3;
        r.activation = activations[rest % 4], rest /= 4;
        r.scaling = rest % (SCALING_COUNT + 1) - 1, rest /= SCALING_COUNT + 1;
        r.set = rest;
        if (sets[r.set].count && is_sensible(g, &r) && count < MOST_READINGS)
            readings[count++] = r;
    }
    return count;
}

/* Copies the recorded options but the one of that name. */
static void keep_options(char text[TEXT], const char *options, const char *but) {
    char copy[TEXT], *rest, kept[TEXT] = "";
    int drop = 0;
    snprintf(copy, sizeof copy, "%s", options);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        const size_t used = strlen(kept);
        if (!strncmp(word, "--", 2))
            drop = !strcmp(word, but);
        if (!drop)
            snprintf(kept + used, sizeof kept - used, "%s%s", used ? " " : "", word);
    }
    memcpy(text, kept, sizeof kept);
}

/* Puts an option into the place of the one that was recorded. */
static void set_option(char text[TEXT], const char *name, const char *value) {
    char kept[TEXT];
    keep_options(kept, text, name);
    snprintf(text, TEXT, "%.300s%s%s%s%s", kept, *kept ? " " : "", name, *value ? " " : "",
             value);
}

/* The options of h5_to_blob that convert as r reads. */
static const char *reading_options(const struct given *g, const struct reading *r,
                                   char text[TEXT]) {
    struct reading upright = *r;
    double scale, offset;
    char number[40];
    upright.invert = 0;
    reading_scale(g, &upright, &scale, &offset);
    snprintf(text, TEXT, "%s", g->options);
    if (r->activation != AS_IS)
        set_option(text, "--activation", activation_name((enum activation)r->activation));
    if (r->pool != AS_IS)
        set_option(text, "--pool", r->pool == OP_MAX_POOL ? "max" : "average");
    if (r->flip != g->flip) {
        keep_options(text, text, "--flip");
        set_option(text, r->flip ? "--flip" : "--no-flip", "");
    }
    if (r->chw != g->chw)
        set_option(text, "--layout", r->chw ? "chw" : "hwc");
    if (r->wide) {
        set_option(text, "--input", "32x32x1");
        set_option(text, "--padding", "valid");
    }
    if (g->model->scaling_origin != ORIGIN_FILE) {
        snprintf(number, sizeof number, "%.9g", scale);
        set_option(text, "--scale", number);
        snprintf(number, sizeof number, "%.9g", offset);
        set_option(text, "--offset", number);
    }
    if (r->invert)
        set_option(text, "--invert", "");
    set_option(text, "--dataset", SETS[r->set].name);
    return text;
}

static const char *scaling_name(const struct reading *r) {
    return r->scaling == AS_IS ? "as it is" : SCALINGS[r->scaling].name;
}

static const char *pool_name(const struct given *g, const struct reading *r) {
    const int pool = r->pool == AS_IS ? g->pool : r->pool;
    return pool == AS_IS ? "as it is" : pool == OP_MAX_POOL ? "max" : "average";
}

static const char *reading_activation(const struct given *g, const struct reading *r) {
    const int a = r->activation == AS_IS ? g->activation : r->activation;
    return a == AS_IS ? "as it is" : activation_name((enum activation)a);
}

static void print_readings(const struct given *g, const struct reading *readings, int count) {
    const char *source = g->model->source;
    char text[TEXT];
    printf("%8s  %-13s %-13s %-8s %-10s %-8s %s\n", "score", "data set", "scaling", "pooling",
           "activation", "flatten", "also");
    for (int k = 0; k < count; k++) {
        const struct reading *r = &readings[k];
        printf("%7.2f%%  %-13s %-13s %-8s %-10s %-8s%s%s%s\n", 100 * r->score,
               SETS[r->set].name, scaling_name(r), pool_name(g, r), reading_activation(g, r),
               r->chw ? "chw" : "hwc", r->invert ? " inverted" : "",
               r->flip ? " kernels rotated" : "", r->wide ? " 32x32 valid" : "");
    }
    printf("\nthe best of them%s: ./h5_to_blob %s OUT.bin %s\n",
           g->incomplete ? " (and options of this blob that it has no room to record)" : "",
           *source ? source : "FILE.h5", reading_options(g, &readings[0], text));
}

static json_t *readings_json(const struct given *g, const struct reading *readings, int count,
                             const char *weights) {
    json_t *list = json_array();
    char text[TEXT];
    for (int k = 0; k < count; k++) {
        const struct reading *r = &readings[k];
        json_array_append_new(
            list, json_pack("{s:f, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:s}", "score",
                            r->score, "dataset", SETS[r->set].name, "scaling", scaling_name(r),
                            "pool", pool_name(g, r), "activation", reading_activation(g, r),
                            "layout", r->chw ? "chw" : "hwc", "invert", r->invert, "flip",
                            r->flip, "wide", r->wide, "options", reading_options(g, r, text)));
    }
    return json_pack("{s:i, s:s, s:o, s:b, s:o}", "version", JSON_VERSION, "mode", "identify",
                     "weights", json_name(weights), "complete", !g->incomplete, "readings",
                     list);
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

/* All readings on a few images, the best of them on more; the best come first. */
static int score_readings(const struct given *g, const struct options *o,
                          struct reading *readings, int count, const struct dataset *sets,
                          const struct dataset *wide, struct lenet5_error *err) {
    float *room = (float *)malloc((g->model->float_count + 1) * sizeof *room);
    const double start = clock_seconds();
    int rc = room ? 0 : fail(err, "out of memory");
    for (int round = 0; round < 2 && !rc; round++) {
        const int tried = round && count > FINALISTS ? FINALISTS : count;
        for (int k = 0; k < tried && !rc; k++) {
            struct reading *r = &readings[k];
            rc = score_reading(g, o, r, r->wide ? &wide[r->set] : &sets[r->set],
                               round ? FULL_IMAGES : QUICK_IMAGES, room, err);
            progress(o, round ? "finalists" : "readings", start, (size_t)k + 1, (size_t)tried);
        }
        qsort(readings, (size_t)tried, sizeof *readings, compare_readings);
    }
    free(room);
    return rc;
}

/* Results as text or JSON, the best first. */
static int show_readings(const struct given *g, const struct options *o,
                         const struct reading *readings, int count, struct lenet5_error *err) {
    const int best = count < FINALISTS ? count : FINALISTS;
    if (o->json)
        return print_json(readings_json(g, readings, best, weights_path(o)), err);
    print_readings(g, readings, best);
    return 0;
}

int mode_identify(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, 0, o->threads};
    struct reading *readings = (struct reading *)calloc(MOST_READINGS, sizeof *readings);
    struct dataset sets[SET_COUNT], wide[SET_COUNT];
    struct lenet5 *net = NULL;
    struct model base;
    struct given given;
    int rc = -1, count = 0;

    memset(sets, 0, sizeof sets);
    memset(wide, 0, sizeof wide);
    memset(&base, 0, sizeof base);
    if (!readings) {
        fail(err, "out of memory");
        goto out;
    }
    if (blob_read(&base, weights_path(o), err) ||
        lenet5_open(&net, weights_path(o), &options, err))
        goto out;
    if (!open_sets(o, lenet5_info(net), sets, wide)) {
        fail(err, "no data set here that this network can be fed with: make data fetches both");
        goto out;
    }
    look_at(&given, &base);
    count = list_readings(&given, sets, readings);
    rc = score_readings(&given, o, readings, count, sets, wide, err);
    if (!rc)
        rc = show_readings(&given, o, readings, count, err);
out:
    for (int k = 0; k < SET_COUNT; k++) {
        dataset_close(&sets[k]);
        dataset_close(&wide[k]);
    }
    lenet5_close(net);
    blob_free(&base);
    free(readings);
    return rc;
}
