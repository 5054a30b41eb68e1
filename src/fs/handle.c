/* SPDX-License-Identifier: MIT */
#include "fs/handle.h"

#include <utlist.h>

#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/shared.h"

static const struct shares_kind kind = {.resource = "handles",
	.what = "files and directories are open",
	.option = "max_handles",
	.error = "ENFILE"};

void handles_init(struct fs *fs)
{
	shares_init(&fs->handles, &kind, (size_t)fs->options.max_handles,
		(unsigned int)fs->options.user_share);
}

bool handle_is_possible(const struct request *request)
{
	return shares_allow(&request->fs->handles, request->uid, 1, loop_clock());
}

struct handle *handle_revive(struct node *node, uint64_t number)
{
	struct handle *handle = xzalloc(sizeof(*handle));
	struct fs *fs = node->fs;

	node_ref(node);
	handle->node = node;
	handle->number = number;
	fs->busy_nodes += !node->handles && !node->is_directory;
	DL_APPEND(node->handles, handle);
	HASH_ADD(hh, fs->handle_table, number, sizeof(handle->number), handle);
	return handle;
}

void handle_own(struct handle *handle, uid_t uid, gid_t gid)
{
	handle->uid = uid;
	handle->gid = gid;
	shares_take(&handle->node->fs->handles, uid, 1);
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
	handle_own(handle, request->uid, request->gid);
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
	shares_give(&node->fs->handles, handle->uid, 1);
	node_unref(node, 1);
	handle_clear_names(handle);
	free(handle->text);
	shared_text_unref(handle->shared);
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
