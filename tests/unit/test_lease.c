/* SPDX-License-Identifier: MIT */
/*
 * The lease and the client in the world of lease/: an interruption of half the TTL loses nothing,
 * whatever kind it is, wherever it hits and in whichever millisecond it begins; one of the whole
 * TTL is known before etcd could give a lock away; and so is whatever a member that has been left
 * behind answers from memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <inttypes.h>

#include "base/log.h"
#include "base/util.h"
#include "lease/world.h"

/* From before one renewal until after it. */
static void begin_anywhere(struct story story)
{
	int64_t ttl = story.ttl_seconds * 1000L;

	story.hurt = story.endpoints;
	story.lasts = ttl / 2;
	for (story.begins = ttl / 8; story.begins < ttl * 3 / 8; story.begins += ttl / 500) {
		live_through(&story);
		if (world.lost_at)
			fail_msg("lost: trouble %d of %u members, %u stays away, TTL %d s, after "
				 "%" PRId64 " ms",
				(int)story.trouble, story.endpoints, story.away, story.ttl_seconds,
				story.begins);
	}
}

static void test_half_of_the_ttl(void **state)
{
	static const int ttls[] = {5, 10, 30};
	struct story story = {0};

	for (size_t i = 0; i < ARRAY_SIZE(ttls); i++) {
		story.ttl_seconds = ttls[i];
		for (story.trouble = REFUSES; story.trouble < TROUBLES; story.trouble++) {
			story.away = NOBODY;
			for (story.endpoints = 1; story.endpoints <= MAX_ENDPOINTS;
				story.endpoints++)
				begin_anywhere(story);
			story.endpoints = 3;
			for (story.away = 0; story.away < 3; story.away++)
				begin_anywhere(story);
		}
	}
}

/* One that can't be reached for ever is no interruption, and is found out. */
static void test_one_of_three(void **state)
{
	struct story story = {.endpoints = 3, .ttl_seconds = 5, .lasts = 60 * 1000};

	for (story.trouble = REFUSES; story.trouble < TROUBLES; story.trouble++) {
		for (story.begins = 500; story.begins < 5000; story.begins += 111) {
			live_through(&story);
			assert_int_equal(world.lost_at, 0);
			assert_int_equal(world.silences > 0, story.trouble != REFUSES);
		}
	}
}

static void test_a_loss_is_known_first(void **state)
{
	struct story story = {
		.endpoints = 3, .hurt = 3, .away = NOBODY, .ttl_seconds = 5, .lasts = 60 * 1000};

	for (story.trouble = REFUSES; story.trouble < TROUBLES; story.trouble++) {
		for (story.begins = 500; story.begins < 5000; story.begins += 37) {
			live_through(&story);
			assert_true(world.lost_at > 0 && world.lost_at < world.expired_at);
		}
	}
}

/* A member that answers what was asked later is not away because of what was asked before. */
static void test_late_timeouts_say_nothing(void **state)
{
	struct story story = {.endpoints = 1,
		.hurt = 1,
		.away = NOBODY,
		.trouble = DROPS,
		.ttl_seconds = 10,
		.begins = 2400,
		.lasts = 1000};

	live_through(&story);
	assert_int_equal(world.lost_at, 0);
	assert_int_equal(world.silences, 0);
}

/* --- members that are left behind --- */

/* The member that leads from then on, if the disk of the leader hangs for long enough. */
static void elect(struct story *story, int64_t election)
{
	story->election_count = 0;
	if (!story->hangs[story->leader] || story->lasts <= election)
		return;
	story->elections[0].at = story->begins + election;
	story->elections[0].leader = (story->leader + 1) % MEMBERS;
	story->election_count = 1;
}

static void hang_anywhere(struct story story)
{
	int64_t ttl = story.ttl_seconds * 1000L;
	const int64_t lengths[] = {300, ttl / 2, ttl * 5 / 4, ttl * 4};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		story.lasts = lengths[i];
		for (story.begins = ttl / 8; story.begins < ttl; story.begins += ttl / 50) {
			elect(&story, story.begins % 7 < 3 ? 1000 : 1900);
			live_through(&story);
			/* Two others can be asked, or the one is back in time. */
			if (story.endpoints == MEMBERS || story.lasts <= ttl / 2)
				assert_int_equal(world.lost_at, 0);
		}
	}
}

/* One member, and in turn the others, are all that the mount knows. */
static void test_a_disk_hangs(void **state)
{
	static const int ttls[] = {5, 10, 30};
	struct story story = {.away = NOBODY};

	for (size_t i = 0; i < ARRAY_SIZE(ttls); i++) {
		story.ttl_seconds = ttls[i];
		for (unsigned int hung = 0; hung < MEMBERS; hung++) {
			story.hangs[hung] = true;
			for (story.leader = 0; story.leader < MEMBERS; story.leader++) {
				for (story.endpoints = 1; story.endpoints <= MEMBERS;
					story.endpoints++)
					hang_anywhere(story);
			}
			story.hangs[hung] = false;
		}
	}
}

/* The only member that the mount knows has been left behind, as the leader or with it. */
static void test_left_behind(void **state)
{
	struct story story = {.endpoints = 1, .away = NOBODY, .ttl_seconds = 5, .lasts = 60 * 1000};

	for (story.leader = 0; story.leader < 2; story.leader++) {
		for (story.begins = 500; story.begins < 5000; story.begins += 37) {
			story.hangs[0] = story.hangs[story.leader] = true;
			story.election_count = 1;
			story.elections[0].at = story.begins + 1000;
			story.elections[0].leader = 2;
			live_through(&story);
			assert_true(world.lost_at > 0 && world.lost_at < world.expired_at);
			assert_true(world.metrics.unproven > 0 && world.silences > 0);
		}
	}
}

/* A member that has never heard of the lease, for it was left behind before that was granted. */
static void test_left_behind_before(void **state)
{
	struct story story = {.endpoints = 3,
		.away = NOBODY,
		.ttl_seconds = 5,
		.begins = -2000,
		.lasts = 60 * 1000,
		.hangs = {true},
		.elections = {{-1000, 1}},
		.election_count = 1};

	/* Whoever is slow is not the only one that is asked. */
	for (story.slowest = 0; story.slowest <= 800; story.slowest += 100) {
		live_through(&story);
		assert_int_equal(world.lost_at, 0);
	}
	assert_true(world.metrics.unproven > 0);
}

/* Another worker goes on with the lease: what the one before had proven is all there is. */
static void test_left_behind_after_takeover(void **state)
{
	struct story story = {.endpoints = 1,
		.away = NOBODY,
		.ttl_seconds = 5,
		.lasts = 60 * 1000,
		.hangs = {true},
		.adopts = true};

	elect(&story, 1000);
	live_through(&story);
	assert_int_equal(world.lost_at, 1000 * 1000 + 4500);
}

/* Leaders come and go, and renewals meet them at any moment. */
static void test_elections(void **state)
{
	struct story story = {.away = NOBODY, .ttl_seconds = 5, .lasts = 20 * 1000};

	for (int64_t every = 130; every < 2000; every += 110) {
		story.election_count = 0;
		for (int64_t at = every; at < 15 * 1000 && story.election_count < MAX_REIGNS - 1;
			at += every) {
			story.elections[story.election_count].at = at;
			story.elections[story.election_count].leader =
				(unsigned int)(at / 10 % MEMBERS);
			story.election_count++;
		}
		for (story.endpoints = 1; story.endpoints <= MEMBERS; story.endpoints++) {
			for (story.begins = 0; story.begins < 40; story.begins += 3) {
				story.slowest = story.begins * 20;
				story.lag = story.begins % 5 * 20;
				live_through(&story);
			}
		}
	}
}

/* Elections and disks that hang, as chance will have it. */
static void test_chance(void **state)
{
	enum { STORIES = 4000 };
	unsigned int seed = 1;

	for (int i = 0; i < STORIES; i++) {
		struct story story = {.away = NOBODY, .ttl_seconds = 2 + rand_r(&seed) % 9};
		int64_t at = 0;
		story.endpoints = 1 + (unsigned int)rand_r(&seed) % MEMBERS;
		story.begins = rand_r(&seed) % 6000;
		story.lasts = rand_r(&seed) % 30000;
		story.lag = rand_r(&seed) % 3 ? 0 : rand_r(&seed) % 200;
		story.slowest = rand_r(&seed) % 3 * 300;
		story.leader = (unsigned int)rand_r(&seed) % MEMBERS;
		for (int m = 0; m < MEMBERS; m++)
			story.hangs[m] = rand_r(&seed) % 2;
		for (unsigned int e = (unsigned int)rand_r(&seed) % 8; e; e--) {
			at += 1000 + rand_r(&seed) % 5000;
			story.elections[story.election_count].at = at;
			story.elections[story.election_count++].leader =
				(unsigned int)rand_r(&seed) % MEMBERS;
		}
		live_through(&story);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_of_the_ttl),
		cmocka_unit_test(test_one_of_three),
		cmocka_unit_test(test_a_loss_is_known_first),
		cmocka_unit_test(test_late_timeouts_say_nothing),
		cmocka_unit_test(test_a_disk_hangs),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_left_behind_before),
		cmocka_unit_test(test_left_behind_after_takeover),
		cmocka_unit_test(test_elections),
		cmocka_unit_test(test_chance),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
