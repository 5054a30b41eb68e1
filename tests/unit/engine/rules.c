/* SPDX-License-Identifier: MIT */
/* What has to be true after every event, whatever it was. */
#include <string.h>
#include <utlist.h>

#include "engine/world.h"

static bool is_replaced_by(const struct job *job, const struct job *other)
{
	return other->replaces == job;
}

static void check_pair(const struct world *world, const struct job *a, const struct job *b)
{
	if (a == b || !a->held || !b->held || !job_is_alive(a) || !job_is_alive(b))
		return;
	require(world,
		!model_conflict(a->part, b->part) || is_replaced_by(a, b) || is_replaced_by(b, a));
}

/* A holder's key exists, and before it there is only what its own mount has given back. */
static void check_holder(const struct world *world, const struct job *job)
{
	const struct model_place *place = model_find(&world->model, job->id), *before;

	require(world, place);
	require(world, place->token == job->token && job->claim.token == job->token);
	DL_FOREACH(world->model.places, before) {
		if (before == place)
			return;
		if (!model_conflict(before->part, job->part))
			continue;
		require(world, world->owner[before->session] == job->mount);
		const struct job *earlier = job_at(job->mount, before);
		require(world, !earlier || earlier == job->replaces ||
				       !model_conflict(earlier->part, job->part));
	}
}

static void check_holders(const struct world *world)
{
	const struct job *a, *b;

	for (unsigned int i = 0; i < world->mount_count; i++) {
		DL_FOREACH(world->mounts[i].jobs, a) {
			if (!a->held || !job_is_alive(a))
				continue;
			check_holder(world, a);
			for (unsigned int k = i; k < world->mount_count; k++) {
				DL_FOREACH(world->mounts[k].jobs, b) {
					check_pair(world, a, b);
				}
			}
		}
	}
}

/* Whoever comes to hold a byte has a larger token than every exclusive holder of it before. */
static void check_token(struct world *world, uint64_t token, struct part part)
{
	for (unsigned int i = 0; i < MODEL_BYTES; i++) {
		require(world, !((part.read | part.write) >> i & 1) || token > world->exclusive[i]);
		if (part.write >> i & 1)
			world->exclusive[i] = token;
	}
}

void rules_check_grant(const struct job *job)
{
	struct world *world = job->mount->world;

	require(world, job->mount->session && !job->left && job->placed);
	/* What was deleted together is known together: nobody held for the time between. */
	require(world, !job->broken_at || job->claim.try || job->mount->missed ||
			       job->broken_at > job->mount->heard);
	if (!job_is_alive(job))
		return;
	check_holder(world, job);
	check_token(world, job->token, job->part);
}

/* Foreign contenders hold the lock as soon as nobody before is in their way. */
static void check_foreign(struct world *world)
{
	struct model_place *place;
	struct part before = {0};

	DL_FOREACH(world->model.places, place) {
		if (!world->owner[place->session] && !place->seen_holding &&
			!model_conflict(before, place->part)) {
			place->seen_holding = true;
			check_token(world, place->token, place->part);
		}
		before.read |= place->part.read;
		before.write |= place->part.write;
	}
}

/* True if nothing that the engine knows of stands in the way, or may do so. */
static bool is_grantable(const struct lock *lock, struct claim *claim)
{
	const struct lock_entry *e;
	const struct claim *other;

	DL_FOREACH(lock->joining, other) {
		if (lock_is_barred(claim, other->shared, other->ranges) && !other->canceled &&
			other->asked_after < claim->token)
			return false;
	}
	DL_FOREACH(lock->view, e) {
		if (e->claim == claim)
			return true;
		bool is_kin = e->claim && e->claim->state == CLAIM_HELD &&
			      lock->ops->is_kin(claim, e->claim);
		if (lock_is_barred(claim, e->shared, e->ranges) && !is_kin)
			return false;
	}
	return false;
}

static struct part part_of(const struct ranges *ranges)
{
	struct part part = {0};

	for (size_t i = 0; i < ranges->count; i++) {
		const struct range *range = &ranges->list[i];
		for (unsigned int b = 0; b < MODEL_BYTES; b++) {
			unsigned int bit = range->start <= b && b <= range->end ? 1u << b : 0;
			*(range->exclusive ? &part.write : &part.read) |= bit;
		}
	}
	return part;
}

/* No less than it has. */
static bool is_in_view(const struct lock *lock, const struct model_place *place)
{
	const struct lock_entry *e;

	DL_FOREACH(lock->view, e) {
		struct part part = {.read = MODEL_ALL};
		if (e->ranges)
			part = part_of(e->ranges);
		else if (!e->shared)
			part = (struct part){.write = MODEL_ALL};
		if (!e->claim && e->token == place->token)
			return model_covers(part, place->part) && e->shared == !part.write;
	}
	return false;
}

/* In the order of tokens, nobody twice, and complete as far as the engine thinks that it is. */
static void check_view(const struct mount *mount)
{
	const struct world *world = mount->world;
	const struct lock *lock = &mount->lock;
	const struct model_place *place;
	const struct lock_entry *e;
	uint64_t token = 0;

	DL_FOREACH(lock->view, e) {
		require(world, e->token > token);
		token = e->token;
		if (!e->claim)
			continue;
		require(world, !job_of(e->claim)->left);
		require(world, e->claim->state == CLAIM_HELD || e->claim->state == CLAIM_WAITING);
		require(world, e->token == e->claim->token && e->shared == e->claim->shared);
	}
	DL_FOREACH(world->model.places, place) {
		if (place->token <= lock->known && world->owner[place->session] != mount)
			require(world, is_in_view(lock, place));
	}
}

/* What a job has seen is what the engine says of it. */
static void check_job(struct job *job)
{
	const struct mount *mount = job->mount;
	const struct world *world = mount->world;
	struct claim *claim = &job->claim;

	require(world, job->held == (claim->state == CLAIM_HELD));
	switch (claim->state) {
	case CLAIM_NEW:
		/* The next is sent at once, but a try waits for what comes and goes before it. */
		require(world, mount->lock.suspended || mount->lock.trying || mount->lock.joining ||
				       mount->partial ||
				       (mount->lock.entering->try && mount->lock.leaving));
		break;
	case CLAIM_WAITING:
		require(world, !mount->lock.suspended);
		require(world,
			mount->lock.blind || mount->partial || !is_grantable(&mount->lock, claim));
		break;
	case CLAIM_JOINING:
	case CLAIM_HELD:
		require(world, !mount->lock.suspended);
		break;
	case CLAIM_LOST:
	case CLAIM_LEAVING:
		break;
	case CLAIM_OVER:
		require(world, !"over");
	}
}

static void check_mount(const struct mount *mount)
{
	const struct world *world = mount->world;
	const struct claim *first = lock_first_claim(&mount->lock);
	size_t jobs = 0, in_view = 0, leaving = 0;
	struct job *job;

	check_view(mount);
	DL_FOREACH(mount->jobs, job) {
		bool in_queue = job->claim.state == CLAIM_HELD || job->claim.state == CLAIM_WAITING;
		check_job(job);
		jobs++;
		in_view += in_queue;
		leaving += job->claim.state == CLAIM_LEAVING;
		require(world, !in_queue || (first && first->token <= job->claim.token));
	}
	require(world, mount->lock.claims == jobs && mount->lock.leaving == leaving);
	const struct lock_entry *e;
	DL_FOREACH(mount->lock.view, e) {
		in_view -= e->claim != NULL;
	}
	require(world, in_view == 0);
}

void rules_check(struct world *world)
{
	check_holders(world);
	check_foreign(world);
	for (unsigned int i = 0; i < world->mount_count; i++)
		check_mount(&world->mounts[i]);
}

/* Nobody who came later is sent before. */
void rules_check_order(const struct job *job)
{
	const struct job *other;

	DL_FOREACH(job->mount->jobs, other) {
		require(job->mount->world,
			other->claim.state != CLAIM_NEW || other->arrival >= job->arrival);
	}
}

/* A try that is refused without the store being asked: somebody is there. */
static bool is_busy_here(const struct job *job)
{
	const struct job *other;

	DL_FOREACH(job->mount->jobs, other) {
		if (other != job && other != job->replaces && !other->left && other->placed &&
			model_conflict(other->part, job->part))
			return true;
	}
	return false;
}

void rules_check_busy(const struct job *job)
{
	require(job->mount->world,
		job->claim.try && (job->claim.state == CLAIM_JOINING || is_busy_here(job)));
}

/* True if the queue in the store has nobody in the job's way. */
static bool is_first(const struct world *world, const struct job *job)
{
	const struct model_place *before;

	DL_FOREACH(world->model.places, before) {
		if (strcmp(before->id, job->id) == 0)
			return true;
		if (model_conflict(before->part, job->part) &&
			!(job->replaces && job->replaces->held &&
				strcmp(before->id, job->replaces->id) == 0))
			return false;
	}
	return false;
}

static bool has_broken(const struct mount *mount)
{
	const struct job *job;

	DL_FOREACH(mount->jobs, job) {
		if (job->broken)
			return true;
	}
	return false;
}

/*
 * News alone must do it, if none were lost.  Left out are mounts that lost a session: a read from
 * before may show what was theirs, and news of that were not for the engine then.
 */
void rules_check_nobody_sleeps(const struct world *world)
{
	for (unsigned int i = 0; i < world->mount_count; i++) {
		const struct mount *mount = &world->mounts[i];
		const struct job *job;
		if (world->odds.deaf || mount->losses || has_broken(mount))
			continue;
		DL_FOREACH(mount->jobs, job) {
			require(world, job->claim.state != CLAIM_NEW);
			require(world, job->claim.state != CLAIM_WAITING || !is_first(world, job));
		}
	}
}

/* Whoever may have the lock has it, and everybody has a place or is lost. */
void rules_check_settled(const struct world *world)
{
	for (unsigned int i = 0; i < world->mount_count; i++) {
		const struct job *job;
		DL_FOREACH(world->mounts[i].jobs, job) {
			enum claim_state state = job->claim.state;
			require(world, state == CLAIM_HELD || state == CLAIM_WAITING ||
					       state == CLAIM_LOST);
			require(world, !job->broken || state == CLAIM_LOST);
			require(world, (state == CLAIM_WAITING) == !job->answered);
			require(world, state != CLAIM_WAITING || !is_first(world, job));
		}
	}
}
