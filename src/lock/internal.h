/* SPDX-License-Identifier: MIT */
/* What the files of the lockspace share: the space itself, and one claim to a lock in it. */
#pragma once

#include <uthash.h>

#include "base/ledger.h"
#include "base/metrics.h"
#include "base/shares.h"
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
	bool (*is_kin)(const void *user, const void *held);
	void *user;
	bool user_holds; /* it is not who asked any more, but what is held */

	/* See struct lockspace_request. */
	uint64_t attempted; /* the revision since which nothing may have changed */
	bool patient;
	bool is_refused; /* and will be parked when its try is over */
	bool is_parked;
	bool is_canceled; /* after it was granted, of which nobody has been told yet */
	uint64_t news;    /* of the name, when it last tried */
	struct holding *parked_prev, *parked_next; /* in named->parked */

	/* The answer, until it is delivered. */
	bool answer_pending;
	int result;
	struct holding *prev, *next; /* in space->answers */
	struct holding *all_prev, *all_next;
	struct holding *leaving_prev, *leaving_next;
	uint64_t leave; /* its number */
	bool counted;   /* in space->claims */
	bool is_absent; /* another process's, which nobody has asked for again */
	bool in_line;   /* to be written when there are bytes left for it */

	int64_t asked_at, granted_at; /* on loop_clock(); 0: not held */

	ledger_slot slot;
	uint64_t mark;      /* of the request */
	UT_hash_handle hh;  /* by id, in space->adoptable */
	UT_hash_handle hh2; /* by mark, in space->absent */

	struct waiter *released; /* wait for the place to be left */
	struct waiter *parted;   /* wait for a part to be given back, by the record's version */
	uint64_t writing;        /* the record's version that the store was given; 0 = none */
	struct waiter *writers;
	struct loop_timer impatience; /* of the first of them who gives up */
	int64_t writes_at;            /* not before, so that more is written at once */
	struct loop_timer gather;     /* until then */
	struct holding *writing_prev, *writing_next; /* in space->writing */
};

/* What has become of requests, so far. */
enum { LOCK_FAILURES = 5 };
struct lock_metrics {
	uint64_t grants[2]; /* exclusive, shared */
	uint64_t refused, interrupted, failures[LOCK_FAILURES];
	uint64_t lost_with_lease, lost_alone;
	struct histogram waits, holds;
};

struct lockspace {
	struct loop *loop;
	struct store *store;
	int timeout;
	struct ledger *ledger;    /* the store's */
	struct named_lock *locks; /* by path */
	struct holding *answers;
	struct holding *all;
	struct holding *leaving; /* whose place is being given back */
	uint64_t leaves;         /* so far */
	struct loop_task deliver;
	struct waiter *done; /* to be told 0 in the next turn */
	bool suspended;
	bool ending;                 /* on purpose: all who have locks were told */
	struct named_lock *stirred;  /* in which those that are parked are to try again */
	bool untold;                 /* there are news of which only a part was told */
	struct named_lock *settling; /* what waits in them may be granted when all was */
	struct named_lock *due;      /* whose queue is to be read */
	unsigned int reads;          /* of queues, under way */

	struct shares claims;      /* that are held, or waited for */
	struct shares content;     /* bytes that the holders have written */
	struct holding *writing;   /* that are to be written when there are bytes left for it */
	int64_t write_rate;        /* bytes of content that may be written in a second */
	int64_t budget, budget_at; /* bytes that may be written, then; less than 0: too many were */
	uid_t last_writer;
	struct loop_timer budget_timer;
	struct lock_metrics metrics;

	/* While another process's locks are revived. */
	struct holding *adoptable, *absent;
};

/* One name with something local going on: there is one while it has claims or is read. */
struct named_lock {
	struct lock lock;
	struct lockspace *space;
	char *path;
	bool is_read;    /* a read of the queue is under way */
	bool is_due;     /* to be read, and in space->due */
	bool again;      /* to be read once more when it is read */
	bool unread;     /* and so when the place of ours is told of that the read did not show */
	bool parted;     /* somebody else has a part of the file */
	uint64_t shrunk; /* at that revision somebody has given up a part; 0 = never */
	uint64_t clear;  /* at that revision nobody else was in the queue; 0: before all */
	struct named_lock *prev, *next;
	struct holding *parked;
	uint64_t news; /* that may make a difference to these, so far */
	bool is_stirred;
	struct named_lock *stirred_prev, *stirred_next; /* in space->stirred */
	bool is_settling;
	struct named_lock *settling_prev, *settling_next; /* in space->settling */
	UT_hash_handle hh;
};

/* contents.c: false if there is no room for so many bytes more of that user, which it logs. */
bool content_fits(struct lockspace *space, uid_t uid, size_t more);

void contents_init(struct holding *holding);
void contents_fini(struct holding *holding);
/* Who waits for something to be written is told in the next turn that it was not. */
void contents_give_up(struct holding *holding);

/* parts.c */
/* Takes its place now, or not at all, as lock_ops.place is to do for a try. */
void lockspace_try(struct holding *holding);
/* Somebody may not be in the way any more: those that are parked try again, in the next turn. */
void named_stir(struct named_lock *named);
/* Does that. */
void lockspace_try_again(struct lockspace *space);
/* The patient holding's try was refused, and is over now. */
void holding_park(struct holding *holding);
void holding_unpark(struct holding *holding);
/* What the store says of others' places, in the engine's words. */
struct rival *rivals_of(struct named_lock *named, const struct store_queue *queue);
void rival_free(struct rival *rival);

/* news.c */
extern const struct store_events lockspace_events;
/* The queue is to be read, once more if it is just being read. */
void named_read_again(struct named_lock *named);

/* revive.c */
/* Enters how the claim stands into the ledger: also when the store was just asked for something,
 * which it sends no sooner than in the next turn. */
void holding_enter(struct holding *holding);
/* The same if it is to join again, because its place has gone. */
void holding_place_lost(struct holding *holding);
/* The absent one of that mark, which is asked for again from now on; or NULL. */
struct holding *lockspace_take_absent(
	struct lockspace *space, const struct lockspace_request *request);

/* counts.c: a request is answered; a lock that it held is given back, or is lost */
void count_answer(struct holding *holding, int result);
void count_release(struct holding *holding);
void count_loss(struct holding *holding);

/* lockspace.c */
/* The waiters are told 0 in the next turn. */
void tell_later(struct lockspace *space, struct waiter **list);
/* The store's answer to what was asked for with lock_ops.place; queue: of a join. */
void holding_placed(struct holding *holding, int result, const struct store_queue *queue);
void named_settled(struct named_lock *named);
struct named_lock *lockspace_named(struct lockspace *space, const char *path);
struct holding *holding_new(struct lockspace *space, const struct lockspace_request *request);
struct named_lock *lockspace_get_named(struct lockspace *space, const char *path);
/* From now on it counts as one of its user's claims; once. */
void holding_count(struct holding *holding);
void holding_answer(struct holding *holding, int result);
bool holding_may_be_freed(const struct holding *holding);
void holding_free(struct holding *holding);
