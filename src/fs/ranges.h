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

/* Adds a range to the list (in no order, without overlaps). */
void ranges_add(struct range **ranges, uint64_t start, uint64_t end);
/* Takes a range out, which may split others. */
void ranges_remove(struct range **ranges, uint64_t start, uint64_t end);
void ranges_clear(struct range **ranges);
