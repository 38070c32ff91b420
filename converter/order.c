/* SPDX-License-Identifier: MIT
 *
 * order.c - the order of units that came without a list of layers.
 *
 * In a .weights.h5 as Keras leaves it, the order in which its groups were made is the model's;
 * it is believed when the sizes agree with it. Else of the units without arrays only their
 * number is kept, and the others stand by their names if their sizes allow that, else as their
 * sizes do; this is noted.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- does the order of the groups make sense? ------------------------------------------- */

/* What has been seen on the way through the units. */
struct walked {
    size_t outputs; /* of the last convolution or dense layer; 0 before the first */
    size_t waiting; /* numbers of a normalisation before the first */
    int dense, flat;
};

static int scale_fits(const struct unit *u, struct walked *w) {
    const size_t numbers = unit_scale_count(u);
    if (u->preprocessing)
        return !w->outputs;
    if (!w->outputs) {
        w->waiting = numbers;
        return 1;
    }
    return numbers == w->outputs || (w->flat && !w->dense && numbers % w->outputs == 0);
}

static int kernel_fits(const struct unit *u, struct walked *w) {
    const size_t inputs = unit_inputs(u);
    if (w->dense && u->kind == KIND_CONV)
        return 0;
    if ((w->waiting && w->waiting != inputs) ||
        (w->outputs && (w->dense || u->kind == KIND_CONV) && w->outputs != inputs))
        return 0;
    w->waiting = 0;
    w->outputs = (size_t)u->outputs;
    w->dense |= u->kind == KIND_DENSE;
    return 1;
}

static int makes_sense(const struct keras *k) {
    struct walked w = {0, 0, 0, 0};
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        const int map =
            u->kind == KIND_POOL || u->kind == KIND_PADDING || u->kind == KIND_FLATTEN;
        if ((map && w.dense) || (u->kind == KIND_ACTIVATION && !w.outputs) ||
            (u->kind == KIND_SCALE && !scale_fits(u, &w)) ||
            ((u->kind == KIND_CONV || u->kind == KIND_DENSE) && !kernel_fits(u, &w)))
            return 0;
        w.flat |= u->kind == KIND_FLATTEN;
    }
    return 1;
}

/* ---- else: by their sizes --------------------------------------------------------------- */

static int compare_places(const void *a, const void *b) {
    const struct unit *x = a, *y = b;
    return h5_compare_names(*x->place ? x->place : x->name, *y->place ? y->place : y->name);
}

/* Takes the units without arrays out; how many there were of what remains in k->lost. */
static void lose_empty_units(struct keras *k) {
    struct lost *lost = &k->lost;
    int kept = 0;
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        if (u->kind == KIND_CONV || u->kind == KIND_DENSE || u->kind == KIND_SCALE) {
            k->units[kept++] = *u;
            continue;
        }
        lost->units++;
        if (u->kind == KIND_POOL && u->global)
            snprintf(lost->global, sizeof lost->global, "%s", u->type);
        else if (u->kind == KIND_POOL)
            *(u->maximum ? &lost->maximum_pools : &lost->average_pools) += 1;
        if (u->kind == KIND_ACTIVATION && u->function.activation != ACT_SOFTMAX) {
            lost->activations++;
            if (u->function_known) {
                lost->function = u->function;
                lost->function_known = 1;
            }
        }
    }
    k->count = kept;
    qsort(k->units, (size_t)k->count, sizeof *k->units, compare_places);
}

/* Convolutions begin at the images. Of two normalisations in a row one belongs elsewhere. */
static int names_make_sense(const struct keras *k) {
    const struct unit *previous = NULL;
    int convs = 0;
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        if (previous && previous->kind == KIND_SCALE && u->kind == KIND_SCALE)
            return 0;
        if (u->kind == KIND_CONV && !convs++ && unit_inputs(u) != 1 && unit_inputs(u) != 3)
            return 0;
        previous = u->preprocessing ? NULL : u;
    }
    return makes_sense(k);
}

static int has_producer(const struct keras *k, const struct unit *dense) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_DENSE && &k->units[i] != dense &&
            (size_t)k->units[i].outputs == unit_inputs(dense))
            return 1;
    return 0;
}

/* Would another that is not yet placed fit behind unit i? */
static int has_consumer(const struct keras *k, const char *used, int i) {
    for (int j = 0; j < k->count; j++)
        if (j != i && !used[j] && k->units[j].kind == k->units[i].kind &&
            unit_inputs(&k->units[j]) == (size_t)k->units[i].outputs)
            return 1;
    return 0;
}

/* The unit that comes next behind one of that kind with so many outputs: rather one that the
   chain can go on from; -1 if none is left. */
static int find_next(const struct keras *k, const char *used, enum kind kind, size_t outputs) {
    int any = -1, fits = -1;
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        if (used[i] || u->kind != kind)
            continue;
        any = any < 0 ? i : any;
        if (outputs             ? unit_inputs(u) != outputs
            : kind == KIND_CONV ? unit_inputs(u) != 1 && unit_inputs(u) != 3
                                : has_producer(k, u))
            continue;
        if (has_consumer(k, used, i))
            return i;
        fits = fits < 0 ? i : fits;
    }
    return fits < 0 ? any : fits;
}

/* The scale layer with so many numbers that is not yet placed; -1 if there is none. */
static int find_scale(const struct keras *k, const char *used, size_t numbers) {
    for (int i = 0; i < k->count; i++)
        if (!used[i] && k->units[i].kind == KIND_SCALE &&
            k->units[i].array[MEAN].count == numbers)
            return i;
    return -1;
}

/* Convolutions, then dense layers, each fed by the one before it, each with the batch
   normalisation of its size. */
static int order_by_size(struct keras *k, struct lenet5_error *err) {
    struct unit *sorted = calloc((size_t)k->count + 1, sizeof *sorted);
    char used[MAX_UNITS] = {0};
    int done = 0;
    if (!sorted)
        return fail(err, "%s: out of memory", k->path);
    for (int i = 0; i < k->count; i++)
        if ((used[i] = (char)k->units[i].preprocessing))
            sorted[done++] = k->units[i];
    for (int kind = KIND_CONV; kind <= KIND_DENSE; kind += KIND_DENSE - KIND_CONV) {
        size_t outputs = 0;
        for (int next; (next = find_next(k, used, (enum kind)kind, outputs)) >= 0;) {
            used[next] = 1;
            sorted[done++] = k->units[next];
            outputs = (size_t)k->units[next].outputs;
            if ((next = find_scale(k, used, outputs)) >= 0) {
                used[next] = 1;
                sorted[done++] = k->units[next];
            }
        }
    }
    for (int i = 0; i < k->count; i++)
        if (!used[i])
            sorted[done++] = k->units[i];
    memcpy(k->units, sorted, (size_t)done * sizeof *sorted);
    free(sorted);
    return 0;
}

/* ---- and say so -------------------------------------------------------------------------- */

/* Could unit i stand where another one does? */
static int has_twin(const struct keras *k, int i) {
    const struct unit *u = &k->units[i];
    for (int j = 0; j < k->count; j++) {
        const struct unit *v = &k->units[j];
        if (j != i && v->kind == u->kind && v->outputs == u->outputs &&
            (u->kind == KIND_SCALE ? unit_scale_count(u) == unit_scale_count(v)
                                   : unit_inputs(u) == unit_inputs(v)))
            return 1;
    }
    return 0;
}

/* Notes the names of all units or of those with a twin, as many as there is room for. */
static void note_names(struct keras *k, const char *what, int twins) {
    char list[140] = "";
    int count = 0;
    for (int i = 0; i < k->count; i++) {
        const size_t used = strlen(list);
        if ((twins && !has_twin(k, i)) || !strcmp(list + used - (used >= 3 ? 3 : used), "..."))
            continue;
        if (used + 45 > sizeof list)
            snprintf(list + used, sizeof list - used, ", ...");
        else
            snprintf(list + used, sizeof list - used, "%s%.35s", count ? ", " : "",
                     k->units[i].name);
        count++;
    }
    if (count > 1)
        keras_note(k, "%s: %s", what, list);
}

int order_units(struct keras *k, struct lenet5_error *err) {
    if (k->ordered && makes_sense(k))
        return 0;
    k->ordered = 0;
    lose_empty_units(k);
    const int named = names_make_sense(k);
    if (!named && order_by_size(k, err))
        return -1;
    note_names(k,
               named ? "the file does not tell the order of its layers; by their names"
                     : "the file does not tell the order of its layers; by their sizes",
               0);
    note_names(k, "layers of one size stand in the order of their names", 1);
    return 0;
}
