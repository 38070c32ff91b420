/* SPDX-License-Identifier: MIT
 *
 * threads.c - a team of POSIX threads behind one mutex and two conditions: one says that there
 * is a job, the other that it is done. Jobs here last tens of microseconds and more, so nobody
 * spins: a team that has nothing to do costs nothing.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct member {
    struct threads *team;
    int number;
    pthread_t thread;
};

struct threads {
    pthread_mutex_t lock; /* guards all below but started */
    pthread_cond_t work, done;
    unsigned long round; /* counts jobs; a member that sees a new number has work */
    int members, busy;   /* of this job: who takes part, who has not finished */
    int caller;          /* processor that began this job, or -1 where that is unknown */
    int closing;
    threads_job *job;
    void *context;
    int started;           /* entries of member that have a thread */
    struct member *member; /* owned */
};

/* Processors' worth of time that one file of a control group grants, or 0 for no limit. It
   holds "max 100000" or "150000 100000": microseconds of time in each period. */
static double granted(const char *path) {
    double quota = 0, period = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%lf %lf", &quota, &period) != 2 || period <= 0)
        quota = 0;
    fclose(file);
    return quota > 0 ? quota / period : 0;
}

/* The least that the control groups (version 2) from this process's own up to the root grant,
   or 0 for no limit. */
static double group_limit(void) {
    char line[1024], path[1200];
    double least = 0;
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4))
            continue;
        for (char *end = line + strlen(line); end; end = strrchr(line + 3, '/')) {
            *end = '\0';
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
            const double limit = granted(path);
            least = limit > 0 && (least <= 0 || limit < least) ? limit : least;
        }
    }
    if (file)
        fclose(file);
    return least;
}

int threads_available(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set))
        count = CPU_COUNT(&set);
    const double limit = group_limit();
    if (limit > 0 && limit < (double)count)
        count = (long)(limit + 0.5); /* 1.5 processors' time keeps two threads busy */
#endif
    return count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : (int)count;
}

static int processor(void) {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Moves the calling thread to the number'th processor after `from` of those that it may use,
   and leaves it free to go. A kernel that sees no common cache wakes a thread where it last
   ran: two that met on one processor would take turns there for many milliseconds. */
static void leave(int from, int number) {
#ifdef __linux__
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) || CPU_COUNT(&all) < 2)
        return;
    int cpu = from;
    for (int left = number % CPU_COUNT(&all); left > 0; left -= CPU_ISSET(cpu, &all) != 0)
        cpu = (cpu + 1) % CPU_SETSIZE;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (!sched_setaffinity(0, sizeof one, &one))
        sched_setaffinity(0, sizeof all, &all);
#else
    (void)from;
    (void)number;
#endif
}

static void *serve(void *argument) {
    const struct member *self = argument;
    struct threads *t = self->team;
    unsigned long seen = 0;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->closing && t->round == seen)
            pthread_cond_wait(&t->work, &t->lock);
        if (t->closing)
            break;
        seen = t->round;
        if (self->number >= t->members)
            continue;
        const int caller = t->caller;
        pthread_mutex_unlock(&t->lock);
        if (caller >= 0 && caller == processor())
            leave(caller, self->number);
        t->job(t->context, self->number);
        pthread_mutex_lock(&t->lock);
        if (!--t->busy)
            pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int threads_open(struct threads **team, int count, struct lenet5_error *err) {
    struct threads *t = calloc(1, sizeof *t);
    sigset_t all, before;
    int rc = 0;
    *team = NULL;
    if (!t || !(t->member = calloc((size_t)count, sizeof *t->member))) {
        free(t);
        return fail(err, "out of memory for %d threads", count);
    }
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all,
                    &before); /* inherited: signals go to the program's own */
    for (int k = 1; k < count && !rc; k++) {
        struct member *m = &t->member[t->started];
        m->team = t;
        m->number = k;
        rc = pthread_create(&m->thread, NULL, serve, m);
        t->started += !rc;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        fail(err,
             "only %d of %d threads could be started: %s; ask for fewer with "
             "LENET5_THREADS",
             t->started + 1, count, strerror(rc));
        threads_close(t);
        return -1;
    }
    *team = t;
    return 0;
}

void threads_run(struct threads *t, int members, threads_job *job, void *context) {
    if (members > 1) {
        pthread_mutex_lock(&t->lock);
        t->job = job;
        t->context = context;
        t->members = members;
        t->busy = members - 1;
        t->caller = processor();
        t->round++;
        pthread_cond_broadcast(&t->work);
        pthread_mutex_unlock(&t->lock);
    }
    job(context, 0);
    if (members > 1) {
        pthread_mutex_lock(&t->lock);
        while (t->busy)
            pthread_cond_wait(&t->done, &t->lock);
        pthread_mutex_unlock(&t->lock);
    }
}

void threads_close(struct threads *t) {
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->closing = 1;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (int k = 0; k < t->started; k++)
        pthread_join(t->member[k].thread, NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->done);
    free(t->member);
    free(t);
}
