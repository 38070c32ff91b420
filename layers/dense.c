/* SPDX-License-Identifier: MIT
 *
 * dense.c - fully connected layer, the reference:
 *
 *     y[o] = act(bias[o] + sum over c of weight[o][c] * x[c])
 *
 * where c runs over the flattened input, [channel][row][column].
 */
#include "layer.h"

void dense_cpu(const struct layer *l, const float *x, float *y, int n) {
    const int C = (int)shape_size(l->in), O = l->out.c;

    for (int i = 0; i < n; i++)
        for (int o = 0; o < O; o++) {
            const float *k = l->weight + (size_t)o * C;
            const float *xi = x + (size_t)i * C;
            float sum = l->bias ? l->bias[o] : 0.0f;

            for (int c = 0; c < C; c++)
                sum += k[c] * xi[c];
            y[(size_t)i * O + o] = activate(l->activation, l->param, sum);
        }
}
