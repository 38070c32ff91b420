/* SPDX-License-Identifier: MIT
 *
 * show.c - lenet5 --show N: an image in the terminal, with its label.
 */
#define _POSIX_C_SOURCE 200809L
#include "command.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One pixel's grey from the first channel (0 outside), ink bright. */
static int grey(const struct dataset *set, size_t image, int row, int column) {
    const size_t pixels = (size_t)set->height * set->width;
    if (row >= set->height)
        return 0;
    return set->images[image * set->channels * pixels + (size_t)row * set->width + column];
}

static int wants_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("COLORTERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term &&
           (!strcmp(term, "truecolor") || !strcmp(term, "24bit"));
}

/* Two image rows a terminal row: the upper half block in two colours, or plain characters. */
static void draw(const struct dataset *set, size_t image) {
    static const char ramp[] = " .:-=+*#%@";
    const int colour = wants_colour();
    for (int row = 0; row < set->height; row += colour ? 2 : 1) {
        for (int k = 0; k < set->width; k++) {
            const int a = grey(set, image, row, k), b = grey(set, image, row + 1, k);
            const char c = ramp[a * (int)(sizeof ramp - 2) / 255];
            if (colour)
                printf("\033[38;2;%d;%d;%dm\033[48;2;%d;%d;%dm\xe2\x96\x80", a, a, a, b, b, b);
            else
                printf("%c%c", c, c);
        }
        printf(colour ? "\033[0m\n" : "\n");
    }
}

static json_t *image_json(const struct dataset *set, size_t image) {
    json_t *rows = json_array();
    for (int row = 0; row < set->height; row++) {
        json_t *pixels = json_array();
        for (int k = 0; k < set->width; k++)
            json_array_append_new(pixels, json_integer(grey(set, image, row, k)));
        json_array_append_new(rows, pixels);
    }
    return rows;
}

int mode_show(const struct options *o, struct lenet5_error *err) {
    const size_t image = (size_t)o->show;
    struct dataset set;
    if (open_dataset(&set, o, "", err))
        return -1;
    const int label = set.labels[image < set.count ? image : 0];
    int rc = 0;
    if (image >= set.count)
        rc = fail(err, "--show %zu: %s has %zu images, 0 to %zu", image, set.name, set.count,
                  set.count - 1);
    else if (o->json)
        rc = print_json(json_pack("{s:i, s:s, s:s, s:I, s:i, s:s, s:o}", "version",
                                  JSON_VERSION, "mode", "show", "dataset", set.name, "image",
                                  (json_int_t)image, "label", label, "class",
                                  set.class_names[label], "pixels", image_json(&set, image)),
                        err);
    else {
        draw(&set, image);
        printf("image %zu of %s: %s\n", image, long_name(&set), set.class_names[label]);
    }
    dataset_close(&set);
    return rc;
}
