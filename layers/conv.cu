/* SPDX-License-Identifier: MIT
 *
 * conv.cu - convolution on the GPU: conv.c with one thread for each output number in place of
 * the four outer loops. Neighbouring threads compute neighbouring columns, so that a warp reads
 * neighbouring pixels and all of it the same weight.
 */
#include "cuda.cuh"

static __global__ void conv_kernel(struct layer l, const float *x, float *y, size_t outputs) {
    const int C = l.in.c, H = l.in.h, W = l.in.w;
    const int O = l.out.c, R = l.out.h, Q = l.out.w;
    const int KH = l.kernel_h, KW = l.kernel_w;

    const size_t index = thread_index();
    if (index >= outputs)
        return;
    const size_t i = index / (O * R * Q);
    const int orq = (int)(index - i * (O * R * Q)); /* 32 bits from here: divisions cost */
    const int o = orq / (R * Q), r = orq / Q % R, q = orq % Q;

    const int h = r * l.stride_h - l.pad_top; /* the window's corner */
    const int w = q * l.stride_w - l.pad_left;
    const struct span us = window_inside(h, KH, H);
    const struct span vs = window_inside(w, KW, W);
    float sum = l.bias ? l.bias[o] : 0.0f;

    for (int c = 0; c < C; c++)
        for (int u = us.from; u < us.to; u++) {
            const float *k = l.weight + (((size_t)o * C + c) * KH + u) * KW;
            const float *xr = x + ((i * C + c) * H + (h + u)) * W;
            for (int v = vs.from; v < vs.to; v++)
                sum += k[v] * xr[w + v];
        }
    y[index] = activate(l.activation, l.param, sum);
}

void conv_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream) {
    const size_t outputs = n * shape_size(l->out);
    conv_kernel<<<ceil_div(outputs, BLOCK), BLOCK, 0, stream>>>(*l, x, y, outputs);
}
