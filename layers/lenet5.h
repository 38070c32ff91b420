/* SPDX-License-Identifier: MIT
 *
 * lenet5.h - run a small convolutional network from a weights blob, on the CPU or the GPU.
 * This is the only header that an embedder includes; link liblenet5.a or liblenet5.so.
 *
 *     struct lenet5_error err;
 *     struct lenet5 *net;
 *     if (lenet5_open(&net, "lenet5_mnist.bin", NULL, &err))
 *         return fprintf(stderr, "%s\n", err.message), 1;
 *     uint8_t image[28 * 28];                // 0 is paper, 255 is ink
 *     float logits[10];
 *     if (lenet5_run(net, image, 1, logits, &err))
 *         ...
 *     lenet5_close(net);
 *
 * Layout. Everything is row-major [image][channel][row][column]; an image of the usual network
 * is 28 * 28 bytes. Logits are [image][class] float32.
 *
 * Errors. Functions that can fail return 0, or -1 with one sentence in err (which may be NULL).
 * Nothing here prints, exits, or keeps state outside the objects that it returns.
 *
 * Threads. One struct lenet5 serves one call at a time; different ones are independent, so a
 * program opens one a thread. lenet5_info and what it points to are constant and may be read
 * from any thread.
 *
 * GPU. A network lives on the device that is current when it is opened (cudaSetDevice; the
 * first unless chosen), which must be current again in every call on it.
 *
 * Memory. All of it is taken in lenet5_open; lenet5_run allocates nothing, lenet5_run_floats at
 * most in its first call.
 *
 * Left out: training, networks that branch, other number formats than float32.
 */
#ifndef LENET5_H
#define LENET5_H

#include <stddef.h>
#include <stdint.h>

#define LENET5_VERSION "0.1.0"

#if defined(__GNUC__)
#define LENET5_API __attribute__((visibility("default")))
#else
#define LENET5_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct lenet5; /* an opened network, bound to a backend */

/* One sentence, without a newline: what was found, what was expected, what to do. */
struct lenet5_error {
    char message[512];
};

struct lenet5_options {
    const char *backend; /* a name as in lenet5_info.backend, or NULL or "auto" for the fastest
                            exact one here for batches of max_batch: a GPU where there is one,
                            unless a batch is so small that the CPU is done before a GPU */
    int max_batch;       /* images that go through the network at once; 0 for 4,096. Larger
                            batches take more device memory; the results are the same */
    int threads;         /* of backend "simd": 0 for all processors that the process may use
                            (or LENET5_THREADS), 1 to stay in the caller's thread */
};

/* What is known about an opened network. Strings are owned by it; unknown ones are "". */
struct lenet5_info {
    int channels, height, width; /* of an input image */
    int classes;                 /* logits per image */
    int softmax;                 /* 1 if the file's network ends in softmax: its output is then
                                    lenet5_softmax of the logits */
    int layers;                  /* rows of the table */
    int64_t parameters;          /* trained numbers: weights and biases */
    int64_t macs;                /* multiply-adds per image */
    float scale, offset;         /* a byte b enters the network as b * scale + offset */
    double accuracy;             /* its trainer's record on held-out images; 0 if unknown */
    const char *dataset;         /* what it was trained on: "mnist", "fashion_mnist" */
    const char *source;          /* name of the file that the weights came from */
    const char *source_sha256;   /* its digest, 64 hexadecimal digits */
    const char *source_version;  /* its writer, as "Keras 2.15.0"; then options given */
    const char *backend;         /* the backend that runs it: "reference", "cuda" */
    const char *device;          /* where: the CPU's or GPU's name */
    const char *backend_note;    /* why not a better backend, or why a smaller batch */
    int max_batch;               /* as granted: fewer than asked for when memory was short */
};

/* Where the time of lenet5_run went, in seconds. On the CPU all of it is compute. */
struct lenet5_timing {
    double upload, compute, download;
};

/* Opens a blob and binds it to a backend. On success *net is owned by the caller, to be freed
   with lenet5_close; on failure it is NULL. options may be NULL. A backend that was asked for
   by name and cannot run here is an error, never replaced by another. */
LENET5_API int lenet5_open(struct lenet5 **net, const char *path,
                           const struct lenet5_options *options, struct lenet5_error *err);

/* The same from memory. The blob is copied: the caller's buffer may go at once. */
LENET5_API int lenet5_open_memory(struct lenet5 **net, const void *blob, size_t size,
                                  const struct lenet5_options *options,
                                  struct lenet5_error *err);

LENET5_API const struct lenet5_info *lenet5_info(const struct lenet5 *net);

/* Runs n >= 0 images of channels * height * width bytes each, in host memory, and writes
   n * classes logits, in host memory, owned by the caller. n may exceed max_batch. The logits
   of an image do not depend on the images beside it. On failure the logits are not to be used.
 */
LENET5_API int lenet5_run(struct lenet5 *net, const uint8_t *images, size_t n, float *logits,
                          struct lenet5_error *err);

/* The same on floats that are already scaled as the network wants them (scale and offset are
   not applied). They must be finite. Where the backend takes bytes only ("fused"), the first
   call opens the next best beside it, unless the backend was asked for by name: then it fails.
 */
LENET5_API int lenet5_run_floats(struct lenet5 *net, const float *images, size_t n,
                                 float *logits, struct lenet5_error *err);

/* The same where images and logits are device memory: queues the work on stream (a
   cudaStream_t; NULL is the default stream) and returns; nothing is allocated, copied to the
   host or waited for, so the call can be captured into a CUDA graph. n must be 1 to max_batch,
   images a multiple of 16 and logits one of 8, as what cudaMalloc gives is. Images must arrive
   in the order of the stream: copy them by cudaMemcpyAsync on it, as a plain cudaMemcpy from
   pageable memory may return before its last bytes are there. Name the backend in lenet5_open:
   "auto" may be on the CPU.
   The network's own activations are reused by the next call, so calls on one network belong on
   one stream, or must be ordered by events; before lenet5_run on the same network, which has a
   stream of its own, wait for them. A captured graph holds the network's memory: it may run
   only until lenet5_close. What goes wrong on the device later, the caller's next synchronising
   CUDA call tells. -1 if the backend is not on the GPU. lenet5_timing is not touched.

       uint8_t *images;  float *logits;   // n * 784 and n * 10, from cudaMalloc
       cudaStream_t stream;
       if (lenet5_run_device(net, images, n, logits, stream, &err))
           ...
       cudaStreamSynchronize(stream);  */
LENET5_API int lenet5_run_device(struct lenet5 *net, const uint8_t *images, size_t n,
                                 float *logits, void *stream, struct lenet5_error *err);

/* Time of the last lenet5_run or lenet5_run_floats. */
LENET5_API struct lenet5_timing lenet5_timing(const struct lenet5 *net);

/* Probabilities of n rows of logits: exp(x_k) / sum_j exp(x_j), computed without overflow.
   probabilities may be the same array as logits. */
LENET5_API void lenet5_softmax(const float *logits, size_t n, int classes,
                               float *probabilities);

/* Index of the largest of classes numbers; the first of equal ones. */
LENET5_API int lenet5_argmax(const float *logits, int classes);

/* Frees everything. net may be NULL. */
LENET5_API void lenet5_close(struct lenet5 *net);

#ifdef __cplusplus
}
#endif

#endif
