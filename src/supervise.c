/* SPDX-License-Identifier: MIT */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ledger.h"
#include "base/log.h"
#include "base/pulse.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/reaper.h"

enum {
	/* Workers that die at once, one after the other, until it is given up. */
	MAX_FAILURES = 20,
	AT_ONCE = 100, /* milliseconds */
	PAUSE = 50,    /* between them, growing with their number */
	/* How often a worker is looked at in the time in which it has to turn. */
	GLANCES = 4,
	/* So long a worker that turns may take to obey a second signal. */
	MERCY_MS = 1000,
	/* So long it waits for the supervisor when it ends. */
	ANSWER_MS = 500,
	ENDS = 2,
};

struct supervisor {
	const struct supervision *supervision;
	struct estate estate; /* of the next worker */
	bool is_ready, is_resumable;
	bool is_over; /* the worker keeps the mount alone, to its end */
	int ending;   /* the signal by which it is to end, 0 if none came */
	int64_t ending_at;
	int64_t kill_at; /* a second one came; 0: none */
	unsigned int failures;
	int64_t started_at; /* the worker */
	/* What was seen of its pulse, and for how long it has not changed since. */
	uint64_t turns;
	int64_t looked_at, silent_for;
	bool is_killed; /* because of that */
	/* When the locks are lost without anybody being told, if no worker turns; 0: one does. */
	int64_t deadline;
	pid_t worker;
	int link; /* to the worker, -1: it has hung up; in the worker, to the supervisor */
	int signals;
	int directory;      /* in which we were started */
	char program[4096]; /* where it lies, also when a newer one lies there */
};

/* --- what the worker says --- */

struct message {
	bool is_resumable, is_ending;
	struct mount_ends ends; /* just numbers: the descriptors come beside it */
};

union control {
	char bytes[CMSG_SPACE(sizeof(int) * ENDS)];
	struct cmsghdr header;
};

static void send_message(int supervisor, struct msghdr *header)
{
	if (sendmsg(supervisor, header, MSG_NOSIGNAL) < 0)
		log_warning("nobody will go on if this process is killed: %s", strerror(errno));
}

void supervise_end(int supervisor)
{
	struct message message = {.is_ending = true};
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

	send_message(supervisor, &header);
	/* The answer: it has closed what keeps the mount alive.  If it does not run it does so
	 * later. */
	struct pollfd answer = {.fd = supervisor, .events = POLLIN};
	if (poll(&answer, 1, ANSWER_MS) > 0)
		(void)recv(supervisor, &message, sizeof(message), 0);
}

void supervise_tell(int supervisor, const struct mount_ends *ends, bool resumable)
{
	bool can_pass = ends && ends->device >= 0 && ends->reaper >= 0;
	struct message message = {.is_resumable = resumable && (can_pass || !ends)};
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
	union control control = {0};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

	if (can_pass) {
		int fds[ENDS] = {ends->device, ends->reaper};
		header.msg_control = control.bytes;
		header.msg_controllen = sizeof(control.bytes);
		control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(sizeof(fds))};
		memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
	}
	send_message(supervisor, &header);
}

static void take_ends(struct supervisor *supervisor, const struct cmsghdr *header)
{
	int fds[ENDS];

	if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(fds)))
		return;
	memcpy(fds, CMSG_DATA(header), sizeof(fds));
	supervisor->estate.ends = (struct mount_ends){.device = fds[0], .reaper = fds[1]};
	supervisor->estate.is_inherited = true;
}

/* It is the worker's alone from now on, whose end then is that of the mount. */
static void let_go(struct supervisor *supervisor)
{
	struct estate *estate = &supervisor->estate;
	const struct message answer = {.is_ending = true};

	if (estate->is_inherited) {
		close(estate->ends.device);
		close(estate->ends.reaper);
	}
	supervisor->is_resumable = false;
	supervisor->is_over = true;
	(void)send(supervisor->link, &answer, sizeof(answer), MSG_NOSIGNAL);
}

static void on_message(struct supervisor *supervisor)
{
	struct message message;
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
	union control control;
	struct msghdr header = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes)};

	if (recvmsg(supervisor->link, &header, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(message)) {
		close(supervisor->link);
		supervisor->link = -1;
		return;
	}
	if (message.is_ending) {
		let_go(supervisor);
		return;
	}
	bool is_first = !supervisor->is_ready;
	supervisor->is_ready = true;
	take_ends(supervisor, CMSG_FIRSTHDR(&header));
	supervisor->is_resumable = message.is_resumable && supervisor->estate.is_inherited;
	if (is_first)
		supervisor->supervision->ready(supervisor->supervision->user);
}

/* --- workers --- */

/* Whether a process is the one that the service manager expects signs of life from. */
static bool watches(const char *watched, pid_t pid)
{
	uint64_t number;

	return watched && parse_u64(watched, 10, UINT64_MAX, &number) == 0 &&
	       number == (uint64_t)pid;
}

/* As little of the supervisor's as possible, and its death is ours. */
static void become_worker(struct supervisor *supervisor, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	close(supervisor->signals);
	close(supervisor->directory);
	/* Of the others it is told by its loop, when it has one. */
	sigset_t children;
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_UNBLOCK, &children, NULL);
	/* What watches over the supervisor hears from us. */
	if (watches(getenv("WATCHDOG_PID"), parent))
		unsetenv("WATCHDOG_PID");
}

/* Returns 1 in the supervisor, 0 in the worker, -1 if there can't be one. */
static int start_worker(struct supervisor *supervisor)
{
	pid_t parent = getpid();
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		log_error("socketpair: %s", strerror(errno));
		return -1;
	}
	supervisor->worker = fork();
	if (supervisor->worker < 0) {
		log_error("fork: %s", strerror(errno));
		close(fds[0]);
		close(fds[1]);
		return -1;
	}
	if (!supervisor->worker) {
		close(fds[0]);
		supervisor->link = fds[1];
		become_worker(supervisor, parent);
		return 0;
	}
	close(fds[1]);
	supervisor->link = fds[0];
	supervisor->started_at = supervisor->looked_at = loop_clock();
	supervisor->turns = 0;
	supervisor->silent_for = 0;
	supervisor->is_killed = false;
	/* The last one has not come to it. */
	if (supervisor->ending)
		kill(supervisor->worker, supervisor->ending);
	return 1;
}

static void pause_for(int milliseconds)
{
	poll(NULL, 0, milliseconds);
}

/* Their holders would be told too late by a worker that does not turn before. */
static void bound(struct supervisor *supervisor)
{
	int64_t deadline = succession_deadline(&supervisor->estate);

	/* If it has passed, only the next worker can tell them, and does so first of all. */
	supervisor->deadline = deadline > loop_clock() ? deadline : 0;
}

/* A worker was killed.  True if another one can go on. */
static bool may_go_on(struct supervisor *supervisor, int signal)
{
	if (supervisor->is_over)
		return false;
	if (!supervisor->is_resumable || !ledger_is_good(supervisor->estate.ledger)) {
		log_error("the process that serves the mount was killed by signal %d (%s): its "
			  "locks are lost",
			signal, strsignal(signal));
		return false;
	}
	if (loop_clock() - supervisor->started_at > AT_ONCE)
		supervisor->failures = 0;
	if (supervisor->failures++ == MAX_FAILURES) {
		log_error("no process that could go on with the mount lives long enough: its "
			  "locks are lost");
		return false;
	}
	log_warning("the process that serves the mount was killed by signal %d (%s): another one "
		    "goes on",
		signal, strsignal(signal));
	bound(supervisor);
	pause_for((int)(supervisor->failures - 1) * PAUSE);
	return true;
}

/* --- another supervisor --- */

static struct successor successor_of(const struct supervisor *supervisor)
{
	const struct supervision *supervision = supervisor->supervision;

	return (struct successor){.program = supervisor->program,
		.directory = supervisor->directory,
		.argv = supervision->argv,
		.mount_point = supervision->mount_point,
		.prepare = supervision->prepare,
		.user = supervision->user};
}

static bool hears(const struct supervisor *supervisor)
{
	struct pollfd link = {.fd = supervisor->link, .events = POLLIN};

	return poll(&link, 1, 1) > 0;
}

/* What the worker says meanwhile, as that it ends, can't wait. */
static bool agrees(struct supervisor *supervisor, pid_t pid)
{
	enum { PATIENCE = 10 * 1000 };
	int64_t end = loop_clock() + PATIENCE;
	int status = -1;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (hears(supervisor))
			on_message(supervisor);
		if (supervisor->is_over || supervisor->link < 0 || loop_clock() > end)
			kill(pid, SIGKILL);
	}
	while (hears(supervisor))
		on_message(supervisor);
	return !supervisor->is_over && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool can_be_replaced(struct supervisor *supervisor)
{
	struct successor successor = successor_of(supervisor);

	if (supervisor->is_over || supervisor->ending)
		return false;
	if (!supervisor->is_resumable || !ledger_is_good(supervisor->estate.ledger) ||
		!reaper_keep(supervisor->estate.ends.reaper)) {
		log_warning("it is not replaced: the locks would be lost");
		return false;
	}
	pid_t pid = succession_ask(&successor);
	if (pid > 0 && agrees(supervisor, pid))
		return true;
	if (!supervisor->is_over)
		log_warning("it is not replaced: %s does not run, or can't go on with the locks",
			supervisor->program);
	return false;
}

/* To replace a worker is the same as its death. */
static void end_worker(const struct supervisor *supervisor)
{
	kill(supervisor->worker, SIGKILL);
	waitpid(supervisor->worker, NULL, 0);
}

/* Returns the worker's wait status if that has ended by it, else -1.  The signals stay blocked:
 * what comes meanwhile is for who takes our place. */
static int replace(struct supervisor *supervisor)
{
	struct successor successor = successor_of(supervisor);

	if (!can_be_replaced(supervisor))
		return -1;
	end_worker(supervisor);
	succession_exec(&successor, &supervisor->estate);
	supervisor->supervision->stay(supervisor->supervision->user);
	return SIGKILL;
}

/* The same, if it is the service manager that starts the next one. */
static int leave(struct supervisor *supervisor)
{
	if (!can_be_replaced(supervisor) || succession_leave(&supervisor->estate) < 0)
		return -1;
	log_info("leaves the mount and its locks to who is started next");
	end_worker(supervisor);
	succession_bound(&supervisor->estate);
	return EXIT_SUCCESS;
}

/* --- the supervisor --- */

static int take_over(struct supervisor *supervisor)
{
	struct estate *estate = &supervisor->estate;

	if (estate->is_inherited && succession_take(estate)) {
		supervisor->is_ready = supervisor->is_resumable = true;
		return 0;
	}
	estate->ledger = ledger_create();
	if (estate->ledger >= 0)
		return 0;
	log_error("there is nothing to supervise with: %s", strerror(-estate->ledger));
	return -1;
}

static int set_up(struct supervisor *supervisor, const struct supervision *supervision)
{
	static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
	sigset_t mask;

	/* Who has started us may have ignored his children, and then we would not hear of ours. */
	signal(SIGCHLD, SIG_DFL);
	*supervisor = (struct supervisor){
		.supervision = supervision, .estate = supervision->estate, .link = -1};
	sigemptyset(&mask);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&mask, signals[i]);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	if (take_over(supervisor) < 0)
		return -1;
	supervisor->estate.pulse = pulse_new();
	if (!supervisor->estate.pulse) {
		log_error("there is no memory to supervise with: %s", strerror(errno));
		return -1;
	}
	supervisor->signals = signalfd(-1, &mask, SFD_CLOEXEC);
	supervisor->directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ssize_t size =
		readlink("/proc/self/exe", supervisor->program, sizeof(supervisor->program) - 1);
	supervisor->program[size < 0 ? 0 : size] = '\0';
	return supervisor->signals < 0 ? -1 : 0;
}

static void fini(const struct supervisor *supervisor)
{
	close(supervisor->signals);
	close(supervisor->directory);
	close(supervisor->estate.ledger);
}

/* The mount's end, whatever the worker does.  Returns its wait status. */
static int end_all(struct supervisor *supervisor)
{
	kill(supervisor->worker, SIGKILL);
	if (!supervisor->is_over && supervisor->estate.is_inherited) {
		close(supervisor->estate.ends.device);
		reaper_unmount(supervisor->estate.ends.reaper);
	}
	supervisor->is_over = true;
	return SIGKILL;
}

/*
 * Time in which this process did not look, because it was stopped or the machine slept or is busy,
 * says nothing about the worker, and counts only as the time between two looks.
 */
static void take_pulse(struct supervisor *supervisor)
{
	int64_t step = supervisor->supervision->patience / GLANCES, now = loop_clock();
	int64_t passed = now - supervisor->looked_at;
	uint64_t turns = pulse_turns(supervisor->estate.pulse);

	supervisor->looked_at = now;
	if (!turns || turns != supervisor->turns)
		supervisor->silent_for = 0;
	else
		supervisor->silent_for += passed < 2 * step ? passed : step;
	if (turns && turns != supervisor->turns)
		supervisor->deadline = 0;
	supervisor->turns = turns;
}

/* The one that follows is asked again whatever it was at. */
static void kill_silent(struct supervisor *supervisor)
{
	log_warning("the process that serves the mount has stood still for %lld ms: it is killed",
		(long long)supervisor->silent_for);
	kill(supervisor->worker, SIGKILL);
	supervisor->silent_for = 0;
	/* It sits in the kernel and can't even die. */
	if (supervisor->is_killed && !supervisor->is_over)
		bound(supervisor);
	supervisor->is_killed = true;
}

/* If no other can go on, the worker may stand still almost until its locks are lost: the mount's
 * end then tells those who hold them, before that. */
static int64_t patience_with(const struct supervisor *supervisor)
{
	int64_t patience = supervisor->supervision->patience;

	return supervisor->is_resumable ? patience : 2 * patience;
}

/* Returns a wait status if all has come to its end, else -1. */
static int look_after(struct supervisor *supervisor)
{
	int64_t now = loop_clock();

	log_tidy(now);
	take_pulse(supervisor);
	if (supervisor->kill_at && now >= supervisor->kill_at) {
		log_warning("the process that serves the mount does not end: it is killed");
		return end_all(supervisor);
	}
	if (supervisor->deadline && now >= supervisor->deadline) {
		log_error("no process that serves the mount has turned before the deadline of its "
			  "locks: it ends");
		return end_all(supervisor);
	}
	if (supervisor->silent_for >= patience_with(supervisor))
		kill_silent(supervisor);
	return -1;
}

static void pass_on(struct supervisor *supervisor, int signal)
{
	int64_t now = loop_clock();

	if (!supervisor->ending)
		supervisor->ending_at = now;
	else if (now - supervisor->ending_at >= SUPERVISE_ECHO_MS && !supervisor->kill_at)
		supervisor->kill_at = now + MERCY_MS;
	supervisor->ending = signal;
	kill(supervisor->worker, signal);
}

static int on_signal(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;
	int status;

	if (read(supervisor->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return -1;
	if (info.ssi_signo == SIGCHLD)
		return waitpid(supervisor->worker, &status, WNOHANG) > 0 ? status : -1;
	if (info.ssi_signo == SIGUSR1)
		return replace(supervisor);
	if (info.ssi_signo == SIGUSR2)
		return leave(supervisor);
	pass_on(supervisor, (int)info.ssi_signo);
	return -1;
}

/* Waits for something to happen; returns the worker's wait status if it has ended, else -1. */
static int attend(struct supervisor *supervisor)
{
	struct pollfd fds[] = {{.fd = supervisor->signals, .events = POLLIN},
		{.fd = supervisor->link, .events = POLLIN}};
	int status = -1;

	if (poll(fds, ARRAY_SIZE(fds), (int)supervisor->supervision->patience / GLANCES) < 0)
		return -1;
	/* What it has said before it died counts. */
	if (fds[1].revents)
		on_message(supervisor);
	else if (fds[0].revents)
		status = on_signal(supervisor);
	return status == -1 ? look_after(supervisor) : status;
}

/* What keeps another one from being started may pass, as memory may come back. */
static int start_some_worker(struct supervisor *supervisor)
{
	enum { TRIES = 50, WAIT = 100 };
	int role = start_worker(supervisor);

	for (int i = 0; role < 0 && supervisor->is_resumable && i < TRIES; i++) {
		pause_for(WAIT);
		role = start_worker(supervisor);
	}
	return role;
}

int supervise(const struct supervision *supervision)
{
	struct supervisor supervisor;
	int role, status;

	if (set_up(&supervisor, supervision) < 0)
		return EXIT_FAILURE;
	if (supervisor.estate.is_inherited)
		supervision->ready(supervision->user);
	do {
		role = start_some_worker(&supervisor);
		if (role == 0)
			return supervision->serve(
				supervision->user, &supervisor.estate, supervisor.link);
		do
			status = role < 0 ? -1 : attend(&supervisor);
		while (role > 0 && status == -1);
		if (supervisor.link >= 0)
			close(supervisor.link);
		pulse_died(supervisor.estate.pulse);
	} while (role > 0 && WIFSIGNALED(status) && may_go_on(&supervisor, WTERMSIG(status)));
	fini(&supervisor);
	return role > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}
