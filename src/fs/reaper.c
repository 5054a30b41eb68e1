/* SPDX-License-Identifier: MIT */
#include "fs/reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/proc.h"
#include "event/loop.h"

#ifndef __GLIBC__
/* Other C libraries have no functions for these calls yet. */
#include <linux/mount.h>
#include <sys/syscall.h>

static int fspick(int directory, const char *path, unsigned int flags)
{
	return (int)syscall(SYS_fspick, directory, path, flags);
}

static int fsconfig(int fd, unsigned int command, const char *key, const void *value, int aux)
{
	return (int)syscall(SYS_fsconfig, fd, command, key, value, aux);
}

static int close_range(unsigned int first, unsigned int last, int flags)
{
	return (int)syscall(SYS_close_range, first, last, flags);
}
#endif

enum { ARM, FORGET_NAMES, UNMOUNT, DISMISS, BOUND, KEEP };

/* So long it may not notice that a suspended machine runs again, in milliseconds. */
enum { GLANCE = 250 };

/* Without a gap, whose bytes nobody would have set. */
struct message {
	uint64_t what;
	dev_t device;     /* of ARM */
	int64_t deadline; /* of BOUND */
};

/* With MNT_FORCE the kernel tells all who use it that it has ended, whoever has /dev/fuse open. */
static void unmount(const char *mount_point, int flags)
{
	if (umount2(mount_point, flags) == 0)
		return;
	/* Who is not root needs FUSE's helper. */
	execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", mount_point, (char *)NULL);
}

static bool is_mounted(const char *mount_point, dev_t device)
{
	dev_t now;

	return proc_mount_device(mount_point, &now) && now == device;
}

/* To change no option of it, but the kernel drops what it remembers before it looks at that. */
static void forget_names(const char *mount_point)
{
	int fd = fspick(AT_FDCWD, mount_point, FSPICK_CLOEXEC | FSPICK_NO_AUTOMOUNT);

	if (fd < 0)
		return;
	fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0);
	close(fd);
}

/* False if the deadline, if there is one, has passed before anything came. */
static bool wait_for_word(int fd, int64_t deadline)
{
	struct pollfd word = {.fd = fd, .events = POLLIN};

	while (deadline) {
		if (poll(&word, 1, GLANCE) > 0)
			return true;
		if (loop_clock() >= deadline)
			return false;
	}
	return true;
}

static void answer(int fd, bool yes)
{
	(void)send(fd, &yes, sizeof(yes), MSG_NOSIGNAL);
}

static void reap(int fd, const char *mount_point)
{
	struct message message;
	dev_t device = 0;
	int64_t deadline = 0;
	bool in_time;

	while ((in_time = wait_for_word(fd, deadline)) &&
		recv(fd, &message, sizeof(message), 0) == (ssize_t)sizeof(message)) {
		bool mounted = is_mounted(mount_point, device);
		if (message.what == DISMISS)
			return;
		if (message.what == UNMOUNT)
			break;
		deadline = message.what == BOUND  ? message.deadline
			   : message.what == KEEP ? 0
						  : deadline;
		if (message.what == ARM)
			device = message.device;
		else if (message.what == KEEP)
			answer(fd, device && mounted);
		else if (message.what == FORGET_NAMES && mounted)
			forget_names(mount_point);
	}
	if (device && is_mounted(mount_point, device))
		unmount(mount_point, in_time ? MNT_DETACH : MNT_DETACH | MNT_FORCE);
}

/* Nothing of the daemon's may stay open here, least of all /dev/fuse: its end must be seen. */
static void close_others(int fd)
{
	if (fd > 0)
		close_range(0, (unsigned int)fd - 1, 0);
	close_range((unsigned int)fd + 1, ~0U, 0);
}

static void run(int fd, const char *mount_point)
{
	/* Whoever ends the daemon's process group does not mean the one that cleans up. */
	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	prctl(PR_SET_NAME, "latchfs-reaper");
	close_others(fd);
	reap(fd, mount_point);
	_exit(0);
}

int reaper_start(const char *mount_point)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	/* Forked twice, so that nobody has to wait for it. */
	pid_t pid = fork();
	if (pid < 0) {
		int error = -errno;
		close(fds[0]);
		close(fds[1]);
		return error;
	}
	if (pid == 0) {
		if (fork() == 0)
			run(fds[1], mount_point);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	close(fds[1]);
	return fds[0];
}

void reaper_arm(int fd, dev_t device)
{
	struct message message = {.what = ARM, .device = device};

	if (fd >= 0 && send(fd, &message, sizeof(message), MSG_NOSIGNAL) < 0)
		log_warning("nobody will unmount if this process is killed");
}

void reaper_forget_names(int fd)
{
	struct message message = {.what = FORGET_NAMES};

	/* If it has not done the last one yet, this is not needed. */
	if (fd >= 0)
		(void)send(fd, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void reaper_bound(int fd, int64_t deadline)
{
	struct message message = {.what = BOUND, .deadline = deadline};

	(void)send(fd, &message, sizeof(message), MSG_NOSIGNAL);
}

bool reaper_keep(int fd)
{
	struct message message = {.what = KEEP};
	bool yes = false;

	return send(fd, &message, sizeof(message), MSG_NOSIGNAL) > 0 &&
	       recv(fd, &yes, sizeof(yes), 0) == (ssize_t)sizeof(yes) && yes;
}

void reaper_unmount(int fd)
{
	struct message message = {.what = UNMOUNT};

	if (fd < 0)
		return;
	/* It says nothing, but its end can be heard. */
	if (send(fd, &message, sizeof(message), MSG_NOSIGNAL) > 0)
		(void)recv(fd, &message, sizeof(message), 0);
	close(fd);
}

void reaper_dismiss(int fd)
{
	struct message message = {.what = DISMISS};

	if (fd < 0)
		return;
	(void)send(fd, &message, sizeof(message), MSG_NOSIGNAL);
	close(fd);
}
