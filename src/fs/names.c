/* SPDX-License-Identifier: MIT */
/* Names of locks: looking them up, creating and unlinking them. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "fs/former.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/hints.h"
#include "fs/keep.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/status.h"
#include "fs/steps.h"
#include "lock/lockspace.h"

/* --- lookup --- */

static void found_lock(
	struct request *request, const struct record *record, uint64_t token, bool shared)
{
	enum node_kind kind = node_kind_shown(request->fs, record && record->symlink);
	struct node *node = node_get(request->fs, request->node, request->path, kind);
	struct stat attr;

	node_lock_attr(node, record, token, shared, &attr);
	reply_entry(request, node, &attr);
}

/* The kernel is going to ask for its attributes. */
static void found_held_lock(struct request *request, const struct store_view *view)
{
	enum node_kind kind = node_kind_shown(request->fs, view->record.symlink);
	struct node *node = node_get(request->fs, request->node, request->path, kind);
	struct stat attr;

	node_lock_attr(node, &view->record, view->token, view->shared, &attr);
	look_note(request, node->inode, &attr);
	reply_entry(request, node, &attr);
}

static void found_directory(struct request *request, const struct store_directory *directory)
{
	struct node *node = node_get(request->fs, request->node, request->path, NODE_DIRECTORY);
	struct stat attr;

	node_set_directory(node, directory);
	node_directory_attr(node, &attr);
	look_note(request, node->inode, &attr);
	reply_entry(request, node, &attr);
}

static bool every_name_exists(const struct node *directory)
{
	return node_policy(directory).names == STORE_NAMES_ALWAYS;
}

static void on_looked_up(void *user, int result, struct store_view *view)
{
	struct request *request = user;

	if (result) {
		reply_error(request, result);
		return;
	}
	switch (view->kind) {
	case STORE_KIND_FREE:
		if (every_name_exists(request->node)) {
			found_lock(request, NULL, 0, false);
		} else {
			former_forget(request, request->path);
			hint_at_missing(request);
			reply_error(request, -ENOENT);
		}
		break;
	case STORE_KIND_LOCK:
		found_held_lock(request, view);
		break;
	case STORE_KIND_DIRECTORY:
		found_directory(request, &view->directory);
		break;
	}
}

/* What is just being given back here is still there for others: nobody is to be told before them.
 */
static void ask_store(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->lookup(store, request->path, on_looked_up, request);
}

static void lookup(struct request *request);

/* The nodes stay for good: they are how it is known, from now on, that these are directories. */
static void on_learnt(void *user, int result, const struct store_name *names, size_t count)
{
	struct request *request = user;
	struct node *parent = request->node;

	if (result) {
		reply_error(request, result);
		return;
	}
	parent->has_learnt = true;
	for (size_t i = 0; i < count; i++) {
		cleanup(free_ptr) char *path = node_child_path(parent, names[i].name);
		if (names[i].directory)
			node_get(request->fs, parent, path, NODE_DIRECTORY);
	}
	lookup(request);
}

static void lookup(struct request *request)
{
	struct holding *holding = lockspace_find(request->fs->space, request->path);
	struct store *store = request->fs->store;
	struct node *parent = request->node;
	bool always = every_name_exists(parent);

	if (holding && !lockspace_waits_for_symlink(holding))
		found_lock(request, lockspace_record(holding), lockspace_token(holding),
			lockspace_is_shared(holding));
	else if (always && !parent->has_learnt)
		store->ops->list(store, parent->path, on_learnt, request);
	else if (always && !holding && !node_find(request->fs, request->path, NODE_DIRECTORY))
		found_lock(request, NULL, 0, false);
	else
		step_settled(request, false, ask_store);
}

void fs_lookup(struct request *request, struct node *parent, const char *name)
{
	if (status_lookup(request, parent, name))
		return;
	request->node = parent;
	int error = set_child(request, name);
	if (error)
		reply_error(request, error == -EPERM ? -ENOENT : error);
	else
		step_permitted(request, X_OK, lookup);
}

/* --- create --- */

static void created(struct request *request)
{
	struct holding *holding = lockspace_find(request->fs->space, request->handle->node->path);
	struct stat attr;

	if (holding && request->kind == STAKE_CREATE)
		node_lock_attr(request->handle->node, lockspace_record(holding),
			lockspace_token(holding), false, &attr);
	else
		node_lock_attr(request->handle->node, NULL, 0, false, &attr);
	reply_create(request, request->handle, &attr);
}

void fs_created(struct request *request, struct handle *handle)
{
	const struct hold *hold = hold_of_handle(handle);

	request->handle = handle;
	request->kind = hold && hold_has_stake(hold, STAKE_CREATE) ? STAKE_CREATE : STAKE_FLOCK;
	created(request);
}

static void create(struct request *request)
{
	struct node *parent = request->node;

	if (node_policy(parent).open == STORE_OPEN_LOCK) {
		/* The kernel walks again and then sends OPEN, which may wait without the
		 * directory's lock. */
		reply_error(request, -ESTALE);
		return;
	}
	if (!handle_is_possible(request)) {
		reply_error(request, -ENFILE);
		return;
	}
	request->node = node_get(request->fs, parent, request->path, NODE_FILE);
	request->handle = handle_new(request, request->node, request->flags);
	if (!(request->flags & O_EXCL)) {
		request->handle->has_made_name = true;
		request->kind = STAKE_FLOCK;
		created(request);
		return;
	}
	lock_to_create(request, created);
}

void fs_create(struct request *request, struct node *parent, const char *name, int flags)
{
	request->node = parent;
	request->flags = flags;
	int error = set_child(request, name);
	if (error)
		reply_error(request, error);
	else
		step_permitted(request, W_OK | X_OK, create);
}

/* --- unlink --- */

static void on_released(void *user, int result)
{
	reply_error(user, result);
}

/* It may have been unlinked by somebody else meanwhile. */
static void on_evicted(void *user, int result)
{
	reply_error(user, result == STORE_GONE ? -ENOENT : result);
}

static void evict(struct request *request, uint64_t token)
{
	struct store *store = request->fs->store;

	request_aim(request, token);
	store->ops->evict(store, request->path, token, request->uid, on_evicted, request);
}

/*
 * Of a name that nobody here holds.  A live lock of another mount stays, whoever made it: a program
 * that does not find its maker's process here would take it for stale.
 */
static void on_seen(void *user, int result, struct store_view *view)
{
	struct request *request = user;
	bool always = every_name_exists(request->node);

	if (!result && view->kind == STORE_KIND_LOCK)
		result = -EBUSY;
	else if (!result && view->kind == STORE_KIND_DIRECTORY)
		result = -EISDIR;
	else if (!result && !always)
		result = -ENOENT;
	reply_error(request, result);
}

static void ask_who_holds(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->lookup(store, request->path, on_seen, request);
}

static struct hold *find_hold_of_uid(struct node *node, uid_t uid)
{
	struct hold *hold = keep_hold_of(node, uid);

	if (hold)
		return hold;
	DL_FOREACH(node->holds, hold) {
		if (!hold->lost && lockspace_record(hold->holding)->uid == uid)
			return hold;
	}
	return NULL;
}

static bool is_held_here(const struct node *node)
{
	const struct hold *hold;

	DL_FOREACH(node->holds, hold) {
		if (!hold->lost)
			return true;
	}
	return false;
}

/* What the name is here, if it is held, or else the file. */
static struct node *find_lock(struct request *request)
{
	struct node *symlink = node_find(request->fs, request->path, NODE_SYMLINK);

	if (symlink && is_held_here(symlink))
		return symlink;
	return node_find(request->fs, request->path, NODE_FILE);
}

static void unlink_name(struct request *request)
{
	struct node *node = find_lock(request);
	struct hold *hold = node ? find_hold_of_uid(node, request->uid) : NULL;

	if (request->aim && !(hold && lockspace_token(hold->holding) == request->aim)) {
		/* What it was about is gone, or on its way. */
		evict(request, request->aim);
		return;
	}
	if (hold && !keep_of(hold) && former_means(request, hold)) {
		reply_error(request, -ENOENT);
		return;
	}
	if (hold && (hold_has_stake(hold, STAKE_CREATE) || keep_of(hold))) {
		struct proc_identity who;
		proc_identify(request->pid, &who);
		request_aim(request, lockspace_token(hold->holding));
		keep_release(hold, who.pid, on_released, request);
		return;
	}
	former_forget(request, request->path);
	if (hold)
		reply_error(request, 0); /* lives until unlock or close */
	else if (node && is_held_here(node))
		reply_error(request, -EBUSY);
	else
		step_settled(request, false, ask_who_holds);
}

void fs_unlink(struct request *request, struct node *parent, const char *name)
{
	request->node = parent;
	int error = set_child(request, name);
	if (error)
		reply_error(request, error);
	else
		step_permitted(request, W_OK | X_OK, unlink_name);
}
