/* SPDX-License-Identifier: MIT
 *
 * conv.cu - convolution on the GPU: conv.c with one thread for each output position in place of
 * the loops over i, r and q.
 *
 * A thread computes GROUP output channels of its position, so that every pixel it reads serves
 * GROUP multiply-adds; the weights of one input channel, which all threads of a block share,
 * are staged in shared memory, those of a group side by side. Neighbouring threads compute
 * neighbouring columns, so that a warp reads neighbouring pixels.
 */
#include "cuda.cuh"

template <int GROUP>
static __global__ void conv_kernel(struct layer l, const float *x, float *y, size_t positions) {
    extern __shared__ float4 shared[]; /* float4: groups are read 16 bytes at a time */
    float *ks = (float *)shared;       /* [u][v][GROUP] of channel c */
    const int C = l.in.c, H = l.in.h, W = l.in.w;
    const int O = l.out.c, R = l.out.h, Q = l.out.w;
    const int KH = l.kernel_h, KW = l.kernel_w;

    const size_t index = thread_index() < positions ? thread_index() : positions - 1;
    const size_t i = index / (R * Q);
    const int rq = (int)(index - i * (R * Q)), r = rq / Q, q = rq % Q;
    const int o = blockIdx.y * GROUP; /* the first channel of the group */

    const int h = r * l.stride_h - l.pad_top; /* the window's corner */
    const int w = q * l.stride_w - l.pad_left;
    const struct span us = window_inside(h, KH, H);
    const struct span vs = window_inside(w, KW, W);
    float sum[GROUP];
    for (int g = 0; g < GROUP; g++)
        sum[g] = l.bias && o + g < O ? l.bias[o + g] : 0.0f;

    for (int c = 0; c < C; c++) {
        __syncthreads(); /* nobody reads the last channel's weights any more */
        for (int k = threadIdx.x; k < KH * KW * GROUP; k += blockDim.x) {
            const int g = k % GROUP, uv = k / GROUP;
            ks[k] = o + g < O ? l.weight[((size_t)(o + g) * C + c) * KH * KW + uv] : 0.0f;
        }
        __syncthreads();
        for (int u = us.from; u < us.to; u++) {
            const float *k = ks + u * KW * GROUP;
            const float *xr = x + ((i * C + c) * H + (h + u)) * W;
            for (int v = vs.from; v < vs.to; v++)
                for (int g = 0; g < GROUP; g++)
                    sum[g] += k[v * GROUP + g] * xr[w + v];
        }
    }
    if (thread_index() < positions)
        for (int g = 0; g < GROUP && o + g < O; g++)
            y[((i * O + o + g) * R + r) * Q + q] = activate(l.activation, l.param, sum[g]);
}

template <int GROUP>
static void launch(const struct layer *l, const float *x, float *y, int n,
                   cudaStream_t stream) {
    const size_t positions = (size_t)n * l->out.h * l->out.w;
    const size_t staged = sizeof(float) * GROUP * l->kernel_h * l->kernel_w;
    const dim3 grid(ceil_div(positions, BLOCK), ceil_div(l->out.c, GROUP));
    conv_kernel<GROUP><<<grid, BLOCK, staged, stream>>>(*l, x, y, positions);
}

int conv_group(const struct layer *l) {
    if (l->kernel_h * l->kernel_w >
        1024) /* a larger group's weights would not fit into 48 KiB */
        return 1;
    return l->out.c <= 6 ? 6 : 8;
}

void conv_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream) {
    switch (conv_group(l)) {
    case 1:
        launch<1>(l, x, y, n, stream);
        break;
    case 6:
        launch<6>(l, x, y, n, stream);
        break;
    default:
        launch<8>(l, x, y, n, stream);
    }
}
