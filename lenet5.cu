/* SPDX-License-Identifier: MIT
 *
 * lenet5.cu - the command: options, help, exit status. One table of options feeds parser and
 * help; what each mode does is in command/. Host code only, in the common subset of C11 and
 * C++17, so that nvcc builds it where there is CUDA and cc -x c where not. Exit 0: good; 1: a
 * check or a run failed; 2: bad usage.
 */
#include "command.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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
