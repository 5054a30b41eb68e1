/* SPDX-License-Identifier: MIT */
#include "commands/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

/* --- in the child --- */

static void on_interrupt(int signal)
{
}

static int result_of(int result)
{
	return result < 0 ? errno : 0;
}

static int open_file(int *fd, const char *path, int flags)
{
	if (*fd >= 0)
		close(*fd);
	*fd = open(path, flags | O_CLOEXEC, 0666);
	return result_of(*fd);
}

static int close_file(int *fd)
{
	int result = *fd < 0 ? 0 : close(*fd);

	*fd = -1;
	return result_of(result);
}

static int lock_range(int fd, int how, short type, int64_t start, int64_t length)
{
	struct flock lock = {.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)length};

	return result_of(fcntl(fd, how, &lock));
}

static int set_policy(const char *path, const char *setting)
{
	const char *value = strchr(setting, '=') + 1;
	cleanup(free_ptr) char *name =
		xasprintf("user.latchfs.%.*s", (int)(value - setting) - 1, setting);

	return result_of(setxattr(path, name, value, strlen(value), 0));
}

static int read_token(const char *path, uint64_t *token)
{
	static const char member[] = "\"token\":";
	char text[4096];
	ssize_t size = getxattr(path, "user.latchfs.holder", text, sizeof(text) - 1);

	if (size < 0)
		return errno;
	text[size] = '\0';
	const char *at = strstr(text, member);
	*token = at ? strtoull(at + strlen(member), NULL, 10) : 0;
	return at ? 0 : EBADMSG;
}

static void pause_for(long microseconds)
{
	struct timespec time = {.tv_nsec = microseconds * 1000};

	nanosleep(&time, NULL);
}

/* Alone or not: stays a moment, for others to come. */
static uint64_t visit(struct worker_shared *shared)
{
	uint64_t others = (uint64_t)__atomic_fetch_add(&shared->inside, 1, __ATOMIC_SEQ_CST);

	pause_for(200);
	others += (uint64_t)__atomic_fetch_sub(&shared->inside, 1, __ATOMIC_SEQ_CST) - 1;
	return others;
}

static int take_lock(int *fd, const struct worker_task *task)
{
	int error = 0;

	switch ((enum worker_race)task->type) {
	case RACE_CREATE:
		while ((error = open_file(fd, task->path, O_RDWR | O_CREAT | O_EXCL)) == EEXIST)
			pause_for(500);
		return error;
	case RACE_FLOCK:
		return result_of(flock(*fd, LOCK_EX));
	case RACE_FCNTL:
		break;
	}
	return lock_range(*fd, F_SETLKW, F_WRLCK, 0, 0);
}

static int release_lock(int *fd, const struct worker_task *task)
{
	switch ((enum worker_race)task->type) {
	case RACE_CREATE:
		return unlink(task->path) < 0 ? errno : close_file(fd);
	case RACE_FLOCK:
		return result_of(flock(*fd, LOCK_UN));
	case RACE_FCNTL:
		break;
	}
	return lock_range(*fd, F_SETLK, F_UNLCK, 0, 0);
}

static int race(
	int *fd, const struct worker_task *task, struct worker_shared *shared, uint64_t *others)
{
	int error = 0;

	if (task->type != (short)RACE_CREATE)
		error = open_file(fd, task->path, O_RDWR | O_CREAT);
	for (int i = 0; i < task->how && !error; i++) {
		error = take_lock(fd, task);
		if (error)
			break;
		*others += visit(shared);
		error = release_lock(fd, task);
	}
	close_file(fd);
	return error;
}

static void carry_out(int *fd, const struct worker_task *task, struct worker_shared *shared,
	struct worker_answer *answer)
{
	switch (task->call) {
	case WORKER_OPEN:
		answer->error = open_file(fd, task->path, task->how);
		break;
	case WORKER_CLOSE:
		answer->error = close_file(fd);
		break;
	case WORKER_FLOCK:
		answer->error = result_of(flock(*fd, task->how));
		break;
	case WORKER_LOCK:
		answer->error = lock_range(*fd, task->how, task->type, task->start, task->length);
		break;
	case WORKER_UNLINK:
		answer->error = result_of(unlink(task->path));
		break;
	case WORKER_MKDIR:
		answer->error = result_of(mkdir(task->path, 0777));
		break;
	case WORKER_RMDIR:
		answer->error = result_of(rmdir(task->path));
		break;
	case WORKER_SET_POLICY:
		answer->error = set_policy(task->path, task->value);
		break;
	case WORKER_TOKEN:
		answer->error = read_token(task->path, &answer->number);
		break;
	case WORKER_RACE:
		answer->error = race(fd, task, shared, &answer->number);
		break;
	}
}

static _Noreturn void work(int socket, struct worker_shared *shared, pid_t parent)
{
	struct sigaction interrupt = {.sa_handler = on_interrupt}; /* no SA_RESTART */
	struct worker_task task;
	int fd = -1;

	sigemptyset(&interrupt.sa_mask);
	sigaction(SIGUSR1, &interrupt, NULL);
	/* Keys of the terminal are for the one who asks, who then ends us. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	umask(0);
	while (getppid() == parent &&
		recv(socket, &task, sizeof(task), 0) == (ssize_t)sizeof(task)) {
		struct worker_answer answer = {0};
		carry_out(&fd, &task, shared, &answer);
		if (send(socket, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(EXIT_SUCCESS);
}

/* --- in the parent --- */

int worker_start(struct worker *worker, struct worker_shared *shared)
{
	pid_t parent = getpid();
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		work(fds[1], shared, parent);
	}
	int error = errno;
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		return -error;
	}
	*worker = (struct worker){.pid = pid, .fd = fds[0]};
	return 0;
}

void worker_kill(struct worker *worker)
{
	enum { PATIENCE = 500, STEP = 1000 };

	if (!worker->pid)
		return;
	kill(worker->pid, SIGKILL);
	close(worker->fd);
	/* One that is stuck in a file system is left to that. */
	for (int i = 0; i < PATIENCE && waitpid(worker->pid, NULL, WNOHANG) == 0; i++)
		pause_for(STEP);
	*worker = (struct worker){.fd = -1};
}

bool worker_begin(struct worker *worker, const struct worker_task *task)
{
	return worker->pid && send(worker->fd, task, sizeof(*task), MSG_NOSIGNAL) >= 0;
}

int worker_await(struct worker *worker, int milliseconds, struct worker_answer *answer)
{
	struct pollfd fd = {.fd = worker->fd, .events = POLLIN};
	int count = worker->pid ? poll(&fd, 1, milliseconds) : 0;

	if (count < 0)
		return -errno;
	if (count == 0)
		return worker->pid ? 0 : -EPIPE;
	return recv(worker->fd, answer, sizeof(*answer), 0) == (ssize_t)sizeof(*answer) ? 1
											: -EPIPE;
}

void worker_interrupt(const struct worker *worker)
{
	if (worker->pid)
		kill(worker->pid, SIGUSR1);
}
