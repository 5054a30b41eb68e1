/* SPDX-License-Identifier: MIT */
/* How many files the process may have open, and who may use the last of them. */
#pragma once

#include <stdbool.h>

/* Raises the soft limit as far as the hard one allows.  Returns what it is then. */
unsigned long files_raise_limit(void);

/*
 * True for a new descriptor that is one of the last `spared` ones within the limit: its owner is to
 * close it and do without, because there is something that needs it more.
 */
bool files_is_spared(int fd, unsigned int spared);
