/* SPDX-License-Identifier: MIT
 *
 * input.c - what images a network takes: their shape, the order of their axes, and what a byte
 * becomes before it enters. A file may say all of it, a part, or nothing.
 */
#include "keras.h"

#include <math.h>

/* The data format of the network: that of its first layer that has one. */
enum order input_order(const struct keras *k) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].order && k->units[i].kind != KIND_FLATTEN)
            return k->units[i].order;
    const int *in = k->input; /* dense layers only: channels are few */
    return k->input_rank == 3 && in[0] && in[0] < 4 && in[2] > 3 ? ORDER_CHW : ORDER_HWC;
}

static int square_root(int n) {
    int side = 0;
    while (side * side < n && side <= MAX_SIDE)
        side++;
    return side * side == n ? side : 0;
}

/* The images that the file says, with 0 for what it does not say. A vector is taken for a
   square image of 1 or 3 channels, unless a Reshape says how it lies. */
static struct shape told_input(const struct keras *k, enum order order) {
    const int *in = k->input, *t = k->units[0].target;
    struct shape s = {0, 0, 0};
    if (k->input_rank == 3)
        s = order == ORDER_CHW ? (struct shape){in[0], in[1], in[2]}
                               : (struct shape){in[2], in[0], in[1]};
    else if (k->input_rank == 2)
        s = (struct shape){1, in[0], in[1]};
    else if (k->input_rank == 1 && k->units[0].kind == KIND_RESHAPE &&
             k->units[0].target_rank == 3)
        s = order == ORDER_CHW ? (struct shape){t[0], t[1], t[2]}
                               : (struct shape){t[2], t[0], t[1]};
    else if (k->input_rank == 1 && square_root(in[0]))
        s = (struct shape){1, square_root(in[0]), square_root(in[0])};
    else if (k->input_rank == 1 && in[0] % 3 == 0 && square_root(in[0] / 3))
        s = (struct shape){3, square_root(in[0] / 3), square_root(in[0] / 3)};
    return s;
}

static int conflicts(int told, int asked) {
    return told && told != asked;
}

/* A side behind a window. */
static int side_behind(const struct unit *u, int side, int dimension) {
    const int window = u->window[dimension];
    const int stride = u->stride[dimension] ? u->stride[dimension] : window;
    if (window < 1 || stride < 1 || u->global)
        return u->global;
    if (u->padding == PADDING_SAME)
        return (side + stride - 1) / stride;
    side += u->padding == PADDING_FULL ? 2 * (window - 1) : 0;
    return window_steps(side, window, stride);
}

/* Does an architecture fit images of this size: do they give what the first dense layer takes,
   or without one, a vector? */
static int fits(const struct keras *k, struct shape s) {
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        if (u->kind == KIND_DENSE)
            return shape_size(s) == unit_inputs(u);
        if (u->kind == KIND_CONV || u->kind == KIND_POOL) {
            s.h = side_behind(u, s.h, 0);
            s.w = side_behind(u, s.w, 1);
        }
        if (u->kind == KIND_PADDING) {
            s.h += u->border[0] + u->border[2];
            s.w += u->border[1] + u->border[3];
        }
        s.c = u->kind == KIND_CONV ? u->outputs : s.c;
        if (s.h < 1 || s.w < 1 || s.h > 1000 || s.w > 1000)
            return 0;
    }
    return s.h == 1 && s.w == 1;
}

/* What the file does not say: the channels of the first kernel, and 28x28 or what else fits. */
static void complete(struct keras *k, struct shape *s) {
    for (int i = 0; i < k->count && !s->c; i++)
        if (k->units[i].kind == KIND_CONV)
            s->c = (int)unit_inputs(&k->units[i]);
    s->c = s->c ? s->c : 1;
    if (s->h && s->w)
        return;
    k->size_assumed = 1;
    struct shape found = {s->c, s->h ? s->h : 28, s->w ? s->w : 28};
    for (int i = 6; i <= MAX_SIDE && !fits(k, found); i++) { /* smaller ones are chance */
        const int side = i == 6 ? 28 : i == 7 ? 32 : i;
        found.h = s->h ? s->h : side;
        found.w = s->w ? s->w : side;
    }
    if (!fits(k, found))
        found = (struct shape){s->c, s->h ? s->h : 28, s->w ? s->w : 28};
    *s = found;
    keras_note(k, "images of %dx%dx%d (--input HxWxC)", s->h, s->w, s->c);
}

/* An architecture that begins with a dense layer takes vectors. */
static void find_vector(struct keras *k) {
    for (int i = 0; i < k->count && !k->input_rank; i++) {
        const enum kind kind = k->units[i].kind;
        if (kind == KIND_CONV || kind == KIND_POOL || kind == KIND_FLATTEN ||
            kind == KIND_RESHAPE || kind == KIND_PADDING)
            return;
        if (kind == KIND_DENSE) {
            k->input_rank = 1;
            k->input[0] = (int)unit_inputs(&k->units[i]);
        }
    }
}

int input_shape(struct keras *k, const struct keras_options *options, struct shape *shape,
                struct lenet5_error *err) {
    const struct shape asked = options->input;
    if (k->architecture)
        find_vector(k);
    if (k->input_rank == 1 && k->units[0].kind == KIND_RESHAPE)
        unit_complete_target(&k->units[0], (size_t)k->input[0]);
    struct shape s = told_input(k, input_order(k));
    if (asked.c &&
        (conflicts(s.c, asked.c) || conflicts(s.h, asked.h) || conflicts(s.w, asked.w)))
        return fail(err, "%s takes images of %dx%dx%d; --input says %dx%dx%d", k->path, s.h,
                    s.w, s.c, asked.h, asked.w, asked.c);
    if (asked.c)
        s = asked;
    if (k->input_rank == 1 && !s.c)
        return fail(err, "%s takes a vector of %d numbers; --input HxWxC says what image",
                    k->path, k->input[0]);
    complete(k, &s);
    if ((s.c != 1 && s.c != 3) || s.h < 1 || s.w < 1 || s.h > MAX_SIDE || s.w > MAX_SIDE)
        return fail(err,
                    "%s takes images of %dx%dx%d; at most %dx%d with 1 or 3 channels can be "
                    "converted%s",
                    k->path, s.h, s.w, s.c, MAX_SIDE, MAX_SIDE,
                    s.c > 3 && s.c == s.w
                        ? "; was it built with (1,28,28) read as channels_last?"
                        : "");
    *shape = s;
    return 0;
}

/* The layer that the bytes meet first, if it is preprocessing. */
static const struct unit *own_scaling(const struct keras *k) {
    for (const struct unit *u = k->units; u < k->units + k->count; u++)
        if (u->kind == KIND_CONV || u->kind == KIND_DENSE || u->kind == KIND_SCALE)
            return u->preprocessing ? u : NULL;
    return NULL;
}

/* A Rescaling by about 1/255 expects bytes, one by 2 expects numbers up to 1. */
enum origin input_scaling(struct keras *k, const struct keras_options *options, double *scale,
                          double *offset) {
    const struct unit *own = own_scaling(k);
    enum origin origin = ORIGIN_ASSUMED;
    double s = 1, t = 0;
    if (own)
        unit_scale(own, 0, &s, &t);
    const int bytes = own && fabs(s) * 255 < 16;
    *scale = bytes ? 1 : 1.0 / 255;
    *offset = 0;
    if (!isnan(options->scale) || !isnan(options->offset) || options->invert) {
        origin = ORIGIN_OPTION;
        *scale = isnan(options->scale) ? *scale : options->scale;
        *offset = isnan(options->offset) ? 0 : options->offset;
    } else if (bytes)
        origin = ORIGIN_FILE;
    else
        keras_note(k, "bytes are divided by 255 before they enter (--scale, --offset, "
                      "--invert)");
    if (options->invert) { /* 255 - byte is what enters */
        *offset += 255 * *scale;
        *scale = -*scale;
    }
    return origin;
}
