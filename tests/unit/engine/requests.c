/* SPDX-License-Identifier: MIT */
/* Requests on their way to the store and back: done in any order, twice, or not at all. */
#include <errno.h>
#include <inttypes.h>
#include <utlist.h>

#include "engine/world.h"

struct request *request_new(struct mount *mount, enum request_kind kind, struct job *job)
{
	struct request *request = xzalloc(sizeof(*request));

	request->kind = kind;
	request->mount = mount;
	request->job = job;
	request->session = mount->session;
	request->clock = mount->clock;
	if (job) {
		request->part = job->part;
		request->token = job->token;
		copy_string(request->id, sizeof(request->id), job->id);
	}
	DL_APPEND(mount->requests, request);
	return request;
}

bool request_exists(const struct mount *mount, enum request_kind kind)
{
	const struct request *request;

	DL_FOREACH(mount->requests, request) {
		if (request->kind == kind)
			return true;
	}
	return false;
}

struct request *request_random(struct world *world, struct request *list, bool of_session)
{
	struct request *request, *found = NULL;
	unsigned int n = 0;

	DL_FOREACH(list, request) {
		if (of_session && request->kind == REQUEST_READ)
			continue;
		if (world_below(world, ++n) == 0)
			found = request;
	}
	return found;
}

void request_free(struct request *request)
{
	DL_DELETE(request->mount->requests, request);
	free(request);
}

/* A copy of it may still arrive. */
void request_stray(struct request *request)
{
	struct world *world = request->mount->world;

	/* One that comes late would say that the place has more, which does no harm but delay. */
	if (!*request->id || !request->session || request->kind == REQUEST_SHRINK ||
		!world_chance(world, world->odds.repeat))
		return;
	struct request *stray = xzalloc(sizeof(*stray));
	*stray = *request;
	stray->job = NULL;
	DL_APPEND(world->strays, stray);
}

static void place(struct world *world, struct request *request)
{
	struct model_place *placed =
		model_put(&world->model, request->id, request->part, request->session);

	/* A repeated request makes good what happened to the key meanwhile. */
	if (request->job) {
		request->job->broken = false;
		request->job->broken_at = 0;
	}
	request->outcome = LOCK_PLACED;
	request->placed_token = placed->token;
	model_read(&world->model, request->known, &request->seen);
}

static void carry_out_try(struct world *world, struct request *request)
{
	if (model_find(&world->model, request->id) ||
		model_is_free(&world->model, request->part, request->except))
		place(world, request);
	else
		request->outcome = LOCK_NOT_PLACED;
}

static void carry_out_leave(struct world *world, struct request *request)
{
	struct model_place *found = model_find(&world->model, request->id);

	if (found && (!request->token || found->token == request->token))
		model_delete(&world->model, found);
}

/* What is written is what it has by then. */
static void carry_out_shrink(struct world *world, const struct request *request)
{
	struct model_place *found = model_find(&world->model, request->id);

	if (found && found->token == request->token)
		model_shrink(&world->model, found, request->job->part);
}

void request_carry_out(struct world *world, struct request *request)
{
	bool ended = request->session && world->model.ended[request->session];

	request->done = true;
	switch (request->kind) {
	case REQUEST_JOIN:
	case REQUEST_TRY:
		if (ended)
			request->outcome = LOCK_NO_SESSION;
		else if (request->kind == REQUEST_JOIN)
			place(world, request);
		else
			carry_out_try(world, request);
		break;
	case REQUEST_LEAVE:
		carry_out_leave(world, request);
		break;
	case REQUEST_SHRINK:
		carry_out_shrink(world, request);
		break;
	case REQUEST_READ:
		model_read(&world->model, 0, &request->seen);
		break;
	case REQUEST_CHECK:
		if (ended)
			request->outcome = LOCK_NO_SESSION;
		model_read(&world->model, 0, &request->seen);
		break;
	}
}

/* The store refuses, or nobody knows whether it has done it. */
static void fail_request(struct world *world, struct request *request)
{
	bool placing = request->kind == REQUEST_JOIN || request->kind == REQUEST_TRY;

	if (world_chance(world, 50))
		request_carry_out(world, request);
	request->done = true;
	request->seen = (struct model_snapshot){0};
	if (placing && request->outcome != LOCK_NO_SESSION) {
		request->outcome = request->kind == REQUEST_TRY ? -EIO : -ENOSPC;
		request->placed_token = 0;
	} else if (request->kind == REQUEST_CHECK && request->outcome != LOCK_NO_SESSION) {
		request_free(request);
	} else if (request->kind == REQUEST_LEAVE || request->kind == REQUEST_SHRINK) {
		request->done = false;
	}
}

/* Brings one request a step further. */
void request_move(struct world *world, struct mount *mount)
{
	struct request *request = request_random(world, mount->requests, false);

	if (!request)
		return;
	if (!request->done && !world->quiet && world_chance(world, world->odds.failure)) {
		fail_request(world, request);
	} else if (!request->done) {
		request_carry_out(world, request);
		world_trace(world, "m%u: %s is carried out (%d) at %" PRIu64, mount->number,
			*request->id ? request->id : "a read", request->kind,
			world->model.revision);
	} else if (!world->quiet && request->outcome == LOCK_PLACED &&
		   world_chance(world, world->odds.repeat)) {
		/* The answer got lost. */
		request->done = false;
		request_stray(request);
	} else {
		mount_deliver(request);
	}
}

/* Only of those whom it does not serve any more: what it would do for others was done. */
void request_move_stray(struct world *world)
{
	struct request *stray = request_random(world, world->strays, false);

	if (!stray)
		return;
	struct job *job = job_find(stray->mount, stray->id);
	DL_DELETE(world->strays, stray);
	if (!job || job->left) {
		world_trace(world, "m%u: %s comes late", stray->mount->number, stray->id);
		request_carry_out(world, stray);
	}
	free(stray);
}
