/* SPDX-License-Identifier: MIT */
/* The lock store on etcd: implements store.h by leases, ordered keys and one watch. */
#pragma once

#include <sys/types.h>

#include "store/etcd/client.h"

struct loop;
struct store;

struct etcd_options {
	struct etcd_client_options client;
	const char *prefix; /* of all keys, without a slash at its end */
	int ttl;            /* of the lease, seconds; at least 2 */
	mode_t root_mode;   /* of the root directory, until somebody changes it */
};

/* options are copied.  NULL if libcurl can't be set up.  The caller ends it with store->ops->free,
 * after store->ops->stop was answered or if the process ends anyway. */
struct store *etcd_new(struct loop *loop, const struct etcd_options *options);
