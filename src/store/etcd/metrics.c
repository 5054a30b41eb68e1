/* SPDX-License-Identifier: MIT */
/* What the store on etcd has counted, for Prometheus. */
#include <utlist.h>

#include "base/buffer.h"
#include "base/util.h"
#include "store/etcd/endpoints.h"
#include "store/etcd/internal.h"

static const char *const lanes[ETCD_LANES] = {
	[ETCD_LANE_PLACES] = "lane=\"places\"",
	[ETCD_LANE_NAMES] = "lane=\"names\"",
	[ETCD_LANE_LEASE] = "lane=\"lease\"",
};

/* --- the cluster --- */

static void write_endpoints(const struct etcd *etcd, struct buffer *text)
{
	static const char name[] = "latchfs_store_endpoint_up";
	const struct etcd_endpoints *endpoints = etcd_client_endpoints(etcd->client);

	metric_head(text, name, "gauge", "Whether the address answers, as far as it was asked.");
	for (size_t i = 0; i < endpoints->count; i++) {
		cleanup(free_ptr) char *label = metric_label("endpoint", endpoints->list[i].url);
		metric_number(text, name, label, !endpoints->list[i].failing_since);
	}
}

static void write_lanes(const struct etcd *etcd, struct buffer *text)
{
	static const char requests[] = "latchfs_store_request_seconds";
	static const char failures[] = "latchfs_store_request_failures_total";
	static const char in_flight[] = "latchfs_store_requests_in_flight";
	static const char connections[] = "latchfs_store_connections_total";
	struct etcd_lane_metrics metrics[ETCD_LANES];

	for (enum etcd_lane lane = 0; lane < ETCD_LANES; lane++)
		etcd_client_lane(etcd->client, lane, &metrics[lane]);
	metric_head(text, requests, "histogram", "Requests to the store that were answered.");
	for (int i = 0; i < ETCD_LANES; i++)
		metric_histogram(text, requests, lanes[i], &metrics[i].answers, &scale_latency);
	metric_head(text, failures, "counter", "Requests to the store without an answer.");
	for (int i = 0; i < ETCD_LANES; i++)
		metric_number(text, failures, lanes[i], metrics[i].failures);
	metric_head(text, in_flight, "gauge", "Requests to the store that are under way.");
	for (int i = 0; i < ETCD_LANES; i++)
		metric_number(text, in_flight, lanes[i], metrics[i].in_flight);
	metric_head(text, connections, "counter", "Connections to the store that were opened.");
	for (int i = 0; i < ETCD_LANES; i++)
		metric_number(text, connections, lanes[i], metrics[i].connections);
	metric_number(
		text, connections, "lane=\"watch\"", etcd_client_stream_connections(etcd->client));
}

static uint64_t count_waiting(const struct etcd_line *line)
{
	const struct etcd_op *op;
	uint64_t count = 0;

	DL_FOREACH2(line->waiting, op, waiting_next) {
		count++;
	}
	return count;
}

static void write_lines(const struct etcd *etcd, struct buffer *text)
{
	static const char waiting[] = "latchfs_store_operations_waiting";
	static const char sizes[] = "latchfs_store_batch_operations";
	const struct etcd_line *lines[] = {&etcd->places_line, &etcd->names_line};

	metric_head(text, waiting, "gauge", "Operations that wait to be sent.");
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		metric_number(text, waiting, lanes[lines[i]->lane], count_waiting(lines[i]));
	metric_head(text, sizes, "histogram", "Operations that were sent as one transaction.");
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		metric_histogram(
			text, sizes, lanes[lines[i]->lane], &lines[i]->sizes, &scale_sizes);
}

/* --- the lease --- */

static void write_losses(const struct etcd_lease *lease, struct buffer *text)
{
	static const char name[] = "latchfs_lease_losses_total";
	static const char *const causes[ETCD_LOSSES] = {[ETCD_LOSS_DEADLINE] = "cause=\"deadline\"",
		[ETCD_LOSS_GONE] = "cause=\"gone\"",
		[ETCD_LOSS_DROPPED] = "cause=\"contradiction\""};

	metric_head(text, name, "counter", "Leases that were lost, by cause.");
	for (int i = 0; i < ETCD_LOSSES; i++)
		metric_number(text, name, causes[i], lease->metrics.losses[i]);
}

static void write_lease(const struct etcd_lease *lease, struct buffer *text)
{
	static const char renewals[] = "latchfs_lease_renewals_total";
	const struct etcd_lease_metrics *metrics = &lease->metrics;
	int64_t now = loop_clock();
	int64_t doubtful = metrics->doubtful;

	if (metrics->doubtful_from)
		doubtful += now - metrics->doubtful_from;
	metric_gauge(text, "latchfs_lease_held", lease->id != 0, "Whether there is a lease.");
	metric_gauge_seconds(text, "latchfs_lease_ttl_seconds", lease->id ? lease->ttl : 0,
		"Its time to live; 0 without one.");
	metric_gauge_seconds(text, "latchfs_lease_margin_seconds",
		lease->id ? etcd_lease_deadline(lease) - now : 0,
		"What is left until it is lost, unless it is renewed; 0 without one.");
	metric_head(text, renewals, "counter", "Renewals of the lease.");
	metric_number(text, renewals, "result=\"ok\"", metrics->renewals);
	metric_number(text, renewals, "result=\"failed\"", metrics->failures);
	metric_number(text, renewals, "result=\"unproven\"", metrics->unproven);
	metric_counter(
		text, "latchfs_lease_grants_total", metrics->grants, "Leases that were granted.");
	write_losses(lease, text);
	metric_head(text, "latchfs_doubtful_seconds_total", "counter",
		"Time in which the lease was in doubt.");
	metric_seconds(text, "latchfs_doubtful_seconds_total", NULL, doubtful);
}

void etcd_metrics(const struct store *store, struct buffer *text)
{
	const struct etcd *etcd = (const struct etcd *)store;
	const struct etcd_watch *watch = &etcd->watch;

	metric_gauge(text, "latchfs_store_up", etcd_client_reachable(etcd->client),
		"Whether the store answers.");
	metric_counter(text, "latchfs_store_outages_total", etcd_client_outages(etcd->client),
		"How often it has stopped to answer.");
	write_endpoints(etcd, text);
	write_lanes(etcd, text);
	write_lines(etcd, text);
	metric_gauge(text, "latchfs_watch_up", watch->is_open,
		"Whether the store tells of what others give back.");
	metric_counter(text, "latchfs_watch_streams_total",
		(uint64_t)watch->streams + (watch->request != NULL),
		"Streams that were opened to be told of it.");
	write_lease(&etcd->lease, text);
}
