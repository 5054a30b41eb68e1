/* SPDX-License-Identifier: MIT */
/* What the store tells the locks, and reading queues because of it. */
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "lock/internal.h"

/*
 * Queues are read because something of ours waits there.  What has gone with others before it was
 * told of must not be granted for their absence: the queue is read again when it was.
 */
static bool shows_ours(struct named_lock *named, const struct store_queue *queue)
{
	const struct lock_entry *e;
	size_t i = 0, shown = 0;

	named->unread = false;
	DL_FOREACH(named->lock.view, e) {
		if (!e->claim || e->token > queue->revision)
			continue;
		while (i < queue->count && (queue->contenders[i].token < e->token ||
						   (queue->contenders[i].token == e->token &&
							   !queue->contenders[i].ours)))
			i++;
		bool is_shown = i < queue->count && queue->contenders[i].token == e->token;
		shown += is_shown;
		named->unread = named->unread || !is_shown;
	}
	return shown && !named->unread;
}

static void read_due(struct lockspace *space);

static void on_queue_read(void *user, int result, const struct store_queue *queue)
{
	struct named_lock *named = user;
	struct lockspace *space = named->space;
	struct store *store = space->store;

	space->reads--;
	named->is_read = false;
	/* One without may be another's; or ours has gone, of which we will hear. */
	if (queue && !shows_ours(named, queue))
		queue = NULL;
	if (lock_read_end(&named->lock, queue ? queue->revision : 0, rivals_of(named, queue))) {
		log_trace("lock %s: the store had not told of a release", named->path);
		store->ops->deaf(store);
	}
	if (named->again)
		named_read_again(named);
	named_settled(named);
	read_due(space);
}

static void read_queue(struct named_lock *named)
{
	struct store *store = named->space->store;

	named->is_read = true;
	named->again = false;
	named->space->reads++;
	lock_read_begin(&named->lock);
	store->ops->queue(store, named->path, named->parted, on_queue_read, named);
}

/* A few at a time: who looks a name up meanwhile must not wait for them all. */
static void read_due(struct lockspace *space)
{
	enum { AT_ONCE = 128 };

	while (space->due && space->reads < AT_ONCE) {
		struct named_lock *named = space->due;
		DL_DELETE(space->due, named);
		named->is_due = false;
		read_queue(named);
	}
}

static void make_due(struct named_lock *named)
{
	if (named->is_due)
		return;
	named->is_due = true;
	DL_APPEND(named->space->due, named);
}

void named_read_again(struct named_lock *named)
{
	if (named->is_read) {
		named->again = true;
		return;
	}
	make_due(named);
	read_due(named->space);
}

static void on_recheck(void *user)
{
	struct lockspace *space = user;
	struct named_lock *named, *next;

	HASH_ITER(hh, space->locks, named, next) {
		named_stir(named);
		if (!named->is_read && lock_is_contended(&named->lock))
			make_due(named);
	}
	read_due(space);
}

static void on_went_back(void *user)
{
	struct lockspace *space = user;
	struct named_lock *named;

	for (named = space->locks; named; named = named->hh.next) {
		lock_distrust(&named->lock);
		named->clear = 0;
		named->again = named->again || named->is_read;
	}
}

static void on_session(void *user, enum store_session state)
{
	struct lockspace *space = user;
	bool suspended = state == STORE_SESSION_LOST;
	struct named_lock *named, *next;
	struct holding *holding;

	if (suspended != space->suspended) {
		space->suspended = suspended;
		HASH_ITER(hh, space->locks, named, next) {
			if (suspended)
				lock_suspend(&named->lock);
			else
				lock_resume(&named->lock);
			named_stir(named);
			named_settled(named);
		}
	}
	if (!suspended)
		return;
	DL_FOREACH2(space->all, holding, all_next) {
		holding_place_lost(holding);
	}
}

static void on_gone(void *user, struct store_place *place)
{
	struct holding *holding = container_of(place, struct holding, place);

	struct named_lock *named = holding->named;

	named_stir(named);
	lock_gone(&named->lock, &holding->claim);
	holding_place_lost(holding);
	if (named->unread) {
		named->unread = false;
		named_read_again(named);
	}
}

static void on_grants(void *user, bool allowed)
{
	struct lockspace *space = user;

	space->untold = !allowed;
	while (allowed && space->settling) {
		struct named_lock *named = space->settling;
		DL_DELETE2(space->settling, named, settling_prev, settling_next);
		named->is_settling = false;
		lock_told(&named->lock);
		named_settled(named);
	}
}

static void on_removed(void *user, const char *path, const char *id, uint64_t revision)
{
	struct named_lock *named = lockspace_named(user, path);

	if (!named)
		return;
	struct rival *tomb = xzalloc(sizeof(*tomb));
	tomb->entry.token = revision;
	tomb->id = xstrdup(id);
	lock_removed(&named->lock, tomb);
	named_stir(named);
}

static void on_shrunk(void *user, const char *path, uint64_t revision)
{
	struct named_lock *named = lockspace_named(user, path);

	if (!named)
		return;
	named->parted = true;
	named->shrunk = revision;
	named_stir(named);
	/* If nobody waits for it now, who comes does not ask again for what is known. */
	named_read_again(named);
}

static void stir_all(struct lockspace *space)
{
	struct named_lock *named;

	for (named = space->locks; named; named = named->hh.next)
		named_stir(named);
}

/* While the store is away nobody waits for it who need not. */
static void on_reachable(void *user, bool reachable)
{
	struct lockspace *space = user;
	struct holding *holding;

	if (reachable) {
		stir_all(space);
		return;
	}
	DL_FOREACH2(space->leaving, holding, leaving_next) {
		tell_later(space, &holding->released);
	}
	DL_FOREACH2(space->all, holding, all_next) {
		tell_later(space, &holding->parted);
		contents_give_up(holding);
	}
}

const struct store_events lockspace_events = {
	.session = on_session,
	.gone = on_gone,
	.removed = on_removed,
	.shrunk = on_shrunk,
	.grants = on_grants,
	.recheck = on_recheck,
	.went_back = on_went_back,
	.reachable = on_reachable,
};
