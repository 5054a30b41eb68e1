/* SPDX-License-Identifier: MIT */
/*
 * The process of a machine dies, and another one goes on with what it knew of claims and places, as
 * lock/revive.c does it.  What was known of others is lost, and so is what was on its way.
 */
#include <string.h>
#include <utlist.h>

#include "engine/world.h"

/* It may have been done, may still be, or never. */
static void lose_requests(struct mount *mount)
{
	struct world *world = mount->world;
	struct request *request, *next;

	DL_FOREACH_SAFE(mount->requests, request, next) {
		if (!request->done && world_chance(world, 50))
			request_carry_out(world, request);
		request_stray(request);
		request_free(request);
	}
}

static void lose_news(struct mount *mount)
{
	struct model_event *event;

	while ((event = model_watch_next(&mount->watch)))
		free(event);
	mount->missed = true;
	mount->partial = mount->unread = false;
}

/* Gives the rivals back, since it is the same process after all. */
static void forget_queue(struct mount *mount)
{
	struct lock_entry *e, *next;

	DL_FOREACH_SAFE(mount->lock.view, e, next) {
		if (e->claim)
			DL_DELETE(mount->lock.view, e);
	}
	mount->lock.claims = 0;
	mount->lock.joining = NULL;
	lock_fini(&mount->lock);
	lock_init(&mount->lock, &mount_ops, !mount->session);
}

static void adopt(struct job *job, bool held)
{
	struct mount *mount = job->mount;

	job->placed = true;
	job->placed_at = ++mount->clock;
	lock_adopt(&mount->lock, &job->claim, job->token, held);
}

static void leave_again(struct job *job)
{
	job->answered = job->left = true;
	job->leaving = false;
	adopt(job, true);
	lock_leave(&job->mount->lock, &job->claim, 0);
}

/* Whether it has a place is not known: that is given back, and it asks for another. */
static void ask_again(struct job *job)
{
	struct mount *mount = job->mount;
	struct job *place = xzalloc(sizeof(*place));

	place->mount = mount;
	place->number = job->number;
	place->plain = job->plain;
	job_set_part(place, job->part);
	copy_string(place->id, sizeof(place->id), job->id);
	place->known = true;
	job->known = job->placed = false;
	DL_PREPEND(mount->jobs, place);
	leave_again(place);
}

static void revive(struct job *job, enum claim_state state)
{
	struct lock *lock = &job->mount->lock;

	switch (state) {
	case CLAIM_NEW:
		break;
	case CLAIM_JOINING:
		if (job->left)
			leave_again(job);
		else
			ask_again(job);
		break;
	case CLAIM_WAITING:
	case CLAIM_HELD:
		adopt(job, state == CLAIM_HELD);
		if (state == CLAIM_HELD && !job->plain)
			request_new(job->mount, REQUEST_SHRINK, job);
		break;
	case CLAIM_LOST:
		job->claim.lock = lock;
		lock->claims++;
		break;
	case CLAIM_LEAVING:
		leave_again(job);
		break;
	case CLAIM_OVER:
		break;
	}
}

struct revived {
	struct job *job;
	enum claim_state state; /* before */
};

static int by_token(const void *a, const void *b)
{
	const struct revived *x = a, *y = b;

	return (x->job->token > y->job->token) - (x->job->token < y->job->token);
}

static bool is_to_ask(const struct revived *revived)
{
	return !revived->job->left &&
	       (revived->state == CLAIM_NEW || revived->state == CLAIM_JOINING);
}

void mount_restart(struct mount *mount)
{
	struct world *world = mount->world;
	struct revived revived[MAX_REVIVED];
	struct job *job;
	size_t count = 0;

	DL_FOREACH(mount->jobs, job) {
		require(world, count < MAX_REVIVED);
		revived[count++] = (struct revived){.job = job, .state = job->claim.state};
	}
	qsort(revived, count, sizeof(revived[0]), by_token);
	world_trace(world, "m%u: another process goes on", mount->number);
	lose_requests(mount);
	lose_news(mount);
	forget_queue(mount);
	for (size_t i = 0; i < count; i++) {
		if (revived[i].state == CLAIM_WAITING || revived[i].state == CLAIM_HELD)
			revived[i].job->arrival = ++world->arrivals;
		revive(revived[i].job, revived[i].state);
	}
	for (size_t i = 0; i < count; i++) {
		if (is_to_ask(&revived[i]))
			revived[i].job->arrival = ++world->arrivals;
	}
	/* When all that there was is there, who had no place asks again. */
	for (size_t i = 0; i < count; i++) {
		if (is_to_ask(&revived[i]))
			lock_take(&mount->lock, &revived[i].job->claim);
	}
	mount_start_read(mount, true);
	mount_start_check(mount);
}
