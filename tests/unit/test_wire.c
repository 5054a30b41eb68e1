/* SPDX-License-Identifier: MIT */
/*
 * etcd's JSON gateway: what is composed, and what is made of answers, as etcd 3.4 and 3.5 give
 * them.
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

/* --- requests --- */

/* Compares, makes sure that it is JSON, and frees it. */
static void assert_body(char *body, const char *expected)
{
	struct cJSON *json = json_parse(body);

	assert_non_null(json);
	json_free(json);
	assert_string_equal(body, expected);
	free(body);
}

static void assert_call(struct wire_txn *txn, const char *expected_rpc, const char *expected)
{
	const char *rpc = NULL;

	assert_body(wire_txn_body(txn, &rpc), expected);
	assert_string_equal(rpc, expected_rpc);
	wire_txn_fini(txn);
}

static void assert_txn(struct wire_txn *txn, const char *expected)
{
	assert_call(txn, "/v3/kv/txn", expected);
}

static void test_simple_requests(void **state)
{
	assert_body(wire_lease_grant(10), "{\"TTL\":\"10\"}");
	assert_body(wire_lease(UINT64_C(7587879127637462530)), "{\"ID\":\"7587879127637462530\"}");
	assert_body(wire_lease_keys(77), "{\"ID\":\"77\",\"keys\":true}");
	assert_body(wire_authenticate("a\"b", "c\\d\n"),
		"{\"name\":\"a\\\"b\",\"password\":\"c\\\\d\\n\"}");
}

static void test_watch_request(void **state)
{
	assert_body(wire_watch("a", "b", 18),
		"{\"create_request\":{\"key\":\"YQ==\",\"range_end\":\"Yg==\","
		"\"start_revision\":\"18\",\"filters\":[\"NOPUT\"],\"progress_notify\":true,"
		"\"fragment\":true}}");
}

static void test_join_request(void **state)
{
	struct wire_txn txn = {0};

	wire_if_absent(&txn, "a", NULL);
	wire_put(&txn, "ab", "v", 77);
	wire_put_again(&txn, "ab", "v");
	wire_range(
		&txn, "a", "b", &(struct wire_range_options){.keys_only = true, .created_from = 5});
	assert_txn(&txn,
		"{\"compare\":[{\"key\":\"YQ==\",\"target\":\"CREATE\",\"result\":\"EQUAL\","
		"\"create_revision\":\"0\"}],\"success\":["
		"{\"request_put\":{\"key\":\"YWI=\",\"value\":\"dg==\",\"lease\":\"77\"}},"
		"{\"request_put\":{\"key\":\"YWI=\",\"value\":\"dg==\",\"ignore_lease\":true}},"
		"{\"request_range\":{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"keys_only\":true,"
		"\"min_create_revision\":\"5\"}}]}");
}

static void test_evict_requests(void **state)
{
	struct wire_txn txn = {0};

	wire_range(&txn, "a", "b",
		&(struct wire_range_options){.created_from = 5, .created_to = 7, .limit = 1});
	assert_call(&txn, "/v3/kv/range",
		"{\"key\":\"YQ==\",\"range_end\":\"Yg==\","
		"\"min_create_revision\":\"5\",\"max_create_revision\":\"7\",\"limit\":\"1\"}");
}

/* What needs no transaction is none; a put alone, which nobody sends, would be one. */
static void test_sole_requests(void **state)
{
	struct wire_txn txn = {0};

	wire_delete(&txn, "a");
	assert_call(&txn, "/v3/kv/deleterange", "{\"key\":\"YQ==\"}");
	wire_put(&txn, "a", "v", 77);
	assert_txn(&txn, "{\"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"dg==\","
			 "\"lease\":\"77\"}}]}");
	wire_if_absent(&txn, "a", NULL);
	wire_delete(&txn, "a");
	assert_txn(&txn, "{\"compare\":[{\"key\":\"YQ==\",\"target\":\"CREATE\","
			 "\"result\":\"EQUAL\",\"create_revision\":\"0\"}],\"success\":["
			 "{\"request_delete_range\":{\"key\":\"YQ==\"}}]}");
}

static void test_other_compares(void **state)
{
	struct wire_txn txn = {0};

	wire_if_absent(&txn, "a", "b");
	wire_if_created(&txn, "a", 3);
	wire_if_modified(&txn, "a", 4);
	wire_if_present(&txn, "a");
	assert_txn(&txn,
		"{\"compare\":[{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"target\":\"CREATE\","
		"\"result\":\"EQUAL\",\"create_revision\":\"0\"},"
		"{\"key\":\"YQ==\",\"target\":\"CREATE\",\"result\":\"EQUAL\","
		"\"create_revision\":\"3\"},"
		"{\"key\":\"YQ==\",\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":\"4\"},"
		"{\"key\":\"YQ==\",\"target\":\"CREATE\",\"result\":\"GREATER\","
		"\"create_revision\":\"0\"}]}");
}

static void test_both_branches(void **state)
{
	struct wire_txn txn = {0};

	wire_delete(&txn, "a");
	wire_delete(&txn, "b");
	wire_txn_else(&txn);
	wire_range(&txn, "a", NULL, &(struct wire_range_options){.by_creation = true, .limit = 1});
	assert_txn(&txn, "{\"success\":[{\"request_delete_range\":{\"key\":\"YQ==\"}},"
			 "{\"request_delete_range\":{\"key\":\"Yg==\"}}],\"failure\":["
			 "{\"request_range\":{\"key\":\"YQ==\",\"sort_order\":\"ASCEND\","
			 "\"sort_target\":\"CREATE\",\"limit\":\"1\"}}]}");
}

static void add_part(struct wire_txn *whole, struct wire_txn *part, size_t operations)
{
	assert_int_equal(wire_part_operations(part), operations);
	assert_true(wire_part_size(part) > 0);
	wire_add_part(whole, part);
	wire_txn_fini(part);
}

/* What has no compares needs no transaction of its own. */
static void test_parts(void **state)
{
	struct wire_txn whole = {0}, join = {0}, try = {0}, leave = {0};

	wire_put(&join, "a", "v", 77);
	wire_range(&join, "a", NULL, &(struct wire_range_options){0});
	add_part(&whole, &join, 2);
	wire_if_absent(&try, "b", NULL);
	wire_delete(&try, "b");
	wire_txn_else(&try);
	wire_range(&try, "b", NULL, &(struct wire_range_options){0});
	add_part(&whole, &try, 0);
	wire_delete(&leave, "c");
	add_part(&whole, &leave, 1);
	assert_int_equal(whole.shape.success.count, 0);
	assert_txn(&whole, "{\"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"dg==\","
			   "\"lease\":\"77\"}},{\"request_range\":{\"key\":\"YQ==\"}},"
			   "{\"request_txn\":{\"compare\":[{\"key\":\"Yg==\",\"target\":\"CREATE\","
			   "\"result\":\"EQUAL\",\"create_revision\":\"0\"}],"
			   "\"success\":[{\"request_delete_range\":{\"key\":\"Yg==\"}}],"
			   "\"failure\":[{\"request_range\":{\"key\":\"Yg==\"}}]}},"
			   "{\"request_delete_range\":{\"key\":\"Yw==\"}}]}");
}

/* --- answers that make sense --- */

static void check_joined(const char *body, const struct wire_shape *shape, bool more)
{
	struct wire_result result;

	assert_int_equal(wire_parse_txn(body, shape, &result), 0);
	assert_true(result.succeeded);
	assert_int_equal(result.revision, 17);
	assert_int_equal(result.range_count, 1);
	const struct wire_kvs *kvs = &result.ranges[0];
	assert_int_equal(kvs->count, 2);
	assert_int_equal(kvs->more, more);
	assert_string_equal(kvs->kv[0].key, "a");
	assert_string_equal(kvs->kv[0].value, "v");
	assert_int_equal(kvs->kv[0].created, 9);
	assert_int_equal(kvs->kv[0].modified, 12);
	assert_true(kvs->kv[0].lease == UINT64_C(7587879127637462530));
	assert_int_equal(kvs->kv[1].key_size, 3);
	assert_memory_equal(kvs->kv[1].key, "b\0c", 4);
	assert_null(kvs->kv[1].value);
	assert_int_equal(kvs->kv[1].lease, 0);
	wire_result_fini(&result);
}

static void test_txn(void **state)
{
	check_joined(joined, &join_shape, false);
	check_joined(joined_otherwise, &limited_join_shape, true);
}

static void test_txn_tried(void **state)
{
	struct wire_result result;

	assert_int_equal(wire_parse_txn(refused, &try_shape, &result), 0);
	assert_false(result.succeeded);
	assert_int_equal(result.range_count, 2);
	assert_int_equal(result.ranges[0].count, 0);
	assert_int_equal(result.ranges[1].count, 1);
	assert_true(result.ranges[1].more);
	wire_result_fini(&result);
	assert_int_equal(wire_parse_txn(tried, &try_shape, &result), 0);
	assert_true(result.succeeded);
	assert_int_equal(result.range_count, 0);
	wire_result_fini(&result);
}

/* An answer to another question is none, though fields may be new. */
static void test_sole_answers(void **state)
{
	const struct wire_shape get_shape = {.success = {{WIRE_RANGE}, 1}};
	struct wire_result result;

	assert_int_equal(
		wire_parse_txn("{" HEADER ",\"deleted\":\"1\",\"new\":{}}", &leave_shape, &result),
		0);
	assert_true(result.succeeded);
	assert_int_equal(result.revision, 17);
	assert_int_equal(result.deleted, 1);
	assert_int_equal(wire_parse_txn("{" HEADER "}", &leave_shape, &result), 0);
	assert_int_equal(result.deleted, 0);
	assert_int_equal(wire_parse_txn("{" HEADER ",\"new\":[],\"kvs\":[{\"key\":\"YQ==\","
					"\"create_revision\":\"9\"}],\"count\":\"1\"}",
				 &get_shape, &result),
		0);
	assert_int_equal(result.range_count, 1);
	assert_string_equal(result.ranges[0].kv[0].key, "a");
	wire_result_fini(&result);
	const char *const bad[] = {"{\"deleted\":\"1\"}", "{" HEADER ",\"deleted\":-1}",
		"{" HEADER ",\"deleted\":\"1\",\"kvs\":[]}", "{" HEADER ",\"succeeded\":true}",
		"{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_delete_range\":{}}]}"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(wire_parse_txn(bad[i], &leave_shape, &result), -EBADMSG);
		assert_int_equal(wire_parse_txn(bad[i], &get_shape, &result), -EBADMSG);
	}
}

static void test_parts_answered(void **state)
{
	const struct wire_shape shapes[] = {join_shape, try_shape, leave_shape, try_shape};
	struct wire_result results[4];

	assert_int_equal(wire_parse_parts(parts, shapes, results, 4, NULL, NULL), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(results[i].revision, 17);
	assert_true(results[0].succeeded);
	assert_int_equal(results[0].range_count, 1);
	assert_string_equal(results[0].ranges[0].kv[0].key, "a");
	assert_false(results[1].succeeded);
	assert_int_equal(results[1].range_count, 2);
	assert_string_equal(results[1].ranges[1].kv[0].key, "b");
	assert_true(results[2].succeeded);
	assert_int_equal(results[2].range_count, 0);
	assert_true(results[3].succeeded);
	for (size_t i = 0; i < 4; i++)
		wire_result_fini(&results[i]);
}

static void test_lease(void **state)
{
	struct wire_lease lease;

	assert_int_equal(wire_parse_grant(granted, &lease), 0);
	assert_int_equal(lease.id, 77);
	assert_int_equal(lease.ttl, 60);
	assert_int_equal(lease.revision, 17);
	assert_int_equal(wire_parse_keepalive(renewed, 77, &lease), 0);
	assert_int_equal(lease.ttl, 60);
	/* Of a lease that does not exist. */
	assert_int_equal(
		wire_parse_keepalive("{\"result\":{" HEADER ",\"ID\":\"77\"}}\n", 77, &lease), 0);
	assert_true(lease.ttl <= 0);
	assert_int_equal(wire_parse_grant("{" HEADER ",\"ID\":\"77\"}", &lease), -EBADMSG);
	assert_int_equal(wire_parse_grant("{" HEADER ",\"TTL\":\"60\"}", &lease), -EBADMSG);
	assert_int_equal(wire_parse_grant("{\"ID\":\"-7\",\"TTL\":\"60\"}", &lease), -EBADMSG);
	assert_int_equal(wire_parse_keepalive(granted, 77, &lease), -EBADMSG);
}

static void test_origin(void **state)
{
	struct wire_origin origin;
	struct wire_lease lease;

	assert_int_equal(wire_parse_keepalive(renewed, 77, &lease), 0);
	assert_int_equal(wire_parse_origin("{" HEADER "}", &origin), 0);
	assert_true(origin.cluster == 14841639068965178418U && origin.term == 2);
	assert_true(origin.cluster == lease.origin.cluster && origin.term == lease.origin.term);
	/* A member that has applied nothing yet is in no term. */
	assert_int_equal(wire_parse_origin("{\"header\":{\"revision\":\"17\"}}", &origin), 0);
	assert_true(!origin.cluster && !origin.term);
}

static void test_lease_keys(void **state)
{
	struct wire_kvs keys;
	int64_t ttl;

	assert_int_equal(wire_parse_lease_keys(lease_keys, 77, &ttl, &keys), 0);
	assert_int_equal(ttl, 59);
	assert_int_equal(keys.count, 2);
	assert_string_equal(keys.kv[0].key, "a");
	assert_int_equal(keys.kv[1].key_size, 3);
	wire_kvs_fini(&keys);
	assert_int_equal(keys.count, 0);
	assert_int_equal(
		wire_parse_lease_keys("{" HEADER ",\"ID\":\"77\",\"TTL\":\"-1\"}", 77, &ttl, &keys),
		0);
	assert_true(ttl <= 0);
	assert_int_equal(keys.count, 0);
	wire_kvs_fini(&keys);
}

static void test_token(void **state)
{
	char *token = wire_parse_token("{" HEADER ",\"token\":\"abc.12\"}");

	assert_string_equal(token, "abc.12");
	free(token);
	assert_null(wire_parse_token("{" HEADER "}"));
	assert_null(wire_parse_token("{\"token\":12}"));
	assert_null(wire_parse_token("{\"token\":\"\"}"));
	/* It would be the end of a header and the beginning of the next. */
	assert_null(wire_parse_token("{\"token\":\"abc\\r\\nHost: elsewhere\"}"));
	assert_null(wire_parse_token("what"));
}

static void test_watch(void **state)
{
	struct wire_watch_message message;

	assert_int_equal(
		wire_parse_watch("{\"result\":{" HEADER ",\"created\":true}}", &message), 0);
	assert_true(message.created && !message.canceled && !message.is_fragment);
	assert_int_equal(message.revision, 17);
	assert_int_equal(message.deleted.count, 0);
	/* Progress: nothing but a header. */
	assert_int_equal(wire_parse_watch("{\"result\":{" HEADER "}}", &message), 0);
	assert_true(!message.created && !message.canceled);
	assert_int_equal(
		wire_parse_watch("{\"result\":{" HEADER ",\"fragment\":true}}", &message), 0);
	assert_true(message.is_fragment);
	/* Puts have no type, for it would be zero, or should they have one it is not DELETE. */
	assert_int_equal(wire_parse_watch(deleted, &message), 0);
	assert_int_equal(message.deleted.count, 2);
	assert_string_equal(message.deleted.kv[0].key, "a");
	assert_int_equal(message.deleted.kv[0].modified, 16);
	assert_int_equal(message.deleted.kv[1].key_size, 3);
	wire_kvs_fini(&message.deleted);
}

static void test_watch_canceled(void **state)
{
	struct wire_watch_message message;

	assert_int_equal(wire_parse_watch("{\"result\":{" HEADER ",\"canceled\":true,"
					  "\"compact_revision\":\"3\"}}",
				 &message),
		0);
	assert_true(message.canceled);
	assert_int_equal(message.compacted_to, 3);
	assert_int_equal(wire_parse_watch("{\"result\":{" HEADER ",\"created\":true,"
					  "\"canceled\":true,\"cancel_reason\":"
					  "\"rpc error: etcdserver: permission denied\"}}",
				 &message),
		0);
	assert_true(message.canceled);
	assert_int_equal(message.error.kind, WIRE_ERROR_REFUSED);
	/* Where the revision was compacted, 3.4 and 3.5 give none in the header. */
	assert_int_equal(wire_parse_watch("{\"result\":{\"header\":{\"cluster_id\":\"1\"},"
					  "\"canceled\":true,\"compact_revision\":\"3\"}}",
				 &message),
		0);
	assert_true(message.canceled);
	/* The stream itself failed; the HTTP status was sent long ago. */
	assert_int_equal(wire_parse_watch("{\"error\":{\"grpc_code\":14,\"http_code\":503,"
					  "\"message\":\"etcdserver: no leader\","
					  "\"http_status\":\"Service Unavailable\"}}",
				 &message),
		0);
	assert_true(message.canceled);
	assert_int_equal(message.error.kind, WIRE_ERROR_RETRY);
	assert_string_equal(message.error.message, "etcdserver: no leader");
	assert_int_equal(wire_parse_watch("{\"error\":\"what\"}", &message), 0);
	assert_true(message.canceled);
}

/* --- errors --- */

static void test_errors(void **state)
{
	static const struct {
		const char *body;
		int status;
		enum wire_error_kind kind;
	} errors[] = {
		{"{\"error\":\"etcdserver: requested lease not found\",\"message\":\"etcdserver: "
		 "requested lease not found\",\"code\":5}",
			404, WIRE_ERROR_NO_LEASE},
		{"{\"code\": 5, \"message\": \"etcdserver: requested lease not found\"}", 404,
			WIRE_ERROR_NO_LEASE},
		{"{\"error\":\"etcdserver: requested lease not found\",\"code\":5}", 404,
			WIRE_ERROR_NO_LEASE},
		{"{\"error\":\"etcdserver: mvcc: required revision has been compacted\","
		 "\"code\":11}",
			400, WIRE_ERROR_COMPACTED},
		{"{\"error\":\"etcdserver: mvcc: database space exceeded\",\"code\":8}", 429,
			WIRE_ERROR_FULL},
		{"{\"error\":\"etcdserver: too many operations in txn request\",\"code\":3}", 400,
			WIRE_ERROR_TOO_MANY},
		{"{\"error\":\"etcdserver: request is too large\",\"code\":3}", 400,
			WIRE_ERROR_TOO_LARGE},
		{"{\"error\":\"grpc: received message larger than max (3 vs. 2)\",\"code\":8}", 429,
			WIRE_ERROR_TOO_LARGE},
		{"{\"error\":\"etcdserver: authentication is not enabled\",\"code\":9}", 412,
			WIRE_ERROR_NO_AUTH},
		{"{\"error\":\"etcdserver: invalid auth token\",\"code\":16}", 401,
			WIRE_ERROR_TOKEN},
		{"{\"error\":\"etcdserver: user name is empty\",\"code\":3}", 400,
			WIRE_ERROR_TOKEN},
		{"{\"error\":\"etcdserver: revision of auth store is old\",\"code\":3}", 400,
			WIRE_ERROR_TOKEN},
		{"{\"error\":\"etcdserver: authentication failed, invalid user ID or password\","
		 "\"code\":3}",
			400, WIRE_ERROR_REFUSED},
		{"{\"error\":\"etcdserver: permission denied\",\"code\":7}", 403,
			WIRE_ERROR_REFUSED},
		{"{\"error\":\"etcdserver: too many requests\",\"code\":8}", 429, WIRE_ERROR_RETRY},
		{"{\"error\":\"etcdserver: leader changed\",\"code\":14}", 503, WIRE_ERROR_RETRY},
		{"{\"error\":\"etcdserver: request timed out\",\"code\":14}", 503,
			WIRE_ERROR_RETRY},
		{"{\"error\":\"something new\",\"code\":14}", 503, WIRE_ERROR_RETRY},
		{"{\"error\":\"etcdserver: key is not provided\",\"code\":3}", 400,
			WIRE_ERROR_OTHER},
		{"{\"error\":\"etcdserver: lease already exists\",\"code\":9}", 412,
			WIRE_ERROR_OTHER},
		{"CommonName of client sending a request against gateway will be ignored\n", 400,
			WIRE_ERROR_REFUSED},
		/* No etcd says these, but perhaps what stands before one of several. */
		{"Not Found\n", 404, WIRE_ERROR_RETRY},
		{"<html>Bad Gateway</html>", 502, WIRE_ERROR_RETRY},
		{"", 307, WIRE_ERROR_RETRY},
		{"", 500, WIRE_ERROR_RETRY},
		{"[]", 400, WIRE_ERROR_RETRY},
		{"{\"error\":{\"a\":1},\"message\":7}", 400, WIRE_ERROR_RETRY},
	};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		struct wire_error error;
		wire_parse_error(errors[i].body, errors[i].status, &error);
		if (error.kind != errors[i].kind)
			fail_msg("%s: %d", errors[i].body, (int)error.kind);
		assert_true(*error.message);
	}
}

/* What etcd says in plain words reaches the log, without what could break a line. */
static void test_plain_message(void **state)
{
	struct wire_error error;

	wire_parse_error("no\nsuch\x01way\n", 400, &error);
	assert_string_equal(error.message, "HTTP status 400: no such way");
	wire_parse_error("", 500, &error);
	assert_string_equal(error.message, "HTTP status 500");
}

static void test_long_message(void **state)
{
	struct buffer body = {0};
	struct wire_error error;

	buffer_addf(&body, "{\"message\":\"%01000d\"}", 7);
	wire_parse_error(body.data, 400, &error);
	buffer_fini(&body);
	assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_simple_requests),
		cmocka_unit_test(test_sole_requests),
		cmocka_unit_test(test_sole_answers),
		cmocka_unit_test(test_watch_request),
		cmocka_unit_test(test_join_request),
		cmocka_unit_test(test_evict_requests),
		cmocka_unit_test(test_other_compares),
		cmocka_unit_test(test_both_branches),
		cmocka_unit_test(test_txn),
		cmocka_unit_test(test_txn_tried),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_parts_answered),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_lease_keys),
		cmocka_unit_test(test_token),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_watch_canceled),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_plain_message),
		cmocka_unit_test(test_long_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
