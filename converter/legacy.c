/* SPDX-License-Identifier: MIT
 *
 * legacy.c - arrays of the layouts A to E: one group a layer.
 *
 *     attribute layer_names            order of the layers
 *     conv2d, attribute weight_names   order of its arrays, each a path below this group
 *     conv2d/conv2d/kernel:0           a data set
 *
 * Neither path nor order is derived from a name: a scope may be called otherwise than its
 * layer, and HDF5 lists by the alphabet. What an array is shows its name's last part.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROLE_IGNORED = ROLE_END, ROLE_NUMBERED, ROLE_STRANGE };

/* Names of arrays; those of Keras 1 stand behind the layer's name: "dense_1_W". */
static const struct {
    const char *name;
    int role, suffix;
} roles[] = {
    {"kernel", KERNEL, 0},      {"bias", BIAS, 0},
    {"gamma", GAMMA, 1},        {"beta", BETA, 1},
    {"moving_mean", MEAN, 0},   {"moving_variance", VARIANCE, 0},
    {"mean", MEAN, 0},          {"variance", VARIANCE, 0},
    {"W", KERNEL, 1},           {"b", BIAS, 1},
    {"running_mean", MEAN, 1},  {"running_std", VARIANCE, 1},
    {"count", ROLE_IGNORED, 0}, {"seed_generator_state", ROLE_IGNORED, 0},
};

/* What an array is, by the last part of its name: "conv2d/kernel:0", "dense_1_W". number is set
   for "param_3", whose meaning is its place. */
static int role_of(const char *path, int *number) {
    const char *last = strrchr(path, '/');
    char name[128];
    snprintf(name, sizeof name, "%s", last ? last + 1 : path);
    name[strcspn(name, ":")] = '\0';
    if (sscanf(name, "param_%d", number) == 1)
        return ROLE_NUMBERED;
    const size_t length = strlen(name);
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
        const size_t own = strlen(roles[k].name);
        if (!strcmp(name, roles[k].name) ||
            (roles[k].suffix && length > own && name[length - own - 1] == '_' &&
             !strcmp(name + length - own, roles[k].name)))
            return roles[k].role;
    }
    return ROLE_STRANGE;
}

/* The scope of an array, "conv2d" in "sequential/conv2d/kernel:0"; empty where there is none.
 */
static void scope_of(const char *path, char scope[NAME_SIZE]) {
    const char *last = strrchr(path, '/'), *start = last ? last : path;
    while (start > path && start[-1] != '/')
        start--;
    snprintf(scope, NAME_SIZE, "%.*s", last ? (int)(last - start) : 0, start);
}

/* Arrays named by number alone count from the kernel, or from gamma. */
static int numbered_role(int first, int number) {
    return number >= 0 && number < ROLE_END - first ? first + number : ROLE_STRANGE;
}

/* The unit among [first, end) that the array belongs to: the one of its scope's name, else the
   first that lacks such an array. All are layers of one outer model, or it is only one. */
static struct unit *find_owner(struct unit *first, struct unit *end, const char *name,
                               int *role) {
    int number = 0;
    char scope[NAME_SIZE];
    const int found = role_of(name, &number);
    struct unit *owner = NULL;
    *role = found;
    scope_of(name, scope);
    for (struct unit *u = first; u < end; u++) {
        int own = found;
        if (found == ROLE_NUMBERED)
            own = numbered_role(u->kind == KIND_SCALE ? GAMMA : KERNEL, number);
        if (own >= ROLE_END || !u->has[own] || u->array[own].count)
            continue;
        const int named = !strcmp(scope, u->name);
        if (!owner || named) {
            *role = own;
            owner = u;
        }
        if (named)
            break;
    }
    return owner;
}

/* Path of a group or, with a name, of an array in it. Cut paths are not found. */
static void join(char path[1024], const char *base, const char *group, const char *name) {
    snprintf(path, 1024, "%s%s%s%s%s", base, *base ? "/" : "", group, *name ? "/" : "", name);
}

static int take_listed(struct keras *k, struct unit *u, int role, struct h5 *h5,
                       const char *group, const char *name, struct lenet5_error *err) {
    char path[1024];
    join(path, k->base, group, name);
    const int node = h5_node(h5, path, err);
    if (node < 0)
        return -1;
    if (node != NODE_DATASET)
        return fail(err, "%s: layer '%s' lists '%s', which is missing", k->path, group, name);
    return keras_take(u, (enum role)role, h5, path, err);
}

static int list_weights(struct keras *k, struct h5 *h5, const char *group, struct names *names,
                        struct lenet5_error *err) {
    char path[1024];
    memset(names, 0, sizeof *names);
    join(path, k->base, group, "");
    const int node = h5_node(h5, path, err);
    if (node < 0)
        return -1;
    if (node != NODE_GROUP)
        return fail(err, "%s: the weights of layer '%s' are missing", k->path, group);
    if (h5_strings(h5, path, "weight_names", names, err))
        return -1;
    /* Keras 1 does not say who wrote: TensorFlow's names end in ":0", Theano's do not */
    if (!*k->backend && names->count && strchr(names->item[0], ':'))
        k->theano = 0;
    return 0;
}

static int attach_group(struct keras *k, struct unit *first, struct unit *end, struct h5 *h5,
                        struct lenet5_error *err) {
    struct names names;
    int rc = list_weights(k, h5, first->group, &names, err);
    for (size_t i = 0; i < names.count && !rc; i++) {
        int role;
        struct unit *u = find_owner(first, end, names.item[i], &role);
        if (role == ROLE_IGNORED)
            continue;
        if (!u)
            rc = fail(err, "%s: layer '%s' lists '%s', for which its config has no use",
                      k->path, first->group, names.item[i]);
        else
            rc = take_listed(k, u, role, h5, first->group, names.item[i], err);
    }
    names_free(&names);
    return rc;
}

int legacy_attach(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    struct unit *end = k->units + k->count;
    for (struct unit *u = k->units, *next; u < end; u = next) {
        int needed = 0;
        for (next = u; next < end && !strcmp(next->group, u->group); next++)
            needed |= unit_needs_arrays(next);
        if (needed && attach_group(k, u, next, h5, err))
            return -1;
    }
    return 0;
}

/* ---- without one ------------------------------------------------------------------------ */

/* What a layer is, by its arrays. */
static int classify(struct keras *k, struct unit *u, struct lenet5_error *err) {
    const int rank = u->array[KERNEL].rank;
    for (int role = 0; role < ROLE_END; role++)
        u->has[role] = u->array[role].count != 0;
    if (u->has[KERNEL] && (rank == 4 || rank == 2)) {
        u->kind = rank == 4 ? KIND_CONV : KIND_DENSE;
        snprintf(u->type, sizeof u->type, rank == 4 ? "Conv2D" : "Dense");
        u->kernel = k->layout == 'A' ? ORDER_CHW : ORDER_HWC;
    } else if (u->has[MEAN] && u->has[VARIANCE]) {
        u->kind = KIND_SCALE;
        u->axis = 0;
        if (!u->preprocessing) {
            snprintf(u->type, sizeof u->type, "BatchNormalization");
            u->epsilon = 1e-3;
        }
    } else
        return fail(err,
                    "%s: layer '%s' has a kernel of %d dimensions; only Conv2D (4) and "
                    "Dense (2) can be converted",
                    k->path, u->name, rank);
    return 0;
}

/* Normalization has a "mean", where batch normalisation has a "moving_mean". */
static void mark_normalization(struct unit *u, int role, const char *path) {
    const char *last = strrchr(path, '/');
    if (role == MEAN && !strncmp(last ? last + 1 : path, "mean", 4)) {
        snprintf(u->type, sizeof u->type, "Normalization");
        u->preprocessing = 1;
        u->least_deviation = 1e-7;
    }
}

/* Makes the units of one group: one, or several where it was a model of its own. */
static int collect_group(struct keras *k, const char *group, const struct names *names,
                         struct h5 *h5, struct lenet5_error *err) {
    const int first = k->count;
    char scope[NAME_SIZE], scopes[MAX_UNITS][NAME_SIZE];
    for (size_t i = 0; i < names->count; i++) {
        int number = 0, role = role_of(names->item[i], &number), unit = first;
        if (role == ROLE_IGNORED)
            continue;
        if (role == ROLE_NUMBERED)
            role = numbered_role(names->count == 4 ? GAMMA : KERNEL, number);
        if (role >= ROLE_END)
            return fail(err,
                        "%s: layer '%s' holds '%s'; only Conv2D, Dense and "
                        "BatchNormalization can be converted",
                        k->path, group, names->item[i]);
        scope_of(names->item[i], scope);
        while (unit < k->count && strcmp(scopes[unit], scope))
            unit++;
        if (unit == k->count) {
            if (!keras_add(k, KIND_NOTHING, "", group, err))
                return -1;
            memcpy(scopes[unit], scope, sizeof scope);
        }
        if (take_listed(k, &k->units[unit], role, h5, group, names->item[i], err))
            return -1;
        mark_normalization(&k->units[unit], role, names->item[i]);
    }
    k->ordered &= k->count <= first + 1; /* of an inner model, only layers with arrays show */
    for (int unit = first; unit < k->count; unit++) {
        if (k->count > first + 1) /* several: the group's name is none of theirs */
            snprintf(k->units[unit].name, NAME_SIZE, "%s", scopes[unit]);
        if (name_check(k, &k->units[unit], err) || classify(k, &k->units[unit], err))
            return -1;
    }
    return 0;
}

/* A layer without arrays. */
static int add_empty(struct keras *k, const char *group, struct lenet5_error *err) {
    const struct unit *u = keras_add(k, KIND_NOTHING, "", group, err);
    return u ? name_check(k, u, err) : -1;
}

/* Layout A: groups layer_0, layer_1, ..., arrays param_0, param_1, ... */
static int list_numbered(struct h5 *h5, const char *group, struct names *names,
                         struct lenet5_error *err) {
    memset(names, 0, sizeof *names);
    return h5_node(h5, group, err) == NODE_GROUP
               ? h5_list(h5, group, names, err)
               : fail(err, "%s: the group '%s' is missing", h5_name(h5), group);
}

static int collect_numbered(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    double count;
    if (h5_number(h5, "", "nb_layers", &count, err))
        return -1;
    if (!(count >= 1 && count <= MAX_UNITS))
        return fail(err, "%s: nb_layers is %g; 1 to %d can be converted", k->path, count,
                    MAX_UNITS);
    for (int layer = 0; layer < (int)count; layer++) {
        char group[32];
        struct names names;
        snprintf(group, sizeof group, "layer_%d", layer);
        int rc = list_numbered(h5, group, &names, err);
        if (!rc && names.count)
            rc = collect_group(k, group, &names, h5, err);
        else if (!rc)
            rc = keras_add(k, KIND_NOTHING, "", group, err) ? 0 : -1;
        names_free(&names);
        if (rc)
            return -1;
    }
    return 0;
}

/* In Keras 1 kernels are HWIO or OIHW, by a setting that the file does not hold: the number of
   outputs is the bias's, the number of inputs that of the layer before. */
static void find_kernel_orders(struct keras *k) {
    size_t channels = 0;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        const size_t *d = u->array[KERNEL].dim, out = u->array[BIAS].count;
        if (u->kind != KIND_CONV)
            continue;
        const int last = !out || d[3] == out, first = !out || d[0] == out;
        const int fits = channels ? d[1] == channels : d[1] == 1 || d[1] == 3;
        u->kernel = first && (!last || (fits && d[2] != channels)) ? ORDER_CHW : ORDER_HWC;
        channels = u->kernel == ORDER_CHW ? d[0] : d[3];
    }
}

int legacy_collect(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    struct names layers, names;
    k->ordered = 1;
    if (k->layout == 'A')
        return collect_numbered(k, h5, err);
    int rc = h5_strings(h5, k->base, "layer_names", &layers, err);
    for (size_t i = 0; i < layers.count && !rc; i++) {
        const char *group = layers.item[i];
        rc = list_weights(k, h5, group, &names, err);
        if (!rc && names.count)
            rc = collect_group(k, group, &names, h5, err);
        else if (!rc)
            rc = add_empty(k, group, err);
        names_free(&names);
    }
    names_free(&layers);
    if (!rc && k->layout == 'B')
        find_kernel_orders(k);
    return rc;
}
