/* SPDX-License-Identifier: MIT */
/* The addresses of an etcd cluster, and which of them answer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct etcd_endpoint {
	char *url;
	int64_t failing_since; /* on loop_clock(); 0 while it answers */
	int64_t good_at;       /* when the newest of what it answered was sent */
	bool down;
};

struct etcd_endpoints {
	struct etcd_endpoint *list;
	size_t count;     /* at least one */
	size_t preferred; /* the last one that answered */
};

/* The URLs are copied. */
void etcd_endpoints_init(struct etcd_endpoints *endpoints, char *const *urls, size_t count);
void etcd_endpoints_fini(struct etcd_endpoints *endpoints);

/* It failed, by silence or otherwise.  True if all are down now. */
bool etcd_endpoints_failed(struct etcd_endpoints *endpoints, size_t number, bool silent);
/* To a call that was sent then. */
void etcd_endpoints_answered(struct etcd_endpoints *endpoints, size_t number, int64_t sent_at);
/* The one of that URL failed otherwise than by a call: another is preferred. */
void etcd_endpoints_blame(struct etcd_endpoints *endpoints, const char *url);

/* Which one is next for a call that was sent so often, the last time to the one of that number. */
size_t etcd_endpoints_next(
	const struct etcd_endpoints *endpoints, size_t number, unsigned int attempts);
