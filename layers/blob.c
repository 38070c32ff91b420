/* SPDX-License-Identifier: MIT
 *
 * blob.c - reads and writes the format that blob.h defines. One list of fields (walk_header,
 * walk_layer) serves both directions, so that reader and writer cannot drift apart; it goes
 * byte by byte, so that it gives the same on any machine.
 *
 * The reader trusts nothing: size, magic, version, checksum, then every row against its
 * neighbours, then every float. It parses from memory, so that reading a file, embedding and
 * fuzzing are the same code.
 */
#define _POSIX_C_SOURCE 200809L
#include "blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static const uint8_t MAGIC[8] = {0x89, 'L', 'N', '5', '\r', '\n', 0x1a, '\n'};

enum { CRC_AT = 12, SIZE_AT = 16 };

/* Walks over the fields of a header or a layer, reading or writing each; clean turns 0 when
   bytes that must be zero are not, or a text has no end or holds a control character. */
struct cursor {
    uint8_t *at;
    int writing, clean;
};

static void walk_bytes(struct cursor *c, uint64_t *value, int bytes) {
    if (!c->writing)
        *value = 0;
    for (int k = 0; k < bytes; k++) {
        if (c->writing)
            *c->at = (uint8_t)(*value >> (8 * k));
        else
            *value |= (uint64_t)*c->at << (8 * k);
        c->at++;
    }
}

static void walk_u64(struct cursor *c, uint64_t *value) {
    walk_bytes(c, value, 8);
}

/* Numbers over 2^31 come back negative, which no check accepts. */
static void walk_int(struct cursor *c, int *value) {
    uint64_t wide = (uint32_t)*value;
    walk_bytes(c, &wide, 4);
    *value = (int)(uint32_t)wide;
}

static void walk_float(struct cursor *c, float *value) {
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    uint64_t wide = bits;
    walk_bytes(c, &wide, 4);
    bits = (uint32_t)wide;
    memcpy(value, &bits, sizeof bits);
}

static void walk_zeros(struct cursor *c, size_t bytes) {
    for (size_t k = 0; k < bytes; k++, c->at++) {
        if (c->writing)
            *c->at = 0;
        c->clean &= *c->at == 0;
    }
}

static void walk_text(struct cursor *c, char *text, size_t size) {
    const size_t length = strnlen(c->writing ? text : (char *)c->at, size);
    c->clean &= length < size;
    for (size_t k = 0; k < length; k++) /* names are printed: no control characters */
        c->clean &= (c->writing ? (uint8_t)text[k] : c->at[k]) >= ' ';
    if (c->writing)
        memcpy(c->at, text, length);
    else
        memcpy(text, c->at, size);
    c->at += length;
    walk_zeros(c, size - length);
    text[size - 1] = '\0';
}

static void walk_header(struct cursor *c, struct model *m, uint64_t *size) {
    int version = BLOB_VERSION, origin = (int)m->scaling_origin;
    c->at += sizeof MAGIC;
    walk_int(c, &version);
    c->at += 4; /* the CRC: filled in and compared by itself */
    walk_u64(c, size);
    walk_int(c, &m->count);
    walk_int(c, &m->input.c);
    walk_int(c, &m->input.h);
    walk_int(c, &m->input.w);
    walk_float(c, &m->scale);
    walk_float(c, &m->offset);
    walk_int(c, &origin);
    walk_float(c, &m->accuracy);
    walk_zeros(c, 8);
    walk_text(c, m->dataset, sizeof m->dataset);
    walk_text(c, m->source, sizeof m->source);
    walk_text(c, m->source_sha256, sizeof m->source_sha256);
    walk_text(c, m->source_version, sizeof m->source_version);
    walk_zeros(c, 24);
    m->scaling_origin = (enum origin)origin;
}

/* Where a row's tensors lie in the file. */
struct place {
    uint64_t weight_at, weights, bias_at, biases;
};

static void walk_layer(struct cursor *c, struct layer *l, struct shape *out, struct place *p) {
    int op = (int)l->op, activation = (int)l->activation;
    walk_text(c, l->name, sizeof l->name);
    walk_int(c, &op);
    walk_int(c, &activation);
    for (int k = 0; k < 3; k++)
        walk_float(c, &l->param[k]);
    int *numbers[] = {&out->c,      &out->h,        &out->w,      &l->kernel_h,
                      &l->kernel_w, &l->stride_h,   &l->stride_w, &l->pad_top,
                      &l->pad_left, &l->pad_bottom, &l->pad_right};
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
        walk_int(c, numbers[k]);
    walk_u64(c, &p->weight_at);
    walk_u64(c, &p->weights);
    walk_u64(c, &p->bias_at);
    walk_u64(c, &p->biases);
    l->op = (enum op)op;
    l->activation = (enum activation)activation;
}

static uint64_t align_up(uint64_t at) {
    return (at + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN;
}

/* Places count floats behind *end; 0 and nowhere when there are none. */
static uint64_t place_tensor(uint64_t *end, size_t count) {
    if (!count)
        return 0;
    const uint64_t at = align_up(*end);
    *end = at + 4 * (uint64_t)count;
    return at;
}

/* The only places that the format allows for the tensors of these rows; returns the file's
   size. */
static uint64_t lay_out(const struct layer *layers, int count, struct place *places) {
    uint64_t end = BLOB_HEADER_SIZE + (uint64_t)count * BLOB_LAYER_SIZE;
    for (int k = 0; k < count; k++) {
        struct place *p = &places[k];
        p->weights = layers[k].weights;
        p->biases = layers[k].biases;
        p->weight_at = place_tensor(&end, layers[k].weights);
        p->bias_at = place_tensor(&end, layers[k].biases);
    }
    return end;
}

/* The CRC of the file with its own four bytes taken as zero. */
static uint32_t blob_crc(const uint8_t *bytes, size_t size) {
    static const uint8_t zeros[4];
    uLong crc = crc32_z(0, bytes, CRC_AT);
    crc = crc32_z(crc, zeros, sizeof zeros);
    return (uint32_t)crc32_z(crc, bytes + CRC_AT + 4, size - CRC_AT - 4);
}

static uint64_t get_number(const uint8_t *at, int bytes) {
    struct cursor c = {(uint8_t *)at, 0, 1};
    uint64_t value = 0;
    walk_bytes(&c, &value, bytes);
    return value;
}

/* Size, magic, version, checksum: is this a whole, unharmed file of this version? */
static int check_envelope(const uint8_t *bytes, size_t size, const char *where,
                          struct lenet5_error *err) {
    if (size < BLOB_HEADER_SIZE)
        return fail(err,
                    "%s: %zu bytes, but a blob's header alone has %d; make it again with make "
                    "convert",
                    where, size, BLOB_HEADER_SIZE);
    if (memcmp(bytes, MAGIC, sizeof MAGIC))
        return fail(
            err,
            "%s: begins with %02x %02x %02x %02x %02x %02x %02x %02x, a blob with 89 4c "
            "4e 35 0d 0a 1a 0a; Keras files are made into blobs by make convert "
            "H5=file.h5 BLOB=file.bin",
            where, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6],
            bytes[7]);
    const uint64_t version = get_number(bytes + sizeof MAGIC, 4);
    if (version != BLOB_VERSION)
        return fail(err, "%s: version %llu, this program reads version %d; convert again",
                    where, (unsigned long long)version, BLOB_VERSION);
    const uint64_t told = get_number(bytes + SIZE_AT, 8);
    if (told != size)
        return fail(err, "%s: %zu bytes, its header says %llu; copy or convert it again", where,
                    size, (unsigned long long)told);
    const uint32_t crc = blob_crc(bytes, size),
                   stored = (uint32_t)get_number(bytes + CRC_AT, 4);
    if (crc != stored)
        return fail(err,
                    "%s: damaged, its checksum is %08x and its content gives %08x; copy or "
                    "convert it again",
                    where, stored, crc);
    return 0;
}

static int check_header(const struct model *m, int clean, const char *where,
                        struct lenet5_error *err) {
    if (!clean)
        return fail(
            err, "%s: header with a text that has no end, a control character, or stray bytes",
            where);
    if (m->count < 1 || m->count > MAX_LAYERS)
        return fail(err, "%s: %d layers, there must be 1 to %d", where, m->count, MAX_LAYERS);
    if (!isfinite(m->scale) || !isfinite(m->offset))
        return fail(err, "%s: scale or offset of the input is not finite", where);
    if ((unsigned)m->scaling_origin >= ORIGIN_END)
        return fail(err, "%s: origin of the scale is %d, known are 0 to %d", where,
                    (int)m->scaling_origin, ORIGIN_END - 1);
    if (!(m->accuracy >= 0 && m->accuracy <= 1))
        return fail(err, "%s: recorded accuracy of %g, must be 0 to 1", where, m->accuracy);
    return 0;
}

/* Reads the rows and checks them against each other; *told are the tensors' places as written
   in the file. */
static int parse_layers(struct model *m, struct cursor *c, struct place *told,
                        const char *where, struct lenet5_error *err) {
    struct shape out[MAX_LAYERS];
    struct lenet5_error why;
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &m->layers[k];
        walk_layer(c, l, &out[k], &told[k]);
        l->out = out[k];
        l->biases = told[k].biases != 0;
        if (!c->clean)
            return fail(err,
                        "%s: layer %d has a name without an end or with a control character",
                        where, k);
    }
    if (network_check(m->layers, m->count, m->input, &why))
        return fail(err, "%s: %s", where, why.message);
    for (int k = 0; k < m->count; k++) {
        const struct layer *l = &m->layers[k];
        if (memcmp(&out[k], &l->out, sizeof out[k]))
            return fail(err, "%s: layer %d '%s' says output %dx%dx%d, but it is %dx%dx%d",
                        where, k, l->name, out[k].c, out[k].h, out[k].w, l->out.c, l->out.h,
                        l->out.w);
    }
    return 0;
}

/* The tensors must lie exactly where the format puts them: no hole, no overlap, no rest. */
static int check_places(const struct model *m, const struct place *told, size_t size,
                        const char *where, struct lenet5_error *err) {
    struct place places[MAX_LAYERS];
    const uint64_t end = lay_out(m->layers, m->count, places);
    for (int k = 0; k < m->count; k++)
        if (memcmp(&told[k], &places[k], sizeof *told))
            return fail(
                err,
                "%s: layer %d '%s' has %llu weights at %llu and %llu biases at %llu; its "
                "shape wants %llu at %llu and %llu at %llu",
                where, k, m->layers[k].name, (unsigned long long)told[k].weights,
                (unsigned long long)told[k].weight_at, (unsigned long long)told[k].biases,
                (unsigned long long)told[k].bias_at, (unsigned long long)places[k].weights,
                (unsigned long long)places[k].weight_at, (unsigned long long)places[k].biases,
                (unsigned long long)places[k].bias_at);
    if (end != size)
        return fail(err, "%s: %zu bytes, its layers want %llu", where, size,
                    (unsigned long long)end);
    return 0;
}

/* Copies one tensor from the file to its place in the model's block; cursor c stands behind the
   tensor before it. Returns NULL, with the reason in err, or where the tensor now is. */
static const float *parse_tensor(struct model *m, struct cursor *c, const uint8_t *tensor,
                                 float *to, size_t count, const struct layer *l,
                                 const char *where, struct lenet5_error *err) {
    walk_zeros(c, (size_t)(tensor - c->at));
    if (!c->clean) {
        fail(err, "%s: bytes other than zero before a tensor of layer '%s'", where, l->name);
        return NULL;
    }
    for (size_t k = 0; k < count; k++) {
        walk_float(c, &to[k]);
        if (!isfinite(to[k])) {
            fail(err, "%s: number %zu of %zu in a tensor of layer '%s' is not finite", where, k,
                 count, l->name);
            return NULL;
        }
    }
    m->float_count = (size_t)(to - m->floats) + count;
    return to;
}

static int parse_floats(struct model *m, const uint8_t *bytes, const struct place *places,
                        size_t size, const char *where, struct lenet5_error *err) {
    const size_t rows_end = BLOB_HEADER_SIZE + (size_t)m->count * BLOB_LAYER_SIZE;
    const size_t start = align_up(rows_end);
    struct cursor c = {(uint8_t *)bytes + rows_end, 0, 1};
    if (size <= start) /* pooling and activations only: nothing trained */
        return 0;
    /* aligned_alloc wants a multiple of the alignment; the gaps between tensors stay zero */
    m->floats = aligned_alloc(BLOB_ALIGN, align_up(size - start));
    if (!m->floats)
        return fail(err, "%s: out of memory, %zu bytes", where, size);
    memset(m->floats, 0, align_up(size - start));
    for (int k = 0; k < m->count; k++) {
        struct layer *l = &m->layers[k];
        const struct place *p = &places[k];
        if (p->weights &&
            !(l->weight = parse_tensor(m, &c, bytes + p->weight_at,
                                       m->floats + (p->weight_at - start) / sizeof(float),
                                       l->weights, l, where, err)))
            return -1;
        if (p->biases &&
            !(l->bias = parse_tensor(m, &c, bytes + p->bias_at,
                                     m->floats + (p->bias_at - start) / sizeof(float),
                                     l->biases, l, where, err)))
            return -1;
    }
    return 0;
}

int blob_parse(struct model *m, const uint8_t *bytes, size_t size, const char *where,
               struct lenet5_error *err) {
    struct place places[MAX_LAYERS];
    struct cursor c = {(uint8_t *)bytes, 0, 1};
    uint64_t told_size;
    memset(m, 0, sizeof *m);
    if (check_envelope(bytes, size, where, err))
        return -1;
    walk_header(&c, m, &told_size);
    if (check_header(m, c.clean, where, err))
        goto out;
    if (size < BLOB_HEADER_SIZE + (size_t)m->count * BLOB_LAYER_SIZE) {
        fail(err, "%s: %zu bytes cannot hold %d layers", where, size, m->count);
        goto out;
    }
    if (!parse_layers(m, &c, places, where, err) &&
        !check_places(m, places, size, where, err) &&
        !parse_floats(m, bytes, places, size, where, err))
        return 0;
out:
    blob_free(m);
    return -1;
}

/* Reads a regular file of sane size into memory; *bytes is the caller's to free. */
static int read_file(const char *path, uint8_t **bytes, size_t *size,
                     struct lenet5_error *err) {
    const size_t most = BLOB_HEADER_SIZE + MAX_LAYERS * (BLOB_LAYER_SIZE + 2 * BLOB_ALIGN) +
                        sizeof(float) * (size_t)MAX_PARAMETERS;
    struct stat info;
    const int fd = open(path, O_RDONLY | O_NONBLOCK); /* a pipe is refused, not waited for */
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    *bytes = NULL;
    if (!file && errno == ENOENT)
        return fail(err, "%s: there is no such file; make convert makes weights/*.bin", path);
    if (!file)
        return fail(err, "%s: %s", path, strerror(errno));
    if (fstat(fileno(file), &info) || !S_ISREG(info.st_mode)) {
        fail(err, "%s: not a regular file; a blob is made by make convert", path);
        goto out;
    }
    *size = (size_t)info.st_size;
    if (info.st_size < 0 || *size > most) {
        fail(err, "%s: %lld bytes, no blob has more than %zu", path, (long long)info.st_size,
             most);
        goto out;
    }
    *bytes = malloc(*size + 1);
    if (!*bytes)
        fail(err, "%s: out of memory, %zu bytes", path, *size);
    else if (fread(*bytes, 1, *size, file) != *size) {
        fail(err, "%s: could not read all of its %zu bytes", path, *size);
        free(*bytes);
        *bytes = NULL;
    }
out:
    fclose(file);
    return *bytes ? 0 : -1;
}

int blob_read(struct model *m, const char *path, struct lenet5_error *err) {
    uint8_t *bytes;
    size_t size;
    memset(m, 0, sizeof *m);
    if (read_file(path, &bytes, &size, err))
        return -1;
    const int rc = blob_parse(m, bytes, size, path, err);
    free(bytes);
    return rc;
}

static void write_tensor(struct cursor *c, uint8_t *at, const float *from, size_t count) {
    c->at = at;
    for (size_t k = 0; k < count; k++) {
        float value = from[k];
        walk_float(c, &value);
    }
}

int blob_serialize(const struct model *m, uint8_t **bytes, size_t *size,
                   struct lenet5_error *err) {
    struct place places[MAX_LAYERS];
    struct model copy = *m; /* the walkers take writable fields */
    uint64_t end = lay_out(copy.layers, copy.count, places);
    *size = (size_t)end;
    *bytes = calloc(1, *size);
    if (!*bytes)
        return fail(err, "out of memory, %zu bytes", *size);
    struct cursor c = {*bytes, 1, 1};
    walk_header(&c, &copy, &end);
    memcpy(*bytes, MAGIC, sizeof MAGIC);
    for (int k = 0; k < copy.count; k++)
        walk_layer(&c, &copy.layers[k], &copy.layers[k].out, &places[k]);
    for (int k = 0; k < copy.count; k++) {
        const struct layer *l = &copy.layers[k];
        write_tensor(&c, *bytes + places[k].weight_at, l->weight, l->weights);
        write_tensor(&c, *bytes + places[k].bias_at, l->bias, l->biases);
    }
    uint64_t crc = blob_crc(*bytes, *size);
    c.at = *bytes + CRC_AT;
    walk_bytes(&c, &crc, 4);
    return 0;
}

/* Writes and syncs a file; on failure errno says why. */
static int write_file(int fd, const uint8_t *bytes, size_t size) {
    while (size) {
        const ssize_t wrote = write(fd, bytes, size);
        if (wrote < 0)
            return -1;
        bytes += wrote;
        size -= (size_t)wrote;
    }
    return fsync(fd);
}

/* Writes a file of a name made from temporary, and reads it back; on failure none is left. */
static int write_temporary(char *temporary, const char *path, const uint8_t *bytes, size_t size,
                           mode_t mode, struct lenet5_error *err) {
    uint8_t *back = NULL;
    size_t back_size;
    int rc = -1;
    const int fd = mkstemp(temporary);
    if (fd < 0)
        return fail(err, "%s: cannot write beside it: %s", path, strerror(errno));
    if (fchmod(fd, mode) || write_file(fd, bytes, size))
        fail(err, "%s: cannot write: %s", path, strerror(errno));
    else if (!read_file(temporary, &back, &back_size, err))
        rc = back_size == size && !memcmp(back, bytes, size)
                 ? 0
                 : fail(err, "%s: what was read back differs from what was written", path);
    close(fd);
    if (rc)
        unlink(temporary);
    free(back);
    return rc;
}

int blob_write(const struct model *m, const char *path, struct lenet5_error *err) {
    const mode_t mask = umask(0);
    const size_t length = strlen(path) + sizeof ".XXXXXX";
    char *temporary = NULL;
    uint8_t *bytes = NULL;
    size_t size;
    int rc = -1;
    struct model check;
    struct stat there;

    umask(mask);
    if (!stat(path, &there) && !S_ISREG(there.st_mode))
        return fail(err, "%s: is there and no regular file, so it is not replaced", path);
    temporary = malloc(length);
    if (!temporary)
        return fail(err, "out of memory");
    snprintf(temporary, length, "%s.XXXXXX", path);
    if (blob_serialize(m, &bytes, &size, err))
        goto out;
    /* what could not be read back must not be written */
    if (blob_parse(&check, bytes, size, path, err))
        goto out;
    blob_free(&check);
    if (write_temporary(temporary, path, bytes, size, 0666 & ~mask, err))
        goto out;
    rc = rename(temporary, path);
    if (rc) {
        fail(err, "%s: cannot rename %s to it: %s", path, temporary, strerror(errno));
        unlink(temporary);
    }
out:
    free(bytes);
    free(temporary);
    return rc;
}

void blob_free(struct model *m) {
    if (!m)
        return;
    free(m->floats);
    memset(m, 0, sizeof *m);
}
