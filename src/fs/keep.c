/* SPDX-License-Identifier: MIT */
#include "fs/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/signals.h"
#include "lock/lockspace.h"

/* Descriptors that connections to the store may need. */
enum { SPARED = 40 };

static const struct shares_kind watched_kind = {.resource = "processes",
	.what = "processes are watched for hold=process",
	.option = "open files",
	.error = "ENOSPC"};

struct keep {
	struct fs *fs;
	struct handle *handle;  /* nobody else's; its stake is in the hold, while there is one */
	struct loop_fd process; /* whose death ends it; fd -1: nobody's */
	uint64_t started;       /* when that began, see proc.h */
	struct loop_task end;
	struct keep *prev, *next; /* in fs->keeps */
};

static void stop_watching(struct keep *keep)
{
	loop_undefer(keep->fs->loop, &keep->end);
	loop_fd_remove(&keep->process);
	if (keep->process.fd >= 0) {
		close(keep->process.fd);
		shares_give(&keep->fs->watched, keep->handle->uid, 1);
	}
	DL_DELETE(keep->fs->keeps, keep);
}

/* With its stake, if it still has one. */
static void keep_free(struct keep *keep)
{
	stop_watching(keep);
	stakes_close_handle(keep->handle);
	handle_free(keep->handle);
	free(keep);
}

/* Who starts a program to take a lock does not mean the lock to end with that program. */
static void hint_at_name(const struct keep *keep)
{
	enum { AT_ONCE = 1000 };
	const char *command = keep->handle->opener.command;

	if (loop_clock() - keep->handle->opened_at < AT_ONCE &&
		hint_is_due(keep->fs, command, keep->handle->node->path))
		log_info("lock %s: %s took it and ended at once, which gave it back; if it was "
			 "taken for the program that started it, the directory needs hold=name",
			keep->handle->node->path, command);
}

static void log_end(const struct hold *hold)
{
	const struct record *record = lockspace_record(hold->holding);

	if (log_admits("processes that have ended", record->uid, loop_clock()))
		log_info("lock %s: process %d has ended", hold->node->path, (int)record->pid);
}

static void on_process_ended(struct loop_fd *watch, unsigned int events)
{
	struct keep *keep = container_of(watch, struct keep, process);
	const struct stake *stake = keep->handle->stakes;

	/* A lost hold ends its keep in the next turn, and may have been released before. */
	if (!stake || stake->hold->lost)
		return;
	log_end(stake->hold);
	hint_at_name(keep);
	keep_release(stake->hold, keep->handle->opener.pid, NULL, NULL);
}

static void on_end(struct loop_task *task)
{
	struct keep *keep = container_of(task, struct keep, end);
	const struct stake *stake;

	DL_FOREACH2(keep->handle->stakes, stake, handle_next) {
		signals_outlive(stake->hold);
	}
	keep_free(keep);
}

void keeps_init(struct fs *fs)
{
	unsigned long files = limits_open_files();

	shares_init(&fs->watched, &watched_kind, files > SPARED ? files - SPARED : 0,
		(unsigned int)fs->options.user_share);
}

bool keep_is_possible(const struct request *request)
{
	const struct handle *handle = request->handle;

	if (handle->policy.hold != STORE_HOLD_PROCESS || handle->opener.pid)
		return true;
	if (log_admits("processes that can't be seen", request->uid, loop_clock()))
		log_info("lock %s: hold=process needs a process that can be seen from here",
			request->path);
	return false;
}

/* Returns a descriptor, or -errno. */
static int open_process(pid_t pid)
{
	int fd = proc_open(pid);

	if (fd >= 0 && limits_is_spared(fd, SPARED)) {
		close(fd);
		return -EMFILE;
	}
	return fd;
}

static void add_keep(struct keep *keep, struct handle *handle)
{
	struct fs *fs = handle->node->fs;

	keep->fs = fs;
	keep->handle = handle;
	keep->handle->keep = keep;
	keep->end.fn = on_end;
	DL_APPEND(fs->keeps, keep);
}

int keep_begin(struct hold *hold, const struct request *request)
{
	enum store_hold policy = request->handle->policy.hold;
	struct fs *fs = request->fs;
	int process = -1;

	if (request->kind != STAKE_CREATE || policy == STORE_HOLD_CLOSE)
		return 0;
	if (policy == STORE_HOLD_PROCESS) {
		if (!shares_allow(&fs->watched, request->uid, 1, loop_clock()))
			return -EMFILE;
		process = open_process(request->handle->opener.pid);
		if (process < 0)
			return process;
	}
	struct keep *keep = xzalloc(sizeof(*keep));
	keep->process = (struct loop_fd){.fd = process, .fn = on_process_ended};
	int error = process < 0 ? 0 : loop_fd_add(fs->loop, &keep->process, LOOP_READ);
	if (error) {
		close(process);
		free(keep);
		return error;
	}
	if (process >= 0) {
		keep->started = proc_started(request->handle->opener.pid);
		shares_take(&fs->watched, request->uid, 1);
	}
	add_keep(keep, handle_new(request, hold->node, O_RDWR));
	stake_add(hold, &(struct request){.kind = STAKE_KEPT, .handle = keep->handle});
	return 0;
}

void keep_revive(struct hold *hold, struct handle *handle, uint64_t started)
{
	struct keep *keep = xzalloc(sizeof(*keep));

	keep->process = (struct loop_fd){.fd = -1, .fn = on_process_ended};
	keep->started = started;
	add_keep(keep, handle);
	stake_revive(hold, STAKE_KEPT, handle, 0);
}

/* Its number may be another's by now. */
static int find_process(const struct keep *keep)
{
	pid_t pid = keep->handle->opener.pid;
	int fd = proc_open(pid);

	if (fd >= 0 && proc_started(pid) != keep->started) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

void keep_revived(struct hold *hold)
{
	struct keep *keep = keep_of(hold);

	if (!keep || keep->handle->policy.hold != STORE_HOLD_PROCESS)
		return;
	pid_t pid = keep->handle->opener.pid;
	int error = 0, fd = find_process(keep);
	if (fd >= 0) {
		keep->process.fd = fd;
		shares_take(&keep->fs->watched, keep->handle->uid, 1);
		error = loop_fd_add(keep->fs->loop, &keep->process, LOOP_READ);
	}
	if (fd == -ESRCH) {
		log_end(hold);
		keep_release(hold, pid, NULL, NULL);
	} else if ((fd < 0 || error) &&
		   log_admits("processes that can't be watched", keep->handle->uid, loop_clock())) {
		log_warning("lock %s: process %d can't be watched any more (%s): it is held until "
			    "it is unlinked",
			hold->node->path, (int)pid, strerror(fd < 0 ? -fd : -error));
	}
}

uint64_t keep_started(const struct keep *keep)
{
	return keep->started;
}

struct keep *keep_of(const struct hold *hold)
{
	const struct stake *stake;

	DL_SEARCH_SCALAR(hold->stakes, stake, kind, STAKE_KEPT);
	return stake ? stake->handle->keep : NULL;
}

void keep_lost(struct keep *keep)
{
	loop_defer(keep->fs->loop, &keep->end);
}

void keep_release(struct hold *hold, pid_t process, hold_done_fn *fn, void *user)
{
	struct keep *keep = keep_of(hold);

	hold_end(hold, process, fn, user);
	if (keep)
		keep_free(keep);
}

void keep_drop(struct hold *hold)
{
	struct keep *keep = keep_of(hold);

	hold_free(hold);
	if (keep)
		keep_free(keep);
}

struct hold *keep_hold_of(const struct node *node, uid_t uid)
{
	struct hold *hold;

	DL_FOREACH(node->holds, hold) {
		if (!hold->lost && keep_of(hold) &&
			(uid == 0 || uid == lockspace_record(hold->holding)->uid))
			return hold;
	}
	return NULL;
}

struct hold *keep_hold_for(const struct handle *handle)
{
	struct hold *hold = hold_of_handle(handle);

	return hold ? hold : keep_hold_of(handle->node, handle->uid);
}

void keeps_free(struct fs *fs)
{
	while (fs->keeps) {
		struct keep *keep = fs->keeps;
		stop_watching(keep);
		keep->handle->keep = NULL;
		free(keep);
	}
}
