/* SPDX-License-Identifier: MIT */
/*
 * Ranges of bytes, each locked for reading or for writing, as fcntl(2) knows them.
 *
 * They are kept in the order of bytes, without overlaps; what touches and is of one kind is one
 * range.  A zeroed struct is an empty set.  Where a pointer to a set is NULL, or the set is empty,
 * and that stands for a lock, it is one of the whole file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The last byte of a range that goes on to the end, however far that may be. */
#define RANGE_END UINT64_MAX

/* How many a set may have: each step costs as much as there are. */
enum { RANGES_MAX = 1024 };

struct range {
	uint64_t start, end; /* the last byte */
	bool exclusive;
};

struct ranges {
	struct range *list; /* owned */
	size_t count;
};

void ranges_fini(struct ranges *ranges);
/* What `to` had is not freed. */
void ranges_copy(struct ranges *to, const struct ranges *from);
bool ranges_equal(const struct ranges *a, const struct ranges *b);

/* From now on these bytes are locked that way, whatever they were before. */
void ranges_set(struct ranges *ranges, struct range range);
/* Takes bytes out, which may split a range in two. */
void ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end);
/* What is exclusive of these bytes becomes shared. */
void ranges_relax(struct ranges *ranges, uint64_t start, uint64_t end);

/* The first one that such a lock of somebody else would have to wait for; or NULL. */
const struct range *ranges_find_conflict(const struct ranges *ranges, struct range range);
/* True if two locks can't be held at once. */
bool ranges_conflict(const struct ranges *a, const struct ranges *b);
bool ranges_are_exclusive(const struct ranges *ranges); /* at least in part */
/* True if it is just these bytes, all locked the same way. */
bool ranges_are_one(const struct ranges *ranges, uint64_t start, uint64_t end);

/* As text: "w0-99,r200-", which the caller frees. */
char *ranges_print(const struct ranges *ranges);
/* Reads such text: 0, or -EINVAL with an empty set. */
int ranges_parse(struct ranges *ranges, const char *text);
