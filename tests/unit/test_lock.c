/* SPDX-License-Identifier: MIT */
/*
 * The lock engine, by seeded random event sequences on a model store, against invariants.
 *
 * Some mounts, each an engine with a session, and some foreign contenders share one lock.  Requests
 * are carried out and answered in any order, some twice, some not at all; news of deletes comes
 * late or never; sessions are lost; an operator deletes keys.  Between a mount's engine and the
 * model stands what store/etcd does between them: ids, and what is known to be ours.
 *
 * After each event it is checked that nobody holds what somebody else holds, that nobody was
 * overtaken, that every grant has its place in the store, and that the engine's view is sound.
 * At the end of a sequence everything is delivered, and whoever is first has to have the lock.
 *
 * LATCHFS_SEED and LATCHFS_ROUNDS in the environment choose the sequences, and LATCHFS_TRACE shows
 * them.  Sequences run in a child, so that even one that crashes is reported with its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#include "engine/world.h"

enum { DEFAULT_ROUNDS = 10000, SECONDS = 60 };

static const struct part EXCLUSIVE = {.write = MODEL_ALL}, SHARED = {.read = MODEL_ALL};

/* --- what else happens --- */

/* A contender that is not one of ours comes or goes.  Its ids are used again and again. */
static void move_foreign(struct world *world)
{
	unsigned int session = 1 + world_below(world, world->foreign_count);
	bool shared = world_chance(world, world->odds.shared);
	char id[MODEL_ID_SIZE];

	snprintf(id, sizeof(id), "%sf%u", shared ? "s-" : "", session);
	struct model_place *found = model_find(&world->model, id);
	if (found)
		model_delete(&world->model, found);
	else
		model_put(&world->model, id, shared ? SHARED : EXCLUSIVE, session);
	world_trace(world, "%s comes or goes at %" PRIu64, id, world->model.revision);
}

static void mark_broken(struct world *world, const struct model_place *place)
{
	struct job *job = job_at(world->owner[place->session], place);

	if (job)
		job->broken = true;
}

/* An operator deletes somebody's key. */
static void break_place(struct world *world)
{
	struct model_place *place, *found = NULL;
	unsigned int n = 0;

	DL_FOREACH(world->model.places, place) {
		if (world_below(world, ++n) == 0)
			found = place;
	}
	if (!found)
		return;
	world_trace(world, "somebody deletes %s", found->id);
	mark_broken(world, found);
	model_delete(&world->model, found);
}

/* An operator deletes the keys of the lock, all that there are, in one transaction. */
static void break_all(struct world *world)
{
	struct model_place *place;

	if (!world->model.places)
		return;
	world_trace(world, "somebody deletes them all");
	DL_FOREACH(world->model.places, place) {
		struct job *job = job_at(world->owner[place->session], place);
		mark_broken(world, place);
		if (job)
			job->broken_at = world->model.revision + 1;
	}
	model_delete_all(&world->model);
}

/* An operator revokes the session, which its mount finds out by itself. */
static void break_session(struct mount *mount)
{
	struct world *world = mount->world;
	struct model_place *place;

	if (!mount->session || world->model.ended[mount->session])
		return;
	world_trace(world, "somebody ends session %u", mount->session);
	DL_FOREACH(world->model.places, place) {
		if (place->session == mount->session)
			mark_broken(world, place);
	}
	model_end_session(&world->model, mount->session);
}

/* The store ends the sessions that their mounts have given up. */
static void end_lost_sessions(struct world *world)
{
	for (unsigned int s = world->foreign_count + 1; s <= world->model.sessions; s++) {
		if (!world->model.ended[s] && world->owner[s]->session != s) {
			world_trace(world, "session %u ends", s);
			model_end_session(&world->model, s);
		}
	}
}

static bool may_start_session(struct mount *mount)
{
	return !mount->session && mount->world->model.sessions + 2 < MODEL_MAX_SESSIONS;
}

/* Things that seldom happen. */
static void have_accident(struct world *world, struct mount *mount)
{
	switch (world_below(world, 10)) {
	case 0:
		break_place(world);
		break;
	case 1:
		if (world_chance(world, 30))
			break_session(mount);
		break;
	case 2:
		if (mount->session)
			mount_give_up_session(mount);
		break;
	case 3:
		mount_start_check(mount);
		break;
	case 4:
		mount_start_read(mount, true);
		break;
	case 5:
		mount_restart(mount);
		break;
	case 6:
		break_all(world);
		break;
	default:
		request_move_stray(world);
		break;
	}
}

static void step(struct world *world)
{
	struct mount *mount = &world->mounts[world_below(world, world->mount_count)];
	unsigned int what = world_below(world, 100);

	if (what < 12) {
		job_start_random(mount);
	} else if (what < 24) {
		job_maybe_end(mount);
	} else if (what < 60) {
		request_move(world, mount);
	} else if (what < 80) {
		mount_hear(mount, world_chance(world, world->odds.deaf));
	} else if (what < 88) {
		if (world->foreign_count)
			move_foreign(world);
	} else if (what < 91) {
		if (may_start_session(mount))
			mount_start_session(mount);
	} else if (what < 93) {
		end_lost_sessions(world);
	} else if (what < 96) {
		if (lock_is_contended(&mount->lock))
			mount_start_read(mount, world_chance(world, 50));
	} else if (what < 98) {
		job_shrink_random(mount);
	} else {
		have_accident(world, mount);
	}
	rules_check(world);
}

static bool is_settled(const struct world *world)
{
	for (unsigned int i = 0; i < world->mount_count; i++) {
		if (world->mounts[i].requests || world->mounts[i].watch.events)
			return false;
	}
	return !world->strays;
}

static void deliver_all(struct world *world)
{
	while (!is_settled(world)) {
		struct mount *mount = &world->mounts[world_below(world, world->mount_count)];
		request_move_stray(world);
		request_move(world, mount);
		mount_hear(mount, world_chance(world, world->odds.deaf));
		if (!mount->session)
			mount_start_session(mount);
		end_lost_sessions(world);
		rules_check(world);
	}
}

/* What once per TTL repairs whatever was missed. */
static void recheck(struct world *world)
{
	for (unsigned int i = 0; i < world->mount_count; i++)
		mount_start_check(&world->mounts[i]);
	deliver_all(world);
	for (unsigned int i = 0; i < world->mount_count; i++) {
		if (lock_is_contended(&world->mounts[i].lock))
			mount_start_read(&world->mounts[i], true);
	}
	deliver_all(world);
}

/* Somebody who stands in the way of others leaves.  False if there is nobody left. */
static bool let_somebody_leave(struct world *world)
{
	struct model_place *place;

	for (unsigned int i = 0; i < world->mount_count; i++) {
		struct job *job;
		DL_FOREACH(world->mounts[i].jobs, job) {
			if (job->answered && !job->left) {
				job_end(job);
				return true;
			}
		}
	}
	DL_FOREACH(world->model.places, place) {
		if (!world->owner[place->session]) {
			world_trace(world, "%s goes", place->id);
			model_delete(&world->model, place);
			return true;
		}
	}
	return false;
}

/* Lets everybody have the lock in turn, until nobody wants it. */
static void finish(struct world *world)
{
	world->quiet = true;
	do {
		for (unsigned int i = 0; i < world->mount_count; i++) {
			if (!world->mounts[i].session)
				mount_start_session(&world->mounts[i]);
		}
		deliver_all(world);
		rules_check_nobody_sleeps(world);
		recheck(world);
		recheck(world);
		rules_check_settled(world);
	} while (let_somebody_leave(world));
	for (unsigned int i = 0; i < world->mount_count; i++) {
		require(world, !world->mounts[i].jobs);
		lock_fini(&world->mounts[i].lock);
	}
	require(world, !world->model.places);
	require(world, world->rivals == 0);
}

static void choose_odds(struct world *world)
{
	world->odds = (struct odds){
		.shared = PICK(world, 0, 30, 50, 80),
		.try = PICK(world, 0, 20, 60),
		.replace = PICK(world, 0, 30, 60),
		.failure = PICK(world, 0, 0, 5),
		.repeat = PICK(world, 0, 0, 15),
		.deaf = PICK(world, 0, 0, 10, 50),
		.linger = PICK(world, 0, 50, 80),
		.parts = PICK(world, 0, 0, 30, 80, 100),
	};
}

static void init_world(
	struct world *world, uint64_t seed, unsigned int foreign, unsigned int mounts)
{
	*world = (struct world){.seed = seed, .random = seed, .trace = getenv("LATCHFS_TRACE")};
	model_init(&world->model);
	world->foreign_count = foreign;
	for (unsigned int i = 0; i < foreign; i++)
		model_new_session(&world->model);
	world->mount_count = mounts;
	for (unsigned int i = 0; i < mounts; i++) {
		struct mount *mount = &world->mounts[i];
		mount->world = world;
		mount->number = i + 1;
		model_watch(&world->model, &mount->watch);
		lock_init(&mount->lock, &mount_ops, true);
	}
}

static void run_sequence(uint64_t seed)
{
	cleanup(free_ptr) struct world *world = xzalloc(sizeof(*world));

	init_world(world, seed, (unsigned int)(seed % (MAX_FOREIGN + 1)),
		(unsigned int)(1 + seed / (MAX_FOREIGN + 1) % MAX_MOUNTS));
	choose_odds(world);
	unsigned int steps = PICK(world, 20, 100, 300);
	for (unsigned int i = 0; i < steps; i++)
		step(world);
	finish(world);
	model_fini(&world->model);
}

/* --- many sequences --- */

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	uint64_t value;

	return text && parse_u64(text, 10, UINT64_MAX, &value) == 0 ? value : otherwise;
}

/* What the child is at, for the parent to tell when it has died. */
static uint64_t *share_number(void)
{
	void *page = mmap(
		NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(page, MAP_FAILED);
	return page;
}

static void run_child(uint64_t *current, uint64_t first, uint64_t rounds)
{
	for (uint64_t i = 0; i < rounds; i++) {
		/* An engine that goes round in circles is found out as well. */
		alarm(SECONDS);
		*current = first + i;
		run_sequence(first + i);
	}
	exit(0);
}

static void test_random_sequences(void **state)
{
	uint64_t first = from_environment("LATCHFS_SEED", 1);
	uint64_t rounds =
		from_environment("LATCHFS_ROUNDS", getenv("LATCHFS_SEED") ? 1 : DEFAULT_ROUNDS);
	uint64_t *current = share_number();
	int status;

	fflush(NULL);
	pid_t child = fork();
	assert_int_not_equal(child, -1);
	if (child == 0)
		run_child(current, first, rounds);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status != 0)
		fail_msg("LATCHFS_SEED=%" PRIu64 " failed (wait status %#x)", *current, status);
	munmap(current, sizeof(*current));
}

/* --- what random sequences found, or show too seldom --- */

static struct world *new_quiet_world(void)
{
	struct world *world = xzalloc(sizeof(*world));

	init_world(world, 0, 1, 1);
	world->quiet = true;
	mount_start_session(&world->mounts[0]);
	return world;
}

static void finish_quiet_world(struct world *world)
{
	finish(world);
	model_fini(&world->model);
	free(world);
}

/* The next one here has it in the same moment; the store hears of it later. */
static void test_hands_over_locally(void **state)
{
	struct world *world = new_quiet_world();
	struct mount *mount = &world->mounts[0];
	struct job *first = job_new(mount, EXCLUSIVE, false, NULL);
	struct job *second = job_new(mount, EXCLUSIVE, false, NULL);
	char id[MODEL_ID_SIZE];

	deliver_all(world);
	assert_true(first->held && !second->held);
	copy_string(id, sizeof(id), first->id);
	job_end(first);
	assert_true(second->held);
	assert_non_null(model_find(&world->model, id));
	finish_quiet_world(world);
}

/* Another place, later than the try's but read before the try was answered, is not forgotten. */
static void test_try_keeps_later_rivals(void **state)
{
	struct world *world = new_quiet_world();
	struct mount *mount = &world->mounts[0];

	mount_start_read(mount, true);
	struct job *first = job_new(mount, EXCLUSIVE, true, NULL);
	struct request *read = mount->requests, *try = read->next;
	request_carry_out(world, try);
	model_put(&world->model, "f1", EXCLUSIVE, 1);
	request_carry_out(world, read);
	mount_deliver(read);
	mount_deliver(try);
	assert_true(first->held);
	struct job *second = job_new(mount, EXCLUSIVE, false, NULL);
	deliver_all(world);
	job_end(first);
	deliver_all(world);
	assert_false(second->held);
	finish_quiet_world(world);
}

/* Two threads of a process want more than the lock that both of them have. */
static void test_two_upgrades_of_one(void **state)
{
	struct world *world = new_quiet_world();
	struct mount *mount = &world->mounts[0];
	struct job *shared = job_new(mount, SHARED, false, NULL);

	deliver_all(world);
	struct job *first = job_new(mount, EXCLUSIVE, false, shared);
	struct job *second = job_new(mount, EXCLUSIVE, false, shared);
	struct job *third = job_new(mount, EXCLUSIVE, false, shared);
	deliver_all(world);
	assert_true(first->held && !second->held && !third->held);
	job_end(third);
	deliver_all(world);
	job_end(shared);
	deliver_all(world);
	job_end(first);
	deliver_all(world);
	assert_true(second->held);
	finish_quiet_world(world);
}

/* Those in the view, and those that went while something was read. */
static void test_fini_gives_rivals_back(void **state)
{
	struct world *world = new_quiet_world();
	struct mount *mount = &world->mounts[0];

	mount_start_read(mount, true);
	model_put(&world->model, "f1", EXCLUSIVE, 1);
	request_carry_out(world, mount->requests);
	mount_deliver(mount->requests);
	assert_int_equal(world->rivals, 1);
	mount_start_read(mount, true);
	model_put(&world->model, "s-f1", SHARED, 1);
	model_delete(&world->model, model_find(&world->model, "s-f1"));
	mount_hear(mount, false);
	assert_int_equal(world->rivals, 2);
	request_free(mount->requests);
	model_end_session(&world->model, 1);
	finish_quiet_world(world);
}

/* --- what the model's store never says --- */

/* A claim whose store is the test itself. */
struct plain {
	struct claim claim;
	bool asked, leaving;
	int result; /* 77: not answered */
};

static struct plain *plain_of(struct claim *claim)
{
	return container_of(claim, struct plain, claim);
}

static void plain_place(struct claim *claim)
{
	plain_of(claim)->asked = true;
}

static void plain_leave(struct claim *claim)
{
	plain_of(claim)->leaving = true;
}

static void plain_answer(struct claim *claim, int result)
{
	plain_of(claim)->result = result;
}

static void plain_nothing(struct claim *claim)
{
}

static bool plain_may_grant(struct lock *lock)
{
	return true;
}

static void plain_drop(struct rival *rival)
{
	free(rival->id);
	free(rival);
}

static const struct lock_ops plain_ops = {.place = plain_place,
	.leave = plain_leave,
	.answer = plain_answer,
	.lost = plain_nothing,
	.over = plain_nothing,
	.drop = plain_drop,
	.may_grant = plain_may_grant};

static struct rival *new_rival(const char *id, uint64_t token, struct rival *next)
{
	struct rival *rival = xzalloc(sizeof(*rival));

	rival->entry.token = token;
	rival->id = xstrdup(id);
	rival->next = next;
	return rival;
}

static void plain_take(struct lock *lock, struct plain *plain)
{
	*plain = (struct plain){.result = 77};
	lock_take(lock, &plain->claim);
	assert_true(plain->asked);
}

static void plain_end(struct lock *lock, struct plain *plain)
{
	if (!plain->leaving)
		lock_leave(lock, &plain->claim, 0);
	lock_left(lock, &plain->claim);
}

/* Another program's keys of one transaction are equally old: each of them is in the way. */
static void test_rivals_of_one_token(void **state)
{
	struct lock lock;
	struct plain plain;

	lock_init(&lock, &plain_ops, false);
	plain_take(&lock, &plain);
	lock_placed(
		&lock, &plain.claim, LOCK_PLACED, 9, 9, new_rival("a", 5, new_rival("b", 5, NULL)));
	lock_removed(&lock, new_rival("a", 10, NULL));
	assert_int_equal(plain.result, 77);
	lock_removed(&lock, new_rival("b", 11, NULL));
	assert_int_equal(plain.result, CLAIM_GRANTED);
	plain_end(&lock, &plain);
	lock_fini(&lock);
}

/* A token that can't be is given back, and asked for again; what was believed is asked anew. */
static void test_tokens_that_go_back(void **state)
{
	struct lock lock;
	struct plain first, second, third;

	lock_init(&lock, &plain_ops, false);
	plain_take(&lock, &first);
	lock_placed(&lock, &first.claim, LOCK_PLACED, 9, UINT64_C(1) << 60, NULL);
	assert_int_equal(first.result, CLAIM_GRANTED);
	plain_take(&lock, &second);
	lock_placed(&lock, &second.claim, LOCK_PLACED, 10, 11, new_rival("a", 7, NULL));
	assert_int_equal(second.result, CLAIM_AGAIN);
	assert_true(second.leaving);
	assert_int_equal(lock.known, 0);
	plain_end(&lock, &second);
	/* A place of ours that is newer than the store would contradict it again. */
	plain_take(&lock, &second);
	assert_true(lock_placed(&lock, &second.claim, LOCK_PLACED, 8, 8, NULL));
	assert_int_equal(second.result, -EIO);
	assert_true(second.leaving);
	plain_take(&lock, &third);
	lock_placed(&lock, &third.claim, LOCK_PLACED, 12, 12, new_rival("a", 7, NULL));
	plain_end(&lock, &first);
	assert_int_equal(third.result, 77);
	lock_removed(&lock, new_rival("a", 13, NULL));
	assert_int_equal(third.result, CLAIM_GRANTED);
	plain_end(&lock, &second);
	plain_end(&lock, &third);
	lock_fini(&lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rivals_of_one_token),
		cmocka_unit_test(test_tokens_that_go_back),
		cmocka_unit_test(test_hands_over_locally),
		cmocka_unit_test(test_try_keeps_later_rivals),
		cmocka_unit_test(test_two_upgrades_of_one),
		cmocka_unit_test(test_fini_gives_rivals_back),
		cmocka_unit_test(test_random_sequences),
	};

	/* Who asks for a sequence wants to see that. */
	if (getenv("LATCHFS_SEED"))
		cmocka_set_test_filter("test_random_sequences");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
