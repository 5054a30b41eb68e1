/* SPDX-License-Identifier: MIT */
#include "fs/looks.h"

#include "fs/fs.h"
#include "fs/node.h"
#include "fs/request.h"

enum { SAME_CALL_NS = 500 * 1000 };

static struct look *look_of(const struct request *request)
{
	return &request->fs->looks[(unsigned int)request->pid % LOOKS];
}

void look_note(const struct request *request, uint64_t inode, const struct stat *attr)
{
	struct look *look = look_of(request);

	*look = (struct look){.inode = inode, .thread = request->pid, .attr = *attr};
	clock_gettime(CLOCK_MONOTONIC, &look->at);
}

bool look_found(const struct request *request, struct stat *attr)
{
	struct look *look = look_of(request);
	struct timespec now;

	if (!look->thread || look->thread != request->pid)
		return false;
	look->thread = 0;
	if (look->inode != request->node->inode || request->node->handles)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &now);
	*attr = look->attr;
	return (now.tv_sec - look->at.tv_sec) * 1000000000L + now.tv_nsec - look->at.tv_nsec <
	       SAME_CALL_NS;
}
