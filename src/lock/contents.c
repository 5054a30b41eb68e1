/* SPDX-License-Identifier: MIT */
/* What holders write into their lock files, and asking the store about a lock that is held. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "lock/internal.h"

/* --- how much it is --- */

bool content_fits(struct lockspace *space, uid_t uid, size_t more)
{
	return shares_allow(&space->content, uid, more, loop_clock());
}

bool lockspace_has_room(struct holding *holding, size_t size)
{
	size_t now = holding->record.content_size;

	return content_fits(holding->space, holding->record.uid, size > now ? size - now : 0);
}

void lockspace_resize(struct holding *holding, size_t size)
{
	struct record *record = &holding->record;
	size_t now = record->content_size;

	if (!size) {
		free(take(record->content));
	} else {
		record->content = xrealloc(record->content, size, 1);
		if (size > now)
			memset(record->content + now, 0, size - now);
	}
	record->content_size = size;
	shares_give(&holding->space->content, record->uid, now);
	shares_take(&holding->space->content, record->uid, size);
}

struct record *lockspace_record(struct holding *holding)
{
	return &holding->record;
}

/* --- writing it --- */

static void on_written(void *user, int result);

static void start_write(struct holding *holding)
{
	struct store *store = holding->space->store;

	holding->writing = holding->record.version;
	holding_enter(holding);
	store->ops->write(store, &holding->place, on_written, holding);
}

/* Until all are told, `writing` keeps the holding from being freed under us. */
static void on_written(void *user, int result)
{
	struct holding *holding = user;
	uint64_t version = holding->place.written_version;

	if (version < holding->writing)
		version = holding->writing;
	waiters_tell(&holding->writers, version, result > 0 ? -EIO : result);
	while (holding->writers && holding->claim.state != CLAIM_HELD)
		waiters_tell(&holding->writers, UINT64_MAX, -EIO);
	/* With the session all that is held is lost, of which the news comes next. */
	if (result == STORE_LOST)
		waiters_tell(&holding->writers, UINT64_MAX, -EIO);
	holding->writing = 0;
	if (holding_may_be_freed(holding))
		holding_free(holding);
	else if (result == STORE_LOST)
		return;
	else if (holding->writers || (holding->place.shrunk && holding->claim.state == CLAIM_HELD))
		start_write(holding);
}

/* One write at a time: the next one takes along whatever was changed meanwhile. */
void lockspace_write(struct holding *holding, lockspace_done_fn *on_done, void *user)
{
	waiters_add(&holding->writers, on_done, user, ++holding->record.version);
	if (!holding->writing)
		start_write(holding);
}

/* --- does it hold? --- */

struct confirmation {
	lockspace_done_fn *fn;
	void *user;
};

static void on_confirmed(void *user, int result)
{
	struct confirmation *confirmation = user;

	confirmation->fn(confirmation->user, result ? -EIO : 0);
	free(confirmation);
}

void lockspace_confirm(struct holding *holding, lockspace_done_fn *on_done, void *user)
{
	struct store *store = holding->space->store;
	struct confirmation *confirmation = xzalloc(sizeof(*confirmation));

	confirmation->fn = on_done;
	confirmation->user = user;
	store->ops->confirm(store, &holding->place, on_confirmed, confirmation);
}
