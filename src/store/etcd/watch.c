/* SPDX-License-Identifier: MIT */
#include "store/etcd/watch.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "event/http.h"
#include "store/etcd/client.h"
#include "store/etcd/wire.h"

enum { MAX_MESSAGE = 64 * 1024 * 1024 };

static void on_data(void *user, const char *data, size_t size);
static void on_done(void *user, const struct http_result *result);

static void close_stream(struct etcd_watch *watch)
{
	if (watch->request)
		http_cancel(take(watch->request));
	watch->is_open = false;
	watch->line.size = 0;
	loop_timer_disarm(&watch->timer);
}

static void open_stream(struct etcd_watch *watch)
{
	/* Without hasleader a member that is cut off from the others would stay silent for ever. */
	const char *headers[] = {
		"Grpc-Metadata-hasleader: true", etcd_client_authorization(watch->client), NULL};
	cleanup(free_ptr) char *body = wire_watch(watch->first, watch->end, watch->next);

	free(watch->endpoint);
	watch->endpoint = xstrdup(etcd_client_endpoint(watch->client));
	cleanup(free_ptr) char *url = xasprintf("%s/v3/watch", watch->endpoint);
	struct http_call call = {.url = url,
		.body = body,
		.body_size = strlen(body),
		.headers = headers,
		.connect_timeout = etcd_client_timeout(watch->client),
		.idle_timeout = watch->idle_timeout,
		.max_size = MAX_MESSAGE,
		.on_data = on_data,
		.on_done = on_done,
		.user = watch};
	watch->request = http_start(etcd_client_stream_pool(watch->client), &call);
	loop_timer_arm(
		watch->loop, &watch->timer, loop_clock() + etcd_client_timeout(watch->client));
}

static void failed(struct etcd_watch *watch, const char *reason)
{
	if (watch->is_open)
		log_warning("the watch at %s broke: %s", watch->endpoint, reason);
	else
		log_trace("the watch at %s: %s", watch->endpoint, reason);
	close_stream(watch);
	etcd_client_blame(watch->client, watch->endpoint);
	loop_timer_arm(watch->loop, &watch->timer, loop_clock() + etcd_backoff(watch->failures++));
}

static void on_timer(struct loop_timer *timer)
{
	struct etcd_watch *watch = container_of(timer, struct etcd_watch, timer);

	if (watch->request)
		failed(watch, "the stream was not opened in time");
	else
		open_stream(watch);
}

static void opened(struct etcd_watch *watch, uint64_t revision)
{
	bool gap = watch->next == 0;

	if (revision + 1 < watch->next) {
		/* The store has gone back in time: our revision may never come. */
		log_warning("etcd's revision went back; the watch begins anew");
		watch->next = 0;
		close_stream(watch);
		open_stream(watch);
		return;
	}
	loop_timer_disarm(&watch->timer);
	watch->is_open = true;
	if (watch->failures && watch->was_open)
		log_warning("the watch goes on at %s", watch->endpoint);
	watch->failures = 0;
	watch->was_open = true;
	if (gap)
		watch->next = revision + 1;
	watch->events->open(watch);
	if (gap)
		watch->events->gap(watch);
}

static void canceled(struct etcd_watch *watch, const struct wire_watch_message *message)
{
	if (message->compacted_to || message->error.kind == WIRE_ERROR_COMPACTED) {
		log_warning("the watch's revision was compacted; the queues are read anew");
		watch->next = 0;
		close_stream(watch);
		open_stream(watch);
		return;
	}
	if (message->error.kind == WIRE_ERROR_TOKEN || message->error.kind == WIRE_ERROR_REFUSED)
		etcd_client_token_refused(watch->client);
	failed(watch, message->error.message);
}

static void on_message(struct etcd_watch *watch, const struct wire_watch_message *message)
{
	const struct wire_kvs *deleted = &message->deleted;

	if (message->canceled) {
		canceled(watch, message);
		return;
	}
	if (message->created) {
		opened(watch, message->revision);
		return;
	}
	for (size_t i = 0; i < deleted->count; i++) {
		const struct wire_kv *kv = &deleted->kv[i];
		if (kv->modified >= watch->next)
			watch->next = kv->modified + 1;
		watch->events->deleted(watch, kv->key, kv->key_size, kv->modified);
	}
	/* A message without events says that everything up to its revision has been told. */
	if (!deleted->count && message->revision >= watch->next)
		watch->next = message->revision + 1;
}

/* Takes one line out of what has arrived.  False if there is no whole one. */
static bool handle_line(struct etcd_watch *watch)
{
	struct wire_watch_message message;
	char *end = watch->line.size ? memchr(watch->line.data, '\n', watch->line.size) : NULL;

	if (!end)
		return false;
	*end = '\0';
	int error = *watch->line.data ? wire_parse_watch(watch->line.data, &message) : -EAGAIN;
	buffer_consume(&watch->line, (size_t)(end - watch->line.data) + 1);
	if (error == -EBADMSG)
		failed(watch, "a message makes no sense");
	if (error)
		return error == -EAGAIN;
	on_message(watch, &message);
	wire_kvs_fini(&message.deleted);
	return true;
}

static void on_data(void *user, const char *data, size_t size)
{
	struct etcd_watch *watch = user;

	if (watch->line.size + size > MAX_MESSAGE) {
		failed(watch, "a message is too large");
		return;
	}
	buffer_add(&watch->line, data, size);
	while (handle_line(watch))
		;
}

static void on_done(void *user, const struct http_result *result)
{
	struct etcd_watch *watch = user;
	struct wire_error error = {.message = "the stream ended"};

	watch->request = NULL;
	if (result->error == -ETIMEDOUT && watch->is_open) {
		/* Silence is no fault, but a fresh connection is how we know that it is only that.
		 */
		close_stream(watch);
		open_stream(watch);
		return;
	}
	if (result->error)
		copy_string(error.message, sizeof(error.message), result->reason);
	else if (result->status != 200)
		wire_parse_error(result->body, result->status, &error);
	if (result->status != 200 && error.kind == WIRE_ERROR_TOKEN)
		etcd_client_token_refused(watch->client);
	failed(watch, error.message);
}

void etcd_watch_init(struct etcd_watch *watch, struct loop *loop, struct etcd_client *client,
	const char *first, const char *end, int idle_timeout,
	const struct etcd_watch_events *events)
{
	*watch = (struct etcd_watch){
		.loop = loop,
		.client = client,
		.events = events,
		.first = xstrdup(first),
		.end = xstrdup(end),
		.idle_timeout = idle_timeout,
		.timer.fn = on_timer,
	};
}

void etcd_watch_fini(struct etcd_watch *watch)
{
	close_stream(watch);
	buffer_fini(&watch->line);
	free(watch->first);
	free(watch->end);
	free(watch->endpoint);
}

void etcd_watch_start(struct etcd_watch *watch, uint64_t from)
{
	watch->next = from;
	open_stream(watch);
}

void etcd_watch_stop(struct etcd_watch *watch)
{
	close_stream(watch);
}

void etcd_watch_restart(struct etcd_watch *watch, const char *reason)
{
	if (watch->is_open)
		failed(watch, reason);
}
