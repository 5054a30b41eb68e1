/* SPDX-License-Identifier: MIT */
/* Requests of the kernel, and their replies. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/ledger.h"
#include "base/log.h"
#include "base/pulse.h"
#include "base/util.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/revive.h"
#include "fs/session.h"
#include "fs/stake.h"

struct request *request_new(fuse_req_t req, const char *name_of_op)
{
	struct mount *mount = fuse_req_userdata(req);
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	struct request *request = xzalloc(sizeof(*request));

	request->fs = &mount->fs;
	request->fuse = req;
	request->name_of_op = name_of_op;
	request->uid = caller->uid;
	request->gid = caller->gid;
	request->pid = caller->pid;
	request->mark = mount->unique & ~SESSION_RESENT;
	request->again = mount->unique & SESSION_RESENT;
	DL_APPEND2(mount->fs.requests, request, prev, next_request);
	if (request->again)
		fs_recall(request);
	return request;
}

void request_free(struct request *request)
{
	DL_DELETE2(request->fs->requests, request, prev, next_request);
	free(request->path);
	free(request->data);
	free(request);
}

/* Every reply goes through here: it takes the request apart and says what came of it. */
static fuse_req_t end_request(struct request *request, const char *result)
{
	fuse_req_t req = request->fuse;
	const char *path = request->path ? request->path : request->node ? request->node->path : "";

	if (!request->path && !request->node && request->handle)
		path = request->handle->node->path;
	log_trace("%s /%s by process %d: %s", request->name_of_op, path, (int)request->pid, result);
	request_free(request);
	return req;
}

void reply_error(struct request *request, int error)
{
	/* It was there when it was asked for first. */
	if (error == -ENOENT && request->recalled)
		error = 0;
	struct ledger *ledger = request->fs->ledger;
	ledger_slot slot = request->slot;
	fuse_reply_err(end_request(request, error ? strerror(-error) : "done"), -error);
	ledger_drop(ledger, &slot);
}

/* Timeouts of 0: what the kernel remembers of a name or its attributes may be wrong at once. */
static struct fuse_entry_param entry_of(const struct node *node, const struct stat *attr)
{
	return (struct fuse_entry_param){.ino = node->inode, .generation = 1, .attr = *attr};
}

void reply_entry(struct request *request, struct node *node, const struct stat *attr)
{
	struct fuse_entry_param entry = entry_of(node, attr);

	node_looked_up(node);
	if (fuse_reply_entry(end_request(request, "found"), &entry) < 0)
		node_forget(node, 1);
}

void reply_attr(struct request *request, const struct stat *attr)
{
	fuse_reply_attr(end_request(request, "attributes"), attr, 0);
}

static struct fuse_file_info file_info(struct handle *handle)
{
	return (struct fuse_file_info){.fh = handle->number,
		.flags = handle->flags,
		.direct_io = !handle->node->is_directory};
}

/* The kernel does not know of the handle, so it will not release it. */
static void undo_open(struct handle *handle)
{
	stakes_close_handle(handle);
	handle_free(handle);
}

void reply_open(struct request *request, struct handle *handle)
{
	struct fuse_file_info info = file_info(handle);
	struct ledger *ledger = request->fs->ledger;

	handle->mark = request->mark;
	handle_enter(handle);
	if (fuse_reply_open(end_request(request, "open"), &info) < 0)
		undo_open(handle);
	else
		ledger_count(ledger, handle->slot, 1);
}

void reply_create(struct request *request, struct handle *handle, const struct stat *attr)
{
	struct node *node = handle->node;
	struct fuse_file_info info = file_info(handle);
	struct fuse_entry_param entry = entry_of(node, attr);
	struct ledger *ledger = request->fs->ledger;

	handle->mark = request->mark;
	node_looked_up(node);
	handle_enter(handle);
	if (fuse_reply_create(end_request(request, "created"), &entry, &info) == 0) {
		ledger_count(ledger, handle->slot, 1);
		return;
	}
	undo_open(handle);
	node_forget(node, 1);
}

void reply_data(struct request *request, const void *data, size_t size)
{
	fuse_reply_buf(end_request(request, "data"), data, size);
}

void reply_symlink(struct request *request, const char *text)
{
	/* It may be the request's own, which goes with it. */
	cleanup(free_ptr) char *copy = xstrdup(text);

	fuse_reply_readlink(end_request(request, "text"), copy);
}

void reply_written(struct request *request, size_t size)
{
	fuse_reply_write(end_request(request, "written"), size);
}

void reply_lock(struct request *request, int type, pid_t pid, uint64_t start, uint64_t end)
{
	struct flock lock = {.l_type = (short)type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = end == RANGE_END ? 0 : (off_t)(end - start + 1),
		.l_pid = pid};

	fuse_reply_lock(end_request(request, type == F_UNLCK ? "free" : "held"), &lock);
}

void reply_xattr_size(struct request *request, size_t size)
{
	fuse_reply_xattr(end_request(request, "size"), size);
}

void reply_poll(struct request *request, unsigned int events)
{
	fuse_reply_poll(end_request(request, "events"), events);
}

bool add_entry(struct request *request, struct entry_buffer *buffer, const char *name,
	uint64_t inode, mode_t type, off_t next_offset)
{
	struct stat attr = {.st_ino = inode, .st_mode = type};

	if (!buffer->data)
		buffer->data = xzalloc(buffer->capacity);
	size_t room = buffer->capacity - buffer->size;
	size_t size = fuse_add_direntry(
		request->fuse, buffer->data + buffer->size, room, name, &attr, next_offset);
	if (size > room)
		return false;
	buffer->size += size;
	return true;
}

void request_go_on(struct request *request)
{
	struct pulse *pulse = request->fs->options.pulse;

	pulse_at(pulse, request->mark);
	request->next(request);
	pulse_at(pulse, 0);
}

static void on_fuse_interrupt(fuse_req_t req, void *user)
{
	struct request *request = user;

	request->on_interrupt(request);
}

void request_on_interrupt(struct request *request, void (*fn)(struct request *request))
{
	request->on_interrupt = fn;
	fuse_req_interrupt_func(request->fuse, on_fuse_interrupt, request);
}

int request_groups(const struct request *request, gid_t *groups, int room)
{
	int count = fuse_req_getgroups(request->fuse, room, groups);

	if (count < 0)
		return 0;
	return count < room ? count : room;
}

bool request_in_group(const struct request *request, gid_t gid)
{
	gid_t groups[256];

	if (request->gid == gid)
		return true;
	int count = request_groups(request, groups, (int)ARRAY_SIZE(groups));
	for (int i = 0; i < count; i++) {
		if (groups[i] == gid)
			return true;
	}
	return false;
}

/* libfuse has a handle for this that no other process could make. */
void poll_notify(struct fs *fs, uint64_t poll)
{
	const struct mount *mount = container_of(fs, struct mount, fs);
	struct {
		struct fuse_out_header header;
		struct fuse_notify_poll_wakeup_out wakeup;
	} notice = {
		.header = {.len = sizeof(notice), .error = FUSE_NOTIFY_POLL}, .wakeup.kh = poll};

	/* It fails if nobody polls any more. */
	if (write(fuse_session_fd(mount->session), &notice, sizeof(notice)) < 0)
		log_trace("nobody polls: %s", strerror(errno));
}
