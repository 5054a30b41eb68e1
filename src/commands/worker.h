/* SPDX-License-Identifier: MIT */
/*
 * Child processes that carry out system calls on files for latchfs selftest, one at a time.
 *
 * The one rule: whoever asks does not touch the files himself, so nothing that hangs there can hang
 * him.  A worker has one file open at most.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum worker_call {
	WORKER_OPEN,       /* open(2), how: flags */
	WORKER_CLOSE,      /* close(2) */
	WORKER_FLOCK,      /* flock(2), how: operation */
	WORKER_LOCK,       /* fcntl(2), how: F_SETLK or F_SETLKW, type, start, length */
	WORKER_UNLINK,     /* unlink(2) */
	WORKER_MKDIR,      /* mkdir(2) */
	WORKER_RMDIR,      /* rmdir(2) */
	WORKER_SET_POLICY, /* of a directory of latchfs; value: its name, an equals sign, text */
	WORKER_TOKEN,      /* reads the fencing token of the lock of that path */
	WORKER_RACE, /* takes and releases the lock `how` times, by `type`: enum worker_race */
};

/* By what a race is run. */
enum worker_race { RACE_CREATE, RACE_FLOCK, RACE_FCNTL };

struct worker_task {
	enum worker_call call;
	int how;
	short type;
	int64_t start, length;
	char path[PATH_MAX];
	char value[64];
};

struct worker_answer {
	int error;       /* 0, or an errno */
	uint64_t number; /* token; or how often somebody else was met where nobody should be */
};

/* What all workers see: how many of them are where only one may be. */
struct worker_shared {
	int inside;
};

struct worker {
	pid_t pid; /* 0: none */
	int fd;    /* to it */
};

/* 0, or -errno of fork(2) and its like.  shared: memory that is shared with children. */
int worker_start(struct worker *worker, struct worker_shared *shared);
/* Ends it at once, as kill -9 does; whatever it had open is closed then, unless it is stuck. */
void worker_kill(struct worker *worker);

/* Gives it a task.  False if there is no worker to do it. */
bool worker_begin(struct worker *worker, const struct worker_task *task);
/* 1: answered; 0: not within so many milliseconds; -EINTR; or -EPIPE: it has died. */
int worker_await(struct worker *worker, int milliseconds, struct worker_answer *answer);
/* Sends it a signal that interrupts a system call and does nothing else. */
void worker_interrupt(const struct worker *worker);
