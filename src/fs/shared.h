/* SPDX-License-Identifier: MIT */
/*
 * A text that many open files read as, kept once.
 *
 * Together they are bounded: when there are too many, the oldest are dropped, and whoever still has
 * a file with that text open can't read on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct fs;

struct shared_text {
	char *data; /* owned; NULL: dropped */
	size_t size;
	size_t references;
	bool is_needed; /* it is not dropped */
	struct fs *fs;
	struct shared_text *prev, *next; /* in fs->shared_texts, unless it is dropped */
};

/* Takes the data over.  With one reference. */
struct shared_text *shared_text_new(struct fs *fs, char *data, size_t size);
struct shared_text *shared_text_ref(struct shared_text *text);
/* text may be NULL. */
void shared_text_unref(struct shared_text *text);
