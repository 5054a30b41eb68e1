/* SPDX-License-Identifier: MIT */
#include "fs/reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
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

enum word { ARM, FORGET_NAMES, UNMOUNT, DISMISS, BOUND, KEEP };

/* So long it may not notice that a suspended machine runs again, in milliseconds. */
enum { GLANCE = 250 };

/* Without a gap, whose bytes nobody would have set. */
struct message {
	uint64_t what;
	dev_t device;     /* of ARM */
	int64_t deadline; /* of BOUND */
};

/* Tells all who use it, and have it open, that it has ended, whoever else has /dev/fuse open. */
static void end_connection(dev_t device)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", minor(device));
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)!write(fd, "1", 1);
	close(fd);
}

static void unmount(const char *mount_point, dev_t device)
{
	end_connection(device);
	if (umount2(mount_point, MNT_DETACH | MNT_FORCE | UMOUNT_NOFOLLOW) == 0 ||
		umount2(mount_point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
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

	if (!deadline)
		return true;
	for (int64_t rest = deadline - loop_clock(); rest > 0; rest = deadline - loop_clock()) {
		if (poll(&word, 1, rest < GLANCE ? (int)rest : GLANCE) > 0)
			return true;
	}
	return false;
}

struct reaper {
	int fd;
	const char *mount_point;
	dev_t device;     /* 0 until it is mounted */
	int64_t deadline; /* 0: there is none */
};

static void obey(struct reaper *reaper, const struct message *message)
{
	bool is_there = reaper->device && is_mounted(reaper->mount_point, reaper->device);

	switch ((enum word)message->what) {
	case ARM:
		reaper->device = message->device;
		break;
	case FORGET_NAMES:
		if (is_there)
			forget_names(reaper->mount_point);
		break;
	case BOUND:
		reaper->deadline = message->deadline;
		break;
	case KEEP:
		reaper->deadline = 0;
		(void)send(reaper->fd, &is_there, sizeof(is_there), MSG_NOSIGNAL);
		break;
	case UNMOUNT:
	case DISMISS:
		break;
	}
}

static void reap(int fd, const char *mount_point)
{
	struct reaper reaper = {.fd = fd, .mount_point = mount_point};
	struct message message = {0};

	while (message.what != UNMOUNT && wait_for_word(fd, reaper.deadline) &&
		recv(fd, &message, sizeof(message), 0) == (ssize_t)sizeof(message)) {
		if (message.what == DISMISS)
			return;
		obey(&reaper, &message);
	}
	if (reaper.device && is_mounted(mount_point, reaper.device))
		unmount(mount_point, reaper.device);
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
	/* Also of a helper that unmounts in our place the end is to be heard. */
	fcntl(fd, F_SETFD, 0);
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
	struct message message = {.what = BOUND, .deadline = deadline > 0 ? deadline : 1};

	(void)send(fd, &message, sizeof(message), MSG_NOSIGNAL);
}

bool reaper_keep(int fd)
{
	enum { PATIENCE = 5000 }; /* milliseconds */
	struct message message = {.what = KEEP};
	struct pollfd answer = {.fd = fd, .events = POLLIN};
	bool yes;

	/* What nobody has waited for any longer. */
	while (recv(fd, &yes, sizeof(yes), MSG_DONTWAIT) > 0)
		continue;
	return send(fd, &message, sizeof(message), MSG_NOSIGNAL) > 0 &&
	       poll(&answer, 1, PATIENCE) > 0 &&
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
