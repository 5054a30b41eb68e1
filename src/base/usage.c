/* SPDX-License-Identifier: MIT */
#include "base/usage.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static void read_memory(struct usage *usage)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), total = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file)
		return;
	if (fscanf(file, "%" SCNu64 " %" SCNu64, &total, &resident) == 2) {
		usage->virtual = total * page;
		usage->resident = resident * page;
	}
	fclose(file);
}

static int64_t to_milliseconds(struct timeval time)
{
	return (int64_t)time.tv_sec * 1000 + time.tv_usec / 1000;
}

/* The directory is read, and nothing in it followed. */
static size_t count_files(void)
{
	size_t count = 0;
	DIR *directory = opendir("/proc/self/fd");

	if (!directory)
		return 0;
	for (const struct dirent *entry; (entry = readdir(directory));)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count - 1; /* but for the directory itself */
}

void usage_read(struct usage *usage)
{
	struct rusage times = {0};
	struct rlimit limit = {0};

	*usage = (struct usage){.files = count_files()};
	read_memory(usage);
	getrusage(RUSAGE_SELF, &times);
	usage->cpu = to_milliseconds(times.ru_utime) + to_milliseconds(times.ru_stime);
	getrlimit(RLIMIT_NOFILE, &limit);
	usage->max_files = (size_t)limit.rlim_cur;
}
