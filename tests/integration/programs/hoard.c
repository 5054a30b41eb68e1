// SPDX-License-Identifier: MIT
/*
 * hoard DIRECTORY COUNT SIZE: one process takes that many locks, hoard-0, hoard-1, ..., each
 * through a descriptor of its own, and writes SIZE bytes into each lock file.  Says "held", and
 * lets go, by ending, when its input ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

enum { THREADS = 64 };

static const char *directory;
static int first, count;
static size_t size;
static char *content;
static atomic_int next;

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static void take(int number)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/hoard-%d", directory, number);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(path);
	if (flock(fd, LOCK_EX) < 0)
		fail("flock");
	if (size && write(fd, content, size) != (ssize_t)size)
		fail("write");
}

static void *take_some(void *unused)
{
	int number;

	while ((number = next++) < count)
		take(first + number);
	return NULL;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	pthread_t threads[THREADS];
	char byte;

	if (argc != 5)
		return 2;
	directory = argv[1];
	first = atoi(argv[2]);
	count = atoi(argv[3]);
	size = (size_t)atol(argv[4]);
	content = malloc(size + 1);
	if (!content)
		fail("malloc");
	memset(content, 'x', size);
	files = (struct rlimit){(rlim_t)count + 100, (rlim_t)count + 100};
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("RLIMIT_NOFILE");
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, take_some, NULL))
			fail("pthread_create");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	puts("held");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
