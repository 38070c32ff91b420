/* SPDX-License-Identifier: MIT
 *
 * simd.h - what simd.c (plans, threads) and simd_kernels.h (arithmetic) say to each other.
 */
#ifndef LENET5_SIMD_H
#define LENET5_SIMD_H

#include "backend.h"

/* A map as the kernels hold it: [channel][row][cell], a cell being `lanes` floats, one an
   image, or one float where an image is alone. Rows have a border of zero cells left and right,
   as the convolution that reads the map wants it; above and below it looks at fewer rows
   instead. */
struct plane {
    int c, h, w;
    int left, pitch; /* cells before the first of a row; cells from row to row */
};

/* The one inner loop of convolution and dense rows, whichever way the lanes go:

       y[a][b] = bias + sum over c u v of A[a][c][u][v] * B[b][c][u][v]

   for a < tile of A and b < tile of B, where numbers of A are spread over all lanes and numbers
   of B are vectors. All steps are in floats. The sum runs in the reference's order. */
struct product {
    int channels, rows, cols;
    size_t a_channel, a_row, a_step; /* v steps by a_col */
    size_t b_channel, b_row, b_step;
    size_t a_col, b_col;
    size_t y_a, y_b;
    int bias_in_b; /* the bias is vectors that go with B, else numbers that go with A */
    int kept;      /* only the first so many a are stored */
};

typedef void product_tile(const struct product *p, const float *a, const float *b,
                          const float *bias, float *y);

/* How many of A and of B are held in registers at once. */
enum { MOST_A = 10, MOST_B = 8 };

/* The weights of one row, cut into groups and ordered as a tile reads them. */
struct pack {
    int a, b;      /* tile */
    float *weight; /* [group][c][u][v][a or b * lanes]; owned by the state */
    float *bias;   /* [group][a or b * lanes] */
};

/* One step of the plan: a row of the table, with the pooling that follows where no cell of it
   belongs to two windows, so that the convolution's output need not leave the first cache. */
struct stage {
    const struct layer *l, *pool; /* pool is NULL where there is none to take along */
    const struct pack *block;     /* for images in lanes */
    const struct pack *one;       /* for one image */
    int one_pixels;               /* one image: lanes are columns, else output channels */
    struct plane in, out;
};

struct simd_set {
    const char *name;
    int lanes, registers;
    int (*supported)(void);
    product_tile *const (*tiles)[MOST_B + 1];   /* [a][b], NULL where there is none; ... */
    product_tile *const (*strided)[MOST_B + 1]; /* ... the same for any a_step and b_step */
    /* n images, or one, into a map; lanes of a last group without an image are filled up. */
    void (*load)(const struct plane *to, const uint8_t *bytes, const float *floats, float scale,
                 float offset, int n, float *y);
    void (*load_one)(const struct plane *to, const uint8_t *bytes, const float *floats,
                     float scale, float offset, float *y);
    /* One stage on groups * lanes images; maps of a group lie behind each other. */
    void (*block)(const struct stage *s, const float *x, float *y, float *strip, int groups);
    void (*one)(const struct stage *s, const float *x, float *y, float *strip);
    void (*tanh)(const float *x, float *y, size_t count);
};

extern const struct backend backend_simd;

/* The instruction sets of this build, best first; the last one always runs. Ends with NULL. */
extern const struct simd_set *const simd_sets[];

/* Groups of `lanes` images that a dense row takes at once. */
enum { GROUPS = 2 };

static inline size_t plane_cells(const struct plane *p) {
    return (size_t)p->c * p->h * p->pitch;
}

static inline int round_up(int value, int to) {
    return (value + to - 1) / to * to;
}

#endif
