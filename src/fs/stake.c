/* SPDX-License-Identifier: MIT */
#include "fs/stake.h"

#include <utlist.h>

#include "base/util.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/request.h"
#include "lock/lockspace.h"

static bool is_shared_by(const struct stake *stake, const struct handle *handle,
	enum stake_kind kind, uint64_t owner)
{
	if (stake->kind == STAKE_FCNTL && kind == STAKE_FCNTL)
		return stake->owner == owner;
	return stake->handle == handle;
}

struct hold *hold_find(
	struct node *node, const struct handle *handle, enum stake_kind kind, uint64_t owner)
{
	struct hold *hold;
	struct stake *stake;

	DL_FOREACH(node->holds, hold) {
		DL_FOREACH(hold->stakes, stake) {
			if (is_shared_by(stake, handle, kind, owner))
				return hold;
		}
	}
	return NULL;
}

struct hold *hold_of_handle(const struct handle *handle)
{
	struct hold *hold, *found = NULL;
	struct stake *stake;

	DL_FOREACH(handle->node->holds, hold) {
		DL_SEARCH_SCALAR(hold->stakes, stake, handle, handle);
		if (stake && (!found || hold->lost))
			found = hold;
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
		if (stake->kind != kind || stake->handle != handle)
			return false;
	}
	return true;
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

static struct stake *find_stake(const struct hold *hold, const struct request *request)
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

bool stake_is_covered(const struct hold *hold, const struct request *request)
{
	const struct stake *stake = find_stake(hold, request);
	const struct range *range;

	if (!stake || hold->stakes->next)
		return false;
	DL_FOREACH(stake->ranges, range) {
		if (range->start < request->start || range->end > request->end)
			return false;
	}
	return true;
}

void stake_add(struct hold *hold, const struct request *request)
{
	struct stake *stake = find_stake(hold, request);

	if (!stake) {
		stake = xzalloc(sizeof(*stake));
		stake->kind = (enum stake_kind)request->kind;
		stake->handle = request->handle;
		stake->owner = request->owner;
		DL_APPEND(hold->stakes, stake);
	}
	if (stake->kind == STAKE_FCNTL)
		ranges_add(&stake->ranges, request->start, request->end);
}

static void stake_free(struct hold *hold, struct stake *stake)
{
	DL_DELETE(hold->stakes, stake);
	ranges_clear(&stake->ranges);
	free(stake);
}

static void hold_free(struct hold *hold)
{
	while (hold->stakes)
		stake_free(hold, hold->stakes);
	DL_DELETE(hold->node->holds, hold);
	node_unref(hold->node, 1);
	free(hold);
}

void hold_release(struct hold *hold, hold_done_fn *fn, void *user)
{
	struct holding *holding = hold->holding;

	hold_free(hold);
	lockspace_release(holding, fn, user);
}

void holds_free(struct node *node)
{
	while (node->holds)
		hold_free(node->holds);
}

struct hold *stake_remove(const struct request *request)
{
	struct node *node = request->handle->node;
	struct hold *hold;

	DL_FOREACH(node->holds, hold) {
		struct stake *stake = find_stake(hold, request);
		if (!stake)
			continue;
		ranges_remove(&stake->ranges, request->start, request->end);
		/* Of a lost lock nothing is worth keeping. */
		if (stake->ranges && !hold->lost)
			return NULL;
		stake_free(hold, stake);
		return hold->lost || !hold->stakes ? hold : NULL;
	}
	return NULL;
}

/* Ends the stakes in the node that match, and gives back what nobody needs any more. */
static void close_stakes(struct node *node, const struct handle *handle, uint64_t owner)
{
	struct hold *hold, *next_hold;
	struct stake *stake, *next;

	node_ref(node);
	DL_FOREACH_SAFE(node->holds, hold, next_hold) {
		DL_FOREACH_SAFE(hold->stakes, stake, next) {
			if (handle ? stake->handle == handle
				   : stake->kind == STAKE_FCNTL && stake->owner == owner)
				stake_free(hold, stake);
		}
		if (!hold->stakes)
			hold_release(hold, NULL, NULL);
	}
	node_unref(node, 1);
}

void stakes_close_owner(struct node *node, uint64_t owner)
{
	close_stakes(node, NULL, owner);
}

void stakes_close_handle(struct handle *handle)
{
	close_stakes(handle->node, handle, 0);
}
