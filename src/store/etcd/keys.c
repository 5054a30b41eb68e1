/* SPDX-License-Identifier: MIT */
#include "store/etcd/keys.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/util.h"

static const char shared_mark[] = "s-";
static const char symlink_mark[] = "l-";

/* Below it stand the news of places that have given a part back. */
static const char notices[] = ".latchfs.shrunk";

/* Below it stand the keys of sessions. */
static const char sessions[] = ".latchfs.session";

char *key_first(const char *prefix, const char *path)
{
	return *path ? xasprintf("%s/%s/", prefix, path) : xasprintf("%s/", prefix);
}

char *key_end(const char *prefix, const char *path)
{
	return *path ? xasprintf("%s/%s0", prefix, path) : xasprintf("%s0", prefix);
}

char *key_place(const char *prefix, const char *path, const char *id)
{
	return xasprintf("%s/%s/%s", prefix, path, id);
}

char *key_below(const char *prefix, const char *path, const char *key, size_t size)
{
	cleanup(free_ptr) char *first = key_first(prefix, path);
	size_t length = strlen(first);
	struct buffer below = {0};

	if (size < length || memcmp(key, first, length) != 0)
		return NULL;
	for (size_t i = length; i < size; i++) {
		if (key[i] == '\0')
			buffer_add_string(&below, "\\0");
		else if (key[i] == '\\')
			buffer_add_string(&below, "\\\\");
		else
			buffer_add(&below, &key[i], 1);
	}
	return buffer_take(&below);
}

char *key_place_id(const char *prefix, const char *path, const char *key, size_t size)
{
	char *id = key_below(prefix, path, key, size);

	if (id && *id && !strchr(id, '/'))
		return id;
	free(id);
	return NULL;
}

char *key_split_place(char *below)
{
	char *slash = strrchr(below, '/');

	if (!slash || slash == below || !slash[1])
		return NULL;
	*slash = '\0';
	return slash + 1;
}

char *key_notice_path(const char *path)
{
	return xasprintf("%s/%s", notices, path);
}

const char *key_noticed(const char *path)
{
	size_t length = strlen(notices);

	return begins_with(path, notices) && path[length] == '/' ? path + length + 1 : NULL;
}

char *key_session(const char *prefix, uint64_t lease)
{
	return xasprintf("%s/%s/%" PRIx64, prefix, sessions, lease);
}

bool key_is_hidden(const char *below)
{
	size_t length = strlen(sessions);

	return key_noticed(below) ||
	       (begins_with(below, sessions) && (!below[length] || below[length] == '/'));
}

char *key_range_mark(uint64_t start, uint64_t end)
{
	return end == RANGE_END ? xasprintf("r%" PRIu64 "-", start)
				: xasprintf("r%" PRIu64 "-%" PRIu64, start, end);
}

/* The parts of an id of ours: "LEASE.NUMBERrRANGE", of which the range may be missing. */
struct id_parts {
	char *text; /* owned */
	char *number, *range;
};

static bool split_id(const char *id, struct id_parts *parts)
{
	uint64_t number;
	char *dot;

	parts->text = xstrdup(key_id_lease(id));
	dot = strchr(parts->text, '.');
	if (!dot)
		return false;
	*dot = '\0';
	parts->number = dot + 1;
	parts->range = strchr(parts->number, 'r');
	if (parts->range)
		*parts->range++ = '\0';
	return parse_u64(parts->text, 16, UINT64_MAX, &number) == 0 &&
	       parse_u64(parts->number, 16, UINT64_MAX, &number) == 0;
}

static bool parse_range(char *text, struct range *range)
{
	char *end = strchr(text, '-');

	if (!end)
		return false;
	*end++ = '\0';
	return parse_u64(text, 10, UINT64_MAX, &range->start) == 0 &&
	       (!*end || parse_u64(end, 10, UINT64_MAX, &range->end) == 0) &&
	       range->start <= range->end;
}

bool key_id_range(const char *id, struct range *range)
{
	struct id_parts parts;

	*range = (struct range){.end = RANGE_END, .exclusive = !key_id_is_shared(id)};
	bool has_one = split_id(id, &parts) && parts.range && parse_range(parts.range, range);
	free(parts.text);
	return has_one;
}

bool key_id_sequence(const char *id, uint64_t *sequence)
{
	struct id_parts parts;
	bool is_ours = split_id(id, &parts);

	if (is_ours)
		(void)parse_u64(parts.number, 16, UINT64_MAX, sequence);
	free(parts.text);
	return is_ours;
}

const char *key_id_lease(const char *id)
{
	return id + (key_id_is_shared(id) || key_id_is_symlink(id) ? strlen(shared_mark) : 0);
}

bool key_id_is_shared(const char *id)
{
	return strncmp(id, shared_mark, strlen(shared_mark)) == 0;
}

bool key_id_is_symlink(const char *id)
{
	return strncmp(id, symlink_mark, strlen(symlink_mark)) == 0;
}
