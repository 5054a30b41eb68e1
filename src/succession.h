/* SPDX-License-Identifier: MIT */
/*
 * How a mount passes from one supervisor to the next: to a newer program, which becomes the same
 * process, or to whichever the service manager starts next, which keeps the descriptors meanwhile.
 */
#pragma once

#include <stdbool.h>

#include "fs/mount.h"

/* What there is besides the processes. */
struct estate {
	bool is_inherited;      /* another worker has mounted and left all this */
	struct mount_ends ends; /* of its mount */
	int ledger;
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
 * Whether `program`, if started in `directory` with argv, says that it could go on with what is
 * mounted at mount_point.  prepare(user) is called in the process that becomes it.
 */
struct successor {
	const char *program;
	int directory;
	char *const *argv;
	const char *mount_point;
	void (*prepare)(void *user);
	void *user;
};
bool succession_is_possible(const struct successor *successor);

/*
 * True if the command line asks that: then *status answers, if the rest, from *argv on, whose first
 * word is the mount point, is right as well.
 */
bool succession_is_question(int *argc, char ***argv, int *status);

/* This process becomes the successor.  Returns only if it can't be started, after logging that. */
void succession_exec(const struct successor *successor, const struct estate *estate);

/* The service manager keeps it until it starts the next supervisor.  Returns 0 or -errno, after
 * logging that. */
int succession_leave(const struct estate *estate);
