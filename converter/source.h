/* SPDX-License-Identifier: MIT
 *
 * source.h - the file that is converted: a plain HDF5 file, a .keras archive (zip), or the
 * folder that an unzipped one leaves. The content decides, never the name; what is none of
 * these is refused with a sentence that says what it is instead.
 */
#ifndef LENET5_SOURCE_H
#define LENET5_SOURCE_H

#include "h5.h"

struct source {
    struct h5 *h5;  /* the weights */
    char *config;   /* owned: config.json beside the weights, or NULL */
    char *metadata; /* owned: metadata.json, or NULL */
    char container; /* 'h' HDF5, 'z' zip, 'd' folder */
};

int source_open(struct source *source, const char *path, struct lenet5_error *err);

/* source may be empty. */
void source_close(struct source *source);

#endif
