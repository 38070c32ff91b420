/* SPDX-License-Identifier: MIT
 *
 * keras.c - the way of a file through the converter, as keras.h lays it out, and the small
 * things that all steps share.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include "source.h"

#include <jansson.h>
#include <math.h>
#include <sha256.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void keras_options_init(struct keras_options *options) {
    memset(options, 0, sizeof *options);
    options->padding = PADDING_UNKNOWN;
    options->scale = options->offset = NAN;
    options->flip = -1;
}

/* Copies a name for the table: no control characters, which would move the cursor of whoever
   prints it, and no broken UTF-8, which no JSON could hold. */
static void copy_name(char to[NAME_SIZE], const char *from) {
    snprintf(to, NAME_SIZE, "%s", from);
    json_t *valid = json_string(to);
    for (char *s = to; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f || (!valid && (unsigned char)*s > 0x7f))
            *s = '?';
    json_decref(valid);
}

struct unit *keras_add(struct keras *k, enum kind kind, const char *type, const char *name,
                       struct lenet5_error *err) {
    if (k->count == MAX_UNITS) {
        fail(err, "%s: more than %d layers", k->path, MAX_UNITS);
        return NULL;
    }
    struct unit *u = &k->units[k->count++];
    memset(u, 0, sizeof *u);
    u->kind = kind;
    copy_name(u->type, type);
    copy_name(u->name, *name ? name : type);
    return u;
}

int keras_take(struct unit *u, enum role role, struct h5 *h5, const char *path,
               struct lenet5_error *err) {
    if (u->array[role].count)
        return fail(err, "layer '%s' has two arrays for one purpose; the second is '%s'",
                    u->name, path);
    if (h5_floats(h5, path, &u->array[role], err))
        return -1;
    u->parameters += (long long)u->array[role].count;
    return 0;
}

void keras_set_version(struct keras *k, const char *version) {
    k->major = atoi(version);
    if (*version)
        snprintf(k->version, sizeof k->version, "Keras %.40s", version);
    for (char *s = k->version; *s; s++)
        if ((unsigned char)*s < ' ' || (unsigned char)*s > '~')
            *s = '?';
}

void keras_note(struct keras *k, const char *format, ...) {
    va_list args;
    if (k->note_count == MAX_NOTES)
        return;
    va_start(args, format);
    vsnprintf(k->notes[k->note_count++], sizeof *k->notes, format, args);
    va_end(args);
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
    for (char *s = dataset; *s; s++)
        if ((unsigned char)*s < ' ' || (unsigned char)*s > '~')
            *s = '?';
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
    const char *option = o->padding != PADDING_UNKNOWN ? "--padding"
                         : o->activation               ? "--activation"
                         : o->pool                     ? "--pool"
                                                       : NULL;
    if (k->architecture && option)
        return fail(err,
                    "%s holds its architecture, there is nothing for %s to say; leave it out",
                    k->path, option);
    return 0;
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
    for (char *s = m->source; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            *s = '?';
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
    if (options->flip >= 0)
        k->flip = options->flip;
    else if (k->flip && !*k->backend)
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
        weights_read(k, source.h5, err) ||
        read_origin(k, options, source.h5, dataset, &accuracy, err))
        goto out;
    note_writer(k, options, source.h5);
    if ((!k->architecture && guess(k, options, err)) || translate(k, options, m, err))
        goto out;
    memcpy(m->dataset, dataset, sizeof m->dataset);
    m->accuracy = accuracy;
    rc = read_provenance(m, k, err);
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
