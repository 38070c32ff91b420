/* SPDX-License-Identifier: MIT
 *
 * blob.h - the weights file: a table of layers and their floats, in the order that the kernels
 * want them. Everything about Keras has ended before it.
 *
 * Format, version 1. All numbers are little-endian; text is UTF-8, filled with zero bytes and
 * ended by at least one; bytes marked 0 are zero. A reader demands the exact file size.
 *
 *   header, 384 bytes
 *     0    8  magic: 89 'L' 'N' '5' 0D 0A 1A 0A (text-mode transfers and truncation show)
 *     8    4  version: 1
 *    12    4  CRC-32 (zlib's) of the whole file, with these four bytes taken as zero
 *    16    8  size of the whole file in bytes
 *    24    4  number of layers, 1 to 64
 *    28   12  input image: channels (1 or 3), rows, columns (1 to 64)
 *    40    4  scale, float   } a byte b enters the network as b * scale + offset
 *    44    4  offset, float  }
 *    48    4  where scale and offset come from: 0 assumed, 1 the file, 2 an option
 *    52    4  accuracy on held-out images that its trainer recorded, float, 0 if unknown
 *    56    8  0
 *    64   32  data set that it was trained on: "mnist", "fashion_mnist", or empty
 *    96  128  name of the file that it was converted from, without folders
 *   224   72  SHA-256 of that file, 64 hexadecimal digits, or empty
 *   296   64  what wrote that file: "Keras 2.15.0", or empty; the options that it was converted
 *             with may follow: "Keras 2.15.0, --flip --pool max"
 *   360   24  0
 *
 *   layers, 160 bytes each, in the order of computation
 *     0   64  name
 *    64    4  op: 1 conv, 2 average pool, 3 max pool, 4 dense, 5 scale, 6 activation
 *    68    4  activation, as enum activation
 *    72   12  its three parameters, floats
 *    84   12  output: channels, rows, columns (derived by the reader and compared)
 *    96    8  window rows, columns     }
 *   104    8  stride rows, columns     } 0 unless conv or pool
 *   112   16  pad top, left, bottom, right
 *   128    8  where its weights begin in the file, 0 if none
 *   136    8  how many floats they are
 *   144    8  where its biases begin, 0 if none
 *   152    8  how many floats they are
 *
 *   floats: the tensors in that order (weights, biases, next layer), each beginning at the next
 *   multiple of 64 bytes, with zero bytes between; the file ends with the last tensor.
 *     conv weights [out][in][rows][columns], dense weights [out][in], scale weights [channel]
 *
 * A change of layout is a new version, never a flag.
 */
#ifndef LENET5_BLOB_H
#define LENET5_BLOB_H

#include "layer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BLOB_VERSION = 1, BLOB_HEADER_SIZE = 384, BLOB_LAYER_SIZE = 160, BLOB_ALIGN = 64 };

enum origin { ORIGIN_ASSUMED, ORIGIN_FILE, ORIGIN_OPTION, ORIGIN_END };

struct model {
    struct shape input;
    float scale, offset;        /* byte * scale + offset enters the network */
    enum origin scaling_origin; /* who said so */
    float accuracy;             /* recorded by the trainer, 0 if unknown */
    char dataset[32];
    char source[128];
    char source_sha256[72];
    char source_version[64];
    int count;
    struct layer layers[MAX_LAYERS];
    float *floats;      /* owned: all tensors, each at a multiple of 64 bytes */
    size_t float_count; /* with the zeros between tensors */
};

/* Parses a blob in memory; copies all of it. where names the blob in errors. On failure *m is
   empty and owns nothing. */
int blob_parse(struct model *m, const uint8_t *bytes, size_t size, const char *where,
               struct lenet5_error *err);

/* Reads a file and parses it. */
int blob_read(struct model *m, const char *path, struct lenet5_error *err);

/* Serialises a checked model (network_check) whose layers' weight and bias point anywhere in
   host memory. *bytes is malloc'ed, owned by the caller. */
int blob_serialize(const struct model *m, uint8_t **bytes, size_t *size,
                   struct lenet5_error *err);

/* Writes to a temporary name beside path, syncs, renames, reads back and compares. On failure
   there is no file and an older one at path is untouched. */
int blob_write(const struct model *m, const char *path, struct lenet5_error *err);

/* Frees what the model owns and empties it. m may be NULL or empty. */
void blob_free(struct model *m);

#ifdef __cplusplus
}
#endif

#endif
