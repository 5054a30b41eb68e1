/* SPDX-License-Identifier: MIT */
/*
 * The mounted file system: libfuse's session, served from the event loop.
 *
 * The one rule: this process must never touch the mount itself, for it would wait for its own
 * answer.
 */
#pragma once

#include "fs/fs.h"

struct mount;

struct mount_events {
	/* The kernel has agreed to what is needed; requests are served from now on.  error: 0, or
	 * -EOPNOTSUPP if it can't lock through us. */
	void (*ready)(void *user, int error);
	/* It was unmounted, or the connection was aborted. */
	void (*ended)(void *user);
};

/*
 * Prepares a mount.  args: a program's name and FUSE's own options, each behind "-o"; source: what
 * to show as the mounted device.  Returns 0 and *result, or -EINVAL after logging what is wrong.
 * options is copied, its strings are borrowed.  To be called before anything starts threads.
 */
int mount_new(struct loop *loop, struct store *store, struct lockspace *space,
	const struct fs_options *options, int argc, char **argv, const struct mount_events *events,
	void *user, struct mount **result);

/* Mounts.  Returns 0, or -errno after logging what is wrong. */
int mount_attach(struct mount *mount);

/* For every now and again: has the kernel forget names if they are many. */
void mount_tidy(struct mount *mount);

/* Unmounts, also while files are open: whoever has one open gets ENOTCONN from now on, and whoever
 * waits ECONNABORTED.  Harmless if it is not mounted. */
void mount_detach(struct mount *mount);

/* After the store and the lockspace were freed. */
void mount_free(struct mount *mount);
