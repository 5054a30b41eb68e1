/* SPDX-License-Identifier: MIT */
/*
 * Clocks, a network and a cluster of etcd that are made up, for the lease and the client.
 *
 * The cluster has leaders, each with a term, and knows of the one lease what each of them has in
 * its memory; the last leader's memory is what the cluster goes by.  A member whose disk hangs
 * answers from memory whatever etcd 3.4 answers so: renewals, which it carries out itself if it was
 * the leader, and else passes on to the one that it knew.  It answers no reads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/etcd/client.h"
#include "store/etcd/lease.h"

enum { MAX_ENDPOINTS = 3, MEMBERS = 3, MAX_REIGNS = 64, NOBODY = 9, LEASE = 77 };

/* What an interruption does with what is sent; UP is none. */
enum trouble { UP, REFUSES, DROPS, HOLDS, TROUBLES };

/* What happens, at which millisecond after the grant, and for how long. */
struct story {
	unsigned int endpoints; /* which the mount knows, of the first members */
	unsigned int hurt;      /* that many of the members are interrupted */
	unsigned int away;      /* and this one for ever, unless it is NOBODY */
	enum trouble trouble;
	int ttl_seconds;
	int64_t begins, lasts;
	/* The disks of members hang, from `begins` on for as long as it lasts. */
	bool hangs[MEMBERS];
	unsigned int leader; /* at first */
	/* Elections, in milliseconds after the grant, of these members. */
	struct {
		int64_t at;
		unsigned int leader;
	} elections[MAX_REIGNS - 1];
	unsigned int election_count;
	int64_t lag;     /* so much later than hearing of a leader a member applies its entries */
	int64_t slowest; /* so long at most the member thinks about a renewal; 0: not at all */
	bool adopts;     /* the lease is another worker's, which has proven it just now */
};

struct world {
	int64_t now;
	int64_t ttl; /* milliseconds */
	int64_t lost_at;
	int64_t expired_at; /* the lease that was lost, in the cluster */
	unsigned int silences;
	struct etcd_lease_metrics metrics;
};

extern struct world world;

/*
 * Lives through the story and one TTL more.  Fails if there is ever a moment at which the lease is
 * believed to last, margin and all, for longer than it does in the cluster.
 */
void live_through(const struct story *story);
