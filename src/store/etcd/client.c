/* SPDX-License-Identifier: MIT */
#include "store/etcd/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "event/http.h"
#include "store/etcd/endpoints.h"
#include "store/etcd/wire.h"

enum {
	MIN_ATTEMPT = 200,
	MAX_BACKOFF = 1000,
	REASON_SIZE = 256,
	SILENCE = 60 * 1000, /* between two complaints of the same */
	BREATH = 1000,       /* between any two */
	/* How many requests a lane has in flight at most. */
	LANE_WIDTH = 8,
	NARROW_FOR = 1000, /* it has fewer when there were no descriptors for more connections */
	/* Descriptors that only renewals may use, and what they need: names, certificates. */
	SPARED = 8,
};

struct lane {
	struct http_pool *pool;
	struct etcd_call *queue;
	unsigned int in_flight, width;
	int64_t widen_at;       /* if it is narrow */
	unsigned int shortages; /* since the last answer */
	struct histogram answers;
	uint64_t failures;
};

struct etcd_client {
	struct loop *loop;
	struct etcd_endpoints endpoints;
	int timeout;
	struct lane lanes[ETCD_LANES];
	struct http_pool *stream_pool;
	bool reachable;
	uint64_t outages;
	char last_error[REASON_SIZE];
	const struct etcd_client_events *events;
	void *user_data;

	char *user, *password;
	char *authorization;           /* header; NULL without a token */
	bool auth_off;                 /* etcd said that it wants no token */
	unsigned int token_generation; /* counts tokens */
	struct etcd_call auth_call;
	char *token;              /* as answered; until it is the authorization */
	struct etcd_call *parked; /* calls that wait for a token */

	char complaint[REASON_SIZE]; /* what was logged last of a refusal, and when */
	int64_t complained_at;
	int64_t shortage_told_at;
};

int etcd_backoff(unsigned int failures)
{
	int pause = failures > 5 ? MAX_BACKOFF : 50 << failures;

	pause = pause > MAX_BACKOFF ? MAX_BACKOFF : pause;
	/* Jitter keeps forty machines from asking a restarted member in step. */
	return pause / 2 + (int)(random() % (pause / 2 + 1));
}

/* --- endpoints --- */

static void set_reachable(struct etcd_client *client, bool reachable)
{
	if (client->reachable == reachable)
		return;
	client->reachable = reachable;
	if (reachable)
		log_warning("etcd answers again (%s)", etcd_client_endpoint(client));
	else
		log_warning("etcd does not answer: %s", client->last_error);
	client->outages += !reachable;
	client->events->reachable(client->user_data, reachable);
}

static void endpoint_failed(const struct etcd_call *call, int error, const char *reason)
{
	struct etcd_client *client = call->client;
	const struct etcd_endpoint *endpoint = &client->endpoints.list[call->endpoint];

	/* What was answered since then says more, and an attempt without time says nothing. */
	bool is_news = error != -ETIMEDOUT || loop_clock() - call->sent_at >= MIN_ATTEMPT;
	if (call->sent_at < endpoint->good_at || (!is_news && *client->last_error))
		return;
	snprintf(client->last_error, sizeof(client->last_error), "%s: %s", endpoint->url, reason);
	log_trace("etcd %s", client->last_error);
	if (etcd_endpoints_failed(&client->endpoints, call->endpoint, error == -ETIMEDOUT))
		set_reachable(client, false);
	if (error == -ETIMEDOUT)
		client->events->silent(client->user_data, endpoint->url);
}

static void endpoint_answered(const struct etcd_call *call)
{
	struct etcd_client *client = call->client;

	etcd_endpoints_answered(&client->endpoints, call->endpoint, call->sent_at);
	set_reachable(client, true);
}

/* --- one call's way --- */

static void pump(struct etcd_client *client, enum etcd_lane lane);
static void authenticate(struct etcd_client *client);

static struct etcd_call **list_of(struct etcd_call *call)
{
	struct etcd_client *client = call->client;

	switch (call->state) {
	case ETCD_CALL_QUEUED:
		return &client->lanes[call->lane].queue;
	case ETCD_CALL_PARKED:
		return &client->parked;
	case ETCD_CALL_IDLE:
	case ETCD_CALL_SENT:
	case ETCD_CALL_PAUSED:
		break;
	}
	return NULL;
}

/* Takes the call out of whatever it is in. */
static void detach(struct etcd_call *call)
{
	struct etcd_call **list = list_of(call);

	if (list)
		DL_DELETE(*list, call);
	loop_timer_disarm(&call->timer);
	if (call->state == ETCD_CALL_SENT)
		call->client->lanes[call->lane].in_flight--;
	if (call->request)
		http_cancel(take(call->request));
	call->state = ETCD_CALL_IDLE;
}

static void finish(struct etcd_call *call, int result)
{
	struct etcd_client *client = call->client;
	enum etcd_lane lane = call->lane;

	detach(call);
	free(take(call->body));
	call->fn(call, result);
	pump(client, lane);
}

static void enter(struct etcd_call *call, int state, int64_t wake_at)
{
	call->state = state;
	struct etcd_call **list = list_of(call);
	if (list)
		DL_APPEND(*list, call);
	if (call->deadline && (!wake_at || wake_at > call->deadline))
		wake_at = call->deadline;
	/* The analyzer takes the test of `list` for one of the client. */
	if (wake_at) /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
		loop_timer_arm(call->client->loop, &call->timer, wake_at);
}

/* Another attempt: at the next endpoint at once, or after a pause when all have had their turn. */
static void repeat(struct etcd_call *call)
{
	unsigned int endpoints = (unsigned int)call->client->endpoints.count;
	unsigned int rounds = call->attempts / endpoints;
	bool pause = call->attempts % endpoints == 0;

	if (call->at_one) {
		finish(call, -EIO);
		return;
	}
	detach(call);
	enter(call, ETCD_CALL_PAUSED, loop_clock() + (pause ? etcd_backoff(rounds) : 0));
	pump(call->client, call->lane);
}

static void on_timer(struct loop_timer *timer)
{
	struct etcd_call *call = container_of(timer, struct etcd_call, timer);

	if (call->deadline && loop_clock() >= call->deadline) {
		finish(call, -EIO);
		return;
	}
	detach(call);
	enter(call, ETCD_CALL_QUEUED, 0);
	pump(call->client, call->lane);
}

/* There is no token: waits for one. */
static void park(struct etcd_call *call)
{
	detach(call);
	enter(call, ETCD_CALL_PARKED, 0);
	authenticate(call->client);
}

/* One line for each request would drown all others. */
static void complain(struct etcd_client *client, const char *what, const char *message)
{
	int64_t now = loop_clock();
	bool is_same = strcmp(client->complaint, message) == 0;

	if (now - client->complained_at < (is_same ? SILENCE : BREATH))
		return;
	copy_string(client->complaint, sizeof(client->complaint), message);
	client->complained_at = now;
	log_warning("%s: %s", what, message);
}

/*
 * Nothing was sent.  One that finds others of its lane under way has their connections when they
 * have been answered; renewals wait for nobody.
 */
static void wait_for_room(struct etcd_call *call, const char *reason)
{
	struct etcd_client *client = call->client;
	struct lane *lane = &client->lanes[call->lane];

	if (log_is_due(&client->shortage_told_at, loop_clock()))
		log_warning("no connection to etcd can be opened: %s", reason);
	detach(call);
	call->attempts--;
	if (lane->in_flight && call->lane != ETCD_LANE_LEASE) {
		lane->width = lane->in_flight;
		lane->widen_at = loop_clock() + NARROW_FOR;
		enter(call, ETCD_CALL_QUEUED, 0);
	} else {
		enter(call, ETCD_CALL_PAUSED, loop_clock() + etcd_backoff(lane->shortages++));
	}
}

static void lane_answered(struct lane *lane)
{
	lane->shortages = 0;
	if (lane->width < LANE_WIDTH && loop_clock() >= lane->widen_at)
		lane->width = LANE_WIDTH;
}

static void handle_refusal(struct etcd_call *call, int status, const char *body)
{
	struct etcd_client *client = call->client;
	struct wire_error error;

	wire_parse_error(body, status, &error);
	/* One that finds the store full has been carried out, as far as that goes. */
	if (error.kind != WIRE_ERROR_RETRY && error.kind != WIRE_ERROR_OTHER &&
		error.kind != WIRE_ERROR_FULL)
		call->strays--;
	copy_string(client->last_error, sizeof(client->last_error), error.message);
	switch (error.kind) {
	case WIRE_ERROR_RETRY:
		endpoint_failed(call, -EAGAIN, error.message);
		repeat(call);
		return;
	case WIRE_ERROR_TOKEN:
		if (client->user && !call->reauthenticated && call != &client->auth_call) {
			call->reauthenticated = true;
			if (call->token_generation == client->token_generation)
				free(take(client->authorization));
			park(call);
			pump(client, call->lane);
			return;
		}
		complain(client, "etcd refuses", error.message);
		finish(call, -EACCES);
		return;
	case WIRE_ERROR_REFUSED:
		complain(client, "etcd refuses", error.message);
		finish(call, -EACCES);
		return;
	case WIRE_ERROR_NO_LEASE:
		finish(call, ETCD_NO_LEASE);
		return;
	case WIRE_ERROR_COMPACTED:
		finish(call, ETCD_COMPACTED);
		return;
	case WIRE_ERROR_TOO_MANY:
		finish(call, ETCD_TOO_MANY);
		return;
	case WIRE_ERROR_NO_AUTH:
		finish(call, call == &client->auth_call ? 0 : -EIO);
		return;
	case WIRE_ERROR_FULL:
		complain(client, "etcd is full", error.message);
		finish(call, -ENOSPC);
		return;
	case WIRE_ERROR_TOO_LARGE:
		finish(call, -EFBIG);
		return;
	case WIRE_ERROR_OTHER:
		break;
	}
	complain(client, "etcd answers with an error", error.message);
	finish(call, -EIO);
}

/* The same endpoint is asked at once, unless that goes on and on. */
static void send_again(struct etcd_call *call)
{
	enum { MOST = 8 };

	if (call->repeats++ >= MOST) {
		repeat(call);
		return;
	}
	call->attempts--;
	detach(call);
	enter(call, ETCD_CALL_PAUSED, loop_clock());
	pump(call->client, call->lane);
}

static void handle_answer(struct etcd_call *call, const struct http_result *result)
{
	bool is_text = !memchr(result->body, '\0', result->size);
	int verdict = is_text ? call->read(call, result->body) : -EBADMSG;

	if (verdict != -EBADMSG) {
		call->strays--;
		if (!call->from_memory)
			endpoint_answered(call);
		if (verdict == -EAGAIN)
			send_again(call);
		else
			finish(call, 0);
		return;
	}
	http_hang_up(result);
	cleanup(free_ptr) char *reason = xasprintf("its answer to %s makes no sense", call->rpc);
	endpoint_failed(call, -EBADMSG, reason);
	repeat(call);
}

static void count_result(const struct etcd_call *call, const struct http_result *result)
{
	struct lane *lane = &call->client->lanes[call->lane];

	if (!result->error)
		histogram_add(&lane->answers, &scale_latency, loop_clock() - call->sent_at);
	else if (!http_is_shortage(result->error))
		lane->failures++;
}

static void on_http_done(void *user, const struct http_result *result)
{
	struct etcd_call *call = user;
	struct etcd_client *client = call->client;

	call->request = NULL;
	call->strays += result->sent;
	count_result(call, result);
	if (result->error == -EFBIG && call->max_answer && call->max_answer < ETCD_LARGE_ANSWER) {
		finish(call, -EFBIG);
	} else if (result->error == -EFBIG) {
		copy_string(client->last_error, sizeof(client->last_error), result->reason);
		complain(client, "etcd's answer can't be read", result->reason);
		finish(call, -EIO);
	} else if (http_is_shortage(result->error)) {
		wait_for_room(call, result->reason);
	} else if (result->error) {
		endpoint_failed(call, result->error, result->reason);
		repeat(call);
	} else if (result->status != 200) {
		handle_refusal(call, result->status, result->body);
	} else {
		lane_answered(&client->lanes[call->lane]);
		handle_answer(call, result);
	}
}

static int attempt_timeout(const struct etcd_call *call, int64_t now)
{
	const struct etcd_client *client = call->client;
	/* Less than people wait: that an endpoint is silent is to be known by then. */
	int64_t each = client->timeout * 4L / 5 / (int64_t)client->endpoints.count;
	int64_t timeout = call->attempt_timeout ? call->attempt_timeout : each;

	timeout = timeout < MIN_ATTEMPT ? MIN_ATTEMPT : timeout;
	if (call->deadline && call->deadline - now < timeout)
		timeout = call->deadline - now;
	return timeout < 1 ? 1 : (int)timeout;
}

static void send_call(struct etcd_call *call)
{
	struct etcd_client *client = call->client;
	struct lane *lane = &client->lanes[call->lane];
	int64_t now = loop_clock();
	int timeout = attempt_timeout(call, now);
	const char *headers[] = {client->authorization, NULL};

	detach(call);
	if (call->compose) {
		free(call->body);
		call->body = call->compose(call);
	}
	/* A call's first attempts go round the endpoints. */
	call->endpoint = etcd_endpoints_next(&client->endpoints, call->endpoint, call->attempts);
	if (call->begin_at && (!call->attempts || call->at_one))
		call->endpoint = (call->begin_at - 1) % client->endpoints.count;
	cleanup(free_ptr) char *url =
		xasprintf("%s%s", client->endpoints.list[call->endpoint].url, call->rpc);
	struct http_call http = {.url = url,
		.body = call->body,
		.body_size = strlen(call->body),
		.headers = headers,
		.connect_timeout = timeout,
		.timeout = timeout,
		.max_size = call->max_answer ? call->max_answer : ETCD_SMALL_ANSWER,
		.on_done = on_http_done,
		.user = call};
	call->state = ETCD_CALL_SENT;
	call->sent_at = now;
	call->attempts++;
	call->token_generation = client->token_generation;
	lane->in_flight++;
	call->request = http_start(lane->pool, &http);
}

static void pump(struct etcd_client *client, enum etcd_lane lane)
{
	struct lane *l = &client->lanes[lane];

	while (l->queue && l->in_flight < l->width) {
		struct etcd_call *call = l->queue;
		if (client->user && !client->authorization && !client->auth_off &&
			call != &client->auth_call)
			park(call);
		else
			send_call(call);
	}
}

/* --- authentication --- */

static int read_token(struct etcd_call *auth, const char *body)
{
	struct etcd_client *client = container_of(auth, struct etcd_client, auth_call);

	client->token = wire_parse_token(body);
	return client->token ? 0 : -EBADMSG;
}

static void on_authenticated(struct etcd_call *auth, int result)
{
	struct etcd_client *client = container_of(auth, struct etcd_client, auth_call);
	cleanup(free_ptr) char *token = take(client->token);

	/* An answer without a token: this etcd has authentication switched off. */
	client->auth_off = result == 0 && !token;
	if (token) {
		free(client->authorization);
		client->authorization = xasprintf("Authorization: %s", token);
		client->token_generation++;
	}
	struct etcd_call *call = client->parked;
	while (call) {
		detach(call);
		if (result)
			finish(call, result);
		else
			enter(call, ETCD_CALL_QUEUED, 0);
		call = client->parked;
	}
	for (enum etcd_lane lane = 0; lane < ETCD_LANES; lane++)
		pump(client, lane);
}

static void authenticate(struct etcd_client *client)
{
	struct etcd_call *auth = &client->auth_call;

	if (etcd_call_active(auth))
		return;
	client->auth_off = false;
	/* To check a password takes etcd long, and longer if the next member is asked meanwhile. */
	int asked = client->endpoints.count > 1 ? 2 : 1;
	*auth = (struct etcd_call){.rpc = "/v3/auth/authenticate",
		.body = wire_authenticate(client->user, client->password),
		.lane = ETCD_LANE_LEASE,
		.attempt_timeout = client->timeout * 4 / 5 / asked,
		.read = read_token,
		.fn = on_authenticated};
	etcd_call_start(client, auth);
}

/* --- the interface --- */

struct etcd_client *etcd_client_new(struct loop *loop, const struct etcd_client_options *options,
	const struct etcd_client_events *events, void *user)
{
	struct etcd_client *client = xzalloc(sizeof(*client));
	struct http_tls tls = {options->ca_file, options->cert_file, options->key_file};
	bool complete = true;

	client->loop = loop;
	etcd_endpoints_init(&client->endpoints, options->endpoints, options->endpoint_count);
	client->user = xstrdup(options->user);
	client->password = xstrdup(options->password ? options->password : "");
	client->timeout = options->timeout;
	client->reachable = true;
	client->events = events;
	client->user_data = user;
	client->stream_pool = http_pool_new(loop, &tls, SPARED);
	for (int i = 0; i < ETCD_LANES; i++) {
		client->lanes[i].width = LANE_WIDTH;
		client->lanes[i].pool =
			http_pool_new(loop, &tls, i == ETCD_LANE_LEASE ? 0 : SPARED);
		complete = complete && client->lanes[i].pool;
	}
	if (complete && client->stream_pool)
		return client;
	etcd_client_free(client);
	return NULL;
}

void etcd_client_free(struct etcd_client *client)
{
	if (!client)
		return;
	etcd_call_cancel(&client->auth_call);
	for (int i = 0; i < ETCD_LANES; i++)
		http_pool_free(client->lanes[i].pool);
	http_pool_free(client->stream_pool);
	etcd_endpoints_fini(&client->endpoints);
	free(client->user);
	explicit_bzero(client->password, strlen(client->password));
	free(client->password);
	free(client->authorization);
	free(client);
}

void etcd_call_start(struct etcd_client *client, struct etcd_call *call)
{
	call->client = client;
	call->attempts = 0;
	call->strays = 0;
	call->reauthenticated = false;
	call->request = NULL;
	call->timer = (struct loop_timer){.fn = on_timer};
	enter(call, ETCD_CALL_QUEUED, 0);
	pump(client, call->lane);
}

void etcd_call_cancel(struct etcd_call *call)
{
	if (!etcd_call_active(call))
		return;
	detach(call);
	free(take(call->body));
	pump(call->client, call->lane);
}

bool etcd_call_active(const struct etcd_call *call)
{
	return call->state != ETCD_CALL_IDLE;
}

unsigned int etcd_call_copies(const struct etcd_call *call)
{
	return call->strays + (call->state == ETCD_CALL_SENT);
}

void etcd_client_lane(
	const struct etcd_client *client, enum etcd_lane lane, struct etcd_lane_metrics *metrics)
{
	const struct lane *l = &client->lanes[lane];

	*metrics = (struct etcd_lane_metrics){.answers = l->answers,
		.failures = l->failures,
		.connections = http_pool_opened(l->pool),
		.in_flight = l->in_flight};
}

uint64_t etcd_client_stream_connections(const struct etcd_client *client)
{
	return http_pool_opened(client->stream_pool);
}

uint64_t etcd_client_outages(const struct etcd_client *client)
{
	return client->outages;
}

const struct etcd_endpoints *etcd_client_endpoints(const struct etcd_client *client)
{
	return &client->endpoints;
}

bool etcd_client_reachable(const struct etcd_client *client)
{
	return client->reachable;
}

const char *etcd_client_last_error(const struct etcd_client *client)
{
	return client->last_error;
}

int etcd_client_timeout(const struct etcd_client *client)
{
	return client->timeout;
}

struct http_pool *etcd_client_stream_pool(struct etcd_client *client)
{
	return client->stream_pool;
}

const char *etcd_client_endpoint(const struct etcd_client *client)
{
	return client->endpoints.list[client->endpoints.preferred].url;
}

const char *etcd_client_authorization(const struct etcd_client *client)
{
	return client->authorization;
}

void etcd_client_token_refused(struct etcd_client *client)
{
	if (!client->user)
		return;
	free(take(client->authorization));
	authenticate(client);
}

void etcd_client_blame(struct etcd_client *client, const char *url)
{
	etcd_endpoints_blame(&client->endpoints, url);
}
