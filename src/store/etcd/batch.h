/* SPDX-License-Identifier: MIT */
/*
 * Group commit: operations travel together.
 *
 * One alone goes out at once.  While a few are under way the next ones gather, and go together as
 * parts of one transaction; so the load itself makes the batches larger.  Each operation succeeds
 * or fails as if it were alone: if etcd refuses a batch as a whole, they are repeated one by one.
 *
 * etcd looks at all compares of a transaction before it does anything, and whatever a transaction
 * puts is equally old.  So a batch has no operation that compares what another one of it changes,
 * and never two new places of one lock.
 *
 * A batch that writes is guarded by the fence, and waits for a session if there is none.
 */
#pragma once

#include <stddef.h>

#include "base/metrics.h"
#include "store/etcd/client.h"

struct etcd;
struct etcd_op;

/* Where operations gather that may go together. */
struct etcd_line {
	struct etcd *etcd;
	enum etcd_lane lane;
	struct etcd_op *waiting;
	unsigned int batches, width; /* under way, and how many may be */
	struct histogram sizes;      /* of those so far, in operations */
	struct loop_task task;
};

/* etcd's default for --max-txn-ops. */
enum { ETCD_BATCH_MAX = 128 };

/* What an operation can share a batch with, as to its own lock. */
enum etcd_batch_kind {
	ETCD_BATCH_SOLE = 0,  /* with none */
	ETCD_BATCH_JOIN = 1,  /* with any but another new place */
	ETCD_BATCH_ANY = 2,   /* with any */
	ETCD_BATCH_ALONE = 4, /* with nothing, be it about another lock: the answer is large */
};

void etcd_line_init(
	struct etcd_line *line, struct etcd *etcd, enum etcd_lane lane, unsigned int width);
void etcd_line_fini(struct etcd_line *line);

/* Puts op->txn on its way, in op->line: op->fn gets the answer, later. */
void etcd_batch_add(struct etcd_op *op);
/* The session was lost, or is there (again), for operations that are not of the session. */
void etcd_batch_take_back(struct etcd_line *line);
void etcd_batch_go_on(struct etcd_line *line);
/* The answer is not wanted any more; what was sent may still be carried out. */
void etcd_batch_drop(struct etcd_op *op);
