/* SPDX-License-Identifier: MIT */
/*
 * Whether etcd has gone back in time, as it does when it is restored from a backup.
 *
 * Linearizable answers never show an older revision than one that had been answered before they
 * were asked for.  If one does, what etcd has said before may have never happened: queues that were
 * known to be complete may have got places with old revisions.
 */
#pragma once

#include <stdint.h>

struct etcd_revision;

typedef void etcd_revision_fn(struct etcd_revision *revision);

struct etcd_revision {
	uint64_t latest; /* that was answered; 0: none */
	int64_t told_at; /* when the log said that it went back, on loop_clock(); 0: never */
	etcd_revision_fn *went_back;
};

/*
 * A linearizable answer shows that revision, to what was asked when `latest` was `before`.  Calls
 * went_back if it is older.
 */
void etcd_revision_heard(struct etcd_revision *revision, uint64_t before, uint64_t answered);
