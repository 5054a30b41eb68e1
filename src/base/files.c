/* SPDX-License-Identifier: MIT */
#include "base/files.h"

#include <limits.h>
#include <sys/resource.h>

unsigned long files_raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return ULONG_MAX;
	rlim_t soft = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? soft : limit.rlim_cur;
}

bool files_is_spared(int fd, unsigned int spared)
{
	struct rlimit limit;

	/* A new descriptor gets the lowest free number, so that tells how many there are. */
	return spared && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
	       (rlim_t)fd + spared >= limit.rlim_cur;
}
