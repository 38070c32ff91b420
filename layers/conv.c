/* SPDX-License-Identifier: MIT
 *
 * conv.c - convolution, the reference. As everywhere in deep learning it is a
 * cross-correlation:
 *
 *     y[o][r][q] = act(bias[o] + sum over c u v of weight[o][c][u][v] * x[c][r*S-P+u][q*S-P+v])
 *
 * where x is zero outside the map. conv.cu is the same with threads in place of four loops.
 */
#include "layer.h"

void conv_cpu(const struct layer *l, const float *x, float *y, int n) {
    const int C = l->in.c, H = l->in.h, W = l->in.w;
    const int O = l->out.c, R = l->out.h, Q = l->out.w;
    const int KH = l->kernel_h, KW = l->kernel_w;

    for (int i = 0; i < n; i++)
        for (int o = 0; o < O; o++)
            for (int r = 0; r < R; r++)
                for (int q = 0; q < Q; q++) {
                    const int h = r * l->stride_h - l->pad_top; /* the window's corner */
                    const int w = q * l->stride_w - l->pad_left;
                    const struct span us = window_inside(h, KH, H);
                    const struct span vs = window_inside(w, KW, W);
                    float sum = l->bias ? l->bias[o] : 0.0f;

                    for (int c = 0; c < C; c++)
                        for (int u = us.from; u < us.to; u++) {
                            const float *k = l->weight + (((size_t)o * C + c) * KH + u) * KW;
                            const float *xr = x + (((size_t)i * C + c) * H + (h + u)) * W;
                            for (int v = vs.from; v < vs.to; v++)
                                sum += k[v] * xr[w + v];
                        }
                    y[(((size_t)i * O + o) * R + r) * Q + q] =
                        activate(l->activation, l->param, sum);
                }
}
