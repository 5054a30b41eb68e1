/* SPDX-License-Identifier: MIT */
#include "fs/looks.h"

#include "fs/fs.h"
#include "fs/request.h"

enum { ONE_LOOK = 500 * 1000 }; /* nanoseconds */

static struct look *look_of(const struct request *request)
{
	return &request->fs->looks[(unsigned int)request->pid % LOOKS];
}

void look_note(const struct request *request, uint64_t inode, const struct stat *attr)
{
	struct look *look = look_of(request);

	*look = (struct look){.inode = inode, .thread = request->pid, .found = attr};
	if (attr)
		look->attr = *attr;
	clock_gettime(CLOCK_MONOTONIC, &look->at);
}

/* Takes the note; false if there is none of this. */
static bool take_look(const struct request *request, uint64_t inode, bool found, struct look *look)
{
	struct timespec now;

	*look = *look_of(request);
	look_of(request)->thread = 0;
	if (!look->thread || look->thread != request->pid || look->inode != inode ||
		look->found != found)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t age = (now.tv_sec - look->at.tv_sec) * 1000000000L + now.tv_nsec - look->at.tv_nsec;
	return age < ONE_LOOK;
}

bool look_missed(const struct request *request, uint64_t inode)
{
	struct look look;

	return take_look(request, inode, false, &look);
}

bool look_found(const struct request *request, uint64_t inode, struct stat *attr)
{
	struct look look;

	if (!take_look(request, inode, true, &look))
		return false;
	*attr = look.attr;
	return true;
}
