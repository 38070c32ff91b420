/* SPDX-License-Identifier: MIT
 *
 * guard.c - see guard.h. Only limits that the kernel enforces by itself are used; memory that
 * runs out is seen by the work as a failed allocation, time that runs out ends it.
 */
#define _DEFAULT_SOURCE
#include "guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* Processor time, not the clock's: a busy machine makes no file hostile. Of a folder, its
   weights count. */
static long allowed_ms(const char *path) {
    struct stat info;
    char weights[4096];
    snprintf(weights, sizeof weights, "%.4000s/model.weights.h5", path);
    const int unknown = stat(weights, &info) && stat(path, &info);
    const long long size = unknown ? 0 : (long long)info.st_size;
    return 900 + (long)(size < 1 << 30 ? size / (16 << 10) : 0); /* a second for 16 MB */
}

static void limit_time(long ms) {
    const struct itimerval timer = {{0, 0}, {ms / 1000, ms % 1000 * 1000}};
    setitimer(ITIMER_PROF, &timer, NULL);
}

static struct rlimit old; /* of memory, before this process was limited */

static void limit_memory(void) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (getrlimit(RLIMIT_AS, &old))
        return;
    struct rlimit memory = old;
    if (memory.rlim_cur > GUARD_MEMORY)
        memory.rlim_cur = GUARD_MEMORY;
    setrlimit(RLIMIT_AS, &memory);
    /* a sanitizer has reserved far more than that already, and could not go on */
    void *probe = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED)
        setrlimit(RLIMIT_AS, &old);
    else
        munmap(probe, 1 << 20);
}

void guard_release(void) {
    limit_time(0);
    setrlimit(RLIMIT_AS, &old);
}

int guard_run(int (*work)(void *context), void *context, const char *path,
              struct lenet5_error *err) {
    const long ms = allowed_ms(path);
    int status;
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0)
        return fail(err, "cannot start a process: %s", strerror(errno));
    if (!child) {
        limit_time(ms);
        limit_memory();
        status = work(context);
        fflush(NULL);
        _exit(status); /* HDF5 would tidy up what it may have broken */
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail(err, "cannot wait for a process: %s", strerror(errno));
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    if (WTERMSIG(status) == SIGPROF)
        return fail(err, "%s: still being read after %.1f s; it is damaged or hostile", path,
                    (double)ms / 1000);
    return fail(err, "%s is damaged: HDF5 crashed on it (%s)", path,
                strsignal(WTERMSIG(status)));
}
