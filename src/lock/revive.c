/* SPDX-License-Identifier: MIT */
/*
 * What another process needs to go on with our locks, and going on with another's.
 *
 * A claim is entered before the store is asked for its place, and stays entered until the place is
 * given back.  What had no place yet as far as is known is given back and, when it is asked for
 * again, begun anew; whatever has a place keeps it.
 */
#include "base/buffer.h"
#include "base/log.h"
#include "base/pack.h"
#include "base/util.h"
#include "event/loop.h"
#include "lock/internal.h"

/* --- entering --- */

/* The same in another process: nothing is known of its place, or that it has to be given back. */
static bool is_to_leave(enum claim_state state)
{
	return state == CLAIM_NEW || state == CLAIM_JOINING || state == CLAIM_LEAVING;
}

void holding_enter(struct holding *holding)
{
	struct ledger *ledger = holding->space->ledger;
	struct buffer entry = {0};

	if (!ledger)
		return;
	pack_u64(&entry, holding->claim.state);
	pack_u64(&entry, holding->claim.token);
	pack_u64(&entry, holding->claim.shared);
	pack_u64(&entry, holding->mark);
	pack_string(&entry, holding->place.id);
	pack_string(&entry, holding->named->path);
	record_pack(&entry, &holding->record);
	ledger_put(ledger, &holding->slot, LEDGER_CLAIM, entry.data, entry.size);
	buffer_fini(&entry);
}

void holding_place_lost(struct holding *holding)
{
	if (holding->claim.state == CLAIM_NEW && holding->slot)
		holding_enter(holding);
}

/* --- reviving --- */

struct relic {
	ledger_slot slot;
	enum claim_state state;
	uint64_t token, mark;
	bool shared;
	char *id, *path;
	struct record record;
};

static void on_taken(void *user, int result)
{
}

static void revive_lost(struct holding *holding)
{
	holding->claim.lock = &holding->named->lock;
	holding->claim.state = CLAIM_LOST;
	holding->claim.token = 0;
	holding->claim.answered = true;
	holding->named->lock.claims++;
}

static void revive_placed(struct holding *holding, const struct relic *relic)
{
	bool to_leave = is_to_leave(relic->state), held = relic->state == CLAIM_HELD;

	holding_count(holding);
	lock_adopt(&holding->named->lock, &holding->claim, relic->token, held || to_leave);
	if (to_leave)
		lockspace_release(holding, NULL, NULL);
}

/* Until somebody asks for it again, or has it for a reason that is found. */
static void await_owner(struct holding *holding, const struct relic *relic)
{
	struct lockspace *space = holding->space;

	if (holding->mark)
		HASH_ADD(hh2, space->absent, mark, sizeof(holding->mark), holding);
	copy_string(holding->place.id, sizeof(holding->place.id), relic->id);
	HASH_ADD_STR(space->adoptable, place.id, holding);
}

/* A place of an earlier session has gone with that. */
static void revive(struct lockspace *space, const struct relic *relic)
{
	struct lockspace_request request = {.path = relic->path,
		.shared = relic->shared,
		.record = &relic->record,
		.mark = relic->mark,
		.on_taken = on_taken};
	struct holding *holding = holding_new(space, &request);
	struct named_lock *named = lockspace_get_named(space, relic->path);
	bool was_held = relic->state == CLAIM_HELD || relic->state == CLAIM_LOST;

	holding->slot = relic->slot;
	holding->is_absent = true;
	holding->named = named;
	holding->place.path = named->path;
	bool placed =
		relic->state != CLAIM_LOST &&
		space->store->ops->adopt(space->store, &holding->place, relic->id, relic->token);
	if (!placed && !was_held) {
		holding_free(holding);
		named_settled(named);
		return;
	}
	if (!is_to_leave(relic->state))
		await_owner(holding, relic);
	if (placed)
		revive_placed(holding, relic);
	else
		revive_lost(holding);
}

struct relics {
	struct relic *list;
	size_t count, room;
};

static void relic_fini(struct relic *relic)
{
	record_fini(&relic->record);
	free(relic->id);
	free(relic->path);
}

static void read_claim(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	struct relic relic = {.slot = slot, .state = (enum claim_state)unpack_u64(&from)};
	struct relics *relics = user;

	relic.token = unpack_u64(&from);
	relic.shared = unpack_u64(&from);
	relic.mark = unpack_u64(&from);
	relic.id = unpack_string(&from, NULL);
	relic.path = unpack_string(&from, NULL);
	record_unpack(&from, &relic.record);
	if (from.failed || !relic.id || !relic.path) {
		if (log_admits("locks of the former process", 0, loop_clock()))
			log_error("a lock of the former process can't be read; it is free with the "
				  "lease");
		relic_fini(&relic);
		return;
	}
	if (relics->count == relics->room) {
		relics->room = relics->room * 2 + 64;
		relics->list = xrealloc(relics->list, relics->room, sizeof(relic));
	}
	relics->list[relics->count++] = relic;
}

static int by_token(const void *a, const void *b)
{
	uint64_t x = ((const struct relic *)a)->token, y = ((const struct relic *)b)->token;

	return (x > y) - (x < y);
}

void lockspace_revive(struct lockspace *space)
{
	struct relics relics = {0};

	ledger_each(space->ledger, LEDGER_CLAIM, read_claim, &relics);
	if (relics.count)
		qsort(relics.list, relics.count, sizeof(relics.list[0]), by_token);
	for (size_t i = 0; i < relics.count; i++) {
		revive(space, &relics.list[i]);
		relic_fini(&relics.list[i]);
	}
	free(relics.list);
}

/* --- what becomes of it --- */

static void is_present(struct holding *holding)
{
	struct lockspace *space = holding->space;

	HASH_DEL(space->adoptable, holding);
	if (holding->mark)
		HASH_DELETE(hh2, space->absent, holding);
	holding->is_absent = false;
}

struct holding *lockspace_adopt(
	struct lockspace *space, const char *id, lockspace_lost_fn *on_lost, void *user)
{
	struct holding *holding;

	HASH_FIND_STR(space->adoptable, id, holding);
	if (!holding || (holding->claim.state != CLAIM_HELD && holding->claim.state != CLAIM_LOST))
		return NULL;
	is_present(holding);
	holding->on_lost = on_lost;
	holding->granted_at = loop_clock();
	lockspace_set_user(holding, user);
	/* That a part was given up may not have been told to others, or not all of it. */
	if (holding->record.ranges.count && holding->claim.state == CLAIM_HELD) {
		holding->place.shrunk = true;
		lockspace_write(holding, on_taken, NULL);
	}
	return holding;
}

struct holding *lockspace_take_absent(
	struct lockspace *space, const struct lockspace_request *request)
{
	struct holding *holding = NULL;

	if (space->absent && request->mark)
		HASH_FIND(hh2, space->absent, &request->mark, sizeof(request->mark), holding);
	if (!holding)
		return NULL;
	is_present(holding);
	if (holding->claim.state == CLAIM_LOST) {
		lockspace_release(holding, NULL, NULL);
		return NULL;
	}
	holding->on_taken = request->on_taken;
	holding->on_lost = request->on_lost;
	holding->is_kin = request->is_kin;
	holding->user = request->user;
	if (holding->claim.state == CLAIM_HELD)
		holding_answer(holding, CLAIM_GRANTED);
	else
		lock_kin_changed(&holding->named->lock);
	return holding;
}

/* Those who asked for them are not there any more. */
void lockspace_revived(struct lockspace *space)
{
	while (space->adoptable) {
		struct holding *holding = space->adoptable;
		is_present(holding);
		lockspace_release(holding, NULL, NULL);
	}
}
