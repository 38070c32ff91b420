/* SPDX-License-Identifier: MIT
 *
 * fuzz_config.c - libFuzzer target for an architecture in JSON: config_read, and, where it
 * accepts, everything behind it up to the blob. The units get arrays of the shapes that they
 * ask for, filled with small numbers; how many rows a dense layer needs is taken from the
 * refusal of the first try. What is refused must say why; what is accepted must be a table that
 * blob.c writes and reads back.
 *
 *     fuzz_config -max_total_time=120 NEW-CORPUS tests/corpus/config
 */
#include "keras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NUMBERS = 1 << 16, TRIES = 6 };

static struct keras k;

static void demand(int promise) {
    if (!promise)
        abort();
}

/* An array of ones, or none if it is too large. */
static void make_array(struct tensor *t, int rank, const size_t *dim) {
    t->count = 1;
    for (int i = 0; i < rank && t->count <= MOST_NUMBERS; i++)
        t->count *= dim[i];
    t->rank = rank;
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    if (t->count > MOST_NUMBERS)
        t->count = 0;
    t->data = calloc(t->count + 1, sizeof *t->data);
    demand(t->data != NULL);
    for (size_t i = 0; i < t->count; i++)
        t->data[i] = 1;
}

/* Gives the units arrays as they ask for; rows is for the dense layers, in their order. */
static void make_arrays(const size_t *rows) {
    size_t channels = 0;
    for (int i = 0; i < k.count; i++) {
        struct unit *u = &k.units[i];
        const size_t out = u->outputs > 0 ? (size_t)u->outputs : 0;
        const size_t in = channels ? channels : k.input_rank == 3 && k.input[2] == 3 ? 3 : 1;
        const size_t h = u->window[0] > 0 ? (size_t)u->window[0] : 0;
        const size_t w = u->window[1] > 0 ? (size_t)u->window[1] : 0;
        const size_t conv[] = {h, w, in, out}, oihw[] = {out, in, h, w};
        const size_t dense[] = {*rows, out};
        if (u->kind == KIND_CONV)
            make_array(&u->array[KERNEL], 4, u->kernel == ORDER_CHW ? oihw : conv);
        if (u->kind == KIND_DENSE) {
            make_array(&u->array[KERNEL], 2, dense);
            rows += rows[1] != 0;
        }
        if (u->has[BIAS])
            make_array(&u->array[BIAS], 1, &out);
        if (u->kind == KIND_CONV || u->kind == KIND_DENSE)
            channels = out;
        for (int role = GAMMA; role < ROLE_END; role++)
            if (u->has[role] && !u->array[role].count)
                make_array(&u->array[role], 1, &channels);
    }
}

static void check_model(struct model *m) {
    struct lenet5_error err;
    uint8_t *bytes;
    size_t size;
    struct model back;
    demand(m->count > 0 && m->count <= MAX_LAYERS);
    demand(!blob_serialize(m, &bytes, &size, &err));
    demand(!blob_parse(&back, bytes, size, "input", &err));
    blob_free(&back);
    blob_free(m);
    free(bytes);
}

/* One try; 1 if the number of rows that a dense layer needs has become known. */
static int try_rows(const char *json, size_t *rows) {
    struct lenet5_error err = {""};
    struct keras_options options;
    struct model m;
    keras_options_init(&options);
    options.classes = 1;
    memset(&k, 0, sizeof k);
    k.path = "input";
    k.architecture = 1;
    int rc = config_read(&k, json, &err), learned = 0;
    if (!rc) {
        make_arrays(rows);
        rc = weights_check(&k, &err);
    }
    if (!rc) {
        rc = translate(&k, &options, &m, &err);
        const char *outputs = strstr(err.message, "--classes ");
        if (rc && outputs) { /* any number of classes will do */
            keras_free(&k);
            return 0;
        }
        if (!rc)
            check_model(&m);
    }
    demand(!rc == !*err.message);
    const char *need = strstr(err.message, " = "), *vector = strstr(err.message, "gives ");
    size_t number = 0;
    if (rc && need && strstr(err.message, "rows"))
        learned = sscanf(need, " = %zu", &number) == 1;
    else if (rc && vector && strstr(err.message, "rows"))
        learned = sscanf(vector, "gives %zu", &number) == 1;
    while (learned && *rows > 1)
        rows++;
    if (learned)
        *rows = number;
    keras_free(&k);
    return learned;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t rows[TRIES + 2] = {1, 1, 1, 1, 1, 1, 1, 0};
    char *json = malloc(size + 1);
    demand(json != NULL);
    memcpy(json, data, size);
    json[size] = '\0';
    for (int i = 0; i < TRIES && try_rows(json, rows); i++)
        ;
    free(json);
    return 0;
}
