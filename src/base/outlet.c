/* SPDX-License-Identifier: MIT */
#include "base/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A line fits into a pipe in one piece, or not at all. */
enum { LINE_SIZE = PIPE_BUF };

/* --- standard error --- */

/*
 * The same pipe or terminal once more, with flags of our own.  This can be refused: to a daemon
 * that does not run as the user whose pipe or terminal it is.
 */
static void open_queue(struct outlet *outlet, int fd, bool is_terminal)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	outlet->fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	outlet->kind = OUTLET_QUEUE;
	/* With `stty tostop` a line would stop a process in the terminal's background. */
	if (is_terminal)
		signal(SIGTTOU, SIG_IGN);
	if (outlet->fd >= 0)
		return;
	outlet->kind = OUTLET_POLLED;
	outlet->fd = fd;
	/* A pipe that is writable has room for PIPE_BUF; a terminal promises one byte. */
	outlet->piece = is_terminal ? 1 : LINE_SIZE;
}

void outlet_open(struct outlet *outlet, int fd)
{
	struct stat attr;

	*outlet = (struct outlet){.kind = OUTLET_FILE, .fd = fd};
	if (fstat(fd, &attr) < 0)
		return;
	if (S_ISSOCK(attr.st_mode))
		outlet->kind = OUTLET_SOCKET;
	else if (S_ISFIFO(attr.st_mode) || isatty(fd))
		open_queue(outlet, fd, !S_ISFIFO(attr.st_mode));
}

static ssize_t write_polled(const struct outlet *outlet, const char *data, size_t size)
{
	struct pollfd room = {.fd = outlet->fd, .events = POLLOUT};

	if (poll(&room, 1, 0) <= 0) {
		errno = EAGAIN;
		return -1;
	}
	return write(outlet->fd, data, size < outlet->piece ? size : outlet->piece);
}

static ssize_t write_some(const struct outlet *outlet, const char *data, size_t size)
{
	if (outlet->kind == OUTLET_SOCKET)
		return send(outlet->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (outlet->kind == OUTLET_POLLED)
		return write_polled(outlet, data, size);
	return write(outlet->fd, data, size);
}

/* Returns how much was taken. */
static size_t write_all(const struct outlet *outlet, const char *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write_some(outlet, data + done, size - done);
		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			break;
	}
	return done;
}

static bool write_line(struct outlet *outlet, const char *text)
{
	char line[LINE_SIZE];
	const char *begin = outlet->is_torn ? "\n" : "";
	int length = snprintf(line, sizeof(line), "%slatchfs: %s\n", begin, text);
	size_t size = (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1;

	line[size - 1] = '\n';
	size_t done = write_all(outlet, line, size);
	if (done)
		outlet->is_torn = done < size;
	return done == size;
}

/* --- the system's log --- */

/* syslog(3) waits while the daemon's queue is full. */
static int connect_syslog(int type)
{
	static const struct sockaddr_un log = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&log, sizeof(log)) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

static void reconnect(struct outlet *outlet)
{
	if (outlet->fd >= 0)
		close(outlet->fd);
	outlet->fd = connect_syslog(SOCK_DGRAM);
	if (outlet->fd < 0 && errno == EPROTOTYPE)
		outlet->fd = connect_syslog(SOCK_STREAM);
}

void outlet_open_syslog(struct outlet *outlet)
{
	if (outlet->kind == OUTLET_QUEUE)
		close(outlet->fd);
	*outlet = (struct outlet){.kind = OUTLET_SYSLOG, .fd = -1};
	reconnect(outlet);
}

static bool send_whole(const struct outlet *outlet, const char *data, size_t size)
{
	return outlet->fd >= 0 &&
	       send(outlet->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

/* In the form of RFC 3164; the zero at the end tells one line from the next on a stream. */
static bool send_line(struct outlet *outlet, int priority, const char *text)
{
	char line[LINE_SIZE], when[32] = "";
	time_t now = time(NULL);
	struct tm parts;

	if (localtime_r(&now, &parts))
		strftime(when, sizeof(when), "%b %e %H:%M:%S", &parts);
	int length = snprintf(
		line, sizeof(line), "<%d>%s latchfs[%d]: %s", priority, when, (int)getpid(), text);
	size_t size = (size_t)length < sizeof(line) ? (size_t)length + 1 : sizeof(line);
	if (send_whole(outlet, line, size))
		return true;
	if (outlet->fd >= 0 && (errno == EAGAIN || errno == ENOBUFS))
		return false;
	/* The log's daemon was started again. */
	reconnect(outlet);
	return send_whole(outlet, line, size);
}

bool outlet_line(struct outlet *outlet, int priority, const char *text)
{
	if (outlet->kind == OUTLET_SYSLOG)
		return send_line(outlet, priority, text);
	return write_line(outlet, text);
}
