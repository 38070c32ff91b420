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
#include <sys/stat.h>

/* ---- options ---------------------------------------------------------------------------- */

static struct arguments {
    struct keras_options keras;
    const char *input, *output;
    int json, dry_run, quiet, help, version;
} arguments;

enum value { FLAG, WORD, COUNT, NUMBER, TEXT, FUNCTION, SHAPE, PADDINGS };

/* A FLAG sets its field to first, a WORD to first plus the word's place in the argument's list.
 */
static const struct option {
    const char *name, *argument, *help;
    enum value value;
    void *field;
    int first;
} options[] = {
    {"--input", "HxWxC", "size of the images, at most 64x64, 1 or 3 channels", SHAPE,
     &arguments.keras.input, 0},
    {"--padding", "valid|same", "of the first convolution, or of each: same,valid,...",
     PADDINGS, &arguments.keras.padding_count, 0},
    {"--activation", "NAME", "after every layer but the last: tanh, relu, ...", FUNCTION,
     &arguments.keras.activation, 0},
    {"--pool", "average|max", "kind of the pooling layers", WORD, &arguments.keras.pool,
     OP_AVERAGE_POOL},
    {"--batchnorm", "before|after", "place of batch normalisation beside the activation", WORD,
     &arguments.keras.batchnorm, PLACE_BEFORE},
    {"--epsilon", "X", "of batch normalisation (0.001)", NUMBER, &arguments.keras.epsilon, 0},
    {"--slope", "X", "of leaky relus below zero (0.3)", NUMBER, &arguments.keras.slope, 0},
    {"--scale", "X", "a byte is multiplied by X, as 1/255, and ...", NUMBER,
     &arguments.keras.scale, 0},
    {"--offset", "X", "... X is added, before it enters", NUMBER, &arguments.keras.offset, 0},
    {"--invert", NULL, "trained on dark ink: 255 - byte enters", FLAG, &arguments.keras.invert,
     1},
    {"--layout", "hwc|chw", "order in which the last map was flattened", WORD,
     &arguments.keras.layout, ORDER_HWC},
    {"--flip", NULL, "rotate kernels by 180 degrees (Theano) ...", FLAG, &arguments.keras.flip,
     1},
    {"--no-flip", NULL, "... or do not", FLAG, &arguments.keras.flip, 0},
    {"--classes", "N", "outputs that the network must have (10)", COUNT,
     &arguments.keras.classes, 0},
    {"--dataset", "NAME", "what it was trained on: mnist, fashion_mnist", TEXT,
     &arguments.keras.dataset, 0},
    {"--json", NULL, "print what was done as JSON", FLAG, &arguments.json, 1},
    {"--dry-run", NULL, "write nothing; OUT.bin may be left out", FLAG, &arguments.dry_run, 1},
    {"--quiet", NULL, "print no table; errors and --json remain", FLAG, &arguments.quiet, 1},
    {"--help", NULL, "print this", FLAG, &arguments.help, 1},
    {"--version", NULL, "print the version", FLAG, &arguments.version, 1},
};

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

/* The place of a word in a list as "same|valid", -1 if it is not there. */
static int parse_word(const char *text, const char *list) {
    for (int place = 0; *list; place++) {
        const size_t length = strcspn(list, "|");
        if (strlen(text) == length && !strncmp(text, list, length))
            return place;
        list += length + (list[length] == '|');
    }
    return -1;
}

static int parse_shape(const char *text, struct shape *s) {
    char rest;
    s->c = 1;
    const int found = sscanf(text, "%4dx%4dx%4d%c", &s->h, &s->w, &s->c, &rest);
    return (found == 2 || found == 3) && s->h > 0 && s->h <= MAX_SIDE && s->w > 0 &&
                   s->w <= MAX_SIDE && (s->c == 1 || s->c == 3)
               ? 0
               : -1;
}

/* "same" or "valid,same,valid" */
static int parse_paddings(const char *text, struct keras_options *o) {
    o->padding_same = 0;
    for (o->padding_count = 0; o->padding_count < 31; text++) {
        char word[8];
        const size_t length = strcspn(text, ",");
        snprintf(word, sizeof word, "%.*s", length < 7 ? (int)length : 7, text);
        const int valid = parse_word(word, "same|valid");
        if (valid < 0)
            return -1;
        o->padding_same |= (unsigned)!valid << o->padding_count++;
        text += length;
        if (!*text)
            return 0;
    }
    return -1;
}

/* Sets the field of an option; -1 if the text is not what it takes. */
static int set(const struct option *o, const char *text) {
    const int word = o->value == WORD ? parse_word(text, o->argument) : 0;
    struct function function;
    char rest;
    switch (o->value) {
    case FLAG:
    case WORD:
        *(int *)o->field = o->first + word;
        return word < 0 ? -1 : 0;
    case COUNT:
        return sscanf(text, "%5d%c", (int *)o->field, &rest) == 1 && *(int *)o->field > 0 ? 0
                                                                                          : -1;
    case NUMBER:
        return parse_number(text, o->field);
    case SHAPE:
        return parse_shape(text, o->field);
    case PADDINGS:
        return parse_paddings(text, &arguments.keras);
    case FUNCTION:
        *(const char **)o->field = text;
        return keras_function(text, 0, &function);
    default:
        *(const char **)o->field = text;
        return strlen(text) < sizeof((struct model *)0)->dataset ? 0 : -1;
    }
}

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
        if (set(o, o->argument ? argv[++i] : NULL)) {
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

/* Would the blob take the place of the file that it is made from? */
static int same_file(const char *input, const char *output) {
    struct stat in, out;
    return !stat(input, &in) && !stat(output, &out) && in.st_dev == out.st_dev &&
           in.st_ino == out.st_ino;
}

/* Are the results out? A full disk shows only now. */
static int flushed(void) {
    if (!fflush(stdout) && !ferror(stdout))
        return 0;
    fprintf(stderr, "h5_to_blob: cannot write the report: is the disk full?\n");
    return 1;
}

static int convert(void *context) {
    static struct keras k;
    const struct arguments *a = context;
    const char *output = a->dry_run ? NULL : a->output;
    struct model m;
    struct lenet5_error err;
    int rc = keras_read(&k, &m, a->input, &a->keras, &err);
    guard_release();
    if (!rc && output)
        rc = blob_write(&m, output, &err);
    if (!rc && a->json && report_json(&k, &m, output, stdout))
        rc = fail(&err, "cannot write the report: is the memory or the disk full?");
    if (rc)
        fprintf(stderr, "h5_to_blob: %s\n", err.message);
    else if (!a->json && !a->quiet)
        report_text(&k, &m, output, stdout);
    keras_free(&k);
    blob_free(&m);
    return rc ? 1 : flushed();
}

int main(int argc, char **argv) {
    struct lenet5_error err;
    keras_options_init(&arguments.keras);
    const int mistake = parse(&arguments, argc, argv);
    if (mistake)
        return mistake;
    if (arguments.help) {
        print_help();
        return flushed();
    }
    if (arguments.version) {
        printf("h5_to_blob %s\n", LENET5_VERSION);
        return flushed();
    }
    if (arguments.output && same_file(arguments.input, arguments.output)) {
        fprintf(stderr,
                "h5_to_blob: %s and %s are the same file, which would be lost; give "
                "the blob another name\n",
                arguments.input, arguments.output);
        return 1;
    }
    const int status = guard_run(convert, &arguments, arguments.input, &err);
    if (status < 0) {
        fprintf(stderr, "h5_to_blob: %s\n", err.message);
        return 1;
    }
    return status;
}
