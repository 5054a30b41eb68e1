/* SPDX-License-Identifier: MIT */
/*
 * One lock's queue, as a state machine without I/O.
 *
 * A claim is one local request for the lock, from its asking to its giving back.  The engine keeps
 * a view of the queue: every place that it knows of, ours and others' (rivals), in the order of
 * their tokens.  The view is complete up to `known`; since tokens only grow, a place that is not in
 * it by then never will be.  Rivals leave it only when the store said that they have gone, so what
 * is missed delays a grant and never causes one.
 *
 * The one rule: the owner feeds in what happened and carries out what the engine asks for by
 * struct lock_ops.  Those functions may be called from within any lock_... function, so they must
 * not call back; they take notes.  Nothing here allocates, sleeps, reads a clock or knows that a
 * store and FUSE exist, so every race is a list of events in the unit test.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ranges.h"

struct claim;
struct lock;

/* A place in the view. */
struct lock_entry {
	uint64_t token;
	bool shared;                 /* none of it is exclusive */
	const struct ranges *ranges; /* borrowed; NULL: the whole file */
	struct claim *claim;         /* NULL: a rival's */
	struct lock_entry *prev, *next;
};

/* Somebody else's place.  Allocated by the owner, and given back to it with lock_ops.drop. */
struct rival {
	struct lock_entry entry;
	char *id;
	struct ranges ranges; /* the entry's, or empty; the owner's own, as are these */
	uint64_t changed;     /* the revision at which they were so; 0: as they once were */
	bool symlink;
	struct rival *next; /* while in a list that the owner passes in */
};

enum claim_state {
	CLAIM_NEW,     /* waits to be sent to the store */
	CLAIM_JOINING, /* the store was asked for a place */
	CLAIM_WAITING, /* has a place, behind others */
	CLAIM_HELD,
	CLAIM_LOST,    /* was held */
	CLAIM_LEAVING, /* its place is being given back */
	CLAIM_OVER,    /* nothing of it is anywhere */
};

/* What a claim is answered with, besides -errno. */
enum {
	CLAIM_GRANTED = 0,
	CLAIM_BUSY = 1,
	CLAIM_AGAIN = 2, /* the store has gone back in time: to be taken again when it is over */
};

struct claim {
	/* Set by the owner. */
	bool shared;                 /* none of it is exclusive */
	const struct ranges *ranges; /* borrowed, and changed by lock_shrunk only; NULL: whole */
	bool try;                    /* take it now or not at all */

	/* To be read by the owner. */
	enum claim_state state;
	uint64_t token; /* while it has a place */

	/* The engine's own. */
	struct lock *lock;
	bool answered;
	bool canceled; /* is to leave as soon as the store has answered */
	uint64_t arrival;
	uint64_t asked_after; /* as a join: its token will be larger than this */
	struct lock_entry entry;
	struct claim *prev, *next; /* in lock->entering or lock->joining */
};

struct lock_ops {
	/*
	 * Asks the store for a place: answer with lock_placed.  Several joins of a lock may be
	 * under way, and be answered in any order; a try is alone.
	 */
	void (*place)(struct claim *claim);
	/* Gives the place back, if there is one: answer with lock_left. */
	void (*leave)(struct claim *claim);
	/* Exactly once per lock_take: CLAIM_GRANTED, CLAIM_BUSY, CLAIM_AGAIN or -errno. */
	void (*answer)(struct claim *claim, int result);
	/* A held claim is not held any more; it waits for lock_leave. */
	void (*lost)(struct claim *claim);
	/* The claim is the owner's again.  Comes after its answer. */
	void (*over)(struct claim *claim);
	/* The rival is the owner's again. */
	void (*drop)(struct rival *rival);
	/* True if `held` is held by the same user, and so not in the way of `claim`. */
	bool (*is_kin)(struct claim *claim, struct claim *held);
	/*
	 * False while there are news of which the engine was told only a part: nothing that waits
	 * is granted then, and the owner calls lock_told when it knows the rest.
	 */
	bool (*may_grant)(struct lock *lock);
};

struct lock {
	const struct lock_ops *ops;
	struct lock_entry *view;
	size_t exclusive;       /* places in it, of anybody */
	size_t waiting;         /* claims in it that are not held */
	uint64_t known;         /* the view is complete up to this token */
	struct claim *entering; /* CLAIM_NEW, in the order of arrival */
	struct claim *trying;   /* CLAIM_JOINING, as a try */
	struct claim *joining;  /* the other claims in CLAIM_JOINING */
	unsigned int joining_count;
	uint64_t latest;   /* revision of the store that was heard of */
	size_t leaving;    /* claims in CLAIM_LEAVING */
	size_t claims;     /* that are not over */
	uint64_t arrivals; /* of claims, so far */
	/*
	 * When one that arrived up to this one is placed, the queue is to be read: nothing is known
	 * by which it could be told whether what its answer showed has gone since.
	 */
	uint64_t doubted;
	unsigned int reading; /* queue reads under way */
	struct rival *tombs;  /* places that went while something was read; token = when */
	bool suspended;       /* no session: nothing is sent and nothing granted */
	bool blind; /* it is not known who was before ours: nothing that waits is granted */
};

void lock_init(struct lock *lock, const struct lock_ops *ops, bool suspended);

/* Gives all rivals back.  There must be no claim that is not over. */
void lock_fini(struct lock *lock);

/* Asks for the lock.  The claim is borrowed until ops->over. */
void lock_take(struct lock *lock, struct claim *claim);

/*
 * Gives the lock back, or leaves the queue; a claim that was not answered yet is answered with
 * `result`.  Once per claim.
 */
void lock_leave(struct lock *lock, struct claim *claim, int result);

/* The outcome of a request for a place. */
enum lock_placed {
	LOCK_PLACED,     /* in the queue, or for a try: holding */
	LOCK_NOT_PLACED, /* a try met somebody */
	LOCK_NO_SESSION, /* nothing was done, and the session is gone */
};

/*
 * The store's answer to ops->place: an enum lock_placed, or -errno (then the place is left as well,
 * because nobody knows whether it exists).  For a join that succeeded, `revision` is the state of
 * the queue that was read and `rivals` what it showed of others' places beyond lock->known.
 *
 * A token that is older than what was known when it was asked for comes from a store that has gone
 * back in time.  That place is left too; the claim is answered with CLAIM_AGAIN, or with -EIO if a
 * place of ours is still newer than the store.
 *
 * Returns true if what the store has said before must not be relied on any more.
 */
bool lock_placed(struct lock *lock, struct claim *claim, int outcome, uint64_t token,
	uint64_t revision, struct rival *rivals);

/* The store's answer to ops->leave. */
void lock_left(struct lock *lock, struct claim *claim);

/* Places of that id whose token is below tomb->entry.token have gone.  Takes the tomb over. */
void lock_removed(struct lock *lock, struct rival *tomb);

/*
 * The claim's place has gone without our doing: a holder has lost the lock, a waiter joins again at
 * the end.
 */
void lock_gone(struct lock *lock, struct claim *claim);

/*
 * The store has gone back in time: what is asked from now on is asked as if nothing were known, and
 * nothing that waits is granted until the queue was read.
 */
void lock_distrust(struct lock *lock);

/* All news that had come together were told, after ops->may_grant was false. */
void lock_told(struct lock *lock);

/* ops->is_kin may be true of what it was not. */
void lock_kin_changed(struct lock *lock);

/* The claim, which may be held, has less than before: its `ranges` and `shared` say what. */
void lock_shrunk(struct lock *lock, struct claim *claim);

/*
 * Around a read of the whole queue.  lock_read_end takes what it showed, in the order of tokens, or
 * NULL with revision 0 if it failed; it returns true if it showed that a rival had gone of which
 * nobody had told.
 */
void lock_read_begin(struct lock *lock);
bool lock_read_end(struct lock *lock, uint64_t revision, struct rival *rivals);

/*
 * The claim of another process, which has a place with that token and is held, or waits: if so,
 * nothing is granted until the queue was read.  To be called in the order of the tokens.
 */
void lock_adopt(struct lock *lock, struct claim *claim, uint64_t token, bool held);

/* The session was lost: held claims are lost, waiting ones will join again. */
void lock_suspend(struct lock *lock);
/* There is a new session. */
void lock_resume(struct lock *lock);

/* True if something is held here by the same user. */
bool lock_has_kin(const struct lock *lock, struct claim *claim);
/* True if such a place would be in the way of the claim. */
bool lock_is_barred(const struct claim *claim, bool shared, const struct ranges *ranges);

/* True if a claim here waits behind somebody else's place. */
bool lock_is_contended(const struct lock *lock);
/* The first local claim in the queue, held or waiting, or NULL. */
struct claim *lock_first_claim(const struct lock *lock);
