/* SPDX-License-Identifier: MIT
 *
 * weights.c - finds out which of Keras's layouts a file has, and checks its arrays against its
 * layers. The layouts, by the letters that the rest of the converter uses:
 *
 *     A  numbered groups layer_0, layer_1, ...        Keras 0.1 to 0.3           legacy.c
 *     B  layer_names, no version                      Keras 1, save_weights
 *     C  the same with model_config                   Keras 1, save
 *     D  layer_names, version, backend                Keras 2, save_weights
 *     E  model_weights and model_config               Keras 2 and 3, save
 *     F  layers/dense/vars/0                          .weights.h5 of 2.12 to 3   v3.c
 *     G  that within a zip with config.json           .keras
 *     H  that unzipped, in a folder
 *     K  data sets conv1.weight at the top            a PyTorch state_dict       torch.c
 */
#include "keras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_group(struct h5 *h5, const char *path) {
    return h5_node(h5, path, NULL) == NODE_GROUP;
}

static int has_list(struct h5 *h5, const char *group) {
    return h5_has(h5, group, "layer_names") || h5_has(h5, group, "layer_names0");
}

static int starts_with(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

/* Version and backend stand at the root, or beside the list of layers. */
static int find_writer(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    const char *const groups[] = {"", k->base};
    for (int g = 0; g < 2; g++) {
        char *version, *backend;
        if (h5_text(h5, groups[g], "keras_version", &version, err))
            return -1;
        if (version && !*k->version)
            keras_set_version(k, version);
        free(version);
        if (h5_text(h5, groups[g], "backend", &backend, err))
            return -1;
        if (backend && !*k->backend)
            snprintf(k->backend, sizeof k->backend, "%s", backend);
        free(backend);
        clean_text(k->backend);
    }
    return 0;
}

static char legacy_letter(const struct keras *k, struct h5 *h5) {
    if (h5_has(h5, "", "model_config"))
        return k->major == 1 ? 'C' : 'E';
    return *k->version || *k->backend ? 'D' : 'B';
}

static int fail_empty(const struct keras *k, struct lenet5_error *err) {
    return fail(err, "%s has no weights (an architecture-only or optimizer-only save)",
                k->path);
}

static int fail_unknown(const struct keras *k, const struct names *top,
                        struct lenet5_error *err) {
    char list[200] = "";
    int weights = 0;
    for (size_t i = 0; i < top->count; i++) {
        const size_t used = strlen(list);
        weights |= !starts_with(top->item[i], "optimizer") && strcmp(top->item[i], "vars") &&
                   strcmp(top->item[i], "model_weights");
        if (used < sizeof list / 2)
            snprintf(list + used, sizeof list - used, "%s%.40s", used ? ", " : "",
                     top->item[i]);
    }
    if (!weights)
        return fail_empty(k, err);
    return fail(err, "%s is HDF5 but not a layout Keras writes; top level holds: %s", k->path,
                list);
}

/* The layouts that are told by what lies at the top level; 0 is none of them. */
static int letter_of_top(struct h5 *h5, const struct names *top, struct lenet5_error *err) {
    size_t sets = 0;
    for (size_t i = 0; i < top->count; i++) {
        const int node = h5_node(h5, top->item[i], err);
        if (node < 0)
            return -1;
        if (!strcmp(top->item[i], "layers") ||
            starts_with(top->item[i], "_layer_checkpoint_dependencies"))
            return 'F';
        sets += node == NODE_DATASET && strchr(top->item[i], '.') != NULL;
    }
    if (sets)
        return 'K';
    const int subclassed = v3_is_subclassed(h5, err);
    return subclassed < 0 ? -1 : subclassed ? 'F' : 0;
}

/* The letter of the layout, or -1. */
static int find_letter(const struct keras *k, struct h5 *h5, char container,
                       const struct names *top, struct lenet5_error *err) {
    if (container != 'h')
        return container == 'z' ? 'G' : 'H';
    if (h5_has(h5, "", "nb_layers"))
        return 'A';
    if (has_list(h5, k->base))
        return legacy_letter(k, h5);
    const int letter = letter_of_top(h5, top, err);
    return letter ? letter : fail_unknown(k, top, err);
}

/* Keras 3 (but not 3.0) leaves layers' names at the groups of their arrays; no version stands
   in a .weights.h5. */
static int is_of_keras3(struct h5 *h5, const char *group) {
    struct names names;
    char vars[300];
    int found = 0;
    if (!is_group(h5, group) || h5_list(h5, group, &names, NULL))
        return 0;
    for (size_t i = 0; i < names.count && !found; i++) {
        snprintf(vars, sizeof vars, "%s/%.250s/vars", group, names.item[i]);
        found = is_group(h5, vars) && h5_has(h5, vars, "name");
    }
    names_free(&names);
    return found;
}

int weights_find_layout(struct keras *k, struct h5 *h5, char container,
                        struct lenet5_error *err) {
    struct names top;
    int letter = -1;
    if (h5_list(h5, "", &top, err))
        return -1;
    k->base = !has_list(h5, "") && is_group(h5, "model_weights") ? "model_weights" : "";
    if (!find_writer(k, h5, err))
        letter = find_letter(k, h5, container, &top, err);
    names_free(&top);
    if (letter < 0)
        return -1;
    k->layout = (char)letter;
    if (letter == 'F' && is_of_keras3(h5, "layers"))
        k->major = 3;
    /* Theano rotates its kernels; before Keras 2 it was the usual backend */
    k->theano = *k->backend ? !strcmp(k->backend, "theano") : letter <= 'C';
    return 0;
}

/* ---- do arrays and layers agree? -------------------------------------------------------- */

static const char *const role_names[ROLE_END] = {"kernel", "bias", "gamma",
                                                 "beta",   "mean", "variance"};

static int check_roles(const struct keras *k, const struct unit *u, struct lenet5_error *err) {
    int want = 0, found = 0;
    const char *missing = "";
    for (int role = 0; role < ROLE_END; role++) {
        const int there = u->array[role].count != 0;
        want += u->has[role];
        found += there;
        if (u->has[role] && !there && !*missing)
            missing = role_names[role];
    }
    if (*missing)
        return fail(err,
                    "%s: layer '%s' has %d arrays in the file, its config asks for %d: %s "
                    "is missing",
                    k->path, u->name, found, want, missing);
    return 0;
}

static int check_kernel(const struct keras *k, const struct unit *u, int rank,
                        const size_t *expected, struct lenet5_error *err) {
    const struct tensor *kernel = &u->array[KERNEL], *bias = &u->array[BIAS];
    char found[64], told[64];
    struct tensor want = {.rank = rank};
    memcpy(want.dim, expected, (size_t)rank * sizeof *expected);
    if (kernel->rank != rank || memcmp(kernel->dim, want.dim, (size_t)rank * sizeof *want.dim))
        return fail(err, "%s: the kernel of layer '%s' is %s, its config asks for %s", k->path,
                    u->name, tensor_shape(kernel, found), tensor_shape(&want, told));
    if (bias->count && (bias->rank != 1 || bias->count != (size_t)u->outputs))
        return fail(err, "%s: layer '%s' has %d outputs, but its bias is %s", k->path, u->name,
                    u->outputs, tensor_shape(bias, found));
    return 0;
}

/* Units made from arrays alone take their numbers from them; those of an architecture must
   agree. Input channels are checked along the chain, by translate.c. */
static int check_conv(const struct keras *k, struct unit *u, struct lenet5_error *err) {
    const size_t *d = u->array[KERNEL].dim;
    const int oihw = u->kernel == ORDER_CHW;
    if (u->array[KERNEL].rank == 4 && !k->architecture) {
        u->window[0] = (int)d[oihw ? 2 : 0];
        u->window[1] = (int)d[oihw ? 3 : 1];
        u->outputs = (int)d[oihw ? 0 : 3];
    }
    const size_t outputs = (size_t)u->outputs, h = (size_t)u->window[0],
                 w = (size_t)u->window[1];
    const size_t hwio[] = {h, w, d[2], outputs}, oihw_dims[] = {outputs, d[1], h, w};
    return check_kernel(k, u, 4, oihw ? oihw_dims : hwio, err);
}

static int check_dense(const struct keras *k, struct unit *u, struct lenet5_error *err) {
    const size_t *d = u->array[KERNEL].dim;
    if (u->array[KERNEL].rank == 2 && !k->architecture)
        u->outputs = (int)d[u->transposed ? 0 : 1];
    const size_t outputs = (size_t)u->outputs;
    const size_t in_out[] = {d[0], outputs}, out_in[] = {outputs, d[1]};
    return check_kernel(k, u, 2, u->transposed ? out_in : in_out, err);
}

static int check_scale(const struct keras *k, const struct unit *u, struct lenet5_error *err) {
    size_t count = 1;
    for (int role = GAMMA; role < ROLE_END; role++) {
        const size_t found = u->array[role].count;
        if (found > 1 && count > 1 && found != count)
            return fail(err, "%s: layer '%s' has arrays of %zu and of %zu numbers", k->path,
                        u->name, count, found);
        count = found > count ? found : count;
    }
    for (size_t i = 0; i < u->array[VARIANCE].count; i++)
        if (!(u->array[VARIANCE].data[i] + u->epsilon >= 0))
            return fail(err, "%s: layer '%s' has a negative variance", k->path, u->name);
    return 0;
}

/* A bias that is missing from one layer only may have been lost. */
static void note_biases(struct keras *k) {
    int with = 0;
    for (int i = 0; i < k->count; i++)
        with += k->units[i].array[BIAS].count != 0;
    for (int i = 0; i < k->count && with && !k->architecture; i++)
        if (k->units[i].array[KERNEL].count && !k->units[i].array[BIAS].count)
            keras_note(k, "layer '%.40s' has no bias", k->units[i].name);
}

int weights_read(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    const int legacy = k->layout <= 'E';
    if (k->architecture)
        return legacy ? legacy_attach(k, h5, err) : v3_attach(k, h5, err);
    if (k->layout == 'K')
        return torch_collect(k, h5, err);
    return legacy ? legacy_collect(k, h5, err) : v3_collect(k, h5, err);
}

int weights_check(struct keras *k, struct lenet5_error *err) {
    int kernels = 0;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        if (check_roles(k, u, err) || (u->kind == KIND_CONV && check_conv(k, u, err)) ||
            (u->kind == KIND_DENSE && check_dense(k, u, err)) ||
            (u->kind == KIND_SCALE && check_scale(k, u, err)))
            return -1;
        kernels += u->array[KERNEL].count != 0;
    }
    note_biases(k);
    return kernels ? 0 : fail_empty(k, err);
}
