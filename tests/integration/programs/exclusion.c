// SPDX-License-Identifier: MIT
/*
 * exclusion PROCESSES ROUNDS LOCKS DIRECTORY...: that many processes, spread over the directories
 * (mounts of one prefix), take locks picked at random, exclusive or shared, waiting or not, and
 * count in shared memory who is in.  Fails if ever two are in that exclude each other.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct inside {
	int readers, writers;
};

static struct inside *locks;
static int rounds, lock_count;

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

/* Holds the lock for a moment and looks who else does. */
static void hold(struct inside *in, int shared)
{
	int *mine = shared ? &in->readers : &in->writers;
	int before = __sync_fetch_and_add(mine, 1);

	if (in->writers > (shared ? 0 : 1) || (!shared && (before || in->readers))) {
		fprintf(stderr, "%d readers and %d writers\n", in->readers, in->writers);
		_exit(3);
	}
	sched_yield();
	__sync_fetch_and_sub(mine, 1);
}

static int open_lock(const char *directory, int n)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%d", directory, n);
	int fd = open(path, O_RDWR | O_CREAT, 0666);
	if (fd < 0)
		fail(path);
	return fd;
}

/* Gives back by closing sometimes; mostly not, as opening takes turns within a directory. */
static void give_back(int *fd, const char *directory, int n, int by_closing)
{
	if (!by_closing && flock(*fd, LOCK_UN) < 0)
		fail("unlock");
	if (!by_closing)
		return;
	close(*fd);
	*fd = open_lock(directory, n);
}

static void contend(const char *directory, unsigned int seed)
{
	int *fds = calloc((size_t)lock_count, sizeof(*fds));

	if (!fds)
		fail("calloc");
	for (int n = 0; n < lock_count; n++)
		fds[n] = open_lock(directory, n);
	for (int i = 0; i < rounds; i++) {
		int n = rand_r(&seed) % lock_count;
		int shared = rand_r(&seed) % 4 == 0, try = rand_r(&seed) % 4 == 0;
		if (flock(fds[n], (shared ? LOCK_SH : LOCK_EX) | (try ? LOCK_NB : 0)) == 0) {
			hold(&locks[n], shared);
			give_back(&fds[n], directory, n, rand_r(&seed) % 16 == 0);
		} else if (!try || errno != EWOULDBLOCK) {
			fail("flock");
		}
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	int status, worst = 0, directories = argc - 4;

	if (directories < 1)
		return 2;
	rounds = atoi(argv[2]);
	lock_count = atoi(argv[3]);
	locks = mmap(NULL, (size_t)lock_count * sizeof(*locks), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (locks == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < atoi(argv[1]); i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (!pid)
			contend(argv[4 + i % directories], (unsigned int)i);
	}
	while (wait(&status) > 0)
		worst |= WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	return worst;
}
