/* SPDX-License-Identifier: MIT
 *
 * idx.h - labelled images from a pair of IDX files, the format of MNIST and Fashion-MNIST.
 *
 *     struct dataset set;
 *     if (dataset_open(&set, "fashion_mnist/data/mnist", &err))
 *         return fprintf(stderr, "%s\n", err.message), 1;
 *     for (size_t i = 0; i < set.count; i++)
 *         ... set.images + i * size, set.class_names[set.labels[i]] ...
 *     dataset_close(&set);
 *
 * An IDX file is a big-endian header, then bytes, raw or as .gz:
 *     images 0x00000803  count  height  width            then [count][height][width]
 *            0x00000804  count  channels  height  width  then [count][channels][height][width]
 *     labels 0x00000801  count                           then [count], 0 to 9
 *
 * Everything is checked before it is believed: the size of the file against its header, every
 * label, the two counts; of a .gz also its checksum, and that nothing follows it. Left out: the
 * other number types of IDX, other counts of classes than ten, files above 1 GiB, pipes.
 */
#ifndef FASHION_MNIST_IDX_H
#define FASHION_MNIST_IDX_H

#include "../layers/fail.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DATASET_CLASSES = 10 };

struct dataset {
    const char *name; /* "mnist", "fashion_mnist", "sample", or "unknown"; by content, since the
                         files of both sets have the same names and sizes; static */
    int train;        /* 1 if it is known to be a training set */
    size_t count;     /* images, at least 1 */
    int channels, height, width;
    uint8_t *images;                /* owned: [count][channels][height][width] */
    uint8_t *labels;                /* owned: [count], 0..9 */
    const char *const *class_names; /* [DATASET_CLASSES], static */
};

/* Opens the test pair (t10k-images and t10k-labels, -idx or .idx, raw or .gz) of a folder. On
   failure the set is empty, and closing it does no harm; so too for dataset_open_files. */
int dataset_open(struct dataset *set, const char *folder, struct lenet5_error *err);

/* The same from two files under any name. */
int dataset_open_files(struct dataset *set, const char *images_path, const char *labels_path,
                       struct lenet5_error *err);

/* Frees the arrays and empties the set. set may be NULL or closed already. */
void dataset_close(struct dataset *set);

enum idx_kind { IDX_LABELS, IDX_IMAGES };

/* The content of one IDX file. Labels have channels, height and width 1. */
struct idx {
    size_t count;
    int channels, height, width;
    uint32_t crc;   /* CRC-32 of the whole file when unpacked, header included */
    uint8_t *bytes; /* owned by the caller, to be freed: [count][channels][height][width] */
};

/* Parses a file that is in memory, raw or gzip; path is only for the sentence in err. On
   failure idx->bytes is NULL. What is allocated is bounded by 1,032 times size. */
int idx_parse(struct idx *idx, enum idx_kind kind, const uint8_t *file, size_t size,
              const char *path, struct lenet5_error *err);

#ifdef __cplusplus
}
#endif

#endif
