/* SPDX-License-Identifier: MIT
 *
 * v3.c - arrays of the layouts F, G and H: layers/conv2d_1/vars/0.
 *
 * The groups carry the names of classes, numbered within their container, not those that the
 * user gave to layers. Versions differ in how they number (2.13 leaves every second number out)
 * and in what the container is called, and Windows has left backslashes in link names. So all
 * groups that own numbered data sets are listed first, each with a cleaned path, and then
 * matched: the n-th layer of a class with the n-th group of that class. Without an architecture
 * the groups of layers without arrays are taken as well, in the order in which all were made,
 * which is the model's (links.c); order.c looks whether it can be.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HOLDERS = 512, MAX_VISITS = 8192, MAX_DEPTH = 16, PATH = 512 };

/* A layer's group: its subgroup vars holds data sets, or nothing in a layer of a list. */
struct holder {
    char literal[PATH]; /* as HDF5 knows it */
    char clean[PATH];   /* with slashes and without containers: "sequential/conv2d_1" */
    size_t arrays;
    int listed; /* in a model's list of layers, not an attribute of a class of its own */
};

struct search {
    struct h5 *h5;
    struct lenet5_error *err;
    int visits, count;
    int unordered;         /* some group does not tell in which order its links were made */
    int lists, sorted;     /* groups with several others; those that go by the alphabet */
    struct holder *holder; /* owned */
};

static int is_number(const char *name) {
    return *name && !name[strspn(name, "0123456789")];
}

/* State of training and of random generators is nobody's weight. */
static int is_state(const char *step) {
    static const char *const states[] = {"optimizer",       "metrics",          "_metrics",
                                         "compile_metrics", "_compile_metrics", "_loss_tracker",
                                         "loss_tracker",    "seed_generator"};
    for (size_t k = 0; k < sizeof states / sizeof *states; k++)
        if (!strncmp(step, states[k], strlen(states[k])))
            return 1;
    return 0;
}

static int is_container(const char *step) {
    return !strcmp(step, "layers") || !strcmp(step, "_layer_checkpoint_dependencies");
}

/* The path without containers, with slashes only; -1 if a step of it is state. */
static int clean_path(const char *literal, char clean[PATH], int *listed) {
    char copy[PATH], *rest;
    size_t used = 0;
    int container = 0;
    snprintf(copy, sizeof copy, "%s", literal);
    clean[0] = '\0';
    for (char *step = strtok_r(copy, "/\\", &rest); step; step = strtok_r(NULL, "/\\", &rest)) {
        if (is_state(step))
            return -1;
        *listed = container;
        container = is_container(step);
        if (!container)
            used += (size_t)snprintf(clean + used, PATH - used, "%s%s", used ? "/" : "", step);
    }
    return 0;
}

/* How many numbered data sets a group's vars has; *layer says whether there is such a group. */
static int count_arrays(struct search *s, const char *group, int *layer) {
    char path[PATH + 8];
    struct names names;
    int found = 0;
    snprintf(path, sizeof path, "%s/vars", group);
    const int node = h5_node(s->h5, path, s->err);
    *layer = node == NODE_GROUP;
    if (node != NODE_GROUP)
        return node < 0 ? -1 : 0;
    if (h5_list(s->h5, path, &names, s->err))
        return -1;
    for (size_t k = 0; k < names.count && found >= 0; k++)
        found = is_number(names.item[k]) ? found + 1 : -1;
    if (found < 0)
        fail(s->err, "%s is damaged: '%s' holds names that are no numbers", h5_name(s->h5),
             path);
    names_free(&names);
    return found;
}

static int add_holder(struct search *s, const char *group) {
    struct holder h = {.arrays = 0};
    int layer;
    const int found = count_arrays(s, group, &layer);
    const int state = clean_path(group, h.clean, &h.listed);
    if (found < 0)
        return -1;
    if (state || !*h.clean || !(found || h.listed))
        return 0;
    if (!layer) /* Keras gives each one, if an empty one: without it a layer would get lost */
        return fail(s->err, "%s is damaged: layer '%s' has no group 'vars'", h5_name(s->h5),
                    h.clean);
    if (s->count == MAX_HOLDERS)
        return fail(s->err, "%s: more than %d groups hold weights", h5_name(s->h5),
                    MAX_HOLDERS);
    struct holder *more = realloc(s->holder, (size_t)(s->count + 1) * sizeof *more);
    if (!more)
        return fail(s->err, "%s: out of memory", h5_name(s->h5));
    snprintf(h.literal, sizeof h.literal, "%s", group);
    h.arrays = (size_t)found;
    s->holder = more;
    s->holder[s->count++] = h;
    return 0;
}

/* h5repack makes all groups anew, by the alphabet: then their order tells nothing. */
static void look_whether_sorted(struct search *s, const struct names *names) {
    const char *last = NULL;
    int count = 0, sorted = 1;
    for (size_t k = 0; k < names->count; k++) {
        const char *name = names->item[k];
        if (!strcmp(name, "vars") || is_state(name))
            continue;
        sorted &= !last || strcmp(last, name) < 0;
        last = name;
        count++;
    }
    s->lists += count > 1;
    s->sorted += count > 1 && sorted;
}

/* Walks all groups below one, in the order in which they were made, else as people count. Hard
   links may form circles: depth and visits are bounded. */
static int walk(struct search *s, const char *group, int depth) {
    struct names names;
    int rc = 0;
    if (h5_list(s->h5, group, &names, s->err))
        return -1;
    s->unordered |= names.count > 1 && !h5_order_links(s->h5, group, &names);
    look_whether_sorted(s, &names);
    for (size_t k = 0; k < names.count && !rc; k++) {
        char path[PATH];
        const int length =
            snprintf(path, sizeof path, "%s%s%s", group, *group ? "/" : "", names.item[k]);
        if (!strcmp(names.item[k], "vars") || length >= PATH)
            continue;
        if (++s->visits > MAX_VISITS || depth > MAX_DEPTH) {
            rc = fail(s->err, "%s: its groups are nested without end, or more than %d",
                      h5_name(s->h5), MAX_VISITS);
            break;
        }
        const int node = h5_node(s->h5, path, s->err);
        if (node == NODE_GROUP)
            rc = add_holder(s, path) || walk(s, path, depth + 1) ? -1 : 0;
        else if (node < 0)
            rc = -1;
    }
    names_free(&names);
    return rc;
}

/* Finds all holders; s->holder is the caller's to free, also on failure. */
static int find_holders(struct search *s, struct h5 *h5, struct lenet5_error *err) {
    memset(s, 0, sizeof *s);
    s->h5 = h5;
    s->err = err;
    return walk(s, "", 0);
}

int v3_is_subclassed(struct h5 *h5, struct lenet5_error *err) {
    struct search s;
    const int rc = find_holders(&s, h5, err);
    int found = 0;
    for (int i = 0; i < s.count; i++)
        found |= s.holder[i].arrays > 0;
    free(s.holder);
    return rc ? -1 : found;
}

/* ---- reading the arrays of one group ---------------------------------------------------- */

/* Reads vars/0, vars/1, ... of a holder into the roles, in their order, but for those that the
   unit has already. */
static int take_arrays(const struct keras *k, struct unit *u, struct h5 *h5,
                       const struct holder *h, const enum role *roles, size_t count,
                       struct lenet5_error *err) {
    char path[PATH + 32];
    if (h->arrays < count)
        return fail(err, "%s: layer '%s' has %zu arrays in the file, its config asks for %zu",
                    k->path, u->name, h->arrays, count);
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/vars/%zu", h->literal, i);
        if (!u->array[roles[i]].count && keras_take(u, roles[i], h5, path, err))
            return -1;
    }
    return 0;
}

/* ---- with an architecture --------------------------------------------------------------- */

/* "MaxPooling2D" to "max_pooling2d": an underscore before a capital that small letters follow,
   and between a small letter and a capital. */
static void snake_case(const char *type, char snake[NAME_SIZE]) {
    size_t used = 0;
    for (const char *s = type; *s && used < NAME_SIZE - 2; s++) {
        if (s > type && isupper((unsigned char)*s) &&
            (islower((unsigned char)s[1]) || islower((unsigned char)s[-1])))
            snake[used++] = '_';
        snake[used++] = (char)tolower((unsigned char)*s);
    }
    snake[used] = '\0';
}

/* The number of a group that is named after the class: "conv2d" 0, "conv2d_3" 3, else -1. */
static int group_number(const char *step, size_t length, const char *snake) {
    const size_t own = strlen(snake);
    char number[16];
    if (length < own || strncmp(step, snake, own))
        return -1;
    if (length == own)
        return 0;
    if (step[own] != '_' || length - own - 1 >= sizeof number || length - own < 2)
        return -1;
    snprintf(number, sizeof number, "%.*s", (int)(length - own - 1), step + own + 1);
    return is_number(number) && strlen(number) < 9 ? atoi(number) : -1;
}

/* How many layers (or models) of this one's class come before it in its container, counting
   only those that own arrays. place is "Sequential 0/Conv2D 1", start where the step begins
   that counts. */
static int rank_among_units(const struct keras *k, const char *place, size_t start) {
    const size_t type = start + strcspn(place + start, " ");
    const int own = atoi(place + type);
    char seen[MAX_UNITS] = {0};
    int rank = 0;
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        if (!unit_needs_arrays(u) || strncmp(u->place, place, type + 1))
            continue;
        const int other = atoi(u->place + type);
        if (other >= 0 && other < own && other < MAX_UNITS && !seen[other]) {
            seen[other] = 1;
            rank++;
        }
    }
    return rank;
}

/* The number of the rank-th group of a class below a cleaned path; -1 if there are too few. */
static int number_of_rank(const struct search *s, const char *base, const char *snake,
                          int rank) {
    const size_t start = strlen(base);
    int last = -1;
    for (; rank >= 0; rank--) {
        int next = -1;
        for (int i = 0; i < s->count; i++) {
            const char *clean = s->holder[i].clean;
            if (!s->holder[i].arrays || strncmp(clean, base, start))
                continue;
            const int number = group_number(clean + start, strcspn(clean + start, "/"), snake);
            if (number > last && (next < 0 || number < next))
                next = number;
        }
        if (next < 0)
            return -1;
        last = next;
    }
    return last;
}

/* Follows a unit's place through the containers; NULL if there is no such group. */
static const struct holder *holder_of(const struct keras *k, const struct search *s,
                                      const struct unit *u) {
    char path[PATH] = "", type[NAME_SIZE], snake[NAME_SIZE];
    size_t used = 0;
    for (size_t at = 0; u->place[at];) {
        const size_t length = strcspn(u->place + at, " ");
        snprintf(type, sizeof type, "%.*s", (int)length, u->place + at);
        snake_case(type, snake);
        const int number = number_of_rank(s, path, snake, rank_among_units(k, u->place, at));
        if (number < 0 || used + strlen(snake) + 16 > sizeof path)
            return NULL;
        used += (size_t)snprintf(path + used, sizeof path - used, number ? "%s_%d" : "%s",
                                 snake, number);
        at += strcspn(u->place + at, "/");
        if (u->place[at]) {
            at++;
            path[used++] = '/';
            path[used] = '\0';
        }
    }
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->holder[i].clean, path))
            return &s->holder[i];
    return NULL;
}

int v3_attach(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    struct search s;
    int rc = find_holders(&s, h5, err);
    for (int i = 0; i < k->count && !rc; i++) {
        struct unit *u = &k->units[i];
        enum role roles[ROLE_END];
        size_t count = 0;
        for (int role = 0; role < ROLE_END; role++)
            if (u->has[role])
                roles[count++] = (enum role)role;
        if (!count)
            continue;
        const struct holder *h = holder_of(k, &s, u);
        if (!h)
            rc = fail(err, "%s: the weights of layer '%s' (%s) are missing", k->path, u->name,
                      u->type);
        else if (h->arrays > count + u->preprocessing) /* Normalization has a counter */
            rc = fail(err, "%s: layer '%s' has %zu arrays in the file, its config asks for %zu",
                      k->path, u->name, h->arrays, count);
        else
            rc = take_arrays(k, u, h5, h, roles, count, err);
    }
    free(s.holder);
    return rc;
}

/* ---- without one ------------------------------------------------------------------------ */

/* The attribute of a class of its own, as "bn1" or "batch_norm", names a batch normalisation.
 */
static int is_norm_by_name(const char *name) {
    return strstr(name, "bn") || strstr(name, "batch");
}

/* What a group is by its arrays: a kernel of 4 or 2 dimensions and perhaps a bias, or the two
   to four vectors of a normalisation. */
static int collect_arrays(struct keras *k, struct unit *u, struct h5 *h5,
                          const struct holder *h, struct lenet5_error *err) {
    static const enum role matrix[] = {KERNEL, BIAS};
    static const enum role norms[][4] = {
        {0}, {0}, {MEAN, VARIANCE}, {BETA, MEAN, VARIANCE}, {GAMMA, BETA, MEAN, VARIANCE}};
    const int normalization = !strncmp(u->name, "normalization", 13);
    const size_t count = normalization ? 2 : h->arrays; /* the third is a counter */
    if (take_arrays(k, u, h5, h, matrix, 1, err))
        return -1;
    const int rank = u->array[KERNEL].rank;
    u->kernel = ORDER_HWC;
    if ((rank == 4 || rank == 2) && count <= 2) {
        u->kind = rank == 4 ? KIND_CONV : KIND_DENSE;
        snprintf(u->type, sizeof u->type, rank == 4 ? "Conv2D" : "Dense");
        return count == 2 ? take_arrays(k, u, h5, h, matrix, 2, err) : 0;
    }
    if (rank > 1 || (!rank && !normalization) || count < 2 || count > 4)
        return fail(err,
                    "%s: '%s' holds %zu arrays, the first of %d dimensions; only Conv2D, "
                    "Dense and BatchNormalization can be converted",
                    k->path, h->clean, count, rank);
    if (count == 2 && !normalization && !h->listed && !is_norm_by_name(u->name))
        return fail(err,
                    "%s: '%s' holds two vectors, as LayerNormalization does, and its name does "
                    "not say BatchNormalization; only Conv2D, Dense and BatchNormalization can "
                    "be converted",
                    k->path, h->clean);
    u->array[norms[count][0]] = u->array[KERNEL];
    memset(&u->array[KERNEL], 0, sizeof u->array[KERNEL]);
    u->kind = KIND_SCALE;
    u->epsilon = normalization ? 0 : 1e-3;
    u->least_deviation = normalization ? 1e-7 : 0;
    u->preprocessing = normalization;
    snprintf(u->type, sizeof u->type, normalization ? "Normalization" : "BatchNormalization");
    return take_arrays(k, u, h5, h, norms[count], count, err);
}

/* A model in the list of layers: others lie below it. */
static int is_model(const struct search *s, const struct holder *h) {
    const size_t length = strlen(h->clean);
    for (int i = 0; i < s->count; i++)
        if (!strncmp(s->holder[i].clean, h->clean, length) && s->holder[i].clean[length] == '/')
            return 1;
    return 0;
}

int v3_collect(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    struct search s;
    int rc = find_holders(&s, h5, err);
    int empty = 0;
    k->ordered = !s.unordered;
    for (int i = 0; i < s.count && !rc; i++) {
        const struct holder *h = &s.holder[i];
        const char *last = strrchr(h->clean, '/'), *name = last ? last + 1 : h->clean;
        if (!h->arrays && is_model(&s, h))
            continue;
        struct unit *u = keras_add(k, KIND_NOTHING, "", name, err);
        rc = u && !name_check(k, u, err) ? 0 : -1;
        if (!rc && h->arrays)
            rc = collect_arrays(k, u, h5, h, err);
        if (!rc)
            snprintf(u->place, sizeof u->place, "%.255s", h->clean);
        k->ordered &= h->listed;
        empty |= !h->arrays;
    }
    if (empty && s.lists == s.sorted) /* where all own arrays, their sizes tell enough */
        k->ordered = 0;
    free(s.holder);
    return rc;
}
