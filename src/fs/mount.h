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
 * What another process needs to go on is entered into the store's ledger, if it has one.
 */
int mount_new(struct loop *loop, struct store *store, struct lockspace *space,
	const struct fs_options *options, int argc, char **argv, const struct mount_events *events,
	void *user, struct mount **result);

/* Mounts.  Returns 0, or -errno after logging what is wrong. */
int mount_attach(struct mount *mount);

/* Once it is mounted: whether locks may be symbolic links, because none is followed. */
bool mount_has_symlinks(const struct mount *mount);

/* What keeps a mount alive while no process serves it. */
struct mount_ends {
	int device; /* /dev/fuse */
	int reaper; /* whoever closes the last one of these has it unmounted */
};

/* Borrowed.  Once it is mounted; to be passed on only if the kernel asks a new process again what
 * the old one has not answered, which it tells in the beginning. */
struct mount_ends mount_ends(const struct mount *mount);
bool mount_is_resumable(const struct mount *mount);

/*
 * Instead of mounting: serves what another process has mounted, with these ends, which are taken
 * over; the store has resumed that one's session.  Returns 0, or -errno after logging what is
 * wrong.
 */
int mount_resume(struct mount *mount, const struct mount_ends *ends);

/* For every now and again: has the kernel forget names if they are many. */
void mount_tidy(struct mount *mount);

/* Unmounts, also while files are open: whoever has one open gets ENOTCONN from now on, and whoever
 * waits ECONNABORTED.  Harmless if it is not mounted. */
void mount_detach(struct mount *mount);

/* After the store and the lockspace were freed. */
void mount_free(struct mount *mount);
