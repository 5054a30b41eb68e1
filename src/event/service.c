/* SPDX-License-Identifier: MIT */
#include "event/service.h"

#include <errno.h>

#ifdef HAVE_SYSTEMD
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#endif

#include "base/util.h"

#ifdef HAVE_SYSTEMD

enum {
	USEC_PER_MSEC = 1000,
	PATIENCE = 5 * 1000 * USEC_PER_MSEC,
	/* What is said only once is worth waiting for, if not for long. */
	ONCE_MS = 1000,
};

static int connect_manager(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	size_t length = path ? strlen(path) : 0;

	if (!length || length >= sizeof(address.sun_path) || (*path != '/' && *path != '@'))
		return -1;
	memcpy(address.sun_path, path, length);
	if (*path == '@')
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, size) == 0)
		return fd;
	close(fd);
	return -1;
}

/* As sd_notify(3), which waits while the service manager's queue is full. */
static void tell(const char *text, int timeout)
{
	struct pollfd manager = {.fd = connect_manager(), .events = POLLOUT};

	if (manager.fd < 0)
		return;
	if (poll(&manager, 1, timeout) > 0)
		(void)send(manager.fd, text, strlen(text), MSG_NOSIGNAL);
	close(manager.fd);
}

static void tell_of_life(struct service *service, struct loop *loop)
{
	tell("WATCHDOG=1", 0);
	loop_timer_arm(loop, &service->timer, loop_clock() + service->period);
}

static void on_timer(struct loop_timer *timer)
{
	tell_of_life(container_of(timer, struct service, timer), timer->loop);
}

void service_ready(struct service *service, struct loop *loop, const char *source)
{
	uint64_t usec = 0;
	cleanup(free_ptr) char *text = xasprintf("READY=1\nSTATUS=%s", source);

	tell(text, ONCE_MS);
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return;
	/* Half of it is recommended; a third also bears one that comes late. */
	service->period = (int64_t)(usec / USEC_PER_MSEC / 3) + 1;
	service->timer.fn = on_timer;
	tell_of_life(service, loop);
}

void service_stopping(void)
{
	tell("STOPPING=1", ONCE_MS);
}

int service_keep(const char *name, int fd)
{
	cleanup(free_ptr) char *state = xasprintf("FDSTORE=1\nFDNAME=%s", name);
	int result = sd_pid_notify_with_fds(0, 0, state, &fd, 1);

	if (result == 0)
		return -ENOTCONN;
	if (result > 0)
		result = sd_notify_barrier(0, PATIENCE);
	return result < 0 ? result : 0;
}

static void take_kept(const char *const *names, int *fds, size_t count, const char *name, int fd)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(name, names[i]) != 0)
			continue;
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = fd;
	}
}

void service_kept(const char *const *names, int *fds, size_t count)
{
	char **theirs = NULL;
	int number = sd_listen_fds_with_names(1, &theirs);

	for (size_t i = 0; i < count; i++)
		fds[i] = -1;
	for (int i = 0; i < number && theirs; i++) {
		take_kept(names, fds, count, theirs[i], SD_LISTEN_FDS_START + i);
		free(theirs[i]);
	}
	free(theirs);
}

void service_forget(const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", names[i]);
	sd_notify_barrier(0, PATIENCE);
}

#else

void service_ready(struct service *service, struct loop *loop, const char *source)
{
}

void service_stopping(void)
{
}

int service_keep(const char *name, int fd)
{
	return -ENOTCONN;
}

void service_kept(const char *const *names, int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		fds[i] = -1;
}

void service_forget(const char *const *names, size_t count)
{
}

#endif
