/* SPDX-License-Identifier: MIT */
/*
 * A stable merge sort in steps, for lists so long that to sort them at once would take too long.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef int sorting_fn(const void *a, const void *b); /* as that of qsort */

struct sorting {
	char *items, *spare; /* owned while it sorts */
	size_t count, size;  /* of items; of one of them, in bytes */
	sorting_fn *compare;
	size_t width;                   /* of the runs that are sorted already, in items */
	size_t begin, left, right, out; /* of the two runs that are being merged */
};

/* Takes over the items, which come from malloc. */
void sorting_init(
	struct sorting *sorting, void *items, size_t count, size_t size, sorting_fn *compare);
/* Goes on for so many comparisons.  Returns whether it is done. */
bool sorting_step(struct sorting *sorting, size_t comparisons);
/* Hands the items over, sorted if it was done. */
void *sorting_take(struct sorting *sorting);
