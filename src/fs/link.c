/* SPDX-License-Identifier: MIT */
/*
 * link(2), as the programs use it that make a lock file in two steps: a file of some other name,
 * and then a link of it to the lock's, which only one can make.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/revive.h"
#include "fs/steps.h"
#include "lock/lockspace.h"

/* The new lock is kept as the directory says, without the handle with which it was taken. */
static void linked(struct request *request)
{
	struct node *node = request->node;
	struct handle *handle = take(request->handle);
	struct hold *hold = hold_of_handle(handle);
	struct hold *source = keep_hold_of(request->source, request->uid);
	struct stat attr;

	if (!source) {
		/* What was linked has gone meanwhile. */
		keep_release(hold, 0, NULL, NULL);
		handle_free(handle);
		node_unref(node, 1);
		reply_error(request, -ENOENT);
		return;
	}
	node_link(request->source, node);
	hold_enter(source);
	hold_enter(hold);
	node_lock_attr(node, lockspace_record(hold->holding), lockspace_token(hold->holding), false,
		&attr);
	stakes_close_handle(handle);
	handle_free(handle);
	reply_entry(request, node, &attr);
}

/* Why the source can't get another name, or NULL. */
static const char *refusal(const struct request *request)
{
	const struct node *source = request->source;
	bool is_held = false;
	const struct hold *hold;

	if (node_policy(request->node).hold == STORE_HOLD_CLOSE)
		return "that needs hold=process or hold=name";
	if (source->is_symlink)
		return "that is a symbolic link";
	DL_FOREACH(source->holds, hold) {
		if (!hold->lost && keep_of(hold))
			return keep_hold_of(source, request->uid) ? NULL : "that is another user's";
		is_held = is_held || !hold->lost;
	}
	return is_held ? "that was not taken with O_EXCL" : "that is not held on this machine";
}

static void link_name(struct request *request)
{
	struct node *parent = request->node, *source = request->source;
	const char *reason = refusal(request);

	if (reason) {
		if (log_admits("links that were refused", request->uid, loop_clock()))
			log_info("lock %s can't be made a link of %s: %s", request->path,
				source->path, reason);
		reply_error(request, -EPERM);
		return;
	}
	bool is_done =
		request->again && source->twin && strcmp(source->twin->path, request->path) == 0;
	if (source->twin && !is_done) {
		reply_error(request, -EMLINK);
		return;
	}
	request->node = node_get(request->fs, parent, request->path, NODE_FILE);
	request->handle = handle_new(request, request->node, O_RDWR);
	lock_to_create(request, linked);
}

void fs_link(struct request *request, struct node *source, struct node *parent, const char *name)
{
	request->node = parent;
	request->source = source;
	int error = set_child(request, name);
	if (error)
		reply_error(request, error);
	else
		step_permitted(request, W_OK | X_OK, link_name);
}
