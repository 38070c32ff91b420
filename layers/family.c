/* SPDX-License-Identifier: MIT
 *
 * family.c - recognises a LeNet-5 and folds everything affine in it. See family.h.
 *
 * The folding, once and for all. A layer computes z = b + sum_k w_k x_k, but its kernel gets y
 * with x = s y + t from the layer before, and wants g z for its own activation's formula. So
 *
 *     g z = g (b + t sum_k w_k)  +  sum_k (g s w_k) y_k
 *           `--- new bias ----'            `new weight'
 *
 * Bytes are the first case: x = scale * byte + offset. A border of zeros would then be zeros of
 * x and not of y, so a border and an offset exclude each other; only C1 has a border.
 */
#include "family.h"

#include <float.h>
#include <string.h>

static int is_conv(const struct layer *l, int maps, int border) {
    return l->op == OP_CONV && l->out.c == maps && l->kernel_h == 5 && l->kernel_w == 5 &&
           l->stride_h == 1 && l->stride_w == 1 && l->pad_top == border &&
           l->pad_left == border && l->pad_bottom == border && l->pad_right == border;
}

static int is_pool(const struct layer *l, enum op op) {
    return l->op == op && l->activation == ACT_LINEAR && l->kernel_h == 2 && l->kernel_w == 2 &&
           l->stride_h == 2 && l->stride_w == 2 && !l->pad_top && !l->pad_left &&
           !l->pad_bottom && !l->pad_right;
}

/* Dense, or a convolution whose window is the whole map: the same weights in the same order. */
static int is_dense(const struct layer *l, int size) {
    const int whole = l->op == OP_CONV && l->kernel_h == l->in.h && l->kernel_w == l->in.w &&
                      l->out.h == 1 && l->out.w == 1 && !l->pad_top && !l->pad_left;
    return (l->op == OP_DENSE || whole) && l->out.c == size;
}

static int known_activation(enum activation a, const float *p) {
    return a == ACT_TANH || a == ACT_SIGMOID ||
           (a == ACT_RELU && p[0] == 0.0f && p[1] == 0.0f && p[2] == FLT_MAX);
}

/* Walks over the table: the next row, and the activation that applies to its output. */
struct walk {
    const struct layer *row, *end;
    enum activation activation;
    const float *param;
};

static const struct layer *next(struct walk *w) {
    if (w->row == w->end)
        return NULL;
    const struct layer *l = w->row++;
    const struct layer *a = l;
    if (l->activation == ACT_LINEAR && w->row < w->end && w->row->op == OP_ACTIVATION)
        a = w->row++;
    w->activation = a->activation;
    w->param = a->param;
    return l;
}

static int refuse(const char *backend, const struct model *m, const struct layer *l,
                  const char *wanted, struct lenet5_error *err) {
    return fail(err,
                "backend %s runs only networks of the LeNet-5 family: row %d '%s' is not %s; "
                "backend cuda runs this one",
                backend, l ? (int)(l - m->layers) : m->count, l ? l->name : "(end)", wanted);
}

/* A row with weights, followed by the network's one activation. */
static const struct layer *active(struct walk *w, struct family *f) {
    const struct layer *l = next(w);
    if (!l || !known_activation(w->activation, w->param))
        return NULL;
    if (f->activation == ACT_LINEAR) /* not known before the first */
        f->activation = w->activation;
    return w->activation == f->activation ? l : NULL;
}

#define WANT(condition, wanted)                                                                \
    do {                                                                                       \
        const struct layer *row_ = w.row < w.end ? w.row : NULL;                               \
        if (!(condition))                                                                      \
            return refuse(backend, m, row_, wanted, err);                                      \
    } while (0)

int family_recognise(struct family *f, const struct model *m, const char *backend,
                     struct lenet5_error *err) {
    const struct layer *l;
    const int rows = network_logit_rows(m->layers, m->count);
    struct walk w = {m->layers, m->layers + rows, ACT_LINEAR, NULL};
    memset(f, 0, sizeof *f);
    f->side = m->input.h;
    f->border = m->layers[0].pad_top;
    f->activation = ACT_LINEAR;
    if (m->input.c != 1 || m->input.w != f->side ||
        !(f->side == 28 ? f->border == 0 || f->border == 2 : f->side == 32 && f->border == 0))
        return fail(err,
                    "backend %s runs only networks of the LeNet-5 family: images of 28x28 with "
                    "border 2 or 0, or 32x32 without, not %dx%dx%d with border %d; backend "
                    "cuda runs this one",
                    backend, m->input.c, m->input.h, m->input.w, f->border);
    WANT((f->c1 = active(&w, f)) && is_conv(f->c1, C1_MAPS, f->border),
         "a 5x5 convolution to 6 maps with tanh, sigmoid or plain relu");
    if (f->border && m->offset != 0.0f)
        return fail(err,
                    "backend %s takes an offset of pixels only without a border, as it pads "
                    "bytes with zeros, but offset is %g; backend cuda runs this network",
                    backend, (double)m->offset);
    f->max_pool = w.row < w.end && w.row->op == OP_MAX_POOL;
    const enum op pool = f->max_pool ? OP_MAX_POOL : OP_AVERAGE_POOL;
    WANT((l = next(&w)) && w.activation == ACT_LINEAR && is_pool(l, pool), "a 2x2 pooling");
    f->pooled[0] = l->out.h;
    WANT((f->c3 = active(&w, f)) && is_conv(f->c3, C3_MAPS, 0),
         "a 5x5 convolution to 16 maps with the activation of the first");
    WANT((l = next(&w)) && w.activation == ACT_LINEAR && is_pool(l, pool),
         "a 2x2 pooling of the first one's kind");
    f->pooled[1] = l->out.h;
    WANT((f->c5 = active(&w, f)) && is_dense(f->c5, C5_SIZE),
         "dense to 120 with the activation of the first");
    WANT((f->f6 = active(&w, f)) && is_dense(f->f6, F6_SIZE),
         "dense to 84 with the activation of the first");
    WANT((f->out = next(&w)) && is_dense(f->out, CLASSES) && w.activation == ACT_LINEAR,
         "dense to 10 without an activation");
    WANT(w.row == w.end, "the end, after dense to 10");
    return 0;
}

/* One layer, as the head of this file says: rows x terms weights, x = s y + t. */
static void fold(const struct layer *l, int rows, int terms, int pitch, double g, double s,
                 double t, double *weight, double *bias) {
    for (int o = 0; o < rows; o++) {
        double sum = 0.0;
        for (int k = 0; k < terms; k++) {
            const double w = l->weight[(size_t)o * (size_t)terms + (size_t)k];
            sum += w;
            weight[o * pitch + k] = g * s * w;
        }
        bias[o] = g * ((l->bias ? l->bias[o] : 0.0) + t * sum);
    }
}

void family_fold(const struct family *f, const struct model *m, const struct form *form,
                 struct folded *d) {
    const int flat = C3_MAPS * f->pooled[1] * f->pooled[1];
    const double g = form->gain;
    fold(f->c1, C1_MAPS, WINDOW, WINDOW, g, m->scale, m->offset, d->c1[0], d->c1_bias);
    fold(f->c3, C3_MAPS, C1_MAPS * WINDOW, C1_MAPS * WINDOW, g, form->pooled_scale,
         form->pooled_offset, d->c3[0][0], d->c3_bias);
    fold(f->c5, C5_SIZE, flat, FLAT_MOST, g, form->pooled_scale, form->pooled_offset, d->c5[0],
         d->c5_bias);
    fold(f->f6, F6_SIZE, C5_SIZE, C5_SIZE, g, form->scale, form->offset, d->f6[0], d->f6_bias);
    fold(f->out, CLASSES, F6_SIZE, F6_SIZE, 1.0, form->scale, form->offset, d->out[0],
         d->out_bias);
}
