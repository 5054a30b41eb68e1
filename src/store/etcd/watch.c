/* SPDX-License-Identifier: MIT */
#include "store/etcd/watch.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "event/http.h"
#include "store/etcd/client.h"
#include "store/etcd/wire.h"

enum {
	STEADY = 5000,       /* a stream that was open for so long was no failure */
	SILENCE = 60 * 1000, /* between two complaints, if it never is */
};

static void on_data(void *user, const char *data, size_t size);
static void on_done(void *user, const struct http_result *result);

static void close_stream(struct etcd_watch *watch)
{
	if (watch->request)
		http_cancel(take(watch->request));
	watch->is_open = false;
	watch->streams++;
	buffer_fini(&watch->line);
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
		.max_size = ETCD_LARGE_ANSWER,
		.on_data = on_data,
		.on_done = on_done,
		.user = watch};
	watch->request = http_start(etcd_client_stream_pool(watch->client), &call);
	loop_timer_arm(
		watch->loop, &watch->timer, loop_clock() + etcd_client_timeout(watch->client));
}

static void judge_stream(struct etcd_watch *watch)
{
	if (watch->is_open && loop_clock() - watch->opened_at >= STEADY)
		watch->failures = 0;
}

/* Once more, and at once, unless that is all that ever happens. */
static void reopen(struct etcd_watch *watch)
{
	judge_stream(watch);
	close_stream(watch);
	if (!watch->failures++)
		open_stream(watch);
	else
		loop_timer_arm(
			watch->loop, &watch->timer, loop_clock() + etcd_backoff(watch->failures));
}

static void broke(struct etcd_watch *watch, const char *reason)
{
	int64_t now = loop_clock();

	judge_stream(watch);
	if (watch->is_open && (!watch->failures || now - watch->said_at >= SILENCE)) {
		log_warning("the watch at %s broke: %s", watch->endpoint, reason);
		watch->said_broken = true;
		watch->said_at = now;
	} else {
		log_trace("the watch at %s: %s", watch->endpoint, reason);
	}
	close_stream(watch);
	loop_timer_arm(watch->loop, &watch->timer, now + etcd_backoff(watch->failures++));
}

/* By the member's fault. */
static void failed(struct etcd_watch *watch, const char *reason)
{
	etcd_client_blame(watch->client, watch->endpoint);
	broke(watch, reason);
}

/* What is between our revision and the store's can't be had. */
static void begin_anew(struct etcd_watch *watch, const char *reason)
{
	if (!watch->failures)
		log_warning("%s", reason);
	watch->next = 0;
	reopen(watch);
}

static void on_timer(struct loop_timer *timer)
{
	struct etcd_watch *watch = container_of(timer, struct etcd_watch, timer);

	if (!watch->request)
		open_stream(watch);
	else if (!watch->is_open)
		failed(watch, "the stream was not opened in time");
	else if (watch->next == watch->doubted)
		failed(watch, "events are missing");
}

static const char went_back[] = "etcd's revision went back; the watch begins anew";

/* If the stream breaks before, the next one begins with the same revision. */
static void told(struct etcd_watch *watch)
{
	if (!watch->is_telling)
		return;
	watch->is_telling = false;
	watch->events->telling(watch, false);
}

static void opened(struct etcd_watch *watch, uint64_t revision)
{
	bool gap = watch->next == 0;

	if (revision + 1 < watch->next) {
		/* The store has gone back in time: our revision may never come. */
		begin_anew(watch, went_back);
		return;
	}
	loop_timer_disarm(&watch->timer);
	watch->is_open = true;
	watch->opened_at = loop_clock();
	if (watch->said_broken)
		log_warning("the watch goes on at %s", watch->endpoint);
	watch->said_broken = false;
	if (gap)
		watch->next = revision + 1;
	watch->events->open(watch);
	if (!gap)
		return;
	watch->events->gap(watch);
	told(watch);
}

static void canceled(struct etcd_watch *watch, const struct wire_watch_message *message)
{
	if (message->compacted_to || message->error.kind == WIRE_ERROR_COMPACTED) {
		begin_anew(watch, "the watch's revision was compacted; the queues are read anew");
		return;
	}
	if (message->error.kind == WIRE_ERROR_TOKEN || message->error.kind == WIRE_ERROR_REFUSED)
		etcd_client_token_refused(watch->client);
	failed(watch, message->error.message);
}

static void on_deletes(struct etcd_watch *watch, const struct wire_watch_message *message)
{
	const struct wire_kvs *deleted = &message->deleted;

	if (deleted->kv[0].modified < watch->next) {
		begin_anew(watch, went_back);
		return;
	}
	/* Of a revision whose events are not complete all would have to come again. */
	watch->next = deleted->kv[deleted->count - 1].modified + !message->is_fragment;
	watch->is_telling = true;
	watch->events->telling(watch, true);
	for (size_t i = 0; i < deleted->count; i++) {
		const struct wire_kv *kv = &deleted->kv[i];
		watch->events->deleted(watch, kv->key, kv->key_size, kv->modified);
	}
	if (!message->is_fragment)
		told(watch);
}

/* A message without events says that everything up to its revision has been told. */
static void caught_up(struct etcd_watch *watch, uint64_t revision)
{
	watch->next = revision + 1;
	told(watch);
}

static void on_message(struct etcd_watch *watch, const struct wire_watch_message *message)
{
	if (message->canceled)
		canceled(watch, message);
	else if (message->created)
		opened(watch, message->revision);
	else if (!watch->is_open)
		failed(watch, "there was news before it was open");
	else if (message->deleted.count)
		on_deletes(watch, message);
	else if (message->revision >= watch->next)
		caught_up(watch, message->revision);
}

static void handle_line(struct etcd_watch *watch, const char *line, size_t size)
{
	struct wire_watch_message message;

	if (strlen(line) != size || wire_parse_watch(line, &message) < 0) {
		failed(watch, "a message makes no sense");
		return;
	}
	on_message(watch, &message);
	wire_kvs_fini(&message.deleted);
}

/* Handles the whole lines of what has arrived; those behind `searched` bytes are new. */
static void handle_lines(struct etcd_watch *watch, struct buffer *text, size_t searched)
{
	unsigned int stream = watch->streams;
	size_t begin = 0;
	char *end;

	while ((end = memchr(text->data + searched, '\n', text->size - searched))) {
		*end = '\0';
		handle_line(watch, text->data + begin, (size_t)(end - text->data) - begin);
		if (watch->streams != stream)
			return;
		begin = searched = (size_t)(end + 1 - text->data);
	}
	buffer_consume(text, begin);
	if (!text->size)
		return;
	watch->line = *text;
	*text = (struct buffer){0};
}

static void on_data(void *user, const char *data, size_t size)
{
	struct etcd_watch *watch = user;
	struct buffer text = watch->line;
	size_t searched = text.size;

	if (text.size + size > ETCD_LARGE_ANSWER) {
		watch->next = 0; /* it would come again and again */
		failed(watch, "a message is too large");
		return;
	}
	watch->line = (struct buffer){0};
	buffer_add(&text, data, size);
	handle_lines(watch, &text, searched);
	buffer_fini(&text);
}

static void on_done(void *user, const struct http_result *result)
{
	struct etcd_watch *watch = user;
	struct wire_error error = {.message = "the stream ended"};

	watch->request = NULL;
	if (result->error == -ETIMEDOUT && watch->is_open) {
		/* Silence is no fault, but a fresh connection is how we know that it is only that.
		 */
		reopen(watch);
		return;
	}
	if (result->error == -EFBIG)
		watch->next = 0;
	if (result->error)
		copy_string(error.message, sizeof(error.message), result->reason);
	else if (result->status != 200)
		wire_parse_error(result->body, result->status, &error);
	if (result->status != 200 && error.kind == WIRE_ERROR_TOKEN)
		etcd_client_token_refused(watch->client);
	if (http_is_shortage(result->error))
		broke(watch, error.message);
	else
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

void etcd_watch_doubt(struct etcd_watch *watch)
{
	if (!watch->is_open || loop_timer_armed(&watch->timer))
		return;
	watch->doubted = watch->next;
	loop_timer_arm(
		watch->loop, &watch->timer, loop_clock() + etcd_client_timeout(watch->client));
}

void etcd_watch_restart(struct etcd_watch *watch, const char *reason)
{
	if (watch->is_open)
		failed(watch, reason);
}
