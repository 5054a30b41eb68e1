/* SPDX-License-Identifier: MIT */
/*
 * What latchfs top shows: which locks are the hottest and who waits longest, from the mount's
 * files as they were at one moment and at the moment before.
 *
 * A lock is hotter than another if more wait for it; else if it was taken more often since the
 * moment before, as far as that can be seen: by how many hold it who did not then; else if the
 * longest wait for it is longer, or it is held for longer.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct top_view;

/* What was read at one moment. */
struct top_look {
	const char *status;
	char *locks; /* taken apart; NULL if it can't be read: */
	int locks_error;
	const char *metrics; /* may be NULL */
	int64_t at;          /* milliseconds, on any clock */
	int64_t now;         /* seconds since 1970 */
};

struct top_view *top_view_new(const char *mount);
void top_view_free(struct top_view *view);

/* Takes in what was read. */
void top_view_look(struct top_view *view, const struct top_look *look);

/*
 * A page of so many lines, which may be too wide; 0: as many as there are.  The caller frees it.
 * complaint: what is to stand on the first line besides, or NULL.
 */
char *top_view_page(const struct top_view *view, size_t lines, const char *complaint);
