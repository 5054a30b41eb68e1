/* SPDX-License-Identifier: MIT */
#include "base/arena.h"

#include <stdalign.h>
#include <string.h>
#include <utlist.h>

#include "base/util.h"

enum { BLOCK = 64 * 1024 };

struct arena_block {
	struct arena_block *next;
	alignas(max_align_t) char data[];
};

static void add_block(struct arena *arena, size_t size)
{
	size_t room = size > BLOCK ? size : BLOCK;
	/* Its pages are touched when they are needed. */
	struct arena_block *block = xrealloc(NULL, 1, sizeof(*block) + room);

	LL_PREPEND(arena->blocks, block);
	arena->used = 0;
	arena->room = room;
	arena->size += room;
}

void *arena_copy(struct arena *arena, const void *data, size_t size)
{
	size_t aligned = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);

	if (aligned > arena->room - arena->used)
		add_block(arena, aligned);
	char *copy = arena->blocks->data + arena->used;
	arena->used += aligned;
	return memcpy(copy, data, size);
}

char *arena_strdup(struct arena *arena, const char *s)
{
	return s ? arena_copy(arena, s, strlen(s) + 1) : NULL;
}

void arena_fini(struct arena *arena)
{
	struct arena_block *block, *next;

	LL_FOREACH_SAFE(arena->blocks, block, next) {
		free(block);
	}
	*arena = (struct arena){0};
}
