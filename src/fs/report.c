/* SPDX-License-Identifier: MIT */
#include "fs/report.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/json_text.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/request.h"
#include "lock/lockspace.h"
#include "store/policy.h"

static const char *const session_names[] = {[STORE_SESSION_HELD] = "held",
	[STORE_SESSION_DOUBTFUL] = "doubtful",
	[STORE_SESSION_LOST] = "lost"};

/* The worst of what can be said. */
static const char *state_of(const struct store_status *store)
{
	if (store->session == STORE_SESSION_HELD)
		return store->reachable ? "ok" : "unreachable";
	return session_names[store->session];
}

static void add_process(struct json_text *json, const struct fs *fs)
{
	char started[32];
	struct tm tm;

	strftime(
		started, sizeof(started), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&fs->started.tv_sec, &tm));
	json_text_string(json, "version", LATCHFS_VERSION);
	json_text_string(json, "node", fs->options.host);
	json_text_string(json, "source", fs->options.source);
	json_text_string(json, "mountpoint", fs->options.mount_point);
	json_text_number(json, "pid", getpid());
	json_text_string(json, "started", started);
	json_text_seconds(json, "uptime_seconds", loop_clock() - fs->started_at);
}

static void add_endpoints(struct json_text *json, const struct store *store)
{
	struct store_endpoint endpoint;

	json_text_open(json, "endpoints", '[');
	for (size_t i = 0; store->ops->endpoint(store, i, &endpoint); i++) {
		json_text_open(json, NULL, '{');
		json_text_string(json, "url", endpoint.url);
		json_text_bool(json, "answers", endpoint.answers);
		json_text_close(json, '}');
	}
	json_text_close(json, ']');
}

static void add_store(
	struct json_text *json, const struct store *store, const struct store_status *status)
{
	json_text_open(json, "store", '{');
	json_text_string(json, "kind", status->kind);
	json_text_string(json, "prefix", status->prefix);
	json_text_bool(json, "reachable", status->reachable);
	json_text_bool(json, "listening", status->listening);
	json_text_string(json, "last_error", *status->reason ? status->reason : NULL);
	add_endpoints(json, store);
	json_text_close(json, '}');
}

static void add_lease(struct json_text *json, const struct store_status *status)
{
	int64_t now = loop_clock();

	json_text_open(json, "lease", '{');
	json_text_string(json, "state", session_names[status->session]);
	json_text_string(json, "id", *status->session_id ? status->session_id : NULL);
	if (*status->session_id) {
		json_text_seconds(json, "ttl_seconds", status->ttl);
		json_text_seconds(json, "renewed_seconds_ago", now - status->renewed_at);
		json_text_seconds(json, "lost_in_seconds", status->deadline - now);
	}
	json_text_close(json, '}');
}

static void add_counts(struct json_text *json, const struct fs *fs)
{
	struct lockspace_counts counts;
	struct request *request;
	int requests;

	lockspace_count(fs->space, &counts);
	DL_COUNT2(fs->requests, request, requests, next_request);
	requests--; /* the one that is answered with this */
	json_text_open(json, "counts", '{');
	json_text_number(json, "held", (int64_t)counts.held);
	json_text_number(json, "waiting", (int64_t)counts.waiting);
	json_text_number(json, "lost", (int64_t)counts.lost);
	json_text_number(json, "releasing", (int64_t)counts.releasing);
	json_text_number(json, "handles", (int64_t)fs->handles.used);
	json_text_number(json, "names", (int64_t)HASH_COUNT(fs->nodes));
	json_text_number(json, "requests", requests);
	json_text_number(json, "content_bytes", (int64_t)counts.content);
	json_text_close(json, '}');
}

/* Without what is secret, or says where that is kept. */
static void add_options(struct json_text *json, const struct fs *fs)
{
	const struct fs_options *options = &fs->options;
	struct store_policy policy = node_policy(fs->root);

	json_text_open(json, "options", '{');
	json_text_seconds(json, "ttl", options->ttl);
	json_text_seconds(json, "timeout", options->timeout);
	json_text_number(json, "max_claims", options->max_claims);
	json_text_number(json, "max_content", options->max_content);
	json_text_number(json, "max_handles", options->max_handles);
	json_text_number(json, "user_share", options->user_share);
	json_text_number(json, "write_rate", options->write_rate);
	json_text_bool(json, "login", options->login);
	for (size_t i = 0; i < POLICY_COUNT; i++)
		json_text_string(json, policy_name(i), policy_get(&policy, policy_name(i)));
	json_text_close(json, '}');
}

char *report_status(const struct fs *fs)
{
	const struct store *store = fs->store;
	struct json_text json = {0};
	struct store_status status;

	store->ops->status(store, &status);
	json_text_open(&json, NULL, '{');
	json_text_string(&json, "state", state_of(&status));
	add_process(&json, fs);
	add_store(&json, store, &status);
	add_lease(&json, &status);
	add_counts(&json, fs);
	add_options(&json, fs);
	json_text_close(&json, '}');
	return json_text_take(&json);
}

/* Words are only ever added. */
static const char capabilities[] = "flock\n"
				   "fcntl\n"
				   "ofd\n"
				   "create-exclusive\n"
				   "shared\n"
				   "fifo\n"
				   "mkdir\n"
				   "link\n"
				   "symlink\n"
				   "token\n"
				   "record\n"
				   "content\n"
				   "fsync-confirms\n"
				   "poll-loss\n"
				   "holder\n"
				   "queue\n"
				   "break\n"
				   "policies\n"
				   "status\n"
				   "locks\n"
				   "metrics\n";

char *report_capabilities(const struct fs *fs)
{
	return xstrdup(capabilities);
}
