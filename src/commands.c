/* SPDX-License-Identifier: MIT */
#include "commands.h"

#include <string.h>

#include "base/util.h"
#include "commands/selftest.h"
#include "commands/status.h"
#include "commands/top.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv); /* gives the status to exit with */
} commands[] = {
	{"selftest", selftest_command},
	{"status", status_command},
	{"top", top_command},
};

bool command_run(int argc, char **argv, int *status)
{
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[1], commands[i].name) == 0) {
			*status = commands[i].run(argc - 1, argv + 1);
			return true;
		}
	}
	return false;
}
