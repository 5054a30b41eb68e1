/* SPDX-License-Identifier: MIT */
/*
 * What a mount says of itself, in the files below .latchfs.
 *
 * latchfs(8), "STATUS FILES", has what stands in them.
 */
#pragma once

#include <stdbool.h>

/* A file of the mount; NULL with errno set if it can't be read.  The caller frees it. */
char *mount_read(const char *mount, const char *name);

/* Why the status can't be had, in words, for that errno. */
const char *mount_strerror(int error);

/*
 * A member of the status, or of an object in it, or NULL; the caller frees it.  The file has one
 * member a line, and a tab in front for each object that it is in.
 */
char *mount_member(const char *json, const char *object, const char *name);

/* The value that begins there, without quotes.  The caller frees it. */
char *mount_value(const char *at);

/* The columns of the table of locks; more may follow. */
enum mount_column {
	COLUMN_NAME,
	COLUMN_MODE,
	COLUMN_STATE,
	COLUMN_HOST,
	COLUMN_PID,
	COLUMN_UID,
	COLUMN_COMMAND,
	COLUMN_SINCE,
	COLUMN_TOKEN,
	COLUMN_WAITERS,
	COLUMNS,
};

/* Takes the next line of the table apart, which is within *rest; false at the end.  The line that
 * names the columns, and what is none of the table, is left out. */
bool mount_next_lock(char **rest, const char **columns);
