/* SPDX-License-Identifier: MIT */
/* What an exclusive holder writes into its lock file. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct hold;

typedef void content_done_fn(void *user, int result);

/* True if the hold is of parts of the file and has no content: what others have written is read. */
bool content_is_of_others(const struct hold *hold);

/*
 * 0, or why the content may not reach up to there: -EFBIG, or -ENOSPC if all together would be too
 * much.  hold: whose content it is; NULL if it will not be changed.
 */
int content_check(const struct hold *hold, off_t end);

/*
 * Both change the content, within what content_check allows, and have the store keep it; fn gets 0
 * or -EIO, -EFBIG, -ENOSPC, -EACCES, never inside the call.
 */
void content_write(struct hold *hold, const char *data, size_t size, off_t offset,
	content_done_fn *fn, void *user);
void content_truncate(struct hold *hold, off_t size, content_done_fn *fn, void *user);
