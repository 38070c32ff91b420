/* SPDX-License-Identifier: MIT
 *
 * cuda.cuh - what the .cu files of this folder share: the error macro, the launch shape, and
 * the layer functions on the GPU, twins of those in layer.h.
 */
#ifndef LENET5_CUDA_CUH
#define LENET5_CUDA_CUH

#include "backend.h"

#include <cuda_runtime.h>

/* Runs a CUDA call inside a function that returns 0 or -1 and has an err. What failed is told
   once: it must not be found again by the next cudaGetLastError. */
#define CUDA_TRY(call)                                                                         \
    do {                                                                                       \
        const cudaError_t status_ = (call);                                                    \
        if (status_ != cudaSuccess) {                                                          \
            cudaGetLastError();                                                                \
            return fail(err, "CUDA: %s (%s, %s:%d)", cudaGetErrorString(status_), #call,       \
                        __FILE__, __LINE__);                                                   \
        }                                                                                      \
    } while (0)

enum { BLOCK = 256 }; /* threads a block: fills a multiprocessor on every architecture */

static inline unsigned ceil_div(size_t total, size_t part) {
    return (unsigned)((total + part - 1) / part);
}

/* The output that this thread computes, counted over the whole batch. */
static __device__ inline size_t thread_index(void) {
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* Marks in the stream of one batch. */
enum { UPLOADED, STARTED, COMPUTED, DOWNLOADED, EVENTS };

/* Waits for a batch that was queued, also if that failed (rc): what was queued before must not
   outlive the caller's memory. Adds the time between the marks to timing, unless NULL. */
int cuda_finish(int rc, const cudaEvent_t *event, cudaStream_t stream,
                struct lenet5_timing *timing, struct lenet5_error *err);

/* 0 if the device that a network was opened on is the current one. */
int cuda_check_device(int opened, struct lenet5_error *err);

/* Allocates device memory, the caller's, for a copy of size bytes, which are there for every
   stream when this returns. Not by a plain cudaMemcpy: where that returns, the last bytes may
   still be on the way, and a stream that does not block would not wait for them. */
int cuda_upload(void **to, const void *from, size_t size, cudaStream_t stream,
                struct lenet5_error *err);

/* Device memory that grows with the batch. */
struct batch_buffer {
    void **at;   /* NULL before; owned by whoever allocates, and NULL again on failure */
    size_t size; /* bytes an image */
};

/* Allocates all of them for *max_batch images, which is halved until they fit. */
int cuda_allocate_batch(const struct batch_buffer *buffers, int count, int *max_batch,
                        struct lenet5_error *err);

/* Output channels that a thread of the convolution computes. */
int conv_group(const struct layer *l);
/* Images, outputs and inputs in a tile of the dense kernel; a block is TILE x TILE threads. */
enum { TILE = 16 };

/* One row over n images on the device: x, y, l.weight and l.bias are device memory. They only
   launch; the caller asks cudaGetLastError(). */
void conv_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream);
void pool_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream);
void dense_cuda(const struct layer *l, const float *x, float *y, int n, cudaStream_t stream);
void elementwise_cuda(const struct layer *l, const float *x, float *y, int n,
                      cudaStream_t stream);

#endif
