/* SPDX-License-Identifier: MIT
 *
 * test_blob.c - the weights file: the bytes are those that blob.h documents; what is written is
 * read back equal; every prefix, every changed bit, and every field made wrong under a mended
 * checksum is refused with its own sentence; files are written whole or not at all.
 *
 *     test_blob FOLDER    instead writes there the good blobs that the other tests start from:
 *                         the seeds of the fuzzer (tests/corpus/blob) and those of cli.bats
 */
#include "testing.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- good models ---- */

/* A row with everything; its blob is 1,292 bytes, and the places below are counted on it:
   rows at 384, 544, 704 and 864, conv weights at 1024, its biases at 1088, dense weights at
   1152, its biases at 1280. */
static void make_tiny(struct model *m) {
    struct rng r = {SEED};
    model_start(m, 1, 4, 3);
    add_conv(m, 2, (struct window){2, 2, 1, 1, 0, 0, 0, 1}, ACT_TANH);
    add_pool(m, OP_MAX_POOL, square(2, 1, 0));
    add_dense(m, 3, ACT_RELU);
    add_activation(m, ACT_SOFTMAX);
    model_finish(m, REAL, &r);
    m->offset = -0.125f;
    m->scaling_origin = ORIGIN_FILE;
    m->accuracy = 0.75f;
    strcpy(m->dataset, "mnist");
    strcpy(m->source, "tiny \xc3\xa9.h5");
    memset(m->source_sha256, 'e', 64);
    strcpy(m->source_version, "Keras 2.15.0");
}

/* Nothing trained: no floats at all. */
static void make_pool_only(struct model *m) {
    struct rng r = {SEED};
    model_start(m, 3, 5, 6);
    add_pool(m, OP_AVERAGE_POOL, square(2, 2, 1));
    model_finish(m, REAL, &r);
}

/* Rows without biases, and those ops that tiny lacks. */
static void make_scales(struct model *m) {
    struct rng r = {SEED};
    model_start(m, 3, 6, 5);
    model_add(m, OP_SCALE, 0, NO_WINDOW, ACT_ELU, 1);
    model_add(m, OP_CONV, 2, square(3, 2, 1), ACT_LINEAR, 0);
    add_pool(m, OP_AVERAGE_POOL, square(3, 2, 1));
    model_add(m, OP_SCALE, 0, NO_WINDOW, ACT_GELU, 0);
    model_add(m, OP_DENSE, 2, NO_WINDOW, ACT_LINEAR, 0);
    model_finish(m, REAL, &r);
}

static void make_plain(struct model *m) {
    struct rng r = {SEED};
    make_lenet5(m);
    model_finish(m, REAL, &r);
}

/* Sees a 3 in every picture: the biases decide. */
static void make_three(struct model *m) {
    make_plain(m);
    memset(m->floats, 0, m->float_count * sizeof *m->floats);
    m->floats[m->layers[6].bias - m->floats + 3] = 1;
    strcpy(m->dataset, "mnist");
    strcpy(m->source, "three.h5");
    m->accuracy = 0.1f;
}

static void make_five_classes(struct model *m) {
    struct rng r = {SEED};
    model_start(m, 1, 28, 28);
    add_dense(m, 5, ACT_LINEAR);
    model_finish(m, REAL, &r);
}

static void make_colour(struct model *m) {
    struct rng r = {SEED};
    model_start(m, 3, 32, 32);
    add_dense(m, 10, ACT_LINEAR);
    model_finish(m, REAL, &r);
}

/* The plain network as for 32x32 images: whoever gives it 28x28 with a border of zeros gets the
   same answers. */
static void make_wide(struct model *m) {
    struct rng r = {SEED};
    make_lenet5(m);
    m->input.h = m->input.w = 32;
    m->layers[0].pad_top = m->layers[0].pad_left = 0;
    m->layers[0].pad_bottom = m->layers[0].pad_right = 0;
    model_finish(m, REAL, &r);
}

/* Logits beyond what a float holds: infinities, whose differences are no numbers. */
static void make_overflow(struct model *m) {
    make_plain(m);
    for (size_t k = 0; k < m->layers[6].weights; k++)
        m->floats[m->layers[6].weight - m->floats + (ptrdiff_t)k] = 3e38f;
    for (size_t k = 0; k < m->layers[6].biases; k++)
        m->floats[m->layers[6].bias - m->floats + (ptrdiff_t)k] = 3e38f;
}

/* A name that is not UTF-8, as an old file system may hand it over. */
static void make_latin1(struct model *m) {
    make_tiny(m);
    strcpy(m->source, "caf\xe9.h5");
}

static const struct {
    const char *name;
    void (*make)(struct model *m);
} GOOD[] = {
    {"tiny.bin", make_tiny},         {"pool.bin", make_pool_only}, {"scales.bin", make_scales},
    {"plain.bin", make_plain},       {"three.bin", make_three},    {"colour.bin", make_colour},
    {"five.bin", make_five_classes}, {"latin1.bin", make_latin1},  {"wide.bin", make_wide},
    {"overflow.bin", make_overflow},
};

enum { GOOD_COUNT = sizeof GOOD / sizeof *GOOD };

/* ---- bytes ---- */

/* CRC-32 bit by bit, as the standard defines it: reflected 0x04c11db7. */
static uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t size) {
    crc = ~crc;
    for (size_t k = 0; k < size; k++) {
        crc ^= bytes[k];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static uint32_t crc_of_blob(const uint8_t *bytes, size_t size) {
    static const uint8_t zeros[4];
    uint32_t crc = crc32_of(0, bytes, 12);
    crc = crc32_of(crc, zeros, 4);
    return crc32_of(crc, bytes + 16, size - 16);
}

static void put(uint8_t *at, uint64_t value, int bytes) {
    for (int k = 0; k < bytes; k++)
        at[k] = (uint8_t)(value >> 8 * k);
}

/* Makes size and checksum right again. */
static void mend(uint8_t *bytes, size_t size) {
    put(bytes + 16, size, 8);
    put(bytes + 12, crc_of_blob(bytes, size), 4);
}

struct bytes {
    uint8_t *at; /* owned */
    size_t size;
};

static struct bytes serialized(const struct model *m) {
    struct bytes b = {NULL, 0};
    struct lenet5_error err = {""};
    if (blob_serialize(m, &b.at, &b.size, &err))
        fail_msg("%s", err.message);
    return b;
}

static struct bytes tiny_blob(void) {
    struct model m;
    make_tiny(&m);
    const struct bytes b = serialized(&m);
    blob_free(&m);
    assert_int_equal(b.size, 1292);
    return b;
}

static int is_empty(const struct model *m) {
    static const struct model nothing;
    return !m->floats && !memcmp(m, &nothing, sizeof *m);
}

/* Parses bytes that end at a guard page; a refusal must leave the model empty. */
static int parse(struct model *m, const uint8_t *bytes, size_t size, struct lenet5_error *err) {
    struct guarded g = guarded_new(size);
    if (size)
        memcpy(g.at, bytes, size);
    guarded_read_only(&g);
    memset(m, 0x5a, sizeof *m);
    err->message[0] = '\0';
    const int rc = blob_parse(m, g.at, size, "w", err);
    guarded_free(&g);
    assert_true(rc == 0 || rc == -1);
    assert_true(rc ? is_empty(m) && *err->message : !*err->message);
    return rc;
}

static void refused(const uint8_t *bytes, size_t size, const char *want) {
    struct lenet5_error err;
    struct model m;
    assert_int_equal(parse(&m, bytes, size, &err), -1);
    assert_string_equal(err.message, want);
    assert_int_equal(blob_parse(&m, bytes, size, "w", NULL), -1);
}

/* ---- equality ---- */

static void same_tensor(const float *a, const float *b, size_t count) {
    assert_true(!count == !a && !count == !b);
    if (count) {
        assert_memory_equal(a, b, count * sizeof *a);
        assert_int_equal((uintptr_t)b % BLOB_ALIGN, 0);
    }
}

/* b is what was read where a was written. */
static void same_model(const struct model *a, const struct model *b) {
    assert_memory_equal(&a->input, &b->input, sizeof a->input);
    assert_true(a->scale == b->scale && a->offset == b->offset && a->accuracy == b->accuracy);
    assert_int_equal(a->scaling_origin, b->scaling_origin);
    assert_string_equal(a->dataset, b->dataset);
    assert_string_equal(a->source, b->source);
    assert_string_equal(a->source_sha256, b->source_sha256);
    assert_string_equal(a->source_version, b->source_version);
    assert_int_equal(a->count, b->count);
    for (int k = 0; k < a->count; k++) {
        struct layer x = a->layers[k], y = b->layers[k];
        same_tensor(x.weight, y.weight, x.weights);
        same_tensor(x.bias, y.bias, x.biases);
        assert_true(y.weights == 0 || (y.weight >= b->floats &&
                                       y.weight + y.weights <= b->floats + b->float_count));
        assert_true(y.biases == 0 ||
                    (y.bias >= b->floats && y.bias + y.biases <= b->floats + b->float_count));
        x.weight = y.weight = x.bias = y.bias = NULL;
        assert_memory_equal(&x, &y, sizeof x);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    for (int k = 0; k < GOOD_COUNT; k++) {
        struct lenet5_error err;
        struct model m, back;
        GOOD[k].make(&m);
        const struct bytes b = serialized(&m);
        if (parse(&back, b.at, b.size, &err))
            fail_msg("%s: %s", GOOD[k].name, err.message);
        same_model(&m, &back);
        const struct bytes again = serialized(&back);
        assert_int_equal(again.size, b.size);
        assert_memory_equal(again.at, b.at, b.size);
        free(b.at);
        free(again.at);
        blob_free(&m);
        blob_free(&back);
        assert_true(is_empty(&back));
        blob_free(&back);
    }
    blob_free(NULL);
}

/* The device gets the whole block in one copy, gaps too: they must be zeros, not what malloc
   found. */
static void test_gaps_are_zero(void **state) {
    (void)state;
    const struct bytes b = tiny_blob();
    struct lenet5_error err;
    struct model m;
    assert_int_equal(parse(&m, b.at, b.size, &err), 0);
    assert_int_equal(m.float_count, (1292 - 1024) / 4);
    for (size_t k = 0; k < m.float_count; k++) {
        const size_t at = 1024 + 4 * k;
        if ((at >= 1056 && at < 1088) || (at >= 1096 && at < 1152) || (at >= 1248 && at < 1280))
            assert_true(m.floats[k] == 0);
    }
    blob_free(&m);
    free(b.at);
}

/* ---- the format itself: a blob written down by hand, its checksum from another program ----
 */

static void test_literal_bytes(void **state) {
    (void)state;
    static const struct {
        size_t at;
        const char *hex;
    } literal[] = {
        {0, "894c4e350d0a1a0a"},                   /* magic */
        {8, "01000000"},                           /* version */
        {12, "e5de4f24"},                          /* CRC-32 */
        {16, "8802000000000000"},                  /* 648 bytes */
        {24, "01000000"},                          /* layers */
        {28, "030000000100000002000000"},          /* 3x1x2 */
        {40, "8180803b000000bf"},                  /* 1/255 and -0.5 */
        {48, "02000000"},                          /* set by an option */
        {52, "0000803e"},                          /* 0.25 */
        {64, "6d6e697374"},                        /* mnist */
        {96, "612e6835"},                          /* a.h5 */
        {296, "4b657261732033"},                   /* Keras 3 */
        {384, "6663"},                             /* fc */
        {448, "0400000003000000"},                 /* dense, relu */
        {456, "0000003f00000000ffff7f7f"},         /* 0.5, 0, FLT_MAX */
        {468, "020000000100000001000000"},         /* 2x1x1 */
        {512, "40020000000000000c00000000000000"}, /* 12 weights at 576 */
        {528, "80020000000000000200000000000000"}, /* 2 biases at 640 */
        {576, "0000c03f000000c0000000000000803f00000040000040400000804"
              "00000a0400000c0400000e04000000041cdccccbd"}, /* 1.5 -2 0 1 to 8 -0.1 */
        {640, "cdcccc3d01000000"},                          /* 0.1 and the least number */
    };
    static const float weights[] = {1.5f, -2, 0, 1, 2, 3, 4, 5, 6, 7, 8, -0.1f};
    static const float biases[] = {0.1f, 0x1p-149f};
    uint8_t want[648] = {0};
    struct model m;
    struct rng r = {SEED};
    for (size_t k = 0; k < sizeof literal / sizeof *literal; k++)
        for (size_t j = 0; literal[k].hex[2 * j]; j++) {
            const char two[3] = {literal[k].hex[2 * j], literal[k].hex[2 * j + 1], 0};
            want[literal[k].at + j] = (uint8_t)strtoul(two, NULL, 16);
        }
    for (int k = 0; k < 64; k++)
        want[224 + k] = (uint8_t) "0123456789abcdef"[k % 16];
    model_start(&m, 3, 1, 2);
    strcpy(add_dense(&m, 2, ACT_RELU)->name, "fc");
    memset(m.layers[0].name + 3, 0, sizeof m.layers[0].name - 3);
    m.layers[0].param[0] = 0.5f;
    model_finish(&m, REAL, &r);
    memcpy(m.floats + (m.layers[0].weight - m.floats), weights, sizeof weights);
    memcpy(m.floats + (m.layers[0].bias - m.floats), biases, sizeof biases);
    m.offset = -0.5f;
    m.scaling_origin = ORIGIN_OPTION;
    m.accuracy = 0.25f;
    strcpy(m.dataset, "mnist");
    strcpy(m.source, "a.h5");
    strcpy(m.source_version, "Keras 3");
    for (int k = 0; k < 64; k++)
        m.source_sha256[k] = "0123456789abcdef"[k % 16];
    const struct bytes b = serialized(&m);
    assert_int_equal(b.size, sizeof want);
    assert_memory_equal(b.at, want, sizeof want);
    assert_int_equal(crc_of_blob(b.at, b.size), 0x244fdee5);
    free(b.at);
    blob_free(&m);
}

/* ---- harm: cut, flipped, continued ---- */

static void test_prefixes(void **state) {
    (void)state;
    const struct bytes b = tiny_blob();
    for (size_t size = 0; size < b.size; size++) {
        char want[160];
        if (size < 384)
            snprintf(want, sizeof want,
                     "w: %zu bytes, but a blob's header alone has 384; make it again with make "
                     "convert",
                     size);
        else
            snprintf(want, sizeof want,
                     "w: %zu bytes, its header says 1292; copy or convert it again", size);
        refused(b.at, size, want);
    }
    free(b.at);
}

/* The same with size and checksum made to fit: now the table must notice. */
static void test_mended_prefixes(void **state) {
    (void)state;
    const struct bytes b = tiny_blob();
    for (size_t size = 384; size < b.size; size++) {
        struct lenet5_error err;
        struct model m;
        uint8_t *copy = malloc(size);
        assert_non_null(copy);
        memcpy(copy, b.at, size);
        mend(copy, size);
        assert_int_equal(parse(&m, copy, size, &err), -1);
        free(copy);
    }
    free(b.at);
}

/* Every byte, changed to every other value. */
static void test_flips(void **state) {
    (void)state;
    const struct bytes b = tiny_blob();
    for (size_t at = 0; at < b.size; at++)
        for (int flip = 1; flip < 256; flip++) {
            struct lenet5_error err = {""};
            struct model m;
            b.at[at] ^= (uint8_t)flip;
            if (!blob_parse(&m, b.at, b.size, "w", &err))
                fail_msg("byte %zu changed by %02x: accepted", at, flip);
            assert_true(is_empty(&m) && *err.message);
            b.at[at] ^= (uint8_t)flip;
        }
    free(b.at);
}

static void test_continued(void **state) {
    (void)state;
    struct bytes b = tiny_blob();
    uint8_t *longer = calloc(1, b.size + 64);
    assert_non_null(longer);
    memcpy(longer, b.at, b.size);
    refused(longer, b.size + 1,
            "w: 1293 bytes, its header says 1292; copy or convert it again");
    mend(longer, b.size + 1);
    refused(longer, b.size + 1, "w: 1293 bytes, its layers want 1292");
    mend(longer, b.size + 64);
    refused(longer, b.size + 64, "w: 1356 bytes, its layers want 1292");
    memcpy(longer, b.at, b.size);
    mend(longer, b.size - 4);
    refused(longer, b.size - 4, "w: 1288 bytes, its layers want 1292");
    free(longer);
    free(b.at);
}

static void test_envelope(void **state) {
    (void)state;
    static const uint64_t versions[] = {0, 2, 0xffffffff};
    static const uint64_t sizes[] = {0, 1291, 1293, 1ull << 32, 1ull << 63 | 1292};
    char want[200];
    struct bytes b = tiny_blob();
    for (int k = 0; k < 8; k++) {
        b.at[k] ^= 0x20;
        snprintf(want, sizeof want,
                 "w: begins with %02x %02x %02x %02x %02x %02x %02x %02x, a blob with 89 4c 4e "
                 "35 0d 0a 1a 0a; Keras files are made into blobs by make convert H5=file.h5 "
                 "BLOB=file.bin",
                 b.at[0], b.at[1], b.at[2], b.at[3], b.at[4], b.at[5], b.at[6], b.at[7]);
        refused(b.at, b.size, want);
        b.at[k] ^= 0x20;
    }
    for (int k = 0; k < 3; k++) {
        put(b.at + 8, versions[k], 4);
        mend(b.at, b.size);
        snprintf(want, sizeof want,
                 "w: version %llu, this program reads version 1; convert again",
                 (unsigned long long)versions[k]);
        refused(b.at, b.size, want);
    }
    put(b.at + 8, 1, 4);
    for (int k = 0; k < 5; k++) {
        put(b.at + 16, sizes[k], 8);
        put(b.at + 12, crc_of_blob(b.at, b.size), 4);
        snprintf(want, sizeof want,
                 "w: 1292 bytes, its header says %llu; copy or convert it again",
                 (unsigned long long)sizes[k]);
        refused(b.at, b.size, want);
    }
    mend(b.at, b.size);
    const uint32_t crc = crc_of_blob(b.at, b.size);
    put(b.at + 12, crc ^ 1, 4);
    snprintf(want, sizeof want,
             "w: damaged, its checksum is %08x and its content gives %08x; copy or convert it "
             "again",
             crc ^ 1, crc);
    refused(b.at, b.size, want);
    free(b.at);
}

/* ---- every field made wrong, under a mended checksum ---- */

#define NAN_BITS 0x7fc00000
#define INF_BITS 0x7f800000
#define TEXT     "w: header with a text that has no end, a control character, or stray bytes"
#define CONV     "w: layer 0 'conv_0'"
#define PLACES0  CONV " has %s; its shape wants 8 at 1024 and 2 at 1088"

static const struct {
    size_t at;
    int bytes;
    uint64_t value;
    const char *want;
} WRONG[] = {
    /* header */
    {24, 4, 0, "w: 0 layers, there must be 1 to 64"},
    {24, 4, 65, "w: 65 layers, there must be 1 to 64"},
    {24, 4, 0xffffffff, "w: -1 layers, there must be 1 to 64"},
    {24, 4, 7, "w: 1292 bytes cannot hold 7 layers"},
    {24, 4, 3,
     CONV " has 8 weights at 1024 and 2 biases at 1088; its shape wants 8 at 896 and 2 at 960"},
    {28, 4, 2, "w: input of 2 channels, 4x3; it must have 1 or 3 and at most 64x64"},
    {28, 4, 0x80000001,
     "w: input of -2147483647 channels, 4x3; it must have 1 or 3 and at most 64x64"},
    {28, 4, 3,
     CONV " has 8 weights at 1024 and 2 biases at 1088; its shape wants 24 at 1024 and 2 at "
          "1152"},
    {32, 4, 0, "w: input of 1 channels, 0x3; it must have 1 or 3 and at most 64x64"},
    {36, 4, 65, "w: input of 1 channels, 4x65; it must have 1 or 3 and at most 64x64"},
    {32, 4, 5, CONV " says output 2x3x3, but it is 2x4x3"},
    {40, 4, NAN_BITS, "w: scale or offset of the input is not finite"},
    {40, 4, INF_BITS, "w: scale or offset of the input is not finite"},
    {44, 4, INF_BITS | 1u << 31, "w: scale or offset of the input is not finite"},
    {48, 4, 3, "w: origin of the scale is 3, known are 0 to 2"},
    {48, 4, 0xffffffff, "w: origin of the scale is -1, known are 0 to 2"},
    {52, 4, 0xbf000000, "w: recorded accuracy of -0.5, must be 0 to 1"},
    {52, 4, 0x3fc00000, "w: recorded accuracy of 1.5, must be 0 to 1"},
    {52, 4, NAN_BITS, "w: recorded accuracy of nan, must be 0 to 1"},
    {56, 1, 1, TEXT},
    {63, 1, 0x80, TEXT},
    {360, 1, 1, TEXT},
    {383, 1, 1, TEXT},
    /* a row */
    {448, 4, 0, "w: layer 0: operation number 0; known are 1 to 6"},
    {448, 4, 7, "w: layer 0: operation number 7; known are 1 to 6"},
    {608, 4, 0xffffffff, "w: layer 1: operation number -1; known are 1 to 6"},
    {448, 4, 4, CONV ": a dense has no window, stride or border"},
    {448, 4, 2, "w: layer 0 'conv_0' says output 2x3x3, but it is 1x3x3"},
    {608, 4, 2, NULL}, /* average pooling instead of max is another good blob */
    {452, 4, 14, CONV ": activation number 14; the last known is 13"},
    {452, 4, 0x80000000, CONV ": activation number -2147483648; the last known is 13"},
    {452, 4, 11, CONV ": softmax must be a row of its own"},
    {456, 4, NAN_BITS, CONV ": parameter 0 of its activation is not finite"},
    {460, 4, INF_BITS, CONV ": parameter 1 of its activation is not finite"},
    {464, 4, NAN_BITS, CONV ": parameter 2 of its activation is not finite"},
    {468, 4, 3, "w: layer 1 'max_pool_1' says output 2x2x2, but it is 3x2x2"},
    {468, 4, 0, CONV ": output 0x3x3; at most 65536 channels and 4194304 numbers"},
    {468, 4, 65537, CONV ": output 65537x3x3; at most 65536 channels and 4194304 numbers"},
    {472, 4, 4, CONV " says output 2x4x3, but it is 2x3x3"},
    {476, 4, 0, CONV " says output 2x3x0, but it is 2x3x3"},
    {788, 4, 65536, "w: layer 3 'activation_3' says output 3x1x1, but it is 65536x1x1"},
    {480, 4, 0, CONV ": window 0x2 with stride 1x1; each must be 1 to 64"},
    {480, 4, 3, CONV " says output 2x3x3, but it is 2x2x3"},
    {484, 4, 65, CONV ": window 2x65 with stride 1x1; each must be 1 to 64"},
    {484, 4, 5, CONV ": a window of 2x5 does not fit into a map of 4x3"},
    {488, 4, 0, CONV ": window 2x2 with stride 0x1; each must be 1 to 64"},
    {492, 4, 2, CONV " says output 2x3x3, but it is 2x3x2"},
    {496, 4, 2,
     CONV ": border 2 0 0 1 (top left bottom right); each must be 0 or more and "
          "smaller than the window, which is 2x2"},
    {500, 4, 1, CONV " says output 2x3x3, but it is 2x3x4"},
    {504, 4, 1, CONV " says output 2x3x3, but it is 2x4x3"},
    {508, 4, 0xffffffff,
     CONV ": border 0 0 0 -1 (top left bottom right); each must be 0 or more and smaller than "
          "the window, which is 2x2"},
    {800, 4, 1, "w: layer 2 'dense_2': a dense has no window, stride or border"},
    {988, 4, 1, "w: layer 3 'activation_3': a activation has no window, stride or border"},
    /* where its tensors lie */
    {512, 8, 0,
     CONV " has 8 weights at 0 and 2 biases at 1088; its shape wants 8 at 1024 and "
          "2 at 1088"},
    {512, 8, 1ull << 63,
     CONV " has 8 weights at 9223372036854775808 and 2 biases at 1088; its shape wants 8 at "
          "1024 and 2 at 1088"},
    {520, 8, 9,
     CONV " has 9 weights at 1024 and 2 biases at 1088; its shape wants 8 at 1024 "
          "and 2 at 1088"},
    {520, 8, ~0ull,
     CONV " has 18446744073709551615 weights at 1024 and 2 biases at 1088; its shape wants 8 "
          "at 1024 and 2 at 1088"},
    {528, 8, 1024,
     CONV " has 8 weights at 1024 and 2 biases at 1024; its shape wants 8 at "
          "1024 and 2 at 1088"},
    {536, 8, 0,
     CONV " has 8 weights at 1024 and 0 biases at 1088; its shape wants 8 at 1024 "
          "and 0 at 0"},
    {536, 8, 3,
     CONV " has 8 weights at 1024 and 3 biases at 1088; its shape wants 8 at 1024 "
          "and 2 at 1088"},
    {672, 8, 1024,
     "w: layer 1 'max_pool_1' has 0 weights at 1024 and 0 biases at 0; its shape "
     "wants 0 at 0 and 0 at 0"},
    {696, 8, 5,
     "w: layer 1 'max_pool_1' has 0 weights at 0 and 5 biases at 0; its shape wants "
     "0 at 0 and 0 at 0"},
    {1000, 8, 1,
     "w: layer 3 'activation_3' has 1 weights at 0 and 0 biases at 0; its shape "
     "wants 0 at 0 and 0 at 0"},
    /* floats, and the bytes between them */
    {1036, 4, NAN_BITS, "w: number 3 of 8 in a tensor of layer 'conv_0' is not finite"},
    {1092, 4, INF_BITS, "w: number 1 of 2 in a tensor of layer 'conv_0' is not finite"},
    {1244, 4, 0xffffffff, "w: number 23 of 24 in a tensor of layer 'dense_2' is not finite"},
    {1288, 4, INF_BITS | 1u << 31,
     "w: number 2 of 3 in a tensor of layer 'dense_2' is not finite"},
    {1056, 1, 1, "w: bytes other than zero before a tensor of layer 'conv_0'"},
    {1087, 1, 0x80, "w: bytes other than zero before a tensor of layer 'conv_0'"},
    {1096, 1, 1, "w: bytes other than zero before a tensor of layer 'dense_2'"},
    {1151, 1, 1, "w: bytes other than zero before a tensor of layer 'dense_2'"},
    {1279, 1, 1, "w: bytes other than zero before a tensor of layer 'dense_2'"},
};

static void test_wrong_fields(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof WRONG / sizeof *WRONG; k++) {
        struct bytes b = tiny_blob();
        struct lenet5_error err;
        struct model m;
        put(b.at + WRONG[k].at, WRONG[k].value, WRONG[k].bytes);
        mend(b.at, b.size);
        if (WRONG[k].want) {
            refused(b.at, b.size, WRONG[k].want);
        } else {
            assert_int_equal(parse(&m, b.at, b.size, &err), 0);
            blob_free(&m);
        }
        free(b.at);
    }
}

/* The stray bytes between the table and the first tensor, where the table ends off a multiple
   of 64: one row, so at 544 to 576. */
static void test_gap_behind_table(void **state) {
    (void)state;
    struct model m;
    make_five_classes(&m);
    const struct bytes b = serialized(&m);
    for (size_t at = 544; at < 576; at++) {
        b.at[at] = 1;
        mend(b.at, b.size);
        refused(b.at, b.size, "w: bytes other than zero before a tensor of layer 'dense_0'");
        b.at[at] = 0;
    }
    free(b.at);
    blob_free(&m);
}

/* Each text: without an end, with a control character, with something behind its end. */
static void test_wrong_texts(void **state) {
    (void)state;
    static const struct {
        size_t at, size;
        const char *want;
    } texts[] = {
        {64, 32, TEXT},
        {96, 128, TEXT},
        {224, 72, TEXT},
        {296, 64, TEXT},
        {384, 64, "w: layer 0 has a name without an end or with a control character"},
        {864, 64, "w: layer 3 has a name without an end or with a control character"},
    };
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
        for (int spoil = 0; spoil < 4; spoil++) {
            struct bytes b = tiny_blob();
            uint8_t *text = b.at + texts[k].at;
            if (spoil == 0)
                memset(text, 'a', texts[k].size);
            if (spoil == 1)
                text[1] = '\n';
            if (spoil == 2)
                text[0] = 0x1b;
            if (spoil == 3)
                memcpy(text, "a\0b", 3);
            mend(b.at, b.size);
            refused(b.at, b.size, texts[k].want);
            memset(text, 'a', texts[k].size - 1); /* the longest that is allowed */
            text[texts[k].size - 1] = 0;
            mend(b.at, b.size);
            struct lenet5_error err;
            struct model m;
            assert_int_equal(parse(&m, b.at, b.size, &err), 0);
            blob_free(&m);
            free(b.at);
        }
}

/* A little fuzzing in every run of the tests: bytes of header and table replaced, checksum
   mended. What is still accepted must come out again as it went in. */
static void test_random_harm(void **state) {
    (void)state;
    static const uint8_t likely[] = {0, 1, 2, 3, 4, 64, 127, 128, 255};
    struct rng r = {SEED};
    int accepted = 0;
    struct bytes b = tiny_blob();
    uint8_t *copy = malloc(b.size);
    assert_non_null(copy);
    for (int k = 0; k < 30000; k++) {
        struct lenet5_error err;
        struct model m;
        memcpy(copy, b.at, b.size);
        for (int j = rng_int(&r, 1, 3); j; j--)
            copy[rng_int(&r, 24, 1060)] = likely[rng_int(&r, 0, sizeof likely - 1)];
        mend(copy, b.size);
        if (parse(&m, copy, b.size, &err))
            continue;
        const struct bytes again = serialized(&m);
        assert_int_equal(again.size, b.size);
        assert_memory_equal(again.at, copy, b.size);
        free(again.at);
        blob_free(&m);
        accepted++;
    }
    assert_true(accepted > 30); /* names and weights may be anything */
    free(copy);
    free(b.at);
}

/* ---- files ---- */

static char folder[64];

static const char *in_folder(const char *name) {
    static char ring[4][512];
    static int next;
    next = (next + 1) % 4;
    snprintf(ring[next], sizeof ring[next], "%s/%s", folder, name);
    return ring[next];
}

static void folder_make(void) {
    strcpy(folder, "/tmp/test_blob.XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
}

/* How many entries the folder has. */
static int folder_count(void) {
    int count = -2; /* . and .. */
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void folder_remove(void) {
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));)
        if (unlink(in_folder(entry->d_name)))
            rmdir(in_folder(entry->d_name));
    closedir(dir);
    assert_int_equal(rmdir(folder), 0);
}

static void put_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static int file_holds(const char *path, const void *bytes, size_t size) {
    uint8_t *found = malloc(size + 1);
    FILE *file = fopen(path, "rb");
    const int holds =
        found && file && fread(found, 1, size + 1, file) == size && !memcmp(found, bytes, size);
    if (file)
        fclose(file);
    free(found);
    return holds;
}

static void read_refused(const char *path, const char *want_after_path) {
    struct lenet5_error err = {""};
    struct model m;
    char want[700];
    snprintf(want, sizeof want, "%s: %s", path, want_after_path);
    memset(&m, 0x5a, sizeof m);
    assert_int_equal(blob_read(&m, path, &err), -1);
    assert_true(is_empty(&m));
    assert_string_equal(err.message, want);
}

static void write_refused(const struct model *m, const char *path, const char *want_after) {
    struct lenet5_error err = {""};
    char want[700];
    snprintf(want, sizeof want, "%s: %s", path, want_after);
    assert_int_equal(blob_write(m, path, &err), -1);
    assert_string_equal(err.message, want);
}

static void test_write_and_read(void **state) {
    (void)state;
    const mode_t mask = umask(027);
    folder_make();
    for (int k = 0; k < GOOD_COUNT; k++) {
        struct lenet5_error err = {""};
        struct stat info;
        struct model m, back;
        GOOD[k].make(&m);
        for (int twice = 0; twice < 2; twice++) /* new, and over an older one */
            if (blob_write(&m, in_folder("a.bin"), &err))
                fail_msg("%s", err.message);
        const struct bytes b = serialized(&m);
        assert_true(file_holds(in_folder("a.bin"), b.at, b.size));
        assert_int_equal(stat(in_folder("a.bin"), &info), 0);
        assert_int_equal(info.st_mode & 0777, 0640);
        if (blob_read(&back, in_folder("a.bin"), &err))
            fail_msg("%s", err.message);
        same_model(&m, &back);
        free(b.at);
        blob_free(&m);
        blob_free(&back);
        assert_int_equal(folder_count(), 1);
    }
    assert_int_equal(umask(mask), 027); /* and the mask is as it was */
    folder_remove();
}

/* An older file is replaced by a new one of its name, never written into: whoever has it open,
   or a second name for it, keeps what was in it. */
static void test_replaces(void **state) {
    (void)state;
    struct model m;
    make_tiny(&m);
    const struct bytes b = serialized(&m);
    folder_make();
    put_file(in_folder("a.bin"), "older", 5);
    assert_int_equal(link(in_folder("a.bin"), in_folder("second")), 0);
    assert_int_equal(blob_write(&m, in_folder("a.bin"), NULL), 0);
    assert_true(file_holds(in_folder("a.bin"), b.at, b.size));
    assert_true(file_holds(in_folder("second"), "older", 5));
    assert_int_equal(folder_count(), 2);
    free(b.at);
    blob_free(&m);
    folder_remove();
}

static void test_files_refused(void **state) {
    (void)state;
    const struct bytes b = tiny_blob();
    folder_make();
    read_refused(in_folder("none.bin"),
                 "there is no such file; make convert makes weights/*.bin");
    read_refused(folder, "not a regular file; a blob is made by make convert");
    read_refused("/dev/zero", "not a regular file; a blob is made by make convert");
    put_file(in_folder("empty.bin"), "", 0);
    read_refused(in_folder("empty.bin"), "0 bytes, but a blob's header alone has 384; make it "
                                         "again with make convert");
    put_file(in_folder("cut.bin"), b.at, 1000);
    read_refused(in_folder("cut.bin"),
                 "1000 bytes, its header says 1292; copy or convert it again");
    read_refused(in_folder("cut.bin/below"), "Not a directory");
    assert_int_equal(truncate(in_folder("cut.bin"), 67127681), 0);
    read_refused(in_folder("cut.bin"), "67127681 bytes, no blob has more than 67127680");
    free(b.at);
    folder_remove();
}

/* What could not be read back is not written: no file, or the older one as it was. */
static void test_bad_models_not_written(void **state) {
    (void)state;
    struct model m;
    folder_make();
    put_file(in_folder("old.bin"), "older", 5);
    make_tiny(&m);
    m.floats[m.layers[2].weight - m.floats + 5] = NAN;
    write_refused(&m, in_folder("old.bin"),
                  "number 5 of 24 in a tensor of layer 'dense_2' is not finite");
    write_refused(&m, in_folder("new.bin"),
                  "number 5 of 24 in a tensor of layer 'dense_2' is not finite");
    m.floats[m.layers[2].weight - m.floats + 5] = 0;
    strcpy(m.source, "line\nbreak");
    write_refused(&m, in_folder("old.bin"), &TEXT[3]);
    strcpy(m.source, "x");
    m.accuracy = 2;
    write_refused(&m, in_folder("old.bin"), "recorded accuracy of 2, must be 0 to 1");
    assert_true(file_holds(in_folder("old.bin"), "older", 5));
    assert_int_equal(folder_count(), 1);
    blob_free(&m);
    folder_remove();
}

static void test_bad_targets(void **state) {
    (void)state;
    char long_name[256];
    struct model m;
    make_tiny(&m);
    folder_make();
    write_refused(&m, folder, "is there and no regular file, so it is not replaced");
    write_refused(&m, "/dev/null", "is there and no regular file, so it is not replaced");
    write_refused(&m, in_folder("none/a.bin"),
                  "cannot write beside it: No such file or directory");
    memset(long_name, 'a', 250); /* fits, but the temporary name beside it does not */
    long_name[250] = '\0';
    write_refused(&m, in_folder(long_name), "cannot write beside it: File name too long");
    assert_int_equal(folder_count(), 0);
    blob_free(&m);
    folder_remove();
}

/* Runs a step in a child that is not root, as root may write everywhere. */
static int as_nobody(int (*step)(void)) {
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(99);
        _exit(step());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* 0 if the last sentence is path: end. */
static int told(const struct lenet5_error *err, const char *path, const char *end) {
    char want[700];
    snprintf(want, sizeof want, "%s: %s", path, end);
    return strcmp(err->message, want) != 0;
}

static int write_where_forbidden(void) {
    struct lenet5_error err = {""};
    struct model m;
    make_tiny(&m);
    int bad = !blob_write(&m, in_folder("old.bin"), &err);
    bad |= told(&err, in_folder("old.bin"), "cannot write beside it: Permission denied") << 1;
    bad |= !blob_write(&m, in_folder("new.bin"), &err) << 2;
    bad |= told(&err, in_folder("new.bin"), "cannot write beside it: Permission denied") << 3;
    blob_free(&m);
    return bad;
}

static int read_where_forbidden(void) {
    struct lenet5_error err = {""};
    struct model m;
    const int bad = !blob_read(&m, in_folder("old.bin"), &err);
    return bad | told(&err, in_folder("old.bin"), "Permission denied") << 1;
}

/* No room: the file may not grow beyond 1,000 of its 1,292 bytes. */
static int write_without_room(void) {
    const struct rlimit room = {1000, 1000};
    struct lenet5_error err = {""};
    struct model m;
    make_tiny(&m);
    signal(SIGXFSZ, SIG_IGN);
    int bad = setrlimit(RLIMIT_FSIZE, &room) != 0;
    bad |= !blob_write(&m, in_folder("old.bin"), &err) << 1;
    bad |= told(&err, in_folder("old.bin"), "cannot write: File too large") << 2;
    bad |= !blob_write(&m, in_folder("new.bin"), &err) << 3;
    bad |= told(&err, in_folder("new.bin"), "cannot write: File too large") << 4;
    blob_free(&m);
    return bad;
}

/* A pipe without a writer would be waited for without end. */
static int read_pipe(void) {
    struct lenet5_error err = {""};
    struct model m;
    alarm(5);
    const int bad = !blob_read(&m, in_folder("fifo"), &err);
    return bad |
           told(&err, in_folder("fifo"), "not a regular file; a blob is made by make convert")
               << 1;
}

static void test_pipe(void **state) {
    (void)state;
    folder_make();
    assert_int_equal(mkfifo(in_folder("fifo"), 0644), 0);
    assert_int_equal(chmod(in_folder("fifo"), 0644), 0);
    assert_int_equal(as_nobody(read_pipe), 0);
    folder_remove();
}

static void test_forbidden(void **state) {
    (void)state;
    folder_make();
    put_file(in_folder("old.bin"), "older", 5);
    assert_int_equal(chmod(folder, 0555), 0);
    assert_int_equal(as_nobody(write_where_forbidden), 0);
    assert_int_equal(chmod(in_folder("old.bin"), 0), 0);
    assert_int_equal(as_nobody(read_where_forbidden), 0);
    assert_int_equal(chmod(in_folder("old.bin"), 0644), 0);
    assert_int_equal(chmod(folder, 0777), 0);
    assert_int_equal(as_nobody(write_without_room), 0);
    assert_true(file_holds(in_folder("old.bin"), "older", 5));
    assert_int_equal(folder_count(), 1);
    folder_remove();
}

/* ---- main ---- */

static int write_good_blobs(const char *where) {
    for (int k = 0; k < GOOD_COUNT; k++) {
        struct lenet5_error err;
        struct model m;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", where, GOOD[k].name);
        GOOD[k].make(&m);
        const int rc = blob_write(&m, path, &err);
        blob_free(&m);
        if (rc)
            return fprintf(stderr, "test_blob: %s\n", err.message), 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    static const struct claim claims[] = {
        {"round trip", test_round_trip, ONCE},
        {"gaps are zero", test_gaps_are_zero, ONCE},
        {"literal bytes", test_literal_bytes, ONCE},
        {"every prefix is refused", test_prefixes, ONCE},
        {"every prefix with a mended checksum is refused", test_mended_prefixes, ONCE},
        {"every changed byte is refused", test_flips, ONCE},
        {"continued or cut", test_continued, ONCE},
        {"magic, version, size, checksum", test_envelope, ONCE},
        {"every field made wrong", test_wrong_fields, ONCE},
        {"stray bytes behind the table", test_gap_behind_table, ONCE},
        {"every text made wrong", test_wrong_texts, ONCE},
        {"random harm", test_random_harm, ONCE},
        {"files written and read", test_write_and_read, ONCE},
        {"an older file is replaced, not written into", test_replaces, ONCE},
        {"files refused", test_files_refused, ONCE},
        {"a pipe is refused, not waited for", test_pipe, ONCE},
        {"bad models are not written", test_bad_models_not_written, ONCE},
        {"bad targets", test_bad_targets, ONCE},
        {"forbidden, and no room", test_forbidden, ONCE},
    };
    return argc > 1 ? write_good_blobs(argv[1])
                    : run_claims("blob", claims, sizeof claims / sizeof *claims);
}
