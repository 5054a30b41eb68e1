/* SPDX-License-Identifier: MIT */
/* Open lock files: reading, writing, polling, closing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/content.h"
#include "fs/former.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/hints.h"
#include "fs/keep.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/revive.h"
#include "fs/status.h"
#include "fs/steps.h"
#include "lock/lockspace.h"

/* --- open and close --- */

static void opened(struct request *request)
{
	reply_open(request, request->handle);
}

void fs_open(struct request *request, struct node *node, int flags)
{
	if (node->status) {
		status_open(request, node, flags);
		return;
	}
	request->node = node;
	if (!handle_is_possible(request)) {
		reply_error(request, -ENFILE);
		return;
	}
	request->handle = handle_new(request, node, flags);
	if (request->handle->policy.open != STORE_OPEN_LOCK) {
		opened(request);
		return;
	}
	request->kind = STAKE_OPEN;
	request->exclusive = (flags & O_ACCMODE) != O_RDONLY;
	request->wait = !(flags & O_NONBLOCK);
	request->next = opened;
	lock_for_request(request);
}

/* Every close of every duplicate of the descriptor. */
void fs_flush(struct request *request, struct handle *handle, uint64_t owner)
{
	request->node = handle->node;
	stakes_close_owner(handle->node, owner);
	reply_error(request, 0);
}

/* The last one; nobody waits for what it gives back. */
void fs_release(struct request *request, struct handle *handle)
{
	const struct hold *hold = hold_of_handle(handle);

	if (hold && hold_has_stake(hold, STAKE_CREATE) && !keep_of(hold))
		former_add(request->fs, handle);
	if (!handle->node->status && !(hold && keep_of(hold)))
		hint_at_close(handle, hold);
	request->path = xstrdup(handle->node->path);
	stakes_close_handle(handle);
	handle_free(handle);
	reply_error(request, 0);
}

/* --- reading --- */

static void reply_part(struct request *request)
{
	struct handle *handle = request->handle;
	size_t offset = (size_t)request->offset;

	if (offset >= handle->text_size) {
		/* Who has read it all may keep the file open for long. */
		handle_set_text(handle, NULL, 0);
		reply_data(request, NULL, 0);
		return;
	}
	size_t left = handle->text_size - offset;
	reply_data(request, handle->text + offset, left < request->size ? left : request->size);
}

/* What the file reads as, for a holder of which the store or this mount knows. */
static void set_text(struct handle *handle, struct record *record, uint64_t token, bool shared,
	const char *state)
{
	if (record->content_size) {
		struct buffer copy = {0};
		buffer_add(&copy, record->content, record->content_size);
		size_t size = copy.size;
		handle_set_text(handle, buffer_take(&copy), size);
	} else if (handle->policy.record == STORE_RECORD_NO) {
		handle_set_text(handle, NULL, 0);
	} else {
		char *text = fs_record_text(record, token, shared, state);
		handle_set_text(handle, text, strlen(text));
	}
}

static void read_own(struct request *request, const struct hold *hold)
{
	struct store *store = request->fs->store;
	bool doubtful = store->ops->session(store) != STORE_SESSION_HELD;

	set_text(request->handle, lockspace_record(hold->holding), lockspace_token(hold->holding),
		lockspace_is_shared(hold->holding), doubtful ? "doubtful" : "held");
	reply_part(request);
}

static void on_looked_up(void *user, int result, struct store_view *view)
{
	struct request *request = user;
	const struct hold *hold = hold_of_handle(request->handle);

	if (hold && hold->lost) {
		reply_error(request, -EIO);
		return;
	}
	if (hold && (result || !view->record.content_size)) {
		read_own(request, hold);
		return;
	}
	if (result) {
		reply_error(request, result);
		return;
	}
	if (view->kind == STORE_KIND_LOCK)
		set_text(request->handle, &view->record, view->token, view->shared, "held");
	else
		handle_set_text(request->handle, NULL, 0);
	reply_part(request);
}

static void ask_store(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->lookup(store, request->path, on_looked_up, request);
}

void fs_read(struct request *request, struct handle *handle, size_t size, off_t offset)
{
	const struct hold *hold = hold_of_handle(handle);

	request->handle = handle;
	request->size = size;
	request->offset = offset;
	if (handle->node->status) {
		status_read(request);
	} else if (hold && hold->lost) {
		reply_error(request, -EIO);
	} else if (offset && handle->text) {
		reply_part(request);
	} else if (hold && !content_is_of_others(hold)) {
		read_own(request, hold);
	} else {
		request->path = xstrdup(handle->node->path);
		ask_store(request);
	}
}

/* --- writing --- */

static void on_written(void *user, int result)
{
	struct request *request = user;

	if (result)
		reply_error(request, result);
	else
		reply_written(request, request->size);
}

void fs_write(struct request *request, struct handle *handle, const char *data, size_t size,
	off_t offset, bool append)
{
	struct hold *hold = keep_hold_for(handle);

	request->handle = handle;
	request->size = size;
	if (hold && hold->lost) {
		reply_error(request, -EIO);
		return;
	}
	if (!hold || lockspace_is_shared(hold->holding)) {
		reply_error(request, -EPERM);
		return;
	}
	/* The kernel's idea of the end counts the record, which is not content. */
	if (append)
		offset = (off_t)lockspace_record(hold->holding)->content_size;
	int error =
		offset > RECORD_MAX_CONTENT ? -EFBIG : content_check(hold, offset + (off_t)size);
	if (error)
		reply_error(request, error);
	else
		content_write(hold, data, size, offset, on_written, request);
}

/* --- fsync: does it hold? --- */

static void on_confirmed(void *user, int result)
{
	struct request *request = user;
	const struct hold *hold = keep_hold_for(request->handle);

	reply_error(request, !hold || hold->lost ? -EIO : result);
}

void fs_fsync(struct request *request, struct handle *handle)
{
	const struct hold *hold = keep_hold_for(handle);

	request->handle = handle;
	if (hold && hold->lost)
		reply_error(request, -EIO);
	else if (hold)
		lockspace_confirm(hold->holding, on_confirmed, request);
	else
		reply_error(request, -EINVAL); /* success would say that it holds */
}

/* --- poll --- */

void fs_poll(struct request *request, struct handle *handle, uint64_t poll)
{
	const struct hold *hold = hold_of_handle(handle);
	unsigned int events = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;

	if (poll && poll != handle->poll) {
		handle->poll = poll;
		handle_enter(handle);
	}
	if (hold && hold->lost)
		events |= POLLERR | POLLPRI;
	reply_poll(request, events);
}
