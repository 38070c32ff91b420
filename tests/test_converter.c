/* SPDX-License-Identifier: MIT
 *
 * test_converter.c - what h5_to_blob says about files that it does not convert, each in its
 * exact words; what it makes of files that do not say everything; and that reordering and
 * folding leave what is computed alone. Whole networks by real Keras are test_golden.c's
 * matter, files with evil intent test_hostile.c's.
 *
 * Files are made by test_h5.h in a folder of their own and spoilt in one place.
 */
#include "test_h5.h"

#include "fold.h"
#include "keras.h"
#include "reorder.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zip.h>

static char folder[] = "/tmp/lenet5_converter_XXXXXX", path[256];
static struct keras k;
static struct model m;
static struct lenet5_error err;

static int start(void **state) {
    (void)state;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return mkdtemp(folder) ? 0 : -1;
}

static int stop(void **state) {
    char command[300];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* Sets path to a name in the folder. */
static const char *name_file(const char *name) {
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t size) {
    FILE *file = fopen(name_file(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static int convert(const struct keras_options *options) {
    struct keras_options none;
    keras_options_init(&none);
    return keras_read(&k, &m, path, options ? options : &none, &err);
}

static void release(void) {
    keras_free(&k);
    blob_free(&m);
}

/* The file at path is refused with this sentence, in which FILE stands for its name. */
static void refused_with(const struct keras_options *options, const char *sentence) {
    char expected[2048], *to = expected;
    const int rc = convert(options);
    if (!rc)
        release();
    for (const char *s = sentence; *s;)
        if (!strncmp(s, "FILE", 4)) {
            to += sprintf(to, "%s", path);
            s += 4;
        } else
            *to++ = *s++;
    *to = '\0';
    assert_string_equal(rc ? err.message : "converted", expected);
}

static void refused(const char *sentence) {
    refused_with(NULL, sentence);
}

static void closed(hid_t file) {
    assert_true(H5Fclose(file) >= 0);
}

/* ---- what is no Keras file at all ------------------------------------------------------- */

static void test_strangers(void **state) {
    static const char TAIL[] = "; this tool reads Keras .h5 and .keras";
    static const struct {
        const char *bytes;
        size_t size;
        const char *sentence;
        int tail;
    } strangers[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", 63,
         "FILE is a Git LFS pointer (63 bytes), not the weights; run `git lfs pull` there and "
         "try again",
         0},
        {"<!DOCTYPE html>\n<html>", 22,
         "FILE starts with '<!DOCTYPE': a web page was saved instead of the file", 0},
        {"{\"class_name\": \"Sequential\"}", 28,
         "FILE starts with '{': it is JSON, perhaps an architecture without weights", 1},
        {"{\"metadata\": {}, \"weight_map\": {}}", 34,
         "FILE is the index of sharded weights (max_shard_size); this tool reads weights that "
         "are saved as one file",
         0},
        {"0.1 0.2\n", 8, "FILE is text", 1},
        {"\x80\x02\x8a\x0a", 4, "FILE is a Python pickle (or an old PyTorch file)", 1},
        {"\x80\x04\x95\x10", 4, "FILE is a Python pickle", 1},
        {"\x1c\0\0\0TFL3", 8, "FILE is a TensorFlow Lite model", 1},
        {"\x93NUMPY\x01\0", 8, "FILE is a NumPy array", 1},
        {"\x1f\x8b\x08\0", 4, "FILE is compressed with gzip: gunzip it first", 1},
        {"\x89LN5\r\n\x1a\n", 8, "FILE is a blob, the output of this tool", 1},
        {"\x89HDF\n\x1a\n\0", 8,
         "FILE was an HDF5 file until a transfer in text mode changed its line ends", 1},
        {"\0\0\x08\x03\0\0\x27\x10", 8, "FILE is not HDF5: it starts with 00 00 08 03", 1},
        {"\x01", 1, "FILE is not HDF5: it starts with 01 00 00 00", 1},
        {"", 0, "FILE is empty", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        char sentence[512];
        snprintf(sentence, sizeof sentence, "%s%s", strangers[i].sentence,
                 strangers[i].tail ? TAIL : "");
        write_file("stranger.h5", strangers[i].bytes, strangers[i].size);
        refused(sentence);
    }
    name_file("none.h5");
    refused("FILE: No such file or directory");
    path[0] = '\0';
    strcpy(path, "/dev/null");
    refused("FILE is not a regular file");
    write_file("saved_model.pb", "\x08\x01\x12\0", 4);
    refused("FILE is a TensorFlow SavedModel; this tool reads Keras .h5 and .keras: load it in "
            "Keras and save it so");
    name_file("");
    refused("FILE is a TensorFlow SavedModel; this tool reads Keras .h5 and .keras: load it in "
            "Keras and save it so");
    name_file("folder");
    assert_int_equal(mkdir(path, 0700), 0);
    refused("FILE is a folder without config.json and model.weights.h5");
}

static void test_truncated(void **state) {
    struct stat info;
    (void)state;
    closed(h5_weights(name_file("whole.h5")));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size - 1000), 0);
    char sentence[300];
    snprintf(sentence, sizeof sentence,
             "FILE is cut short: %lld bytes, HDF5 says that it had %lld; copy or download it "
             "again",
             (long long)info.st_size - 1000, (long long)info.st_size);
    refused(sentence);
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(convert(NULL), -1);
    assert_non_null(strstr(err.message, " is damaged: HDF5 cannot open it ("));
}

/* ---- zips ------------------------------------------------------------------------------- */

static void add_member(zip_t *zip, const char *name, const void *bytes, size_t size) {
    zip_source_t *source = zip_source_buffer(zip, bytes, size, 0);
    assert_true(zip_file_add(zip, name, source, ZIP_FL_OVERWRITE) >= 0);
}

static zip_t *new_zip(const char *name) {
    zip_t *zip = zip_open(name_file(name), ZIP_CREATE | ZIP_TRUNCATE, NULL);
    assert_non_null(zip);
    return zip;
}

static void test_zips(void **state) {
    static const struct {
        const char *member, *sentence;
    } zips[] = {
        {"model.weights.npz",
         "FILE keeps its weights as NumPy arrays (model.weights.npz); this tool reads "
         "model.weights.h5: save it again with model.save"},
        {"archive/data.pkl", "FILE is a PyTorch archive; this tool reads Keras .h5 and .keras"},
        {"kernel.npy", "FILE is a NumPy archive (.npz); this tool reads Keras .h5 and .keras"},
        {"a/saved_model.pb",
         "FILE is a zipped TensorFlow SavedModel; this tool reads Keras .h5 and .keras"},
        {"readme.txt", "FILE is a zip without model.weights.h5 (members: readme.txt)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof zips / sizeof *zips; i++) {
        zip_t *zip = new_zip("a.zip");
        add_member(zip, zips[i].member, "text", 4);
        assert_int_equal(zip_close(zip), 0);
        refused(zips[i].sentence);
    }
    write_file("a.zip", "PK\x03\x04 and no directory", 20);
    refused("FILE is a damaged zip: Not a zip archive");
    zip_t *zip = new_zip("b.zip");
    add_member(zip, "config.json", MODEL, strlen(MODEL));
    add_member(zip, "model.weights.h5", "not HDF5 at all", 15);
    assert_int_equal(zip_close(zip), 0);
    assert_int_equal(convert(NULL), -1);
    assert_non_null(strstr(err.message, "b.zip is damaged: HDF5 cannot open it ("));
}

static char *read_file(size_t *size) {
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    char *bytes = malloc((size_t)info.st_size);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    *size = fread(bytes, 1, (size_t)info.st_size, file);
    fclose(file);
    return bytes;
}

/* An archive whose weights happen to lie where HDF5 would look behind a user block is an
   archive all the same: its architecture counts. */
static void test_zip_at_4096(void **state) {
    enum { HEADERS = 30 + 11 + 30 + 16 }; /* of the two members, with their names */
    size_t size;
    char json[4096 - HEADERS];
    (void)state;
    const hid_t file = h5_create(name_file("model.weights.h5"));
    put_floats(file, "layers/conv2d/vars/0", DIMS(3, 3, 1, 2));
    put_floats(file, "layers/conv2d/vars/1", DIMS(2));
    put_floats(file, "layers/dense/vars/0", DIMS(338, 10));
    put_floats(file, "layers/dense/vars/1", DIMS(10));
    closed(file);
    char *weights = read_file(&size);
    memset(json, ' ', sizeof json);
    memcpy(json, MODEL, strlen(MODEL));
    zip_t *zip = new_zip("c.zip");
    add_member(zip, "config.json", json, sizeof json);
    add_member(zip, "model.weights.h5", weights, size);
    for (zip_uint64_t i = 0; i < 2; i++)
        assert_int_equal(zip_set_file_compression(zip, i, ZIP_CM_STORE, 0), 0);
    assert_int_equal(zip_close(zip), 0);
    free(weights);
    char *archive = read_file(&size);
    assert_memory_equal(archive + 4096, "\x89HDF\r\n", 6);
    free(archive);
    assert_int_equal(convert(NULL), 0);
    assert_int_equal(k.layout, 'G');
    release();
}

/* ---- architectures ---------------------------------------------------------------------- */

static const char SUPPORTED[] =
    "; supported: Conv2D, Dense, pooling, BatchNormalization, activations, Flatten, "
    "ZeroPadding2D, Rescaling, Normalization";

static void test_architectures(void **state) {
    static const struct {
        const char *from, *to, *sentence;
        int supported;
    } cases[] = {
        {"\"Flatten\"", "\"LSTM\"", "FILE: layer 3 'flatten' is of class LSTM", 1},
        {"\"Flatten\"", "\"Lambda\"", "FILE: layer 3 'flatten' is of class Lambda", 1},
        {"\"Conv2D\"", "\"QConv2D\"",
         "FILE: layer 1 'conv2d' is of class QConv2D; remove quantisation wrappers before "
         "saving",
         1},
        {"\"dilation_rate\": [1, 1]", "\"dilation_rate\": 2",
         "FILE: layer 1 'conv2d' has a dilation of 2x2", 1},
        {"\"groups\": 1", "\"groups\": 2", "FILE: layer 1 'conv2d' has 2 groups", 1},
        {"\"tanh\"", "\"glu\"", "FILE: layer 1 'conv2d' has the activation 'glu'", 1},
        {"\"valid\"", "\"causal\"", "FILE: layer 1 'conv2d' has the padding 'causal'", 1},
        {"\"tanh\"", "\"softmax\"",
         "FILE: layer 1 'conv2d' takes a softmax over a 26x26x2 map; only over a vector", 0},
        {"\"Sequential\"", "\"LeNet\"",
         "FILE: the model is of class LeNet, of which the file does not say what it computes; "
         "only Sequential and functional models can be converted",
         0},
        {"null, 28, 28, 1", "null, 32, 28, 1",
         "FILE: dense 'dense' has 338 rows but the feature map is 2x15x13 = 390: wrong "
         "padding, "
         "wrong order, or other network (input 32x28x1, conv2d 30x26x2, average_pooling2d "
         "15x13x2)",
         0},
        {"null, 28, 28, 1", "null, 1, 28, 28",
         "FILE takes images of 1x28x28; at most 64x64 with 1 or 3 channels can be converted; "
         "was it built with (1,28,28) read as channels_last?",
         0},
        {"null, 28, 28, 1", "null, 8, 8, 4",
         "FILE takes images of 8x8x4; at most 64x64 with 1 or 3 channels can be converted", 0},
        {"null, 28, 28, 1", "null, 28, 28, 3",
         "FILE: layer 1 'conv2d' is the first and has a kernel of 3x3x1x2: it takes 1 "
         "channels, "
         "the images have 3",
         0},
        {"null, 28, 28, 1", "null, 128, 128, 1",
         "FILE takes images of 128x128x1; at most 64x64 with 1 or 3 channels can be converted",
         0},
        {"\"use_bias\": true", "\"use_bias\": false",
         "FILE: layer 'conv2d' lists 'conv2d/bias:0', for which its config has no use", 0},
        {"\"filters\": 2", "\"filters\": 3",
         "FILE: the kernel of layer 'conv2d' is 3x3x1x2, its config asks for 3x3x1x3", 0},
        {"\"units\": 10", "\"units\": 26",
         "FILE: the kernel of layer 'dense' is 338x10, its config asks for 338x26", 0},
        {"\"pool_size\": [2, 2]", "\"pool_size\": [200, 2]",
         "FILE: layer 2 'average_pooling2d' has a window of 200x2; each side must be 1 to 64",
         0},
        {"\"pool_size\": [2, 2]", "\"pool_size\": [27, 2]",
         "FILE: layer 2 'average_pooling2d' has a window of 27x2, which does not fit into a "
         "map "
         "of 26x26",
         0},
        {"\"strides\": [2, 2]", "\"strides\": [-1, 2]",
         "FILE: layer 2 'average_pooling2d' has a stride of -1x2; each must be 1 to 64", 0},
        {"{\"class_name\": \"Flatten\", \"config\": {\"name\": \"flatten\", "
         "\"data_format\": \"channels_last\"}}, ",
         "", "FILE: layer 3 'dense' is dense and works on a 13x13x2 map; a Flatten is missing",
         0},
        {"\"channels_last\"}}, {\"class_name\": \"Flatten\"",
         "\"channels_first\"}}, {\"class_name\": \"Flatten\"",
         "FILE: layer 2 'average_pooling2d' is channels_first in a network that is "
         "channels_last",
         0},
        {"\"Flatten\", \"config\": {", "\"Reshape\", \"config\": {\"target_shape\": [26, 13], ",
         "FILE: layer 3 'flatten' (Reshape) rearranges a map of 13x13x2", 0},
        {"]}}", "",
         "FILE: the architecture is not valid JSON: ']' expected near end of file at "
         "byte 781",
         0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = replaced(MODEL, cases[i].from, cases[i].to), sentence[512];
        snprintf(sentence, sizeof sentence, "%s%s", cases[i].sentence,
                 cases[i].supported ? SUPPORTED : "");
        closed(h5_model(name_file("model.h5"), json));
        refused(sentence);
        free(json);
    }
}

/* A long vector that is normalised before an activation has neither a row nor a diagonal. */
static void test_long_vector(void **state) {
    static const char JSON[] =
        "{\"class_name\": \"Sequential\", \"config\": {\"layers\": ["
        "{\"class_name\": \"InputLayer\", \"config\": {\"batch_shape\": [null, 64, 64, 1]}}, "
        "{\"class_name\": \"Flatten\", \"config\": {\"name\": \"flatten\"}}, "
        "{\"class_name\": \"BatchNormalization\", \"config\": {\"name\": \"bn\", \"axis\": 1, "
        "\"epsilon\": 0.1, \"scale\": false, \"center\": false}}, "
        "{\"class_name\": \"Activation\", \"config\": {\"name\": \"act\", \"activation\": "
        "\"tanh\"}}, "
        "{\"class_name\": \"Dense\", \"config\": {\"name\": \"dense\", \"units\": 10, "
        "\"activation\": \"linear\"}}]}}";
    (void)state;
    const hid_t file = h5_create(name_file("model.h5"));
    put_group(file, "model_weights");
    put_names(file, "model_weights", "layer_names", NAMES("flatten", "bn", "act", "dense"));
    put_layer(file, "model_weights/", "flatten", NULL, 0);
    put_layer(file, "model_weights/", "act", NULL, 0);
    put_layer(file, "model_weights/", "dense", DIMS(4096, 10), 10);
    put_group(file, "model_weights/bn");
    put_names(file, "model_weights/bn", "weight_names",
              NAMES("bn/moving_mean:0", "bn/moving_variance:0"));
    put_floats(file, "model_weights/bn/bn/moving_mean:0", DIMS(4096));
    put_ones(file, "model_weights/bn/bn/moving_variance:0", 4096);
    put_text(file, "/", "model_config", JSON);
    closed(file);
    refused(
        "FILE: layer 'bn' normalises a flattened map of 4096 before an activation; that can "
        "be converted up to 2048, or directly before a dense layer");
}

/* Where an architecture does not say the size of its images, its first dense layer does. */
static void test_unknown_size(void **state) {
    char *open = replaced(MODEL, "null, 28, 28, 1", "null, null, null, 1");
    char *same = replaced(open, "\"valid\"", "\"same\"");
    char *half = replaced(MODEL, "null, 28, 28, 1", "null, null, 20, 1");
    (void)state;
    closed(h5_model(name_file("model.h5"), open));
    assert_int_equal(convert(NULL), 0);
    assert_int_equal(m.input.h, 28);
    release();
    closed(h5_model(name_file("model.h5"), same));
    assert_int_equal(convert(NULL), 0);
    assert_int_equal(m.input.h, 26);
    assert_string_equal(k.notes[0], "bytes are divided by 255 before they enter (--scale, "
                                    "--offset, --invert)");
    assert_string_equal(k.notes[1], "images of 26x26x1 (--input HxWxC)");
    release();
    closed(h5_model(name_file("model.h5"), half));
    refused("FILE: dense 'dense' has 338 rows but the feature map is 2x13x9 = 234: wrong "
            "padding, wrong order, or other network (input 28x20x1, conv2d 26x18x2, "
            "average_pooling2d 13x9x2); the file does not say the size of its images: --input "
            "HxWxC");
    free(open);
    free(same);
    free(half);
}

/* All that cannot be converted is named at once. */
static void test_all_problems(void **state) {
    char *one = replaced(MODEL, "\"Flatten\"", "\"Permute\""), sentence[512];
    char *two = replaced(one, "\"tanh\"", "\"exponential\"");
    (void)state;
    closed(h5_model(name_file("model.h5"), two));
    snprintf(sentence, sizeof sentence,
             "FILE: layer 1 'conv2d' has the activation 'exponential', layer 3 'flatten' is of "
             "class Permute%s",
             SUPPORTED);
    refused(sentence);
    free(one);
    free(two);
}

/* A functional model is a chain or is refused, in either form of inbound_nodes. */
static void test_branches(void **state) {
    static const char LAYER[] = "{\"class_name\": \"%s\", \"name\": \"%s\", \"config\": "
                                "{\"name\": \"%s\"}, \"inbound_nodes\": [%s]}";
    static const struct {
        const char *b, *c, *sentence, *outputs;
    } cases[] = {
        {"[[\"a\", 0, 0, {}]]", "[[\"a\", 0, 0, {}], [\"b\", 0, 0, {}]]",
         "FILE: layer 'c' has 2 inputs; only a straight chain can be converted", NULL},
        {"[[\"a\", 0, 0, {}]]", "[[\"a\", 0, 0, {}]]",
         "FILE: layer 'a' feeds 2 layers; only a straight chain can be converted", NULL},
        {"[[\"a\", 0, 0, {}]], [[\"a\", 0, 0, {}]]", "[[\"b\", 0, 0, {}]]",
         "FILE: layer 'b' is called 2 times; only a straight chain can be converted", NULL},
        {"{\"args\": [{\"class_name\": \"__keras_tensor__\", \"config\": {\"keras_history\": "
         "[\"a\", 0, 0]}}], \"kwargs\": {}}, {\"args\": [{\"class_name\": "
         "\"__keras_tensor__\", \"config\": {\"keras_history\": [\"b\", 0, 0]}}], \"kwargs\": "
         "{}}",
         "[[\"b\", 0, 0, {}]]",
         "FILE: layer 'b' is called 2 times; only a straight chain can be converted", NULL},
        {"{\"args\": [[{\"class_name\": \"__keras_tensor__\", \"config\": {\"keras_history\": "
         "[\"a\", 0, 0]}}, {\"class_name\": \"__keras_tensor__\", \"config\": "
         "{\"keras_history\": [\"a\", 0, 0]}}]], \"kwargs\": {}}",
         "[[\"b\", 0, 0, {}]]",
         "FILE: layer 'b' has 2 inputs; only a straight chain can be converted", NULL},
        {"[[\"c\", 0, 0, {}]]", "[[\"b\", 0, 0, {}]]",
         "FILE: no layer follows 'a', yet there are 2 more; only a straight chain can be "
         "converted",
         NULL},
        {"", "[[\"b\", 0, 0, {}]]",
         "FILE: layer 'input' feeds 2 layers; only a straight chain can be converted", NULL},
        {"[[\"a\", 0, 0, {}]]", "[[\"b\", 0, 0, {}]]",
         "FILE: the model has 2 outputs; only a straight chain can be converted",
         "[[\"b\", 0, 0], [\"c\", 0, 0]]"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[4096];
        int used = sprintf(json, "{\"class_name\": \"Functional\", \"config\": {\"layers\": [");
        used += sprintf(json + used, LAYER, "InputLayer", "a", "a", "");
        used += sprintf(json + used, ", ");
        used += sprintf(json + used, LAYER, "Flatten", "b", "b", cases[i].b);
        used += sprintf(json + used, ", ");
        used += sprintf(json + used, LAYER, "Flatten", "c", "c", cases[i].c);
        sprintf(json + used, "], \"output_layers\": %s}}",
                cases[i].outputs ? cases[i].outputs : "[\"c\", 0, 0]");
        closed(h5_model(name_file("model.h5"), json));
        refused(cases[i].sentence);
    }
}

/* Batch normalisation of another axis than the channels'. */
static void test_axis(void **state) {
    static const char NORM[] =
        "{\"class_name\": \"BatchNormalization\", \"config\": {\"name\": "
        "\"norm\", \"axis\": [%s], \"epsilon\": 0.001, \"scale\": false, "
        "\"center\": false}}, {\"class_name\": \"Flatten\"";
    (void)state;
    for (int numbers = 2; numbers <= 13; numbers += 11) {
        char norm[400];
        snprintf(norm, sizeof norm, NORM, numbers == 2 ? "3" : "2");
        char *json = replaced(MODEL, "{\"class_name\": \"Flatten\"", norm);
        const hid_t file = h5_model(name_file("model.h5"), json);
        put_group(file, "model_weights/norm");
        put_names(file, "model_weights/norm", "weight_names",
                  NAMES("norm/moving_mean:0", "norm/moving_variance:0"));
        put_floats(file, "model_weights/norm/norm/moving_mean:0", DIMS((hsize_t)numbers));
        float ones[13];
        for (int i = 0; i < 13; i++)
            ones[i] = 1;
        put_set(file, "model_weights/norm/norm/moving_variance:0", H5T_IEEE_F32LE,
                H5T_NATIVE_FLOAT, 1, DIMS((hsize_t)numbers), ones, H5P_DEFAULT);
        closed(file);
        if (numbers == 2) {
            assert_int_equal(convert(NULL), 0);
            assert_int_equal(m.count, 4); /* folded into the convolution, through the pooling */
            release();
        } else
            refused(
                "FILE: layer 3 'norm' (BatchNormalization) normalises axis 2, not channels");
        free(json);
    }
}

/* ---- weights ---------------------------------------------------------------------------- */

static void unlink_from(hid_t file, const char *name) {
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
}

static void lose_kernel(hid_t file) {
    unlink_from(file, "conv2d/conv2d/kernel:0");
}

static void lose_group(hid_t file) {
    unlink_from(file, "dense");
}

static void lose_list(hid_t file) {
    assert_true(H5Adelete_by_name(file, "dense", "weight_names", H5P_DEFAULT) >= 0);
}

static void list_numbers(hid_t file) {
    const hsize_t two = 2;
    const int numbers[] = {1, 2};
    H5Adelete(file, "layer_names");
    put_attribute(file, "/", "layer_names", H5T_NATIVE_INT, H5Screate_simple(1, &two, NULL),
                  numbers);
}

static void list_nothing(hid_t file) {
    H5Adelete(file, "layer_names");
    put_names(file, "/", "layer_names", NULL, 0);
}

/* Replaces the convolution's kernel. */
static void put_kernel(hid_t file, hid_t type, const hsize_t *dims, int rank) {
    static const float zeros[64];
    lose_kernel(file);
    put_set(file, "conv2d/conv2d/kernel:0", type, H5T_NATIVE_FLOAT, rank, dims,
            H5Tget_class(type) == H5T_FLOAT ? zeros : NULL, H5P_DEFAULT);
}

static void make_int8(hid_t file) {
    put_kernel(file, H5T_STD_I8LE, DIMS(3, 3, 1, 2), 4);
}

static void make_opaque(hid_t file) {
    const hid_t type = H5Tcreate(H5T_OPAQUE, 3);
    put_kernel(file, type, DIMS(3, 3, 1, 2), 4);
    H5Tclose(type);
}

/* A float with another bias of the exponent, as one damaged byte makes it. */
static void make_odd_float(hid_t file) {
    const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_ebias(type, 126);
    put_kernel(file, type, DIMS(3, 3, 1, 2), 4);
    H5Tclose(type);
}

static void make_conv1d(hid_t file) {
    put_kernel(file, H5T_IEEE_F32LE, DIMS(3, 1, 2), 3);
}

static void make_long_bias(hid_t file) {
    unlink_from(file, "dense/dense/bias:0");
    put_floats(file, "dense/dense/bias:0", DIMS(11));
}

static void make_broken_chain(hid_t file) {
    unlink_from(file, "dense/dense/kernel:0");
    put_floats(file, "dense/dense/kernel:0", DIMS(300, 10));
}

static void make_letters(hid_t file) {
    unlink_from(file, "dense");
    put_layer(file, "", "dense", DIMS(338, 26), 26);
}

static void make_many_channels(hid_t file) {
    put_kernel(file, H5T_IEEE_F32LE, DIMS(1, 1, 28, 2), 4);
}

static void put_value(hid_t file, float value, int count) {
    float values[10] = {0};
    for (int i = 0; i < count; i++)
        values[3 * i] = value;
    unlink_from(file, "dense/dense/bias:0");
    put_set(file, "dense/dense/bias:0", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, DIMS(10), values,
            H5P_DEFAULT);
}

static void put_nans(hid_t file) {
    put_value(file, NAN, 3);
}

static void put_infinity(hid_t file) {
    put_value(file, -INFINITY, 1);
}

static void put_huge(hid_t file) {
    put_value(file, 1e20f, 1);
}

static void make_recurrent(hid_t file) {
    H5Adelete_by_name(file, "conv2d", "weight_names", H5P_DEFAULT);
    put_names(file, "conv2d", "weight_names", NAMES("lstm/recurrent_kernel:0"));
}

static void make_twice(hid_t file) {
    H5Adelete_by_name(file, "dense", "weight_names", H5P_DEFAULT);
    put_names(file, "dense", "weight_names",
              NAMES("dense/kernel:0", "dense/bias:0", "dense/bias:0"));
}

static void record_nonsense(hid_t file) {
    put_text(file, "/", "lenet5_accuracy", "98.5");
}

static void test_weights(void **state) {
    static const struct {
        void (*spoil)(hid_t file);
        const char *sentence;
    } cases[] = {
        {lose_kernel, "FILE: layer 'conv2d' lists 'conv2d/kernel:0', which is missing"},
        {lose_group, "FILE: the weights of layer 'dense' are missing"},
        {lose_list, "FILE: '/dense' has no attribute 'weight_names'"},
        {list_numbers,
         "FILE: the attribute 'layer_names' of '/' is of class integer, text was expected"},
        {list_nothing, "FILE has no weights (an architecture-only or optimizer-only save)"},
        {make_int8, "FILE: dataset 'conv2d/conv2d/kernel:0' is int8: a quantised model; save "
                    "the float one"},
        {make_opaque, "FILE: dataset 'conv2d/conv2d/kernel:0' is of class opaque, 3 bytes; "
                      "floats of 16, 32 or 64 bits were expected"},
        {make_odd_float, "FILE: dataset 'conv2d/conv2d/kernel:0' is of class float, 4 bytes; "
                         "floats of 16, 32 or 64 bits were expected"},
        {make_conv1d, "FILE: layer 'conv2d' has a kernel of 3 dimensions; only Conv2D (4) and "
                      "Dense (2) can be converted"},
        {make_long_bias, "FILE: layer 'dense' has 10 outputs, but its bias is 11"},
        {make_broken_chain,
         "FILE: dense 'dense' has 300 rows but the feature map is 2x14x14 = 392: wrong "
         "padding, "
         "wrong order, or other network (input 28x28x1, conv2d 28x28x2, average_pooling2d "
         "14x14x2)"},
        {make_letters, "FILE: 26 outputs (letters?), need 10; --classes 26 converts it all the "
                       "same"},
        {make_many_channels,
         "FILE takes images of 28x28x28; at most 64x64 with 1 or 3 channels can be converted; "
         "was it built with (1,28,28) read as channels_last?"},
        {put_nans, "FILE: dataset 'dense/dense/bias:0' has 3 NaNs (training diverged?)"},
        {put_infinity, "FILE: dataset 'dense/dense/bias:0' has 1 infinity (training "
                       "diverged?)"},
        {put_huge, "FILE: dataset 'dense/dense/bias:0' holds 1e+20 (damaged, or training "
                   "diverged?)"},
        {make_recurrent, "FILE: layer 'conv2d' holds 'lstm/recurrent_kernel:0'; only Conv2D, "
                         "Dense and BatchNormalization can be converted"},
        {make_twice, "FILE: layer 'dense' has two arrays for one purpose; the second is "
                     "'dense/dense/bias:0'"},
        {record_nonsense, "FILE: lenet5_accuracy is 98.5; a fraction of 0 to 1 was expected"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hid_t file = h5_weights(name_file("weights.h5"));
        cases[i].spoil(file);
        closed(file);
        refused(cases[i].sentence);
    }
}

static void test_layouts(void **state) {
    (void)state;
    hid_t file = h5_create(name_file("layout.h5"));
    closed(file);
    refused("FILE has no weights (an architecture-only or optimizer-only save)");
    file = h5_create(path);
    put_group(file, "optimizer_weights/Adam");
    closed(file);
    refused("FILE has no weights (an architecture-only or optimizer-only save)");
    file = h5_create(path);
    put_floats(file, "images", DIMS(3, 3));
    put_group(file, "labels");
    closed(file);
    refused("FILE is HDF5 but not a layout Keras writes; top level holds: images, labels");
    file = h5_create(path);
    put_floats(file, "emb.scale", DIMS(3, 3));
    closed(file);
    refused("FILE holds a PyTorch state dict, of which 'emb.scale' is not known");
    file = h5_create(path);
    put_floats(file, "layers/lstm/vars/0", DIMS(3, 3, 3));
    closed(file);
    refused("FILE: layer 1 'lstm' is by its name of class LSTM, which cannot be converted");
    file = h5_create(path);
    put_floats(file, "conv/vars/0", DIMS(3, 3, 3));
    closed(file);
    refused("FILE: 'conv' holds 1 arrays, the first of 3 dimensions; only Conv2D, Dense and "
            "BatchNormalization can be converted");
}

/* An architecture leaves nothing to be said by these options. */
static void test_options_beside_architecture(void **state) {
    struct keras_options o;
    (void)state;
    closed(h5_model(name_file("model.h5"), MODEL));
    keras_options_init(&o);
    o.activation = "relu";
    refused_with(&o, "FILE holds its architecture, there is nothing for --activation to say; "
                     "leave it out");
    keras_options_init(&o);
    o.input = (struct shape){1, 32, 32};
    refused_with(&o, "FILE takes images of 28x28x1; --input says 32x32x1");
    o.input = (struct shape){1, 28, 28};
    assert_int_equal(convert(&o), 0);
    release();
}

/* ---- what a file does not say ----------------------------------------------------------- */

static int noted(const char *part) {
    for (int i = 0; i < k.note_count; i++)
        if (strstr(k.notes[i], part))
            return 1;
    return 0;
}

static void test_assumptions(void **state) {
    (void)state;
    closed(h5_weights(name_file("weights.h5")));
    assert_int_equal(convert(NULL), 0);
    assert_int_equal(k.layout, 'D');
    assert_int_equal(m.count, 3);
    assert_int_equal(m.layers[0].activation, ACT_TANH);
    assert_int_equal(m.layers[0].pad_top, 0); /* 338 inputs: 28x28 without padding */
    assert_int_equal(m.layers[1].op, OP_AVERAGE_POOL);
    assert_int_equal(m.layers[2].activation, ACT_LINEAR);
    assert_true(m.scale == 1.0f / 255 && m.offset == 0);
    assert_int_equal(m.scaling_origin, ORIGIN_ASSUMED);
    assert_string_equal(m.source, "weights.h5");
    assert_string_equal(m.source_version, "Keras 2.15.0, act/pad?");
    assert_int_equal(strlen(m.source_sha256), 64);
    assert_true(noted("images of 28x28 and padding valid, which give the 338 inputs"));
    assert_true(noted("activation tanh"));
    assert_true(noted("divided by 255"));
    assert_false(noted("average pooling")); /* the layer's name says it */
    release();
}

static void test_options(void **state) {
    struct keras_options o;
    (void)state;
    closed(h5_weights(name_file("weights.h5")));
    keras_options_init(&o);
    o.activation = "leaky_relu";
    o.scale = 1 / 127.5;
    o.offset = -1;
    o.invert = 1;
    o.dataset = "mnist";
    assert_int_equal(convert(&o), 0);
    assert_int_equal(m.layers[0].activation, ACT_RELU);
    assert_true(m.layers[0].param[0] == 0.2f);
    assert_true(m.scale == (float)(-1 / 127.5) && m.offset == 1);
    assert_int_equal(m.scaling_origin, ORIGIN_OPTION);
    assert_string_equal(m.dataset, "mnist");
    assert_false(noted("activation"));
    release();
    o.padding_count = 1; /* same does not fit pooling of 2x2 */
    o.padding_same = 1;
    assert_int_equal(convert(&o), 0);
    assert_int_equal(m.layers[1].kernel_h, 3);
    assert_int_equal(m.layers[1].stride_h, 2);
    release();
    keras_options_init(&o);
    o.flip = 1;
    float plain[18];
    assert_int_equal(convert(NULL), 0);
    memcpy(plain, m.layers[0].weight, sizeof plain);
    release();
    assert_int_equal(convert(&o), 0);
    for (int i = 0; i < 18; i++)
        assert_true(m.layers[0].weight[i] == plain[i / 9 * 9 + 8 - i % 9]);
    release();
}

/* What was said and how the file lies is left behind the version, for lenet5 --identify. */
static void test_recorded_options(void **state) {
    struct keras_options o;
    (void)state;
    closed(h5_weights(name_file("weights.h5")));
    keras_options_init(&o);
    o.flip = 1;
    o.layout = ORDER_CHW;
    o.padding_count = 1;
    o.input = (struct shape){1, 28, 28};
    assert_int_equal(convert(&o), 0);
    assert_string_equal(m.source_version,
                        "Keras 2.15.0, act/pad? --flip --layout chw --input 28x28 ...");
    release();
    keras_options_init(&o);
    o.padding_count = 1;
    o.pool = OP_AVERAGE_POOL;
    o.flip = 0;
    assert_int_equal(convert(&o), 0);
    assert_string_equal(m.source_version,
                        "Keras 2.15.0, act/pad? --no-flip --pool average --padding valid");
    release();
    hid_t file = h5_weights(name_file("weights.h5")); /* Theano rotates without being asked */
    H5Adelete(file, "backend");
    put_text(file, "/", "backend", "theano");
    closed(file);
    assert_int_equal(convert(NULL), 0);
    assert_string_equal(m.source_version, "Keras 2.15.0, act/pad? --flip");
    release();
}

/* The rows in short: "conv 6x28x28 border 2 tanh, average_pool 6x14x14, dense 10". */
static const char *summary(void) {
    static char text[1024];
    size_t used = 0;
    for (int i = 0; i < m.count; i++) {
        const struct layer *l = &m.layers[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %d", i ? ", " : "",
                                 op_name(l->op), l->out.c);
        if (l->op <= OP_MAX_POOL)
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "x%dx%d", l->out.h, l->out.w);
        if (l->pad_top)
            used += (size_t)snprintf(text + used, sizeof text - used, " border %d", l->pad_top);
        if (l->activation)
            used += (size_t)snprintf(text + used, sizeof text - used, " %s",
                                     activation_name(l->activation));
    }
    return text;
}

/* Weights alone: names and shapes betray the rest. */
static void test_guesses(void **state) {
    static const struct {
        struct {
            const char *name;
            hsize_t dims[5];
        } layers[9];
        const char *summary;
    } cases[] = {
        {{{"conv2d", {5, 5, 1, 6}},
          {"average_pooling2d", {0}},
          {"conv2d_1", {5, 5, 6, 16}},
          {"average_pooling2d_1", {0}},
          {"flatten", {0}},
          {"dense", {256, 10}}},
         "conv 6x24x24 tanh, average_pool 6x12x12, conv 16x8x8 tanh, average_pool 16x4x4, "
         "dense "
         "10"},
        {{{"C1", {5, 5, 1, 6}},
          {"S2", {0}},
          {"C3", {5, 5, 6, 16}},
          {"S4", {0}},
          {"C5", {5, 5, 16, 120}},
          {"Flatten", {0}},
          {"F6", {120, 84}},
          {"Output", {84, 10}}},
         "conv 6x28x28 border 2 tanh, average_pool 6x14x14, conv 16x10x10 tanh, average_pool "
         "16x5x5, conv 120x1x1 tanh, dense 84 tanh, dense 10"},
        {{{"conv2d_40", {3, 3, 1, 4}},
          {"re_lu", {0}},
          {"max_pooling2d_9", {0}},
          {"dropout", {0}},
          {"conv2d_41", {3, 3, 4, 8}},
          {"leaky_re_lu", {0}},
          {"max_pooling2d_10", {0}},
          {"dense_2", {8 * 7 * 7, 10}},
          {"activation", {0}}},
         "conv 4x28x28 border 1 relu, max_pool 4x14x14, conv 8x14x14 border 1 relu, max_pool "
         "8x7x7, dense 10, activation 10 softmax"},
        {{{"zero_padding2d", {0}},
          {"conv2d", {5, 5, 1, 2}},
          {"average_pooling2d", {0}},
          {"activation_3", {0}},
          {"dense", {2 * 14 * 14, 10}}},
         "conv 2x28x28 border 2, average_pool 2x14x14 tanh, dense 10"},
        {{{"conv2d", {3, 3, 1, 4}}, {"conv2d_1", {3, 3, 4, 4}}, {"dense", {4 * 12 * 12, 10}}},
         "conv 4x26x26 tanh, conv 4x24x24 tanh, average_pool 4x12x12, dense 10"},
        {{{"conv2d", {3, 3, 1, 4}},
          {"max_pooling2d", {0}},
          {"conv2d_1", {3, 3, 4, 4}},
          {"max_pooling2d_1", {0}},
          {"dense", {4 * 8 * 8, 10}}},
         "conv 4x32x32 border 1 relu, max_pool 4x16x16, conv 4x16x16 border 1 relu, max_pool "
         "4x8x8, dense 10"},
        {{{"conv2d", {3, 3, 3, 4}}, {"global_average_pooling2d", {0}}, {"dense", {4, 10}}},
         "conv 4x30x30 tanh, average_pool 4x1x1, dense 10"},
        {{{"flatten_3", {0}}, {"dense_7", {784, 20}}, {"dense_10", {20, 10}}},
         "dense 20 tanh, dense 10"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hid_t file = h5_create(name_file("weights.h5"));
        const char *names[9];
        hsize_t count = 0;
        for (; count < 9 && cases[i].layers[count].name; count++) {
            const hsize_t *dims = cases[i].layers[count].dims;
            names[count] = cases[i].layers[count].name;
            put_layer(file, "", names[count], *dims ? dims : NULL, dims[2] ? dims[3] : dims[1]);
        }
        put_names(file, "/", "layer_names", names, count);
        put_text(file, "/", "keras_version", "2.4.0");
        put_text(file, "/", "backend", "tensorflow");
        closed(file);
        if (convert(NULL))
            fail_msg("case %zu: %s", i, err.message);
        assert_string_equal(summary(), cases[i].summary);
        release();
    }
}

/* A layer of a .weights.h5: a kernel and a bias, four vectors where there is one dimension, or
   nothing. */
static void put_v3_group(hid_t file, const char *path_to, const hsize_t *dims) {
    static const char *const numbers[] = {"0", "1", "2", "3"};
    char group[100], set[120];
    int arrays = !dims[0] ? 0 : dims[1] ? 2 : 4;
    snprintf(group, sizeof group, "%s/vars", path_to);
    put_group(file, group);
    for (int i = 0; i < arrays; i++) {
        snprintf(set, sizeof set, "%s/%s", group, numbers[i]);
        if (arrays == 2 && !i)
            put_floats(file, set, dims);
        else if (i == 3) /* a variance is not negative */
            put_ones(file, set, dims[0]);
        else
            put_floats(file, set, DIMS(arrays == 4 ? dims[0] : dims[2] ? dims[3] : dims[1]));
    }
}

static void put_v3_layer(hid_t file, const char *name, const hsize_t *dims) {
    char group[100];
    snprintf(group, sizeof group, "layers/%s", name);
    put_v3_group(file, group, dims);
}

struct v3_layer {
    const char *name;
    hsize_t dims[5];
};

static void put_v3_layers(const struct v3_layer *layers) {
    const hid_t file = h5_create(name_file("some.weights.h5"));
    for (; layers->name; layers++)
        put_v3_layer(file, layers->name, layers->dims);
    closed(file);
}

struct v3_case {
    struct v3_layer layers[12];
    const char *summary, *note;
};

/* Converts the layers: the network must be that of the summary, and the note be given. */
static void check_v3_case(const struct v3_case *c, size_t number) {
    put_v3_layers(c->layers);
    if (convert(NULL))
        fail_msg("case %zu: %s", number, err.message);
    assert_string_equal(summary(), c->summary);
    if (!noted(c->note))
        fail_msg("case %zu: no note '%s'", number, c->note);
}

/* The order in which groups were made is that of the layers, unless it makes no sense. */
static void test_group_order(void **state) {
    static const struct v3_case cases[] = {
        {{{"conv2d", {3, 3, 1, 2}},
          {"batch_normalization", {2}},
          {"activation", {0}},
          {"conv2d_1", {3, 3, 2, 2}},
          {"max_pooling2d", {0}},
          {"flatten", {0}},
          {"dense", {2 * 12 * 12, 10}}},
         "conv 2x26x26 relu, conv 2x24x24 relu, max_pool 2x12x12, dense 10",
         "activation relu, as is usual with max pooling"},
        /* sorted by the alphabet, as h5repack leaves it; as many activations as normalisations
         */
        {{{"activation", {0}},
          {"batch_normalization", {2}},
          {"conv2d", {3, 3, 1, 2}},
          {"dense", {2 * 13 * 13, 10}},
          {"flatten", {0}},
          {"max_pooling2d", {0}}},
         "conv 2x26x26 relu, max_pool 2x13x13, dense 10",
         "batch normalisation before the activation, for so many activations are layers"},
        {{{"batch_normalization", {2}},
          {"conv2d", {3, 3, 1, 2}},
          {"dense", {2 * 13 * 13, 10}},
          {"flatten", {0}},
          {"average_pooling2d", {0}}},
         "conv 2x26x26 relu, scale 2, average_pool 2x13x13, dense 10",
         "batch normalisation after the activation (--batchnorm"},
        {{{"conv2d", {3, 3, 1, 2}}, {"average_pooling2d", {0}}, {"dense", {2 * 8 * 8, 10}}},
         "conv 2x26x26 tanh, average_pool 2x8x8, dense 10",
         "padding valid, pooling of 3x3 every 3, which give the 128 inputs"},
        {{{"conv2d", {3, 3, 1, 2}},
          {"my_warp", {0}},
          {"average_pooling2d", {0}},
          {"dense", {2 * 13 * 13, 10}}},
         "conv 2x26x26 tanh, average_pool 2x13x13, dense 10",
         "layers whose names say nothing, as 'my_warp', change nothing"},
        {{{"conv2d", {3, 3, 1, 2}}, {"flatten", {0}}, {"dense", {2 * 13 * 13, 10}}},
         "conv 2x13x13 tanh, dense 10",
         "padding valid, strides of 2 in 1 of the convolutions"},
        {{{"conv2d", {3, 3, 1, 2}},
          {"leaky_re_lu", {0}},
          {"global_max_pooling2d", {0}},
          {"dense", {2, 8}},
          {"elu", {0}},
          {"dense_1", {8, 10}},
          {"softmax", {0}}},
         "conv 2x26x26 relu, max_pool 2x1x1, dense 8 elu, dense 10, activation 10 softmax",
         "default slope"},
        {{{"conv2d", {3, 3, 1, 2}}, /* in the fallback, too */
          {"dense", {2, 10}},
          {"global_average_pooling2d", {0}}},
         "conv 2x26x26 tanh, average_pool 2x1x1, dense 10",
         "images of 28x28 and padding valid (--input"},
        {{{"zero_padding2d", {0}},
          {"conv2d", {5, 5, 1, 2}},
          {"activation", {0}},
          {"average_pooling2d", {0}},
          {"dropout", {0}},
          {"flatten", {0}},
          {"dense", {2 * 14 * 14, 7}},
          {"activation_1", {0}},
          {"dense_1", {7, 10}},
          {"activation_2", {0}}},
         "conv 2x28x28 border 2 tanh, average_pool 2x14x14, dense 7 tanh, dense 10, "
         "activation 10 softmax",
         "activation tanh after"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_v3_case(&cases[i], i);
        release();
    }
}

/* Two ways give the same number: the second is named, and --padding chooses it. */
static void test_paddings(void **state) {
    static const struct v3_layer layers[] = {
        {"conv2d", {3, 3, 1, 2}},   {"conv2d_1", {3, 3, 2, 2}},
        {"max_pooling2d", {0}},     {"conv2d_2", {3, 3, 2, 2}},
        {"max_pooling2d_1", {0}},   {"flatten", {0}},
        {"dense", {2 * 6 * 6, 10}}, {NULL, {0}}};
    static const char *const tails[] = {
        "conv 2x28x28 border 1 relu, conv 2x28x28 border 1 relu, max_pool 2x14x14, conv "
        "2x12x12 relu, max_pool 2x6x6, dense 10",
        "conv 2x26x26 relu, conv 2x24x24 relu, max_pool 2x12x12, conv 2x12x12 border 1 relu, "
        "max_pool 2x6x6, dense 10",
    };
    struct keras_options o;
    (void)state;
    put_v3_layers(layers);
    assert_int_equal(convert(NULL), 0);
    assert_string_equal(summary(), tails[0]);
    assert_true(noted("; so would "));
    release();
    keras_options_init(&o);
    o.padding_count = 3;
    for (int way = 0; way < 2; way++) {
        o.padding_same = way ? 4 : 3;
        assert_int_equal(convert(&o), 0);
        assert_string_equal(summary(), tails[way]);
        assert_false(noted("; so would "));
        release();
    }
    o.padding_count = 4; /* one more than there are */
    o.padding_same = 8;
    assert_int_equal(convert(&o), -1);
}

/* The order of links is read past HDF5: no byte of the file may harm, whatever it becomes. */
static void test_damaged_links(void **state) {
    static const char *const made[] = {"dense", "conv2d_1", "pool", "conv2d", "a", "b7"};
    enum { COUNT = sizeof made / sizeof *made };
    struct names names;
    struct h5 *h5;
    char group[40];
    int told = 0, lost = 0;
    size_t size;
    (void)state;
    const hid_t file = h5_create(name_file("links.h5"));
    for (int i = 0; i < COUNT; i++) {
        snprintf(group, sizeof group, "layers/%s/vars", made[i]);
        put_group(file, group);
    }
    closed(file);
    char *bytes = read_file(&size);
    assert_int_equal(h5_open(&h5, path, &err), 0);
    assert_int_equal(h5_list(h5, "layers", &names, &err), 0);
    assert_string_equal(names.item[0], "a");
    assert_int_equal(h5_order_links(h5, "layers", &names), 1);
    for (int i = 0; i < COUNT; i++)
        assert_string_equal(names.item[i], made[i]);
    const int damaged = open(path, O_WRONLY);
    for (size_t at = 0; at < size; at++) {
        for (int bit = 0; bit < 9; bit++) {
            const char wrong = (char)(bit < 8 ? bytes[at] ^ 1 << bit : ~bytes[at]);
            assert_int_equal(pwrite(damaged, &wrong, 1, (off_t)at), 1);
            const int known = h5_order_links(h5, "layers", &names);
            told += known;
            lost += !known;
        }
        assert_int_equal(pwrite(damaged, bytes + at, 1, (off_t)at), 1);
    }
    close(damaged);
    assert_true(told > 0 && lost > 100);
    names_free(&names);
    h5_close(h5);
    free(bytes);
}

/* What a file of weights only leaves open about normalisation and leaky relus has options. */
static void test_norm_options(void **state) {
    static const struct v3_layer layers[] = {
        {"batch_normalization", {2}}, {"conv2d", {3, 3, 1, 2}}, {"dense", {2 * 13 * 13, 10}},
        {"leaky_re_lu", {0}},         {"max_pooling2d", {0}},   {NULL, {0}}};
    struct keras_options o;
    (void)state;
    put_v3_layers(layers);
    keras_options_init(&o);
    assert_int_equal(convert(&o), 0);
    assert_string_equal(summary(), "conv 2x26x26 relu, max_pool 2x13x13, dense 10");
    assert_true(noted("adds 0.001 to the variance, the default of Keras (--epsilon X)"));
    assert_true(m.layers[0].param[0] == 0.3f);
    const float folded = m.layers[0].weight[0];
    release();
    o.batchnorm = PLACE_AFTER;
    o.slope = 0.125;
    assert_int_equal(convert(&o), 0);
    assert_string_equal(summary(), "conv 2x26x26 relu, scale 2, max_pool 2x13x13, dense 10");
    assert_true(m.layers[0].param[0] == 0.125f);
    assert_false(noted("--batchnorm"));
    assert_false(noted("--slope"));
    release();
    o.batchnorm = PLACE_BEFORE;
    o.epsilon = 3; /* the variance is 1: half of what it would be without */
    assert_int_equal(convert(&o), 0);
    assert_false(noted("--epsilon"));
    assert_true(fabs((double)m.layers[0].weight[0] / (double)folded - sqrt(1.001) / 2) < 1e-6);
    release();
    closed(h5_model(name_file("model.h5"), MODEL));
    refused_with(&o, "FILE holds its architecture, there is nothing for --batchnorm to say; "
                     "leave it out");
}

/* Of a model within a model, a file of weights shows only the layers that own arrays. */
static void test_nested_weights(void **state) {
    static const char *const names[] = {"conv2d/kernel:0", "conv2d/bias:0", "conv2d_1/kernel:0",
                                        "conv2d_1/bias:0"};
    (void)state;
    static const struct {
        hsize_t rows;
        const char *summary; /* NULL: refused */
    } cases[] = {
        {48, "conv 2x24x24 tanh, average_pool 2x12x12, conv 3x8x8 tanh, average_pool 3x4x4, "
             "dense 10"},
        {3, "conv 2x24x24 tanh, average_pool 2x12x12, conv 3x8x8 tanh, average_pool 3x4x4, "
            "average_pool 3x1x1, dense 10"},
        {77, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hid_t file = h5_create(name_file("weights.h5"));
        put_names(file, "/", "layer_names", NAMES("features", "dense"));
        put_text(file, "/", "keras_version", "2.15.0");
        put_text(file, "/", "backend", "tensorflow");
        put_group(file, "features");
        put_names(file, "features", "weight_names", names, 4);
        put_floats(file, "features/conv2d/kernel:0", DIMS(5, 5, 1, 2));
        put_floats(file, "features/conv2d/bias:0", DIMS(2));
        put_floats(file, "features/conv2d_1/kernel:0", DIMS(5, 5, 2, 3));
        put_floats(file, "features/conv2d_1/bias:0", DIMS(3));
        put_layer(file, "", "dense", DIMS(cases[i].rows, 10), 10);
        closed(file);
        if (!cases[i].summary) {
            refused("FILE: dense 'dense' has 77 rows, which images of 28x28 or 32x32 give with "
                    "no padding and no places of 2x2 pooling; a file of weights only does not "
                    "say more: give --input HxWxC, or save the whole model (model.save) and "
                    "convert that");
            continue;
        }
        assert_int_equal(convert(NULL), 0);
        assert_string_equal(summary(), cases[i].summary);
        assert_int_equal(noted("whose rows are as many as the channels"), cases[i].rows == 3);
        release();
    }
}

/* Classes that no shape betrays are told by the names that Keras gives. */
static void test_strange_names(void **state) {
    static const struct {
        struct v3_layer layers[4];
        const char *sentence;
    } cases[] = {
        {{{"conv2d_transpose", {3, 3, 1, 2}}},
         "FILE: layer 1 'conv2d_transpose' is by its name of class Conv2DTranspose, which "
         "cannot be converted"},
        {{{"conv2d", {3, 3, 1, 2}}, {"p_re_lu", {2}}},
         "FILE: layer 2 'p_re_lu' is by its name of class PReLU, which cannot be converted"},
        {{{"conv2d", {3, 3, 1, 2}}, {"up_sampling2d", {0}}},
         "FILE: layer 2 'up_sampling2d' is by its name of class UpSampling2D, which cannot be "
         "converted"},
        {{{"conv2d", {3, 3, 1, 2}}, {"layer_normalization", {2}}},
         "FILE: layer 2 'layer_normalization' is by its name of class LayerNormalization, "
         "which "
         "cannot be converted"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_v3_layers(cases[i].layers);
        refused(cases[i].sentence);
    }
}

/* Our own trainer leaves its data set and accuracy. */
static void test_recorded_origin(void **state) {
    (void)state;
    const hid_t file = h5_model(name_file("model.h5"), MODEL);
    put_text(file, "/", "lenet5_dataset", "fashion_mnist");
    put_text(file, "/", "lenet5_accuracy", "0.905");
    closed(file);
    assert_int_equal(convert(NULL), 0);
    assert_string_equal(m.dataset, "fashion_mnist");
    assert_true(m.accuracy == 0.905f);
    assert_int_equal(m.layers[m.count - 1].activation, ACT_SOFTMAX);
    assert_int_equal(m.layers[m.count - 1].op, OP_ACTIVATION);
    release();
}

/* Keys that Keras always writes are missed, not silently replaced. */
static void test_lost_keys(void **state) {
    static const struct {
        const char *from, *to, *note;
    } cases[] = {
        {"\"activation\": \"tanh\"", "\"activatiom\": \"tanh\"",
         "layer 'conv2d' does not say its activation"},
        {"\"strides\": [1, 1]", "\"stribes\": [1, 1]",
         "layer 'conv2d' does not say its strides"},
        {"\"padding\": \"valid\"", "\"paddinf\": \"valid\"",
         "layer 'conv2d' does not say its padding"},
        {"\"pool_size\": [2, 2]", "\"pool_siye\": [2, 2]",
         "layer 'average_pooling2d' does not say its pool_size"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = replaced(MODEL, cases[i].from, cases[i].to);
        closed(h5_model(name_file("model.h5"), json));
        assert_int_equal(convert(NULL), 0);
        assert_true(noted(cases[i].note));
        release();
        free(json);
    }
    const hid_t file = h5_model(name_file("model.h5"), MODEL);
    H5Adelete_by_name(file, "model_weights", "keras_version", H5P_DEFAULT);
    closed(file);
    assert_int_equal(convert(NULL), 0);
    assert_true(noted("does not say which Keras wrote it"));
    release();
}

/* ---- the command ------------------------------------------------------------------------ */

/* Runs h5_to_blob with these arguments, in which FILE and OUT stand for names; what it prints
   is in printed. Returns its exit status. */
static char printed[1 << 16];

static int run(const char *arguments) {
    char command[2048], *to = command;
    to += sprintf(to, "%s ", converter_path());
    for (const char *s = arguments; *s;)
        if (!strncmp(s, "FILE", 4) || !strncmp(s, "OUT", 3)) {
            to += sprintf(to, "%s%s", path, *s == 'O' ? ".bin" : "");
            s += *s == 'O' ? 3 : 4;
        } else
            *to++ = *s++;
    strcpy(to, " 2>&1");
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    printed[fread(printed, 1, sizeof printed - 1, pipe)] = '\0';
    const int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int blob_exists(void) {
    char blob[300];
    snprintf(blob, sizeof blob, "%s.bin", path);
    return !access(blob, F_OK);
}

static void test_usage(void **state) {
    static const struct {
        const char *arguments, *sentence;
    } cases[] = {
        {"", "h5_to_blob: no FILE to convert; see h5_to_blob --help\n"},
        {"FILE", "h5_to_blob: no OUT.bin to write for "},
        {"FILE OUT more", "h5_to_blob: one argument too many: more; see"},
        {"--colour FILE OUT", "h5_to_blob: unknown option --colour; see"},
        {"FILE OUT --scale", "h5_to_blob: an argument is missing behind --scale; see"},
        {"--scale nan FILE OUT", "h5_to_blob: --scale nan: X was expected; see"},
        {"--scale 1/0 FILE OUT", "h5_to_blob: --scale 1/0: X was expected; see"},
        {"--input 28 FILE OUT", "h5_to_blob: --input 28: HxWxC was expected; see"},
        {"--input 65x28x1 FILE OUT", "h5_to_blob: --input 65x28x1: HxWxC was expected; see"},
        {"--padding both FILE OUT", "h5_to_blob: --padding both: valid|same was expected; see"},
        {"--pool mean FILE OUT", "h5_to_blob: --pool mean: average|max was expected; see"},
        {"--activation x FILE OUT", "h5_to_blob: --activation x: NAME was expected; see"},
        {"--classes 0 FILE OUT", "h5_to_blob: --classes 0: N was expected; see"},
    };
    (void)state;
    closed(h5_weights(name_file("weights.h5")));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(run(cases[i].arguments), 2);
        if (strncmp(printed, cases[i].sentence, strlen(cases[i].sentence)))
            fail_msg("expected '%s', found '%s'", cases[i].sentence, printed);
    }
    assert_false(blob_exists());
}

static void test_command(void **state) {
    json_error_t why;
    (void)state;
    closed(h5_weights(name_file("weights.h5")));
    assert_int_equal(run("--dry-run FILE OUT"), 0);
    assert_false(blob_exists());
    assert_non_null(strstr(printed, "3410 in Keras, 3410 in the blob's 3 rows"));
    assert_int_equal(run("--dry-run --json FILE"), 0);
    json_t *json = json_loads(printed, 0, &why);
    assert_non_null(json);
    assert_int_equal(json_integer_value(json_object_get(json, "parameters")), 3410);
    assert_int_equal(json_array_size(json_object_get(json, "layers")), 4);
    assert_int_equal(json_array_size(json_object_get(json, "rows")), 3);
    assert_string_equal(json_string_value(json_object_get(json, "layout")), "D");
    json_decref(json);
    assert_int_equal(run("--quiet FILE OUT"), 0);
    assert_string_equal(printed, "");
    assert_true(blob_exists());
    write_file("weights.h5", "x", 1); /* a failure leaves the older blob alone */
    assert_int_equal(run("FILE OUT"), 1);
    assert_true(blob_exists());
}

/* ---- reordering and folding ------------------------------------------------------------- */

/* Every number is its own index, written out by hand for 2x1 windows, 2 in, 3 out. */
static void test_reorder_kernel(void **state) {
    const struct kernel_shape shape = {2, 1, 2, 3};
    const float hwio[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const float oihw[] = {0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11};
    const float flipped[] = {6, 0, 9, 3, 7, 1, 10, 4, 8, 2, 11, 5};
    float to[12];
    (void)state;
    reorder_kernel(to, hwio, shape, 0, 0);
    assert_memory_equal(to, oihw, sizeof to);
    reorder_kernel(to, oihw, shape, 1, 0);
    assert_memory_equal(to, oihw, sizeof to);
    reorder_kernel(to, hwio, shape, 0, 1);
    assert_memory_equal(to, flipped, sizeof to);
    reorder_kernel(to, oihw, shape, 1, 1);
    assert_memory_equal(to, flipped, sizeof to);
}

/* A map of 2 channels, 1x2, and 2 outputs. */
static void test_reorder_dense(void **state) {
    const float stored[] = {0, 1, 10, 11, 20, 21, 30, 31}; /* 10 * input + output */
    const float across[] = {0, 10, 20, 30, 1, 11, 21, 31};
    const float chw[] = {0, 20, 10, 30, 1, 21, 11, 31}; /* of channels last */
    float to[8];
    (void)state;
    reorder_dense(to, stored, (struct dense_shape){2, 1, 2, 2, 0, 0});
    assert_memory_equal(to, across, sizeof to);
    reorder_dense(to, stored, (struct dense_shape){2, 1, 2, 2, 0, 1});
    assert_memory_equal(to, chw, sizeof to);
    reorder_dense(to, across, (struct dense_shape){2, 1, 2, 2, 1, 0});
    assert_memory_equal(to, across, sizeof to);
    reorder_dense(to, across, (struct dense_shape){2, 1, 2, 2, 1, 1});
    assert_memory_equal(to, chw, sizeof to);
}

enum { CELLS = 4096 };

/* Runs rows under construction on x. */
static void run_rows(const struct rows *rows, const float *x, float *y) {
    static float a[CELLS], b[CELLS];
    memcpy(a, x, shape_size(rows->row[0].row.in) * sizeof *x);
    for (int i = 0; i < rows->count; i++) {
        struct layer l = rows->row[i].row;
        l.weight = rows->row[i].weight;
        l.bias = rows->row[i].bias;
        layer_cpu(&l, a, b, 1);
        memcpy(a, b, sizeof a);
    }
    memcpy(y, a, shape_size(rows->row[rows->count - 1].row.out) * sizeof *y);
}

static void fill(struct rng *rng, float **floats, size_t count, int least, int most) {
    *floats = calloc(count, sizeof **floats);
    for (size_t i = 0; i < count; i++)
        (*floats)[i] = (float)rng_int(rng, least, most);
}

/* Makes a chain of ops over a map of 2x6x6, with whole numbers, so that folding is exact. */
static void make_rows(struct rows *rows, const enum op *ops, int least_scale) {
    struct rng rng = {SEED};
    struct layer table[8];
    memset(rows, 0, sizeof *rows);
    memset(table, 0, sizeof table);
    while (ops[rows->count]) {
        struct layer *l = &table[rows->count++];
        l->op = *(ops + rows->count - 1);
        if (l->op <= OP_MAX_POOL)
            l->kernel_h = l->kernel_w = l->stride_h = l->stride_w = 2;
        l->out.c = l->op == OP_DENSE ? 5 : 3;
        l->biases = l->op == OP_SCALE;
    }
    assert_int_equal(network_check(table, rows->count, (struct shape){3, 6, 6}, &err), 0);
    for (int i = 0; i < rows->count; i++) {
        struct row *r = &rows->row[i];
        r->row = table[i];
        if (r->row.weights)
            fill(&rng, &r->weight, r->row.weights, r->row.op == OP_SCALE ? least_scale : -3, 3);
        if (r->row.biases)
            fill(&rng, &r->bias, r->row.biases, -3, 3);
    }
}

/* Folding leaves what is computed alone, and as many rows as expected. */
static void check_fold(const enum op *ops, int act_at, int least_scale, int rows_left) {
    static struct rows rows;
    float x[108], before[CELLS], after[CELLS];
    struct rng rng = {SEED + 1};
    make_rows(&rows, ops, least_scale);
    if (act_at >= 0) {
        rows.row[act_at].row.activation = ACT_RELU;
        rows.row[act_at].row.param[2] = FLT_MAX;
    }
    for (int i = 0; i < 108; i++)
        x[i] = (float)(4 * rng_int(&rng, -4, 4)); /* means of four are whole */
    run_rows(&rows, x, before);
    const size_t outputs = shape_size(rows.row[rows.count - 1].row.out);
    assert_int_equal(fold_scales(&rows, &err), 0);
    assert_int_equal(rows.count, rows_left);
    run_rows(&rows, x, after);
    assert_memory_equal(before, after, outputs * sizeof *before);
    rows_free(&rows);
}

static void test_fold(void **state) {
    (void)state;
    check_fold((const enum op[]){OP_CONV, OP_SCALE, 0}, -1, -3, 1);
    check_fold((const enum op[]){OP_CONV, OP_SCALE, 0}, 1, -3, 1);
    check_fold((const enum op[]){OP_CONV, OP_SCALE, 0}, 0, -3, 2);
    check_fold((const enum op[]){OP_CONV, OP_AVERAGE_POOL, OP_SCALE, 0}, 2, -3, 2);
    check_fold((const enum op[]){OP_CONV, OP_MAX_POOL, OP_SCALE, 0}, 2, 0, 2);
    check_fold((const enum op[]){OP_CONV, OP_MAX_POOL, OP_SCALE, 0}, 2, -3, 3);
    check_fold((const enum op[]){OP_CONV, OP_AVERAGE_POOL, OP_SCALE, 0}, 1, -3, 3);
    check_fold((const enum op[]){OP_SCALE, OP_CONV, 0}, -1, -3, 2);
    check_fold((const enum op[]){OP_SCALE, OP_DENSE, 0}, -1, -3, 1);
    check_fold((const enum op[]){OP_SCALE, OP_DENSE, 0}, 0, -3, 2);
    check_fold((const enum op[]){OP_CONV, OP_SCALE, OP_SCALE, OP_DENSE, 0}, 1, -3, 2);
    check_fold((const enum op[]){OP_MAX_POOL, OP_SCALE, OP_DENSE, 0}, -1, -3, 2);
}

/* The check itself must see a wrong number. */
static void test_fold_check_can_fail(void **state) {
    static struct rows rows;
    float x[108] = {4}, before[CELLS], after[CELLS];
    (void)state;
    make_rows(&rows, (const enum op[]){OP_CONV, OP_SCALE, 0}, 1);
    run_rows(&rows, x, before);
    assert_int_equal(fold_scales(&rows, &err), 0);
    rows.row[0].bias[1] += 1;
    run_rows(&rows, x, after);
    assert_memory_not_equal(before, after, 27 * sizeof *before);
    rows_free(&rows);
}

/* ---- what is not what its name says ------------------------------------------------------ */

/* Classes of others that bear the names of Keras's, and its own from wherever they come. */
static void test_foreign_classes(void **state) {
    static const struct {
        const char *from, *to, *sentence;
    } cases[] = {
        {"\"Flatten\", ", "\"Flatten\", \"registered_name\": \"mine>Flatten\", ",
         "FILE: layer 3 'flatten' is of class mine>Flatten, which is not Keras's own"},
        {"\"Flatten\", ", "\"Flatten\", \"module\": \"my.layers\", ",
         "FILE: layer 3 'flatten' is of class my.layers.Flatten, which is not Keras's own"},
        {"\"Flatten\", ", "\"Flatten\", \"module\": \"kerasish\", ",
         "FILE: layer 3 'flatten' is of class kerasish.Flatten, which is not Keras's own"},
        {"\"tanh\"",
         "{\"class_name\": \"ReLU\", \"module\": null, \"config\": {}, \"registered_name\": "
         "\"mine>ReLU\"}",
         "FILE: layer 1 'conv2d' has the activation 'mine>ReLU'"},
        {"\"Flatten\", ",
         "\"Flatten\", \"module\": \"keras.layers\", \"registered_name\": null, ", NULL},
        {"\"Flatten\", ",
         "\"Flatten\", \"module\": \"tf_keras.src.layers\", \"registered_name\": \"Flatten\", ",
         NULL},
        {"\"Flatten\", ", "\"Flatten\", \"module\": \"tensorflow.python.keras.layers\", ",
         NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = replaced(MODEL, cases[i].from, cases[i].to), sentence[512];
        closed(h5_model(name_file("model.h5"), json));
        free(json);
        if (!cases[i].sentence) {
            assert_int_equal(convert(NULL), 0);
            release();
            continue;
        }
        snprintf(sentence, sizeof sentence, "%s%s", cases[i].sentence, SUPPORTED);
        refused(sentence);
    }
    char *json = replaced(MODEL, "\"Sequential\", ",
                          "\"Sequential\", \"registered_name\": \"mine>Sequential\", ");
    closed(h5_model(name_file("model.h5"), json));
    free(json);
    refused("FILE: the model is of class mine>Sequential, which is not Keras's own; only "
            "Sequential and functional models can be converted");
}

/* Keras 1 could normalise by the batch at inference, too. */
static void test_norm_mode(void **state) {
    static const char NORM[] =
        "{\"class_name\": \"BatchNormalization\", \"config\": {\"name\": \"norm\", \"axis\": "
        "-1, \"mode\": 1, \"epsilon\": 0.001}}, {\"class_name\": \"Flatten\"";
    char *json = replaced(MODEL, "{\"class_name\": \"Flatten\"", NORM), sentence[512];
    (void)state;
    closed(h5_model(name_file("model.h5"), json));
    free(json);
    snprintf(sentence, sizeof sentence, "FILE: layer 3 'norm' normalises in mode 1%s",
             SUPPORTED);
    refused(sentence);
}

/* Layers that join branches are no pooling by the sound of their names; others are. */
static void test_joints(void **state) {
    static const struct {
        const char *name, *type;
    } joints[] = {
        {"add", "Add"},
        {"average", "Average"},
        {"average_12", "Average"},
        {"maximum_1", "Maximum"},
        {"minimum", "Minimum"},
        {"dot_3", "Dot"},
        {"multiply", "Multiply"},
        {"subtract_1", "Subtract"},
        {"concatenate", "Concatenate"},
        {"random_crop", "RandomCrop"},
    };
    static const char *const pools[] = {"average_pooling2d_1", "average_1b", "average_"};
    struct v3_layer layers[] = {
        {"conv2d", {3, 3, 1, 2}}, {"", {0}}, {"dense", {2 * 13 * 13, 10}}, {NULL, {0}}};
    (void)state;
    for (size_t i = 0; i < sizeof joints / sizeof *joints; i++) {
        char sentence[200];
        layers[1].name = joints[i].name;
        put_v3_layers(layers);
        snprintf(sentence, sizeof sentence,
                 "FILE: layer 2 '%s' is by its name of class %s, which cannot be converted",
                 joints[i].name, joints[i].type);
        refused(sentence);
    }
    for (size_t i = 0; i < sizeof pools / sizeof *pools; i++) {
        layers[1].name = pools[i];
        put_v3_layers(layers);
        assert_int_equal(convert(NULL), 0);
        assert_string_equal(summary(), "conv 2x26x26 tanh, average_pool 2x13x13, dense 10");
        release();
    }
}

/* What stands behind a pooling is not one itself. */
static void test_names_of_dropout(void **state) {
    static const char *const names[] = {"pool1_drop", "act_dropout", "s2_drop",
                                        "max_pool_noise"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct unit u = {.kind = KIND_CONV};
        snprintf(u.name, sizeof u.name, "%s", names[i]);
        name_read(&u, 3);
        assert_int_equal(u.kind, KIND_NOTHING);
    }
    struct unit u = {.name = "S2"};
    name_read(&u, 3);
    assert_int_equal(u.kind, KIND_POOL);
}

/* "re_lu" is also the end of a name that lies before it, 8 bytes behind its beginning. */
static void test_links_within_names(void **state) {
    static const char *const made[] = {"gaussianre_lu", "conv2d", "re_lu", "dense"};
    enum { COUNT = sizeof made / sizeof *made };
    struct names names;
    struct h5 *h5;
    char group[40];
    (void)state;
    const hid_t file = h5_create(name_file("links.h5"));
    for (int i = 0; i < COUNT; i++) {
        snprintf(group, sizeof group, "layers/%s/vars", made[i]);
        put_group(file, group);
    }
    closed(file);
    assert_int_equal(h5_open(&h5, path, &err), 0);
    assert_int_equal(h5_list(h5, "layers", &names, &err), 0);
    assert_int_equal(h5_order_links(h5, "layers", &names), 1);
    for (int i = 0; i < COUNT; i++)
        assert_string_equal(names.item[i], made[i]);
    names_free(&names);
    h5_close(h5);
}

/* The layers of a class of its own: groups at the top, whose names are its attributes. */
static void put_subclassed(const struct v3_layer *layers) {
    const hid_t file = h5_create(name_file("own.weights.h5"));
    for (; layers->name; layers++)
        put_v3_group(file, layers->name, layers->dims);
    closed(file);
}

/* The units that own arrays, in their order. */
static const char *kernel_names(void) {
    static char names[200];
    names[0] = '\0';
    for (int i = 0; i < k.count; i++)
        if (k.units[i].outputs || k.units[i].kind == KIND_SCALE)
            sprintf(names + strlen(names), "%s%s", *names ? " " : "", k.units[i].name);
    return names;
}

/* An order that nothing tells is guessed, by the names and else by the sizes, and that is said.
 */
static void test_untold_order(void **state) {
    static const struct {
        struct v3_layer layers[8];
        const char *order, *by, *twins;
    } cases[] = {
        {{{"fc1", {784, 84}}, {"fc2", {84, 84}}, {"fc3", {84, 84}}, {"out", {84, 10}}},
         "fc1 fc2 fc3 out",
         "by their names: fc1, fc2, fc3, out",
         "in the order of their names: fc2, fc3"},
        {{{"b", {84, 84}}, {"a", {84, 84}}, {"in", {784, 84}}, {"out", {84, 10}}},
         "in a b out",
         "by their sizes: in, a, b, out",
         "in the order of their names: a, b"},
        {{{"a", {784, 84}}, {"b", {84, 10}}, {"c", {84, 84}}}, /* c leads on to b */
         "a c b",
         "by their sizes: a, c, b",
         NULL},
        {{{"dense", {338, 10}}, {"last", {3, 3, 1, 2}}}, /* no convolution behind a dense one */
         "last dense",
         "by their sizes: last, dense",
         NULL},
        {{{"a", {3, 3, 2, 2}}, {"b", {3, 3, 1, 2}}, {"c", {288, 10}}},
         "b a c",
         "by their sizes: b, a, c",
         NULL},
        {{{"a", {3, 3, 1, 2}},
          {"b", {3, 3, 2, 2}},
          {"bn1", {2}},
          {"bn2", {2}},
          {"c", {288, 10}}},
         "a bn1 b bn2 c",
         "by their sizes: a, bn1, b, bn2, c",
         "in the order of their names: bn1, bn2"},
        {{{"a", {3, 3, 1, 2}}, {"bn", {2}}, {"c", {338, 10}}},
         "a bn c",
         "by their names: a, bn, c",
         NULL},
        {{{"bn", {2}}, {"conv", {3, 3, 1, 2}}, {"fc", {338, 10}}}, /* 2 numbers, 1 channel */
         "conv bn fc",
         "by their sizes: conv, bn, fc",
         NULL},
        {{{"a", {784, 84}}, {"b", {84, 84}}, {"bn", {10}}, {"c", {84, 10}}}, /* behind c */
         "a b c bn",
         "by their sizes: a, b, c, bn",
         NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_subclassed(cases[i].layers);
        if (convert(NULL))
            fail_msg("case %zu: %s", i, err.message);
        assert_string_equal(kernel_names(), cases[i].order);
        if (!noted(cases[i].by) || (cases[i].twins && !noted(cases[i].twins)))
            fail_msg("case %zu: no note '%s'", i, cases[i].by);
        assert_int_equal(noted("in the order of their names"), cases[i].twins != NULL);
        release();
    }
}

/* The alphabet is no order of layers where some own no arrays: h5repack leaves it. */
static void test_sorted_links(void **state) {
    static const struct v3_layer
        sorted[] = {{"average_pooling2d", {0}}, {"average_pooling2d_1", {0}},
                    {"conv2d", {3, 3, 1, 2}},   {"conv2d_1", {3, 3, 2, 2}},
                    {"dense", {2 * 5 * 5, 10}}, {NULL, {0}}},
        made[] = {{"conv2d", {3, 3, 1, 2}},   {"average_pooling2d", {0}},
                  {"conv2d_1", {3, 3, 2, 2}}, {"average_pooling2d_1", {0}},
                  {"dense", {2 * 5 * 5, 10}}, {NULL, {0}}},
        full[] = {{"conv2d", {3, 3, 1, 2}},
                  {"conv2d_1", {3, 3, 2, 2}},
                  {"dense", {2 * 24 * 24, 10}},
                  {NULL, {0}}},
        inner[] = {{"conv2d", {3, 3, 1, 2}},
                   {"average_pooling2d", {0}},
                   {"sequential", {0}},
                   {"sequential/layers/dense", {338, 8}},
                   {"sequential/layers/dense_1", {8, 10}},
                   {NULL, {0}}};
    static const struct {
        const struct v3_layer *layers;
        int told;
    } cases[] = {{sorted, 0}, {made, 1}, {full, 1}, {inner, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_v3_layers(cases[i].layers);
        if (convert(NULL))
            fail_msg("case %zu: %s", i, err.message);
        assert_int_equal(noted("the file does not tell the order"), !cases[i].told);
        if (i < 2)
            assert_string_equal(summary(), "conv 2x26x26 tanh, average_pool 2x13x13, conv "
                                           "2x11x11 tanh, average_pool 2x5x5, dense 10");
        release();
    }
}

/* Two vectors in a class of its own may be a LayerNormalization's gamma and beta. */
static void test_two_vectors(void **state) {
    (void)state;
    for (int named = 0; named < 2; named++) {
        const char *group = named ? "my_bn" : "b_norm";
        char set[40];
        const hid_t file = h5_create(name_file("two.weights.h5"));
        put_floats(file, "a/vars/0", DIMS(784, 84));
        put_floats(file, "a/vars/1", DIMS(84));
        snprintf(set, sizeof set, "%s/vars/0", group);
        put_floats(file, set, DIMS(84));
        snprintf(set, sizeof set, "%s/vars/1", group);
        put_ones(file, set, 84);
        put_floats(file, "out/vars/0", DIMS(84, 10));
        put_floats(file, "out/vars/1", DIMS(10));
        closed(file);
        if (!named) {
            refused("FILE: 'b_norm' holds two vectors, as LayerNormalization does, and its "
                    "name does not say BatchNormalization; only Conv2D, Dense and "
                    "BatchNormalization can be converted");
            continue;
        }
        assert_int_equal(convert(NULL), 0);
        assert_string_equal(kernel_names(), "a my_bn out");
        release();
    }
}

/* Units a, b, c, ... of a text as "c1>2 s2 d8>10": convolution, scale and dense layer with
   their numbers, r is a rescaling; pooling, flatten and activation have none. */
static void make_units(const char *text) {
    static const enum kind kinds[] = {
        ['c'] = KIND_CONV, ['d'] = KIND_DENSE,   ['s'] = KIND_SCALE,      ['r'] = KIND_SCALE,
        ['p'] = KIND_POOL, ['f'] = KIND_FLATTEN, ['a'] = KIND_ACTIVATION, ['z'] = KIND_PADDING};
    memset(&k, 0, sizeof k);
    for (const char *s = text; *s; s += strcspn(s, " "), s += *s == ' ') {
        struct unit *u = &k.units[k.count];
        unsigned in = 0, out = 0;
        sscanf(s + 1, "%u>%u", &in, &out);
        u->kind = kinds[(unsigned char)*s];
        u->name[0] = (char)('a' + k.count++);
        u->preprocessing = *s == 'r';
        u->outputs = (int)out;
        u->kernel = ORDER_HWC;
        u->array[KERNEL].dim[*s == 'c' ? 2 : 0] = in;
        u->array[MEAN].count = u->kind == KIND_SCALE ? in : 0;
    }
}

/* Which orders make sense, and what becomes of those that do not. */
static void test_order_sense(void **state) {
    static const struct {
        const char *units, *order; /* NULL: as it is */
    } cases[] = {
        {"c1>2 a z c2>4 s4 p f d8>10 s10 a", NULL},
        {"d8>3 c3>2", "b a"}, /* a convolution behind a dense layer */
        {"c1>2 d8>10 p", "a b"},
        {"c1>2 d8>10 f", "a b"},
        {"a c1>2 d8>10", "b c"},
        {"s1 c1>2 d8>10", NULL},
        {"s2 c1>2 d8>10", "b a c"},
        {"r1 c1>2 d8>10", NULL},
        {"c1>2 r1 d8>10", "b a c"},
        {"c1>2 f s8 d8>10", NULL}, /* of each number of the flattened map */
        {"c1>2 s8 f d8>10", "a d b"},
        {"c1>2 f s7 d8>10", "a d c"},
        {"f d8>4 s8 d4>10", "b d c"},
        {"c1>2 c4>2 d8>10 f", "a b c"},
        {"c4>1 c1>4 d8>10 f", "b a c"}, /* not by the names: images have no 4 channels */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_units(cases[i].units);
        k.ordered = 1;
        const int count = k.count;
        assert_int_equal(order_units(&k, &err), 0);
        if (k.ordered != !cases[i].order || (k.ordered && k.count != count))
            fail_msg("case %zu: %s", i, cases[i].units);
        if (cases[i].order)
            assert_string_equal(kernel_names(), cases[i].order);
    }
    memset(&k, 0, sizeof k);
}

/* Opens a file with two links, behind a user block of that many bytes. */
static struct h5 *open_links(hsize_t block, struct names *names) {
    struct h5 *h5;
    const hid_t plist = H5Pcreate(H5P_FILE_CREATE);
    assert_true(H5Pset_userblock(plist, block) >= 0);
    const hid_t file = H5Fcreate(name_file("links.h5"), H5F_ACC_TRUNC, plist, H5P_DEFAULT);
    assert_true(file >= 0);
    put_group(file, "layers/made_first");
    put_group(file, "layers/last");
    H5Pclose(plist);
    closed(file);
    assert_int_equal(h5_open(&h5, path, &err), 0);
    assert_int_equal(h5_list(h5, "layers", names, &err), 0);
    assert_string_equal(names->item[0], "last");
    return h5;
}

/* Addresses count from behind a user block; what is no header or no heap tells nothing. */
static void test_links_are_looked_at(void **state) {
    struct names names;
    (void)state;
    for (hsize_t block = 0; block <= 512; block += 512) {
        struct h5 *h5 = open_links(block, &names);
        assert_int_equal(h5_order_links(h5, "layers", &names), 1);
        assert_string_equal(names.item[0], "made_first");
        names_free(&names);
        h5_close(h5);
    }
    for (int version = 0; version < 2; version++) {
        struct h5 *h5 = open_links(0, &names);
        size_t size;
        char *bytes = read_file(&size);
        for (size_t at = 0; at + 4 < size; at++)
            if (version ? at == h5_address(h5, "layers") : !memcmp(bytes + at, "HEAP", 4))
                bytes[at]++;
        write_file("links.h5", bytes, size);
        assert_int_equal(h5_order_links(h5, "layers", &names), 0);
        assert_string_equal(names.item[0], "last");
        free(bytes);
        names_free(&names);
        h5_close(h5);
    }
}

/* A layer of a list has its arrays in a group, if it has none in an empty one. */
static void test_lost_vars(void **state) {
    (void)state;
    const hid_t file = h5_create(name_file("lost.weights.h5"));
    put_v3_layer(file, "conv2d", DIMS(3, 3, 1, 2));
    put_group(file, "layers/max_pooling2d");
    put_v3_layer(file, "dense", DIMS(338, 10));
    closed(file);
    refused("FILE is damaged: layer 'max_pooling2d' has no group 'vars'");
}

/* ---- what is assumed is said; what is said is used -------------------------------------- */

/* MODEL with a layer before its convolution. */
static void put_first(const char *layer) {
    char text[600];
    snprintf(text, sizeof text, "%s, {\"class_name\": \"Conv2D\"", layer);
    char *json = replaced(MODEL, "{\"class_name\": \"Conv2D\"", text);
    closed(h5_model(name_file("model.h5"), json));
    free(json);
}

/* --invert and --offset say nothing about the scale, so it stays what it is without them. */
static void test_options_beside_rescaling(void **state) {
    static const struct {
        const char *scale;
        double plain;
    } cases[] = {{"2.0", 2.0 / 255}, {"0.00392156862745098", 1.0 / 255}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct keras_options o;
        char layer[200];
        snprintf(layer, sizeof layer,
                 "{\"class_name\": \"Rescaling\", \"config\": {\"name\": \"rescaling\", "
                 "\"scale\": %s, \"offset\": 0.0}}",
                 cases[i].scale);
        put_first(layer);
        keras_options_init(&o);
        assert_int_equal(convert(NULL), 0);
        assert_true(fabs((double)m.scale - cases[i].plain) < 1e-9);
        release();
        o.offset = 0;
        assert_int_equal(convert(&o), 0);
        assert_true(fabs((double)m.scale - cases[i].plain) < 1e-9 && m.offset == 0);
        release();
        o.invert = 1;
        assert_int_equal(convert(&o), 0);
        assert_true(fabs((double)m.scale + cases[i].plain) < 1e-9);
        assert_true(fabs((double)m.offset - 255 * cases[i].plain) < 1e-6);
        release();
    }
}

/* Parameters of activations are in no file of weights. */
static void test_parameters_of_activations(void **state) {
    static const struct v3_layer layers[] = {
        {"conv2d", {3, 3, 1, 2}},     {"re_lu", {0}},   {"max_pooling2d", {0}},
        {"conv2d_1", {4, 4, 2, 2}},   {"elu", {0}},     {"flatten", {0}},
        {"dense", {2 * 10 * 10, 10}}, {"re_lu_1", {0}}, {"dense_1", {10, 10}},
        {"hard_sigmoid", {0}},        {NULL, {0}}};
    static const char *const notes[] = {"relu 're_lu' has no upper limit (max_value)",
                                        "elu 'elu' has an alpha of 1"};
    (void)state;
    put_v3_layers(layers);
    for (int keras3 = 0; keras3 < 2; keras3++) {
        assert_int_equal(convert(NULL), 0);
        for (int i = 0; i < 2; i++)
            assert_true(noted(notes[i]));
        assert_false(noted("re_lu_1"));
        assert_int_equal(noted("hard sigmoid 'hard_sigmoid' has Keras 2's slope of 0.2; Keras "
                               "3 has 1/6"),
                         !keras3);
        assert_true(m.layers[m.count - 1].param[0] == (keras3 ? 1.0f / 6 : 0.2f));
        release();
        const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        if (!keras3)
            put_text(file, "layers/flatten/vars", "name", "flatten");
        closed(file);
    }
}

/* The border of a ZeroPadding2D is told by the sizes at best, and said. */
static void test_zero_paddings(void **state) {
    static const struct v3_case cases[] = {
        {{{"zero_padding2d", {0}},
          {"conv2d", {5, 5, 1, 2}},
          {"average_pooling2d", {0}},
          {"flatten", {0}},
          {"dense", {2 * 14 * 14, 10}}},
         "conv 2x28x28 border 2 tanh, average_pool 2x14x14, dense 10",
         "'zero_padding2d' adds 4 rows and 4 columns of zeros, which keeps the size"},
        {{{"zero_padding2d", {0}},
          {"conv2d", {5, 5, 1, 2}},
          {"average_pooling2d", {0}},
          {"flatten", {0}},
          {"dense", {2 * 13 * 13, 10}}},
         "conv 2x26x26 border 1 tanh, average_pool 2x13x13, dense 10",
         "'zero_padding2d' pads with a border of 1, for with that the sizes fit"},
    };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        check_v3_case(&cases[i], i);
        assert_null(strstr(m.source_version, "pad")); /* 32x32 would be padded, too */
        release();
    }
}

/* Options that a file leaves nothing to say are refused, not ignored and recorded. */
static void test_unused_options(void **state) {
    static const struct v3_layer named[] = {{"conv2d", {3, 3, 1, 2}},     {"re_lu", {0}},
                                            {"max_pooling2d", {0}},       {"flatten", {0}},
                                            {"dense", {2 * 13 * 13, 10}}, {NULL, {0}}};
    static const struct v3_layer norms[] = {{"conv2d", {3, 3, 1, 2}},
                                            {"batch_normalization", {2}},
                                            {"activation", {0}},
                                            {"max_pooling2d", {0}},
                                            {"flatten", {0}},
                                            {"dense", {2 * 13 * 13, 10}},
                                            {NULL, {0}}};
    struct keras_options o;
    (void)state;
    put_v3_layers(named);
    keras_options_init(&o);
    o.pool = OP_AVERAGE_POOL;
    refused_with(&o, "FILE leaves no kind of pooling open, there is nothing for --pool to say; "
                     "leave it out");
    o.pool = OP_MAX_POOL; /* the same as the name says */
    assert_int_equal(convert(&o), 0);
    release();
    o.activation = "tanh";
    refused_with(&o, "FILE leaves no activation open, there is nothing for --activation to "
                     "say; leave it out");
    o.activation = "relu";
    o.slope = 0.1;
    refused_with(&o, "FILE leaves no slope of a leaky relu open, there is nothing for --slope "
                     "to say; leave it out");
    keras_options_init(&o);
    o.epsilon = 0.1;
    refused_with(&o, "FILE leaves no epsilon of batch normalisation open, there is nothing for "
                     "--epsilon to say; leave it out");
    keras_options_init(&o);
    o.padding_count = 3;
    refused_with(&o, "FILE has 1 convolution, --padding says how 3 are padded");
    put_v3_layers(norms);
    keras_options_init(&o);
    o.batchnorm = PLACE_AFTER;
    refused_with(&o, "FILE leaves no place of batch normalisation open, there is nothing for "
                     "--batchnorm to say; leave it out");
}

/* The readings that a file leaves open stand behind the version, for lenet5 --identify. */
static void test_open_readings(void **state) {
    static const struct {
        const char *activation, *pool, *open;
    } cases[] = {{"a1", "S2", "Keras, act/pool/pad?"},
                 {"tanh", "S2", "Keras, pool/pad?"},
                 {"activation", "max_pooling2d", "Keras, act/pad?"},
                 {"re_lu", "average_pooling2d", "Keras, pad?"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int own = strcmp(cases[i].activation, "a1") != 0;
        const hid_t file = h5_create(name_file("some.weights.h5"));
        put_v3_layer(file, "conv2d", DIMS(3, 3, 1, 2));
        if (own)
            put_v3_layer(file, cases[i].activation, DIMS(0));
        put_v3_layer(file, cases[i].pool, DIMS(0));
        put_v3_layer(file, "flatten", DIMS(0));
        put_v3_layer(file, "dense", DIMS(338, 10));
        closed(file);
        assert_int_equal(convert(NULL), 0);
        assert_string_equal(m.source_version, cases[i].open);
        release();
    }
    closed(h5_model(name_file("model.h5"), MODEL));
    assert_int_equal(convert(NULL), 0);
    assert_string_equal(m.source_version, "Keras 2.15.0");
    release();
}

/* With --input there is one size, and one way is found once. */
static void test_input_is_one_way(void **state) {
    struct keras_options o;
    (void)state;
    closed(h5_weights(name_file("weights.h5")));
    keras_options_init(&o);
    o.input = (struct shape){1, 28, 28};
    assert_int_equal(convert(&o), 0);
    assert_true(noted("which give the 338 inputs of 'dense'"));
    assert_false(noted("so would"));
    release();
}

static void test_vectors(void **state) {
    (void)state;
    char *flat =
        replaced(MODEL, "\"data_format\": \"channels_last\"}}, {\"class_name\": \"Dense\"",
                 "\"data_format\": \"channels_last\"}}, {\"class_name\": \"Softmax\", "
                 "\"config\": {\"name\": \"softmax\", \"axis\": -1}}, "
                 "{\"class_name\": \"Dense\"");
    closed(h5_model(name_file("model.h5"), flat));
    refused("FILE: layer 4 'softmax' takes a softmax over a flattened 13x13x2 map; only over "
            "the outputs of a dense layer");
    free(flat);
    char *vector = replaced(MODEL, "[null, 28, 28, 1]", "[null, 784]");
    char *json = replaced(vector, "{\"class_name\": \"Conv2D\"",
                          "{\"class_name\": \"Reshape\", \"config\": {\"name\": \"reshape\", "
                          "\"target_shape\": [28, 28, -1]}}, {\"class_name\": \"Conv2D\"");
    closed(h5_model(name_file("model.h5"), json));
    if (convert(NULL))
        fail_msg("%s", err.message);
    assert_int_equal(m.input.c, 1);
    assert_int_equal(m.input.h, 28);
    release();
    free(vector);
    free(json);
}

/* JSON holds what is UTF-8 only, whatever a path is called and a file says. */
static void test_json_of_bad_bytes(void **state) {
    json_error_t why;
    (void)state;
    const hid_t file = h5_weights(name_file("weights.h5"));
    H5Adelete(file, "backend");
    put_text(file, "/", "backend", "tens\xff\x1b[1m");
    closed(file);
    assert_int_equal(convert(NULL), 0);
    assert_string_equal(k.backend, "tens??[1m");
    release();
    assert_int_equal(run("--json --quiet FILE OUT$(printf '\\377')"), 0);
    json_t *json = json_loads(printed, 0, &why);
    assert_non_null(json);
    const char *output = json_string_value(json_object_get(json, "output"));
    assert_non_null(strstr(output, "weights.h5.bin?"));
    assert_string_equal(json_string_value(json_object_get(json, "backend")), "tens??[1m");
    json_decref(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_zips),
        cmocka_unit_test(test_zip_at_4096),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_long_vector),
        cmocka_unit_test(test_unknown_size),
        cmocka_unit_test(test_all_problems),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_axis),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_options_beside_architecture),
        cmocka_unit_test(test_assumptions),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_recorded_options),
        cmocka_unit_test(test_guesses),
        cmocka_unit_test(test_group_order),
        cmocka_unit_test(test_damaged_links),
        cmocka_unit_test(test_paddings),
        cmocka_unit_test(test_norm_options),
        cmocka_unit_test(test_nested_weights),
        cmocka_unit_test(test_strange_names),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_recorded_origin),
        cmocka_unit_test(test_lost_keys),
        cmocka_unit_test(test_reorder_kernel),
        cmocka_unit_test(test_reorder_dense),
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_fold_check_can_fail),
        cmocka_unit_test(test_foreign_classes),
        cmocka_unit_test(test_norm_mode),
        cmocka_unit_test(test_joints),
        cmocka_unit_test(test_names_of_dropout),
        cmocka_unit_test(test_links_within_names),
        cmocka_unit_test(test_untold_order),
        cmocka_unit_test(test_sorted_links),
        cmocka_unit_test(test_two_vectors),
        cmocka_unit_test(test_lost_vars),
        cmocka_unit_test(test_order_sense),
        cmocka_unit_test(test_links_are_looked_at),
        cmocka_unit_test(test_options_beside_rescaling),
        cmocka_unit_test(test_parameters_of_activations),
        cmocka_unit_test(test_zero_paddings),
        cmocka_unit_test(test_unused_options),
        cmocka_unit_test(test_open_readings),
        cmocka_unit_test(test_input_is_one_way),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_json_of_bad_bytes),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
