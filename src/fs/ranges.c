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

void ranges_add(struct range **ranges, uint64_t start, uint64_t end)
{
	ranges_remove(ranges, start, end);
	append(ranges, start, end);
}

void ranges_clear(struct range **ranges)
{
	ranges_remove(ranges, 0, UINT64_MAX);
}
