/* SPDX-License-Identifier: MIT */
#include "store/record.h"

#include <string.h>

#include "base/buffer.h"
#include "base/pack.h"
#include "base/util.h"

void record_fini(struct record *record)
{
	ranges_fini(&record->ranges);
	free(record->cgroup);
	free(record->symlink);
	free(record->content);
	*record = (struct record){0};
}

void record_copy(struct record *to, const struct record *from)
{
	*to = *from;
	ranges_copy(&to->ranges, &from->ranges);
	to->cgroup = xstrdup(from->cgroup);
	if (from->symlink)
		to->symlink = xstrdup(from->symlink);
	if (!from->content)
		return;
	to->content = xrealloc(NULL, from->content_size, 1);
	memcpy(to->content, from->content, from->content_size);
}

void record_pack(struct buffer *buffer, const struct record *record)
{
	cleanup(free_ptr) char *ranges = ranges_print(&record->ranges);

	pack_u64(buffer, record->known);
	pack_string(buffer, record->host);
	pack_string(buffer, record->command);
	pack_u64(buffer, (uint64_t)record->pid);
	pack_u64(buffer, record->uid);
	pack_u64(buffer, record->gid);
	pack_u64(buffer, (uint64_t)record->since);
	pack_u64(buffer, record->hold);
	pack_u64(buffer, record->linked);
	pack_string(buffer, ranges);
	pack_string(buffer, record->cgroup);
	pack_string(buffer, record->symlink);
	pack_bytes(buffer, record->content, record->content_size);
	pack_u64(buffer, record->version);
}

static void unpack_text(struct unpack *from, char *to, size_t size)
{
	cleanup(free_ptr) char *text = unpack_string(from, NULL);

	copy_string(to, size, text ? text : "");
}

void record_unpack(struct unpack *from, struct record *record)
{
	*record = (struct record){.known = unpack_u64(from)};
	unpack_text(from, record->host, sizeof(record->host));
	unpack_text(from, record->command, sizeof(record->command));
	record->pid = (pid_t)unpack_u64(from);
	record->uid = (uid_t)unpack_u64(from);
	record->gid = (gid_t)unpack_u64(from);
	record->since = (int64_t)unpack_u64(from);
	record->hold = (enum store_hold)unpack_u64(from);
	record->linked = unpack_u64(from);
	cleanup(free_ptr) char *ranges = unpack_string(from, NULL);
	if (ranges && *ranges && ranges_parse(&record->ranges, ranges) < 0)
		from->failed = true;
	record->cgroup = unpack_string(from, NULL);
	record->symlink = unpack_string(from, NULL);
	record->content = unpack_string(from, &record->content_size);
	if (!record->content_size)
		free(take(record->content));
	record->version = unpack_u64(from);
}
