/* SPDX-License-Identifier: MIT */
/* What holders write into their lock files, and asking the store about a lock that is held. */
#include <errno.h>
#include <string.h>
#include <utlist.h>

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

/* --- when it is written --- */

/*
 * Every write of a record stays in etcd's history until that is compacted, so nobody may write as
 * often as he likes: a few puts of a holding at once, and then one in so many milliseconds, which
 * takes along what others have changed meanwhile; and of all of the mount so many bytes of content
 * in a second, and of those that they have saved up.
 */
enum {
	GATHER_MS = 100,
	AHEAD_MS = 4 * GATHER_MS,
	SECONDS_SAVED = 8,
	LONG_AGO_MS = 3600 * 1000,
};

static void start_write(struct holding *holding);

static void refill(struct lockspace *space)
{
	int64_t most = SECONDS_SAVED * space->write_rate, now = loop_clock();
	int64_t elapsed = now - space->budget_at;

	elapsed = elapsed < LONG_AGO_MS ? elapsed : LONG_AGO_MS;
	space->budget += elapsed * space->write_rate / 1000;
	space->budget = space->budget < most ? space->budget : most;
	space->budget_at = now;
}

/* The first, or the first of another user than the one who had the last turn. */
static struct holding *next_to_write(struct lockspace *space)
{
	struct holding *holding;

	DL_FOREACH2(space->writing, holding, writing_next) {
		if (holding->record.uid != space->last_writer)
			return holding;
	}
	return space->writing;
}

static void leave_line(struct holding *holding)
{
	if (holding->in_line)
		DL_DELETE2(holding->space->writing, holding, writing_prev, writing_next);
	holding->in_line = false;
}

/* What is not held any more is not written any more. */
static void take_turn(struct holding *holding)
{
	leave_line(holding);
	if (holding->claim.state == CLAIM_HELD)
		start_write(holding);
	else
		contents_give_up(holding);
}

static void serve_line(struct lockspace *space)
{
	refill(space);
	while (space->writing && space->budget > 0)
		take_turn(next_to_write(space));
	if (space->writing)
		loop_timer_arm(space->loop, &space->budget_timer,
			loop_clock() + 1 - space->budget * 1000 / space->write_rate);
}

static void on_budget(struct loop_timer *timer)
{
	serve_line(container_of(timer, struct lockspace, budget_timer));
}

/* Its turn comes when it was gathered for long enough and there are bytes left. */
static void join_line(struct holding *holding)
{
	struct lockspace *space = holding->space;

	if (holding->in_line || loop_timer_armed(&holding->gather))
		return;
	if (loop_clock() < holding->writes_at) {
		loop_timer_arm(space->loop, &holding->gather, holding->writes_at);
		return;
	}
	holding->in_line = true;
	DL_APPEND2(space->writing, holding, writing_prev, writing_next);
	serve_line(space);
}

static void on_gathered(struct loop_timer *timer)
{
	join_line(container_of(timer, struct holding, gather));
}

static void on_impatient(struct loop_timer *timer)
{
	struct holding *holding = container_of(timer, struct holding, impatience);
	int64_t next = waiters_expire(&holding->writers, loop_clock(), -EIO);

	if (next)
		loop_timer_arm(holding->space->loop, &holding->impatience, next);
	else if (!holding->is_parked && holding_may_be_freed(holding))
		holding_free(holding);
}

void contents_init(struct holding *holding)
{
	holding->gather.fn = on_gathered;
	holding->impatience.fn = on_impatient;
	holding->space->budget_timer.fn = on_budget;
}

void contents_fini(struct holding *holding)
{
	leave_line(holding);
	loop_timer_disarm(&holding->gather);
	loop_timer_disarm(&holding->impatience);
}

void contents_give_up(struct holding *holding)
{
	if (!holding->writers)
		return;
	waiters_hurry(holding->writers, loop_clock());
	loop_timer_arm(holding->space->loop, &holding->impatience, loop_clock());
}

/* --- writing it --- */

static void on_written(void *user, int result);

static void start_write(struct holding *holding)
{
	struct lockspace *space = holding->space;
	int64_t now = loop_clock();

	leave_line(holding);
	loop_timer_disarm(&holding->gather);
	if (holding->writes_at < now - AHEAD_MS)
		holding->writes_at = now - AHEAD_MS;
	holding->writes_at += GATHER_MS;
	space->budget -= (int64_t)holding->record.content_size;
	space->last_writer = holding->record.uid;
	holding->writing = holding->record.version;
	holding_enter(holding);
	space->store->ops->write(space->store, &holding->place, on_written, holding);
}

/* What was given up is told at once, since others wait for it. */
static void write_soon(struct holding *holding)
{
	if (holding->place.shrunk)
		start_write(holding);
	else
		join_line(holding);
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
		write_soon(holding);
}

/* One write at a time: the next one takes along whatever was changed meanwhile. */
void lockspace_write(struct holding *holding, lockspace_done_fn *on_done, void *user)
{
	struct lockspace *space = holding->space;
	bool reachable = space->store->ops->reachable(space->store);

	waiters_add(&holding->writers, on_done, user, ++holding->record.version);
	/* What is under way may take as long as it likes. */
	waiters_limit(holding->writers, loop_clock() + (reachable ? space->timeout : 0));
	if (!reachable || !loop_timer_armed(&holding->impatience))
		loop_timer_arm(space->loop, &holding->impatience, holding->writers->prev->deadline);
	if (!holding->writing)
		write_soon(holding);
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
