/* SPDX-License-Identifier: MIT
 *
 * bench.c - lenet5 --bench: throughput and latency of every backend over batch sizes, and the
 * batch from which a GPU pays.
 */
#include "command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_LARGEST = 65536, BENCH_STEP = 4, MOST_RUNS = 2000, MOST_POINTS = 128 };

static const double POINT_SECONDS = 0.4; /* spent on one point, once it is warm */
static const double SLOWEST_RUN = 2.0;   /* a backend that needs more sits larger batches out */
static const double UNSTABLE = 0.025;    /* coefficient of variation that is worth a warning */

/* One backend at one batch size, host memory to host memory. Times in seconds per call. */
struct point {
    const struct backend *backend;
    int batch, runs;
    double median, p90, p99, p999;
    double variation; /* standard deviation over mean */
};

struct bench {
    struct point points[MOST_POINTS];
    int count;
    double cold[8]; /* the very first call of a backend, one image; row of backends[] */
    char why_not[8][256];
    int gpu_pays; /* least batch from which an exact GPU backend is fastest; 0: none is; -1:
                     there was not one of each kind to compare */
    char cpu_name[128], gpu_name[128];
};

/* The quantile that a sorted sample reaches in its own words: the smallest value that at least
   that share of it does not exceed. */
static double quantile(const double *sorted, int count, double share) {
    int k = (int)ceil(share * count) - 1;
    return sorted[k < 0 ? 0 : k];
}

static void summarise(struct point *p, double *seconds, int runs) {
    double sum = 0, squares = 0;
    for (int k = 0; k < runs; k++)
        sum += seconds[k];
    for (int k = 0; k < runs; k++)
        squares += (seconds[k] - sum / runs) * (seconds[k] - sum / runs);
    qsort(seconds, (size_t)runs, sizeof *seconds, compare_doubles);
    p->runs = runs;
    p->median = quantile(seconds, runs, 0.5);
    p->p90 = quantile(seconds, runs, 0.9);
    p->p99 = quantile(seconds, runs, 0.99);
    p->p999 = quantile(seconds, runs, 0.999);
    p->variation = runs > 1 ? sqrt(squares / (runs - 1)) / (sum / runs) : 0;
}

/* Times calls of one batch size until the point's time is spent, after a warm-up by time. */
static int bench_point(struct lenet5 *net, const uint8_t *images, float *logits,
                       struct point *p, struct lenet5_error *err) {
    double seconds[MOST_RUNS];
    const double start = clock_seconds();
    int runs = 0;
    do
        if (lenet5_run(net, images, (size_t)p->batch, logits, err))
            return -1;
    while (clock_seconds() - start < POINT_SECONDS / 4);
    const double warm = clock_seconds();
    do {
        const double before = clock_seconds();
        if (lenet5_run(net, images, (size_t)p->batch, logits, err))
            return -1;
        seconds[runs++] = clock_seconds() - before;
    } while (runs < MOST_RUNS && (runs < 3 || clock_seconds() - warm < POINT_SECONDS));
    summarise(p, seconds, runs);
    return 0;
}

static int bench_backend(struct bench *b, const struct options *o, int row,
                         const uint8_t *images, float *logits, struct lenet5_error *err) {
    const struct lenet5_options options = {backends[row]->name, BENCH_LARGEST, o->threads};
    struct lenet5_error why;
    struct lenet5 *net = NULL;
    int rc = -1;
    if (lenet5_open(&net, weights_path(o), &options, &why)) {
        if (strcmp(o->backend, "auto")) /* it was asked for by name */
            return fail(err, "%s", why.message);
        snprintf(b->why_not[row], sizeof b->why_not[row], "%.255s", why.message);
        return 0;
    }
    char *name = backends[row]->on_gpu ? b->gpu_name : b->cpu_name;
    if (!*name) /* the first of its kind says most */
        snprintf(name, sizeof b->gpu_name, "%.127s", lenet5_info(net)->device);
    const double start = clock_seconds();
    if (lenet5_run(net, images, 1, logits, err))
        goto out;
    b->cold[row] = clock_seconds() - start;
    for (int batch = 1; batch <= BENCH_LARGEST; batch *= BENCH_STEP) {
        struct point *p = &b->points[b->count];
        p->backend = backends[row];
        p->batch = batch;
        if (bench_point(net, images, logits, p, err))
            goto out;
        b->count++;
        progress(o, backends[row]->name, start - 1, (size_t)batch, BENCH_LARGEST);
        if (p->median * BENCH_STEP > SLOWEST_RUN)
            break;
    }
    rc = 0;
out:
    lenet5_close(net);
    return rc;
}

/* The fastest median at a batch size among backends on the GPU, or not; 0 if there is none. */
static double fastest(const struct bench *b, int batch, int on_gpu) {
    double best = 0;
    for (int k = 0; k < b->count; k++) {
        const struct point *p = &b->points[k];
        if (p->batch == batch && p->backend->on_gpu == on_gpu &&
            p->backend->tolerance <= EXACT && (best == 0 || p->median < best))
            best = p->median;
    }
    return best;
}

/* From the largest batch down: as long as an exact GPU backend beats every CPU one. */
static int find_gpu_pays(const struct bench *b) {
    int from = 0;
    if (fastest(b, 1, 0) == 0 || fastest(b, 1, 1) == 0)
        return -1;
    for (int batch = BENCH_LARGEST; batch >= 1; batch /= BENCH_STEP) {
        const double gpu = fastest(b, batch, 1), cpu = fastest(b, batch, 0);
        if (gpu == 0 || (cpu > 0 && cpu <= gpu))
            break;
        from = batch;
    }
    return from;
}

static void print_bench(const struct bench *b, const struct options *o) {
    printf("weights   %s\nCPU       %s\nGPU       %s\n\n", weights_path(o), b->cpu_name,
           *b->gpu_name ? b->gpu_name : "-");
    printf("%-10s %8s %14s %12s %12s %12s %12s %7s %7s\n", "backend", "batch", "images/s",
           "median us", "p90 us", "p99 us", "p99.9 us", "CV %", "runs");
    for (int k = 0; k < b->count; k++) {
        const struct point *p = &b->points[k];
        printf("%-10s %8d %14s %12.1f %12.1f %12.1f %12.1f %7.1f %7d%s\n", p->backend->name,
               p->batch, thousands((long long)(p->batch / p->median)), 1e6 * p->median,
               1e6 * p->p90, 1e6 * p->p99, 1e6 * p->p999, 100 * p->variation, p->runs,
               p->variation > UNSTABLE ? " unstable" : "");
    }
    printf("\nfirst call ever, one image:");
    for (int k = 0; backends[k]; k++)
        if (b->cold[k] > 0)
            printf(" %s %.0f us;", backends[k]->name, 1e6 * b->cold[k]);
    printf(
        "\ntimes are of one call, host memory to host memory, copies included; unstable: the\n"
        "coefficient of variation (CV) is above %.1f %%, so do not trust small differences\n",
        100 * UNSTABLE);
    for (int k = 0; backends[k]; k++)
        if (*b->why_not[k])
            printf("%s did not run: %s\n", backends[k]->name, b->why_not[k]);
    if (b->gpu_pays > 0)
        printf("the GPU pays from a batch of %d on, copies included\n", b->gpu_pays);
    else if (b->gpu_pays == 0)
        printf("the GPU does not pay up to a batch of %d\n", BENCH_LARGEST);
}

static json_t *bench_json(const struct bench *b, const struct options *o) {
    json_t *points = json_array(), *cold = json_object(), *why_not = json_object();
    for (int k = 0; k < b->count; k++) {
        const struct point *p = &b->points[k];
        json_array_append_new(
            points, json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:b}", "backend",
                              p->backend->name, "batch", p->batch, "images_per_second",
                              p->batch / p->median, "median", p->median, "p90", p->p90, "p99",
                              p->p99, "p99.9", p->p999, "variation", p->variation, "runs",
                              p->runs, "unstable", p->variation > UNSTABLE));
    }
    for (int k = 0; backends[k]; k++)
        if (b->cold[k] > 0)
            json_object_set_new(cold, backends[k]->name, json_real(b->cold[k]));
        else if (*b->why_not[k])
            json_object_set_new(why_not, backends[k]->name, json_name(b->why_not[k]));
    return json_pack("{s:i, s:s, s:o, s:s, s:s, s:o, s:o, s:o, s:o}", "version", JSON_VERSION,
                     "mode", "bench", "weights", json_name(weights_path(o)), "cpu", b->cpu_name,
                     "gpu", b->gpu_name, "first_call", cold, "why_not", why_not, "points",
                     points, "gpu_pays_from",
                     b->gpu_pays > 0 ? json_integer(b->gpu_pays) : json_null());
}

/* Random bytes: speed does not depend on what is in the images. */
int mode_bench(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {"reference", 1, 0};
    struct bench *b = (struct bench *)calloc(1, sizeof *b);
    struct lenet5 *net = NULL;
    uint8_t *images = NULL;
    float *logits = NULL;
    int rc = -1;
    if (!b)
        return fail(err, "out of memory");
    if (lenet5_open(&net, weights_path(o), &options, err))
        goto out;
    {
        const struct lenet5_info *info = lenet5_info(net);
        const size_t pixels = (size_t)info->channels * info->height * info->width;
        uint32_t state = 1;
        images = (uint8_t *)malloc(BENCH_LARGEST * pixels);
        logits = (float *)malloc(sizeof *logits * BENCH_LARGEST * info->classes);
        if (!images || !logits) {
            fail(err, "out of memory for %d images", BENCH_LARGEST);
            goto out;
        }
        for (size_t k = 0; k < BENCH_LARGEST * pixels; k++)
            images[k] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
    }
    for (int row = 0; backends[row]; row++)
        if (!strcmp(o->backend, "auto") || !strcmp(o->backend, backends[row]->name))
            if (bench_backend(b, o, row, images, logits, err))
                goto out;
    b->gpu_pays = find_gpu_pays(b);
    rc = 0;
    if (o->json)
        rc = print_json(bench_json(b, o), err);
    else
        print_bench(b, o);
out:
    lenet5_close(net);
    free(images);
    free(logits);
    free(b);
    return rc;
}
