/* SPDX-License-Identifier: MIT
 *
 * idx.c - reads IDX files; see idx.h. Bottom up: a source of unpacked bytes over a file in
 * memory, the header, one file, the pair, the folder.
 *
 * A header is a claim. Nothing is allocated for it until it has passed the caps below and the
 * file has been seen to be able to hold it: a raw file has its exact size, and deflate makes
 * at most 1,032 bytes of one (258 of two bits). A .gz is unpacked in one pass, into its final
 * place and one byte further, so that content beyond the claim is noticed and never stored.
 */
#define _POSIX_C_SOURCE 200809L

#include "idx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define AGAIN "fetch it again: make data" /* what helps when a file is damaged */

enum {
    COUNT_MAX = 1000000,     /* images or labels */
    SIDE_MAX = 64,           /* rows or columns of an image */
    CONTENT_MAX = 1 << 30,   /* bytes of a file, packed or not; fits the 32 bits of zlib */
    DEFLATE_RATIO_MAX = 1032 /* bytes that one byte of a deflate stream can become */
};

/* ---- a source of unpacked bytes: a file in memory, read once from front to back ---- */

struct source {
    const char *path;
    const uint8_t *file; /* as stored, size bytes */
    size_t size, taken;  /* taken: unpacked bytes delivered so far */
    int packed;          /* gzip */
    z_stream z;          /* valid if packed */
};

static int source_open(struct source *s, const uint8_t *file, size_t size, const char *path,
                       struct lenet5_error *err) {
    memset(s, 0, sizeof *s);
    s->path = path;
    s->file = file;
    s->size = size;
    if (size > CONTENT_MAX)
        return fail(err, "%s: %zu bytes, expected at most %d", path, size, CONTENT_MAX);
    s->packed = size >= 2 && file[0] == 0x1f && file[1] == 0x8b;
    if (!s->packed)
        return 0;
    s->z.next_in = (Bytef *)file; /* zlib reads only; its field lacks the const */
    s->z.avail_in = (uInt)size;
    if (inflateInit2(&s->z, 16 + MAX_WBITS) != Z_OK) { /* 16: gzip, and check its CRC */
        s->packed = 0;
        return fail(err, "%s: no memory to unpack it", path);
    }
    return 0;
}

static void source_close(struct source *s) {
    if (s->packed)
        inflateEnd(&s->z);
}

/* Delivers the next bytes: n of them, or fewer (*got) where the content ends. */
static int source_take(struct source *s, uint8_t *out, size_t n, size_t *got,
                       struct lenet5_error *err) {
    if (!s->packed) {
        *got = n < s->size - s->taken ? n : s->size - s->taken;
        if (*got)
            memcpy(out, s->file + s->taken, *got);
        s->taken += *got;
        return 0;
    }
    s->z.next_out = out;
    s->z.avail_out = (uInt)n;
    int status = inflate(&s->z, Z_NO_FLUSH); /* all input is there: one call does all it can */
    *got = n - s->z.avail_out;
    s->taken += *got;
    if (*got == n || status == Z_STREAM_END) /* its end: complete, and the checksum is good */
        return 0;
    if (status == Z_MEM_ERROR)
        return fail(err, "%s: no memory to unpack it", s->path);
    if (status == Z_OK || status == Z_BUF_ERROR)
        return fail(err, "%s: the gzip stream is cut short after %zu bytes; " AGAIN, s->path,
                    s->size);
    return fail(err, "%s: damaged gzip stream (%s); " AGAIN, s->path,
                s->z.msg ? s->z.msg : "no reason given");
}

/* Demands that the content ends here and that nothing follows a gzip stream. */
static int source_finish(struct source *s, struct lenet5_error *err) {
    uint8_t beyond;
    size_t got, told = s->taken;
    if (!s->packed)
        return 0; /* its exact size was demanded already */
    if (source_take(s, &beyond, 1, &got, err))
        return -1;
    if (got)
        return fail(err, "%s: unpacks to more than the %zu bytes that its header says; " AGAIN,
                    s->path, told);
    if (s->z.avail_in)
        return fail(err, "%s: %u bytes after the end of the gzip stream; " AGAIN, s->path,
                    s->z.avail_in);
    return 0;
}

/* CRC-32 of the whole content. That of a gzip stream is at hand: zlib has just checked it. */
static uint32_t source_crc(const struct source *s) {
    return (uint32_t)(s->packed ? s->z.adler : crc32(0, s->file, (uInt)s->size));
}

/* ---- the header ---- */

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static const char *kind_name(enum idx_kind kind) {
    return kind == IDX_LABELS ? "labels" : "images";
}

/* What downloads leave under the right name: nothing, a pointer, a page. */
static int check_not_text(const uint8_t *file, size_t size, const char *path,
                          struct lenet5_error *err) {
    static const char pointer[] = "version https://git-lfs";
    if (size == 0)
        return fail(err, "%s: empty; " AGAIN, path);
    if (size >= sizeof pointer - 1 && !memcmp(file, pointer, sizeof pointer - 1))
        return fail(err, "%s: a Git LFS pointer, not the data; run git lfs pull, or make data",
                    path);
    size_t i = size >= 3 && !memcmp(file, "\xef\xbb\xbf", 3) ? 3 : 0; /* byte order mark */
    while (i < size && (file[i] == ' ' || (file[i] >= '\t' && file[i] <= '\r')))
        i++;
    if (i < size && file[i] == '<')
        return fail(err, "%s: a web page, not the data; " AGAIN, path);
    return 0;
}

static int check_magic(enum idx_kind kind, uint32_t magic, const char *path,
                       struct lenet5_error *err) {
    int labels = magic == 0x801, images = magic == 0x803 || magic == 0x804;
    if (kind == IDX_LABELS ? labels : images)
        return 0;
    if (labels || images)
        return fail(err, "%s: holds %s, expected %s; are the two files swapped?", path,
                    kind_name(labels ? IDX_LABELS : IDX_IMAGES), kind_name(kind));
    return fail(err, "%s: begins with 0x%08x, an IDX file of %s with 0x%08x; " AGAIN, path,
                magic, kind_name(kind), kind == IDX_LABELS ? 0x801u : 0x803u);
}

/* n: count, channels, height, width. */
static int check_numbers(const uint32_t n[4], enum idx_kind kind, const char *path,
                         struct lenet5_error *err) {
    if (n[0] < 1 || n[0] > COUNT_MAX)
        return fail(err, "%s: the header says %u %s, expected 1 to %d; " AGAIN, path, n[0],
                    kind_name(kind), COUNT_MAX);
    if (n[1] != 1 && n[1] != 3)
        return fail(err, "%s: the header says %u channels, expected 1 or 3; " AGAIN, path,
                    n[1]);
    if (n[2] < 1 || n[2] > SIDE_MAX || n[3] < 1 || n[3] > SIDE_MAX)
        return fail(err,
                    "%s: the header says images of %u x %u, expected 1 x 1 to %d x %d; " AGAIN,
                    path, n[2], n[3], SIDE_MAX, SIDE_MAX);
    return 0;
}

static int read_header(struct idx *idx, enum idx_kind kind, struct source *s,
                       struct lenet5_error *err) {
    uint8_t head[16];
    size_t got, sizes = kind == IDX_LABELS ? 1 : 3;
    if (source_take(s, head, 4, &got, err))
        return -1;
    if (got == 4) {
        if (check_magic(kind, big_endian(head), s->path, err))
            return -1;
        sizes = head[3]; /* a good magic ends in the number of sizes: 1, 3 or 4 */
        if (source_take(s, head, 4 * sizes, &got, err))
            return -1;
    }
    if (got < 4 * sizes)
        return fail(err, "%s: %zu bytes, the header alone has %zu; " AGAIN, s->path, s->taken,
                    4 + 4 * sizes);
    uint32_t n[4] = {big_endian(head), 1, 1, 1}; /* the last sizes are those of the image */
    for (size_t i = 1; i < sizes; i++)
        n[4 - sizes + i] = big_endian(head + 4 * i);
    if (check_numbers(n, kind, s->path, err))
        return -1;
    idx->count = n[0];
    idx->channels = (int)n[1];
    idx->height = (int)n[2];
    idx->width = (int)n[3];
    return 0;
}

/* ---- one file ---- */

/* Whether the file can hold what its header says: the check before the allocation. */
static int check_size(const struct source *s, uint64_t content, struct lenet5_error *err) {
    unsigned long long told = s->taken + content, most = s->size;
    if (told > CONTENT_MAX)
        return fail(err, "%s: its header says %llu bytes, expected at most %d; " AGAIN, s->path,
                    told, CONTENT_MAX);
    if (!s->packed && told != most)
        return fail(err, "%s: %llu bytes, its header says %llu; " AGAIN, s->path, most, told);
    if (s->packed && told > most * DEFLATE_RATIO_MAX)
        return fail(err, "%s: %llu bytes cannot unpack to the %llu of its header; " AGAIN,
                    s->path, most, told);
    return 0;
}

static int read_content(struct idx *idx, struct source *s, struct lenet5_error *err) {
    int size = idx->channels * idx->height * idx->width; /* bytes of an image */
    uint64_t content = (uint64_t)idx->count * (uint64_t)size;
    size_t header = s->taken, got;
    if (check_size(s, content, err))
        return -1;
    idx->bytes = malloc((size_t)content);
    if (!idx->bytes)
        return fail(err, "%s: no memory for its %llu bytes", s->path,
                    (unsigned long long)content);
    if (source_take(s, idx->bytes, (size_t)content, &got, err))
        return -1;
    if (got < content)
        return fail(err, "%s: unpacks to %zu bytes, its header says %zu; " AGAIN, s->path,
                    s->taken, header + (size_t)content);
    return source_finish(s, err);
}

static int check_labels(const struct idx *idx, const char *path, struct lenet5_error *err) {
    for (size_t i = 0; i < idx->count; i++)
        if (idx->bytes[i] >= DATASET_CLASSES)
            return fail(err, "%s: label %d of image %zu, expected 0 to %d; " AGAIN, path,
                        idx->bytes[i], i, DATASET_CLASSES - 1);
    return 0;
}

int idx_parse(struct idx *idx, enum idx_kind kind, const uint8_t *file, size_t size,
              const char *path, struct lenet5_error *err) {
    struct source s;
    memset(idx, 0, sizeof *idx);
    if (check_not_text(file, size, path, err) || source_open(&s, file, size, path, err))
        return -1;
    int bad = read_header(idx, kind, &s, err) || read_content(idx, &s, err) ||
              (kind == IDX_LABELS && check_labels(idx, path, err));
    if (bad) {
        free(idx->bytes);
        memset(idx, 0, sizeof *idx);
    } else
        idx->crc = source_crc(&s);
    source_close(&s);
    return bad ? -1 : 0;
}

/* Reads a file whole; *bytes is owned by the caller. */
static int read_file(const char *path, uint8_t **bytes, size_t *size,
                     struct lenet5_error *err) {
    struct stat info;
    if (stat(path, &info))
        return fail(err, "%s: %s; run make data", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return fail(err, "%s: %s, expected an IDX file", path,
                    S_ISDIR(info.st_mode) ? "a folder" : "a pipe or a device");
    if (info.st_size > CONTENT_MAX)
        return fail(err, "%s: %lld bytes, expected at most %d", path, (long long)info.st_size,
                    CONTENT_MAX);
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail(err, "%s: %s", path, strerror(errno));
    *size = (size_t)info.st_size;
    *bytes = malloc(*size + 1); /* the byte more would show a file that grows */
    size_t got = *bytes ? fread(*bytes, 1, *size + 1, file) : 0;
    const char *trouble = !*bytes        ? "no memory to read it"
                          : ferror(file) ? strerror(errno)
                          : got != *size ? "changed while it was read"
                                         : NULL;
    fclose(file);
    if (!trouble)
        return 0;
    free(*bytes);
    return fail(err, "%s: %s", path, trouble);
}

static int read_idx(struct idx *idx, enum idx_kind kind, const char *path,
                    struct lenet5_error *err) {
    uint8_t *file = NULL;
    size_t size = 0;
    memset(idx, 0, sizeof *idx);
    if (read_file(path, &file, &size, err))
        return -1;
    int bad = idx_parse(idx, kind, file, size, path, err);
    free(file);
    return bad;
}

/* ---- the pair ---- */

static const char *const digits[DATASET_CLASSES] = {"0", "1", "2", "3", "4",
                                                    "5", "6", "7", "8", "9"};
static const char *const clothes[DATASET_CLASSES] = {
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

/* The sets known by content. Two CRC-32 over the unpacked files are enough to recognise them:
   nobody gains by a forged name, and by chance a pair of other files has 1 in 2^64. Whether the
   files are the official ones is checked by SHA-256, in scripts/fetch_data.sh. */
static const struct known {
    const char *name;
    int train;
    uint32_t images, labels; /* CRC-32 of the raw files */
    const char *const *class_names;
} known[] = {
    {"mnist", 0, 0x91373bdf, 0x4ab9eff9, digits},
    {"mnist", 1, 0xe9f4d8b3, 0xe0cb4ad2, digits},
    {"fashion_mnist", 0, 0x678fe0b1, 0x80142c1f, clothes},
    {"fashion_mnist", 1, 0xb4f29f28, 0x741a4657, clothes},
    {"sample", 0, 0x27fa2975, 0x8c98d0c8, digits},
};

static int recognise(struct dataset *set, const struct idx *images, const struct idx *labels,
                     struct lenet5_error *err) {
    const struct known *by_images = NULL, *by_labels = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].images == images->crc)
            by_images = &known[i];
        if (known[i].labels == labels->crc)
            by_labels = &known[i];
    }
    if (by_images && by_labels && by_images != by_labels)
        return fail(err, "the images are those of %s, the labels those of %s; give one pair",
                    by_images->name, by_labels->name);
    int pair = by_images && by_labels;
    set->name = pair ? by_images->name : "unknown";
    set->train = pair && by_images->train;
    set->class_names = pair ? by_images->class_names : digits;
    return 0;
}

int dataset_open_files(struct dataset *set, const char *images_path, const char *labels_path,
                       struct lenet5_error *err) {
    struct idx images, labels = {0};
    memset(set, 0, sizeof *set);
    if (read_idx(&images, IDX_IMAGES, images_path, err) ||
        read_idx(&labels, IDX_LABELS, labels_path, err))
        goto out;
    if (images.count != labels.count) {
        fail(err, "images: %zu, labels: %zu, expected as many; %s and %s are not a pair",
             images.count, labels.count, images_path, labels_path);
        goto out;
    }
    if (recognise(set, &images, &labels, err))
        goto out;
    set->count = images.count;
    set->channels = images.channels;
    set->height = images.height;
    set->width = images.width;
    set->images = images.bytes;
    set->labels = labels.bytes;
    return 0;
out:
    free(images.bytes);
    free(labels.bytes);
    return -1;
}

void dataset_close(struct dataset *set) {
    if (!set)
        return;
    free(set->images);
    free(set->labels);
    memset(set, 0, sizeof *set);
}

/* ---- the folder ---- */

enum { PATH_SIZE = 4096 };

/* Writes the path of the first of stem-type, stem.type, stem-type.gz, stem.type.gz that is in
   the folder. Folders are passed over: some archives unpack to one with the file's name. */
static int find_file(char path[PATH_SIZE], const char *folder, const char *stem,
                     const char *type, struct lenet5_error *err) {
    struct stat info;
    if (stat(folder, &info))
        return fail(err, "%s: %s; run make data, or use fashion_mnist/sample", folder,
                    strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return fail(err, "%s: a file, expected a folder with %s-%s.gz", folder, stem, type);
    for (int form = 0; form < 4; form++) {
        int length = snprintf(path, PATH_SIZE, "%s/%s%c%s%s", folder, stem,
                              form & 1 ? '.' : '-', type, form & 2 ? ".gz" : "");
        if (length >= PATH_SIZE)
            return fail(err, "%.64s...: a path of %d bytes, expected fewer than %d", folder,
                        length, PATH_SIZE);
        if (!stat(path, &info) && !S_ISDIR(info.st_mode))
            return 0;
    }
    return fail(err,
                "%s: no %s-%s or .gz in this folder; run make data, or use "
                "fashion_mnist/sample",
                folder, stem, type);
}

int dataset_open(struct dataset *set, const char *folder, struct lenet5_error *err) {
    char images[PATH_SIZE], labels[PATH_SIZE];
    memset(set, 0, sizeof *set);
    if (find_file(images, folder, "t10k-images", "idx3-ubyte", err) ||
        find_file(labels, folder, "t10k-labels", "idx1-ubyte", err))
        return -1;
    return dataset_open_files(set, images, labels, err);
}
