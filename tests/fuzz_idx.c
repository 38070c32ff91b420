/* SPDX-License-Identifier: MIT
 *
 * fuzz_idx.c - libFuzzer target for idx_parse: any bytes, as images and as labels, raw or gzip.
 * Nothing may crash, leak or overread (build with -fsanitize=fuzzer,address,undefined); what is
 * accepted must keep the promises of idx.h, and what is refused must say why.
 *
 *     fuzz_idx -max_total_time=120 NEW-CORPUS tests/corpus/idx
 */
#include "../fashion_mnist/idx.h"

#include <stdlib.h>

static void demand(int promise) {
    if (!promise)
        abort();
}

static void parse(enum idx_kind kind, const uint8_t *data, size_t size) {
    struct idx idx;
    struct lenet5_error err = {""};
    int bad = idx_parse(&idx, kind, data, size, "input", &err);
    demand(bad ? bad == -1 && !idx.bytes && err.message[0] : idx.bytes && !err.message[0]);
    if (bad)
        return;
    demand(idx.count >= 1 && idx.count <= 1000000);
    demand(idx.channels == 1 || (idx.channels == 3 && kind == IDX_IMAGES));
    demand(idx.height >= 1 && idx.height <= 64 && idx.width >= 1 && idx.width <= 64);
    size_t content = idx.count * (size_t)(idx.channels * idx.height * idx.width);
    demand(content <= 1032 * size);
    for (size_t i = 0; i < content; i++) /* reads all of it: it must be there and initialised */
        demand(kind == IDX_IMAGES ? idx.bytes[i] <= 255 : idx.bytes[i] <= 9);
    free(idx.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse(IDX_IMAGES, data, size);
    parse(IDX_LABELS, data, size);
    return 0;
}
