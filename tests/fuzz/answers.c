/* SPDX-License-Identifier: MIT */
/* One answer of etcd's gateway, read as an answer to everything that we ask. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz.h"
#include "store/etcd/wire.h"

static const struct wire_shape shapes[] = {
	/* A place, a try, giving back, looking, a change, a crowd. */
	{.success = {{WIRE_PUT, WIRE_RANGE}, 2}},
	{.conditional = true,
		.success = {{WIRE_PUT}, 1},
		.failure = {{WIRE_RANGE, WIRE_LIMITED_RANGE}, 2}},
	{.conditional = true, .success = {{WIRE_PUT}, 1}, .failure = {{WIRE_LIMITED_RANGE}, 1}},
	{.success = {{WIRE_DELETE}, 1}},
	{.conditional = true, .success = {{WIRE_RANGE}, 1}, .failure = {{WIRE_LIMITED_RANGE}, 1}},
	{.conditional = true, .success = {{WIRE_PUT}, 1}},
	{.success = {{WIRE_PUT, WIRE_RANGE, WIRE_RANGE, WIRE_RANGE, WIRE_RANGE}, 5}},
	{.success = {{WIRE_RANGE}, 1}},
	{.success = {{WIRE_LIMITED_RANGE}, 1}},
};

static void check_result(const struct wire_result *result, const struct wire_shape *shape)
{
	const struct wire_branch *branch = result->succeeded ? &shape->success : &shape->failure;
	size_t range = 0;

	require(result->revision && (result->succeeded || shape->conditional));
	for (size_t i = 0; i < branch->count; i++) {
		if (branch->kinds[i] != WIRE_RANGE && branch->kinds[i] != WIRE_LIMITED_RANGE)
			continue;
		const struct wire_kvs *kvs = &result->ranges[range++];
		require(!kvs->more || branch->kinds[i] == WIRE_LIMITED_RANGE);
		for (size_t k = 0; k < kvs->count; k++) {
			const struct wire_kv *kv = &kvs->kv[k];
			require(kv->created && kv->created <= result->revision);
			require(kv->modified <= result->revision);
			require(kv->key[kv->key_size] == '\0');
		}
	}
	require(result->range_count == range);
}

static void read_txns(const char *body)
{
	struct wire_result results[ARRAY_SIZE(shapes)];

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (wire_parse_txn(body, &shapes[i], &results[0]) < 0)
			continue;
		check_result(&results[0], &shapes[i]);
		wire_result_fini(&results[0]);
	}
	for (size_t count = 2; count <= 4; count++) {
		if (wire_parse_parts(body, shapes, results, count, NULL, NULL) < 0)
			continue;
		for (size_t i = 0; i < count; i++) {
			check_result(&results[i], &shapes[i]);
			wire_result_fini(&results[i]);
		}
	}
}

static void read_leases(const char *body)
{
	struct wire_lease lease;
	struct wire_kvs keys;
	int64_t ttl;

	if (wire_parse_grant(body, &lease) == 0)
		require(lease.id && lease.ttl > 0 && lease.ttl <= INT32_MAX * 1000L);
	if (wire_parse_keepalive(body, 77, &lease) == 0)
		require(lease.id == 77 && lease.ttl <= INT32_MAX * 1000L);
	if (wire_parse_lease_keys(body, 77, &ttl, &keys) == 0) {
		for (size_t i = 0; i < keys.count; i++)
			require(keys.kv[i].key[keys.kv[i].key_size] == '\0');
		wire_kvs_fini(&keys);
	}
}

static void read_rest(const char *body)
{
	static const int statuses[] = {100, 301, 400, 404, 503};
	struct wire_error error;
	char *token = wire_parse_token(body);

	for (const char *c = token; c && *c; c++)
		require(isgraph((unsigned char)*c));
	free(token);
	struct wire_origin origin;
	require(wire_parse_origin(body, &origin) || !wire_parse_nothing(body));
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		wire_parse_error(body, statuses[i], &error);
		require(strlen(error.message) < sizeof(error.message));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *body = fuzz_text(data, size);

	read_txns(body);
	read_leases(body);
	read_rest(body);
	free(body);
	return 0;
}
