/* SPDX-License-Identifier: MIT */
/*
 * The table of all locks as text, for everybody: composed in steps, because of what any user can
 * put into it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

struct store_survey;

/* The places of one lock, and its lines. */
struct lines_lock {
	const char *path; /* the survey's */
	size_t at;        /* of its first line in the text; it ends where the next one's begin */
};

struct lines {
	const struct store_survey *survey; /* borrowed */
	struct buffer text;
	size_t header_size;
	struct lines_lock *locks;
	size_t lock_count, lock_room;

	/* The lock that it is at: its places, and which one is next. */
	size_t first, end, next;
	enum { LINES_LOOK, LINES_FORGET, LINES_WRITE } step; /* who waits is found out first */
	bool *waits;                                         /* of each place of the survey */
	size_t waiting;                                      /* how many of the lock's do */
	struct before *before;
};

/* The survey is borrowed until lines_fini. */
void lines_init(struct lines *lines, const struct store_survey *survey);
/* Goes on until that time on loop_clock().  1 when it is done, 0 if not yet, -EFBIG if there is too
 * much. */
int lines_compose(struct lines *lines, int64_t until);
void lines_fini(struct lines *lines);
