/* SPDX-License-Identifier: MIT */
/* What the store on etcd tells of itself, without asking anybody. */
#include <inttypes.h>
#include <stdio.h>

#include "store/etcd/endpoints.h"
#include "store/etcd/internal.h"

void etcd_status(const struct store *store, struct store_status *status)
{
	const struct etcd *etcd = (const struct etcd *)store;
	const struct etcd_lease *lease = &etcd->lease;

	*status = (struct store_status){.kind = "etcd",
		.prefix = etcd->prefix,
		.reachable = etcd_client_reachable(etcd->client),
		.reason = etcd_client_last_error(etcd->client),
		.listening = etcd->watch.is_open,
		.session = lease->state};
	if (!lease->id)
		return;
	snprintf(status->session_id, sizeof(status->session_id), "%" PRIx64, lease->id);
	status->ttl = lease->ttl;
	status->renewed_at = lease->renewed_at;
	status->deadline = etcd_lease_deadline(lease);
}

bool etcd_endpoint(const struct store *store, size_t number, struct store_endpoint *endpoint)
{
	const struct etcd *etcd = (const struct etcd *)store;
	const struct etcd_endpoints *endpoints = etcd_client_endpoints(etcd->client);

	if (number >= endpoints->count)
		return false;
	endpoint->url = endpoints->list[number].url;
	endpoint->answers = !endpoints->list[number].failing_since;
	return true;
}
