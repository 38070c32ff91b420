/* SPDX-License-Identifier: MIT
 *
 * report.c - see report.h. Lists the layers as Keras counts them: shapes rows x columns x
 * channels, parameters with those of batch normalisation that are not trained.
 */
#include "report.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static const char *const layouts[] = {
    ['A' - 'A'] = "weights of Keras 0.x, numbered",
    ['B' - 'A'] = "weights of Keras 1",
    ['C' - 'A'] = "whole model of Keras 1",
    ['D' - 'A'] = "weights",
    ['E' - 'A'] = "whole model",
    ['F' - 'A'] = "weights (.weights.h5)",
    ['G' - 'A'] = "whole model (.keras)",
    ['H' - 'A'] = "whole model (unzipped .keras)",
    ['K' - 'A'] = "PyTorch state dict",
};

static const char *shape_of(const struct unit *u, char text[40]) {
    if (u->flat || (u->out.h == 1 && u->out.w == 1 && u->kind == KIND_DENSE))
        snprintf(text, 40, "%zu", shape_size(u->out));
    else
        snprintf(text, 40, "%dx%dx%d", u->out.h, u->out.w, u->out.c);
    return text;
}

static const char *window_of(const struct unit *u, char text[60]) {
    const int *w = u->window, *s = u->stride;
    const int plain =
        u->kind == KIND_CONV ? s[0] == 1 && s[1] == 1 : s[0] == w[0] && s[1] == w[1];
    static const char *const paddings[] = {"", " same", " full"};
    char stride[30] = "";
    text[0] = '\0';
    if (u->kind != KIND_CONV && u->kind != KIND_POOL)
        return text;
    if (!plain)
        snprintf(stride, sizeof stride, "/%dx%d", s[0], s[1]);
    snprintf(text, 60, "%dx%d%s%s", w[0], w[1], stride, paddings[u->padding]);
    return text;
}

static const char *function_of(const struct unit *u) {
    return u->function.activation == ACT_LINEAR ? "" : activation_name(u->function.activation);
}

/* "byte / 127.5 - 1": a scale is easier to read as what divides. */
static const char *scaling_of(const struct model *m, char text[80]) {
    const double divisor = m->scale ? round(2.0 / (double)m->scale) / 2 : 0;
    char offset[40] = "";
    if (m->offset)
        snprintf(offset, sizeof offset, " %c %.7g", m->offset < 0 ? '-' : '+',
                 fabs((double)m->offset));
    if (m->scale == 1)
        snprintf(text, 80, "byte%s", offset);
    else if (divisor && m->scale == (float)(1 / divisor))
        snprintf(text, 80, "byte / %.7g%s", divisor, offset);
    else
        snprintf(text, 80, "byte * %.9g%s", (double)m->scale, offset);
    return text;
}

/* Without the options that stand behind it in the blob. */
static const char *writer_of(const struct keras *k) {
    return k->layout == 'K' ? "PyTorch" : k->version;
}

static long long total_parameters(const struct keras *k) {
    long long total = 0;
    for (int i = 0; i < k->count; i++)
        total += k->units[i].parameters;
    return total;
}

static long long row_parameters(const struct model *m) {
    long long total = 0;
    for (int i = 0; i < m->count; i++)
        total += (long long)(m->layers[i].weights + m->layers[i].biases);
    return total;
}

void report_text(const struct keras *k, const struct model *m, const char *output, FILE *to) {
    static const char *const origins[] = {"assumed", "from the file", "as asked for"};
    char shape[40], window[60], scaling[80];
    fprintf(to, "%s: %s%s%s%s%s\n\n", m->source, layouts[k->layout - 'A'],
            *writer_of(k) ? ", " : "", writer_of(k), *k->backend ? ", " : "", k->backend);
    fprintf(to, "  #  %-24s %-20s %-12s %-10s %10s  %s\n", "layer", "class", "window", "output",
            "parameters", "activation");
    fprintf(to, "     %-24s %-20s %-12s %dx%dx%d\n", "input", "", "", m->input.h, m->input.w,
            m->input.c);
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        const char *function = function_of(u);
        fprintf(to, "%3d  %-24s %-20s %-12s %-10s %10lld%s%s\n", i + 1, u->name, u->type,
                window_of(u, window), shape_of(u, shape), u->parameters, *function ? "  " : "",
                function);
    }
    fprintf(to, "%85lld in Keras, %lld in the blob's %d rows\n\n", total_parameters(k),
            row_parameters(m), m->count);
    fprintf(to, "input: %s, %s\n", scaling_of(m, scaling), origins[m->scaling_origin]);
    for (int i = 0; i < k->note_count; i++)
        fprintf(to, "assumed: %s\n", k->notes[i]);
    if (output)
        fprintf(to, "wrote %s; next: ./lenet5 --eval --weights %s\n", output, output);
}

static json_t *json_units(const struct keras *k) {
    json_t *list = json_array();
    char shape[40], window[60];
    for (int i = 0; i < k->count; i++) {
        const struct unit *u = &k->units[i];
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:s}", "index", i + 1, "name",
                            u->name, "class", u->type, "window", window_of(u, window), "output",
                            shape_of(u, shape), "parameters", (json_int_t)u->parameters,
                            "activation", activation_name(u->function.activation)));
    }
    return list;
}

static json_t *json_rows(const struct model *m) {
    json_t *list = json_array();
    for (int i = 0; i < m->count; i++) {
        const struct layer *l = &m->layers[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:[i,i,i], s:I}", "name",
                                              l->name, "op", op_name(l->op), "activation",
                                              activation_name(l->activation), "out_shape",
                                              l->out.c, l->out.h, l->out.w, "parameters",
                                              (json_int_t)(l->weights + l->biases)));
    }
    return list;
}

/* JSON holds UTF-8 only; paths and what a user says may be anything. */
static json_t *json_text(const char *text) {
    char clean[4096];
    if (!text)
        return json_null();
    snprintf(clean, sizeof clean, "%s", text);
    clean_text(clean);
    return json_string(clean);
}

int report_json(const struct keras *k, const struct model *m, const char *output, FILE *to) {
    static const char *const origins[] = {"assumed", "file", "option"};
    const char layout[2] = {k->layout, '\0'};
    json_t *assumed = json_array();
    for (int i = 0; i < k->note_count; i++)
        json_array_append_new(assumed, json_string(k->notes[i]));
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:[i,i,i], s:f, s:f, s:s, s:s, s:f, s:o, s:o, "
        "s:I, "
        "s:o, s:o}",
        "version", 1, "source", m->source, "sha256", m->source_sha256, "layout", layout,
        "layout_name", layouts[k->layout - 'A'], "written_by", writer_of(k), "backend",
        k->backend, "input", m->input.h, m->input.w, m->input.c, "scale", (double)m->scale,
        "offset", (double)m->offset, "scaling_origin", origins[m->scaling_origin], "dataset",
        m->dataset, "accuracy", (double)m->accuracy, "layers", json_units(k), "rows",
        json_rows(m), "parameters", (json_int_t)total_parameters(k), "assumed", assumed,
        "output", json_text(output));
    const int rc = root ? json_dumpf(root, to, JSON_INDENT(2)) : -1;
    if (root)
        fputc('\n', to);
    json_decref(root);
    return rc;
}
