/* SPDX-License-Identifier: MIT
 *
 * unit.c - the list of units and what can be asked of one; see keras.h.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void clean_text(char *text) {
    json_t *valid = json_string(text);
    for (char *s = text; *s; s++)
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
    snprintf(u->type, sizeof u->type, "%s", type);
    snprintf(u->name, sizeof u->name, "%s", *name ? name : type);
    clean_text(u->type);
    clean_text(u->name);
    return u;
}

int keras_take(struct unit *u, enum role role, struct h5 *h5, const char *path,
               struct lenet5_error *err) {
    if (u->array[role].count)
        return fail(err, "%s: layer '%s' has two arrays for one purpose; the second is '%s'",
                    h5_name(h5), u->name, path);
    if (h5_floats(h5, path, &u->array[role], err))
        return -1;
    u->parameters += (long long)u->array[role].count;
    return 0;
}

void keras_set_version(struct keras *k, const char *version) {
    k->major = version[0] >= '0' && version[0] <= '9' ? version[0] - '0' : 0;
    if (*version)
        snprintf(k->version, sizeof k->version, "Keras %.40s", version);
    clean_text(k->version);
}

void keras_note(struct keras *k, const char *format, ...) {
    va_list args;
    if (k->note_count == MAX_NOTES)
        return;
    va_start(args, format);
    vsnprintf(k->notes[k->note_count], sizeof *k->notes, format, args);
    va_end(args);
    clean_text(k->notes[k->note_count++]);
}

int unit_needs_arrays(const struct unit *u) {
    int needed = 0;
    for (int role = 0; role < ROLE_END; role++)
        needed |= u->has[role];
    return needed;
}

size_t unit_inputs(const struct unit *u) {
    const size_t *d = u->array[KERNEL].dim;
    if (u->kind == KIND_CONV)
        return d[u->kernel == ORDER_CHW ? 1 : 2];
    return d[u->transposed ? 1 : 0];
}

void unit_scale(const struct unit *u, size_t k, double *s, double *t) {
    double value[ROLE_END] = {[GAMMA] = 1}, deviation = 1;
    for (int role = GAMMA; role < ROLE_END; role++)
        if (u->array[role].count)
            value[role] = u->array[role].data[u->array[role].count > 1 ? k : 0];
    if (u->array[VARIANCE].count)
        deviation = fmax(sqrt(value[VARIANCE] + u->epsilon), u->least_deviation);
    *s = value[GAMMA] / deviation;
    *t = value[BETA] - value[MEAN] * *s;
}

size_t unit_scale_count(const struct unit *u) {
    size_t count = 1;
    for (int role = GAMMA; role < ROLE_END; role++)
        if (u->array[role].count > count)
            count = u->array[role].count;
    return count;
}

void unit_complete_target(struct unit *u, size_t size) {
    long long known = 1;
    int *open = NULL;
    for (int k = 0; k < u->target_rank; k++)
        if (u->target[k] == -1)
            open = &u->target[k];
        else
            known *= u->target[k];
    if (open && known > 0)
        *open = (int)((long long)size / known);
}

int unit_is_uniform(const struct unit *u) {
    double s, t, s0, t0;
    unit_scale(u, 0, &s0, &t0);
    for (size_t k = 1; k < unit_scale_count(u); k++) {
        unit_scale(u, k, &s, &t);
        if (s != s0 || t != t0)
            return 0;
    }
    return 1;
}
