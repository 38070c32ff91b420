/* SPDX-License-Identifier: MIT
 *
 * info.c - lenet5 --info: the network, where its weights come from, and what can run it.
 */
#include "command.h"

#include <string.h>

static const char *origin_text(enum origin origin) {
    return origin == ORIGIN_FILE     ? "said by the file"
           : origin == ORIGIN_OPTION ? "set by an option at conversion"
                                     : "assumed at conversion";
}

static void print_layer(const struct layer *l) {
    char shape[48], window[48] = "";
    if (l->kernel_h)
        snprintf(window, sizeof window, "%dx%d/%d,%d", l->kernel_h, l->kernel_w, l->stride_h,
                 l->stride_w);
    if (l->pad_top || l->pad_left || l->pad_bottom || l->pad_right)
        snprintf(window + strlen(window), sizeof window - strlen(window), " +%d,%d,%d,%d",
                 l->pad_top, l->pad_left, l->pad_bottom, l->pad_right);
    printf("  %-24s %-13s %-12s %-18s %-12s %10s\n", l->name, op_name(l->op),
           shape_text(l->out, shape), window, activation_name(l->activation),
           thousands((long long)(l->weights + l->biases)));
}

static void print_network(const struct model *m, const char *path) {
    char shape[48];
    size_t total = 0;
    printf("network   %s\n\n  %-24s %-13s %-12s %-18s %-12s %10s\n", path, "layer", "op",
           "output", "window/stride +pad", "activation", "parameters");
    printf("  %-24s %-13s %-12s\n", "input", "", shape_text(m->input, shape));
    for (int k = 0; k < m->count; k++) {
        print_layer(&m->layers[k]);
        total += m->layers[k].weights + m->layers[k].biases;
    }
    printf("\n  parameters   %s (%s bytes), %s multiply-adds an image\n",
           thousands((long long)total), thousands((long long)(4 * total)),
           thousands(network_macs(m->layers, m->count)));
    printf("  input        byte * %.9g + %.9g, %s\n", m->scale, m->offset,
           origin_text(m->scaling_origin));
    printf("  from         %s%s%s\n", *m->source ? m->source : "unknown",
           *m->source_version ? ", written by " : "", m->source_version);
    if (*m->source_sha256)
        printf("  SHA-256      %s\n", m->source_sha256);
    printf("  trained on   %s\n", *m->dataset ? m->dataset : "unknown");
    if (m->accuracy > 0)
        printf("  its record   %.2f %% on held-out images\n", 100.0 * m->accuracy);
}

/* m may be NULL, when there are no weights. */
static void print_backend(const struct backend *b, const struct model *m) {
    struct lenet5_error why;
    struct device d;
    printf("  %-10s %s: ", b->name, b->summary);
    if (backend_serves(b, m, &d, &why)) {
        printf("not here: %s\n", why.message);
        return;
    }
    printf("%s", d.name);
    if (b->on_gpu)
        printf(", compute capability %d.%d, %d multiprocessors, %s MiB used and %s MiB free, "
               "driver for CUDA %d.%d",
               d.major, d.minor, d.multiprocessors,
               thousands((long long)((d.memory_total - d.memory_free) >> 20)),
               thousands((long long)(d.memory_free >> 20)), d.driver / 1000,
               d.driver % 1000 / 10);
    printf("\n");
}

static json_t *backend_json(const struct backend *b, const struct model *m) {
    struct lenet5_error why = {""};
    struct device d;
    const int there = !backend_serves(b, m, &d, &why);
    json_t *json = json_pack("{s:s, s:b, s:s}", "name", b->name, "available", there, "why_not",
                             why.message);
    if (there)
        json_object_set_new(json, "device",
                            json_pack("{s:s, s:[i, i], s:i, s:i, s:I, s:I}", "name", d.name,
                                      "compute_capability", d.major, d.minor, "multiprocessors",
                                      d.multiprocessors, "driver", d.driver, "memory_used",
                                      (json_int_t)(d.memory_total - d.memory_free),
                                      "memory_free", (json_int_t)d.memory_free));
    return json;
}

static json_t *layer_json(const struct layer *l) {
    return json_pack("{s:o, s:s, s:[i, i, i], s:[i, i], s:[i, i], s:[i, i, i, i], s:s, s:I}",
                     "name", json_name(l->name), "op", op_name(l->op), "out_shape", l->out.c,
                     l->out.h, l->out.w, "window", l->kernel_h, l->kernel_w, "stride",
                     l->stride_h, l->stride_w, "pad", l->pad_top, l->pad_left, l->pad_bottom,
                     l->pad_right, "activation", activation_name(l->activation), "parameters",
                     (json_int_t)(l->weights + l->biases));
}

static json_t *info_json(const struct model *m, const char *path) {
    json_t *layers = json_array(), *list = json_array();
    for (int k = 0; k < m->count; k++)
        json_array_append_new(layers, layer_json(&m->layers[k]));
    for (const struct backend *const *b = backends; *b; b++)
        json_array_append_new(list, backend_json(*b, m));
    return json_pack(
        "{s:i, s:s, s:o, s:[i, i, i], s:f, s:f, s:s, s:o, s:o, s:o, s:o, s:f, s:o, s:o}",
        "version", JSON_VERSION, "mode", "info", "weights", json_name(path), "input",
        m->input.c, m->input.h, m->input.w, "scale", (double)m->scale, "offset",
        (double)m->offset, "scaling_origin", origin_text(m->scaling_origin), "source",
        json_name(m->source), "source_sha256", json_name(m->source_sha256), "source_version",
        json_name(m->source_version), "trained_on", json_name(m->dataset), "recorded_accuracy",
        (double)m->accuracy, "layers", layers, "backends", list);
}

int mode_info(const struct options *o, struct lenet5_error *err) {
    const char *path = weights_path(o);
    struct model m;
    int rc = blob_read(&m, path, err);
    if (!o->json) { /* the machine can be told about even without weights */
        printf("lenet5 %s\n\nbackends\n", LENET5_VERSION);
        for (const struct backend *const *b = backends; *b; b++)
            print_backend(*b, rc ? NULL : &m);
        printf("\n");
        fflush(stdout);
    }
    if (rc)
        return -1;
    if (o->json)
        rc = print_json(info_json(&m, path), err);
    else
        print_network(&m, path);
    blob_free(&m);
    return rc;
}
