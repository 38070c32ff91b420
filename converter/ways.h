/* SPDX-License-Identifier: MIT
 *
 * ways.h - the ways in which a network of which only weights are known might have been.
 */
#ifndef LENET5_WAYS_H
#define LENET5_WAYS_H

#include "keras.h"

/* Bit i of the masks is convolution i's. */
struct way {
    int side;
    unsigned same, pooled, strided;
    int pool, step; /* window and stride of the poolings */
    int border;     /* of ZeroPadding2D layers; 0 is what keeps the size */
};

/* Everything that is tried, the likely first. */
struct search {
    const struct keras *k;
    const struct keras_options *options;
    unsigned all; /* mask of all convolutions */
    int global;   /* the last map is pooled as a whole: its size leaves no trace */
    int lenet;    /* 5x5 windows, as LeNet-5 has */
    size_t want;  /* inputs of the first dense layer, else outputs of the network */
    struct way found[2];
    int count; /* of the ways found, which give different results */
};

/* How the network must have been for the first dense layer to fit; where it never does, a
   likely way. */
struct way find_way(struct search *s);

const struct unit *first_of(const struct keras *k, enum kind kind);
const struct unit *last_of(const struct keras *k, enum kind kind);
int count_kind(const struct keras *k, enum kind kind);
int count_bits(unsigned mask);

#endif
