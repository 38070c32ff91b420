/* SPDX-License-Identifier: MIT
 *
 * h5.h - reads strings, numbers and float arrays from HDF5 files that may be hostile.
 *
 * Everything is addressed by a path from the root ("model_weights/conv2d/kernel:0", "" is the
 * root itself), and every step of a path must be a hard link: soft and external links, external
 * storage, virtual data sets and filters other than gzip, shuffle and fletcher32 are refused by
 * name. Sizes are checked before anything is allocated.
 *
 * Left out: writing, compound types, and what else HDF5 can do but Keras does not.
 */
#ifndef LENET5_H5_H
#define LENET5_H5_H

#include "fail.h"

enum { TENSOR_RANK = 5 }; /* more than any supported kernel has, so that others can be named */

struct h5; /* an open file */

enum h5_node { NODE_NONE, NODE_GROUP, NODE_DATASET };

struct names {
    size_t count;
    char **item; /* owned, as is each */
};

struct tensor {
    int rank;
    size_t dim[TENSOR_RANK];
    size_t count;
    float *data; /* owned */
};

/* path must hold HDF5; see source.h for files that may hold anything. */
int h5_open(struct h5 **file, const char *path, struct lenet5_error *err);

/* The same from memory, of which a copy is made; name is used in errors. */
int h5_open_memory(struct h5 **file, const void *bytes, size_t size, const char *name,
                   struct lenet5_error *err);

void h5_close(struct h5 *file);

/* The name of the file, for errors. */
const char *h5_name(const struct h5 *file);

/* What the path names: NODE_NONE where there is nothing. -1 for a link that is refused. */
int h5_node(const struct h5 *file, const char *path, struct lenet5_error *err);

/* Names of the links in a group, sorted as people count: a2 before a10. */
int h5_list(const struct h5 *file, const char *group, struct names *names,
            struct lenet5_error *err);

/* Byte by byte, but runs of digits by their value: < 0, 0, > 0. */
int h5_compare_names(const char *a, const char *b);

/* Brings the names of a group's links into the order in which the links were made; 0 if the
   file does not tell (links.c). */
int h5_order_links(const struct h5 *file, const char *group, struct names *names);

/* Where a group's header lies, counted as the file counts, and bytes of the file as they lie
   there: for links.c. 0 and -1 where there is nothing, as in a file in memory. */
uint64_t h5_address(const struct h5 *file, const char *group);
int h5_bytes(const struct h5 *file, uint64_t address, void *bytes, size_t size);

int h5_has(const struct h5 *file, const char *path, const char *attribute);

/* A list of strings, in any of the forms that they have been written in: fixed or variable
   length, ASCII or UTF-8, one or many, or split over attribute0, attribute1, ... An empty array
   of any type is an empty list. */
int h5_strings(const struct h5 *file, const char *path, const char *attribute,
               struct names *names, struct lenet5_error *err);

/* One string; *text is NULL when there is no such attribute, else owned by the caller. */
int h5_text(const struct h5 *file, const char *path, const char *attribute, char **text,
            struct lenet5_error *err);

/* One number, of any integer or floating type, or written as text. */
int h5_number(const struct h5 *file, const char *path, const char *attribute, double *number,
              struct lenet5_error *err);

/* A data set of 16, 32 or 64 bit floats or bfloat16, as float32, all of them finite. Each may
   be read once. */
int h5_floats(struct h5 *file, const char *path, struct tensor *tensor,
              struct lenet5_error *err);

/* Something odd that h5_floats met and that is no error; "" if nothing. */
const char *h5_warning(const struct h5 *file);

void names_free(struct names *names);
void tensor_free(struct tensor *tensor);

/* "5x5x1x6" into text, which is returned. */
const char *tensor_shape(const struct tensor *tensor, char text[64]);

#endif
