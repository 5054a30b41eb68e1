/* SPDX-License-Identifier: MIT */
/*
 * Keeps a mount, and the locks that are held through it, while the process that serves it is
 * replaced: because it was killed, or because there is a newer program (SIGUSR1).
 *
 * This process does nothing else, and so has little that could go wrong: it holds /dev/fuse, the
 * reaper's line and the ledger, and starts one worker after the other.  Its own end is the worker's
 * and the mount's.
 */
#pragma once

#include <stdbool.h>

#include "fs/mount.h"

/* What a worker finds. */
struct estate {
	bool is_inherited;      /* another worker has mounted and left all this */
	struct mount_ends ends; /* of its mount */
	int ledger;
	int supervisor; /* to be told by supervise_tell */
};

struct supervision {
	/* What a worker does, until it ends in order: returns the status to exit with.  The
	 * descriptors of the estate are its own. */
	int (*serve)(void *user, const struct estate *estate);
	/* The first worker is ready. */
	void (*ready)(void *user);
	/* Before a newer program takes our place: what it finds in the environment; and the same
	 * undone, because it does not. */
	void (*succeed)(void *user);
	void (*stay)(void *user);
	void *user;
	char **argv; /* ours, for that program */
};

/* Returns the status to exit with, in the supervisor and in each worker. */
int supervise(const struct supervision *supervision);

/*
 * True if the command line asks whether this program could take the place of one that has put that
 * question: then *status says so, if the rest, from argv[3] on, is right as well.
 */
bool supervise_is_question(int argc, char **argv, int *status);

/* True in a program that was started to take the place of an older supervisor. */
bool supervise_is_successor(void);

/*
 * A worker is ready.  ends: of the mount, if it has made it; resumable: whether another worker can
 * go on with it.
 */
void supervise_tell(int supervisor, const struct mount_ends *ends, bool resumable);

/* The worker is about to end in order: from now on it alone keeps the mount alive. */
void supervise_end(int supervisor);
