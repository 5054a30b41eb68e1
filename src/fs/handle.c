/* SPDX-License-Identifier: MIT */
#include "fs/handle.h"

#include <utlist.h>

#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/request.h"

struct handle *handle_new(const struct request *request, struct node *node, int flags)
{
	struct handle *handle = xzalloc(sizeof(*handle));

	node_ref(node);
	handle->node = node;
	handle->flags = flags;
	handle->uid = request->uid;
	handle->gid = request->gid;
	handle->policy = node_policy(node);
	handle->opened_at = loop_clock();
	proc_identify(request->pid, &handle->opener);
	node->fs->handles++;
	node->fs->busy_nodes += !node->handles && !node->is_directory;
	DL_APPEND(node->handles, handle);
	return handle;
}

void handle_free(struct handle *handle)
{
	struct node *node = handle->node;

	DL_DELETE(node->handles, handle);
	node->fs->busy_nodes -= !node->handles && !node->is_directory;
	node->fs->handles--;
	node_unref(node, 1);
	if (handle->poll)
		poll_free(handle->poll);
	handle_clear_names(handle);
	free(handle->text);
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
