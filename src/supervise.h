/* SPDX-License-Identifier: MIT */
/*
 * Keeps a mount, and the locks that are held through it, while the process that serves it is
 * replaced: because it was killed, or has stood still for too long, or because there is a newer
 * program (SIGUSR1), or because the service manager starts the service again (SIGUSR2).
 *
 * This process does nothing else, and so has little that could go wrong: it holds /dev/fuse, the
 * reaper's line and the ledger, and starts one worker after the other.  Its own end is the worker's
 * and the mount's, except after SIGUSR2.
 */
#pragma once

#include <stdbool.h>

#include "fs/mount.h"
#include "succession.h"

struct supervision {
	/* What a worker does, until it ends in order: returns the status to exit with.  The
	 * descriptors of the estate are its own.  supervisor is to be told by supervise_tell. */
	int (*serve)(void *user, const struct estate *estate, int supervisor);
	/* The first worker is ready. */
	void (*ready)(void *user);
	/* Before a newer program takes our place: what it finds in the environment; and the same
	 * undone, because it does not. */
	void (*prepare)(void *user, bool is_asked);
	void (*stay)(void *user);
	void *user;
	/* A worker that has turned, and does not for so many milliseconds, is killed. */
	int64_t patience;
	struct estate estate;    /* what succession_find has found */
	char **argv;             /* ours, for that program */
	const char *mount_point; /* absolute */
};

/* Two signals in this time are one: whoever signals a whole group means it once. */
enum { SUPERVISE_ECHO_MS = 1000 };

/* Returns the status to exit with, in the supervisor and in each worker. */
int supervise(const struct supervision *supervision);

/*
 * A worker is ready.  ends: of the mount, if it has made it; resumable: whether another worker can
 * go on with it.
 */
void supervise_tell(int supervisor, const struct mount_ends *ends, bool resumable);

/* The worker is about to end in order: from now on it alone keeps the mount alive. */
void supervise_end(int supervisor);
