/* SPDX-License-Identifier: MIT */
#include "fs/lines.h"

#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <string.h>
#include <time.h>

#include "base/ranges.h"
#include "base/util.h"
#include "event/loop.h"
#include "store/store.h"

enum { MAX_TEXT = 64 * 1024 * 1024 };

static const char header[] =
	"name\tmode\tstate\thost\tpid\tuid\tcommand\tsince\ttoken\twaiters\tranges\n";

/* --- who waits --- */

/*
 * Bytes, as a tree of ranges without overlaps.  Two ranges that overlap are equal to its order, so
 * to look one up is to find what it overlaps.
 */
struct bytes {
	void *tree;
};

static int by_place(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->start > y->end) - (x->end < y->start);
}

static bool bytes_overlap(const struct bytes *bytes, const struct range *range)
{
	return tfind(range, &bytes->tree, by_place) != NULL;
}

/* What it overlaps becomes one range with it, so each range is added and taken out once. */
static void bytes_add(struct bytes *bytes, const struct range *range)
{
	struct range *added = xzalloc(sizeof(*added)), **found;

	*added = *range;
	while ((found = (struct range **)tfind(added, &bytes->tree, by_place))) {
		struct range *other = *found;
		tdelete(other, &bytes->tree, by_place);
		added->start = other->start < added->start ? other->start : added->start;
		added->end = other->end > added->end ? other->end : added->end;
		free(other);
	}
	or_die(tsearch(added, &bytes->tree, by_place));
}

/* Takes out one range; false if there was none. */
static bool bytes_take_out(struct bytes *bytes)
{
	if (!bytes->tree)
		return false;
	struct range *range = *(struct range **)bytes->tree;
	tdelete(range, &bytes->tree, by_place);
	free(range);
	return true;
}

/* What has come before a place in its queue. */
struct before {
	bool any, exclusive; /* at least in part */
	bool any_whole, exclusive_whole;
	struct bytes parts, exclusive_parts;
};

/* Forgets one range; false if none was left, and then all is forgotten. */
static bool forget_one(struct before *before)
{
	if (bytes_take_out(&before->parts) || bytes_take_out(&before->exclusive_parts))
		return true;
	*before = (struct before){0};
	return false;
}

static bool is_barred(const struct before *before, const struct store_survey_place *place)
{
	if (!place->ranges.count)
		return place->shared ? before->exclusive : before->any;
	if (before->exclusive_whole || (before->any_whole && !place->shared))
		return true;
	for (size_t i = 0; i < place->ranges.count; i++) {
		const struct range *range = &place->ranges.list[i];
		if (bytes_overlap(
			    range->exclusive ? &before->parts : &before->exclusive_parts, range))
			return true;
	}
	return false;
}

static void add_place(struct before *before, const struct store_survey_place *place)
{
	bool is_whole = !place->ranges.count;

	before->any = true;
	before->exclusive = before->exclusive || !place->shared;
	before->any_whole = before->any_whole || is_whole;
	before->exclusive_whole = before->exclusive_whole || (is_whole && !place->shared);
	for (size_t i = 0; i < place->ranges.count; i++) {
		const struct range *range = &place->ranges.list[i];
		if (range->exclusive)
			bytes_add(&before->exclusive_parts, range);
		bytes_add(&before->parts, range);
	}
}

/* --- the text --- */

/* What separates columns or lines is written as in /proc/mounts, and so is what is not there. */
static void add_word(struct buffer *text, const char *word)
{
	if (!word || !*word)
		buffer_add_string(text, "-");
	for (; word && *word; word++) {
		unsigned char c = (unsigned char)*word;
		if (c <= ' ' || c == '\\' || c == 0x7f)
			buffer_addf(text, "\\%03o", c);
		else
			buffer_add(text, word, 1);
	}
	buffer_add_string(text, "\t");
}

static void add_who(struct buffer *text, const struct store_survey_place *place)
{
	char since[32];
	time_t seconds = (time_t)place->since;
	struct tm tm;

	if (!place->host) {
		buffer_add_string(text, "-\t-\t-\t-\t-\t");
		return;
	}
	strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
	add_word(text, place->host);
	buffer_addf(text, "%d\t%u\t", (int)place->pid, place->uid);
	add_word(text, place->command);
	buffer_addf(text, "%s\t", since);
}

static void add_line(struct lines *lines, size_t number)
{
	const struct store_survey_place *place = &lines->survey->places[number];
	const struct ranges *ranges = &place->ranges;
	bool is_part = ranges->count && !ranges_are_one(ranges, 0, RANGE_END);
	cleanup(free_ptr) char *part = is_part ? ranges_print(ranges) : NULL;
	struct buffer *text = &lines->text;

	add_word(text, place->path);
	add_word(text, place->shared ? "shared" : "exclusive");
	add_word(text, lines->waits[number] ? "waiting" : "held");
	add_who(text, place);
	buffer_addf(
		text, "%" PRIu64 "\t%zu\t%s\n", place->token, lines->waiting, part ? part : "-");
}

static void note_lock(struct lines *lines)
{
	if (lines->lock_count == lines->lock_room) {
		lines->lock_room = lines->lock_room ? 2 * lines->lock_room : 64;
		lines->locks = xrealloc(lines->locks, lines->lock_room, sizeof(lines->locks[0]));
	}
	lines->locks[lines->lock_count++] = (struct lines_lock){
		.path = lines->survey->places[lines->first].path, .at = lines->text.size};
}

/* --- in steps --- */

/* Whoever has somebody in his way who came before waits. */
static void look_at_next(struct lines *lines)
{
	const struct store_survey_place *places = lines->survey->places;
	size_t next = lines->next;

	if (next == lines->survey->place_count ||
		strcmp(places[next].path, places[lines->first].path) != 0) {
		lines->end = next;
		lines->step = LINES_FORGET;
		return;
	}
	lines->waits[next] = is_barred(lines->before, &places[next]);
	lines->waiting += lines->waits[next];
	add_place(lines->before, &places[next]);
	lines->next++;
}

static void forget_next(struct lines *lines)
{
	enum { AT_ONCE = 50 };

	for (int i = 0; i < AT_ONCE; i++) {
		if (forget_one(lines->before))
			continue;
		lines->next = lines->first;
		lines->step = LINES_WRITE;
		note_lock(lines);
		return;
	}
}

static void write_next(struct lines *lines)
{
	add_line(lines, lines->next++);
	if (lines->next < lines->end)
		return;
	lines->first = lines->end;
	lines->waiting = 0;
	lines->step = LINES_LOOK;
}

static void go_on(struct lines *lines)
{
	switch (lines->step) {
	case LINES_LOOK:
		look_at_next(lines);
		break;
	case LINES_FORGET:
		forget_next(lines);
		break;
	case LINES_WRITE:
		write_next(lines);
		break;
	}
}

void lines_init(struct lines *lines, const struct store_survey *survey)
{
	*lines = (struct lines){.survey = survey, .header_size = strlen(header)};
	lines->waits = xzalloc(survey->place_count * sizeof(lines->waits[0]));
	lines->before = xzalloc(sizeof(*lines->before));
	buffer_add_string(&lines->text, header);
}

int lines_compose(struct lines *lines, int64_t until)
{
	while (lines->first < lines->survey->place_count) {
		go_on(lines);
		if (lines->text.size > MAX_TEXT)
			return -EFBIG;
		if (loop_clock() >= until)
			return 0;
	}
	return 1;
}

void lines_fini(struct lines *lines)
{
	while (lines->before && forget_one(lines->before))
		continue;
	free(lines->before);
	free(lines->waits);
	free(lines->locks);
	buffer_fini(&lines->text);
}
