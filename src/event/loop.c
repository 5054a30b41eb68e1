/* SPDX-License-Identifier: MIT */
#include "event/loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"

struct loop {
	int epoll_fd;
	int timer_fd;
	int64_t timer_set; /* what timer_fd is set to; 0 = off */
	struct loop_timer **heap;
	size_t timers, heap_capacity;
	struct loop_fd *fds;
	struct loop_task *tasks;
	size_t task_count;
	bool stopped;

	/* What epoll_wait returned and is not dispatched yet: loop_fd_remove clears its places. */
	struct epoll_event ready[64];
	int ready_count;

	struct loop_fd signal_watch;
	loop_signal_fn *on_signal;
	void *signal_user;
};

int64_t loop_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct loop *loop_new(void)
{
	struct loop *loop = xzalloc(sizeof(*loop));

	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	loop->signal_watch.fd = -1;
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	if (loop->epoll_fd < 0 || loop->timer_fd < 0 ||
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &event) < 0) {
		loop_free(loop);
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	loop_fd_remove(&loop->signal_watch);
	if (loop->signal_watch.fd >= 0)
		close(loop->signal_watch.fd);
	if (loop->timer_fd >= 0)
		close(loop->timer_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	free(loop->heap);
	free(loop);
}

/* --- descriptors --- */

static uint32_t to_epoll(unsigned int events)
{
	return (events & LOOP_READ ? (uint32_t)EPOLLIN : 0) |
	       (events & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0);
}

int loop_fd_add(struct loop *loop, struct loop_fd *watch, unsigned int events)
{
	struct epoll_event event = {.events = to_epoll(events), .data.ptr = watch};

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0)
		return -errno;
	watch->loop = loop;
	DL_APPEND(loop->fds, watch);
	return 0;
}

int loop_fd_change(struct loop_fd *watch, unsigned int events)
{
	struct epoll_event event = {.events = to_epoll(events), .data.ptr = watch};
	int epoll_fd = watch->loop->epoll_fd;

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) == 0)
		return 0;
	/* libcurl may close a socket and get the same number again before it tells anybody. */
	if (errno == ENOENT && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) == 0)
		return 0;
	return -errno;
}

void loop_fd_remove(struct loop_fd *watch)
{
	struct loop *loop = watch->loop;

	if (!loop)
		return;
	/* Fails if the descriptor was closed before, which removed it from the set as well. */
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	for (int i = 0; i < loop->ready_count; i++) {
		if (loop->ready[i].data.ptr == watch)
			loop->ready[i].events = 0;
	}
	DL_DELETE(loop->fds, watch);
	watch->loop = NULL;
}

/* --- deadlines: a binary heap --- */

static void heap_put(struct loop *loop, size_t at, struct loop_timer *timer)
{
	loop->heap[at] = timer;
	timer->place = at + 1;
}

static void heap_up(struct loop *loop, size_t at)
{
	struct loop_timer *timer = loop->heap[at];

	for (; at > 0 && loop->heap[(at - 1) / 2]->deadline > timer->deadline; at = (at - 1) / 2)
		heap_put(loop, at, loop->heap[(at - 1) / 2]);
	heap_put(loop, at, timer);
}

static void heap_down(struct loop *loop, size_t at)
{
	struct loop_timer *timer = loop->heap[at];

	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= loop->timers)
			break;
		if (child + 1 < loop->timers &&
			loop->heap[child + 1]->deadline < loop->heap[child]->deadline)
			child++;
		if (loop->heap[child]->deadline >= timer->deadline)
			break;
		heap_put(loop, at, loop->heap[child]);
		at = child;
	}
	heap_put(loop, at, timer);
}

void loop_timer_disarm(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;

	if (!timer->place)
		return;
	size_t at = timer->place - 1;
	struct loop_timer *last = loop->heap[--loop->timers];
	timer->place = 0;
	if (last == timer)
		return;
	heap_put(loop, at, last);
	heap_up(loop, at);
	heap_down(loop, last->place - 1);
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t deadline)
{
	loop_timer_disarm(timer);
	if (loop->timers == loop->heap_capacity) {
		loop->heap_capacity = loop->heap_capacity ? 2 * loop->heap_capacity : 16;
		loop->heap = xrealloc(loop->heap, loop->heap_capacity, sizeof(loop->heap[0]));
	}
	timer->loop = loop;
	timer->deadline = deadline;
	heap_put(loop, loop->timers++, timer);
	heap_up(loop, loop->timers - 1);
}

bool loop_timer_armed(const struct loop_timer *timer)
{
	return timer->place != 0;
}

/* A timer armed by a timer for a time that has passed runs too, so nobody may do that for ever. */
void loop_run_deadlines(struct loop *loop)
{
	int64_t now = loop_clock();

	while (loop->timers && loop->heap[0]->deadline <= now) {
		struct loop_timer *timer = loop->heap[0];
		loop_timer_disarm(timer);
		timer->fn(timer);
	}
}

static bool is_due(const struct loop *loop)
{
	return loop->timers && loop->heap[0]->deadline <= loop_clock();
}

static void set_timer_fd(struct loop *loop)
{
	int64_t next = loop->timers ? loop->heap[0]->deadline : 0;

	if (next == loop->timer_set)
		return;
	/* Zero would switch it off; a time in the past fires at once. */
	struct itimerspec spec = {
		.it_value.tv_sec = next / 1000, .it_value.tv_nsec = next % 1000 * 1000000};
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
	loop->timer_set = next;
}

static void drain_timer_fd(struct loop *loop)
{
	uint64_t expirations;

	if (read(loop->timer_fd, &expirations, sizeof(expirations)) > 0)
		loop->timer_set = 0;
}

/* --- tasks --- */

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->pending)
		return;
	task->pending = true;
	DL_APPEND(loop->tasks, task);
	loop->task_count++;
}

void loop_undefer(struct loop *loop, struct loop_task *task)
{
	if (!task->pending)
		return;
	task->pending = false;
	DL_DELETE(loop->tasks, task);
	loop->task_count--;
}

/* Tasks put off by a task wait for the next turn, so that descriptors get theirs in between. */
static void run_tasks(struct loop *loop)
{
	for (size_t n = loop->task_count; n > 0 && loop->tasks; n--) {
		struct loop_task *task = loop->tasks;
		loop_undefer(loop, task);
		task->fn(task);
		loop_run_deadlines(loop);
	}
}

/* --- signals --- */

static void on_signal_readable(struct loop_fd *watch, unsigned int events)
{
	struct loop *loop = container_of(watch, struct loop, signal_watch);
	struct signalfd_siginfo info;

	while (read(watch->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		loop->on_signal(loop->signal_user, (int)info.ssi_signo);
}

int loop_signals(
	struct loop *loop, const int *signals, size_t count, loop_signal_fn *fn, void *user)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < count; i++)
		sigaddset(&set, signals[i]);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	loop->signal_watch.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (loop->signal_watch.fd < 0)
		return -errno;
	loop->signal_watch.fn = on_signal_readable;
	loop->on_signal = fn;
	loop->signal_user = user;
	return loop_fd_add(loop, &loop->signal_watch, LOOP_READ);
}

/* --- the loop --- */

static unsigned int from_epoll(uint32_t events)
{
	/* An error or hang-up is found out by whoever reads or writes next. */
	return (events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? LOOP_READ : 0) |
	       (events & (EPOLLOUT | EPOLLERR) ? LOOP_WRITE : 0);
}

static void dispatch(struct loop *loop)
{
	for (int i = 0; i < loop->ready_count && !loop->stopped; i++) {
		struct loop_fd *watch = loop->ready[i].data.ptr;
		if (!watch) {
			drain_timer_fd(loop);
			continue;
		}
		loop_run_deadlines(loop);
		/* Zero if a callback before this one removed it. */
		if (loop->ready[i].events)
			watch->fn(watch, from_epoll(loop->ready[i].events));
	}
	loop->ready_count = 0;
}

int loop_run(struct loop *loop)
{
	loop->stopped = false;
	while (!loop->stopped) {
		bool busy = loop->tasks || is_due(loop);
		if (!busy)
			set_timer_fd(loop);
		int n = epoll_wait(
			loop->epoll_fd, loop->ready, (int)ARRAY_SIZE(loop->ready), busy ? 0 : -1);
		if (n < 0 && errno != EINTR) {
			int error = errno;
			log_error("epoll_wait: %s", strerror(error));
			return -error;
		}
		loop->ready_count = n < 0 ? 0 : n;
		loop_run_deadlines(loop);
		run_tasks(loop);
		dispatch(loop);
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	loop->stopped = true;
}
