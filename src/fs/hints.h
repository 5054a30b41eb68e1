/* SPDX-License-Identifier: MIT */
/*
 * Hints in the log for those who run programs that mean something else by a lock file than the
 * directory's policy.  Each is given once for a program and a directory; of more of these than the
 * table has room for nothing is said.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

struct fs;
struct handle;
struct hold;
struct request;

enum { HINTS_MAX = 256, HINTS_LEFT = 16 };

/* A file that was made without O_EXCL, and was closed without having been locked. */
struct hint_left {
	uint64_t inode; /* 0: none */
	char command[RECORD_COMMAND_SIZE];
};

struct hints {
	uint64_t given[HINTS_MAX]; /* hashes of program and directory */
	unsigned int count;
	struct hint_left left[HINTS_LEFT];
	unsigned int left_next;
};

/* True once for each program and directory; path: of something in that. */
bool hint_is_due(struct fs *fs, const char *command, const char *path);

/* The last descriptor of a file is closed; hold: of the lock that goes with it, or NULL. */
void hint_at_close(const struct handle *handle, const struct hold *hold);

/* The request has looked for a name that is not there. */
void hint_at_missing(const struct request *request);
