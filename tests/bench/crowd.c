// SPDX-License-Identifier: MIT
/*
 * crowd DIRECTORY HELD WAITING
 *
 * One process that holds many locks through many descriptors, and as many processes as there are
 * waiters, which sit in flock: half of them wait for one lock, the others each for one of their
 * own.  It goes from step to step when it gets a line of input, and says which one it has reached
 * in a line of JSON:
 *
 *   {"step":"ready","ask":T}                nothing is held
 *   {"step":"held","seconds":S}             everything is held
 *   {"step":"waiting","seconds":S}          the waiters have begun to wait
 *   {"step":"asked","ask":T}                T: to look up a name that nobody has, see load.h
 *   {"step":"done","seconds":S}             all is given back; all waiters have had their lock
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 64, ASKS = 1000 };

/* Shared by all processes. */
struct counts {
	atomic_int next, held, waiting;
};

static const char *directory;
static int held, waiting;
static struct counts *counts;

static int open_lock(int number)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/lock-%d", directory, number);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(path);
	return fd;
}

static void *hold_some(void *unused)
{
	int number;

	while ((number = counts->next++) < held) {
		if (flock(open_lock(number), LOCK_EX) < 0)
			fail("flock");
		counts->held++;
	}
	return NULL;
}

/* In a process of its own: the descriptors are not for the waiters.  Ends when the gate closes. */
static void hold(int gate)
{
	pthread_t threads[THREADS];
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, hold_some, NULL))
			fail("pthread_create");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	if (read(gate, &c, 1) < 0)
		fail("gate");
	_exit(0);
}

static void wait_for_lock(int number)
{
	int fd = open_lock(number < waiting / 2 ? 0 : number % held);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	counts->waiting++;
	if (flock(fd, LOCK_EX) < 0)
		fail("flock");
	_exit(0);
}

/* Looks up names that nobody has; another one each time, lest an answer be remembered. */
static void ask(void)
{
	uint64_t times[ASKS], start;
	char path[4096];
	struct stat ignored;

	for (int i = 0; i < ASKS; i++) {
		snprintf(path, sizeof(path), "%s/nobody-%d", directory, i);
		start = now_ns();
		if (!stat(path, &ignored) || errno != ENOENT)
			fail(path);
		times[i] = now_ns() - start;
		sleep_s(0.001);
	}
	printf(",\"ask\":");
	print_times(times, ASKS);
}

/* Says that a step is reached and waits for a line. */
static void reached(const char *step, uint64_t since, bool with_ask)
{
	printf("{\"step\":\"%s\",\"seconds\":%.3f", step, (double)(now_ns() - since) / 1e9);
	if (with_ask)
		ask();
	printf("}\n");
	fflush(stdout);
	while (getchar() != '\n')
		if (feof(stdin))
			exit(1);
}

/* Waits until a count is complete; no child may end before. */
static void await(atomic_int *count, int complete)
{
	int status;

	while (*count < complete) {
		if (waitpid(-1, &status, WNOHANG) > 0)
			exit(1);
		sleep_s(0.002);
	}
}

static void start_holder(int *gate)
{
	pid_t pid;

	if (pipe2(gate, O_CLOEXEC) < 0)
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		close(gate[1]);
		hold(gate[0]);
	}
	await(&counts->held, held);
}

static void start_waiters(int gate)
{
	for (int i = 0; i < waiting; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid)
			continue;
		close(gate);
		wait_for_lock(i);
	}
	await(&counts->waiting, waiting);
}

static void raise_limits(void)
{
	struct rlimit files = {(rlim_t)held + 1000, (rlim_t)held + 1000};
	struct rlimit processes = {RLIM_INFINITY, RLIM_INFINITY};

	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		perror("RLIMIT_NOFILE");
	if (setrlimit(RLIMIT_NPROC, &processes) < 0)
		perror("RLIMIT_NPROC");
}

int main(int argc, char **argv)
{
	int gate[2], status, failed = 0;
	uint64_t start = now_ns();

	if (argc != 4) {
		fprintf(stderr, "usage: crowd DIRECTORY HELD WAITING\n");
		return 2;
	}
	directory = argv[1];
	held = atoi(argv[2]);
	waiting = atoi(argv[3]);
	counts = mmap(
		NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		fail("mmap");
	raise_limits();
	reached("ready", start, true);
	start = now_ns();
	start_holder(gate);
	reached("held", start, false);
	start = now_ns();
	start_waiters(gate[1]);
	reached("waiting", start, false);
	reached("asked", start, true);
	start = now_ns();
	close(gate[1]);
	while (wait(&status) > 0)
		failed |= status;
	reached("done", start, false);
	return failed != 0;
}
