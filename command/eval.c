/* SPDX-License-Identifier: MIT
 *
 * eval.c - lenet5 --eval: accuracy and its interval, per class, where the time went; and where
 * the score is poor, a hint why.
 */
#define _GNU_SOURCE /* strcasestr */
#include "command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct evaluation {
    size_t count, correct;
    size_t confusion[CLASSES][CLASSES]; /* [true][predicted] */
    double low, high;                   /* 95 % interval of the accuracy */
    double read_seconds, open_seconds, wall_seconds;
    struct lenet5_timing timing;
};

/* Wilson's score interval for a proportion (Wilson 1927): z = 1.96 for 95 %. */
static void wilson(struct evaluation *e) {
    const double z = 1.959964, n = (double)e->count, p = (double)e->correct / n;
    const double middle = p + z * z / (2 * n);
    const double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    e->low = (middle - half) / (1 + z * z / n);
    e->high = (middle + half) / (1 + z * z / n);
}

/* Fills the counts, the interval and the times of one run over the set. */
static int evaluate(struct lenet5 *net, const struct options *o, const struct dataset *set,
                    struct evaluation *e, struct lenet5_error *err) {
    float *logits = (float *)malloc(set->count * CLASSES * sizeof *logits);
    int rc = -1;
    if (!logits)
        return fail(err, "out of memory for %zu logits", set->count * CLASSES);
    /* one image first, so that loading the kernels is not counted */
    if (!lenet5_run(net, set->images, 1, logits, err)) {
        const double start = clock_seconds();
        rc = run_all(net, o, set, logits, &e->timing, err);
        e->wall_seconds = clock_seconds() - start;
    }
    e->count = set->count;
    e->correct = 0;
    memset(e->confusion, 0, sizeof e->confusion);
    for (size_t i = 0; !rc && i < set->count; i++) {
        const int guess = lenet5_argmax(logits + i * CLASSES, CLASSES);
        e->confusion[set->labels[i]][guess]++;
        e->correct += guess == set->labels[i];
    }
    wilson(e);
    free(logits);
    return rc;
}

struct score {
    double precision, recall, f1;
    size_t support;
};

/* Precision, recall and F1 as scikit-learn defines them; 0 where a denominator is 0. */
static struct score class_score(const struct evaluation *e, int class_) {
    size_t truly = 0, guessed = 0;
    const double hit = (double)e->confusion[class_][class_];
    struct score s = {0, 0, 0, 0};
    for (int k = 0; k < CLASSES; k++) {
        truly += e->confusion[class_][k];
        guessed += e->confusion[k][class_];
    }
    s.support = truly;
    s.precision = guessed ? hit / (double)guessed : 0;
    s.recall = truly ? hit / (double)truly : 0;
    s.f1 = truly + guessed ? 2 * hit / (double)(truly + guessed) : 0;
    return s;
}

/* The mean over classes: all alike, or weighted by their support. */
static struct score mean_score(const struct evaluation *e, int weighted) {
    struct score mean = {0, 0, 0, e->count};
    for (int k = 0; k < CLASSES; k++) {
        const struct score s = class_score(e, k);
        const double share = weighted ? (double)s.support / (double)e->count : 1.0 / CLASSES;
        mean.precision += share * s.precision;
        mean.recall += share * s.recall;
        mean.f1 += share * s.f1;
    }
    return mean;
}

static double accuracy(const struct evaluation *e) {
    return (double)e->correct / (double)e->count;
}

static void print_score(const char *name, const struct score *s) {
    printf("%12s %11.2f%10.2f%10.2f%10zu\n", name, s->precision, s->recall, s->f1, s->support);
}

/* The layout of scikit-learn's classification_report. */
static void print_report(const struct evaluation *e, const struct dataset *set) {
    const struct score macro = mean_score(e, 0), weighted = mean_score(e, 1);
    printf("\n%12s %11s%10s%10s%10s\n\n", "", "precision", "recall", "f1-score", "support");
    for (int k = 0; k < CLASSES; k++) {
        const struct score s = class_score(e, k);
        print_score(set->class_names[k], &s);
    }
    printf("\n%12s %11s%10s%10.2f%10zu\n", "accuracy", "", "", accuracy(e), e->count);
    print_score("macro avg", &macro);
    print_score("weighted avg", &weighted);
    printf("\nconfusion matrix (rows: true class, columns: predicted)\n%12s", "");
    for (int k = 0; k < CLASSES; k++)
        printf("%6d", k);
    for (int row = 0; row < CLASSES; row++) {
        printf("\n%12s", set->class_names[row]);
        for (int k = 0; k < CLASSES; k++)
            printf("%6zu", e->confusion[row][k]);
    }
    printf("\n");
}

static void print_evaluation(const struct evaluation *e, const struct lenet5_info *info,
                             const struct options *o, const struct dataset *set) {
    printf("weights   %s", weights_path(o));
    printf(" (from %s%s%s%s%s)\n", *info->source ? info->source : "an unnamed file",
           *info->source_version ? ", " : "", info->source_version,
           *info->dataset ? ", trained on " : "", info->dataset);
    printf("data      %s, %s images\n", long_name(set), thousands((long long)e->count));
    printf("backend   %s on %s\n\n", info->backend, info->device);
    printf("accuracy  %.2f %%: %s of %s right, 95 %% interval %.2f to %.2f %%\n",
           100 * accuracy(e), thousands((long long)e->correct), thousands((long long)e->count),
           100 * e->low, 100 * e->high);
    print_report(e, set);
    printf("\nspeed     %s images/s\n",
           thousands((long long)((double)e->count / e->wall_seconds)));
    printf("time      read %.1f ms, open %.1f ms, upload %.2f ms, compute %.2f ms, "
           "download %.2f ms\n",
           1e3 * e->read_seconds, 1e3 * e->open_seconds, 1e3 * e->timing.upload,
           1e3 * e->timing.compute, 1e3 * e->timing.download);
}

static json_t *score_json(const char *name, const struct score *s) {
    return json_pack("{s:s, s:f, s:f, s:f, s:I}", "name", name, "precision", s->precision,
                     "recall", s->recall, "f1", s->f1, "support", (json_int_t)s->support);
}

static json_t *evaluation_json(const struct evaluation *e, const struct lenet5_info *info,
                               const struct options *o, const struct dataset *set,
                               const char *hint) {
    json_t *confusion = json_array(), *per_class = json_array();
    const struct score macro = mean_score(e, 0), weighted = mean_score(e, 1);
    for (int row = 0; row < CLASSES; row++) {
        const struct score s = class_score(e, row);
        json_t *counts = json_array();
        for (int k = 0; k < CLASSES; k++)
            json_array_append_new(counts, json_integer((json_int_t)e->confusion[row][k]));
        json_array_append_new(confusion, counts);
        json_array_append_new(per_class, score_json(set->class_names[row], &s));
    }
    return json_pack(
        "{s:i, s:s, s:{s:o, s:o, s:o, s:o, s:o}, s:{s:s, s:I}, s:s, s:s, s:I, s:f, s:[f, f], "
        "s:f, s:o, s:o, s:o, s:o, s:{s:f, s:f, s:f, s:f, s:f, s:f}, s:o}",
        "version", JSON_VERSION, "mode", "eval", "weights", "path", json_name(weights_path(o)),
        "source", json_name(info->source), "source_sha256", json_name(info->source_sha256),
        "source_version", json_name(info->source_version), "trained_on",
        json_name(info->dataset), "dataset", "name", set->name, "images", (json_int_t)e->count,
        "backend", info->backend, "device", info->device, "correct", (json_int_t)e->correct,
        "accuracy", accuracy(e), "interval95", e->low, e->high, "images_per_second",
        (double)e->count / e->wall_seconds, "confusion", confusion, "per_class", per_class,
        "macro_avg", score_json("macro avg", &macro), "weighted_avg",
        score_json("weighted avg", &weighted), "timing", "read", e->read_seconds, "open",
        e->open_seconds, "upload", e->timing.upload, "compute", e->timing.compute, "download",
        e->timing.download, "wall", e->wall_seconds, "hint", json_name(hint));
}

/* Correct answers on another data set, if it is at hand and fits; else -1. */
static double accuracy_elsewhere(struct lenet5 *net, const struct options *o, const char *name,
                                 struct evaluation *e) {
    struct options there = *o;
    struct lenet5_error ignored;
    struct dataset set;
    double found = -1;
    there.dataset = name;
    if (!open_dataset(&set, &there, "", &ignored) &&
        !fit_images(&set, lenet5_info(net), &ignored) && !strcmp(set.name, name) &&
        !evaluate(net, &there, &set, e, &ignored))
        found = accuracy(e);
    dataset_close(&set);
    return found;
}

/* What to tell somebody whose score is poor, or whose file misleads by its name. */
static void make_hint(struct lenet5 *net, const struct options *o, const struct dataset *set,
                      const struct evaluation *e, char *hint, size_t size) {
    const struct lenet5_info *info = lenet5_info(net);
    const int digits = !strcmp(set->name, "mnist");
    const char *other = digits ? "fashion_mnist" : "mnist";
    struct evaluation there;
    hint[0] = '\0';
    const int own = !strcmp(set->name, info->dataset); /* its record counts here */
    if (accuracy(e) > 0.5 && !(own && accuracy(e) < info->accuracy - 0.05)) {
        if (digits && strcasestr(info->source, "fashion"))
            snprintf(hint, size,
                     "%s reads MNIST digits, so this is an MNIST model, whatever its name",
                     info->source);
        return;
    }
    const double found = accuracy_elsewhere(net, o, other, &there);
    if (found > 0.5)
        snprintf(hint, size,
                 "%.2f %% is poor, but on %s, which is at hand, the same weights score %.2f %% "
                 "(%s of %s right): they are for %s, whatever the file's name",
                 100 * accuracy(e), other, 100 * found, thousands((long long)there.correct),
                 thousands((long long)there.count), other);
    else
        snprintf(
            hint, size,
            "%.2f %% is poor%s: ./lenet5 --eval --identify --weights %s tries the scalings, "
            "activations, poolings and layouts that the file may have meant, and names the "
            "options that convert it right",
            100 * accuracy(e), own ? " beside the record in the blob" : "", weights_path(o));
}

int mode_eval(const struct options *o, struct lenet5_error *err) {
    const struct lenet5_options options = {o->backend, o->batch, o->threads};
    struct lenet5 *net = NULL;
    struct dataset set;
    struct evaluation e;
    char hint[512];
    int rc = -1;

    memset(&set, 0, sizeof set);
    memset(&e, 0, sizeof e);
    double start = clock_seconds();
    if (lenet5_open(&net, weights_path(o), &options, err))
        goto out;
    e.open_seconds = clock_seconds() - start;
    start = clock_seconds();
    if (open_dataset(&set, o, lenet5_info(net)->dataset, err) ||
        fit_images(&set, lenet5_info(net), err))
        goto out;
    e.read_seconds = clock_seconds() - start;
    if (*lenet5_info(net)->backend_note)
        note(o, "%s", lenet5_info(net)->backend_note);
    if (*lenet5_info(net)->dataset && strcmp(lenet5_info(net)->dataset, set.name))
        note(o, "trained on %s, evaluated on another data set: %s", lenet5_info(net)->dataset,
             long_name(&set));
    if (evaluate(net, o, &set, &e, err))
        goto out;
    make_hint(net, o, &set, &e, hint, sizeof hint);
    rc = 0;
    if (o->json)
        rc = print_json(evaluation_json(&e, lenet5_info(net), o, &set, hint), err);
    else
        print_evaluation(&e, lenet5_info(net), o, &set);
    if (*hint && !o->json)
        printf("\nhint: %s\n", hint);
out:
    dataset_close(&set);
    lenet5_close(net);
    return rc;
}
