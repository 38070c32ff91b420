/* SPDX-License-Identifier: MIT
 *
 * activation.h - the activation functions, written once for C and for CUDA.
 *
 * activate(a, p, x) is one number in, one number out; p are the row's three parameters.
 * Formulas are those of Keras (keras.activations), written so that no argument overflows.
 * Softmax is not here: it needs a whole vector, and so is a row of its own (elementwise.c).
 */
#ifndef LENET5_ACTIVATION_H
#define LENET5_ACTIVATION_H

#include <math.h>
#include <stddef.h>

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

enum activation {
    ACT_LINEAR,
    ACT_TANH,
    ACT_SIGMOID,      /* 1 / (1 + e^-x) */
    ACT_RELU,         /* x from the threshold p[1] up, at most p[2]; below, p[0] * (x - p[1]).
                         Plain relu is {0, 0, FLT_MAX}, leaky relu {slope, 0, FLT_MAX} */
    ACT_ELU,          /* x, below zero p[0] * (e^x - 1) */
    ACT_SOFTPLUS,     /* log(1 + e^x) */
    ACT_SOFTSIGN,     /* x / (1 + |x|) */
    ACT_SWISH,        /* x * sigmoid(x), also called silu */
    ACT_GELU,         /* x * Phi(x), Phi the normal distribution */
    ACT_GELU_TANH,    /* its approximation by tanh */
    ACT_HARD_SIGMOID, /* p[0] * x + 0.5 between 0 and 1: p[0] is 0.2 in Keras 2, 1/6 in 3 */
    ACT_SOFTMAX,      /* e^x_k / sum of e^x_j, over a whole map */
    ACT_SELU,         /* 1.0507 * x, below zero 1.7581 * (e^x - 1) */
    ACT_MISH,         /* x * tanh(log(1 + e^x)) */
    ACT_END           /* one past the last */
};

static inline HOST_DEVICE float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

static inline HOST_DEVICE float softplus(float x) {
    return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}

static inline HOST_DEVICE float activate(enum activation a, const float *p, float x) {
    switch (a) {
    case ACT_TANH:
        return tanhf(x);
    case ACT_SIGMOID:
        return sigmoid(x);
    case ACT_RELU:
        return x >= p[2] ? p[2] : x >= p[1] ? x : p[0] * (x - p[1]);
    case ACT_ELU:
        return x > 0.0f ? x : p[0] * expm1f(x);
    case ACT_SOFTPLUS:
        return softplus(x);
    case ACT_SOFTSIGN:
        return x / (1.0f + fabsf(x));
    case ACT_SWISH:
        return x * sigmoid(x);
    case ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case ACT_HARD_SIGMOID:
        return fminf(fmaxf(p[0] * x + 0.5f, 0.0f), 1.0f);
    case ACT_SELU:
        return x > 0.0f ? 1.05070098f * x : 1.75809934f * expm1f(x);
    case ACT_MISH:
        return x * tanhf(softplus(x));
    default:
        return x;
    }
}

/* y[k] = e^(x[k] - max) / sum over j of e^(x[j] - max); y may be x. */
static inline HOST_DEVICE void softmax(const float *x, float *y, size_t size) {
    float most = x[0], sum = 0.0f;
    for (size_t k = 1; k < size; k++)
        most = x[k] > most ? x[k] : most;
    for (size_t k = 0; k < size; k++)
        sum += y[k] = expf(x[k] - most);
    for (size_t k = 0; k < size; k++)
        y[k] /= sum;
}

#endif
