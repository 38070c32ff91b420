/* SPDX-License-Identifier: MIT
 *
 * guess.c - completes a network of which a file holds nothing but arrays and names.
 *
 * What is betrayed is used: layers without arrays by their names, the order of unordered groups
 * by the sizes that must agree, image size, padding and the places of pooling layers by the
 * number of inputs of the first dense layer. What remains is asked of the options, else assumed
 * as LeNet-5 would have it, and noted.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <ctype.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONVS = 8 }; /* for whose paddings and pools all combinations are tried */

/* ---- names ------------------------------------------------------------------------------ */

/* Parts of the names of layers without arrays; the first that fits decides. The type is
   Keras's class, or empty where only the kind is told; the function of an activation may be
   unknown as well. */
static const struct {
    const char *part;
    enum kind kind;
    const char *type, *function;
} hints[] = {
    {"global_average", KIND_POOL, "GlobalAveragePooling2D", NULL},
    {"globalaverage", KIND_POOL, "GlobalAveragePooling2D", NULL},
    {"global_max", KIND_POOL, "GlobalMaxPooling2D", NULL},
    {"globalmax", KIND_POOL, "GlobalMaxPooling2D", NULL},
    {"softmax", KIND_ACTIVATION, "Softmax", "softmax"},
    {"average", KIND_POOL, "AveragePooling2D", NULL},
    {"avg", KIND_POOL, "AveragePooling2D", NULL},
    {"max", KIND_POOL, "MaxPooling2D", NULL},
    {"pool", KIND_POOL, "", NULL},
    {"sampl", KIND_POOL, "", NULL},
    {"padding", KIND_PADDING, "ZeroPadding2D", NULL},
    {"leaky", KIND_ACTIVATION, "LeakyReLU", "leaky"},
    {"re_lu", KIND_ACTIVATION, "ReLU", "relu"},
    {"relu", KIND_ACTIVATION, "ReLU", "relu"},
    {"elu", KIND_ACTIVATION, "ELU", "elu"},
    {"tanh", KIND_ACTIVATION, "Activation", "tanh"},
    {"sigmoid", KIND_ACTIVATION, "Activation", "sigmoid"},
    {"activity", KIND_NOTHING, "ActivityRegularization", NULL},
    {"activation", KIND_ACTIVATION, "Activation", ""},
    {"flatten", KIND_FLATTEN, "Flatten", NULL},
    {"reshape", KIND_NOTHING, "Reshape", NULL},
    {"dropout", KIND_NOTHING, "Dropout", NULL},
    {"noise", KIND_NOTHING, "GaussianNoise", NULL},
    {"rescaling", KIND_NOTHING, "Rescaling", NULL},
    {"input", KIND_NOTHING, "InputLayer", NULL},
};

static void make_pool(struct unit *u, const char *type) {
    u->kind = KIND_POOL;
    u->maximum = strstr(type, "Max") != NULL;
    u->global = !strncmp(type, "Global", 6);
    u->window[0] = u->window[1] = 2;
    snprintf(u->type, sizeof u->type, "%s", type);
}

static void make_activation(struct unit *u, const char *function,
                            const struct function *assumed) {
    u->kind = KIND_ACTIVATION;
    u->function = *assumed;
    if (!strcmp(function, "leaky"))
        u->function = (struct function){ACT_RELU, {0.3f, 0, FLT_MAX}};
    else if (*function)
        keras_function(function, 0, &u->function);
}

/* What a layer without arrays is, by its name. S2 and S4 are LeCun's names for subsampling.
   Returns 1 if it is a pooling of a kind that had to be assumed. */
static int read_name(struct unit *u, const char *pool, const struct function *assumed) {
    const size_t count = sizeof hints / sizeof *hints;
    char name[NAME_SIZE] = "";
    size_t h = 0;
    for (size_t i = 0; u->name[i]; i++)
        name[i] = (char)tolower((unsigned char)u->name[i]);
    while (h < count && !strstr(name, hints[h].part))
        h++;
    const int subsampling = name[0] == 's' && isdigit((unsigned char)name[1]);
    if (subsampling || (h < count && hints[h].kind == KIND_POOL && !*hints[h].type)) {
        make_pool(u, pool);
        return 1;
    }
    if (h == count)
        return 0;
    snprintf(u->type, sizeof u->type, "%s", hints[h].type);
    u->kind = hints[h].kind;
    if (u->kind == KIND_POOL)
        make_pool(u, hints[h].type);
    if (u->kind == KIND_ACTIVATION)
        make_activation(u, hints[h].function, assumed);
    return 0;
}

/* ---- order ------------------------------------------------------------------------------ */

static int has_producer(const struct keras *k, const struct unit *dense) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_DENSE && &k->units[i] != dense &&
            (size_t)k->units[i].outputs == unit_inputs(dense))
            return 1;
    return 0;
}

/* The unit that comes next behind one of that kind with so many outputs; -1 if none is left. */
static int find_next(const struct keras *k, const char *used, enum kind kind, size_t outputs) {
    int any = -1;
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        if (used[i] || u->kind != kind)
            continue;
        if (outputs             ? unit_inputs(u) == outputs
            : kind == KIND_CONV ? unit_inputs(u) == 1 || unit_inputs(u) == 3
                                : !has_producer(k, u))
            return i;
        any = any < 0 ? i : any;
    }
    return any;
}

/* The scale layer with so many numbers that is not yet placed; -1 if there is none. */
static int find_scale(const struct keras *k, const char *used, size_t numbers) {
    for (int i = 0; i < k->count; i++)
        if (!used[i] && k->units[i].kind == KIND_SCALE &&
            k->units[i].array[MEAN].count == numbers)
            return i;
    return -1;
}

/* Puts units that came in no order into the one that their sizes allow: convolutions, then
   dense layers, each fed by the one before it, each with the batch normalisation of its size.
 */
static int order_units(struct keras *k, struct lenet5_error *err) {
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

/* ---- shapes ----------------------------------------------------------------------------- */

/* One way in which the network might have been: bit i of the masks is convolution i's. */
struct way {
    int side;
    unsigned same, pooled;
};

static int count_kind(const struct keras *k, enum kind kind) {
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
        if (u->kind == KIND_PADDING)
            padded = 1;
        else if (u->kind == KIND_POOL) {
            h = u->global ? 1 : h / 2;
            w = u->global ? 1 : w / 2;
        } else if (u->kind == KIND_CONV) {
            const unsigned bit = conv < 31 ? 1u << conv : 0;
            if (!(way.same & bit) && !padded) {
                h -= u->window[0] - 1;
                w -= u->window[1] - 1;
            }
            if (way.pooled & bit) {
                h = h / 2;
                w = w / 2;
            }
            c = u->outputs;
            padded = 0;
            conv++;
        }
    }
    return h > 0 && w > 0 ? (size_t)c * (size_t)h * (size_t)w : 0;
}

static const struct unit *first_of(const struct keras *k, enum kind kind) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == kind)
            return &k->units[i];
    return NULL;
}

static int bits(unsigned mask) {
    int count = 0;
    for (; mask; mask &= mask - 1)
        count++;
    return count;
}

/* Everything that is tried, the likely first. */
struct search {
    const struct keras *k;
    const struct keras_options *options;
    unsigned all; /* mask of all convolutions */
    size_t want;  /* inputs of the first dense layer */
    struct way found[2];
    int count; /* of the ways found, which give different results */
};

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

static void try_paddings(struct search *s, struct way way, int every) {
    const enum padding told = s->options->padding;
    const unsigned likely[] = {1, 0, s->all};
    for (unsigned i = 0; i < 3; i++)
        if (told == PADDING_UNKNOWN || (told == PADDING_SAME) == (likely[i] != 0)) {
            way.same = likely[i] & s->all;
            try_way(s, way);
        }
    for (way.same = 0; every && told == PADDING_UNKNOWN && way.same <= s->all; way.same++)
        try_way(s, way);
}

static void try_pools(struct search *s, struct way way, int every) {
    const int told = s->k->average_pools + s->k->maximum_pools;
    /* behind each, behind the last only, behind each but the last, which ends on a 1x1 map */
    const unsigned likely[] = {s->all, s->all ^ s->all >> 1, s->all >> 1};
    if (s->k->pools_known) {
        way.pooled = 0;
        try_paddings(s, way, every);
        /* a subclassed model may pool without a layer that could have a name */
        if (!every || first_of(s->k, KIND_POOL))
            return;
    }
    for (int i = 0; i < 3; i++)
        if (!told || bits(likely[i]) == told) {
            way.pooled = likely[i];
            try_paddings(s, way, every);
        }
    for (way.pooled = s->all; every; way.pooled--) {
        if (!told || bits(way.pooled) == told)
            try_paddings(s, way, every);
        if (!way.pooled)
            break;
    }
}

/* Finds how the network must have been for the first dense layer to fit; the first of the
   likely ways where none does, so that the error shows how. */
static struct way find_way(struct search *s) {
    const int convs = count_kind(s->k, KIND_CONV);
    const struct unit *dense = first_of(s->k, KIND_DENSE), *conv = first_of(s->k, KIND_CONV);
    const int colour = conv && unit_inputs(conv) == 3,
              sides[] = {colour ? 32 : 28, colour ? 28 : 32};
    struct way way = {28, 1, 0};
    s->all = (1u << (convs < 31 ? convs : 31)) - 1;
    s->want = dense ? unit_inputs(dense) : 0;
    way.same = s->options->padding == PADDING_VALID ? 0 : 1 & s->all;
    way.pooled = s->k->pools_known ? 0 : s->all;
    for (int every = 0; every < (convs <= MAX_CONVS ? 2 : 1) && !s->count; every++)
        for (int i = 0; i < 2; i++) {
            way.side = sides[i];
            try_pools(s, way, every);
        }
    way.side = sides[0];
    return s->count ? s->found[0] : way;
}

/* ---- completion ------------------------------------------------------------------------- */

static struct unit *insert(struct keras *k, int at, enum kind kind, const char *type,
                           const char *name, struct lenet5_error *err) {
    if (!keras_add(k, kind, type, name, err))
        return NULL;
    const struct unit made = k->units[k->count - 1];
    memmove(&k->units[at + 1], &k->units[at], (size_t)(k->count - 1 - at) * sizeof *k->units);
    k->units[at] = made;
    return &k->units[at];
}

/* The index behind a convolution and its batch normalisation and activation. */
static int behind(const struct keras *k, int i) {
    do
        i++;
    while (i < k->count &&
           (k->units[i].kind == KIND_SCALE || k->units[i].kind == KIND_ACTIVATION));
    return i;
}

static int insert_pools(struct keras *k, struct way way, const char *pool,
                        struct lenet5_error *err) {
    int conv = 0, pools = 0;
    for (int i = 0; i < k->count; i++) {
        if (k->units[i].kind != KIND_CONV)
            continue;
        if (conv < 31 && (way.pooled & 1u << conv)) {
            char name[32];
            snprintf(name, sizeof name, "pool%d", ++pools);
            struct unit *u = insert(k, behind(k, i), KIND_POOL, "", name, err);
            if (!u)
                return -1;
            make_pool(u, pool);
        }
        conv++;
    }
    return 0;
}

/* A padding layer's numbers are not in the file: it is taken for what keeps the size. */
static void set_paddings(struct keras *k, struct way way) {
    int conv = 0, padded = 0;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        if (u->kind == KIND_PADDING) {
            u->kind = KIND_NOTHING;
            padded = 1;
        } else if (u->kind == KIND_CONV) {
            u->stride[0] = u->stride[1] = 1;
            u->padding =
                padded || (conv < 31 && (way.same & 1u << conv)) ? PADDING_SAME : PADDING_VALID;
            padded = 0;
            conv++;
        }
    }
}

static int insert_flatten(struct keras *k, struct lenet5_error *err) {
    for (int i = 0; i < k->count; i++) {
        if (k->units[i].kind == KIND_FLATTEN)
            return 0;
        if (k->units[i].kind == KIND_DENSE)
            return insert(k, i, KIND_FLATTEN, "Flatten", "flatten", err) ? 0 : -1;
    }
    return 0;
}

/* Where activations are layers of their own, layers have none; else all have but the last. An
   activation behind the last dense layer is a softmax. */
static int set_activations(struct keras *k, const struct function *assumed) {
    int last = -1, separate = 0, used = 0;
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_DENSE || k->units[i].kind == KIND_CONV)
            last = i;
    for (int i = 0; i < last; i++)
        separate |= k->units[i].kind == KIND_ACTIVATION;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        if (u->kind == KIND_ACTIVATION && i > last)
            keras_function("softmax", 0, &u->function);
        else if ((u->kind == KIND_CONV || u->kind == KIND_DENSE) && i < last && !separate)
            u->function = *assumed;
        used |= i < last && u->function.activation == assumed->activation;
    }
    return used;
}

/* The order of the axes is that of the kernels in Keras 1; in Keras 2 it leaves no trace. */
static void set_orders(struct keras *k, const struct keras_options *options) {
    const struct unit *first = first_of(k, KIND_CONV);
    const enum order told = options->layout;
    const enum order own = first && first->kernel == ORDER_CHW ? ORDER_CHW : ORDER_HWC;
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_CONV || k->units[i].kind == KIND_POOL)
            k->units[i].order = told ? told : own;
    if (!told && first && k->layout != 'K')
        keras_note(k, "the last map was flattened %s (--layout hwc|chw)",
                   own == ORDER_CHW ? "channels first" : "channels last");
}

/* Images as find_way has found them, or as the option says. */
static void set_input(struct keras *k, const struct keras_options *options, int side) {
    const struct unit *conv = first_of(k, KIND_CONV), *dense = first_of(k, KIND_DENSE);
    const struct shape in = options->input;
    if (in.c || !conv) { /* only dense layers: their inputs say it */
        k->input_rank = in.c ? 0 : 1;
        k->input[0] = in.c || !dense ? 0 : (int)unit_inputs(dense);
        return;
    }
    const int c = (int)unit_inputs(conv), first = conv->order == ORDER_CHW;
    k->input_rank = 3;
    k->input[0] = first ? c : side;
    k->input[1] = side;
    k->input[2] = first ? side : c;
}

static void note_way(struct keras *k, const struct search *s, struct way way) {
    const struct unit *dense = first_of(k, KIND_DENSE);
    const int asked = s->options->input.c;
    char images[60] = "", paddings[60] = "", inputs[120] = "", other[40] = "";
    size_t used = 0;
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_CONV && used < sizeof paddings)
            used += (size_t)snprintf(paddings + used, sizeof paddings - used, "%s%s",
                                     used ? ", " : "",
                                     k->units[i].padding == PADDING_SAME ? "same" : "valid");
    if (!asked)
        snprintf(images, sizeof images, "images of %dx%d and ", way.side, way.side);
    if (!asked && s->count > 1 && s->found[1].side != way.side)
        snprintf(other, sizeof other, "; so would %dx%d", s->found[1].side, s->found[1].side);
    if (dense)
        snprintf(inputs, sizeof inputs, ", which give the %zu inputs of '%.20s'%s",
                 unit_inputs(dense), dense->name, other);
    keras_note(k, "%spadding %s%s (%s--padding same|valid)", images, paddings, inputs,
               asked ? "" : "--input HxWxC, ");
}

/* Do all pooling layers stand among the units, at their places? Not in layouts without names,
   and perhaps not where a name says nothing. */
static int pools_are_known(const struct keras *k) {
    int strange = 0;
    if (k->layout == 'A' || k->layout > 'E')
        return 0;
    for (int i = 0; i < k->count; i++)
        strange |= k->units[i].kind == KIND_NOTHING && !*k->units[i].type;
    return first_of(k, KIND_POOL) || !strange;
}

int guess(struct keras *k, const struct keras_options *options, struct lenet5_error *err) {
    struct search s = {.k = k, .options = options};
    const char *betrayed = k->relus ? "relu" : "tanh";
    const char *name = options->activation ? options->activation : betrayed;
    const int maximum = options->pool ? options->pool == OP_MAX_POOL : k->maximum_pools > 0;
    const char *pool = maximum ? "MaxPooling2D" : "AveragePooling2D";
    struct function assumed;
    int assumed_pools = 0;
    if (keras_function(name, k->major, &assumed))
        return fail(err, "%s: the activation '%s' is not known", k->path, name);
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_NOTHING)
            assumed_pools |= read_name(&k->units[i], pool, &assumed);
    k->pools_known = pools_are_known(k);
    if (k->layout > 'E' && order_units(k, err))
        return -1;
    const struct way way = find_way(&s);
    assumed_pools |= way.pooled && !k->average_pools && !k->maximum_pools;
    set_paddings(k, way);
    if (insert_pools(k, way, pool, err) || insert_flatten(k, err))
        return -1;
    if (assumed_pools && !options->pool)
        keras_note(k, "average pooling, 2x2 (--pool average|max)");
    if (set_activations(k, &assumed) && !options->activation)
        keras_note(k, "activation %s after every layer but the last (--activation NAME)", name);
    set_orders(k, options);
    set_input(k, options, way.side);
    if (first_of(k, KIND_CONV))
        note_way(k, &s, way);
    return 0;
}
