/* SPDX-License-Identifier: MIT */
#include "lock/lockspace.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "event/loop.h"
#include "lock/internal.h"

/* The waiters are told 0 in the next turn. */
static void tell_later(struct lockspace *space, struct waiter **list)
{
	DL_CONCAT(space->done, *list);
	*list = NULL;
	if (space->done)
		loop_defer(space->loop, &space->deliver);
}

/* --- names --- */

static struct named_lock *find_named(struct lockspace *space, const char *path)
{
	struct named_lock *named;

	HASH_FIND_STR(space->locks, path, named);
	return named;
}

static const struct lock_ops lock_ops;

static struct named_lock *get_named(struct lockspace *space, const char *path)
{
	struct named_lock *named = find_named(space, path);

	if (named)
		return named;
	named = xzalloc(sizeof(*named));
	named->space = space;
	named->path = xstrdup(path);
	lock_init(&named->lock, &lock_ops, space->suspended);
	HASH_ADD_KEYPTR(hh, space->locks, named->path, strlen(named->path), named);
	return named;
}

/* To be called at the end of whatever may have ended the last thing that went on with the name. */
static void named_settled(struct named_lock *named)
{
	if (named->lock.claims || named->is_read)
		return;
	if (named->is_due)
		DL_DELETE(named->space->due, named);
	HASH_DEL(named->space->locks, named);
	lock_fini(&named->lock);
	free(named->path);
	free(named);
}

/* --- what the engine asks for --- */

static struct holding *holding_of(struct claim *claim)
{
	return container_of(claim, struct holding, claim);
}

static struct rival *rivals_of(const struct store_queue *queue)
{
	struct rival *rivals = NULL;

	for (size_t i = queue ? queue->count : 0; i-- > 0;) {
		const struct store_contender *contender = &queue->contenders[i];
		if (contender->ours)
			continue;
		struct rival *rival = xzalloc(sizeof(*rival));
		rival->entry.token = contender->token;
		rival->entry.shared = contender->shared;
		rival->id = xstrdup(contender->id);
		rival->symlink = contender->symlink;
		LL_PREPEND(rivals, rival);
	}
	return rivals;
}

static void on_joined(void *user, int result, const struct store_queue *queue)
{
	struct holding *holding = user;
	struct named_lock *named = holding->named;
	int outcome = result == STORE_LOST ? LOCK_NO_SESSION : result;

	lock_placed(&named->lock, &holding->claim, outcome, holding->place.token,
		queue ? queue->revision : 0, rivals_of(queue));
	named_settled(named);
}

static void on_tried(void *user, int result)
{
	struct holding *holding = user;
	struct named_lock *named = holding->named;
	int outcome = result == STORE_BUSY   ? LOCK_NOT_PLACED
		      : result == STORE_LOST ? LOCK_NO_SESSION
					     : result;

	lock_placed(&named->lock, &holding->claim, outcome, holding->place.token, 0, NULL);
	named_settled(named);
}

static void op_place(struct claim *claim)
{
	struct holding *holding = holding_of(claim);
	struct store *store = holding->space->store;

	if (claim->try)
		store->ops->try(store, &holding->place,
			claim->replaces ? &holding_of(claim->replaces)->place : NULL, on_tried,
			holding);
	else
		store->ops->join(store, &holding->place, claim->lock->known, claim->lock->claims,
			on_joined, holding);
}

/* From now on it does not take a place that somebody else could have. */
static void uncount(struct holding *holding)
{
	holding->space->claims -= holding->counted;
	holding->counted = false;
}

static void on_left(void *user, int result)
{
	struct holding *holding = user;
	struct named_lock *named = holding->named;

	DL_DELETE2(holding->space->leaving, holding, leaving_prev, leaving_next);
	lock_left(&named->lock, &holding->claim);
	named_settled(named);
}

static void op_leave(struct claim *claim)
{
	struct holding *holding = holding_of(claim);
	struct store *store = holding->space->store;

	uncount(holding);
	if (!holding->writing)
		lockspace_resize(holding, 0);
	holding->leave = ++holding->space->leaves;
	DL_APPEND2(holding->space->leaving, holding, leaving_prev, leaving_next);
	store->ops->leave(store, &holding->place, on_left, holding);
}

static void op_answer(struct claim *claim, int result)
{
	struct holding *holding = holding_of(claim);
	struct lockspace *space = holding->space;

	loop_timer_disarm(&holding->timer);
	holding->answer_pending = true;
	holding->result = result;
	DL_APPEND(space->answers, holding);
	loop_defer(space->loop, &space->deliver);
}

static void op_lost(struct claim *claim)
{
	struct holding *holding = holding_of(claim);

	/* One whose grant is not delivered yet is simply answered otherwise. */
	if (holding->answer_pending)
		return;
	/* A lock that goes by its name is unlinked on any machine. */
	if (holding->record.hold == STORE_HOLD_NAME && !holding->space->suspended)
		log_info("lock %s (token %llu) was removed elsewhere", holding->named->path,
			(unsigned long long)claim->token);
	else
		log_warning("lock %s (token %llu, process %d) was lost", holding->named->path,
			(unsigned long long)claim->token, (int)holding->record.pid);
	holding->on_lost(holding->user);
}

void holding_free(struct holding *holding)
{
	loop_timer_disarm(&holding->timer);
	tell_later(holding->space, &holding->released);
	DL_DELETE2(holding->space->all, holding, all_prev, all_next);
	uncount(holding);
	lockspace_resize(holding, 0);
	record_fini(&holding->record);
	free(holding);
}

bool holding_may_be_freed(const struct holding *holding)
{
	return holding->claim.state == CLAIM_OVER && !holding->answer_pending && !holding->writing;
}

static void op_over(struct claim *claim)
{
	uncount(holding_of(claim));
	if (holding_may_be_freed(holding_of(claim)))
		holding_free(holding_of(claim));
}

static void op_drop(struct rival *rival)
{
	free(rival->id);
	free(rival);
}

static const struct lock_ops lock_ops = {
	.place = op_place,
	.leave = op_leave,
	.answer = op_answer,
	.lost = op_lost,
	.over = op_over,
	.drop = op_drop,
};

/* --- delivering answers --- */

static void deliver(struct holding *holding)
{
	struct named_lock *named = holding->named;
	lockspace_taken_fn *fn = holding->on_taken;
	void *user = holding->user;
	int result = holding->result;

	if (result == CLAIM_GRANTED && holding->claim.state != CLAIM_HELD) {
		/* Granted, and lost before anybody was told. */
		result = -EIO;
		lock_leave(&named->lock, &holding->claim, result);
		named_settled(named);
	}
	holding->answer_pending = false;
	if (holding_may_be_freed(holding))
		holding_free(holding);
	/* May release it, and with that free it. */
	fn(user, result);
}

static void on_deliver(struct loop_task *task)
{
	struct lockspace *space = container_of(task, struct lockspace, deliver);
	struct waiter *done = take(space->done);

	waiters_tell(&done, UINT64_MAX, 0);
	while (space->answers) {
		struct holding *holding = space->answers;
		DL_DELETE(space->answers, holding);
		deliver(holding);
		/* A deadline may have passed while the last one was answered. */
		loop_run_deadlines(space->loop);
	}
}

/* --- news of the store --- */

/* Queues are read because something of ours waits there. */
static bool shows_ours(const struct store_queue *queue)
{
	for (size_t i = 0; i < queue->count; i++) {
		if (queue->contenders[i].ours)
			return true;
	}
	return false;
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
	if (queue && !shows_ours(queue))
		queue = NULL;
	if (lock_read_end(&named->lock, queue ? queue->revision : 0, rivals_of(queue))) {
		log_trace("lock %s: the store had not told of a release", named->path);
		store->ops->deaf(store);
	}
	named_settled(named);
	read_due(space);
}

static void read_queue(struct named_lock *named)
{
	struct store *store = named->space->store;

	named->is_read = true;
	named->space->reads++;
	lock_read_begin(&named->lock);
	store->ops->queue(store, named->path, on_queue_read, named);
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

static void on_recheck(void *user)
{
	struct lockspace *space = user;
	struct named_lock *named, *next;

	HASH_ITER(hh, space->locks, named, next) {
		if (named->is_read || named->is_due || !lock_is_contended(&named->lock))
			continue;
		named->is_due = true;
		DL_APPEND(space->due, named);
	}
	read_due(space);
}

static void on_session(void *user, enum store_session state)
{
	struct lockspace *space = user;
	bool suspended = state == STORE_SESSION_LOST;
	struct named_lock *named, *next;

	if (suspended != space->suspended) {
		space->suspended = suspended;
		HASH_ITER(hh, space->locks, named, next) {
			if (suspended)
				lock_suspend(&named->lock);
			else
				lock_resume(&named->lock);
			named_settled(named);
		}
	}
}

static void on_gone(void *user, struct store_place *place)
{
	struct holding *holding = container_of(place, struct holding, place);

	lock_gone(&holding->named->lock, &holding->claim);
}

static void on_removed(void *user, const char *path, const char *id, uint64_t revision)
{
	struct named_lock *named = find_named(user, path);

	if (!named)
		return;
	struct rival *tomb = xzalloc(sizeof(*tomb));
	tomb->entry.token = revision;
	tomb->id = xstrdup(id);
	lock_removed(&named->lock, tomb);
}

/* While the store is away nobody waits for it who need not. */
static void on_reachable(void *user, bool reachable)
{
	struct lockspace *space = user;
	struct holding *holding;

	if (reachable)
		return;
	DL_FOREACH2(space->leaving, holding, leaving_next) {
		tell_later(space, &holding->released);
	}
}

static const struct store_events store_events = {
	.session = on_session,
	.gone = on_gone,
	.removed = on_removed,
	.recheck = on_recheck,
	.reachable = on_reachable,
};

/* --- the interface --- */

struct lockspace *lockspace_new(
	struct loop *loop, struct store *store, int timeout, const struct lockspace_limits *limits)
{
	struct lockspace *space = xzalloc(sizeof(*space));

	space->loop = loop;
	space->store = store;
	space->timeout = timeout;
	space->limits = *limits;
	space->suspended = true;
	space->deliver.fn = on_deliver;
	store->events = &store_events;
	store->user = space;
	return space;
}

static void free_holdings(struct lockspace *space)
{
	while (space->all) {
		struct holding *holding = space->all;
		if (holding->claim.state == CLAIM_HELD || holding->claim.state == CLAIM_WAITING)
			DL_DELETE(holding->claim.lock->view, &holding->claim.entry);
		if (holding->claim.state != CLAIM_OVER)
			holding->claim.lock->claims--;
		waiters_free(&holding->released);
		waiters_free(&holding->writers);
		holding_free(holding);
	}
}

void lockspace_free(struct lockspace *space)
{
	struct named_lock *named, *next;

	if (!space)
		return;
	free_holdings(space);
	HASH_ITER(hh, space->locks, named, next) {
		HASH_DEL(space->locks, named);
		lock_fini(&named->lock);
		free(named->path);
		free(named);
	}
	waiters_free(&space->done);
	loop_undefer(space->loop, &space->deliver);
	free(space);
}

static void on_try_timeout(struct loop_timer *timer)
{
	struct holding *holding = container_of(timer, struct holding, timer);
	struct named_lock *named = holding->named;

	lock_leave(&named->lock, &holding->claim, -EIO);
	named_settled(named);
}

/* One that replaces another comes in its stead. */
static bool has_room_for(struct lockspace *space, const struct lockspace_request *request)
{
	if (!content_fits(space, request->record->content_size))
		return false;
	if (request->replaces || space->claims < space->limits.claims)
		return true;
	if (log_is_due(&space->claims_complained_at, loop_clock()))
		log_warning("%zu locks are held or waited for (max_claims): asking for more fails "
			    "with ENOSPC",
			space->claims);
	return false;
}

static struct holding *holding_new(struct lockspace *space, const struct lockspace_request *request)
{
	struct holding *holding = xzalloc(sizeof(*holding));

	holding->space = space;
	DL_APPEND2(space->all, holding, all_prev, all_next);
	holding->on_taken = request->on_taken;
	holding->on_lost = request->on_lost;
	holding->user = request->user;
	holding->timer.fn = on_try_timeout;
	record_copy(&holding->record, request->record);
	space->content += holding->record.content_size;
	holding->place.shared = request->shared;
	holding->place.record = &holding->record;
	holding->claim.state = CLAIM_OVER;
	holding->claim.shared = request->shared;
	holding->claim.try = request->try;
	holding->claim.replaces = request->replaces ? &request->replaces->claim : NULL;
	return holding;
}

struct holding *lockspace_take(struct lockspace *space, const struct lockspace_request *request)
{
	struct holding *holding = holding_new(space, request);

	if (!has_room_for(space, request)) {
		op_answer(&holding->claim, -ENOSPC);
		return holding;
	}
	space->claims++;
	holding->counted = true;
	holding->named = get_named(space, request->path);
	holding->place.path = holding->named->path;
	if (request->try) {
		bool reachable = space->store->ops->reachable(space->store);
		loop_timer_arm(space->loop, &holding->timer,
			loop_clock() + (reachable ? space->timeout : 0));
	}
	lock_take(&holding->named->lock, &holding->claim);
	return holding;
}

void lockspace_set_user(struct holding *holding, void *user)
{
	holding->user = user;
}

void lockspace_cancel(struct holding *holding)
{
	struct named_lock *named = holding->named;

	if (holding->answer_pending || holding->claim.answered)
		return;
	loop_timer_disarm(&holding->timer);
	lock_leave(&named->lock, &holding->claim, -EINTR);
	named_settled(named);
}

void lockspace_await(struct holding *leaving, lockspace_done_fn *on_done, void *user)
{
	struct lockspace *space = leaving->space;

	waiters_add(&leaving->released, on_done, user, 0);
	if (!space->store->ops->reachable(space->store))
		tell_later(space, &leaving->released);
}

void lockspace_release(struct holding *holding, lockspace_done_fn *on_done, void *user)
{
	struct named_lock *named = holding->named;

	if (on_done)
		lockspace_await(holding, on_done, user);
	lock_leave(&named->lock, &holding->claim, -EINTR);
	named_settled(named);
}

uint64_t lockspace_token(const struct holding *holding)
{
	return holding->claim.token;
}

bool lockspace_is_shared(const struct holding *holding)
{
	return holding->claim.shared;
}

bool lockspace_is_held(const struct holding *holding)
{
	return holding->claim.state == CLAIM_HELD;
}

bool lockspace_waits_for_symlink(const struct holding *holding)
{
	struct lock_entry *first = holding->named->lock.view;

	return first && !first->claim && container_of(first, struct rival, entry)->symlink;
}

struct holding *lockspace_find(struct lockspace *space, const char *path)
{
	struct named_lock *named = find_named(space, path);
	struct claim *claim = named ? lock_first_claim(&named->lock) : NULL;

	return claim ? holding_of(claim) : NULL;
}

uint64_t lockspace_leaves(const struct lockspace *space)
{
	return space->leaves;
}

struct holding *lockspace_leaving(
	struct lockspace *space, const char *path, bool below, uint64_t leaves)
{
	size_t length = strlen(path);
	struct holding *holding;

	DL_FOREACH2(space->leaving, holding, leaving_next) {
		const char *its_path = holding->named->path;
		if (holding->leave > leaves)
			break;
		if (below ? !length || (strncmp(its_path, path, length) == 0 &&
					       its_path[length] == '/')
			  : strcmp(its_path, path) == 0)
			return holding;
	}
	return NULL;
}

struct holding *lockspace_holding_of(struct store_place *place)
{
	return container_of(place, struct holding, place);
}
