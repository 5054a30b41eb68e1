/* SPDX-License-Identifier: MIT */
/* Files that are named by whoever starts the program, and must not keep it waiting. */
#pragma once

#include <sys/stat.h>

/*
 * Opens a file for reading, if it is a regular one: a FIFO would have to be waited for, and what it
 * has can be read once.  Returns a descriptor, which the caller closes, and *attr; or -errno of
 * open(2), -EISDIR, or -EINVAL.
 */
int regular_file_open(const char *path, struct stat *attr);

/* The same without the descriptor: 0 or -errno. */
int regular_file_check(const char *path);

/* What is wrong, for a message. */
const char *regular_file_reason(int error);
