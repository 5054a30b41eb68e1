/* SPDX-License-Identifier: MIT */
#include "store/etcd/probe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "event/loop.h"
#include "store/etcd/ask.h"
#include "store/etcd/etcd.h"
#include "store/etcd/json.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"
#include "store/etcd/watch.h"
#include "store/etcd/wire.h"
#include "store/record.h"

enum {
	READS = 11, /* whose times are told */
	PAGE = 5000,
	MAX_KEYS = 200 * 1000,
	LEAST_MINOR = 4, /* etcd 3.4 is the oldest that is known to work */
	ID_SIZE = 24,
};

struct probe {
	struct etcd_ask ask;
	const struct etcd_options *options;
	etcd_probe_fn *fn;
	void *user;
	bool has_error;
	char cluster[ID_SIZE]; /* of the first address that answered */
	unsigned int answering;

	/* What it was answered. */
	struct wire_lease lease;
	struct {
		/* Numbers that may have 64 bits; no leader: "". */
		char cluster[ID_SIZE], member[ID_SIZE], leader[ID_SIZE];
		char version[32];
		char trouble[200]; /* alarms and the like */
		bool is_learner;
	} status;

	/* What was written. */
	uint64_t lease_id;
	int64_t ttl; /* of the lease; seconds */
	char *key;
	struct etcd_watch watch;
	bool is_watching, is_open, was_seen;
	double seen_at;
};

__attribute__((format(printf, 3, 4))) static void say(
	struct probe *probe, enum etcd_verdict verdict, const char *format, ...)
{
	va_list args;
	char text[1024];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	probe->has_error = probe->has_error || verdict == ETCD_VERDICT_ERROR;
	probe->fn(probe->user, verdict, text);
}

/* --- asking --- */

static void on_reachable(void *user, bool reachable)
{
}

static void on_silent(void *user, const char *url)
{
}

static const struct etcd_client_events client_events = {
	.reachable = on_reachable, .silent = on_silent};

static int read_grant(struct etcd_call *call, const char *body)
{
	return wire_parse_grant(body, &container_of(call, struct probe, ask.call)->lease);
}

static int read_keepalive(struct etcd_call *call, const char *body)
{
	struct probe *probe = container_of(call, struct probe, ask.call);

	return wire_parse_keepalive(body, probe->lease_id, &probe->lease);
}

static int read_lease_keys(struct etcd_call *call, const char *body)
{
	struct probe *probe = container_of(call, struct probe, ask.call);
	struct wire_kvs keys;
	int64_t ttl;
	int error = wire_parse_lease_keys(body, probe->lease_id, &ttl, &keys);

	if (!error)
		wire_kvs_fini(&keys);
	return error;
}

static int read_nothing(struct etcd_call *call, const char *body)
{
	return wire_parse_nothing(body);
}

/* Why, without the address, if that is said already. */
static const char *reason_behind(const struct probe *probe, int result, const char *what)
{
	const char *reason = etcd_ask_reason(&probe->ask, result);
	size_t length = strlen(what);

	return begins_with(reason, what) && begins_with(reason + length, ": ")
		       ? reason + length + strlen(": ")
		       : reason;
}

/* True if the result is 0; else says what could not be done. */
static bool went_well(struct probe *probe, int result, const char *what)
{
	const char *user = probe->options->client.user;

	if (result == 0)
		return true;
	if (result == -EACCES)
		say(probe, ETCD_VERDICT_ERROR, "%s: etcd refuses %s: %s", what,
			user ? user : "who gives no user", reason_behind(probe, result, what));
	else
		say(probe, ETCD_VERDICT_ERROR, "%s: %s", what, reason_behind(probe, result, what));
	return false;
}

/* --- each address --- */

static void read_errors(struct probe *probe, const struct cJSON *list)
{
	json_each(item, list) {
		const char *text = json_text(item);
		if (text && !*probe->status.trouble)
			copy_printable(probe->status.trouble, sizeof(probe->status.trouble), text);
	}
}

static void read_text(
	char *to, size_t size, const struct cJSON *object, const char *name, bool *bad)
{
	const char *text = json_expect_string(object, name, bad);

	copy_printable(to, size, text ? text : "");
}

static int read_status(struct etcd_call *call, const char *body)
{
	struct probe *probe = container_of(call, struct probe, ask.call);
	cleanup(json_free_ptr) struct cJSON *json = json_parse(body);
	bool bad = !json;
	const struct cJSON *header = json_expect_object(json, "header", &bad);

	memset(&probe->status, 0, sizeof(probe->status));
	read_text(probe->status.cluster, ID_SIZE, header, "cluster_id", &bad);
	read_text(probe->status.member, ID_SIZE, header, "member_id", &bad);
	read_text(probe->status.leader, ID_SIZE, json, "leader", &bad);
	read_text(probe->status.version, sizeof(probe->status.version), json, "version", &bad);
	probe->status.is_learner = json_expect_bool(json, "isLearner", &bad);
	read_errors(probe, json_expect_array(json, "errors", &bad));
	return bad || !*probe->status.version || !*probe->status.cluster ? -EBADMSG : 0;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Linearizable ones, as all that a mount reads.  Their times, in order. */
static int read_often(struct probe *probe, double *times)
{
	for (int i = 0; i < READS; i++) {
		struct wire_txn txn = {0};
		cleanup(free_ptr) char *first = key_first(probe->options->prefix, "");
		cleanup(free_ptr) char *end = key_end(probe->options->prefix, "");
		wire_range(&txn, first, end,
			&(struct wire_range_options){.keys_only = true, .limit = 1});
		int result = etcd_ask_txn(&probe->ask, &txn);
		if (result)
			return result;
		wire_result_fini(&probe->ask.answer);
		times[i] = probe->ask.milliseconds;
	}
	qsort(times, READS, sizeof(times[0]), by_size);
	return 0;
}

static void judge_version(struct probe *probe, const char *url)
{
	unsigned int major = 0, minor = 0;

	if (sscanf(probe->status.version, "%u.%u", &major, &minor) != 2 || major != 3 ||
		minor < LEAST_MINOR)
		say(probe, ETCD_VERDICT_WARNING,
			"%s: etcd %s is not known to work: 3.%d or later is", url,
			probe->status.version, LEAST_MINOR);
}

static void judge_member(struct probe *probe, const char *url)
{
	if (!*probe->cluster)
		copy_string(probe->cluster, ID_SIZE, probe->status.cluster);
	if (strcmp(probe->status.cluster, probe->cluster) != 0)
		say(probe, ETCD_VERDICT_ERROR,
			"%s belongs to another cluster (%s) than the first that answers (%s): "
			"locks there would be others",
			url, probe->status.cluster, probe->cluster);
	if (!*probe->status.leader)
		say(probe, ETCD_VERDICT_ERROR,
			"%s has no leader: most members are out of its reach", url);
	if (probe->status.is_learner)
		say(probe, ETCD_VERDICT_WARNING, "%s is a learner and answers nothing of use", url);
	if (*probe->status.trouble)
		say(probe, ETCD_VERDICT_WARNING, "%s reports: %s", url, probe->status.trouble);
	judge_version(probe, url);
}

static void probe_client(struct probe *probe, const char *url)
{
	double times[READS];
	int result = etcd_ask(&probe->ask, "/v3/maintenance/status", xstrdup("{}"), read_status);

	if (result == -EACCES) {
		went_well(probe, result, url);
		return;
	}
	if (result) {
		say(probe, ETCD_VERDICT_WARNING, "%s does not answer: %s", url,
			reason_behind(probe, result, url));
		return;
	}
	judge_member(probe, url);
	if (!went_well(probe, read_often(probe, times), url))
		return;
	probe->answering++;
	say(probe, ETCD_VERDICT_OK,
		"%s answers: etcd %s, %s, reads in %.1f, %.1f, %.1f ms (least, median, most)", url,
		probe->status.version,
		strcmp(probe->status.leader, probe->status.member) == 0 ? "the leader"
									: "a follower",
		times[0], times[READS / 2], times[READS - 1]);
}

static bool probe_addresses(struct probe *probe)
{
	const struct etcd_client_options *all = &probe->options->client;

	for (size_t i = 0; i < all->endpoint_count && !*probe->ask.interrupted; i++) {
		struct etcd_client_options one = *all;
		one.endpoints = &all->endpoints[i];
		one.endpoint_count = 1;
		probe->ask.client = etcd_client_new(probe->ask.loop, &one, &client_events, probe);
		if (!probe->ask.client) {
			say(probe, ETCD_VERDICT_ERROR, "libcurl can't be set up");
			return false;
		}
		probe_client(probe, all->endpoints[i]);
		etcd_client_free(take(probe->ask.client));
	}
	if (!probe->answering && !probe->has_error && !*probe->ask.interrupted)
		say(probe, ETCD_VERDICT_ERROR,
			"no address answers: is etcd running there, and may this machine reach "
			"it?");
	else if (probe->answering && all->endpoint_count == 1)
		say(probe, ETCD_VERDICT_OK,
			"no other address is known, to go on with if this one does not answer");
	return probe->answering > 0;
}

/* --- a session, as a mount has one --- */

static void on_deleted(struct etcd_watch *watch, const char *key, size_t size, uint64_t revision)
{
	struct probe *probe = container_of(watch, struct probe, watch);

	if (size != strlen(probe->key) || memcmp(key, probe->key, size) != 0)
		return;
	probe->was_seen = true;
	probe->seen_at = etcd_ask_clock();
	loop_stop(probe->ask.loop);
}

static void on_open(struct etcd_watch *watch)
{
	struct probe *probe = container_of(watch, struct probe, watch);

	probe->is_open = true;
	loop_stop(probe->ask.loop);
}

static void on_gap(struct etcd_watch *watch)
{
}

static void on_telling(struct etcd_watch *watch, bool more)
{
}

static const struct etcd_watch_events watch_events = {
	.deleted = on_deleted, .telling = on_telling, .gap = on_gap, .open = on_open};

/* Asks what must be answered, whoever interrupts. */
static int ask_to_the_end(struct probe *probe, const char *rpc, char *body, etcd_read_fn *read)
{
	static const bool never;
	const bool *interrupted = probe->ask.interrupted;

	probe->ask.interrupted = &never;
	int result = etcd_ask(&probe->ask, rpc, body, read);
	probe->ask.interrupted = interrupted;
	return result;
}

static bool get_lease(struct probe *probe)
{
	int ttl = probe->options->ttl;

	/* Else there may be one that we never hear of. */
	int result = ask_to_the_end(probe, "/v3/lease/grant", wire_lease_grant(ttl), read_grant);
	if (!went_well(probe, result, "a lease"))
		return false;
	probe->lease_id = probe->lease.id;
	probe->ttl = probe->lease.ttl;
	probe->ask.revision = probe->lease.revision;
	if (probe->lease.ttl == ttl)
		say(probe, ETCD_VERDICT_OK, "a lease of %d s is granted as asked for", ttl);
	else
		say(probe, ETCD_VERDICT_WARNING,
			"a lease of %d s was asked for and one of %" PRId64
			" s granted: so long a lock of a machine that died is not free",
			ttl, probe->lease.ttl);
	return true;
}

static bool open_watch(struct probe *probe)
{
	cleanup(free_ptr) char *first = key_first(probe->options->prefix, "");
	cleanup(free_ptr) char *end = key_end(probe->options->prefix, "");

	etcd_watch_init(&probe->watch, probe->ask.loop, probe->ask.client, first, end,
		probe->options->client.timeout * 2, &watch_events);
	probe->is_watching = true;
	etcd_watch_start(&probe->watch, probe->ask.revision + 1);
	if (etcd_ask_await(&probe->ask, &probe->is_open) || *probe->ask.interrupted)
		return probe->is_open;
	say(probe, ETCD_VERDICT_ERROR,
		"the keys below %s can't be watched: is there something between here and etcd that "
		"keeps answers back, or may the user not read them?",
		first);
	return false;
}

/* As long as what usual locks have. */
static char *usual_value(void)
{
	struct record record = {.known = true, .since = time(NULL)};

	copy_string(record.host, sizeof(record.host), "latchfs-check.example.org");
	copy_string(record.command, sizeof(record.command), "latchfs");
	return value_of_record(&record, false);
}

/* One write: 0, or as of a call.  The revision has to grow with each. */
static int change(struct probe *probe, struct wire_txn *txn)
{
	uint64_t before = probe->ask.revision;
	int result = etcd_ask_txn(&probe->ask, txn);

	if (result)
		return result;
	uint64_t now = probe->ask.answer.revision;
	wire_result_fini(&probe->ask.answer);
	if (now <= before)
		say(probe, ETCD_VERDICT_ERROR,
			"etcd's revision did not grow with a write (%" PRIu64 " after %" PRIu64
			"): was it restored from a backup just now?",
			now, before);
	return 0;
}

static bool write_key(struct probe *probe)
{
	struct wire_txn put = {0}, delete = {0};
	cleanup(free_ptr) char *value = usual_value();

	wire_put(&put, probe->key, value, probe->lease_id);
	if (!went_well(probe, change(probe, &put), "writing a key below the prefix"))
		return false;
	double written = probe->ask.milliseconds;
	char *body = wire_lease_keys(probe->lease_id);
	if (!went_well(probe, etcd_ask(&probe->ask, "/v3/lease/timetolive", body, read_lease_keys),
		    "reading the keys of the lease"))
		return false;
	wire_delete(&delete, probe->key);
	double begun = etcd_ask_clock();
	if (!went_well(probe, change(probe, &delete), "deleting a key below the prefix"))
		return false;
	say(probe, ETCD_VERDICT_OK,
		"a key below the prefix is written in %.1f ms, deleted in %.1f ms", written,
		probe->ask.milliseconds);
	if (etcd_ask_await(&probe->ask, &probe->was_seen))
		say(probe, ETCD_VERDICT_OK, "who waits hears of a release in %.1f ms, by the watch",
			probe->seen_at - begun);
	else if (!*probe->ask.interrupted)
		say(probe, ETCD_VERDICT_ERROR,
			"the watch does not tell of a delete: who waits would not hear of a "
			"release");
	return probe->was_seen;
}

static bool renew(struct probe *probe)
{
	char *body = wire_lease(probe->lease_id);
	int result = etcd_ask(&probe->ask, "/v3/lease/keepalive", body, read_keepalive);

	if (!went_well(probe, result, "renewing the lease"))
		return false;
	if (probe->lease.ttl > 0) {
		say(probe, ETCD_VERDICT_OK, "the lease is renewed");
		return true;
	}
	say(probe, ETCD_VERDICT_ERROR, "the lease was gone before its time");
	return false;
}

/* Whether it is gone. */
static void look_for_key(struct probe *probe)
{
	struct wire_txn txn = {0};

	wire_range(&txn, probe->key, NULL, &(struct wire_range_options){.keys_only = true});
	if (!went_well(probe, etcd_ask_txn(&probe->ask, &txn), "reading the key"))
		return;
	if (probe->ask.answer.ranges[0].count)
		say(probe, ETCD_VERDICT_ERROR, "the key %s is left behind", probe->key);
	else
		say(probe, ETCD_VERDICT_OK, "the lease is given back; nothing is left in etcd");
	wire_result_fini(&probe->ask.answer);
}

/* Takes all away that was written. */
static void end_session(struct probe *probe)
{
	int result = ask_to_the_end(
		probe, "/v3/lease/revoke", wire_lease(probe->lease_id), read_nothing);

	if (result && result != ETCD_NO_LEASE)
		say(probe, ETCD_VERDICT_ERROR,
			"giving the lease back: %s; it ends by itself within %" PRId64
			" s, and its key with it",
			etcd_ask_reason(&probe->ask, result), probe->ttl);
	else if (!*probe->ask.interrupted)
		look_for_key(probe);
}

static void probe_session(struct probe *probe)
{
	if (!get_lease(probe))
		return;
	cleanup(free_ptr) char *path = key_notice_path("latchfs-check");
	cleanup(free_ptr) char *id = xasprintf("%" PRIx64 ".0", probe->lease_id);
	probe->key = key_place(probe->options->prefix, path, id);
	(void)(open_watch(probe) && write_key(probe) && renew(probe));
	if (probe->is_watching)
		etcd_watch_fini(&probe->watch);
	end_session(probe);
	free(take(probe->key));
}

/* --- what is there already --- */

struct census {
	size_t directories, places, foreign, keys;
	char *example; /* owned; a foreign one */
	char *from;    /* owned; where the next page begins */
};

static void count_key(struct probe *probe, struct census *census, const struct wire_kv *kv)
{
	cleanup(free_ptr) char *below =
		key_below(probe->options->prefix, "", kv->key, kv->key_size);
	struct range range;
	uint64_t number;

	if (below && key_is_hidden(below))
		return;
	census->keys++;
	if (!below || !*below || below[strlen(below) - 1] == '/') {
		census->directories += below != NULL;
		return;
	}
	char *id = key_split_place(below);
	if (id && (key_id_sequence(id, &number) || key_id_range(id, &range))) {
		census->places++;
		return;
	}
	census->foreign++;
	if (!census->example) {
		census->example = xzalloc(kv->key_size + 1);
		copy_printable(census->example, kv->key_size + 1, kv->key);
	}
}

/* 0 while there is more, 1 at the end, or as of a call. */
static int count_page(struct probe *probe, struct census *census)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *end = key_end(probe->options->prefix, "");

	wire_range(&txn, census->from, end,
		&(struct wire_range_options){.keys_only = true, .limit = PAGE});
	int result = etcd_ask_txn(&probe->ask, &txn);
	if (result)
		return result < 0 ? result : -EIO;
	const struct wire_kvs *kvs = &probe->ask.answer.ranges[0];
	for (size_t i = 0; i < kvs->count; i++)
		count_key(probe, census, &kvs->kv[i]);
	bool is_end = !kvs->more || !kvs->count || census->keys >= MAX_KEYS;
	free(take(census->from));
	if (!is_end)
		census->from = xasprintf("%s\x01", kvs->kv[kvs->count - 1].key);
	wire_result_fini(&probe->ask.answer);
	return is_end;
}

static void probe_prefix(struct probe *probe)
{
	const char *prefix = probe->options->prefix;
	struct census census = {.from = key_first(prefix, "")};
	int result = 0;

	while (result == 0)
		result = count_page(probe, &census);
	if (result < 0)
		went_well(probe, result, "reading the keys below the prefix");
	else if (!census.keys)
		say(probe, ETCD_VERDICT_OK, "there is no key below %s/", prefix);
	else
		say(probe, ETCD_VERDICT_OK,
			"%s%zu keys below %s/: %zu places in queues, %zu directories",
			census.keys >= MAX_KEYS ? "more than " : "", census.keys, prefix,
			census.places, census.directories);
	if (census.foreign)
		say(probe, ETCD_VERDICT_WARNING,
			"%zu of them are other programs', such as %s: what is no lock shows as one "
			"that "
			"somebody holds; take a prefix of its own for the mount",
			census.foreign, census.example);
	free(census.example);
	free(census.from);
}

bool etcd_probe(struct loop *loop, const struct etcd_options *options, const bool *interrupted,
	etcd_probe_fn *fn, void *user)
{
	struct probe probe = {.ask = {.loop = loop,
				      .timeout = options->client.timeout,
				      .interrupted = interrupted},
		.options = options,
		.fn = fn,
		.user = user};

	if (probe_addresses(&probe)) {
		probe.ask.client = etcd_client_new(loop, &options->client, &client_events, &probe);
		probe_session(&probe);
		if (!*interrupted)
			probe_prefix(&probe);
		etcd_client_free(probe.ask.client);
	}
	if (*interrupted)
		say(&probe, ETCD_VERDICT_ERROR, "interrupted: not everything was asked");
	return !probe.has_error;
}
