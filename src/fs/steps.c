/* SPDX-License-Identifier: MIT */
#include "fs/steps.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "lock/lockspace.h"

bool mode_allows(const struct store_directory *directory, uid_t uid, bool is_member, int mask)
{
	unsigned int bits = directory->mode & 7;

	if (uid == directory->uid)
		bits = directory->mode >> 6 & 7;
	else if (is_member)
		bits = directory->mode >> 3 & 7;
	return uid == 0 || (bits & (unsigned int)mask) == (unsigned int)mask;
}

int check_permission(const struct request *request, const struct node *node, int mask)
{
	const struct store_directory *directory = &node->directory;
	/* To know the groups a file is read, which most do not need. */
	bool is_member = request->uid && request->uid != directory->uid &&
			 request_in_group(request, directory->gid);

	return mode_allows(directory, request->uid, is_member, mask) ? 0 : -EACCES;
}

int check_owner(const struct request *request, const struct node *directory)
{
	return request->uid == 0 || request->uid == directory->directory.uid ? 0 : -EPERM;
}

int check_sticky(const struct request *request, const struct node *directory, uid_t owner)
{
	if (!(directory->directory.mode & S_ISVTX) || request->uid == owner)
		return 0;
	return check_owner(request, directory);
}

/* --- the directory's attributes --- */

static void permitted(struct request *request)
{
	int error = check_permission(request, request->node, request->mask);

	if (error)
		reply_error(request, error);
	else
		request_go_on(request);
}

static void on_directory_read(void *user, int result, struct store_view *view)
{
	struct request *request = user;

	if (!result && view->kind != STORE_KIND_DIRECTORY)
		result = view->kind == STORE_KIND_FREE ? -ENOENT : -ENOTDIR;
	if (result) {
		reply_error(request, result);
		return;
	}
	node_set_directory(request->node, &view->directory);
	permitted(request);
}

void step_permitted(struct request *request, int mask, request_fn *next)
{
	struct store *store = request->fs->store;

	request->next = next;
	request->mask = mask;
	if (node_is_fresh(request->node))
		permitted(request);
	else
		store->ops->lookup(store, request->node->path, on_directory_read, request);
}

/* --- what is being given back --- */

static void settle(struct request *request);

static void on_settled(void *user, int result)
{
	struct request *request = user;
	struct store *store = request->fs->store;

	if (store->ops->reachable(store))
		settle(request);
	else
		reply_error(request, -EIO);
}

static void settle(struct request *request)
{
	struct holding *leaving = lockspace_leaving(
		request->fs->space, request->path, request->below, request->leaves);

	if (leaving)
		lockspace_await(leaving, on_settled, request);
	else
		request_go_on(request);
}

void step_settled(struct request *request, bool below, request_fn *next)
{
	/* Where locks come and go all the time there would be no end of new ones. */
	request->leaves = lockspace_leaves(request->fs->space);
	request->below = below;
	request->next = next;
	settle(request);
}

/* --- names --- */

int set_child(struct request *request, const char *name)
{
	static const char reserved[] = ".latchfs";
	struct node *directory = request->node;

	if (strlen(name) > FS_NAME_MAX || strlen(directory->path) > FS_PATH_MAX)
		return -ENAMETOOLONG;
	if (directory->status ||
		(!directory->parent && strncmp(name, reserved, strlen(reserved)) == 0))
		return -EPERM;
	free(request->path);
	request->path = node_child_path(directory, name);
	request->name =
		strrchr(request->path, '/') ? strrchr(request->path, '/') + 1 : request->path;
	return 0;
}
