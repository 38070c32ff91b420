/* SPDX-License-Identifier: MIT
 *
 * network.c - checks a table of layers, derives every shape, and lists the backends.
 *
 * The check runs wherever a table is made or read, so that nothing after it needs to doubt a
 * size: every product below fits, every window lies within its bordered map.
 */
#include "backend.h"

#include <string.h>

static const char *const op_names[OP_END] = {"none",  "conv",  "average_pool", "max_pool",
                                             "dense", "scale", "activation"};

static const char *const activation_names[ACT_END] = {
    "linear", "tanh", "sigmoid",   "relu",         "elu",     "softplus", "softsign",
    "swish",  "gelu", "gelu_tanh", "hard_sigmoid", "softmax", "selu",     "mish"};

const struct backend *const backends[] = {
#ifdef LENET5_CUDA
    &backend_fused, &backend_cuda,      &backend_tensor,
#endif
    &backend_simd,  &backend_reference, NULL,
};

const char *op_name(enum op op) {
    return op > 0 && op < OP_END ? op_names[op] : "unknown";
}

const char *activation_name(enum activation a) {
    return (unsigned)a < ACT_END ? activation_names[a] : "unknown";
}

enum activation activation_by_name(const char *name) {
    int a = 0;
    while (a < ACT_END && strcmp(name, activation_names[a]))
        a++;
    return (enum activation)a;
}

const struct backend *backend_find(const char *name, struct lenet5_error *err) {
    char known[128] = "";
    for (const struct backend *const *b = backends; *b; b++) {
        if (!strcmp((*b)->name, name))
            return *b;
        strncat(known, (*b)->name, sizeof known - strlen(known) - 3);
        strcat(known, b[1] ? ", " : "");
    }
    fail(err, "backend '%s' is not in this build, which has: %s", name, known);
    return NULL;
}

static int in_range(int value, int least, int most) {
    return value >= least && value <= most;
}

static int check_window(const struct layer *l, int row, struct lenet5_error *err) {
    if (!in_range(l->kernel_h, 1, MAX_WINDOW) || !in_range(l->kernel_w, 1, MAX_WINDOW) ||
        !in_range(l->stride_h, 1, MAX_WINDOW) || !in_range(l->stride_w, 1, MAX_WINDOW))
        return fail(err, "layer %d '%s': window %dx%d with stride %dx%d; each must be 1 to %d",
                    row, l->name, l->kernel_h, l->kernel_w, l->stride_h, l->stride_w,
                    MAX_WINDOW);
    if (!in_range(l->pad_top, 0, l->kernel_h - 1) ||
        !in_range(l->pad_bottom, 0, l->kernel_h - 1) ||
        !in_range(l->pad_left, 0, l->kernel_w - 1) ||
        !in_range(l->pad_right, 0, l->kernel_w - 1))
        return fail(err,
                    "layer %d '%s': border %d %d %d %d (top left bottom right); each must be 0 "
                    "or more and smaller than the window, which is %dx%d",
                    row, l->name, l->pad_top, l->pad_left, l->pad_bottom, l->pad_right,
                    l->kernel_h, l->kernel_w);
    return 0;
}

static int has_window(const struct layer *l) {
    return l->kernel_h || l->kernel_w || l->stride_h || l->stride_w || l->pad_top ||
           l->pad_left || l->pad_bottom || l->pad_right;
}

/* Derives l->out from l->in; out.c of convolution and dense rows is given. */
static int derive_out(struct layer *l, int row, struct lenet5_error *err) {
    const int windowed = l->op == OP_CONV || l->op == OP_AVERAGE_POOL || l->op == OP_MAX_POOL;
    if (!windowed && has_window(l))
        return fail(err, "layer %d '%s': a %s has no window, stride or border", row, l->name,
                    op_name(l->op));
    switch (l->op) {
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        l->out.c = l->in.c;
        /* fall through */
    case OP_CONV:
        if (check_window(l, row, err))
            return -1;
        l->out.h = window_steps(l->in.h + l->pad_top + l->pad_bottom, l->kernel_h, l->stride_h);
        l->out.w = window_steps(l->in.w + l->pad_left + l->pad_right, l->kernel_w, l->stride_w);
        if (l->out.h < 1 || l->out.w < 1)
            return fail(err,
                        "layer %d '%s': a window of %dx%d does not fit into a map of %dx%d",
                        row, l->name, l->kernel_h, l->kernel_w, l->in.h, l->in.w);
        break;
    case OP_DENSE:
        l->out.h = l->out.w = 1;
        break;
    default:
        l->out = l->in;
    }
    if (!in_range(l->out.c, 1, MAX_CHANNELS) || shape_size(l->out) > MAX_MAP)
        return fail(err, "layer %d '%s': output %dx%dx%d; at most %d channels and %d numbers",
                    row, l->name, l->out.c, l->out.h, l->out.w, MAX_CHANNELS, MAX_MAP);
    return 0;
}

/* How many weights and biases the row must have; has_bias says whether it has biases at all. */
static void derive_counts(struct layer *l, int has_bias) {
    size_t window = (size_t)l->kernel_h * (size_t)l->kernel_w;
    size_t out = (size_t)l->out.c;
    switch (l->op) {
    case OP_CONV:
        l->weights = out * (size_t)l->in.c * window;
        break;
    case OP_DENSE:
        l->weights = out * shape_size(l->in);
        break;
    case OP_SCALE:
        l->weights = out;
        break;
    default:
        l->weights = 0;
        has_bias = 0;
    }
    l->biases = has_bias ? out : 0;
}

static int check_activation(const struct layer *l, int row, struct lenet5_error *err) {
    if ((unsigned)l->activation >= ACT_END)
        return fail(err, "layer %d '%s': activation number %d; the last known is %d", row,
                    l->name, (int)l->activation, ACT_END - 1);
    if (l->activation == ACT_SOFTMAX && l->op != OP_ACTIVATION)
        return fail(err, "layer %d '%s': softmax must be a row of its own", row, l->name);
    for (int k = 0; k < 3; k++)
        if (!isfinite(l->param[k]))
            return fail(err, "layer %d '%s': parameter %d of its activation is not finite", row,
                        l->name, k);
    return 0;
}

int network_check(struct layer *layers, int count, struct shape input,
                  struct lenet5_error *err) {
    size_t total = 0;
    if (!in_range(count, 1, MAX_LAYERS))
        return fail(err, "%d layers; there must be 1 to %d", count, MAX_LAYERS);
    if ((input.c != 1 && input.c != 3) || !in_range(input.h, 1, MAX_SIDE) ||
        !in_range(input.w, 1, MAX_SIDE))
        return fail(err, "input of %d channels, %dx%d; it must have 1 or 3 and at most %dx%d",
                    input.c, input.h, input.w, MAX_SIDE, MAX_SIDE);
    for (int k = 0; k < count; k++) {
        struct layer *l = &layers[k];
        if (l->op < OP_CONV || l->op >= OP_END)
            return fail(err, "layer %d: operation number %d; known are 1 to %d", k, (int)l->op,
                        OP_END - 1);
        l->in = k ? layers[k - 1].out : input;
        if (check_activation(l, k, err) || derive_out(l, k, err))
            return -1;
        derive_counts(l, l->biases != 0);
        total += l->weights + l->biases;
        if (total > MAX_PARAMETERS)
            return fail(err, "layer %d '%s': more than %d parameters in all", k, l->name,
                        MAX_PARAMETERS);
    }
    return 0;
}

int network_logit_rows(const struct layer *layers, int count) {
    return count > 1 && layers[count - 1].activation == ACT_SOFTMAX ? count - 1 : count;
}

size_t network_largest_map(const struct layer *layers, int count, struct shape input) {
    size_t largest = shape_size(input);
    for (int k = 0; k < count; k++)
        if (shape_size(layers[k].out) > largest)
            largest = shape_size(layers[k].out);
    return largest;
}

int64_t layer_macs(const struct layer *l) {
    if (l->op == OP_CONV)
        return (int64_t)l->weights * l->out.h * l->out.w;
    return l->op == OP_DENSE ? (int64_t)l->weights : 0;
}

int64_t network_macs(const struct layer *layers, int count) {
    int64_t macs = 0;
    for (int k = 0; k < count; k++)
        macs += layer_macs(&layers[k]);
    return macs;
}
