/* SPDX-License-Identifier: MIT */
/*
 * The byte ranges that one owner has locked with fcntl.
 *
 * Among machines any of them stands for the whole file; they are kept so that unlocking one of two
 * does not give back the lock that the other still needs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct range {
	uint64_t start, end; /* the last byte */
	struct range *prev, *next;
};

/* How many an owner may have of one file: each step costs as much as there are. */
enum { RANGES_MAX = 4096 };

/* False if adding a range, or else removing it, would make more than that. */
bool ranges_may_change(const struct range *ranges, uint64_t start, uint64_t end, bool add);

/* Adds a range to the list (in no order, apart from each other): it has one more at the most. */
void ranges_add(struct range **ranges, uint64_t start, uint64_t end);
/* Takes a range out, which may split one in two. */
void ranges_remove(struct range **ranges, uint64_t start, uint64_t end);
void ranges_clear(struct range **ranges);
