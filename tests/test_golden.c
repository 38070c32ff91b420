/* SPDX-License-Identifier: MIT
 *
 * test_golden.c - converter and engine together give Keras' own outputs: each model file of
 * tests/golden, saved by some Keras between 0.3 and 3.15, is converted by the h5_to_blob
 * binary, opened on each backend that works here, run on the images of its manifest, and
 * compared with what that Keras said: to 1e-4 * max(1, |expected|) where the backend is exact,
 * to its own tolerance where not. scripts/golden.py made the files.
 *
 *   H5_TO_BLOB=path            the converter, else $BUILD/h5_to_blob, else that of build/cpu
 *   LENET5_TEST_BACKEND=name   only this backend, which must then open
 *   GOLDEN=text                only goldens whose name contains the text
 *
 * Run from the root of the project.
 */
#define _POSIX_C_SOURCE 200809L

#include "backend.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <zlib.h>

#define FOLDER "tests/golden"

enum { MAX_GOLDENS = 512, MAX_IMAGES = 8, MAX_CLASSES = 64, MAX_ARGUMENTS = 32, PATH = 512 };

struct golden {
    const char *name; /* of the manifest, without .json */
    json_t *json;     /* owned */
    char model[PATH], blob[PATH], log[PATH];
    struct shape input;
    size_t images, classes;
    uint8_t *bytes; /* owned, images * size of the input */
    double expected[MAX_IMAGES * MAX_CLASSES];
};

static char scratch[] = "/tmp/lenet5_golden_XXXXXX";

/* ---- the comparison ---- */

/* Largest error relative to max(1, |expected|); NaN if any number is NaN. */
static double worst_error(const float *got, const double *expected, size_t n) {
    double worst = 0;
    for (size_t k = 0; k < n; k++) {
        double error = fabs(got[k] - expected[k]) / fmax(1, fabs(expected[k]));
        if (!(error <= worst))
            worst = error;
        if (isnan(worst))
            return worst;
    }
    return worst;
}

static int good(double error, double tolerance) {
    return error <= tolerance; /* NaN is not */
}

static void test_checker(void **state) {
    (void)state;
    const double expected[] = {0.5, -20, 3};
    const float right[] = {0.50009f, -20.0019f, 3}, wrong[] = {0.5f, -20.0021f, 3};
    const float last[] = {0.5f, -20, 3.0004f}, nan[] = {0.5f, NAN, 3}, first[] = {NAN, -20, 3};
    assert_true(good(worst_error(right, expected, 3), EXACT));
    assert_false(good(worst_error(wrong, expected, 3), EXACT));
    assert_false(good(worst_error(last, expected, 3), EXACT));
    assert_false(good(worst_error(nan, expected, 3), EXACT));
    assert_false(good(worst_error(first, expected, 3), EXACT));
    assert_false(good(worst_error((float[]){INFINITY}, expected, 1), EXACT));
}

/* ---- reading a manifest ---- */

static const char *text(const struct golden *g, const char *key) {
    const char *value = json_string_value(json_object_get(g->json, key));
    if (!value)
        fail_msg("%s.json has no text \"%s\"", g->name, key);
    return value;
}

static void read_images(struct golden *g) {
    const json_t *images = json_object_get(g->json, "images");
    size_t size = shape_size(g->input);
    g->images = json_array_size(images);
    assert_in_range(g->images, 1, MAX_IMAGES);
    g->bytes = malloc(g->images * size);
    assert_non_null(g->bytes);
    for (size_t i = 0; i < g->images; i++) {
        const json_t *image = json_array_get(images, i);
        assert_int_equal(json_array_size(image), size);
        for (size_t k = 0; k < size; k++)
            g->bytes[i * size + k] = (uint8_t)json_integer_value(json_array_get(image, k));
    }
}

static void read_outputs(struct golden *g) {
    const json_t *outputs = json_object_get(g->json, "outputs");
    assert_int_equal(json_array_size(outputs), g->images);
    g->classes = json_array_size(json_array_get(outputs, 0));
    assert_in_range(g->classes, 1, MAX_CLASSES);
    for (size_t i = 0; i < g->images; i++) {
        const json_t *row = json_array_get(outputs, i);
        assert_int_equal(json_array_size(row), g->classes);
        for (size_t k = 0; k < g->classes; k++)
            g->expected[i * g->classes + k] = json_number_value(json_array_get(row, k));
    }
}

static void read_manifest(struct golden *g) {
    char path[PATH];
    json_error_t e;
    snprintf(path, sizeof path, "%s/%s.json", FOLDER, g->name);
    g->json = json_load_file(path, 0, &e);
    if (!g->json)
        fail_msg("%s:%d: %s", path, e.line, e.text);
    if (json_unpack_ex(g->json, &e, 0, "{s:[i,i,i!]}", "input", &g->input.c, &g->input.h,
                       &g->input.w))
        fail_msg("%s: %s", path, e.text);
    read_images(g);
    read_outputs(g);
}

/* ---- converting ---- */

/* The model file itself, or what its .gz holds, under its own name in the scratch folder. */
static void unpack(struct golden *g) {
    const char *file = text(g, "file"), *gz = strstr(file, ".gz");
    if (!gz) {
        snprintf(g->model, PATH, "%s/%s", FOLDER, file);
        return;
    }
    char path[PATH], part[4096];
    snprintf(path, PATH, "%s/%s", FOLDER, file);
    snprintf(g->model, PATH, "%s/%.*s", scratch, (int)(gz - file), file);
    gzFile in = gzopen(path, "rb");
    FILE *out = fopen(g->model, "wb");
    if (!in || !out)
        fail_msg("cannot unpack %s to %s", path, g->model);
    int n;
    while ((n = gzread(in, part, sizeof part)) > 0)
        assert_int_equal(fwrite(part, 1, (size_t)n, out), n);
    assert_int_equal(n, 0);
    assert_int_equal(gzclose(in), Z_OK);
    assert_int_equal(fclose(out), 0);
}

static void print_log(const struct golden *g) {
    char line[512];
    FILE *f = fopen(g->log, "r");
    while (f && fgets(line, sizeof line, f))
        print_message("    %s", line);
    if (f)
        fclose(f);
}

static void exec_converter(char **argv, const char *log) {
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0 && dup2(fd, 1) >= 0 && dup2(fd, 2) >= 0)
        execv(argv[0], argv);
    dprintf(2, "cannot run %s\n", argv[0]);
    _exit(127);
}

static void convert(struct golden *g) {
    char *argv[MAX_ARGUMENTS], flags[512], converter[PATH];
    const char *named = getenv("H5_TO_BLOB"), *build = getenv("BUILD");
    int argc = 0, status = 0;
    snprintf(converter, PATH, "%s%s",
             named   ? named
             : build ? build
                     : "build/cpu",
             named ? "" : "/h5_to_blob");
    argv[argc++] = converter;
    snprintf(flags, sizeof flags, "%s", text(g, "flags"));
    for (char *f = strtok(flags, " "); f && argc < MAX_ARGUMENTS - 3; f = strtok(NULL, " "))
        argv[argc++] = f;
    snprintf(g->blob, PATH, "%s/%s.bin", scratch, g->name);
    snprintf(g->log, PATH, "%s/%s.log", scratch, g->name);
    argv[argc++] = g->model;
    argv[argc++] = g->blob;
    argv[argc] = NULL;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid)
        exec_converter(argv, g->log);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        print_log(g);
        fail_msg("%s %s %s: wait status %d", argv[0], text(g, "flags"), g->model, status);
    }
}

/* ---- running ---- */

static int probabilities(const struct golden *g) {
    return !strcmp(text(g, "kind"), "probabilities");
}

static void check_info(const struct golden *g, const struct lenet5_info *info) {
    assert_int_equal(info->channels, g->input.c);
    assert_int_equal(info->height, g->input.h);
    assert_int_equal(info->width, g->input.w);
    assert_int_equal(info->classes, g->classes);
    if (!strchr("ABDFK", text(g, "layout")[0])) /* those hold weights only, and cannot say */
        assert_int_equal(info->softmax, probabilities(g));
}

/* 0 if the backend does not open here, though it need not. */
static int run(const struct golden *g, const struct backend *b, int must) {
    const char *backend = b->name;
    struct lenet5_options options = {.backend = backend, .max_batch = 2};
    struct lenet5_error err;
    struct lenet5 *net;
    float out[MAX_IMAGES * MAX_CLASSES];
    if (lenet5_open(&net, g->blob, &options, &err)) {
        if (must)
            fail_msg("%s on %s: %s", g->name, backend, err.message);
        return 0;
    }
    check_info(g, lenet5_info(net));
    if (lenet5_run(net, g->bytes, g->images, out, &err))
        fail_msg("%s on %s: %s", g->name, backend, err.message);
    if (probabilities(g))
        lenet5_softmax(out, g->images, (int)g->classes, out);
    lenet5_close(net);
    double error = worst_error(out, g->expected, g->images * g->classes);
    print_message("  %-40s %-10s max error %.1e\n", g->name, backend, error);
    if (!good(error, b->tolerance)) {
        print_log(g);
        for (size_t k = 0; k < g->images * g->classes; k++)
            print_message("    %3zu: %12.6f, Keras %12.6f\n", k, out[k], g->expected[k]);
        fail_msg("%s on %s: wrong by %g", g->name, backend, error);
    }
    return 1;
}

static void test_one(void **state) {
    struct golden *g = *state;
    const char *only = getenv("LENET5_TEST_BACKEND");
    read_manifest(g);
    unpack(g);
    convert(g);
    if (only) {
        assert_non_null(backend_find(only, NULL));
        run(g, backend_find(only, NULL), 1);
        return;
    }
    for (const struct backend *const *b = backends; *b; b++)
        run(g, *b, *b == &backend_reference);
}

static int close_one(void **state) {
    struct golden *g = *state;
    if (strncmp(g->model, FOLDER, strlen(FOLDER)))
        unlink(g->model);
    unlink(g->blob);
    unlink(g->log);
    free(g->bytes);
    json_decref(g->json);
    return 0;
}

/* ---- one test a manifest ---- */

static int is_manifest(const struct dirent *entry) {
    const char *end = strstr(entry->d_name, ".json"), *part = getenv("GOLDEN");
    return end && !end[5] && (!part || strstr(entry->d_name, part));
}

int main(void) {
    static struct golden goldens[MAX_GOLDENS];
    static struct CMUnitTest tests[MAX_GOLDENS + 1] = {cmocka_unit_test(test_checker)};
    struct dirent **entries;
    int n = scandir(FOLDER, &entries, is_manifest, alphasort);
    if (n <= 0 || n > MAX_GOLDENS || !mkdtemp(scratch)) {
        fprintf(stderr, "%d manifests in " FOLDER ", expected 1 to %d; run from the root\n", n,
                MAX_GOLDENS);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        *strrchr(entries[i]->d_name, '.') = 0;
        goldens[i].name = entries[i]->d_name;
        tests[i + 1] = (struct CMUnitTest){.name = entries[i]->d_name,
                                           .test_func = test_one,
                                           .teardown_func = close_one,
                                           .initial_state = &goldens[i]};
    }
    int failed = _cmocka_run_group_tests("golden", tests, (size_t)n + 1, NULL, NULL);
    rmdir(scratch);
    for (int i = 0; i < n; i++)
        free(entries[i]);
    free(entries);
    return failed;
}
