/* SPDX-License-Identifier: MIT */
#include "fs/shared.h"

#include <utlist.h>

#include "base/util.h"
#include "fs/fs.h"

/* Bytes of all texts but the newest. */
enum { MAX_SIZE = 64 * 1024 * 1024 };

static void drop(struct shared_text *text)
{
	if (!text->data)
		return;
	text->fs->shared_size -= text->size;
	DL_DELETE(text->fs->shared_texts, text);
	free(take(text->data));
}

struct shared_text *shared_text_new(struct fs *fs, char *data, size_t size)
{
	struct shared_text *text = xzalloc(sizeof(*text)), *older, *next;

	DL_FOREACH_SAFE(fs->shared_texts, older, next) {
		if (fs->shared_size + size > MAX_SIZE && !older->is_needed)
			drop(older);
	}
	*text = (struct shared_text){.data = data, .size = size, .references = 1, .fs = fs};
	DL_APPEND(fs->shared_texts, text);
	fs->shared_size += size;
	return text;
}

struct shared_text *shared_text_ref(struct shared_text *text)
{
	text->references++;
	return text;
}

void shared_text_unref(struct shared_text *text)
{
	if (!text || --text->references)
		return;
	drop(text);
	free(text);
}
