/* SPDX-License-Identifier: MIT */
/* latchfs top [-d SECONDS] MOUNTPOINT: the hottest locks and the longest waits, live. */
#pragma once

/* argv begins with the command's name.  Gives the status to exit with. */
int top_command(int argc, char **argv);
