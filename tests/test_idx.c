/* SPDX-License-Identifier: MIT
 *
 * test_idx.c - the reader of data sets believes nothing: each way for a file to be wrong has
 * its own sentence, checked here to the letter; every prefix of a good file is refused; every
 * changed byte is refused or changes exactly that pixel or label; good files in every form
 * give the same bytes. Run from the root of the project, where the sample lies. The official
 * sets are tested too where `make data` has put them.
 */
#define _POSIX_C_SOURCE 200809L

#include "../fashion_mnist/idx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

/* ---- files in memory ---- */

struct bytes {
    uint8_t *data; /* owned, of exactly size bytes, so that sanitizers see every overread */
    size_t size;
};

static struct bytes bytes_new(const void *data, size_t size) {
    struct bytes b = {malloc(size ? size : 1), size};
    assert_non_null(b.data);
    if (size && data)
        memcpy(b.data, data, size);
    return b;
}

static struct bytes text(const char *string) {
    return bytes_new(string, strlen(string));
}

static struct bytes join(struct bytes a, struct bytes b) { /* frees both */
    struct bytes both = bytes_new(NULL, a.size + b.size);
    memcpy(both.data, a.data, a.size);
    memcpy(both.data + a.size, b.data, b.size);
    free(a.data);
    free(b.data);
    return both;
}

/* A header of the numbers given, up to the first -1. */
static struct bytes header(const int64_t *numbers) {
    struct bytes b = bytes_new(NULL, 0);
    for (; *numbers >= 0; numbers++) {
        uint32_t n = (uint32_t)*numbers;
        uint8_t four[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
                           (uint8_t)n};
        b = join(b, bytes_new(four, 4));
    }
    return b;
}
#define HEADER(...) header((const int64_t[]){__VA_ARGS__, -1})

/* Pixels without pattern, fixed; as labels they are taken modulo 10. */
static struct bytes noise(size_t size, int below) {
    struct bytes b = bytes_new(NULL, size);
    uint32_t state = 12345;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        b.data[i] = (uint8_t)((state >> 24) % (unsigned)below);
    }
    return b;
}

static struct bytes images(int count, int height, int width) {
    return join(HEADER(0x803, count, height, width),
                noise((size_t)(count * height * width), 256));
}

static struct bytes labels(int count) {
    return join(HEADER(0x801, count), noise((size_t)count, 10));
}

static struct bytes pack(struct bytes raw) { /* frees raw */
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    struct bytes gz = bytes_new(NULL, deflateBound(&z, raw.size));
    z.next_in = raw.data;
    z.avail_in = (uInt)raw.size;
    z.next_out = gz.data;
    z.avail_out = (uInt)gz.size;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    struct bytes exact = bytes_new(gz.data, gz.size - z.avail_out);
    deflateEnd(&z);
    free(gz.data);
    free(raw.data);
    return exact;
}

static struct bytes part(struct bytes whole, size_t size) { /* frees whole */
    struct bytes b = bytes_new(whole.data, size);
    free(whole.data);
    return b;
}

static struct bytes flip(struct bytes b, size_t at, int mask) {
    b.data[at] = (uint8_t)(b.data[at] ^ mask);
    return b;
}

/* ---- parsing ---- */

/* Demands a refusal with exactly this sentence after the file's name. Frees the file. */
static void refused(enum idx_kind kind, struct bytes file, const char *sentence) {
    struct idx idx;
    struct lenet5_error err = {""};
    char expected[sizeof err.message];
    snprintf(expected, sizeof expected, "f: %s", sentence);
    assert_int_equal(idx_parse(&idx, kind, file.data, file.size, "f", &err), -1);
    assert_string_equal(err.message, expected);
    assert_null(idx.bytes);
    assert_int_equal(idx_parse(&idx, kind, file.data, file.size, "f", NULL), -1);
    free(file.data);
}

static void accepted(struct idx *idx, enum idx_kind kind, struct bytes file) {
    struct lenet5_error err = {""};
    if (idx_parse(idx, kind, file.data, file.size, "f", &err))
        fail_msg("refused: %s", err.message);
}

static void test_good_images(void **state) {
    (void)state;
    struct bytes raw = images(3, 5, 4), gz = pack(images(3, 5, 4));
    struct idx a, b;
    accepted(&a, IDX_IMAGES, raw);
    accepted(&b, IDX_IMAGES, gz);
    assert_int_equal(a.count, 3);
    assert_int_equal(a.channels, 1);
    assert_int_equal(a.height, 5);
    assert_int_equal(a.width, 4);
    assert_memory_equal(a.bytes, raw.data + 16, 60);
    assert_memory_equal(b.bytes, raw.data + 16, 60);
    assert_int_equal(a.crc, crc32(0, raw.data, (uInt)raw.size));
    assert_int_equal(b.crc, a.crc);
    free(a.bytes);
    free(b.bytes);
    free(raw.data);
    free(gz.data);
}

static void test_good_colour(void **state) {
    (void)state;
    struct bytes raw = join(HEADER(0x804, 2, 3, 5, 4), noise(120, 256));
    struct idx idx;
    accepted(&idx, IDX_IMAGES, raw);
    assert_int_equal(idx.count, 2);
    assert_int_equal(idx.channels, 3);
    assert_int_equal(idx.height, 5);
    assert_int_equal(idx.width, 4);
    assert_memory_equal(idx.bytes, raw.data + 20, 120);
    free(idx.bytes);
    free(raw.data);
}

static void test_good_labels(void **state) {
    (void)state;
    struct bytes raw = labels(300), gz = pack(labels(300));
    struct idx a, b;
    accepted(&a, IDX_LABELS, raw);
    accepted(&b, IDX_LABELS, gz);
    assert_int_equal(a.count, 300);
    assert_int_equal(a.channels * a.height * a.width, 1);
    assert_memory_equal(a.bytes, raw.data + 8, 300);
    assert_memory_equal(b.bytes, raw.data + 8, 300);
    assert_int_equal(a.crc, b.crc);
    free(a.bytes);
    free(b.bytes);
    free(raw.data);
    free(gz.data);
}

#define AGAIN "; fetch it again: make data"

static void test_not_idx(void **state) {
    (void)state;
    refused(IDX_IMAGES, text(""), "empty" AGAIN);
    refused(IDX_LABELS, text(""), "empty" AGAIN);
    refused(IDX_IMAGES, text("version https://git-lfs.github.com/spec/v1\noid sha256:8d42\n"),
            "a Git LFS pointer, not the data; run git lfs pull, or make data");
    refused(IDX_IMAGES, text("<!DOCTYPE html><title>403 Forbidden</title>"),
            "a web page, not the data" AGAIN);
    refused(IDX_LABELS, text("\xef\xbb\xbf\r\n  <?xml version=\"1.0\"?><Error>"),
            "a web page, not the data" AGAIN);
    refused(IDX_IMAGES, text("PK\003\004mnist.npz"),
            "begins with 0x504b0304, an IDX file of images with 0x00000803" AGAIN);
    refused(IDX_LABELS, HEADER(0x01080000, 3),
            "begins with 0x01080000, an IDX file of labels with 0x00000801" AGAIN);
    refused(IDX_IMAGES, HEADER(0xd03, 1, 4, 4), /* numbers are float */
            "begins with 0x00000d03, an IDX file of images with 0x00000803" AGAIN);
    refused(IDX_IMAGES, HEADER(0x802, 1, 4),
            "begins with 0x00000802, an IDX file of images with 0x00000803" AGAIN);
    refused(IDX_IMAGES, pack(text("<html>")),
            "begins with 0x3c68746d, an IDX file of images with 0x00000803" AGAIN);
}

static void test_swapped(void **state) {
    (void)state;
    const char *of_images = "holds images, expected labels; are the two files swapped?";
    refused(IDX_LABELS, images(3, 5, 4), of_images);
    refused(IDX_LABELS, pack(images(3, 5, 4)), of_images);
    refused(IDX_LABELS, HEADER(0x804), of_images);
    refused(IDX_IMAGES, labels(3), "holds labels, expected images; are the two files swapped?");
}

static void test_short_header(void **state) {
    (void)state;
    refused(IDX_IMAGES, text("abc"), "3 bytes, the header alone has 16" AGAIN);
    refused(IDX_LABELS, text("abc"), "3 bytes, the header alone has 8" AGAIN);
    refused(IDX_LABELS, HEADER(0x801), "4 bytes, the header alone has 8" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 1, 4), "12 bytes, the header alone has 16" AGAIN);
    refused(IDX_IMAGES, HEADER(0x804, 1, 1, 4), "16 bytes, the header alone has 20" AGAIN);
    refused(IDX_IMAGES, pack(HEADER(0x803, 1, 4)), "12 bytes, the header alone has 16" AGAIN);
    refused(IDX_IMAGES, pack(text("")), "0 bytes, the header alone has 16" AGAIN);
}

static void test_numbers(void **state) {
    (void)state;
    refused(IDX_LABELS, HEADER(0x801, 0),
            "the header says 0 labels, expected 1 to 1000000" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 0, 28, 28),
            "the header says 0 images, expected 1 to 1000000" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 1000001, 28, 28),
            "the header says 1000001 images, expected 1 to 1000000" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 0xffffffff, 0xffffffff, 0xffffffff),
            "the header says 4294967295 images, expected 1 to 1000000" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 1, 0, 28),
            "the header says images of 0 x 28, expected 1 x 1 to 64 x 64" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 1, 65, 28),
            "the header says images of 65 x 28, expected 1 x 1 to 64 x 64" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 1, 28, 0),
            "the header says images of 28 x 0, expected 1 x 1 to 64 x 64" AGAIN);
    refused(IDX_IMAGES, HEADER(0x803, 1, 28, 65),
            "the header says images of 28 x 65, expected 1 x 1 to 64 x 64" AGAIN);
    refused(IDX_IMAGES, HEADER(0x804, 1, 2, 28, 28),
            "the header says 2 channels, expected 1 or 3" AGAIN);
    refused(IDX_IMAGES, HEADER(0x804, 1, 0xffffffff, 28, 28),
            "the header says 4294967295 channels, expected 1 or 3" AGAIN);
}

/* Headers that claim much in a file of 16 to 60 bytes. Nothing may be allocated for them; the
   sentences are those of the checks before the allocation. */
static void test_claims(void **state) {
    (void)state;
    struct bytes small = pack(HEADER(0x803, 1000000, 28, 28));
    char sentence[128];
    snprintf(sentence, sizeof sentence,
             "%zu bytes cannot unpack to the 784000016 of its header" AGAIN, small.size);
    refused(IDX_IMAGES, small, sentence);
    refused(IDX_IMAGES, join(HEADER(0x803, 1000000, 64, 64), text("four")), /* 4 GB */
            "its header says 4096000016 bytes, expected at most 1073741824" AGAIN);
    refused(IDX_IMAGES, pack(HEADER(0x804, 1000000, 3, 64, 64)), /* 12 GB */
            "its header says 12288000020 bytes, expected at most 1073741824" AGAIN);
    refused(IDX_IMAGES, join(HEADER(0x803, 1000000, 28, 28), text("four")),
            "20 bytes, its header says 784000016" AGAIN);
    refused(IDX_LABELS, HEADER(0x801, 1000000), "8 bytes, its header says 1000008" AGAIN);
}

static void test_size(void **state) {
    (void)state;
    refused(IDX_IMAGES, part(images(3, 5, 4), 75), "75 bytes, its header says 76" AGAIN);
    refused(IDX_IMAGES, join(images(3, 5, 4), text("x")), "77 bytes, its header says 76" AGAIN);
    refused(IDX_LABELS, join(labels(3), text("\n")), "12 bytes, its header says 11" AGAIN);
    refused(IDX_IMAGES, pack(part(images(3, 5, 4), 56)),
            "unpacks to 56 bytes, its header says 76" AGAIN);
    refused(IDX_IMAGES, pack(join(images(3, 5, 4), text("x"))),
            "unpacks to more than the 76 bytes that its header says" AGAIN);
    refused(IDX_LABELS, pack(join(labels(3), text("12"))),
            "unpacks to more than the 11 bytes that its header says" AGAIN);
}

static void test_bomb(void **state) {
    (void)state;
    struct bytes zeros = bytes_new(NULL, 64 << 20);
    memset(zeros.data, 0, zeros.size);
    struct bytes bomb = pack(join(HEADER(0x803, 1, 4, 4), zeros));
    assert_true(bomb.size < 100000);
    refused(IDX_IMAGES, bomb, "unpacks to more than the 32 bytes that its header says" AGAIN);
}

static void test_gzip(void **state) {
    (void)state;
    struct bytes good = pack(images(3, 5, 4));
    size_t size = good.size;
    char sentence[128];
    free(good.data);
    snprintf(sentence, sizeof sentence, "the gzip stream is cut short after %zu bytes" AGAIN,
             size - 1);
    refused(IDX_IMAGES, part(pack(images(3, 5, 4)), size - 1), sentence);
    refused(IDX_IMAGES, part(pack(images(3, 5, 4)), 10),
            "the gzip stream is cut short after 10 bytes" AGAIN);
    refused(IDX_IMAGES, flip(pack(images(3, 5, 4)), size - 8, 1),
            "damaged gzip stream (incorrect data check)" AGAIN);
    refused(IDX_IMAGES, flip(pack(images(3, 5, 4)), size - 4, 1),
            "damaged gzip stream (incorrect length check)" AGAIN);
    refused(IDX_IMAGES, flip(pack(images(3, 5, 4)), 2, 1),
            "damaged gzip stream (unknown compression method)" AGAIN);
    refused(IDX_IMAGES, join(pack(images(3, 5, 4)), text("junk")),
            "4 bytes after the end of the gzip stream" AGAIN);
    struct bytes more = pack(text("more"));
    snprintf(sentence, sizeof sentence, "%zu bytes after the end of the gzip stream" AGAIN,
             more.size);
    refused(IDX_IMAGES, join(pack(images(3, 5, 4)), more), sentence);
}

static void test_label_value(void **state) {
    (void)state;
    struct bytes b = labels(3);
    b.data[8 + 2] = 10;
    refused(IDX_LABELS, b, "label 10 of image 2, expected 0 to 9" AGAIN);
    b = labels(3);
    b.data[8] = 255;
    refused(IDX_LABELS, pack(b), "label 255 of image 0, expected 0 to 9" AGAIN);
}

/* Every prefix, in a buffer of its own, with a sentence about the file. */
static void prefixes(enum idx_kind kind, struct bytes good) {
    for (size_t size = 0; size < good.size; size++) {
        struct bytes cut = bytes_new(good.data, size);
        struct idx idx;
        struct lenet5_error err = {""};
        assert_int_equal(idx_parse(&idx, kind, cut.data, cut.size, "f", &err), -1);
        assert_memory_equal(err.message, "f: ", 3);
        assert_null(idx.bytes);
        free(cut.data);
    }
    free(good.data);
}

static void test_prefixes(void **state) {
    (void)state;
    prefixes(IDX_IMAGES, images(3, 5, 4));
    prefixes(IDX_LABELS, labels(50));
    prefixes(IDX_IMAGES, join(HEADER(0x804, 2, 3, 5, 4), noise(120, 256)));
    prefixes(IDX_IMAGES, pack(images(3, 5, 4)));
    prefixes(IDX_LABELS, pack(labels(50)));
}

/* Whether a file with one byte changed may be accepted, and with which content. Raw: only a
   change of payload, which starts at head, and it must show. Packed (head is 0): only where
   gzip's own header says nothing, as its date; then the content is the same. */
static void flips(enum idx_kind kind, struct bytes file, struct bytes raw, size_t head) {
    size_t content = raw.size - (kind == IDX_LABELS ? 8 : 16), accepted_count = 0;
    const uint8_t *payload = raw.data + raw.size - content;
    for (size_t at = 0; at < file.size; at++)
        for (int mask = 1; mask < 256; mask++) {
            struct idx idx;
            flip(file, at, mask);
            int bad = idx_parse(&idx, kind, file.data, file.size, "f", NULL);
            int inside = head && at >= head;
            if (inside)
                assert_int_equal(bad != 0, kind == IDX_LABELS && file.data[at] > 9);
            else if (head)
                assert_int_equal(bad, -1);
            if (!bad) {
                accepted_count++;
                if (inside)
                    idx.bytes[at - head] = (uint8_t)(idx.bytes[at - head] ^ mask);
                assert_memory_equal(idx.bytes, payload, content);
                free(idx.bytes);
            }
            flip(file, at, mask);
        }
    assert_true(head || accepted_count >= 6 * 255); /* date, system, level: 6 free bytes */
    free(file.data);
    free(raw.data);
}

static void test_flips(void **state) {
    (void)state;
    flips(IDX_IMAGES, images(3, 5, 4), images(3, 5, 4), 16);
    flips(IDX_LABELS, labels(50), labels(50), 8);
    flips(IDX_IMAGES, pack(images(3, 5, 4)), images(3, 5, 4), 0);
    flips(IDX_LABELS, pack(labels(50)), labels(50), 0);
}

/* ---- files and folders ---- */

struct place {
    char folder[32];
    char *path[8]; /* owned: of the files put there */
    int paths;
};

static int place_make(void **state) {
    struct place *place = calloc(1, sizeof *place);
    if (!place)
        return -1;
    snprintf(place->folder, sizeof place->folder, "%s", "/tmp/test_idx.XXXXXX");
    *state = place;
    return mkdtemp(place->folder) ? 0 : -1;
}

static void place_empty(struct place *place) {
    while (place->paths > 0) {
        remove(place->path[--place->paths]);
        free(place->path[place->paths]);
    }
}

static int place_remove(void **state) {
    struct place *place = *state;
    place_empty(place);
    int bad = rmdir(place->folder);
    free(place);
    return bad;
}

/* Its path; file is freed; one without data becomes a folder. */
static const char *put(struct place *place, const char *name, struct bytes file) {
    assert_true(place->paths < 8);
    size_t room = sizeof place->folder + strlen(name) + 1;
    char *path = place->path[place->paths++] = malloc(room);
    assert_non_null(path);
    snprintf(path, room, "%s/%s", place->folder, name);
    if (!file.data) {
        assert_int_equal(mkdir(path, 0700), 0);
        return path;
    }
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(file.data, 1, file.size, out), file.size);
    assert_int_equal(fclose(out), 0);
    free(file.data);
    return path;
}

/* A sentence as the one who reads it sees it: the name of a file, then what is wrong with it.
 */
static const char *sentence(const char *path, const char *what) {
    static char buffer[512];
    snprintf(buffer, sizeof buffer, "%s: %s", path, what);
    return buffer;
}

static void demand_empty(struct dataset *set) {
    assert_null(set->images);
    assert_null(set->labels);
    assert_int_equal(set->count, 0);
    dataset_close(set);
}

static void pair_refused(const char *images_path, const char *labels_path,
                         const char *expected) {
    struct dataset set;
    struct lenet5_error err = {""};
    assert_int_equal(dataset_open_files(&set, images_path, labels_path, &err), -1);
    assert_string_equal(err.message, expected);
    demand_empty(&set);
    assert_int_equal(dataset_open_files(&set, images_path, labels_path, NULL), -1);
}

static void folder_refused(const char *folder, const char *expected) {
    struct dataset set;
    struct lenet5_error err = {""};
    assert_int_equal(dataset_open(&set, folder, &err), -1);
    assert_string_equal(err.message, expected);
    demand_empty(&set);
    assert_int_equal(dataset_open(&set, folder, NULL), -1);
}

static void test_files(void **state) {
    struct place *place = *state;
    const char *of_images = put(place, "i", images(3, 5, 4));
    const char *of_labels = put(place, "l", pack(labels(3)));
    struct dataset set;
    struct lenet5_error err = {""};
    assert_int_equal(dataset_open_files(&set, of_images, of_labels, &err), 0);
    assert_string_equal(set.name, "unknown");
    assert_int_equal(set.train, 0);
    assert_int_equal(set.count, 3);
    assert_int_equal(set.channels, 1);
    assert_int_equal(set.height, 5);
    assert_int_equal(set.width, 4);
    assert_string_equal(set.class_names[9], "9");
    struct bytes pixels = images(3, 5, 4), classes = labels(3);
    assert_memory_equal(set.images, pixels.data + 16, 60);
    assert_memory_equal(set.labels, classes.data + 8, 3);
    free(pixels.data);
    free(classes.data);
    dataset_close(&set);
    demand_empty(&set);
    dataset_close(NULL);
}

static void test_files_refused(void **state) {
    struct place *place = *state;
    const char *three = put(place, "i", images(3, 5, 4));
    const char *labels3 = put(place, "l", labels(3)), *labels4 = put(place, "m", labels(4));
    const char *bad = put(place, "bad", join(HEADER(0x801, 3), text("\001\002\012")));
    const char *folder = put(place, "folder", (struct bytes){NULL, 0});
    char expected[512];
    pair_refused(labels3, three,
                 sentence(labels3, "holds labels, expected images; "
                                   "are the two files swapped?"));
    pair_refused(three, three,
                 sentence(three, "holds images, expected labels; "
                                 "are the two files swapped?"));
    pair_refused(three, bad, sentence(bad, "label 10 of image 2, expected 0 to 9" AGAIN));
    snprintf(expected, sizeof expected,
             "images: 3, labels: 4, expected as many; %s and %s are not a pair", three,
             labels4);
    pair_refused(three, labels4, expected);
    pair_refused("/nowhere/i", labels3, "/nowhere/i: No such file or directory; run make data");
    pair_refused(three, "/nowhere/l", "/nowhere/l: No such file or directory; run make data");
    pair_refused(folder, labels3, sentence(folder, "a folder, expected an IDX file"));
    pair_refused("/dev/zero", labels3, "/dev/zero: a pipe or a device, expected an IDX file");
    const char *empty = put(place, "empty", text(""));
    pair_refused(empty, labels3, sentence(empty, "empty" AGAIN));
    if (geteuid() == 0)
        return; /* root may read everything */
    assert_int_equal(chmod(three, 0), 0);
    pair_refused(three, labels3, sentence(three, "Permission denied"));
}

/* A file of 1 GiB and a byte, all hole, is refused by its size, unread. */
static void test_file_too_large(void **state) {
    struct place *place = *state;
    const char *path = put(place, "hole", text(""));
    assert_int_equal(truncate(path, (1 << 30) + 1L), 0);
    pair_refused(path, path, sentence(path, "1073741825 bytes, expected at most 1073741824"));
}

static void test_folder_spellings(void **state) {
    static const char *const forms[4][2] = {
        {"t10k-images-idx3-ubyte", "t10k-labels.idx1-ubyte.gz"},
        {"t10k-images.idx3-ubyte", "t10k-labels-idx1-ubyte.gz"},
        {"t10k-images-idx3-ubyte.gz", "t10k-labels.idx1-ubyte"},
        {"t10k-images.idx3-ubyte.gz", "t10k-labels-idx1-ubyte"}};
    struct place *place = *state;
    for (int form = 0; form < 4; form++) {
        int packed = strstr(forms[form][0], ".gz") != NULL;
        struct bytes i = images(7, 5, 4), l = labels(7);
        put(place, forms[form][0], packed ? pack(i) : i);
        put(place, forms[form][1], packed ? l : pack(l));
        struct dataset set;
        struct lenet5_error err = {""};
        if (dataset_open(&set, place->folder, &err))
            fail_msg("%s", err.message);
        assert_int_equal(set.count, 7);
        dataset_close(&set);
        place_empty(place);
    }
}

/* A folder with the name of the file, as some archives unpack, does not hide the file. */
static void test_folder_in_the_way(void **state) {
    struct place *place = *state;
    put(place, "t10k-images-idx3-ubyte", (struct bytes){NULL, 0});
    put(place, "t10k-images.idx3-ubyte", images(2, 5, 4));
    put(place, "t10k-labels-idx1-ubyte", labels(2));
    struct dataset set;
    assert_int_equal(dataset_open(&set, place->folder, NULL), 0);
    dataset_close(&set);
}

static void test_folder_refused(void **state) {
    struct place *place = *state;
    const char *help = "in this folder; run make data, or use fashion_mnist/sample";
    char what[128], name[5000];
    folder_refused("/nowhere", "/nowhere: No such file or directory; run make data, or use "
                               "fashion_mnist/sample");
    snprintf(what, sizeof what, "no t10k-images-idx3-ubyte or .gz %s", help);
    folder_refused(place->folder, sentence(place->folder, what));
    const char *file = put(place, "t10k-images-idx3-ubyte", images(2, 5, 4));
    snprintf(what, sizeof what, "no t10k-labels-idx1-ubyte or .gz %s", help);
    folder_refused(place->folder, sentence(place->folder, what));
    folder_refused(file,
                   sentence(file, "a file, expected a folder with t10k-images-idx3-ubyte.gz"));
    for (size_t i = 0; i < sizeof name; i++) /* /./././ is a folder whose name is too long */
        name[i] = i % 2 ? '.' : '/';
    name[4090] = 0;
    folder_refused(name, "/./././././././././././././././././././././././././././././././....: "
                         "a path of 4113 bytes, expected fewer than 4096");
}

/* ---- the sets themselves ---- */

static void test_sample(void **state) {
    (void)state;
    struct dataset set;
    struct lenet5_error err = {""};
    int seen[DATASET_CLASSES] = {0};
    if (dataset_open(&set, "fashion_mnist/sample", &err))
        fail_msg("%s", err.message);
    assert_string_equal(set.name, "sample");
    assert_int_equal(set.train, 0);
    assert_int_equal(set.count, 1000);
    assert_int_equal(set.height, 28);
    assert_int_equal(set.width, 28);
    for (size_t i = 0; i < set.count; i++)
        seen[set.labels[i]]++;
    for (int k = 0; k < DATASET_CLASSES; k++)
        assert_int_equal(seen[k], 100);
    assert_string_equal(set.class_names[7], "7");
    dataset_close(&set);
}

#define DATA "fashion_mnist/data/"

static void demand_set(const char *images_path, const char *labels_path, const char *name,
                       int train, const char *last_class) {
    struct dataset set;
    struct lenet5_error err = {""};
    if (dataset_open_files(&set, images_path, labels_path, &err))
        fail_msg("%s", err.message);
    assert_string_equal(set.name, name);
    assert_int_equal(set.train, train);
    assert_int_equal(set.count, train ? 60000 : 10000);
    assert_string_equal(set.class_names[9], last_class);
    dataset_close(&set);
}

static void test_official_sets(void **state) {
    (void)state;
    if (access(DATA "fashion_mnist/train-labels-idx1-ubyte.gz", R_OK)) {
        print_message("# skip: the data sets are not here\n");
        skip();
    }
    demand_set(DATA "mnist/t10k-images-idx3-ubyte.gz", DATA "mnist/t10k-labels-idx1-ubyte.gz",
               "mnist", 0, "9");
    demand_set(DATA "mnist/train-images-idx3-ubyte.gz", DATA "mnist/train-labels-idx1-ubyte.gz",
               "mnist", 1, "9");
    demand_set(DATA "fashion_mnist/t10k-images-idx3-ubyte.gz",
               DATA "fashion_mnist/t10k-labels-idx1-ubyte.gz", "fashion_mnist", 0,
               "Ankle boot");
    demand_set(DATA "fashion_mnist/train-images-idx3-ubyte.gz",
               DATA "fashion_mnist/train-labels-idx1-ubyte.gz", "fashion_mnist", 1,
               "Ankle boot");
    pair_refused(
        DATA "mnist/t10k-images-idx3-ubyte.gz", DATA "fashion_mnist/t10k-labels-idx1-ubyte.gz",
        "the images are those of mnist, the labels those of fashion_mnist; give one pair");
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_make, place_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_images),
        cmocka_unit_test(test_good_colour),
        cmocka_unit_test(test_good_labels),
        cmocka_unit_test(test_not_idx),
        cmocka_unit_test(test_swapped),
        cmocka_unit_test(test_short_header),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_label_value),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_flips),
        IN_A_FOLDER(test_files),
        IN_A_FOLDER(test_files_refused),
        IN_A_FOLDER(test_file_too_large),
        IN_A_FOLDER(test_folder_spellings),
        IN_A_FOLDER(test_folder_in_the_way),
        IN_A_FOLDER(test_folder_refused),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_official_sets),
    };
    return cmocka_run_group_tests_name("idx", tests, NULL, NULL);
}
