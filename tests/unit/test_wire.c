/* SPDX-License-Identifier: MIT */
/*
 * etcd's JSON gateway: what is composed, and what is made of answers, as etcd 3.4 and 3.5 give them
 * and as nobody should: cut off, of the wrong types, nested too deeply, or with bytes changed.
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

#define HEADER                                                                                     \
	"\"header\":{\"cluster_id\":\"14841639068965178418\","                                     \
	"\"member_id\":\"10276657743932975437\",\"revision\":\"17\",\"raft_term\":\"2\"}"

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

static void assert_txn(struct wire_txn *txn, const char *expected)
{
	assert_body(wire_txn_body(txn), expected);
	wire_txn_fini(txn);
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
		"\"start_revision\":\"18\",\"filters\":[\"NOPUT\"],\"progress_notify\":true}}");
}

static void test_join_request(void **state)
{
	struct wire_txn txn = {0};

	wire_if_absent(&txn, "a", NULL);
	wire_put(&txn, "ab", "v", 77);
	wire_range(
		&txn, "a", "b", &(struct wire_range_options){.keys_only = true, .created_from = 5});
	assert_txn(&txn,
		"{\"compare\":[{\"key\":\"YQ==\",\"target\":\"CREATE\",\"result\":\"EQUAL\","
		"\"create_revision\":\"0\"}],\"success\":["
		"{\"request_put\":{\"key\":\"YWI=\",\"value\":\"dg==\",\"lease\":\"77\"}},"
		"{\"request_range\":{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"keys_only\":true,"
		"\"min_create_revision\":\"5\"}}]}");
}

static void test_evict_requests(void **state)
{
	struct wire_txn txn = {0};

	wire_range(&txn, "a", "b",
		&(struct wire_range_options){.created_from = 5, .created_to = 7, .limit = 1});
	assert_txn(&txn,
		"{\"success\":[{\"request_range\":{\"key\":\"YQ==\",\"range_end\":\"Yg==\","
		"\"min_create_revision\":\"5\",\"max_create_revision\":\"7\",\"limit\":\"1\"}}]}");
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
	assert_int_equal(whole.operations, 4);
	assert_txn(&whole, "{\"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"dg==\","
			   "\"lease\":\"77\"}},{\"request_range\":{\"key\":\"YQ==\"}},"
			   "{\"request_txn\":{\"compare\":[{\"key\":\"Yg==\",\"target\":\"CREATE\","
			   "\"result\":\"EQUAL\",\"create_revision\":\"0\"}],"
			   "\"success\":[{\"request_delete_range\":{\"key\":\"Yg==\"}}],"
			   "\"failure\":[{\"request_range\":{\"key\":\"Yg==\"}}]}},"
			   "{\"request_delete_range\":{\"key\":\"Yw==\"}}]}");
}

/* --- answers that make sense --- */

static const char joined[] =
	"{" HEADER ",\"succeeded\":true,\"responses\":["
	"{\"response_put\":{\"header\":{\"revision\":\"17\"}}},"
	"{\"response_range\":{\"header\":{\"revision\":\"17\"},\"kvs\":["
	"{\"key\":\"YQ==\",\"create_revision\":\"9\",\"mod_revision\":\"12\",\"version\":\"2\","
	"\"value\":\"dg==\",\"lease\":\"7587879127637462530\"},"
	"{\"key\":\"YgBj\",\"create_revision\":\"17\",\"mod_revision\":\"17\",\"version\":\"1\"}],"
	"\"count\":\"2\"}}]}";

/* The same with blanks, numbers that are not strings, fields we don't know, and more cut off. */
static const char joined_otherwise[] =
	"{ \"header\" : {\n\t\"revision\" : 17 } ,\r\n \"succeeded\": true, \"new\": [{}, null],"
	"  \"responses\": [ {\"response_put\": {} }, { \"response_range\": { \"more\": true,"
	" \"kvs\": [ {\"key\":\"YQ==\", \"create_revision\": 9, \"mod_revision\": 12,"
	"  \"value\": \"dg==\", \"lease\": \"7587879127637462530\" },"
	" {\"create_revision\":\"17\", \"key\":\"YgBj\", \"mod_revision\": \"17\" } ] } } ] }\n";

static void check_joined(const char *body, bool more)
{
	struct wire_result result;

	assert_int_equal(wire_parse_txn(body, &result), 0);
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
	check_joined(joined, false);
	check_joined(joined_otherwise, true);
}

static const char refused[] =
	"{" HEADER ",\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"17\"}}},"
	"{\"response_range\":{\"header\":{\"revision\":\"17\"},\"kvs\":[{\"key\":\"YQ==\","
	"\"create_revision\":\"17\",\"mod_revision\":\"17\"}],\"count\":\"1\"}},"
	"{\"response_range\":{}},{\"response_range\":{}},"
	"{\"response_range\":{\"kvs\":[{\"key\":\"Yg==\",\"create_revision\":\"1\"}]}}]}";

/* An empty range has no kvs at all, and more ranges than we ever ask for are not kept. */
static void test_txn_refused(void **state)
{
	struct wire_result result;

	assert_int_equal(wire_parse_txn(refused, &result), 0);
	assert_false(result.succeeded);
	assert_int_equal(result.range_count, WIRE_MAX_RANGES);
	assert_int_equal(result.ranges[0].count, 0);
	assert_int_equal(result.ranges[1].count, 1);
	wire_result_fini(&result);
	assert_int_equal(wire_parse_txn("{" HEADER "}", &result), 0);
	assert_int_equal(result.range_count, 0);
	wire_result_fini(&result);
}

static const char parts[] =
	"{" HEADER ",\"succeeded\":true,\"responses\":["
	"{\"response_put\":{\"header\":{\"revision\":\"17\"}}},"
	"{\"response_range\":{\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"9\"}]}},"
	"{\"response_txn\":{\"header\":{},\"responses\":[{\"response_range\":{\"kvs\":["
	"{\"key\":\"Yg==\",\"create_revision\":\"5\"}]}}]}},"
	"{\"response_delete_range\":{\"deleted\":\"1\"}},"
	"{\"response_txn\":{\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}}]}";

static void test_parts_answered(void **state)
{
	static const size_t operations[] = {2, 0, 1, 0};
	struct wire_result results[4];

	assert_int_equal(wire_parse_parts(parts, operations, results, 4), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(results[i].revision, 17);
	assert_true(results[0].succeeded);
	assert_int_equal(results[0].range_count, 1);
	assert_string_equal(results[0].ranges[0].kv[0].key, "a");
	assert_false(results[1].succeeded);
	assert_int_equal(results[1].range_count, 1);
	assert_string_equal(results[1].ranges[0].kv[0].key, "b");
	assert_true(results[2].succeeded);
	assert_int_equal(results[2].range_count, 0);
	assert_true(results[3].succeeded);
	for (size_t i = 0; i < 4; i++)
		wire_result_fini(&results[i]);
}

/* An answer that does not fit what was asked is nobody's answer. */
static void test_parts_mismatched(void **state)
{
	static const size_t wrong[][4] = {
		{2, 0, 1, 1}, {2, 0, 0, 0}, {1, 0, 1, 0}, {3, 0, 1, 0}, {2, 1, 1, 1}, {0, 0, 0, 0}};
	static const size_t right[] = {2, 0, 1, 0, 1};
	struct wire_result results[5];

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		int error = wire_parse_parts(parts, wrong[i], results, 4);
		/* One operation more or less is found out by its kind or by their number. */
		if (!error)
			fail_msg("case %zu passes", i);
		assert_int_equal(error, -EBADMSG);
	}
	assert_int_equal(wire_parse_parts(parts, right, results, 3), -EBADMSG);
	assert_int_equal(wire_parse_parts(parts, right, results, 5), -EBADMSG);
	assert_int_equal(wire_parse_parts("{\"responses\":{}}", right, results, 1), -EBADMSG);
	assert_int_equal(wire_parse_parts("", right, results, 1), -EBADMSG);
}

static const char renewed[] = "{\"result\":{" HEADER ",\"ID\":\"77\",\"TTL\":\"60\"}}\n";
static const char granted[] = "{" HEADER ",\"ID\":\"77\",\"TTL\":\"60\"}";

static void test_lease(void **state)
{
	struct wire_lease lease;

	assert_int_equal(wire_parse_grant(granted, &lease), 0);
	assert_int_equal(lease.id, 77);
	assert_int_equal(lease.ttl, 60);
	assert_int_equal(lease.revision, 17);
	assert_int_equal(wire_parse_keepalive(renewed, &lease), 0);
	assert_int_equal(lease.ttl, 60);
	/* Of a lease that does not exist. */
	assert_int_equal(
		wire_parse_keepalive("{\"result\":{" HEADER ",\"ID\":\"77\"}}\n", &lease), 0);
	assert_true(lease.ttl <= 0);
	assert_int_equal(wire_parse_grant("{" HEADER ",\"ID\":\"77\"}", &lease), -EBADMSG);
	assert_int_equal(wire_parse_grant("{" HEADER ",\"TTL\":\"60\"}", &lease), -EBADMSG);
	assert_int_equal(wire_parse_grant("{\"ID\":\"-7\",\"TTL\":\"60\"}", &lease), -EBADMSG);
	assert_int_equal(wire_parse_keepalive(granted, &lease), -EBADMSG);
}

static const char lease_keys[] =
	"{" HEADER
	",\"ID\":\"77\",\"TTL\":\"59\",\"grantedTTL\":\"60\",\"keys\":[\"YQ==\",\"YgBj\"]}";

static void test_lease_keys(void **state)
{
	struct wire_kvs keys;
	int64_t ttl;

	assert_int_equal(wire_parse_lease_keys(lease_keys, &ttl, &keys), 0);
	assert_int_equal(ttl, 59);
	assert_int_equal(keys.count, 2);
	assert_string_equal(keys.kv[0].key, "a");
	assert_int_equal(keys.kv[1].key_size, 3);
	wire_kvs_fini(&keys);
	assert_int_equal(keys.count, 0);
	assert_int_equal(
		wire_parse_lease_keys("{" HEADER ",\"ID\":\"77\",\"TTL\":\"-1\"}", &ttl, &keys), 0);
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
	assert_null(wire_parse_token("what"));
}

static const char deleted[] =
	"{\"result\":{" HEADER ",\"events\":["
	"{\"type\":\"DELETE\",\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"16\"}},"
	"{\"kv\":{\"key\":\"eA==\",\"create_revision\":\"9\",\"mod_revision\":\"17\"}},"
	"{\"type\":\"PUT\",\"kv\":{\"key\":\"eA==\",\"mod_revision\":\"17\"}},"
	"{\"type\":\"DELETE\",\"kv\":{\"key\":\"YgBj\",\"mod_revision\":\"17\"}}]}}";

static void test_watch(void **state)
{
	struct wire_watch_message message;

	assert_int_equal(
		wire_parse_watch("{\"result\":{" HEADER ",\"created\":true}}", &message), 0);
	assert_true(message.created && !message.canceled);
	assert_int_equal(message.revision, 17);
	assert_int_equal(message.deleted.count, 0);
	/* Progress: nothing but a header. */
	assert_int_equal(wire_parse_watch("{\"result\":{" HEADER "}}", &message), 0);
	assert_true(!message.created && !message.canceled);
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
		{"Not Found\n", 404, WIRE_ERROR_OTHER},
		{"<html>Bad Gateway</html>", 502, WIRE_ERROR_RETRY},
		{"", 500, WIRE_ERROR_RETRY},
		{"[]", 400, WIRE_ERROR_OTHER},
		{"{\"error\":{\"a\":1},\"message\":7}", 400, WIRE_ERROR_OTHER},
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

/* --- answers that make no sense --- */

/* Each reader gets it; whatever one makes of it, it has to free. */
static bool is_refused_by_all(const char *body)
{
	struct wire_result result;
	struct wire_watch_message message;
	struct wire_lease lease;
	struct wire_kvs keys;
	struct wire_error error;
	int64_t ttl;
	int txn = wire_parse_txn(body, &result), watch = wire_parse_watch(body, &message);
	int list = wire_parse_lease_keys(body, &ttl, &keys);
	int grant = wire_parse_grant(body, &lease), keepalive = wire_parse_keepalive(body, &lease);

	free(wire_parse_token(body));
	wire_parse_error(body, 400, &error);
	if (txn == 0)
		wire_result_fini(&result);
	if (watch == 0)
		wire_kvs_fini(&message.deleted);
	if (list == 0)
		wire_kvs_fini(&keys);
	return txn == -EBADMSG && watch == -EBADMSG && list == -EBADMSG && grant == -EBADMSG &&
	       keepalive == -EBADMSG;
}

static void test_garbage(void **state)
{
	static const char *const bodies[] = {"", " ", "null", "true", "17", "\"text\"", "[]", "{}",
		"[{}]", "{\"result\":null,\"header\":null}", "{\"header\":[],\"result\":[]}",
		"{\"header\":{\"revision\":{}}}", "\xff\xfe", "{\"header\"", "not JSON at all"};

	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		/* An empty result or header may pass as a message without news. */
		if (!strstr(bodies[i], "result") && !strstr(bodies[i], "header"))
			assert_true(is_refused_by_all(bodies[i]));
		else
			(void)is_refused_by_all(bodies[i]);
	}
}

static void assert_bad_txn(const char *rest)
{
	struct wire_result result;
	char *body = xasprintf("{" HEADER ",%s}", rest);

	if (wire_parse_txn(body, &result) != -EBADMSG)
		fail_msg("%s", body);
	free(body);
}

#define RANGE(text) "\"responses\":[{\"response_range\":{" text "}}]"

static void test_wrong_types(void **state)
{
	struct wire_result result;
	struct wire_watch_message message;
	struct wire_kvs keys;
	int64_t ttl;

	/* No key, one that is not base64, and none of the revisions that every key has. */
	assert_bad_txn(RANGE("\"kvs\":[{\"create_revision\":\"1\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":7,\"create_revision\":\"1\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ=\",\"create_revision\":\"1\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"Y?==\",\"create_revision\":\"1\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ==\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"x\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"-1\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":1e300}]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":[1]}]"));
	assert_bad_txn(
		RANGE("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\",\"value\":\"!\"}]"));
	assert_bad_txn(RANGE("\"kvs\":[\"YQ==\"]"));
	assert_bad_txn(RANGE("\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"1\"},null]"));
	/* What is not a list is not an empty queue, in which everybody would be the first. */
	assert_bad_txn(RANGE("\"kvs\":{\"key\":\"YQ==\",\"create_revision\":\"1\"}"));
	assert_bad_txn(RANGE("\"kvs\":\"YQ==\""));
	assert_bad_txn("\"responses\":{}");
	assert_int_equal(wire_parse_txn("{\"succeeded\":true}", &result), -EBADMSG);
	assert_int_equal(wire_parse_watch("{\"result\":{\"events\":{}}}", &message), -EBADMSG);
	assert_int_equal(
		wire_parse_watch("{\"result\":{\"events\":[{\"type\":\"DELETE\"}]}}", &message),
		-EBADMSG);
	assert_int_equal(wire_parse_watch("{\"result\":{\"events\":[{\"type\":\"DELETE\",\"kv\":{"
					  "\"key\":\"YQ==\"}}]}}",
				 &message),
		-EBADMSG);
	assert_int_equal(
		wire_parse_lease_keys("{" HEADER ",\"keys\":[\"YQ==\",7]}", &ttl, &keys), -EBADMSG);
	assert_int_equal(
		wire_parse_lease_keys("{" HEADER ",\"keys\":[\"YQ==\",\"Y\"]}", &ttl, &keys),
		-EBADMSG);
	/* Nor a session without keys, which would have lost all its locks. */
	assert_int_equal(
		wire_parse_lease_keys("{" HEADER ",\"keys\":\"YQ==\"}", &ttl, &keys), -EBADMSG);
}

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

static const char *const samples[] = {
	joined, joined_otherwise, refused, renewed, granted, lease_keys, deleted};

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
		cmocka_unit_test(test_simple_requests),
		cmocka_unit_test(test_watch_request),
		cmocka_unit_test(test_join_request),
		cmocka_unit_test(test_evict_requests),
		cmocka_unit_test(test_other_compares),
		cmocka_unit_test(test_both_branches),
		cmocka_unit_test(test_txn),
		cmocka_unit_test(test_txn_refused),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_parts_answered),
		cmocka_unit_test(test_parts_mismatched),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_lease_keys),
		cmocka_unit_test(test_token),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_watch_canceled),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_plain_message),
		cmocka_unit_test(test_long_message),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_wrong_types),
		cmocka_unit_test(test_deep_nesting),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_changed_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
