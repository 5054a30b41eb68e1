/* SPDX-License-Identifier: MIT */
/*
 * What is written to the store and read back: base64, keys, records of places, directories and
 * their policies; and what is made of values that somebody else wrote.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/buffer.h"
#include "base/util.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"
#include "store/policy.h"
#include "store/record.h"
#include "store/store.h"

/* Compares and frees. */
static void assert_text(char *text, const char *expected)
{
	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

/* --- base64 --- */

static void test_base64_vectors(void **state)
{
	/* RFC 4648, section 10. */
	static const struct {
		const char *plain, *encoded;
	} vectors[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
		{"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
		{"\xfb\xff\xbf", "+/+/"}};

	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		struct buffer encoded = {0}, plain = {0};
		base64_encode(&encoded, vectors[i].plain, strlen(vectors[i].plain));
		assert_text(buffer_take(&encoded), vectors[i].encoded);
		assert_int_equal(base64_decode(&plain, vectors[i].encoded), 0);
		assert_text(buffer_take(&plain), vectors[i].plain);
	}
}

static void test_base64_round_trip(void **state)
{
	unsigned char bytes[256];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 167 + 13);
	for (size_t size = 0; size <= sizeof(bytes); size++) {
		struct buffer encoded = {0}, plain = {0};
		base64_encode(&encoded, bytes, size);
		buffer_add_string(&plain, "before");
		assert_int_equal(base64_decode(&plain, encoded.data ? encoded.data : ""), 0);
		assert_int_equal(plain.size, 6 + size);
		assert_memory_equal(plain.data, "before", 6);
		assert_memory_equal(plain.data + 6, bytes, size);
		buffer_fini(&encoded);
		buffer_fini(&plain);
	}
}

static void test_base64_refuses(void **state)
{
	static const char *const texts[] = {"A", "AB", "ABC", "A===", "====", "=ABC", "A=BC",
		"AB=C", "AB==CD==", "Zg==Zg==", "ABC\n", "AB C", "AB-_", "AB\xc3\xa4", "ABCDE"};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct buffer plain = {0};
		buffer_add_string(&plain, "before");
		if (base64_decode(&plain, texts[i]) != -EBADMSG)
			fail_msg("%s", texts[i]);
		assert_text(buffer_take(&plain), "before");
	}
}

/* --- keys --- */

static void test_keys(void **state)
{
	assert_text(key_first("/p", "a/b"), "/p/a/b/");
	assert_text(key_end("/p", "a/b"), "/p/a/b0");
	assert_text(key_first("/p", ""), "/p/");
	assert_text(key_end("/p", ""), "/p0");
	assert_text(key_place("/p", "a/b", "77.1"), "/p/a/b/77.1");
	assert_true(key_id_is_shared("s-77.1"));
	assert_false(key_id_is_shared("77.1"));
	assert_false(key_id_is_shared("s"));
	assert_false(key_id_is_shared(""));
	assert_true(key_id_is_symlink("l-77.1"));
	assert_false(key_id_is_symlink("77.1"));
	assert_false(key_id_is_symlink("s-l-"));
	assert_false(key_id_is_symlink("l"));
}

static void test_key_below(void **state)
{
	assert_text(key_below("/p", "a", "/p/a/77", 7), "77");
	assert_text(key_below("/p", "", "/p/a/77", 7), "a/77");
	assert_text(key_below("/p", "a", "/p/a/", 5), "");
	/* Exactly as long as it is said to be. */
	assert_text(key_below("/p", "a", "/p/a/7788", 7), "77");
	assert_null(key_below("/p", "a", "/p/a/77", 4));
	assert_null(key_below("/p", "a", "/p/ab/77", 8));
	assert_null(key_below("/p", "a/b", "/p/a/77", 7));
	assert_null(key_below("/p", "", "", 0));
}

/* Two keys never give the same text. */
static void test_key_below_escapes(void **state)
{
	assert_text(key_below("/p", "a", "/p/a/x\0y", 8), "x\\0y");
	assert_text(key_below("/p", "a", "/p/a/x\\0y", 9), "x\\\\0y");
	assert_text(key_below("/p", "a", "/p/a/\0", 6), "\\0");
	assert_text(key_below("/p", "a", "/p/a/\\", 6), "\\\\");
	assert_text(key_below("/p", "a", "/p/a/\xff\n", 7), "\xff\n");
}

static void test_key_split(void **state)
{
	static const char *const others[] = {"", "a", "/", "/a", "a/", "a/b/"};
	char place[] = "a/b/77.1";
	char *id = key_split_place(place);

	assert_string_equal(place, "a/b");
	assert_string_equal(id, "77.1");
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		char *below = xstrdup(others[i]);
		assert_null(key_split_place(below));
		free(below);
	}
}

/* --- records --- */

static void check_record(const struct record *record, bool shared)
{
	char *value = value_of_record(record, shared);
	struct record read;

	value_parse_record(value, &read);
	assert_true(read.known);
	assert_string_equal(read.host, record->host);
	assert_string_equal(read.command, record->command);
	assert_int_equal(read.pid, record->pid);
	assert_int_equal(read.uid, record->uid);
	assert_int_equal(read.gid, record->gid);
	assert_int_equal(read.since, record->since);
	assert_int_equal(read.hold, record->hold);
	assert_int_equal(read.content_size, record->content_size);
	if (record->symlink)
		assert_string_equal(read.symlink, record->symlink);
	else
		assert_null(read.symlink);
	if (record->cgroup)
		assert_string_equal(read.cgroup, record->cgroup);
	else
		assert_null(read.cgroup);
	if (record->content_size)
		assert_memory_equal(read.content, record->content, record->content_size);
	record_fini(&read);
	assert_null(read.content);
	assert_null(read.symlink);
	assert_null(read.cgroup);
	free(value);
}

static void assert_range(const char *id, bool has_one, struct range expected)
{
	struct range range;

	assert_int_equal(key_id_range(id, &range), has_one);
	if (!has_one)
		return;
	assert_true(range.start == expected.start && range.end == expected.end);
	assert_int_equal(range.exclusive, expected.exclusive);
}

static void test_key_ranges(void **state)
{
	static const char *const none[] = {"1f.2", "s-1f.2", "l-1f.2", "1f", "r0-9", "1f.r0-9",
		".2r0-9", "1f.2r", "1f.2r5", "1f.2r9-5", "1f.2r-5", "1f.2r0-9x", "job.2r0-9",
		"1f.2r0-9-3", "1f.2r18446744073709551616-", "x-1f.2r0-9"};
	uint64_t sequence = 0;

	assert_text(key_range_mark(0, 99), "r0-99");
	assert_text(key_range_mark(7, RANGE_END), "r7-");
	assert_range("1f.2r0-99", true, (struct range){0, 99, true});
	assert_range("s-1f.2r7-", true, (struct range){7, RANGE_END, false});
	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		assert_range(none[i], false, (struct range){0});
	assert_true(key_id_sequence("s-1f.2ar7-", &sequence) && sequence == 0x2a);
	assert_true(key_id_sequence("l-1f.b", &sequence) && sequence == 0xb);
	assert_false(key_id_sequence("1f", &sequence) || key_id_sequence("job.2", &sequence));
	assert_text(key_notice_path("a/b"), ".latchfs.shrunk/a/b");
	assert_string_equal(key_noticed(".latchfs.shrunk/a/b"), "a/b");
	assert_null(key_noticed(".latchfs.shrunken/a/b"));
	assert_null(key_noticed("a/.latchfs.shrunk/b"));
}

static void assert_place(const char *id, const char *value, const char *ranges, bool shared)
{
	struct record record;

	assert_int_equal(value_parse_place(id, value, &record), shared);
	if (ranges)
		assert_text(ranges_print(&record.ranges), ranges);
	else
		assert_int_equal(record.ranges.count, 0);
	record_fini(&record);
}

/* What an id says is the most that its place can have been given. */
static void test_places(void **state)
{
	static const char part[] = "{\"v\":1,\"host\":\"h\",\"ranges\":\"w0-9,r20-\"}";
	static const char reader[] = "{\"v\":1,\"host\":\"h\",\"ranges\":\"r20-\"}";
	static const char nonsense[] = "{\"v\":1,\"host\":\"h\",\"ranges\":\"w9-0\"}";

	assert_place("1f.2r0-", part, "w0-9,r20-", false);
	assert_place("1f.2r0-", reader, "r20-", true);
	assert_place("1f.2r0-5", nonsense, "w0-5", false);
	assert_place("s-1f.2r0-5", NULL, "r0-5", true);
	assert_place("1f.2", part, "w0-9,r20-", false);
	assert_place("1f.2", reader, "r20-", true);
	assert_place("1f.2", nonsense, NULL, false);
	assert_place("s-1f.2", reader, "r20-", true);
	assert_place("s-1f.2", part, NULL, true);
	assert_place("job", part, NULL, false);
}

static void test_record(void **state)
{
	struct record record = {.known = true,
		.host = "web1",
		.command = "a \"b\" \\ \xc3\xa4",
		.pid = 1234,
		.uid = 4294967294,
		.gid = 100,
		.since = 1769824800};
	char content[] = "one\0two\n", cgroup[] = "/a \"b\"/\xc3\xa4";

	check_record(&record, false);
	record.hold = STORE_HOLD_NAME;
	check_record(&record, false);
	record.hold = STORE_HOLD_INHERIT;
	record.content = content;
	record.content_size = sizeof(content);
	check_record(&record, true);
	assert_text(value_describe(&record, true, UINT64_C(9007199254740993)),
		"{\"token\":9007199254740993,\"mode\":\"shared\",\"host\":\"web1\",\"pid\":1234,"
		"\"uid\":4294967294,\"gid\":100,\"command\":\"a \\\"b\\\" \\\\ \xc3\xa4\","
		"\"since\":\"2026-01-31T02:00:00Z\"}");
	record.cgroup = cgroup;
	check_record(&record, true);
	assert_text(value_describe(&record, false, 7),
		"{\"token\":7,\"mode\":\"exclusive\",\"host\":\"web1\",\"pid\":1234,"
		"\"uid\":4294967294,\"gid\":100,\"command\":\"a \\\"b\\\" \\\\ \xc3\xa4\","
		"\"since\":\"2026-01-31T02:00:00Z\",\"cgroup\":\"/a \\\"b\\\"/\xc3\xa4\"}");
	record.known = false;
	assert_text(value_describe(&record, false, 7), "{\"token\":7,\"mode\":\"exclusive\"}");
}

static void test_record_extremes(void **state)
{
	struct record record = {.known = true, .since = 0};

	check_record(&record, false);
	memset(record.host, 'h', sizeof(record.host) - 1);
	memset(record.command, 'c', sizeof(record.command) - 1);
	record.cgroup = xzalloc(RECORD_MAX_CGROUP + 1);
	memset(record.cgroup, 'g', RECORD_MAX_CGROUP);
	record.content = xzalloc(RECORD_MAX_CONTENT);
	record.content_size = RECORD_MAX_CONTENT;
	memset(record.content, 0xfe, RECORD_MAX_CONTENT);
	check_record(&record, false);
	record_fini(&record);
}

static void test_record_of_a_symlink(void **state)
{
	static char texts[][16] = {"web1:1234", "/", "a \"b\" \\ \n\x01\x7f", "\xc3\xa4\xff\x80"};
	struct record record = {.known = true, .host = "web1", .hold = STORE_HOLD_NAME}, copy;
	struct buffer value = {0};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		record.symlink = texts[i];
		check_record(&record, false);
	}
	record.symlink = xzalloc(RECORD_MAX_SYMLINK + 2);
	memset(record.symlink, 'x', RECORD_MAX_SYMLINK);
	check_record(&record, false);
	record_copy(&copy, &record);
	assert_string_equal(copy.symlink, record.symlink);
	record_fini(&copy);
	/* No link has a longer text. */
	buffer_addf(&value, "{\"v\":1,\"host\":\"a\",\"symlink\":\"%sx\"}", record.symlink);
	value_parse_record(value.data, &copy);
	assert_true(copy.known);
	assert_null(copy.symlink);
	buffer_fini(&value);
	record_fini(&record);
}

static void assert_cgroup(const char *json, const char *expected)
{
	cleanup(free_ptr) char *value = xasprintf("{\"v\":1,\"host\":\"a\",\"cgroup\":%s}", json);
	struct record record, copy;

	value_parse_record(value, &record);
	assert_true(record.known);
	record_copy(&copy, &record);
	record_fini(&record);
	if (expected)
		assert_string_equal(copy.cgroup, expected);
	else
		assert_null(copy.cgroup);
	record_fini(&copy);
}

/* Whoever wrote it, it is one printable line that is not too long. */
static void test_record_of_a_cgroup(void **state)
{
	cleanup(free_ptr) char *filler = xzalloc(RECORD_MAX_CGROUP + 1);
	memset(filler, 'g', RECORD_MAX_CGROUP);
	cleanup(free_ptr) char *longer = xasprintf("\"%sx\"", filler);

	assert_cgroup("\"/docker/ab\"", "/docker/ab");
	assert_cgroup("\"/\"", "/");
	assert_cgroup("\"no path\"", "no path");
	assert_cgroup("\"/a\\nstate=held\\u007f\"", "/a?state=held?");
	assert_cgroup("\"/\xff\xc3\xa4\"", "/?\xc3\xa4");
	assert_cgroup("\"\"", NULL);
	assert_cgroup("null", NULL);
	assert_cgroup("7", NULL);
	assert_cgroup("[\"/a\"]", NULL);
	assert_cgroup(longer, filler);
}

static void test_foreign_records(void **state)
{
	static const char *const values[] = {NULL, "", "7587879127637462530", "null", "[]", "{",
		"{\"host\":\"a\"}", "{\"v\":2,\"host\":\"a\"}", "{\"v\":1}", "{\"v\":1,\"host\":7}",
		"{\"v\":1,\"host\":null,\"data\":\"YQ==\"}", "\xff\xfe\x01"};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct record record;
		value_parse_record(values[i], &record);
		assert_false(record.known);
		assert_null(record.content);
		record_fini(&record);
	}
}

/* Ours by its looks, but with senseless fields: these read as empty. */
static void test_damaged_records(void **state)
{
	static const char *const values[] = {
		"{\"v\":1,\"host\":\"a\",\"data\":\"YQ=\",\"pid\":\"x\",\"since\":\"yesterday\"}",
		"{\"v\":1,\"host\":\"a\",\"data\":[\"YQ==\"],\"pid\":-7,\"since\":12}",
		"{\"v\":1,\"host\":\"a\",\"data\":\"\",\"pid\":{},\"command\":[1]}",
		"{\"v\":1,\"host\":\"a\",\"symlink\":\"\"}",
		"{\"v\":1,\"host\":\"a\",\"symlink\":[\"b\"]}"};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct record record;
		value_parse_record(values[i], &record);
		assert_true(record.known);
		assert_string_equal(record.host, "a");
		assert_string_equal(record.command, "");
		assert_int_equal(record.pid, 0);
		assert_int_equal(record.since, 0);
		assert_null(record.symlink);
		assert_null(record.content);
		assert_int_equal(record.content_size, 0);
		record_fini(&record);
	}
}

/* Longer than anything we would write. */
static void test_oversized_record(void **state)
{
	struct buffer value = {0};
	struct record record;
	char *filler = xzalloc(4 * RECORD_MAX_CONTENT + 1);

	memset(filler, 'A', 4 * RECORD_MAX_CONTENT);
	buffer_addf(&value, "{\"v\":1,\"host\":\"%s\",\"data\":\"%s\"}", filler, filler);
	value_parse_record(value.data, &record);
	assert_true(record.known);
	assert_int_equal(strlen(record.host), RECORD_HOST_SIZE - 1);
	assert_null(record.content);
	record_fini(&record);
	buffer_fini(&value);
	free(filler);
}

/* --- directories --- */

static void check_time(struct timespec a, struct timespec b)
{
	assert_int_equal(a.tv_sec, b.tv_sec);
	assert_int_equal(a.tv_nsec, b.tv_nsec);
}

static void check_directory(const struct store_directory *directory)
{
	char *value = value_of_directory(directory, "id-1");
	struct store_directory read;

	value_parse_directory(value, &read);
	assert_int_equal(read.mode, directory->mode);
	assert_int_equal(read.uid, directory->uid);
	assert_int_equal(read.gid, directory->gid);
	check_time(read.atime, directory->atime);
	check_time(read.mtime, directory->mtime);
	check_time(read.ctime, directory->ctime);
	assert_memory_equal(&read.policy, &directory->policy, sizeof(read.policy));
	assert_true(value_directory_has_id(value, "id-1"));
	assert_false(value_directory_has_id(value, "id-2"));
	free(value);
}

static void test_directory(void **state)
{
	static const struct timespec times[] = {{0, 0}, {1769824800, 123456789}, {-1, 0},
		{-1, 999999999}, {-86400, 1}, {0, 1}, {INT64_C(253402300800), 5},
		{INT64_C(-5000000000), 100000000}, {INT64_MAX, 999999999}, {INT64_MIN, 1}};
	struct store_directory directory = {.mode = 01777, .uid = 4294967294, .gid = 7};

	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		directory.atime = times[i];
		directory.mtime = times[(i + 1) % ARRAY_SIZE(times)];
		directory.ctime = times[(i + 2) % ARRAY_SIZE(times)];
		check_directory(&directory);
	}
	for (mode_t mode = 0; mode <= 07777; mode += 73) {
		directory.mode = mode;
		check_directory(&directory);
	}
	directory.policy = (struct store_policy){.hold = STORE_HOLD_CLOSE,
		.names = STORE_NAMES_ALWAYS,
		.open = STORE_OPEN_LOCK,
		.on_loss = STORE_ON_LOSS_KILL,
		.dirs = STORE_DIRS_LEASE,
		.mkdir = STORE_MKDIR_OWNER,
		.record = STORE_RECORD_NO};
	check_directory(&directory);
}

static void test_foreign_directories(void **state)
{
	static const char *const values[] = {NULL, "", "x", "[]", "{}",
		"{\"mode\":\"10000\",\"uid\":\"x\",\"gid\":-1,\"atime\":5,\"mtime\":\"5\"}",
		"{\"mode\":\"9\",\"atime\":\"1.-5\",\"mtime\":\".5\",\"ctime\":\"now\"}",
		"{\"mode\":511,\"policy\":{\"names\":\"some\",\"what\":\"ever\",\"open\":7}}",
		"{\"mode\":\"-1\",\"policy\":[\"names\"]}"};
	static const struct store_directory expected = {.mode = 01777};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct store_directory read;
		value_parse_directory(values[i], &read);
		assert_int_equal(read.mode, expected.mode);
		assert_int_equal(read.uid, 0);
		assert_int_equal(read.gid, 0);
		check_time(read.atime, expected.atime);
		check_time(read.mtime, expected.mtime);
		check_time(read.ctime, expected.ctime);
		assert_memory_equal(&read.policy, &expected.policy, sizeof(read.policy));
		assert_false(value_directory_has_id(values[i], "id-1"));
	}
}

/* --- policies --- */

static void test_policy(void **state)
{
	static const char *const values[][2] = {{"hold", "close"}, {"names", "held"},
		{"names", "always"}, {"open", "plain"}, {"open", "lock"}, {"on_loss", "error"},
		{"on_loss", "term"}, {"on_loss", "kill"}, {"record", "yes"}, {"record", "no"},
		{"dirs", "keep"}, {"dirs", "lease"}, {"mkdir", "write"}, {"mkdir", "owner"}};
	struct store_policy policy = {0};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		assert_int_equal(policy_set(&policy, values[i][0], values[i][1]), 0);
		assert_string_equal(policy_get(&policy, values[i][0]), values[i][1]);
	}
	assert_int_equal(policy.names, STORE_NAMES_ALWAYS);
	assert_int_equal(policy.open, STORE_OPEN_LOCK);
	assert_int_equal(policy.on_loss, STORE_ON_LOSS_KILL);
	assert_int_equal(policy.record, STORE_RECORD_NO);
	assert_int_equal(policy.dirs, STORE_DIRS_LEASE);
	assert_int_equal(policy.mkdir, STORE_MKDIR_OWNER);
	for (size_t i = 0; i < POLICY_COUNT; i++) {
		assert_non_null(policy_get(&policy, policy_name(i)));
		assert_int_equal(policy_set(&policy, policy_name(i), NULL), 0);
		assert_null(policy_get(&policy, policy_name(i)));
	}
}

static void test_policy_refuses(void **state)
{
	struct store_policy policy = {.open = STORE_OPEN_LOCK};

	assert_int_equal(policy_set(&policy, "what", "ever"), -ENODATA);
	assert_int_equal(policy_set(&policy, "what", NULL), -ENODATA);
	assert_int_equal(policy_set(&policy, "", "lock"), -ENODATA);
	assert_int_equal(policy_set(&policy, "open", "always"), -EINVAL);
	assert_int_equal(policy_set(&policy, "open", ""), -EINVAL);
	assert_int_equal(policy_set(&policy, "open", "lockx"), -EINVAL);
	assert_string_equal(policy_get(&policy, "open"), "lock");
	assert_null(policy_get(&policy, "what"));
}

static void test_policy_inherit(void **state)
{
	struct store_policy above = {.names = STORE_NAMES_ALWAYS, .open = STORE_OPEN_LOCK};
	struct store_policy policy = {.open = STORE_OPEN_PLAIN, .on_loss = STORE_ON_LOSS_TERM};

	policy_inherit(&policy, &above);
	assert_int_equal(policy.names, STORE_NAMES_ALWAYS);
	assert_int_equal(policy.open, STORE_OPEN_PLAIN);
	assert_int_equal(policy.on_loss, STORE_ON_LOSS_TERM);
	assert_int_equal(policy.record, STORE_RECORD_INHERIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64_vectors),
		cmocka_unit_test(test_base64_round_trip),
		cmocka_unit_test(test_base64_refuses),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_key_below),
		cmocka_unit_test(test_key_below_escapes),
		cmocka_unit_test(test_key_split),
		cmocka_unit_test(test_key_ranges),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_record_extremes),
		cmocka_unit_test(test_record_of_a_symlink),
		cmocka_unit_test(test_record_of_a_cgroup),
		cmocka_unit_test(test_foreign_records),
		cmocka_unit_test(test_damaged_records),
		cmocka_unit_test(test_oversized_record),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_foreign_directories),
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_policy_refuses),
		cmocka_unit_test(test_policy_inherit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
