/* SPDX-License-Identifier: MIT */
/*
 * What latchfs selftest's tests are made of: calls, by other processes, that have to end as they
 * should, each in its time.
 *
 * Functions that return false have noted why in trial->why.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "commands/worker.h"

enum {
	TRIAL_DEADLINE = 10 * 1000, /* of one call that has no reason to wait; milliseconds */
	TRIAL_WAITS = 200,          /* so long a call has to be unanswered to be one that waits */
};

/* The even ones work in the one directory, the others in the other. */
enum { ONE, OTHER, THIRD, FOURTH, WORKERS };

struct trial {
	const char *directories[2]; /* as given */
	char *places[2];            /* owned: what was made in them */
	bool is_latchfs;
	bool has_place[2];
	struct worker workers[WORKERS];
	struct worker_shared *shared;
	unsigned int number;             /* of the test under way: each has a file of its own */
	char *why;                       /* it failed, owned; the first reason counts */
	bool only_order;                 /* which latchfs alone promises */
	unsigned int failed;             /* tests, so far */
	volatile sig_atomic_t *ended_by; /* a signal; not 0: nothing more is begun */
};

/* Notes why, unless something was noted before.  Returns false. */
bool trial_fault(struct trial *trial, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* What a call is, in words. */
const char *task_name(const struct worker_task *task);

/* Calls on the file of the test. */
struct worker_task task_open(int flags);
struct worker_task task_close(void);
struct worker_task task_unlink(void);
struct worker_task task_flock(int operation);
struct worker_task task_lock(int how, short type, int64_t start, int64_t length);

/* Begins a call, on the file of the test if the task has no path. */
bool trial_begin(struct trial *trial, int who, struct worker_task task);
/* The answer to it. */
bool trial_await(struct trial *trial, int who, const char *what, int milliseconds,
	struct worker_answer *answer);

/* Both at once: 0 or the errno, of EACCES and EAGAIN for a lock always the latter; or -1. */
int trial_call(struct trial *trial, int who, struct worker_task task);
/* The same; and true if that is what was expected. */
bool trial_expect(struct trial *trial, int who, struct worker_task task, int expected);

/* The first `count` of them open the file of the test. */
bool trial_open_all(struct trial *trial, int count);
/* Begins a call that has to wait, and so is not answered yet. */
bool trial_begin_waiting(struct trial *trial, int who, struct worker_task task);
/* The call that waits is answered now, with success. */
bool trial_expect_grant(struct trial *trial, int who, const char *what);
