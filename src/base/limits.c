/* SPDX-License-Identifier: MIT */
#include "base/limits.h"

#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>

#include "base/util.h"

void limits_init(void)
{
	static const int raised[] = {
		RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_CPU, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK};
	struct rlimit limit;

	for (size_t i = 0; i < ARRAY_SIZE(raised); i++) {
		if (getrlimit(raised[i], &limit) < 0)
			continue;
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(raised[i], &limit);
	}
	/* A memfd counts as a file: its growth would kill the process, and each that follows. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGXCPU, SIG_IGN);
}

unsigned long limits_open_files(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? ULONG_MAX : limit.rlim_cur;
}

bool limits_is_spared(int fd, unsigned int spared)
{
	struct rlimit limit;

	/* A new descriptor gets the lowest free number, so that tells how many there are. */
	return spared && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
	       (rlim_t)fd + spared >= limit.rlim_cur;
}
