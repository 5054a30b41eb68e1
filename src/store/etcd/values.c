/* SPDX-License-Identifier: MIT */
#include "store/etcd/values.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/buffer.h"
#include "base/util.h"
#include "store/etcd/json.h"
#include "store/etcd/keys.h"
#include "store/policy.h"
#include "store/record.h"
#include "store/store.h"

static const char hold_name[] = "hold";
static const char time_format[] = "%Y-%m-%dT%H:%M:%SZ";
/* The end of the year 9999, behind which that can't be read back. */
static const int64_t max_since = 253402300799;

/* symlink: its text as it is to be added, or NULL. */
static void add_record(struct cJSON *json, const struct record *record, const char *symlink)
{
	char since[32];
	time_t seconds = (time_t)record->since;
	struct tm tm;

	strftime(since, sizeof(since), time_format, gmtime_r(&seconds, &tm));
	json_add_string(json, "host", record->host);
	json_add_u64(json, "pid", (uint64_t)record->pid);
	json_add_u64(json, "uid", record->uid);
	json_add_u64(json, "gid", record->gid);
	json_add_string(json, "command", record->command);
	json_add_string(json, "since", since);
	if (record->cgroup)
		json_add_string(json, "cgroup", record->cgroup);
	if (record->ranges.count) {
		cleanup(free_ptr) char *ranges = ranges_print(&record->ranges);
		json_add_string(json, "ranges", ranges);
	}
	if (record->linked)
		json_add_u64(json, "linked", 1);
	if (symlink)
		json_add_string(json, "symlink", symlink);
	if (record->hold)
		json_add_string(json, hold_name,
			policy_get(&(struct store_policy){.hold = record->hold}, hold_name));
}

static const char *mode_name(bool shared)
{
	return shared ? "shared" : "exclusive";
}

char *value_of_record(const struct record *record, bool shared)
{
	struct cJSON *json = json_object();

	json_add_u64(json, "v", 1);
	add_record(json, record, record->symlink);
	json_add_string(json, "mode", mode_name(shared));
	if (record->content_size) {
		struct buffer data = {0};
		base64_encode(&data, record->content, record->content_size);
		json_add_string(json, "data", data.data);
		buffer_fini(&data);
	}
	return json_print_free(json);
}

char *value_describe(const struct record *record, bool shared, uint64_t token)
{
	struct cJSON *json = json_object();
	size_t size = record->symlink ? strlen(record->symlink) + 1 : 0;
	cleanup(free_ptr) char *symlink = size ? xzalloc(size) : NULL;

	/* The name of a file may be any bytes, but what others are to read has to be JSON. */
	if (symlink)
		copy_printable(symlink, size, record->symlink);
	json_add_u64(json, "token", token);
	json_add_string(json, "mode", mode_name(shared));
	if (record->known)
		add_record(json, record, symlink);
	return json_print_free(json);
}

static void parse_content(const struct cJSON *json, struct record *record)
{
	const char *data = json_string(json, "data");
	struct buffer content = {0};

	if (!data || strlen(data) > 2UL * RECORD_MAX_CONTENT || base64_decode(&content, data) < 0 ||
		content.size > RECORD_MAX_CONTENT) {
		buffer_fini(&content);
		return;
	}
	record->content_size = content.size;
	record->content = content.size ? buffer_take(&content) : NULL;
	buffer_fini(&content);
}

static enum store_hold parse_hold(const struct cJSON *json)
{
	const char *hold = json_string(json, hold_name);
	struct store_policy policy = {0};

	if (hold)
		(void)policy_set(&policy, hold_name, hold);
	return policy.hold == STORE_HOLD_CLOSE ? STORE_HOLD_INHERIT : policy.hold;
}

/* A number of that kind; 0 for anything else. */
static uint32_t small_number(const struct cJSON *json, const char *name, uint32_t max)
{
	uint64_t number = json_u64(json, name);

	return number <= max ? (uint32_t)number : 0;
}

/* The last one stands for none. */
static uint32_t user_id(const struct cJSON *json, const char *name)
{
	return small_number(json, name, UINT32_MAX - 1);
}

static char *parse_symlink(const struct cJSON *json)
{
	const char *text = json_string(json, "symlink");

	return text && *text && strlen(text) <= RECORD_MAX_SYMLINK ? xstrdup(text) : NULL;
}

static char *parse_cgroup(const struct cJSON *json)
{
	const char *text = json_string(json, "cgroup");
	char *cgroup = text && *text ? xzalloc(RECORD_MAX_CGROUP + 1) : NULL;

	if (cgroup)
		copy_printable(cgroup, RECORD_MAX_CGROUP + 1, text);
	return cgroup;
}

static void parse_ranges(const struct cJSON *json, struct ranges *ranges)
{
	const char *text = json_string(json, "ranges");

	*ranges = (struct ranges){0};
	if (text)
		(void)ranges_parse(ranges, text);
}

void value_parse_record(const char *value, struct record *record)
{
	cleanup(json_free_ptr) struct cJSON *json = value ? json_parse(value) : NULL;
	const char *host = json_string(json, "host"), *command = json_string(json, "command");
	const char *since = json_string(json, "since");
	struct tm tm = {0};

	*record = (struct record){0};
	if (json_u64(json, "v") != 1 || !host)
		return;
	record->known = true;
	copy_printable(record->host, sizeof(record->host), host);
	copy_printable(record->command, sizeof(record->command), command ? command : "");
	record->pid = (pid_t)small_number(json, "pid", INT32_MAX);
	record->uid = user_id(json, "uid");
	record->gid = user_id(json, "gid");
	if (since && strptime(since, time_format, &tm))
		record->since = timegm(&tm);
	if (record->since > max_since)
		record->since = 0;
	record->cgroup = parse_cgroup(json);
	record->hold = parse_hold(json);
	record->linked = json_u64(json, "linked");
	record->symlink = parse_symlink(json);
	parse_ranges(json, &record->ranges);
	parse_content(json, record);
}

bool value_parse_place(const char *id, const char *value, struct record *record)
{
	struct range range;
	bool has_range = key_id_range(id, &range), shared = key_id_is_shared(id);
	uint64_t sequence;

	value_parse_record(value, record);
	if (!key_id_is_symlink(id))
		free(take(record->symlink));
	/* What another program writes says nothing of ranges, and nobody gets more than it had. */
	if (!key_id_sequence(id, &sequence) ||
		(!has_range && shared && ranges_are_exclusive(&record->ranges)))
		ranges_fini(&record->ranges);
	if (has_range && !record->ranges.count)
		ranges_set(&record->ranges, range);
	return record->ranges.count ? !ranges_are_exclusive(&record->ranges) : shared;
}

/* --- directories --- */

static void add_time(struct cJSON *json, const char *name, struct timespec time)
{
	char text[40];

	snprintf(text, sizeof(text), "%" PRId64 ".%09ld", (int64_t)time.tv_sec, time.tv_nsec);
	json_add_string(json, name, text);
}

/* "SECONDS.NANOSECONDS", with nine digits behind the point. */
static struct timespec parse_time(const struct cJSON *json, const char *name)
{
	const char *text = json_string(json, name);
	bool negative = text && *text == '-';
	const char *point = text ? strchr(text, '.') : NULL;
	uint64_t seconds, nanoseconds;

	if (!point || strlen(point) != 10)
		return (struct timespec){0};
	cleanup(free_ptr) char *whole =
		xasprintf("%.*s", (int)(point - text) - negative, text + negative);
	if (parse_u64(whole, 10, (uint64_t)INT64_MAX + negative, &seconds) < 0 ||
		parse_u64(point + 1, 10, 999999999, &nanoseconds) < 0)
		return (struct timespec){0};
	return (struct timespec){
		.tv_sec = (int64_t)(negative ? -seconds : seconds), .tv_nsec = (long)nanoseconds};
}

char *value_of_directory(const struct store_directory *directory, const char *id)
{
	struct cJSON *json = json_object();
	char mode[8];

	snprintf(mode, sizeof(mode), "%04o", directory->mode & 07777u);
	json_add_u64(json, "v", 1);
	json_add_string(json, "mode", mode);
	json_add_u64(json, "uid", directory->uid);
	json_add_u64(json, "gid", directory->gid);
	add_time(json, "atime", directory->atime);
	add_time(json, "mtime", directory->mtime);
	add_time(json, "ctime", directory->ctime);
	struct cJSON *policy = json_add_object(json, "policy");
	for (size_t i = 0; i < POLICY_COUNT; i++) {
		const char *value = policy_get(&directory->policy, policy_name(i));
		if (value)
			json_add_string(policy, policy_name(i), value);
	}
	if (id)
		json_add_string(json, "id", id);
	return json_print_free(json);
}

void value_parse_directory(const char *value, struct store_directory *directory)
{
	cleanup(json_free_ptr) struct cJSON *json = value ? json_parse(value) : NULL;
	const char *mode = json_string(json, "mode");
	uint64_t bits;

	*directory = (struct store_directory){.mode = STORE_DEFAULT_MODE};
	if (mode && parse_u64(mode, 8, 07777, &bits) == 0)
		directory->mode = (mode_t)bits;
	directory->uid = user_id(json, "uid");
	directory->gid = user_id(json, "gid");
	directory->atime = parse_time(json, "atime");
	directory->mtime = parse_time(json, "mtime");
	directory->ctime = parse_time(json, "ctime");
	const struct cJSON *policy = json_get(json, "policy");
	for (size_t i = 0; i < POLICY_COUNT; i++) {
		const char *text = json_string(policy, policy_name(i));
		if (text)
			(void)policy_set(&directory->policy, policy_name(i), text);
	}
}

bool value_directory_has_id(const char *value, const char *id)
{
	cleanup(json_free_ptr) struct cJSON *json = value ? json_parse(value) : NULL;
	const char *found = json_string(json, "id");

	return found && strcmp(found, id) == 0;
}
