/* SPDX-License-Identifier: MIT
 *
 * fuzz_blob.c - libFuzzer target for blob_parse: any bytes, as they are, and once more with
 * magic, version, size and checksum mended, so that the fuzzer gets behind the envelope. What
 * is refused must say why and own nothing; what is accepted must hold all that layer.h
 * promises, come out of blob_serialize byte for byte as it went in, and run, if it is small
 * enough.
 *
 *     fuzz_blob -max_total_time=120 NEW-CORPUS tests/corpus/blob
 *
 * The seeds are made by test_blob FOLDER.
 */
#include "backend.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MOST_WORK = 1 << 22 }; /* multiply-adds or pooled cells of a network that is run */

static void demand(int promise) {
    if (!promise)
        abort();
}

static void put(uint8_t *at, uint64_t value, int bytes) {
    for (int k = 0; k < bytes; k++)
        at[k] = (uint8_t)(value >> 8 * k);
}

/* Makes the envelope right, whatever is in it. */
static void mend(uint8_t *bytes, size_t size) {
    memcpy(bytes, "\x89LN5\r\n\x1a\n", 8);
    put(bytes + 8, BLOB_VERSION, 4);
    put(bytes + 12, 0, 4);
    put(bytes + 16, size, 8);
    put(bytes + 12, crc32_z(0, bytes, size), 4);
}

static void check_tensor(const struct model *m, const float *tensor, size_t count) {
    demand(!count == !tensor);
    demand(!count || (tensor >= m->floats && tensor + count <= m->floats + m->float_count));
    demand((uintptr_t)tensor % BLOB_ALIGN == 0);
    for (size_t k = 0; k < count; k++)
        demand(isfinite(tensor[k]));
}

/* Returns roughly what it costs to run one image. */
static double check_model(const struct model *m) {
    struct model again = *m;
    double work = 0;
    demand(m->count >= 1 && m->count <= MAX_LAYERS);
    demand(isfinite(m->scale) && isfinite(m->offset));
    demand(m->accuracy >= 0 && m->accuracy <= 1);
    demand(!network_check(again.layers, again.count, again.input, NULL));
    demand(!memcmp(&again, m, sizeof again)); /* nothing was left to derive */
    for (int k = 0; k < m->count; k++) {
        const struct layer *l = &m->layers[k];
        demand(memchr(l->name, 0, sizeof l->name) != NULL);
        check_tensor(m, l->weight, l->weights);
        check_tensor(m, l->bias, l->biases);
        work += (double)layer_macs(l) + (double)shape_size(l->in) +
                (double)shape_size(l->out) * (1 + l->kernel_h * l->kernel_w);
    }
    return work;
}

static void run(const uint8_t *bytes, size_t size) {
    const struct lenet5_options options = {"reference", 2, 0};
    struct lenet5_error err = {""};
    struct lenet5 *net;
    demand(!lenet5_open_memory(&net, bytes, size, &options, &err));
    const struct lenet5_info *info = lenet5_info(net);
    const size_t pixels = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
    uint8_t *images = calloc(2, pixels);
    float *logits = malloc(2 * (size_t)info->classes * sizeof *logits);
    demand(images && logits);
    memset(images, 255, pixels);
    demand(!lenet5_run(net, images, 2, logits, &err));
    free(images);
    free(logits);
    lenet5_close(net);
}

static void parse(const uint8_t *bytes, size_t size) {
    static const struct model nothing;
    struct lenet5_error err = {""};
    struct model m;
    uint8_t *back;
    size_t back_size;
    if (blob_parse(&m, bytes, size, "input", &err)) {
        demand(*err.message && !memcmp(&m, &nothing, sizeof m));
        return;
    }
    demand(!*err.message);
    const double work = check_model(&m);
    demand(!blob_serialize(&m, &back, &back_size, &err));
    demand(back_size == size && !memcmp(back, bytes, size));
    if (work < MOST_WORK)
        run(bytes, size);
    free(back);
    blob_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse(data, size);
    if (size < BLOB_HEADER_SIZE)
        return 0;
    uint8_t *mended = malloc(size); /* of exactly this size: an overread shows */
    demand(mended != NULL);
    memcpy(mended, data, size);
    mend(mended, size);
    parse(mended, size);
    free(mended);
    return 0;
}
