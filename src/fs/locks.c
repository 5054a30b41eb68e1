/* SPDX-License-Identifier: MIT */
#include "fs/locks.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "fs/fcntl.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/revive.h"
#include "fs/signals.h"
#include "lock/lockspace.h"

/* --- a loss --- */

/* Nobody is to wait until the lock could be had again to be told of a loss. */
static void on_losses(struct loop_task *task)
{
	struct fs *fs = container_of(task, struct fs, loss_task);
	struct request *request;

	DL_FOREACH2(fs->requests, request, next_request) {
		if (request->holding && lock_has_lost(request))
			stake_look_again(request);
	}
}

void lock_lost(void *user)
{
	struct hold *hold = user;
	struct fs *fs = hold->node->fs;
	const struct stake *stake;

	hold->lost = true;
	DL_FOREACH(hold->stakes, stake) {
		if (stake->handle->poll)
			poll_notify(fs, stake->handle->poll);
	}
	fs->loss_task.fn = on_losses;
	loop_defer(fs->loop, &fs->loss_task);
	signals_add(hold);
	if (keep_of(hold))
		keep_lost(keep_of(hold));
}

/* --- taking --- */

/* What was linked has its content under both names.  Borrowed. */
static void copy_content(const struct request *request, struct record *record)
{
	const struct hold *hold = keep_hold_of(request->source, request->uid);

	record->linked = true;
	if (!hold)
		return;
	record->content = lockspace_record(hold->holding)->content;
	record->content_size = lockspace_record(hold->holding)->content_size;
}

/* The program that opened the file may be a shell whose helper, soon gone, asks for the lock. */
static void fill_record(const struct request *request, struct record *record)
{
	const struct handle *handle = request->handle;
	struct proc_identity who = handle->opener;

	if (!proc_is_alive(who.pid) && request->pid != who.pid)
		proc_identify(request->pid, &who);
	*record = (struct record){.known = true,
		.pid = who.pid,
		.uid = handle->uid,
		.gid = handle->gid,
		.since = time(NULL),
		.cgroup = proc_cgroup(&request->handle->cgroup, who.pid)};
	if (request->kind == STAKE_FCNTL)
		ranges_set(&record->ranges, (struct range){.start = request->start,
						    .end = request->end,
						    .exclusive = request->exclusive});
	if (request->kind == STAKE_CREATE && handle->policy.hold != STORE_HOLD_CLOSE)
		record->hold = handle->policy.hold;
	if (request->source)
		copy_content(request, record);
	if (request->kind == STAKE_CREATE && request->node->is_symlink)
		record->symlink = request->data;
	copy_string(record->host, sizeof(record->host), request->fs->options.host);
	copy_string(record->command, sizeof(record->command), who.command);
}

static bool is_opening(const struct request *request)
{
	return request->kind == STAKE_CREATE || request->kind == STAKE_OPEN;
}

void lock_refuse(struct request *request, int error)
{
	if (is_opening(request))
		handle_free(take(request->handle));
	if (request->kind == STAKE_CREATE)
		node_unref(take(request->node), 1);
	if (request->kind == STAKE_CREATE && (error == -EAGAIN || error == -EISDIR))
		error = -EEXIST;
	reply_error(request, error);
}

/* Others that wait with the same handle or owner have what they want as well: they look again. */
static void wake_sharer(const struct hold *hold, struct request *request)
{
	if (request->kind == STAKE_FCNTL ? stake_is_ready(request)
					 : !hold->of_ranges && hold_is_shared_by(hold, request))
		stake_look_again(request);
}

static void wake_sharers(const struct hold *hold)
{
	const struct stake *stake;
	struct request *request;

	DL_FOREACH(hold->stakes, stake) {
		DL_FOREACH2(stake->handle->pending, request, pending_next) {
			wake_sharer(hold, request);
		}
		if (stake->kind != STAKE_FCNTL)
			continue;
		DL_FOREACH2(hold->node->pending, request, fcntl_next) {
			wake_sharer(hold, request);
		}
	}
	lockspace_kin_changed(hold->holding);
}

static void add_pending(struct request *request)
{
	DL_APPEND2(request->handle->pending, request, pending_prev, pending_next);
	if (request->kind == STAKE_FCNTL)
		DL_APPEND2(request->node->pending, request, fcntl_prev, fcntl_next);
}

static void remove_pending(struct request *request)
{
	DL_DELETE2(request->handle->pending, request, pending_prev, pending_next);
	if (request->kind == STAKE_FCNTL)
		DL_DELETE2(request->node->pending, request, fcntl_prev, fcntl_next);
}

static void on_since_written(void *user, int result)
{
}

/* Who had to wait holds it only now; that is worth a write if it makes a difference. */
static void note_time(struct holding *holding)
{
	struct record *record = lockspace_record(holding);
	time_t now = time(NULL);

	if (record->since == now)
		return;
	record->since = now;
	lockspace_write(holding, on_since_written, NULL);
}

/* The hold of a lock that was granted: a new one, or that in whose place it comes. */
static struct hold *hold_granted(struct request *request, struct holding *holding)
{
	struct hold *hold = request->kind == STAKE_FCNTL ? NULL : hold_find(request);

	if (hold) {
		struct holding *former = hold->holding;
		hold->holding = holding;
		hold_enter(hold);
		lockspace_release(former, NULL, NULL);
	} else {
		hold = hold_new(request->node, holding);
		hold->of_ranges = request->kind == STAKE_FCNTL;
	}
	lockspace_set_user(holding, hold);
	note_time(holding);
	return hold;
}

/* While it was asked for, another owner may have got its part from a hold of their handle. */
static bool comes_too_late(struct request *request, struct holding *holding)
{
	bool has_lost = lock_has_lost(request);

	if (!has_lost && !(request->kind == STAKE_FCNTL && stake_has_rival(request)))
		return false;
	lockspace_release(holding, NULL, NULL);
	if (has_lost)
		lock_refuse(request, -EIO);
	else
		fcntl_lock(request);
	return true;
}

static void granted(struct request *request, struct holding *holding)
{
	if (comes_too_late(request, holding))
		return;
	struct hold *hold = hold_granted(request, holding);
	stake_add(hold, request);
	int error = keep_begin(hold, request);
	if (error) {
		if (log_admits("processes that can't be watched", request->uid, loop_clock()))
			log_info("lock %s: process %d can't be watched: %s", request->node->path,
				(int)request->handle->opener.pid, strerror(-error));
		hold_release(hold, NULL, NULL);
		/* There may be no descriptor left for it. */
		lock_refuse(request, error == -EMFILE || error == -ENFILE ? -ENOSPC : -EPERM);
		return;
	}
	wake_sharers(hold);
	if (request->kind == STAKE_FCNTL)
		fcntl_granted(request, hold);
	else
		request->next(request);
}

static void on_taken(void *user, int result)
{
	struct request *request = user;
	struct holding *holding = take(request->holding);
	bool retry = request->retry && !request->interrupted;

	request->retry = false;
	remove_pending(request);
	if (result == CLAIM_GRANTED) {
		granted(request, holding);
	} else if (result == -EINTR && retry) {
		if (request->kind == STAKE_FCNTL)
			fcntl_lock(request);
		else
			lock_for_request(request);
	} else {
		lock_refuse(request, result == CLAIM_BUSY ? -EAGAIN : result);
	}
}

static void on_interrupt(struct request *request)
{
	request->interrupted = true;
	if (request->holding)
		lockspace_cancel(request->holding);
}

static bool is_kin(const void *user, const void *held)
{
	return hold_is_shared_by(held, user) && !hold_find_rival(held, user);
}

static bool is_whole(const struct request *request)
{
	return request->kind != STAKE_FCNTL || (!request->start && request->end == RANGE_END);
}

static bool has_something(const struct request *request)
{
	const struct hold *hold;

	if (request->kind != STAKE_FCNTL)
		return request->handle->stakes;
	DL_FOREACH(request->node->holds, hold) {
		if (hold_is_shared_by(hold, request))
			return true;
	}
	return false;
}

/*
 * On a local disk who waits with fcntl is in nobody's way, and programs which lock parts of a file,
 * or more and more of it, would wait for each other for ever if that were not so.
 */
static bool is_patient(const struct request *request, bool has_something)
{
	return request->wait && request->kind == STAKE_FCNTL &&
	       (has_something || !is_whole(request));
}

void lock_ask(struct request *request)
{
	struct record record;
	bool more = has_something(request), patient = is_patient(request, more);

	fill_record(request, &record);
	struct lockspace_request take_request = {.path = request->node->path,
		.shared = !request->exclusive,
		.try = !request->wait || patient,
		.patient = patient,
		.instead = more && is_whole(request),
		.is_kin = is_kin,
		.record = &record,
		.on_taken = on_taken,
		.on_lost = lock_lost,
		.mark = request->mark,
		.user = request};
	request->holding = lockspace_take(request->fs->space, &take_request);
	ranges_fini(&record.ranges);
	add_pending(request);
	if (request->wait && !request->interruptible) {
		request->interruptible = true;
		request_on_interrupt(request, on_interrupt);
	}
}

/* What flock(2) calls a conversion gives up the old lock before it asks for the new one. */
static bool is_flock_conversion(const struct request *request, const struct hold *hold)
{
	return request->kind == STAKE_FLOCK && hold_is_only(hold, request->handle, STAKE_FLOCK) &&
	       request->exclusive == lockspace_is_shared(hold->holding);
}

bool lock_has_lost(const struct request *request)
{
	const struct hold *through = hold_of_handle(request->handle), *hold;

	if ((through && through->lost) || request->kind != STAKE_FCNTL)
		return through && through->lost;
	DL_FOREACH(request->node->holds, hold) {
		if (hold->lost && hold_is_shared_by(hold, request))
			return true;
	}
	return false;
}

/* What another process has taken for this very request, and could not say any more. */
static struct hold *find_own(const struct request *request)
{
	struct hold *hold;

	if (!request->again || request->kind != STAKE_CREATE)
		return NULL;
	DL_FOREACH(request->node->holds, hold) {
		if (!hold->lost && lockspace_mark(hold->holding) == request->mark)
			return hold;
	}
	return NULL;
}

void lock_for_request(struct request *request)
{
	struct hold *hold = hold_find(request), *own = find_own(request);

	if (request->node->status) {
		lock_refuse(request, -EPERM);
	} else if (lock_has_lost(request)) {
		lock_refuse(request, -EIO);
	} else if (own) {
		stake_add(own, request);
		request->next(request);
	} else if (hold && is_flock_conversion(request, hold)) {
		hold_settle(stake_remove(request), NULL, NULL);
		lock_ask(request);
	} else if (!hold || (request->exclusive && lockspace_is_shared(hold->holding))) {
		lock_ask(request);
	} else {
		stake_add(hold, request);
		request->next(request);
	}
}

void lock_to_create(struct request *request, request_fn *next)
{
	request->kind = STAKE_CREATE;
	request->exclusive = true;
	request->wait = false;
	request->next = next;
	if (keep_is_possible(request))
		lock_for_request(request);
	else
		lock_refuse(request, -EPERM);
}

static void reply_success(struct request *request)
{
	reply_error(request, 0);
}

static void on_released(void *user, int result)
{
	reply_error(user, result);
}

void lock_given_back(struct request *request)
{
	struct lockspace *space = request->fs->space;
	struct holding *leaving = NULL;

	if (request->again)
		leaving = lockspace_leaving(
			space, request->node->path, false, lockspace_leaves(space));
	if (leaving)
		lockspace_await(leaving, on_released, request);
	else
		reply_error(request, 0);
}

/* --- flock(2) --- */

void fs_flock(struct request *request, struct handle *handle, uint64_t owner, int operation)
{
	request->node = handle->node;
	request->handle = handle;
	handle->has_locked = true;
	request->kind = STAKE_FLOCK;
	request->owner = owner;
	request->wait = !(operation & LOCK_NB);
	request->exclusive = (operation & ~LOCK_NB) == LOCK_EX;
	request->next = reply_success;
	if ((operation & ~LOCK_NB) != LOCK_UN) {
		lock_for_request(request);
		return;
	}
	stakes_admit_loss(request);
	struct hold *hold = stake_remove(request);
	if (!hold || !hold_settle(hold, on_released, request))
		lock_given_back(request);
}
