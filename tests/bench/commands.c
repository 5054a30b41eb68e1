// SPDX-License-Identifier: MIT
/*
 * commands RUNS -- COMMAND... -- COMMAND...
 *
 * Runs each command so often, one after the other in turns, and prints how long each took from
 * its start to its end: one line of JSON, {"pair":T}, for each command, see load.h.
 */
#include "load.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMMANDS = 16 };

static uint64_t run(char **command)
{
	uint64_t start = now_ns();
	int status;
	pid_t pid;

	errno = posix_spawnp(&pid, command[0], NULL, NULL, command, environ);
	if (errno)
		fail(command[0]);
	if (waitpid(pid, &status, 0) < 0)
		fail("waitpid");
	if (status) {
		fprintf(stderr, "%s failed: %d\n", command[0], status);
		_exit(1);
	}
	return now_ns() - start;
}

/* Splits the arguments at each "--"; returns how many commands there are. */
static size_t split(int argc, char **argv, char ***commands)
{
	size_t n = 0;

	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		argv[i] = NULL;
		if (n < COMMANDS && i + 1 < argc)
			commands[n++] = argv + i + 1;
	}
	return n;
}

int main(int argc, char **argv)
{
	size_t runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	char **commands[COMMANDS];
	uint64_t *times[COMMANDS];
	size_t n = split(argc, argv, commands);

	if (!runs || !n) {
		fprintf(stderr, "usage: commands RUNS -- COMMAND... -- COMMAND...\n");
		return 2;
	}
	for (size_t i = 0; i < n; i++) {
		times[i] = zeroed(runs, sizeof(**times));
		run(commands[i]); /* once, to have it in memory */
	}
	for (size_t r = 0; r < runs; r++)
		for (size_t i = 0; i < n; i++)
			times[i][r] = run(commands[i]);
	for (size_t i = 0; i < n; i++) {
		printf("{\"pair\":");
		print_times(times[i], runs);
		printf("}\n");
		free(times[i]);
	}
	return 0;
}
