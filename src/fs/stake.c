/* SPDX-License-Identifier: MIT */
#include "fs/stake.h"

#include <utlist.h>

#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/revive.h"
#include "fs/signals.h"
#include "lock/lockspace.h"

static bool is_shared_by(const struct stake *stake, const struct request *request)
{
	if (stake->kind == STAKE_FCNTL && request->kind == STAKE_FCNTL)
		return stake->owner == request->owner;
	return stake->handle == request->handle;
}

bool hold_is_shared_by(const struct hold *hold, const struct request *request)
{
	const struct stake *stake;

	DL_FOREACH(hold->stakes, stake) {
		if (is_shared_by(stake, request))
			return true;
	}
	return false;
}

static struct range range_of(const struct request *request)
{
	return (struct range){
		.start = request->start, .end = request->end, .exclusive = request->exclusive};
}

const struct stake *hold_find_rival(const struct hold *hold, const struct request *request)
{
	const struct stake *stake;

	if (request->kind != STAKE_FCNTL)
		return NULL;
	DL_FOREACH(hold->stakes, stake) {
		if (stake->kind == STAKE_FCNTL && stake->owner != request->owner &&
			ranges_find_conflict(&stake->ranges, range_of(request)))
			return stake;
	}
	return NULL;
}

bool stake_has_rival(const struct request *request)
{
	const struct hold *hold;

	if (!request->node->fcntl_stakes)
		return false;
	DL_FOREACH(request->node->holds, hold) {
		if (!hold->lost && hold_find_rival(hold, request))
			return true;
	}
	return false;
}

/* An owner's ranges may have been locked through another of its handles. */
static struct hold *find_hold_of_owner(const struct request *request)
{
	struct hold *hold;

	if (!request->node->fcntl_stakes)
		return NULL;
	DL_FOREACH(request->node->holds, hold) {
		if (!hold->of_ranges && hold_is_shared_by(hold, request))
			return hold;
	}
	return NULL;
}

struct hold *hold_find(const struct request *request)
{
	const struct stake *stake;

	DL_FOREACH2(request->handle->stakes, stake, handle_next) {
		if (!stake->hold->of_ranges && is_shared_by(stake, request))
			return stake->hold;
	}
	return request->kind == STAKE_FCNTL ? find_hold_of_owner(request) : NULL;
}

struct hold *hold_find_enough(const struct request *request)
{
	struct hold *whole = hold_find(request);

	if (!whole || (request->exclusive && lockspace_is_shared(whole->holding)))
		return NULL;
	return stake_has_rival(request) ? NULL : whole;
}

/* The one that says more about what can be done through the handle. */
static struct hold *stronger(struct hold *a, struct hold *b)
{
	if (!a || b->lost)
		return b;
	if (a->lost || !lockspace_is_shared(a->holding))
		return a;
	return lockspace_is_shared(b->holding) ? a : b;
}

struct hold *hold_of_handle(const struct handle *handle)
{
	const struct stake *stake;
	struct hold *found = NULL;

	DL_FOREACH2(handle->stakes, stake, handle_next) {
		found = stronger(found, stake->hold);
	}
	return found;
}

bool hold_has_stake(const struct hold *hold, enum stake_kind kind)
{
	struct stake *stake;

	DL_SEARCH_SCALAR(hold->stakes, stake, kind, kind);
	return stake;
}

bool hold_is_only(const struct hold *hold, const struct handle *handle, enum stake_kind kind)
{
	const struct stake *stake;

	DL_FOREACH(hold->stakes, stake) {
		if (stake->kind != STAKE_FCNTL && (stake->kind != kind || stake->handle != handle))
			return false;
	}
	return true;
}

void hold_ranges(const struct hold *hold, struct ranges *ranges)
{
	const struct stake *stake;

	*ranges = (struct ranges){0};
	DL_FOREACH(hold->stakes, stake) {
		for (size_t i = 0; i < stake->ranges.count; i++)
			ranges_set(ranges, stake->ranges.list[i]);
	}
}

struct hold *hold_new(struct node *node, struct holding *holding)
{
	struct hold *hold = xzalloc(sizeof(*hold));

	node_ref(node);
	hold->node = node;
	hold->holding = holding;
	DL_APPEND(node->holds, hold);
	return hold;
}

struct stake *stake_find(const struct hold *hold, const struct request *request)
{
	struct stake *stake;

	DL_FOREACH(hold->stakes, stake) {
		if ((int)stake->kind != request->kind)
			continue;
		if (stake->kind == STAKE_FCNTL ? stake->owner == request->owner
					       : stake->handle == request->handle)
			return stake;
	}
	return NULL;
}

struct stake *stake_revive(
	struct hold *hold, enum stake_kind kind, struct handle *handle, uint64_t owner)
{
	struct stake *stake = xzalloc(sizeof(*stake));

	stake->kind = kind;
	stake->handle = handle;
	stake->owner = owner;
	stake->hold = hold;
	DL_APPEND(hold->stakes, stake);
	DL_APPEND2(handle->stakes, stake, handle_prev, handle_next);
	hold->node->fcntl_stakes += kind == STAKE_FCNTL;
	return stake;
}

void stake_add(struct hold *hold, const struct request *request)
{
	struct stake *stake = stake_find(hold, request);

	if (!stake) {
		stake = stake_revive(
			hold, (enum stake_kind)request->kind, request->handle, request->owner);
		stake->pid = request->pid;
	}
	if (stake->kind == STAKE_FCNTL)
		ranges_set(&stake->ranges, range_of(request));
	hold_enter(hold);
}

static bool has_all(const struct request *request)
{
	struct ranges missing = {0};
	const struct hold *hold;

	ranges_set(&missing, range_of(request));
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

bool stake_is_ready(const struct request *request)
{
	return hold_find_enough(request) || has_all(request);
}

void stake_look_again(struct request *request)
{
	request->retry = true;
	lockspace_cancel(request->holding);
}

void stakes_changed(struct node *node)
{
	struct request *request;

	DL_FOREACH2(node->pending, request, fcntl_next) {
		if (stake_is_ready(request))
			stake_look_again(request);
	}
	if (node->holds)
		lockspace_kin_changed(node->holds->holding);
}

void stake_free(struct stake *stake)
{
	DL_DELETE(stake->hold->stakes, stake);
	DL_DELETE2(stake->handle->stakes, stake, handle_prev, handle_next);
	stake->hold->node->fcntl_stakes -= stake->kind == STAKE_FCNTL;
	ranges_fini(&stake->ranges);
	hold_enter(stake->hold);
	free(stake);
}

void hold_free(struct hold *hold)
{
	ledger_drop(hold->node->fs->ledger, &hold->slot);
	while (hold->stakes)
		stake_free(hold->stakes);
	signals_remove(hold);
	DL_DELETE(hold->node->holds, hold);
	node_unlink(hold->node);
	node_unref(hold->node, 1);
	free(hold);
}

void hold_release(struct hold *hold, hold_done_fn *fn, void *user)
{
	struct holding *holding = hold->holding;
	struct node *node = hold->node;

	node_ref(node);
	hold_free(hold);
	lockspace_release(holding, fn, user);
	stakes_changed(node);
	node_unref(node, 1);
}

static bool is_of_file(const struct hold *hold)
{
	const struct stake *stake;

	DL_FOREACH(hold->stakes, stake) {
		if (stake->kind != STAKE_FCNTL)
			return true;
	}
	return false;
}

bool hold_settle(struct hold *hold, hold_done_fn *fn, void *user)
{
	struct ranges ranges;

	if (!hold->stakes) {
		hold_release(hold, fn, user);
		return true;
	}
	if (hold->lost || is_of_file(hold))
		return false;
	hold_ranges(hold, &ranges);
	bool is_less = !ranges_equal(&ranges, &lockspace_record(hold->holding)->ranges);
	if (is_less) {
		hold->of_ranges = true;
		hold_enter(hold);
		lockspace_shrink(hold->holding, &ranges, fn, user);
	}
	ranges_fini(&ranges);
	return is_less;
}

/* It is not any more what the policy of its directory has made of it. */
static void forget_policy(struct hold *hold)
{
	struct record *record = lockspace_record(hold->holding);

	record->hold = STORE_HOLD_CLOSE;
	record->linked = false;
	node_unlink(hold->node);
}

void hold_end(struct hold *hold, pid_t process, hold_done_fn *fn, void *user)
{
	struct stake *stake, *next;

	DL_FOREACH_SAFE(hold->stakes, stake, next) {
		if (stake->kind != STAKE_FCNTL || (stake->pid && stake->pid == process))
			stake_free(stake);
	}
	if (hold->stakes)
		forget_policy(hold);
	hold_settle(hold, fn, user);
}

void holds_free(struct node *node)
{
	while (node->holds)
		hold_free(node->holds);
}

struct hold *stake_remove(const struct request *request)
{
	struct stake *stake;

	DL_FOREACH2(request->handle->stakes, stake, handle_next) {
		if ((int)stake->kind == request->kind)
			break;
	}
	if (!stake)
		return NULL;
	struct hold *hold = stake->hold;
	stake_free(stake);
	return hold;
}

static void close_stake(struct stake *stake)
{
	struct hold *hold = stake->hold;

	stake_free(stake);
	if (hold->stakes)
		stakes_changed(hold->node);
	hold_settle(hold, NULL, NULL);
}

void stakes_admit_loss(const struct request *request)
{
	struct stake *stake, *next;

	/* The owner of an flock is that of the same description's locks of fcntl. */
	DL_FOREACH_SAFE2(request->handle->stakes, stake, next, handle_next)
	{
		if (stake->hold->lost &&
			(stake->kind != STAKE_FCNTL || stake->owner == request->owner))
			close_stake(stake);
	}
}

void stakes_close_owner(struct node *node, uint64_t owner)
{
	struct hold *hold, *next;
	struct stake *stake;

	if (!node->fcntl_stakes)
		return;
	node_ref(node);
	DL_FOREACH_SAFE(node->holds, hold, next) {
		/* An owner has at most one stake in a hold. */
		DL_FOREACH(hold->stakes, stake) {
			if (stake->kind == STAKE_FCNTL && stake->owner == owner)
				break;
		}
		if (stake)
			close_stake(stake);
	}
	node_unref(node, 1);
}

/* Those of fcntl owners first, so that no hold becomes one of their ranges for nothing. */
void stakes_close_handle(struct handle *handle)
{
	struct stake *stake, *next;

	DL_FOREACH_SAFE2(handle->stakes, stake, next, handle_next)
	{
		if (stake->kind == STAKE_FCNTL)
			close_stake(stake);
	}
	while (handle->stakes)
		close_stake(handle->stakes);
}
