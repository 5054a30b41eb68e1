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
#include "base/util.h"
#include "event/loop.h"

enum {
	/* Workers that die at once, one after the other, until it is given up. */
	MAX_FAILURES = 20,
	AT_ONCE = 100, /* milliseconds */
	PAUSE = 50,    /* between them, growing with their number */
	ENDS = 2,
};

/* What another supervisor leaves: the descriptors' numbers. */
static const char inheritance[] = "LATCHFS_SUPERVISOR";

struct supervisor {
	const struct supervision *supervision;
	struct estate estate; /* of the next worker */
	bool is_ready, is_resumable, stopping;
	unsigned int failures;
	int64_t started_at; /* the worker */
	pid_t worker;
	int link; /* to the worker; -1: it has hung up */
	int signals;
	sigset_t former_mask;
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
	/* The answer: it has closed what keeps the mount alive. */
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
	supervisor->stopping = true;
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

/* As little of the supervisor's as possible, and its death is ours. */
static void become_worker(struct supervisor *supervisor, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	close(supervisor->signals);
	close(supervisor->directory);
	/* Of these it is told by its loop, when it has one. */
	sigset_t mask = supervisor->former_mask;
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	/* What watches over us watches the supervisor's number. */
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
		supervisor->estate.supervisor = fds[1];
		become_worker(supervisor, parent);
		return 0;
	}
	close(fds[1]);
	supervisor->link = fds[0];
	supervisor->started_at = loop_clock();
	return 1;
}

static void pause_for(int milliseconds)
{
	poll(NULL, 0, milliseconds);
}

/* A worker was killed.  True if another one can go on. */
static bool may_go_on(struct supervisor *supervisor, int signal)
{
	if (supervisor->stopping)
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
	pause_for((int)(supervisor->failures - 1) * PAUSE);
	return true;
}

/* --- a newer program --- */

/* The words after which a program says, by its status, whether it could take our place. */
static const char question[] = "--takes-over";

static void ask_successor(const struct supervisor *supervisor)
{
	char **argv = supervisor->supervision->argv;
	size_t count = 0;
	char format[16], ask[sizeof(question)], program[sizeof(supervisor->program)];
	int null = open("/dev/null", O_RDWR);

	while (argv[count])
		count++;
	snprintf(format, sizeof(format), "%d", LEDGER_FORMAT);
	copy_string(ask, sizeof(ask), question);
	copy_string(program, sizeof(program), supervisor->program);
	char **words = xzalloc((count + 3) * sizeof(*words));
	words[0] = program;
	words[1] = ask;
	words[2] = format;
	memcpy(words + 3, argv + 1, (count - 1) * sizeof(*words));
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	supervisor->supervision->succeed(supervisor->supervision->user);
	if (fchdir(supervisor->directory) == 0)
		execv(program, words);
	_exit(EXIT_FAILURE);
}

static bool can_take_over(const struct supervisor *supervisor)
{
	enum { PATIENCE = 10 * 1000 };
	int64_t end = loop_clock() + PATIENCE;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &supervisor->former_mask, NULL);
		ask_successor(supervisor);
	}
	while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
		if (loop_clock() > end)
			kill(pid, SIGKILL);
		pause_for(1);
	}
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool supervise_is_question(int argc, char **argv, int *status)
{
	uint64_t format;

	if (argc < 3 || strcmp(argv[1], question) != 0)
		return false;
	bool fits = parse_u64(argv[2], 10, UINT64_MAX, &format) == 0 && format == LEDGER_FORMAT;
	*status = fits ? EXIT_SUCCESS : EXIT_FAILURE;
	return true;
}

static void keep_open(const struct estate *estate, bool open)
{
	const int fds[] = {estate->ledger, estate->ends.device, estate->ends.reaper};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fcntl(fds[i], F_SETFD, open ? 0 : FD_CLOEXEC);
}

/* To replace a worker is the same as its death. */
static void make_room(struct supervisor *supervisor)
{
	const struct estate *estate = &supervisor->estate;
	const struct supervision *supervision = supervisor->supervision;
	char numbers[64];

	kill(supervisor->worker, SIGKILL);
	waitpid(supervisor->worker, NULL, 0);
	snprintf(numbers, sizeof(numbers), "%d %d %d", estate->ledger, estate->ends.device,
		estate->ends.reaper);
	setenv(inheritance, numbers, true);
	supervision->succeed(supervision->user);
	keep_open(estate, true);
	/* The signals stay blocked: what comes meanwhile is for who takes our place. */
	if (fchdir(supervisor->directory) == 0)
		execv(supervisor->program, supervision->argv);
	log_error("%s can't be started: %s", supervisor->program, strerror(errno));
	keep_open(estate, false);
	unsetenv(inheritance);
	supervision->stay(supervision->user);
}

/* Returns the worker's wait status if that has ended by it, else -1. */
static int replace(struct supervisor *supervisor)
{
	if (supervisor->stopping)
		return -1;
	if (!supervisor->is_resumable || !ledger_is_good(supervisor->estate.ledger)) {
		log_warning("it is not replaced: the locks would be lost");
		return -1;
	}
	if (!can_take_over(supervisor)) {
		log_warning("it is not replaced: %s does not run, or can't go on with the locks",
			supervisor->program);
		return -1;
	}
	make_room(supervisor);
	return SIGKILL;
}

bool supervise_is_successor(void)
{
	return getenv(inheritance);
}

static int take_over(struct supervisor *supervisor)
{
	struct estate *estate = &supervisor->estate;
	const char *numbers = getenv(inheritance);

	if (!numbers)
		return ledger_create();
	if (sscanf(numbers, "%d %d %d", &estate->ledger, &estate->ends.device,
		    &estate->ends.reaper) != 3)
		return -EINVAL;
	unsetenv(inheritance);
	if (!ledger_is_good(estate->ledger))
		return -EINVAL;
	estate->is_inherited = supervisor->is_ready = supervisor->is_resumable = true;
	keep_open(estate, false);
	return estate->ledger;
}

/* --- the supervisor --- */

static int set_up(struct supervisor *supervisor, const struct supervision *supervision)
{
	sigset_t mask;

	*supervisor = (struct supervisor){.supervision = supervision, .link = -1};
	supervisor->estate.ledger = take_over(supervisor);
	if (supervisor->estate.ledger < 0) {
		log_error("there is nothing to supervise with: %s",
			strerror(-supervisor->estate.ledger));
		return -1;
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, &supervisor->former_mask);
	/* An older supervisor has left them blocked. */
	for (int signal = 1; supervisor->estate.is_inherited && signal < SIGRTMIN; signal++) {
		if (sigismember(&mask, signal) == 1)
			sigdelset(&supervisor->former_mask, signal);
	}
	supervisor->signals = signalfd(-1, &mask, SFD_CLOEXEC);
	supervisor->directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ssize_t size =
		readlink("/proc/self/exe", supervisor->program, sizeof(supervisor->program) - 1);
	supervisor->program[size < 0 ? 0 : size] = '\0';
	return supervisor->signals < 0 ? -1 : 0;
}

/* Waits for something to happen; returns the worker's wait status if it has ended, else -1. */
static int attend(struct supervisor *supervisor)
{
	struct pollfd fds[] = {{.fd = supervisor->signals, .events = POLLIN},
		{.fd = supervisor->link, .events = POLLIN}};
	struct signalfd_siginfo info;
	int status;

	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return -1;
	/* What it has said before it died counts. */
	if (fds[1].revents) {
		on_message(supervisor);
		return -1;
	}
	if (read(supervisor->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return -1;
	if (info.ssi_signo == SIGCHLD)
		return waitpid(supervisor->worker, &status, WNOHANG) > 0 ? status : -1;
	if (info.ssi_signo == SIGUSR1)
		return replace(supervisor);
	supervisor->stopping = true;
	kill(supervisor->worker, (int)info.ssi_signo);
	return -1;
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
			return supervision->serve(supervision->user, &supervisor.estate);
		do
			status = role < 0 ? -1 : attend(&supervisor);
		while (role > 0 && status == -1);
		if (supervisor.link >= 0)
			close(supervisor.link);
	} while (role > 0 && WIFSIGNALED(status) && may_go_on(&supervisor, WTERMSIG(status)));
	return role > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}
