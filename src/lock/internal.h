/* SPDX-License-Identifier: MIT */
/* What the files of the lockspace share: the space itself, and one claim to a lock in it. */
#pragma once

#include <uthash.h>

#include "event/loop.h"
#include "lock/lockspace.h"
#include "lock/waiters.h"

struct named_lock;

struct holding {
	struct lockspace *space;
	struct claim claim;
	struct store_place place;
	struct record record;
	struct named_lock *named; /* NULL: there was no room for it */
	struct loop_timer timer;  /* the end of a try's patience */

	lockspace_taken_fn *on_taken;
	lockspace_lost_fn *on_lost;
	void *user;

	/* The answer, until it is delivered. */
	bool answer_pending;
	int result;
	struct holding *prev, *next; /* in space->answers */
	struct holding *all_prev, *all_next;
	struct holding *leaving_prev, *leaving_next;
	uint64_t leave; /* its number */
	bool counted;   /* in space->claims */

	struct waiter *released; /* wait for the place to be left */
	uint64_t writing;        /* the record's version that the store was given; 0 = none */
	struct waiter *writers;
};

struct lockspace {
	struct loop *loop;
	struct store *store;
	int timeout;
	struct lockspace_limits limits;
	struct named_lock *locks; /* by path */
	struct holding *answers;
	struct holding *all;
	struct holding *leaving; /* whose place is being given back */
	uint64_t leaves;         /* so far */
	struct loop_task deliver;
	struct waiter *done; /* to be told 0 in the next turn */
	bool suspended;
	struct named_lock *due; /* whose queue is to be read */
	unsigned int reads;     /* of queues, under way */

	size_t claims;  /* that are held, or waited for */
	size_t content; /* bytes that the holders have written, all together */
	int64_t claims_complained_at, content_complained_at;
};

/* One name with something local going on: there is one while it has claims or is read. */
struct named_lock {
	struct lock lock;
	struct lockspace *space;
	char *path;
	bool is_read; /* a read of the queue is under way */
	bool is_due;  /* to be read, and in space->due */
	struct named_lock *prev, *next;
	UT_hash_handle hh;
};

/* contents.c: false if there is no room for so many bytes more, which it logs. */
bool content_fits(struct lockspace *space, size_t more);

/* lockspace.c */
bool holding_may_be_freed(const struct holding *holding);
void holding_free(struct holding *holding);
