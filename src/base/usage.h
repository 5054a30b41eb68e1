/* SPDX-License-Identifier: MIT */
/* What this process uses of the machine. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct usage {
	uint64_t resident, virtual; /* memory, in bytes */
	int64_t cpu;                /* processor time, in milliseconds */
	size_t files, max_files;    /* open, and how many may be */
};

void usage_read(struct usage *usage);
