/* SPDX-License-Identifier: MIT */
#include "store/etcd/keys.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/util.h"

static const char shared_mark[] = "s-";
static const char symlink_mark[] = "l-";

const char key_notices[] = ".latchfs.shrunk";

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
	return xasprintf("%s/%s", key_notices, path);
}

const char *key_noticed(const char *path)
{
	size_t length = strlen(key_notices);

	return begins_with(path, key_notices) && path[length] == '/' ? path + length + 1 : NULL;
}

static const char *behind_shared_mark(const char *id)
{
	return key_id_is_shared(id) ? id + strlen(shared_mark) : id;
}

char *key_range_mark(uint64_t start, uint64_t end)
{
	return end == RANGE_END ? xasprintf("r%" PRIu64 "--", start)
				: xasprintf("r%" PRIu64 "-%" PRIu64 "-", start, end);
}

bool key_id_range(const char *id, struct range *range)
{
	cleanup(free_ptr) char *copy = xstrdup(behind_shared_mark(id));
	char *rest = copy;
	const char *start = strsep(&rest, "-"), *end = strsep(&rest, "-");

	*range = (struct range){.end = RANGE_END, .exclusive = !key_id_is_shared(id)};
	return *start == 'r' && rest && parse_u64(start + 1, 10, UINT64_MAX, &range->start) == 0 &&
	       (!*end || parse_u64(end, 10, UINT64_MAX, &range->end) == 0) &&
	       range->start <= range->end;
}

const char *key_id_lease(const char *id)
{
	const char *rest = behind_shared_mark(id), *last = strrchr(rest, '-');

	return *rest == 'r' && last ? last + 1 : rest;
}

bool key_id_is_shared(const char *id)
{
	return strncmp(id, shared_mark, strlen(shared_mark)) == 0;
}

bool key_id_is_symlink(const char *id)
{
	return strncmp(id, symlink_mark, strlen(symlink_mark)) == 0;
}
