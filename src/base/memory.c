/* SPDX-License-Identifier: MIT */
#include "base/memory.h"

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"

#ifdef __SANITIZE_ADDRESS__

void memory_init(void)
{
}

void memory_tidy(void)
{
}

#else

enum {
	/* A fixed bound: else a large answer, once freed, would make it grow, and the heap keep
	 * more. */
	LARGE = 256 * 1024,
	WORTH_IT = 1024 * 1024,
};

/*
 * Whether there is no limit to what may be locked: with one, what is allocated later would fail.
 * For root that depends on a capability, which does not count in a user namespace, so it is tried:
 * without it, nothing can be locked within a limit of nothing.
 */
static bool is_unlimited(void)
{
	struct rlimit limit, none;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return true;
	none = (struct rlimit){.rlim_max = limit.rlim_max};
	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0)
		return false;
	bool can = mlock(&limit, sizeof(limit)) == 0;
	if (can)
		munlock(&limit, sizeof(limit));
	setrlimit(RLIMIT_MEMLOCK, &limit);
	return can;
}

/* A renewal must not wait for a page to come back from swap. */
static int lock_pages(void)
{
	if (geteuid() != 0)
		return 0;
	if (is_unlimited())
		return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	errno = EPERM;
	return -1;
}

#ifdef __GLIBC__

static void set_up_heap(void)
{
	mallopt(M_MMAP_THRESHOLD, LARGE);
	/* libcurl resolves names in threads, each of which would have a heap of its own. */
	mallopt(M_ARENA_MAX, 1);
}

void memory_tidy(void)
{
	struct mallinfo2 info = mallinfo2();

	if (info.fordblks < WORTH_IT || info.fordblks < info.uordblks / 2)
		return;
	/* The kernel does not take back pages in the midst of the heap that are locked. */
	munlockall();
	malloc_trim(0);
	(void)lock_pages();
}

#else

/* Other C libraries see to that themselves, or can't be told. */
static void set_up_heap(void)
{
}

void memory_tidy(void)
{
}

#endif

void memory_init(void)
{
	set_up_heap();
	if (lock_pages() < 0)
		log_info("memory is not locked, and may be swapped out: %s (ulimit -l, "
			 "LimitMEMLOCK)",
			strerror(errno));
}

#endif
