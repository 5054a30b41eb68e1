/* SPDX-License-Identifier: MIT */
#include "fs/search.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "fs/searcher.h"

struct search {
	struct loop *loop;
	const char *mount_point;
	int helper; /* socket; -1: there is none */
	pid_t pid;
};

/* --- the helper --- */

static void start_helper(struct search *search)
{
	pid_t parent = getpid();
	int fds[2];

	search->helper = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return;
	search->pid = fork();
	if (search->pid == 0)
		searcher_run(fds[1], parent, search->mount_point);
	close(fds[1]);
	if (search->pid < 0)
		close(fds[0]);
	else
		search->helper = fds[0];
}

static void stop_helper(struct search *search)
{
	if (search->helper < 0)
		return;
	close(search->helper);
	search->helper = -1;
	kill(search->pid, SIGKILL);
	waitpid(search->pid, NULL, 0);
}

struct search *search_new(struct loop *loop, const char *mount_point)
{
	struct search *search = xzalloc(sizeof(*search));

	search->loop = loop;
	search->mount_point = mount_point;
	start_helper(search);
	return search;
}

void search_free(struct search *search)
{
	stop_helper(search);
	free(search);
}

static bool pass(const struct search *search, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control = {0};
	char byte = 0;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes)};

	control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(fd))};
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return search->helper >= 0 &&
	       sendmsg(search->helper, &message, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}

/* --- jobs --- */

void search_add(struct search_job *job, const struct search_target *target,
	const struct search_opener *openers)
{
	if (!job->request.size)
		buffer_resize(&job->request, sizeof(struct searcher_request));
	buffer_add(&job->request, target, sizeof(*target));
	buffer_add(&job->request, openers, target->opener_count * sizeof(openers[0]));
	job->target_count++;
}

void search_cancel(struct search_job *job)
{
	buffer_fini(&job->request);
	buffer_fini(&job->answers);
	if (!job->watch.loop)
		return;
	loop_fd_remove(&job->watch);
	close(job->watch.fd);
}

static void end(struct search_job *job)
{
	search_cancel(job);
	job->done(job, job->is_complete ? 0 : -EIO);
}

/* False if the other end is gone. */
static bool send_some(struct search_job *job)
{
	struct buffer *request = &job->request;
	ssize_t sent = send(job->watch.fd, request->data, request->size, MSG_NOSIGNAL);

	if (sent < 0)
		return errno == EAGAIN || errno == EINTR;
	buffer_consume(request, (size_t)sent);
	return request->size || loop_fd_change(&job->watch, LOOP_READ) == 0;
}

/* False if it makes no sense, or the other end is gone. */
static bool answer(struct search_job *job, const struct searcher_found *found)
{
	if (found->target == SEARCHER_END) {
		job->is_complete = true;
		return true;
	}
	if (found->target >= job->target_count)
		return false;
	struct searcher_verdict verdict = {
		.signal = job->found(job, found->target, (pid_t)found->pid)};
	/* It waits for them before it sends more than the socket has room for. */
	return send(job->watch.fd, &verdict, sizeof(verdict), MSG_NOSIGNAL) ==
	       (ssize_t)sizeof(verdict);
}

/* The same. */
static bool receive_some(struct search_job *job)
{
	struct searcher_found found;
	char data[32 * sizeof(found)];
	ssize_t size = recv(job->watch.fd, data, sizeof(data), 0);

	if (size < 0)
		return errno == EAGAIN || errno == EINTR;
	buffer_add(&job->answers, data, (size_t)size);
	while (job->answers.size >= sizeof(found)) {
		memcpy(&found, job->answers.data, sizeof(found));
		buffer_consume(&job->answers, sizeof(found));
		if (!answer(job, &found))
			return false;
	}
	return size > 0;
}

static void on_event(struct loop_fd *watch, unsigned int events)
{
	struct search_job *job = container_of(watch, struct search_job, watch);
	bool goes_on = true;

	if (events & LOOP_WRITE && job->request.size)
		goes_on = send_some(job);
	if (goes_on && events & LOOP_READ)
		goes_on = receive_some(job);
	if (!goes_on)
		end(job);
}

int search_start(struct search *search, struct search_job *job)
{
	struct searcher_request header = {
		.size = job->request.size - sizeof(header), .target_count = job->target_count};
	int fds[2];

	memcpy(job->request.data, &header, sizeof(header));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return -errno;
	bool is_passed = pass(search, fds[1]);
	if (!is_passed) {
		/* The helper may have been killed. */
		stop_helper(search);
		start_helper(search);
		is_passed = pass(search, fds[1]);
	}
	close(fds[1]);
	job->watch = (struct loop_fd){.fd = fds[0], .fn = on_event};
	int error = is_passed ? loop_fd_add(search->loop, &job->watch, LOOP_READ | LOOP_WRITE)
			      : -ECHILD;
	if (error)
		close(fds[0]);
	return error;
}
