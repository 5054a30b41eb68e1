/* SPDX-License-Identifier: MIT */
/* The reading half of wire.h. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/base64.h"
#include "base/util.h"
#include "store/etcd/json.h"
#include "store/etcd/wire.h"

/* Of seconds: etcd grants no more. */
static const uint64_t max_ttl = 9000000000;
/* No store gets there, and nothing that is added to it overflows. */
static const uint64_t max_revision = INT64_MAX / 2;

/* --- errors --- */

/* gRPC status codes, as in google.golang.org/grpc/codes. */
enum {
	GRPC_CANCELED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
};

/* etcd's own messages (api/v3rpc/rpctypes) tell apart what the codes do not. */
static const struct {
	const char *part;
	enum wire_error_kind kind;
} messages[] = {
	{"requested lease not found", WIRE_ERROR_NO_LEASE},
	{"required revision has been compacted", WIRE_ERROR_COMPACTED},
	{"database space exceeded", WIRE_ERROR_FULL},
	{"request is too large", WIRE_ERROR_TOO_LARGE},
	{"larger than max", WIRE_ERROR_TOO_LARGE},
	{"too many operations in txn", WIRE_ERROR_TOO_MANY},
	{"authentication is not enabled", WIRE_ERROR_NO_AUTH},
	{"invalid auth token", WIRE_ERROR_TOKEN},
	{"user name is empty", WIRE_ERROR_TOKEN},
	{"revision of auth store is old", WIRE_ERROR_TOKEN},
	{"auth revision", WIRE_ERROR_TOKEN},
	{"authentication failed", WIRE_ERROR_REFUSED},
	{"CommonName of client", WIRE_ERROR_REFUSED},
	{"permission denied", WIRE_ERROR_REFUSED},
	{"too many requests", WIRE_ERROR_RETRY},
	{"no leader", WIRE_ERROR_RETRY},
	{"server stopped", WIRE_ERROR_RETRY},
	{"leader changed", WIRE_ERROR_RETRY},
	{"not leader", WIRE_ERROR_RETRY},
	{"timed out", WIRE_ERROR_RETRY},
};

static enum wire_error_kind classify(const char *message, uint64_t code, int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		if (strstr(message, messages[i].part))
			return messages[i].kind;
	}
	switch (code) {
	case GRPC_PERMISSION_DENIED:
		return WIRE_ERROR_REFUSED;
	case GRPC_UNAUTHENTICATED:
		return WIRE_ERROR_TOKEN;
	case GRPC_CANCELED:
	case GRPC_UNKNOWN:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_RESOURCE_EXHAUSTED:
	case GRPC_INTERNAL:
	case GRPC_UNAVAILABLE:
		return WIRE_ERROR_RETRY;
	default:
		return status >= 500 ? WIRE_ERROR_RETRY : WIRE_ERROR_OTHER;
	}
}

static void set_error(struct wire_error *error, const char *message, uint64_t code, int status)
{
	error->kind = classify(message, code, status);
	copy_string(error->message, sizeof(error->message), message);
}

void wire_parse_error(const char *body, int status, struct wire_error *error)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	const char *message = json_string(json, "message");

	if (!message)
		message = json_string(json, "error");
	if (message) {
		set_error(error, message, json_u64(json, "code"), status);
		return;
	}
	cleanup(free_ptr) char *text = xasprintf("HTTP status %d: %.*s", status, 120, body);
	for (char *c = text; *c; c++) {
		if (!isprint((unsigned char)*c))
			*c = ' ';
	}
	for (size_t n = strlen(text); n && strchr(" :", text[n - 1]); n--)
		text[n - 1] = '\0';
	set_error(error, text, 0, status);
	/* It is not etcd that speaks so, and another endpoint may be. */
	if (error->kind == WIRE_ERROR_OTHER)
		error->kind = WIRE_ERROR_RETRY;
}

/* --- what all answers have --- */

static uint64_t expect_revision(const struct cJSON *json, const char *name, bool *bad)
{
	uint64_t revision = json_expect_u64(json, name, bad);

	*bad = *bad || revision > max_revision;
	return revision;
}

/* The revision in the header, without which nothing is an answer of etcd. */
static uint64_t revision_of(const struct cJSON *json, bool *bad)
{
	uint64_t revision =
		expect_revision(json_expect_object(json, "header", bad), "revision", bad);

	*bad = *bad || !revision;
	return revision;
}

int wire_parse_nothing(const char *body)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	bool bad = false;

	(void)revision_of(json, &bad);
	return bad ? -EBADMSG : 0;
}

/* The other half of the header. */
static struct wire_origin origin_of(const struct cJSON *json, bool *bad)
{
	const struct cJSON *header = json_expect_object(json, "header", bad);

	return (struct wire_origin){.cluster = json_expect_id(header, "cluster_id", bad),
		.term = json_expect_u64(header, "raft_term", bad),
		.revision = revision_of(json, bad)};
}

int wire_parse_origin(const char *body, struct wire_origin *origin)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	bool bad = false;

	*origin = origin_of(json, &bad);
	return bad ? -EBADMSG : 0;
}

/* It becomes a part of a header, in which a line's end would begin something else. */
static bool is_token(const char *text)
{
	enum { MAX_TOKEN = 16 * 1024 };
	size_t length = text ? strlen(text) : 0;

	for (size_t i = 0; i < length; i++) {
		if (!isgraph((unsigned char)text[i]))
			return false;
	}
	return length && length <= MAX_TOKEN;
}

char *wire_parse_token(const char *body)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	const char *token = json_string(json, "token");

	return is_token(token) ? xstrdup(token) : NULL;
}

/* --- leases --- */

/* -1 of a lease that is gone; left out if less than a second is left. */
static int64_t ttl_of(const struct cJSON *json, bool *bad)
{
	const char *text = json_string(json, "TTL");

	if (text && strcmp(text, "-1") == 0)
		return -1;
	uint64_t ttl = json_expect_u64(json, "TTL", bad);
	*bad = *bad || ttl > max_ttl;
	return (int64_t)ttl;
}

static int parse_lease(const struct cJSON *json, struct wire_lease *lease)
{
	bool bad = false;

	lease->id = json_expect_u64(json, "ID", &bad);
	lease->ttl = ttl_of(json, &bad);
	lease->revision = revision_of(json, &bad);
	lease->origin = origin_of(json, &bad);
	return bad || !lease->id ? -EBADMSG : 0;
}

int wire_parse_grant(const char *body, struct wire_lease *lease)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);

	if (parse_lease(json, lease) < 0 || lease->ttl <= 0)
		return -EBADMSG;
	return 0;
}

/* A stream's answer, hence in "result"; without a TTL when the lease does not exist. */
int wire_parse_keepalive(const char *body, uint64_t id, struct wire_lease *lease)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);

	if (parse_lease(json_get(json, "result"), lease) < 0 || lease->id != id)
		return -EBADMSG;
	return 0;
}

/* --- keys --- */

/* Decodes base64; NULL (with *size 0) for nothing, and sets *bad for anything else. */
static char *decode(const char *text, size_t *size, bool *bad)
{
	struct buffer bytes = {0};

	*size = 0;
	if (!text)
		return NULL;
	if (base64_decode(&bytes, text) < 0)
		*bad = true;
	*size = bytes.size;
	return buffer_take(&bytes);
}

/* Nothing in an answer can be younger than the answer. */
static bool parse_kv(const struct cJSON *json, uint64_t revision, struct wire_kv *kv)
{
	bool bad = false;
	size_t value_size;

	kv->key = decode(json_expect_string(json, "key", &bad), &kv->key_size, &bad);
	kv->value = decode(json_expect_string(json, "value", &bad), &value_size, &bad);
	kv->created = expect_revision(json, "create_revision", &bad);
	kv->modified = expect_revision(json, "mod_revision", &bad);
	kv->lease = json_expect_u64(json, "lease", &bad);
	return !bad && kv->key && kv->created <= revision && kv->modified <= revision;
}

static struct wire_kv *add_kv(struct wire_kvs *kvs, size_t *capacity)
{
	if (kvs->count == *capacity) {
		*capacity = *capacity ? 2 * *capacity : 8;
		kvs->kv = xrealloc(kvs->kv, *capacity, sizeof(kvs->kv[0]));
	}
	kvs->kv[kvs->count] = (struct wire_kv){0};
	return &kvs->kv[kvs->count++];
}

void wire_kvs_fini(struct wire_kvs *kvs)
{
	for (size_t i = 0; i < kvs->count; i++) {
		free(kvs->kv[i].key);
		free(kvs->kv[i].value);
	}
	free(kvs->kv);
	*kvs = (struct wire_kvs){0};
}

int wire_parse_lease_keys(const char *body, uint64_t id, int64_t *ttl, struct wire_kvs *keys)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	struct wire_lease lease;
	size_t capacity = 0;
	bool bad = parse_lease(json, &lease) < 0 || lease.id != id;

	*keys = (struct wire_kvs){0};
	*ttl = lease.ttl;
	json_each(item, json_expect_array(json, "keys", &bad)) {
		struct wire_kv *kv = add_kv(keys, &capacity);
		kv->key = decode(json_text(item), &kv->key_size, &bad);
		bad = bad || !kv->key;
	}
	if (!bad)
		return 0;
	wire_kvs_fini(keys);
	return -EBADMSG;
}

/* --- transactions --- */

static int parse_range(
	const struct cJSON *json, bool limited, uint64_t revision, struct wire_kvs *kvs)
{
	size_t capacity = 0;
	bool bad = false;

	kvs->more = json_expect_bool(json, "more", &bad);
	json_each(item, json_expect_array(json, "kvs", &bad)) {
		struct wire_kv *kv = add_kv(kvs, &capacity);
		if (!parse_kv(item, revision, kv) || !kv->created)
			return -EBADMSG;
	}
	/* Half a queue must not pass for the whole. */
	return bad || (kvs->more && !limited) ? -EBADMSG : 0;
}

/* What one operation is answered. */
static int parse_operation(
	const struct cJSON *answer, enum wire_kind kind, struct wire_result *result)
{
	bool bad = false;

	if (kind == WIRE_DELETE)
		result->deleted += json_expect_u64(answer, "deleted", &bad);
	if (kind != WIRE_RANGE && kind != WIRE_LIMITED_RANGE)
		return bad ? -EBADMSG : 0;
	return parse_range(answer, kind == WIRE_LIMITED_RANGE, result->revision,
		&result->ranges[result->range_count++]);
}

/* The same within a transaction, where it has to be one to an operation of that kind. */
static int parse_response(
	const struct cJSON *response, enum wire_kind kind, struct wire_result *result)
{
	static const char *const names[] = {[WIRE_PUT] = "response_put",
		[WIRE_DELETE] = "response_delete_range",
		[WIRE_RANGE] = "response_range",
		[WIRE_LIMITED_RANGE] = "response_range"};
	bool bad = false;
	const struct cJSON *answer = json_expect_object(response, names[kind], &bad);

	return answer ? parse_operation(answer, kind, result) : -EBADMSG;
}

/* An operation that was asked for alone.  Nothing says what such an answer is one to, but that it
 * has nothing of what others have. */
static int parse_sole(const struct cJSON *json, uint64_t revision, enum wire_kind kind,
	struct wire_result *result)
{
	bool is_delete = kind == WIRE_DELETE;
	const char *const others[] = {"succeeded", "responses", is_delete ? "kvs" : "deleted",
		is_delete ? "count" : "prev_kvs"};

	*result = (struct wire_result){.revision = revision, .succeeded = true};
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		if (json_get(json, others[i]))
			return -EBADMSG;
	}
	return parse_operation(json, kind, result);
}

/* Reads what a branch is answered with from *response on, and moves that behind it. */
static int parse_branch(
	const struct cJSON **response, const struct wire_branch *branch, struct wire_result *result)
{
	int error = 0;

	for (size_t i = 0; i < branch->count && !error; i++) {
		if (!*response)
			return -EBADMSG;
		error = parse_response(*response, branch->kinds[i], result);
		*response = json_next(*response);
	}
	return error;
}

/* Of a nested transaction's answer the header is empty. */
static int parse_txn(const struct cJSON *json, uint64_t revision, const struct wire_shape *shape,
	struct wire_result *result)
{
	bool bad = false;
	const struct cJSON *response = json_first(json_expect_array(json, "responses", &bad));

	*result = (struct wire_result){
		.revision = revision, .succeeded = json_expect_bool(json, "succeeded", &bad)};
	if (bad || (!shape->conditional && !result->succeeded) ||
		parse_branch(&response, result->succeeded ? &shape->success : &shape->failure,
			result) < 0 ||
		response)
		return -EBADMSG;
	return 0;
}

int wire_parse_txn(const char *body, const struct wire_shape *shape, struct wire_result *result)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	bool bad = false;
	uint64_t revision = revision_of(json, &bad);

	int error = wire_is_sole(shape)
			    ? parse_sole(json, revision, shape->success.kinds[0], result)
			    : parse_txn(json, revision, shape, result);
	if (!error && !bad)
		return 0;
	wire_result_fini(result);
	return -EBADMSG;
}

/* Reads a part's answer from *response on, and moves that behind it. */
static int parse_part(const struct cJSON **response, uint64_t revision,
	const struct wire_shape *shape, struct wire_result *result)
{
	bool bad = false;

	*result = (struct wire_result){.revision = revision, .succeeded = true};
	if (!shape->conditional && !shape->nested)
		return parse_branch(response, &shape->success, result);
	if (!*response)
		return -EBADMSG;
	const struct cJSON *txn = json_expect_object(*response, "response_txn", &bad);
	*response = json_next(*response);
	return txn ? parse_txn(txn, revision, shape, result) : -EBADMSG;
}

int wire_parse_parts(const char *body, const struct wire_shape *shapes, struct wire_result *results,
	size_t count, const struct wire_shape *guard, struct wire_result *guarded)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	bool bad = false;
	uint64_t revision = revision_of(json, &bad);
	const struct cJSON *response = json_first(json_expect_array(json, "responses", &bad));

	bool holds = json_expect_bool(json, "succeeded", &bad);
	bad = bad || (!guard && !holds);
	for (size_t i = 0; i < count; i++)
		results[i] = (struct wire_result){0};
	for (size_t i = 0; i < count && holds && !bad; i++)
		bad = parse_part(&response, revision, &shapes[i], &results[i]) < 0;
	if (guard) {
		*guarded = (struct wire_result){.revision = revision, .succeeded = holds};
		bad = bad || parse_branch(&response, holds ? &guard->success : &guard->failure,
				     guarded) < 0;
	}
	if (!bad && !response)
		return 0;
	for (size_t i = 0; i < count; i++)
		wire_result_fini(&results[i]);
	if (guard)
		wire_result_fini(guarded);
	return -EBADMSG;
}

void wire_result_fini(struct wire_result *result)
{
	for (size_t i = 0; i < result->range_count; i++)
		wire_kvs_fini(&result->ranges[i]);
	result->range_count = 0;
}

/* --- the watch --- */

static bool parse_event(
	const struct cJSON *event, struct wire_watch_message *message, size_t *capacity)
{
	bool bad = false;
	const char *type = json_expect_string(event, "type", &bad);

	if (bad)
		return false;
	if (!type || strcmp(type, "DELETE") != 0)
		return true;
	struct wire_kv *kv = add_kv(&message->deleted, capacity);
	return parse_kv(json_get(event, "kv"), message->revision, kv) && kv->modified;
}

/* They come in the order of their revisions. */
static bool parse_events(const struct cJSON *events, struct wire_watch_message *message)
{
	const struct wire_kvs *deleted = &message->deleted;
	size_t capacity = 0;

	json_each(event, events) {
		if (!parse_event(event, message, &capacity))
			return false;
	}
	for (size_t i = 1; i < deleted->count; i++) {
		if (deleted->kv[i].modified < deleted->kv[i - 1].modified)
			return false;
	}
	return true;
}

static int parse_stream_error(const struct cJSON *error, struct wire_watch_message *message)
{
	const char *text = json_string(error, "message");

	message->canceled = true;
	set_error(
		&message->error, text ? text : "the watch failed", json_u64(error, "grpc_code"), 0);
	return 0;
}

int wire_parse_watch(const char *line, struct wire_watch_message *message)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(line);
	const struct cJSON *result = json_get(json, "result"), *error = json_get(json, "error");
	bool bad = !result;

	*message = (struct wire_watch_message){0};
	if (error)
		return parse_stream_error(error, message);
	message->created = json_expect_bool(result, "created", &bad);
	message->canceled = json_expect_bool(result, "canceled", &bad);
	message->is_fragment = json_expect_bool(result, "fragment", &bad);
	message->compacted_to = expect_revision(result, "compact_revision", &bad);
	/* 0 where the watch's revision was compacted. */
	message->revision =
		expect_revision(json_expect_object(result, "header", &bad), "revision", &bad);
	if (message->canceled) {
		const char *reason = json_expect_string(result, "cancel_reason", &bad);
		set_error(&message->error, reason ? reason : "the watch was canceled", 0, 500);
	}
	const struct cJSON *events = json_expect_array(result, "events", &bad);
	if (!bad && (message->revision || message->canceled) && parse_events(events, message))
		return 0;
	wire_kvs_fini(&message->deleted);
	return -EBADMSG;
}
