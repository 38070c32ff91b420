/* SPDX-License-Identifier: MIT
 *
 * source.c - tells by its first bytes what a file is, and opens the three kinds that hold Keras
 * weights; see source.h.
 *
 * A zip is read through libzip, which checks the CRC of each member; sizes are bounded here,
 * for a directory may lie and a few kilobytes may inflate to gigabytes.
 */
#define _POSIX_C_SOURCE 200809L
#include "source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zip.h>

enum {
    MAX_JSON = 1 << 20,    /* bytes; a LeNet-5's config.json has about 10,000 */
    MAX_WEIGHTS = 1 << 26, /* bytes of model.weights.h5 within a zip: read into memory */
    HEAD = 512             /* bytes that tell what a file is */
};

static const char H5_SIGNATURE[] = "\x89HDF\r\n\x1a\n";

static int starts_with(const char *head, size_t size, const char *magic) {
    return size >= strlen(magic) && !memcmp(head, magic, strlen(magic));
}

/* Is HDF5's signature there, perhaps behind a user block of 512, 1024, 2048, ... bytes? */
static int has_signature(FILE *file) {
    char found[8];
    for (long at = 0; at < 1L << 30; at = at ? 2 * at : 512) {
        if (fseek(file, at, SEEK_SET) || fread(found, 1, sizeof found, file) < sizeof found)
            return 0;
        if (!memcmp(found, H5_SIGNATURE, sizeof found))
            return 1;
    }
    return 0;
}

/* What people mistake for a Keras file, by its first bytes. */
static const struct {
    size_t at;
    const char *magic, *sentence;
} strangers[] = {
    {0, "\x80\x02", "is a Python pickle (or an old PyTorch file)"},
    {0, "\x80\x03", "is a Python pickle"},
    {0, "\x80\x04", "is a Python pickle"},
    {0, "\x80\x05", "is a Python pickle"},
    {4, "TFL3", "is a TensorFlow Lite model"},
    {0, "\x93NUMPY", "is a NumPy array"},
    {0, "\x1f\x8b", "is compressed with gzip: gunzip it first"},
    {0, "\x89LN5", "is a blob, the output of this tool"},
    {0, "\x89HDF", "was an HDF5 file until a transfer in text mode changed its line ends"},
    {0, "\x89PNG", "is a PNG image"},
    {0, "GGUF", "is a GGUF model"},
};

static int fail_text(const char *path, const char *head, struct lenet5_error *err) {
    const int word = (int)strcspn(head, " \r\n\t>");
    if (head[0] == '<')
        return fail(err, "%s starts with '%.*s': a web page was saved instead of the file",
                    path, word < 40 ? word : 40, head);
    if (strstr(head, "\"weight_map\""))
        return fail(err,
                    "%s is the index of sharded weights (max_shard_size); this tool reads "
                    "weights that are saved as one file",
                    path);
    if (head[0] == '{' || head[0] == '[')
        return fail(err,
                    "%s starts with '%c': it is JSON, perhaps an architecture without "
                    "weights; this tool reads Keras .h5 and .keras",
                    path, head[0]);
    return fail(err, "%s is text; this tool reads Keras .h5 and .keras", path);
}

/* Says what a file is that is neither HDF5 nor a zip. */
static int fail_stranger(const char *path, const char *head, size_t size, long long file_size,
                         struct lenet5_error *err) {
    size_t printable = 0;
    if (starts_with(head, size, "version https://git-lfs"))
        return fail(err,
                    "%s is a Git LFS pointer (%lld bytes), not the weights; run `git lfs pull` "
                    "there and try again",
                    path, file_size);
    for (size_t k = 0; k < sizeof strangers / sizeof *strangers; k++)
        if (size > strangers[k].at &&
            starts_with(head + strangers[k].at, size - strangers[k].at, strangers[k].magic))
            return fail(err, "%s %s; this tool reads Keras .h5 and .keras", path,
                        strangers[k].sentence);
    if (strstr(path, "saved_model.pb") && head[0] == 8)
        return fail(err,
                    "%s is a TensorFlow SavedModel; this tool reads Keras .h5 and .keras: load "
                    "it in Keras and save it so",
                    path);
    while (printable < size &&
           ((unsigned char)head[printable] >= ' ' || memchr("\r\n\t", head[printable], 3)))
        printable++;
    if (printable == size)
        return fail_text(path, head, err);
    return fail(err,
                "%s is not HDF5: it starts with %02x %02x %02x %02x; this tool reads Keras .h5 "
                "and .keras",
                path, (unsigned char)head[0], (unsigned char)head[1], (unsigned char)head[2],
                (unsigned char)head[3]);
}

/* ---- zip -------------------------------------------------------------------------------- */

/* Index of the member whose last path component is name, the least deeply nested; -1 if none.
 */
static zip_int64_t find_member(zip_t *zip, const char *name) {
    const zip_int64_t count = zip_get_num_entries(zip, 0);
    zip_int64_t best = -1;
    size_t best_length = 0;
    for (zip_int64_t k = 0; k < count; k++) {
        const char *path = zip_get_name(zip, (zip_uint64_t)k, ZIP_FL_ENC_RAW);
        const char *last = path ? strrchr(path, '/') : NULL;
        last = last ? last + 1 : path;
        if (last && !strcmp(last, name) && (best < 0 || strlen(path) < best_length)) {
            best = k;
            best_length = strlen(path);
        }
    }
    return best;
}

/* Reads one member, at most most bytes, and ends it with a zero; *text is the caller's. */
static int read_member(zip_t *zip, const char *path, zip_int64_t member, size_t most,
                       char **text, size_t *size, struct lenet5_error *err) {
    const char *name = zip_get_name(zip, (zip_uint64_t)member, ZIP_FL_ENC_RAW);
    zip_stat_t stat;
    zip_file_t *file = NULL;
    char extra;
    zip_int64_t got;
    *text = NULL;
    if (zip_stat_index(zip, (zip_uint64_t)member, 0, &stat) || !(stat.valid & ZIP_STAT_SIZE))
        return fail(err, "%s is damaged: member '%s' cannot be read", path, name);
    if (stat.size > most)
        return fail(err, "%s: member '%s' claims %llu bytes; at most %zu can be converted",
                    path, name, (unsigned long long)stat.size, most);
    file = zip_fopen_index(zip, (zip_uint64_t)member, 0);
    if (!file)
        return fail(err, "%s: member '%s' cannot be unpacked: %s", path, name,
                    zip_strerror(zip));
    *size = (size_t)stat.size;
    *text = malloc(*size + 1);
    got = *text ? zip_fread(file, *text, *size) : -1;
    /* reading on meets the end, where libzip compares the CRC, or more than was announced */
    const int whole = got == (zip_int64_t)*size && zip_fread(file, &extra, 1) == 0;
    if (!*text)
        fail(err, "%s: out of memory, %zu bytes", path, *size);
    else if (!whole)
        fail(err, "%s is damaged: member '%s' does not unpack to its %zu bytes: %s", path, name,
             *size, zip_file_strerror(file));
    zip_fclose(file);
    if (!whole) {
        free(*text);
        *text = NULL;
        return -1;
    }
    (*text)[*size] = '\0';
    return 0;
}

static int fail_members(zip_t *zip, const char *path, struct lenet5_error *err) {
    char list[200] = "";
    const zip_int64_t count = zip_get_num_entries(zip, 0);
    if (find_member(zip, "model.weights.npz") >= 0)
        return fail(err,
                    "%s keeps its weights as NumPy arrays (model.weights.npz); this tool reads "
                    "model.weights.h5: save it again with model.save",
                    path);
    if (find_member(zip, "data.pkl") >= 0)
        return fail(err, "%s is a PyTorch archive; this tool reads Keras .h5 and .keras", path);
    if (find_member(zip, "saved_model.pb") >= 0)
        return fail(
            err, "%s is a zipped TensorFlow SavedModel; this tool reads Keras .h5 and .keras",
            path);
    for (zip_int64_t k = 0; k < count && strlen(list) < sizeof list / 2; k++) {
        const char *name = zip_get_name(zip, (zip_uint64_t)k, ZIP_FL_ENC_RAW);
        const size_t used = strlen(list);
        if (strlen(name) > 4 && !strcmp(name + strlen(name) - 4, ".npy"))
            return fail(err,
                        "%s is a NumPy archive (.npz); this tool reads Keras .h5 and .keras",
                        path);
        snprintf(list + used, sizeof list - used, "%s%.60s", used ? ", " : "", name);
    }
    return fail(err, "%s is a zip without model.weights.h5 (members: %s)", path,
                *list ? list : "none");
}

static int open_zip(struct source *s, const char *path, struct lenet5_error *err) {
    int code, rc = -1;
    size_t size;
    char *image = NULL;
    zip_t *zip = zip_open(path, ZIP_RDONLY, &code);
    if (!zip) {
        zip_error_t why;
        zip_error_init_with_code(&why, code);
        fail(err, "%s is a damaged zip: %s", path, zip_error_strerror(&why));
        zip_error_fini(&why);
        return -1;
    }
    const zip_int64_t config = find_member(zip, "config.json");
    const zip_int64_t metadata = find_member(zip, "metadata.json");
    const zip_int64_t weights = find_member(zip, "model.weights.h5");
    if (config < 0 || weights < 0) {
        fail_members(zip, path, err);
        goto out;
    }
    if (read_member(zip, path, config, MAX_JSON, &s->config, &size, err) ||
        (metadata >= 0 &&
         read_member(zip, path, metadata, MAX_JSON, &s->metadata, &size, err)) ||
        read_member(zip, path, weights, MAX_WEIGHTS, &image, &size, err))
        goto out;
    rc = h5_open_memory(&s->h5, image, size, path, err);
    s->container = 'z';
out:
    free(image);
    zip_discard(zip);
    return rc;
}

/* ---- folders and files ------------------------------------------------------------------ */

static int in_folder(const char *folder, const char *name, char *path, size_t size) {
    struct stat info;
    snprintf(path, size, "%s/%s", folder, name);
    return !stat(path, &info) && S_ISREG(info.st_mode);
}

/* Reads a small text file. */
static char *read_text(const char *path, struct lenet5_error *err) {
    FILE *file = fopen(path, "rb");
    char *text = malloc(MAX_JSON + 1);
    size_t size = 0;
    if (file && text)
        size = fread(text, 1, MAX_JSON + 1, file);
    if (!file || !text || size > MAX_JSON) {
        fail(err, size > MAX_JSON ? "%s: over %d bytes" : "%s: cannot be read", path, MAX_JSON);
        free(text);
        text = NULL;
    } else
        text[size] = '\0';
    if (file)
        fclose(file);
    return text;
}

static int open_folder(struct source *s, const char *path, struct lenet5_error *err) {
    char config[4096], weights[4096], metadata[4096], other[4096];
    if (in_folder(path, "saved_model.pb", other, sizeof other))
        return fail(err,
                    "%s is a TensorFlow SavedModel; this tool reads Keras .h5 and .keras: load "
                    "it in Keras and save it so",
                    path);
    if (!in_folder(path, "config.json", config, sizeof config) ||
        !in_folder(path, "model.weights.h5", weights, sizeof weights))
        return fail(err, "%s is a folder without config.json and model.weights.h5", path);
    if (!(s->config = read_text(config, err)))
        return -1;
    if (in_folder(path, "metadata.json", metadata, sizeof metadata) &&
        !(s->metadata = read_text(metadata, err)))
        return -1;
    s->container = 'd';
    return h5_open(&s->h5, weights, err);
}

static int open_file(struct source *s, const char *path, long long file_size,
                     struct lenet5_error *err) {
    char head[HEAD + 1] = "";
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail(err, "%s: %s", path, strerror(errno));
    const size_t size = fread(head, 1, HEAD, file);
    /* before the search for HDF5 behind a user block: a zip's own may lie at 4096 by chance */
    const int is_zip =
        starts_with(head, size, "PK\x03\x04") || starts_with(head, size, "PK\x05\x06");
    const int is_hdf5 = !is_zip && has_signature(file);
    fclose(file);
    if (is_zip)
        return open_zip(s, path, err);
    if (is_hdf5) {
        s->container = 'h';
        return h5_open(&s->h5, path, err);
    }
    return fail_stranger(path, head, size, file_size, err);
}

int source_open(struct source *source, const char *path, struct lenet5_error *err) {
    struct stat info;
    int rc;
    memset(source, 0, sizeof *source);
    if (stat(path, &info))
        return fail(err, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        rc = open_folder(source, path, err);
    else if (!S_ISREG(info.st_mode))
        rc = fail(err, "%s is not a regular file", path);
    else if (!info.st_size)
        rc = fail(err, "%s is empty", path);
    else
        rc = open_file(source, path, (long long)info.st_size, err);
    if (rc)
        source_close(source);
    return rc;
}

void source_close(struct source *source) {
    h5_close(source->h5);
    free(source->config);
    free(source->metadata);
    memset(source, 0, sizeof *source);
}
