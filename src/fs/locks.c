/* SPDX-License-Identifier: MIT */
#include "fs/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/signals.h"
#include "lock/lockspace.h"

/* --- a loss --- */

static void on_lost(void *user)
{
	struct hold *hold = user;
	const struct stake *stake;

	hold->lost = true;
	DL_FOREACH(hold->stakes, stake) {
		if (stake->handle->poll)
			poll_notify(take(stake->handle->poll));
	}
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
		.since = time(NULL)};
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
	if (!hold_is_shared_by(
		    hold, request->handle, (enum stake_kind)request->kind, request->owner))
		return;
	request->retry = true;
	lockspace_cancel(request->holding);
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

static void on_replaced(void *user, int result)
{
	struct request *request = user;

	request->next(request);
}

static void granted(struct request *request, struct holding *holding)
{
	bool downgraded = request->downgrade;
	struct node *node = request->node;
	struct hold *hold =
		hold_find(node, request->handle, (enum stake_kind)request->kind, request->owner);

	if (hold && hold->lost) {
		lockspace_release(holding, NULL, NULL);
		lock_refuse(request, -EIO);
		return;
	}
	if (hold) {
		/* After a downgrade a try elsewhere is to find only what is left. */
		lockspace_release(hold->holding, downgraded ? on_replaced : NULL, request);
		hold->holding = holding;
	} else {
		hold = hold_new(node, holding);
		downgraded = false;
	}
	lockspace_set_user(holding, hold);
	note_time(holding);
	stake_add(hold, request);
	int error = keep_begin(hold, request);
	if (error) {
		log_info("lock %s: process %d can't be watched: %s", node->path,
			(int)request->handle->opener.pid, strerror(-error));
		hold_release(hold, NULL, NULL);
		/* There may be no descriptor left for it. */
		lock_refuse(request, error == -EMFILE || error == -ENFILE ? -ENOSPC : -EPERM);
		return;
	}
	wake_sharers(hold);
	if (!downgraded)
		request->next(request);
}

/* What it has is more than it asked for; that excludes whom it must. */
static void keep_stronger(struct request *request)
{
	struct hold *hold = hold_find(
		request->node, request->handle, (enum stake_kind)request->kind, request->owner);

	if (!hold || hold->lost) {
		lock_refuse(request, -EIO);
		return;
	}
	stake_add(hold, request);
	request->next(request);
}

static void on_taken(void *user, int result)
{
	struct request *request = user;
	struct holding *holding = take(request->holding);

	remove_pending(request);
	if (result == CLAIM_GRANTED) {
		granted(request, holding);
	} else if (result == -EINTR && request->retry) {
		request->retry = false;
		lock_for_request(request);
	} else if (request->downgrade) {
		keep_stronger(request);
	} else {
		lock_refuse(request, result == CLAIM_BUSY ? -EAGAIN : result);
	}
}

static void on_interrupt(struct request *request)
{
	if (request->holding)
		lockspace_cancel(request->holding);
}

static void ask(struct request *request, struct holding *replaces)
{
	struct record record;

	fill_record(request, &record);
	struct lockspace_request take_request = {.path = request->node->path,
		.shared = !request->exclusive,
		.try = !request->wait || request->downgrade,
		.replaces = replaces,
		.record = &record,
		.on_taken = on_taken,
		.on_lost = on_lost,
		.user = request};
	request->holding = lockspace_take(request->fs->space, &take_request);
	add_pending(request);
	if (!take_request.try && !request->interruptible) {
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

/* It may not open a gap: the shared place has to be there before the exclusive one goes. */
static bool is_fcntl_downgrade(const struct request *request, const struct hold *hold)
{
	return request->kind == STAKE_FCNTL && !request->exclusive &&
	       !lockspace_is_shared(hold->holding) && stake_is_covered(hold, request);
}

void lock_for_request(struct request *request)
{
	struct hold *hold = hold_find(
		request->node, request->handle, (enum stake_kind)request->kind, request->owner);
	const struct hold *through = hold_of_handle(request->handle);

	if ((hold && hold->lost) || (through && through->lost)) {
		lock_refuse(request, -EIO);
	} else if (!hold) {
		ask(request, NULL);
	} else if (is_flock_conversion(request, hold)) {
		hold_release(hold, NULL, NULL);
		ask(request, NULL);
	} else if (request->exclusive && lockspace_is_shared(hold->holding)) {
		ask(request, hold->holding);
	} else if (is_fcntl_downgrade(request, hold)) {
		request->downgrade = true;
		ask(request, hold->holding);
	} else {
		keep_stronger(request);
	}
}

static void reply_success(struct request *request)
{
	reply_error(request, 0);
}

static void on_released(void *user, int result)
{
	reply_error(user, result);
}

/* --- flock(2) --- */

void fs_flock(struct request *request, struct handle *handle, uint64_t owner, int operation)
{
	struct hold *lost = hold_of_handle(handle);

	request->node = handle->node;
	request->handle = handle;
	request->kind = STAKE_FLOCK;
	request->owner = owner;
	request->wait = !(operation & LOCK_NB);
	request->exclusive = (operation & ~LOCK_NB) == LOCK_EX;
	request->next = reply_success;
	if ((operation & ~LOCK_NB) != LOCK_UN) {
		lock_for_request(request);
		return;
	}
	/* Unlocking is how a program says that it knows of a loss. */
	struct hold *hold = lost && lost->lost ? lost : stake_remove(request);
	if (hold)
		hold_release(hold, on_released, request);
	else
		reply_error(request, 0);
}

/* --- fcntl(2) --- */

void fs_setlk(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end, bool wait)
{
	request->node = handle->node;
	request->handle = handle;
	request->kind = STAKE_FCNTL;
	request->owner = owner;
	request->start = start;
	request->end = end;
	request->wait = wait;
	request->exclusive = type == F_WRLCK;
	request->next = reply_success;
	if (!stake_may_change(request, type != F_UNLCK)) {
		reply_error(request, -ENOSPC);
		return;
	}
	if (type != F_UNLCK) {
		lock_for_request(request);
		return;
	}
	struct hold *hold = stake_remove(request);
	if (hold)
		hold_release(hold, on_released, request);
	else
		reply_error(request, 0);
}

/* The holders are the first in the queue, and the shared ones that follow it if it is shared. */
static const struct store_contender *find_conflict(
	const struct store_queue *queue, const struct request *request, const struct hold *mine)
{
	for (size_t i = 0; i < queue->count; i++) {
		const struct store_contender *contender = &queue->contenders[i];
		if (i && !(queue->contenders[0].shared && contender->shared))
			break;
		if (contender->ours && mine &&
			lockspace_holding_of(contender->ours) == mine->holding)
			continue;
		if (request->exclusive || !contender->shared)
			return contender;
	}
	return NULL;
}

static void on_queue_read(void *user, int result, const struct store_queue *queue)
{
	struct request *request = user;
	const struct hold *mine =
		hold_find(request->node, request->handle, STAKE_FCNTL, request->owner);

	if (result) {
		reply_error(request, result);
		return;
	}
	const struct store_contender *conflict = find_conflict(queue, request, mine);
	if (!conflict) {
		reply_lock(request, F_UNLCK, 0);
		return;
	}
	/* A process of another machine has no number here. */
	pid_t pid =
		conflict->ours ? lockspace_record(lockspace_holding_of(conflict->ours))->pid : 0;
	reply_lock(request, conflict->shared ? F_RDLCK : F_WRLCK, pid);
}

void fs_getlk(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end)
{
	struct store *store = request->fs->store;
	const struct hold *hold = hold_of_handle(handle);

	request->node = handle->node;
	request->handle = handle;
	request->owner = owner;
	request->exclusive = type == F_WRLCK;
	if (hold && hold->lost)
		reply_error(request, -EIO);
	else
		store->ops->queue(store, handle->node->path, on_queue_read, request);
}
