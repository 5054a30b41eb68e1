/* SPDX-License-Identifier: MIT */
/*
 * Calls to etcd that are waited for, for commands that have nothing else to do meanwhile.
 *
 * The one rule: the loop runs inside of these functions, so nothing that the loop calls may use
 * them.
 */
#pragma once

#include "store/etcd/client.h"
#include "store/etcd/wire.h"

struct loop;

struct etcd_ask {
	/* Set by the owner. */
	struct loop *loop;
	struct etcd_client *client;
	int timeout;             /* milliseconds */
	const bool *interrupted; /* set, with loop_stop, it ends all waiting */

	/* Of the last call. */
	struct etcd_call call;
	double milliseconds;       /* it took */
	struct wire_result answer; /* of etcd_ask_txn */
	uint64_t revision;         /* the newest that was told, ever */

	/* Its own. */
	int result;
	bool is_answered;
	struct wire_shape shape;
};

/* Milliseconds on CLOCK_MONOTONIC, and parts of them. */
double etcd_ask_clock(void);

/* Runs the loop until the flag is set, with loop_stop; false if it was not in time. */
bool etcd_ask_await(struct etcd_ask *ask, const bool *flag);

/*
 * As of a call: 0, -errno, or an outcome; or -EINTR.  The body is taken over; `read` gets
 * ask->call.
 */
int etcd_ask(struct etcd_ask *ask, const char *rpc, char *body, etcd_read_fn *read);

/* Ends the transaction.  After 0 the caller calls wire_result_fini for ask->answer. */
int etcd_ask_txn(struct etcd_ask *ask, struct wire_txn *txn);

/* Why that was the result, in words; borrowed until the next call. */
const char *etcd_ask_reason(const struct etcd_ask *ask, int result);
