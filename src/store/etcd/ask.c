/* SPDX-License-Identifier: MIT */
#include "store/etcd/ask.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "event/loop.h"

double etcd_ask_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void run_until(struct etcd_ask *ask, const bool *flag, int64_t deadline)
{
	while (!*flag && !*ask->interrupted && loop_clock() < deadline) {
		if (loop_run(ask->loop) < 0)
			return;
	}
}

static void on_timeout(struct loop_timer *timer)
{
	loop_stop(timer->loop);
}

bool etcd_ask_await(struct etcd_ask *ask, const bool *flag)
{
	int64_t deadline = loop_clock() + ask->timeout;
	struct loop_timer timer = {.fn = on_timeout};

	loop_timer_arm(ask->loop, &timer, deadline);
	run_until(ask, flag, deadline);
	loop_timer_disarm(&timer);
	return *flag;
}

static void on_answer(struct etcd_call *call, int result)
{
	struct etcd_ask *ask = container_of(call, struct etcd_ask, call);

	ask->result = result;
	ask->is_answered = true;
	loop_stop(ask->loop);
}

int etcd_ask(struct etcd_ask *ask, const char *rpc, char *body, etcd_read_fn *read)
{
	double begun = etcd_ask_clock();

	ask->is_answered = false;
	ask->call = (struct etcd_call){.rpc = rpc,
		.body = body,
		.lane = ETCD_LANE_NAMES,
		.max_answer = ETCD_LARGE_ANSWER,
		.deadline = loop_clock() + ask->timeout,
		.read = read,
		.fn = on_answer};
	etcd_call_start(ask->client, &ask->call);
	run_until(ask, &ask->is_answered, INT64_MAX);
	ask->milliseconds = etcd_ask_clock() - begun;
	if (ask->is_answered)
		return ask->result;
	etcd_call_cancel(&ask->call);
	return -EINTR;
}

static int read_txn(struct etcd_call *call, const char *body)
{
	struct etcd_ask *ask = container_of(call, struct etcd_ask, call);

	return wire_parse_txn(body, &ask->shape, &ask->answer);
}

int etcd_ask_txn(struct etcd_ask *ask, struct wire_txn *txn)
{
	const char *rpc;
	char *body = wire_txn_body(txn, &rpc);

	ask->shape = txn->shape;
	wire_txn_fini(txn);
	int result = etcd_ask(ask, rpc, body, read_txn);
	if (result == 0 && ask->answer.revision > ask->revision)
		ask->revision = ask->answer.revision;
	return result;
}

const char *etcd_ask_reason(const struct etcd_ask *ask, int result)
{
	if (result == -EINTR)
		return "interrupted";
	if (result == ETCD_NO_LEASE)
		return "the lease is gone already";
	const char *why = etcd_client_last_error(ask->client);
	return *why ? why : strerror(result < 0 ? -result : EIO);
}
