/* SPDX-License-Identifier: MIT
 *
 * common.c - what the modes of the command share; see command.h.
 */
#define _POSIX_C_SOURCE 200809L
#include "command.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAMPLE_FOLDER "fashion_mnist/sample"

void note(const struct options *o, const char *format, ...) {
    va_list args;
    if (o->quiet)
        return;
    fprintf(stderr, "note: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

const char *long_name(const struct dataset *set) {
    if (!strcmp(set->name, "sample"))
        return "sample of home-made digits (not MNIST)";
    if (!strcmp(set->name, "unknown"))
        return "data set of unknown content";
    return set->name;
}

const char *weights_path(const struct options *o) {
    if (o->weights)
        return o->weights;
    return o->dataset && !strcmp(o->dataset, "fashion_mnist")
               ? "weights/lenet5_fashion_mnist.bin"
               : "weights/lenet5_mnist.bin";
}

static const char *data_folder(const struct options *o) {
    const char *from_environment = getenv("LENET5_DATA");
    if (o->data)
        return o->data;
    return from_environment && *from_environment ? from_environment : "fashion_mnist/data";
}

static int is_folder(const char *path) {
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

/* Is the data set called name in a folder of its own in the data folder? */
static int is_there(const struct options *o, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", data_folder(o), name);
    return is_folder(path);
}

/* Opens the data set called name: its own folder in the data folder, or the data folder. */
static int open_named(struct dataset *set, const struct options *o, const char *name,
                      struct lenet5_error *err) {
    char path[4096];
    if (!strcmp(name, "sample"))
        return dataset_open(set, SAMPLE_FOLDER, err);
    snprintf(path, sizeof path, "%s/%s", data_folder(o), name);
    return dataset_open(set, is_folder(path) ? path : data_folder(o), err);
}

int open_dataset(struct dataset *set, const struct options *o, const char *trained_on,
                 struct lenet5_error *err) {
    const char *name = o->dataset ? o->dataset : *trained_on ? trained_on : "mnist";
    const char *from_environment = getenv("LENET5_DATA");
    const int chosen = o->data || o->dataset || (from_environment && *from_environment);
    if (!chosen && !is_there(o, name)) {
        note(o,
             "no %s here yet (make data fetches it): using the project's own sample of "
             "drawn digits, whose scores say nothing about %s",
             data_folder(o), name);
        name = "sample";
    }
    if (open_named(set, o, name, err))
        return -1;
    if (o->dataset && strcmp(set->name, "unknown") && strcmp(set->name, o->dataset)) {
        fail(err, "%s holds %s, not %s: give another --data or --dataset", data_folder(o),
             set->name, o->dataset);
        dataset_close(set);
        return -1;
    }
    if (o->limit && (size_t)o->limit < set->count)
        set->count = (size_t)o->limit;
    return 0;
}

int fit_images(struct dataset *set, const struct lenet5_info *info, struct lenet5_error *err) {
    const int C = set->channels, H = info->height, W = info->width;
    const int top = (H - set->height) / 2, left = (W - set->width) / 2;
    if (info->classes != CLASSES)
        return fail(err, "the network tells %d classes apart, the data set has %d",
                    info->classes, CLASSES);
    if (C != info->channels || H < set->height || W < set->width)
        return fail(err,
                    "the network takes images of %d channel(s), %dx%d; the data set has %d, "
                    "%dx%d",
                    info->channels, H, W, C, set->height, set->width);
    if (H == set->height && W == set->width)
        return 0;
    uint8_t *images = (uint8_t *)calloc(set->count * (size_t)C, (size_t)H * W);
    if (!images)
        return fail(err, "out of memory for %zu images of %dx%d", set->count, H, W);
    for (size_t map = 0; map < set->count * (size_t)C; map++)
        for (int row = 0; row < set->height; row++)
            memcpy(images + (map * H + (size_t)(top + row)) * W + left,
                   set->images + (map * set->height + (size_t)row) * set->width,
                   (size_t)set->width);
    free(set->images);
    set->images = images;
    set->height = H;
    set->width = W;
    return 0;
}

void progress(const struct options *o, const char *what, double start, size_t done,
              size_t all) {
    if (o->quiet || !isatty(STDERR_FILENO) || clock_seconds() - start < 1.0)
        return;
    if (done == all)
        fprintf(stderr, "\r%60s\r", "");
    else
        fprintf(stderr, "\r%s %3zu %% [%-40.*s]", what, 100 * done / all,
                (int)(40 * done / all), "########################################");
    fflush(stderr);
}

int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

const char *thousands(long long value) {
    static char ring[8][32];
    static int next;
    char digits[32], *out = ring[next = (next + 1) % 8];
    const int length = snprintf(digits, sizeof digits, "%lld", value);
    int at = 0;
    for (int k = 0; k < length; k++) {
        if (k && (length - k) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[k];
    }
    out[at] = '\0';
    return out;
}

int run_all(struct lenet5 *net, const struct options *o, const struct dataset *set,
            float *logits, struct lenet5_timing *timing, struct lenet5_error *err) {
    const struct lenet5_info *info = lenet5_info(net);
    const size_t pixels = (size_t)info->channels * info->height * info->width;
    const size_t piece = info->max_batch < 256 ? 256 : (size_t)info->max_batch;
    const int slow = !strcmp(info->backend, "reference");
    const double start = clock_seconds();
    struct lenet5_timing sum = {0, 0, 0};
    for (size_t i = 0, n; i < set->count; i += n) {
        n = slow ? 100 : piece; /* the GPU would be slowed down by short calls */
        n = n < set->count - i ? n : set->count - i;
        if (lenet5_run(net, set->images + i * pixels, n, logits + i * info->classes, err))
            return -1;
        const struct lenet5_timing t = lenet5_timing(net);
        sum.upload += t.upload;
        sum.compute += t.compute;
        sum.download += t.download;
        progress(o, info->backend, start, i + n, set->count);
    }
    *timing = sum;
    return 0;
}

int backend_serves(const struct backend *b, const struct model *m, struct device *device,
                   struct lenet5_error *why) {
    void *state;
    int one = 1;
    if (b->device(device, why) || (m && b->open(&state, m, 1, &one, why)))
        return -1;
    if (m)
        b->close(state);
    return 0;
}

json_t *json_name(const char *name) {
    json_t *json = json_string(name);
    char plain[4096];
    if (json)
        return json;
    snprintf(plain, sizeof plain, "%s", name);
    for (char *c = plain; *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(plain);
}

int print_json(json_t *root, struct lenet5_error *err) {
    if (!root)
        return fail(err, "out of memory, or a text that JSON cannot hold");
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
    return 0;
}

const char *shape_text(struct shape s, char text[48]) {
    if (s.h == 1 && s.w == 1)
        snprintf(text, 48, "%d", s.c);
    else
        snprintf(text, 48, "%dx%dx%d", s.c, s.h, s.w);
    return text;
}
