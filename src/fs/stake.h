/* SPDX-License-Identifier: MIT */
/*
 * Who needs a lock that is held.
 *
 * A hold is a lock that this mount was granted; stakes are the reasons to keep it: the O_EXCL that
 * created it, an flock, the byte ranges of an fcntl owner.  Stakes of one open file description
 * share a hold, for within one handle locks do not exclude each other; so do all fcntl stakes of
 * one owner.  A hold without stakes is given back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/ranges.h"

struct handle;
struct holding;
struct node;
struct request;

enum stake_kind {
	STAKE_CREATE, /* O_CREAT|O_EXCL */
	STAKE_OPEN,   /* open=lock */
	STAKE_FLOCK,
	STAKE_FCNTL,
	STAKE_KEPT, /* hold=process, hold=name: see keep.h */
};

struct stake {
	enum stake_kind kind;
	struct handle *handle; /* it was taken through */
	uint64_t owner;        /* of an fcntl stake */
	struct range *ranges;
	struct hold *hold;
	struct stake *prev, *next;               /* in hold->stakes */
	struct stake *handle_prev, *handle_next; /* in handle->stakes */
};

struct hold {
	struct node *node;
	struct holding *holding;
	bool lost;
	struct stake *stakes;
	struct hold *prev, *next; /* in node->holds */

	/* If it was lost: what its holders are about to get, or 0, and who got it last, or 0. */
	int signal;
	pid_t signaled;
	struct hold *signal_prev, *signal_next; /* in fs->signals */
};

/* True if such a request would share the hold. */
bool hold_is_shared_by(
	const struct hold *hold, const struct handle *handle, enum stake_kind kind, uint64_t owner);
/* The hold that such a request would share, or NULL. */
struct hold *hold_find(
	struct node *node, const struct handle *handle, enum stake_kind kind, uint64_t owner);
/* The hold of this handle in which it has a stake, a lost one before others; or NULL. */
struct hold *hold_of_handle(const struct handle *handle);
bool hold_has_stake(const struct hold *hold, enum stake_kind kind);
/* True if there is no other stake than this kind's of this handle. */
bool hold_is_only(const struct hold *hold, const struct handle *handle, enum stake_kind kind);

/* True if the request's own stake is the only one, and its range covers all that it had. */
bool stake_is_covered(const struct hold *hold, const struct request *request);

/* The request got a lock: makes the hold of it, or puts the lock in place of a former one. */
struct hold *hold_new(struct node *node, struct holding *holding);

/* False if an fcntl request, to lock or else to unlock, would make too many ranges of its owner. */
bool stake_may_change(const struct request *request, bool lock);

/* Adds the request's reason, once. */
void stake_add(struct hold *hold, const struct request *request);

/*
 * Gives the lock back, with all stakes.  fn may be NULL, else as lockspace_release.  The hold is
 * gone.
 */
typedef void hold_done_fn(void *user, int result);
void hold_release(struct hold *hold, hold_done_fn *fn, void *user);

/*
 * Takes away the stakes of a request to unlock (its kind, handle, owner, start and end).
 * Returns the hold if it has no stake left, for the caller to release; else NULL.
 */
struct hold *stake_remove(const struct request *request);

/* A descriptor was closed: ends that owner's fcntl stakes in the node. */
void stakes_close_owner(struct node *node, uint64_t owner);
/* The handle is gone: ends all its stakes. */
void stakes_close_handle(struct handle *handle);

/* Frees the holds of a node whose locks are gone already, at the end of the program. */
void holds_free(struct node *node);
