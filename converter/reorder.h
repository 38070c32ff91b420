/* SPDX-License-Identifier: MIT
 *
 * reorder.h - from Keras's order of numbers to the engine's. Pure functions: nothing is
 * checked, to and from do not overlap.
 */
#ifndef LENET5_REORDER_H
#define LENET5_REORDER_H

#include <stddef.h>

struct kernel_shape {
    size_t rows, columns, in, out;
};

/* A convolution's kernel, stored as [rows][columns][in][out] (HWIO) or, where oihw, already as
   [out][in][rows][columns], to the latter; flip turns each window by 180 degrees. */
void reorder_kernel(float *to, const float *from, struct kernel_shape shape, int oihw,
                    int flip);

/* How a dense layer's matrix is stored: as [in][out] or transposed, and its inputs, which were
   a map of channels x rows x columns once, flattened channels first or channels last. */
struct dense_shape {
    size_t channels, rows, columns, out;
    int transposed, channels_last;
};

/* That matrix as [out][channels][rows][columns]. */
void reorder_dense(float *to, const float *from, struct dense_shape shape);

#endif
