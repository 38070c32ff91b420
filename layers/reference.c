/* SPDX-License-Identifier: MIT
 *
 * reference.c - backend "reference": the table, row by row, image by image, by the plain loops
 * of
 * *_cpu. It is the definition of right: slow, short, and staying so. Two buffers, each as large
 * as the largest map of one image, take turns as input and output.
 */
#include "backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reference {
    const struct model *model;
    int max_batch;
    float *map[2]; /* owned, one allocation */
};

void layer_cpu(const struct layer *l, const float *x, float *y, int n) {
    switch (l->op) {
    case OP_CONV:
        conv_cpu(l, x, y, n);
        break;
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        pool_cpu(l, x, y, n);
        break;
    case OP_DENSE:
        dense_cpu(l, x, y, n);
        break;
    default:
        elementwise_cpu(l, x, y, n);
    }
}

/* The processor's name where Linux tells it; its lines read "model name : AMD EPYC". */
static int reference_device(struct device *device, struct lenet5_error *err) {
    (void)err;
    char line[256];
    memset(device, 0, sizeof *device);
    strcpy(device->name, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *name = strstr(line, ": ");
        if (strncmp(line, "model name", 10) || !name)
            continue;
        snprintf(device->name, sizeof device->name, "%.*s", (int)strcspn(name + 2, "\n"),
                 name + 2);
        break;
    }
    if (file)
        fclose(file);
    return 0;
}

static int reference_open(void **state, const struct model *m, int threads, int *max_batch,
                          struct lenet5_error *err) {
    (void)threads; /* one, always */
    const size_t largest = network_largest_map(m->layers, m->count, m->input);
    struct reference *s = malloc(sizeof *s);
    float *maps = malloc(2 * largest * sizeof *maps);
    if (!s || !maps) {
        free(s);
        free(maps);
        return fail(err, "out of memory: %zu bytes for activations",
                    2 * largest * sizeof *maps);
    }
    *s = (struct reference){m, *max_batch, {maps, maps + largest}};
    *state = s;
    return 0;
}

static int reference_run(void *state, const uint8_t *bytes, const float *floats, int n,
                         float *logits, struct lenet5_timing *timing,
                         struct lenet5_error *err) {
    struct reference *s = state;
    const struct model *m = s->model;
    const int rows = network_logit_rows(m->layers, m->count);
    const size_t pixels = shape_size(m->input);
    const size_t classes = shape_size(m->layers[rows - 1].out);
    const double start = clock_seconds();

    if (n < 1 || n > s->max_batch)
        return fail(err, "batch of %d images; this backend was opened for 1 to %d", n,
                    s->max_batch);
    for (int i = 0; i < n; i++) {
        float *x = s->map[0], *y = s->map[1];
        for (size_t k = 0; k < pixels; k++)
            x[k] = bytes ? (float)bytes[(size_t)i * pixels + k] * m->scale + m->offset
                         : floats[(size_t)i * pixels + k];
        for (int row = 0; row < rows; row++) {
            layer_cpu(&m->layers[row], x, y, 1);
            float *swap = x;
            x = y;
            y = swap;
        }
        memcpy(logits + (size_t)i * classes, x, classes * sizeof *x);
    }
    if (timing)
        timing->compute += clock_seconds() - start;
    return 0;
}

static int reference_layer(void *state, int row, const float *x, int n, float *y, int repeats,
                           double *seconds, struct lenet5_error *err) {
    struct reference *s = state;
    if (n < 1 || n > s->max_batch)
        return fail(err, "batch of %d images; this backend was opened for 1 to %d", n,
                    s->max_batch);
    for (int k = 0; k < repeats; k++) {
        const double start = clock_seconds();
        layer_cpu(&s->model->layers[row], x, y, n);
        seconds[k] = clock_seconds() - start;
    }
    return 0;
}

static void reference_close(void *state) {
    struct reference *s = state;
    if (s)
        free(s->map[0]);
    free(s);
}

const struct backend backend_reference = {
    .name = "reference",
    .summary = "plain C loops, one core: the definition of right",
    .device = reference_device,
    .open = reference_open,
    .run = reference_run,
    .layer = reference_layer,
    .close = reference_close,
    .tolerance = EXACT,
};
