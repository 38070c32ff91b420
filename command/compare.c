/* SPDX-License-Identifier: MIT
 *
 * compare.c - lenet5 --compare: every layer on CPU and GPU, its time, its error and the bound
 * of that, and the limit of the chip that it is nearest to; then every backend on the whole
 * set.
 */
#include "command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COMPARE_BATCH = 1000, CPU_REPEATS = 3, GPU_REPEATS = 23, GPU_WARM = 3 };

/* The backends whose single layers are timed: columns of the table. */
enum column { REFERENCE, SIMD, GPU, COLUMNS };

/* How near a GPU came to what it can do. */
struct limits {
    double share[RESOURCES]; /* of what it could have given meanwhile */
    int binds;               /* the resource with the largest share */
};

struct layer_result {
    double us[COLUMNS];  /* median time per image; -1 where the column has no backend */
    double error, bound; /* largest difference from the reference, and what it may be there */
    struct limits limits;
    int ok;
};

/* Where the time goes inside a kernel that is a whole network. */
struct stage_result {
    const struct backend *backend;
    struct limits limits[STAGES];
    double us[STAGES]; /* per image, its clock's own time included */
};

struct backend_result {
    const struct backend *backend;
    char why_not[512]; /* not empty: it could not run */
    double images_per_second;
    struct lenet5_timing timing;
    size_t agreeing; /* predictions equal to the reference's */
    double error;    /* largest difference of a logit */
    int ok;
};

struct comparison {
    struct model model;                     /* owned */
    int n;                                  /* images that the layers were timed on */
    size_t images;                          /* images that the backends were timed on */
    const struct backend *columns[COLUMNS]; /* NULL where there is none */
    char why_no_gpu[512];
    char cpu_name[128];
    struct layer_result layers[MAX_LAYERS];
    struct backend_result backends[8];
    int backend_count, ok;
    struct stage_result stages[4];
    int stage_count;
    struct device gpu;
};

/* Largest |got - want| and the bound there, kept if larger than what r has; ok turns 0 if any
   difference exceeds its bound, and a NaN always does. */
static void check_layer(const float *want, const float *got, const float *bound, size_t count,
                        struct layer_result *r) {
    for (size_t k = 0; k < count; k++) {
        const double error = fabs((double)got[k] - (double)want[k]);
        r->ok &= error <= bound[k];
        if (!(error <= r->error)) {
            r->error = error;
            r->bound = bound[k];
        }
    }
}

/* cost is of an image, us its time; a resource whose rate is not known has share 0. */
static void find_limits(const struct device *gpu, const double cost[RESOURCES], double us,
                        struct limits *limits) {
    for (int k = 0; k < RESOURCES; k++) {
        limits->share[k] = gpu->rate[k] > 0 ? cost[k] / (1e-6 * us * gpu->rate[k]) : 0;
        if (limits->share[k] > limits->share[limits->binds])
            limits->binds = k;
    }
}

/* One row on the images x by every column: the reference's output goes to y, times and errors
   to r. room holds twice as many numbers as y. */
static int compare_layer(struct comparison *c, void **states, int row, const float *x, float *y,
                         float *room, struct layer_result *r, struct lenet5_error *err) {
    const struct layer *l = &c->model.layers[row];
    const size_t count = (size_t)c->n * shape_size(l->out);
    float *got = room, *bound = room + count;
    double seconds[GPU_REPEATS];

    r->ok = 1;
    r->error = -1;
    if (layer_bound(l, x, c->n, bound, err))
        return -1;
    for (int k = 0; k < COLUMNS; k++) {
        const struct backend *b = c->columns[k];
        const int repeats = k == GPU ? GPU_REPEATS : CPU_REPEATS,
                  warm = k == GPU ? GPU_WARM : 0;
        r->us[k] = -1;
        if (!b)
            continue;
        for (size_t j = 0; j < count; j++)
            got[j] = NAN; /* what a kernel forgets to write must not look right */
        if (b->layer(states[k], row, x, c->n, k == REFERENCE ? y : got, repeats, seconds, err))
            return -1;
        r->us[k] = 1e6 * median(seconds + warm, repeats - warm) / c->n;
        if (k != REFERENCE)
            check_layer(y, got, bound, count, r);
    }
    if (c->columns[GPU]) {
        double cost[RESOURCES];
        c->columns[GPU]->cost(l, c->n, cost);
        find_limits(&c->gpu, cost, r->us[GPU], &r->limits);
    }
    return 0;
}

/* Every row on the reference's own input for it. */
static int compare_layers(struct comparison *c, const struct options *o,
                          const struct dataset *set, struct lenet5_error *err) {
    const struct model *m = &c->model;
    const size_t pixels = (size_t)c->n * shape_size(m->input);
    const double start = clock_seconds();
    const size_t largest = network_largest_map(m->layers, m->count, m->input);
    void *states[COLUMNS] = {NULL, NULL, NULL};
    int rc = -1;

    float *block = (float *)malloc(4 * c->n * largest * sizeof *block);
    float *x = block, *y = x + c->n * largest, *room = y + c->n * largest;
    if (!block)
        return fail(err, "out of memory for the maps of %d images; try a smaller --batch",
                    c->n);
    for (size_t k = 0; k < pixels; k++)
        x[k] = (float)set->images[k] * m->scale + m->offset;
    for (int k = 0; k < COLUMNS; k++) {
        int batch = c->n;
        if (c->columns[k] && c->columns[k]->open(&states[k], m, o->threads, &batch, err))
            goto out;
        if (batch < c->n) {
            fail(err, "the GPU has memory for batches of %d only; try --batch %d", batch,
                 batch);
            goto out;
        }
    }
    for (int k = 0; k < m->count; k++) {
        if (compare_layer(c, states, k, x, y, room, &c->layers[k], err))
            goto out;
        c->ok &= c->layers[k].ok;
        float *swap = x;
        x = y;
        y = swap;
        progress(o, "layers", start, (size_t)k + 1, (size_t)m->count);
    }
    rc = 0;
out:
    for (int k = 0; k < COLUMNS; k++)
        if (c->columns[k])
            c->columns[k]->close(states[k]);
    free(block);
    return rc;
}

/* Compares a backend's logits with the reference's: within its tolerance, relative above 1, and
   the same predictions except where the reference's best two are closer than that. */
static void check_logits(struct backend_result *r, const float *want, const float *got,
                         size_t images, int classes) {
    r->ok = 1;
    r->agreeing = 0;
    r->error = 0;
    for (size_t i = 0; i < images; i++, want += classes, got += classes) {
        const int a = lenet5_argmax(want, classes), b = lenet5_argmax(got, classes);
        double scale = 1;
        for (int k = 0; k < classes; k++) {
            const double error = fabs((double)got[k] - (double)want[k]);
            scale = fmax(scale, fabs((double)want[k]));
            if (!(error <= r->error))
                r->error = error;
            r->ok &= error <= r->backend->tolerance * fmax(1, fabs((double)want[k]));
        }
        r->agreeing += a == b;
        r->ok &= a == b || want[a] - want[b] <= 2 * r->backend->tolerance * scale;
    }
}

/* Runs the whole set through one backend; want is the reference's logits, or NULL to become
   them: logits then holds them. */
static int compare_backend(struct comparison *c, const struct options *o,
                           const struct backend *b, const struct dataset *set,
                           const float *want, float *logits, struct lenet5_error *err) {
    const struct lenet5_options options = {b->name, o->batch, o->threads};
    struct backend_result *r = &c->backends[c->backend_count++];
    struct lenet5_error why;
    struct lenet5 *net = NULL;
    int rc = -1;

    r->backend = b;
    r->ok = 1;
    if (lenet5_open(&net, weights_path(o), &options, &why)) {
        snprintf(r->why_not, sizeof r->why_not, "%s", why.message);
        return want ? 0 : fail(err, "%s", why.message); /* nothing goes without the reference */
    }
    const int classes = lenet5_info(net)->classes;
    for (size_t k = 0; k < set->count * (size_t)classes; k++)
        logits[k] = NAN;
    /* once to warm up where that is cheap, then for the clock */
    if (b->on_gpu && run_all(net, o, set, logits, &r->timing, err))
        goto out;
    {
        const double start = clock_seconds();
        if (run_all(net, o, set, logits, &r->timing, err))
            goto out;
        r->images_per_second = (double)set->count / (clock_seconds() - start);
    }
    check_logits(r, want ? want : logits, logits, set->count, classes);
    c->ok &= r->ok;
    rc = 0;
out:
    lenet5_close(net);
    return rc;
}

/* The reference first, as it is what the others are compared with. */
static int compare_backends(struct comparison *c, const struct options *o,
                            const struct dataset *set, int classes, struct lenet5_error *err) {
    const size_t count = set->count * (size_t)classes;
    float *want = (float *)malloc(2 * count * sizeof *want);
    int rc = -1;
    if (!want)
        return fail(err, "out of memory for %zu logits", 2 * count);
    if (!compare_backend(c, o, &backend_reference, set, NULL, want, err)) {
        rc = 0;
        for (const struct backend *const *b = backends; *b && !rc; b++)
            if (*b != &backend_reference)
                rc = compare_backend(c, o, *b, set, want, want + count, err);
    }
    free(want);
    return rc;
}

/* The clocks inside kernels that are whole networks. */
static int compare_stages(struct comparison *c, const struct dataset *set,
                          struct lenet5_error *err) {
    for (const struct backend *const *b = backends; *b; b++) {
        struct stage_result *r = &c->stages[c->stage_count];
        const struct model *m = &c->model;
        struct kernel_stage stages[STAGES];
        int n = (int)c->images, rc = 0;
        struct lenet5_error ignored;
        void *state = NULL;
        if (!(*b)->stages || (*b)->device(&c->gpu, &ignored) ||
            (*b)->open(&state, m, 0, &n, &ignored))
            continue;
        for (int k = 0; k < 2 && !rc; k++) /* once to warm up */
            rc = (*b)->stages(state, set->images, n, stages, err);
        (*b)->close(state);
        if (rc)
            return -1;
        r->backend = *b;
        double sum = 0;
        for (int k = 0; k < STAGES; k++)
            sum += r->us[k] = 1e6 * stages[k].seconds / n;
        for (int k = 0; k < STAGES; k++) /* images come in while other stages compute */
            find_limits(&c->gpu, stages[k].cost, k == STAGE_INPUT ? sum : r->us[k],
                        &r->limits[k]);
        c->stage_count++;
    }
    return 0;
}

/* Who fills the columns; the first GPU backend that has single layers, or why there is none. */
static void find_columns(struct comparison *c) {
    struct lenet5_error err;
    struct device device;
    backend_reference.device(&device, &err);
    snprintf(c->cpu_name, sizeof c->cpu_name, "%s", device.name);
    c->columns[REFERENCE] = &backend_reference;
    c->columns[SIMD] = &backend_simd;
    fail(&err, "this build is without CUDA (no nvcc was found, or CUDA=0)");
    for (const struct backend *const *b = backends; *b && !c->columns[GPU]; b++)
        if ((*b)->on_gpu && (*b)->layer && !backend_serves(*b, &c->model, &device, &err)) {
            c->columns[GPU] = *b;
            c->gpu = device;
        }
    if (!c->columns[GPU])
        snprintf(c->why_no_gpu, sizeof c->why_no_gpu, "%s", err.message);
}

static const char *const RESOURCE_NAMES[RESOURCES] = {"fma", "tensor", "special", "shared",
                                                      "memory"};
static const char *const STAGE_NAMES[STAGES] = {"input", "C1+S2", "C3+S4", "C5", "F6", "OUT"};

/* Times of the columns and how much faster the GPU is; "-" where there is no such column. */
static void print_times(const double us[COLUMNS]) {
    for (int k = 0; k < COLUMNS; k++)
        if (us[k] < 0)
            printf(" %10s", "-");
        else
            printf(" %10.4f", us[k]);
    for (int k = REFERENCE; k <= SIMD; k++)
        if (us[GPU] < 0)
            printf(" %8s", "-");
        else
            printf(" %7.0fx", us[k] / us[GPU]);
}

/* "fma 61 %" */
static const char *limit_text(const struct limits *limits, char text[32]) {
    snprintf(text, 32, "%s %.0f %%", RESOURCE_NAMES[limits->binds],
             100 * limits->share[limits->binds]);
    return text;
}

static void print_layer_result(const struct layer *l, const struct layer_result *r) {
    char shape[48], text[32];
    printf("%-20s %-9s %9s", l->name, shape_text(l->out, shape),
           thousands((long long)layer_macs(l)));
    print_times(r->us);
    printf(" %9.1e %9.1e  %-5s", r->error, r->bound, r->ok ? "ok" : "WRONG");
    if (r->us[GPU] >= 0)
        printf(" %s", limit_text(&r->limits, text));
    printf("\n");
}

static void print_stages(const struct comparison *c) {
    for (int k = 0; k < c->stage_count; k++) {
        const struct stage_result *r = &c->stages[k];
        double sum = 0;
        for (int j = 0; j < STAGES; j++)
            sum += r->us[j];
        printf("%s\n%-10s",
               k ? ""
                 : "\ninside a kernel, by its own clock: ns per image (share of "
                   "the kernel; of which limit)\n",
               r->backend->name);
        for (int j = 0; j < STAGES; j++) {
            char text[32];
            printf(" %s %.2f (%.0f %%; %s)", STAGE_NAMES[j], 1e3 * r->us[j],
                   100 * r->us[j] / sum, limit_text(&r->limits[j], text));
        }
    }
    printf(c->stage_count ? "\n" : "");
}

/* Images/s of a backend, 0 if it did not run. */
static double rate_of(const struct comparison *c, const struct backend *b) {
    for (int k = 0; k < c->backend_count; k++)
        if (c->backends[k].backend == b)
            return c->backends[k].images_per_second;
    return 0;
}

static void print_backend_results(const struct comparison *c) {
    const double reference = rate_of(c, &backend_reference), simd = rate_of(c, &backend_simd);
    printf("\nwhole network, %s images, from host memory and back\n\n",
           thousands((long long)c->images));
    printf("%-10s %12s %8s %8s %10s %10s %11s %13s %9s\n", "backend", "images/s", "x ref.",
           "x simd", "upload us", "compute us", "download us", "agreement", "error");
    for (int k = 0; k < c->backend_count; k++) {
        const struct backend_result *r = &c->backends[k];
        const double per_image = 1e6 / (double)c->images;
        if (*r->why_not)
            printf("%-10s %12s  %s\n", r->backend->name, "-", r->why_not);
        else
            printf("%-10s %12s %7.1fx %7.2fx %10.4f %10.4f %11.4f %6zu/%-6zu %9.1e  %s\n",
                   r->backend->name, thousands((long long)r->images_per_second),
                   r->images_per_second / reference, r->images_per_second / simd,
                   per_image * r->timing.upload, per_image * r->timing.compute,
                   per_image * r->timing.download, r->agreeing, c->images, r->error,
                   r->ok ? "ok" : "WRONG");
    }
}

static void print_comparison(const struct comparison *c, const struct options *o,
                             const struct dataset *set) {
    struct layer_result all;
    memset(&all, 0, sizeof all);
    printf("weights   %s\ndata      %s, layers on %s images at once\nCPU       %s\nGPU       "
           "%s\n\n",
           weights_path(o), long_name(set), thousands(c->n), c->cpu_name,
           c->columns[GPU] ? c->gpu.name : "-");
    printf("%-20s %-9s %9s %10s %10s %10s %8s %8s %9s %9s        %s\n", "layer", "output",
           "mult-adds", "reference", "simd", "GPU", "x ref.", "x simd", "error", "bound",
           "limit");
    for (int k = 0; k < c->model.count; k++) {
        print_layer_result(&c->model.layers[k], &c->layers[k]);
        for (int j = 0; j < COLUMNS; j++)
            all.us[j] += c->layers[k].us[j];
    }
    printf("%-20s %-9s %9s", "all layers", "", "");
    print_times(all.us);
    printf(
        "\n\ntimes are microseconds per image, the median of %d (CPU) and %d (GPU) runs, "
        "copies\n"
        "not counted; reference and simd use one core here; error is the largest\n"
        "difference of simd or GPU from the reference on the same input, bound is what\n"
        "rounding may make of it there; limit is what the GPU's kernel takes most of, and its\n"
        "share of the most that the GPU could give: multiply-adds (fma), exponentials and\n"
        "reciprocals (special), shared or device memory\n",
        CPU_REPEATS, GPU_REPEATS - GPU_WARM);
    print_backend_results(c);
    print_stages(c);
    if (!c->ok)
        printf("\nsomething is WRONG: a result lies outside its bound\n");
    if (!c->columns[GPU])
        printf("\nno GPU column: %s\n", c->why_no_gpu);
}

static json_t *number_or_null(int there, double value) { /* JSON has no NaN */
    return there && isfinite(value) ? json_real(value) : json_null();
}

/* Shares by resource and the one that binds, or null without a GPU. */
static json_t *limits_json(int there, const struct limits *limits) {
    if (!there)
        return json_null();
    json_t *json = json_pack("{s:s}", "binds", RESOURCE_NAMES[limits->binds]);
    for (int k = 0; k < RESOURCES; k++)
        json_object_set_new(json, RESOURCE_NAMES[k], number_or_null(1, limits->share[k]));
    return json;
}

static json_t *stages_json(const struct comparison *c) {
    json_t *list = json_array();
    for (int k = 0; k < c->stage_count; k++)
        for (int j = 0; j < STAGES; j++)
            json_array_append_new(
                list, json_pack("{s:s, s:s, s:f, s:o}", "backend", c->stages[k].backend->name,
                                "stage", STAGE_NAMES[j], "us", c->stages[k].us[j], "limits",
                                limits_json(1, &c->stages[k].limits[j])));
    return list;
}

static json_t *comparison_json(const struct comparison *c, const struct options *o,
                               const struct dataset *set) {
    json_t *layers = json_array(), *list = json_array();
    for (int k = 0; k < c->model.count; k++) {
        const struct layer *l = &c->model.layers[k];
        const struct layer_result *r = &c->layers[k];
        json_array_append_new(
            layers, json_pack("{s:o, s:s, s:[i, i, i], s:I, s:f, s:f, s:o, s:o, s:o, s:b, s:o}",
                              "name", json_name(l->name), "op", op_name(l->op), "out_shape",
                              l->out.c, l->out.h, l->out.w, "macs", (json_int_t)layer_macs(l),
                              "cpu_us", r->us[REFERENCE], "simd_us", r->us[SIMD], "gpu_us",
                              number_or_null(r->us[GPU] >= 0, r->us[GPU]), "max_abs_error",
                              number_or_null(1, r->error), "bound", number_or_null(1, r->bound),
                              "ok", r->ok, "limits", limits_json(r->us[GPU] >= 0, &r->limits)));
    }
    for (int k = 0; k < c->backend_count; k++) {
        const struct backend_result *r = &c->backends[k];
        const int ran = !*r->why_not;
        json_array_append_new(
            list,
            json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "name", r->backend->name,
                      "images_per_second", number_or_null(ran, r->images_per_second),
                      "agreement", number_or_null(ran, (double)r->agreeing / (double)c->images),
                      "max_abs_error", number_or_null(ran, r->error), "upload",
                      number_or_null(ran, r->timing.upload), "compute",
                      number_or_null(ran, r->timing.compute), "download",
                      number_or_null(ran, r->timing.download), "ok",
                      ran ? json_boolean(r->ok) : json_null(), "why_not", r->why_not));
    }
    return json_pack("{s:i, s:s, s:o, s:{s:s, s:I}, s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:b}",
                     "version", JSON_VERSION, "mode", "compare", "weights",
                     json_name(weights_path(o)), "dataset", "name", set->name, "images",
                     (json_int_t)c->images, "batch", c->n, "cpu", c->cpu_name, "gpu",
                     c->gpu.name, "why_no_gpu", c->why_no_gpu, "layers", layers, "backends",
                     list, "stages", stages_json(c), "ok", c->ok);
}

int mode_compare(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {"reference", 0, 0};
    const int wanted = o->batch ? o->batch : COMPARE_BATCH;
    struct comparison *c = (struct comparison *)calloc(1, sizeof *c);
    struct lenet5 *net = NULL;
    struct dataset set;
    int rc = -1;

    memset(&set, 0, sizeof set);
    if (!c)
        return fail(err, "out of memory");
    c->ok = 1;
    if (lenet5_open(&net, weights_path(o), &options, err) ||
        blob_read(&c->model, weights_path(o), err) ||
        open_dataset(&set, o, c->model.dataset, err) || fit_images(&set, lenet5_info(net), err))
        goto out;
    c->n = (size_t)wanted < set.count ? wanted : (int)set.count;
    c->images = set.count;
    find_columns(c);
    if (compare_layers(c, o, &set, err) ||
        compare_backends(c, o, &set, lenet5_info(net)->classes, err) ||
        compare_stages(c, &set, err))
        goto out;
    rc = c->ok ? 0 : 1;
    if (!o->json)
        print_comparison(c, o, &set);
    else if (print_json(comparison_json(c, o, &set), err))
        rc = -1;
out:
    dataset_close(&set);
    lenet5_close(net);
    blob_free(&c->model);
    free(c);
    return rc;
}
