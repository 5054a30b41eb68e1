/* SPDX-License-Identifier: MIT */
/*
 * Who needs a lock that is held.
 *
 * A hold is a lock that this mount was granted; stakes are the reasons to keep it: the O_EXCL that
 * created it, an flock, the byte ranges of an fcntl owner.  Stakes of one open file description
 * share a hold, for within one handle locks do not exclude each other, but for those of two owners
 * of fcntl locks: no stake is added while another owner has one that excludes it, in any hold.  A
 * hold without stakes is given back.
 *
 * What fcntl asks for, and neither its owner nor its handle has, becomes a hold of its own: the
 * lock is of the stakes' ranges and shrinks with them.  Any other hold is of the whole file, until
 * all that is left of it are stakes of fcntl owners: from then on it is of their ranges as well.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/ledger.h"
#include "base/ranges.h"

struct handle;
struct holding;
struct loss;
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
	/* Of an fcntl stake: whose it is, the process that asked, and what it has. */
	uint64_t owner;
	pid_t pid;
	struct ranges ranges;
	struct hold *hold;
	struct stake *prev, *next;               /* in hold->stakes */
	struct stake *handle_prev, *handle_next; /* in handle->stakes */
};

struct hold {
	struct node *node;
	struct holding *holding;
	bool lost;
	bool of_ranges; /* the lock is of its stakes' ranges */
	struct stake *stakes;
	ledger_slot slot;
	struct hold *prev, *next; /* in node->holds */

	struct loss *loss; /* if it was lost, and its holders are about to get a signal */
};

/* True if what is held is in the hands of who asks: such a request would share the hold. */
bool hold_is_shared_by(const struct hold *hold, const struct request *request);
/*
 * A stake in the hold that keeps the request out although the hold is shared by it: owners of fcntl
 * locks exclude each other, also where one handle has the lock of the whole file.  NULL: none.
 */
const struct stake *hold_find_rival(const struct hold *hold, const struct request *request);
/* The hold of the whole file that the request would share, or NULL. */
struct hold *hold_find(const struct request *request);
/* The hold of this handle in which it has a stake; a lost one, or else an exclusive one, before
 * others; or NULL. */
struct hold *hold_of_handle(const struct handle *handle);
bool hold_has_stake(const struct hold *hold, enum stake_kind kind);
/* True if there is no other stake than this kind's of this handle, besides those of fcntl owners.
 */
bool hold_is_only(const struct hold *hold, const struct handle *handle, enum stake_kind kind);
/* What the stakes of fcntl owners have, together. */
void hold_ranges(const struct hold *hold, struct ranges *ranges);

/* The request got a lock: makes the hold of it, or puts the lock in place of a former one. */
struct hold *hold_new(struct node *node, struct holding *holding);

/*
 * True if the owner of an fcntl request has all that it asks for, or can have it in a hold of the
 * whole file, in which no other owner is in its way.
 */
bool stake_is_ready(const struct request *request);
/* The hold of the whole file in which the request can have what it asks for now; or NULL. */
struct hold *hold_find_enough(const struct request *request);
/* True if another owner of fcntl locks has something here that is in the way of the request. */
bool stake_has_rival(const struct request *request);

/* Has a waiting request begin anew. */
void stake_look_again(struct request *request);
/* What owners have of the file has changed: fcntl requests that are ready now look again. */
void stakes_changed(struct node *node);

/* Adds the request's reason, once. */
void stake_add(struct hold *hold, const struct request *request);
/* One of another process. */
struct stake *stake_revive(
	struct hold *hold, enum stake_kind kind, struct handle *handle, uint64_t owner);
/* That of the request, to lock or unlock, in this hold; or NULL. */
struct stake *stake_find(const struct hold *hold, const struct request *request);
void stake_free(struct stake *stake);

/*
 * Gives the lock back, with all stakes.  fn may be NULL, else as lockspace_release.  The hold is
 * gone.
 */
typedef void hold_done_fn(void *user, int result);
void hold_release(struct hold *hold, hold_done_fn *fn, void *user);
/*
 * Gives back what no stake needs any more, which may be all: then the hold is gone.  True if there
 * was something, and fn will be called.
 */
bool hold_settle(struct hold *hold, hold_done_fn *fn, void *user);
/*
 * Gives the lock of the whole file back, with what that process has of it; what other owners have
 * by fcntl they keep.  Otherwise as hold_release.
 */
void hold_end(struct hold *hold, pid_t process, hold_done_fn *fn, void *user);

/* Takes away the stake of an flock request to unlock; returns its hold, to be settled, or NULL. */
struct hold *stake_remove(const struct request *request);
/* An flock request to unlock says that its description knows of a loss: ends its lost stakes. */
void stakes_admit_loss(const struct request *request);

/* A descriptor was closed: ends that owner's fcntl stakes in the node. */
void stakes_close_owner(struct node *node, uint64_t owner);
/* The handle is gone: ends all its stakes. */
void stakes_close_handle(struct handle *handle);

/* Frees one whose lock is not its own. */
void hold_free(struct hold *hold);
/* Frees the holds of a node whose locks are gone already, at the end of the program. */
void holds_free(struct node *node);
