/* SPDX-License-Identifier: MIT
 *
 * example.c - the usage example at the top of lenet5.h as a program, C and C++ alike. cli.bats
 * compiles it with that header alone, links it once with liblenet5.a and once with
 * liblenet5.so, runs it beside a lenet5_mnist.bin, and checks that every line of the example
 * stands here.
 */
#include "lenet5.h"

#include <stdio.h>
#include <string.h>

int main(void) {
    struct lenet5_error err;
    struct lenet5 *net;
    if (lenet5_open(&net, "lenet5_mnist.bin", NULL, &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    uint8_t image[28 * 28]; // 0 is paper, 255 is ink
    float logits[10];
    memset(image, 0, sizeof image);
    if (lenet5_run(net, image, 1, logits, &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    printf("version %s, backend %s, %d classes\n", LENET5_VERSION, lenet5_info(net)->backend,
           lenet5_info(net)->classes);
    printf("a blank image looks like a %d\n", lenet5_argmax(logits, 10));
    lenet5_close(net);
    return 0;
}
