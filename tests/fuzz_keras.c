/* SPDX-License-Identifier: MIT
 *
 * fuzz_keras.c - libFuzzer target for whole files, as h5_to_blob would be given them: .keras
 * archives and whatever else is not HDF5. Within an archive the checksums keep HDF5's own
 * parser from being reached by damaged bytes; fuzz_h5 is for what lies behind it.
 *
 *     fuzz_keras -max_total_time=120 NEW-CORPUS tests/corpus/keras
 */
#define _GNU_SOURCE /* memfd_create */
#include "keras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void demand(int promise) {
    if (!promise)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char H5[] = "\x89HDF\r\n\x1a\n";
    static struct keras k;
    struct lenet5_error err = {""};
    struct keras_options options;
    struct model m;
    char path[64];
    for (size_t at = 0; at + 8 <= size; at = at ? 2 * at : 512)
        if (!memcmp(data + at, H5, 8)) /* HDF5 as it is: not proof against damage */
            return 0;
    const int fd = memfd_create("input", 0);
    demand(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    keras_options_init(&options);
    if (keras_read(&k, &m, path, &options, &err))
        demand(*err.message);
    else {
        demand(!*err.message && m.count > 0);
        keras_free(&k);
        blob_free(&m);
    }
    close(fd);
    return 0;
}
