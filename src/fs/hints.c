/* SPDX-License-Identifier: MIT */
#include "fs/hints.h"

#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/stake.h"

enum { AT_ONCE_MS = 1000 };

static uint64_t add_to_hash(uint64_t hash, const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
	return hash;
}

bool hint_is_due(struct fs *fs, const char *command, const char *path)
{
	const char *slash = strrchr(path, '/');
	struct hints *hints = &fs->hints;
	/* With the command's NUL, which is what separates the two. */
	uint64_t hash = add_to_hash(0xcbf29ce484222325u, command, strlen(command) + 1);

	hash = add_to_hash(hash, path, slash ? (size_t)(slash - path) : 0);
	for (unsigned int i = 0; i < hints->count; i++) {
		if (hints->given[i] == hash)
			return false;
	}
	if (hints->count == HINTS_MAX)
		return false;
	hints->given[hints->count++] = hash;
	return true;
}

/* A program that takes a lock file like this believes that it holds it. */
static void hint_at_policy(struct fs *fs, const struct handle *handle)
{
	const char *command = handle->opener.command, *path = handle->node->path;

	if (loop_clock() - handle->opened_at >= AT_ONCE_MS || !hint_is_due(fs, command, path))
		return;
	log_warning("lock %s: %s took it with O_EXCL and gave it back by closing it at once; if it "
		    "means to hold it until it removes the file, the directory needs hold=process "
		    "or hold=name",
		path, command);
}

void hint_at_close(const struct handle *handle, const struct hold *hold)
{
	struct fs *fs = handle->node->fs;

	if (handle->has_locked)
		return;
	if (hold && hold_has_stake(hold, STAKE_CREATE)) {
		hint_at_policy(fs, handle);
		return;
	}
	if (!handle->has_made_name || handle->policy.names != STORE_NAMES_HELD)
		return;
	struct hint_left *left = &fs->hints.left[fs->hints.left_next++ % HINTS_LEFT];
	left->inode = handle->node->inode;
	copy_string(left->command, sizeof(left->command), handle->opener.command);
}

void hint_at_missing(const struct request *request)
{
	struct fs *fs = request->fs;
	uint64_t inode = node_inode(request->path, NODE_FILE);

	for (size_t i = 0; i < HINTS_LEFT; i++) {
		struct hint_left *left = &fs->hints.left[i];
		if (left->inode != inode)
			continue;
		left->inode = 0;
		if (hint_is_due(fs, left->command, request->path))
			log_info("lock %s: %s made this file without O_EXCL, locked nothing and "
				 "closed it, and now it is looked for: a name is there only while "
				 "its lock is held or waited for, see DIFFERENCES in latchfs(8)",
				request->path, left->command);
	}
}
