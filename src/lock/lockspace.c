/* SPDX-License-Identifier: MIT */
#include "lock/lockspace.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "event/loop.h"
#include "lock/internal.h"

void tell_later(struct lockspace *space, struct waiter **list)
{
	DL_CONCAT(space->done, *list);
	*list = NULL;
	if (space->done)
		loop_defer(space->loop, &space->deliver);
}

/* --- names --- */

struct named_lock *lockspace_named(struct lockspace *space, const char *path)
{
	struct named_lock *named;

	HASH_FIND_STR(space->locks, path, named);
	return named;
}

static const struct lock_ops lock_ops;

struct named_lock *lockspace_get_named(struct lockspace *space, const char *path)
{
	struct named_lock *named = lockspace_named(space, path);

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
void named_settled(struct named_lock *named)
{
	if (named->lock.claims || named->is_read || named->parked)
		return;
	if (named->is_due)
		DL_DELETE(named->space->due, named);
	if (named->is_stirred)
		DL_DELETE2(named->space->stirred, named, stirred_prev, stirred_next);
	if (named->is_settling)
		DL_DELETE2(named->space->settling, named, settling_prev, settling_next);
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

void holding_placed(struct holding *holding, int result, const struct store_queue *queue)
{
	struct named_lock *named = holding->named;
	uint64_t arrival = holding->claim.arrival;
	int outcome = result == STORE_BUSY   ? LOCK_NOT_PLACED
		      : result == STORE_LOST ? LOCK_NO_SESSION
					     : result;

	/* Somebody has less than this shows, and said so before anybody here could listen. */
	if (queue && queue->revision < named->shrunk)
		named_read_again(named);
	if (lock_placed(&named->lock, &holding->claim, outcome, holding->place.token,
		    queue ? queue->revision : 0, rivals_of(named, queue)))
		named->clear = 0;
	/* Without a place it may be over, and freed. */
	if (outcome == LOCK_PLACED && holding->claim.state == CLAIM_WAITING)
		holding_enter(holding);
	if ((named->lock.blind || arrival <= named->lock.doubted) &&
		lock_is_contended(&named->lock))
		named_read_again(named);
	named_settled(named);
}

static void on_joined(void *user, int result, const struct store_queue *queue)
{
	holding_placed(user, result, queue);
}

static void op_place(struct claim *claim)
{
	struct holding *holding = holding_of(claim);
	struct store *store = holding->space->store;

	if (claim->try)
		lockspace_try(holding);
	else
		store->ops->join(store, &holding->place, claim->lock->known, claim->lock->claims,
			on_joined, holding);
	holding_enter(holding);
}

void holding_count(struct holding *holding)
{
	if (!holding->counted)
		shares_take(&holding->space->claims, holding->record.uid, 1);
	holding->counted = true;
}

/* From now on it does not take a place that somebody else could have. */
static void uncount(struct holding *holding)
{
	if (holding->counted)
		shares_give(&holding->space->claims, holding->record.uid, 1);
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
	count_release(holding);
	if (!holding->writing && !holding->is_refused)
		lockspace_resize(holding, 0);
	holding->leave = ++holding->space->leaves;
	holding_enter(holding);
	DL_APPEND2(holding->space->leaving, holding, leaving_prev, leaving_next);
	store->ops->leave(store, &holding->place, on_left, holding);
}

void holding_answer(struct holding *holding, int result)
{
	struct lockspace *space = holding->space;

	loop_timer_disarm(&holding->timer);
	holding->answer_pending = true;
	holding->result = result;
	DL_APPEND(space->answers, holding);
	loop_defer(space->loop, &space->deliver);
}

/* Who is patient waits as well for a store that does not answer. */
static void op_answer(struct claim *claim, int result)
{
	struct holding *holding = holding_of(claim);

	if (result == CLAIM_GRANTED)
		holding_enter(holding);
	if (holding->is_absent)
		return;
	holding->is_refused = result == CLAIM_AGAIN ||
			      (holding->patient && (result == CLAIM_BUSY || result == -EIO));
	if (!holding->is_refused)
		holding_answer(holding, result);
}

static void log_loss(const struct holding *holding)
{
	const struct record *record = &holding->record;
	unsigned long long token = holding->claim.token;

	if (log_admits("locks that were lost", record->uid, loop_clock()))
		log_warning("lock %s (token %llu, process %d, %s) was lost: %s",
			holding->named->path, token, (int)record->pid,
			*record->command ? record->command : "-",
			holding->space->suspended ? "its lease was" : "its key was deleted");
}

static void op_lost(struct claim *claim)
{
	struct holding *holding = holding_of(claim);

	/* One whose grant is not delivered yet is simply answered otherwise. */
	if (holding->answer_pending || holding->is_absent || holding->space->ending)
		return;
	count_loss(holding);
	holding_enter(holding);
	log_loss(holding);
	holding->on_lost(holding->user);
}

void holding_free(struct holding *holding)
{
	loop_timer_disarm(&holding->timer);
	contents_fini(holding);
	tell_later(holding->space, &holding->released);
	tell_later(holding->space, &holding->parted);
	DL_DELETE2(holding->space->all, holding, all_prev, all_next);
	ledger_drop(holding->space->ledger, &holding->slot);
	uncount(holding);
	lockspace_resize(holding, 0);
	record_fini(&holding->record);
	free(holding);
}

bool holding_may_be_freed(const struct holding *holding)
{
	return holding->claim.state == CLAIM_OVER && !holding->answer_pending &&
	       !holding->writing && !holding->writers;
}

static void op_over(struct claim *claim)
{
	struct holding *holding = holding_of(claim);

	/* Its place's name may be another's from now on, however long this one is needed. */
	ledger_drop(holding->space->ledger, &holding->slot);
	if (holding->is_refused) {
		holding_park(holding);
		if (!holding->patient)
			named_stir(holding->named);
		return;
	}
	if (!holding->writing)
		contents_give_up(holding);
	/* Who waits for its end does not wait for what was still to be written into it. */
	tell_later(holding->space, &holding->released);
	uncount(holding);
	if (holding_may_be_freed(holding))
		holding_free(holding);
}

static bool op_is_kin(struct claim *claim, struct claim *held)
{
	const struct holding *asking = holding_of(claim), *holding = holding_of(held);

	return asking->is_kin && !asking->user_holds && holding->user_holds &&
	       asking->is_kin(asking->user, holding->user);
}

static bool op_may_grant(struct lock *lock)
{
	struct named_lock *named = container_of(lock, struct named_lock, lock);
	struct lockspace *space = named->space;

	if (!space->untold)
		return true;
	if (!named->is_settling)
		DL_APPEND2(space->settling, named, settling_prev, settling_next);
	named->is_settling = true;
	return false;
}

static const struct lock_ops lock_ops = {
	.place = op_place,
	.leave = op_leave,
	.answer = op_answer,
	.lost = op_lost,
	.over = op_over,
	.drop = rival_free,
	.is_kin = op_is_kin,
	.may_grant = op_may_grant,
};

/* --- delivering answers --- */

/* True if it would wait for as long as it takes, in the queue or beside it. */
static bool is_waiting_call(const struct holding *holding)
{
	return holding->patient || !holding->claim.try;
}

/* The grant was lost before anybody was told: the caller has never held the lock, and still waits.
 */
static void ask_again(struct holding *holding)
{
	struct named_lock *named = holding->named;

	holding->answer_pending = false;
	holding->is_refused = true;
	lock_leave(&named->lock, &holding->claim, CLAIM_BUSY);
	named_stir(named);
}

static void deliver(struct holding *holding)
{
	struct named_lock *named = holding->named;
	lockspace_taken_fn *fn = holding->on_taken;
	void *user = holding->user;
	int result = holding->result;

	if (result == CLAIM_GRANTED && holding->claim.state != CLAIM_HELD) {
		if (is_waiting_call(holding) && !holding->is_canceled) {
			ask_again(holding);
			return;
		}
		result = holding->is_canceled ? -EINTR : -EIO;
		lock_leave(&named->lock, &holding->claim, result);
		named_settled(named);
	}
	holding->answer_pending = false;
	count_answer(holding, result);
	if (holding_may_be_freed(holding))
		holding_free(holding);
	/* May release it, and with that free it. */
	fn(user, result);
}

static void on_deliver(struct loop_task *task)
{
	struct lockspace *space = container_of(task, struct lockspace, deliver);
	struct waiter *done = take(space->done);

	lockspace_try_again(space);
	waiters_tell(&done, UINT64_MAX, 0);
	while (space->answers) {
		struct holding *holding = space->answers;
		DL_DELETE(space->answers, holding);
		deliver(holding);
		/* A deadline may have passed while the last one was answered. */
		loop_run_deadlines(space->loop);
	}
}

/* --- the interface --- */

static const struct shares_kind claims_kind = {.resource = "claims",
	.what = "locks are held or waited for",
	.option = "max_claims",
	.error = "ENOSPC"};
static const struct shares_kind content_kind = {.resource = "content",
	.what = "bytes are the content of lock files",
	.option = "max_content",
	.error = "ENOSPC"};

struct lockspace *lockspace_new(
	struct loop *loop, struct store *store, int timeout, const struct lockspace_limits *limits)
{
	struct lockspace *space = xzalloc(sizeof(*space));

	space->loop = loop;
	space->store = store;
	space->ledger = store->ledger;
	space->timeout = timeout;
	shares_init(&space->claims, &claims_kind, limits->claims, limits->user_share);
	space->write_rate = (int64_t)limits->write_rate;
	shares_init(&space->content, &content_kind, limits->content, limits->user_share);
	space->suspended = true;
	space->deliver.fn = on_deliver;
	store->events = &lockspace_events;
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
		waiters_free(&holding->parted);
		waiters_free(&holding->writers);
		holding_free(holding);
	}
}

void lockspace_end(struct lockspace *space)
{
	space->ending = true;
}

void lockspace_free(struct lockspace *space)
{
	struct named_lock *named, *next;

	if (!space)
		return;
	HASH_CLEAR(hh, space->adoptable);
	HASH_CLEAR(hh2, space->absent);
	free_holdings(space);
	HASH_ITER(hh, space->locks, named, next) {
		HASH_DEL(space->locks, named);
		lock_fini(&named->lock);
		free(named->path);
		free(named);
	}
	waiters_free(&space->done);
	loop_timer_disarm(&space->budget_timer);
	shares_fini(&space->claims);
	shares_fini(&space->content);
	loop_undefer(space->loop, &space->deliver);
	free(space);
}

/* Between two tries. */
static void give_up(struct holding *holding, int result)
{
	if (holding->is_parked)
		holding_unpark(holding);
	holding->is_refused = false;
	holding_answer(holding, result);
	named_settled(holding->named);
}

static void on_try_timeout(struct loop_timer *timer)
{
	struct holding *holding = container_of(timer, struct holding, timer);
	struct named_lock *named = holding->named;

	if (holding->is_refused || holding->is_parked) {
		give_up(holding, -EIO);
		return;
	}
	lock_leave(&named->lock, &holding->claim, -EIO);
	named_settled(named);
}

static bool has_room_for(struct lockspace *space, const struct lockspace_request *request)
{
	uid_t uid = request->record->uid;

	return content_fits(space, uid, request->record->content_size) &&
	       (request->instead || shares_allow(&space->claims, uid, 1, loop_clock()));
}

struct holding *holding_new(struct lockspace *space, const struct lockspace_request *request)
{
	struct holding *holding = xzalloc(sizeof(*holding));

	holding->space = space;
	holding->asked_at = loop_clock();
	DL_APPEND2(space->all, holding, all_prev, all_next);
	holding->on_taken = request->on_taken;
	holding->on_lost = request->on_lost;
	holding->user = request->user;
	holding->timer.fn = on_try_timeout;
	contents_init(holding);
	record_copy(&holding->record, request->record);
	shares_take(&space->content, holding->record.uid, holding->record.content_size);
	holding->place.shared = request->shared;
	holding->place.record = &holding->record;
	holding->claim.state = CLAIM_OVER;
	holding->claim.shared = request->shared;
	holding->claim.try = request->try;
	if (holding->record.ranges.count)
		holding->claim.ranges = &holding->record.ranges;
	holding->is_kin = request->is_kin;
	holding->patient = request->patient;
	holding->mark = request->mark;
	return holding;
}

struct holding *lockspace_take(struct lockspace *space, const struct lockspace_request *request)
{
	struct holding *holding = lockspace_take_absent(space, request);

	if (holding)
		return holding;
	holding = holding_new(space, request);
	if (!has_room_for(space, request)) {
		holding_answer(holding, -ENOSPC);
		return holding;
	}
	holding_count(holding);
	holding->named = lockspace_get_named(space, request->path);
	holding->place.path = holding->named->path;
	if (request->try && !request->patient) {
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
	holding->user_holds = true;
}

void lockspace_kin_changed(struct holding *holding)
{
	lock_kin_changed(&holding->named->lock);
	named_stir(holding->named);
}

void lockspace_cancel(struct holding *holding)
{
	struct named_lock *named = holding->named;

	if (holding->is_refused || holding->is_parked) {
		give_up(holding, -EINTR);
		return;
	}
	if (holding->answer_pending || holding->claim.answered) {
		holding->is_canceled = true;
		return;
	}
	loop_timer_disarm(&holding->timer);
	lock_leave(&named->lock, &holding->claim, -EINTR);
	named_stir(named);
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
	named_stir(named);
	named_settled(named);
}

uint64_t lockspace_token(const struct holding *holding)
{
	return holding->claim.token;
}

const char *lockspace_id(const struct holding *holding)
{
	return holding->place.id;
}

uint64_t lockspace_mark(const struct holding *holding)
{
	return holding->mark;
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
	struct named_lock *named = lockspace_named(space, path);
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
