/* SPDX-License-Identifier: MIT
 *
 * h5.c - the only file that includes hdf5.h; see h5.h.
 *
 * HDF5 would follow a link into another file, load a filter from a plug-in folder, convert
 * integers to floats and read an empty data set, all without a word. Each of these is switched
 * off or asked about first. Its own parser is not proof against crafted files: the command
 * therefore reads inside guard.h, which bounds memory and time and survives a crash.
 */
#define _POSIX_C_SOURCE 200809L
#include "h5.h"

#include "layer.h"

#include <ctype.h>
#include <hdf5.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_NAMES = 4096,     /* links in a group, strings in a list */
    MAX_EXTENTS = 1024,   /* data sets that are read */
    MAX_NAME = 1024,      /* bytes in one step of a path */
    MAX_TEXT = 1 << 20,   /* bytes of one attribute's text */
    MAX_CHUNKS = 1 << 16, /* chunks of one data set */
    MAX_CHUNK_BYTES = 1 << 26
};

/* Where the numbers of a data set lie in the file. */
struct extent {
    haddr_t start, end;
};

struct h5 {
    hid_t id;
    FILE *raw;  /* owned: its bytes; NULL for a file in memory */
    char *name; /* owned: of the file, for errors */
    char warning[200];
    int floats_read;   /* data sets */
    H5T_order_t order; /* of the last of them */
    int extents;       /* of what has been read; they must not overlap */
    struct extent extent[MAX_EXTENTS];
};

/* ---- opening ---------------------------------------------------------------------------- */

/* The innermost description that HDF5 recorded of its last error. */
static herr_t remember(unsigned n, const H5E_error2_t *error, void *text) {
    (void)n;
    snprintf(text, 256, "%s", error->desc ? error->desc : "no reason given");
    return 0;
}

static int fail_open(const char *name, struct lenet5_error *err) {
    char reason[256] = "no reason given";
    unsigned long long found, base, stored;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, remember, reason);
    const char *truncated = strstr(reason, "truncated file");
    if (truncated && sscanf(truncated,
                            "truncated file: eof = %llu, sblock->base_addr = %llu, "
                            "stored_eof = %llu",
                            &found, &base, &stored) == 3)
        return fail(err,
                    "%s is cut short: %llu bytes, HDF5 says that it had %llu; copy or download "
                    "it again",
                    name, found, stored);
    return fail(err, "%s is damaged: HDF5 cannot open it (%s)", name, reason);
}

static int open_with(struct h5 **file, hid_t access, const char *path, const char *name,
                     struct lenet5_error *err) {
    struct h5 *f = calloc(1, sizeof *f);
    *file = NULL;
    if (!f || !(f->name = strdup(name))) {
        free(f);
        return fail(err, "%s: out of memory", name);
    }
    f->id = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (f->id < 0) {
        free(f->name);
        free(f);
        return fail_open(name, err);
    }
    *file = f;
    return 0;
}

/* No plug-ins, no error stack on stderr; one access list for a file on disk or in memory. */
static hid_t access_list(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    return access;
}

int h5_open(struct h5 **file, const char *path, struct lenet5_error *err) {
    hid_t access = access_list();
    const int rc = open_with(file, access, path, path, err);
    H5Pclose(access);
    if (!rc && ((*file)->raw = fopen(path, "rb")))
        setvbuf((*file)->raw, NULL, _IONBF, 0); /* a few bytes here and there are read */
    return rc;
}

int h5_open_memory(struct h5 **file, const void *bytes, size_t size, const char *name,
                   struct lenet5_error *err) {
    hid_t access = access_list();
    int rc;
    if (H5Pset_fapl_core(access, 1 << 16, 0) < 0 ||
        H5Pset_file_image(access, (void *)bytes, size) < 0)
        rc = fail(err, "%s: out of memory, %zu bytes", name, size);
    else
        rc = open_with(file, access, "image", name, err);
    H5Pclose(access);
    return rc;
}

void h5_close(struct h5 *file) {
    if (!file)
        return;
    H5Fclose(file->id);
    if (file->raw)
        fclose(file->raw);
    free(file->name);
    free(file);
}

const char *h5_name(const struct h5 *file) {
    return file->name;
}

/* ---- paths ------------------------------------------------------------------------------ */

static int fail_link(const struct h5 *f, hid_t group, const char *link, const H5L_info_t *info,
                     struct lenet5_error *err) {
    char value[512] = "";
    const char *target = "", *object;
    const size_t size = info->u.val_size;
    if (size && size < sizeof value)
        H5Lget_val(group, link, value, sizeof value, H5P_DEFAULT);
    value[sizeof value - 1] = '\0';
    if (info->type == H5L_TYPE_EXTERNAL && size && size < sizeof value &&
        H5Lunpack_elink_val(value, size, NULL, &target, &object) >= 0)
        return fail(err, "%s: '%s' is an external link to %s; refused", f->name, link, target);
    return fail(err, "%s: '%s' is a %s; refused", f->name, link,
                info->type == H5L_TYPE_SOFT ? "soft link" : "link of a kind that is not plain");
}

/* Opens one link of a group; *next is -1 when there is none. */
static int open_step(const struct h5 *f, hid_t group, const char *link, hid_t *next,
                     struct lenet5_error *err) {
    H5L_info_t info;
    *next = -1;
    if (!strcmp(link, ".") || H5Lexists(group, link, H5P_DEFAULT) <= 0)
        return 0;
    if (H5Lget_info(group, link, &info, H5P_DEFAULT) < 0)
        return fail(err, "%s is damaged: the link '%s' cannot be read", f->name, link);
    if (info.type != H5L_TYPE_HARD)
        return fail_link(f, group, link, &info, err);
    *next = H5Oopen(group, link, H5P_DEFAULT);
    if (*next < 0)
        return fail(err, "%s is damaged: '%s' cannot be opened", f->name, link);
    return 0;
}

/* Opens what the path names; *found is -1 when there is nothing. */
static int open_path(const struct h5 *f, const char *path, hid_t *found,
                     struct lenet5_error *err) {
    hid_t here = H5Gopen2(f->id, "/", H5P_DEFAULT);
    *found = -1;
    if (here < 0)
        return fail(err, "%s is damaged: it has no top level", f->name);
    while (here >= 0 && *(path += strspn(path, "/"))) {
        char step[MAX_NAME];
        const size_t length = strcspn(path, "/");
        hid_t next = -1;
        int rc = 0;
        if (length < sizeof step && H5Iget_type(here) == H5I_GROUP) {
            memcpy(step, path, length);
            step[length] = '\0';
            rc = open_step(f, here, step, &next, err);
        }
        H5Oclose(here);
        if (rc)
            return -1;
        here = next;
        path += length;
    }
    *found = here;
    return 0;
}

int h5_node(const struct h5 *file, const char *path, struct lenet5_error *err) {
    hid_t id;
    if (open_path(file, path, &id, err))
        return -1;
    if (id < 0)
        return NODE_NONE;
    const H5I_type_t type = H5Iget_type(id);
    H5Oclose(id);
    return type == H5I_GROUP ? NODE_GROUP : type == H5I_DATASET ? NODE_DATASET : NODE_NONE;
}

/* ---- names ------------------------------------------------------------------------------ */

/* Adds a copy of at most length bytes. */
static int names_add(struct names *names, const char *text, size_t length) {
    char **items = names->item;
    if (names->count % 16 == 0) {
        items = realloc(items, (names->count + 16) * sizeof *items);
        if (!items)
            return -1;
        names->item = items;
    }
    items[names->count] = strndup(text, length);
    return items[names->count++] ? 0 : -1;
}

void names_free(struct names *names) {
    for (size_t k = 0; k < names->count; k++)
        free(names->item[k]);
    free(names->item);
    memset(names, 0, sizeof *names);
}

int h5_compare_names(const char *a, const char *b) {
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            char *end_a, *end_b;
            const unsigned long na = strtoul(a, &end_a, 10), nb = strtoul(b, &end_b, 10);
            if (na != nb)
                return na < nb ? -1 : 1;
            a = end_a;
            b = end_b;
        } else if (*a != *b)
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        else
            a++, b++;
    }
    return (*a != '\0') - (*b != '\0');
}

static int compare_counting(const void *a, const void *b) {
    return h5_compare_names(*(char *const *)a, *(char *const *)b);
}

/* Where its addresses count from; -1 if they are not of 8 bytes. */
static int find_base(const struct h5 *f, hsize_t *base) {
    size_t address = 0, length = 0;
    const hid_t made = H5Fget_create_plist(f->id);
    const int rc = H5Pget_sizes(made, &address, &length) < 0 ||
                           H5Pget_userblock(made, base) < 0 || address != 8 || length != 8
                       ? -1
                       : 0;
    H5Pclose(made);
    return rc;
}

uint64_t h5_address(const struct h5 *file, const char *group) {
    H5G_stat_t stat;
    const char *path = *group ? group : "/";
    return H5Gget_objinfo(file->id, path, 0, &stat) < 0 ? 0 : stat.objno[0];
}

int h5_bytes(const struct h5 *file, uint64_t address, void *bytes, size_t size) {
    hsize_t base = 0;
    if (!file->raw || find_base(file, &base) || address > LONG_MAX - base)
        return -1;
    return fseek(file->raw, (long)(base + address), SEEK_SET) ||
                   fread(bytes, 1, size, file->raw) < size
               ? -1
               : 0;
}

static herr_t add_link(hid_t group, const char *name, const H5L_info_t *info, void *names) {
    (void)group, (void)info;
    if (((struct names *)names)->count == MAX_NAMES)
        return 1;
    return names_add(names, name, strlen(name)) ? -1 : 0;
}

int h5_list(const struct h5 *file, const char *group, struct names *names,
            struct lenet5_error *err) {
    hid_t id;
    memset(names, 0, sizeof *names);
    if (open_path(file, group, &id, err))
        return -1;
    if (id < 0)
        return fail(err, "%s: there is no group '%s'", file->name, group);
    const herr_t rc = H5Literate(id, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_link, names);
    H5Oclose(id);
    if (rc) {
        names_free(names);
        return fail(err,
                    rc > 0 ? "%s: '/%s' holds more than %d names"
                           : "%s is damaged: the names in '/%s' cannot be listed",
                    file->name, group, MAX_NAMES);
    }
    if (names->count)
        qsort(names->item, names->count, sizeof *names->item, compare_counting);
    return 0;
}

/* ---- attributes ------------------------------------------------------------------------- */

static const char *const class_names[] = {
    "integer", "float",    "time",      "text", "bits",
    "opaque",  "compound", "reference", "enum", "variable-length list",
    "array"};

static const char *class_name(H5T_class_t class) {
    return (unsigned)class < sizeof class_names / sizeof *class_names ? class_names[class]
                                                                      : "unknown";
}

/* Opens an attribute; all three are -1 when it is not there. */
struct attribute {
    hid_t id, type, space;
    hssize_t count;
};

static void attribute_close(struct attribute *a) {
    if (a->space >= 0)
        H5Sclose(a->space);
    if (a->type >= 0)
        H5Tclose(a->type);
    if (a->id >= 0)
        H5Aclose(a->id);
}

static int attribute_open(const struct h5 *f, const char *path, const char *name,
                          struct attribute *a, struct lenet5_error *err) {
    hid_t object;
    a->id = a->type = a->space = -1;
    a->count = 0;
    if (open_path(f, path, &object, err))
        return -1;
    if (object < 0)
        return 0;
    const htri_t there = H5Aexists(object, name);
    if (there > 0 && (a->id = H5Aopen(object, name, H5P_DEFAULT)) >= 0) {
        a->type = H5Aget_type(a->id);
        a->space = H5Aget_space(a->id);
        a->count = H5Sget_simple_extent_npoints(a->space);
    }
    H5Oclose(object);
    if (there && (a->type < 0 || a->space < 0 || a->count < 0)) {
        attribute_close(a);
        return fail(err, "%s is damaged: the attribute '%s' of '/%s' cannot be read", f->name,
                    name, path);
    }
    return 0;
}

int h5_has(const struct h5 *file, const char *path, const char *attribute) {
    struct attribute a;
    if (attribute_open(file, path, attribute, &a, NULL))
        return 0;
    attribute_close(&a);
    return a.id >= 0;
}

/* Adds the strings of an open attribute of text; 1 when one is too long. The memory type must
   have the stored kind and character set; HDF5 converts neither. */
static int add_strings(const struct attribute *a, struct names *names) {
    const int variable = H5Tis_variable_str(a->type) > 0;
    const size_t size = variable ? sizeof(char *) : H5Tget_size(a->type);
    const size_t count = (size_t)a->count;
    int rc = -1;
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, variable ? H5T_VARIABLE : size);
    H5Tset_strpad(type, variable ? H5T_STR_NULLTERM : H5Tget_strpad(a->type));
    H5Tset_cset(type, H5Tget_cset(a->type));
    char *raw = calloc(count, size);
    char **pointers = (char **)(void *)raw;
    if (!raw || H5Aread(a->id, type, raw) < 0)
        goto out;
    rc = 0;
    for (size_t k = 0; k < count && !rc; k++) {
        const char *text = variable ? pointers[k] : raw + k * size;
        size_t length = !text ? 0 : variable ? strlen(text) : strnlen(text, size);
        while (length && H5Tget_strpad(a->type) == H5T_STR_SPACEPAD && text[length - 1] == ' ')
            length--;
        rc = length > MAX_TEXT ? 1 : names_add(names, length ? text : "", length);
    }
    if (variable)
        H5Dvlen_reclaim(type, a->space, H5P_DEFAULT, raw);
out:
    free(raw);
    H5Tclose(type);
    return rc;
}

/* Adds one attribute's strings; *found says whether it is there at all. */
static int strings_of(const struct h5 *f, const char *path, const char *name,
                      struct names *names, int *found, struct lenet5_error *err) {
    struct attribute a;
    int rc = 0;
    if (attribute_open(f, path, name, &a, err))
        return -1;
    *found = a.id >= 0;
    if (!*found || !a.count) {
        attribute_close(&a);
        return 0;
    }
    const H5T_class_t class = H5Tget_class(a.type);
    if (class != H5T_STRING)
        rc = fail(err, "%s: the attribute '%s' of '/%s' is of class %s, text was expected",
                  f->name, name, path, class_name(class));
    else if ((size_t)a.count + names->count > MAX_NAMES ||
             H5Tget_size(a.type) > (size_t)MAX_TEXT / (size_t)a.count)
        rc = fail(err, "%s: the attribute '%s' of '/%s' claims %lld strings of %zu bytes",
                  f->name, name, path, (long long)a.count, H5Tget_size(a.type));
    else if ((rc = add_strings(&a, names)))
        rc = fail(err,
                  rc > 0 ? "%s: the attribute '%s' of '/%s' has more than 1 MB of text"
                         : "%s is damaged: the attribute '%s' of '/%s' cannot be read",
                  f->name, name, path);
    attribute_close(&a);
    return rc;
}

int h5_strings(const struct h5 *file, const char *path, const char *attribute,
               struct names *names, struct lenet5_error *err) {
    int found = 0;
    memset(names, 0, sizeof *names);
    int rc = strings_of(file, path, attribute, names, &found, err);
    for (int part = 0, more = !found; !rc && more && part < MAX_NAMES; part++) {
        char name[80];
        snprintf(name, sizeof name, "%.64s%d", attribute, part);
        rc = strings_of(file, path, name, names, &more, err);
        found |= more;
    }
    if (!rc && !found)
        rc = fail(err, "%s: '/%s' has no attribute '%s'", file->name, path, attribute);
    if (rc)
        names_free(names);
    return rc;
}

int h5_text(const struct h5 *file, const char *path, const char *attribute, char **text,
            struct lenet5_error *err) {
    struct names names = {0};
    int found;
    *text = NULL;
    const int rc = strings_of(file, path, attribute, &names, &found, err);
    if (!rc && names.count) {
        *text = names.item[0];
        names.item[0] = NULL;
    }
    names_free(&names);
    return rc;
}

int h5_number(const struct h5 *file, const char *path, const char *attribute, double *number,
              struct lenet5_error *err) {
    struct attribute a;
    char *text = NULL, *end;
    int rc = 0;
    if (attribute_open(file, path, attribute, &a, err))
        return -1;
    const H5T_class_t class = a.id < 0 ? H5T_NO_CLASS : H5Tget_class(a.type);
    if (class == H5T_STRING) {
        rc = h5_text(file, path, attribute, &text, err);
        *number = text ? strtod(text, &end) : NAN;
        free(text);
    } else if ((class != H5T_INTEGER && class != H5T_FLOAT) || a.count != 1 ||
               H5Aread(a.id, H5T_NATIVE_DOUBLE, number) < 0)
        *number = NAN;
    if (!rc && !isfinite(*number))
        rc = fail(err, "%s: the attribute '%s' of '/%s' is not one number", file->name,
                  attribute, path);
    attribute_close(&a);
    return rc;
}

/* ---- data sets -------------------------------------------------------------------------- */

static int check_filters(const struct h5 *f, const char *path, hid_t plist,
                         struct lenet5_error *err) {
    const int filters = H5Pget_nfilters(plist);
    for (int k = 0; k < filters; k++) {
        unsigned flags;
        size_t values = 0;
        char name[64] = "";
        const H5Z_filter_t filter = H5Pget_filter2(plist, (unsigned)k, &flags, &values, NULL,
                                                   sizeof name - 1, name, NULL);
        if (filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE ||
            filter == H5Z_FILTER_FLETCHER32)
            continue;
        if (!*name)
            snprintf(name, sizeof name, "filter %d", (int)filter);
        return fail(err,
                    "%s: dataset '%s' is compressed with %s, which this HDF5 lacks; run "
                    "h5repack -f GZIP=4 in out",
                    f->name, path, name);
    }
    return 0;
}

/* Chunks are read one by one and whole, so their number and size are checked as well. */
static int check_chunks(const struct h5 *f, const char *path, hid_t set, hid_t plist,
                        const struct tensor *t, size_t cell, struct lenet5_error *err) {
    hsize_t chunk[TENSOR_RANK] = {0}, written = 0;
    double bytes = (double)cell, chunks = 1;
    if (H5Pget_chunk(plist, TENSOR_RANK, chunk) != t->rank)
        return fail(err, "%s is damaged: the chunks of dataset '%s' have another rank", f->name,
                    path);
    for (int k = 0; k < t->rank; k++) {
        bytes *= (double)chunk[k];
        chunks *= ceil((double)t->dim[k] / (double)chunk[k]);
    }
    if (bytes > MAX_CHUNK_BYTES || chunks > MAX_CHUNKS)
        return fail(err, "%s: dataset '%s' claims %.0f chunks of %.0f bytes", f->name, path,
                    chunks, bytes);
    hid_t space = H5Dget_space(set);
    const herr_t counted = H5Dget_num_chunks(set, space, &written);
    H5Sclose(space);
    if (counted < 0 || (double)written != chunks)
        return fail(err, "%s is damaged: dataset '%s' has %llu of %.0f chunks", f->name, path,
                    (unsigned long long)written, chunks);
    return 0;
}

/* Numbers in one piece: of the right size, not within those of another data set, and, which is
   only odd, not at a place that no float has in a file of floats. A damaged address shows so.
 */
static int check_contiguous(struct h5 *f, const char *path, hid_t set, const struct tensor *t,
                            size_t cell, struct lenet5_error *err) {
    const struct extent own = {H5Dget_offset(set), H5Dget_offset(set) + t->count * cell};
    if (H5Dget_storage_size(set) != t->count * cell || own.start == HADDR_UNDEF)
        return fail(err, "%s is damaged: dataset '%s' has %zu numbers in %llu bytes", f->name,
                    path, t->count, (unsigned long long)H5Dget_storage_size(set));
    for (int k = 0; k < f->extents; k++)
        if (own.start < f->extent[k].end && f->extent[k].start < own.end)
            return fail(err, "%s is damaged: dataset '%s' overlaps another one", f->name, path);
    if (f->extents < MAX_EXTENTS)
        f->extent[f->extents++] = own;
    if (cell >= 4 && own.start % 4)
        snprintf(f->warning, sizeof f->warning,
                 "dataset '%.100s' lies at an odd address; the file may be damaged", path);
    return 0;
}

static int check_storage(struct h5 *f, const char *path, hid_t set, size_t cell,
                         const struct tensor *t, struct lenet5_error *err) {
    hid_t plist = H5Dget_create_plist(set);
    char other[256] = "";
    int rc = 0;
    if (plist < 0)
        return fail(err, "%s is damaged: dataset '%s' cannot be opened", f->name, path);
    const H5D_layout_t layout = H5Pget_layout(plist);
    if (H5Pget_external_count(plist) > 0) {
        H5Pget_external(plist, 0, sizeof other - 1, other, NULL, NULL);
        rc = fail(err, "%s: dataset '%s' keeps its numbers in another file, %s; refused",
                  f->name, path, other);
    } else if (layout == H5D_VIRTUAL)
        rc = fail(err, "%s: dataset '%s' is virtual, made of other data sets; refused", f->name,
                  path);
    else if (layout == H5D_CHUNKED)
        rc = check_filters(f, path, plist, err) ||
             check_chunks(f, path, set, plist, t, cell, err);
    else if (layout == H5D_CONTIGUOUS)
        rc = check_contiguous(f, path, set, t, cell, err);
    H5Pclose(plist);
    return rc ? -1 : 0;
}

static int check_extent(const struct h5 *f, const char *path, hid_t space, struct tensor *t,
                        struct lenet5_error *err) {
    hsize_t dims[H5S_MAX_RANK];
    const int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    double count = 1;
    if (H5Sget_simple_extent_type(space) == H5S_NULL || rank < 0)
        return fail(err, "%s: dataset '%s' is empty", f->name, path);
    if (rank > TENSOR_RANK)
        return fail(err, "%s: dataset '%s' has %d dimensions; no layer's weights have", f->name,
                    path, rank);
    for (int k = 0; k < rank; k++)
        count *= (double)dims[k];
    if (count < 1)
        return fail(err, "%s: dataset '%s' is empty", f->name, path);
    if (count > MAX_PARAMETERS)
        return fail(err, "%s: dataset '%s' claims %.0f numbers; at most %d can be converted",
                    f->name, path, count, MAX_PARAMETERS);
    t->rank = rank;
    t->count = (size_t)count;
    for (int k = 0; k < rank; k++)
        t->dim[k] = (size_t)dims[k];
    return 0;
}

/* Is it one of the formats of IEEE 754? HDF5 can describe any other as well, and does when a
   byte of the description is damaged. */
static int is_ieee(hid_t type) {
    static const size_t widths[][2] = {{5, 10}, {8, 23}, {11, 52}}; /* exponent, mantissa */
    size_t sign, exponent_at, exponent, mantissa_at, mantissa;
    const size_t bits = 8 * H5Tget_size(type);
    if (H5Tget_fields(type, &sign, &exponent_at, &exponent, &mantissa_at, &mantissa) < 0)
        return 0;
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++)
        if (bits == 1 + widths[k][0] + widths[k][1])
            return H5Tget_precision(type) == bits && H5Tget_offset(type) == 0 &&
                   sign == bits - 1 && exponent_at == widths[k][1] &&
                   exponent == widths[k][0] && mantissa_at == 0 && mantissa == widths[k][1] &&
                   H5Tget_ebias(type) == (1u << (exponent - 1)) - 1 &&
                   H5Tget_norm(type) == H5T_NORM_IMPLIED &&
                   (H5Tget_order(type) == H5T_ORDER_LE || H5Tget_order(type) == H5T_ORDER_BE);
    return 0;
}

static int check_type(const struct h5 *f, const char *path, hid_t type,
                      struct lenet5_error *err) {
    const H5T_class_t class = H5Tget_class(type);
    const size_t size = H5Tget_size(type);
    if (class == H5T_FLOAT && is_ieee(type))
        return 0;
    if (class == H5T_OPAQUE && size == 2) /* what h5py makes of bfloat16 */
        return 0;
    if (class == H5T_INTEGER)
        return fail(err, "%s: dataset '%s' is %sint%zu: a quantised model; save the float one",
                    f->name, path, H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", 8 * size);
    return fail(err,
                "%s: dataset '%s' is of class %s, %zu bytes; floats of 16, 32 or 64 bits were "
                "expected",
                f->name, path, class_name(class), size);
}

/* bfloat16 is the upper half of a float. Widens in place, from the end. */
static void widen_bfloat16(float *data, size_t count) {
    const unsigned char *half = (const unsigned char *)data;
    for (size_t k = count; k-- > 0;) {
        const uint32_t bits = (uint32_t)half[2 * k] << 16 | (uint32_t)half[2 * k + 1] << 24;
        memcpy(&data[k], &bits, sizeof bits);
    }
}

/* Numbers far beyond what training can reach are bytes of something else. */
enum { MAX_EXPONENT = 50 };

static int check_finite(const struct h5 *f, const char *path, const struct tensor *t,
                        struct lenet5_error *err) {
    size_t nans = 0, infinities = 0;
    for (size_t k = 0; k < t->count; k++) {
        nans += isnan(t->data[k]) != 0;
        infinities += isinf(t->data[k]) != 0;
    }
    if (nans)
        return fail(err, "%s: dataset '%s' has %zu NaN%s (training diverged?)", f->name, path,
                    nans, nans > 1 ? "s" : "");
    if (infinities)
        return fail(err, "%s: dataset '%s' has %zu infinit%s (training diverged?)", f->name,
                    path, infinities, infinities > 1 ? "ies" : "y");
    for (size_t k = 0; k < t->count; k++)
        if (fabsf(t->data[k]) > ldexpf(1, MAX_EXPONENT))
            return fail(err, "%s: dataset '%s' holds %g (damaged, or training diverged?)",
                        f->name, path, (double)t->data[k]);
    return 0;
}

/* Damage that leaves a data set readable: another byte order than its neighbours have, or
   HDF5's own structures among the numbers. Said, not refused: both could be meant. */
static void find_oddities(struct h5 *f, const char *path, hid_t type, const struct tensor *t) {
    static const char *const signatures[] = {"TREE", "HEAP", "SNOD", "GCOL", "OHDR"};
    const H5T_order_t order = H5Tget_order(type);
    if (f->floats_read++ && order != f->order)
        snprintf(f->warning, sizeof f->warning,
                 "dataset '%.100s' has another byte order than others; the file may be damaged",
                 path);
    f->order = order;
    for (size_t k = 0; k < t->count; k++)
        for (int s = 0; s < 5; s++)
            if (!memcmp(&t->data[k], signatures[s], 4))
                snprintf(
                    f->warning, sizeof f->warning,
                    "dataset '%.100s' holds a piece of HDF5's own structures; the file may "
                    "be damaged",
                    path);
}

static int read_floats(struct h5 *f, const char *path, hid_t set, struct tensor *t,
                       struct lenet5_error *err) {
    int rc = -1;
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    if (type < 0 || space < 0) {
        fail(err, "%s is damaged: dataset '%s' cannot be opened", f->name, path);
        goto out;
    }
    if (check_type(f, path, type, err) || check_extent(f, path, space, t, err) ||
        check_storage(f, path, set, H5Tget_size(type), t, err))
        goto out;
    const int opaque = H5Tget_class(type) == H5T_OPAQUE;
    t->data = malloc(t->count * sizeof *t->data);
    if (!t->data)
        fail(err, "%s: out of memory, %zu numbers", f->name, t->count);
    else if (H5Dread(set, opaque ? type : H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                     t->data) < 0)
        fail(err, "%s is damaged: the numbers of dataset '%s' cannot be read", f->name, path);
    else {
        if (opaque)
            widen_bfloat16(t->data, t->count);
        else
            find_oddities(f, path, type, t);
        rc = check_finite(f, path, t, err);
    }
out:
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return rc;
}

const char *h5_warning(const struct h5 *file) {
    return file->warning;
}

int h5_floats(struct h5 *file, const char *path, struct tensor *tensor,
              struct lenet5_error *err) {
    hid_t set;
    memset(tensor, 0, sizeof *tensor);
    if (open_path(file, path, &set, err))
        return -1;
    if (set < 0 || H5Iget_type(set) != H5I_DATASET) {
        if (set >= 0)
            H5Oclose(set);
        return fail(err, "%s: there is no dataset '%s'", file->name, path);
    }
    const int rc = read_floats(file, path, set, tensor, err);
    H5Oclose(set);
    if (rc)
        tensor_free(tensor);
    return rc;
}

void tensor_free(struct tensor *tensor) {
    free(tensor->data);
    memset(tensor, 0, sizeof *tensor);
}

const char *tensor_shape(const struct tensor *tensor, char text[64]) {
    size_t used = 0;
    snprintf(text, 64, "a single number");
    for (int k = 0; k < tensor->rank && used < 64; k++)
        used += (size_t)snprintf(text + used, 64 - used, k ? "x%zu" : "%zu", tensor->dim[k]);
    return text;
}
