/* SPDX-License-Identifier: MIT */
#include "fs/searcher.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/util.h"
#include "fs/search.h"

enum {
	PENDING = 16,       /* found processes of which the verdict may be missing */
	NICENESS = 5,       /* it is not to take the processor from the one that serves the mount */
	FIRST_OTHER_FD = 3, /* behind the standard streams */
};

struct target {
	struct search_target is;
	const struct search_opener *openers;
	bool is_signalled;
	pid_t last; /* process that was found for it */
};

struct searcher {
	int fd;
	struct target *targets; /* in the order of the request */
	struct target **sorted; /* by inode */
	size_t count;
	pid_t *visited; /* before the others; sorted */
	size_t visited_count;
	struct proc_walk *walk;

	/* The process that it is at. */
	pid_t pid;
	int process; /* pidfd, -1 until it is needed */
	struct proc_users users;

	/* In the order of what was found. */
	struct {
		struct target *target;
		int process;
	} pending[PENDING];
	size_t pending_count;
};

/* --- the conversation --- */

static void read_all(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, (char *)to + done, size - done);
		if (n <= 0)
			_exit(EXIT_FAILURE);
		done += (size_t)n;
	}
}

static void say(const struct searcher *searcher, uint32_t target, pid_t pid)
{
	struct searcher_found found = {.target = target, .pid = pid};

	if (send(searcher->fd, &found, sizeof(found), MSG_NOSIGNAL) != (ssize_t)sizeof(found))
		_exit(EXIT_FAILURE);
}

static void obey_oldest(struct searcher *searcher)
{
	struct target *target = searcher->pending[0].target;
	int process = searcher->pending[0].process;
	struct searcher_verdict verdict;

	read_all(searcher->fd, &verdict, sizeof(verdict));
	if (verdict.signal) {
		syscall(SYS_pidfd_send_signal, process, verdict.signal, NULL, 0);
		target->is_signalled = true;
	}
	close(process);
	searcher->pending_count--;
	memmove(searcher->pending, searcher->pending + 1,
		searcher->pending_count * sizeof(searcher->pending[0]));
}

static void obey_all(struct searcher *searcher)
{
	while (searcher->pending_count)
		obey_oldest(searcher);
}

/* The process that it is at has to do with the target, if it can be signalled at all. */
static void report(struct searcher *searcher, struct target *target)
{
	int process = fcntl(searcher->process, F_DUPFD_CLOEXEC, FIRST_OTHER_FD);

	if (process < 0 || syscall(SYS_pidfd_send_signal, process, 0, NULL, 0) < 0) {
		close(process);
		return;
	}
	if (searcher->pending_count == PENDING)
		obey_oldest(searcher);
	searcher->pending[searcher->pending_count].target = target;
	searcher->pending[searcher->pending_count++].process = process;
	say(searcher, (uint32_t)(target - searcher->targets), searcher->pid);
}

/* --- what is looked for --- */

static int by_inode(const void *a, const void *b)
{
	uint64_t x = (*(struct target *const *)a)->is.inode;
	uint64_t y = (*(struct target *const *)b)->is.inode;

	return (x > y) - (x < y);
}

/* The place of the first one with that number, or a larger one. */
static size_t find_inode(const struct searcher *searcher, uint64_t inode)
{
	size_t low = 0, high = searcher->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (searcher->sorted[middle]->is.inode < inode)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool has_inode(const struct searcher *searcher, size_t at, uint64_t inode)
{
	return at < searcher->count && searcher->sorted[at]->is.inode == inode;
}

static bool is_wanted(void *user, uint64_t inode)
{
	const struct searcher *searcher = user;

	return has_inode(searcher, find_inode(searcher, inode), inode);
}

static int by_pid(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

/*
 * True if the process has the file open only to wait for the lock, or to look at it.  What it did
 * not open itself it has from the nearest of its parents that did.
 */
static bool is_bystander(const struct target *target, pid_t pid)
{
	for (; pid > 1 && target->is.opener_count; pid = proc_parent(pid)) {
		const struct search_opener *opener = bsearch(
			&pid, target->openers, target->is.opener_count, sizeof(*opener), by_pid);
		if (opener)
			return !opener->is_concerned;
	}
	return false;
}

static void on_open_file(void *user, pid_t pid, uint64_t inode)
{
	struct searcher *searcher = user;

	for (size_t i = find_inode(searcher, inode); has_inode(searcher, i, inode); i++) {
		struct target *target = searcher->sorted[i];
		/* Once, however often it has the file open. */
		if (target->last == pid)
			continue;
		target->last = pid;
		if (proc_users_may_be_signalled(&searcher->users, target->is.uid) &&
			!is_bystander(target, pid))
			report(searcher, target);
	}
}

/* --- the search --- */

/* What nobody's user could signal is not looked at. */
static bool concerns_any(struct searcher *searcher)
{
	uint32_t last = 0;

	if (!proc_users(searcher->pid, &searcher->users))
		return false;
	for (size_t i = 0; i < searcher->count; i++) {
		uint32_t uid = searcher->targets[i].is.uid;
		if (i && uid == last)
			continue;
		last = uid;
		if (proc_users_may_be_signalled(&searcher->users, uid))
			return true;
	}
	return false;
}

/* Opened before anything is read of it: what is read may else be another's of that number. */
static bool begin_process(struct searcher *searcher, pid_t pid)
{
	searcher->pid = pid;
	searcher->process = proc_open(pid);
	if (searcher->process >= 0 && concerns_any(searcher))
		return true;
	if (searcher->process >= 0)
		close(searcher->process);
	return false;
}

static void look_at(struct searcher *searcher, pid_t pid)
{
	if (!begin_process(searcher, pid))
		return;
	proc_walk_files(searcher->walk, pid,
		&(struct proc_looker){
			.wanted = is_wanted, .found = on_open_file, .user = searcher});
	close(searcher->process);
}

static void look_at_other(void *user, pid_t pid)
{
	struct searcher *searcher = user;

	if (!bsearch(&pid, searcher->visited, searcher->visited_count, sizeof(pid), by_pid))
		look_at(searcher, pid);
}

/* Those that are known to be concerned, so that nobody's crowd comes before them. */
static void look_at_concerned(struct searcher *searcher)
{
	size_t room = 0, count = 0;

	for (size_t i = 0; i < searcher->count; i++)
		room += 1 + searcher->targets[i].is.opener_count;
	searcher->visited = xzalloc(room * sizeof(pid_t));
	for (size_t i = 0; i < searcher->count; i++) {
		const struct target *target = &searcher->targets[i];
		if (target->is.creator)
			searcher->visited[count++] = target->is.creator;
		for (size_t j = 0; j < target->is.opener_count; j++) {
			if (target->openers[j].is_concerned)
				searcher->visited[count++] = target->openers[j].pid;
		}
	}
	qsort(searcher->visited, count, sizeof(pid_t), by_pid);
	for (size_t i = 0; i < count; i++) {
		pid_t pid = searcher->visited[i];
		if (i && pid == searcher->visited[i - 1])
			continue;
		if (pid > 1)
			look_at(searcher, pid);
	}
	searcher->visited_count = count;
}

static void look_at_creators(struct searcher *searcher)
{
	for (size_t i = 0; i < searcher->count; i++) {
		struct target *target = &searcher->targets[i];
		if (target->is_signalled || target->is.creator <= 1 ||
			!begin_process(searcher, target->is.creator))
			continue;
		if (proc_users_may_be_signalled(&searcher->users, target->is.uid))
			report(searcher, target);
		close(searcher->process);
	}
}

static void read_request(struct searcher *searcher)
{
	struct searcher_request header;

	read_all(searcher->fd, &header, sizeof(header));
	char *data = xzalloc(header.size);
	read_all(searcher->fd, data, header.size);
	searcher->count = header.target_count;
	searcher->targets = xzalloc(searcher->count * sizeof(searcher->targets[0]));
	searcher->sorted = xzalloc(searcher->count * sizeof(searcher->sorted[0]));
	for (size_t i = 0; i < searcher->count; i++) {
		struct target *target = &searcher->targets[i];
		memcpy(&target->is, data, sizeof(target->is));
		data += sizeof(target->is);
		target->openers = (const struct search_opener *)(void *)data;
		data += target->is.opener_count * sizeof(target->openers[0]);
		searcher->sorted[i] = target;
	}
	qsort(searcher->sorted, searcher->count, sizeof(searcher->sorted[0]), by_inode);
}

_Noreturn static void serve(int fd, const char *mount_point)
{
	struct searcher searcher = {.fd = fd};
	dev_t device;

	alarm(SEARCH_SECONDS);
	(void)setpriority(PRIO_PROCESS, 0, NICENESS);
	fcntl(fd, F_SETFL, 0);
	read_request(&searcher);
	if (!proc_mount_device(mount_point, &device))
		_exit(EXIT_FAILURE);
	searcher.walk = proc_walk_new(device);
	look_at_concerned(&searcher);
	obey_all(&searcher);
	proc_each(look_at_other, &searcher);
	obey_all(&searcher);
	look_at_creators(&searcher);
	obey_all(&searcher);
	say(&searcher, SEARCHER_END, 0);
	_exit(EXIT_SUCCESS);
}

/* --- the helper --- */

/* -1 if nothing more is to come. */
static int receive(int from)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control;
	char byte;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes)};
	int fd;

	if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) <= 0)
		return -1;
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(fd)))
		return -1;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

/* Its end is that of its parent. */
static void bind_to(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
}

_Noreturn void searcher_run(int socket, pid_t parent, const char *mount_point)
{
	pid_t self = getpid();
	int fd;

	bind_to(parent);
	/* Whoever ends the daemon's process group means the daemon. */
	setsid();
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_NAME, "latchfs-search");
	syscall(SYS_close_range, socket + 1, ~0U, 0);
	if (socket > 0)
		syscall(SYS_close_range, 0, socket - 1, 0);
	while ((fd = receive(socket)) >= 0) {
		if (fork() == 0) {
			bind_to(self);
			close(socket);
			serve(fd, mount_point);
		}
		close(fd);
	}
	_exit(EXIT_SUCCESS);
}
