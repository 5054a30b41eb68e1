/* SPDX-License-Identifier: MIT */
/*
 * Asks the kernel for the mount, in place of libfuse, which can neither mount at a directory that
 * is held open nor forbid that symbolic links are followed.
 *
 * mount(2) gets that flag with all others, so that no copy of the mount, in whichever namespace,
 * was ever without it.
 */
#pragma once

#include <stdbool.h>

struct fuse_args;

struct attachment {
	/* What mount(2) is told; owned. */
	unsigned long flags;
	char *source, *type, *data;

	bool has_default_permissions;
	const char *where; /* borrowed */
	int place;         /* the directory that is there, -1: it is not held */
};

/* args, FUSE's options, is not changed; those that are not about mount(2) are passed over. */
void attachment_init(struct attachment *attachment, const struct fuse_args *args);
void attachment_fini(struct attachment *attachment);

/*
 * Holds the directory `where`, an absolute path without symbolic links, until it is mounted there,
 * which may take a while.  Returns 0, or -errno after logging what is wrong.
 */
int attachment_hold(struct attachment *attachment, const char *where);

/*
 * Whether the directory is still where it was; logs that it is not.  Others may have moved what is
 * above it, or put a symbolic link in its place.
 */
bool attachment_is_in_place(const struct attachment *attachment);

/*
 * Mounts at the directory that is held.  Returns /dev/fuse, which the caller closes; -EPERM if
 * fusermount3 may be able to, -ENODEV if there is no /dev/fuse for us; else -errno after logging
 * what is wrong.
 */
int attachment_mount(const struct attachment *attachment);
