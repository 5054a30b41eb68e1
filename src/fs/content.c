/* SPDX-License-Identifier: MIT */
#include "fs/content.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "fs/stake.h"
#include "lock/lockspace.h"
#include "store/record.h"

int content_check(off_t end)
{
	return end < 0 || end > RECORD_MAX_CONTENT ? -EFBIG : 0;
}

static void resize(struct record *record, size_t size)
{
	if (!size) {
		free(take(record->content));
	} else {
		record->content = xrealloc(record->content, size, 1);
		if (size > record->content_size)
			memset(record->content + record->content_size, 0,
				size - record->content_size);
	}
	record->content_size = size;
}

void content_write(struct hold *hold, const char *data, size_t size, off_t offset,
	content_done_fn *fn, void *user)
{
	struct record *record = lockspace_record(hold->holding);
	size_t end = (size_t)offset + size;

	if (end > record->content_size)
		resize(record, end);
	if (size)
		memcpy(record->content + offset, data, size);
	lockspace_write(hold->holding, fn, user);
}

void content_truncate(struct hold *hold, off_t size, content_done_fn *fn, void *user)
{
	resize(lockspace_record(hold->holding), (size_t)size);
	lockspace_write(hold->holding, fn, user);
}
