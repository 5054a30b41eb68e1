/* SPDX-License-Identifier: MIT */
#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/ledger.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/pulse.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/former.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/node.h"
#include "fs/reaper.h"
#include "fs/revive.h"
#include "fs/search.h"
#include "fs/session.h"
#include "fs/signals.h"
#include "fs/table.h"

enum {
	/* Requests taken from the kernel before other descriptors get their turn. */
	REQUESTS_PER_TURN = 64,
	/* Nodes that nobody has open and the kernel need not forget. */
	MAX_IDLE_NODES = 1000,
	/* As a power of two: so many no process can open. */
	HANDLES_PER_MS = 20,
};

/* Of the kernel's protocol, in words that its older headers do not have. */
enum { NOTIFY_RESEND = 7, INIT_CAN_RESEND = 1 << 7 /* in flags2 */ };

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

/* Instead of libfuse's, which would process it.  Whatever it holds, it goes on to hold. */
static void refuse(const struct mount *mount, const struct fuse_in_header *header)
{
	struct fuse_out_header answer = {
		.len = sizeof(answer), .error = -EIO, .unique = header->unique};

	log_error("two processes that served the mount have died of one request (operation %u, "
		  "user %u, process %u): it fails",
		header->opcode, header->uid, header->pid);
	if (write(fuse_session_fd(mount->session), &answer, sizeof(answer)) < 0)
		log_trace("nobody waits for it: %s", strerror(errno));
}

static void process(struct mount *mount, const struct fuse_buf *buffer)
{
	const struct fuse_in_header *header = buffer->mem;
	struct pulse *pulse = mount->fs.options.pulse;
	uint64_t request = header->unique & ~SESSION_RESENT;

	note_init(mount, buffer);
	mount->unique = header->unique;
	if (header->unique & SESSION_RESENT && pulse_is_deadly(pulse, request)) {
		refuse(mount, header);
		return;
	}
	pulse_at(pulse, request);
	fuse_session_process_buf(mount->session, buffer);
	pulse_at(pulse, 0);
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

static void discard(struct mount *mount)
{
	if (mount->session)
		fuse_session_destroy(mount->session);
	attachment_fini(&mount->attachment);
	free(mount->buffer.mem);
	free(mount);
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
	attachment_init(&mount->attachment, &args);
	mount->fs.kernel_checks = mount->attachment.has_default_permissions;
	mount->session =
		fuse_session_new(&args, &session_operations, sizeof(session_operations), mount);
	fuse_opt_free_args(&args);
	if (!mount->session)
		log_error("%s", last_message);
	if (!mount->session || (!options->resumes && attachment_hold(&mount->attachment,
							     options->mount_point) < 0)) {
		discard(mount);
		return -EINVAL;
	}
	mount->is_resumed = options->resumes;
	mount->reaper = options->resumes ? -1 : reaper_start(options->mount_point);
	if (mount->reaper < 0 && !options->resumes)
		log_warning("nobody will unmount if this process is killed: %s",
			strerror(-mount->reaper));
	handles_init(&mount->fs);
	keeps_init(&mount->fs);
	mount->fs.search = search_new(loop, options->mount_point);
	nodes_init(&mount->fs);
	*result = mount;
	return 0;
}

/* Before anything is answered. */
static void look_at_flags(struct mount *mount)
{
	struct proc_mount found;

	mount->fs.has_symlinks =
		proc_find_mount(mount->fs.options.mount_point, &found) && found.follows_no_symlinks;
}

static int serve(struct mount *mount)
{
	mount->mounted = true;
	mount->watch.fd = fuse_session_fd(mount->session);
	fcntl(mount->watch.fd, F_SETFL, O_NONBLOCK);
	return loop_fd_add(mount->fs.loop, &mount->watch, LOOP_READ);
}

/* libfuse serves what is mounted already. */
static int adopt(struct mount *mount, int device)
{
	char name[32];

	snprintf(name, sizeof(name), "/dev/fd/%d", device);
	return fuse_session_mount(mount->session, name) == 0 ? 0 : -EIO;
}

/* By fusermount3, if only that may. */
static int attach_by_libfuse(struct mount *mount)
{
	const char *where = mount->fs.options.mount_point;

	mount->is_libfuses = true;
	last_message[0] = '\0';
	if (fuse_session_mount(mount->session, where) == 0)
		return 0;
	/* Else fusermount3, which mounts for who is not root, has said it itself. */
	if (*last_message)
		log_error("can't mount at %s: %s", where, last_message);
	return -EIO;
}

int mount_attach(struct mount *mount)
{
	int device = attachment_mount(&mount->attachment);
	dev_t where;
	int error = device < 0 ? device : adopt(mount, device);

	if (device == -EPERM || device == -ENODEV)
		error = attach_by_libfuse(mount);
	attachment_fini(&mount->attachment);
	if (error)
		return error;
	look_at_flags(mount);
	if (proc_mount_device(mount->fs.options.mount_point, &where))
		reaper_arm(mount->reaper, where);
	return serve(mount);
}

bool mount_has_symlinks(const struct mount *mount)
{
	return mount->fs.has_symlinks;
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
	mount->reaper = ends->reaper;
	look_at_flags(mount);
	if (adopt(mount, ends->device) < 0) {
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

/* The reaper's work is done, or is to be done now. */
static void dismiss_reaper(struct mount *mount)
{
	if (mount->is_libfuses)
		reaper_dismiss(mount->reaper);
	else
		reaper_unmount(mount->reaper);
	mount->reaper = -1;
}

void mount_detach(struct mount *mount)
{
	if (!mount->mounted)
		return;
	mount->mounted = false;
	loop_fd_remove(&mount->watch);
	fuse_session_unmount(mount->session);
	/* libfuse knows nothing of what it has not mounted, and closes it only in the end. */
	if (!mount->is_libfuses)
		hang_up(mount);
	if (mount->reaper < 0 && !mount->is_libfuses)
		umount2(mount->fs.options.mount_point, MNT_DETACH | UMOUNT_NOFOLLOW);
	dismiss_reaper(mount);
}

void mount_free(struct mount *mount)
{
	if (!mount)
		return;
	mount_detach(mount);
	/* What could not be gone on with is at its end, too. */
	dismiss_reaper(mount);
	while (mount->fs.requests) {
		struct request *request = mount->fs.requests;
		fuse_reply_none(request->fuse);
		request_free(request);
	}
	fs_readlinks_fini(&mount->fs);
	table_fini(&mount->fs);
	fs_forget_unsaid(&mount->fs);
	signals_fini(&mount->fs);
	search_free(mount->fs.search);
	loop_undefer(mount->fs.loop, &mount->fs.loss_task);
	keeps_free(&mount->fs);
	formers_free(&mount->fs);
	nodes_fini(&mount->fs);
	shares_fini(&mount->fs.handles);
	shares_fini(&mount->fs.watched);
	discard(mount);
}
