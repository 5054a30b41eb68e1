/* SPDX-License-Identifier: MIT */
/* What the kernel asks, as libfuse calls it: finds out what it is about, and passes it on. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/revive.h"
#include "fs/session.h"

/* Releases beyond this number would be overtaken by later requests. */
enum { MAX_BACKGROUND = 60000 };

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
		fs_opendir(request, node_of(req, ino), info->flags);
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

	if (!handle)
		return;
	struct request *request = request_new(req, wait ? "SETLKW" : "SETLK");
	/* The process; what comes with every request is the thread. */
	if (lock->l_pid)
		request->pid = lock->l_pid;
	fs_setlk(request, handle, info->lock_owner, lock->l_type, (uint64_t)lock->l_start,
		last_byte(lock), wait);
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

const struct fuse_lowlevel_ops session_operations = {
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
