/* SPDX-License-Identifier: MIT */
/*
 * How a mount passes from one supervisor to the next: to a newer program, which becomes the same
 * process, or to whichever the service manager starts next, which keeps the descriptors meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "fs/mount.h"

/* What there is besides the processes. */
struct estate {
	bool is_inherited;      /* another worker has mounted and left all this */
	bool is_kept;           /* the service manager has it as well */
	struct mount_ends ends; /* of its mount */
	int ledger;
	struct pulse *pulse; /* of the process that serves the mount; NULL if nobody watches it */
};

/*
 * To be called by whoever mounts, for ledger: what is mounted where, which only a program with the
 * same command line may go on with.
 */
void succession_begin(struct ledger *ledger, const char *mount_point, char *const *argv);

/*
 * Looks whether an older supervisor has left something to this program, whose command line argv
 * is.  Returns where it is mounted, to be freed by the caller, and the rest in *estate; NULL if
 * there is nothing, or, after logging why, if this program can't go on with it: then it has let go
 * of it.
 */
char *succession_find(struct estate *estate, char *const *argv);

/*
 * What was found is for nobody else from now on.  Returns false, after logging why and letting go
 * of it, if it came too late.
 */
bool succession_take(struct estate *estate);

/* Whoever may be started with argv, in place of this program. */
struct successor {
	const char *program;
	int directory; /* to be started in */
	char *const *argv;
	const char *mount_point;
	/* Called in the process that becomes it, or is only asked whether it can. */
	void (*prepare)(void *user, bool is_asked);
	void *user;
};

/* Returns the process that finds out whether it could go on with what is mounted, and exits with 0
 * if so; or -1. */
pid_t succession_ask(const struct successor *successor);

/*
 * True if the command line asks that: then *status answers, if the rest, from *argv on, whose first
 * word is the mount point, is right as well.
 */
bool succession_is_question(int *argc, char ***argv, int *status);

/* This process becomes the successor.  Returns only if it can't be started, after logging that. */
void succession_exec(const struct successor *successor, const struct estate *estate);

/*
 * The service manager keeps it until it starts the next supervisor.  Returns 0 or -errno, after
 * logging that.
 */
int succession_leave(const struct estate *estate);

/* Nobody has the ledger open.  Returns when the locks are lost, in the loop's milliseconds: in the
 * past, or 0, if they are or that can't be read. */
int64_t succession_deadline(const struct estate *estate);

/*
 * Nobody has the ledger open, and this process is about to end: if the next one does not come
 * before the locks are lost, or at all, the mount ends, so that all who use it are told.
 */
void succession_bound(const struct estate *estate);
