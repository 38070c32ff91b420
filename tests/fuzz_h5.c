/* SPDX-License-Identifier: MIT
 *
 * fuzz_h5.c - libFuzzer target for everything that reads HDF5. The input is a program that
 * makes a file through HDF5's own calls: groups, links of any kind and in circles, attributes
 * and data sets of any type, shape and storage, under the names that Keras uses and under
 * others. So what is fuzzed is what we make of a well-formed file of any content. HDF5's parser
 * itself is not proof against damaged bytes; h5_to_blob runs it inside guard.h, which
 * test_hostile.c tests.
 *
 *     fuzz_h5 -max_total_time=120 NEW-CORPUS tests/corpus/h5
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_STEPS = 64 };

static void demand(int promise) {
    if (!promise)
        abort();
}

/* ---- the program: bytes that are taken from the front, zeros when there are no more ---------
 */

struct program {
    const uint8_t *at, *end;
};

static unsigned next(struct program *p) {
    return p->at < p->end ? *p->at++ : 0;
}

static const char *const names[] = {
    "layer_names",
    "weight_names",
    "keras_version",
    "backend",
    "model_config",
    "nb_layers",
    "lenet5_dataset",
    "lenet5_accuracy",
    "layer_names0",
    "weight_names0",
    "model_weights",
    "conv2d",
    "dense",
    "dense_1",
    "batch_normalization",
    "average_pooling2d",
    "max_pooling2d",
    "flatten",
    "activation",
    "conv2d/kernel:0",
    "conv2d/bias:0",
    "dense/kernel:0",
    "dense/bias:0",
    "dense_1/kernel:0",
    "dense_1/bias:0",
    "batch_normalization/gamma:0",
    "batch_normalization/beta:0",
    "batch_normalization/moving_mean:0",
    "batch_normalization/moving_variance:0",
    "layers",
    "vars",
    "vars/0",
    "vars/1",
    "vars/2",
    "vars/3",
    "layers/conv2d/vars/0",
    "layers/conv2d/vars/1",
    "layers/dense/vars/0",
    "layers/dense/vars/1",
    "layers/dense_1/vars/0",
    "layers/batch_normalization/vars/0",
    "layers/batch_normalization/vars/1",
    "layers/batch_normalization/vars/2",
    "layers/batch_normalization/vars/3",
    "layers/normalization/vars/0",
    "_layer_checkpoint_dependencies\\dense/vars/0",
    "layers/average_pooling2d",
    "layer_0",
    "layer_1",
    "layer_0/param_0",
    "layer_0/param_1",
    "layer_1/param_0",
    "layer_1/param_1",
    "conv1.weight",
    "conv1.bias",
    "fc1.weight",
    "fc1.bias",
    "bn1.weight",
    "bn1.bias",
    "bn1.running_mean",
    "bn1.running_var",
    "param_0",
    "param_1",
    "convolution2d_1_W:0",
    "convolution2d_1_b:0",
    "tensorflow",
    "theano",
    "2.15.0",
    "1.2.2",
    "optimizer",
    "zero_padding2d",
    "leaky_re_lu",
    "global_average_pooling2d",
    "S2",
    "0.9",
    "",
};

/* A name of the list, or up to 31 bytes of the program. */
static void take_name(struct program *p, char name[64]) {
    const unsigned choice = next(p), known = sizeof names / sizeof *names;
    if (choice < 224) {
        snprintf(name, 64, "%s", names[choice % known]);
        return;
    }
    for (unsigned i = 0; i < choice - 224; i++)
        *name++ = (char)next(p);
    *name = '\0';
}

static const char *const objects[] = {
    "/",
    "model_weights",
    "conv2d",
    "dense",
    "dense_1",
    "batch_normalization",
    "layers",
    "model_weights/conv2d",
    "model_weights/dense",
    "layer_0",
    "layer_1",
    "flatten",
};

static const char *take_object(struct program *p) {
    return objects[next(p) % (sizeof objects / sizeof *objects)];
}

/* ---- types, spaces, storage ------------------------------------------------------------- */

static hid_t take_type(struct program *p) {
    const unsigned choice = next(p);
    hid_t type;
    switch (choice % 12) {
    case 0:
        type = H5Tcopy(H5T_IEEE_F64LE);
        break;
    case 1:
        type = H5Tcopy(H5T_IEEE_F32BE);
        break;
    case 2: /* float16 */
        type = H5Tcopy(H5T_IEEE_F32LE);
        H5Tset_fields(type, 15, 10, 5, 0, 10);
        H5Tset_size(type, 2);
        H5Tset_ebias(type, 15);
        break;
    case 3:
        return H5Tcreate(H5T_OPAQUE, 1 + next(p) % 4);
    case 4:
        return H5Tcopy(H5T_STD_I8LE);
    case 5:
        return H5Tcopy(H5T_STD_I64BE);
    case 6:
        type = H5Tcopy(H5T_IEEE_F32LE);
        H5Tset_ebias(type, next(p));
        break;
    case 7:
        type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, 1 + next(p) % 16);
        H5Tset_strpad(type, (H5T_str_t)(next(p) % 3));
        break;
    default:
        type = H5Tcopy(H5T_IEEE_F32LE);
    }
    return type;
}

/* Mostly small, sometimes a claim. */
static hid_t take_space(struct program *p, hsize_t dims[6], int *rank) {
    const unsigned choice = next(p);
    *rank = (int)(choice % 7);
    if (choice > 240)
        return H5Screate(H5S_NULL);
    for (int i = 0; i < *rank; i++) {
        const unsigned byte = next(p);
        dims[i] = byte < 250 ? byte % 40 : (hsize_t)1 << (byte % 8 * 8);
    }
    return *rank ? H5Screate_simple(*rank, dims, NULL) : H5Screate(H5S_SCALAR);
}

static hid_t take_storage(struct program *p, const hsize_t *dims, int rank) {
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[6];
    const unsigned choice = next(p);
    for (int i = 0; i < rank; i++)
        chunk[i] = 1 + next(p) % (dims[i] && dims[i] < 64 ? (unsigned)dims[i] : 1);
    if (choice % 4 == 1)
        H5Pset_layout(plist, H5D_COMPACT);
    else if (choice % 4 == 2 && rank)
        H5Pset_chunk(plist, rank, chunk);
    if (choice & 16)
        H5Pset_shuffle(plist);
    if (choice & 32)
        H5Pset_deflate(plist, 1);
    if (choice & 64)
        H5Pset_fletcher32(plist);
    if (choice == 255)
        H5Pset_external(plist, "/etc/passwd", 0, 64);
    return plist;
}

/* ---- where a program may start: small networks in several layouts ------------------------ */

static void put_texts(hid_t file, const char *object, const char *name, hsize_t count,
                      const char *const *texts) {
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &count, NULL);
    H5Tset_size(type, H5T_VARIABLE);
    const hid_t id = H5Acreate_by_name(file, object, name, type, space, H5P_DEFAULT,
                                       H5P_DEFAULT, H5P_DEFAULT);
    demand(id >= 0 && H5Awrite(id, type, texts) >= 0);
    H5Aclose(id);
    H5Sclose(space);
    H5Tclose(type);
}

static hid_t intermediate(void) {
    const hid_t plist = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(plist, 1);
    return plist;
}

static void put_floats(hid_t file, const char *path, const hsize_t *dims) {
    static float data[4096];
    int rank = 0;
    while (rank < 4 && dims[rank])
        rank++;
    for (int i = 0; i < 4096; i++)
        data[i] = (float)(i % 5 + 1) / 4;
    const hid_t link = intermediate(), space = H5Screate_simple(rank, dims, NULL);
    const hid_t set =
        H5Dcreate2(file, path, H5T_IEEE_F32LE, space, link, H5P_DEFAULT, H5P_DEFAULT);
    demand(set >= 0 &&
           H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(link);
}

/* Arrays by layout; the first part of a path is the layer's group where there are lists. */
static const struct array {
    char layout;
    const char *path;
    hsize_t dims[5];
} arrays[] = {
    {'D', "conv2d/conv2d/kernel:0", {3, 3, 1, 2}},
    {'D', "conv2d/conv2d/bias:0", {2}},
    {'D', "dense/dense/kernel:0", {338, 10}},
    {'D', "dense/dense/bias:0", {10}},
    {'B', "convolution2d_1/convolution2d_1_W", {2, 1, 3, 3}},
    {'B', "convolution2d_1/convolution2d_1_b", {2}},
    {'B', "dense_1/dense_1_W", {338, 10}},
    {'B', "dense_1/dense_1_b", {10}},
    {'F', "layers/conv2d/vars/0", {3, 3, 1, 2}},
    {'F', "layers/conv2d/vars/1", {2}},
    {'F', "layers/batch_normalization/vars/0", {2}},
    {'F', "layers/batch_normalization/vars/1", {2}},
    {'F', "layers/batch_normalization/vars/2", {2}},
    {'F', "layers/batch_normalization/vars/3", {2}},
    {'F', "layers/dense/vars/0", {338, 10}},
    {'K', "bn1.bias", {2}},
    {'K', "bn1.running_mean", {2}},
    {'K', "bn1.running_var", {2}},
    {'K', "bn1.weight", {2}},
    {'K', "conv1.weight", {2, 1, 3, 3}},
    {'K', "fc1.bias", {10}},
    {'K', "fc1.weight", {10, 338}},
};

/* Gives the groups of a legacy file their lists. */
static void put_lists(hid_t file, char layout) {
    const char *layers[3] = {0}, *of_layer[2];
    hsize_t count = 0, arrays_of = 0;
    char group[64] = "";
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        const char *path = arrays[i].path, *slash = strchr(path, '/');
        if (arrays[i].layout != layout)
            continue;
        of_layer[arrays_of++] = slash + 1;
        if (arrays_of == 2) {
            snprintf(group, sizeof group, "%.*s", (int)(slash - path), path);
            put_texts(file, group, "weight_names", 2, of_layer);
            arrays_of = 0;
            layers[count++] = path[0] == 'd'  ? layout == 'B' ? "dense_1" : "dense"
                              : layout == 'B' ? "convolution2d_1"
                                              : "conv2d";
        }
    }
    put_texts(file, "/", "layer_names", count, layers);
}

static void put_network(hid_t file, char layout) {
    const char *const version = "2.15.0", *const backend = "tensorflow";
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (arrays[i].layout == layout)
            put_floats(file, arrays[i].path, arrays[i].dims);
    if (layout == 'D' || layout == 'B')
        put_lists(file, layout);
    if (layout == 'D') {
        put_texts(file, "/", "keras_version", 1, &version);
        put_texts(file, "/", "backend", 1, &backend);
    }
}

/* ---- the steps -------------------------------------------------------------------------- */

static void put_group(struct program *p, hid_t file) {
    char name[64];
    const hid_t plist = intermediate();
    take_name(p, name);
    const hid_t group = H5Gcreate2(file, name, plist, H5P_DEFAULT, H5P_DEFAULT);
    if (group >= 0)
        H5Gclose(group);
    H5Pclose(plist);
}

static void put_set(struct program *p, hid_t file) {
    char name[64], own[128];
    hsize_t dims[6];
    int rank;
    const char *object = take_object(p);
    take_name(p, name);
    snprintf(own, sizeof own, "%s/%s", object, name);
    const hid_t link = intermediate(), type = take_type(p), space = take_space(p, dims, &rank);
    const hid_t plist = take_storage(p, dims, rank);
    const hid_t set = H5Dcreate2(file, own, type, space, link, plist, H5P_DEFAULT);
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    const size_t size = H5Tget_size(type);
    if (set >= 0 && count > 0 && count < 1 << 16 && next(p) % 8) {
        uint8_t *data = malloc((size_t)count * size);
        demand(data != NULL);
        for (size_t i = 0; i < (size_t)count * size; i++)
            data[i] = (uint8_t)(p->at < p->end ? next(p) : 0x3e + i % 2);
        H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
        free(data);
    }
    if (set >= 0)
        H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
    H5Pclose(link);
}

/* An attribute of one to four strings of variable length, or of a number or of anything. */
static void put_attribute(struct program *p, hid_t file) {
    char name[64], text[4][64];
    const char *pointers[] = {text[0], text[1], text[2], text[3]};
    const char *object = take_object(p);
    const unsigned kind = next(p);
    hsize_t dims[6] = {1 + kind % 4};
    int rank = 1;
    uint8_t bytes[64 * 16];
    hid_t type, space;
    const void *value = pointers;
    take_name(p, name);
    if (kind < 192) {
        type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, H5T_VARIABLE);
        H5Tset_cset(type, kind & 4 ? H5T_CSET_UTF8 : H5T_CSET_ASCII);
        space = kind & 8 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, dims, NULL);
        for (int i = 0; i < 4; i++)
            take_name(p, text[i]);
    } else {
        type = take_type(p);
        space = take_space(p, dims, &rank);
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)next(p);
        value = bytes;
    }
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    H5Adelete_by_name(file, object, name, H5P_DEFAULT);
    const hid_t id = count > 64 ? -1
                                : H5Acreate_by_name(file, object, name, type, space,
                                                    H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (id >= 0) {
        if (count > 0)
            H5Awrite(id, type, value);
        H5Aclose(id);
    }
    H5Sclose(space);
    H5Tclose(type);
}

/* The rest of the program, or a part, as the architecture. */
static void put_config(struct program *p, hid_t file) {
    const size_t left = (size_t)(p->end - p->at), length = left < 4096 ? left : 4096;
    char *text = malloc(length + 1);
    demand(text != NULL);
    memcpy(text, p->at, length);
    text[length] = '\0';
    p->at += length;
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, H5T_VARIABLE);
    const hid_t id = H5Acreate2(file, "model_config", type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (id >= 0) {
        H5Awrite(id, type, &text);
        H5Aclose(id);
    }
    H5Sclose(space);
    H5Tclose(type);
    free(text);
}

static void put_link(struct program *p, hid_t file) {
    char from[64], to[64];
    const unsigned kind = next(p) % 4;
    const hid_t plist = intermediate();
    take_name(p, from);
    take_name(p, to);
    if (kind < 2)
        H5Lcreate_hard(file, kind ? "/" : from, file, to, plist, H5P_DEFAULT);
    else if (kind == 2)
        H5Lcreate_soft(from, file, to, plist, H5P_DEFAULT);
    else
        H5Lcreate_external("/etc/passwd", from, file, to, plist, H5P_DEFAULT);
    H5Pclose(plist);
}

static void lose_link(struct program *p, hid_t file) {
    char name[64];
    take_name(p, name);
    H5Ldelete(file, name, H5P_DEFAULT);
}

/* ---- running ---------------------------------------------------------------------------- */

/* Makes the file in memory; the image is the caller's. */
static uint8_t *make_file(struct program *p, size_t *size) {
    static void (*const steps[])(struct program * p, hid_t file) = {
        put_set,       put_attribute, put_group, put_set,
        put_attribute, put_link,      lose_link, put_config};
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 16, 0);
    const hid_t file = H5Fcreate("made", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    demand(file >= 0);
    put_network(file, "-DBFK-D-"[next(p) % 8]);
    for (int i = 0; i < MOST_STEPS && p->at < p->end; i++)
        steps[next(p) % 8](p, file);
    H5Fflush(file, H5F_SCOPE_LOCAL);
    const ssize_t length = H5Fget_file_image(file, NULL, 0);
    demand(length > 0);
    uint8_t *image = malloc((size_t)length);
    demand(image != NULL && H5Fget_file_image(file, image, (size_t)length) == length);
    H5Fclose(file);
    H5Pclose(access);
    *size = (size_t)length;
    return image;
}

static char path[64];

static void remove_file(void) {
    remove(path);
}

static void read_file(const uint8_t *image, size_t size, int classes) {
    static struct keras k;
    struct lenet5_error err = {""};
    struct keras_options options;
    struct model m;
    if (!*path) { /* a file with a name: HDF5 asks for its real path */
        snprintf(path, sizeof path, "/tmp/fuzz_h5_%ld", (long)getpid());
        atexit(remove_file);
    }
    FILE *file = fopen(path, "wb");
    demand(file && fwrite(image, 1, size, file) == size && !fclose(file));
    keras_options_init(&options);
    options.classes = classes;
    if (keras_read(&k, &m, path, &options, &err))
        demand(*err.message);
    else {
        demand(!*err.message && m.count > 0);
        keras_free(&k);
        blob_free(&m);
    }
}

/* HDF5 allocates much; what it has freed need not be watched for long. */
const char *__asan_default_options(void);

const char *__asan_default_options(void) {
    return "quarantine_size_mb=16";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct program p = {data, data + size};
    size_t length;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const int classes = (int)next(&p) % 12;
    uint8_t *image = make_file(&p, &length);
    read_file(image, length, classes);
    free(image);
    demand(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0); /* nothing was left open */
    return 0;
}
