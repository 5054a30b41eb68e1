/* SPDX-License-Identifier: MIT */
/*
 * Answers as etcd never gives them: cut off, of the wrong types, nested too deeply, with bytes
 * changed, contradicting themselves, or to another question than ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "store/etcd/json.h"
#include "store/etcd/wire.h"
#include "wire_samples.h"

/* True if it is refused; else it is freed. */
static bool is_bad_txn(const char *body, const struct wire_shape *shape)
{
	struct wire_result result;
	int error = wire_parse_txn(body, shape, &result);

	if (!error)
		wire_result_fini(&result);
	return error == -EBADMSG;
}

static bool are_bad_parts(const char *body, const struct wire_shape *shapes, size_t count)
{
	struct wire_result results[5];
	int error = wire_parse_parts(body, shapes, results, count, NULL, NULL);

	for (size_t i = 0; i < count && !error; i++)
		wire_result_fini(&results[i]);
	return error == -EBADMSG;
}

static bool is_bad_message(const char *body)
{
	struct wire_watch_message message;
	int error = wire_parse_watch(body, &message);

	if (!error)
		wire_kvs_fini(&message.deleted);
	return error == -EBADMSG;
}

static bool are_bad_keys(const char *body)
{
	struct wire_kvs keys;
	int64_t ttl;
	int error = wire_parse_lease_keys(body, 77, &ttl, &keys);

	if (!error)
		wire_kvs_fini(&keys);
	return error == -EBADMSG;
}

static bool is_bad_lease(const char *body)
{
	struct wire_lease lease;
	bool grant = wire_parse_grant(body, &lease) == -EBADMSG;

	return wire_parse_keepalive(body, 77, &lease) == -EBADMSG && grant;
}

/* Every reader gets it. */
static bool is_refused_by_all(const char *body)
{
	struct wire_error error;
	bool join = is_bad_txn(body, &join_shape), try = is_bad_txn(body, &try_shape);
	bool message = is_bad_message(body), keys = are_bad_keys(body), lease = is_bad_lease(body);
	char *token = wire_parse_token(body);
	bool is_token = token;

	free(token);
	wire_parse_error(body, 400, &error);
	return join && try && message && keys && lease && !is_token;
}

static void test_garbage(void **state)
{
	static const char *const bodies[] = {"", " ", "null", "true", "17", "\"text\"", "[]", "{}",
		"[{}]", "{\"result\":null,\"header\":null}", "{\"header\":[],\"result\":[]}",
		"{\"header\":{\"revision\":{}}}", "\xff\xfe", "{\"header\"", "not JSON at all",
		"{" HEADER "}", "{\"result\":{\"header\":{}}}", "{\"error\"}"};

	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		if (!is_refused_by_all(bodies[i]))
			fail_msg("%s", bodies[i]);
		assert_int_equal(wire_parse_nothing(bodies[i]),
			strcmp(bodies[i], "{" HEADER "}") == 0 ? 0 : -EBADMSG);
	}
}

/* --- of transactions --- */

static void assert_bad_kvs(const char *rest)
{
	char *body = xasprintf("{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_put\":{}}"
			       ",{\"response_range\":{%s}}]}",
		rest);

	if (!is_bad_txn(body, &join_shape))
		fail_msg("%s", body);
	free(body);
}

static void test_bad_keys_and_values(void **state)
{
	/* No key, one that is not base64, and none of the revisions that every key has. */
	assert_bad_kvs("\"kvs\":[{\"create_revision\":\"1\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":7,\"create_revision\":\"1\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ=\",\"create_revision\":\"1\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"Y?==\",\"create_revision\":\"1\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"x\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"-1\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":1e300}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":1.5}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":[1]}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\",\"value\":\"!\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\",\"value\":7}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\",\"lease\":\"x\"}]");
	assert_bad_kvs("\"kvs\":[\"YQ==\"]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\"},null]");
	/* Younger than the answer itself, which is of revision 17. */
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"18\"}]");
	assert_bad_kvs("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\","
		       "\"mod_revision\":\"9223372036854775807\"}]");
}

/* What is not a list is not an empty queue, in which everybody would be the first; nor is half. */
static void test_bad_lists(void **state)
{
	assert_bad_kvs("\"kvs\":{\"key\":\"YQ==\",\"create_revision\":\"1\"}");
	assert_bad_kvs("\"kvs\":\"YQ==\"");
	assert_bad_kvs("\"kvs\":null");
	assert_bad_kvs("\"more\":true");
	assert_bad_kvs("\"more\":1");
	assert_true(is_bad_txn("{" HEADER ",\"succeeded\":true,\"responses\":{}}", &join_shape));
	/* The sample has more behind it, which only who asked for so many may be told. */
	assert_true(is_bad_txn(joined_otherwise, &join_shape));
	assert_false(is_bad_txn(joined_otherwise, &limited_join_shape));
}

#define PUT "{\"response_put\":{}}"
#define RANGE "{\"response_range\":{}}"

static void test_bad_branches(void **state)
{
	static const char *const joins[] = {
		/* Fewer, more, others and in another order than asked for. */
		"\"succeeded\":true", "\"succeeded\":true,\"responses\":[" PUT "]",
		"\"succeeded\":true,\"responses\":[" PUT "," RANGE "," RANGE "]",
		"\"succeeded\":true,\"responses\":[" RANGE "," PUT "]",
		"\"succeeded\":true,\"responses\":[" PUT "," PUT "]",
		"\"succeeded\":true,\"responses\":[" PUT ",{\"response_range\":[]}]",
		"\"succeeded\":true,\"responses\":[" PUT ",7]",
		/* Without a compare nothing can fail. */
		"\"responses\":[" PUT "," RANGE "]", "\"succeeded\":1,\"responses\":[]"};
	static const char *const tries[] = {
		/* That nobody was there, and yet what is said if somebody is. */
		"\"succeeded\":true,\"responses\":[" RANGE "," RANGE "]", "\"succeeded\":true",
		"\"succeeded\":\"true\",\"responses\":[" PUT "]",
		"\"succeeded\":true,\"responses\":[{\"response_put\":7}]",
		/* And the reverse. */
		"\"responses\":[" PUT "]", "\"responses\":[" RANGE "]", "\"responses\":null"};

	for (size_t i = 0; i < ARRAY_SIZE(joins); i++) {
		char *body = xasprintf("{" HEADER ",%s}", joins[i]);
		if (!is_bad_txn(body, &join_shape))
			fail_msg("%s", body);
		free(body);
	}
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		char *body = xasprintf("{" HEADER ",%s}", tries[i]);
		if (!is_bad_txn(body, &try_shape))
			fail_msg("%s", body);
		free(body);
	}
}

static void test_bad_header(void **state)
{
	static const char rest[] = ",\"succeeded\":true,\"responses\":[" PUT "]}";
	static const char *const headers[] = {"{\"header\":{}", "{\"header\":7",
		"{\"header\":{\"revision\":\"0\"}", "{\"header\":{\"revision\":\"-5\"}",
		"{\"header\":{\"revision\":\"9223372036854775807\"}", "{\"header\":null"};

	assert_false(
		is_bad_txn("{" HEADER ",\"succeeded\":true,\"responses\":[" PUT "]}", &try_shape));
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		char *body = xasprintf("%s%s", headers[i], rest);
		if (!is_bad_txn(body, &try_shape))
			fail_msg("%s", body);
		free(body);
	}
	assert_true(is_bad_txn(
		"{" HEADER ",\"succeeded\":true,\"responses\":[" PUT "]} {}", &try_shape));
}

/* An answer that does not fit what was asked is nobody's answer. */
static void test_parts_mismatched(void **state)
{
	const struct wire_shape j = join_shape, t = try_shape, l = leave_shape;
	const struct wire_shape wrong[][4] = {{j, t, l, l}, {j, t, t, t}, {l, t, l, t},
		{j, l, l, t}, {t, t, t, t}, {j, j, l, t}, {t, j, l, t}};
	const struct wire_shape right[] = {j, t, l, t, l};

	assert_false(are_bad_parts(parts, right, 4));
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (!are_bad_parts(parts, wrong[i], 4))
			fail_msg("case %zu passes", i);
	}
	assert_true(are_bad_parts(parts, right, 3));
	assert_true(are_bad_parts(parts, right, 5));
	assert_true(are_bad_parts("{\"responses\":{}}", right, 1));
	assert_true(are_bad_parts("{" HEADER ",\"responses\":[" PUT "," RANGE "]}", right, 1));
	assert_true(are_bad_parts("", right, 1));
}

/* --- of the others --- */

static void test_bad_leases(void **state)
{
	static const char *const bodies[] = {"{" HEADER ",\"ID\":\"77\",\"TTL\":{}}",
		"{" HEADER ",\"ID\":\"77\",\"TTL\":\"-7\"}",
		"{" HEADER ",\"ID\":\"77\",\"TTL\":\"9223372036854775807\"}",
		"{" HEADER ",\"ID\":\"77\",\"TTL\":\"soon\"}", "{" HEADER ",\"ID\":7,\"TTL\":true}",
		"{\"ID\":\"77\",\"TTL\":\"60\"}"};
	struct wire_lease lease;

	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		char *stream = xasprintf("{\"result\":%s}", bodies[i]);
		if (!is_bad_lease(bodies[i]) || !is_bad_lease(stream) || !are_bad_keys(bodies[i]))
			fail_msg("%s", bodies[i]);
		free(stream);
	}
	const char *const headers[] = {"{}", "{\"header\":{}}",
		"{\"header\":[],\"revision\":\"17\"}",
		"{\"header\":{\"revision\":\"17\",\"raft_term\":-2}}",
		"{\"header\":{\"revision\":\"17\",\"cluster_id\":{}}}"};
	struct wire_origin origin;
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++)
		assert_int_equal(wire_parse_origin(headers[i], &origin), -EBADMSG);
	/* Of another lease than ours, which says nothing about ours. */
	assert_int_equal(wire_parse_keepalive(renewed, 78, &lease), -EBADMSG);
}

static void test_bad_lease_keys(void **state)
{
	struct wire_kvs keys;
	int64_t ttl;

	assert_true(are_bad_keys("{" HEADER ",\"ID\":\"77\",\"keys\":[\"YQ==\",7]}"));
	assert_true(are_bad_keys("{" HEADER ",\"ID\":\"77\",\"keys\":[\"YQ==\",\"Y\"]}"));
	/* Nor is this a session without keys, which would have lost all its locks. */
	assert_true(are_bad_keys("{" HEADER ",\"ID\":\"77\",\"keys\":\"YQ==\"}"));
	assert_true(are_bad_keys("{" HEADER ",\"keys\":[\"YQ==\"]}"));
	assert_int_equal(wire_parse_lease_keys(lease_keys, 78, &ttl, &keys), -EBADMSG);
}

#define EVENT(revision)                                                                            \
	"{\"type\":\"DELETE\",\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"" revision "\"}}"

static void test_bad_messages(void **state)
{
	static const char *const results[] = {"\"events\":{}", "\"events\":null",
		"\"events\":[{\"type\":\"DELETE\"}]", "\"events\":[{\"type\":7}]",
		"\"events\":[{\"type\":\"DELETE\",\"kv\":{\"key\":\"YQ==\"}}]",
		"\"events\":[{\"type\":\"DELETE\",\"kv\":{\"mod_revision\":\"7\"}}]",
		"\"created\":1", "\"canceled\":\"yes\"", "\"compact_revision\":\"x\"",
		/* Later than the message, and not in their order. */
		"\"events\":[" EVENT("18") "]", "\"events\":[" EVENT("7") "," EVENT("6") "]"};

	assert_false(is_bad_message("{\"result\":{" HEADER ",\"events\":[" EVENT("17") "]}}"));
	for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
		char *body = xasprintf("{\"result\":{" HEADER ",%s}}", results[i]);
		if (!is_bad_message(body))
			fail_msg("%s", body);
		free(body);
	}
	assert_true(is_bad_message("{\"result\":{\"created\":true}}"));
	assert_true(is_bad_message("{\"result\":{\"header\":{},\"events\":[]}}"));
}

/* --- of any kind --- */

static void test_deep_nesting(void **state)
{
	enum { DEPTH = 200000 };
	char *body = xzalloc(2 * DEPTH + 1);

	memset(body, '[', DEPTH);
	assert_true(is_refused_by_all(body));
	memset(body + DEPTH, ']', DEPTH);
	assert_true(is_refused_by_all(body));
	for (size_t i = 0; i + 5 < 2 * DEPTH; i += 5)
		memcpy(body + i, "{\"a\":", 5);
	assert_true(is_refused_by_all(body));
	free(body);
}

/* A list of so many zeros is JSON, which would take fifty times as much memory as text. */
static void test_too_many_values(void **state)
{
	struct buffer body = {0};

	buffer_add_string(&body, "{" HEADER ",\"ID\":\"77\",\"TTL\":\"60\",\"more\":[0");
	for (size_t i = 0; i < JSON_MAX_VALUES / 2; i++)
		buffer_add_string(&body, ",0");
	size_t size = body.size;
	buffer_add_string(&body, "]}");
	assert_int_equal(wire_parse_nothing(body.data), 0);
	buffer_resize(&body, size);
	for (size_t i = 0; i < JSON_MAX_VALUES / 2; i++)
		buffer_add_string(&body, ",0");
	buffer_add_string(&body, "]}");
	assert_int_equal(wire_parse_nothing(body.data), -EBADMSG);
	buffer_fini(&body);
}

static const char *const samples[] = {
	joined, joined_otherwise, refused, tried, parts, renewed, granted, lease_keys, deleted};

static void test_truncated(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		size_t size = strlen(samples[i]);
		while (size > 0 && samples[i][size - 1] != '}')
			size--;
		/* An exact allocation, so that a reader that goes beyond it is seen. */
		for (size_t n = 0; n < size; n++) {
			char *body = strndup(samples[i], n);
			assert_true(is_refused_by_all(body));
			free(body);
		}
	}
}

/* Nothing is expected of these but that they do no harm. */
static void test_changed_bytes(void **state)
{
	enum { ROUNDS = 20000 };
	static const char bytes[] = "{}[]\",:0-9.eE\\u=nul\x80\xff ";
	unsigned int random = 1;

	for (int round = 0; round < ROUNDS; round++) {
		char *body = xstrdup(samples[round % (int)ARRAY_SIZE(samples)]);
		size_t size = strlen(body);
		for (int i = 0; i < 1 + round % 4; i++) {
			random = random * 1103515245 + 12345;
			body[(random >> 8) % size] = bytes[(random >> 24) % (sizeof(bytes) - 1)];
		}
		(void)is_refused_by_all(body);
		free(body);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_bad_keys_and_values),
		cmocka_unit_test(test_bad_lists),
		cmocka_unit_test(test_bad_branches),
		cmocka_unit_test(test_bad_header),
		cmocka_unit_test(test_parts_mismatched),
		cmocka_unit_test(test_bad_leases),
		cmocka_unit_test(test_bad_lease_keys),
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_deep_nesting),
		cmocka_unit_test(test_too_many_values),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_changed_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
