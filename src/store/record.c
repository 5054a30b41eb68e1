/* SPDX-License-Identifier: MIT */
#include "store/record.h"

#include <string.h>

#include "base/util.h"

void record_fini(struct record *record)
{
	ranges_fini(&record->ranges);
	free(record->symlink);
	free(record->content);
	*record = (struct record){0};
}

void record_copy(struct record *to, const struct record *from)
{
	*to = *from;
	ranges_copy(&to->ranges, &from->ranges);
	if (from->symlink)
		to->symlink = xstrdup(from->symlink);
	if (!from->content)
		return;
	to->content = xrealloc(NULL, from->content_size, 1);
	memcpy(to->content, from->content, from->content_size);
}
