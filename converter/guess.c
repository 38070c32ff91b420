/* SPDX-License-Identifier: MIT
 *
 * guess.c - completes a network of which a file holds nothing but arrays and names.
 *
 * What is betrayed is used: layers without arrays by their names, image size, padding and the
 * places of pooling layers by the number of inputs of the first dense layer. What remains is
 * asked of the options, else assumed as LeNet-5 would have it, and noted.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_CONVS = 8,  /* for whose paddings and pools all combinations are tried */
    MAX_STRIDED = 4 /* the same with their strides */
};

/* ---- shapes ----------------------------------------------------------------------------- */

/* One way in which the network might have been: bit i of the masks is convolution i's. */
struct way {
    int side;
    unsigned same, pooled, strided;
    int pool, step; /* window and stride of the poolings */
};

static int count_kind(const struct keras *k, enum kind kind) {
    int count = 0;
    for (int i = 0; i < k->count; i++)
        count += k->units[i].kind == kind;
    return count;
}

static int pooled_side(struct way way, int side) {
    return side < way.pool ? 0 : (side - way.pool) / way.step + 1;
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
            h = u->global ? 1 : pooled_side(way, h);
            w = u->global ? 1 : pooled_side(way, w);
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
                h = pooled_side(way, h);
                w = pooled_side(way, w);
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

static const struct unit *last_of(const struct keras *k, enum kind kind) {
    for (int i = k->count - 1; i >= 0; i--)
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
    int global;   /* the last map is pooled as a whole: its size leaves no trace */
    int lenet;    /* 5x5 windows, as LeNet-5 has */
    size_t want;  /* inputs of the first dense layer, else outputs of the network */
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
        if (told < 0 || bits(likely[i]) == told) {
            way.pooled = likely[i];
            try_paddings(s, way, every);
        }
    for (way.pooled = s->all; every; way.pooled--) {
        if (told < 0 || bits(way.pooled) == told)
            try_paddings(s, way, every);
        if (!way.pooled)
            break;
    }
}

/* Whoever builds on 5x5 windows may have followed LeNet-5 to 32x32; others take the images of
   the data sets as they are. */
static void try_sides(struct search *s, struct way way) {
    const int convs = count_kind(s->k, KIND_CONV), first = way.side, second = 60 - first;
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
static struct way find_way(struct search *s) {
    static const int windows[][2] = {{2, 2}, {3, 3}, {3, 2}};
    const int convs = count_kind(s->k, KIND_CONV);
    const struct unit *dense = first_of(s->k, KIND_DENSE), *conv = first_of(s->k, KIND_CONV),
                      *last = last_of(s->k, KIND_CONV);
    struct way way = {conv && unit_inputs(conv) == 3 ? 32 : 28, 1, 0, 0, 2, 2};
    s->lenet = conv && conv->window[0] == 5;
    s->all = (1u << (convs < 31 ? convs : 31)) - 1;
    s->want = dense ? unit_inputs(dense) : last ? (size_t)last->outputs : 0;
    way.same = (s->options->padding_count ? s->options->padding_same : 1) & s->all;
    way.pooled = s->k->pools_known ? 0 : s->all;
    const struct way likely = way;
    const int others = s->k->pools_known && first_of(s->k, KIND_POOL);
    for (int i = 0; i < (others ? 3 : 1) && !s->count; i++) {
        way.pool = windows[i][0];
        way.step = windows[i][1];
        try_sides(s, way);
    }
    way = likely;
    if (s->k->pools_known && convs <= MAX_STRIDED && !first_of(s->k, KIND_PADDING))
        for (way.strided = 1; !s->count && way.strided <= s->all; way.strided++)
            try_sides(s, way);
    return s->count ? s->found[0] : likely;
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
            u->stride[0] = u->stride[1] = conv < 31 && (way.strided & 1u << conv) ? 2 : 1;
            u->padding =
                padded || (conv < 31 && (way.same & 1u << conv)) ? PADDING_SAME : PADDING_VALID;
            padded = 0;
            conv++;
        }
    }
}

static void set_windows(struct keras *k, struct way way) {
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        if (u->kind != KIND_POOL || u->global)
            continue;
        u->window[0] = u->window[1] = way.pool;
        u->stride[0] = u->stride[1] = way.step;
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

/* ---- activations and normalisation ------------------------------------------------------- */

static int has_kernel(const struct unit *u) {
    return u->kind == KIND_CONV || u->kind == KIND_DENSE;
}

static int last_kernel(const struct keras *k) {
    int last = -1;
    for (int i = 0; i < k->count; i++)
        last = has_kernel(&k->units[i]) ? i : last;
    return last;
}

/* Does an activation layer follow before the next layer with a kernel? */
static int has_own_activation(const struct keras *k, int i) {
    for (i++; i < k->count && !has_kernel(&k->units[i]); i++)
        if (k->units[i].kind == KIND_ACTIVATION)
            return 1;
    return 0;
}

static int is_norm(const struct keras *k, int i) {
    return i < k->count && k->units[i].kind == KIND_SCALE && !k->units[i].preprocessing;
}

static int count_norms(const struct keras *k) {
    int norms = 0;
    for (int n = 0; n < k->count; n++)
        norms += is_norm(k, n);
    return norms;
}

/* Why the normalisation behind unit i should stand before its activation; NULL if behind. */
static const char *reason_before(const struct keras *k, int i) {
    return k->layout == 'K'                        ? "as is usual in PyTorch"
           : k->lost.activations >= count_norms(k) ? "for so many activations are layers"
           : !k->units[i].array[BIAS].count        ? "for the layers before it have no bias"
                                                   : NULL;
}

/* Gives layer i the assumed activation: itself or, where the order is open, behind its
   normalisation. */
static int place_activation(struct keras *k, const struct keras_options *options, int i,
                            const struct function *assumed, struct lenet5_error *err) {
    const int open = is_norm(k, i + 1) && (!k->ordered || options->batchnorm);
    const char *reason = open ? reason_before(k, i) : NULL;
    const int before = options->batchnorm ? options->batchnorm == PLACE_BEFORE : reason != NULL;
    if (open && !options->batchnorm && !k->norm_noted++)
        keras_note(k, "batch normalisation %s the activation%s%s (--batchnorm before|after)",
                   before ? "before" : "after", before ? ", " : "", before ? reason : "");
    if (open && before) {
        struct unit *u = insert(k, i + 2, KIND_ACTIVATION, "Activation", "activation", err);
        if (!u)
            return -1;
        u->function = *assumed;
        return 0;
    }
    k->units[i].function = *assumed;
    return 0;
}

/* Every layer but the last has an activation: a layer of its own, or else in itself. One behind
   the last, of which nothing is known, is a softmax. Returns whether any was assumed, or -1. */
static int set_activations(struct keras *k, const struct keras_options *options,
                           const struct function *assumed, struct lenet5_error *err) {
    int used = 0;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        const int last = last_kernel(k);
        if (u->kind == KIND_ACTIVATION && !u->function_known && i > last)
            keras_function("softmax", 0, &u->function);
        else if (u->kind == KIND_ACTIVATION && !u->function_known)
            u->function = *assumed;
        else if (!has_kernel(u) || i == last || has_own_activation(k, i))
            continue;
        else if (place_activation(k, options, i, assumed, err))
            return -1;
        used |= i < last;
    }
    return used;
}

/* The activation of all layers of which nothing else is known, and why; leaky relus get their
   slope. */
static int find_activation(struct keras *k, const struct keras_options *options, int maximum,
                           struct function *assumed, const char **reason,
                           struct lenet5_error *err) {
    const int last = last_kernel(k);
    const struct function *told = k->lost.function_known ? &k->lost.function : NULL;
    const char *usual = maximum              ? ", as is usual with max pooling"
                        : count_norms(k) > 0 ? ", as is usual with batch normalisation"
                                             : "";
    const char *name = options->activation ? options->activation : *usual ? "relu" : "tanh";
    int leaky = 0;
    for (int i = 0; i < last && !told; i++)
        if (k->units[i].function_known && k->units[i].function.activation != ACT_SOFTMAX)
            told = &k->units[i].function;
    if (keras_function(name, k->major, assumed))
        return fail(err, "%s: the activation '%s' is not known", k->path, name);
    *reason = options->activation || told ? "" : usual;
    if (told && !options->activation)
        *assumed = *told;
    for (int i = -1; i < k->count; i++) {
        struct function *f = i < 0 ? assumed : &k->units[i].function;
        if (f->activation != ACT_RELU || f->param[0] == 0)
            continue;
        leaky = 1;
        f->param[0] = isnan(options->slope) ? f->param[0] : (float)options->slope;
    }
    if (leaky && isnan(options->slope))
        keras_note(k, "leaky relu with Keras's default slope (--slope X)");
    return 0;
}

/* The file keeps neither the epsilon nor, of three arrays, which is missing. */
static void set_norms(struct keras *k, const struct keras_options *options) {
    const struct unit *norm = NULL;
    int three = 0;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        if (!is_norm(k, i))
            continue;
        norm = u;
        three |= k->layout == 'F' && u->array[BETA].count && !u->array[GAMMA].count;
        u->epsilon = isnan(options->epsilon) ? u->epsilon : options->epsilon;
    }
    if (norm && isnan(options->epsilon))
        keras_note(
            k, "batch normalisation adds %g to the variance, the default of %s (--epsilon X)",
            norm->epsilon, k->layout == 'K' ? "PyTorch" : "Keras");
    if (three)
        keras_note(k, "batch normalisation of three arrays has a beta and no gamma");
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

/* "same, valid, valid" */
static const char *list_paddings(const struct keras *k, unsigned same, char text[60]) {
    size_t used = 0;
    int conv = 0;
    text[0] = '\0';
    for (int i = 0; i < k->count && used < 60 - 8; i++)
        if (k->units[i].kind == KIND_CONV)
            used +=
                (size_t)snprintf(text + used, 60 - used, "%s%s", used ? ", " : "",
                                 conv++ < 31 && (same & 1u << (conv - 1)) ? "same" : "valid");
    return text;
}

/* In what the second way that fits differs from the first. */
static void tell_other(const struct search *s, struct way way, char text[100]) {
    const struct way other = s->found[1];
    char paddings[60];
    text[0] = '\0';
    if (s->count < 2)
        return;
    if (other.side != way.side)
        snprintf(text, 100, "; so would %dx%d", other.side, other.side);
    else if (other.same != way.same)
        snprintf(text, 100, "; so would %s", list_paddings(s->k, other.same, paddings));
    else
        snprintf(text, 100, "; so would other strides or places of pooling");
}

static void note_way(struct keras *k, const struct search *s, struct way way) {
    const struct unit *dense = first_of(k, KIND_DENSE);
    const int asked = s->options->input.c;
    char images[60] = "", paddings[60], inputs[200] = "", other[100], windows[60] = "";
    unsigned same = 0;
    int conv = 0;
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_CONV && conv++ < 31)
            same |= (unsigned)(k->units[i].padding == PADDING_SAME) << (conv - 1);
    tell_other(s, way, other);
    if (!asked)
        snprintf(images, sizeof images, "images of %dx%d and ", way.side, way.side);
    if (dense && !s->global)
        snprintf(inputs, sizeof inputs, ", which give the %zu inputs of '%.20s'%s",
                 unit_inputs(dense), dense->name, other);
    if (way.strided)
        snprintf(windows, sizeof windows, ", strides of 2 in %d of the convolutions",
                 bits(way.strided));
    else if (way.pool != 2)
        snprintf(windows, sizeof windows, ", pooling of %dx%d every %d", way.pool, way.pool,
                 way.step);
    keras_note(k, "%spadding %s%s%s (%s--padding same|valid)", images,
               list_paddings(k, same, paddings), windows, inputs,
               asked ? "" : "--input HxWxC, ");
}

/* ---- pooling ----------------------------------------------------------------------------- */

/* Do all pooling layers stand among the units, at their places? Perhaps not where a name says
   nothing. */
static int pools_are_known(const struct keras *k) {
    int strange = 0;
    for (int i = 0; i < k->count; i++)
        strange |= k->units[i].kind == KIND_NOTHING && !*k->units[i].type;
    return k->ordered && (first_of(k, KIND_POOL) || !strange);
}

/* Does the file name a pooling by the largest? */
static int names_maximum(const struct keras *k) {
    int maximum = k->lost.maximum_pools > 0 || strstr(k->lost.global, "Max");
    for (int i = 0; i < k->count; i++)
        maximum |= k->units[i].kind == KIND_POOL && k->units[i].maximum;
    return maximum;
}

/* Poolings of which the name does not tell the kind get the usual one of this network. */
static int name_pools(struct keras *k, const char *pool) {
    int named = 0;
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_POOL && !*k->units[i].type) {
            make_pool(&k->units[i], pool);
            named = 1;
        }
    return named;
}

/* A pooling over the whole map, behind the last convolution. */
static int insert_global(struct keras *k, const char *type, struct lenet5_error *err) {
    const struct unit *conv = last_of(k, KIND_CONV);
    const int at = conv ? behind(k, (int)(conv - k->units)) : 0;
    struct unit *u = insert(k, at, KIND_POOL, type, "global_pool", err);
    if (!u)
        return -1;
    make_pool(u, type);
    return 0;
}

static int has_global(const struct keras *k) {
    int found = 0;
    for (int i = 0; i < k->count; i++)
        found |= k->units[i].kind == KIND_POOL && k->units[i].global;
    return found;
}

/* How the network must have been for its sizes to fit. Where a dense layer has as many rows as
   the last map has channels, and nothing else fits, the map was pooled as a whole. */
static int find_fit(struct keras *k, struct search *s, const char *pool, struct way *way,
                    struct lenet5_error *err) {
    const struct unit *conv = last_of(k, KIND_CONV), *dense = first_of(k, KIND_DENSE);
    char global[40], images[40] = "28x28 or 32x32";
    snprintf(global, sizeof global, "Global%s", pool);
    s->global = has_global(k);
    *way = find_way(s);
    if (s->count || !conv || !dense)
        return 0;
    if (!k->pools_known && !s->global && (size_t)conv->outputs == s->want) {
        if (insert_global(k, global, err))
            return -1;
        keras_note(k,
                   "%s before '%.30s', whose rows are as many as the channels (--pool "
                   "average|max)",
                   global, first_of(k, KIND_DENSE)->name);
        s->global = 1;
        *way = find_way(s);
    }
    if (s->count ||
        k->pools_known) /* the chain of all layers is broken: translate.c shows it */
        return 0;
    if (s->options->input.c)
        snprintf(images, sizeof images, "%dx%d", s->options->input.h, s->options->input.w);
    return fail(err,
                "%s: dense '%s' has %zu rows, which images of %s give with no padding and no "
                "places of 2x2 pooling; a file of weights only does not say more: give --input "
                "HxWxC, or save the whole model (model.save) and convert that",
                k->path, first_of(k, KIND_DENSE)->name, s->want, images);
}

/* ---- all together ------------------------------------------------------------------------ */

static void read_names(struct keras *k) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_NOTHING)
            name_read(&k->units[i], k->major);
}

int guess(struct keras *k, const struct keras_options *options, struct lenet5_error *err) {
    struct search s = {.k = k, .options = options};
    struct function assumed;
    struct way way;
    const char *reason = "";
    read_names(k);
    if (k->layout > 'E' && order_units(k, err))
        return -1;
    const int named = names_maximum(k);
    const int maximum = options->pool ? options->pool == OP_MAX_POOL : named;
    const char *pool = maximum ? "MaxPooling2D" : "AveragePooling2D";
    k->pools_known = pools_are_known(k);
    int assumed_pools = name_pools(k, pool);
    if (find_activation(k, options, named, &assumed, &reason, err) ||
        (*k->lost.global && insert_global(k, k->lost.global, err)) ||
        find_fit(k, &s, pool, &way, err))
        return -1;
    assumed_pools |= way.pooled && !k->lost.average_pools && !k->lost.maximum_pools;
    set_paddings(k, way);
    if (insert_pools(k, way, pool, err) || insert_flatten(k, err))
        return -1;
    set_windows(k, way);
    if (assumed_pools && !options->pool)
        keras_note(k, "%s pooling, %dx%d (--pool average|max)", maximum ? "max" : "average",
                   way.pool, way.pool);
    const int used = set_activations(k, options, &assumed, err);
    if (used < 0)
        return -1;
    if (used && !options->activation)
        keras_note(k, "activation %s%s after every layer but the last (--activation NAME)",
                   activation_name(assumed.activation), reason);
    set_norms(k, options);
    set_orders(k, options);
    set_input(k, options, way.side);
    if (first_of(k, KIND_CONV))
        note_way(k, &s, way);
    return 0;
}
