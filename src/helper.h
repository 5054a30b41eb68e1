/* SPDX-License-Identifier: MIT */
/*
 * The command line of a mount helper, mount.latchfs, as mount(8) writes it:
 *
 *     mount.latchfs SOURCE MOUNTPOINT [-sfnv] [-o opt,...] [-t TYPE]
 *
 * There -f does not mean what it means to us.
 */
#pragma once

#include <stdbool.h>

/*
 * If argv[0] says that this is a helper, leaves in argv only what is left to be understood. Returns
 * true if nothing is to be mounted (mount -f).
 */
bool helper_arguments(int *argc, char **argv);
