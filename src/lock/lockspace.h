/* SPDX-License-Identifier: MIT */
/*
 * All the locks of a mount: drives one engine (lock.h) per name with a store.
 *
 * The one rule: nothing is answered inside the call that asked for it.  A struct holding is what a
 * user of a lock has from lockspace_take on; it is the lockspace's, and the user's pointer to it is
 * valid until its answer, if that is not CLAIM_GRANTED, or else until lockspace_release.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lock/lock.h"
#include "store/store.h"

struct buffer;
struct holding;
struct lockspace;
struct loop;
struct shares;

/* result: CLAIM_GRANTED, CLAIM_BUSY or -errno: -EINTR, -EIO, -EACCES, -ENOSPC, -EISDIR. */
typedef void lockspace_taken_fn(void *user, int result);
/* result: 0 or -errno. */
typedef void lockspace_done_fn(void *user, int result);
/* A granted lock is lost.  It has to be released all the same, but not from in here. */
typedef void lockspace_lost_fn(void *user);

struct lockspace_request {
	const char *path;
	bool shared;
	/*
	 * Not to wait in the queue: CLAIM_BUSY if it can't be had at once; or, if it is patient, to
	 * try again whenever that may have changed, so that until then it is in nobody's way.
	 */
	bool try, patient;
	bool instead; /* it comes in place of what the same user has */
	/* True if what is held, with that user, is in the hands of who asks; NULL: never. */
	bool (*is_kin)(const void *user, const void *held);
	const struct record *record; /* copied; its ranges say which part of the file */
	uint64_t mark;               /* by which it is known again after a restart; 0: by nothing */
	lockspace_taken_fn *on_taken;
	lockspace_lost_fn *on_lost;
	void *user;
};

/* What the space may grow to. */
struct lockspace_limits {
	size_t claims;     /* that are held or waited for; more are answered with -ENOSPC */
	size_t content;    /* bytes of all records' contents together, see lockspace_has_room */
	size_t write_rate; /* bytes of content that may be written in a second; not 0 */
	unsigned int user_share; /* percent of each that an ordinary user may have, see shares.h */
};

/*
 * timeout: for whatever may not wait, in milliseconds.  Sets itself as the store's user, and enters
 * its locks into the store's ledger.  limits are copied.
 */
struct lockspace *lockspace_new(
	struct loop *loop, struct store *store, int timeout, const struct lockspace_limits *limits);
/* Whoever has a lock was told that this is the end: that it is lost is no news any more. */
void lockspace_end(struct lockspace *space);
/* Answers nothing any more. */
void lockspace_free(struct lockspace *space);

/* Asks for a lock. */
struct holding *lockspace_take(struct lockspace *space, const struct lockspace_request *request);

/*
 * Revival, after the store has resumed the session of another process.  First all that it had asked
 * for is read from the store's ledger.  Then what it held and can be told the reason of is adopted,
 * by the id (see lockspace_id); a lock that was lost meanwhile is adopted as that.  NULL: there is
 * no such lock.  Whoever asks with a request's mark again is given that request's place, or lock.
 * What is left in the end is given back.
 */
void lockspace_revive(struct lockspace *space);
struct holding *lockspace_adopt(
	struct lockspace *space, const char *id, lockspace_lost_fn *on_lost, void *user);
void lockspace_revived(struct lockspace *space);
/* The store's name of a lock that is held (borrowed), and the mark of who asked for it. */
const char *lockspace_id(const struct holding *holding);
uint64_t lockspace_mark(const struct holding *holding);

/* From now on on_lost and is_kin get this pointer, of what is held.  To be called by on_taken. */
void lockspace_set_user(struct holding *holding, void *user);
/* More of what waits for the name may be of one kin with what is held. */
void lockspace_kin_changed(struct holding *holding);

/* Leaves the queue: on_taken gets -EINTR, unless another answer is on its way already. */
void lockspace_cancel(struct holding *holding);

/*
 * Gives a granted lock back.  on_done once the store has committed that, at once if it is not
 * reachable; it may be NULL.  Others here may be granted the lock before.
 */
void lockspace_release(struct holding *holding, lockspace_done_fn *on_done, void *user);

/* Has the store say that the lock is held now: 0, or -EIO. */
void lockspace_confirm(struct holding *holding, lockspace_done_fn *on_done, void *user);

/* The record of a granted lock, whose content the user may change but for its size ... */
struct record *lockspace_record(struct holding *holding);
/* ... which is changed by this; what is new is zero ... */
void lockspace_resize(struct holding *holding, size_t size);
/* ... to no more than there is room for (if there is not, the log says so, once a minute) ... */
bool lockspace_has_room(struct holding *holding, size_t size);
/* ... and then written: 0, or -EIO, -EFBIG, -ENOSPC, -EACCES. */
void lockspace_write(struct holding *holding, lockspace_done_fn *on_done, void *user);

/*
 * Gives a part of a granted lock back: from now on it has these ranges, which are fewer or shared
 * where they were exclusive.  on_done as for lockspace_release.
 */
void lockspace_shrink(struct holding *holding, const struct ranges *ranges,
	lockspace_done_fn *on_done, void *user);

uint64_t lockspace_token(const struct holding *holding);
bool lockspace_is_shared(const struct holding *holding);

/* Whether the name is held or waited for here; the first in the queue of them, or NULL. */
struct holding *lockspace_find(struct lockspace *space, const char *path);
/* True if it is granted. */
bool lockspace_is_held(const struct holding *holding);
/* True if the lock is held elsewhere, as a symbolic link. */
bool lockspace_waits_for_symlink(const struct holding *holding);

/* The holding of a place that the store speaks of. */
struct holding *lockspace_holding_of(struct store_place *place);

/* What there is of a lockspace just now. */
struct lockspace_counts {
	size_t held, waiting, lost, releasing; /* claims */
	size_t content;                        /* bytes that holders have written */
	size_t longest_queue;                  /* that wait for one lock, as far as is known here */
	int64_t longest_hold, longest_wait;    /* so far, in milliseconds */
};
void lockspace_count(const struct lockspace *space, struct lockspace_counts *counts);
/* Adds all there is to say of it, as base/metrics.h has it. */
void lockspace_metrics(const struct lockspace *space, struct buffer *text);
/* Its limits, to be shown with others: the claims and the content. */
enum { LOCKSPACE_SHARES = 2 };
void lockspace_shares(const struct lockspace *space, const struct shares **shares);

/* How many locks were given back so far. */
uint64_t lockspace_leaves(const struct lockspace *space);
/*
 * One of the first so many that the store has not confirmed yet: of the name `path`, or of any name
 * below it ("" = the root); or NULL.
 */
struct holding *lockspace_leaving(
	struct lockspace *space, const char *path, bool below, uint64_t leaves);
/* Waits until the store has confirmed that, or stops answering; told 0 in both cases. */
void lockspace_await(struct holding *leaving, lockspace_done_fn *on_done, void *user);
