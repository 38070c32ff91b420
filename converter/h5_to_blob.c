/* SPDX-License-Identifier: MIT
 *
 * h5_to_blob.c - the command that makes a blob of a Keras file:
 *
 *     h5_to_blob [options] FILE OUT.bin
 *
 * One table drives parsing and --help. The work is done in guard.h's process, for FILE may come
 * from a stranger. Exit status: 0 good, 1 failed, 2 bad usage.
 */
#include "guard.h"
#include "keras.h"
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    struct keras_options keras;
    const char *input, *output;
    int json, dry_run, quiet, help, version;
};

/* ---- options ---------------------------------------------------------------------------- */

/* A number, or a fraction as 1/255. */
static int parse_number(const char *text, double *number) {
    char *end;
    *number = strtod(text, &end);
    if (end != text && *end == '/') {
        const char *below = end + 1;
        *number /= strtod(below, &end);
        if (end == below)
            return -1;
    }
    return end == text || *end || !isfinite(*number) ? -1 : 0;
}

/* Index of a word in a list that ends with NULL, -1 if it is not there. */
static int parse_word(const char *text, const char *const *words) {
    for (int k = 0; words[k]; k++)
        if (!strcmp(words[k], text))
            return k;
    return -1;
}

static int set_input(struct arguments *a, const char *text) {
    struct shape *s = &a->keras.input;
    char rest;
    s->c = 1;
    const int found = sscanf(text, "%4dx%4dx%4d%c", &s->h, &s->w, &s->c, &rest);
    return (found == 2 || found == 3) && s->h > 0 && s->h <= MAX_SIDE && s->w > 0 &&
                   s->w <= MAX_SIDE && (s->c == 1 || s->c == 3)
               ? 0
               : -1;
}

static int set_padding(struct arguments *a, const char *text) {
    const int word = parse_word(text, (const char *[]){"valid", "same", NULL});
    a->keras.padding = (enum padding)word;
    return word < 0 ? -1 : 0;
}

static int set_activation(struct arguments *a, const char *text) {
    struct function function;
    a->keras.activation = text;
    return keras_function(text, 0, &function);
}

static int set_pool(struct arguments *a, const char *text) {
    const int word = parse_word(text, (const char *[]){"average", "max", NULL});
    a->keras.pool = word ? OP_MAX_POOL : OP_AVERAGE_POOL;
    return word < 0 ? -1 : 0;
}

static int set_scale(struct arguments *a, const char *text) {
    return parse_number(text, &a->keras.scale);
}

static int set_offset(struct arguments *a, const char *text) {
    return parse_number(text, &a->keras.offset);
}

static int set_invert(struct arguments *a, const char *text) {
    (void)text;
    a->keras.invert = 1;
    return 0;
}

static int set_layout(struct arguments *a, const char *text) {
    const int word = parse_word(text, (const char *[]){"hwc", "chw", NULL});
    a->keras.layout = word ? ORDER_CHW : ORDER_HWC;
    return word < 0 ? -1 : 0;
}

static int set_flip(struct arguments *a, const char *text) {
    (void)text;
    a->keras.flip = 1;
    return 0;
}

static int set_no_flip(struct arguments *a, const char *text) {
    (void)text;
    a->keras.flip = 0;
    return 0;
}

static int set_classes(struct arguments *a, const char *text) {
    char rest;
    return sscanf(text, "%5d%c", &a->keras.classes, &rest) == 1 && a->keras.classes > 0 ? 0
                                                                                        : -1;
}

static int set_dataset(struct arguments *a, const char *text) {
    a->keras.dataset = text;
    return strlen(text) < sizeof((struct model *)0)->dataset ? 0 : -1;
}

static int set_json(struct arguments *a, const char *text) {
    (void)text;
    a->json = 1;
    return 0;
}

static int set_dry_run(struct arguments *a, const char *text) {
    (void)text;
    a->dry_run = 1;
    return 0;
}

static int set_quiet(struct arguments *a, const char *text) {
    (void)text;
    a->quiet = 1;
    return 0;
}

static int set_help(struct arguments *a, const char *text) {
    (void)text;
    a->help = 1;
    return 0;
}

static int set_version(struct arguments *a, const char *text) {
    (void)text;
    a->version = 1;
    return 0;
}

static const struct option {
    const char *name, *argument, *help;
    int (*set)(struct arguments *a, const char *text);
} options[] = {
    {"--input", "HxWxC", "size of the images, at most 64x64, 1 or 3 channels", set_input},
    {"--padding", "same|valid", "of the first convolution", set_padding},
    {"--activation", "NAME", "after every layer but the last: tanh, relu, ...", set_activation},
    {"--pool", "average|max", "kind of the pooling layers", set_pool},
    {"--scale", "X", "a byte is multiplied by X, as 1/255, and ...", set_scale},
    {"--offset", "X", "... X is added, before it enters", set_offset},
    {"--invert", NULL, "trained on dark ink: 255 - byte enters", set_invert},
    {"--layout", "hwc|chw", "order in which the last map was flattened", set_layout},
    {"--flip", NULL, "rotate kernels by 180 degrees (Theano) ...", set_flip},
    {"--no-flip", NULL, "... or do not", set_no_flip},
    {"--classes", "N", "outputs that the network must have (10)", set_classes},
    {"--dataset", "NAME", "what it was trained on: mnist, fashion_mnist", set_dataset},
    {"--json", NULL, "print what was done as JSON", set_json},
    {"--dry-run", NULL, "write nothing; OUT.bin may be left out", set_dry_run},
    {"--quiet", NULL, "print nothing but errors", set_quiet},
    {"--help", NULL, "print this", set_help},
    {"--version", NULL, "print the version", set_version},
};

static void print_help(void) {
    printf(
        "usage: h5_to_blob [options] FILE OUT.bin\n\n"
        "Makes a weights blob for lenet5 of a Keras .h5, .weights.h5 or .keras, or of a\n"
        "PyTorch state_dict in .h5. What the file does not say is assumed and printed; these\n"
        "options say otherwise:\n\n");
    for (size_t k = 0; k < sizeof options / sizeof *options; k++)
        printf("  %-12s %-12s %s\n", options[k].name,
               options[k].argument ? options[k].argument : "", options[k].help);
}

static int usage(const char *what, const char *which) {
    fprintf(stderr, "h5_to_blob: %s%s; see h5_to_blob --help\n", what, which);
    return 2;
}

static const struct option *find_option(const char *name) {
    for (size_t k = 0; k < sizeof options / sizeof *options; k++)
        if (!strcmp(options[k].name, name))
            return &options[k];
    return NULL;
}

/* 0, or the exit status of a mistake. */
static int parse(struct arguments *a, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || !argv[i][1]) {
            if (a->output)
                return usage("one argument too many: ", argv[i]);
            *(a->input ? &a->output : &a->input) = argv[i];
            continue;
        }
        const struct option *o = find_option(argv[i]);
        if (!o)
            return usage("unknown option ", argv[i]);
        if (o->argument && i + 1 == argc)
            return usage("an argument is missing behind ", argv[i]);
        if (o->set(a, o->argument ? argv[++i] : NULL)) {
            fprintf(stderr, "h5_to_blob: %s %s: %s was expected; see h5_to_blob --help\n",
                    o->name, argv[i], o->argument);
            return 2;
        }
    }
    if (a->help || a->version)
        return 0;
    if (!a->input)
        return usage("no FILE to convert", "");
    return a->output || a->dry_run ? 0 : usage("no OUT.bin to write for ", a->input);
}

/* ---- conversion ------------------------------------------------------------------------- */

static int convert(void *context) {
    static struct keras k;
    const struct arguments *a = context;
    const char *output = a->dry_run ? NULL : a->output;
    struct model m;
    struct lenet5_error err;
    if (keras_read(&k, &m, a->input, &a->keras, &err) ||
        (output && blob_write(&m, output, &err))) {
        fprintf(stderr, "h5_to_blob: %s\n", err.message);
        keras_free(&k);
        blob_free(&m);
        return 1;
    }
    if (a->json)
        report_json(&k, &m, output, stdout);
    else if (!a->quiet)
        report_text(&k, &m, output, stdout);
    keras_free(&k);
    blob_free(&m);
    return 0;
}

int main(int argc, char **argv) {
    struct arguments a = {0};
    struct lenet5_error err;
    keras_options_init(&a.keras);
    const int mistake = parse(&a, argc, argv);
    if (mistake)
        return mistake;
    if (a.help) {
        print_help();
        return 0;
    }
    if (a.version) {
        printf("h5_to_blob %s\n", LENET5_VERSION);
        return 0;
    }
    const int status = guard_run(convert, &a, a.input, &err);
    if (status < 0) {
        fprintf(stderr, "h5_to_blob: %s\n", err.message);
        return 1;
    }
    return status;
}
