/* SPDX-License-Identifier: MIT
 *
 * keras.c - the way of a file through the converter, step by step as keras.h lays it out.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include "source.h"

#include <math.h>
#include <sha256.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void keras_options_init(struct keras_options *options) {
    memset(options, 0, sizeof *options);
    options->scale = options->offset = options->epsilon = options->slope = NAN;
    options->flip = -1;
}

/* What our own trainer records, and what the user says. */
static int read_origin(struct keras *k, const struct keras_options *options, struct h5 *h5,
                       char dataset[32], float *accuracy, struct lenet5_error *err) {
    char *text;
    double number;
    if (h5_text(h5, "", "lenet5_dataset", &text, err))
        return -1;
    snprintf(dataset, 32, "%s", options->dataset ? options->dataset : text ? text : "");
    free(text);
    clean_text(dataset);
    *accuracy = 0;
    if (h5_has(h5, "", "lenet5_accuracy")) {
        if (h5_number(h5, "", "lenet5_accuracy", &number, err))
            return -1;
        if (number < 0 || number > 1)
            return fail(err, "%s: lenet5_accuracy is %g; a fraction of 0 to 1 was expected",
                        k->path, number);
        *accuracy = (float)number;
    }
    return 0;
}

/* The architecture beside the weights or within their file. */
static int read_architecture(struct keras *k, const struct source *s,
                             struct lenet5_error *err) {
    char *inside = NULL;
    int rc = 0;
    if (s->metadata && config_read_metadata(k, s->metadata, err))
        return -1;
    if (!s->config && h5_text(s->h5, "", "model_config", &inside, err))
        return -1;
    const char *json = s->config ? s->config : inside;
    if (json) {
        k->architecture = 1;
        rc = config_read(k, json, err);
    }
    free(inside);
    return rc;
}

/* An architecture says what these options say; both could contradict each other. */
static int check_options(const struct keras *k, const struct keras_options *o,
                         struct lenet5_error *err) {
    const char *option = o->padding_count     ? "--padding"
                         : o->activation      ? "--activation"
                         : o->pool            ? "--pool"
                         : o->batchnorm       ? "--batchnorm"
                         : !isnan(o->epsilon) ? "--epsilon"
                         : !isnan(o->slope)   ? "--slope"
                                              : NULL;
    if (k->architecture && option)
        return fail(err,
                    "%s holds its architecture, there is nothing for %s to say; leave it out",
                    k->path, option);
    return 0;
}

enum { RECORD = 600 }; /* more than all options */

/* Appends an option to what will stand behind the version. */
__attribute__((format(printf, 2, 3))) static void add_option(char record[RECORD],
                                                             const char *format, ...) {
    const size_t used = strlen(record);
    va_list args;
    va_start(args, format);
    if (used)
        record[used] = ' ';
    vsnprintf(record + used + (used > 0), RECORD - used - 1, format, args);
    va_end(args);
}

static void add_paddings(char record[RECORD], const struct keras_options *o) {
    char list[200] = "";
    for (int i = 0; i < o->padding_count; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? "," : "",
                 o->padding_same & 1u << i ? "same" : "valid");
    }
    if (*list)
        add_option(record, "--padding %s", list);
}

/* "act/pool/pad?": of which readings a file of weights leaves open. */
static void add_open(char record[RECORD], const struct keras *k) {
    static const char *const names[] = {"act", "pool", "pad"};
    char list[20] = "";
    for (int i = 0; i < 3; i++)
        if (k->open & 1u << i) {
            const size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s%s", used ? "/" : "", names[i]);
        }
    if (*list)
        add_option(record, "%s?", list);
}

/* Behind the version comes what was recorded; of what finds no room, that there was more. */
static void append_record(struct model *m, const char *record) {
    enum { SIZE = sizeof m->source_version };
    static const char more[] = " ...";
    const char *version = *m->source_version ? m->source_version : "Keras";
    char text[SIZE + 2 + RECORD];
    if (!*record)
        return;
    snprintf(text, sizeof text, "%s, %s", version, record);
    size_t length = strlen(text);
    if (length >= SIZE) { /* whole options only */
        for (length = SIZE - sizeof more; length && strncmp(text + length, " --", 3);)
            length--;
        length = length ? length : SIZE - sizeof more;
        memcpy(text + length, more, sizeof more);
    }
    snprintf(m->source_version, SIZE, "%.63s", text);
}

/* Behind the version, what `lenet5 --identify` must know: what may be read in another way, how
   kernels and last map lay, even where the file says it, and what was said of a file of weights
   only. */
static void record_options(struct model *m, const struct keras *k,
                           const struct keras_options *o) {
    char record[RECORD] = "";
    add_open(record, k);
    if (k->flip || o->flip >= 0)
        add_option(record, "--%s", k->flip ? "flip" : "no-flip");
    if (k->flattened == ORDER_CHW || o->layout)
        add_option(record, "--layout %s", k->flattened == ORDER_CHW ? "chw" : "hwc");
    if (o->activation)
        add_option(record, "--activation %s", o->activation);
    if (o->pool)
        add_option(record, "--pool %s", o->pool == OP_MAX_POOL ? "max" : "average");
    if (o->input.c)
        add_option(record, "--input %dx%d%s", o->input.h, o->input.w,
                   o->input.c == 3 ? "x3" : "");
    add_paddings(record, o);
    if (o->batchnorm)
        add_option(record, "--batchnorm %s", o->batchnorm == PLACE_BEFORE ? "before" : "after");
    if (!isnan(o->epsilon))
        add_option(record, "--epsilon %.9g", o->epsilon);
    if (!isnan(o->slope))
        add_option(record, "--slope %.9g", o->slope);
    if (o->classes)
        add_option(record, "--classes %d", o->classes);
    append_record(m, record);
}

/* Name and digest of the file; of a folder, those of its weights. */
static int read_provenance(struct model *m, const struct keras *k, struct lenet5_error *err) {
    char path[4096], digest[SHA256_DIGEST_STRING_LENGTH];
    size_t length = strlen(k->path);
    while (length > 1 && k->path[length - 1] == '/')
        length--;
    snprintf(path, sizeof path, "%.*s%s", (int)length, k->path,
             k->layout == 'H' ? "/model.weights.h5" : "");
    if (!SHA256File(path, digest))
        return fail(err, "%s: cannot be read again for its digest", path);
    snprintf(m->source_sha256, sizeof m->source_sha256, "%s", digest);
    path[length] = '\0';
    const char *last = strrchr(path, '/');
    snprintf(m->source, sizeof m->source, "%.120s", last && last[1] ? last + 1 : path);
    clean_text(m->source);
    snprintf(m->source_version, sizeof m->source_version, "%s",
             k->layout == 'K' ? "PyTorch" : k->version);
    return 0;
}

/* Notes what follows from who wrote the file, or from its not saying who did. */
static void note_writer(struct keras *k, const struct keras_options *options,
                        const struct h5 *h5) {
    const int keras2 = k->layout == 'D' || k->layout == 'E';
    if (keras2 && (!*k->version || !*k->backend))
        keras_note(k, "the file does not say which Keras wrote it on which backend: Keras 2 on "
                      "TensorFlow (--flip for Theano)");
    if (!k->architecture && *k->base)
        keras_note(k, "the whole model has lost its architecture (model_config)");
    if (*h5_warning(h5))
        keras_note(k, "%s", h5_warning(h5));
    k->flip = options->flip >= 0 ? options->flip : k->theano;
    if (options->flip < 0 && k->theano && !*k->backend)
        keras_note(k, "kernels are rotated by 180 degrees, as Theano stores them (--no-flip)");
}

int keras_read(struct keras *k, struct model *m, const char *path,
               const struct keras_options *options, struct lenet5_error *err) {
    struct source source;
    char dataset[32];
    float accuracy;
    int rc = -1;
    memset(k, 0, sizeof *k);
    memset(m, 0, sizeof *m);
    k->path = path;
    if (source_open(&source, path, err))
        return -1;
    if (weights_find_layout(k, source.h5, source.container, err) ||
        read_architecture(k, &source, err) || check_options(k, options, err) ||
        weights_read(k, source.h5, err) || weights_check(k, err) ||
        read_origin(k, options, source.h5, dataset, &accuracy, err))
        goto out;
    note_writer(k, options, source.h5);
    if ((!k->architecture && guess(k, options, err)) || translate(k, options, m, err))
        goto out;
    memcpy(m->dataset, dataset, sizeof m->dataset);
    m->accuracy = accuracy;
    rc = read_provenance(m, k, err);
    if (!rc)
        record_options(m, k, options);
out:
    source_close(&source);
    if (rc) {
        keras_free(k);
        blob_free(m);
    }
    return rc;
}

void keras_free(struct keras *k) {
    for (int i = 0; i < k->count; i++)
        for (int role = 0; role < ROLE_END; role++)
            tensor_free(&k->units[i].array[role]);
    k->count = 0;
}
