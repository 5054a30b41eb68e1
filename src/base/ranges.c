/* SPDX-License-Identifier: MIT */
#include "base/ranges.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/util.h"

void ranges_fini(struct ranges *ranges)
{
	free(ranges->list);
	*ranges = (struct ranges){0};
}

void ranges_copy(struct ranges *to, const struct ranges *from)
{
	*to = (struct ranges){.count = from->count};
	if (!from->count)
		return;
	to->list = xrealloc(NULL, from->count, sizeof(from->list[0]));
	memcpy(to->list, from->list, from->count * sizeof(from->list[0]));
}

bool ranges_equal(const struct ranges *a, const struct ranges *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const struct range *x = &a->list[i], *y = &b->list[i];
		if (x->start != y->start || x->end != y->end || x->exclusive != y->exclusive)
			return false;
	}
	return true;
}

/* Adds a range behind all others. */
static void append(struct ranges *to, struct range range)
{
	size_t n = to->count;

	if (n && to->list[n - 1].end + 1 == range.start &&
		to->list[n - 1].exclusive == range.exclusive)
		to->list[n - 1].end = range.end;
	else
		to->list[to->count++] = range;
}

/* An empty set with room for what a step makes of another. */
static struct ranges new_set(const struct ranges *from)
{
	return (struct ranges){.list = xrealloc(NULL, from->count + 2, sizeof(struct range))};
}

static void replace(struct ranges *ranges, const struct ranges *with)
{
	free(ranges->list);
	*ranges = *with;
	if (!with->count)
		ranges_fini(ranges);
}

/* Takes bytes out, and puts those of `range` there if it is not NULL. */
static void cut(struct ranges *ranges, uint64_t start, uint64_t end, const struct range *range)
{
	struct ranges result = new_set(ranges);
	size_t i = 0;

	for (; i < ranges->count && ranges->list[i].start < start; i++) {
		struct range before = ranges->list[i];
		if (before.end >= start)
			before.end = start - 1;
		append(&result, before);
		if (ranges->list[i].end > end)
			break;
	}
	if (range)
		append(&result, *range);
	for (; i < ranges->count; i++) {
		struct range after = ranges->list[i];
		if (after.end <= end)
			continue;
		if (after.start <= end)
			after.start = end + 1;
		append(&result, after);
	}
	replace(ranges, &result);
}

void ranges_set(struct ranges *ranges, struct range range)
{
	cut(ranges, range.start, range.end, &range);
}

void ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end)
{
	cut(ranges, start, end, NULL);
}

void ranges_relax(struct ranges *ranges, uint64_t start, uint64_t end)
{
	struct ranges before;

	ranges_copy(&before, ranges);
	for (size_t i = 0; i < before.count; i++) {
		struct range range = before.list[i];
		if (!range.exclusive || range.end < start || range.start > end)
			continue;
		ranges_set(
			ranges, (struct range){.start = range.start < start ? start : range.start,
					.end = range.end > end ? end : range.end});
	}
	ranges_fini(&before);
}

const struct range *ranges_find_conflict(const struct ranges *ranges, struct range range)
{
	for (size_t i = 0; i < ranges->count; i++) {
		const struct range *other = &ranges->list[i];
		if (other->start <= range.end && range.start <= other->end &&
			(other->exclusive || range.exclusive))
			return other;
	}
	return NULL;
}

bool ranges_conflict(const struct ranges *a, const struct ranges *b)
{
	size_t i = 0, j = 0;

	while (i < a->count && j < b->count) {
		const struct range *x = &a->list[i], *y = &b->list[j];
		if (x->start <= y->end && y->start <= x->end && (x->exclusive || y->exclusive))
			return true;
		if (x->end < y->end)
			i++;
		else
			j++;
	}
	return false;
}

bool ranges_are_exclusive(const struct ranges *ranges)
{
	for (size_t i = 0; i < ranges->count; i++) {
		if (ranges->list[i].exclusive)
			return true;
	}
	return false;
}

bool ranges_are_one(const struct ranges *ranges, uint64_t start, uint64_t end)
{
	return ranges->count == 1 && ranges->list[0].start == start && ranges->list[0].end == end;
}

/* --- as text --- */

char *ranges_print(const struct ranges *ranges)
{
	struct buffer text = {0};

	for (size_t i = 0; i < ranges->count; i++) {
		const struct range *range = &ranges->list[i];
		buffer_addf(&text, "%s%c%" PRIu64 "-", i ? "," : "", range->exclusive ? 'w' : 'r',
			range->start);
		if (range->end != RANGE_END)
			buffer_addf(&text, "%" PRIu64, range->end);
	}
	return buffer_take(&text);
}

/* Reads one range, up to the end of the text or a comma; false if there is none. */
static bool parse_range(char *text, struct range *range)
{
	char *end = strchr(text, '-');

	if (!end || (*text != 'r' && *text != 'w'))
		return false;
	*end++ = '\0';
	*range = (struct range){.end = RANGE_END, .exclusive = *text == 'w'};
	return parse_u64(text + 1, 10, UINT64_MAX, &range->start) == 0 &&
	       (!*end || parse_u64(end, 10, UINT64_MAX, &range->end) == 0) &&
	       range->start <= range->end;
}

static size_t count_ranges(const char *text)
{
	size_t count = 1;

	for (; *text; text++)
		count += *text == ',';
	return count;
}

/* They have to be as they are printed. */
int ranges_parse(struct ranges *ranges, const char *text)
{
	cleanup(free_ptr) char *copy = xstrdup(text);
	size_t count = count_ranges(text);
	struct range range = {0};
	uint64_t last = 0;
	char *rest = copy;

	*ranges = (struct ranges){0};
	if (count > RANGES_MAX)
		return -EINVAL;
	ranges->list = xrealloc(NULL, count, sizeof(range));
	for (size_t i = 0; i < count; i++, last = range.end) {
		if (!parse_range(strsep(&rest, ","), &range) || (i && range.start <= last)) {
			ranges_fini(ranges);
			return -EINVAL;
		}
		append(ranges, range);
	}
	return 0;
}
