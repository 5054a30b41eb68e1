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

/* The stake has changed: so must its lock, if nobody else needs what it has given up. */
static void follow_stake(struct request *request, struct hold *hold, struct stake *stake)
{
	if (!stake->ranges.count)
		stake_free(stake);
	else
		hold_enter(hold);
	request->parts += hold_settle(hold, on_given_up, request);
}

static void give_up_in(struct request *request, struct hold *hold, change_fn *change)
{
	struct stake *stake = stake_find(hold, request);
	struct ranges before;

	if (!stake)
		return;
	if (hold->lost) {
		/* Of a lost lock nothing is worth keeping, but that others have yet to be told. */
		ranges_remove(&stake->ranges, 0, RANGE_END);
		follow_stake(request, hold, stake);
		return;
	}
	ranges_copy(&before, &stake->ranges);
	change(&stake->ranges, request->start, request->end);
	if (!ranges_equal(&before, &stake->ranges))
		follow_stake(request, hold, stake);
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
	stakes_changed(request->node);
	on_given_up(request, 0);
}

/* --- locking --- */

void fcntl_granted(struct request *request, const struct hold *hold)
{
	give_up(request, hold, ranges_remove);
}

void fcntl_lock(struct request *request)
{
	struct hold *whole = hold_find_enough(request);

	if (request->node->status) {
		lock_refuse(request, -EPERM);
	} else if (lock_has_lost(request)) {
		lock_refuse(request, -EIO);
	} else if (whole) {
		/* The handle has more already, which excludes everybody but its other owners. */
		stake_add(whole, request);
		stakes_changed(request->node);
		give_up(request, whole, ranges_remove);
	} else if (!stake_is_ready(request)) {
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
	handle->has_locked = true;
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

/* What an owner has, in whichever holds, is one. */
static void add_all_of(struct ranges *all, const struct node *node, uint64_t owner)
{
	const struct hold *hold;
	const struct stake *stake;

	DL_FOREACH(node->holds, hold) {
		DL_FOREACH(hold->stakes, stake) {
			if (hold->lost || stake->kind != STAKE_FCNTL || stake->owner != owner)
				continue;
			for (size_t i = 0; i < stake->ranges.count; i++)
				ranges_set(all, stake->ranges.list[i]);
		}
	}
}

/* What somebody has who is not an owner of fcntl locks here. */
static void copy_contender(struct ranges *has, const struct store_contender *contender)
{
	ranges_copy(has, &contender->ranges);
	if (!has->count)
		ranges_set(has, (struct range){.end = RANGE_END, .exclusive = !contender->shared});
}

struct conflict {
	struct range range;
	pid_t pid; /* 0: a process of another machine, which has no number here */
};

/* What the request would have to wait for in a contender's place, which is that hold or, if it is
 * NULL, another mount's; false if there is nothing. */
static bool find_conflict(const struct store_contender *contender, const struct hold *hold,
	const struct request *request, struct conflict *conflict)
{
	struct range wanted = {
		.start = request->start, .end = request->end, .exclusive = request->exclusive};
	const struct stake *rival = hold ? hold_find_rival(hold, request) : NULL;
	struct ranges has = {0};

	if (!rival && hold && (hold->of_ranges || hold_is_shared_by(hold, request)))
		return false;
	if (rival)
		add_all_of(&has, request->node, rival->owner);
	else
		copy_contender(&has, contender);
	const struct range *found = ranges_find_conflict(&has, wanted);
	if (found)
		conflict->range = *found;
	conflict->pid = rival && rival->pid ? rival->pid
			: hold              ? lockspace_record(hold->holding)->pid
					    : 0;
	ranges_fini(&has);
	return found;
}

static void on_queue_read(void *user, int result, const struct store_queue *queue)
{
	struct request *request = user;
	struct conflict conflict;

	if (result) {
		reply_error(request, result);
		return;
	}
	for (size_t i = 0; i < queue->count; i++) {
		const struct store_contender *contender = &queue->contenders[i];
		const struct hold *hold = hold_of(request->node, contender);
		if (!find_conflict(contender, hold, request, &conflict) ||
			!(hold || is_held(queue, i)))
			continue;
		reply_lock(request, conflict.range.exclusive ? F_WRLCK : F_RDLCK, conflict.pid,
			conflict.range.start, conflict.range.end);
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
