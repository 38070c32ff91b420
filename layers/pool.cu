/* SPDX-License-Identifier: MIT
 *
 * pool.cu - average and max pooling on the GPU: pool.c with one thread for each output number.
 */
#include "cuda.cuh"

static __global__ void pool_kernel(struct layer l, const float *x, float *y, size_t outputs) {
    const int H = l.in.h, W = l.in.w;
    const int R = l.out.h, Q = l.out.w;
    const int KH = l.kernel_h, KW = l.kernel_w;

    const size_t index = thread_index();
    if (index >= outputs)
        return;
    const int q = (int)(index % Q);
    const int r = (int)(index / Q % R);
    const size_t ic = index / Q / R; /* image and channel: a map each */

    const int h = r * l.stride_h - l.pad_top;
    const int w = q * l.stride_w - l.pad_left;
    const struct span us = window_inside(h, KH, H);
    const struct span vs = window_inside(w, KW, W);
    float sum = 0.0f, most = -INFINITY;

    for (int u = us.from; u < us.to; u++)
        for (int v = vs.from; v < vs.to; v++) {
            const float a = x[(ic * H + (h + u)) * W + (w + v)];
            sum += a;
            most = a > most ? a : most;
        }
    const float cells = (float)((us.to - us.from) * (vs.to - vs.from));
    y[index] = activate(l.activation, l.param, l.op == OP_AVERAGE_POOL ? sum / cells : most);
}

void pool_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream) {
    const size_t outputs = n * shape_size(l->out);
    pool_kernel<<<ceil_div(outputs, BLOCK), BLOCK, 0, stream>>>(*l, x, y, outputs);
}
