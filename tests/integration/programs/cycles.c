// SPDX-License-Identifier: MIT
/*
 * cycles DIRECTORY PROCESSES ROUNDS: that many processes take and give back locks of their own,
 * each lock in one of the ways in which programs do it, to see whether the daemon keeps anything.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static int open_lock(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CREAT | flags, 0666);

	if (fd < 0)
		fail(path);
	return fd;
}

/* A handle kept open, as a server does. */
static void kept(const char *path, int rounds)
{
	int fd = open_lock(path, 0);

	for (int i = 0; i < rounds; i++)
		if (flock(fd, LOCK_EX) < 0 || flock(fd, LOCK_UN) < 0)
			fail("flock");
	close(fd);
}

/* A handle for each round, closed without an unlock, as a script does. */
static void reopened(const char *path, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		int fd = open_lock(path, 0);

		if (flock(fd, i % 2 ? LOCK_EX : LOCK_SH) < 0)
			fail("flock");
		close(fd);
	}
}

static void posix(const char *path, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		int fd = open_lock(path, 0);

		if (lockf(fd, F_LOCK, 0) < 0)
			fail("lockf");
		close(fd);
	}
}

/* A lock file, removed by its owner. */
static void lock_file(const char *path, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		int fd = open_lock(path, O_EXCL);

		if (unlink(path) < 0)
			fail("unlink");
		close(fd);
	}
}

static void work(const char *directory, int which, int rounds)
{
	static void (*const ways[])(const char *, int) = {kept, reopened, posix, lock_file};
	char path[4096];

	snprintf(path, sizeof(path), "%s/cycle-%d", directory, which);
	ways[which % 4](path, rounds);
	_exit(0);
}

int main(int argc, char **argv)
{
	int processes, status, failed = 0;

	if (argc != 4)
		return 2;
	processes = atoi(argv[2]);
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (!pid)
			work(argv[1], i, atoi(argv[3]));
	}
	while (wait(&status) > 0)
		failed += status != 0;
	return failed != 0;
}
