/* SPDX-License-Identifier: MIT */
/* Directories: making, removing and listing them. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/status.h"
#include "fs/steps.h"
#include "lock/lockspace.h"

/* --- mkdir --- */

static void on_made(void *user, int result)
{
	struct request *request = user;
	struct stat attr;

	if (result) {
		reply_error(request, result);
		return;
	}
	struct node *node = node_get(request->fs, request->node, request->path, NODE_DIRECTORY);
	node_set_directory(node, &request->directory);
	node_directory_attr(node, &attr);
	reply_entry(request, node, &attr);
}

static void send_mkdir(struct request *request)
{
	struct store *store = request->fs->store;
	bool of_session = node_policy(request->node).dirs == STORE_DIRS_LEASE;

	store->ops->mkdir(store, request->path, &request->directory, of_session, request->mark,
		on_made, request);
}

static void refuse_mkdir(struct request *request)
{
	struct proc_identity who;

	proc_identify(request->pid, &who);
	if (hint_is_due(request->fs, who.command, request->path))
		log_info("directory %s: %s can't make it: mkdir=owner lets only root and the owner "
			 "of the directory above do so",
			request->path, who.command);
	reply_error(request, -EPERM);
}

static void prepare_mkdir(struct request *request)
{
	const struct store_directory *parent = &request->node->directory;
	struct store_directory *directory = &request->directory;

	*directory = (struct store_directory){
		.mode = request->mode & 07777, .uid = request->uid, .gid = request->gid};
	if (parent->mode & S_ISGID) {
		directory->gid = parent->gid;
		directory->mode |= S_ISGID;
	}
	clock_gettime(CLOCK_REALTIME, &directory->ctime);
	directory->atime = directory->mtime = directory->ctime;
	struct store_policy policy = node_policy(request->node);
	if (policy.names == STORE_NAMES_ALWAYS)
		reply_error(request, -EEXIST);
	else if (policy.mkdir == STORE_MKDIR_OWNER && check_owner(request, request->node) < 0)
		refuse_mkdir(request);
	else
		step_settled(request, false, send_mkdir);
}

void fs_mkdir(struct request *request, struct node *parent, const char *name, mode_t mode)
{
	request->node = parent;
	request->mode = mode;
	int error = set_child(request, name);
	if (error)
		reply_error(request, error);
	else
		step_permitted(request, W_OK | X_OK, prepare_mkdir);
}

/* --- rmdir --- */

static void on_removed(void *user, int result)
{
	struct request *request = user;
	struct node *node = node_find(request->fs, request->path, NODE_DIRECTORY);

	if (!result && node)
		node->read_at = 0;
	reply_error(request, result);
}

static void send_rmdir(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->rmdir(store, request->path, request->aim, on_removed, request);
}

static void check_rmdir(struct request *request)
{
	const struct node *node = node_find(request->fs, request->path, NODE_DIRECTORY);
	int error = node ? check_sticky(request, request->node, node->directory.uid) : 0;

	if (!request->aim)
		request_aim(request, node ? node->directory.created : 0);

	if (error)
		reply_error(request, error);
	else
		step_settled(request, true, send_rmdir);
}

void fs_rmdir(struct request *request, struct node *parent, const char *name)
{
	request->node = parent;
	int error = set_child(request, name);
	if (error)
		reply_error(request, error);
	else
		step_permitted(request, W_OK | X_OK, check_rmdir);
}

/* --- listing --- */

/*
 * The kernel keeps flock(2) of a directory to itself, so a program that takes one for a lock file
 * is granted it on every machine at once.  Programs that mean a directory say so when they open it.
 */
static void warn_of_lock(const struct request *request)
{
	static const char text[] =
		"%s (process %d of user %u) opens the directory %s as a file: to "
		"lock it excludes nobody on other machines";
	struct fs *fs = request->fs;
	const char *path = *request->node->path ? request->node->path : "/";
	struct proc_identity who;

	if (request->flags & O_DIRECTORY)
		return;
	proc_identify(request->pid, &who);
	if (strcmp(who.command, "flock") != 0) {
		if (hint_is_due(fs, who.command, path))
			log_info(text, who.command, (int)who.pid, request->uid, path);
		return;
	}
	/* Other users can't use up the line that is for root. */
	if (log_is_due(&fs->misled[request->uid != 0], loop_clock()))
		log_warning(text, who.command, (int)who.pid, request->uid, path);
}

static void open_directory(struct request *request)
{
	warn_of_lock(request);
	if (!handle_is_possible(request))
		reply_error(request, -ENFILE);
	else
		reply_open(request, handle_new(request, request->node, O_RDONLY | O_DIRECTORY));
}

void fs_opendir(struct request *request, struct node *node, int flags)
{
	request->node = node;
	request->flags = flags;
	if (node->status)
		open_directory(request);
	else
		step_permitted(request, R_OK, open_directory);
}

void fs_releasedir(struct request *request, struct handle *handle)
{
	handle_free(handle);
	reply_error(request, 0);
}

static enum node_kind kind_of_name(const struct fs *fs, const struct store_name *name)
{
	return name->directory ? NODE_DIRECTORY : node_kind_shown(fs, name->symlink);
}

/* What stat(2) says of it, if the kernel knows it. */
static uint64_t inode_of(struct fs *fs, const char *path, enum node_kind kind)
{
	const struct node *node = node_find(fs, path, kind);

	return node ? node_shown_inode(node) : node_inode(path, kind);
}

static void reply_entries(struct request *request)
{
	static const mode_t types[] = {
		[NODE_FILE] = S_IFREG, [NODE_DIRECTORY] = S_IFDIR, [NODE_SYMLINK] = S_IFLNK};
	const struct handle *handle = request->handle;
	const struct node *node = handle->node;
	const struct node *above = node->parent ? node->parent : node;
	struct entry_buffer buffer = {.capacity = request->size};
	size_t at = (size_t)request->offset;

	for (bool room = true; room && at < handle->name_count + 2; at += room) {
		off_t next = (off_t)at + 1;
		if (at < 2) {
			room = add_entry(request, &buffer, at ? ".." : ".",
				at ? above->inode : node->inode, S_IFDIR, next);
			continue;
		}
		const struct store_name *name = &handle->names[at - 2];
		cleanup(free_ptr) char *path = node_child_path(node, name->name);
		enum node_kind kind = kind_of_name(request->fs, name);
		room = add_entry(request, &buffer, name->name, inode_of(request->fs, path, kind),
			types[kind], next);
	}
	reply_data(request, buffer.data, buffer.size);
	free(buffer.data);
}

static void on_listed(void *user, int result, const struct store_name *names, size_t count)
{
	struct request *request = user;
	struct handle *handle = request->handle;

	if (result) {
		reply_error(request, result);
		return;
	}
	handle_clear_names(handle);
	handle->names = xzalloc(count * sizeof(handle->names[0]));
	handle->name_count = count;
	handle->is_listed = true;
	for (size_t i = 0; i < count; i++) {
		handle->names[i] = names[i];
		handle->names[i].name = xstrdup(names[i].name);
	}
	reply_entries(request);
}

static void list(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->list(store, request->path, on_listed, request);
}

void fs_readdir(struct request *request, struct handle *handle, size_t size, off_t offset)
{
	request->handle = handle;
	request->node = handle->node;
	request->size = size;
	request->offset = offset;
	if (!offset && handle->node->status)
		status_list(handle);
	/* What another process has listed is not known here. */
	if ((offset && handle->is_listed) || handle->node->status) {
		reply_entries(request);
		return;
	}
	request->path = xstrdup(handle->node->path);
	list(request);
}
