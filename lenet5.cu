/* SPDX-License-Identifier: MIT
 *
 * lenet5.cu - the command: --eval, --compare, --bench, --info, --show. Host code only, in the
 * common subset of C11 and C++17, so that nvcc builds it where there is CUDA and cc -x c where
 * not.
 *
 * In this order: the options (one table feeds parser and help), finding model and data, and
 * then each mode: it computes into a struct, and prints that as text or, with --json, as JSON.
 * Results go to stdout, progress and notes to stderr. Exit 0: good; 1: a check or a run failed;
 * 2: bad usage.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif
#include "backend.h"
#include "idx.h"

#include <float.h>
#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JSON_VERSION = 1, CLASSES = DATASET_CLASSES };

#define SAMPLE_FOLDER "fashion_mnist/sample"

/* ---- options ---------------------------------------------------------------------------- */

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

enum kind { KIND_MODE, KIND_FLAG, KIND_NUMBER, KIND_TEXT };

/* One row an option: what the parser does and what --help says. */
static const struct option {
    const char *name, *argument, *help;
    enum kind kind;
    size_t field; /* offset in struct options */
    int low;      /* the mode, or the least number allowed */
} OPTIONS[] = {
    {"eval", NULL, "accuracy on a test set, per class, and where the time went", KIND_MODE,
     offsetof(struct options, mode), MODE_EVAL},
    {"compare", NULL, "time every layer on CPU and GPU, and check each against the reference",
     KIND_MODE, offsetof(struct options, mode), MODE_COMPARE},
    {"bench", NULL, "throughput and latency of every backend over batch sizes", KIND_MODE,
     offsetof(struct options, mode), MODE_BENCH},
    {"info", NULL, "the network, where its weights come from, and what can run it", KIND_MODE,
     offsetof(struct options, mode), MODE_INFO},
    {"show", "N", "draw image N of the test set, with its label", KIND_NUMBER,
     offsetof(struct options, show), 0},
    {"identify", NULL, "with --eval: try every reading that a weights-only file leaves open",
     KIND_FLAG, offsetof(struct options, identify), 0},
    {"weights", "FILE", "blob to use (default: the one for the data set, in weights/)",
     KIND_TEXT, offsetof(struct options, weights), 0},
    {"data", "DIR", "data folder (default: $LENET5_DATA, else fashion_mnist/data)", KIND_TEXT,
     offsetof(struct options, data), 0},
    {"dataset", "NAME", "mnist, fashion_mnist or sample (default: what the weights are for)",
     KIND_TEXT, offsetof(struct options, dataset), 0},
    {"backend", "NAME", "auto, or one that --info lists (default: auto)", KIND_TEXT,
     offsetof(struct options, backend), 0},
    {"batch", "N", "images that go through at once (default: 4096; --compare: 1000)",
     KIND_NUMBER, offsetof(struct options, batch), 1},
    {"threads", "N", "threads of backend simd (default: all processors it may use)",
     KIND_NUMBER, offsetof(struct options, threads), 1},
    {"limit", "N", "only the first N images (default: all)", KIND_NUMBER,
     offsetof(struct options, limit), 1},
    {"json", NULL, "print everything as JSON", KIND_FLAG, offsetof(struct options, json), 0},
    {"quiet", NULL, "no progress and no notes", KIND_FLAG, offsetof(struct options, quiet), 0},
    {"help", NULL, "this page", KIND_MODE, offsetof(struct options, mode), MODE_HELP},
    {"version", NULL, "the version", KIND_MODE, offsetof(struct options, mode), MODE_VERSION},
};

enum { OPTION_COUNT = sizeof OPTIONS / sizeof *OPTIONS };

static void print_help(FILE *to) {
    fprintf(to, "usage: lenet5 --eval | --compare | --bench | --info | --show N  [options]\n\n"
                "Runs a LeNet-5 from a weights blob (made by make convert) over MNIST or\n"
                "Fashion-MNIST, on the CPU or the GPU.\n\n");
    for (int k = 0; k < OPTION_COUNT; k++)
        fprintf(to, "  --%-8s %-5s %s\n", OPTIONS[k].name,
                OPTIONS[k].argument ? OPTIONS[k].argument : "", OPTIONS[k].help);
    fprintf(to, "\nExit status: 0 good, 1 a check or a run failed, 2 bad usage.\n");
}

/* A mistake in the usage: says it and returns 2. */
static int bad_usage(const char *format, ...) {
    va_list args;
    fprintf(stderr, "lenet5: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see lenet5 --help\n");
    return 2;
}

static int failed(const struct lenet5_error *err) {
    fprintf(stderr, "lenet5: %s\n", err->message);
    return 1;
}

static int set_number(struct options *o, const struct option *option, const char *text) {
    char *end;
    const long value = strtol(text, &end, 10);
    if (end == text || *end || value < option->low || value > 1 << 24)
        return bad_usage("--%s %s: must be a whole number from %d to %d", option->name, text,
                         option->low, 1 << 24);
    *(int *)((char *)o + option->field) = (int)value;
    return 0;
}

static int set_mode(struct options *o, const char *name, int mode) {
    /* --help and --version win over the others, in any order */
    if (o->mode == MODE_HELP || o->mode == MODE_VERSION)
        return 0;
    if (o->mode != MODE_NONE && mode < MODE_HELP)
        return bad_usage(
            "--%s: only one of --eval, --compare, --bench, --info and --show at a time", name);
    o->mode = mode;
    return 0;
}

/* Applies one argument; *k moves over a value that is an argument of its own. */
static int parse_option(struct options *o, int argc, char **argv, int *k) {
    const char *name = argv[*k] + 2, *equals = strchr(argv[*k], '=');
    const size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option *option = OPTIONS;
    if (strncmp(argv[*k], "--", 2))
        return bad_usage("'%s': options begin with --", argv[*k]);
    while (option < OPTIONS + OPTION_COUNT &&
           (strncmp(option->name, name, length) || option->name[length]))
        option++;
    if (option == OPTIONS + OPTION_COUNT)
        return bad_usage("there is no option %s", argv[*k]);
    if (option->kind == KIND_MODE)
        return equals ? bad_usage("--%s takes no value", option->name)
                      : set_mode(o, option->name, option->low);
    if (option->kind == KIND_FLAG) {
        *(int *)((char *)o + option->field) = 1;
        return equals ? bad_usage("--%s takes no value", option->name) : 0;
    }
    if (!equals && *k + 1 == argc)
        return bad_usage("--%s needs a value: %s", option->name, option->argument);
    const char *value = equals ? equals + 1 : argv[++*k];
    if (option->kind == KIND_NUMBER) {
        const int rc = set_number(o, option, value);
        return rc || strcmp(option->name, "show") ? rc : set_mode(o, "show", MODE_SHOW);
    }
    *(const char **)((char *)o + option->field) = value;
    return 0;
}

static int parse_options(struct options *o, int argc, char **argv) {
    struct lenet5_error err;
    memset(o, 0, sizeof *o);
    o->backend = "auto";
    for (int k = 1; k < argc; k++) {
        const int rc = parse_option(o, argc, argv, &k);
        if (rc)
            return rc;
    }
    if (o->mode == MODE_NONE)
        return bad_usage("nothing to do: give --eval, --compare, --bench, --info or --show N");
    if (o->mode == MODE_BENCH && (o->batch || o->limit))
        return bad_usage("--bench chooses its own batches: leave out --batch and --limit");
    if (o->identify && o->mode != MODE_EVAL && o->mode < MODE_HELP)
        return bad_usage("--identify goes with --eval");
    if (o->dataset && strcmp(o->dataset, "mnist") && strcmp(o->dataset, "fashion_mnist") &&
        strcmp(o->dataset, "sample"))
        return bad_usage("--dataset %s: there are mnist, fashion_mnist and sample", o->dataset);
    if (strcmp(o->backend, "auto") && !backend_find(o->backend, &err))
        return bad_usage("%s", err.message);
    if (o->mode == MODE_COMPARE && strcmp(o->backend, "auto"))
        return bad_usage("--compare runs every backend; leave out --backend %s", o->backend);
    return 0;
}

/* ---- finding model and data ------------------------------------------------------------- */

static void note(const struct options *o, const char *format, ...) {
    va_list args;
    if (o->quiet)
        return;
    fprintf(stderr, "note: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* What a data set is called in a sentence. */
static const char *long_name(const struct dataset *set) {
    if (!strcmp(set->name, "sample"))
        return "sample of home-made digits (not MNIST)";
    if (!strcmp(set->name, "unknown"))
        return "data set of unknown content";
    return set->name;
}

static const char *weights_path(const struct options *o) {
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

/* The data set to use for weights that were trained on trained_on ("" if unknown). Where nobody
   named a folder and none is there, the sample takes its place, and that is said. */
static int open_dataset(struct dataset *set, const struct options *o, const char *trained_on,
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

/* Makes the set's images as large as the network wants them, with a border of zeros as
   LeNet-5's 32x32 has it; refuses what is no border. */
static int fit_images(struct dataset *set, const struct lenet5_info *info,
                      struct lenet5_error *err) {
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

/* ---- small helpers of the reports ------------------------------------------------------- */

/* A bar on stderr, when it is a terminal and the work has taken over a second. */
static void progress(const struct options *o, const char *what, double start, size_t done,
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

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

/* 12345 as "12,345"; a ring of buffers, so that several fit into one printf. */
static const char *thousands(long long value) {
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

/* Runs the whole set in pieces, so that there can be progress. */
static int run_all(struct lenet5 *net, const struct options *o, const struct dataset *set,
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

/* A name from outside as JSON, which must be UTF-8: if it is not, its high bytes become '?'. */
static json_t *json_name(const char *name) {
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

/* Prints and frees it. */
static int print_json(json_t *root, struct lenet5_error *err) {
    if (!root)
        return fail(err, "out of memory, or a text that JSON cannot hold");
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
    return 0;
}

/* ---- --eval ----------------------------------------------------------------------------- */

struct evaluation {
    size_t count, correct;
    size_t confusion[CLASSES][CLASSES]; /* [true][predicted] */
    double low, high;                   /* 95 % interval of the accuracy */
    double read_seconds, open_seconds, wall_seconds;
    struct lenet5_timing timing;
};

/* Wilson's score interval for a proportion (Wilson 1927): z = 1.96 for 95 %. */
static void wilson(struct evaluation *e) {
    const double z = 1.959964, n = (double)e->count, p = (double)e->correct / n;
    const double middle = p + z * z / (2 * n);
    const double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    e->low = (middle - half) / (1 + z * z / n);
    e->high = (middle + half) / (1 + z * z / n);
}

/* Fills the counts, the interval and the times of one run over the set. */
static int evaluate(struct lenet5 *net, const struct options *o, const struct dataset *set,
                    struct evaluation *e, struct lenet5_error *err) {
    float *logits = (float *)malloc(set->count * CLASSES * sizeof *logits);
    int rc = -1;
    if (!logits)
        return fail(err, "out of memory for %zu logits", set->count * CLASSES);
    /* one image first, so that loading the kernels is not counted */
    if (!lenet5_run(net, set->images, 1, logits, err)) {
        const double start = clock_seconds();
        rc = run_all(net, o, set, logits, &e->timing, err);
        e->wall_seconds = clock_seconds() - start;
    }
    e->count = set->count;
    e->correct = 0;
    memset(e->confusion, 0, sizeof e->confusion);
    for (size_t i = 0; !rc && i < set->count; i++) {
        const int guess = lenet5_argmax(logits + i * CLASSES, CLASSES);
        e->confusion[set->labels[i]][guess]++;
        e->correct += guess == set->labels[i];
    }
    wilson(e);
    free(logits);
    return rc;
}

struct score {
    double precision, recall, f1;
    size_t support;
};

/* Precision, recall and F1 as scikit-learn defines them; 0 where a denominator is 0. */
static struct score class_score(const struct evaluation *e, int class_) {
    size_t truly = 0, guessed = 0;
    const double hit = (double)e->confusion[class_][class_];
    struct score s = {0, 0, 0, 0};
    for (int k = 0; k < CLASSES; k++) {
        truly += e->confusion[class_][k];
        guessed += e->confusion[k][class_];
    }
    s.support = truly;
    s.precision = guessed ? hit / (double)guessed : 0;
    s.recall = truly ? hit / (double)truly : 0;
    s.f1 = truly + guessed ? 2 * hit / (double)(truly + guessed) : 0;
    return s;
}

/* The mean over classes: all alike, or weighted by their support. */
static struct score mean_score(const struct evaluation *e, int weighted) {
    struct score mean = {0, 0, 0, e->count};
    for (int k = 0; k < CLASSES; k++) {
        const struct score s = class_score(e, k);
        const double share = weighted ? (double)s.support / (double)e->count : 1.0 / CLASSES;
        mean.precision += share * s.precision;
        mean.recall += share * s.recall;
        mean.f1 += share * s.f1;
    }
    return mean;
}

static double accuracy(const struct evaluation *e) {
    return (double)e->correct / (double)e->count;
}

static void print_score(const char *name, const struct score *s) {
    printf("%12s %11.2f%10.2f%10.2f%10zu\n", name, s->precision, s->recall, s->f1, s->support);
}

/* The layout of scikit-learn's classification_report. */
static void print_report(const struct evaluation *e, const struct dataset *set) {
    const struct score macro = mean_score(e, 0), weighted = mean_score(e, 1);
    printf("\n%12s %11s%10s%10s%10s\n\n", "", "precision", "recall", "f1-score", "support");
    for (int k = 0; k < CLASSES; k++) {
        const struct score s = class_score(e, k);
        print_score(set->class_names[k], &s);
    }
    printf("\n%12s %11s%10s%10.2f%10zu\n", "accuracy", "", "", accuracy(e), e->count);
    print_score("macro avg", &macro);
    print_score("weighted avg", &weighted);
    printf("\nconfusion matrix (rows: true class, columns: predicted)\n%12s", "");
    for (int k = 0; k < CLASSES; k++)
        printf("%6d", k);
    for (int row = 0; row < CLASSES; row++) {
        printf("\n%12s", set->class_names[row]);
        for (int k = 0; k < CLASSES; k++)
            printf("%6zu", e->confusion[row][k]);
    }
    printf("\n");
}

static void print_evaluation(const struct evaluation *e, const struct lenet5_info *info,
                             const struct options *o, const struct dataset *set) {
    printf("weights   %s", weights_path(o));
    printf(" (from %s%s%s%s%s)\n", *info->source ? info->source : "an unnamed file",
           *info->source_version ? ", " : "", info->source_version,
           *info->dataset ? ", trained on " : "", info->dataset);
    printf("data      %s, %s images\n", long_name(set), thousands((long long)e->count));
    printf("backend   %s on %s\n\n", info->backend, info->device);
    printf("accuracy  %.2f %%: %s of %s right, 95 %% interval %.2f to %.2f %%\n",
           100 * accuracy(e), thousands((long long)e->correct), thousands((long long)e->count),
           100 * e->low, 100 * e->high);
    print_report(e, set);
    printf("\nspeed     %s images/s\n",
           thousands((long long)((double)e->count / e->wall_seconds)));
    printf("time      read %.1f ms, open %.1f ms, upload %.2f ms, compute %.2f ms, "
           "download %.2f ms\n",
           1e3 * e->read_seconds, 1e3 * e->open_seconds, 1e3 * e->timing.upload,
           1e3 * e->timing.compute, 1e3 * e->timing.download);
}

static json_t *score_json(const char *name, const struct score *s) {
    return json_pack("{s:s, s:f, s:f, s:f, s:I}", "name", name, "precision", s->precision,
                     "recall", s->recall, "f1", s->f1, "support", (json_int_t)s->support);
}

static json_t *evaluation_json(const struct evaluation *e, const struct lenet5_info *info,
                               const struct options *o, const struct dataset *set,
                               const char *hint) {
    json_t *confusion = json_array(), *per_class = json_array();
    const struct score macro = mean_score(e, 0), weighted = mean_score(e, 1);
    for (int row = 0; row < CLASSES; row++) {
        const struct score s = class_score(e, row);
        json_t *counts = json_array();
        for (int k = 0; k < CLASSES; k++)
            json_array_append_new(counts, json_integer((json_int_t)e->confusion[row][k]));
        json_array_append_new(confusion, counts);
        json_array_append_new(per_class, score_json(set->class_names[row], &s));
    }
    return json_pack(
        "{s:i, s:s, s:{s:o, s:o, s:o, s:o, s:o}, s:{s:s, s:I}, s:s, s:s, s:I, s:f, s:[f, f], "
        "s:f, s:o, s:o, s:o, s:o, s:{s:f, s:f, s:f, s:f, s:f, s:f}, s:o}",
        "version", JSON_VERSION, "mode", "eval", "weights", "path", json_name(weights_path(o)),
        "source", json_name(info->source), "source_sha256", json_name(info->source_sha256),
        "source_version", json_name(info->source_version), "trained_on",
        json_name(info->dataset), "dataset", "name", set->name, "images", (json_int_t)e->count,
        "backend", info->backend, "device", info->device, "correct", (json_int_t)e->correct,
        "accuracy", accuracy(e), "interval95", e->low, e->high, "images_per_second",
        (double)e->count / e->wall_seconds, "confusion", confusion, "per_class", per_class,
        "macro_avg", score_json("macro avg", &macro), "weighted_avg",
        score_json("weighted avg", &weighted), "timing", "read", e->read_seconds, "open",
        e->open_seconds, "upload", e->timing.upload, "compute", e->timing.compute, "download",
        e->timing.download, "wall", e->wall_seconds, "hint", json_name(hint));
}

/* Correct answers on another data set, if it is at hand and fits; else -1. */
static double accuracy_elsewhere(struct lenet5 *net, const struct options *o, const char *name,
                                 struct evaluation *e) {
    struct options there = *o;
    struct lenet5_error ignored;
    struct dataset set;
    double found = -1;
    there.dataset = name;
    if (!open_dataset(&set, &there, "", &ignored) &&
        !fit_images(&set, lenet5_info(net), &ignored) && !strcmp(set.name, name) &&
        !evaluate(net, &there, &set, e, &ignored))
        found = accuracy(e);
    dataset_close(&set);
    return found;
}

/* What to tell somebody whose score is poor, or whose file misleads by its name. */
static void make_hint(struct lenet5 *net, const struct options *o, const struct dataset *set,
                      const struct evaluation *e, char *hint, size_t size) {
    const struct lenet5_info *info = lenet5_info(net);
    const int digits = !strcmp(set->name, "mnist");
    const char *other = digits ? "fashion_mnist" : "mnist";
    struct evaluation there;
    hint[0] = '\0';
    const int own = !strcmp(set->name, info->dataset); /* its record counts here */
    if (accuracy(e) > 0.5 && !(own && accuracy(e) < info->accuracy - 0.05)) {
        if (digits && strcasestr(info->source, "fashion"))
            snprintf(hint, size,
                     "%s reads MNIST digits, so this is an MNIST model, whatever its name",
                     info->source);
        return;
    }
    const double found = accuracy_elsewhere(net, o, other, &there);
    if (found > 0.5)
        snprintf(hint, size,
                 "%.2f %% is poor, but on %s, which is at hand, the same weights score %.2f %% "
                 "(%s of %s right): they are for %s, whatever the file's name",
                 100 * accuracy(e), other, 100 * found, thousands((long long)there.correct),
                 thousands((long long)there.count), other);
    else
        snprintf(
            hint, size,
            "%.2f %% is poor%s: ./lenet5 --eval --identify --weights %s tries the scalings, "
            "activations, poolings and layouts that the file may have meant, and names the "
            "options that convert it right",
            100 * accuracy(e), own ? " beside the record in the blob" : "", weights_path(o));
}

/* ---- --eval --identify ------------------------------------------------------------------ */

enum { QUICK_IMAGES = 100, FULL_IMAGES = 2000, FINALISTS = 16, MOST_READINGS = 2048 };

/* One way to understand a file that does not say how it is to be understood. */
struct reading {
    int set;     /* index of the data set */
    int scaling; /* row of SCALINGS */
    int invert, flip, chw, wide;
    enum activation activation;
    enum op pool;
    double score;
};

/* A byte enters as byte * scale + offset; for standardised ones these depend on the set. */
static const struct {
    const char *name;
    double scale, offset;
} SCALINGS[] = {
    {"/255", 1.0 / 255, 0}, {"none", 1, 0}, {"-1..1", 2.0 / 255, -1}, {"standardised", 0, 0}};

/* Mean and standard deviation of the training images, in units of 255. */
static const struct {
    const char *name;
    double mean, deviation;
} SETS[] = {{"mnist", 0.1307, 0.3081}, {"fashion_mnist", 0.2860, 0.3530}};

enum {
    SET_COUNT = sizeof SETS / sizeof *SETS,
    SCALING_COUNT = sizeof SCALINGS / sizeof *SCALINGS
};

static void reading_scale(const struct reading *r, double *scale, double *offset) {
    *scale = SCALINGS[r->scaling].scale;
    *offset = SCALINGS[r->scaling].offset;
    if (*scale == 0) {
        *scale = 1 / (255 * SETS[r->set].deviation);
        *offset = -SETS[r->set].mean / SETS[r->set].deviation;
    }
    if (r->invert) {
        *offset += 255 * *scale;
        *scale = -*scale;
    }
}

/* 28x28 with a border of zeros in the first layer could be 32x32 without one. */
static int may_be_wide(const struct model *m) {
    const struct layer *l = &m->layers[0];
    return l->op == OP_CONV && l->pad_top == 2 && l->pad_left == 2 && l->pad_bottom == 2 &&
           l->pad_right == 2 && m->input.h == 28 && m->input.w == 28;
}

/* Columns of the first dense layer from height-width-channel, which the converter assumed, to
   channel-height-width order. */
static void columns_as_chw(const struct layer *l, const float *from, float *to) {
    const size_t size = shape_size(l->in), map = (size_t)l->in.h * l->in.w;
    for (size_t o = 0; o < (size_t)l->out.c; o++)
        for (size_t k = 0; k < size; k++) {
            const size_t c = k % l->in.c, hw = k / l->in.c; /* what position k was taken for */
            to[o * size + k] = from[o * size + c * map + hw];
        }
}

static void rotate_kernels(const struct layer *l, const float *from, float *to) {
    const size_t window = (size_t)l->kernel_h * l->kernel_w;
    for (size_t k = 0; k < l->weights; k++)
        to[k] = from[k / window * window + window - 1 - k % window];
}

/* m becomes base as r understands it; its floats go to room for as many as base has. */
static void apply_reading(const struct model *base, const struct reading *r, struct model *m,
                          float *room) {
    static const float plain_relu[3] = {0, 0, FLT_MAX};
    double scale, offset;
    *m = *base;
    m->floats = room;
    memcpy(room, base->floats, base->float_count * sizeof *room);
    reading_scale(r, &scale, &offset);
    m->scale = (float)scale;
    m->offset = (float)offset;
    if (r->wide) {
        struct layer *l = &m->layers[0];
        m->input.h = m->input.w = 32;
        l->pad_top = l->pad_left = l->pad_bottom = l->pad_right = 0;
    }
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &m->layers[k];
        float *weight = l->weight ? room + (l->weight - base->floats) : NULL;
        if (l->op == OP_CONV && r->flip)
            rotate_kernels(l, l->weight, weight);
        if (l->op == OP_DENSE && r->chw)
            columns_as_chw(l, l->weight, weight);
        if (l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL)
            l->op = r->pool;
        if (l->activation == ACT_TANH || l->activation == ACT_RELU ||
            l->activation == ACT_SIGMOID) {
            l->activation = r->activation;
            memcpy(l->param, plain_relu, sizeof l->param);
        }
        l->weight = weight;
        l->bias = l->bias ? room + (l->bias - base->floats) : NULL;
    }
}

/* The share of the first count images that the network gets right when read as r. */
static int score_reading(const struct model *base, const struct options *o, struct reading *r,
                         const struct dataset *set, size_t count, float *room,
                         struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, FULL_IMAGES, o->threads};
    const size_t pixels = (size_t)set->channels * set->height * set->width;
    struct model m;
    struct lenet5 *net = NULL;
    uint8_t *blob = NULL;
    size_t size, correct = 0;
    float logits[QUICK_IMAGES * CLASSES];
    int rc = -1;

    count = count < set->count ? count : set->count;
    apply_reading(base, r, &m, room);
    if (network_check(m.layers, m.count, m.input, err) ||
        blob_serialize(&m, &blob, &size, err) ||
        lenet5_open_memory(&net, blob, size, &options, err))
        goto out;
    for (size_t i = 0, n; i < count; i += n) {
        n = count - i < QUICK_IMAGES ? count - i : (size_t)QUICK_IMAGES;
        if (lenet5_run(net, set->images + i * pixels, n, logits, err))
            goto out;
        for (size_t k = 0; k < n; k++)
            correct += lenet5_argmax(logits + k * CLASSES, CLASSES) == set->labels[i + k];
    }
    r->score = (double)correct / (double)count;
    rc = 0;
out:
    lenet5_close(net);
    free(blob);
    return rc;
}

static int compare_readings(const void *a, const void *b) {
    const double x = ((const struct reading *)a)->score, y = ((const struct reading *)b)->score;
    return (x < y) - (x > y);
}

/* Every combination that makes sense: options that change nothing are left out. */
static int list_readings(const struct model *base, const struct dataset *sets,
                         struct reading *readings) {
    static const enum activation acts[] = {ACT_TANH, ACT_RELU, ACT_SIGMOID};
    int pools = 0, maps = 0, count = 0;
    for (int k = 0; k < base->count; k++) {
        const struct layer *l = &base->layers[k];
        pools |= l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL;
        maps |= l->op == OP_DENSE && l->in.c > 1 && l->in.h * l->in.w > 1;
    }
    /* the digits of code are the choices, the last varying fastest */
    for (int code = 0; code < SET_COUNT * SCALING_COUNT * 3 * 2 * 2 * 2 * 2 * 2; code++) {
        struct reading r;
        double scale, offset;
        int rest = code;
        r.score = 0;
        r.wide = rest % 2, rest /= 2;
        r.flip = rest % 2, rest /= 2;
        r.chw = rest % 2, rest /= 2;
        r.invert = rest % 2, rest /= 2;
        r.pool = rest % 2 ? OP_MAX_POOL : OP_AVERAGE_POOL, rest /= 2;
        r.activation = acts[rest % 3], rest /= 3;
        r.scaling = rest % SCALING_COUNT, rest /= SCALING_COUNT;
        r.set = rest;
        reading_scale(&r, &scale, &offset);
        if (sets[r.set].count && (pools || r.pool == OP_AVERAGE_POOL) && (maps || !r.chw) &&
            (!r.flip || base->layers[0].op == OP_CONV) &&
            (!r.wide || (offset != 0 && may_be_wide(base))) && count < MOST_READINGS)
            readings[count++] = r;
    }
    return count;
}

/* The options of h5_to_blob that convert as r reads. */
static const char *reading_options(const struct reading *r, char text[320]) {
    struct reading upright = *r;
    double scale, offset;
    upright.invert = 0;
    reading_scale(&upright, &scale, &offset);
    int at = snprintf(text, 320, "--activation %s --pool %s --scale %.9g --offset %.9g",
                      activation_name(r->activation),
                      r->pool == OP_MAX_POOL ? "max" : "average", scale, offset);
    at += snprintf(text + at, 320 - at, "%s%s%s%s --dataset %s", r->invert ? " --invert" : "",
                   r->flip ? " --flip" : "", r->chw ? " --layout chw" : "",
                   r->wide ? " --input 32x32x1 --padding valid" : "", SETS[r->set].name);
    return text;
}

static void print_readings(const struct reading *readings, int count, const char *source) {
    char text[320];
    printf("%8s  %-13s %-13s %-8s %-10s %-8s %s\n", "score", "data set", "scaling", "pooling",
           "activation", "flatten", "also");
    for (int k = 0; k < count; k++) {
        const struct reading *r = &readings[k];
        printf("%7.2f%%  %-13s %-13s %-8s %-10s %-8s%s%s%s\n", 100 * r->score,
               SETS[r->set].name, SCALINGS[r->scaling].name,
               r->pool == OP_MAX_POOL ? "max" : "average", activation_name(r->activation),
               r->chw ? "chw" : "hwc", r->invert ? " inverted" : "",
               r->flip ? " kernels rotated" : "", r->wide ? " 32x32 valid" : "");
    }
    printf("\nthe best of them: ./h5_to_blob %s OUT.bin %s\n", *source ? source : "FILE.h5",
           reading_options(&readings[0], text));
}

static json_t *readings_json(const struct reading *readings, int count, const char *weights) {
    json_t *list = json_array();
    char text[320];
    for (int k = 0; k < count; k++) {
        const struct reading *r = &readings[k];
        json_array_append_new(
            list,
            json_pack("{s:f, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:s}", "score", r->score,
                      "dataset", SETS[r->set].name, "scaling", SCALINGS[r->scaling].name,
                      "pool", r->pool == OP_MAX_POOL ? "max" : "average", "activation",
                      activation_name(r->activation), "layout", r->chw ? "chw" : "hwc",
                      "invert", r->invert, "flip", r->flip, "wide", r->wide, "options",
                      reading_options(r, text)));
    }
    return json_pack("{s:i, s:s, s:o, s:o}", "version", JSON_VERSION, "mode", "identify",
                     "weights", json_name(weights), "readings", list);
}

/* Opens every data set at hand that the network can be fed with, in 28x28 and in 32x32. */
static int open_sets(const struct options *o, const struct lenet5_info *info,
                     struct dataset *sets, struct dataset *wide) {
    struct lenet5_info large = *info;
    struct lenet5_error ignored;
    struct options each = *o;
    int found = 0;
    large.height = large.width = 32;
    each.limit = o->limit ? o->limit : FULL_IMAGES;
    for (int k = 0; k < SET_COUNT; k++) {
        each.dataset = SETS[k].name;
        if ((o->dataset && strcmp(o->dataset, SETS[k].name)) ||
            open_dataset(&sets[k], &each, "", &ignored) || fit_images(&sets[k], info, &ignored))
            dataset_close(&sets[k]);
        else if (open_dataset(&wide[k], &each, "", &ignored) ||
                 fit_images(&wide[k], &large, &ignored))
            dataset_close(&wide[k]);
        found += sets[k].count > 0;
    }
    return found;
}

/* All readings on a few images, the best of them on more. */
static int mode_identify(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, 0, o->threads};
    struct reading *readings = (struct reading *)calloc(MOST_READINGS, sizeof *readings);
    struct dataset sets[SET_COUNT], wide[SET_COUNT];
    struct lenet5 *net = NULL;
    struct model base;
    float *room = NULL;
    int rc = -1, count = 0, best = 0;
    const double start = clock_seconds();

    memset(sets, 0, sizeof sets);
    memset(wide, 0, sizeof wide);
    memset(&base, 0, sizeof base);
    if (blob_read(&base, weights_path(o), err) ||
        lenet5_open(&net, weights_path(o), &options, err))
        goto out;
    room = (float *)malloc((base.float_count + 1) * sizeof *room);
    if (!readings || !room) {
        fail(err, "out of memory");
        goto out;
    }
    if (!open_sets(o, lenet5_info(net), sets, wide)) {
        fail(err, "no data set here that this network can be fed with: make data fetches both");
        goto out;
    }
    count = list_readings(&base, sets, readings);
    best = count < FINALISTS ? count : FINALISTS;
    for (int round = 0; round < 2; round++) {
        const int tried = round ? best : count;
        for (int k = 0; k < tried; k++) {
            struct reading *r = &readings[k];
            if (score_reading(&base, o, r, r->wide ? &wide[r->set] : &sets[r->set],
                              round ? FULL_IMAGES : QUICK_IMAGES, room, err))
                goto out;
            progress(o, round ? "finalists" : "readings", start, (size_t)k + 1, (size_t)tried);
        }
        qsort(readings, (size_t)tried, sizeof *readings, compare_readings);
    }
    rc = 0;
    if (o->json)
        rc = print_json(readings_json(readings, best, weights_path(o)), err);
    else
        print_readings(readings, best, base.source);
out:
    for (int k = 0; k < SET_COUNT; k++) {
        dataset_close(&sets[k]);
        dataset_close(&wide[k]);
    }
    lenet5_close(net);
    blob_free(&base);
    free(readings);
    free(room);
    return rc;
}

static int mode_eval(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, o->batch, o->threads};
    struct lenet5 *net = NULL;
    struct dataset set;
    struct evaluation e;
    char hint[512];
    int rc = -1;

    memset(&set, 0, sizeof set);
    memset(&e, 0, sizeof e);
    double start = clock_seconds();
    if (lenet5_open(&net, weights_path(o), &options, err))
        goto out;
    e.open_seconds = clock_seconds() - start;
    start = clock_seconds();
    if (open_dataset(&set, o, lenet5_info(net)->dataset, err) ||
        fit_images(&set, lenet5_info(net), err))
        goto out;
    e.read_seconds = clock_seconds() - start;
    if (*lenet5_info(net)->backend_note)
        note(o, "%s", lenet5_info(net)->backend_note);
    if (*lenet5_info(net)->dataset && strcmp(lenet5_info(net)->dataset, set.name))
        note(o, "trained on %s, evaluated on another data set: %s", lenet5_info(net)->dataset,
             long_name(&set));
    if (evaluate(net, o, &set, &e, err))
        goto out;
    make_hint(net, o, &set, &e, hint, sizeof hint);
    rc = 0;
    if (o->json)
        rc = print_json(evaluation_json(&e, lenet5_info(net), o, &set, hint), err);
    else
        print_evaluation(&e, lenet5_info(net), o, &set);
    if (*hint && !o->json)
        printf("\nhint: %s\n", hint);
out:
    dataset_close(&set);
    lenet5_close(net);
    return rc;
}

/* ---- --compare -------------------------------------------------------------------------- */

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
        if ((*b)->on_gpu && (*b)->layer && !(*b)->device(&device, &err)) {
            c->columns[GPU] = *b;
            c->gpu = device;
        }
    if (!c->columns[GPU])
        snprintf(c->why_no_gpu, sizeof c->why_no_gpu, "%s", err.message);
}

static const char *shape_text(struct shape s, char text[48]) {
    if (s.h == 1 && s.w == 1)
        snprintf(text, 48, "%d", s.c);
    else
        snprintf(text, 48, "%dx%dx%d", s.c, s.h, s.w);
    return text;
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

static int mode_compare(const struct options *o, struct lenet5_error *err) {
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

/* ---- --bench ---------------------------------------------------------------------------- */

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
    json_t *points = json_array(), *cold = json_object();
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
    return json_pack("{s:i, s:s, s:o, s:s, s:s, s:o, s:o, s:o}", "version", JSON_VERSION,
                     "mode", "bench", "weights", json_name(weights_path(o)), "cpu", b->cpu_name,
                     "gpu", b->gpu_name, "first_call", cold, "points", points, "gpu_pays_from",
                     b->gpu_pays > 0 ? json_integer(b->gpu_pays) : json_null());
}

/* Random bytes: speed does not depend on what is in the images. */
static int mode_bench(const struct options *o, struct lenet5_error *err) {
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

/* ---- --info ----------------------------------------------------------------------------- */

static const char *origin_text(enum origin origin) {
    return origin == ORIGIN_FILE     ? "said by the file"
           : origin == ORIGIN_OPTION ? "set by an option at conversion"
                                     : "assumed at conversion";
}

static void print_layer(const struct layer *l) {
    char shape[48], window[48] = "";
    if (l->kernel_h)
        snprintf(window, sizeof window, "%dx%d/%d,%d", l->kernel_h, l->kernel_w, l->stride_h,
                 l->stride_w);
    if (l->pad_top || l->pad_left || l->pad_bottom || l->pad_right)
        snprintf(window + strlen(window), sizeof window - strlen(window), " +%d,%d,%d,%d",
                 l->pad_top, l->pad_left, l->pad_bottom, l->pad_right);
    printf("  %-24s %-13s %-12s %-18s %-12s %10s\n", l->name, op_name(l->op),
           shape_text(l->out, shape), window, activation_name(l->activation),
           thousands((long long)(l->weights + l->biases)));
}

static void print_network(const struct model *m, const char *path) {
    char shape[48];
    size_t total = 0;
    int64_t macs = 0;
    printf("network   %s\n\n  %-24s %-13s %-12s %-18s %-12s %10s\n", path, "layer", "op",
           "output", "window/stride +pad", "activation", "parameters");
    printf("  %-24s %-13s %-12s\n", "input", "", shape_text(m->input, shape));
    for (int k = 0; k < m->count; k++) {
        print_layer(&m->layers[k]);
        total += m->layers[k].weights + m->layers[k].biases;
        macs += layer_macs(&m->layers[k]);
    }
    printf("\n  parameters   %s (%s bytes), %s multiply-adds an image\n",
           thousands((long long)total), thousands((long long)(4 * total)), thousands(macs));
    printf("  input        byte * %.9g + %.9g, %s\n", m->scale, m->offset,
           origin_text(m->scaling_origin));
    printf("  from         %s%s%s\n", *m->source ? m->source : "unknown",
           *m->source_version ? ", written by " : "", m->source_version);
    if (*m->source_sha256)
        printf("  SHA-256      %s\n", m->source_sha256);
    printf("  trained on   %s\n", *m->dataset ? m->dataset : "unknown");
    if (m->accuracy > 0)
        printf("  its record   %.2f %% on held-out images\n", 100.0 * m->accuracy);
}

static void print_backend(const struct backend *b) {
    struct lenet5_error why;
    struct device d;
    printf("  %-10s %s: ", b->name, b->summary);
    if (b->device(&d, &why)) {
        printf("not here: %s\n", why.message);
        return;
    }
    printf("%s", d.name);
    if (b->on_gpu)
        printf(", compute capability %d.%d, %d multiprocessors, %s MiB used and %s MiB free, "
               "driver for CUDA %d.%d",
               d.major, d.minor, d.multiprocessors,
               thousands((long long)((d.memory_total - d.memory_free) >> 20)),
               thousands((long long)(d.memory_free >> 20)), d.driver / 1000,
               d.driver % 1000 / 10);
    printf("\n");
}

static json_t *backend_json(const struct backend *b) {
    struct lenet5_error why = {""};
    struct device d;
    const int there = !b->device(&d, &why);
    json_t *json = json_pack("{s:s, s:b, s:s}", "name", b->name, "available", there, "why_not",
                             why.message);
    if (there)
        json_object_set_new(json, "device",
                            json_pack("{s:s, s:[i, i], s:i, s:i, s:I, s:I}", "name", d.name,
                                      "compute_capability", d.major, d.minor, "multiprocessors",
                                      d.multiprocessors, "driver", d.driver, "memory_used",
                                      (json_int_t)(d.memory_total - d.memory_free),
                                      "memory_free", (json_int_t)d.memory_free));
    return json;
}

static json_t *layer_json(const struct layer *l) {
    return json_pack("{s:o, s:s, s:[i, i, i], s:[i, i], s:[i, i], s:[i, i, i, i], s:s, s:I}",
                     "name", json_name(l->name), "op", op_name(l->op), "out_shape", l->out.c,
                     l->out.h, l->out.w, "window", l->kernel_h, l->kernel_w, "stride",
                     l->stride_h, l->stride_w, "pad", l->pad_top, l->pad_left, l->pad_bottom,
                     l->pad_right, "activation", activation_name(l->activation), "parameters",
                     (json_int_t)(l->weights + l->biases));
}

static json_t *info_json(const struct model *m, const char *path) {
    json_t *layers = json_array(), *list = json_array();
    for (int k = 0; k < m->count; k++)
        json_array_append_new(layers, layer_json(&m->layers[k]));
    for (const struct backend *const *b = backends; *b; b++)
        json_array_append_new(list, backend_json(*b));
    return json_pack(
        "{s:i, s:s, s:o, s:[i, i, i], s:f, s:f, s:s, s:o, s:o, s:o, s:o, s:f, s:o, s:o}",
        "version", JSON_VERSION, "mode", "info", "weights", json_name(path), "input",
        m->input.c, m->input.h, m->input.w, "scale", (double)m->scale, "offset",
        (double)m->offset, "scaling_origin", origin_text(m->scaling_origin), "source",
        json_name(m->source), "source_sha256", json_name(m->source_sha256), "source_version",
        json_name(m->source_version), "trained_on", json_name(m->dataset), "recorded_accuracy",
        (double)m->accuracy, "layers", layers, "backends", list);
}

static int mode_info(const struct options *o, struct lenet5_error *err) {
    const char *path = weights_path(o);
    struct model m;
    int rc = 0;
    if (!o->json) { /* the machine can be told about even without weights */
        printf("lenet5 %s\n\nbackends\n", LENET5_VERSION);
        for (const struct backend *const *b = backends; *b; b++)
            print_backend(*b);
        printf("\n");
        fflush(stdout);
    }
    if (blob_read(&m, path, err))
        return -1;
    if (o->json)
        rc = print_json(info_json(&m, path), err);
    else
        print_network(&m, path);
    blob_free(&m);
    return rc;
}

/* ---- --show ----------------------------------------------------------------------------- */

/* One pixel's grey from the first channel (0 outside), ink bright. */
static int grey(const struct dataset *set, size_t image, int row, int column) {
    const size_t pixels = (size_t)set->height * set->width;
    if (row >= set->height)
        return 0;
    return set->images[image * set->channels * pixels + (size_t)row * set->width + column];
}

static int wants_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("COLORTERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term &&
           (!strcmp(term, "truecolor") || !strcmp(term, "24bit"));
}

/* Two image rows a terminal row: the upper half block in two colours, or plain characters. */
static void draw(const struct dataset *set, size_t image) {
    static const char ramp[] = " .:-=+*#%@";
    const int colour = wants_colour();
    for (int row = 0; row < set->height; row += colour ? 2 : 1) {
        for (int k = 0; k < set->width; k++) {
            const int a = grey(set, image, row, k), b = grey(set, image, row + 1, k);
            const char c = ramp[a * (int)(sizeof ramp - 2) / 255];
            if (colour)
                printf("\033[38;2;%d;%d;%dm\033[48;2;%d;%d;%dm\xe2\x96\x80", a, a, a, b, b, b);
            else
                printf("%c%c", c, c);
        }
        printf(colour ? "\033[0m\n" : "\n");
    }
}

static json_t *image_json(const struct dataset *set, size_t image) {
    json_t *rows = json_array();
    for (int row = 0; row < set->height; row++) {
        json_t *pixels = json_array();
        for (int k = 0; k < set->width; k++)
            json_array_append_new(pixels, json_integer(grey(set, image, row, k)));
        json_array_append_new(rows, pixels);
    }
    return rows;
}

static int mode_show(const struct options *o, struct lenet5_error *err) {
    const size_t image = (size_t)o->show;
    struct dataset set;
    if (open_dataset(&set, o, "", err))
        return -1;
    const int label = set.labels[image < set.count ? image : 0];
    int rc = 0;
    if (image >= set.count)
        rc = fail(err, "--show %zu: %s has %zu images, 0 to %zu", image, set.name, set.count,
                  set.count - 1);
    else if (o->json)
        rc = print_json(json_pack("{s:i, s:s, s:s, s:I, s:i, s:s, s:o}", "version",
                                  JSON_VERSION, "mode", "show", "dataset", set.name, "image",
                                  (json_int_t)image, "label", label, "class",
                                  set.class_names[label], "pixels", image_json(&set, image)),
                        err);
    else {
        draw(&set, image);
        printf("image %zu of %s: %s\n", image, long_name(&set), set.class_names[label]);
    }
    dataset_close(&set);
    return rc;
}

/* ---- main ------------------------------------------------------------------------------- */

int main(int argc, char **argv) {
    struct lenet5_error err = {""};
    struct options o;
    int rc = parse_options(&o, argc, argv);
    if (rc)
        return rc;
    switch (o.mode) {
    case MODE_HELP:
        print_help(stdout);
        break;
    case MODE_VERSION:
        printf("lenet5 %s\n", LENET5_VERSION);
        break;
    case MODE_EVAL:
        rc = o.identify ? mode_identify(&o, &err) : mode_eval(&o, &err);
        break;
    case MODE_COMPARE:
        rc = mode_compare(&o, &err);
        break;
    case MODE_BENCH:
        rc = mode_bench(&o, &err);
        break;
    case MODE_INFO:
        rc = mode_info(&o, &err);
        break;
    default:
        rc = mode_show(&o, &err);
    }
    if (rc < 0)
        return failed(&err);
    if (fflush(stdout) || ferror(stdout)) {
        fail(&err, "cannot write the results: is the disk full?");
        return failed(&err);
    }
    return rc;
}
