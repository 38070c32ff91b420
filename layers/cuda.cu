/* SPDX-License-Identifier: MIT
 *
 * cuda.cu - backend "cuda": the table, row by row, by the readable kernels of *_cuda.
 *
 * All weights go up in one copy; the activations of a batch live in two buffers, allocated
 * once, that take turns as input and output; a batch goes up as bytes, through all rows, and
 * comes back as logits without the host in between. LENET5_SYNC=1 waits after every launch, so
 * that a failing kernel is named at its own row and not at a later one.
 */
#include "cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cuda {
    const struct model *model;
    struct layer layers[MAX_LAYERS]; /* the model's rows with weights on the device */
    int max_batch, sync, device;
    float *floats;  /* device, owned: all weights */
    float *map[2];  /* device, owned: activations of a batch */
    uint8_t *bytes; /* device, owned: images of a batch */
    cudaStream_t stream;
    cudaEvent_t event[EVENTS];
};

static __global__ void scale_kernel(const uint8_t *bytes, float *x, size_t size, float scale,
                                    float offset) {
    const size_t k = thread_index();
    if (k < size)
        x[k] = (float)bytes[k] * scale + offset;
}

/* Per multiprocessor and clock: 64 or 128 multiply-adds, 16 special functions, 128 bytes of
   shared memory (CUDA C++ Programming Guide, arithmetic instructions). mma.sync gives 1,024 in
   the A100 (its whitepaper) and the H200 (measured by tests/bench_gpu.cu --limits). */
static int find_rates(struct device *d, struct lenet5_error *err) {
    int id, clock, memory_clock, bus; /* kHz, kHz, bits */
    CUDA_TRY(cudaGetDevice(&id));
    CUDA_TRY(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, id));
    CUDA_TRY(cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, id));
    CUDA_TRY(cudaDeviceGetAttribute(&bus, cudaDevAttrGlobalMemoryBusWidth, id));
    const double clocks = 1e3 * clock * d->multiprocessors;
    const int lanes = d->major < 8 || (d->major == 8 && d->minor == 0) ? 64 : 128;
    d->rate[RESOURCE_FMA] = clocks * lanes;
    d->rate[RESOURCE_TENSOR] =
        clocks * (d->minor == 0 && (d->major == 8 || d->major == 9) ? 1024 : 0);
    d->rate[RESOURCE_SPECIAL] = clocks * 16;
    d->rate[RESOURCE_SHARED] = clocks * 128;
    d->rate[RESOURCE_MEMORY] = 2e3 * memory_clock * bus / 8; /* two transfers a clock */
    return 0;
}

static int cuda_device(struct device *device, struct lenet5_error *err) {
    int count = 0, driver = 0, id = 0;
    cudaDeviceProp p;
    memset(device, 0, sizeof *device);
    if (cudaDriverGetVersion(&driver) != cudaSuccess || !driver)
        return fail(err, "no NVIDIA driver on this machine");
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError(); /* a refusal here must not be found again by a later call */
    if (status != cudaSuccess)
        return fail(err, "no usable GPU: %s", cudaGetErrorString(status));
    if (!count)
        return fail(err, "the NVIDIA driver sees no GPU");
    CUDA_TRY(cudaGetDevice(&id));
    CUDA_TRY(cudaGetDeviceProperties(&p, id));
    CUDA_TRY(cudaMemGetInfo(&device->memory_free, &device->memory_total));
    snprintf(device->name, sizeof device->name, "%.127s", p.name);
    device->major = p.major;
    device->minor = p.minor;
    device->driver = driver;
    device->multiprocessors = p.multiProcessorCount;
    return find_rates(device, err);
}

int cuda_upload(void **to, const void *from, size_t size, cudaStream_t stream,
                struct lenet5_error *err) {
    CUDA_TRY(cudaMalloc(to, size));
    CUDA_TRY(cudaMemcpyAsync(*to, from, size, cudaMemcpyHostToDevice, stream));
    CUDA_TRY(cudaStreamSynchronize(stream));
    return 0;
}

int cuda_allocate_batch(const struct batch_buffer *buffers, int count, int *max_batch,
                        struct lenet5_error *err) {
    size_t sum = 0;
    for (int k = 0; k < count; k++)
        sum += buffers[k].size;
    for (int batch = *max_batch; batch >= 1; batch /= 2) {
        cudaError_t status = cudaSuccess;
        for (int k = 0; k < count && status == cudaSuccess; k++)
            status = cudaMalloc(buffers[k].at, buffers[k].size * batch);
        if (status == cudaSuccess) {
            *max_batch = batch;
            return 0;
        }
        cudaGetLastError();
        for (int k = 0; k < count; k++) {
            cudaFree(*buffers[k].at);
            *buffers[k].at = NULL;
        }
        if (status != cudaErrorMemoryAllocation)
            return fail(err, "CUDA: %s while allocating a batch", cudaGetErrorString(status));
    }
    return fail(err, "out of device memory: even one image needs %zu bytes", sum);
}

/* The only memory that grows with the batch. */
static int allocate_maps(struct cuda *s, int *max_batch, struct lenet5_error *err) {
    const struct model *m = s->model;
    const size_t map = sizeof(float) * network_largest_map(m->layers, m->count, m->input);
    const struct batch_buffer buffers[] = {{(void **)&s->bytes, shape_size(m->input)},
                                           {(void **)&s->map[0], map},
                                           {(void **)&s->map[1], map}};
    if (cuda_allocate_batch(buffers, 3, max_batch, err))
        return -1;
    s->max_batch = *max_batch;
    return 0;
}

static void free_maps(struct cuda *s) {
    cudaFree(s->bytes);
    cudaFree(s->map[0]);
    cudaFree(s->map[1]);
    s->bytes = NULL;
    s->map[0] = s->map[1] = NULL;
}

static int upload_model(struct cuda *s, struct lenet5_error *err) {
    const struct model *m = s->model;
    memcpy(s->layers, m->layers, sizeof s->layers);
    if (!m->float_count)
        return 0;
    if (cuda_upload((void **)&s->floats, m->floats, m->float_count * sizeof(float), s->stream,
                    err))
        return -1;
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &s->layers[k];
        l->weight = l->weight ? s->floats + (l->weight - m->floats) : NULL;
        l->bias = l->bias ? s->floats + (l->bias - m->floats) : NULL;
    }
    return 0;
}

static void cuda_close(void *state) {
    struct cuda *s = (struct cuda *)state;
    if (!s)
        return;
    for (int k = 0; k < EVENTS; k++)
        if (s->event[k])
            cudaEventDestroy(s->event[k]);
    if (s->stream)
        cudaStreamDestroy(s->stream);
    cudaFree(s->floats);
    free_maps(s);
    free(s);
}

static int launched(const struct cuda *s, const char *what, cudaStream_t stream,
                    struct lenet5_error *err) {
    cudaError_t status = cudaGetLastError();
    if (status == cudaSuccess && s->sync)
        status = cudaStreamSynchronize(stream);
    return status == cudaSuccess
               ? 0
               : fail(err, "CUDA: layer '%s': %s", what, cudaGetErrorString(status));
}

static int layer_cuda(const struct cuda *s, int row, const float *x, float *y, int n,
                      cudaStream_t stream, struct lenet5_error *err) {
    const struct layer *l = &s->layers[row];
    switch (l->op) {
    case OP_CONV:
        conv_cuda(l, x, y, n, stream);
        break;
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        pool_cuda(l, x, y, n, stream);
        break;
    case OP_DENSE:
        dense_cuda(l, x, y, n, stream);
        break;
    default:
        elementwise_cuda(l, x, y, n, stream);
    }
    return launched(s, l->name, stream, err);
}

int cuda_check_device(int opened, struct lenet5_error *err) {
    int current;
    CUDA_TRY(cudaGetDevice(&current));
    return current == opened ? 0
                             : fail(err,
                                    "the network was opened on device %d, but device %d is "
                                    "current; call cudaSetDevice(%d) first",
                                    opened, current, opened);
}

static int check_batch(const struct cuda *s, int n, struct lenet5_error *err) {
    if (cuda_check_device(s->device, err))
        return -1;
    return n >= 1 && n <= s->max_batch
               ? 0
               : fail(err, "batch of %d images; this backend was opened for 1 to %d", n,
                      s->max_batch);
}

/* Images on the device (or, if bytes is NULL, floats that are in map[0]) through all rows to
   logits on the device. Only launches. */
static int compute(const struct cuda *s, const uint8_t *bytes, int n, float *logits,
                   cudaStream_t stream, struct lenet5_error *err) {
    const struct model *m = s->model;
    const int rows = network_logit_rows(m->layers, m->count);
    const size_t size = n * shape_size(m->input);
    cudaGetLastError(); /* what others left is no failure of this launch */
    if (bytes) {
        scale_kernel<<<ceil_div(size, BLOCK), BLOCK, 0, stream>>>(bytes, s->map[0], size,
                                                                  m->scale, m->offset);
        if (launched(s, "input", stream, err))
            return -1;
    }
    for (int row = 0; row < rows; row++) {
        float *y = row == rows - 1 ? logits : s->map[(row + 1) % 2];
        if (layer_cuda(s, row, s->map[row % 2], y, n, stream, err))
            return -1;
    }
    return 0;
}

/* CUDA loads a kernel at its first launch, which takes memory and which a capture does not
   allow: so one image goes through now, before a batch takes what memory there is. */
static int load_kernels(struct cuda *s, struct lenet5_error *err) {
    const struct model *m = s->model;
    const int rows = network_logit_rows(m->layers, m->count);
    int one = 1;
    if (allocate_maps(s, &one, err))
        return -1;
    CUDA_TRY(cudaMemsetAsync(s->bytes, 0, shape_size(m->input), s->stream));
    if (compute(s, s->bytes, 1, s->map[rows % 2], s->stream, err))
        return -1;
    CUDA_TRY(cudaStreamSynchronize(s->stream));
    free_maps(s);
    return 0;
}

static int prepare(struct cuda *s, int *max_batch, struct lenet5_error *err) {
    cudaFuncAttributes attributes;
    CUDA_TRY(cudaGetDevice(&s->device));
    CUDA_TRY(cudaFuncGetAttributes(&attributes, scale_kernel)); /* built for this card? */
    CUDA_TRY(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    for (int k = 0; k < EVENTS; k++)
        CUDA_TRY(cudaEventCreate(&s->event[k]));
    return upload_model(s, err) || load_kernels(s, err) || allocate_maps(s, max_batch, err) ? -1
                                                                                            : 0;
}

static int cuda_open(void **state, const struct model *m, int, int *max_batch,
                     struct lenet5_error *err) {
    const char *sync = getenv("LENET5_SYNC");
    struct cuda *s = (struct cuda *)calloc(1, sizeof *s);
    if (!s)
        return fail(err, "out of memory");
    s->model = m;
    s->sync = sync && !strcmp(sync, "1");
    if (prepare(s, max_batch, err)) {
        cuda_close(s);
        return -1;
    }
    *state = s;
    return 0;
}

static int add_timing(const cudaEvent_t *event, struct lenet5_timing *timing,
                      struct lenet5_error *err) {
    float ms[3];
    for (int k = 0; k < 3; k++)
        CUDA_TRY(cudaEventElapsedTime(&ms[k], event[k], event[k + 1]));
    timing->upload += 1e-3 * ms[0];
    timing->compute += 1e-3 * ms[1];
    timing->download += 1e-3 * ms[2];
    return 0;
}

/* Queues one batch on the own stream: up, through all rows, and back. */
static int queue(struct cuda *s, const uint8_t *bytes, const float *floats, int n,
                 float *logits, struct lenet5_error *err) {
    const struct model *m = s->model;
    const size_t pixels = n * shape_size(m->input);
    const int rows = network_logit_rows(m->layers, m->count);
    const size_t size = n * shape_size(m->layers[rows - 1].out) * sizeof(float);
    float *out = s->map[rows % 2];

    CUDA_TRY(cudaEventRecord(s->event[UPLOADED], s->stream));
    if (bytes)
        CUDA_TRY(cudaMemcpyAsync(s->bytes, bytes, pixels, cudaMemcpyHostToDevice, s->stream));
    else
        CUDA_TRY(cudaMemcpyAsync(s->map[0], floats, pixels * sizeof(float),
                                 cudaMemcpyHostToDevice, s->stream));
    CUDA_TRY(cudaEventRecord(s->event[STARTED], s->stream));
    if (compute(s, bytes ? s->bytes : NULL, n, out, s->stream, err))
        return -1;
    CUDA_TRY(cudaEventRecord(s->event[COMPUTED], s->stream));
    CUDA_TRY(cudaMemcpyAsync(logits, out, size, cudaMemcpyDeviceToHost, s->stream));
    CUDA_TRY(cudaEventRecord(s->event[DOWNLOADED], s->stream));
    return 0;
}

int cuda_finish(int rc, const cudaEvent_t *event, cudaStream_t stream,
                struct lenet5_timing *timing, struct lenet5_error *err) {
    const cudaError_t status = cudaStreamSynchronize(stream);
    if (rc)
        return -1;
    CUDA_TRY(status);
    return timing ? add_timing(event, timing, err) : 0;
}

static int cuda_run(void *state, const uint8_t *bytes, const float *floats, int n,
                    float *logits, struct lenet5_timing *timing, struct lenet5_error *err) {
    struct cuda *s = (struct cuda *)state;
    if (check_batch(s, n, err))
        return -1;
    return cuda_finish(queue(s, bytes, floats, n, logits, err), s->event, s->stream, timing,
                       err);
}

static int cuda_layer(void *state, int row, const float *x, int n, float *y, int repeats,
                      double *seconds, struct lenet5_error *err) {
    struct cuda *s = (struct cuda *)state;
    const struct layer *l = &s->layers[row];
    const size_t in = n * shape_size(l->in) * sizeof(float);
    const size_t out = n * shape_size(l->out) * sizeof(float);

    if (check_batch(s, n, err))
        return -1;
    CUDA_TRY(cudaMemcpyAsync(s->map[0], x, in, cudaMemcpyHostToDevice, s->stream));
    for (int k = 0; k < repeats; k++) {
        float ms;
        CUDA_TRY(cudaEventRecord(s->event[STARTED], s->stream));
        if (layer_cuda(s, row, s->map[0], s->map[1], n, s->stream, err))
            return -1;
        CUDA_TRY(cudaEventRecord(s->event[COMPUTED], s->stream));
        CUDA_TRY(cudaEventSynchronize(s->event[COMPUTED]));
        CUDA_TRY(cudaEventElapsedTime(&ms, s->event[STARTED], s->event[COMPUTED]));
        seconds[k] = 1e-3 * ms;
    }
    CUDA_TRY(cudaMemcpyAsync(y, s->map[1], out, cudaMemcpyDeviceToHost, s->stream));
    CUDA_TRY(cudaStreamSynchronize(s->stream));
    return 0;
}

/* Every access of a warp to shared memory counts as 128 bytes, also where all its threads read
   the same word; a convolution's thread reads its group's weights in pieces of 8 or 16 bytes.
 */
static void cuda_cost(const struct layer *l, int n, double cost[RESOURCES]) {
    const int special = l->activation != ACT_LINEAR && l->activation != ACT_RELU;
    const double outputs = (double)shape_size(l->out), inputs = (double)shape_size(l->in);
    cost[RESOURCE_FMA] = (double)layer_macs(l);
    cost[RESOURCE_TENSOR] = 0;
    cost[RESOURCE_SPECIAL] = special ? 2 * outputs : 0;
    cost[RESOURCE_SHARED] = 0;
    cost[RESOURCE_MEMORY] = 4 * (inputs + outputs + (double)(l->weights + l->biases) / n);
    if (l->op == OP_CONV) {
        const int group = conv_group(l), piece = group % 4 ? 2 : 4;
        const double reads = (double)l->in.c * l->kernel_h * l->kernel_w * l->out.h * l->out.w *
                             ceil_div(l->out.c, group) * ceil_div(group, piece);
        cost[RESOURCE_SHARED] = 128 * reads / 32;
    }
    if (l->op == OP_DENSE) /* two numbers read for each multiply-add */
        cost[RESOURCE_SHARED] = 128 * 2 * inputs * TILE * ceil_div(l->out.c, TILE) / 32;
}

static int cuda_run_device(void *state, const uint8_t *bytes, int n, float *logits,
                           void *stream, struct lenet5_error *err) {
    const struct cuda *s = (const struct cuda *)state;
    return check_batch(s, n, err) ? -1
                                  : compute(s, bytes, n, logits, (cudaStream_t)stream, err);
}

extern const struct backend backend_cuda = {"cuda",
                                            "one readable kernel a layer",
                                            1,
                                            cuda_device,
                                            cuda_open,
                                            cuda_run,
                                            cuda_layer,
                                            cuda_close,
                                            cuda_run_device,
                                            0,
                                            EXACT,
                                            cuda_cost,
                                            NULL};
