/* SPDX-License-Identifier: MIT */
#include "fs/signals.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/stake.h"
#include "lock/lockspace.h"

/* --- who holds it --- */

static bool has_stake_of(const struct hold *hold, const struct handle *handle)
{
	struct stake *stake;

	DL_SEARCH_SCALAR(hold->stakes, stake, handle, handle);
	return stake;
}

enum opened { OPENED_NOTHING, OPENED_ANOTHER, OPENED_THIS };

/* Whether it opened a handle of the hold, or only others of the file. */
static enum opened what_was_opened(const struct hold *hold, pid_t pid)
{
	const struct handle *handle;
	enum opened opened = OPENED_NOTHING;

	DL_FOREACH(hold->node->handles, handle) {
		if (handle->opener.pid != pid)
			continue;
		if (has_stake_of(hold, handle))
			return OPENED_THIS;
		opened = OPENED_ANOTHER;
	}
	return opened;
}

/*
 * True if the process has the file open only to wait for the lock, or to look at it.  What it did
 * not open itself it has from the nearest of its parents that did.
 */
static bool is_bystander(const struct hold *hold, pid_t pid)
{
	for (; pid > 1; pid = proc_parent(pid)) {
		enum opened opened = what_was_opened(hold, pid);
		if (opened != OPENED_NOTHING)
			return opened == OPENED_ANOTHER;
	}
	return false;
}

/* --- signalling them --- */

/*
 * To none that the holder's user could not signal: who has a file open may have been handed it by
 * somebody who then breaks his own lock.
 */
static void send_signal(struct hold *hold, pid_t pid)
{
	uid_t uid = lockspace_record(hold->holding)->uid;

	if (pid <= 1 || pid == getpid() || !proc_may_signal(uid, pid) ||
		kill(pid, hold->signal) < 0)
		return;
	log_warning("lock %s was lost: signal %d sent to process %d", hold->node->path,
		hold->signal, (int)pid);
	hold->signaled = pid;
}

/* What one pass is about: holds in the order of the inode numbers that their files show. */
struct pass {
	struct hold **holds;
	size_t count;
};

static int by_inode(const void *a, const void *b)
{
	uint64_t x = node_shown_inode((*(struct hold *const *)a)->node);
	uint64_t y = node_shown_inode((*(struct hold *const *)b)->node);

	return (x > y) - (x < y);
}

/* The place of the first hold with that number, or a larger one. */
static size_t find_inode(const struct pass *pass, uint64_t inode)
{
	size_t low = 0, high = pass->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (node_shown_inode(pass->holds[middle]->node) < inode)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool has_inode(const struct pass *pass, size_t at, uint64_t inode)
{
	return at < pass->count && node_shown_inode(pass->holds[at]->node) == inode;
}

static bool is_wanted(void *user, uint64_t inode)
{
	const struct pass *pass = user;

	return has_inode(pass, find_inode(pass, inode), inode);
}

static void on_open_file(void *user, pid_t pid, uint64_t inode)
{
	const struct pass *pass = user;

	for (size_t i = find_inode(pass, inode); has_inode(pass, i, inode); i++) {
		struct hold *hold = pass->holds[i];
		/* Once, however often it has the file open. */
		if (hold->signaled != pid && !is_bystander(hold, pid))
			send_signal(hold, pid);
	}
}

static void on_signals(struct loop_task *task)
{
	struct fs *fs = container_of(task, struct fs, signal_task);
	struct pass pass = {0};
	struct hold *hold;
	dev_t device;

	DL_COUNT2(fs->signals, hold, pass.count, signal_next);
	pass.holds = xzalloc(pass.count * sizeof(pass.holds[0]));
	pass.count = 0;
	DL_FOREACH2(fs->signals, hold, signal_next) {
		pass.holds[pass.count++] = hold;
	}
	qsort(pass.holds, pass.count, sizeof(pass.holds[0]), by_inode);
	if (proc_mount_device(fs->options.mount_point, &device))
		proc_find_open_files(device, is_wanted, on_open_file, &pass);
	free(pass.holds);
	while ((hold = fs->signals)) {
		const struct record *record = lockspace_record(hold->holding);
		/* The creator of a lock that goes by its name only may be long gone, and its number
		 * reused. */
		if (!hold->signaled && record->hold != STORE_HOLD_NAME)
			send_signal(hold, record->pid);
		signals_remove(hold);
	}
}

void signals_add(struct hold *hold)
{
	struct fs *fs = hold->node->fs;
	enum store_on_loss on_loss =
		hold->stakes ? hold->stakes->handle->policy.on_loss : STORE_ON_LOSS_ERROR;

	if (on_loss != STORE_ON_LOSS_TERM && on_loss != STORE_ON_LOSS_KILL)
		return;
	hold->signal = on_loss == STORE_ON_LOSS_TERM ? SIGTERM : SIGKILL;
	hold->signaled = 0;
	DL_APPEND2(fs->signals, hold, signal_prev, signal_next);
	fs->signal_task.fn = on_signals;
	loop_defer(fs->loop, &fs->signal_task);
}

void signals_remove(struct hold *hold)
{
	if (hold->signal)
		DL_DELETE2(hold->node->fs->signals, hold, signal_prev, signal_next);
	hold->signal = 0;
}

void signals_fini(struct fs *fs)
{
	loop_undefer(fs->loop, &fs->signal_task);
}
