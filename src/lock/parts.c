/* SPDX-License-Identifier: MIT */
/* Where some have only parts of a file: tries that have to look, and giving a part back. */
#include <string.h>
#include <utlist.h>

#include "base/util.h"
#include "lock/internal.h"

/* --- others --- */

static struct rival *rival_new(const struct store_contender *contender)
{
	struct rival *rival = xzalloc(sizeof(*rival));

	rival->entry.token = contender->token;
	rival->entry.shared = contender->shared;
	ranges_copy(&rival->ranges, &contender->ranges);
	if (rival->ranges.count)
		rival->entry.ranges = &rival->ranges;
	rival->changed = contender->changed;
	rival->id = xstrdup(contender->id);
	rival->symlink = contender->symlink;
	return rival;
}

void rival_free(struct rival *rival)
{
	ranges_fini(&rival->ranges);
	free(rival->id);
	free(rival);
}

struct rival *rivals_of(struct named_lock *named, const struct store_queue *queue)
{
	struct rival *rivals = NULL;
	bool stale = false;

	for (size_t i = queue ? queue->count : 0; i-- > 0;) {
		const struct store_contender *contender = &queue->contenders[i];
		if (contender->ours)
			continue;
		named->parted = named->parted || contender->ranges.count;
		stale = stale || contender->stale;
		struct rival *rival = rival_new(contender);
		LL_PREPEND(rivals, rival);
	}
	if (stale)
		named_read_again(named);
	return rivals;
}

/* --- trying --- */

/* Of ours the engine knows already that none is in the way. */
static bool is_barred(struct holding *holding, const struct store_queue *queue)
{
	bool alone = true, barred = false;

	for (size_t i = 0; i < queue->count; i++) {
		const struct store_contender *contender = &queue->contenders[i];
		if (contender->ours)
			continue;
		alone = false;
		barred = barred || lock_is_barred(&holding->claim, contender->shared,
					   contender->ranges.count ? &contender->ranges : NULL);
	}
	holding->named->clear = alone ? queue->revision : 0;
	return barred;
}

static void on_attempted(void *user, int result, const struct store_queue *queue);

static void attempt(struct holding *holding, uint64_t revision)
{
	struct store *store = holding->space->store;

	holding->attempted = revision;
	store->ops->attempt(store, &holding->place, revision, on_attempted, holding);
	holding_enter(holding);
}

/* If it was too late it knows now what there is; in the end it is too early for others. */
static void on_attempted(void *user, int result, const struct store_queue *queue)
{
	struct holding *holding = user;
	struct named_lock *named = holding->named;

	if (result == STORE_BUSY && !holding->claim.canceled && !is_barred(holding, queue)) {
		attempt(holding, queue->revision);
		return;
	}
	/* Since then only this place has come. */
	if (!result && holding->attempted == named->clear)
		named->clear = holding->place.token;
	holding_placed(holding, result, NULL);
}

/* Who wants to share may have met somebody who wants to, or has become willing. */
static void on_tried(void *user, int result)
{
	struct holding *holding = user;

	if (result == STORE_BUSY && holding->claim.shared && !holding->claim.canceled)
		attempt(holding, holding->named->clear);
	else
		holding_placed(holding, result, NULL);
}

void lockspace_try(struct holding *holding)
{
	struct store *store = holding->space->store;

	if (holding->claim.ranges || lock_has_kin(&holding->named->lock, &holding->claim))
		attempt(holding, holding->named->clear);
	else
		store->ops->try(store, &holding->place, on_tried, holding);
}

/* --- patience --- */

void named_stir(struct named_lock *named)
{
	struct lockspace *space = named->space;

	named->news++;
	if (!named->parked || named->is_stirred)
		return;
	named->is_stirred = true;
	DL_APPEND2(space->stirred, named, stirred_prev, stirred_next);
	loop_defer(space->loop, &space->deliver);
}

void holding_park(struct holding *holding)
{
	struct named_lock *named = holding->named;

	holding->is_refused = false;
	holding->is_parked = true;
	DL_APPEND2(named->parked, holding, parked_prev, parked_next);
	/* It may have been refused for what has changed since. */
	if (named->news != holding->news)
		named_stir(named);
}

void holding_unpark(struct holding *holding)
{
	DL_DELETE2(holding->named->parked, holding, parked_prev, parked_next);
	holding->is_parked = false;
}

void lockspace_try_again(struct lockspace *space)
{
	while (space->stirred) {
		struct named_lock *named = space->stirred;
		struct holding *holding, *last = named->parked ? named->parked->parked_prev : NULL;
		DL_DELETE2(space->stirred, named, stirred_prev, stirred_next);
		named->is_stirred = false;
		/* Who is refused at once is parked again, behind the last. */
		for (bool more = last; more;) {
			holding = named->parked;
			more = holding != last;
			holding_unpark(holding);
			holding->news = named->news;
			holding_count(holding);
			lock_take(&named->lock, &holding->claim);
		}
		named_settled(named);
	}
}

/* --- giving a part back --- */

static void on_written(void *user, int result)
{
	struct holding *holding = user;

	waiters_tell(&holding->parted, result ? UINT64_MAX : holding->place.written_version, 0);
}

/* Who waits here may have it before the store knows: his place is there, behind this one. */
void lockspace_shrink(struct holding *holding, const struct ranges *ranges,
	lockspace_done_fn *on_done, void *user)
{
	struct named_lock *named = holding->named;
	struct lockspace *space = holding->space;
	struct record *record = &holding->record;

	ranges_fini(&record->ranges);
	ranges_copy(&record->ranges, ranges);
	holding->claim.ranges = &record->ranges;
	holding->claim.shared = !ranges_are_exclusive(ranges);
	holding->place.shared = holding->claim.shared;
	holding->place.shrunk = true;
	lock_shrunk(&named->lock, &holding->claim);
	named_stir(named);
	if (on_done)
		waiters_add(&holding->parted, on_done, user, record->version + 1);
	if (!space->store->ops->reachable(space->store))
		tell_later(space, &holding->parted);
	lockspace_write(holding, on_written, holding);
}
