/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <time.h>

#include "base/buffer.h"
#include "base/util.h"
#include "fs/fs.h"
#include "store/policy.h"

/* A value that somebody else's program stored must not be able to add lines of its own. */
static void add_line(struct buffer *text, const char *name, const char *value)
{
	buffer_addf(text, "%s=", name);
	for (; *value; value++)
		buffer_add(text, (unsigned char)*value < ' ' ? "?" : value, 1);
	buffer_add_string(text, "\n");
}

/* What it has, if that is not the whole file. */
static void add_part(struct buffer *text, const struct ranges *ranges)
{
	if (!ranges->count || ranges_are_one(ranges, 0, RANGE_END))
		return;
	cleanup(free_ptr) char *part = ranges_print(ranges);
	add_line(text, "ranges", part);
}

char *fs_record_text(const struct record *record, uint64_t token, bool shared, const char *state)
{
	struct buffer text = {0};
	char since[32];
	time_t seconds = (time_t)record->since;
	struct tm tm;

	buffer_addf(&text, "token=%" PRIu64 "\n", token);
	add_line(&text, "mode", shared ? "shared" : "exclusive");
	add_part(&text, &record->ranges);
	if (record->known) {
		strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
		add_line(&text, "host", record->host);
		buffer_addf(&text, "pid=%d\nuid=%u\n", (int)record->pid, record->uid);
		add_line(&text, "command", record->command);
		add_line(&text, "since", since);
		if (record->cgroup)
			add_line(&text, "cgroup", record->cgroup);
		if (record->hold)
			add_line(&text, "hold",
				policy_get(&(struct store_policy){.hold = record->hold}, "hold"));
	} else {
		add_line(&text, "host", "unknown");
	}
	add_line(&text, "state", state);
	return buffer_take(&text);
}
