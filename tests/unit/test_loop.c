/* SPDX-License-Identifier: MIT */
/*
 * The event loop: what runs before what, and that anything may be removed, freed, armed and put off
 * from within any callback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "event/loop.h"

enum { PATIENCE = 10000 };

/* A loop, and the order in which things happened, a letter each. */
struct bench {
	struct loop *loop;
	char log[256];
	size_t logged;
	size_t stop_after; /* so many letters */
	struct loop_timer guard;
};

/* Registrations of all kinds with a letter. */
struct item {
	struct bench *bench;
	char letter;
	struct loop_fd fd;
	struct loop_timer timer;
	struct loop_task task;
	int other_end; /* of fd's pipe */
	void (*more)(struct item *item);
	struct item *partner;
};

static void note(struct item *item)
{
	struct bench *bench = item->bench;

	assert_true(bench->logged + 1 < sizeof(bench->log));
	bench->log[bench->logged++] = item->letter;
	if (bench->logged == bench->stop_after)
		loop_stop(bench->loop);
	if (item->more)
		item->more(item);
}

static void on_fd(struct loop_fd *watch, unsigned int events)
{
	struct item *item = container_of(watch, struct item, fd);

	assert_true(events & (LOOP_READ | LOOP_WRITE));
	note(item);
}

static void on_timer(struct loop_timer *timer)
{
	assert_true(loop_clock() >= timer->deadline);
	assert_false(loop_timer_armed(timer));
	note(container_of(timer, struct item, timer));
}

static void on_task(struct loop_task *task)
{
	note(container_of(task, struct item, task));
}

static void on_guard(struct loop_timer *timer)
{
	const struct bench *bench = container_of(timer, struct bench, guard);

	fail_msg("only \"%s\" has happened", bench->log);
}

static int set_up(void **state)
{
	struct bench *bench = xzalloc(sizeof(*bench));

	bench->loop = loop_new();
	bench->guard.fn = on_guard;
	*state = bench;
	return bench->loop ? 0 : -1;
}

static int tear_down(void **state)
{
	struct bench *bench = *state;

	loop_free(bench->loop);
	free(bench);
	return 0;
}

static struct item *new_item(struct bench *bench, char letter, void (*more)(struct item *item))
{
	struct item *item = xzalloc(sizeof(*item));

	item->bench = bench;
	item->letter = letter;
	item->more = more;
	item->fd.fn = on_fd;
	item->fd.fd = -1;
	item->timer.fn = on_timer;
	item->task.fn = on_task;
	item->other_end = -1;
	return item;
}

/* Watches the reading end of a pipe with something in it. */
static void watch_pipe(struct item *item)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	item->fd.fd = ends[0];
	item->other_end = ends[1];
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(loop_fd_add(item->bench->loop, &item->fd, LOOP_READ), 0);
}

static void close_pipe(struct item *item)
{
	if (item->fd.fd >= 0)
		close(item->fd.fd);
	if (item->other_end >= 0)
		close(item->other_end);
	item->fd.fd = item->other_end = -1;
}

static void free_item(struct item *item)
{
	loop_fd_remove(&item->fd);
	loop_timer_disarm(&item->timer);
	loop_undefer(item->bench->loop, &item->task);
	close_pipe(item);
	memset(item, 0xa5, sizeof(*item));
	free(item);
}

/* Until so many things have happened. */
static void run(struct bench *bench, size_t count)
{
	bench->stop_after = bench->logged + count;
	loop_timer_arm(bench->loop, &bench->guard, loop_clock() + PATIENCE);
	assert_int_equal(loop_run(bench->loop), 0);
	loop_timer_disarm(&bench->guard);
}

static void arm(struct item *item, int64_t delay)
{
	loop_timer_arm(item->bench->loop, &item->timer, loop_clock() + delay);
}

/* --- order --- */

static void remove_fd(struct item *item)
{
	loop_fd_remove(&item->fd);
}

static void test_deadlines_come_first(void **state)
{
	struct bench *bench = *state;
	struct item *fd = new_item(bench, 'f', remove_fd), *timer = new_item(bench, 't', NULL);
	struct item *task = new_item(bench, 'k', NULL);

	watch_pipe(fd);
	loop_defer(bench->loop, &task->task);
	arm(timer, -5);
	run(bench, 3);
	assert_string_equal(bench->log, "tkf");
	free_item(fd);
	free_item(timer);
	free_item(task);
}

/* The clock goes on: as if the process had been stopped. */
static void dawdle(struct item *item)
{
	int64_t until = item->partner->timer.deadline;

	loop_fd_remove(&item->fd);
	while (loop_clock() < until)
		usleep(1000);
}

static void test_deadlines_come_between(void **state)
{
	struct bench *bench = *state;
	struct item *timer = new_item(bench, 't', NULL);
	struct item *first = new_item(bench, 'f', dawdle), *second = new_item(bench, 'f', dawdle);
	struct item *task = new_item(bench, 'k', dawdle), *last = new_item(bench, 'l', NULL);

	/* Whichever descriptor is the first, the deadline passes meanwhile. */
	first->partner = second->partner = task->partner = timer;
	watch_pipe(first);
	watch_pipe(second);
	arm(timer, 20);
	run(bench, 3);
	assert_string_equal(bench->log, "ftf");
	/* Tasks likewise. */
	loop_defer(bench->loop, &task->task);
	loop_defer(bench->loop, &last->task);
	arm(timer, 20);
	run(bench, 3);
	assert_string_equal(bench->log, "ftfktl");
	free_item(first);
	free_item(second);
	free_item(timer);
	free_item(task);
	free_item(last);
}

static void test_run_deadlines(void **state)
{
	struct bench *bench = *state;
	struct item *due = new_item(bench, 'd', NULL), *later = new_item(bench, 'l', NULL);

	arm(due, 0);
	arm(later, PATIENCE);
	loop_run_deadlines(bench->loop);
	loop_run_deadlines(bench->loop);
	assert_string_equal(bench->log, "d");
	assert_true(loop_timer_armed(&later->timer));
	free_item(due);
	free_item(later);
}

static void test_timer_waits(void **state)
{
	struct bench *bench = *state;
	struct item *a = new_item(bench, 'a', NULL), *b = new_item(bench, 'b', NULL);

	/* on_timer checks that it is not too early. */
	arm(b, 40);
	arm(a, 20);
	run(bench, 2);
	assert_string_equal(bench->log, "ab");
	free_item(a);
	free_item(b);
}

static void test_timers_in_order(void **state)
{
	enum { COUNT = 26, ROUNDS = 200 };
	struct bench *bench = *state;
	struct item *items[COUNT];
	int64_t now = loop_clock() - COUNT;
	unsigned int random = 1;
	char expected[COUNT + 1];

	for (int i = 0; i < COUNT; i++)
		items[i] = new_item(bench, (char)('a' + i), NULL);
	for (int round = 0; round < ROUNDS; round++) {
		size_t n = 0;
		for (int i = 0; i < 3 * COUNT; i++) {
			random = random * 1103515245 + 12345;
			size_t k = (random >> 16) % COUNT;
			if (random >> 30)
				/* Perhaps it moves to where it belongs. */
				loop_timer_arm(bench->loop, &items[k]->timer,
					i % 2 ? now + (int64_t)k : now - (int64_t)k);
			else
				loop_timer_disarm(&items[k]->timer);
		}
		for (size_t k = 0; k < COUNT; k++) {
			if (!loop_timer_armed(&items[k]->timer))
				continue;
			loop_timer_arm(bench->loop, &items[k]->timer, now + (int64_t)k);
			expected[n++] = (char)('a' + k);
		}
		expected[n] = '\0';
		bench->logged = 0;
		memset(bench->log, 0, sizeof(bench->log));
		loop_run_deadlines(bench->loop);
		assert_string_equal(bench->log, expected);
	}
	for (int i = 0; i < COUNT; i++)
		free_item(items[i]);
}

/* --- changes from within callbacks --- */

static void free_both(struct item *item)
{
	if (item->partner)
		free_item(item->partner);
	free_item(item);
}

static void test_fd_removes_fds(void **state)
{
	struct bench *bench = *state;
	struct item *a = new_item(bench, 'x', free_both), *b = new_item(bench, 'x', free_both);
	struct item *last = new_item(bench, 'l', NULL);

	/* Both are ready; the first one frees them both, and the other is not called any more. */
	a->partner = b;
	b->partner = a;
	watch_pipe(a);
	watch_pipe(b);
	arm(last, 30);
	run(bench, 2);
	assert_string_equal(bench->log, "xl");
	free_item(last);
}

static void test_timer_frees_fd_and_task(void **state)
{
	struct bench *bench = *state;
	struct item *timer = new_item(bench, 't', free_both), *other = new_item(bench, 'x', NULL);
	struct item *last = new_item(bench, 'l', NULL);

	timer->partner = other;
	watch_pipe(other);
	loop_defer(bench->loop, &other->task);
	arm(timer, 0);
	arm(last, 20);
	run(bench, 2);
	assert_string_equal(bench->log, "tl");
	free_item(last);
}

static void test_timer_frees_timer(void **state)
{
	struct bench *bench = *state;
	struct item *first = new_item(bench, 'a', free_both), *second = new_item(bench, 'b', NULL);
	struct item *third = new_item(bench, 'c', NULL);

	first->partner = second;
	arm(first, -3);
	arm(second, -2);
	arm(third, -1);
	run(bench, 2);
	assert_string_equal(bench->log, "ac");
	free_item(third);
}

static void arm_again(struct item *item)
{
	if (item->bench->logged < 4)
		arm(item, 5);
	/* It was going to run in this turn. */
	loop_timer_disarm(&item->partner->timer);
	arm(item->partner, PATIENCE);
}

static void test_timer_arms_itself(void **state)
{
	struct bench *bench = *state;
	struct item *timer = new_item(bench, 't', arm_again), *other = new_item(bench, 'o', NULL);

	timer->partner = other;
	arm(timer, -1);
	arm(other, 0);
	run(bench, 4);
	assert_string_equal(bench->log, "tttt");
	assert_false(loop_timer_armed(&timer->timer));
	assert_true(loop_timer_armed(&other->timer));
	loop_timer_disarm(&other->timer);
	loop_timer_disarm(&other->timer);
	assert_false(loop_timer_armed(&other->timer));
	free_item(timer);
	free_item(other);
}

/* --- tasks --- */

static void defer_again(struct item *item)
{
	loop_defer(item->bench->loop, &item->task);
}

/* A task that is put off by a task leaves descriptors their turn. */
static void test_task_waits_a_turn(void **state)
{
	struct bench *bench = *state;
	struct item *task = new_item(bench, 'k', defer_again), *fd = new_item(bench, 'f', NULL);

	watch_pipe(fd);
	loop_defer(bench->loop, &task->task);
	run(bench, 6);
	assert_string_equal(bench->log, "kfkfkf");
	free_item(task);
	free_item(fd);
}

static void undefer_partner(struct item *item)
{
	loop_undefer(item->bench->loop, &item->partner->task);
}

static void test_task_once(void **state)
{
	struct bench *bench = *state;
	struct item *a = new_item(bench, 'a', undefer_partner), *b = new_item(bench, 'b', NULL);
	struct item *c = new_item(bench, 'c', NULL), *d = new_item(bench, 'd', free_both);
	struct item *last = new_item(bench, 'l', NULL);

	a->partner = b;
	loop_defer(bench->loop, &a->task);
	loop_defer(bench->loop, &b->task);
	loop_defer(bench->loop, &c->task);
	loop_defer(bench->loop, &a->task);
	loop_defer(bench->loop, &d->task);
	assert_true(b->task.pending);
	arm(last, 20);
	run(bench, 4);
	assert_string_equal(bench->log, "acdl");
	assert_false(a->task.pending || b->task.pending || c->task.pending);
	loop_undefer(bench->loop, &c->task);
	free_item(a);
	free_item(b);
	free_item(c);
	free_item(last);
}

/* --- descriptors --- */

static void wait_for_write(struct item *item)
{
	assert_int_equal(loop_fd_change(&item->partner->fd, LOOP_WRITE), 0);
	loop_fd_remove(&item->fd);
}

static void test_fd_change(void **state)
{
	struct bench *bench = *state;
	struct item *reader = new_item(bench, 'r', wait_for_write);
	struct item *writer = new_item(bench, 'w', remove_fd);

	watch_pipe(reader);
	writer->fd.fd = dup(reader->other_end);
	/* A pipe's writing end is never readable. */
	assert_int_equal(loop_fd_add(bench->loop, &writer->fd, LOOP_READ), 0);
	reader->partner = writer;
	run(bench, 2);
	assert_string_equal(bench->log, "rw");
	free_item(reader);
	free_item(writer);
}

/* libcurl closes a socket, opens another of the same number, and only then says something. */
static void test_fd_closed_and_opened(void **state)
{
	struct bench *bench = *state;
	struct item *item = new_item(bench, 'f', remove_fd);

	watch_pipe(item);
	int number = item->fd.fd, ends[2];
	close_pipe(item);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	if (ends[0] != number) {
		assert_int_equal(dup2(ends[0], number), number);
		close(ends[0]);
	}
	item->fd.fd = number;
	item->other_end = ends[1];
	assert_int_equal(loop_fd_change(&item->fd, LOOP_READ), 0);
	assert_int_equal(write(ends[1], "x", 1), 1);
	run(bench, 1);
	assert_string_equal(bench->log, "f");
	assert_null(item->fd.loop);
	/* Not registered, and then registered but closed. */
	loop_fd_remove(&item->fd);
	assert_int_equal(loop_fd_add(bench->loop, &item->fd, LOOP_READ), 0);
	close_pipe(item);
	loop_fd_remove(&item->fd);
	assert_int_equal(loop_fd_add(bench->loop, &item->fd, LOOP_READ), -EBADF);
	free_item(item);
}

/* Whoever waits for reading finds out about the end. */
static void test_hang_up(void **state)
{
	struct bench *bench = *state;
	struct item *item = new_item(bench, 'f', remove_fd);
	char c;

	watch_pipe(item);
	assert_int_equal(read(item->fd.fd, &c, 1), 1);
	close(item->other_end);
	item->other_end = -1;
	run(bench, 1);
	assert_string_equal(bench->log, "f");
	free_item(item);
}

/* --- signals --- */

static void on_signal(void *user, int signal)
{
	struct item *item = user;

	item->letter = signal == SIGUSR1 ? '1' : '2';
	note(item);
}

static void test_signals(void **state)
{
	static const int signals[] = {SIGUSR1, SIGUSR2};
	struct bench *bench = *state;
	struct item *item = new_item(bench, 's', NULL);

	assert_int_equal(
		loop_signals(bench->loop, signals, ARRAY_SIZE(signals), on_signal, item), 0);
	kill(getpid(), SIGUSR2);
	run(bench, 1);
	kill(getpid(), SIGUSR1);
	run(bench, 1);
	assert_string_equal(bench->log, "21");
	free_item(item);
}

/* A handler of somebody else's is no reason to stop. */
static void ignore(int signal)
{
}

static void test_interrupted(void **state)
{
	struct bench *bench = *state;
	struct item *item = new_item(bench, 't', NULL);
	struct sigaction action = {.sa_handler = ignore}, old;

	sigaction(SIGALRM, &action, &old);
	ualarm(5000, 0);
	arm(item, 30);
	run(bench, 1);
	assert_string_equal(bench->log, "t");
	sigaction(SIGALRM, &old, NULL);
	free_item(item);
}

#define loop_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		loop_test(test_deadlines_come_first),
		loop_test(test_deadlines_come_between),
		loop_test(test_run_deadlines),
		loop_test(test_timer_waits),
		loop_test(test_timers_in_order),
		loop_test(test_fd_removes_fds),
		loop_test(test_timer_frees_fd_and_task),
		loop_test(test_timer_frees_timer),
		loop_test(test_timer_arms_itself),
		loop_test(test_task_waits_a_turn),
		loop_test(test_task_once),
		loop_test(test_fd_change),
		loop_test(test_fd_closed_and_opened),
		loop_test(test_hang_up),
		loop_test(test_signals),
		loop_test(test_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
