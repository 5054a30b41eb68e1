/* SPDX-License-Identifier: MIT */
#include "fs/status.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/metrics.h"
#include "fs/node.h"
#include "fs/report.h"
#include "fs/request.h"
#include "fs/shared.h"
#include "fs/table.h"

struct status_entry {
	const char *name;
	char *(*compose)(const struct fs *fs); /* what it says; or: */
	request_fn *open;                      /* goes on with opening it */
};

static const struct status_entry directory = {.name = ".latchfs"};

static const struct status_entry files[] = {
	{.name = "capabilities", .compose = report_capabilities},
	{.name = "locks", .open = table_open},
	{.name = "metrics", .compose = metrics_text},
	{.name = "status", .compose = report_status},
};

/* --- names --- */

const struct status_entry *status_of(const struct node *parent, const char *name)
{
	if (!parent->parent && strcmp(name, directory.name) == 0)
		return &directory;
	if (!parent->status)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (strcmp(name, files[i].name) == 0)
			return &files[i];
	}
	return NULL;
}

static void get_attr(const struct node *node, struct stat *attr)
{
	*attr = (struct stat){
		.st_ino = node->inode,
		.st_mode = node->is_directory ? S_IFDIR | 0555 : S_IFREG | 0444,
		.st_nlink = node->is_directory ? 2 : 1,
		.st_blksize = 4096,
		.st_atim = node->fs->started,
		.st_mtim = node->fs->started,
		.st_ctim = node->fs->started,
	};
}

bool status_lookup(struct request *request, struct node *parent, const char *name)
{
	const struct status_entry *entry = status_of(parent, name);
	struct stat attr;

	if (!entry && !parent->status)
		return false;
	request->node = parent;
	request->path = node_child_path(parent, name);
	if (!entry) {
		reply_error(request, -ENOENT);
		return true;
	}
	struct node *node = node_get(request->fs, parent, request->path,
		entry == &directory ? NODE_DIRECTORY : NODE_FILE);
	node->status = entry;
	get_attr(node, &attr);
	reply_entry(request, node, &attr);
	return true;
}

void status_getattr(struct request *request)
{
	struct stat attr;

	get_attr(request->node, &attr);
	reply_attr(request, &attr);
}

void status_access(struct request *request, int mask)
{
	int refused = request->node->is_directory ? W_OK : W_OK | X_OK;

	reply_error(request, mask & refused ? -EACCES : 0);
}

void status_list(struct handle *handle)
{
	handle_clear_names(handle);
	handle->names = xzalloc(sizeof(handle->names[0]) * ARRAY_SIZE(files));
	handle->name_count = ARRAY_SIZE(files);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		handle->names[i].name = xstrdup(files[i].name);
}

/* --- content --- */

void status_open(struct request *request, struct node *node, int flags)
{
	request->node = node;
	if ((flags & O_ACCMODE) != O_RDONLY) {
		reply_error(request, -EACCES);
		return;
	}
	if (!handle_is_possible(request)) {
		reply_error(request, -ENFILE);
		return;
	}
	request->handle = handle_new(request, node, flags);
	if (node->status->open) {
		node->status->open(request);
		return;
	}
	char *text = node->status->compose(request->fs);
	handle_set_text(request->handle, text, strlen(text));
	reply_open(request, request->handle);
}

void status_read(struct request *request)
{
	const struct handle *handle = request->handle;
	const char *text = handle->shared ? handle->shared->data : handle->text;
	size_t size = handle->shared ? handle->shared->size : handle->text_size;
	size_t offset = (size_t)request->offset;

	if (handle->shared && !text) {
		reply_error(request, -ESTALE);
		return;
	}
	if (offset > size)
		offset = size;
	size_t left = size - offset;
	reply_data(request, text + offset, left < request->size ? left : request->size);
}
