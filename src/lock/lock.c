/* SPDX-License-Identifier: MIT */
#include "lock/lock.h"

#include <assert.h>
#include <errno.h>
#include <utlist.h>

#include "base/util.h"
#include "lock/view.h"

/* So that there is always one for the store to send, and few that a grant has to wait for. */
enum { MAX_JOINING = 4 };

/* --- granting --- */

static void answer(struct claim *claim, int result)
{
	if (claim->answered)
		return;
	claim->answered = true;
	claim->lock->ops->answer(claim, result);
}

static void grant(struct claim *claim)
{
	claim->lock->waiting -= claim->state == CLAIM_WAITING;
	claim->state = CLAIM_HELD;
	answer(claim, CLAIM_GRANTED);
}

/*
 * Of joins under way it is not known yet where they are in the queue, but that it is behind all
 * that was known when they were asked for.
 */
static bool may_be_preceded(const struct lock *lock, const struct claim *claim)
{
	const struct claim *other;

	DL_FOREACH(lock->joining, other) {
		if (other->asked_after < claim->token && !other->canceled &&
			lock_is_barred(claim, other->shared, other->ranges))
			return true;
	}
	return false;
}

/* Where all places are shared nobody is in anybody's way; those that wait are the last. */
static void grant_shared(struct lock *lock)
{
	struct lock_entry *e = lock->view->prev;

	for (size_t left = lock->waiting; left; e = e->prev) {
		if (!view_is_waiting(e))
			continue;
		left--;
		if (!may_be_preceded(lock, e->claim))
			grant(e->claim);
	}
}

/* True if somebody before it is in its way. */
static bool has_to_wait(const struct lock *lock, struct claim *claim)
{
	for (const struct lock_entry *e = lock->view; e != &claim->entry; e = e->next) {
		if (view_is_barred_by(claim, e) && !view_is_held_kin(claim, e))
			return true;
	}
	return may_be_preceded(lock, claim);
}

/* Grants whatever has nobody in its way: past a wall only one's own, past two of them nothing. */
static void evaluate(struct lock *lock)
{
	struct lock_entry *e, *wall = NULL;

	if (lock->suspended || lock->blind || !lock->waiting || !lock->ops->may_grant(lock))
		return;
	if (!lock->exclusive) {
		grant_shared(lock);
		return;
	}
	DL_FOREACH(lock->view, e) {
		if (view_is_waiting(e) && (!wall || view_is_held_kin(e->claim, wall)) &&
			!has_to_wait(lock, e->claim))
			grant(e->claim);
		if (!view_is_wall(e))
			continue;
		if (wall || !e->claim || e->claim->state != CLAIM_HELD)
			return;
		wall = e;
	}
}

/* --- the ways in and out --- */

static void leave_place(struct lock *lock, struct claim *claim)
{
	claim->state = CLAIM_LEAVING;
	lock->leaving++;
	lock->ops->leave(claim);
}

static void over(struct lock *lock, struct claim *claim)
{
	claim->state = CLAIM_OVER;
	lock->claims--;
	lock->ops->over(claim);
}

static void enter_view(struct lock *lock, struct claim *claim, uint64_t token)
{
	claim->token = token;
	claim->entry = (struct lock_entry){
		.token = token, .shared = claim->shared, .ranges = claim->ranges, .claim = claim};
	view_insert(lock, &claim->entry);
}

/* What has happened in the store so far, as far as we have heard. */
static void note_revision(struct lock *lock, uint64_t revision)
{
	if (revision > lock->latest)
		lock->latest = revision;
}

/* True if somebody here has, or waits for, what this try wants. */
static bool is_busy_here(const struct lock *lock, struct claim *claim)
{
	const struct lock_entry *e;

	if (claim->shared && !lock->exclusive)
		return false;
	DL_FOREACH(lock->view, e) {
		if (e->claim && view_is_barred_by(claim, e) && !view_is_held_kin(claim, e))
			return true;
	}
	return false;
}

static void send_next(struct lock *lock)
{
	while (lock->entering && !lock->trying && lock->joining_count < MAX_JOINING &&
		!lock->suspended) {
		struct claim *claim = lock->entering;
		if (claim->try && is_busy_here(lock, claim)) {
			DL_DELETE(lock->entering, claim);
			answer(claim, CLAIM_BUSY);
			over(lock, claim);
			continue;
		}
		/* What this mount is just giving back must not make its own try fail. */
		if (claim->try && (lock->leaving || lock->joining))
			return;
		DL_DELETE(lock->entering, claim);
		claim->state = CLAIM_JOINING;
		claim->asked_after = lock->latest;
		if (claim->try)
			lock->trying = claim;
		else
			DL_APPEND(lock->joining, claim);
		lock->joining_count += !claim->try;
		lock->ops->place(claim);
	}
}

/* Of those up to `known` the ones that are not in the view have gone. */
static void learn(struct lock *lock, uint64_t revision, struct rival *rivals)
{
	uint64_t known = lock->known;

	while (rivals) {
		struct rival *rival = rivals;
		rivals = rival->next;
		bool may_be_there = rival->entry.token > known || rival->changed;
		struct rival *former = may_be_there ? view_find_rival(lock, rival) : NULL;
		if (former)
			view_update_rival(lock, former, rival);
		if (rival->entry.token <= known || former)
			lock->ops->drop(rival);
		else
			view_insert(lock, &rival->entry);
	}
	if (revision > lock->known)
		lock->known = revision;
	view_bury_all(lock);
}

/*
 * A try succeeded: whoever could have been in its way was not there, or had given up a part that
 * was, of which we will hear.  Who came later may be known already, if the answer took its time.
 */
static void try_succeeded(struct lock *lock, struct claim *claim, uint64_t token)
{
	struct lock_entry *e, *next;

	DL_FOREACH_SAFE(lock->view, e, next) {
		if (!e->claim && e->token < token && !e->ranges && view_is_barred_by(claim, e))
			view_drop_rival(lock, e);
	}
	enter_view(lock, claim, token);
	/* Beside any other there may be places which were not shown. */
	if (view_is_wall(&claim->entry) && token > lock->known)
		lock->known = token;
	grant(claim);
}

static void drop_list(struct lock *lock, struct rival *rivals)
{
	while (rivals) {
		struct rival *rival = rivals;
		rivals = rival->next;
		lock->ops->drop(rival);
	}
}

/*
 * A store that contradicts itself, or could not say what we asked, may have told nonsense before:
 * from now on everything is read again.  But nobody comes before those here that have a place.
 */
static void doubt(struct lock *lock)
{
	const struct lock_entry *e;

	lock->known = 0;
	lock->latest = 0;
	lock->doubted = lock->arrivals;
	DL_FOREACH(lock->view, e) {
		if (e->claim)
			lock->latest = e->token;
	}
}

/* --- what the owner calls --- */

void lock_init(struct lock *lock, const struct lock_ops *ops, bool suspended)
{
	*lock = (struct lock){.ops = ops, .suspended = suspended};
}

void lock_fini(struct lock *lock)
{
	assert(lock->claims == 0);
	while (lock->view)
		view_drop_rival(lock, lock->view);
	lock->reading = 0;
	view_forget_tombs(lock);
}

void lock_take(struct lock *lock, struct claim *claim)
{
	claim->state = CLAIM_NEW;
	claim->lock = lock;
	claim->answered = false;
	claim->canceled = false;
	claim->arrival = ++lock->arrivals;
	lock->claims++;
	DL_APPEND(lock->entering, claim);
	send_next(lock);
}

void lock_leave(struct lock *lock, struct claim *claim, int result)
{
	answer(claim, result);
	switch (claim->state) {
	case CLAIM_NEW:
		DL_DELETE(lock->entering, claim);
		over(lock, claim);
		break;
	case CLAIM_JOINING:
		claim->canceled = true;
		evaluate(lock);
		break;
	case CLAIM_WAITING:
	case CLAIM_HELD:
		view_remove(lock, &claim->entry);
		leave_place(lock, claim);
		evaluate(lock);
		break;
	case CLAIM_LOST:
		over(lock, claim);
		break;
	case CLAIM_LEAVING:
	case CLAIM_OVER:
		assert(!"a claim is left twice");
	}
	send_next(lock);
}

static int by_arrival(const struct claim *a, const struct claim *b)
{
	return (a->arrival > b->arrival) - (a->arrival < b->arrival);
}

/* Without its place: once more, and, after DL_SORT by_arrival, before who came later. */
static void enter_again(struct lock *lock, struct claim *claim)
{
	claim->state = CLAIM_NEW;
	claim->token = 0;
	DL_APPEND(lock->entering, claim);
}

bool lock_placed(struct lock *lock, struct claim *claim, int outcome, uint64_t token,
	uint64_t revision, struct rival *rivals)
{
	assert(claim->state == CLAIM_JOINING);
	int failure = outcome;
	if (outcome == LOCK_PLACED && token <= claim->asked_after)
		outcome = -EIO;
	bool doubts = outcome < 0;
	if (doubts) {
		doubt(lock);
		failure = failure < 0 || token <= lock->latest ? outcome : CLAIM_AGAIN;
	} else {
		note_revision(lock, token);
		note_revision(lock, revision);
	}
	if (outcome == LOCK_PLACED && !claim->try)
		learn(lock, revision, rivals);
	else
		drop_list(lock, rivals);
	if (claim->try)
		lock->trying = NULL;
	else
		DL_DELETE(lock->joining, claim);
	lock->joining_count -= !claim->try;
	view_forget_tombs(lock);
	if (outcome == LOCK_NO_SESSION)
		lock->suspended = true;
	if (claim->canceled && (outcome == LOCK_NO_SESSION || outcome == LOCK_NOT_PLACED)) {
		over(lock, claim);
	} else if (outcome == LOCK_NO_SESSION) {
		enter_again(lock, claim);
		DL_SORT(lock->entering, by_arrival);
	} else if (outcome == LOCK_NOT_PLACED) {
		answer(claim, CLAIM_BUSY);
		over(lock, claim);
	} else if (outcome < 0 || claim->canceled) {
		answer(claim, failure);
		leave_place(lock, claim);
	} else if (claim->try) {
		try_succeeded(lock, claim, token);
	} else {
		claim->state = CLAIM_WAITING;
		enter_view(lock, claim, token);
	}
	evaluate(lock);
	send_next(lock);
	return doubts;
}

void lock_left(struct lock *lock, struct claim *claim)
{
	assert(claim->state == CLAIM_LEAVING);
	lock->leaving--;
	over(lock, claim);
	send_next(lock);
}

void lock_removed(struct lock *lock, struct rival *tomb)
{
	note_revision(lock, tomb->entry.token);
	view_bury(lock, tomb);
	if (view_is_reading(lock)) {
		tomb->next = lock->tombs;
		lock->tombs = tomb;
	} else {
		lock->ops->drop(tomb);
	}
	evaluate(lock);
}

void lock_gone(struct lock *lock, struct claim *claim)
{
	if (claim->state != CLAIM_HELD && claim->state != CLAIM_WAITING)
		return;
	view_remove(lock, &claim->entry);
	if (claim->state == CLAIM_HELD) {
		claim->state = CLAIM_LOST;
		lock->ops->lost(claim);
	} else {
		enter_again(lock, claim);
		DL_SORT(lock->entering, by_arrival);
	}
	if (!lock->ops->may_grant(lock))
		return; /* others may have to be sent before it */
	evaluate(lock);
	send_next(lock);
}

void lock_distrust(struct lock *lock)
{
	doubt(lock);
	lock->blind = lock->blind || lock->waiting || lock->joining;
}

void lock_told(struct lock *lock)
{
	evaluate(lock);
	send_next(lock);
}

void lock_kin_changed(struct lock *lock)
{
	evaluate(lock);
}

void lock_shrunk(struct lock *lock, struct claim *claim)
{
	struct lock_entry *e = &claim->entry;

	if (claim->state != CLAIM_HELD && claim->state != CLAIM_WAITING)
		return;
	lock->exclusive -= !e->shared;
	e->shared = claim->shared;
	e->ranges = claim->ranges;
	lock->exclusive += !e->shared;
	evaluate(lock);
}

void lock_adopt(struct lock *lock, struct claim *claim, uint64_t token, bool held)
{
	claim->lock = lock;
	claim->state = held ? CLAIM_HELD : CLAIM_WAITING;
	claim->answered = held;
	claim->canceled = false;
	claim->arrival = ++lock->arrivals;
	lock->claims++;
	lock->blind = lock->blind || !held;
	note_revision(lock, token);
	enter_view(lock, claim, token);
}

void lock_read_begin(struct lock *lock)
{
	lock->reading++;
}

/* Drops rivals of the view that the read, which is in the same order, does not show. */
static bool drop_unseen(struct lock *lock, uint64_t revision, const struct rival *seen)
{
	struct lock_entry *e, *next;
	bool dropped = false;

	DL_FOREACH_SAFE(lock->view, e, next) {
		while (seen && seen->entry.token < e->token)
			seen = seen->next;
		if (e->claim || e->token > revision || (seen && seen->entry.token == e->token))
			continue;
		view_drop_rival(lock, e);
		dropped = true;
	}
	return dropped;
}

bool lock_read_end(struct lock *lock, uint64_t revision, struct rival *rivals)
{
	bool dropped = false;

	note_revision(lock, revision);
	if (revision) {
		dropped = drop_unseen(lock, revision, rivals);
		learn(lock, revision, rivals);
		lock->blind = false;
	}
	lock->reading--;
	view_forget_tombs(lock);
	evaluate(lock);
	return dropped;
}

void lock_suspend(struct lock *lock)
{
	struct lock_entry *e, *next;

	lock->suspended = true;
	lock->blind = false;
	DL_FOREACH_SAFE(lock->view, e, next) {
		struct claim *claim = e->claim;
		if (!claim)
			continue;
		view_remove(lock, e);
		if (claim->state == CLAIM_HELD) {
			claim->state = CLAIM_LOST;
			lock->ops->lost(claim);
		} else {
			enter_again(lock, claim);
		}
	}
	DL_SORT(lock->entering, by_arrival);
}

void lock_resume(struct lock *lock)
{
	lock->suspended = false;
	send_next(lock);
	evaluate(lock);
}

bool lock_is_contended(const struct lock *lock)
{
	bool rival = lock->blind;

	for (const struct lock_entry *e = lock->view; e; e = e->next) {
		rival = rival || !e->claim;
		if (rival && view_is_waiting(e))
			return true;
	}
	return false;
}

struct claim *lock_first_claim(const struct lock *lock)
{
	for (const struct lock_entry *e = lock->view; e; e = e->next) {
		if (e->claim)
			return e->claim;
	}
	return NULL;
}
