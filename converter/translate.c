/* SPDX-License-Identifier: MIT
 *
 * translate.c - Keras's layers, in their order, become rows of the engine's table.
 *
 * The map is followed from layer to layer, as Keras would see it: its shape, whether it has
 * been flattened, and in which order its numbers then lie. Everything that depends on the order
 * ends here: kernels become [out][in][rows][columns], the first dense layer's columns channels
 * first.
 *
 * Left out: layers that work across the chain's shape (Permute, a Reshape that is more than a
 * change of view, a dense layer on an unflattened map). They are refused with the reason.
 */
#define _POSIX_C_SOURCE 200809L
#include "fold.h"
#include "keras.h"
#include "reorder.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DIAGONAL = 2048 }; /* numbers of a vector; its square is parameters */

struct builder {
    struct keras *k;
    const struct keras_options *options;
    struct model *m;
    struct rows *rows;
    struct shape at;  /* what the last layer gave, as the engine sees it */
    int flat;         /* Keras sees a vector */
    enum order order; /* of that vector's numbers, or of the map's axes */
    int border[4]; /* zeros around the map that wait for a convolution: top left bottom right */
    double scale, offset; /* of the input's bytes */
    struct lenet5_error *err;
};

static int same_shape(struct shape a, struct shape b) {
    return a.c == b.c && a.h == b.h && a.w == b.w;
}

/* Is there only one order in which the numbers of such a map can lie? */
static int one_order(struct shape s) {
    return s.c == 1 || s.h * s.w == 1;
}

/* The shape as Keras prints it. */
static const char *shape_text(struct shape s, int flat, char text[40]) {
    if (flat)
        snprintf(text, 40, "%zu", shape_size(s));
    else
        snprintf(text, 40, "%dx%dx%d", s.h, s.w, s.c);
    return text;
}

/* What may be the reason where sizes do not fit. */
static const char *size_hint(const struct builder *b) {
    return b->k->size_assumed ? "; the file does not say the size of its images: --input HxWxC"
                              : "";
}

/* "FILE: layer 3 'conv2d_1' ..." */
__attribute__((format(printf, 3, 4))) static int
unit_fail(struct builder *b, const struct unit *u, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(b->err, "%s: layer %d '%s' %s", b->k->path, (int)(u - b->k->units) + 1, u->name,
                text);
}

/* ---- rows ------------------------------------------------------------------------------- */

static struct row *add_row(struct builder *b, const struct unit *u, enum op op,
                           struct shape out) {
    struct rows *rows = b->rows;
    if (rows->count == MAX_ROWS) {
        unit_fail(b, u, "is one too many: at most %d layers can be converted", MAX_LAYERS);
        return NULL;
    }
    struct row *r = &rows->row[rows->count++];
    memset(r, 0, sizeof *r);
    memcpy(r->row.name, u->name, sizeof r->row.name);
    r->row.op = op;
    r->row.in = b->at;
    r->row.out = out;
    return r;
}

static void set_window(struct layer *l, int h, int w, int stride_h, int stride_w) {
    l->kernel_h = h;
    l->kernel_w = w;
    l->stride_h = stride_h;
    l->stride_w = stride_w;
}

static void set_border(struct layer *l, const int border[4]) {
    l->pad_top = border[0];
    l->pad_left = border[1];
    l->pad_bottom = border[2];
    l->pad_right = border[3];
}

static int new_floats(struct builder *b, float **floats, size_t *count, size_t want) {
    *floats = calloc(want, sizeof **floats);
    *count = want;
    return *floats ? 0 : fail(b->err, "%s: out of memory", b->k->path);
}

/* The activation of a layer, or a layer that is nothing else: written into the last row where
   that has none yet, else a row of its own. Softmax always is one. */
static int add_activation(struct builder *b, const struct unit *u) {
    const struct function *f = &u->function;
    struct row *last = b->rows->count ? &b->rows->row[b->rows->count - 1] : NULL;
    if (f->activation == ACT_LINEAR)
        return 0;
    /* Keras takes it over the last axis, which is that of the channels only if they are last */
    const int last_axis = b->flat || b->order != ORDER_CHW || u->axis; /* that one is checked */
    if (f->activation == ACT_SOFTMAX && (b->at.h * b->at.w != 1 || !last_axis))
        return unit_fail(b, u, "takes a softmax over a %s%dx%dx%d map; only over %s",
                         b->flat ? "flattened " : "", b->at.h, b->at.w, b->at.c,
                         b->flat ? "the outputs of a dense layer" : "a vector");
    if (!last || last->row.activation != ACT_LINEAR || f->activation == ACT_SOFTMAX) {
        last = add_row(b, u, OP_ACTIVATION, b->at);
        if (!last)
            return -1;
    }
    last->row.activation = f->activation;
    memcpy(last->row.param, f->param, sizeof f->param);
    return 0;
}

/* ---- borders ---------------------------------------------------------------------------- */

/* Cells before and after a side of n, so that a window of k gives n / stride outputs, rounded
   up. The odd one goes behind. On Theano, Keras had the border before depend on the window
   alone, and for pooling in another way than for convolution. */
static void same_border(const struct builder *b, const struct unit *u, int n, int side,
                        int *before, int *after) {
    const int k = u->window[side], stride = u->stride[side];
    const int out = (n + stride - 1) / stride, need = (out - 1) * stride + k - n;
    *before = need > 0 ? need / 2 : 0;
    if (b->k->theano)
        *before = u->kind == KIND_CONV ? k / 2 : k > 2 && k % 2 ? k - 2 : k - 1;
    *after = need > *before ? need - *before : 0;
}

static void layer_border(const struct builder *b, const struct unit *u, struct shape in,
                         int border[4]) {
    memset(border, 0, 4 * sizeof *border);
    if (u->padding == PADDING_SAME) {
        same_border(b, u, in.h, 0, &border[0], &border[2]);
        same_border(b, u, in.w, 1, &border[1], &border[3]);
    } else if (u->padding == PADDING_FULL) {
        border[0] = border[2] = u->window[0] - 1;
        border[1] = border[3] = u->window[1] - 1;
    }
}

static int has_border(const struct builder *b) {
    return b->border[0] || b->border[1] || b->border[2] || b->border[3];
}

/* Zeros that no convolution takes into its own border become a convolution that copies: its
   window is one cell larger than the zeros of both sides, and all of it but one cell is zero.
 */
static int flush_border(struct builder *b, const struct unit *u) {
    const int *border = b->border, rows = border[0] + border[2],
              columns = border[1] + border[3];
    const int kernel_h = rows + 1, kernel_w = columns + 1, c = b->at.c;
    if (!has_border(b))
        return 0;
    if (kernel_h > MAX_WINDOW || kernel_w > MAX_WINDOW || c > 256)
        return unit_fail(b, u, "follows a border of zeros that only a convolution can take");
    struct row *r =
        add_row(b, u, OP_CONV, (struct shape){c, b->at.h + rows, b->at.w + columns});
    if (!r || new_floats(b, &r->weight, &r->row.weights,
                         (size_t)c * (size_t)c * (size_t)kernel_h * (size_t)kernel_w))
        return -1;
    snprintf(r->row.name, sizeof r->row.name, "zero_padding");
    for (int o = 0; o < c; o++)
        r->weight[((o * c + o) * kernel_h + border[2]) * kernel_w + border[3]] = 1;
    set_window(&r->row, kernel_h, kernel_w, 1, 1);
    set_border(&r->row, (const int[]){rows, columns, rows, columns});
    b->at = r->row.out;
    memset(b->border, 0, sizeof b->border);
    return 0;
}

static int place_padding(struct builder *b, struct unit *u) {
    if (b->flat)
        return unit_fail(b, u, "pads a vector");
    for (int k = 0; k < 4; k++) {
        if (u->border[k] < 0 || u->border[k] > MAX_WINDOW)
            return unit_fail(b, u, "pads with %d zeros", u->border[k]);
        b->border[k] += u->border[k];
    }
    return has_border(b) && b->border[0] + b->border[2] > MAX_WINDOW ? flush_border(b, u) : 0;
}

/* The map with the border that still waits. */
static struct shape bordered(const struct builder *b) {
    const struct shape s = {b->at.c, b->at.h + b->border[0] + b->border[2],
                            b->at.w + b->border[1] + b->border[3]};
    return s;
}

/* ---- convolution and pooling ------------------------------------------------------------ */

static int check_map(struct builder *b, const struct unit *u, int kernel_h, int kernel_w) {
    if (b->flat)
        return unit_fail(b, u, "needs a map, but the layer before it gives a vector of %zu",
                         shape_size(b->at));
    if (u->order && b->order && u->order != b->order && !one_order(b->at))
        return unit_fail(b, u, "is %s in a network that is %s",
                         u->order == ORDER_CHW ? "channels_first" : "channels_last",
                         b->order == ORDER_CHW ? "channels_first" : "channels_last");
    if (kernel_h < 1 || kernel_w < 1 || kernel_h > MAX_WINDOW || kernel_w > MAX_WINDOW)
        return unit_fail(b, u, "has a window of %dx%d; each side must be 1 to %d", kernel_h,
                         kernel_w, MAX_WINDOW);
    if (u->stride[0] < 1 || u->stride[1] < 1 || u->stride[0] > MAX_WINDOW ||
        u->stride[1] > MAX_WINDOW)
        return unit_fail(b, u, "has a stride of %dx%d; each must be 1 to %d", u->stride[0],
                         u->stride[1], MAX_WINDOW);
    return 0;
}

/* Completes a row with a window: border, output shape, and whether there is any output. */
static int place_window(struct builder *b, struct unit *u, struct row *r, const int border[4]) {
    struct layer *l = &r->row;
    set_window(l, u->window[0], u->window[1], u->stride[0], u->stride[1]);
    set_border(l, border);
    l->out.h = window_steps(b->at.h + border[0] + border[2], l->kernel_h, l->stride_h);
    l->out.w = window_steps(b->at.w + border[1] + border[3], l->kernel_w, l->stride_w);
    if (!l->out.h || !l->out.w)
        return unit_fail(b, u,
                         "has a window of %dx%d, which does not fit into a map of %dx%d%s",
                         l->kernel_h, l->kernel_w, b->at.h, b->at.w, size_hint(b));
    if (shape_size(l->out) > MAX_MAP)
        return unit_fail(b, u, "gives a map of %dx%dx%d; at most %d numbers can be converted",
                         l->out.h, l->out.w, l->out.c, MAX_MAP);
    b->at = l->out;
    return 0;
}

static int check_channels(struct builder *b, const struct unit *u) {
    const int found = (int)unit_inputs(u);
    char shape[64];
    if (found == b->at.c)
        return 0;
    tensor_shape(&u->array[KERNEL], shape);
    if (b->rows->count)
        return unit_fail(b, u,
                         "has a kernel of %s, for %d channels, but the layer before gives %d",
                         shape, found, b->at.c);
    return unit_fail(b, u,
                     "is the first and has a kernel of %s: it takes %d channels, the images "
                     "have %d%s",
                     shape, found, b->at.c,
                     found > 3 && found == b->at.w
                         ? "; was it built with (1,28,28) read as channels_last?"
                         : "");
}

static int place_conv(struct builder *b, struct unit *u) {
    const struct tensor *kernel = &u->array[KERNEL];
    int border[4];
    if (check_map(b, u, u->window[0], u->window[1]) || check_channels(b, u))
        return -1;
    layer_border(b, u, bordered(b), border);
    if (border[0] + b->border[0] >= u->window[0] || border[1] + b->border[1] >= u->window[1] ||
        border[2] + b->border[2] >= u->window[0] || border[3] + b->border[3] >= u->window[1]) {
        if (flush_border(b, u)) /* the engine's own borders are smaller than the window */
            return -1;
    }
    for (int k = 0; k < 4; k++)
        border[k] += b->border[k];
    memset(b->border, 0, sizeof b->border);
    struct row *r = add_row(b, u, OP_CONV, (struct shape){u->outputs, 0, 0});
    if (!r || new_floats(b, &r->weight, &r->row.weights, kernel->count))
        return -1;
    const struct kernel_shape shape = {(size_t)u->window[0], (size_t)u->window[1],
                                       (size_t)b->at.c, (size_t)u->outputs};
    reorder_kernel(r->weight, kernel->data, shape, u->kernel == ORDER_CHW, b->k->flip);
    r->bias = u->array[BIAS].data; /* taken over */
    r->row.biases = u->array[BIAS].count;
    u->array[BIAS].data = NULL;
    return place_window(b, u, r, border) || add_activation(b, u);
}

static int place_pool(struct builder *b, struct unit *u) {
    int border[4];
    if (u->global) {
        u->window[0] = b->at.h + b->border[0] + b->border[2];
        u->window[1] = b->at.w + b->border[1] + b->border[3];
    }
    for (int k = 0; k < 2; k++)
        u->stride[k] = u->stride[k] ? u->stride[k] : u->window[k];
    if (check_map(b, u, u->window[0], u->window[1]) || flush_border(b, u))
        return -1;
    layer_border(b, u, b->at, border);
    struct row *r = add_row(b, u, u->maximum ? OP_MAX_POOL : OP_AVERAGE_POOL, b->at);
    if (!r || place_window(b, u, r, border))
        return -1;
    b->flat = u->global && !u->keepdims;
    return 0;
}

/* ---- dense ------------------------------------------------------------------------------ */

/* "input 28x28x1, conv2d 24x24x6, ..." up to the unit. */
static void describe_chain(const struct builder *b, const struct unit *end, char *text,
                           size_t size) {
    char shape[40];
    const struct shape in = b->m->input;
    size_t used = (size_t)snprintf(text, size, "input %s", shape_text(in, 0, shape));
    for (const struct unit *u = b->k->units; u < end && used < size; u++)
        if (u->kind == KIND_CONV || u->kind == KIND_POOL || u->kind == KIND_DENSE)
            used += (size_t)snprintf(text + used, size - used, ", %.20s %s", u->name,
                                     shape_text(u->out, u->flat, shape));
}

static int check_rows(struct builder *b, const struct unit *u, size_t found) {
    char chain[240];
    if (!b->flat && b->at.h * b->at.w != 1)
        return unit_fail(b, u, "is dense and works on a %dx%dx%d map; a Flatten is missing",
                         b->at.h, b->at.w, b->at.c);
    if (found == shape_size(b->at))
        return 0;
    describe_chain(b, u, chain, sizeof chain);
    if (b->at.h * b->at.w == 1)
        return fail(b->err,
                    "%s: dense '%s' has %zu rows, but the layer before it gives %d (%s)",
                    b->k->path, u->name, found, b->at.c, chain);
    return fail(b->err,
                "%s: dense '%s' has %zu rows but the feature map is %dx%dx%d = %zu: wrong "
                "padding, wrong order, or other network (%s)%s",
                b->k->path, u->name, found, b->at.c, b->at.h, b->at.w, shape_size(b->at), chain,
                size_hint(b));
}

static int place_dense(struct builder *b, struct unit *u) {
    const struct tensor *kernel = &u->array[KERNEL];
    if (flush_border(b, u) || check_rows(b, u, unit_inputs(u)))
        return -1;
    struct row *r = add_row(b, u, OP_DENSE, (struct shape){u->outputs, 1, 1});
    if (!r || new_floats(b, &r->weight, &r->row.weights, kernel->count))
        return -1;
    const struct dense_shape shape = {
        (size_t)b->at.c,    (size_t)b->at.h, (size_t)b->at.w,
        (size_t)u->outputs, u->transposed,   b->order == ORDER_HWC,
    };
    reorder_dense(r->weight, kernel->data, shape);
    if (!b->k->flattened && !one_order(b->at))
        b->k->flattened = b->order;
    r->bias = u->array[BIAS].data; /* taken over */
    r->row.biases = u->array[BIAS].count;
    u->array[BIAS].data = NULL;
    b->at = r->row.out;
    b->flat = 1;
    return add_activation(b, u);
}

/* ---- scale ------------------------------------------------------------------------------ */

/* Does an axis, counted as Keras does with the batch first, run over the channels? */
static int is_channel_axis(const struct builder *b, int axis) {
    if (b->flat)
        return axis == -1 || axis == 1;
    return b->order == ORDER_CHW ? axis == 1 || axis == -3 : axis == 3 || axis == -1;
}

static int check_scale(struct builder *b, const struct unit *u, size_t want) {
    const size_t found = unit_scale_count(u);
    if (u->axis && !is_channel_axis(b, u->axis) && found > 1)
        return unit_fail(b, u, "(%s) normalises axis %d, not channels", u->type, u->axis);
    if (found > 1 && found != want)
        return unit_fail(b, u, "(%s) has %zu numbers for %zu channels", u->type, found, want);
    return 0;
}

static int place_scale(struct builder *b, struct unit *u) {
    const size_t count = b->flat ? shape_size(b->at) : (size_t)b->at.c;
    double s, t;
    if (u->preprocessing && !b->rows->count && !has_border(b) && unit_is_uniform(u)) {
        unit_scale(u, 0, &s, &t);
        b->scale *= s;
        b->offset = b->offset * s + t;
        return 0;
    }
    if (flush_border(b, u) || check_scale(b, u, count))
        return -1;
    const struct shape shape = b->flat ? (struct shape){(int)count, 1, 1} : b->at;
    struct row *r = add_row(b, u, OP_SCALE, shape);
    if (!r || new_floats(b, &r->weight, &r->row.weights, count) ||
        new_floats(b, &r->bias, &r->row.biases, count))
        return -1;
    r->row.in = shape;
    for (size_t k = 0; k < count; k++) {
        /* k counts channels first, Keras's vector may not */
        const size_t cells = count / (size_t)b->at.c, c = k / cells, cell = k % cells;
        const int swap = b->flat && b->order == ORDER_HWC;
        unit_scale(u, swap ? cell * (size_t)b->at.c + c : k, &s, &t);
        r->weight[k] = (float)s;
        r->bias[k] = (float)t;
    }
    return 0;
}

/* ---- layers that compute nothing -------------------------------------------------------- */

static int place_activation(struct builder *b, struct unit *u) {
    if (u->function.activation == ACT_SOFTMAX && u->axis && !is_channel_axis(b, u->axis))
        return unit_fail(b, u, "takes a softmax over axis %d, not over the classes", u->axis);
    return flush_border(b, u) || add_activation(b, u);
}

/* channels_first data is transposed by a Flatten that knows of it, and only by that. */
static int place_flatten(struct builder *b, struct unit *u) {
    if (flush_border(b, u))
        return -1;
    if (!b->flat && b->order == ORDER_CHW)
        b->order = u->order == ORDER_CHW ? ORDER_HWC : ORDER_CHW;
    if (!b->flat && b->options->layout)
        b->order = b->options->layout;
    b->flat = 1;
    return 0;
}

/* A Reshape is harmless when it changes the view and not the order: to a vector, or back to the
   map that it was. */
static int place_reshape(struct builder *b, struct unit *u) {
    const int *t = u->target, rank = u->target_rank;
    unit_complete_target(u, shape_size(b->at));
    const struct shape hwc = {rank == 3 ? t[2] : 1, t[0], t[1]}, chw = {t[0], t[1], t[2]};
    if (flush_border(b, u))
        return -1;
    if (rank == 1) {
        b->flat = 1;
        return 0;
    }
    /* on the way from a vector to a map, its order must be the map's */
    const int last = same_shape(hwc, b->at) && (one_order(b->at) || b->order == ORDER_HWC);
    const int first =
        rank == 3 && same_shape(chw, b->at) && (one_order(b->at) || b->order == ORDER_CHW);
    if (!last && !first)
        return unit_fail(b, u, "(Reshape) rearranges a map of %dx%dx%d", b->at.h, b->at.w,
                         b->at.c);
    b->flat = 0;
    return 0;
}

static int place_nothing(struct builder *b, struct unit *u) {
    (void)b, (void)u;
    return 0;
}

static int (*const place[])(struct builder *b, struct unit *u) = {
    [KIND_NOTHING] = place_nothing, [KIND_CONV] = place_conv,
    [KIND_POOL] = place_pool,       [KIND_DENSE] = place_dense,
    [KIND_SCALE] = place_scale,     [KIND_ACTIVATION] = place_activation,
    [KIND_PADDING] = place_padding, [KIND_FLATTEN] = place_flatten,
    [KIND_RESHAPE] = place_reshape,
};

/* ---- beginning and end ------------------------------------------------------------------ */

static int check_end(struct builder *b) {
    const int want = b->options->classes ? b->options->classes : 10;
    const struct shape s = b->at;
    if (s.h * s.w != 1)
        return fail(b->err, "%s ends on a map of %dx%dx%d; a vector of %d classes was expected",
                    b->k->path, s.h, s.w, s.c, want);
    if (s.c != want)
        return fail(b->err, "%s: %d outputs%s, need %d; --classes %d converts it all the same",
                    b->k->path, s.c, s.c == 26 || s.c == 47 || s.c == 62 ? " (letters?)" : "",
                    want, s.c);
    return 0;
}

enum { STEP = BLOB_ALIGN / sizeof(float) };

static size_t padded(size_t count) {
    return (count + STEP - 1) / STEP * STEP;
}

/* Moves an array to *at, which advances to the next multiple of 64 bytes. */
static const float *move(float **at, float **from, size_t count) {
    float *to = *at;
    if (!count)
        return NULL;
    memcpy(to, *from, count * sizeof *to);
    free(*from);
    *from = NULL;
    *at += padded(count);
    return to;
}

/* Moves the rows' numbers into one block. */
static int pack(struct builder *b) {
    struct model *m = b->m;
    m->count = b->rows->count;
    if (m->count > MAX_LAYERS)
        return fail(b->err, "%s: %d layers; at most %d can be converted", b->k->path, m->count,
                    MAX_LAYERS);
    for (int k = 0; k < m->count; k++)
        m->float_count +=
            padded(b->rows->row[k].row.weights) + padded(b->rows->row[k].row.biases);
    if (m->float_count > MAX_PARAMETERS)
        return fail(b->err, "%s: %zu parameters; at most %d can be converted", b->k->path,
                    m->float_count, MAX_PARAMETERS);
    const size_t bytes = (m->float_count + STEP) * sizeof(float);
    float *at = m->floats = aligned_alloc(BLOB_ALIGN, bytes);
    if (!m->floats)
        return fail(b->err, "%s: out of memory", b->k->path);
    memset(m->floats, 0, bytes);
    for (int k = 0; k < m->count; k++) {
        struct row *r = &b->rows->row[k];
        m->layers[k] = r->row;
        m->layers[k].weight = move(&at, &r->weight, r->row.weights);
        m->layers[k].bias = move(&at, &r->bias, r->row.biases);
    }
    for (size_t k = 0; k < m->float_count; k++)
        if (!isfinite(m->floats[k]))
            return fail(b->err, "%s: numbers overflow when batch normalisation is folded",
                        b->k->path);
    return 0;
}

/* A vector that is normalised and then not taken by a dense layer has no row of its own: the
   engine scales channels. It becomes a dense layer that is zero but on its diagonal. */
static int make_diagonal(struct builder *b, struct row *r, struct shape in) {
    const size_t n = r->row.weights;
    float *scale = r->weight;
    if (n > MAX_DIAGONAL)
        return fail(
            b->err,
            "%s: layer '%s' normalises a flattened map of %zu before an activation; that "
            "can be converted up to %d, or directly before a dense layer",
            b->k->path, r->row.name, n, MAX_DIAGONAL);
    r->weight = NULL;
    if (!new_floats(b, &r->weight, &r->row.weights, n * n))
        for (size_t k = 0; k < n; k++)
            r->weight[k * n + k] = scale[k];
    free(scale);
    r->row.op = OP_DENSE;
    r->row.in = in;
    return r->weight ? 0 : -1;
}

static int place_diagonals(struct builder *b) {
    for (int k = 0; k < b->rows->count; k++) {
        struct row *r = &b->rows->row[k];
        const struct shape in = k ? r[-1].row.out : b->m->input;
        if (r->row.op == OP_SCALE && !same_shape(r->row.in, in) && make_diagonal(b, r, in))
            return -1;
    }
    return 0;
}

static int place_all(struct builder *b) {
    for (int k = 0; k < b->k->count; k++) {
        struct unit *u = &b->k->units[k];
        if (place[u->kind](b, u))
            return -1;
        for (int role = 0; role < ROLE_END; role++)
            tensor_free(&u->array[role]);
        u->out = bordered(b);
        u->flat = b->flat;
    }
    return 0;
}

int translate(struct keras *k, const struct keras_options *options, struct model *m,
              struct lenet5_error *err) {
    struct builder b = {.k = k, .options = options, .m = m, .err = err};
    int rc = -1;
    memset(m, 0, sizeof *m);
    b.rows = calloc(1, sizeof *b.rows);
    if (!b.rows)
        return fail(err, "%s: out of memory", k->path);
    b.order = input_order(k);
    m->scaling_origin = input_scaling(k, options, &b.scale, &b.offset);
    if (input_shape(k, options, &m->input, err))
        goto out;
    b.at = m->input;
    b.flat = k->input_rank == 1;
    if (place_all(&b) || check_end(&b) || fold_scales(b.rows, err) || place_diagonals(&b) ||
        pack(&b))
        goto out;
    m->scale = (float)b.scale;
    m->offset = (float)b.offset;
    struct lenet5_error why;
    rc = network_check(m->layers, m->count, m->input, &why);
    if (rc)
        fail(err, "%s: %s", k->path, why.message);
out:
    rows_free(b.rows);
    free(b.rows);
    if (rc)
        blob_free(m);
    return rc;
}
