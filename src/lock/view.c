/* SPDX-License-Identifier: MIT */
#include "lock/view.h"

#include <string.h>
#include <utlist.h>

#include "base/util.h"

/* --- the view --- */

static struct rival *view_rival_of(struct lock_entry *entry)
{
	return container_of(entry, struct rival, entry);
}

bool view_is_waiting(const struct lock_entry *entry)
{
	return entry->claim && entry->claim->state == CLAIM_WAITING;
}

/* Puts it in its place; most belong at the end. */
void view_insert(struct lock *lock, struct lock_entry *entry)
{
	struct lock_entry *after = lock->view ? lock->view->prev : NULL;

	while (after && after->token > entry->token)
		after = after == lock->view ? NULL : after->prev;
	if (after)
		DL_APPEND_ELEM(lock->view, after, entry);
	else
		DL_PREPEND(lock->view, entry);
	lock->exclusive += !entry->shared;
	lock->waiting += view_is_waiting(entry);
}

void view_remove(struct lock *lock, struct lock_entry *entry)
{
	DL_DELETE(lock->view, entry);
	lock->exclusive -= !entry->shared;
	lock->waiting -= view_is_waiting(entry);
}

void view_drop_rival(struct lock *lock, struct lock_entry *entry)
{
	view_remove(lock, entry);
	lock->ops->drop(view_rival_of(entry));
}

/* Of one token there may be several: what another program puts in one transaction is equally old.
 */
struct rival *view_find_rival(const struct lock *lock, const struct rival *rival)
{
	for (struct lock_entry *e = lock->view ? lock->view->prev : NULL;
		e && e->token >= rival->entry.token; e = e == lock->view ? NULL : e->prev) {
		if (e->token == rival->entry.token && !e->claim &&
			strcmp(view_rival_of(e)->id, rival->id) == 0)
			return view_rival_of(e);
	}
	return NULL;
}

void view_update_rival(struct lock *lock, struct rival *rival, struct rival *seen)
{
	struct ranges former = rival->ranges;

	if (seen->changed <= rival->changed)
		return;
	lock->exclusive -= !rival->entry.shared;
	rival->ranges = seen->ranges;
	rival->changed = seen->changed;
	rival->entry.shared = seen->entry.shared;
	rival->entry.ranges = seen->entry.ranges ? &rival->ranges : NULL;
	seen->ranges = former;
	lock->exclusive += !rival->entry.shared;
}

/*
 * Nobody has two places of one id at a time; and who goes is mostly the first.  Where the end of
 * one was missed a later one may stand behind it, until the queue is read again.
 */
void view_bury(struct lock *lock, const struct rival *tomb)
{
	struct lock_entry *e;

	for (e = lock->view; e && e->token < tomb->entry.token; e = e->next) {
		if (!e->claim && strcmp(view_rival_of(e)->id, tomb->id) == 0) {
			view_drop_rival(lock, e);
			return;
		}
	}
}

/* What was read may be older than the news that came meanwhile. */
void view_bury_all(struct lock *lock)
{
	struct rival *tomb = lock->tombs;

	for (; tomb; tomb = tomb->next)
		view_bury(lock, tomb);
}

bool view_is_reading(const struct lock *lock)
{
	return lock->reading || lock->joining;
}

/* A read that is still to come may show only what is younger than `known`. */
void view_forget_tombs(struct lock *lock)
{
	struct rival *tomb, *next;

	LL_FOREACH_SAFE(lock->tombs, tomb, next) {
		if (view_is_reading(lock) && tomb->entry.token > lock->known)
			continue;
		LL_DELETE(lock->tombs, tomb);
		lock->ops->drop(tomb);
	}
}

/* --- who is in whose way --- */

/* No ranges stand for the whole file. */
static bool conflict(
	bool shared, const struct ranges *ranges, bool other_shared, const struct ranges *other)
{
	if (shared && other_shared)
		return false;
	return !ranges || !other || ranges_conflict(ranges, other);
}

bool view_is_barred_by(const struct claim *claim, const struct lock_entry *e)
{
	return conflict(claim->shared, claim->ranges, e->shared, e->ranges);
}

bool lock_is_barred(const struct claim *claim, bool shared, const struct ranges *ranges)
{
	return conflict(claim->shared, claim->ranges, shared, ranges);
}

bool view_is_held_kin(struct claim *claim, const struct lock_entry *e)
{
	return e->claim && e->claim->state == CLAIM_HELD &&
	       claim->lock->ops->is_kin(claim, e->claim);
}

bool lock_has_kin(const struct lock *lock, struct claim *claim)
{
	const struct lock_entry *e;

	DL_FOREACH(lock->view, e) {
		if (view_is_held_kin(claim, e))
			return true;
	}
	return false;
}

bool view_is_wall(const struct lock_entry *e)
{
	return !e->shared && (!e->ranges || ranges_are_one(e->ranges, 0, RANGE_END));
}
