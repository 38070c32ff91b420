/* SPDX-License-Identifier: MIT
 *
 * reorder.c - see reorder.h. The only place where a layout of Keras's is spelled out.
 */
#include "reorder.h"

void reorder_kernel(float *to, const float *from, struct kernel_shape s, int oihw, int flip) {
    for (size_t o = 0; o < s.out; o++)
        for (size_t c = 0; c < s.in; c++)
            for (size_t u = 0; u < s.rows; u++)
                for (size_t v = 0; v < s.columns; v++) {
                    const size_t fu = flip ? s.rows - 1 - u : u;
                    const size_t fv = flip ? s.columns - 1 - v : v;
                    *to++ = from[oihw ? ((o * s.in + c) * s.rows + fu) * s.columns + fv
                                      : ((fu * s.columns + fv) * s.in + c) * s.out + o];
                }
}

void reorder_dense(float *to, const float *from, struct dense_shape s) {
    const size_t in = s.channels * s.rows * s.columns;
    for (size_t o = 0; o < s.out; o++)
        for (size_t c = 0; c < s.channels; c++)
            for (size_t r = 0; r < s.rows; r++)
                for (size_t q = 0; q < s.columns; q++) {
                    const size_t i = s.channels_last ? (r * s.columns + q) * s.channels + c
                                                     : (c * s.rows + r) * s.columns + q;
                    *to++ = from[s.transposed ? o * in + i : i * s.out + o];
                }
}
