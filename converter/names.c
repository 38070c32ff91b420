/* SPDX-License-Identifier: MIT
 *
 * names.c - what the name of a layer betrays where a file says nothing else about it: that of
 * the user, or of its class as Keras writes it in groups ("average_pooling2d_1").
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <ctype.h>
#include <float.h>
#include <stdio.h>
#include <string.h>

static void lower(const char *name, char text[NAME_SIZE]) {
    size_t i = 0;
    for (; name[i] && i < NAME_SIZE - 1; i++)
        text[i] = (char)tolower((unsigned char)name[i]);
    text[i] = '\0';
}

/* ---- classes that cannot be converted --------------------------------------------------- */

/* Names that Keras gives by itself, or their beginning: with or without arrays, these compute
   what no shape would betray. */
static const struct {
    const char *start, *type;
} strangers[] = {
    {"conv2d_transpose", "Conv2DTranspose"},
    {"depthwise_conv", "DepthwiseConv2D"},
    {"separable_conv", "SeparableConv2D"},
    {"locally_connected", "LocallyConnected2D"},
    {"conv_lstm", "ConvLSTM2D"},
    {"lstm", "LSTM"},
    {"gru", "GRU"},
    {"simple_rnn", "SimpleRNN"},
    {"bidirectional", "Bidirectional"},
    {"embedding", "Embedding"},
    {"layer_normalization", "LayerNormalization"},
    {"group_normalization", "GroupNormalization"},
    {"unit_normalization", "UnitNormalization"},
    {"spectral_normalization", "SpectralNormalization"},
    {"p_re_lu", "PReLU"},
    {"prelu", "PReLU"},
    {"thresholded_re_lu", "ThresholdedReLU"},
    {"up_sampling", "UpSampling2D"},
    {"upsampl", "UpSampling2D"},
    {"cropping", "Cropping2D"},
    {"center_crop", "CenterCrop"},
    {"resizing", "Resizing"},
    {"permute", "Permute"},
    {"repeat_vector", "RepeatVector"},
    {"lambda", "Lambda"},
    {"concatenate", "Concatenate"},
    {"multiply", "Multiply"},
    {"subtract", "Subtract"},
    {"random_crop", "RandomCrop"},
};

/* The same for classes that join branches and whose names begin many others: only these as
   Keras numbers them, "add", "average_1". */
static const struct {
    const char *stem, *type;
} joints[] = {
    {"add", "Add"},         {"average", "Average"}, {"dot", "Dot"},
    {"maximum", "Maximum"}, {"minimum", "Minimum"},
};

static int is_numbered(const char *name, const char *stem) {
    const size_t length = strlen(stem);
    if (strncmp(name, stem, length))
        return 0;
    name += length;
    return !*name || (*name == '_' && name[1] && !name[1 + strspn(name + 1, "0123456789")]);
}

/* The class that cannot be converted; NULL if the name betrays none. */
static const char *strange_type(const char *name) {
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        if (!strncmp(name, strangers[i].start, strlen(strangers[i].start)))
            return strangers[i].type;
    for (size_t i = 0; i < sizeof joints / sizeof *joints; i++)
        if (is_numbered(name, joints[i].stem))
            return joints[i].type;
    return NULL;
}

int name_check(const struct keras *k, const struct unit *u, struct lenet5_error *err) {
    char name[NAME_SIZE];
    lower(u->name, name);
    const char *type = strange_type(name);
    if (type)
        return fail(err,
                    "%s: layer %d '%s' is by its name of class %s, which cannot be converted",
                    k->path, (int)(u - k->units) + 1, u->name, type);
    return 0;
}

/* ---- layers without arrays -------------------------------------------------------------- */

/* Parts of the names of layers without arrays; the first that fits decides. The type is
   Keras's class, or empty where only the kind is told; the function of an activation may be
   unknown as well. */
static const struct {
    const char *part;
    enum kind kind;
    const char *type, *function;
} hints[] = {
    {"drop", KIND_NOTHING, "Dropout", NULL}, /* before what it stands behind: "pool1_drop" */
    {"noise", KIND_NOTHING, "GaussianNoise", NULL},
    {"global_max", KIND_POOL, "GlobalMaxPooling2D", NULL},
    {"globalmax", KIND_POOL, "GlobalMaxPooling2D", NULL},
    {"gmp", KIND_POOL, "GlobalMaxPooling2D", NULL},
    {"global", KIND_POOL, "GlobalAveragePooling2D", NULL},
    {"gap", KIND_POOL, "GlobalAveragePooling2D", NULL},
    {"softmax", KIND_ACTIVATION, "Softmax", "softmax"},
    {"average", KIND_POOL, "AveragePooling2D", NULL},
    {"avg", KIND_POOL, "AveragePooling2D", NULL},
    {"max", KIND_POOL, "MaxPooling2D", NULL},
    {"pool", KIND_POOL, "", NULL},
    {"sampl", KIND_POOL, "", NULL},
    {"pad", KIND_PADDING, "ZeroPadding2D", NULL},
    {"leaky", KIND_ACTIVATION, "LeakyReLU", "leaky"},
    {"lrelu", KIND_ACTIVATION, "LeakyReLU", "leaky"},
    {"relu6", KIND_ACTIVATION, "Activation", "relu6"},
    {"re_lu", KIND_ACTIVATION, "ReLU", "relu"},
    {"relu", KIND_ACTIVATION, "ReLU", "relu"},
    {"selu", KIND_ACTIVATION, "Activation", "selu"},
    {"gelu", KIND_ACTIVATION, "Activation", "gelu"},
    {"elu", KIND_ACTIVATION, "ELU", "elu"},
    {"tanh", KIND_ACTIVATION, "Activation", "tanh"},
    {"hard_sigmoid", KIND_ACTIVATION, "Activation", "hard_sigmoid"},
    {"sigmoid", KIND_ACTIVATION, "Activation", "sigmoid"},
    {"softplus", KIND_ACTIVATION, "Activation", "softplus"},
    {"softsign", KIND_ACTIVATION, "Activation", "softsign"},
    {"swish", KIND_ACTIVATION, "Activation", "swish"},
    {"silu", KIND_ACTIVATION, "Activation", "silu"},
    {"mish", KIND_ACTIVATION, "Activation", "mish"},
    {"activity", KIND_NOTHING, "ActivityRegularization", NULL},
    {"act", KIND_ACTIVATION, "Activation", ""},
    {"flat", KIND_FLATTEN, "Flatten", NULL},
    {"reshape", KIND_NOTHING, "Reshape", NULL},
    {"random", KIND_NOTHING, "RandomFlip", NULL},
    {"rescal", KIND_NOTHING, "Rescaling", NULL},
    {"identity", KIND_NOTHING, "Identity", NULL},
    {"input", KIND_NOTHING, "InputLayer", NULL},
};

void make_pool(struct unit *u, const char *type) {
    u->kind = KIND_POOL;
    u->maximum = strstr(type, "Max") != NULL;
    u->global = !strncmp(type, "Global", 6);
    u->window[0] = u->window[1] = 2;
    snprintf(u->type, sizeof u->type, "%s", type);
}

/* S2 and S4 are LeCun's names for subsampling. */
static int is_subsampling(const char *name) {
    return name[0] == 's' && isdigit((unsigned char)name[1]);
}

void name_read(struct unit *u, int major) {
    const size_t count = sizeof hints / sizeof *hints;
    char name[NAME_SIZE];
    size_t h = 0;
    lower(u->name, name);
    while (h < count && !strstr(name, hints[h].part))
        h++;
    if (h < count ? hints[h].kind == KIND_POOL : is_subsampling(name)) {
        make_pool(u, h < count ? hints[h].type : "");
        return;
    }
    if (h == count)
        return;
    u->kind = hints[h].kind;
    snprintf(u->type, sizeof u->type, "%s", hints[h].type);
    if (!hints[h].function)
        return;
    u->function_known = *hints[h].function != '\0';
    if (!strcmp(hints[h].function, "leaky"))
        u->function = (struct function){ACT_RELU, {0.3f, 0, FLT_MAX}};
    else if (u->function_known)
        keras_function(hints[h].function, major, &u->function);
}
