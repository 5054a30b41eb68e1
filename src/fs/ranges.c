/* SPDX-License-Identifier: MIT */
#include "fs/ranges.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/util.h"

static void append(struct range **ranges, uint64_t start, uint64_t end)
{
	struct range *range = xzalloc(sizeof(*range));

	range->start = start;
	range->end = end;
	DL_APPEND(*ranges, range);
}

void ranges_remove(struct range **ranges, uint64_t start, uint64_t end)
{
	struct range *range, *next, *parts = NULL;

	DL_FOREACH_SAFE(*ranges, range, next) {
		if (range->end < start || range->start > end)
			continue;
		if (range->start < start)
			append(&parts, range->start, start - 1);
		if (range->end > end)
			append(&parts, end + 1, range->end);
		DL_DELETE(*ranges, range);
		free(range);
	}
	DL_CONCAT(*ranges, parts);
}

/* True if together they are one range. */
static bool touches(const struct range *range, uint64_t start, uint64_t end)
{
	return (range->start <= end || range->start - 1 == end) &&
	       (start <= range->end || start - 1 == range->end);
}

void ranges_add(struct range **ranges, uint64_t start, uint64_t end)
{
	struct range *range, *next;

	DL_FOREACH_SAFE(*ranges, range, next) {
		if (!touches(range, start, end))
			continue;
		start = range->start < start ? range->start : start;
		end = range->end > end ? range->end : end;
		DL_DELETE(*ranges, range);
		free(range);
	}
	append(ranges, start, end);
}

bool ranges_may_change(const struct range *ranges, uint64_t start, uint64_t end, bool add)
{
	const struct range *range;
	size_t count = 0;
	bool joins = false, splits = false;

	DL_FOREACH(ranges, range) {
		count++;
		joins = joins || touches(range, start, end);
		splits = splits || (range->start < start && range->end > end);
	}
	return count < RANGES_MAX || (add ? joins : !splits);
}

void ranges_clear(struct range **ranges)
{
	ranges_remove(ranges, 0, UINT64_MAX);
}
