/* SPDX-License-Identifier: MIT */
/*
 * The lease and the client against clocks and a network that are made up: an interruption of half
 * the TTL loses nothing, whatever kind it is, wherever it hits and in whichever millisecond it
 * begins; and one of the whole TTL is known before etcd could give a lock away.
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
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "event/http.h"
#include "event/loop.h"
#include "store/etcd/lease.h"

enum { LATENCY = 2, MAX_MEMBERS = 3, NOBODY = 9, LEASE = 77 };

/* What an interruption does with what is sent; UP is none. */
enum trouble { UP, REFUSES, DROPS, HOLDS, TROUBLES };

struct http_request {
	struct http_call call; /* what it borrows is not kept */
	bool is_renewal, is_revocation;
	unsigned int member;
	int64_t ends_at; /* when it is over, one way or the other */
	int error;
	struct http_request *prev, *next;
};

static struct {
	int64_t now;
	struct loop_timer *armed[64];
	size_t armed_count;
	struct http_request *requests;
	enum trouble trouble;
	unsigned int hurt; /* that many of the members */
	unsigned int away; /* and this one for ever, unless it is NOBODY */
	int64_t from, until;
	int64_t expires_at; /* the lease, in etcd */
	int64_t expired_at; /* the lease that was lost */
	int64_t ttl;        /* milliseconds */
	int64_t lost_at;
	unsigned int silences;
} world;

/* --- time --- */

int64_t loop_clock(void)
{
	return world.now;
}

void loop_timer_disarm(struct loop_timer *timer)
{
	if (!timer->place)
		return;
	struct loop_timer *last = world.armed[--world.armed_count];
	world.armed[timer->place - 1] = last;
	last->place = timer->place;
	timer->place = 0;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t deadline)
{
	loop_timer_disarm(timer);
	assert_true(world.armed_count < ARRAY_SIZE(world.armed));
	world.armed[world.armed_count++] = timer;
	timer->place = world.armed_count;
	timer->deadline = deadline;
}

static bool run_timer(void)
{
	for (size_t i = 0; i < world.armed_count; i++) {
		struct loop_timer *timer = world.armed[i];
		if (timer->deadline > world.now)
			continue;
		loop_timer_disarm(timer);
		timer->fn(timer);
		return true;
	}
	return false;
}

/* --- the network --- */

struct http_pool *http_pool_new(struct loop *loop, const struct http_tls *tls, unsigned int spared)
{
	return calloc(1, 1);
}

void http_pool_free(struct http_pool *pool)
{
	free(pool);
}

bool http_is_shortage(int error)
{
	return false;
}

static bool interrupted(const struct http_request *request)
{
	if (world.now < world.from)
		return false;
	return request->member == world.away ||
	       (world.now < world.until && request->member < world.hurt);
}

uint64_t http_pool_opened(const struct http_pool *pool)
{
	return 0;
}

struct http_request *http_start(struct http_pool *pool, const struct http_call *call)
{
	struct http_request *request = calloc(1, sizeof(*request));
	int64_t gives_up_at = world.now + call->timeout;

	request->call = *call;
	request->is_renewal = strstr(call->url, "/v3/lease/keepalive");
	request->is_revocation = strstr(call->url, "/v3/lease/revoke");
	request->member = (unsigned int)(call->url[strlen("http://")] - '0');
	request->ends_at = world.now + LATENCY;
	if (interrupted(request) && world.trouble == REFUSES)
		request->error = -ECONNREFUSED;
	else if (interrupted(request) && world.trouble == HOLDS)
		request->ends_at =
			request->member == world.away ? INT64_MAX : world.until + LATENCY;
	else if (interrupted(request))
		request->ends_at = gives_up_at + 1;
	if (request->ends_at > gives_up_at) {
		request->ends_at = gives_up_at;
		request->error = -ETIMEDOUT;
	}
	DL_APPEND(world.requests, request);
	return request;
}

void http_cancel(struct http_request *request)
{
	if (!request)
		return;
	DL_DELETE(world.requests, request);
	free(request);
}

void http_hang_up(const struct http_result *result)
{
	fail_msg("every answer of this network makes sense");
}

/* etcd's part: it counts from the moment it hears of a renewal. */
static const char *answer_to(const struct http_request *request)
{
	static char body[200];
	bool lives = !request->is_renewal || world.now < world.expires_at;

	if (request->is_revocation)
		return "{\"header\":{\"revision\":\"5\"}}";
	if (lives)
		world.expires_at = world.now + world.ttl;
	snprintf(body, sizeof(body),
		request->is_renewal
			? "{\"result\":{\"header\":{\"revision\":\"5\"},\"ID\":\"%d\",\"TTL\":"
			  "\"%d\"}}"
			: "{\"header\":{\"revision\":\"5\"},\"ID\":\"%d\",\"TTL\":\"%d\"}",
		LEASE, lives ? (int)(world.ttl / 1000) : 0);
	return body;
}

static bool end_request(void)
{
	struct http_request *request;

	DL_FOREACH(world.requests, request) {
		if (request->ends_at > world.now)
			continue;
		struct http_call call = request->call;
		struct http_result result = {.error = request->error,
			.reason = request->error ? "trouble" : NULL,
			.status = 200,
			.body = request->error ? "" : answer_to(request)};
		result.size = strlen(result.body);
		http_cancel(request);
		call.on_done(call.user, &result);
		return true;
	}
	return false;
}

static int64_t next_event(void)
{
	const struct http_request *request;
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < world.armed_count; i++) {
		if (world.armed[i]->deadline < next)
			next = world.armed[i]->deadline;
	}
	DL_FOREACH(world.requests, request) {
		if (request->ends_at < next)
			next = request->ends_at;
	}
	return next;
}

static void pass(int64_t milliseconds)
{
	int64_t end = world.now + milliseconds;

	for (int64_t next = next_event(); next < end; next = next_event()) {
		world.now = next > world.now ? next : world.now;
		while (run_timer() || end_request())
			;
	}
}

/* --- the lease --- */

static void on_state(struct etcd_lease *lease, enum store_session state)
{
	if (state != STORE_SESSION_LOST || world.lost_at)
		return;
	world.lost_at = world.now;
	world.expired_at = world.expires_at;
}

static void on_done(struct etcd_lease *lease, int result)
{
	assert_int_equal(result, 0);
}

static void on_reachable(void *user, bool reachable)
{
	if (!reachable)
		etcd_lease_renew(user);
}

static void on_silent(void *user, const char *url)
{
	world.silences++;
}

static const struct etcd_client_events events = {.reachable = on_reachable, .silent = on_silent};

/* What happens, at which millisecond after the grant, and for how long. */
struct story {
	unsigned int members, hurt, away;
	enum trouble trouble;
	int ttl_seconds;
	int64_t begins, lasts;
};

static void begin(const struct story *story)
{
	memset(&world, 0, sizeof(world));
	world.now = 1000 * 1000;
	world.ttl = story->ttl_seconds * 1000L;
	world.hurt = story->hurt;
	world.away = story->away;
	world.trouble = story->trouble;
	world.from = world.now + story->begins;
	world.until = world.from + story->lasts;
}

static void live_through(const struct story *story)
{
	static char urls[MAX_MEMBERS][9] = {"http://0", "http://1", "http://2"};
	char *const endpoints[] = {urls[0], urls[1], urls[2]};
	struct etcd_client_options options = {
		.endpoints = endpoints, .endpoint_count = story->members, .timeout = 5000};
	struct etcd_lease lease;

	begin(story);
	struct etcd_client *client = etcd_client_new(NULL, &options, &events, &lease);
	etcd_lease_init(&lease, NULL, client, story->ttl_seconds, on_state);
	etcd_lease_start(&lease, 0, on_done);
	pass(story->begins + story->lasts + world.ttl);
	etcd_lease_fini(&lease);
	etcd_client_free(client);
	assert_null(world.requests);
	assert_int_equal(world.armed_count, 0);
}

/* From before one renewal until after it. */
static void begin_anywhere(struct story story)
{
	int64_t ttl = story.ttl_seconds * 1000L;

	story.hurt = story.members;
	story.lasts = ttl / 2;
	for (story.begins = ttl / 8; story.begins < ttl * 3 / 8; story.begins += ttl / 500) {
		live_through(&story);
		if (world.lost_at)
			fail_msg("lost: trouble %d of %u members, %u stays away, TTL %d s, after "
				 "%" PRId64 " ms",
				(int)story.trouble, story.members, story.away, story.ttl_seconds,
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
			for (story.members = 1; story.members <= MAX_MEMBERS; story.members++)
				begin_anywhere(story);
			story.members = 3;
			for (story.away = 0; story.away < 3; story.away++)
				begin_anywhere(story);
		}
	}
}

/* One that can't be reached for ever is no interruption, and is found out. */
static void test_one_of_three(void **state)
{
	struct story story = {.members = 3, .ttl_seconds = 5, .lasts = 60 * 1000};

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
		.members = 3, .hurt = 3, .away = NOBODY, .ttl_seconds = 5, .lasts = 60 * 1000};

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
	struct story story = {.members = 1,
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_of_the_ttl),
		cmocka_unit_test(test_one_of_three),
		cmocka_unit_test(test_a_loss_is_known_first),
		cmocka_unit_test(test_late_timeouts_say_nothing),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
