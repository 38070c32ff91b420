/* SPDX-License-Identifier: MIT
 *
 * ways.c - which image size, paddings, poolings and strides give as many numbers as the first
 * dense layer takes? The likely ones are tried first, then all.
 */
#include "ways.h"

#include <string.h>

enum {
    MAX_CONVS = 8,  /* for whose paddings and pools all combinations are tried */
    MAX_STRIDED = 4 /* the same with their strides */
};

int count_kind(const struct keras *k, enum kind kind) {
    int count = 0;
    for (int i = 0; i < k->count; i++)
        count += k->units[i].kind == kind;
    return count;
}

/* How many numbers reach the first dense layer; 0 if a window does not fit. */
static size_t simulate(const struct keras *k, struct way way, int height, int width) {
    int h = height, w = width, c = 1, conv = 0, padded = 0;
    for (int i = 0; i < k->count && h > 0 && w > 0; i++) {
        const struct unit *u = &k->units[i];
        if (u->kind == KIND_DENSE)
            break;
        if (u->kind == KIND_PADDING) {
            padded = !way.border;
            h += 2 * way.border;
            w += 2 * way.border;
        } else if (u->kind == KIND_POOL) {
            h = u->global ? 1 : window_steps(h, way.pool, way.step);
            w = u->global ? 1 : window_steps(w, way.pool, way.step);
        } else if (u->kind == KIND_CONV) {
            const unsigned bit = conv < 31 ? 1u << conv : 0;
            if (!(way.same & bit) && !padded) {
                h -= u->window[0] - 1;
                w -= u->window[1] - 1;
            }
            if (way.strided & bit) {
                h = (h + 1) / 2;
                w = (w + 1) / 2;
            }
            if (way.pooled & bit) {
                h = window_steps(h, way.pool, way.step);
                w = window_steps(w, way.pool, way.step);
            }
            c = u->outputs;
            padded = 0;
            conv++;
        }
    }
    return h > 0 && w > 0 ? (size_t)c * (size_t)h * (size_t)w : 0;
}

const struct unit *first_of(const struct keras *k, enum kind kind) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == kind)
            return &k->units[i];
    return NULL;
}

const struct unit *last_of(const struct keras *k, enum kind kind) {
    for (int i = k->count - 1; i >= 0; i--)
        if (k->units[i].kind == kind)
            return &k->units[i];
    return NULL;
}

int count_bits(unsigned mask) {
    int count = 0;
    for (; mask; mask &= mask - 1)
        count++;
    return count;
}

/* 28x28 with a same padding and 32x32 without are one computation on a border of zeros. */
static int equal_ways(const struct search *s, struct way a, struct way b) {
    const struct unit *conv = first_of(s->k, KIND_CONV);
    return conv && a.side + conv->window[0] - 1 == b.side && a.pooled == b.pooled &&
           a.same == (b.same | 1) && !(b.same & 1);
}

static void try_way(struct search *s, struct way way) {
    const struct shape in = s->options->input;
    if (s->count == 2 ||
        simulate(s->k, way, in.c ? in.h : way.side, in.c ? in.w : way.side) != s->want)
        return;
    for (int i = 0; i < s->count; i++)
        if (!memcmp(&s->found[i], &way, sizeof way) || equal_ways(s, s->found[i], way))
            return;
    s->found[s->count++] = way;
}

/* Does what --padding says of the first convolutions, or of all, allow these? */
static int padding_allowed(const struct keras_options *o, unsigned same) {
    const unsigned said = (1u << o->padding_count) - 1;
    return (same & said) == (o->padding_same & said);
}

static void try_paddings(struct search *s, struct way way, int every) {
    /* LeNet-5's; else Keras's default, then the other for all */
    const int lenet = s->lenet && !s->global;
    const unsigned likely[] = {lenet ? 1 : 0, lenet ? 0 : s->all, lenet ? s->all : 1};
    for (unsigned i = 0; i < 3; i++) {
        way.same = likely[i] & s->all;
        if (padding_allowed(s->options, way.same))
            try_way(s, way);
    }
    for (way.same = 0; every && way.same <= s->all; way.same++)
        if (padding_allowed(s->options, way.same))
            try_way(s, way);
}

static void try_pools(struct search *s, struct way way, int every) {
    const struct lost *lost = &s->k->lost;
    const int told = lost->units ? lost->average_pools + lost->maximum_pools : -1;
    /* behind each, behind the last only, behind each but the last, which ends on a 1x1 map */
    const unsigned likely[] = {s->all, s->all ^ s->all >> 1, s->all >> 1};
    if (s->k->pools_known) {
        way.pooled = 0;
        try_paddings(s, way, every);
        /* a subclassed model may pool without a layer that could have a name */
        if (!every || s->k->layout == 'F' || first_of(s->k, KIND_POOL) ||
            first_of(s->k, KIND_FLATTEN))
            return;
    }
    for (int i = 0; i < 3; i++)
        if (told < 0 || count_bits(likely[i]) == told) {
            way.pooled = likely[i];
            try_paddings(s, way, every);
        }
    for (way.pooled = s->all; every; way.pooled--) {
        if (told < 0 || count_bits(way.pooled) == told)
            try_paddings(s, way, every);
        if (!way.pooled)
            break;
    }
}

/* Whoever builds on 5x5 windows may have followed LeNet-5 to 32x32; others take the images of
   the data sets as they are. */
static void try_sides(struct search *s, struct way way) {
    const int convs = count_kind(s->k, KIND_CONV), first = way.side,
              second = s->options->input.c ? first : 60 - first; /* --input leaves no choice */
    for (int step = 0; step < 4 && s->count < 2; step++) {
        const int every = s->lenet ? step / 2 : step % 2;
        way.side = (s->lenet ? step % 2 : step / 2) ? second : first;
        if (!every || convs <= MAX_CONVS)
            try_pools(s, way, every);
    }
}

/* Finds how the network must have been for the first dense layer to fit: with pooling of 2x2,
   else of 3x3, else with strides of 2 in convolutions; the first of the likely ways where none
   does, so that the error shows how. */
struct way find_way(struct search *s) {
    static const int windows[][2] = {{2, 2}, {3, 3}, {3, 2}};
    const int convs = count_kind(s->k, KIND_CONV);
    const struct unit *dense = first_of(s->k, KIND_DENSE), *conv = first_of(s->k, KIND_CONV),
                      *last = last_of(s->k, KIND_CONV);
    struct way way = {conv && unit_inputs(conv) == 3 ? 32 : 28, 1, 0, 0, 2, 2, 0};
    s->lenet = conv && conv->window[0] == 5;
    s->all = (1u << (convs < 31 ? convs : 31)) - 1;
    s->want = dense ? unit_inputs(dense) : last ? (size_t)last->outputs : 0;
    way.same = (s->options->padding_count ? s->options->padding_same : 1) & s->all;
    way.pooled = s->k->pools_known ? 0 : s->all;
    const struct way likely = way;
    const int others = s->k->pools_known && first_of(s->k, KIND_POOL);
    const int padded = first_of(s->k, KIND_PADDING) != NULL; /* Keras's default is 1 */
    for (int i = 0; i < (others ? 3 : 1); i++)
        for (way.border = 0; way.border <= padded && !s->count; way.border++) {
            way.pool = windows[i][0];
            way.step = windows[i][1];
            try_sides(s, way);
        }
    way = likely;
    if (s->k->pools_known && convs <= MAX_STRIDED && !padded)
        for (way.strided = 1; !s->count && way.strided <= s->all; way.strided++)
            try_sides(s, way);
    return s->count ? s->found[0] : likely;
}
