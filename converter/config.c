/* SPDX-License-Identifier: MIT
 *
 * config.c - reads an architecture as Keras writes it in JSON: model_config of a whole-model
 * .h5, config.json of a .keras archive. Keys of Keras 1 and of Keras 2 and 3 are both known.
 *
 * A model is a list of layers: Sequential as listed, functional ones only if they are a chain.
 * Models within models are walked through. What cannot be converted is collected, so that one
 * sentence names all of it. jansson bounds the nesting; the size is bounded by who reads the
 * text.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <ctype.h>
#include <float.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8 }; /* models within models */

struct reader {
    struct keras *k;
    int problems, quantised;
    char text[320]; /* of those problems */
};

/* "layer 7 'lstm_1' is of class LSTM" */
__attribute__((format(printf, 3, 4))) static void
problem(struct reader *r, const struct unit *u, const char *format, ...) {
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const size_t used = strlen(r->text);
    if (used + strlen(text) + 40 < sizeof r->text)
        snprintf(r->text + used, sizeof r->text - used, "%slayer %d '%.30s' %s",
                 r->problems ? ", " : "", (int)(u - r->k->units) + 1, u->name, text);
    r->problems++;
}

/* ---- values ----------------------------------------------------------------------------- */

static const char *get_text(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* The value under the first of two names that is there: Keras 1 named many things otherwise. */
static const json_t *get_either(const json_t *object, const char *key, const char *old_key) {
    const json_t *value = json_object_get(object, key);
    return value ? value : json_object_get(object, old_key);
}

/* The same for what Keras always writes: where it is missing, the file has been damaged or made
   by hand, and that its default is taken is said. */
static const json_t *need(struct reader *r, const struct unit *u, const json_t *object,
                          const char *key, const char *old_key) {
    const json_t *value = get_either(object, key, old_key);
    if (!value)
        keras_note(r->k, "layer '%.30s' does not say its %s; Keras's default is taken", u->name,
                   key);
    return value;
}

static int get_int(const json_t *value, int otherwise) {
    const json_int_t wide = json_is_integer(value) ? json_integer_value(value) : otherwise;
    return wide < -1000000 || wide > 1000000 ? -1 : (int)wide;
}

/* A number, or a NumPy number as Keras 2 wrote it: {"type": "ndarray", "value": 0.3}. */
static double get_number(const json_t *value, double otherwise) {
    if (json_is_object(value))
        value = json_object_get(value, "value");
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

/* One number for both, or two. Leaves pair alone where there is neither. */
static void get_pair(const json_t *value, int pair[2]) {
    if (json_is_integer(value))
        pair[0] = pair[1] = get_int(value, 0);
    else if (json_array_size(value) == 2) {
        pair[0] = get_int(json_array_get(value, 0), -1);
        pair[1] = get_int(json_array_get(value, 1), -1);
    }
}

static int is_true(const json_t *value, int otherwise) {
    return value ? json_is_true(value) : otherwise;
}

/* One number or a list of any depth (per channel), as an array of a layer. */
static int get_floats(const json_t *value, struct tensor *t) {
    while (json_array_size(value) == 1)
        value = json_array_get(value, 0);
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (!count || count > MAX_CHANNELS || !(t->data = calloc(count, sizeof *t->data)))
        return -1;
    t->rank = 1;
    t->count = t->dim[0] = count;
    for (size_t k = 0; k < count; k++) {
        const double number =
            get_number(json_is_array(value) ? json_array_get(value, k) : value, NAN);
        if (!(fabs(number) <= FLT_MAX))
            return -1;
        t->data[k] = (float)number;
    }
    return 0;
}

/* ---- activations ------------------------------------------------------------------------ */

static const struct {
    const char *name;
    struct function function;
} functions[] = {
    {"linear", {ACT_LINEAR, {0}}},
    {"tanh", {ACT_TANH, {0}}},
    {"sigmoid", {ACT_SIGMOID, {0}}},
    {"relu", {ACT_RELU, {0, 0, FLT_MAX}}},
    {"relu6", {ACT_RELU, {0, 0, 6}}},
    {"leaky_relu", {ACT_RELU, {0.2f, 0, FLT_MAX}}},
    {"elu", {ACT_ELU, {1}}},
    {"softplus", {ACT_SOFTPLUS, {0}}},
    {"softsign", {ACT_SOFTSIGN, {0}}},
    {"swish", {ACT_SWISH, {0}}},
    {"silu", {ACT_SWISH, {0}}},
    {"gelu", {ACT_GELU, {0}}},
    {"gelu_tanh", {ACT_GELU_TANH, {0}}}, /* no name of Keras's: for --activation */
    {"selu", {ACT_SELU, {0}}},
    {"celu", {ACT_ELU, {1}}}, /* the same for Keras's default alpha */
    {"mish", {ACT_MISH, {0}}},
    {"hard_sigmoid", {ACT_HARD_SIGMOID, {0.2f}}},
    {"softmax", {ACT_SOFTMAX, {0}}},
    {"softmax_v2", {ACT_SOFTMAX, {0}}},
};

int keras_function(const char *name, int major, struct function *function) {
    for (size_t k = 0; k < sizeof functions / sizeof *functions; k++)
        if (!strcmp(functions[k].name, name)) {
            *function = functions[k].function;
            if (function->activation == ACT_HARD_SIGMOID && major >= 3)
                function->param[0] = 1.0f / 6;
            return 0;
        }
    return -1;
}

/* Layers that are an activation and nothing else; -1 if the class is none. */
static int function_of_class(const char *type, const json_t *config, struct function *f) {
    const json_t *most = json_object_get(config, "max_value");
    if (!strcmp(type, "ReLU")) {
        f->activation = ACT_RELU;
        f->param[0] = (float)get_number(json_object_get(config, "negative_slope"), 0);
        f->param[1] = (float)get_number(json_object_get(config, "threshold"), 0);
        f->param[2] = (float)get_number(most, FLT_MAX);
    } else if (!strcmp(type, "LeakyReLU")) {
        f->activation = ACT_RELU;
        f->param[0] = (float)get_number(get_either(config, "negative_slope", "alpha"), 0.3);
        f->param[2] = FLT_MAX;
    } else if (!strcmp(type, "ELU")) {
        f->activation = ACT_ELU;
        f->param[0] = (float)get_number(json_object_get(config, "alpha"), 1);
    } else if (!strcmp(type, "Softmax")) {
        f->activation = ACT_SOFTMAX;
    } else
        return -1;
    return 0;
}

static int starts_module(const char *module, const char *package) {
    const size_t length = strlen(package);
    return !strncmp(module, package, length) && (!module[length] || module[length] == '.');
}

/* A class of somebody else's may have the name of one of Keras's and compute anything: since
   2.12 Keras writes where each comes from. Before, only those that were registered show it, by
   their class_name. Sets name to "mine>Dense" or "my_layers.Dense". */
static int is_foreign(const json_t *object, char name[NAME_SIZE]) {
    static const char *const own[] = {"keras", "tf_keras", "tensorflow.keras",
                                      "tensorflow.python.keras"};
    const char *module = get_text(object, "module"),
               *registered = get_text(object, "registered_name");
    if (strchr(registered, '>')) {
        snprintf(name, NAME_SIZE, "%s", registered);
        return 1;
    }
    snprintf(name, NAME_SIZE, "%s.%s", module, get_text(object, "class_name"));
    for (size_t k = 0; k < sizeof own / sizeof *own; k++)
        if (starts_module(module, own[k]))
            return 0;
    return *module != '\0';
}

/* An activation is a name, null, a function object, or an activation layer as an object. */
static void read_function(struct reader *r, struct unit *u, const json_t *value) {
    const json_t *config = json_object_get(value, "config");
    const char *type = get_text(value, "class_name"), *name = json_string_value(value);
    if (!value || json_is_null(value))
        return;
    if (!name && !strcmp(type, "function"))
        name = json_string_value(config);
    char foreign[NAME_SIZE];
    if (!name && is_foreign(value, foreign)) {
        problem(r, u, "has the activation '%.30s'", foreign);
        return;
    }
    if (!name && !function_of_class(type, config, &u->function))
        return;
    name = name ? name : type;
    if (keras_function(name, r->k->major, &u->function))
        problem(r, u, "has the activation '%.30s'", name);
}

static void read_activation(struct reader *r, struct unit *u, const json_t *config) {
    u->kind = KIND_ACTIVATION;
    u->axis = get_int(json_object_get(config, "axis"), 0);
    if (!strcmp(u->type, "Activation"))
        read_function(r, u, need(r, u, config, "activation", NULL));
    else
        function_of_class(u->type, config, &u->function);
}

/* ---- layers ----------------------------------------------------------------------------- */

static enum order get_order(const json_t *config) {
    const char *format = get_text(config, "data_format"),
               *old = get_text(config, "dim_ordering");
    if (!strcmp(format, "channels_first") || !strcmp(old, "th"))
        return ORDER_CHW;
    return *format || *old ? ORDER_HWC : ORDER_UNKNOWN;
}

static enum padding get_padding(struct reader *r, struct unit *u, const json_t *config) {
    const char *text = json_string_value(need(r, u, config, "padding", "border_mode"));
    if (!text || !strcmp(text, "valid"))
        return PADDING_VALID;
    if (!strcmp(text, "same"))
        return PADDING_SAME;
    if (!strcmp(text, "full"))
        return PADDING_FULL;
    problem(r, u, "has the padding '%.20s'", text);
    return PADDING_VALID;
}

static void read_conv(struct reader *r, struct unit *u, const json_t *config) {
    int dilation[2] = {1, 1};
    u->kind = KIND_CONV;
    u->outputs = get_int(get_either(config, "filters", "nb_filter"), 0);
    u->window[0] = get_int(json_object_get(config, "nb_row"), 0);
    u->window[1] = get_int(json_object_get(config, "nb_col"), 0);
    u->stride[0] = u->stride[1] = 1;
    get_pair(json_object_get(config, "kernel_size"), u->window);
    get_pair(need(r, u, config, "strides", "subsample"), u->stride);
    get_pair(json_object_get(config, "dilation_rate"), dilation);
    u->padding = get_padding(r, u, config);
    u->order = get_order(config);
    u->kernel = strcmp(get_text(config, "dim_ordering"), "th") ? ORDER_HWC : ORDER_CHW;
    u->has[KERNEL] = 1;
    u->has[BIAS] = is_true(get_either(config, "use_bias", "bias"), 1);
    read_function(r, u, need(r, u, config, "activation", NULL));
    if (dilation[0] != 1 || dilation[1] != 1)
        problem(r, u, "has a dilation of %dx%d", dilation[0], dilation[1]);
    if (get_int(json_object_get(config, "groups"), 1) != 1)
        problem(r, u, "has %d groups", get_int(json_object_get(config, "groups"), 1));
}

static void read_dense(struct reader *r, struct unit *u, const json_t *config) {
    u->kind = KIND_DENSE;
    u->outputs = get_int(get_either(config, "units", "output_dim"), 0);
    u->has[KERNEL] = 1;
    u->has[BIAS] = is_true(get_either(config, "use_bias", "bias"), 1);
    read_function(r, u, need(r, u, config, "activation", NULL));
}

static void read_pool(struct reader *r, struct unit *u, const json_t *config) {
    u->kind = KIND_POOL;
    u->global = !strncmp(u->type, "Global", 6);
    u->maximum = strstr(u->type, "Max") != NULL;
    u->order = get_order(config);
    u->keepdims = is_true(json_object_get(config, "keepdims"), 0);
    u->window[0] = u->window[1] = 2;
    if (u->global)
        return;
    get_pair(need(r, u, config, "pool_size", NULL), u->window);
    get_pair(need(r, u, config, "strides", NULL), u->stride);
    u->padding = get_padding(r, u, config);
}

static void read_flatten(struct reader *r, struct unit *u, const json_t *config) {
    (void)r;
    u->kind = KIND_FLATTEN;
    u->order = get_order(config);
}

static void read_reshape(struct reader *r, struct unit *u, const json_t *config) {
    const json_t *target = json_object_get(config, "target_shape");
    u->kind = KIND_RESHAPE;
    u->target_rank = (int)json_array_size(target);
    if (u->target_rank < 1 || u->target_rank > 3)
        problem(r, u, "reshapes to %d dimensions", u->target_rank);
    for (int k = 0; k < u->target_rank && k < 3; k++)
        u->target[k] = get_int(json_array_get(target, (size_t)k), 0);
}

/* padding is a number, [rows, columns], or [[top, bottom], [left, right]]. */
static void read_padding(struct reader *r, struct unit *u, const json_t *config) {
    const json_t *value = json_object_get(config, "padding");
    int rows[2] = {0, 0}, columns[2] = {0, 0};
    u->kind = KIND_PADDING;
    u->order = get_order(config);
    if (json_is_integer(value))
        rows[0] = rows[1] = columns[0] = columns[1] = get_int(value, 0);
    else if (json_array_size(value) == 2) {
        get_pair(json_array_get(value, 0), rows);
        get_pair(json_array_get(value, 1), columns);
    } else
        problem(r, u, "has a padding that is neither one, two nor four numbers");
    u->border[0] = rows[0];
    u->border[1] = columns[0];
    u->border[2] = rows[1];
    u->border[3] = columns[1];
}

/* An axis is a number or, in tf.keras, a list of one. */
static int get_axis(const json_t *value) {
    return get_int(json_is_array(value) ? json_array_get(value, 0) : value, 0);
}

static void read_batch_norm(struct reader *r, struct unit *u, const json_t *config) {
    const json_t *axis = need(r, u, config, "axis", NULL);
    u->kind = KIND_SCALE;
    u->axis = axis ? get_axis(axis) : -1;
    u->epsilon = get_number(need(r, u, config, "epsilon", NULL), 1e-3);
    u->has[GAMMA] = is_true(json_object_get(config, "scale"), 1);
    u->has[BETA] = is_true(json_object_get(config, "center"), 1);
    u->has[MEAN] = u->has[VARIANCE] = 1;
    if (json_array_size(axis) > 1)
        problem(r, u, "normalises %zu axes", json_array_size(axis));
    const int mode = get_int(json_object_get(config, "mode"), 0);
    if (mode) /* Keras 1: by the numbers of the batch, also at inference */
        problem(r, u, "normalises in mode %d", mode);
}

static void read_rescaling(struct reader *r, struct unit *u, const json_t *config) {
    const json_t *offset = need(r, u, config, "offset", NULL);
    u->kind = KIND_SCALE;
    u->preprocessing = 1;
    if (get_floats(json_object_get(config, "scale"), &u->array[GAMMA]) ||
        (offset && get_floats(offset, &u->array[BETA])))
        problem(r, u, "has a scale or offset that is not a number or a list of numbers");
}

/* (x - mean) / max(deviation, 1e-7); mean and variance stand here or among the weights. */
static void read_normalization(struct reader *r, struct unit *u, const json_t *config) {
    const json_t *mean = json_object_get(config, "mean");
    const json_t *variance = json_object_get(config, "variance");
    const json_t *axis = json_object_get(config, "axis");
    u->kind = KIND_SCALE;
    u->preprocessing = 1;
    u->least_deviation = 1e-7;
    u->axis = get_axis(axis);
    if (json_is_true(json_object_get(config, "invert")))
        problem(r, u, "is inverted");
    if (json_array_size(axis) > 1)
        problem(r, u, "normalises %zu axes", json_array_size(axis));
    if (!mean || json_is_null(mean))
        u->has[MEAN] = u->has[VARIANCE] = 1;
    else if (get_floats(mean, &u->array[MEAN]) || get_floats(variance, &u->array[VARIANCE]))
        problem(r, u, "has a mean or variance that is not a number or a list of numbers");
}

static void read_nothing(struct reader *r, struct unit *u, const json_t *config) {
    (void)r, (void)config;
    u->kind = KIND_NOTHING;
}

/* The classes that can be converted. RandomCrop is not among those that do nothing: it also
   crops at inference. */
static const struct {
    const char *type;
    void (*read)(struct reader *r, struct unit *u, const json_t *config);
} classes[] = {
    {"Conv2D", read_conv},
    {"Convolution2D", read_conv},
    {"Dense", read_dense},
    {"AveragePooling2D", read_pool},
    {"MaxPooling2D", read_pool},
    {"AvgPool2D", read_pool},
    {"MaxPool2D", read_pool},
    {"GlobalAveragePooling2D", read_pool},
    {"GlobalMaxPooling2D", read_pool},
    {"Flatten", read_flatten},
    {"Reshape", read_reshape},
    {"ZeroPadding2D", read_padding},
    {"BatchNormalization", read_batch_norm},
    {"BatchNormalizationV1", read_batch_norm},
    {"BatchNormalizationV2", read_batch_norm},
    {"Rescaling", read_rescaling},
    {"Normalization", read_normalization},
    {"Activation", read_activation},
    {"ReLU", read_activation},
    {"LeakyReLU", read_activation},
    {"ELU", read_activation},
    {"Softmax", read_activation},
    {"Dropout", read_nothing},
    {"SpatialDropout2D", read_nothing},
    {"AlphaDropout", read_nothing},
    {"GaussianDropout", read_nothing},
    {"GaussianNoise", read_nothing},
    {"ActivityRegularization", read_nothing},
    {"Identity", read_nothing},
    {"RandomFlip", read_nothing},
    {"RandomRotation", read_nothing},
    {"RandomZoom", read_nothing},
    {"RandomTranslation", read_nothing},
    {"RandomContrast", read_nothing},
    {"RandomBrightness", read_nothing},
    {"RandomHeight", read_nothing},
    {"RandomWidth", read_nothing},
};

static const char SUPPORTED[] =
    "Conv2D, Dense, pooling, BatchNormalization, activations, Flatten, ZeroPadding2D, "
    "Rescaling, Normalization";

/* ---- models ----------------------------------------------------------------------------- */

static int is_model(const char *type) {
    return !strcmp(type, "Sequential") || !strcmp(type, "Functional") || !strcmp(type, "Model");
}

static const char *element_name(const json_t *element) {
    const char *name = get_text(json_object_get(element, "config"), "name");
    return *name ? name : get_text(element, "name");
}

/* The list of layers of a model: config itself (Keras before 2.2.3) or config.layers. */
static const json_t *layer_list(const json_t *model) {
    const json_t *config = json_object_get(model, "config");
    return json_is_array(config) ? config : json_object_get(config, "layers");
}

/* Takes the shape of an image, [batch, ...] with null for what is open, unless one is known. */
static void take_input(struct keras *k, const json_t *shape) {
    const size_t rank = json_array_size(shape);
    if (k->input_rank || rank < 2 || rank > 4)
        return;
    k->input_rank = (int)rank - 1;
    for (size_t i = 1; i < rank; i++)
        k->input[i - 1] = get_int(json_array_get(shape, i), 0);
}

static void find_input(struct keras *k, const json_t *element) {
    const json_t *config = json_object_get(element, "config");
    take_input(k, get_either(config, "batch_shape", "batch_input_shape"));
    take_input(k, json_object_get(config, "build_input_shape"));
    take_input(k, json_object_get(json_object_get(element, "build_config"), "input_shape"));
}

/* The layers that feed a layer, in either form of inbound_nodes: [[["conv2d", 0, 0, {}]]] or
   [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["conv2d", 0,
   0]}}]}]. Counts them and sets *source to the last. */
static int count_sources(const json_t *value, const char **source, int depth) {
    const json_t *history = json_object_get(json_object_get(value, "config"), "keras_history"),
                 *item;
    const char *key;
    size_t index;
    int count = 0;
    if (json_is_array(history) || json_is_string(json_array_get(value, 0))) {
        const char *name =
            json_string_value(json_array_get(json_is_array(history) ? history : value, 0));
        *source = name ? name : *source;
        return 1;
    }
    if (depth == MAX_DEPTH)
        return 0;
    json_array_foreach(value, index, item) count += count_sources(item, source, depth + 1);
    json_object_foreach((json_t *)value, key, item) count +=
        count_sources(item, source, depth + 1);
    return count;
}

/* Puts the layers of a functional model into the order of the chain, each fed by the one before
   it. order holds indices into the list. */
static int find_chain(const struct keras *k, const json_t *list, size_t order[MAX_UNITS],
                      struct lenet5_error *err) {
    const size_t count = json_array_size(list);
    const char *source[MAX_UNITS], *previous = "";
    for (size_t i = 0; i < count; i++) {
        const json_t *element = json_array_get(list, i);
        const json_t *nodes = json_object_get(element, "inbound_nodes");
        source[i] = "";
        const int sources = count_sources(nodes, &source[i], 0);
        if (json_array_size(nodes) > 1)
            return fail(err,
                        "%s: layer '%s' is called %zu times; only a straight chain can be "
                        "converted",
                        k->path, element_name(element), json_array_size(nodes));
        if (sources > 1)
            return fail(err,
                        "%s: layer '%s' has %d inputs; only a straight chain can be converted",
                        k->path, element_name(element), sources);
    }
    for (size_t done = 0; done < count; done++) {
        int next = 0;
        for (size_t i = 0; i < count; i++)
            if (!strcmp(source[i], previous)) {
                order[done] = i;
                next++;
            }
        if (next > 1)
            return fail(
                err, "%s: layer '%s' feeds %d layers; only a straight chain can be converted",
                k->path, done ? previous : "input", next);
        if (!next)
            return fail(err,
                        "%s: no layer follows '%s', yet there are %zu more; only a "
                        "straight chain can be converted",
                        k->path, previous, count - done);
        previous = element_name(json_array_get(list, order[done]));
        if (!*previous)
            return fail(err, "%s: the architecture has a layer without a name", k->path);
    }
    return 0;
}

/* Outputs of a functional model: ["dense", 0, 0] is one, [["a", 0, 0], ["b", 0, 0]] are two. */
static size_t count_outputs(const json_t *model) {
    const json_t *outputs = json_object_get(json_object_get(model, "config"), "output_layers");
    if (json_is_object(outputs))
        return json_object_size(outputs);
    return json_is_array(json_array_get(outputs, 0)) ? json_array_size(outputs) : 1;
}

/* How many earlier elements of the list have this one's class. */
static int ordinal(const json_t *list, size_t index) {
    const char *type = get_text(json_array_get(list, index), "class_name");
    int count = 0;
    for (size_t i = 0; i < index; i++)
        count += !strcmp(get_text(json_array_get(list, i), "class_name"), type);
    return count;
}

/* Finds the class of a layer and reads it, or notes the problem. */
static void read_class(struct reader *r, struct unit *u, const json_t *element) {
    const char *type = get_text(element, "class_name");
    char foreign[NAME_SIZE];
    if (is_foreign(element, foreign)) {
        problem(r, u, "is of class %.60s, which is not Keras's own", foreign);
        return;
    }
    for (size_t k = 0; k < sizeof classes / sizeof *classes; k++)
        if (!strcmp(classes[k].type, type)) {
            classes[k].read(r, u, json_object_get(element, "config"));
            return;
        }
    r->quantised |=
        (type[0] == 'Q' && isupper((unsigned char)type[1])) || strstr(type, "Quantize");
    problem(r, u, "is of class %.40s", *type ? type : "unknown");
}

static int read_layer(struct reader *r, const json_t *element, const char *group,
                      const char *place, struct lenet5_error *err) {
    const json_t *config = json_object_get(element, "config");
    const char *type = get_text(element, "class_name");
    if (!r->k->count) /* the shape that a later layer takes is not the images' */
        find_input(r->k, element);
    if (!strcmp(type, "InputLayer"))
        return 0;
    struct unit *u = keras_add(r->k, KIND_NOTHING, type, element_name(element), err);
    if (!u)
        return -1;
    snprintf(u->group, sizeof u->group, "%s", *group ? group : element_name(element));
    snprintf(u->place, sizeof u->place, "%s", place);
    if (strstr(get_text(json_object_get(config, "dtype"), "class_name"), "Quantized")) {
        r->quantised = 1;
        problem(r, u, "is quantised");
    }
    read_class(r, u, element);
    return 0;
}

static int read_model(struct reader *r, const json_t *model, const char *group,
                      const char *place, int depth, struct lenet5_error *err) {
    const json_t *list = layer_list(model);
    const size_t count = json_array_size(list);
    const int first = r->k->count == 0;
    size_t order[MAX_UNITS];
    char foreign[NAME_SIZE];
    if (is_foreign(model, foreign))
        return fail(err,
                    "%s: the model is of class %s, which is not Keras's own; only Sequential "
                    "and functional models can be converted",
                    r->k->path, foreign);
    if (!count || count > MAX_UNITS || depth > MAX_DEPTH)
        return fail(err, "%s: the architecture holds %zu layers, %d models deep", r->k->path,
                    count, depth);
    if (count_outputs(model) > 1)
        return fail(err,
                    "%s: the model has %zu outputs; only a straight chain can be converted",
                    r->k->path, count_outputs(model));
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    if (strcmp(get_text(model, "class_name"), "Sequential") &&
        find_chain(r->k, list, order, err))
        return -1;
    for (size_t i = 0; i < count; i++) {
        const json_t *element = json_array_get(list, order[i]);
        const char *type = get_text(element, "class_name"), *name = element_name(element);
        char here[256];
        snprintf(here, sizeof here, "%.180s%s%.60s %d", place, *place ? "/" : "", type,
                 ordinal(list, order[i]));
        const int rc = is_model(type)
                           ? read_model(r, element, *group ? group : name, here, depth + 1, err)
                           : read_layer(r, element, group, here, err);
        if (rc)
            return -1;
    }
    if (first)
        find_input(r->k, model);
    return 0;
}

static int fail_problems(const struct reader *r, struct lenet5_error *err) {
    char more[40] = "";
    int told = 1;
    for (const char *s = r->text; (s = strstr(s, ", layer ")); s++)
        told++;
    if (r->problems > told)
        snprintf(more, sizeof more, " and %d more", r->problems - told);
    return fail(err, "%s: %s%s; %ssupported: %s", r->k->path, r->text, more,
                r->quantised ? "remove quantisation wrappers before saving; " : "", SUPPORTED);
}

int config_read(struct keras *k, const char *json, struct lenet5_error *err) {
    struct reader r = {.k = k};
    json_error_t why;
    json_t *root = json_loads(json, 0, &why);
    const char *type = get_text(root, "class_name");
    int rc;
    if (!root)
        return fail(err, "%s: the architecture is not valid JSON: %s at byte %d", k->path,
                    why.text, why.position);
    if (!is_model(type))
        rc = fail(err,
                  "%s: the model is of class %s, of which the file does not say what it "
                  "computes; only Sequential and functional models can be converted",
                  k->path, *type ? type : "unknown");
    else
        rc = read_model(&r, root, "", "", 0, err);
    if (!rc && r.problems)
        rc = fail_problems(&r, err);
    json_decref(root);
    return rc;
}

int config_read_metadata(struct keras *k, const char *json, struct lenet5_error *err) {
    json_error_t why;
    json_t *root = json_loads(json, 0, &why);
    if (!root)
        return fail(err, "%s: metadata.json is not valid JSON: %s at byte %d", k->path,
                    why.text, why.position);
    keras_set_version(k, get_text(root, "keras_version"));
    json_decref(root);
    return 0;
}
