/* SPDX-License-Identifier: MIT */
/* latchfs status [--json] MOUNTPOINT: how a mount is, on one page. */
#pragma once

/* argv begins with the command's name.  Gives the status to exit with. */
int status_command(int argc, char **argv);
