/* SPDX-License-Identifier: MIT
 *
 * dense.cu - fully connected layer on the GPU: dense.c with one thread for each output number.
 *
 * The one thing that is more than a loop made into threads: a block stages a tile of both
 * operands in shared memory, as every weight serves all images and every input all outputs.
 */
#include "cuda.cuh"

static __global__ void dense_kernel(struct layer l, const float *x, float *y, int n, int C) {
    __shared__ float xs[TILE][TILE + 1]; /* [image][input]; + 1 spreads a column over banks */
    __shared__ float ks[TILE][TILE + 1]; /* [output][input] */
    const int O = l.out.c;
    const int o = blockIdx.y * TILE + threadIdx.x;
    const int i = blockIdx.x * TILE + threadIdx.y;
    const int o_staged = blockIdx.y * TILE + threadIdx.y;
    float sum = o < O && l.bias ? l.bias[o] : 0.0f;

    for (int c0 = 0; c0 < C; c0 += TILE) {
        const int c = c0 + threadIdx.x;
        xs[threadIdx.y][threadIdx.x] = i < n && c < C ? x[(size_t)i * C + c] : 0.0f;
        ks[threadIdx.y][threadIdx.x] =
            o_staged < O && c < C ? l.weight[(size_t)o_staged * C + c] : 0.0f;
        __syncthreads();
        for (int t = 0; t < TILE; t++)
            sum += ks[threadIdx.x][t] * xs[threadIdx.y][t];
        __syncthreads();
    }
    if (i < n && o < O)
        y[(size_t)i * O + o] = activate(l.activation, l.param, sum);
}

void dense_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream) {
    const dim3 grid(ceil_div(n, TILE), ceil_div(l->out.c, TILE)), block(TILE, TILE);
    dense_kernel<<<grid, block, 0, stream>>>(*l, x, y, n, (int)shape_size(l->in));
}
