/* SPDX-License-Identifier: MIT
 *
 * report.h - what was converted, for a person to compare with model.summary(), or as JSON.
 */
#ifndef LENET5_REPORT_H
#define LENET5_REPORT_H

#include <stdio.h>

#include "keras.h"

/* output is the blob's path, or NULL when none was written. */
void report_text(const struct keras *k, const struct model *m, const char *output, FILE *to);
int report_json(const struct keras *k, const struct model *m, const char *output, FILE *to);

#endif
