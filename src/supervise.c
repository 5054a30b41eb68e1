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

/* Workers that die before they are ready, one after the other, until it is given up. */
enum { MAX_FAILURES = 5, ENDS = 2 };

/* What another supervisor leaves: the descriptors' numbers. */
static const char inheritance[] = "LATCHFS_SUPERVISOR";

struct supervisor {
	const struct supervision *supervision;
	struct estate estate; /* of the next worker */
	bool is_resumable, stopping;
	unsigned int failures;
	pid_t worker;
	int link; /* to the worker; -1: it has hung up */
	int signals;
	sigset_t former_mask;
	int directory;      /* in which we were started */
	char program[4096]; /* where it lies, also when a newer one lies there */
};

/* --- what the worker says --- */

struct message {
	bool is_resumable;
	struct mount_ends ends; /* just numbers: the descriptors come beside it */
};

union control {
	char bytes[CMSG_SPACE(sizeof(int) * ENDS)];
	struct cmsghdr header;
};

void supervise_tell(int supervisor, const struct mount_ends *ends, bool resumable)
{
	struct message message = {.is_resumable = resumable};
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
	union control control = {0};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

	if (ends) {
		int fds[ENDS] = {ends->device, ends->reaper};
		header.msg_control = control.bytes;
		header.msg_controllen = sizeof(control.bytes);
		control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(sizeof(fds))};
		memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
	}
	if (sendmsg(supervisor, &header, MSG_NOSIGNAL) < 0)
		log_warning("nobody will go on if this process is killed: %s", strerror(errno));
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
	bool is_first = !supervisor->estate.is_inherited;
	take_ends(supervisor, CMSG_FIRSTHDR(&header));
	supervisor->is_resumable = message.is_resumable && supervisor->estate.is_inherited;
	supervisor->failures = 0;
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
	sigprocmask(SIG_SETMASK, &supervisor->former_mask, NULL);
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
	return 1;
}

static bool is_ledger_good(const struct supervisor *supervisor)
{
	struct ledger *ledger = ledger_open(supervisor->estate.ledger);
	bool good = ledger && ledger_is_complete(ledger);

	ledger_close(ledger);
	return good;
}

/* A worker was killed.  True if another one can go on. */
static bool may_go_on(struct supervisor *supervisor, int signal)
{
	if (supervisor->stopping)
		return false;
	if (!supervisor->is_resumable || !is_ledger_good(supervisor)) {
		log_error("the process that serves the mount was killed by signal %d (%s): its "
			  "locks are lost",
			signal, strsignal(signal));
		return false;
	}
	if (supervisor->failures++ == MAX_FAILURES) {
		log_error("no process that could go on with the mount lives long enough: its "
			  "locks are lost");
		return false;
	}
	log_warning("the process that serves the mount was killed by signal %d (%s): another one "
		    "goes on",
		signal, strsignal(signal));
	return true;
}

/* --- a newer program --- */

static bool can_run(const struct supervisor *supervisor)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execl(supervisor->program, supervisor->program, "--version", (char *)NULL);
		_exit(EXIT_FAILURE);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == 0;
}

static void keep_open(int fd)
{
	fcntl(fd, F_SETFD, 0);
}

/* To replace a worker is the same as its death. */
static void make_room(struct supervisor *supervisor)
{
	const struct estate *estate = &supervisor->estate;
	char numbers[64];

	kill(supervisor->worker, SIGKILL);
	waitpid(supervisor->worker, NULL, 0);
	snprintf(numbers, sizeof(numbers), "%d %d %d", estate->ledger, estate->ends.device,
		estate->ends.reaper);
	setenv(inheritance, numbers, true);
	keep_open(estate->ledger);
	keep_open(estate->ends.device);
	keep_open(estate->ends.reaper);
	supervisor->supervision->succeed(supervisor->supervision->user);
	sigprocmask(SIG_SETMASK, &supervisor->former_mask, NULL);
	if (fchdir(supervisor->directory) == 0)
		execv(supervisor->program, supervisor->supervision->argv);
	log_error("%s can't be started: %s", supervisor->program, strerror(errno));
}

static void replace(struct supervisor *supervisor)
{
	if (!supervisor->is_resumable)
		log_warning("it is not replaced: the locks would be lost");
	else if (!can_run(supervisor))
		log_warning("it is not replaced: %s does not run", supervisor->program);
	else
		make_room(supervisor);
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
	estate->is_inherited = supervisor->is_resumable = true;
	fcntl(estate->ledger, F_SETFD, FD_CLOEXEC);
	fcntl(estate->ends.device, F_SETFD, FD_CLOEXEC);
	fcntl(estate->ends.reaper, F_SETFD, FD_CLOEXEC);
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
	if (info.ssi_signo == SIGUSR1) {
		replace(supervisor);
		return -1;
	}
	supervisor->stopping = true;
	kill(supervisor->worker, (int)info.ssi_signo);
	return -1;
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
		role = start_worker(&supervisor);
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
