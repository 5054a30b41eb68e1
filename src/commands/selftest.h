/* SPDX-License-Identifier: MIT */
/* latchfs selftest DIR [DIR2]: whether locks there exclude each other. */
#pragma once

/* argv begins with the command's name.  Gives the status to exit with. */
int selftest_command(int argc, char **argv);
