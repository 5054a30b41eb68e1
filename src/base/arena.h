/* SPDX-License-Identifier: MIT */
/* Memory for many small things that are freed together. */
#pragma once

#include <stddef.h>

struct arena_block;

/* A zeroed struct is an empty one; the owner calls arena_fini. */
struct arena {
	struct arena_block *blocks;
	size_t used, room; /* of the newest block */
	size_t size;       /* of all blocks together, in bytes */
};

/* A copy of these bytes, aligned for every type, which lives until arena_fini. */
void *arena_copy(struct arena *arena, const void *data, size_t size);
/* The same of a string; NULL of NULL. */
char *arena_strdup(struct arena *arena, const char *s);
void arena_fini(struct arena *arena);
