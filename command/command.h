/* SPDX-License-Identifier: MIT
 *
 * command.h - the modes of the command, and what they share: finding weights and data, running
 * a whole data set, printing. A mode computes into a struct and prints that as text or, with
 * --json, as JSON. Results go to stdout, progress and notes to stderr.
 */
#ifndef LENET5_COMMAND_H
#define LENET5_COMMAND_H

#include "backend.h"
#include "idx.h"

#include <jansson.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { JSON_VERSION = 1, CLASSES = DATASET_CLASSES };

enum mode {
    MODE_NONE,
    MODE_EVAL,
    MODE_COMPARE,
    MODE_BENCH,
    MODE_INFO,
    MODE_SHOW,
    MODE_HELP,
    MODE_VERSION
};

struct options {
    int mode, show, batch, threads, limit, identify, json, quiet;
    const char *weights, *data, *dataset, *backend;
};

/* The modes: 0 good, 1 a check failed (what and where is printed), -1 with one sentence. */
int mode_eval(const struct options *o, struct lenet5_error *err);
int mode_identify(const struct options *o, struct lenet5_error *err);
int mode_compare(const struct options *o, struct lenet5_error *err);
int mode_bench(const struct options *o, struct lenet5_error *err);
int mode_info(const struct options *o, struct lenet5_error *err);
int mode_show(const struct options *o, struct lenet5_error *err);

/* The blob that was asked for, or the one for the data set. */
const char *weights_path(const struct options *o);

/* The data set to use for weights that were trained on trained_on ("" if unknown). Where nobody
   named a folder and none is there, the sample takes its place, and that is said. */
int open_dataset(struct dataset *set, const struct options *o, const char *trained_on,
                 struct lenet5_error *err);

/* Makes the set's images as large as the network wants them, with a border of zeros as
   LeNet-5's 32x32 has it; refuses what is no border. */
int fit_images(struct dataset *set, const struct lenet5_info *info, struct lenet5_error *err);

/* Runs the whole set to logits, [count][classes]; the seconds are written to timing. */
int run_all(struct lenet5 *net, const struct options *o, const struct dataset *set,
            float *logits, struct lenet5_timing *timing, struct lenet5_error *err);

/* What a data set is called in a sentence. */
const char *long_name(const struct dataset *set);

/* A line on stderr, unless --quiet. */
void note(const struct options *o, const char *format, ...);

/* A bar on stderr, when it is a terminal and the work has taken over a second. */
void progress(const struct options *o, const char *what, double start, size_t done, size_t all);

/* 0 and *device if b works on this machine and, unless m is NULL, runs this network; else -1
   and why not. */
int backend_serves(const struct backend *b, const struct model *m, struct device *device,
                   struct lenet5_error *why);

/* Sorts the values. */
double median(double *values, int count);
int compare_doubles(const void *a, const void *b); /* for qsort */

/* 12345 as "12,345"; a ring of 8 buffers, so that several fit into one printf. */
const char *thousands(long long value);

/* "6x28x28", or "120" for a vector. Returns text. */
const char *shape_text(struct shape s, char text[48]);

/* A name from outside as JSON, which must be UTF-8: if it is not, its high bytes become '?'. */
json_t *json_name(const char *name);

/* Prints and frees it; NULL is an error. */
int print_json(json_t *root, struct lenet5_error *err);

#ifdef __cplusplus
}
#endif

#endif
