/* SPDX-License-Identifier: MIT */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "base/util.h"
#include "event/http.h"
#include "event/loop.h"
#include "fuzz.h"

enum { MAX_TIMERS = 4096, MAX_TURNS = 100000 };

struct http_pool {
	struct machine *machine;
};

struct http_request {
	struct http_pool *pool;
	struct http_call call; /* what it borrows is not kept */
	struct http_request *prev, *next;
};

/* Every struct loop is a machine's. */
struct loop {
	struct machine *machine;
};

struct machine {
	struct loop loop;
	struct http_pool pool; /* for those who have none */
	int64_t now;
	struct loop_timer *timers[MAX_TIMERS];
	size_t timer_count;
	struct loop_task *tasks;
	struct http_request *requests;
};

static struct machine *the_machine;

/* --- the loop --- */

int64_t loop_clock(void)
{
	return the_machine->now;
}

void loop_timer_disarm(struct loop_timer *timer)
{
	if (!timer->place)
		return;
	struct machine *machine = timer->loop->machine;
	struct loop_timer *last = machine->timers[--machine->timer_count];
	machine->timers[timer->place - 1] = last;
	last->place = timer->place;
	timer->place = 0;
	timer->loop = NULL;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t deadline)
{
	struct machine *machine = loop->machine;

	require(timer->fn && deadline >= 0);
	loop_timer_disarm(timer);
	require(machine->timer_count < MAX_TIMERS);
	machine->timers[machine->timer_count++] = timer;
	timer->place = machine->timer_count;
	timer->loop = loop;
	timer->deadline = deadline;
}

bool loop_timer_armed(const struct loop_timer *timer)
{
	return timer->place;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->pending)
		return;
	task->pending = true;
	DL_APPEND(loop->machine->tasks, task);
}

void loop_undefer(struct loop *loop, struct loop_task *task)
{
	if (!task->pending)
		return;
	task->pending = false;
	DL_DELETE(loop->machine->tasks, task);
}

static struct loop_timer *next_due(const struct machine *machine)
{
	struct loop_timer *next = NULL;

	for (size_t i = 0; i < machine->timer_count; i++) {
		struct loop_timer *timer = machine->timers[i];
		if (timer->deadline <= machine->now && (!next || timer->deadline < next->deadline))
			next = timer;
	}
	return next;
}

void loop_run_deadlines(struct loop *loop)
{
	struct loop_timer *timer;
	unsigned int turns = 0;

	while ((timer = next_due(loop->machine))) {
		require(++turns < MAX_TURNS);
		loop_timer_disarm(timer);
		timer->fn(timer);
	}
}

void machine_settle(struct machine *machine)
{
	unsigned int turns = 0;

	loop_run_deadlines(&machine->loop);
	while (machine->tasks) {
		struct loop_task *task = machine->tasks;
		require(++turns < MAX_TURNS);
		loop_undefer(&machine->loop, task);
		task->fn(task);
		loop_run_deadlines(&machine->loop);
	}
}

void machine_advance(struct machine *machine, int64_t milliseconds)
{
	machine->now += milliseconds;
	machine_settle(machine);
}

struct loop *machine_loop(struct machine *machine)
{
	return &machine->loop;
}

/* --- HTTP --- */

struct http_pool *http_pool_new(struct loop *loop, const struct http_tls *tls, unsigned int spared)
{
	struct http_pool *pool = xzalloc(sizeof(*pool));

	pool->machine = loop->machine;
	return pool;
}

uint64_t http_pool_opened(const struct http_pool *pool)
{
	return 0;
}

/* Of descriptors there is no lack here. */
bool http_is_shortage(int error)
{
	return false;
}

static void request_free(struct http_request *request)
{
	DL_DELETE(request->pool->machine->requests, request);
	free(request);
}

void http_pool_free(struct http_pool *pool)
{
	struct http_request *request, *next;

	if (!pool)
		return;
	DL_FOREACH_SAFE(pool->machine->requests, request, next) {
		if (request->pool == pool)
			request_free(request);
	}
	free(pool);
}

struct http_request *http_start(struct http_pool *pool, const struct http_call *call)
{
	struct http_request *request = xzalloc(sizeof(*request));

	require(strlen(call->body) == call->body_size);
	for (size_t i = 0; call->headers && call->headers[i]; i++)
		require(!strpbrk(call->headers[i], "\r\n"));
	request->pool = pool ? pool : &the_machine->pool;
	request->call = *call;
	DL_APPEND(the_machine->requests, request);
	return request;
}

void http_cancel(struct http_request *request)
{
	if (request)
		request_free(request);
}

/* Each answer is given to its own request. */
void http_hang_up(const struct http_result *result)
{
}

static struct http_request *find_request(const struct machine *machine, unsigned int number)
{
	struct http_request *request;
	unsigned int count = 0;

	DL_FOREACH(machine->requests, request) {
		count += !request->call.on_data;
	}
	number = count ? number % count : 0;
	DL_FOREACH(machine->requests, request) {
		if (!request->call.on_data && number-- == 0)
			return request;
	}
	return NULL;
}

static void finish(struct machine *machine, struct http_request *request, int error, int status,
	const char *body)
{
	struct http_call call = request->call;
	size_t size = strlen(body);

	if (!error && size > call.max_size)
		error = -EFBIG;
	struct http_result result = {.error = error,
		.reason = error ? "what libcurl says" : NULL,
		.status = error ? 0 : status,
		.body = error ? "" : body,
		.size = error ? 0 : size};
	request_free(request);
	call.on_done(call.user, &result);
	machine_settle(machine);
}

void machine_answer(struct machine *machine, unsigned int number, int status, const char *body)
{
	struct http_request *request = find_request(machine, number);

	if (request)
		finish(machine, request, 0, status, body);
}

void machine_fail(struct machine *machine, unsigned int number, int error)
{
	struct http_request *request = find_request(machine, number);

	if (request)
		finish(machine, request, error, 0, "");
}

struct http_request *machine_stream(struct machine *machine)
{
	struct http_request *request, *last = NULL;

	DL_FOREACH(machine->requests, request) {
		if (request->call.on_data)
			last = request;
	}
	return last;
}

void machine_stream_data(struct machine *machine, const char *data, size_t size)
{
	struct http_request *stream = machine_stream(machine);

	if (stream)
		stream->call.on_data(stream->call.user, data, size);
	machine_settle(machine);
}

void machine_stream_end(struct machine *machine, int error, int status, const char *body)
{
	struct http_request *stream = machine_stream(machine);

	if (stream)
		finish(machine, stream, error, status, body);
}

/* --- beginning and end --- */

struct machine *machine_new(void)
{
	struct machine *machine = xzalloc(sizeof(*machine));

	require(!the_machine);
	machine->loop.machine = machine;
	machine->pool.machine = machine;
	machine->now = 1000 * 1000;
	the_machine = machine;
	srandom(1);
	return machine;
}

void machine_free(struct machine *machine)
{
	require(!machine->timer_count && !machine->tasks && !machine->requests);
	the_machine = NULL;
	free(machine);
}
