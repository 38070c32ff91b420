/* SPDX-License-Identifier: MIT
 *
 * elementwise.c - rows that change every number by itself, the reference: an activation alone
 * (tanh and the like), a scale and shift per channel, and softmax, which is the one that looks
 * at the whole map:
 *
 *     y[k] = e^(x[k] - max) / sum over j of e^(x[j] - max)
 */
#include "layer.h"

void lenet5_softmax(const float *logits, size_t n, int classes, float *probabilities) {
    for (size_t i = 0; i < n; i++)
        softmax(logits + i * (size_t)classes, probabilities + i * (size_t)classes,
                (size_t)classes);
}

void elementwise_cpu(const struct layer *l, const float *x, float *y, int n) {
    const size_t map = (size_t)l->in.h * l->in.w, size = shape_size(l->in);

    for (int i = 0; i < n; i++, x += size, y += size) {
        if (l->activation == ACT_SOFTMAX) {
            softmax(x, y, size);
            continue;
        }
        for (size_t k = 0; k < size; k++) {
            const size_t c = k / map;
            const float a =
                l->op == OP_SCALE ? x[k] * l->weight[c] + (l->bias ? l->bias[c] : 0.0f) : x[k];
            y[k] = activate(l->activation, l->param, a);
        }
    }
}
