/* SPDX-License-Identifier: MIT
 *
 * whole.cuh - a backend that runs a whole network of the LeNet-5 family in one kernel. This is
 * the host's side, which fused.cu (float32) and tensor.cu (tensor cores) share: they bring a
 * table of kernels for each member of the family, and how these want their weights.
 */
#ifndef LENET5_WHOLE_CUH
#define LENET5_WHOLE_CUH

#include "cuda.cuh"
#include "family.h"

/* A launch cuts its batch into tiles, which a block takes one after another: wide ones, which
   are fastest an image, or narrow ones, which are sooner done. */
enum { WIDE, NARROW, TILES };

/* What a kernel gets. */
struct whole_arguments {
    const uint8_t *bytes; /* device, n images, at a multiple of 16 */
    const void *weights;  /* device, as whole_variant.pack made them */
    float *logits;        /* device, n * 10 */
    int n;
    int narrow;                /* tiles are narrow */
    unsigned long long *clock; /* NULL, or STAGES sums of cycles over all blocks */
};

/* The kernels for one member of the family. */
struct whole_variant {
    int side, border, soft, max_pool; /* soft: tanh or sigmoid, else relu */
    void (*kernel[TILES])(whole_arguments);
    size_t shared[TILES], weights; /* bytes */
    /* weights are zeros before; what it does not need of *from it may spoil */
    int (*pack)(void *weights, folded *from, struct lenet5_error *err);
    void (*count)(kernel_stage stages[STAGES]); /* fills in cost of wide tiles; zeros before */
};

/* The table of all members: for wide and for narrow tiles a kernel<Shape, soft, max> and its
   shared memory<Shape>; then the file's Weights, pack_weights and count. */
#define WHOLE_VARIANT(wide, wide_memory, narrow, narrow_memory, side, border, soft, max)       \
    {                                                                                          \
        side, border, soft, max,                                                               \
            {wide<Shape<side, border>, soft, max>, narrow<Shape<side, border>, soft, max>},    \
            {sizeof(wide_memory<Shape<side, border>>),                                         \
             sizeof(narrow_memory<Shape<side, border>>)},                                      \
            sizeof(Weights<Shape<side, border>>), pack_weights<Shape<side, border>>,           \
            count<Shape<side, border>, soft, max>                                              \
    }
#define WHOLE_SHAPE(...)                                                                       \
    WHOLE_VARIANT(__VA_ARGS__, true, false), WHOLE_VARIANT(__VA_ARGS__, true, true),           \
        WHOLE_VARIANT(__VA_ARGS__, false, false), WHOLE_VARIANT(__VA_ARGS__, false, true)
#define WHOLE_VARIANTS(...)                                                                    \
    {                                                                                          \
        WHOLE_SHAPE(__VA_ARGS__, 28, 2), WHOLE_SHAPE(__VA_ARGS__, 28, 0),                      \
            WHOLE_SHAPE(__VA_ARGS__, 32, 0)                                                    \
    }

struct whole_kind {
    const char *name;
    int capability; /* least compute capability, 80 is 8.0 */
    struct {
        int images, threads; /* of a block */
    } tile[TILES];
    int few; /* images a multiprocessor, for which narrow tiles are sooner done */
    form (*form_of)(const family *f);
    const whole_variant *variants;
    int count;
};

/* As in backend.h, for a kind. */
int whole_device(struct device *device, struct lenet5_error *err);
int whole_open(void **state, const whole_kind *kind, const struct model *m, int *max_batch,
               struct lenet5_error *err);
int whole_run(void *state, const uint8_t *bytes, const float *floats, int n, float *logits,
              struct lenet5_timing *timing, struct lenet5_error *err);
void whole_close(void *state);

/* n >= 1 images at a device address that is a multiple of 16 to n * 10 logits at one of 8, in
   the order of the stream, a cudaStream_t. Allocates nothing and waits for nothing, so that it
   can be captured in a graph; n may exceed max_batch. */
int whole_run_device(void *state, const uint8_t *bytes, int n, float *logits, void *stream,
                     struct lenet5_error *err);

/* As in backend.h: the kernel's seconds divided among its stages. */
int whole_stages(void *state, const uint8_t *bytes, int n, kernel_stage stages[STAGES],
                 struct lenet5_error *err);

#ifdef __CUDACC__
/* Kernel side of the clock: adds the cycles since the last call to a stage. */
static __device__ inline void tick(const whole_arguments &a, long long &since, int stage) {
    if (a.clock && threadIdx.x == 0) {
        const long long now = clock64();
        atomicAdd(&a.clock[stage], (unsigned long long)(now - since));
        since = now;
    }
}

/* 2^x and 1/x of the special function unit: errors of 2 and 1 units in the last place. */
static __device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ inline float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* tanh(z) = 1 - 2 / (1 + 2^x) for x = 2 log2(e) z; absolute error below 3e-7. */
#define TANH_GAIN 2.8853900817779268
static __device__ inline float tanh_of_scaled(float x) {
    return fmaf(reciprocal_approx(1.0f + exp2_approx(x)), -2.0f, 1.0f);
}
#endif

extern "C" const struct backend backend_tensor;

#endif
