/* SPDX-License-Identifier: MIT */
/*
 * A small process that does to the mount what the daemon itself can't: it unmounts what a killed
 * daemon leaves behind, ends what nobody serves for too long, and has the kernel forget names.
 *
 * FUSE's own auto_unmount does the same by the mount point's name alone; when a new daemon has
 * mounted there before the old one has ended, it takes away the new mount, and programs lock plain
 * files in a bare directory.  This one knows which device it is about, and is told when the mount
 * has ended in order.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Starts it; to be called while the process has no threads and nothing open that must not stay
 * open.  Returns a descriptor, or -errno. */
int reaper_start(const char *mount_point);

/* From now on the mount is to be removed when this process dies. */
void reaper_arm(int fd, dev_t device);

/*
 * Has the kernel drop the names of the mount that it only remembers, so that it forgets their
 * nodes: by itself it does so when it needs the memory, which it can't know to be the daemon's as
 * well. Without effect if the daemon does not run as root.
 */
void reaper_forget_names(int fd);

/*
 * Nobody serves the mount from now on: if that lasts until `deadline`, in the loop's milliseconds,
 * the reaper ends the mount, so that all who use it are told.
 */
void reaper_bound(int fd, int64_t deadline);

/*
 * There is no such deadline any more.  Returns whether the mount is still where it was made; false
 * also if the reaper has gone, and if there is no fd (-1).
 */
bool reaper_keep(int fd);

/* Has it remove the mount, waits until it has, and closes the descriptor, which may be negative. */
void reaper_unmount(int fd);

/* The mount has ended in order; closes the descriptor, which may be negative. */
void reaper_dismiss(int fd);
