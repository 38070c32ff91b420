/* SPDX-License-Identifier: MIT
 *
 * test_h5.h - makes HDF5 files as Keras writes them, for tests that then spoil one thing. Two
 * small networks: convolution 3x3x1x2, pooling 2x2, Flatten and a dense layer of 10, saved as
 * weights only (layout D) or with their architecture (layout E).
 *
 * Whatever fails here fails the test: assert_true on HDF5's return values.
 */
#ifndef LENET5_TEST_H5_H
#define LENET5_TEST_H5_H

#include "testing.h"

#include <hdf5.h>

/* What the JSON of layout E says; the batch and the padding fit 338 rows of the dense layer. */
static const char MODEL[] =
    "{\"class_name\": \"Sequential\", \"config\": {\"name\": \"sequential\", \"layers\": ["
    "{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"input\", "
    "\"batch_input_shape\": [null, 28, 28, 1]}}, "
    "{\"class_name\": \"Conv2D\", \"config\": {\"name\": \"conv2d\", \"filters\": 2, "
    "\"kernel_size\": [3, 3], \"strides\": [1, 1], \"padding\": \"valid\", "
    "\"data_format\": \"channels_last\", \"dilation_rate\": [1, 1], \"groups\": 1, "
    "\"activation\": \"tanh\", \"use_bias\": true}}, "
    "{\"class_name\": \"AveragePooling2D\", \"config\": {\"name\": \"average_pooling2d\", "
    "\"pool_size\": [2, 2], \"strides\": [2, 2], \"padding\": \"valid\", "
    "\"data_format\": \"channels_last\"}}, "
    "{\"class_name\": \"Flatten\", \"config\": {\"name\": \"flatten\", "
    "\"data_format\": \"channels_last\"}}, "
    "{\"class_name\": \"Dense\", \"config\": {\"name\": \"dense\", \"units\": 10, "
    "\"activation\": \"softmax\", \"use_bias\": true}}]}}";

static inline void h5_close_all(hid_t a, hid_t b, hid_t c) {
    const hid_t ids[] = {a, b, c};
    for (int k = 0; k < 3; k++)
        if (ids[k] >= 0)
            assert_true(H5Idec_ref(ids[k]) >= 0);
}

static inline hid_t h5_create(const char *path) {
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

/* Makes the group, and those on the way to it. */
static inline void put_group(hid_t at, const char *path) {
    const hid_t plist = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(plist, 1);
    const hid_t group = H5Gcreate2(at, path, plist, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(group >= 0);
    h5_close_all(group, plist, -1);
}

static inline void put_attribute(hid_t at, const char *object, const char *name, hid_t type,
                                 hid_t space, const void *value) {
    const hid_t id =
        H5Acreate_by_name(at, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0);
    if (value)
        assert_true(H5Awrite(id, type, value) >= 0);
    h5_close_all(id, space, -1);
}

/* A list of strings of variable length, of which none is an empty array of floats, as h5py
   writes it. */
static inline void put_names(hid_t at, const char *object, const char *name,
                             const char *const *names, hsize_t count) {
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &count, NULL);
    H5Tset_size(type, H5T_VARIABLE);
    put_attribute(at, object, name, count ? type : H5T_NATIVE_DOUBLE, space, names);
    h5_close_all(type, -1, -1);
}

static inline void put_text(hid_t at, const char *object, const char *name, const char *text) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    put_attribute(at, object, name, type, H5Screate(H5S_SCALAR), &text);
    h5_close_all(type, -1, -1);
}

static inline void put_set(hid_t at, const char *path, hid_t type, hid_t memory, int rank,
                           const hsize_t *dims, const void *data, hid_t plist) {
    const hid_t link = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(link, 1);
    const hid_t space = H5Screate_simple(rank, dims, NULL);
    const hid_t set = H5Dcreate2(at, path, type, space, link, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    if (data)
        assert_true(H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    h5_close_all(set, space, link);
}

/* Floats between -1 and 1, always the same. Dimensions end with a 0. */
static inline void put_floats(hid_t at, const char *path, const hsize_t *dims) {
    struct rng rng = {SEED};
    hsize_t count = 1;
    int rank = 0;
    for (; dims[rank]; rank++)
        count *= dims[rank];
    float *data = calloc(count, sizeof *data);
    for (hsize_t k = 0; k < count; k++)
        data[k] = rng_real(&rng, -1, 1);
    put_set(at, path, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, rank, dims, data, H5P_DEFAULT);
    free(data);
}

static inline void put_ones(hid_t at, const char *path, hsize_t count) {
    float *data = calloc(count, sizeof *data);
    for (hsize_t k = 0; k < count; k++)
        data[k] = 1;
    put_set(at, path, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, &count, data, H5P_DEFAULT);
    free(data);
}

#define DIMS(...) ((const hsize_t[]){__VA_ARGS__, 0})
#define NAMES(...)                                                                             \
    ((const char *const[]){__VA_ARGS__}),                                                      \
        sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

/* One legacy layer below base: its group, its list, its kernel and its bias. */
static inline void put_layer(hid_t file, const char *base, const char *name,
                             const hsize_t *kernel, hsize_t outputs) {
    char group[200], path[300], kernel_name[100], bias_name[100];
    snprintf(group, sizeof group, "%s%s", base, name);
    put_group(file, group);
    if (!kernel) {
        put_names(file, group, "weight_names", NULL, 0);
        return;
    }
    snprintf(kernel_name, sizeof kernel_name, "%.40s/kernel:0", name);
    snprintf(bias_name, sizeof bias_name, "%.40s/bias:0", name);
    put_names(file, group, "weight_names", NAMES(kernel_name, bias_name));
    snprintf(path, sizeof path, "%.100s/%s", group, kernel_name);
    put_floats(file, path, kernel);
    snprintf(path, sizeof path, "%.100s/%s", group, bias_name);
    put_floats(file, path, DIMS(outputs));
}

/* The network below base, "" or "model_weights/". */
static inline void put_network(hid_t file, const char *base) {
    const char *const root = *base ? "model_weights" : "/";
    if (*base)
        put_group(file, root);
    put_names(file, root, "layer_names",
              NAMES("conv2d", "average_pooling2d", "flatten", "dense"));
    put_text(file, root, "keras_version", "2.15.0");
    put_text(file, root, "backend", "tensorflow");
    put_layer(file, base, "conv2d", DIMS(3, 3, 1, 2), 2);
    put_layer(file, base, "average_pooling2d", NULL, 0);
    put_layer(file, base, "flatten", NULL, 0);
    put_layer(file, base, "dense", DIMS(338, 10), 10);
}

/* Layout D. */
static inline hid_t h5_weights(const char *path) {
    const hid_t file = h5_create(path);
    put_network(file, "");
    return file;
}

/* Layout E with this architecture. */
static inline hid_t h5_model(const char *path, const char *json) {
    const hid_t file = h5_create(path);
    put_network(file, "model_weights/");
    put_text(file, "/", "model_config", json);
    return file;
}

/* The command: $H5_TO_BLOB, else $BUILD/h5_to_blob, else that of build/cpu. */
static inline const char *converter_path(void) {
    static char path[512];
    const char *named = getenv("H5_TO_BLOB"), *build = getenv("BUILD");
    if (named)
        snprintf(path, sizeof path, "%s", named);
    else
        snprintf(path, sizeof path, "%s/h5_to_blob", build ? build : "build/cpu");
    return path;
}

/* The first occurrence of one text in another replaced; the caller's to free. */
static inline char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    assert_non_null(at);
    const size_t size = strlen(text) + strlen(to) + 1;
    char *copy = malloc(size);
    snprintf(copy, size, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return copy;
}

#endif
