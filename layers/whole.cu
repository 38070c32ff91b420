/* SPDX-License-Identifier: MIT
 *
 * whole.cu - the host's side of backends that run a whole network in one kernel: choice of the
 * kernel, weights to the device, batches there and back. See whole.cuh.
 */
#include "whole.cuh"

#include <stdlib.h>
#include <string.h>

enum { IMAGE_ALIGNMENT = 16, LOGIT_ALIGNMENT = 8 }; /* on the device, as kernels access them */

struct whole {
    const whole_kind *kind;
    const whole_variant *variant;
    int max_batch, device;
    int units;                 /* multiprocessors */
    int most_blocks[TILES];    /* that all of them hold at once */
    void *weights;             /* device, owned */
    uint8_t *bytes;            /* device, owned: images of a batch */
    float *logits;             /* device, owned */
    unsigned long long *clock; /* device, owned */
    cudaStream_t stream;
    cudaEvent_t event[EVENTS];
};

int whole_device(struct device *device, struct lenet5_error *err) {
    return backend_cuda.device(device, err);
}

void whole_close(void *state) {
    whole *s = (whole *)state;
    if (!s)
        return;
    for (cudaEvent_t e : s->event)
        if (e)
            cudaEventDestroy(e);
    if (s->stream)
        cudaStreamDestroy(s->stream);
    cudaFree(s->weights);
    cudaFree(s->bytes);
    cudaFree(s->logits);
    cudaFree(s->clock);
    free(s);
}

static const whole_variant *find_variant(const whole_kind *kind, const family *f) {
    for (int k = 0; k < kind->count; k++) {
        const whole_variant *v = &kind->variants[k];
        if (v->side == f->side && v->border == f->border && v->max_pool == f->max_pool &&
            v->soft == (f->activation != ACT_RELU))
            return v;
    }
    return NULL;
}

/* Is the kernel for these tiles ready on this card, and how many of its blocks at once? */
static int check_kernel(whole *s, int tile, int shared, struct lenet5_error *err) {
    const whole_kind *kind = s->kind;
    const size_t needed = s->variant->shared[tile];
    void (*const kernel)(whole_arguments) = s->variant->kernel[tile];
    int per_unit;
    cudaFuncAttributes attributes;
    if ((size_t)shared < needed)
        return fail(
            err,
            "backend %s needs %zu bytes of shared memory a block for this network; this "
            "card has %d; backend cuda runs it",
            kind->name, needed, shared);
    CUDA_TRY(cudaFuncGetAttributes(&attributes, kernel)); /* built for this card? */
    CUDA_TRY(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)needed));
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared));
    CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_unit, kernel,
                                                           kind->tile[tile].threads, needed));
    s->most_blocks[tile] = s->units * per_unit;
    return per_unit > 0
               ? 0
               : fail(err, "backend %s: no block fits on this card; backend cuda runs it",
                      kind->name);
}

static int check_card(whole *s, struct lenet5_error *err) {
    const whole_kind *kind = s->kind;
    int shared, major, minor;
    CUDA_TRY(cudaGetDevice(&s->device));
    const int device = s->device;
    CUDA_TRY(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    CUDA_TRY(cudaDeviceGetAttribute(&s->units, cudaDevAttrMultiProcessorCount, device));
    CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (10 * major + minor < kind->capability)
        return fail(err,
                    "backend %s needs compute capability %d.%d or later; this card has %d.%d; "
                    "backend cuda runs this network",
                    kind->name, kind->capability / 10, kind->capability % 10, major, minor);
    return check_kernel(s, WIDE, shared, err) || check_kernel(s, NARROW, shared, err) ? -1 : 0;
}

static int upload_weights(whole *s, const family *f, const struct model *m,
                          struct lenet5_error *err) {
    const struct form form = s->kind->form_of(f);
    folded *d = (folded *)calloc(1, sizeof *d);
    void *packed = calloc(1, s->variant->weights);
    int status = -1;
    if (!d || !packed) {
        fail(err, "out of memory");
    } else {
        family_fold(f, m, &form, d);
        if (!s->variant->pack(packed, d, err))
            status = cuda_upload(&s->weights, packed, s->variant->weights, s->stream, err);
    }
    free(d);
    free(packed);
    return status;
}

static int allocate_batch(whole *s, int *max_batch, struct lenet5_error *err) {
    const size_t pixels = (size_t)s->variant->side * s->variant->side;
    const struct batch_buffer buffers[] = {{(void **)&s->bytes, pixels},
                                           {(void **)&s->logits, sizeof(float) * CLASSES}};
    if (cuda_allocate_batch(buffers, 2, max_batch, err))
        return -1;
    s->max_batch = *max_batch;
    return 0;
}

static int prepare(whole *s, const struct model *m, int *max_batch, struct lenet5_error *err) {
    family f;
    if (family_recognise(&f, m, s->kind->name, err))
        return -1;
    s->variant = find_variant(s->kind, &f);
    if (!s->variant)
        return fail(err, "backend %s was built without a kernel for this network",
                    s->kind->name);
    CUDA_TRY(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    if (check_card(s, err) || upload_weights(s, &f, m, err))
        return -1;
    for (cudaEvent_t &e : s->event)
        CUDA_TRY(cudaEventCreate(&e));
    CUDA_TRY(cudaMalloc((void **)&s->clock, STAGES * sizeof *s->clock));
    return allocate_batch(s, max_batch, err);
}

int whole_open(void **state, const whole_kind *kind, const struct model *m, int *max_batch,
               struct lenet5_error *err) {
    whole *s = (whole *)calloc(1, sizeof *s);
    if (!s)
        return fail(err, "out of memory");
    s->kind = kind;
    if (prepare(s, m, max_batch, err)) {
        whole_close(s);
        return -1;
    }
    *state = s;
    return 0;
}

static int launch_tiles(const whole *s, whole_arguments a, int tile, cudaStream_t stream,
                        struct lenet5_error *err) {
    const whole_variant *v = s->variant;
    const int tiles = (int)ceil_div((size_t)a.n, (size_t)s->kind->tile[tile].images);
    const int most = s->most_blocks[tile], blocks = tiles < most ? tiles : most;
    a.narrow = tile == NARROW;
    v->kernel[tile]<<<blocks, s->kind->tile[tile].threads, v->shared[tile], stream>>>(a);
    CUDA_TRY(cudaGetLastError());
    return 0;
}

/* Blocks take tiles in rounds. What is left after the last full round goes into a launch of its
   own if it is little: in narrow tiles if these are sooner done, else in wide ones, whose
   blocks the card then spreads over all multiprocessors, one on each. The clock's stages are
   those of wide tiles. */
static int launch(const whole *s, const uint8_t *bytes, int n, float *logits,
                  unsigned long long *clock, cudaStream_t stream, struct lenet5_error *err) {
    const whole_kind *kind = s->kind;
    const int rest = n % (kind->tile[WIDE].images * s->most_blocks[WIDE]);
    const bool few = !clock && rest <= kind->few * s->units;
    const bool spread =
        s->most_blocks[WIDE] > s->units && rest <= kind->tile[WIDE].images * s->units;
    const bool split = rest && (few || spread);
    const int first = split ? n - rest : n;
    const size_t pixels = (size_t)s->variant->side * s->variant->side;
    cudaGetLastError(); /* what others left is no failure of this launch */
    const whole_arguments full = {bytes, s->weights, logits, first, 0, clock};
    const whole_arguments last = {
        bytes + first * pixels, s->weights, logits + (size_t)first * CLASSES, rest, 0, clock};
    if (first && launch_tiles(s, full, WIDE, stream, err))
        return -1;
    return split ? launch_tiles(s, last, few ? NARROW : WIDE, stream, err) : 0;
}

int whole_run_device(void *state, const uint8_t *bytes, int n, float *logits, void *stream,
                     struct lenet5_error *err) {
    if (cuda_check_device(((const whole *)state)->device, err))
        return -1;
    if (n < 1)
        return fail(err, "batch of %d images; it must have at least 1", n);
    if ((uintptr_t)bytes % IMAGE_ALIGNMENT || (uintptr_t)logits % LOGIT_ALIGNMENT)
        return fail(
            err,
            "images at device address %p and logits at %p; they must be multiples of %d "
            "and %d",
            (const void *)bytes, (void *)logits, IMAGE_ALIGNMENT, LOGIT_ALIGNMENT);
    return launch((const whole *)state, bytes, n, logits, NULL, (cudaStream_t)stream, err);
}

/* Queues one batch on the own stream: up, through the kernel, and back. */
static int queue(whole *s, const uint8_t *bytes, int n, float *logits,
                 unsigned long long *clock, struct lenet5_error *err) {
    const size_t pixels = (size_t)s->variant->side * s->variant->side;
    CUDA_TRY(cudaEventRecord(s->event[UPLOADED], s->stream));
    CUDA_TRY(cudaMemcpyAsync(s->bytes, bytes, pixels * n, cudaMemcpyHostToDevice, s->stream));
    CUDA_TRY(cudaEventRecord(s->event[STARTED], s->stream));
    if (launch(s, s->bytes, n, s->logits, clock, s->stream, err))
        return -1;
    CUDA_TRY(cudaEventRecord(s->event[COMPUTED], s->stream));
    if (logits)
        CUDA_TRY(cudaMemcpyAsync(logits, s->logits, sizeof(float) * CLASSES * n,
                                 cudaMemcpyDeviceToHost, s->stream));
    CUDA_TRY(cudaEventRecord(s->event[DOWNLOADED], s->stream));
    return 0;
}

/* One batch from and to host memory; logits and clock may be NULL. */
static int run(whole *s, const uint8_t *bytes, int n, float *logits, unsigned long long *clock,
               struct lenet5_timing *timing, struct lenet5_error *err) {
    if (cuda_check_device(s->device, err))
        return -1;
    if (n < 1 || n > s->max_batch)
        return fail(err, "batch of %d images; this backend was opened for 1 to %d", n,
                    s->max_batch);
    return cuda_finish(queue(s, bytes, n, logits, clock, err), s->event, s->stream, timing,
                       err);
}

int whole_run(void *state, const uint8_t *bytes, const float *floats, int n, float *logits,
              struct lenet5_timing *timing, struct lenet5_error *err) {
    whole *s = (whole *)state;
    if (floats)
        return fail(err, "backend %s takes images as bytes only; backend cuda takes floats too",
                    s->kind->name);
    return run(s, bytes, n, logits, NULL, timing, err);
}

int whole_stages(void *state, const uint8_t *bytes, int n, kernel_stage stages[STAGES],
                 struct lenet5_error *err) {
    whole *s = (whole *)state;
    struct lenet5_timing timing = {};
    unsigned long long cycles[STAGES], sum = 0;
    CUDA_TRY(cudaMemsetAsync(s->clock, 0, sizeof cycles, s->stream));
    if (run(s, bytes, n, NULL, s->clock, &timing, err))
        return -1;
    CUDA_TRY(cudaMemcpy(cycles, s->clock, sizeof cycles, cudaMemcpyDeviceToHost));
    for (unsigned long long c : cycles)
        sum += c;
    memset(stages, 0, STAGES * sizeof *stages);
    s->variant->count(stages);
    for (int k = 0; k < STAGES; k++)
        stages[k].seconds = timing.compute * (double)cycles[k] / (double)(sum ? sum : 1);
    return 0;
}
