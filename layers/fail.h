/* SPDX-License-Identifier: MIT
 *
 * fail.h - the one error idiom of the project.
 *
 * Whatever can fail returns 0 or -1 and writes one sentence into the caller's error:
 * the file or the argument, what was found, what was expected, and what to do about it.
 * So a failing branch is one line:
 *
 *     return fail(err, "%s: %zu bytes, the header says %zu; convert again", path, size, told);
 *
 * Nothing in the library prints, exits or keeps a global error.
 */
#ifndef LENET5_FAIL_H
#define LENET5_FAIL_H

#include "lenet5.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Formats the sentence into err (cut at its size; err may be NULL) and returns -1. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int fail(struct lenet5_error *err, const char *format, ...);

#ifdef __cplusplus
}
#endif

#endif
