/* SPDX-License-Identifier: MIT
 *
 * family.h - is this network a LeNet-5, and what are its numbers once everything affine is
 * folded together? Host code for the backends that compute a whole network in one kernel.
 *
 * The family, with C1 to OUT as the layers are called in the paper of 1998:
 *
 *     image 1 x 28 x 28 or 1 x 32 x 32
 *     C1    conv 5 x 5 to 6 maps, activation; border 2 (28 only) or none     P = (side+2b-4)/2
 *     S2    average or maximum over 2 x 2                                     6 x P x P
 *     C3    conv 5 x 5 to 16 maps, activation                                 Q = (P-4)/2
 *     S4    pooled like S2                                                    16 x Q x Q
 *     C5    dense to 120, or a 5 x 5 convolution of a 5 x 5 map, which is the same; activation
 *     F6    dense to 84, activation
 *     OUT   dense to 10: the logits
 *
 * with one activation everywhere: tanh, sigmoid or plain relu. A softmax after OUT is left to
 * the caller, as in every backend. An activation may stand in a row of its own.
 */
#ifndef LENET5_FAMILY_H
#define LENET5_FAMILY_H

#include "blob.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    C1_MAPS = 6,
    C3_MAPS = 16,
    C5_SIZE = 120,
    F6_SIZE = 84,
    CLASSES = 10,
    WINDOW = 25,        /* 5 x 5 */
    FLAT_MOST = 16 * 25 /* numbers that C5 reads, 16 * 16 for 28 x 28 without border */
};

struct family {
    int side, border; /* of the image: 28 and 2, 28 and 0, or 32 and 0 */
    int pooled[2];    /* side of a map after S2 and S4: 14 and 5, or 12 and 4 */
    enum activation activation;
    int max_pool;
    const struct layer *c1, *c3, *c5, *f6, *out; /* rows of the model */
};

/* What a kernel computes in place of an activation: a function y of its own choice with
   activation(z) = scale * y(gain * z) + offset; and for an activation followed by pooling the
   same with pooled_scale and pooled_offset. */
struct form {
    double gain;
    double scale, offset;
    double pooled_scale, pooled_offset;
};

/* Weights for kernels that hand on y instead of activations: see family_fold. */
struct folded {
    double c1[C1_MAPS][WINDOW], c1_bias[C1_MAPS];
    double c3[C3_MAPS][C1_MAPS][WINDOW], c3_bias[C3_MAPS];
    double c5[C5_SIZE][FLAT_MOST], c5_bias[C5_SIZE]; /* [channel][row][column] of S4 */
    double f6[F6_SIZE][C5_SIZE], f6_bias[F6_SIZE];
    double out[CLASSES][F6_SIZE], out_bias[CLASSES];
};

/* 0 and *f when the model is in the family; otherwise -1 and one sentence that says which row
   is not, and that backend cuda takes it. backend is who refuses, for that sentence. */
int family_recognise(struct family *f, const struct model *m, const char *backend,
                     struct lenet5_error *err);

/* Folds, in double, the scaling of bytes into C1, and each layer's gain and what the layer
   before it left out (scale and offset of its y) into its weights and biases. */
void family_fold(const struct family *f, const struct model *m, const struct form *form,
                 struct folded *folded);

#ifdef __cplusplus
}
#endif

#endif
