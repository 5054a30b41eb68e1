/* SPDX-License-Identifier: MIT */
#include "fs/content.h"

#include <errno.h>
#include <string.h>

#include "fs/stake.h"
#include "lock/lockspace.h"
#include "store/record.h"

bool content_is_of_others(const struct hold *hold)
{
	const struct record *record = lockspace_record(hold->holding);

	return record->ranges.count && !record->content_size;
}

int content_check(const struct hold *hold, off_t end)
{
	if (end < 0 || end > RECORD_MAX_CONTENT)
		return -EFBIG;
	return !hold || lockspace_has_room(hold->holding, (size_t)end) ? 0 : -ENOSPC;
}

void content_write(struct hold *hold, const char *data, size_t size, off_t offset,
	content_done_fn *fn, void *user)
{
	struct record *record = lockspace_record(hold->holding);
	size_t end = (size_t)offset + size;

	if (end > record->content_size)
		lockspace_resize(hold->holding, end);
	if (size)
		memcpy(record->content + offset, data, size);
	lockspace_write(hold->holding, fn, user);
}

void content_truncate(struct hold *hold, off_t size, content_done_fn *fn, void *user)
{
	lockspace_resize(hold->holding, (size_t)size);
	lockspace_write(hold->holding, fn, user);
}
