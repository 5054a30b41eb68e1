/* SPDX-License-Identifier: MIT */
/* The resource limits that the process was started with, see setrlimit(2). */
#pragma once

#include <stdbool.h>

/*
 * Raises soft limits as far as the hard ones allow, and ignores the signals that tell of one that
 * is reached: a file that may not grow is an error of the call that grows it.  Once, in the first
 * process: its children inherit both.
 */
void limits_init(void);

/* How many files the process may have open. */
unsigned long limits_open_files(void);

/*
 * True for a new descriptor that is one of the last `spared` ones within the limit: its owner is to
 * close it and do without, because there is something that needs it more.
 */
bool limits_is_spared(int fd, unsigned int spared);
