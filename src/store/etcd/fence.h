/* SPDX-License-Identifier: MIT */
/*
 * The fence: no copy of a request is carried out after what this mount has done since.
 *
 * A request whose answer does not come is sent again, by another connection or to another member,
 * and the first copy may be carried out minutes later, when a member continues that stood still.
 * Therefore the session has a key, which goes with its lease, and every transaction that writes
 * compares the key's mod_revision.  While a copy may be on its way, the next transaction puts the
 * key again; whatever was sent before that compares an older revision and does nothing.
 *
 * This guarantees, for each kind of request that writes:
 *   C1  An operation that was sent more than once is answered only when no copy of it, and none of
 *       anything earlier, can be carried out any more.
 *   C2  The same holds for an operation that was given up, once the session's key has been put
 *       again, which is tried at once.
 *   C3  Nothing that a former process of the mount has sent is carried out after the first
 *       transaction of its successor.
 *   C4  Nothing of a session is carried out after its end: the key is gone, and what would make it
 *       anew needs the lease.
 *   C5  While etcd has no space for the key, deletes go without a new fence, for locks have to be
 *       given back; the fence is put as soon as there is space.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "event/loop.h"
#include "store/etcd/client.h"
#include "store/etcd/wire.h"

struct etcd;

/* What one transaction has of the fence.  Set when it is composed, and anew for each attempt. */
struct etcd_guard {
	bool is_on;              /* it compares the session's key */
	bool raises;             /* it puts the key again */
	bool is_merged;          /* the shape is that of the whole transaction */
	uint64_t lease;          /* the session's, 0 if there was none */
	uint64_t revision;       /* of the key, as compared */
	uint64_t losses;         /* that are answered for if it raises the fence */
	struct wire_shape shape; /* of what the guard adds to the transaction */
};

struct etcd_fence {
	struct etcd *etcd;
	uint64_t lease;        /* whose session's key that is */
	uint64_t revision;     /* the mod_revision of the session's key; 0: it may not be there */
	uint64_t losses;       /* how often a copy was left on its way */
	uint64_t fenced;       /* so many of them can't be carried out any more */
	int64_t refused_until; /* it can't be raised; on loop_clock() */
	struct etcd_call call; /* raises it when nothing else does */
	struct etcd_guard guard;
};

void etcd_fence_init(struct etcd_fence *fence, struct etcd *etcd);
/* The session is there, or was lost. */
void etcd_fence_begin(struct etcd_fence *fence);
void etcd_fence_end(struct etcd_fence *fence);

/* Somebody has left a copy on its way: the fence is raised as soon as can be. */
void etcd_fence_lost(struct etcd_fence *fence);

/* True if the next transaction has to raise the fence; strays: copies of it that may be on their
 * way. */
bool etcd_fence_is_due(const struct etcd_fence *fence, unsigned int strays);
/*
 * Guards a transaction, and raises the fence with it: one whose parts are in txn already, and no
 * more; or any one that does not raise it, and then the guard's operation is the last one if the
 * compares do not hold.  Needs the session.
 */
void etcd_fence_guard(
	struct etcd_fence *fence, struct etcd_guard *guard, bool raises, struct wire_txn *txn);
/*
 * Takes in what etcd answered to the guard.  0, or -EAGAIN if the transaction has to be sent again:
 * it was not carried out, or `strays` other copies of it may yet be.
 */
int etcd_fence_answered(struct etcd_fence *fence, const struct etcd_guard *guard,
	const struct wire_result *answer, unsigned int strays);
/* etcd refused the transaction, because it is full or allows fewer operations.  True if it shall be
 * tried without raising. */
bool etcd_fence_refused(struct etcd_fence *fence, const struct etcd_guard *guard);
