/* SPDX-License-Identifier: MIT
 *
 * threads.h - a team of threads, started once, that runs one job at a time.
 */
#ifndef LENET5_THREADS_H
#define LENET5_THREADS_H

#include "fail.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MAX_THREADS = 1024 };

struct threads; /* a team; a program may have several */

/* A job: called once by every member of the team, with its number from 0 up. */
typedef void threads_job(void *context, int member);

/* Processors that this process may use: those of its affinity mask, fewer where a control group
   of Linux grants less time. At least 1. */
int threads_available(void);

/* A team of count members, 1 to MAX_THREADS. The caller of threads_run is member 0, so that
   count - 1 threads are started, none for a team of one. They sleep between jobs and take no
   signals. On failure *team is NULL. */
int threads_open(struct threads **team, int count, struct lenet5_error *err);

/* Runs the job on members 0 to members - 1 and returns when all are done. What the caller wrote
   before is seen by all members, and what they wrote is seen by the caller after. */
void threads_run(struct threads *team, int members, threads_job *job, void *context);

/* Ends the threads. team may be NULL. */
void threads_close(struct threads *team);

#ifdef __cplusplus
}
#endif

#endif
