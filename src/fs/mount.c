/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/node.h"
#include "fs/reaper.h"
#include "fs/request.h"
#include "fs/revive.h"
#include "fs/signals.h"
#include "fs/stake.h"

enum {
	/* Releases beyond this number would be overtaken by later requests. */
	MAX_BACKGROUND = 60000,
	/* Requests taken from the kernel before other descriptors get their turn. */
	REQUESTS_PER_TURN = 64,
	/* Nodes that nobody has open and the kernel need not forget. */
	MAX_IDLE_NODES = 1000,
	/* As a power of two: so many no process can open. */
	HANDLES_PER_MS = 20,
};

/* Of the kernel's protocol, in words that its older headers do not have. */
enum { NOTIFY_RESEND = 7, INIT_CAN_RESEND = 1 << 7 /* in flags2 */ };
static const uint64_t RESENT = (uint64_t)1 << 63; /* in a request's number */

struct mount {
	struct fs fs;
	struct fuse_session *session;
	struct fuse_buf buffer;
	struct loop_fd watch;
	bool mounted;
	uint64_t unique;  /* of the request that is being processed */
	bool can_resend;  /* the kernel */
	bool is_resumed;  /* it was another process that has mounted */
	bool is_resuming; /* and what that one has not answered is still being asked */
	int reaper;
	const struct mount_events *events;
	void *user;
};

/* --- requests --- */

static struct request *request_new(fuse_req_t req, const char *name_of_op)
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
	request->mark = mount->unique & ~RESENT;
	request->again = mount->unique & RESENT;
	DL_APPEND2(mount->fs.requests, request, prev, next_request);
	if (request->again)
		fs_recall(request);
	return request;
}

static void request_free(struct request *request)
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

bool request_in_group(const struct request *request, gid_t gid)
{
	gid_t groups[256];

	if (request->gid == gid)
		return true;
	int count = fuse_req_getgroups(request->fuse, (int)ARRAY_SIZE(groups), groups);
	for (int i = 0; i < count && i < (int)ARRAY_SIZE(groups); i++) {
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

/* --- libfuse's calls --- */

static struct node *node_of(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *mount = fuse_req_userdata(req);

	return node_by_inode(&mount->fs, ino);
}

static struct handle *find_handle(fuse_req_t req, const struct fuse_file_info *info)
{
	struct mount *mount = fuse_req_userdata(req);

	return info ? handle_by_number(&mount->fs, info->fh) : NULL;
}

/* Answers if there is none: what it was may have been closed by another process before us. */
static struct handle *handle_of(fuse_req_t req, const struct fuse_file_info *info)
{
	struct handle *handle = find_handle(req, info);

	if (!handle)
		fuse_reply_err(req, EBADF);
	return handle;
}

/* What another process has opened for this request, and may not have been able to say. */
static struct handle *opened_before(const struct request *request)
{
	return request->again ? fs_opened_before(request->fs, request->mark) : NULL;
}

static void do_init(void *user, struct fuse_conn_info *conn)
{
	const unsigned int locks = FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS;
	struct mount *mount = user;
	int error = (conn->capable & locks) == locks ? 0 : -EOPNOTSUPP;

	/* Without O_TRUNC in open it comes as a SETATTR, which others than the holder may send. */
	conn->want &= ~(unsigned int)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_SPLICE_READ |
				      FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->want |= conn->capable & locks;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND;
	mount->events->ready(mount->user, error);
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fs_lookup(request_new(req, "LOOKUP"), node_of(req, parent), name);
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	struct node *node = node_of(req, ino);

	if (node && node->parent)
		node_forget(node, count);
	fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++) {
		struct node *node = node_of(req, forgets[i].ino);
		if (node && node->parent)
			node_forget(node, forgets[i].nlookup);
	}
	fuse_reply_none(req);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	fs_getattr(request_new(req, "GETATTR"), node_of(req, ino), find_handle(req, info));
}

static void do_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *info)
{
	static const struct {
		int theirs;
		unsigned int ours;
	} map[] = {{FUSE_SET_ATTR_MODE, FS_SET_MODE}, {FUSE_SET_ATTR_UID, FS_SET_UID},
		{FUSE_SET_ATTR_GID, FS_SET_GID}, {FUSE_SET_ATTR_SIZE, FS_SET_SIZE},
		{FUSE_SET_ATTR_ATIME, FS_SET_ATIME}, {FUSE_SET_ATTR_MTIME, FS_SET_MTIME},
		{FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW},
		{FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW}};
	unsigned int changes = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		changes |= to_set & map[i].theirs ? map[i].ours : 0;
	fs_setattr(request_new(req, "SETATTR"), node_of(req, ino), find_handle(req, info), attr,
		changes);
}

static void do_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	fs_access(request_new(req, "ACCESS"), node_of(req, ino), mask);
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fs_mkdir(request_new(req, "MKDIR"), node_of(req, parent), name, mode);
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fs_rmdir(request_new(req, "RMDIR"), node_of(req, parent), name);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fs_unlink(request_new(req, "UNLINK"), node_of(req, parent), name);
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	struct fuse_file_info *info)
{
	struct request *request = request_new(req, "CREATE");
	struct handle *handle = opened_before(request);

	if (handle)
		fs_created(request, handle);
	else
		fs_create(request, node_of(req, parent), name, info->flags);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct request *request = request_new(req, "OPEN");
	struct handle *handle = opened_before(request);

	if (handle)
		reply_open(request, handle);
	else
		fs_open(request, node_of(req, ino), info->flags);
}

static void do_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_read(request_new(req, "READ"), handle, size, offset);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
	struct fuse_file_info *info)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_write(request_new(req, "WRITE"), handle, data, size, offset,
			info->flags & O_APPEND);
}

static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct handle *handle = find_handle(req, info);

	if (handle)
		fs_flush(request_new(req, "FLUSH"), handle, info->lock_owner);
	else
		fuse_reply_err(req, 0);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct handle *handle = find_handle(req, info);

	if (handle)
		fs_release(request_new(req, "RELEASE"), handle);
	else
		fuse_reply_err(req, 0);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *info)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_fsync(request_new(req, "FSYNC"), handle);
}

static void do_poll(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info, struct fuse_pollhandle *poll)
{
	const struct mount *mount = fuse_req_userdata(req);
	const struct fuse_poll_in *asked =
		(const void *)((const struct fuse_in_header *)mount->buffer.mem + 1);
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_poll(request_new(req, "POLL"), handle, poll ? asked->kh : 0);
	if (poll)
		fuse_pollhandle_destroy(poll);
}

static void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct request *request = request_new(req, "OPENDIR");
	struct handle *handle = opened_before(request);

	if (handle)
		reply_open(request, handle);
	else
		fs_opendir(request, node_of(req, ino));
}

static void do_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_readdir(request_new(req, "READDIR"), handle, size, offset);
}

static void do_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct handle *handle = find_handle(req, info);

	if (handle)
		fs_releasedir(request_new(req, "RELEASEDIR"), handle);
	else
		fuse_reply_err(req, 0);
}

static void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *info)
{
	fuse_reply_err(req, 0);
}

static void do_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info, int operation)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_flock(request_new(req, "FLOCK"), handle, info->lock_owner, operation);
}

/* A length of 0 means: to the end, however far that may be. */
static uint64_t last_byte(const struct flock *lock)
{
	return lock->l_len ? (uint64_t)lock->l_start + (uint64_t)lock->l_len - 1 : RANGE_END;
}

static void do_setlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info, struct flock *lock, int wait)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_setlk(request_new(req, wait ? "SETLKW" : "SETLK"), handle, info->lock_owner,
			lock->l_type, (uint64_t)lock->l_start, last_byte(lock), wait);
}

static void do_getlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info, struct flock *lock)
{
	struct handle *handle = handle_of(req, info);

	if (handle)
		fs_getlk(request_new(req, "GETLK"), handle, info->lock_owner, lock->l_type,
			(uint64_t)lock->l_start, last_byte(lock));
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	fs_getxattr(request_new(req, "GETXATTR"), node_of(req, ino), name, size);
}

static void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	fs_listxattr(request_new(req, "LISTXATTR"), node_of(req, ino), size);
}

static void do_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	fs_setxattr(request_new(req, "SETXATTR"), node_of(req, ino), name, value, size, flags);
}

static void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	fs_removexattr(request_new(req, "REMOVEXATTR"), node_of(req, ino), name);
}

static void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs statistics = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = FS_NAME_MAX};

	fuse_reply_statfs(req, &statistics);
}

/* What a lock can't be.  ENOSYS would be remembered by the kernel for ever. */

static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	fuse_reply_err(req, EPERM);
}

static void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	fs_symlink(request_new(req, "SYMLINK"), node_of(req, parent), name, target);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	fs_readlink(request_new(req, "READLINK"), node_of(req, ino));
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	fs_link(request_new(req, "LINK"), node_of(req, ino), node_of(req, parent), name);
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned int flags)
{
	fuse_reply_err(req, EPERM);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
	struct fuse_file_info *info)
{
	fuse_reply_err(req, EOPNOTSUPP);
}

static const struct fuse_lowlevel_ops operations = {
	.init = do_init,
	.lookup = do_lookup,
	.forget = do_forget,
	.forget_multi = do_forget_multi,
	.getattr = do_getattr,
	.setattr = do_setattr,
	.access = do_access,
	.mkdir = do_mkdir,
	.rmdir = do_rmdir,
	.unlink = do_unlink,
	.create = do_create,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.flush = do_flush,
	.release = do_release,
	.fsync = do_fsync,
	.poll = do_poll,
	.opendir = do_opendir,
	.readdir = do_readdir,
	.releasedir = do_releasedir,
	.fsyncdir = do_fsyncdir,
	.flock = do_flock,
	.setlk = do_setlk,
	.getlk = do_getlk,
	.getxattr = do_getxattr,
	.listxattr = do_listxattr,
	.setxattr = do_setxattr,
	.removexattr = do_removexattr,
	.statfs = do_statfs,
	.mknod = do_mknod,
	.symlink = do_symlink,
	.readlink = do_readlink,
	.link = do_link,
	.rename = do_rename,
	.fallocate = do_fallocate,
};

/* --- the session --- */

/* libfuse tells what is wrong in pieces; the last whole line is what we pass on. */
static char last_message[512];
static size_t message_size;

__attribute__((format(printf, 2, 0))) static void on_fuse_log(
	enum fuse_log_level level, const char *format, va_list args)
{
	size_t room = sizeof(last_message) - message_size;
	int size = vsnprintf(last_message + message_size, room, format, args);

	message_size = size < 0 ? 0 : (size_t)size < room ? message_size + (size_t)size : 0;
	if (message_size && last_message[message_size - 1] == '\n') {
		last_message[message_size - 1] = '\0';
		message_size = 0;
		log_trace("libfuse: %s", last_message);
	}
}

static void end(struct mount *mount)
{
	loop_fd_remove(&mount->watch);
	reaper_dismiss(mount->reaper);
	mount->reaper = -1;
	mount->events->ended(mount->user);
}

/* How the kernel begins is what another process has to know of it. */
static void note_init(struct mount *mount, const struct fuse_buf *buffer)
{
	const struct fuse_in_header *header = buffer->mem;
	struct fuse_init_in init = {0};
	ledger_slot slot = 0;

	if (header->opcode != FUSE_INIT)
		return;
	if (buffer->size >= sizeof(*header) + sizeof(init))
		memcpy(&init, header + 1, sizeof(init));
	mount->can_resend = init.flags & FUSE_INIT_EXT && init.flags2 & INIT_CAN_RESEND;
	if (!mount->is_resumed)
		ledger_put(mount->fs.ledger, &slot, LEDGER_INIT, buffer->mem, buffer->size);
}

static void process(struct mount *mount, const struct fuse_buf *buffer)
{
	note_init(mount, buffer);
	mount->unique = ((const struct fuse_in_header *)buffer->mem)->unique;
	fuse_session_process_buf(mount->session, buffer);
}

static void on_readable(struct loop_fd *watch, unsigned int events)
{
	struct mount *mount = container_of(watch, struct mount, watch);

	for (int i = 0; i < REQUESTS_PER_TURN && mount->mounted; i++) {
		int size = fuse_session_receive_buf(mount->session, &mount->buffer);
		if (size == -EAGAIN && mount->is_resuming) {
			mount->is_resuming = false;
			fs_revived(&mount->fs);
		}
		if (size == -EAGAIN || size == -EINTR)
			return;
		if (size <= 0) {
			end(mount);
			return;
		}
		/* The process may have been stopped between any two requests. */
		loop_run_deadlines(mount->fs.loop);
		process(mount, &mount->buffer);
	}
}

int mount_new(struct loop *loop, struct store *store, struct lockspace *space,
	const struct fs_options *options, int argc, char **argv, const struct mount_events *events,
	void *user, struct mount **result)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct mount *mount = xzalloc(sizeof(*mount));

	mount->fs.loop = loop;
	mount->fs.store = store;
	mount->fs.space = space;
	mount->fs.ledger = store->ledger;
	mount->fs.handle_numbers = (uint64_t)loop_clock() << HANDLES_PER_MS;
	mount->fs.options = *options;
	mount->events = events;
	mount->user = user;
	mount->watch.fn = on_readable;
	clock_gettime(CLOCK_REALTIME, &mount->fs.started);
	mount->fs.started_at = loop_clock();
	fuse_set_log_func(on_fuse_log);
	mount->session = fuse_session_new(&args, &operations, sizeof(operations), mount);
	fuse_opt_free_args(&args);
	if (!mount->session) {
		log_error("%s", last_message);
		free(mount);
		return -EINVAL;
	}
	mount->is_resumed = options->resumes;
	mount->reaper = options->resumes ? -1 : reaper_start(options->mount_point);
	if (mount->reaper < 0 && !options->resumes)
		log_warning("nobody will unmount if this process is killed: %s",
			strerror(-mount->reaper));
	nodes_init(&mount->fs);
	*result = mount;
	return 0;
}

static int serve(struct mount *mount)
{
	mount->mounted = true;
	mount->watch.fd = fuse_session_fd(mount->session);
	fcntl(mount->watch.fd, F_SETFL, O_NONBLOCK);
	return loop_fd_add(mount->fs.loop, &mount->watch, LOOP_READ);
}

int mount_attach(struct mount *mount)
{
	const char *where = mount->fs.options.mount_point;
	dev_t device;

	last_message[0] = '\0';
	if (fuse_session_mount(mount->session, where) != 0) {
		/* Else fusermount3, which mounts for who is not root, has said it itself. */
		if (*last_message)
			log_error("can't mount at %s: %s", where, last_message);
		return -EIO;
	}
	if (proc_mount_device(where, &device))
		reaper_arm(mount->reaper, device);
	return serve(mount);
}

struct mount_ends mount_ends(const struct mount *mount)
{
	return (struct mount_ends){.device = mount->watch.fd, .reaper = mount->reaper};
}

bool mount_is_resumable(const struct mount *mount)
{
	return mount->can_resend;
}

/* libfuse is told what it would have been told; that it answers an old question does no harm. */
static void read_init(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct mount *mount = user;
	char *copy = xzalloc(size);

	memcpy(copy, data, size);
	process(mount, &(struct fuse_buf){.mem = copy, .size = size});
	free(copy);
}

static int ask_again(int device)
{
	struct fuse_out_header notice = {.len = sizeof(notice), .error = NOTIFY_RESEND};

	return write(device, &notice, sizeof(notice)) < 0 ? -errno : 0;
}

int mount_resume(struct mount *mount, const struct mount_ends *ends)
{
	char device[32];

	mount->reaper = ends->reaper;
	snprintf(device, sizeof(device), "/dev/fd/%d", ends->device);
	if (fuse_session_mount(mount->session, device) != 0) {
		log_error("can't serve the mount of the former process: %s", last_message);
		return -EIO;
	}
	ledger_each(mount->fs.ledger, LEDGER_INIT, read_init, mount);
	fs_revive(&mount->fs);
	mount->is_resuming = true;
	int error = ask_again(ends->device);
	if (error) {
		log_error("the kernel does not ask again what the former process has not "
			  "answered: %s",
			strerror(-error));
		return error;
	}
	return serve(mount);
}

void mount_tidy(struct mount *mount)
{
	if (mount->mounted && nodes_idle(&mount->fs) > MAX_IDLE_NODES)
		reaper_forget_names(mount->reaper);
}

static void hang_up(struct mount *mount)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup3(null, fuse_session_fd(mount->session), O_CLOEXEC);
	close(null);
}

void mount_detach(struct mount *mount)
{
	if (!mount->mounted)
		return;
	mount->mounted = false;
	loop_fd_remove(&mount->watch);
	fuse_session_unmount(mount->session);
	/* libfuse knows nothing of what it has not mounted, and closes it only in the end. */
	if (mount->is_resumed) {
		hang_up(mount);
		reaper_unmount(mount->reaper);
	} else {
		reaper_dismiss(mount->reaper);
	}
	mount->reaper = -1;
}

void mount_free(struct mount *mount)
{
	if (!mount)
		return;
	mount_detach(mount);
	reaper_dismiss(mount->reaper);
	while (mount->fs.requests) {
		struct request *request = mount->fs.requests;
		fuse_reply_none(request->fuse);
		request_free(request);
	}
	signals_fini(&mount->fs);
	keeps_free(&mount->fs);
	nodes_fini(&mount->fs);
	fuse_session_destroy(mount->session);
	free(mount->buffer.mem);
	free(mount);
}
