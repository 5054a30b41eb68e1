/* SPDX-License-Identifier: MIT */
#include "store/etcd/keys.h"

#include <string.h>

#include "base/buffer.h"
#include "base/util.h"

static const char shared_mark[] = "s-";
static const char symlink_mark[] = "l-";

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

const char *key_id_lease(const char *id)
{
	return key_id_is_shared(id) ? id + strlen(shared_mark) : id;
}

bool key_id_is_shared(const char *id)
{
	return strncmp(id, shared_mark, strlen(shared_mark)) == 0;
}

bool key_id_is_symlink(const char *id)
{
	return strncmp(id, symlink_mark, strlen(symlink_mark)) == 0;
}
