/* SPDX-License-Identifier: MIT
 *
 * backend.h - one way to run the whole table: plain C, one CUDA kernel a layer, ...
 *
 * A backend is a table of functions; network.c lists them all. Its state is what
 * open makes and close frees; one state serves one call at a time.
 */
#ifndef LENET5_BACKEND_H
#define LENET5_BACKEND_H

#include "blob.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a computation on the GPU may be short of. */
enum resource {
    RESOURCE_FMA,     /* multiply-adds of float32 */
    RESOURCE_TENSOR,  /* multiply-adds of halves on tensor cores, those with filling too */
    RESOURCE_SPECIAL, /* exponentials and reciprocals, one of each for a tanh; tanh itself */
    RESOURCE_SHARED,  /* bytes through shared memory, 128 for each access of a warp */
    RESOURCE_MEMORY,  /* bytes to and from device memory */
    RESOURCES
};

/* What a backend runs on. Numbers that do not apply are 0. */
struct device {
    char name[128];   /* "NVIDIA H200", "AMD EPYC" */
    int major, minor; /* compute capability */
    int driver;       /* CUDA driver's version: 13000 is 13.0 */
    int multiprocessors;
    size_t memory_total, memory_free; /* bytes */
    double rate[RESOURCES];           /* most that it can do, per second, at its top clock; 0 if
                                         not known */
};

/* Stages of a kernel that is a whole LeNet-5: input, C1 with S2, C3 with S4, C5, F6, OUT. */
enum { STAGE_INPUT, STAGE_C1, STAGE_C3, STAGE_C5, STAGE_F6, STAGE_OUT, STAGES };

struct kernel_stage {
    double seconds;         /* of a batch */
    double cost[RESOURCES]; /* of an image, counted from the kernel's code */
};

#define EXACT 1e-4

struct backend {
    const char *name;
    const char *summary; /* half a line for --info */
    int on_gpu;

    /* The device that it would use; -1 and the reason when there is none. */
    int (*device)(struct device *device, struct lenet5_error *err);

    /* Takes a checked model, which must outlive the state, and all memory for batches of up to
       max_batch images, which it may lower when memory is short. threads is how many a backend
       on the CPU may use, 0 for all that it finds. */
    int (*open)(void **state, const struct model *m, int threads, int *max_batch,
                struct lenet5_error *err);

    /* n images (1 to max_batch, more is refused) through every row to the logits. Either bytes
       (host, scaled here) or floats (host, as the network wants them) is not NULL. timing may
       be NULL; otherwise the seconds are added to it. */
    int (*run)(void *state, const uint8_t *bytes, const float *floats, int n, float *logits,
               struct lenet5_timing *timing, struct lenet5_error *err);

    /* One row on n images (1 to max_batch): x and y in host memory. Computes it repeats >= 1
       times and writes the seconds of each, without copies to or from a device, to seconds. */
    int (*layer)(void *state, int row, const float *x, int n, float *y, int repeats,
                 double *seconds, struct lenet5_error *err);

    void (*close)(void *state); /* NULL is fine */

    /* As run, but bytes and logits are device memory, the work is queued on the caller's
       cudaStream_t, and nothing is allocated or waited for. NULL on the CPU. */
    int (*run_device)(void *state, const uint8_t *bytes, int n, float *logits, void *stream,
                      struct lenet5_error *err);

    int bytes_only; /* run refuses floats */

    /* How far a logit may be from the reference's, relative above 1: EXACT where all sums are
       float32, more where operands are shorter; "auto" picks only exact backends. */
    double tolerance;

    /* What one image takes of each resource in row l, counted from the kernel's code, in a
       batch of n. NULL where the rows are no kernels of their own. */
    void (*cost)(const struct layer *l, int n, double cost[RESOURCES]);

    /* Runs n images (1 to max_batch) with a clock inside the kernel: the seconds that it spent
       in each stage. The clock costs time itself. NULL where there is no such clock. */
    int (*stages)(void *state, const uint8_t *bytes, int n, struct kernel_stage stages[STAGES],
                  struct lenet5_error *err);
};

/* Every backend of this build; "auto" tries the exact ones in this order. Ends with NULL. */
extern const struct backend *const backends[];

extern const struct backend backend_reference, backend_simd;
extern const struct backend backend_fused, backend_tensor, backend_cuda;

/* The backend of that name, or NULL with the names that there are. */
const struct backend *backend_find(const char *name, struct lenet5_error *err);

/* Seconds on a clock that only goes forward. */
double clock_seconds(void);

#ifdef __cplusplus
}
#endif

#endif
