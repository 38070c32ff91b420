/* SPDX-License-Identifier: MIT
 *
 * links.c - in which order were the links of a group made?
 *
 * HDF5 lists links by the alphabet unless a file was told to remember more, which Keras never
 * does. But the groups that it makes keep the names of their links in a heap, each behind those
 * that were there before it, so that where a name lies says when it came. Keras makes the
 * groups of a .weights.h5 in the order of the layers: this is all that tells it.
 *
 * Read are the group's header (version 1), the address of its heap and the heap's names, as
 * HDF5's file format specification lays them out; what is otherwise tells nothing and is no
 * error. A file that h5repack has renewed tells the alphabet: whoever asks must look whether
 * the order makes sense.
 */
#include "h5.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 1 << 16, /* bytes in one part of a header */
    MAX_HEAP = 1 << 16,   /* bytes of names */
    MAX_PARTS = 16,       /* of a header */
    SYMBOL_TABLE = 0x11,  /* the message that holds the heap's address */
    CONTINUATION = 0x10   /* the message that says where the next part lies */
};

static uint64_t little_endian(const uint8_t *bytes, int count) {
    uint64_t value = 0;
    while (count--)
        value = value << 8 | bytes[count];
    return value;
}

/* A part of a header, as it is said somewhere else. */
struct part {
    uint64_t address, size;
};

/* The address of the heap in a part of a header, 0 if it is not there; then *next is where the
   header goes on. */
static uint64_t find_heap(const struct h5 *file, struct part part, struct part *next) {
    uint64_t heap = 0;
    next->size = 0;
    if (!part.size || part.size > MAX_HEADER)
        return 0;
    uint8_t *bytes = malloc((size_t)part.size);
    const int rc = bytes ? h5_bytes(file, part.address, bytes, (size_t)part.size) : -1;
    for (uint64_t at = 0; !rc && !heap && at + 24 <= part.size;) {
        const uint8_t *message = bytes + at;
        const uint64_t type = little_endian(message, 2);
        if (type == SYMBOL_TABLE)
            heap = little_endian(message + 16, 8);
        if (type == CONTINUATION)
            *next =
                (struct part){little_endian(message + 8, 8), little_endian(message + 16, 8)};
        at += 8 + little_endian(message + 2, 2);
    }
    free(bytes);
    return heap;
}

/* The names of a group's links, each ended by a zero; the caller's to free. NULL if unknown. */
static char *read_heap(const struct h5 *file, const char *group, size_t *size) {
    uint8_t head[32];
    const uint64_t address = h5_address(file, group);
    uint64_t heap = 0;
    if (!address || h5_bytes(file, address, head, 16) || head[0] != 1)
        return NULL;
    struct part part = {address + 16, little_endian(head + 8, 4)};
    for (int parts = 0; !heap && part.size && parts < MAX_PARTS; parts++)
        heap = find_heap(file, part, &part);
    if (!heap || h5_bytes(file, heap, head, sizeof head) || memcmp(head, "HEAP", 4))
        return NULL;
    *size = (size_t)little_endian(head + 8, 8);
    if (!*size || *size > MAX_HEAP)
        return NULL;
    char *names = malloc(*size + 1);
    if (names && h5_bytes(file, little_endian(head + 24, 8), names, *size)) {
        free(names);
        return NULL;
    }
    if (names)
        names[*size] = '\0';
    return names;
}

struct place {
    size_t at;
    char *name;
};

static int compare_places(const void *a, const void *b) {
    const size_t x = ((const struct place *)a)->at, y = ((const struct place *)b)->at;
    return (x > y) - (x < y);
}

/* Names begin at multiples of 8, behind the zeros of the one before: else it would be the end
   of a longer name. The first is the empty one. */
static size_t find_name(const char *heap, size_t size, const char *name) {
    for (size_t at = 8; at < size; at += 8)
        if (!heap[at - 1] && !strcmp(heap + at, name))
            return at;
    return 0;
}

int h5_order_links(const struct h5 *file, const char *group, struct names *names) {
    size_t size = 0;
    int known = 1;
    char *heap = read_heap(file, group, &size);
    struct place *places = calloc(names->count + 1, sizeof *places);
    for (size_t k = 0; heap && places && k < names->count; k++) {
        places[k] = (struct place){find_name(heap, size, names->item[k]), names->item[k]};
        known &= places[k].at != 0;
    }
    known &= heap && places;
    if (known) {
        qsort(places, names->count, sizeof *places, compare_places);
        for (size_t k = 0; k < names->count; k++)
            names->item[k] = places[k].name;
    }
    free(heap);
    free(places);
    return known;
}
