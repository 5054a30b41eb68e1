/* SPDX-License-Identifier: MIT */
#include "store/etcd/wire.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/base64.h"
#include "base/util.h"
#include "store/etcd/json.h"

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
	/* Else all that goes with a lease comes in one message, however large. */
	buffer_add_string(&text, ",\"progress_notify\":true,\"fragment\":true}}");
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

static struct buffer *next_operation(struct wire_txn *txn, enum wire_kind kind)
{
	struct wire_branch *branch = txn->has_else ? &txn->shape.failure : &txn->shape.success;

	assert(branch->count < WIRE_MAX_OPERATIONS);
	branch->kinds[branch->count++] = kind;
	return next_member(txn->has_else ? &txn->failure : &txn->success);
}

static void add_compare(struct wire_txn *txn, const char *first, const char *end,
	const char *target, const char *field, const char *relation, uint64_t revision)
{
	struct buffer *text = next_member(&txn->compares);

	txn->shape.conditional = true;
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

void wire_if_unchanged(struct wire_txn *txn, const char *first, const char *end, uint64_t revision)
{
	add_compare(txn, first, end, "MOD", "mod_revision", "LESS", revision + 1);
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
	struct buffer *text = next_operation(txn, WIRE_PUT);

	buffer_add_string(text, "{\"request_put\":{");
	add_key(text, key, NULL);
	buffer_add_string(text, ",");
	add_bytes(text, "value", value);
	buffer_addf(text, ",\"lease\":\"%" PRIu64 "\"}}", lease);
}

void wire_put_again(struct wire_txn *txn, const char *key, const char *value)
{
	struct buffer *text = next_operation(txn, WIRE_PUT);

	buffer_add_string(text, "{\"request_put\":{");
	add_key(text, key, NULL);
	buffer_add_string(text, ",");
	add_bytes(text, "value", value);
	buffer_add_string(text, ",\"ignore_lease\":true}}");
}

void wire_delete(struct wire_txn *txn, const char *key)
{
	struct buffer *text = next_operation(txn, WIRE_DELETE);

	buffer_add_string(text, "{\"request_delete_range\":{");
	add_key(text, key, NULL);
	buffer_add_string(text, "}}");
}

void wire_range(struct wire_txn *txn, const char *first, const char *end,
	const struct wire_range_options *options)
{
	struct buffer *text = next_operation(txn, options->limit ? WIRE_LIMITED_RANGE : WIRE_RANGE);

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

static char *txn_text(const struct wire_txn *txn)
{
	struct buffer text = {0};

	buffer_add_string(&text, "{");
	add_list(&text, "compare", &txn->compares);
	add_list(&text, "success", &txn->success);
	add_list(&text, "failure", &txn->failure);
	buffer_add_string(&text, "}");
	return buffer_take(&text);
}

bool wire_is_sole(const struct wire_shape *shape)
{
	return !shape->conditional && shape->success.count == 1 &&
	       shape->success.kinds[0] != WIRE_PUT;
}

/* The operation stands in an object that says which it is. */
static char *sole_text(const struct wire_txn *txn)
{
	const char *inner = strchr(txn->success.data + 1, '{');

	return xasprintf(
		"%.*s", (int)(txn->success.size - 1 - (size_t)(inner - txn->success.data)), inner);
}

static bool branch_writes(const struct wire_branch *branch)
{
	for (size_t i = 0; i < branch->count; i++) {
		if (branch->kinds[i] == WIRE_PUT || branch->kinds[i] == WIRE_DELETE)
			return true;
	}
	return false;
}

bool wire_writes(const struct wire_shape *shape)
{
	return branch_writes(&shape->success) || branch_writes(&shape->failure);
}

char *wire_txn_body(const struct wire_txn *txn, const char **rpc)
{
	if (!wire_is_sole(&txn->shape)) {
		*rpc = "/v3/kv/txn";
		return txn_text(txn);
	}
	*rpc = txn->shape.success.kinds[0] == WIRE_DELETE ? "/v3/kv/deleterange" : "/v3/kv/range";
	return sole_text(txn);
}

size_t wire_part_operations(const struct wire_txn *part)
{
	return part->shape.conditional || part->shape.nested ? 0 : part->shape.success.count;
}

size_t wire_part_size(const struct wire_txn *part)
{
	return part->compares.size + part->success.size + part->failure.size;
}

void wire_add_whole(struct wire_txn *txn, const struct wire_txn *other)
{
	buffer_add(&txn->compares, other->compares.data, other->compares.size);
	buffer_add(&txn->success, other->success.data, other->success.size);
	buffer_add(&txn->failure, other->failure.data, other->failure.size);
	txn->shape = other->shape;
}

void wire_add_part(struct wire_txn *txn, const struct wire_txn *part)
{
	struct buffer *text = next_member(&txn->success);

	if (wire_part_operations(part)) {
		buffer_add(text, part->success.data, part->success.size);
		return;
	}
	cleanup(free_ptr) char *body = txn_text(part);
	buffer_add_string(text, "{\"request_txn\":");
	buffer_add_string(text, body);
	buffer_add_string(text, "}");
}
