/* SPDX-License-Identifier: MIT
 *
 * guard.h - runs work on a file that may be hostile in a process of its own, with bounded
 * memory and time. HDF5's parser crashes on some crafted files; this way a crash is a sentence
 * as well.
 */
#ifndef LENET5_GUARD_H
#define LENET5_GUARD_H

#include "fail.h"

/* Runs work(context) in a child and returns what it returned, 0 to 255; -1 if the child crashed
   or exceeded GUARD_MEMORY or its time: one second and what path's size allows. */
int guard_run(int (*work)(void *context), void *context, const char *path,
              struct lenet5_error *err);

/* Lifts the limits, in the child, once the file has been read. */
void guard_release(void);

enum { GUARD_MEMORY = 250 << 20 };

#endif
