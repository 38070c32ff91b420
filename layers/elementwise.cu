/* SPDX-License-Identifier: MIT
 *
 * elementwise.cu - elementwise.c on the GPU: one thread for each number, and for softmax one
 * thread for each image, as its vector is as short as there are classes.
 */
#include "cuda.cuh"

static __global__ void elementwise_kernel(struct layer l, const float *x, float *y,
                                          size_t outputs) {
    const size_t map = (size_t)l.in.h * l.in.w;

    const size_t k = thread_index();
    if (k >= outputs)
        return;
    const size_t c = k / map % l.in.c;
    const float a = l.op == OP_SCALE ? x[k] * l.weight[c] + (l.bias ? l.bias[c] : 0.0f) : x[k];
    y[k] = activate(l.activation, l.param, a);
}

static __global__ void softmax_kernel(const float *x, float *y, size_t size, size_t n) {
    const size_t i = thread_index();
    if (i < n)
        softmax(x + i * size, y + i * size, size);
}

void elementwise_cuda(const struct layer *l, const float *x, float *y, int n,
                      cudaStream_t stream) {
    const size_t size = shape_size(l->in);
    if (l->activation == ACT_SOFTMAX)
        softmax_kernel<<<ceil_div(n, BLOCK), BLOCK, 0, stream>>>(x, y, size, n);
    else
        elementwise_kernel<<<ceil_div(n * size, BLOCK), BLOCK, 0, stream>>>(*l, x, y, n * size);
}
