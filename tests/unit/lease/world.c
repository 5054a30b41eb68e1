/* SPDX-License-Identifier: MIT */
#include "lease/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/util.h"
#include "event/http.h"
#include "event/loop.h"

enum { LATENCY = 2, FIRST_TERM = 2 };

enum kind { RENEWAL, READ, REVOCATION, GRANT };

struct http_request {
	struct http_call call; /* what it borrows is not kept */
	enum kind kind;
	unsigned int member;
	int64_t gives_up_at;
	int64_t ends_at;    /* when it is over, one way or the other */
	int64_t arrives_at; /* of a renewal: when the member takes it up; 0: it has */
	unsigned int term;  /* what its header says */
	unsigned int reign; /* the one to which the member takes it */
	int error;
	struct http_request *prev, *next;
};

struct reign {
	int64_t from;
	unsigned int leader;
	int64_t expires_at; /* the lease, in this leader's memory */
};

struct world world;

static struct {
	const struct story *story;
	struct etcd_lease *lease;
	struct loop_timer *armed[64];
	size_t armed_count;
	struct http_request *requests;
	int64_t from, until;
	struct reign reigns[MAX_REIGNS];
	unsigned int reign_count;
	unsigned int promoted; /* the last one that has begun */
	bool granted, gone;
	int64_t granted_at;
	unsigned int seed;
} etcd;

/* --- time --- */

int64_t loop_clock(void)
{
	return world.now;
}

void loop_timer_disarm(struct loop_timer *timer)
{
	if (!timer->place)
		return;
	struct loop_timer *last = etcd.armed[--etcd.armed_count];
	etcd.armed[timer->place - 1] = last;
	last->place = timer->place;
	timer->place = 0;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t deadline)
{
	loop_timer_disarm(timer);
	assert_true(etcd.armed_count < ARRAY_SIZE(etcd.armed));
	etcd.armed[etcd.armed_count++] = timer;
	timer->place = etcd.armed_count;
	timer->deadline = deadline;
}

static bool run_timer(void)
{
	for (size_t i = 0; i < etcd.armed_count; i++) {
		struct loop_timer *timer = etcd.armed[i];
		if (timer->deadline > world.now)
			continue;
		loop_timer_disarm(timer);
		timer->fn(timer);
		return true;
	}
	return false;
}

/* --- the cluster --- */

static bool hangs(unsigned int member)
{
	return etcd.story->hangs[member] && world.now >= etcd.from && world.now < etcd.until;
}

static unsigned int reign_at(int64_t time)
{
	unsigned int reign = 0;

	while (reign + 1 < etcd.reign_count && etcd.reigns[reign + 1].from <= time)
		reign++;
	return reign;
}

/* Whom the member takes for the leader, and whose entries it has applied. */
static unsigned int known(unsigned int member)
{
	return reign_at(hangs(member) ? etcd.from : world.now);
}

static unsigned int applied(unsigned int member)
{
	return reign_at((hangs(member) ? etcd.from : world.now) - etcd.story->lag);
}

/* A new leader gives the lease its whole TTL, and one that has a majority ends what is over. */
static void go_on(void)
{
	for (unsigned int now = reign_at(world.now); etcd.promoted < now; etcd.promoted++) {
		struct reign *next = &etcd.reigns[etcd.promoted + 1];
		next->expires_at = next->from + world.ttl;
	}
	const struct reign *reign = &etcd.reigns[etcd.promoted];
	if (!hangs(reign->leader) && etcd.granted && world.now >= reign->expires_at)
		etcd.gone = true;
}

static int64_t expiry(void)
{
	return etcd.gone ? 0 : etcd.reigns[etcd.promoted].expires_at;
}

/* The leader of that reign is asked to extend it, which it does if it takes itself for it. */
static int carry_out(unsigned int reign, int *ttl)
{
	unsigned int leader = etcd.reigns[reign].leader;

	if (known(leader) != reign)
		return -ECONNRESET;
	bool unheard_of = hangs(leader) && etcd.from < etcd.granted_at;
	bool gone = unheard_of || (reign == etcd.promoted && etcd.gone);
	*ttl = gone ? 0 : (int)(world.ttl / 1000);
	if (*ttl)
		etcd.reigns[reign].expires_at = world.now + world.ttl;
	return 0;
}

static bool can_read(unsigned int member)
{
	unsigned int reign = reign_at(world.now);

	return !hangs(member) && !hangs(etcd.reigns[reign].leader) && applied(member) == reign;
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

uint64_t http_pool_opened(const struct http_pool *pool)
{
	return 0;
}

static bool interrupted(const struct http_request *request)
{
	if (world.now < etcd.from)
		return false;
	return request->member == etcd.story->away ||
	       (world.now < etcd.until && request->member < etcd.story->hurt);
}

static enum kind kind_of(const char *url)
{
	if (strstr(url, "/v3/lease/keepalive"))
		return RENEWAL;
	if (strstr(url, "/v3/kv/range"))
		return READ;
	return strstr(url, "/v3/lease/revoke") ? REVOCATION : GRANT;
}

static int64_t think(void)
{
	int64_t slowest = etcd.story->slowest;

	return slowest ? rand_r(&etcd.seed) % slowest : 0;
}

struct http_request *http_start(struct http_pool *pool, const struct http_call *call)
{
	struct http_request *request = calloc(1, sizeof(*request));
	enum trouble trouble = etcd.story->trouble;

	request->call = *call;
	request->kind = kind_of(call->url);
	request->member = (unsigned int)(call->url[strlen("http://")] - '0');
	request->gives_up_at = world.now + call->timeout;
	request->ends_at = world.now + LATENCY;
	if (interrupted(request) && trouble == REFUSES)
		request->error = -ECONNREFUSED;
	else if (interrupted(request) && trouble == HOLDS)
		request->ends_at =
			request->member == etcd.story->away ? INT64_MAX : etcd.until + LATENCY;
	else if (interrupted(request) && trouble == DROPS)
		request->ends_at = request->gives_up_at + 1;
	if (request->kind == RENEWAL && !request->error && request->ends_at != INT64_MAX) {
		request->arrives_at = request->ends_at - LATENCY / 2;
		request->ends_at += think();
	}
	if (request->ends_at > request->gives_up_at) {
		request->ends_at = request->gives_up_at;
		request->error = -ETIMEDOUT;
	}
	DL_APPEND(etcd.requests, request);
	return request;
}

void http_cancel(struct http_request *request)
{
	if (!request)
		return;
	DL_DELETE(etcd.requests, request);
	free(request);
}

void http_hang_up(const struct http_result *result)
{
	fail_msg("every answer of this network makes sense");
}

/* The member has a renewal: it writes the header, and then looks for the leader. */
static void take_up(struct http_request *request)
{
	request->arrives_at = 0;
	request->term = FIRST_TERM + applied(request->member);
	request->reign = known(request->member);
}

/* Gives the body, or NULL: the renewal has found no leader. */
static const char *answer_to(struct http_request *request)
{
	static char body[300];
	unsigned int term =
		request->kind == RENEWAL ? request->term : FIRST_TERM + applied(request->member);
	int ttl = (int)(world.ttl / 1000);
	char header[100];

	snprintf(header, sizeof(header),
		"{\"header\":{\"cluster_id\":\"9\",\"revision\":\"5\",\"raft_term\":\"%u\"}", term);
	if (request->kind == RENEWAL && carry_out(request->reign, &ttl) < 0)
		return NULL;
	if (request->kind == READ || request->kind == REVOCATION)
		snprintf(body, sizeof(body), "%s}", header);
	else
		snprintf(body, sizeof(body), "%s%s,\"ID\":\"%d\",\"TTL\":\"%d\"}%s",
			request->kind == RENEWAL ? "{\"result\":" : "", header, LEASE, ttl,
			request->kind == RENEWAL ? "}" : "");
	if (request->kind == GRANT) {
		etcd.granted = true;
		etcd.granted_at = world.now;
		etcd.gone = false;
		etcd.reigns[etcd.promoted].expires_at = world.now + world.ttl;
	}
	return body;
}

static void answer(struct http_request *request)
{
	struct http_call call = request->call;
	const char *body = request->error ? "" : answer_to(request);
	struct http_result result = {.error = request->error,
		.reason = "trouble",
		.status = body ? 200 : 503,
		.body = body ? body : "{\"message\":\"etcdserver: not leader\"}"};

	result.size = strlen(result.body);
	http_cancel(request);
	call.on_done(call.user, &result);
}

/* When more can be answered than now. */
static int64_t next_change(void)
{
	int64_t lag = etcd.story->lag, next = world.now < etcd.until ? etcd.until : INT64_MAX;

	for (unsigned int i = 1; i < etcd.reign_count; i++) {
		int64_t from = etcd.reigns[i].from;
		from += world.now < from ? 0 : lag;
		if (world.now < from && from < next)
			next = from;
	}
	return next;
}

/* All but renewals goes through the cluster; if that can't be yet, as soon as it can. */
static bool must_wait(struct http_request *request)
{
	if (request->error || request->kind == RENEWAL || can_read(request->member))
		return false;
	if (world.now >= request->gives_up_at)
		request->error = -ETIMEDOUT;
	else
		request->ends_at = next_change();
	if (request->ends_at > request->gives_up_at)
		request->ends_at = request->gives_up_at;
	return !request->error;
}

static bool run_request(void)
{
	struct http_request *request;

	DL_FOREACH(etcd.requests, request) {
		if (request->arrives_at && request->arrives_at <= world.now)
			take_up(request);
		if (request->ends_at > world.now || must_wait(request))
			continue;
		answer(request);
		return true;
	}
	return false;
}

static int64_t next_event(void)
{
	const struct http_request *request;
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < etcd.armed_count; i++) {
		if (etcd.armed[i]->deadline < next)
			next = etcd.armed[i]->deadline;
	}
	DL_FOREACH(etcd.requests, request) {
		if (request->ends_at < next)
			next = request->ends_at;
		if (request->arrives_at && request->arrives_at < next)
			next = request->arrives_at;
	}
	if (etcd.promoted + 1 < etcd.reign_count && etcd.reigns[etcd.promoted + 1].from < next)
		next = etcd.reigns[etcd.promoted + 1].from;
	return next;
}

static void check(void)
{
	const struct story *story = etcd.story;

	if (etcd.lease->id && etcd.lease->renewed_at + etcd.lease->ttl > expiry())
		fail_msg("held for longer than in the cluster: TTL %d s, %u endpoints, leader %u, "
			 "hang %d%d%d from %" PRId64 " for %" PRId64 " ms, %u elections, lag "
			 "%" PRId64 " ms, seed %u, in millisecond %" PRId64,
			story->ttl_seconds, story->endpoints, story->leader, story->hangs[0],
			story->hangs[1], story->hangs[2], story->begins, story->lasts,
			story->election_count, story->lag, etcd.seed,
			world.now - (etcd.from - story->begins));
}

static void pass(int64_t milliseconds)
{
	int64_t end = world.now + milliseconds;

	for (int64_t next = next_event(); next < end; next = next_event()) {
		world.now = next > world.now ? next : world.now;
		go_on();
		while (run_timer() || run_request())
			check();
		check();
	}
}

/* --- the lease --- */

static void on_state(struct etcd_lease *lease, enum store_session state)
{
	uint64_t found_gone = lease->metrics.losses[ETCD_LOSS_GONE];

	if (found_gone > world.metrics.losses[ETCD_LOSS_GONE] && !etcd.gone)
		fail_msg("a lease that lives was given up");
	world.metrics = lease->metrics;
	if (state != STORE_SESSION_LOST || world.lost_at)
		return;
	world.lost_at = world.now;
	world.expired_at = expiry();
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

static void begin(const struct story *story, struct etcd_lease *lease)
{
	memset(&world, 0, sizeof(world));
	memset(&etcd, 0, sizeof(etcd));
	world.now = 1000 * 1000;
	world.ttl = story->ttl_seconds * 1000L;
	etcd.story = story;
	etcd.lease = lease;
	etcd.from = world.now + story->begins;
	etcd.until = etcd.from + story->lasts;
	etcd.seed = (unsigned int)(story->begins + story->lasts);
	etcd.reigns[0] = (struct reign){.leader = story->leader, .expires_at = INT64_MAX};
	etcd.reign_count = 1 + story->election_count;
	for (unsigned int i = 0; i < story->election_count; i++)
		etcd.reigns[1 + i] = (struct reign){.from = world.now + story->elections[i].at,
			.leader = story->elections[i].leader};
}

static void get_lease(struct etcd_lease *lease)
{
	if (!etcd.story->adopts) {
		etcd_lease_start(lease, 0, on_done);
		return;
	}
	etcd.granted = true;
	etcd.reigns[0].expires_at = world.now + world.ttl;
	etcd_lease_adopt(lease, LEASE, world.ttl, world.now);
}

void live_through(const struct story *story)
{
	static char urls[MAX_ENDPOINTS][9] = {"http://0", "http://1", "http://2"};
	char *const endpoints[] = {urls[0], urls[1], urls[2]};
	struct etcd_client_options options = {
		.endpoints = endpoints, .endpoint_count = story->endpoints, .timeout = 5000};
	struct etcd_lease lease;

	begin(story, &lease);
	struct etcd_client *client = etcd_client_new(NULL, &options, &events, &lease);
	etcd_lease_init(&lease, NULL, client, "/p/", story->ttl_seconds, on_state);
	get_lease(&lease);
	pass(story->begins + story->lasts + world.ttl);
	world.metrics = lease.metrics;
	etcd_lease_fini(&lease);
	etcd_client_free(client);
	assert_null(etcd.requests);
	assert_int_equal(etcd.armed_count, 0);
}
