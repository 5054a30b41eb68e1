/* SPDX-License-Identifier: MIT */
/*
 * The byte ranges of fcntl(2).
 *
 * An owner has what its stakes in the holds of the file say, together.  Asking for more makes one
 * more hold, of the range as a whole; when that is granted, the others give up what they have of
 * it.  So nothing is let go of before something else is there instead, and what an owner has
 * nowhere overlaps, but for stakes in a lock of the whole file that was taken in another way.
 */
#include "fs/fcntl.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <utlist.h>

#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/revive.h"
#include "lock/lockspace.h"

/* --- giving up --- */

typedef void change_fn(struct ranges *ranges, uint64_t start, uint64_t end);

static void on_given_up(void *user, int result)
{
	struct request *request = user;

	if (--request->parts == 0)
		request->next(request);
}

/* The stake has changed: so must its lock, if that is of its ranges. */
static void follow_stake(struct request *request, struct hold *hold, struct stake *stake)
{
	if (!stake->ranges.count)
		stake_free(stake);
	if (!hold->stakes) {
		request->parts++;
		hold_release(hold, on_given_up, request);
	} else if (hold->of_ranges) {
		request->parts++;
		lockspace_shrink(hold->holding, &stake->ranges, on_given_up, request);
	}
}

static void give_up_in(struct request *request, struct hold *hold, change_fn *change)
{
	struct stake *stake = stake_find(hold, request);
	struct ranges before;

	if (!stake)
		return;
	if (hold->lost) {
		/* Of a lost lock nothing is worth keeping. */
		request->parts++;
		hold_release(hold, on_given_up, request);
		return;
	}
	ranges_copy(&before, &stake->ranges);
	change(&stake->ranges, request->start, request->end);
	if (!ranges_equal(&before, &stake->ranges)) {
		hold_enter(hold);
		follow_stake(request, hold, stake);
	}
	ranges_fini(&before);
}

/* Changes what the owner has of the range, but in one hold, and goes on when the store knows. */
static void give_up(struct request *request, const struct hold *except, change_fn *change)
{
	struct hold *hold, *next;

	request->parts = 1;
	DL_FOREACH_SAFE(request->node->holds, hold, next) {
		if (hold != except)
			give_up_in(request, hold, change);
	}
	on_given_up(request, 0);
}

/* --- locking --- */

bool fcntl_has_all(const struct request *request)
{
	struct range all = {
		.start = request->start, .end = request->end, .exclusive = request->exclusive};
	struct ranges missing = {0};
	const struct hold *hold;

	ranges_set(&missing, all);
	DL_FOREACH(request->node->holds, hold) {
		const struct stake *stake = stake_find(hold, request);
		for (size_t i = 0; stake && i < stake->ranges.count; i++) {
			const struct range *range = &stake->ranges.list[i];
			if (range->exclusive || !request->exclusive)
				ranges_remove(&missing, range->start, range->end);
		}
	}
	bool has_all = !missing.count;
	ranges_fini(&missing);
	return has_all;
}

void fcntl_granted(struct request *request, const struct hold *hold)
{
	give_up(request, hold, ranges_remove);
}

void fcntl_lock(struct request *request)
{
	struct hold *whole = hold_find(request);

	if (request->node->status) {
		lock_refuse(request, -EPERM);
	} else if (lock_has_lost(request)) {
		lock_refuse(request, -EIO);
	} else if (whole && !(request->exclusive && lockspace_is_shared(whole->holding))) {
		/* It has more already, which excludes whom it must. */
		stake_add(whole, request);
		give_up(request, whole, ranges_remove);
	} else if (!fcntl_has_all(request)) {
		lock_ask(request);
	} else if (request->exclusive) {
		request->next(request);
	} else {
		give_up(request, NULL, ranges_relax);
	}
}

static bool splits(const struct ranges *ranges, const struct request *request)
{
	for (size_t i = 0; i < ranges->count; i++) {
		const struct range *range = &ranges->list[i];
		if (range->start < request->start && request->end < range->end)
			return true;
	}
	return false;
}

/* Each step costs as much as its owner has ranges. */
static bool may_have_more(const struct request *request)
{
	const struct hold *hold;
	size_t count = 0;

	DL_FOREACH(request->node->holds, hold) {
		const struct stake *stake = stake_find(hold, request);
		count += stake ? stake->ranges.count : 0;
	}
	return count < RANGES_MAX || (!request->start && request->end == RANGE_END);
}

static bool may_unlock(const struct request *request)
{
	const struct hold *hold;

	DL_FOREACH(request->node->holds, hold) {
		const struct stake *stake = stake_find(hold, request);
		if (stake && splits(&stake->ranges, request))
			return may_have_more(request);
	}
	return true;
}

static void reply_success(struct request *request)
{
	reply_error(request, 0);
}

static void set_range(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end)
{
	request->node = handle->node;
	request->handle = handle;
	request->kind = STAKE_FCNTL;
	request->owner = owner;
	request->start = start;
	request->end = end;
	request->exclusive = type == F_WRLCK;
}

void fs_setlk(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end, bool wait)
{
	set_range(request, handle, owner, type, start, end);
	request->wait = wait;
	request->next = type == F_UNLCK ? lock_given_back : reply_success;
	if (type == F_UNLCK ? !may_unlock(request) : !may_have_more(request))
		reply_error(request, -ENOSPC);
	else if (type == F_UNLCK)
		give_up(request, NULL, ranges_remove);
	else
		fcntl_lock(request);
}

/* --- F_GETLK --- */

static const struct ranges *ranges_of(const struct store_contender *contender)
{
	return contender->ranges.count ? &contender->ranges : NULL;
}

static bool are_in_conflict(const struct store_contender *a, const struct store_contender *b)
{
	if (a->shared && b->shared)
		return false;
	return !ranges_of(a) || !ranges_of(b) || ranges_conflict(ranges_of(a), ranges_of(b));
}

/* Whoever has somebody in his way who came before waits. */
static bool is_held(const struct store_queue *queue, size_t place)
{
	for (size_t i = 0; i < place; i++) {
		if (are_in_conflict(&queue->contenders[i], &queue->contenders[place]))
			return false;
	}
	return true;
}

static const struct hold *hold_of(const struct node *node, const struct store_contender *contender)
{
	const struct hold *hold;

	DL_FOREACH(node->holds, hold) {
		if (contender->ours && lockspace_holding_of(contender->ours) == hold->holding)
			return hold;
	}
	return NULL;
}

/* What the owner of such a hold has, in whichever of them, is one. */
static void add_all_of(struct ranges *all, const struct hold *hold)
{
	const struct hold *other;

	DL_FOREACH(hold->node->holds, other) {
		const struct stake *stake = other->stakes;
		if (!other->of_ranges || other->lost || stake->owner != hold->stakes->owner)
			continue;
		for (size_t i = 0; i < stake->ranges.count; i++)
			ranges_set(all, stake->ranges.list[i]);
	}
}

/* The range that the request would have to wait for; false if there is none. */
static bool find_conflict(const struct store_contender *contender, const struct hold *hold,
	const struct request *request, struct range *conflict)
{
	struct range wanted = {
		.start = request->start, .end = request->end, .exclusive = request->exclusive};
	struct ranges has;

	ranges_copy(&has, &contender->ranges);
	if (!has.count)
		ranges_set(&has, (struct range){.end = RANGE_END, .exclusive = !contender->shared});
	if (hold && hold->of_ranges)
		add_all_of(&has, hold);
	const struct range *found = ranges_find_conflict(&has, wanted);
	if (found)
		*conflict = *found;
	ranges_fini(&has);
	return found;
}

/* A process of another machine has no number here. */
static pid_t pid_of(const struct hold *hold)
{
	const struct stake *stake = hold ? hold->stakes : NULL;

	if (!stake)
		return 0;
	return stake->kind == STAKE_FCNTL && stake->pid ? stake->pid
							: lockspace_record(hold->holding)->pid;
}

static void on_queue_read(void *user, int result, const struct store_queue *queue)
{
	struct request *request = user;
	struct range conflict;

	if (result) {
		reply_error(request, result);
		return;
	}
	for (size_t i = 0; i < queue->count; i++) {
		const struct store_contender *contender = &queue->contenders[i];
		const struct hold *hold = hold_of(request->node, contender);
		if ((hold && hold_is_shared_by(hold, request)) ||
			!find_conflict(contender, hold, request, &conflict) || !is_held(queue, i))
			continue;
		reply_lock(request, conflict.exclusive ? F_WRLCK : F_RDLCK, pid_of(hold),
			conflict.start, conflict.end);
		return;
	}
	reply_lock(request, F_UNLCK, 0, request->start, request->end);
}

void fs_getlk(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end)
{
	struct store *store = request->fs->store;
	const struct hold *hold = hold_of_handle(handle);

	set_range(request, handle, owner, type, start, end);
	if (hold && hold->lost)
		reply_error(request, -EIO);
	else
		store->ops->queue(store, handle->node->path, true, on_queue_read, request);
}
