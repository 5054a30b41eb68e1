/* SPDX-License-Identifier: MIT */
/*
 * The lease that all our keys carry, and the deadline after which it may be gone.
 *
 * The one rule: the deadline counts from the moment the last *proven* renewal was *sent*, plus the
 * TTL, less a margin.  A renewal that was answered is proven by a read, see lease.c.  At the
 * deadline the lease is lost, whatever etcd may think; so we know of a loss before etcd can give a
 * lock away.  After a loss the old lease is revoked, for its keys
 * would stand in anybody's way, and then a new one is granted, however long that takes.
 *
 * An interruption of half the TTL loses nothing, whenever it begins: just before a renewal is due a
 * quarter of the TTL has passed already, and then a fresh attempt follows every sixteenth, at one
 * endpoint after the other; so one of three may even stay away.
 */
#pragma once

#include <stdint.h>

#include "event/loop.h"
#include "store/etcd/client.h"
#include "store/etcd/revision.h"
#include "store/etcd/wire.h"
#include "store/store.h"

struct etcd_lease;

/* Called from the loop when the state changes. */
typedef void etcd_lease_fn(struct etcd_lease *lease, enum store_session state);
/* result: 0 or -errno. */
typedef void etcd_lease_done_fn(struct etcd_lease *lease, int result);
/* Called when it was granted or renewed. */
typedef void etcd_lease_renewed_fn(struct etcd_lease *lease);

/* One way of renewing it: others are begun before this one is given up. */
struct etcd_renewal {
	struct etcd_lease *lease;
	int64_t ends_at; /* on loop_clock(): it is given up, with its proof */
	struct etcd_call call;
	struct wire_lease answer;  /* to it */
	struct etcd_call proof;    /* the read that follows the answer */
	struct wire_origin origin; /* of the answer to that */
	uint64_t known;            /* the latest revision when that was sent */
};

enum { ETCD_RENEWALS = 5 };

enum etcd_loss {
	ETCD_LOSS_DEADLINE, /* it could not be renewed in time */
	ETCD_LOSS_GONE,     /* etcd does not know it any more */
	ETCD_LOSS_DROPPED,  /* etcd contradicted itself */
	ETCD_LOSSES,
};

/* What was counted of leases. */
struct etcd_lease_metrics {
	uint64_t grants, renewals, failures; /* failures of renewals */
	uint64_t unproven;                   /* renewals that were answered, and never proven */
	uint64_t losses[ETCD_LOSSES];
	int64_t doubtful;      /* milliseconds in doubt, which are over */
	int64_t doubtful_from; /* on loop_clock(); 0: not in doubt */
};

struct etcd_lease {
	/* To be read by the owner. */
	uint64_t id;        /* 0 while there is none */
	int64_t ttl;        /* granted, but not more than wanted; milliseconds */
	int64_t renewed_at; /* when the last proven renewal was sent */
	uint64_t granted_revision;
	enum store_session state;

	/* Its own. */
	struct loop *loop;
	struct etcd_client *client;
	char *key;          /* which the proofs read */
	int64_t wanted_ttl; /* milliseconds */
	bool dropped;       /* is to be lost */
	uint64_t revoking;  /* a lost lease that may still stand in the way */
	unsigned int failures;
	unsigned int losses; /* since the last renewal */
	struct etcd_renewal renewals[ETCD_RENEWALS];
	size_t begin_at;          /* where the next of them begins, see etcd_call */
	struct etcd_call call;    /* whatever else is asked */
	struct wire_lease answer; /* to it */
	struct loop_timer renew_timer, doubt_timer, deadline_timer, retry_timer;
	struct etcd_lease_metrics metrics;
	etcd_lease_fn *on_state;
	etcd_lease_renewed_fn *on_renewed; /* NULL, or set by the owner */
	struct etcd_revision *revision;    /* is told what proofs show; NULL, or set by the owner */
	etcd_lease_done_fn *on_done;       /* of the start or stop under way */
};

/* key: any that may be read; copied. */
void etcd_lease_init(struct etcd_lease *lease, struct loop *loop, struct etcd_client *client,
	const char *key, int ttl_seconds, etcd_lease_fn *on_state);
void etcd_lease_fini(struct etcd_lease *lease);

/* Gets the first lease.  on_done once: 0, or -errno when it could not be had by `deadline`. */
void etcd_lease_start(struct etcd_lease *lease, int64_t deadline, etcd_lease_done_fn *on_done);

/* Goes on with one that another process has had granted and renewed. */
void etcd_lease_adopt(struct etcd_lease *lease, uint64_t id, int64_t ttl, int64_t renewed_at);

/* On loop_clock(), of the lease that there is: when it will be lost. */
int64_t etcd_lease_deadline(const struct etcd_lease *lease);

/* Renews it now, unless that is under way. */
void etcd_lease_renew(struct etcd_lease *lease);

/* etcd said of a request that the lease does not exist. */
void etcd_lease_gone(struct etcd_lease *lease);

/* The lease can't be trusted: it is lost in the next turn of the loop. */
void etcd_lease_drop(struct etcd_lease *lease);

/* Revokes the lease for good.  on_done once, at the latest at `deadline`. */
void etcd_lease_stop(struct etcd_lease *lease, int64_t deadline, etcd_lease_done_fn *on_done);
