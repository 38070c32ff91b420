/* SPDX-License-Identifier: MIT
 *
 * lenet5.c - the public functions of lenet5.h: open a blob, pick a backend, run, close.
 */
#define _POSIX_C_SOURCE 200809L
#include "backend.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEFAULT_BATCH = 4096, MOST_BATCH = 1 << 24, MOST_THREADS = 1024 };

struct lenet5 {
    struct model model; /* owned */
    const struct backend *backend;
    void *state;                      /* owned, the backend's */
    const struct backend *for_floats; /* the same, or another where that one takes bytes only */
    void *floats_state;
    int named; /* the backend was asked for by name */
    int threads;
    struct device device;
    struct lenet5_error note; /* why not a better backend, or why a smaller batch */
    struct lenet5_info info;
    struct lenet5_timing timing;
};

double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Binds net to one backend; *batch comes back as granted. */
static int bind_backend(struct lenet5 *net, const struct backend *b, int *batch,
                        struct lenet5_error *err) {
    const int asked = *batch;
    if (b->device(&net->device, err) ||
        b->open(&net->state, &net->model, net->threads, batch, err))
        return -1;
    net->backend = b;
    if (*batch < asked)
        fail(&net->note, "%s: batches of %d instead of %d, as device memory is short", b->name,
             *batch, asked);
    return 0;
}

/* From which batch on a backend is sooner done than simd. A GPU takes, copies included, as long
   as one core takes for 2.5 M multiply-adds where the network is one kernel, and as all cores
   take for 4.5 M each where every layer is one. With LeNet-5 that is 7 images, and 11 a core;
   on an H200 beside 16 cores --bench found 4 to 16, and between 64 and 256. */
static int pays_from(const struct backend *b, const struct lenet5 *net) {
    const int64_t cores = net->threads ? net->threads : threads_available();
    const int64_t trip = !b->on_gpu ? 0 : b->layer ? 4500000 * cores : 2500000;
    const int64_t macs = network_macs(net->model.layers, net->model.count);
    const int64_t batch = 1 + trip / (1 + macs);
    return batch < DEFAULT_BATCH ? (int)batch : DEFAULT_BATCH;
}

/* "auto": the first exact backend that opens and pays for this batch. The first refusal is kept
   as the note. */
static int bind_first(struct lenet5 *net, int *batch, struct lenet5_error *err) {
    for (const struct backend *const *b = backends; *b; b++) {
        const int least = pays_from(*b, net);
        int granted = *batch;
        struct lenet5_error why = {""}, *note = *net->note.message ? NULL : &net->note;
        if ((*b)->tolerance > EXACT)
            continue;
        if (*batch < least) {
            fail(note, "no GPU: batches of %d are done sooner here, up to %d", *batch,
                 least - 1);
            continue;
        }
        if (!bind_backend(net, *b, &granted, &why)) {
            *batch = granted;
            return 0;
        }
        fail(note, "not %s: %s", (*b)->name, why.message);
    }
    return fail(err, "no backend can run this network; %s", net->note.message);
}

static void describe(struct lenet5 *net, int max_batch) {
    const struct model *m = &net->model;
    const int rows = network_logit_rows(m->layers, m->count);
    struct lenet5_info info = {0};
    info.channels = m->input.c;
    info.height = m->input.h;
    info.width = m->input.w;
    info.classes = (int)shape_size(m->layers[rows - 1].out);
    info.softmax = rows < m->count;
    info.layers = m->count;
    for (int k = 0; k < m->count; k++)
        info.parameters += (int64_t)(m->layers[k].weights + m->layers[k].biases);
    info.macs = network_macs(m->layers, m->count);
    info.scale = m->scale;
    info.offset = m->offset;
    info.accuracy = m->accuracy;
    info.dataset = m->dataset;
    info.source = m->source;
    info.source_sha256 = m->source_sha256;
    info.source_version = m->source_version;
    info.backend = net->backend->name;
    info.device = net->device.name;
    info.backend_note = net->note.message;
    info.max_batch = max_batch;
    net->info = info;
}

/* Takes over the parsed model, also when it fails. */
static int open_model(struct lenet5 **out, struct model *m,
                      const struct lenet5_options *options, struct lenet5_error *err) {
    const char *name = options && options->backend ? options->backend : "auto";
    int batch = options && options->max_batch ? options->max_batch : DEFAULT_BATCH;
    const struct backend *b = NULL;
    struct lenet5 *net = calloc(1, sizeof *net);
    int rc = -1;

    if (!net) {
        blob_free(m);
        return fail(err, "out of memory");
    }
    net->model = *m;
    net->named = strcmp(name, "auto") != 0;
    net->threads = options ? options->threads : 0;
    if (batch < 1 || batch > MOST_BATCH)
        fail(err, "max_batch of %d; it must be 1 to %d, or 0 for %d", batch, MOST_BATCH,
             DEFAULT_BATCH);
    else if (net->threads < 0 || net->threads > MOST_THREADS)
        fail(err, "%d threads; there may be 1 to %d, or 0 for all processors", net->threads,
             MOST_THREADS);
    else if (!net->named)
        rc = bind_first(net, &batch, err);
    else if ((b = backend_find(name, err)))
        rc = bind_backend(net, b, &batch, err);
    if (rc) {
        lenet5_close(net);
        return -1;
    }
    describe(net, batch);
    *out = net;
    return 0;
}

int lenet5_open(struct lenet5 **net, const char *path, const struct lenet5_options *options,
                struct lenet5_error *err) {
    struct model m;
    *net = NULL;
    return blob_read(&m, path, err) ? -1 : open_model(net, &m, options, err);
}

int lenet5_open_memory(struct lenet5 **net, const void *blob, size_t size,
                       const struct lenet5_options *options, struct lenet5_error *err) {
    struct model m;
    *net = NULL;
    return blob_parse(&m, blob, size, "blob in memory", err)
               ? -1
               : open_model(net, &m, options, err);
}

const struct lenet5_info *lenet5_info(const struct lenet5 *net) {
    return &net->info;
}

struct lenet5_timing lenet5_timing(const struct lenet5 *net) {
    return net->timing;
}

/* Feeds a backend in batches that it accepts. */
static int run(struct lenet5 *net, const struct backend *b, void *state, const uint8_t *bytes,
               const float *floats, size_t n, float *logits, struct lenet5_error *err) {
    const size_t pixels = shape_size(net->model.input);
    const size_t classes = (size_t)net->info.classes, most = (size_t)net->info.max_batch;
    net->timing = (struct lenet5_timing){0, 0, 0};
    for (size_t i = 0; i < n; i += most) {
        const int batch = (int)(n - i < most ? n - i : most);
        if (b->run(state, bytes ? bytes + i * pixels : NULL,
                   floats ? floats + i * pixels : NULL, batch, logits + i * classes,
                   &net->timing, err))
            return -1;
    }
    return 0;
}

int lenet5_run(struct lenet5 *net, const uint8_t *images, size_t n, float *logits,
               struct lenet5_error *err) {
    return run(net, net->backend, net->state, images, NULL, n, logits, err);
}

/* The backend for floats: the bound one, or the first other that takes them at full batch. */
static int bind_floats(struct lenet5 *net, struct lenet5_error *err) {
    if (!net->backend->bytes_only) {
        net->for_floats = net->backend;
        net->floats_state = net->state;
        return 0;
    }
    if (net->named)
        return fail(err,
                    "backend %s takes images as bytes only; backend cuda or auto takes floats",
                    net->backend->name);
    for (const struct backend *const *b = backends; *b; b++) {
        int batch = net->info.max_batch;
        if (!(*b)->bytes_only &&
            !(*b)->open(&net->floats_state, &net->model, net->threads, &batch, err)) {
            net->for_floats = *b;
            if (batch == net->info.max_batch)
                return 0;
            (*b)->close(net->floats_state);
            net->for_floats = NULL;
        }
    }
    return fail(err, "no backend can take batches of %d images as floats", net->info.max_batch);
}

int lenet5_run_floats(struct lenet5 *net, const float *images, size_t n, float *logits,
                      struct lenet5_error *err) {
    if (!net->for_floats && bind_floats(net, err))
        return -1;
    return run(net, net->for_floats, net->floats_state, NULL, images, n, logits, err);
}

int lenet5_run_device(struct lenet5 *net, const uint8_t *images, size_t n, float *logits,
                      void *stream, struct lenet5_error *err) {
    if (!net->backend->run_device)
        return fail(err, "backend %s works in host memory; lenet5_run_device needs a GPU one",
                    net->backend->name);
    if (n < 1 || n > (size_t)net->info.max_batch)
        return fail(err, "%zu images at once; this network was opened for 1 to %d", n,
                    net->info.max_batch);
    return net->backend->run_device(net->state, images, (int)n, logits, stream, err);
}

int lenet5_argmax(const float *logits, int classes) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}

void lenet5_close(struct lenet5 *net) {
    if (!net)
        return;
    if (net->for_floats && net->for_floats != net->backend)
        net->for_floats->close(net->floats_state);
    if (net->backend)
        net->backend->close(net->state);
    blob_free(&net->model);
    free(net);
}
