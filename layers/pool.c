/* SPDX-License-Identifier: MIT
 *
 * pool.c - average and max pooling, the reference. Both look only at the cells of the window
 * that lie inside the map: an average over a border divides by the number of real cells, as
 * TensorFlow's "same" does. The window always covers at least one (network_check).
 */
#include "layer.h"

void pool_cpu(const struct layer *l, const float *x, float *y, int n) {
    const int C = l->in.c, H = l->in.h, W = l->in.w;
    const int R = l->out.h, Q = l->out.w;
    const int KH = l->kernel_h, KW = l->kernel_w;

    for (int i = 0; i < n; i++)
        for (int c = 0; c < C; c++)
            for (int r = 0; r < R; r++)
                for (int q = 0; q < Q; q++) {
                    const int h = r * l->stride_h - l->pad_top;
                    const int w = q * l->stride_w - l->pad_left;
                    const struct span us = window_inside(h, KH, H);
                    const struct span vs = window_inside(w, KW, W);
                    float sum = 0.0f, most = -INFINITY;

                    for (int u = us.from; u < us.to; u++)
                        for (int v = vs.from; v < vs.to; v++) {
                            const float a =
                                x[(((size_t)i * C + c) * H + (h + u)) * W + (w + v)];
                            sum += a;
                            most = a > most ? a : most;
                        }
                    const float cells = (float)((us.to - us.from) * (vs.to - vs.from));
                    y[(((size_t)i * C + c) * R + r) * Q + q] = activate(
                        l->activation, l->param, l->op == OP_AVERAGE_POOL ? sum / cells : most);
                }
}
