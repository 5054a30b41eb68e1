/* SPDX-License-Identifier: MIT */
/* Attributes of locks and directories. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "fs/content.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/node.h"
#include "fs/stake.h"
#include "fs/status.h"
#include "fs/steps.h"
#include "lock/lockspace.h"

/* --- reading --- */

static void reply_lock_attr(
	struct request *request, const struct record *record, uint64_t token, bool shared)
{
	struct stat attr;

	node_lock_attr(request->node, record, token, shared, &attr);
	reply_attr(request, &attr);
}

static void reply_holding_attr(struct request *request, struct holding *holding)
{
	reply_lock_attr(request, lockspace_record(holding), lockspace_token(holding),
		lockspace_is_shared(holding));
}

/*
 * The hold whose record is read through the request's handle; NULL if it has none.  The kernel
 * tells the handle of lseek(2), and not that of fstat(2).
 */
static const struct hold *own_hold(const struct request *request)
{
	const struct hold *hold = request->handle ? hold_of_handle(request->handle) : NULL;

	return hold && !hold->lost ? hold : NULL;
}

/* What holds the lock here, as what the node is; or NULL. */
static struct holding *held_here(const struct request *request)
{
	struct holding *holding = lockspace_find(request->fs->space, request->node->path);

	if (!holding || !lockspace_is_held(holding) ||
		(request->node->is_symlink && !lockspace_record(holding)->symlink))
		return NULL;
	return holding;
}

static void reply_directory_attr(struct request *request)
{
	struct stat attr;

	node_directory_attr(request->node, &attr);
	reply_attr(request, &attr);
}

/* A file can be open when nobody holds its lock, and then has attributes; what is nothing but a
 * name has none. */
static bool is_gone(const struct node *node, const struct store_view *view)
{
	if (node->is_directory)
		return view->kind != STORE_KIND_DIRECTORY;
	return node->is_symlink && (view->kind != STORE_KIND_LOCK || !view->record.symlink);
}

static void on_read(void *user, int result, struct store_view *view)
{
	struct request *request = user;
	struct node *node = request->node;
	const struct hold *own = node->is_directory ? NULL : own_hold(request);
	struct holding *holding = node->is_directory ? NULL : held_here(request);

	if (!result && is_gone(node, view))
		result = -ENOENT;
	if (own && (result || !view->record.content_size)) {
		reply_holding_attr(request, own->holding);
	} else if (result && holding) {
		/* While the store is away it is known only what there is here. */
		reply_holding_attr(request, holding);
	} else if (result) {
		reply_error(request, result);
	} else if (!node->is_directory) {
		bool held = view->kind == STORE_KIND_LOCK;
		reply_lock_attr(
			request, held ? &view->record : NULL, held ? view->token : 0, view->shared);
	} else {
		node_set_directory(node, &view->directory);
		reply_directory_attr(request);
	}
}

static void ask_store(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->lookup(store, request->path, on_read, request);
}

static void get_lock_attr(struct request *request)
{
	struct holding *holding = held_here(request);
	const struct hold *own = own_hold(request);
	struct stat attr;

	if (own && !content_is_of_others(own))
		reply_holding_attr(request, own->holding);
	else if (holding && !lockspace_record(holding)->ranges.count)
		reply_holding_attr(request, holding);
	else if (look_found(request, &attr))
		reply_attr(request, &attr);
	else
		ask_store(request);
}

static void get_attr(struct request *request)
{
	struct node *node = request->node;
	struct stat attr;

	free(request->path);
	request->path = xstrdup(node->path);
	if (!node->is_directory)
		get_lock_attr(request);
	else if (look_found(request, &attr))
		reply_attr(request, &attr);
	else
		ask_store(request);
}

void fs_getattr(struct request *request, struct node *node, struct handle *handle)
{
	request->node = node;
	request->handle = handle;
	if (node->status)
		status_getattr(request);
	else
		get_attr(request);
}

/* --- changing a lock: only its content can be --- */

static void on_truncated(void *user, int result)
{
	struct request *request = user;

	if (result)
		reply_error(request, result);
	else
		get_attr(request);
}

static void set_lock_attr(struct request *request, off_t size, bool set_size)
{
	struct hold *hold = request->handle ? keep_hold_for(request->handle)
					    : keep_hold_of(request->node, request->uid);
	bool has_content = hold && !hold->lost && !lockspace_is_shared(hold->holding);
	int error = set_size ? content_check(has_content ? hold : NULL, size) : 0;

	if (set_size && hold && hold->lost)
		error = -EIO;
	if (error)
		reply_error(request, error);
	else if (set_size && has_content)
		content_truncate(hold, size, on_truncated, request);
	else
		get_attr(request);
}

/* --- changing a directory --- */

static void on_changed(void *user, int result)
{
	struct request *request = user;

	if (result) {
		reply_error(request, result);
		return;
	}
	request->node->read_at = 0;
	ask_store(request);
}

static int check_change(struct request *request, unsigned int mask, bool times_are_now)
{
	const struct node *node = request->node;
	const struct store_directory *to = &request->directory;

	if ((mask & STORE_CHANGE_UID) && request->uid != 0 && to->uid != node->directory.uid)
		return -EPERM;
	if ((mask & STORE_CHANGE_GID) && request->uid != 0 && !request_in_group(request, to->gid))
		return -EPERM;
	/* Touching, as opposed to setting a time, is open to whoever may write. */
	if (times_are_now && !(mask & ~(unsigned int)(STORE_CHANGE_ATIME | STORE_CHANGE_MTIME)) &&
		check_permission(request, node, W_OK) == 0)
		return 0;
	return check_owner(request, node);
}

static void change(struct request *request)
{
	struct store *store = request->fs->store;
	unsigned int mask = (unsigned int)request->flags;
	int error = check_change(request, mask, request->wait);

	/* As chmod(2) says of who is not in the group. */
	if (request->uid != 0 && !request_in_group(request, request->node->directory.gid))
		request->directory.mode &= ~(mode_t)S_ISGID;
	if (error)
		reply_error(request, error);
	else if (!mask)
		reply_directory_attr(request);
	else
		store->ops->change(
			store, request->path, mask, &request->directory, on_changed, request);
}

/* Which fields of request->directory are to be set. */
static unsigned int read_changes(
	struct store_directory *directory, const struct stat *to, unsigned int changes)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	directory->mode = to->st_mode & 07777;
	directory->uid = to->st_uid;
	directory->gid = to->st_gid;
	directory->atime = changes & FS_SET_ATIME_NOW ? now : to->st_atim;
	directory->mtime = changes & FS_SET_MTIME_NOW ? now : to->st_mtim;
	return (changes & FS_SET_MODE ? STORE_CHANGE_MODE : 0u) |
	       (changes & FS_SET_UID ? STORE_CHANGE_UID : 0u) |
	       (changes & FS_SET_GID ? STORE_CHANGE_GID : 0u) |
	       (changes & (FS_SET_ATIME | FS_SET_ATIME_NOW) ? STORE_CHANGE_ATIME : 0u) |
	       (changes & (FS_SET_MTIME | FS_SET_MTIME_NOW) ? STORE_CHANGE_MTIME : 0u);
}

void fs_setattr(struct request *request, struct node *node, struct handle *handle,
	const struct stat *to, unsigned int changes)
{
	const unsigned int now = FS_SET_ATIME_NOW | FS_SET_MTIME_NOW;

	request->node = node;
	request->handle = handle;
	request->path = xstrdup(node->path);
	if (node->status) {
		reply_error(request, -EPERM);
		return;
	}
	if (!node->is_directory) {
		set_lock_attr(request, to->st_size, changes & FS_SET_SIZE);
		return;
	}
	request->flags = (int)read_changes(&request->directory, to, changes);
	request->wait = (changes & now) == now;
	/* Who may change it is decided by what is there now, not a second ago. */
	node->read_at = 0;
	step_permitted(request, 0, change);
}

/* --- access(2) --- */

static void accessible(struct request *request)
{
	reply_error(request, 0);
}

void fs_access(struct request *request, struct node *node, int mask)
{
	request->node = node;
	if (node->status)
		status_access(request, mask);
	else if (node->is_directory)
		step_permitted(request, mask & (R_OK | W_OK | X_OK), accessible);
	else
		reply_error(request, mask & X_OK ? -EACCES : 0);
}
