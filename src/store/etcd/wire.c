/* SPDX-License-Identifier: MIT */
#include "store/etcd/wire.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/base64.h"
#include "base/util.h"
#include "store/etcd/json.h"

/* --- requests --- */

char *wire_authenticate(const char *user, const char *password)
{
	struct cJSON *json = json_object();

	json_add_string(json, "name", user);
	json_add_string(json, "password", password);
	return json_print_free(json);
}

char *wire_lease_grant(int64_t ttl_seconds)
{
	return xasprintf("{\"TTL\":\"%" PRId64 "\"}", ttl_seconds);
}

char *wire_lease(uint64_t lease)
{
	return xasprintf("{\"ID\":\"%" PRIu64 "\"}", lease);
}

char *wire_lease_keys(uint64_t lease)
{
	return xasprintf("{\"ID\":\"%" PRIu64 "\",\"keys\":true}", lease);
}

/* "name":"base64 of value" */
static void add_bytes(struct buffer *text, const char *name, const char *value)
{
	buffer_addf(text, "\"%s\":\"", name);
	base64_encode(text, value, strlen(value));
	buffer_add_string(text, "\"");
}

static void add_key(struct buffer *text, const char *first, const char *end)
{
	add_bytes(text, "key", first);
	if (end) {
		buffer_add_string(text, ",");
		add_bytes(text, "range_end", end);
	}
}

char *wire_watch(const char *first, const char *end, uint64_t from)
{
	struct buffer text = {0};

	buffer_add_string(&text, "{\"create_request\":{");
	add_key(&text, first, end);
	buffer_addf(&text, ",\"start_revision\":\"%" PRIu64 "\",\"filters\":[\"NOPUT\"]", from);
	buffer_add_string(&text, ",\"progress_notify\":true}}");
	return buffer_take(&text);
}

void wire_txn_fini(struct wire_txn *txn)
{
	buffer_fini(&txn->compares);
	buffer_fini(&txn->success);
	buffer_fini(&txn->failure);
	*txn = (struct wire_txn){0};
}

static struct buffer *next_member(struct buffer *list)
{
	if (list->size)
		buffer_add_string(list, ",");
	return list;
}

static struct buffer *next_operation(struct wire_txn *txn)
{
	if (txn->has_else)
		return next_member(&txn->failure);
	txn->operations++;
	return next_member(&txn->success);
}

static void add_compare(struct wire_txn *txn, const char *first, const char *end,
	const char *target, const char *field, const char *relation, uint64_t revision)
{
	struct buffer *text = next_member(&txn->compares);

	buffer_add_string(text, "{");
	add_key(text, first, end);
	buffer_addf(text, ",\"target\":\"%s\",\"result\":\"%s\",\"%s\":\"%" PRIu64 "\"}", target,
		relation, field, revision);
}

void wire_if_absent(struct wire_txn *txn, const char *first, const char *end)
{
	add_compare(txn, first, end, "CREATE", "create_revision", "EQUAL", 0);
}

void wire_if_created(struct wire_txn *txn, const char *key, uint64_t revision)
{
	add_compare(txn, key, NULL, "CREATE", "create_revision", "EQUAL", revision);
}

void wire_if_modified(struct wire_txn *txn, const char *key, uint64_t revision)
{
	add_compare(txn, key, NULL, "MOD", "mod_revision", "EQUAL", revision);
}

void wire_if_present(struct wire_txn *txn, const char *key)
{
	add_compare(txn, key, NULL, "CREATE", "create_revision", "GREATER", 0);
}

void wire_txn_else(struct wire_txn *txn)
{
	txn->has_else = true;
}

void wire_put(struct wire_txn *txn, const char *key, const char *value, uint64_t lease)
{
	struct buffer *text = next_operation(txn);

	buffer_add_string(text, "{\"request_put\":{");
	add_key(text, key, NULL);
	buffer_add_string(text, ",");
	add_bytes(text, "value", value);
	buffer_addf(text, ",\"lease\":\"%" PRIu64 "\"}}", lease);
}

void wire_delete(struct wire_txn *txn, const char *key)
{
	struct buffer *text = next_operation(txn);

	buffer_add_string(text, "{\"request_delete_range\":{");
	add_key(text, key, NULL);
	buffer_add_string(text, "}}");
}

void wire_range(struct wire_txn *txn, const char *first, const char *end,
	const struct wire_range_options *options)
{
	struct buffer *text = next_operation(txn);

	buffer_add_string(text, "{\"request_range\":{");
	add_key(text, first, end);
	if (options->keys_only)
		buffer_add_string(text, ",\"keys_only\":true");
	if (options->by_creation)
		buffer_add_string(text, ",\"sort_order\":\"ASCEND\",\"sort_target\":\"CREATE\"");
	if (options->created_from)
		buffer_addf(
			text, ",\"min_create_revision\":\"%" PRIu64 "\"", options->created_from);
	if (options->created_to)
		buffer_addf(text, ",\"max_create_revision\":\"%" PRIu64 "\"", options->created_to);
	if (options->limit)
		buffer_addf(text, ",\"limit\":\"%u\"", options->limit);
	buffer_add_string(text, "}}");
}

static void add_list(struct buffer *text, const char *name, const struct buffer *list)
{
	if (!list->size)
		return;
	buffer_addf(text, "%s\"%s\":[", text->size > 1 ? "," : "", name);
	buffer_add(text, list->data, list->size);
	buffer_add_string(text, "]");
}

char *wire_txn_body(const struct wire_txn *txn)
{
	struct buffer text = {0};

	buffer_add_string(&text, "{");
	add_list(&text, "compare", &txn->compares);
	add_list(&text, "success", &txn->success);
	add_list(&text, "failure", &txn->failure);
	buffer_add_string(&text, "}");
	return buffer_take(&text);
}

size_t wire_part_operations(const struct wire_txn *part)
{
	return part->compares.size ? 0 : part->operations;
}

size_t wire_part_size(const struct wire_txn *part)
{
	return part->compares.size + part->success.size + part->failure.size;
}

void wire_add_part(struct wire_txn *txn, const struct wire_txn *part)
{
	size_t operations = wire_part_operations(part);

	if (operations) {
		buffer_add(next_member(&txn->success), part->success.data, part->success.size);
		txn->operations += operations;
		return;
	}
	cleanup(free_ptr) char *body = wire_txn_body(part);
	struct buffer *text = next_operation(txn);
	buffer_add_string(text, "{\"request_txn\":");
	buffer_add_string(text, body);
	buffer_add_string(text, "}");
}

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
}

/* --- answers --- */

char *wire_parse_token(const char *body)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);

	return xstrdup(json_string(json, "token"));
}

static uint64_t revision_of(const struct cJSON *json)
{
	return json_u64(json_get(json, "header"), "revision");
}

static void parse_lease(const struct cJSON *json, struct wire_lease *lease)
{
	lease->id = json_u64(json, "ID");
	lease->ttl = (int64_t)json_u64(json, "TTL");
	lease->revision = revision_of(json);
}

int wire_parse_grant(const char *body, struct wire_lease *lease)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);

	parse_lease(json, lease);
	return lease->id && lease->ttl > 0 ? 0 : -EBADMSG;
}

/* A stream's answer, hence in "result"; without a TTL when the lease does not exist. */
int wire_parse_keepalive(const char *body, struct wire_lease *lease)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	const struct cJSON *result = json_get(json, "result");

	parse_lease(result, lease);
	return result && lease->id ? 0 : -EBADMSG;
}

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

static bool parse_kv(const struct cJSON *json, struct wire_kv *kv)
{
	bool bad = false;
	size_t value_size;

	kv->key = decode(json_string(json, "key"), &kv->key_size, &bad);
	kv->value = decode(json_string(json, "value"), &value_size, &bad);
	kv->created = json_u64(json, "create_revision");
	kv->modified = json_u64(json, "mod_revision");
	kv->lease = json_u64(json, "lease");
	return !bad && kv->key;
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

static int parse_range(const struct cJSON *json, struct wire_kvs *kvs)
{
	size_t capacity = 0;

	if (!json_is_list(json, "kvs"))
		return -EBADMSG;
	kvs->more = json_bool(json, "more");
	json_each(item, json_get(json, "kvs")) {
		struct wire_kv *kv = add_kv(kvs, &capacity);
		if (!parse_kv(item, kv) || !kv->created)
			return -EBADMSG;
	}
	return 0;
}

static int add_range(const struct cJSON *response, struct wire_result *result)
{
	const struct cJSON *range = json_get(response, "response_range");

	if (!range || result->range_count == WIRE_MAX_RANGES)
		return 0;
	return parse_range(range, &result->ranges[result->range_count++]);
}

/* Of a nested transaction's answer the header is empty. */
static int parse_txn(const struct cJSON *json, uint64_t revision, struct wire_result *result)
{
	int error = json && json_is_list(json, "responses") ? 0 : -EBADMSG;

	*result = (struct wire_result){
		.revision = revision, .succeeded = json_bool(json, "succeeded")};
	json_each(response, json_get(json, "responses")) {
		if (!error)
			error = add_range(response, result);
	}
	if (!error && result->revision)
		return 0;
	wire_result_fini(result);
	return -EBADMSG;
}

int wire_parse_txn(const char *body, struct wire_result *result)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);

	return parse_txn(json, revision_of(json), result);
}

/* Reads a part's answer from *response on, and moves that behind it. */
static int parse_part(const struct cJSON **response, size_t operations, uint64_t revision,
	struct wire_result *result)
{
	int error = revision ? 0 : -EBADMSG;

	if (!operations && *response) {
		error = parse_txn(json_get(*response, "response_txn"), revision, result);
		*response = json_next(*response);
		return error;
	}
	*result = (struct wire_result){.revision = revision, .succeeded = true};
	for (size_t i = 0; i < operations && !error; i++) {
		if (!*response || json_get(*response, "response_txn"))
			return -EBADMSG;
		error = add_range(*response, result);
		*response = json_next(*response);
	}
	return error;
}

int wire_parse_parts(
	const char *body, const size_t *operations, struct wire_result *results, size_t count)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	const struct cJSON *response = json_first(json_get(json, "responses"));
	int error = 0;

	memset(results, 0, count * sizeof(results[0]));
	for (size_t i = 0; i < count && !error; i++)
		error = parse_part(&response, operations[i], revision_of(json), &results[i]);
	if (!error && !response)
		return 0;
	for (size_t i = 0; i < count; i++)
		wire_result_fini(&results[i]);
	return -EBADMSG;
}

void wire_result_fini(struct wire_result *result)
{
	for (size_t i = 0; i < result->range_count; i++)
		wire_kvs_fini(&result->ranges[i]);
	result->range_count = 0;
}

int wire_parse_lease_keys(const char *body, int64_t *ttl, struct wire_kvs *keys)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	size_t capacity = 0;
	bool bad = !json_get(json, "header") || !json_is_list(json, "keys");

	*keys = (struct wire_kvs){0};
	/* -1, which does not read as a number here, for a lease that is gone. */
	*ttl = (int64_t)json_u64(json, "TTL");
	json_each(item, json_get(json, "keys")) {
		struct wire_kv *kv = add_kv(keys, &capacity);
		kv->key = decode(json_text(item), &kv->key_size, &bad);
		bad = bad || !kv->key;
	}
	if (!bad)
		return 0;
	wire_kvs_fini(keys);
	return -EBADMSG;
}

static int parse_events(const struct cJSON *events, struct wire_kvs *deleted)
{
	size_t capacity = 0;

	json_each(event, events) {
		const char *type = json_string(event, "type");
		if (!type || strcmp(type, "DELETE") != 0)
			continue;
		struct wire_kv *kv = add_kv(deleted, &capacity);
		if (!parse_kv(json_get(event, "kv"), kv) || !kv->modified)
			return -EBADMSG;
	}
	return 0;
}

int wire_parse_watch(const char *line, struct wire_watch_message *message)
{
	cleanup(json_free_ptr) struct cJSON *json = json_parse(line);
	const struct cJSON *result = json_get(json, "result"), *error = json_get(json, "error");

	*message = (struct wire_watch_message){0};
	if (error) {
		const char *text = json_string(error, "message");
		uint64_t code = json_u64(error, "grpc_code");
		message->canceled = true;
		set_error(&message->error, text ? text : "the watch failed", code, 0);
		return 0;
	}
	if (!result)
		return -EBADMSG;
	message->created = json_bool(result, "created");
	message->canceled = json_bool(result, "canceled");
	message->revision = revision_of(result);
	message->compacted_to = json_u64(result, "compact_revision");
	if (message->canceled) {
		const char *reason = json_string(result, "cancel_reason");
		set_error(&message->error, reason ? reason : "the watch was canceled", 0, 500);
	}
	if (json_is_list(result, "events") &&
		parse_events(json_get(result, "events"), &message->deleted) == 0)
		return 0;
	wire_kvs_fini(&message->deleted);
	return -EBADMSG;
}
