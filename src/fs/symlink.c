/* SPDX-License-Identifier: MIT */
/*
 * Symbolic links as locks: symlink(2) takes the lock of a free name, and the text, which is in the
 * holder's record, says who has it.  Nothing is open then, so only the policies that need nothing
 * open allow it.  Nobody is led anywhere by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
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
	if (request->fs->has_symlinks && hint_is_due(request->fs, who.command, request->path))
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
	if (policy.hold == STORE_HOLD_CLOSE || !request->fs->has_symlinks) {
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

/*
 * The text is for those who ask for it, and for no walk along the link: whoever makes a link would
 * choose, for a program that opens the name as a lock, another file of the machine.  The kernel
 * sees to that by the mount's flag, but those who mount it elsewhere, as container engines do, may
 * leave that out.
 */
static void refuse_walk(struct request *request, enum proc_call call)
{
	struct proc_identity who;

	proc_identify(request->pid, &who);
	if (call == PROC_CALL_HIDDEN && hint_is_due(request->fs, who.command, request->path))
		log_info("lock %s: its symbolic link is not shown to %s, of which it can't be seen "
			 "whether it would follow it",
			request->path, *who.command ? who.command : "a hidden process");
	reply_error(request, -ELOOP);
}

/* True if it was answered. */
static bool show(struct request *request)
{
	enum proc_call call = proc_call(request->pid);

	if (call == PROC_CALL_NONE_YET)
		return false;
	if (call == PROC_CALL_READLINK)
		reply_symlink(request, request->data);
	else
		refuse_walk(request, call);
	return true;
}

static void show_soon(struct fs *fs)
{
	loop_timer_arm(fs->loop, &fs->readlink_timer, loop_clock() + 1);
}

static void on_readlink_timer(struct loop_timer *timer)
{
	struct fs *fs = container_of(timer, struct fs, readlink_timer);
	struct request *request, *next;

	DL_FOREACH_SAFE2(fs->readlinks, request, next, pending_next)
	{
		DL_DELETE2(fs->readlinks, request, pending_prev, pending_next);
		if (!show(request))
			DL_PREPEND2(fs->readlinks, request, pending_prev, pending_next);
	}
	if (fs->readlinks)
		show_soon(fs);
}

/* A thread that has just asked may not wait yet, above all where processors are few. */
static void show_text(struct request *request, const char *text)
{
	struct fs *fs = request->fs;

	request->data = xstrdup(text);
	if (show(request))
		return;
	DL_APPEND2(fs->readlinks, request, pending_prev, pending_next);
	fs->readlink_timer.fn = on_readlink_timer;
	show_soon(fs);
}

void fs_readlinks_fini(struct fs *fs)
{
	loop_timer_disarm(&fs->readlink_timer);
}

static void on_looked_up(void *user, int result, struct store_view *view)
{
	struct request *request = user;

	if (result)
		reply_error(request, result);
	else if (view->kind != STORE_KIND_LOCK || !view->record.symlink)
		reply_error(request, -ENOENT);
	else
		show_text(request, view->record.symlink);
}

void fs_readlink(struct request *request, struct node *node)
{
	struct store *store = request->fs->store;
	struct holding *holding = lockspace_find(request->fs->space, node->path);

	request->node = node;
	request->path = xstrdup(node->path);
	if (!node->is_symlink)
		reply_error(request, -EINVAL);
	else if (!request->fs->has_symlinks)
		reply_error(request, -ELOOP);
	else if (holding && lockspace_is_held(holding) && lockspace_record(holding)->symlink)
		show_text(request, lockspace_record(holding)->symlink);
	else
		store->ops->lookup(store, node->path, on_looked_up, request);
}
