/* SPDX-License-Identifier: MIT */
#include "fs/handle.h"

#include <utlist.h>

#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/request.h"

struct handle *handle_revive(struct node *node, uint64_t number)
{
	struct handle *handle = xzalloc(sizeof(*handle));
	struct fs *fs = node->fs;

	node_ref(node);
	handle->node = node;
	handle->number = number;
	fs->handles++;
	fs->busy_nodes += !node->handles && !node->is_directory;
	DL_APPEND(node->handles, handle);
	HASH_ADD(hh, fs->handle_table, number, sizeof(handle->number), handle);
	return handle;
}

struct handle *handle_by_number(const struct fs *fs, uint64_t number)
{
	struct handle *handle;

	HASH_FIND(hh, fs->handle_table, &number, sizeof(number), handle);
	return handle;
}

struct handle *handle_new(const struct request *request, struct node *node, int flags)
{
	struct handle *handle = handle_revive(node, ++node->fs->handle_numbers);

	handle->flags = flags;
	handle->uid = request->uid;
	handle->gid = request->gid;
	handle->policy = node_policy(node);
	handle->opened_at = loop_clock();
	proc_identify(request->pid, &handle->opener);
	return handle;
}

void handle_free(struct handle *handle)
{
	struct node *node = handle->node;

	DL_DELETE(node->handles, handle);
	HASH_DEL(node->fs->handle_table, handle);
	if (node->fs->unsaid == handle)
		node->fs->unsaid = NULL;
	ledger_drop(node->fs->ledger, &handle->slot);
	node->fs->busy_nodes -= !node->handles && !node->is_directory;
	node->fs->handles--;
	node_unref(node, 1);
	handle_clear_names(handle);
	free(handle->text);
	free(handle->cgroup.path);
	free(handle);
}

void handle_set_text(struct handle *handle, char *text, size_t size)
{
	free(handle->text);
	handle->text = text;
	handle->text_size = size;
}

void handle_clear_names(struct handle *handle)
{
	for (size_t i = 0; i < handle->name_count; i++)
		free(handle->names[i].name);
	free(take(handle->names));
	handle->name_count = 0;
}
