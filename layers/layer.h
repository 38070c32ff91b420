/* SPDX-License-Identifier: MIT
 *
 * layer.h - a row of the network's table, and the functions that compute one row.
 *
 * A network is a chain: the output of a row is the input of the next. Maps are float32,
 * row-major [image][channel][row][column]; a flat vector of k numbers is the shape k x 1 x 1,
 * so that "flatten" is no operation at all. Rows are checked once, by network_check, when a
 * table is read or made; the layer functions trust them.
 *
 * Shapes and single letters, the same in every layer file: i image, c channel in, o channel
 * out, r q output row and column, u v window row and column.
 */
#ifndef LENET5_LAYER_H
#define LENET5_LAYER_H

#include "activation.h"
#include "fail.h"

#ifdef __cplusplus
extern "C" {
#endif

enum op {
    OP_CONV = 1,     /* cross-correlation: weight [out.c][in.c][kernel_h][kernel_w] */
    OP_AVERAGE_POOL, /* mean of the cells of the window that lie inside the map */
    OP_MAX_POOL,     /* largest of the cells of the window that lie inside the map */
    OP_DENSE,        /* matrix times flattened input: weight [out.c][in.c * in.h * in.w] */
    OP_SCALE,        /* per channel: x * weight[c] + bias[c]; batch normalisation ends here */
    OP_ACTIVATION,   /* nothing but its activation; the only row that may be a softmax */
    OP_END           /* one past the last */
};

/* Bounds on what a table may hold. They keep every product of sizes within 63 bits and the
   memory of a hostile file within reason; LeNet-5 is far below all of them. */
enum {
    MAX_LAYERS = 64,
    MAX_CHANNELS = 65536,     /* also the longest vector */
    MAX_SIDE = 64,            /* rows or columns of an input image */
    MAX_WINDOW = 64,          /* rows or columns of a window, and its stride */
    MAX_MAP = 1 << 22,        /* numbers in one image's map */
    MAX_PARAMETERS = 1 << 24, /* trained numbers in one network: 64 MiB */
    NAME_SIZE = 64            /* a row's name with its terminating zero */
};

struct shape {
    int c, h, w;
};

struct layer {
    char name[NAME_SIZE];
    enum op op;
    enum activation activation; /* applied to every output of this row */
    float param[3];             /* the activation's own numbers; see activation.h */
    struct shape in, out;       /* derived by network_check */
    int kernel_h, kernel_w;     /* window of a convolution or a pooling; else 0 */
    int stride_h, stride_w;
    int pad_top, pad_left; /* border of zeros (convolution) or of nothing (pooling) */
    int pad_bottom, pad_right;
    size_t weights, biases;     /* how many; 0 where the row has none */
    const float *weight, *bias; /* into the model's block, on the device in a GPU's copy of the
                                   row; NULL where there are none. Not owned. */
};

static inline HOST_DEVICE size_t shape_size(struct shape s) {
    return (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

/* Whole steps of a window over a side, its border included: the output's side, as Keras has it;
   0 where the window does not fit. */
static inline int window_steps(int side, int window, int stride) {
    return side < window ? 0 : (side - window) / stride + 1;
}

/* Cells from <= u < to of a window that begins at cell start (negative on the border) of a
   side: those that lie inside the map. */
struct span {
    int from, to;
};

static inline HOST_DEVICE struct span window_inside(int start, int window, int side) {
    struct span s = {start < 0 ? -start : 0, start + window > side ? side - start : window};
    return s;
}

/* Checks a whole table and derives in, out, weights and biases of each row from the input's
   shape, the windows, and out.c of convolution and dense rows, which the caller has set. */
int network_check(struct layer *layers, int count, struct shape input,
                  struct lenet5_error *err);

/* Rows that lead to the logits: all but a softmax at the very end. */
int network_logit_rows(const struct layer *layers, int count);

/* Numbers in the largest map of one image, the input included: what a buffer must hold. */
size_t network_largest_map(const struct layer *layers, int count, struct shape input);

/* Multiply-adds of one row, or of all, for one image, counting the border as the textbook does.
 */
int64_t layer_macs(const struct layer *l);
int64_t network_macs(const struct layer *layers, int count);

/* "conv", "average_pool", ... */
const char *op_name(enum op op);
/* "tanh", "relu", ... */
const char *activation_name(enum activation a);
/* The reverse; ACT_END when there is none of that name. */
enum activation activation_by_name(const char *name);

/* One row over n images, on the CPU: x is n maps of l->in, y is n maps of l->out, both the
   caller's and not overlapping. These plain loops define what is right. */
void conv_cpu(const struct layer *l, const float *x, float *y, int n);
void pool_cpu(const struct layer *l, const float *x, float *y, int n);
void dense_cpu(const struct layer *l, const float *x, float *y, int n);
void elementwise_cpu(const struct layer *l, const float *x, float *y, int n);

/* The same for whichever op the row has. */
void layer_cpu(const struct layer *l, const float *x, float *y, int n);

/* For each of n * out numbers, by how much two correct float32 computations of this row on the
   same input may differ (bound.c). -1 only when memory is out. */
int layer_bound(const struct layer *l, const float *x, int n, float *bound,
                struct lenet5_error *err);

#ifdef __cplusplus
}
#endif

#endif
