/* SPDX-License-Identifier: MIT */
/*
 * Calls to an etcd cluster through its JSON gateway: which endpoint, how often, as whom.
 *
 * A call is repeated at the next endpoint when one refuses, is silent, makes no sense, or says that
 * it has no leader; so every call must be idempotent.  It is answered exactly once, unless
 * cancelled, and never inside etcd_call_start.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/metrics.h"
#include "event/loop.h"

struct etcd_client;
struct etcd_call;
struct etcd_endpoints;
struct http_pool;
struct http_request;

struct etcd_client_options {
	char *const *endpoints; /* "http://host:port"; at least one */
	size_t endpoint_count;
	const char *ca_file, *cert_file, *key_file; /* PEM, or NULL */
	const char *user, *password;                /* or NULL */
	int timeout;                                /* of one call, milliseconds */
};

/*
 * Lanes have their own connections and their own queue, so that a renewal never waits for anything
 * and a lookup never waits behind a crowd of waiters.
 */
enum etcd_lane { ETCD_LANE_PLACES, ETCD_LANE_NAMES, ETCD_LANE_LEASE, ETCD_LANES };

/* Outcomes of a call besides 0 and -errno. */
enum { ETCD_NO_LEASE = 1, ETCD_COMPACTED = 2, ETCD_TOO_MANY = 3 };

/* The most bytes that an answer can have: most have few, and some as many as there are keys. */
enum { ETCD_SMALL_ANSWER = 64 * 1024, ETCD_LARGE_ANSWER = 32 * 1024 * 1024 };

/*
 * Takes in what etcd answered (borrowed): 0, and then fn gets that; -EBADMSG if it makes no sense,
 * and the call is repeated as if this endpoint had failed; or -EAGAIN, and it is composed and sent
 * again.  It must not touch the call.
 */
typedef int etcd_read_fn(struct etcd_call *call, const char *body);
typedef void etcd_call_fn(struct etcd_call *call, int result);

struct etcd_call {
	/* Set by the caller. */
	const char *rpc; /* "/v3/kv/txn" */
	char *body;      /* owned by the call from start until its answer */
	/* Or NULL; else gives the body, and sets rpc, anew for each attempt. */
	char *(*compose)(struct etcd_call *call);
	enum etcd_lane lane;
	/* In bytes; 0: ETCD_SMALL_ANSWER.  A larger answer is -EIO, or -EFBIG if the caller has set
	 * less than what may be expected of any. */
	size_t max_answer;
	int64_t deadline;    /* on loop_clock(); 0 = tries for ever */
	int attempt_timeout; /* milliseconds; 0 = the client's, shared by the endpoints */
	size_t begin_at;     /* 1 + the endpoint of its first attempt; 0 = the preferred one */
	bool at_one;         /* asks that endpoint alone: once that has failed, -EIO */
	/* A member answers it from memory, even one that the others have left behind: the answer
	 * is no evidence that the cluster works. */
	bool from_memory;
	etcd_read_fn *read;
	etcd_call_fn *fn;

	/* May be read in fn. */
	int64_t sent_at;       /* when the attempt that was answered began */
	unsigned int attempts; /* how many there were */
	/* Copies that were sent besides the one that was answered, and may yet be carried out. */
	unsigned int strays;
	unsigned int repeats; /* how often it was sent again although it was answered */
	size_t endpoint;      /* to which the last one was */

	/* The client's own. */
	struct etcd_client *client;
	enum {
		ETCD_CALL_IDLE,
		ETCD_CALL_QUEUED,
		ETCD_CALL_PARKED,
		ETCD_CALL_PAUSED,
		ETCD_CALL_SENT
	} state;
	struct http_request *request;
	unsigned int token_generation;
	bool reauthenticated;
	struct loop_timer timer; /* deadline while queued; end of the pause while paused */
	struct etcd_call *prev, *next;
};

/* Called from the loop. */
struct etcd_client_events {
	/* The cluster stops or starts answering. */
	void (*reachable)(void *user, bool reachable);
	/* The endpoint of that URL did not answer a call in time. */
	void (*silent)(void *user, const char *url);
};

/* options are copied.  NULL if libcurl can't be set up. */
struct etcd_client *etcd_client_new(struct loop *loop, const struct etcd_client_options *options,
	const struct etcd_client_events *events, void *user);
/* No call may be under way. */
void etcd_client_free(struct etcd_client *client);

void etcd_call_start(struct etcd_client *client, struct etcd_call *call);
/* The call's fn will not run.  Harmless if it is not under way. */
void etcd_call_cancel(struct etcd_call *call);
bool etcd_call_active(const struct etcd_call *call);
/* How many copies of it may yet be carried out, if nobody waits for it any more. */
unsigned int etcd_call_copies(const struct etcd_call *call);

/* False while every endpoint has been silent, or has failed for a second, since it last answered.
 */
bool etcd_client_reachable(const struct etcd_client *client);
/* What was counted of a lane, and what is just now. */
struct etcd_lane_metrics {
	struct histogram answers; /* of requests, in milliseconds */
	uint64_t failures;        /* requests that were not answered */
	uint64_t connections;     /* opened so far */
	size_t in_flight;
};
void etcd_client_lane(
	const struct etcd_client *client, enum etcd_lane lane, struct etcd_lane_metrics *metrics);
/* Of the pool for streams: connections opened so far. */
uint64_t etcd_client_stream_connections(const struct etcd_client *client);
/* How often the cluster has stopped to answer. */
uint64_t etcd_client_outages(const struct etcd_client *client);
const struct etcd_endpoints *etcd_client_endpoints(const struct etcd_client *client);
/* In words, what the last failed attempt said. */
const char *etcd_client_last_error(const struct etcd_client *client);
int etcd_client_timeout(const struct etcd_client *client);

/*
 * For streams, which the client does not repeat: where to send them and as whom.  `authorization`
 * is a header or NULL; both are valid until the next call of the client.
 */
struct http_pool *etcd_client_stream_pool(struct etcd_client *client);
const char *etcd_client_endpoint(const struct etcd_client *client);
const char *etcd_client_authorization(const struct etcd_client *client);
/* The endpoint of that URL failed a stream: prefer another. */
void etcd_client_blame(struct etcd_client *client, const char *url);

/* A stream's token was refused: gets a new one. */
void etcd_client_token_refused(struct etcd_client *client);

/* A pause before the next attempt, growing with the number of failures, in milliseconds. */
int etcd_backoff(unsigned int failures);
