/* SPDX-License-Identifier: MIT
 *
 * fold.h - rows under construction, and the folding of scale rows into their neighbours.
 */
#ifndef LENET5_FOLD_H
#define LENET5_FOLD_H

#include "layer.h"

enum { MAX_ROWS = 512 }; /* before folding; MAX_LAYERS holds only afterwards */

/* A row whose numbers may still change. row.in, row.out, row.weights and row.biases are kept up
   to date; row.weight and row.bias are not used. */
struct row {
    struct layer row;
    float *weight, *bias; /* owned; NULL where there are none */
};

struct rows {
    int count;
    struct row row[MAX_ROWS];
};

/* Folds every scale row, as left by batch normalisation, into the convolution or dense row
   before it, also through pooling, or into the dense row after it, wherever the result is the
   same but for rounding. What cannot be folded stays. */
int fold_scales(struct rows *rows, struct lenet5_error *err);

void rows_free(struct rows *rows);

#endif
