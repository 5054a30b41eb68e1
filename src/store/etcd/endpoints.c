/* SPDX-License-Identifier: MIT */
#include "store/etcd/endpoints.h"

#include <string.h>

#include "base/util.h"
#include "event/loop.h"

enum {
	/* A broken connection is no evidence that etcd is down, unless nothing else comes for so
	   long. */
	DISBELIEF = 1000,
};

void etcd_endpoints_init(struct etcd_endpoints *endpoints, char *const *urls, size_t count)
{
	*endpoints = (struct etcd_endpoints){
		.list = xzalloc(count * sizeof(endpoints->list[0])), .count = count};
	for (size_t i = 0; i < count; i++)
		endpoints->list[i].url = xstrdup(urls[i]);
}

void etcd_endpoints_fini(struct etcd_endpoints *endpoints)
{
	for (size_t i = 0; i < endpoints->count; i++)
		free(endpoints->list[i].url);
	free(endpoints->list);
}

static bool all_are_down(const struct etcd_endpoints *endpoints)
{
	for (size_t i = 0; i < endpoints->count; i++) {
		if (!endpoints->list[i].down)
			return false;
	}
	return true;
}

static void prefer_another(struct etcd_endpoints *endpoints)
{
	endpoints->preferred = (endpoints->preferred + 1) % endpoints->count;
}

bool etcd_endpoints_failed(struct etcd_endpoints *endpoints, size_t number, bool silent)
{
	struct etcd_endpoint *endpoint = &endpoints->list[number];

	if (!endpoint->failing_since)
		endpoint->failing_since = loop_clock();
	if (silent || loop_clock() - endpoint->failing_since >= DISBELIEF)
		endpoint->down = true;
	if (number == endpoints->preferred)
		prefer_another(endpoints);
	return all_are_down(endpoints);
}

void etcd_endpoints_answered(struct etcd_endpoints *endpoints, size_t number, int64_t sent_at)
{
	endpoints->list[number].failing_since = 0;
	endpoints->list[number].down = false;
	if (sent_at > endpoints->list[number].good_at)
		endpoints->list[number].good_at = sent_at;
	endpoints->preferred = number;
}

void etcd_endpoints_blame(struct etcd_endpoints *endpoints, const char *url)
{
	if (strcmp(endpoints->list[endpoints->preferred].url, url) == 0)
		prefer_another(endpoints);
}

size_t etcd_endpoints_next(
	const struct etcd_endpoints *endpoints, size_t number, unsigned int attempts)
{
	/* Once one answers that others have failed to find, it is asked. */
	if (!attempts || !endpoints->list[endpoints->preferred].failing_since)
		return endpoints->preferred;
	return (number + 1) % endpoints->count;
}
