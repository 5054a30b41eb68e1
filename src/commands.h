/* SPDX-License-Identifier: MIT */
/* What latchfs does besides mounting, for people at a terminal: status, top, selftest. */
#pragma once

#include <stdbool.h>

/* If the command line is that of a command, carries it out: true, with the status to exit with. */
bool command_run(int argc, char **argv, int *status);
