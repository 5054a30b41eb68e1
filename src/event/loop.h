/* SPDX-License-Identifier: MIT */
/*
 * The event loop: descriptors, deadlines, signals, and calls put off to the next turn.
 *
 * The one rule: before anything else is dispatched, the clock is read and every deadline that has
 * passed is run.  After a pause (SIGSTOP, a suspended machine) the lease's deadline therefore runs
 * before the first request is answered.  Time is CLOCK_BOOTTIME, in milliseconds, because it goes
 * on while the machine sleeps, as etcd's time does.
 *
 * Registrations are embedded in their owner and found with container_of.  Removing any of them from
 * within any callback is safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;

struct loop_fd;
/* events and what is asked for are EPOLLIN and EPOLLOUT as LOOP_READ and LOOP_WRITE. */
typedef void loop_fd_fn(struct loop_fd *watch, unsigned int events);

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop_fd {
	int fd;
	loop_fd_fn *fn;
	struct loop *loop; /* NULL while not registered */
	struct loop_fd *prev, *next;
};

struct loop_timer;
typedef void loop_timer_fn(struct loop_timer *timer);

struct loop_timer {
	loop_timer_fn *fn;
	int64_t deadline;
	struct loop *loop;
	size_t place; /* 1 + index in the loop's heap; 0 while not armed */
};

struct loop_task;
typedef void loop_task_fn(struct loop_task *task);

struct loop_task {
	loop_task_fn *fn;
	bool pending;
	struct loop_task *prev, *next;
};

/* CLOCK_BOOTTIME in milliseconds, read now. */
int64_t loop_clock(void);

/* NULL with errno set if the kernel gives no descriptor.  The caller frees it with loop_free. */
struct loop *loop_new(void);
void loop_free(struct loop *loop);

/* Dispatches until loop_stop.  Returns 0, or -errno if epoll itself failed. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Runs every deadline that has passed.  For callbacks that handle many requests in a row. */
void loop_run_deadlines(struct loop *loop);

/* Watches watch->fd (which stays the caller's) for events.  Returns 0 or -errno of epoll_ctl(2). */
int loop_fd_add(struct loop *loop, struct loop_fd *watch, unsigned int events);

/* Changes what is waited for; also right when the descriptor was closed and opened anew. */
int loop_fd_change(struct loop_fd *watch, unsigned int events);

/* Harmless if not registered, or if the descriptor is closed already. */
void loop_fd_remove(struct loop_fd *watch);

/* Runs timer->fn once, when loop_clock() has reached deadline.  Arming again moves it. */
void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t deadline);
void loop_timer_disarm(struct loop_timer *timer);
bool loop_timer_armed(const struct loop_timer *timer);

/* Runs task->fn in the next turn, after deadlines.  Once, however often it is asked for. */
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_undefer(struct loop *loop, struct loop_task *task);

/* Blocks these signals for the process and calls fn for each that arrives.  Once per loop. */
typedef void loop_signal_fn(void *user, int signal);
int loop_signals(
	struct loop *loop, const int *signals, size_t count, loop_signal_fn *fn, void *user);
