/* SPDX-License-Identifier: MIT */
#include "commands/top.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/util.h"
#include "commands/files.h"
#include "commands/terminal.h"
#include "commands/top_view.h"

enum {
	DEFAULT_INTERVAL = 2000,
	MIN_INTERVAL = 100,
	MAX_INTERVAL = 3600 * 1000,
	/* Without an answer for so long, the page says so. */
	SILENCE = 3000,
};

static const char *const files[] = {"status", "locks", "metrics"};
enum { STATUS, LOCKS, METRICS, FILES };

/* How the reader passes a file on: this, and then the text. */
struct piece {
	int error; /* errno, and no text */
	size_t size;
};

struct top {
	const char *mount;
	int64_t interval; /* milliseconds */
	bool is_live;
	struct top_view *view;
	struct terminal terminal;
	sigset_t signals;
	int signal_fd;
	bool has_keys; /* they may come by standard input */

	/* Whoever opens a file waits for the daemon, and can't be interrupted while that stands
	 * still: so it is a child that reads. */
	pid_t reader; /* 0: none */
	int pipe;     /* from it */
	struct buffer answer;
	int64_t asked_at;
	bool has_answer; /* there was one, ever */

	int ended_by; /* a signal, or 0 */
	bool is_over;
	int status;
};

static int64_t clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* --- the reader --- */

static bool write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t done = write(fd, at, size);
		if (done < 0)
			return false;
		at += done;
		size -= (size_t)done;
	}
	return true;
}

static void read_files(const struct top *top, int fd)
{
	/* Signals stay blocked: it ends when it is killed. */
	for (int i = 0; i < FILES; i++) {
		char *text = mount_read(top->mount, files[i]);
		struct piece piece = {.error = text ? 0 : errno, .size = text ? strlen(text) : 0};
		if (!write_all(fd, &piece, sizeof(piece)) ||
			(text && !write_all(fd, text, piece.size)))
			break;
		free(text);
	}
}

static void end_reader(struct top *top)
{
	if (!top->reader)
		return;
	kill(top->reader, SIGKILL);
	/* One that is stuck is not waited for. */
	waitpid(top->reader, NULL, WNOHANG);
	top->reader = 0;
	close(top->pipe);
	top->pipe = -1;
	buffer_fini(&top->answer);
}

static int fail(struct top *top, const char *what)
{
	int error = errno;

	terminal_leave(&top->terminal);
	log_error("%s: %s", what, strerror(error));
	top->is_over = true;
	top->status = EXIT_FAILURE;
	return -1;
}

static int begin_reading(struct top *top)
{
	int fds[2];

	top->asked_at = clock_now();
	if (pipe2(fds, O_CLOEXEC) < 0)
		return fail(top, "pipe");
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		read_files(top, fds[1]);
		_exit(EXIT_SUCCESS);
	}
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		return fail(top, "fork");
	}
	top->reader = pid;
	top->pipe = fds[0];
	return 0;
}

/* Splits the answer up; the caller frees the texts.  False if the reader did not get to its end. */
static bool take_answer(struct top *top, char **texts, int *errors)
{
	size_t at = 0;

	for (int i = 0; i < FILES; i++) {
		struct piece piece;
		if (top->answer.size - at < sizeof(piece))
			return false;
		memcpy(&piece, top->answer.data + at, sizeof(piece));
		at += sizeof(piece);
		if (top->answer.size - at < piece.size)
			return false;
		errors[i] = piece.error;
		struct buffer text = {0};
		buffer_add(&text, top->answer.data + at, piece.size);
		texts[i] = buffer_take(&text);
		if (piece.error)
			free(take(texts[i]));
		at += piece.size;
	}
	return true;
}

/* --- the page --- */

static void show(struct top *top)
{
	int64_t silent = clock_now() - top->asked_at;
	bool is_silent = top->reader && silent >= SILENCE;
	struct terminal_size size = terminal_size();

	/* Not before there is something to show: it may be no mount. */
	if (!top->is_live || (!top->has_answer && !is_silent))
		return;
	cleanup(free_ptr) char *complaint =
		is_silent ? xasprintf("the mount has not answered for %lld s",
				    (long long)silent / 1000)
			  : NULL;
	cleanup(free_ptr) char *page = top_view_page(top->view, size.lines, complaint);
	terminal_take(&top->terminal);
	if (!terminal_show(page, size))
		fail(top, "standard output");
}

static void print(const struct top *top)
{
	cleanup(free_ptr) char *page = top_view_page(top->view, 0, NULL);

	terminal_print(page);
}

/* The mount is not there, or not any more. */
static void give_up(struct top *top, int error)
{
	terminal_leave(&top->terminal);
	log_error("%s: %s", top->mount, mount_strerror(error));
	top->is_over = true;
	top->status = EXIT_FAILURE;
}

/* With default_permissions the kernel asks for the root's mode first, for which the store is asked:
 * that goes by. */
static bool goes_by(const struct top *top, int error)
{
	return top->is_live && top->has_answer && (error == EIO || error == EINTR);
}

static void on_answer(struct top *top)
{
	char *texts[FILES] = {NULL};
	int errors[FILES] = {0};
	bool is_whole = take_answer(top, texts, errors);
	cleanup(free_ptr) char *state =
		texts[STATUS] ? mount_member(texts[STATUS], NULL, "state") : NULL;

	waitpid(top->reader, NULL, 0);
	top->reader = 0;
	close(top->pipe);
	top->pipe = -1;
	buffer_fini(&top->answer);
	if (is_whole && state) {
		top_view_look(top->view, &(struct top_look){.status = texts[STATUS],
						 .locks = texts[LOCKS],
						 .locks_error = errors[LOCKS],
						 .metrics = texts[METRICS],
						 .at = top->asked_at,
						 .now = time(NULL)});
		top->has_answer = true;
		top->status = texts[LOCKS] ? EXIT_SUCCESS : EXIT_FAILURE;
		if (top->is_live)
			show(top);
		else
			print(top);
	} else if (!is_whole || !goes_by(top, errors[STATUS])) {
		give_up(top, !is_whole ? EIO : texts[STATUS] ? ENOENT : errors[STATUS]);
	}
	for (int i = 0; i < FILES; i++)
		free(texts[i]);
}

/* --- what comes --- */

static void on_pipe(struct top *top)
{
	char piece[64 * 1024];
	ssize_t size = read(top->pipe, piece, sizeof(piece));

	if (size > 0)
		buffer_add(&top->answer, piece, (size_t)size);
	else if (size == 0)
		on_answer(top);
	else if (errno != EINTR)
		fail(top, "pipe");
}

/* Any key asks at once but for those that end it. */
static void on_key(struct top *top)
{
	char keys[64];
	ssize_t size = read(STDIN_FILENO, keys, sizeof(keys));

	if (size <= 0 && !(size < 0 && errno == EINTR))
		top->has_keys = false;
	if (size > 0 && (memchr(keys, 'q', (size_t)size) || memchr(keys, 'Q', (size_t)size)))
		top->is_over = true;
	else if (size > 0 && !top->reader)
		begin_reading(top);
}

static void change_mask(int how, int signal)
{
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, signal);
	sigprocmask(how, &one, NULL);
}

/* Stops, as if we had never heard of the signal, and goes on when it is told to. */
static void stop(struct top *top)
{
	terminal_leave(&top->terminal);
	raise(SIGTSTP);
	change_mask(SIG_UNBLOCK, SIGTSTP);
	change_mask(SIG_BLOCK, SIGTSTP);
	show(top);
}

static void on_signal(struct top *top)
{
	struct signalfd_siginfo info;

	if (read(top->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGTSTP:
		stop(top);
		break;
	case SIGCONT:
		terminal_retake(&top->terminal);
		show(top);
		break;
	case SIGWINCH:
		show(top);
		break;
	default:
		top->ended_by = (int)info.ssi_signo;
		top->is_over = true;
	}
}

/* --- running --- */

static int wait_time(const struct top *top)
{
	int64_t next = top->reader ? SILENCE / 3 : top->asked_at + top->interval - clock_now();

	return !top->is_live ? -1 : next < 0 ? 0 : (int)next;
}

static void turn(struct top *top)
{
	enum { SIGNALS, PIPE, KEYS };
	struct pollfd fds[] = {
		[SIGNALS] = {.fd = top->signal_fd, .events = POLLIN},
		[PIPE] = {.fd = top->pipe, .events = POLLIN},
		[KEYS] = {.fd = top->has_keys ? STDIN_FILENO : -1, .events = POLLIN},
	};
	int count = poll(fds, ARRAY_SIZE(fds), wait_time(top));

	if (count < 0 && errno != EINTR)
		fail(top, "poll");
	if (count < 0)
		return;
	if (fds[SIGNALS].revents)
		on_signal(top);
	else if (fds[PIPE].revents)
		on_pipe(top);
	else if (fds[KEYS].revents)
		on_key(top);
	else if (top->reader)
		show(top);
	else
		begin_reading(top);
}

static void set_signals(struct top *top)
{
	static const int all[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
	struct sigaction now;

	sigemptyset(&top->signals);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		/* nohup(1) and shells without job control mean it. */
		if (sigaction(all[i], NULL, &now) < 0 || now.sa_handler != SIG_IGN)
			sigaddset(&top->signals, all[i]);
	}
	sigprocmask(SIG_BLOCK, &top->signals, NULL);
	/* Of a terminal that is gone we hear when we write to it. */
	signal(SIGPIPE, SIG_IGN);
}

static int begin(struct top *top)
{
	set_signals(top);
	top->signal_fd = signalfd(-1, &top->signals, SFD_CLOEXEC);
	if (top->signal_fd < 0)
		return fail(top, "signalfd");
	return begin_reading(top);
}

static int show_top(const char *mount, int64_t interval)
{
	struct top top = {.mount = mount,
		.interval = interval,
		.is_live = isatty(STDOUT_FILENO),
		.has_keys = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
		.pipe = -1,
		.signal_fd = -1};

	top.view = top_view_new(mount);
	begin(&top);
	while (!top.is_over && (top.is_live || !top.has_answer))
		turn(&top);
	terminal_leave(&top.terminal);
	end_reader(&top);
	top_view_free(top.view);
	if (top.signal_fd >= 0)
		close(top.signal_fd);
	if (top.ended_by) {
		raise(top.ended_by);
		change_mask(SIG_UNBLOCK, top.ended_by);
	}
	return top.status;
}

/* 0 if it is not one. */
static int64_t parse_interval(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	int64_t milliseconds = 0;

	if (end != text && !*end && seconds > 0 && seconds * 1000 <= MAX_INTERVAL)
		milliseconds = (int64_t)(seconds * 1000);
	return milliseconds >= MIN_INTERVAL ? milliseconds : 0;
}

int top_command(int argc, char **argv)
{
	int64_t interval = DEFAULT_INTERVAL;
	int option;

	opterr = 0;
	while ((option = getopt(argc, argv, "d:")) != -1) {
		interval = option == 'd' ? parse_interval(optarg) : 0;
		if (!interval && option == 'd') {
			log_error("-d %s: a number of seconds from 0.1 to 3600 is needed", optarg);
			return EXIT_FAILURE;
		}
		if (!interval)
			break;
	}
	if (interval && optind == argc - 1)
		return show_top(argv[optind], interval);
	log_error("usage: latchfs top [-d SECONDS] MOUNTPOINT");
	return EXIT_FAILURE;
}
