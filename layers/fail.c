/* SPDX-License-Identifier: MIT
 *
 * fail.c - formats the one sentence; see fail.h. Control characters are replaced by '?':
 * names in the sentence may come from a hostile file and end on a terminal.
 */
#include "fail.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct lenet5_error *err, const char *format, ...) {
    if (!err)
        return -1;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    for (char *s = err->message; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            *s = '?';
    return -1;
}
