/* SPDX-License-Identifier: MIT */
/*
 * Finds the processes that have files of the mount open, and sends them signals.
 *
 * To look through all that all processes have open takes as long as any user likes, so it is done
 * by helper processes: one is forked when there is little to copy yet, and forks one more for each
 * search, which may take SEARCH_SECONDS.  They have nothing of the daemon's open, and what they
 * hold against the reuse of a process's number are descriptors of processes (pidfd).
 *
 * The one rule: whether a process gets a signal is decided by the caller in the moment when it is
 * found, since by then the lock may be another's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "event/loop.h"

enum { SEARCH_SECONDS = 30 };

struct search;
struct search_job;

/* A process that has opened the file. */
struct search_opener {
	int32_t pid;
	uint32_t is_concerned; /* 0: it only has another handle of the file */
};

struct search_target {
	uint64_t inode;  /* as /proc shows it */
	uint32_t uid;    /* only processes that this user may send signals to */
	int32_t creator; /* who is meant if no other process is found; 0: nobody */
	uint64_t opener_count;
};

/* A process was found that has the file of that target open, or has inherited it from one that is
 * concerned.  Returns the signal that it gets, 0: none. */
typedef int search_found_fn(struct search_job *job, size_t target, pid_t pid);
/* The last call: 0, or -errno if not all processes were looked at.  The job may be freed here. */
typedef void search_done_fn(struct search_job *job, int result);

struct search_job {
	search_found_fn *found;
	search_done_fn *done;

	/* The search's own. */
	struct loop_fd watch;
	struct buffer request, answers;
	size_t target_count;
	bool is_complete;
};

/* mount_point is borrowed.  Never fails: without a helper searches do. */
struct search *search_new(struct loop *loop, const char *mount_point);
/* No job may be under way. */
void search_free(struct search *search);

/* Adds one, before the job is started.  Openers in the order of their numbers, each once. */
void search_add(struct search_job *job, const struct search_target *target,
	const struct search_opener *openers);
/* found and done are set.  Returns 0, or -errno, and then the job is not under way. */
int search_start(struct search *search, struct search_job *job);
/* Neither is called any more.  Harmless if it is not under way. */
void search_cancel(struct search_job *job);
