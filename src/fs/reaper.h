/* SPDX-License-Identifier: MIT */
/*
 * A small process that unmounts what a killed daemon leaves behind.
 *
 * FUSE's own auto_unmount does the same by the mount point's name alone; when a new daemon has
 * mounted there before the old one has ended, it takes away the new mount, and programs lock plain
 * files in a bare directory.  This one knows which device it is about, and is told when the mount
 * has ended in order.
 */
#pragma once

#include <sys/types.h>

/* Starts it; to be called while the process has no threads and nothing open that must not stay
 * open.  Returns a descriptor, or -errno. */
int reaper_start(const char *mount_point);

/* From now on the mount is to be removed when this process dies. */
void reaper_arm(int fd, dev_t device);

/* The mount has ended in order; closes the descriptor, which may be negative. */
void reaper_dismiss(int fd);
