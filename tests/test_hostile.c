/* SPDX-License-Identifier: MIT
 *
 * test_hostile.c - files with evil intent, and files that are damaged anywhere. Whatever a file
 * claims, h5_to_blob ends within a second of processor time and 256 MB with one sentence, reads
 * no other file, and never takes a damaged network for another one without a word.
 *
 * Crafted files are given to the h5_to_blob binary ($H5_TO_BLOB, else $BUILD/h5_to_blob), whose
 * memory and time are measured; sanitizers make both incomparable, and are left out there.
 * Every byte of two small goldens is flipped, and every prefix of one tried, in guard.h's
 * process.
 */
#include "test_h5.h"

#include "guard.h"
#include "keras.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zip.h>
#include <zlib.h>

static char folder[] = "/tmp/lenet5_hostile_XXXXXX", path[256], log_path[256];
static const char *converter;
static int sanitized;

static int start(void **state) {
    (void)state;
    converter = converter_path();
    sanitized = strstr(converter, "address") || strstr(converter, "asan");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (!mkdtemp(folder))
        return -1;
    snprintf(log_path, sizeof log_path, "%s/log", folder);
    snprintf(path, sizeof path, "%s/hostile.h5", folder);
    return 0;
}

static int stop(void **state) {
    char command[300];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void closed(hid_t file) {
    assert_true(H5Fclose(file) >= 0);
}

static double seconds(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Runs the binary on path; it must end with status 1, in time and memory, and with one line
   that contains the sentence. */
static void refused(const char *sentence) {
    struct rusage usage;
    char line[2048] = "";
    int status;
    fflush(NULL);
    const pid_t pid = fork();
    if (!pid) {
        const int fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (dup2(fd, 1) >= 0 && dup2(fd, 2) >= 0)
            execl(converter, converter, "--dry-run", path, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    FILE *log = fopen(log_path, "r");
    const size_t size = fread(line, 1, sizeof line - 1, log);
    fclose(log);
    line[size] = '\0';
    if (!strstr(line, sentence) || strchr(line, '\n') != line + size - 1 ||
        strncmp(line, "h5_to_blob: ", 12))
        fail_msg("expected '%s', found '%s'", sentence, line);
    for (size_t i = 0; i + 1 < size; i++)
        assert_true((unsigned char)line[i] >= ' ');
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    if (!sanitized) {
        assert_true(seconds(usage.ru_utime) + seconds(usage.ru_stime) < 1.1);
        assert_true(usage.ru_maxrss < 256 << 10);
    }
}

/* ---- links and storage elsewhere -------------------------------------------------------- */

static void test_links(void **state) {
    (void)state;
    hid_t file = h5_weights(path);
    H5Ldelete(file, "dense", H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/", file, "dense", H5P_DEFAULT, H5P_DEFAULT);
    closed(file);
    refused("hostile.h5: 'dense' is an external link to /etc/passwd; refused");
    file = h5_weights(path);
    H5Ldelete(file, "dense", H5P_DEFAULT);
    H5Lcreate_soft("/conv2d", file, "dense", H5P_DEFAULT, H5P_DEFAULT);
    closed(file);
    refused("hostile.h5: 'dense' is a soft link; refused");
    file = h5_weights(path);
    H5Ldelete(file, "conv2d/conv2d", H5P_DEFAULT);
    H5Lcreate_soft("/dense/dense", file, "conv2d/conv2d", H5P_DEFAULT, H5P_DEFAULT);
    closed(file);
    refused("hostile.h5: 'conv2d' is a soft link; refused");
}

/* Replaces the dense layer's bias. */
static void put_bias(hid_t file, hid_t plist, int rank, const hsize_t *dims) {
    H5Ldelete(file, "dense/dense/bias:0", H5P_DEFAULT);
    put_set(file, "dense/dense/bias:0", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, rank, dims, NULL,
            plist);
    H5Pclose(plist);
    closed(file);
}

static void test_storage_elsewhere(void **state) {
    (void)state;
    hid_t file = h5_weights(path), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, "/etc/passwd", 0, 40);
    put_bias(file, plist, 1, DIMS(10));
    refused("hostile.h5: dataset 'dense/dense/bias:0' keeps its numbers in another file, "
            "/etc/passwd; refused");
    file = h5_weights(path);
    plist = H5Pcreate(H5P_DATASET_CREATE);
    const hid_t space = H5Screate_simple(1, DIMS(10), NULL);
    H5Pset_virtual(plist, space, "/etc/passwd", "/x", space);
    H5Sclose(space);
    put_bias(file, plist, 1, DIMS(10));
    refused("hostile.h5: dataset 'dense/dense/bias:0' is virtual, made of other data sets; "
            "refused");
}

/* ---- claims ----------------------------------------------------------------------------- */

static void test_claims(void **state) {
    static const hsize_t huge = (hsize_t)1 << 60;
    (void)state;
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(plist, H5D_CHUNKED);
    H5Pset_chunk(plist, 1, DIMS(16));
    put_bias(h5_weights(path), plist, 1, &huge);
    refused("hostile.h5: dataset 'dense/dense/bias:0' claims 1152921504606846976 numbers; at "
            "most 16777216 can be converted");
    plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 1, DIMS(1));
    put_bias(h5_weights(path), plist, 1, DIMS(1 << 24));
    refused("hostile.h5: dataset 'dense/dense/bias:0' claims 16777216 chunks of 4 bytes");
    plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 1, DIMS(10));
    put_bias(h5_weights(path), plist, 1, DIMS(10));
    refused("hostile.h5 is damaged: dataset 'dense/dense/bias:0' has 0 of 1 chunks");
    plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_LATE);
    put_bias(h5_weights(path), plist, 1, DIMS(10));
    refused("hostile.h5 is damaged: dataset 'dense/dense/bias:0' has 10 numbers in 0 bytes");
    const hid_t file = h5_weights(path), none = H5Screate(H5S_NULL);
    H5Ldelete(file, "dense/dense/bias:0", H5P_DEFAULT);
    const hid_t set = H5Dcreate2(file, "dense/dense/bias:0", H5T_IEEE_F32LE, none, H5P_DEFAULT,
                                 H5P_DEFAULT, H5P_DEFAULT);
    h5_close_all(set, none, -1);
    closed(file);
    refused("hostile.h5: dataset 'dense/dense/bias:0' is empty");
}

static void test_filters(void **state) {
    (void)state;
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 1, DIMS(10));
    H5Pset_nbit(plist);
    put_bias(h5_weights(path), plist, 1, DIMS(10));
    refused("hostile.h5: dataset 'dense/dense/bias:0' is compressed with nbit, which this HDF5 "
            "lacks; run h5repack -f GZIP=4 in out");
}

/* A chunk of 80 KB that inflates to 400 MB. */
static void test_gzip_bomb(void **state) {
    const size_t zeros = 400 << 20, piece = 1 << 20, most = 1 << 20;
    unsigned char *bomb = malloc(most), *block = calloc(1, piece);
    z_stream z = {.next_out = bomb, .avail_out = (uInt)most};
    (void)state;
    deflateInit(&z, 9);
    for (size_t done = 0; done < zeros; done += piece) {
        z.next_in = block;
        z.avail_in = (uInt)piece;
        assert_int_equal(deflate(&z, Z_NO_FLUSH), Z_OK);
    }
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE), file = h5_weights(path);
    H5Pset_chunk(plist, 1, DIMS(20000));
    H5Pset_deflate(plist, 9);
    H5Ldelete(file, "dense/dense/bias:0", H5P_DEFAULT);
    put_set(file, "dense/dense/bias:0", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, DIMS(20000), NULL,
            plist);
    const hid_t set = H5Dopen2(file, "dense/dense/bias:0", H5P_DEFAULT);
    const hsize_t at = 0;
    assert_true(H5Dwrite_chunk(set, H5P_DEFAULT, 0, &at, z.total_out, bomb) >= 0);
    h5_close_all(set, plist, -1);
    closed(file);
    deflateEnd(&z);
    free(bomb);
    free(block);
    if (sanitized) /* it has no limit of memory there */
        return;
    refused("hostile.h5");
}

/* ---- names and cycles ------------------------------------------------------------------- */

static void test_cycles(void **state) {
    (void)state;
    hid_t file = h5_create(path);
    put_group(file, "layers/a");
    H5Lcreate_hard(file, "layers", file, "layers/a/again", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "layers", file, "layers/a/twice", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "layers/a", file, "layers/a/vars", H5P_DEFAULT, H5P_DEFAULT);
    closed(file);
    refused("hostile.h5 is damaged: 'layers/a/vars' holds names that are no numbers");
    file = h5_create(path);
    put_group(file, "layers/a/vars");
    H5Lcreate_hard(file, "layers", file, "layers/a/again", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "layers", file, "layers/a/twice", H5P_DEFAULT, H5P_DEFAULT);
    closed(file);
    refused("hostile.h5: its groups are nested without end, or more than 8192");
    file = h5_create(path);
    H5Lcreate_hard(file, "/", file, "model_weights", H5P_DEFAULT, H5P_DEFAULT);
    put_text(file, "/", "model_config", MODEL);
    put_names(file, "/", "layer_names", NAMES("model_weights"));
    put_names(file, "/", "weight_names", NAMES("model_weights/model_weights/kernel"));
    closed(file);
    refused("hostile.h5: the weights of layer 'conv2d' are missing");
}

static void test_names(void **state) {
    static const struct {
        const char *name, *sentence;
    } cases[] = {
        {"../conv2d", "hostile.h5: the weights of layer '../conv2d' are missing"},
        {"a/../conv2d", "hostile.h5: the weights of layer 'a/../conv2d' are missing"},
        {"./conv2d", "hostile.h5: the weights of layer './conv2d' are missing"},
        {"conv2d/conv2d/kernel:0", "hostile.h5: the weights of layer 'conv2d/conv2d/kernel:0'"},
        {"conv2d/conv2d/kernel:0/x", "hostile.h5: the weights of layer 'conv2d/conv2d/kernel"},
        {"\x1b[2J\n\r\t\x7f", "hostile.h5: the weights of layer '\?[2J\?\?\?\?' are missing"},
        {"", "hostile.h5: '/' has no attribute 'weight_names'"},
        {"/", "hostile.h5: '//' has no attribute 'weight_names'"},
    };
    char longest[5000];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hid_t file = h5_weights(path);
        H5Adelete(file, "layer_names");
        put_names(file, "/", "layer_names", NAMES(cases[i].name));
        closed(file);
        refused(cases[i].sentence);
    }
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    const hid_t file = h5_weights(path);
    H5Adelete(file, "layer_names");
    put_names(file, "/", "layer_names", NAMES(longest));
    closed(file);
    refused("hostile.h5: the weights of layer 'xxxx");
}

/* Fixed-length strings that are not text: zeros within, no end, invalid UTF-8. */
static void test_fixed_names(void **state) {
    static const char names[2][8] = {{'c', 'o', 'n', 'v', '2', 'd', 0, 'x'},
                                     {'\xff', '\xfe', 'y', 'z', 'y', 'z', 'y', 'z'}};
    const hsize_t two = 2;
    const hid_t type = H5Tcopy(H5T_C_S1), file = h5_weights(path);
    (void)state;
    H5Tset_size(type, 8);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Adelete(file, "layer_names");
    put_attribute(file, "/", "layer_names", type, H5Screate_simple(1, &two, NULL), names);
    h5_close_all(type, -1, -1);
    closed(file);
    refused("hostile.h5: the weights of layer '");
}

/* ---- JSON ------------------------------------------------------------------------------- */

static char *repeated(const char *before, const char *part, size_t count, const char *after) {
    const size_t length = strlen(part), size = strlen(before) + count * length + strlen(after);
    char *text = malloc(size + 1), *to = text + sprintf(text, "%s", before);
    for (size_t i = 0; i < count; i++, to += length)
        memcpy(to, part, length);
    strcpy(to, after);
    return text;
}

static void refused_json(char *json, const char *sentence) {
    closed(h5_model(path, json));
    free(json);
    refused(sentence);
}

static void test_json(void **state) {
    static const char NESTED[] = "{\"class_name\": \"Sequential\", \"config\": {\"layers\": [";
    static const char DENSE[] =
        ",{\"class_name\": \"Dropout\", \"config\": {\"name\": \"d\", \"rate\": 0}}";
    (void)state;
    refused_json(repeated("", "[", 100000, ""),
                 "hostile.h5: the architecture is not valid JSON: maximum parsing depth");
    refused_json(repeated("", "{\"a\":", 100000, ""),
                 "hostile.h5: the architecture is not valid JSON: maximum parsing depth");
    refused_json(repeated("", NESTED, 100, ""),
                 "hostile.h5: the architecture is not valid JSON");
    char *open = repeated("", NESTED, 40, ""), *all = repeated(open, "]}}", 40, "");
    free(open);
    refused_json(all, "hostile.h5: the architecture holds 1 layers, 9 models deep");
    refused_json(repeated("[", "[],", 340000, "[]]"),
                 "hostile.h5: the model is of class unknown, of which");
    refused_json(repeated("\"", "x", 2 << 20, "\""),
                 "hostile.h5: the attribute 'model_config' of '/' has more than 1 MB of text");
    refused_json(repeated("{\"class_name\": \"Sequential\", \"config\": [{}", DENSE, 300, "]}"),
                 "hostile.h5: the architecture holds 301 layers");
    refused_json(replaced(MODEL, "\"filters\": 2", "\"filters\": 1e300"),
                 "hostile.h5: the kernel of layer 'conv2d' is 3x3x1x2, its config asks for");
    refused_json(replaced(MODEL, "\"name\": \"conv2d\"", "\"name\": \"conv\\u00002d\""),
                 "hostile.h5: the architecture is not valid JSON: \\u0000 is not allowed");
}

/* ---- zips ------------------------------------------------------------------------------- */

/* Makes a .keras of the golden, with one member replaced. */
static void make_zip(const char *member, zip_source_t *(*bytes)(zip_t *zip)) {
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    static const char *const members[] = {"metadata.json", "config.json", "model.weights.h5"};
    for (int i = 0; i < 3; i++) {
        zip_source_t *source = strcmp(member, members[i])
                                   ? zip_source_buffer(zip, MODEL, strlen(MODEL), 0)
                                   : bytes(zip);
        assert_true(zip_file_add(zip, members[i], source, 0) >= 0);
    }
    assert_int_equal(zip_close(zip), 0);
}

static zip_source_t *much(zip_t *zip) {
    return zip_source_buffer(zip, calloc(1, 200 << 20), 200 << 20, 1);
}

static zip_source_t *some(zip_t *zip) {
    return zip_source_buffer(zip, calloc(1, 1 << 20), 1 << 20, 1);
}

/* Changes the size that the directory announces for a member. */
static void lie(const char *member, uint32_t told) {
    static char zip[1 << 16];
    FILE *file = fopen(path, "r+b");
    const size_t size = fread(zip, 1, sizeof zip, file), length = strlen(member);
    size_t at = size;
    for (size_t i = 0; i + 46 + length < size; i++)
        if (!memcmp(zip + i, "PK\1\2", 4) && !memcmp(zip + i + 46, member, length))
            at = i + 24;
    assert_true(at < size);
    for (int i = 0; i < 4; i++)
        zip[at + (size_t)i] = (char)(told >> 8 * i);
    rewind(file);
    assert_int_equal(fwrite(zip, 1, size, file), size);
    fclose(file);
}

static void test_zips(void **state) {
    (void)state;
    make_zip("config.json", much);
    refused("hostile.h5: member 'config.json' claims 209715200 bytes; at most 1048576 can be "
            "converted");
    make_zip("model.weights.h5", much);
    refused("hostile.h5: member 'model.weights.h5' claims 209715200 bytes");
    make_zip("config.json", some);
    lie("config.json", 100);
    refused("hostile.h5 is damaged: member 'config.json' does not unpack to its 100 bytes");
    make_zip("config.json", some);
    lie("config.json", 0xfffffff0);
    refused("hostile.h5: member 'config.json' claims 4294967280 bytes");
    make_zip("model.weights.h5", some);
    lie("model.weights.h5", 60 << 20);
    refused("hostile.h5 is damaged: member 'model.weights.h5' does not unpack to its 62914560");
}

static void test_pipe(void **state) {
    char kept[256];
    (void)state;
    strcpy(kept, path);
    snprintf(path, sizeof path, "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused("pipe is not a regular file");
    strcpy(path, kept);
}

/* ---- damage anywhere -------------------------------------------------------------------- */

/* What became of a file, told by the process that read it. */
struct outcome {
    int converted;
    uint64_t network, notes;
};

static struct keras_options damage_options;
static struct outcome *outcome; /* shared with that process */

static uint64_t hash(uint64_t h, const void *bytes, size_t size) {
    for (const unsigned char *b = bytes; size--; b++)
        h = (h ^ *b) * 0x100000001b3u;
    return h;
}

static int read_damaged(void *context) {
    static struct keras k;
    struct model m;
    (void)context;
    memset(outcome, 0, sizeof *outcome);
    if (keras_read(&k, &m, path, &damage_options, NULL))
        return 1;
    for (int i = 0; i < m.count; i++) {
        struct layer l = m.layers[i];
        memset(l.name, 0, sizeof l.name);
        outcome->network = hash(outcome->network, l.weight, l.weights * sizeof *l.weight);
        outcome->network = hash(outcome->network, l.bias, l.biases * sizeof *l.bias);
        l.weight = l.bias = NULL;
        outcome->network = hash(outcome->network, &l, sizeof l);
    }
    outcome->network = hash(outcome->network, &m.scale, 2 * sizeof m.scale);
    outcome->notes = hash(1, k.notes, sizeof k.notes);
    outcome->converted = 1;
    keras_free(&k);
    blob_free(&m);
    return 0;
}

static struct outcome try_bytes(const unsigned char *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    outcome->converted = 0;
    const int status = guard_run(read_damaged, NULL, path, NULL);
    assert_true(status == 0 || status == 1 || status == -1);
    const struct outcome crashed = {0};
    return status < 0 ? crashed : *outcome;
}

static size_t read_golden(const char *name, unsigned char *bytes, size_t most) {
    FILE *file = fopen(name, "rb");
    assert_non_null(file);
    const size_t size = fread(bytes, 1, most, file);
    fclose(file);
    outcome = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(size < most && outcome != MAP_FAILED);
    keras_options_init(&damage_options);
    return size;
}

/* Marks the bytes that are numbers of data sets: another number is another network, and nothing
   in the file could tell. */
static void mark_numbers(const char *name, unsigned char *is_number) {
    static const char *const sets[] = {
        "conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight",
        "fc1.bias",     "fc2.weight", "fc2.bias",     "fc3.weight", "fc3.bias"};
    const hid_t file = H5Fopen(name, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const hid_t set = H5Dopen2(file, sets[i], H5P_DEFAULT);
        assert_true(set >= 0);
        memset(is_number + H5Dget_offset(set), 1, H5Dget_storage_size(set));
        h5_close_all(set, -1, -1);
    }
    closed(file);
}

enum { MOST = 1 << 16 };

/* Flips every byte; under sanitizers, which make a process slow to start, every 7th. */
static void flip_bytes(unsigned char *bytes, size_t size, const unsigned char *is_number) {
    const struct outcome whole = try_bytes(bytes, size);
    int refusals = 0;
    assert_true(whole.converted);
    for (size_t i = 0; i < size; i += sanitized ? 7 : 1) {
        if (is_number && is_number[i] && i % 16)
            continue; /* a few of those are enough */
        bytes[i] ^= 0xff;
        const struct outcome now = try_bytes(bytes, size);
        bytes[i] ^= 0xff;
        refusals += !now.converted;
        if (now.converted && now.network != whole.network && now.notes == whole.notes &&
            !(is_number && is_number[i]))
            fail_msg("byte %zu flipped: another network, without a warning", i);
    }
    assert_true(refusals > 100 / (sanitized ? 7 : 1));
}

static void test_flipped_h5(void **state) {
    static const char GOLDEN[] = "tests/golden/keras3_state_dict_k.h5";
    static unsigned char bytes[MOST], is_number[MOST];
    (void)state;
    if (sanitized) {
        print_message("# skip: HDF5 itself errs on damaged files, which sanitizers report\n");
        skip();
    }
    const size_t size = read_golden(GOLDEN, bytes, MOST);
    mark_numbers(GOLDEN, is_number);
    flip_bytes(bytes, size, is_number);
}

/* A zip has a checksum for each member: there, numbers are protected as well. */
static void test_flipped_keras(void **state) {
    static unsigned char bytes[MOST];
    (void)state;
    const size_t size = read_golden("tests/golden/keras3_deflated_g.keras", bytes, MOST);
    flip_bytes(bytes, size, NULL);
}

static void test_prefixes(void **state) {
    static unsigned char bytes[MOST];
    (void)state;
    const size_t size = read_golden("tests/golden/keras3_state_dict_k.h5", bytes, MOST);
    for (size_t length = 0; length < size; length += sanitized ? 211 : 29)
        assert_false(try_bytes(bytes, length).converted);
    const size_t zip = read_golden("tests/golden/keras3_deflated_g.keras", bytes, MOST);
    for (size_t length = 0; length < zip; length += sanitized ? 211 : 29)
        assert_false(try_bytes(bytes, length).converted);
}

/* ---- the guard itself ------------------------------------------------------------------- */

static int crash(void *context) {
    (void)context;
    abort();
}

static int hang(void *context) {
    for (volatile int *turning = context; *turning;)
        ;
    return 0;
}

static int hoard(void *context) {
    (void)context;
    return malloc(300 << 20) ? 0 : 3;
}

static void test_guard(void **state) {
    struct lenet5_error err;
    int one = 1, zero = 0;
    (void)state;
    assert_int_equal(guard_run(hang, &zero, "x", &err), 0);
    assert_int_equal(guard_run(crash, NULL, "x", &err), -1);
    assert_string_equal(err.message, "x is damaged: HDF5 crashed on it (Aborted)");
    assert_int_equal(guard_run(hang, &one, "x", &err), -1);
    assert_string_equal(err.message,
                        "x: still being read after 0.9 s; it is damaged or hostile");
    if (!sanitized)
        assert_int_equal(guard_run(hoard, NULL, "x", &err), 3);
}

static int work_1200_ms(void *context) {
    (void)context;
    while (clock() < (clock_t)(1.2 * CLOCKS_PER_SEC))
        ;
    return 0;
}

/* A folder gets the time that its weights need. */
static void test_guard_of_folder(void **state) {
    char unzipped[100], weights[140];
    struct lenet5_error err;
    (void)state;
    snprintf(unzipped, sizeof unzipped, "%s/unzipped", folder);
    assert_int_equal(mkdir(unzipped, 0700), 0);
    assert_int_equal(guard_run(work_1200_ms, NULL, unzipped, &err), -1);
    snprintf(weights, sizeof weights, "%s/model.weights.h5", unzipped);
    const int file = open(weights, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(file, 64 << 20), 0); /* 4 s more */
    close(file);
    assert_int_equal(guard_run(work_1200_ms, NULL, unzipped, &err), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links),         cmocka_unit_test(test_storage_elsewhere),
        cmocka_unit_test(test_claims),        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_gzip_bomb),     cmocka_unit_test(test_cycles),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_fixed_names),
        cmocka_unit_test(test_json),          cmocka_unit_test(test_zips),
        cmocka_unit_test(test_pipe),          cmocka_unit_test(test_flipped_h5),
        cmocka_unit_test(test_flipped_keras), cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_guard),         cmocka_unit_test(test_guard_of_folder),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
