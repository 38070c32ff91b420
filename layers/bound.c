/* SPDX-License-Identifier: MIT
 *
 * bound.c - how far two correct float32 computations of one row may lie apart.
 *
 * A sum of t products in any order, with or without fused multiply-adds, errs by at most
 * (t + 1) u S, where S is the sum of the products' absolute values and u = 2^-24 (Higham,
 * Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1). S is the same row run
 * on absolute values. An activation stretches that by its steepest slope and adds its own
 * rounding. Two paths may err in opposite directions: the bound doubles.
 */
#include "layer.h"

#include <stdlib.h>

static const float UNIT = 0x1p-24f;

/* The steepest slope of an activation. */
static float steepest(const struct layer *l) {
    switch (l->activation) {
    case ACT_SIGMOID:
        return 0.25f;
    case ACT_RELU:
    case ACT_ELU:
        return fmaxf(1.0f, fabsf(l->param[0]));
    case ACT_SWISH:
    case ACT_GELU:
    case ACT_GELU_TANH:
    case ACT_MISH:
        return 1.13f;
    case ACT_SELU:
        return 1.76f;
    case ACT_HARD_SIGMOID:
        return fabsf(l->param[0]);
    default:
        return 1.0f;
    }
}

/* Roundings on the way to one output, those of an unbounded activation's formula included. */
static float roundings(const struct layer *l) {
    const int unbounded = l->activation == ACT_ELU || l->activation == ACT_SOFTPLUS ||
                          l->activation == ACT_SWISH || l->activation == ACT_GELU ||
                          l->activation == ACT_GELU_TANH || l->activation == ACT_SELU ||
                          l->activation == ACT_MISH;
    const float own = unbounded ? 9.0f : 1.0f;
    switch (l->op) {
    case OP_CONV:
    case OP_DENSE:
        return (float)(l->weights / (size_t)l->out.c) + own;
    case OP_AVERAGE_POOL:
        return (float)(l->kernel_h * l->kernel_w) + own;
    case OP_SCALE:
        return 2.0f + own;
    default: /* nothing is summed: only the activation rounds */
        return l->activation == ACT_LINEAR ? 0.0f : own;
    }
}

static float *absolute(const float *from, size_t count) {
    float *to = malloc((count ? count : 1) * sizeof *to);
    for (size_t k = 0; to && k < count; k++)
        to[k] = fabsf(from[k]);
    return to;
}

/* A relu with a threshold jumps there by the threshold: where the sum lies so near that
   rounding may decide the side, the outputs may differ by the jump as well. bound holds what
   the sums may differ by; sums is room for as many numbers. */
static void add_jumps(const struct layer *l, const float *x, int n, float *bound, float *sums) {
    struct layer linear = *l;
    linear.activation = ACT_LINEAR;
    layer_cpu(&linear, x, sums, n);
    for (size_t k = 0; k < (size_t)n * shape_size(l->out); k++)
        if (fabsf(sums[k] - l->param[1]) <= bound[k])
            bound[k] += fabsf(l->param[1]);
}

int layer_bound(const struct layer *l, const float *x, int n, float *bound,
                struct lenet5_error *err) {
    struct layer positive = *l;
    const size_t outputs = (size_t)n * shape_size(l->out);
    float *weight = absolute(l->weight, l->weights), *bias = absolute(l->bias, l->biases);
    float *ax = absolute(x, (size_t)n * shape_size(l->in));
    float *sums = malloc(outputs * sizeof *sums);
    const int rc = weight && bias && ax && sums ? 0 : fail(err, "out of memory");

    if (!rc) {
        const float exact = l->activation == ACT_LINEAR ? 0.0f : 4.0f * UNIT;
        const float slope = 2.0f * roundings(l) * UNIT * steepest(l);
        positive.weight = weight;
        positive.bias = l->bias ? bias : NULL;
        if (positive.activation != ACT_SOFTMAX)
            positive.activation = ACT_LINEAR;
        layer_cpu(&positive, ax, bound, n);
        for (size_t k = 0; k < outputs; k++)
            bound[k] = l->activation == ACT_SOFTMAX
                           ? 2.0f * (float)(shape_size(l->in) + 8) * UNIT
                           : slope * bound[k] + 2.0f * exact;
        if (l->activation == ACT_RELU && l->param[1] != 0.0f)
            add_jumps(l, x, n, bound, sums);
    }
    free(sums);
    free(weight);
    free(bias);
    free(ax);
    return rc;
}
