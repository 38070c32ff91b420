/* SPDX-License-Identifier: MIT
 *
 * guess.c - completes a network of which a file holds nothing but arrays and names.
 *
 * What is betrayed is used: layers without arrays by their names, image size, padding and the
 * places of pooling layers by the number of inputs of the first dense layer. What remains is
 * asked of the options, else assumed as LeNet-5 would have it, and noted.
 */
#include "ways.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

/* A padding layer's numbers are not in the file. */
static void set_border(struct keras *k, int at, int border) {
    struct unit *u = &k->units[at];
    const struct unit *conv = u;
    while (conv < k->units + k->count && conv->kind != KIND_CONV)
        conv++;
    for (int side = 0; border && side < 4; side++)
        u->border[side] = border;
    if (border)
        keras_note(k, "'%.40s' pads with a border of %d, for with that the sizes fit", u->name,
                   border);
    else {
        u->kind = KIND_NOTHING; /* the convolution's own */
        if (conv < k->units + k->count)
            keras_note(k, "'%.40s' adds %d rows and %d columns of zeros, which keeps the size",
                       u->name, conv->window[0] - 1, conv->window[1] - 1);
    }
}

static void set_paddings(struct keras *k, struct way way) {
    int conv = 0, padded = 0;
    for (int i = 0; i < k->count; i++) {
        struct unit *u = &k->units[i];
        if (u->kind == KIND_PADDING) {
            set_border(k, i, way.border);
            padded = !way.border;
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
    if (open && !k->norm_open++ && !options->batchnorm)
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

/* Leaky relus get their slope; returns whether there are any. */
static int set_slopes(struct keras *k, const struct keras_options *options,
                      struct function *assumed) {
    int leaky = 0;
    for (int i = -1; i < k->count; i++) {
        struct function *f = i < 0 ? assumed : &k->units[i].function;
        if (f->activation != ACT_RELU || f->param[0] == 0)
            continue;
        leaky = 1;
        f->param[0] = isnan(options->slope) ? f->param[0] : (float)options->slope;
    }
    if (leaky && isnan(options->slope))
        keras_note(k, "leaky relu with Keras's default slope (--slope X)");
    return leaky;
}

/* What activations have as parameters stands in no file of weights. */
static void note_parameters(struct keras *k, const struct function *assumed) {
    int relu = 0, elu = 0, hard = 0;
    for (int i = -1; i < k->count; i++) {
        const struct function *f = i < 0 ? assumed : &k->units[i].function;
        const char *name = i < 0 ? activation_name(f->activation) : k->units[i].name;
        const int told = i < 0 ? k->lost.function_known : k->units[i].function_known;
        if (told && f->activation == ACT_RELU && !f->param[0] && f->param[2] > 6 && !relu++)
            keras_note(k, "relu '%.40s' has no upper limit (max_value)", name);
        if ((told || i < 0) && f->activation == ACT_ELU && !elu++)
            keras_note(k, "elu '%.40s' has an alpha of 1", name);
        if ((told || i < 0) && f->activation == ACT_HARD_SIGMOID && !k->major && !hard++)
            keras_note(k, "hard sigmoid '%.40s' has Keras 2's slope of 0.2; Keras 3 has 1/6",
                       name);
    }
}

/* The activation of all layers of which nothing else is known, and why. */
static int find_activation(struct keras *k, const struct keras_options *options, int maximum,
                           struct function *assumed, const char **reason,
                           struct lenet5_error *err) {
    const int last = last_kernel(k);
    const struct function *told = k->lost.function_known ? &k->lost.function : NULL;
    const char *usual = maximum              ? ", as is usual with max pooling"
                        : count_norms(k) > 0 ? ", as is usual with batch normalisation"
                                             : "";
    const char *name = options->activation ? options->activation : *usual ? "relu" : "tanh";
    for (int i = 0; i < last && !told; i++)
        if (k->units[i].function_known && k->units[i].function.activation != ACT_SOFTMAX)
            told = &k->units[i].function;
    if (keras_function(name, k->major, assumed))
        return fail(err, "%s: the activation '%s' is not known", k->path, name);
    *reason = options->activation || told ? "" : usual;
    if (told && !options->activation)
        *assumed = *told;
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
                 count_bits(way.strided));
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

/* In layout A no name says anything. */
static void note_strange(struct keras *k) {
    for (int i = 0; i < k->count && k->layout != 'A'; i++)
        if (k->units[i].kind == KIND_NOTHING && !*k->units[i].type) {
            keras_note(k, "layers whose names say nothing, as '%.40s', change nothing",
                       k->units[i].name);
            return;
        }
}

/* Makes all poolings complete; returns whether the kind of any was open, or -1. */
static int set_pools(struct keras *k, struct search *s, struct way *way, int maximum,
                     struct lenet5_error *err) {
    const char *pool = maximum ? "MaxPooling2D" : "AveragePooling2D";
    int told = *k->lost.global || k->lost.average_pools || k->lost.maximum_pools;
    for (int i = 0; i < k->count; i++)
        told |= k->units[i].kind == KIND_POOL && *k->units[i].type;
    k->pools_known = pools_are_known(k);
    int open = name_pools(k, pool);
    if (*k->lost.global && insert_global(k, k->lost.global, err))
        return -1;
    const int global = has_global(k);
    if (find_fit(k, s, pool, way, err))
        return -1;
    open |= way->pooled && !k->lost.average_pools && !k->lost.maximum_pools;
    k->open |= first_of(k, KIND_CONV) && !first_of(k, KIND_PADDING) ? OPEN_PADDING : 0;
    set_paddings(k, *way);
    if (insert_pools(k, *way, pool, err) || insert_flatten(k, err))
        return -1;
    set_windows(k, *way);
    if (open && !s->options->pool)
        keras_note(k, "%s pooling, %dx%d (--pool average|max)", maximum ? "max" : "average",
                   way->pool, way->pool);
    open |= has_global(k) != global;
    k->open |= open && !told ? OPEN_POOL : 0;
    return open;
}

/* May `lenet5 --identify` change all activations that it can, as an option would? Not where a
   name told one of them. */
static void find_open(struct keras *k, int used) {
    int told = k->lost.function_known;
    for (int i = 0; i < k->count; i++) {
        const enum activation a = k->units[i].function.activation;
        told |=
            k->units[i].function_known && (a == ACT_TANH || a == ACT_RELU || a == ACT_SIGMOID);
    }
    k->open |= used && !told ? OPEN_ACTIVATION : 0;
}

/* What an option says is right where it says the same as all names. */
static int pools_agree(const struct keras *k, int maximum) {
    for (int i = 0; i < k->count; i++)
        if (k->units[i].kind == KIND_POOL && k->units[i].maximum != maximum)
            return 0;
    return first_of(k, KIND_POOL) != NULL;
}

static int activations_agree(const struct keras *k, enum activation activation) {
    int found = 0;
    for (int i = 0; i < last_kernel(k); i++) {
        const enum activation a = k->units[i].function.activation;
        found |= a == activation;
        if (a != ACT_LINEAR && a != activation)
            return 0;
    }
    return found;
}

/* An option that had nothing to say would be ignored in silence. */
static int check_used(const struct keras *k, const struct keras_options *o, int pools,
                      int activations, int slopes, struct lenet5_error *err) {
    const struct {
        int given, used;
        const char *option, *what;
    } all[] = {
        {o->pool != 0, pools, "--pool", "kind of pooling"},
        {o->activation != NULL, activations, "--activation", "activation"},
        {o->batchnorm != 0, k->norm_open, "--batchnorm", "place of batch normalisation"},
        {!isnan(o->epsilon), count_norms(k), "--epsilon", "epsilon of batch normalisation"},
        {!isnan(o->slope), slopes, "--slope", "slope of a leaky relu"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].given && !all[i].used)
            return fail(err,
                        "%s leaves no %s open, there is nothing for %s to say; leave it out",
                        k->path, all[i].what, all[i].option);
    return 0;
}

static int check_paddings(const struct keras *k, const struct keras_options *options,
                          struct lenet5_error *err) {
    const int convs = count_kind(k, KIND_CONV);
    if (options->padding_count > convs)
        return fail(err, "%s has %d convolution%s, --padding says how %d are padded", k->path,
                    convs, convs == 1 ? "" : "s", options->padding_count);
    return 0;
}

int guess(struct keras *k, const struct keras_options *options, struct lenet5_error *err) {
    struct search s = {.k = k, .options = options};
    struct function assumed;
    struct way way;
    const char *reason = "";
    read_names(k);
    if ((k->layout > 'E' && order_units(k, err)) || check_paddings(k, options, err))
        return -1;
    note_strange(k);
    const int named = names_maximum(k);
    const int maximum = options->pool ? options->pool == OP_MAX_POOL : named;
    if (find_activation(k, options, named, &assumed, &reason, err))
        return -1;
    const int slopes = set_slopes(k, options, &assumed);
    const int pools = set_pools(k, &s, &way, maximum, err);
    const int used = pools < 0 ? -1 : set_activations(k, options, &assumed, err);
    if (used < 0 || check_used(k, options, pools || pools_agree(k, maximum),
                               used || activations_agree(k, assumed.activation), slopes, err))
        return -1;
    if (used && !options->activation)
        keras_note(k, "activation %s%s after every layer but the last (--activation NAME)",
                   activation_name(assumed.activation), reason);
    find_open(k, used);
    note_parameters(k, &assumed);
    set_norms(k, options);
    set_orders(k, options);
    set_input(k, options, way.side);
    if (first_of(k, KIND_CONV))
        note_way(k, &s, way);
    return 0;
}
