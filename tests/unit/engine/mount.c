/* SPDX-License-Identifier: MIT */
/*
 * One machine: the engine, driven with a model store as store/etcd and the lockspace drive it.
 *
 * What the engine asks for is noted as a request.  What comes back is told to the engine without
 * what is ours; a place is ours while its id is known.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/world.h"

static void forget_id(struct job *job)
{
	job->known = false;
	job->placed = false;
}

static void on_place(struct claim *claim)
{
	struct job *job = job_of(claim);
	struct mount *mount = job->mount;
	struct world *world = mount->world;

	require(world, !job->left && !job->known);
	require(world, mount->session || mount->losing);
	require(world, !request_exists(mount, REQUEST_TRY));
	require(world, !claim->try || !request_exists(mount, REQUEST_JOIN));
	require(world, !claim->try || !request_exists(mount, REQUEST_LEAVE));
	rules_check_order(job);
	snprintf(job->id, sizeof(job->id), "%s%sm%u.%u", claim->shared ? "s-" : "",
		job->plain ? "" : "r", mount->number, ++world->jobs);
	job->known = true;
	job->placed = job->leaving = job->broken = false;
	job->broken_at = job->deleted = 0;
	job->token = 0;
	struct request *request = request_new(mount, claim->try ? REQUEST_TRY : REQUEST_JOIN, job);
	request->known = mount->lock.known;
	if (job->replaces && job->replaces->held)
		copy_string(request->except, sizeof(request->except), job->replaces->id);
	world_trace(world, "  m%u: job %u asks for place %s", mount->number, job->number, job->id);
}

static void on_leave(struct claim *claim)
{
	struct job *job = job_of(claim);
	struct mount *mount = job->mount;

	require(mount->world, job->left && job->known && !job->leaving);
	require(mount->world, mount->session || mount->losing);
	job->leaving = true;
	request_new(mount, REQUEST_LEAVE, job);
	world_trace(
		mount->world, "  m%u: job %u gives %s back", mount->number, job->number, job->id);
}

static void on_answer(struct claim *claim, int result)
{
	struct job *job = job_of(claim);
	struct world *world = job->mount->world;

	require(world, !job->answered);
	job->answered = true;
	world_trace(world, "  m%u: job %u is answered %d", job->mount->number, job->number, result);
	if (result == CLAIM_GRANTED) {
		job->held = true;
		rules_check_grant(job);
		return;
	}
	if (result == CLAIM_BUSY)
		rules_check_busy(job);
	job->left = true;
}

static void on_lost(struct claim *claim)
{
	struct job *job = job_of(claim);

	require(job->mount->world, job->answered && job->held && !job->left);
	world_trace(job->mount->world, "  m%u: job %u lost it", job->mount->number, job->number);
	job->held = false;
}

/* As the lockspace does it, the claim is freed at once. */
static void on_over(struct claim *claim)
{
	struct job *job = job_of(claim);
	struct mount *mount = job->mount;

	require(mount->world, job->answered && job->left);
	world_trace(mount->world, "  m%u: job %u is over", mount->number, job->number);
	DL_DELETE(mount->jobs, job);
	struct request *request, *next;
	DL_FOREACH_SAFE(mount->requests, request, next) {
		if (request->job == job)
			request_free(request);
	}
	ranges_fini(&job->ranges);
	memset(job, 0xa5, sizeof(*job));
	free(job);
}

/* A rival that says whose it is. */
struct owned_rival {
	struct rival rival;
	struct world *world;
};

static void on_drop(struct rival *rival)
{
	struct owned_rival *owned = container_of(rival, struct owned_rival, rival);

	require(owned->world, owned->world->rivals > 0);
	owned->world->rivals--;
	free(rival->id);
	ranges_fini(&rival->ranges);
	memset(owned, 0xa5, sizeof(*owned));
	free(owned);
}

static bool is_kin(struct claim *claim, struct claim *held)
{
	return job_of(claim)->replaces == job_of(held);
}

static bool may_grant(struct lock *lock)
{
	return !container_of(lock, struct mount, lock)->partial;
}

const struct lock_ops mount_ops = {
	.place = on_place,
	.leave = on_leave,
	.answer = on_answer,
	.lost = on_lost,
	.over = on_over,
	.drop = on_drop,
	.is_kin = is_kin,
	.may_grant = may_grant,
};

/* --- what stands between the engine and the store --- */

static struct rival *new_rival(
	struct world *world, const char *id, uint64_t token, struct part part, uint64_t changed)
{
	struct owned_rival *owned = xzalloc(sizeof(*owned));
	struct job stand_in = {.plain = !strchr(id, 'r')};

	job_set_part(&stand_in, part);
	owned->world = world;
	owned->rival.id = xstrdup(id);
	owned->rival.entry.token = token;
	owned->rival.entry.shared = !part.write;
	owned->rival.ranges = stand_in.ranges;
	owned->rival.entry.ranges = stand_in.ranges.count ? &owned->rival.ranges : NULL;
	owned->rival.changed = changed;
	world->rivals++;
	return &owned->rival;
}

/*
 * What a read showed, without what is ours, or was left over by somebody of ours.  Without parts it
 * shows only what everybody began with.
 */
static struct rival *rivals_of(
	struct mount *mount, const struct model_snapshot *seen, bool parts, bool *stale)
{
	struct rival *rivals = NULL;

	for (size_t i = seen->count; i-- > 0;) {
		const struct model_place *place = &seen->places[i];
		if (job_find(mount, place->id) ||
			(mount->session && place->session == mount->session))
			continue;
		*stale = *stale || (!parts && place->changed > place->token);
		struct rival *rival = new_rival(mount->world, place->id, place->token,
			parts ? place->part : place->first, parts ? place->changed : 0);
		LL_PREPEND(rivals, rival);
	}
	return rivals;
}

static void tell_gone(struct job *job)
{
	struct mount *mount = job->mount;

	forget_id(job);
	world_trace(mount->world, "m%u: job %u has lost its place", mount->number, job->number);
	lock_gone(&mount->lock, &job->claim);
	if (mount->unread)
		mount_start_read(mount, true);
	mount->unread = false;
}

/* News that came before the answer concern the place that it tells of. */
static void heed(struct mount *mount, struct job *job, bool was_partial)
{
	if (!job->leaving)
		tell_gone(job);
	mount->partial = was_partial;
	if (!was_partial)
		lock_told(&mount->lock);
}

static void answer_placing(struct request *request)
{
	struct mount *mount = request->mount;
	struct job *job = request->job;
	bool join = request->kind == REQUEST_JOIN && request->outcome == LOCK_PLACED;

	if (request->outcome == LOCK_PLACED) {
		job->token = request->placed_token;
		job->placed = true;
		job->placed_at = ++mount->clock;
	} else if (request->outcome > 0) {
		forget_id(job);
	}
	bool stale = join && request->seen.revision < mount->shrunk;
	struct rival *rivals = join ? rivals_of(mount, &request->seen, false, &stale) : NULL;
	int outcome = request->outcome;
	uint64_t token = request->placed_token, revision = request->seen.revision;
	uint64_t arrival = job->claim.arrival;
	if (outcome != LOCK_PLACED)
		request_stray(request);
	request_free(request);
	world_trace(mount->world,
		"m%u: job %u: outcome %d, token %" PRIu64 ", known up to %" PRIu64, mount->number,
		job->number, outcome, token, revision);
	if (stale)
		mount_start_read(mount, true);
	bool is_late = outcome == LOCK_PLACED && job->deleted > token;
	bool was_partial = mount->partial;
	mount->partial = was_partial || is_late;
	lock_placed(&mount->lock, &job->claim, outcome, token, revision, rivals);
	if (is_late)
		heed(mount, job, was_partial);
	if ((mount->lock.blind || arrival <= mount->lock.doubted) &&
		lock_is_contended(&mount->lock))
		mount_start_read(mount, true);
}

static void answer_leave(struct request *request)
{
	struct mount *mount = request->mount;
	struct job *job = request->job;

	forget_id(job);
	request_stray(request);
	request_free(request);
	world_trace(mount->world, "m%u: job %u has left", mount->number, job->number);
	lock_left(&mount->lock, &job->claim);
}

static void note_heard(struct mount *mount, uint64_t revision)
{
	if (revision > mount->heard)
		mount->heard = revision;
}

static bool is_in(const struct model_snapshot *seen, const char *id)
{
	for (size_t i = 0; i < seen->count; i++) {
		if (strcmp(seen->places[i].id, id) == 0)
			return true;
	}
	return false;
}

/* Something of ours has gone, of which we will hear. */
static bool misses_ours(const struct mount *mount, const struct model_snapshot *seen)
{
	const struct lock_entry *e;

	DL_FOREACH(mount->lock.view, e) {
		if (e->claim && e->token <= seen->revision && !is_in(seen, job_of(e->claim)->id))
			return true;
	}
	return false;
}

static void answer_read(struct request *request)
{
	struct mount *mount = request->mount;
	bool stale = false;

	mount->unread = misses_ours(mount, &request->seen);
	if (mount->unread)
		request->seen = (struct model_snapshot){0};
	struct rival *rivals = rivals_of(mount, &request->seen, request->parts, &stale);
	uint64_t revision = request->seen.revision;

	note_heard(mount, revision);
	request_free(request);
	if (stale)
		mount_start_read(mount, true);
	world_trace(mount->world, "m%u: the queue as of %" PRIu64, mount->number, revision);
	lock_read_end(&mount->lock, revision, rivals);
}

/* The comparison of what the session has with what we think that it has. */
static void answer_check(struct request *request)
{
	struct mount *mount = request->mount;
	struct world *world = mount->world;
	cleanup(free_ptr) struct request *check = request;
	struct job *job, *next;

	DL_DELETE(mount->requests, request);
	world_trace(world, "m%u: the keys as of %" PRIu64, mount->number, check->seen.revision);
	for (size_t i = 0; i < check->seen.count; i++) {
		const struct model_place *seen = &check->seen.places[i];
		struct model_place *place = model_find(&world->model, seen->id);
		if (seen->session == mount->session && place && !job_find(mount, seen->id))
			model_delete(&world->model, place);
	}
	DL_FOREACH_SAFE(mount->jobs, job, next) {
		if (job->known && job->placed && !job->leaving && job->placed_at <= check->clock &&
			!is_in(&check->seen, job->id))
			tell_gone(job);
	}
}

void mount_deliver(struct request *request)
{
	if (request->outcome == LOCK_NO_SESSION) {
		mount_give_up_session(request->mount);
		return;
	}
	switch (request->kind) {
	case REQUEST_JOIN:
	case REQUEST_TRY:
		answer_placing(request);
		break;
	case REQUEST_LEAVE:
		answer_leave(request);
		break;
	case REQUEST_SHRINK:
		request_free(request);
		break;
	case REQUEST_READ:
		answer_read(request);
		break;
	case REQUEST_CHECK:
		answer_check(request);
		break;
	}
}

/* Everything that needed the session is answered before the engine is told. */
void mount_give_up_session(struct mount *mount)
{
	struct world *world = mount->world;
	struct request *request;
	struct job *job;

	world_trace(world, "m%u: session %u is lost", mount->number, mount->session);
	mount->losing = true;
	mount->losses++;
	mount->session = 0;
	while ((request = request_random(world, mount->requests, true))) {
		request->outcome = LOCK_NO_SESSION;
		if (request->kind == REQUEST_CHECK || request->kind == REQUEST_SHRINK)
			request_free(request);
		else if (request->kind == REQUEST_LEAVE)
			answer_leave(request);
		else
			answer_placing(request);
		/* From the first such answer on it knows enough to grant nothing any more. */
		if (mount->lock.suspended && world_chance(world, 20))
			job_maybe_end(mount);
	}
	mount->losing = false;
	DL_FOREACH(mount->jobs, job) {
		forget_id(job);
	}
	lock_suspend(&mount->lock);
}

void mount_start_session(struct mount *mount)
{
	struct world *world = mount->world;

	mount->session = model_new_session(&world->model);
	world->owner[mount->session] = mount;
	world_trace(world, "m%u: session %u", mount->number, mount->session);
	lock_resume(&mount->lock);
}

static void hear(struct mount *mount, const struct model_event *event)
{
	struct world *world = mount->world;
	struct job *job = job_find(mount, event->id);

	world_trace(world, "m%u: hears that %s went at %" PRIu64, mount->number, event->id,
		event->revision);
	if (event->shrunk) {
		if (!job)
			mount_start_read(mount, true);
		mount->shrunk = event->revision;
		return;
	}
	if (!job)
		lock_removed(&mount->lock,
			new_rival(world, event->id, event->revision, (struct part){0}, 0));
	else if (!job->placed)
		job->deleted = event->revision;
	else if (!job->leaving && job->token < event->revision)
		tell_gone(job);
}

void mount_hear(struct mount *mount, bool deaf)
{
	cleanup(free_ptr) struct model_event *event = model_watch_next(&mount->watch);

	if (!event)
		return;
	/* From the first event of a revision on; the last one's end is told for itself. */
	mount->partial = true;
	note_heard(mount, event->revision);
	mount->missed = mount->missed || deaf;
	if (!deaf)
		hear(mount, event);
	mount->partial = event->more;
	if (!event->more)
		lock_told(&mount->lock);
}

void mount_start_read(struct mount *mount, bool parts)
{
	lock_read_begin(&mount->lock);
	request_new(mount, REQUEST_READ, NULL)->parts = parts;
}

void mount_start_check(struct mount *mount)
{
	if (mount->session && !request_exists(mount, REQUEST_CHECK))
		request_new(mount, REQUEST_CHECK, NULL);
}
