// SPDX-License-Identifier: MIT
/*
 * queue FILE COUNT LOG: COUNT processes wait for the lock FILE with flock.  Each, when it has the
 * lock, appends the fencing token read from its own handle to LOG, then lets go.  LOG is therefore
 * in the order of the grants.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static void note_token(int lock, int log)
{
	char record[4096], line[64], *token;
	ssize_t n = pread(lock, record, sizeof(record) - 1, 0);

	if (n < 0)
		fail("read");
	record[n] = '\0';
	token = strstr(record, "token=");
	if (!token)
		fail("no token in the record");
	n = snprintf(line, sizeof(line), "%lld\n", strtoll(token + 6, NULL, 10));
	if (write(log, line, (size_t)n) != n)
		fail("write");
}

static void contend(const char *path, int log)
{
	int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

	if (lock < 0)
		fail("open");
	if (flock(lock, LOCK_EX) < 0)
		fail("flock");
	note_token(lock, log);
	if (flock(lock, LOCK_UN) < 0)
		fail("unlock");
	_exit(0);
}

int main(int argc, char **argv)
{
	int count, log, failed = 0, status;

	if (argc != 4)
		return 2;
	count = atoi(argv[2]);
	log = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (log < 0)
		fail("open");
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (!pid)
			contend(argv[1], log);
	}
	while (wait(&status) > 0)
		failed += status != 0;
	printf("%d failed\n", failed);
	return failed != 0;
}
