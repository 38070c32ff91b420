/* SPDX-License-Identifier: MIT
 *
 * torch.c - layout K: a PyTorch state_dict that was dumped with h5py, one data set a tensor:
 * conv1.weight, conv1.bias, fc1.weight, ... Kernels are [out][in][rows][columns], linear layers
 * [out][in], maps were flattened channels first.
 */
#define _POSIX_C_SOURCE 200809L
#include "keras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int role_of(const char *field, int is_norm) {
    if (!strcmp(field, "weight"))
        return is_norm ? GAMMA : KERNEL;
    if (!strcmp(field, "bias"))
        return is_norm ? BETA : BIAS;
    if (!strcmp(field, "running_mean"))
        return MEAN;
    return !strcmp(field, "running_var") ? VARIANCE : ROLE_END;
}

static int is_listed(const struct names *names, const char *layer, size_t length,
                     const char *field) {
    for (size_t i = 0; i < names->count; i++)
        if (!strncmp(names->item[i], layer, length) && names->item[i][length] == '.' &&
            !strcmp(names->item[i] + length + 1, field))
            return 1;
    return 0;
}

static int finish(struct keras *k, struct unit *u, struct lenet5_error *err) {
    const int rank = u->array[KERNEL].rank;
    for (int role = 0; role < ROLE_END; role++)
        u->has[role] = u->array[role].count != 0;
    if (u->has[MEAN] && u->has[VARIANCE] && !u->has[KERNEL]) {
        u->kind = KIND_SCALE;
        u->epsilon = 1e-5;
        snprintf(u->type, sizeof u->type, "BatchNorm2d");
    } else if (rank == 4) {
        u->kind = KIND_CONV;
        u->kernel = ORDER_CHW;
        snprintf(u->type, sizeof u->type, "Conv2d");
    } else if (rank == 2) {
        u->kind = KIND_DENSE;
        u->transposed = 1;
        snprintf(u->type, sizeof u->type, "Linear");
    } else
        return fail(err, "%s: '%s' is neither a Conv2d, a Linear nor a BatchNorm", k->path,
                    u->name);
    return 0;
}

/* The names are sorted: those of one layer follow each other. */
int torch_collect(struct keras *k, struct h5 *h5, struct lenet5_error *err) {
    struct names names;
    struct unit *u = NULL;
    int rc = h5_list(h5, "", &names, err);
    for (size_t i = 0; i < names.count && !rc; i++) {
        const char *name = names.item[i], *dot = strrchr(name, '.');
        const size_t length = dot ? (size_t)(dot - name) : strlen(name);
        char layer[NAME_SIZE];
        if (dot && !strcmp(dot, ".num_batches_tracked"))
            continue;
        const int role =
            dot ? role_of(dot + 1, is_listed(&names, name, length, "running_mean")) : ROLE_END;
        if (role == ROLE_END) {
            rc = fail(err, "%s holds a PyTorch state dict, of which '%s' is not known", k->path,
                      name);
            break;
        }
        snprintf(layer, sizeof layer, "%.*s", (int)length, name);
        if (!u || strcmp(u->name, layer)) {
            rc = u ? finish(k, u, err) : 0;
            u = rc ? NULL : keras_add(k, KIND_NOTHING, "", layer, err);
        }
        rc = !u || keras_take(u, (enum role)role, h5, name, err) ? -1 : 0;
    }
    names_free(&names);
    return !rc && u ? finish(k, u, err) : -1;
}
