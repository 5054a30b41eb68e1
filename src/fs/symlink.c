/* SPDX-License-Identifier: MIT */
/*
 * Symbolic links as locks: symlink(2) takes the lock of a free name, and the text, which is in the
 * holder's record, says who has it.  Nothing is open then, so only the policies that need nothing
 * open allow it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/steps.h"
#include "lock/lockspace.h"

/* --- symlink --- */

/* The lock is kept as the directory says, without the handle with which it was taken. */
static void linked(struct request *request)
{
	struct node *node = request->node;
	struct handle *handle = take(request->handle);
	const struct hold *hold = hold_of_handle(handle);
	struct stat attr;

	node_lock_attr(node, lockspace_record(hold->holding), lockspace_token(hold->holding), false,
		&attr);
	stakes_close_handle(handle);
	handle_free(handle);
	reply_entry(request, node, &attr);
}

/* Some programs try for ever. */
static void refuse(struct request *request)
{
	struct proc_identity who;

	proc_identify(request->pid, &who);
	if (fs_is_new_program(request->fs, who.command))
		log_info("lock %s: %s can't make it a symbolic link: that needs hold=name, or "
			 "hold=process if the program that makes it goes on to run",
			request->path, who.command);
	reply_error(request, -EPERM);
}

static void make(struct request *request)
{
	struct node *parent = request->node;
	struct store_policy policy = node_policy(parent);

	if (policy.names == STORE_NAMES_ALWAYS) {
		reply_error(request, -EEXIST);
		return;
	}
	if (policy.hold == STORE_HOLD_CLOSE) {
		refuse(request);
		return;
	}
	request->node = node_get(request->fs, parent, request->path, NODE_SYMLINK);
	request->handle = handle_new(request, request->node, O_RDWR);
	lock_to_create(request, linked);
}

void fs_symlink(struct request *request, struct node *parent, const char *name, const char *text)
{
	request->node = parent;
	request->data = xstrdup(text);
	int error = set_child(request, name);
	if (!error && strlen(text) > RECORD_MAX_SYMLINK)
		error = -ENAMETOOLONG;
	if (error)
		reply_error(request, error);
	else
		step_permitted(request, W_OK | X_OK, make);
}

/* --- readlink --- */

static void on_looked_up(void *user, int result, struct store_view *view)
{
	struct request *request = user;

	if (result)
		reply_error(request, result);
	else if (view->kind != STORE_KIND_LOCK || !view->record.symlink)
		reply_error(request, -ENOENT);
	else
		reply_symlink(request, view->record.symlink);
}

void fs_readlink(struct request *request, struct node *node)
{
	struct store *store = request->fs->store;
	struct holding *holding = lockspace_find(request->fs->space, node->path);

	request->node = node;
	if (!node->is_symlink)
		reply_error(request, -EINVAL);
	else if (holding && lockspace_is_held(holding) && lockspace_record(holding)->symlink)
		reply_symlink(request, lockspace_record(holding)->symlink);
	else
		store->ops->lookup(store, node->path, on_looked_up, request);
}
