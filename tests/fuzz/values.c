/* SPDX-License-Identifier: MIT */
/*
 * A key below the prefix, and its value, as anybody may have put them.  The first line is the key
 * (behind the prefix), the rest the value.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fs/fs.h"
#include "fuzz.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"
#include "store/record.h"

/* Where it belongs to, put together again, is where it came from. */
static void take_apart(const char *key, size_t size)
{
	char *below = key_below("/p", "", key, size);

	require(below && (strchr(below, '\\') || strlen(below) == size - strlen("/p/")));
	char *id = key_split_place(below);
	if (id) {
		require(*below && *id && !strchr(id, '/'));
		char *again = key_place("/p", below, id);
		char *first = key_first("/p", below), *end = key_end("/p", below);
		require(strncmp(again, first, strlen(first)) == 0);
		require(strcmp(first, again) < 0 && strcmp(again, end) < 0);
		if (!strchr(again, '\\'))
			require(strlen(again) == size && memcmp(again, key, size) == 0);
		/* Seen from its own lock it is the same, and from another it is not there. */
		char *own = key_below("/p", below, again, strlen(again));
		require(own && (strchr(own, '\\') || strcmp(own, id) == 0));
		require(!key_below("/p/other/prefix", below, again, strlen(again)));
		free(own);
		free(again);
		free(first);
		free(end);
	}
	free(below);
}

static void compare(const struct record *a, const struct record *b)
{
	require(a->known == b->known);
	require(strcmp(a->host, b->host) == 0 && strcmp(a->command, b->command) == 0);
	require(a->pid == b->pid && a->uid == b->uid && a->gid == b->gid);
	require(a->since == b->since && a->hold == b->hold);
	require(!a->cgroup == !b->cgroup);
	require(!a->cgroup || strcmp(a->cgroup, b->cgroup) == 0);
	require(a->content_size == b->content_size);
	require(!a->content_size || memcmp(a->content, b->content, a->content_size) == 0);
}

static void require_lines(const char *text, size_t count)
{
	for (; *text; count--) {
		const char *end = strchr(text, '\n'), *equals = strchr(text, '=');
		require(count && end && equals && equals < end);
		while (text < end)
			require(skip_printable(&text));
		text = end + 1;
	}
	require(!count);
}

/* token, mode, host, pid, uid, command, since and state, and what not every record has. */
static size_t count_lines(const struct record *record)
{
	const struct ranges *ranges = &record->ranges;
	bool is_part = ranges->count && !ranges_are_one(ranges, 0, RANGE_END);

	return record->known ? 8 + (size_t)(is_part + !!record->hold + !!record->cgroup) : 4;
}

static void show(const struct record *record, bool shared)
{
	char *json = value_describe(record, shared, INT64_MAX);
	char *text = fs_record_text(record, 7, shared, "held");

	fuzz_require_json(json);
	require_lines(text, count_lines(record));
	free(json);
	free(text);
}

static void read_value(const char *value)
{
	struct record record, again;

	value_parse_record(value, &record);
	require(record.content_size <= RECORD_MAX_CONTENT);
	require(!record.content == !record.content_size);
	require(record.pid >= 0);
	require(!record.cgroup || strlen(record.cgroup) - 1 < RECORD_MAX_CGROUP);
	show(&record, false);
	show(&record, true);
	if (record.known) {
		char *ours = value_of_record(&record, true);
		value_parse_record(ours, &again);
		compare(&record, &again);
		record_fini(&again);
		free(ours);
	}
	record_fini(&record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
	size_t length = line ? (size_t)(line - data) : size;
	char *key = xzalloc(length + 4);

	memcpy(key, "/p/", 3);
	if (length)
		memcpy(key + 3, data, length);
	take_apart(key, length + 3);
	free(key);
	if (line) {
		char *value = fuzz_text(line + 1, size - length - 1);
		read_value(value);
		free(value);
	}
	return 0;
}
