/* SPDX-License-Identifier: MIT
 *
 * fold.c - see fold.h. With y = W x + b and z = s y + t, channel by channel, z = (s W) x + (s b
 * + t); sums are made in double and rounded once.
 *
 * Backwards through pooling: a mean of real cells commutes with any s and t, a maximum with
 * s >= 0 only. Never forwards into a convolution: its border is zero after the scaling, not
 * before.
 */
#include "fold.h"

#include <stdlib.h>
#include <string.h>

/* The bias of row k, made of zeros where the layer had none. */
static float *need_bias(struct row *r) {
    if (!r->bias) {
        r->row.biases = (size_t)r->row.out.c;
        r->bias = calloc(r->row.biases, sizeof *r->bias);
    }
    return r->bias;
}

static void remove_row(struct rows *rows, int k) {
    free(rows->row[k].weight);
    free(rows->row[k].bias);
    rows->count--;
    memmove(&rows->row[k], &rows->row[k + 1], (size_t)(rows->count - k) * sizeof *rows->row);
}

static int any_negative(const float *s, size_t count) {
    for (size_t c = 0; c < count; c++)
        if (s[c] < 0)
            return 1;
    return 0;
}

/* The convolution or dense row into which scale row k folds backwards; -1 if there is none. */
static int target_before(const struct rows *rows, int k) {
    const struct row *scale = &rows->row[k];
    const int negative = any_negative(scale->weight, scale->row.weights);
    for (int before = k - 1; before >= 0; before--) {
        const struct layer *l = &rows->row[before].row;
        if (l->activation != ACT_LINEAR || l->out.c != scale->row.in.c)
            return -1;
        if (l->op == OP_CONV || l->op == OP_DENSE)
            return before;
        if (l->op != OP_AVERAGE_POOL && (l->op != OP_MAX_POOL || negative))
            return -1;
    }
    return -1;
}

static int fold_before(struct rows *rows, int k, int target) {
    const struct row *scale = &rows->row[k];
    struct row *to = &rows->row[target];
    const size_t out = (size_t)to->row.out.c, per_out = to->row.weights / out;
    if (!need_bias(to))
        return -1;
    for (size_t o = 0; o < out; o++) {
        const double s = scale->weight[o];
        for (size_t i = 0; i < per_out; i++)
            to->weight[o * per_out + i] = (float)(s * to->weight[o * per_out + i]);
        to->bias[o] = (float)(s * to->bias[o] + scale->bias[o]);
    }
    /* the activation that stood behind the scale row now stands behind what comes before it */
    rows->row[k - 1].row.activation = scale->row.activation;
    memcpy(rows->row[k - 1].row.param, scale->row.param, sizeof scale->row.param);
    remove_row(rows, k);
    return 0;
}

/* Folds scale row k into the dense row after it; each channel is a run of its columns. */
static int fold_after(struct rows *rows, int k) {
    const struct row *scale = &rows->row[k];
    struct row *to = &rows->row[k + 1];
    const size_t in = shape_size(to->row.in), run = in / scale->row.weights;
    if (!need_bias(to))
        return -1;
    for (size_t o = 0; o < (size_t)to->row.out.c; o++) {
        float *w = to->weight + o * in;
        double sum = to->bias[o];
        for (size_t i = 0; i < in; i++) {
            sum += (double)w[i] * scale->bias[i / run];
            w[i] = (float)((double)w[i] * scale->weight[i / run]);
        }
        to->bias[o] = (float)sum;
    }
    remove_row(rows, k);
    return 0;
}

int fold_scales(struct rows *rows, struct lenet5_error *err) {
    for (int k = 0; k < rows->count;) {
        const struct layer *l = &rows->row[k].row;
        const int target = l->op == OP_SCALE ? target_before(rows, k) : -1;
        int rc = 0;
        if (target >= 0)
            rc = fold_before(rows, k, target);
        else if (l->op == OP_SCALE && l->activation == ACT_LINEAR && k + 1 < rows->count &&
                 rows->row[k + 1].row.op == OP_DENSE)
            rc = fold_after(rows, k);
        else
            k++;
        if (rc)
            return fail(err, "out of memory");
    }
    return 0;
}

void rows_free(struct rows *rows) {
    while (rows->count)
        remove_row(rows, rows->count - 1);
}
