/* SPDX-License-Identifier: MIT */
#include "store/etcd/etcd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"

/* Of a place, in `deleted`: news of it was missed before it was known to be there. */
#define DELETED_PERHAPS UINT64_MAX

/* --- the session --- */

static void forget_places(struct etcd *etcd)
{
	struct store_place *place, *next;

	HASH_ITER(hh, etcd->places, place, next) {
		HASH_DEL(etcd->places, place);
		place->placed = false;
	}
}

static struct etcd_op *first_op(struct etcd *etcd, bool of_session)
{
	struct etcd_op *op;

	DL_FOREACH(etcd->ops, op) {
		if (op->of_session || !of_session)
			return op;
	}
	return NULL;
}

/* Answers all operations, or those of the session, as if it had just been lost. */
static void end_ops(struct etcd *etcd, bool of_session)
{
	struct etcd_op *op;

	while ((op = first_op(etcd, of_session))) {
		etcd_batch_drop(op);
		loop_timer_disarm(&op->timer);
		op->fn(op, op->of_session ? STORE_LOST : -EIO, &etcd_no_answer);
	}
}

static void arm_check(struct etcd *etcd)
{
	loop_timer_arm(etcd->loop, &etcd->check_timer, loop_clock() + etcd->lease.ttl);
}

static void on_lease_state(struct etcd_lease *lease, enum store_session state)
{
	struct etcd *etcd = container_of(lease, struct etcd, lease);

	/* The end of what was asked for with it allows nothing. */
	etcd_doubt_begin(etcd);
	if (state == STORE_SESSION_LOST) {
		etcd_call_cancel(&etcd->check_call);
		loop_timer_disarm(&etcd->check_timer);
		etcd_fence_end(&etcd->fence);
		end_ops(etcd, true);
		etcd_batch_take_back(&etcd->names_line);
		forget_places(etcd);
		etcd_numbers_forget(etcd);
		etcd_leased_end(etcd, true);
	} else if (!loop_timer_armed(&etcd->check_timer) && !etcd_call_active(&etcd->check_call)) {
		arm_check(etcd);
	}
	if (state != STORE_SESSION_LOST) {
		etcd_fence_begin(&etcd->fence);
		etcd_batch_go_on(&etcd->names_line);
	}
	etcd->store.events->session(etcd->store.user, state);
	etcd_doubt_end(etcd);
}

/* --- the comparison, once per TTL, of our keys with those of the lease --- */

struct store_place *etcd_find_place(struct etcd *etcd, const char *path, const char *id)
{
	struct store_place *place;

	HASH_FIND_STR(etcd->places, id, place);
	return place && strcmp(place->path, path) == 0 ? place : NULL;
}

void etcd_place_gone(struct etcd *etcd, const char *path, const char *id)
{
	struct store_place *place = etcd_find_place(etcd, path, id);

	if (!place || !place->placed || place->leaving)
		return;
	HASH_DEL(etcd->places, place);
	place->placed = false;
	etcd->store.events->gone(etcd->store.user, place);
}

void etcd_place_deleted(struct etcd *etcd, const char *path, const char *id, uint64_t revision)
{
	struct store_place *place = etcd_find_place(etcd, path, id);

	if (place && !place->placed)
		place->deleted = revision;
	else if (place && place->token < revision)
		etcd_place_gone(etcd, path, id);
}

void etcd_doubt_begin(struct etcd *etcd)
{
	if (!etcd->doubts++)
		etcd->store.events->grants(etcd->store.user, false);
}

void etcd_doubt_end(struct etcd *etcd)
{
	if (!--etcd->doubts)
		etcd->store.events->grants(etcd->store.user, true);
}

/* That it is gone is news that the confirmation itself spreads. */
static void on_asked_for(void *user, int result)
{
	etcd_doubt_end(user);
}

static void doubt(struct etcd *etcd, struct store_place *place)
{
	if (!place->placed || place->leaving)
		return;
	etcd_doubt_begin(etcd);
	etcd_ask_for(&etcd->store, place, on_asked_for, etcd);
}

void etcd_place_heed(struct etcd *etcd, const char *path, const char *id)
{
	struct store_place *place = etcd_find_place(etcd, path, id);

	if (place && place->deleted == DELETED_PERHAPS)
		doubt(etcd, place);
	else
		etcd_place_gone(etcd, path, id);
	etcd_doubt_end(etcd);
}

static void on_orphan_deleted(struct etcd_op *op, int result, const struct wire_result *answer)
{
	/* One that was given back while its lease's keys were listed has gone by itself. */
	if (answer->ranges[0].count && log_admits("left-over keys", 0, loop_clock()))
		log_info("a left-over key of lock %s was deleted", op->path);
	etcd_op_free(op);
}

/* A put whose answer never came may have been carried out after all, or after its delete. */
static void delete_orphan(struct etcd *etcd, const char *path, const char *id)
{
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_op_new(etcd, path, on_orphan_deleted, NULL);

	etcd_numbers_forget(etcd); /* it must not be somebody's when this is carried out */
	op->key = key_place(etcd->prefix, path, id);
	wire_range(&txn, op->key, NULL, &(struct wire_range_options){.keys_only = true});
	wire_delete(&txn, op->key);
	etcd_op_send_timed(op, &txn, ETCD_BATCH_ANY);
}

/* Backslashes stand twice in what key_below gives, and a NUL as \0, which is in no path. */
static bool unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == '\\' && *++text != '\\')
			return false;
		*to++ = *text;
	}
	*to = '\0';
	return true;
}

/*
 * What a key is below the prefix: the path of a lock, with *id set, or else of a directory with a
 * slash behind it.  NULL if it is neither.  The caller frees it.
 */
static char *split_key(struct etcd *etcd, const char *key, size_t size, char **id)
{
	char *below = key_below(etcd->prefix, "", key, size);

	*id = below ? key_split_place(below) : NULL;
	if (below && unescape(below))
		return below;
	free(below);
	*id = NULL;
	return NULL;
}

static void check_key(struct etcd *etcd, const struct wire_kv *kv)
{
	struct store_place *place;
	uint64_t sequence;
	char *id;
	cleanup(free_ptr) char *below = split_key(etcd, kv->key, kv->key_size, &id);

	if (!id) {
		etcd_leased_seen(etcd, below);
		return;
	}
	place = etcd_find_place(etcd, below, id);
	if (place)
		place->placed_at = UINT64_MAX; /* seen */
	else if (key_id_sequence(id, &sequence) && sequence <= etcd->check_sequence)
		delete_orphan(etcd, below, id);
}

/*
 * What the lease is said to have may be out of date: a member that has been standing still answers
 * such questions from memory, as the leader that it is no longer.  Only a read that goes through
 * the cluster is proof.
 */
static void compare_places(struct etcd *etcd, const struct wire_kvs *keys)
{
	struct store_place *place, *next;

	for (size_t i = 0; i < keys->count; i++)
		check_key(etcd, &keys->kv[i]);
	HASH_ITER(hh, etcd->places, place, next) {
		bool seen = place->placed_at == UINT64_MAX;
		if (seen)
			place->placed_at = 0;
		else if (place->placed_at <= etcd->check_clock)
			doubt(etcd, place);
	}
	etcd_leased_compare(etcd);
}

static int read_checked(struct etcd_call *call, const char *body)
{
	struct etcd *etcd = container_of(call, struct etcd, check_call);

	return wire_parse_lease_keys(body, etcd->lease.id, &etcd->check_ttl, &etcd->check_keys);
}

static void on_checked(struct etcd_call *call, int result)
{
	struct etcd *etcd = container_of(call, struct etcd, check_call);

	arm_check(etcd);
	if (result == ETCD_NO_LEASE) {
		etcd_lease_renew(&etcd->lease);
		return;
	}
	/* Whether it is gone is for a renewal to find out: this answer may be out of date. */
	if (!result && etcd->check_ttl <= 0)
		etcd_lease_renew(&etcd->lease);
	else if (!result)
		compare_places(etcd, &etcd->check_keys);
	wire_kvs_fini(&etcd->check_keys);
	etcd->store.events->recheck(etcd->store.user);
}

static void on_check_due(struct loop_timer *timer)
{
	struct etcd *etcd = container_of(timer, struct etcd, check_timer);

	etcd->check_clock = etcd->clock;
	etcd->check_sequence = etcd->sequence;
	etcd->check_call = (struct etcd_call){.rpc = "/v3/lease/timetolive",
		.body = wire_lease_keys(etcd->lease.id),
		.lane = ETCD_LANE_LEASE,
		.max_answer = ETCD_LARGE_ANSWER,
		.deadline = loop_clock() + etcd->lease.ttl,
		.from_memory = true,
		.read = read_checked,
		.fn = on_checked};
	etcd_call_start(etcd->client, &etcd->check_call);
}

static void check_now(struct etcd *etcd)
{
	if (etcd->lease.id && !etcd_call_active(&etcd->check_call))
		loop_timer_arm(etcd->loop, &etcd->check_timer, loop_clock());
}

/* --- the watch --- */

bool etcd_is_of_session(const struct etcd *etcd, const char *id)
{
	char text[STORE_ID_SIZE];
	int size = snprintf(text, sizeof(text), "%" PRIx64 ".", etcd->lease.id);

	return etcd->lease.id && strncmp(key_id_lease(id), text, (size_t)size) == 0;
}

static void on_deleted(struct etcd_watch *watch, const char *key, size_t size, uint64_t revision)
{
	struct etcd *etcd = container_of(watch, struct etcd, watch);
	struct store_place *place;
	char *id;
	cleanup(free_ptr) char *below = split_key(etcd, key, size, &id);

	if (!id) {
		if (etcd_leased_deleted(etcd, below, revision))
			check_now(etcd);
		return;
	}
	place = etcd_find_place(etcd, below, id);
	if (!place && etcd_is_of_session(etcd, id))
		return; /* given back, which the answer has told before */
	if (!place && key_noticed(below))
		etcd->store.events->shrunk(etcd->store.user, key_noticed(below), revision);
	else if (!place)
		etcd->store.events->removed(etcd->store.user, below, id, revision);
	else if (revision <= place->former)
		return; /* of an earlier place of that name */
	else if (place->token && place->token < revision && place->leaving)
		etcd_place_left(place);
	else
		etcd_place_deleted(etcd, below, id, revision);
}

/*
 * What was ours may have been deleted.  The comparison is no help, for it knows keys by their names
 * alone: a late copy of a request may have put one there again, behind others.
 */
static void on_gap(struct etcd_watch *watch)
{
	struct etcd *etcd = container_of(watch, struct etcd, watch);
	struct store_place *place, *next;

	HASH_ITER(hh, etcd->places, place, next) {
		if (!place->placed)
			place->deleted = DELETED_PERHAPS;
		doubt(etcd, place);
	}
	etcd->store.events->recheck(etcd->store.user);
}

/* Whether our places are there, and what else is, has to be asked. */
static void on_went_back(struct etcd_revision *revision)
{
	struct etcd *etcd = container_of(revision, struct etcd, revision);

	etcd->store.events->went_back(etcd->store.user);
	on_gap(&etcd->watch);
}

/* --- start and stop --- */

static void start_done(struct etcd *etcd, int result)
{
	store_done_fn *fn = take(etcd->start_fn);

	loop_timer_disarm(&etcd->start_timer);
	if (fn)
		fn(etcd->start_user, result);
}

static void on_open(struct etcd_watch *watch)
{
	start_done(container_of(watch, struct etcd, watch), 0);
}

/* What waits may have gone with what it waited for, which is told after that. */
static void on_telling(struct etcd_watch *watch, bool more)
{
	struct etcd *etcd = container_of(watch, struct etcd, watch);

	if (more == etcd->is_telling)
		return;
	etcd->is_telling = more;
	if (more)
		etcd_doubt_begin(etcd);
	else
		etcd_doubt_end(etcd);
}

static const struct etcd_watch_events watch_events = {
	.deleted = on_deleted, .telling = on_telling, .gap = on_gap, .open = on_open};

static void on_start_timeout(struct loop_timer *timer)
{
	start_done(container_of(timer, struct etcd, start_timer), -EIO);
}

/* Reading the root shows whether we may read at all. */
static void on_root_read(void *user, int result, struct store_view *view)
{
	struct etcd *etcd = user;

	if (result)
		start_done(etcd, result);
	else if (etcd->start_fn)
		etcd_watch_start(&etcd->watch, etcd->lease.granted_revision + 1);
}

static void on_lease_started(struct etcd_lease *lease, int result)
{
	struct etcd *etcd = container_of(lease, struct etcd, lease);

	if (result)
		start_done(etcd, result);
	else
		etcd_lookup(&etcd->store, "", on_root_read, etcd);
}

static void etcd_start(struct store *store, store_done_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	int64_t deadline = loop_clock() + etcd_client_timeout(etcd->client);

	etcd->start_fn = fn;
	etcd->start_user = user;
	/* A moment later than the lease's own, which knows better what went wrong. */
	loop_timer_arm(etcd->loop, &etcd->start_timer, deadline + 100);
	etcd_lease_start(&etcd->lease, deadline, on_lease_started);
}

static void on_lease_stopped(struct etcd_lease *lease, int result)
{
	struct etcd *etcd = container_of(lease, struct etcd, lease);
	store_done_fn *fn = take(etcd->stop_fn);

	fn(etcd->stop_user, result);
}

static void etcd_stop(struct store *store, store_done_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);

	etcd->stop_fn = fn;
	etcd->stop_user = user;
	loop_timer_disarm(&etcd->start_timer);
	loop_timer_disarm(&etcd->check_timer);
	etcd_call_cancel(&etcd->check_call);
	/* That everything goes is no news any more. */
	etcd_watch_stop(&etcd->watch);
	etcd_fence_end(&etcd->fence);
	etcd_lease_stop(
		&etcd->lease, loop_clock() + etcd_client_timeout(etcd->client), on_lease_stopped);
}

static void etcd_free(struct store *store)
{
	struct etcd *etcd = etcd_of(store);

	etcd_doubt_begin(etcd);
	end_ops(etcd, false);
	etcd_fence_end(&etcd->fence);
	forget_places(etcd);
	etcd_numbers_forget(etcd);
	etcd_leased_end(etcd, false);
	loop_timer_disarm(&etcd->start_timer);
	loop_timer_disarm(&etcd->check_timer);
	etcd_call_cancel(&etcd->check_call);
	etcd_watch_fini(&etcd->watch);
	etcd_lease_fini(&etcd->lease);
	etcd_client_free(etcd->client);
	etcd_line_fini(&etcd->places_line);
	etcd_line_fini(&etcd->names_line);
	free(etcd->prefix);
	free(etcd);
}

static void on_reachable(void *user, bool reachable)
{
	struct etcd *etcd = user;
	struct etcd_op *op;

	if (!reachable) {
		DL_FOREACH(etcd->ops, op) {
			if (loop_timer_armed(&op->timer))
				etcd_op_pronounce(op, op->verdict, 0);
		}
		/* Somebody has to find out when it answers again. */
		etcd_lease_renew(&etcd->lease);
	}
	etcd->store.events->reachable(etcd->store.user, reachable);
}

/* A member that does not answer calls may well be silent about deletes too. */
static void on_silent(void *user, const char *url)
{
	struct etcd *etcd = user;

	if (etcd->watch.endpoint && strcmp(etcd->watch.endpoint, url) == 0)
		etcd_watch_restart(&etcd->watch, "the member does not answer");
}

static const struct etcd_client_events client_events = {
	.reachable = on_reachable, .silent = on_silent};

static bool etcd_reachable(const struct store *store)
{
	return etcd_client_reachable(((const struct etcd *)store)->client);
}

static enum store_session etcd_session(const struct store *store)
{
	return ((const struct etcd *)store)->lease.state;
}

static const char *etcd_reason(const struct store *store)
{
	return etcd_client_last_error(((const struct etcd *)store)->client);
}

static void etcd_deaf(struct store *store)
{
	etcd_watch_doubt(&etcd_of(store)->watch);
}

static const struct store_ops etcd_ops = {
	.start = etcd_start,
	.resume = etcd_resume,
	.stop = etcd_stop,
	.free = etcd_free,
	.join = etcd_join,
	.try = etcd_try,
	.attempt = etcd_attempt,
	.adopt = etcd_adopt,
	.leave = etcd_leave,
	.confirm = etcd_confirm,
	.write = etcd_write,
	.evict = etcd_evict,
	.queue = etcd_queue,
	.deaf = etcd_deaf,
	.tidy = etcd_numbers_tidy,
	.lookup = etcd_lookup,
	.describe = etcd_describe,
	.list = etcd_list,
	.survey = etcd_survey,
	.mkdir = etcd_mkdir,
	.rmdir = etcd_rmdir,
	.change = etcd_change,
	.reachable = etcd_reachable,
	.session = etcd_session,
	.reason = etcd_reason,
	.status = etcd_status,
	.metrics = etcd_metrics,
	.endpoint = etcd_endpoint,
};

struct store *etcd_new(struct loop *loop, const struct etcd_options *options)
{
	/*
	 * Measured: of commits two under way keep etcd as busy as it can be, and more only make the
	 * batches smaller; looks cost it less, and who looks holds up a directory.
	 */
	enum { PLACES_WIDTH = 2, NAMES_WIDTH = 4, IDLE_TTLS = 10 };
	struct etcd *etcd = xzalloc(sizeof(*etcd));
	cleanup(free_ptr) char *first = key_first(options->prefix, "");
	cleanup(free_ptr) char *end = key_end(options->prefix, "");

	etcd->client = etcd_client_new(loop, &options->client, &client_events, etcd);
	if (!etcd->client) {
		free(etcd);
		return NULL;
	}
	etcd->store.ops = &etcd_ops;
	etcd->loop = loop;
	etcd->prefix = xstrdup(options->prefix);
	etcd->batch_max = ETCD_BATCH_MAX;
	etcd_fence_init(&etcd->fence, etcd);
	etcd_line_init(&etcd->places_line, etcd, ETCD_LANE_PLACES, PLACES_WIDTH);
	etcd_line_init(&etcd->names_line, etcd, ETCD_LANE_NAMES, NAMES_WIDTH);
	etcd->check_timer.fn = on_check_due;
	etcd->start_timer.fn = on_start_timeout;
	etcd->root_mode = options->root_mode;
	etcd_lease_init(&etcd->lease, loop, etcd->client, first, options->ttl, on_lease_state);
	etcd->lease.on_renewed = etcd_session_renewed;
	etcd->lease.revision = &etcd->revision;
	etcd->revision.went_back = on_went_back;
	etcd_watch_init(&etcd->watch, loop, etcd->client, first, end,
		options->ttl * 1000 * IDLE_TTLS, &watch_events);
	return &etcd->store;
}
