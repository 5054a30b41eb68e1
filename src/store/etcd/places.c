/* SPDX-License-Identifier: MIT */
/* Places in the queues of locks: joining, trying, leaving. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"

static const char *mark_of(const struct store_place *place)
{
	if (place->record->symlink)
		return "l-";
	return place->shared ? "s-" : "";
}

static char *range_mark_of(const struct store_place *place)
{
	const struct ranges *ranges = &place->record->ranges;

	if (!ranges->count)
		return xstrdup("");
	return key_range_mark(ranges->list[0].start, ranges->list[ranges->count - 1].end);
}

/* Gives the place a name that nobody has, and remembers it. */
static void enter_place(struct etcd *etcd, struct store_place *place)
{
	cleanup(free_ptr) char *range = range_mark_of(place);
	struct etcd_number number = etcd_number_take(etcd, place->path);

	snprintf(place->id, sizeof(place->id), "%s%" PRIx64 ".%" PRIx64 "%s", mark_of(place),
		etcd->lease.id, number.number, range);
	place->former = number.gone;
	place->epoch = etcd->numbers_epoch;
	place->token = 0;
	place->placed = false;
	place->clean = false;
	place->deleted = 0;
	place->leaving = false;
	place->leave = NULL;
	HASH_ADD_STR(etcd->places, id, place);
}

static void placed(struct etcd *etcd, struct store_place *place, uint64_t token)
{
	place->token = token;
	/* Unless the store has gone back in time, in which case nothing is known of before. */
	if (token <= place->former)
		place->former = 0;
	place->placed = true;
	place->placed_at = ++etcd->clock;
}

bool etcd_adopt(struct store *store, struct store_place *place, const char *id, uint64_t token)
{
	struct etcd *etcd = etcd_of(store);

	if (!etcd_is_of_session(etcd, id))
		return false;
	copy_string(place->id, sizeof(place->id), id);
	place->former = 0;
	place->clean = false;
	HASH_ADD_STR(etcd->places, id, place);
	placed(etcd, place, token);
	return true;
}

static void forget_place(struct etcd *etcd, struct store_place *place)
{
	struct store_place *found;

	place->placed = false;
	HASH_FIND_STR(etcd->places, place->id, found);
	if (found == place)
		HASH_DEL(etcd->places, place);
}

/* Nothing is left of what had that name in that epoch, nor under way. */
static void keep_number(const struct etcd_op *op, unsigned int epoch, uint64_t revision)
{
	struct etcd_number number = {.gone = revision};

	if (epoch == op->etcd->numbers_epoch && key_id_sequence(op->id, &number.number))
		etcd_number_keep(op->etcd, op->path, number);
}

/* What came of an operation that makes the op's place. */
static void note_entry(struct etcd_op *op, int result, const struct wire_result *answer)
{
	struct store_place *place = op->place;

	place->clean = !result && !op->strays;
	if (result > 0)
		forget_place(op->etcd, place);
	if (result == STORE_BUSY && !op->strays)
		keep_number(op, place->epoch, answer->revision);
}

struct etcd_op *etcd_place_op(
	struct store *store, struct store_place *place, etcd_op_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct etcd_op *op = etcd_op_new(etcd, place->path, fn, user);

	op->place = place;
	op->token = place->token;
	op->id = xstrdup(place->id);
	op->key = key_place(etcd->prefix, place->path, place->id);
	return op;
}

void etcd_put_place(struct wire_txn *txn, const struct etcd_op *op, const struct store_place *place)
{
	cleanup(free_ptr) char *value = value_of_record(place->record, place->shared);

	wire_put(txn, op->key, value, op->etcd->lease.id);
}

/* --- queues as read --- */

bool etcd_is_left_over(
	struct etcd *etcd, const char *path, const char *id, const struct wire_kv *kv)
{
	if (kv->lease != etcd->lease.id || !etcd->lease.id)
		return false;
	const struct store_place *ours = etcd_find_place(etcd, path, id);
	return !ours || ours->leaving || kv->created <= ours->former;
}

struct queue_buffer {
	struct store_contender *contenders;
	size_t count;
	bool directory; /* there are keys that make the name one */
};

static int by_token(const void *a, const void *b)
{
	uint64_t x = ((const struct store_contender *)a)->token;
	uint64_t y = ((const struct store_contender *)b)->token;

	return (x > y) - (x < y);
}

/* Without the value only what it had when it was made is known, which is no less. */
static void add_ranges(struct store_contender *contender, const struct wire_kv *kv)
{
	struct record record;
	struct range range;

	if (!kv->value && key_id_range(contender->id, &range)) {
		ranges_set(&contender->ranges, range);
		contender->stale = kv->modified > kv->created;
	}
	if (!kv->value)
		return;
	contender->shared = value_parse_place(contender->id, kv->value, &record);
	contender->ranges = record.ranges;
	contender->changed = kv->modified;
	record.ranges = (struct ranges){0};
	record_fini(&record);
}

static void add_contender(
	struct etcd *etcd, const char *path, const struct wire_kv *kv, struct queue_buffer *queue)
{
	char *id = key_below(etcd->prefix, path, kv->key, kv->key_size);

	if (!id || !*id || strchr(id, '/')) {
		queue->directory = queue->directory || id;
		free(id);
		return;
	}
	if (etcd_is_left_over(etcd, path, id, kv)) {
		free(id);
		return;
	}
	struct store_contender *contender = &queue->contenders[queue->count++];
	*contender = (struct store_contender){.token = kv->created,
		.shared = key_id_is_shared(id),
		.symlink = key_id_is_symlink(id),
		.id = id,
		.ours = etcd_find_place(etcd, path, id)};
	add_ranges(contender, kv);
}

static void read_queue(const struct etcd_op *op, const struct wire_kvs *ranges, size_t range_count,
	struct queue_buffer *queue)
{
	size_t count = 0;

	*queue = (struct queue_buffer){0};
	for (size_t r = 0; r < range_count; r++)
		count += ranges[r].count;
	queue->contenders = xzalloc(count * sizeof(queue->contenders[0]));
	for (size_t r = 0; r < range_count; r++) {
		for (size_t i = 0; i < ranges[r].count; i++)
			add_contender(op->etcd, op->path, &ranges[r].kv[i], queue);
	}
	qsort(queue->contenders, queue->count, sizeof(queue->contenders[0]), by_token);
}

static void queue_buffer_fini(struct queue_buffer *queue)
{
	for (size_t i = 0; i < queue->count; i++) {
		free((void *)(uintptr_t)queue->contenders[i].id);
		ranges_fini(&queue->contenders[i].ranges);
	}
	free(queue->contenders);
}

static void answer_queue(struct etcd_op *op, int result, const struct store_queue *queue)
{
	store_queue_fn *fn = op->queue;
	void *user = op->user;

	etcd_op_free(op);
	fn(user, result, queue);
}

/* --- joining --- */

const struct wire_kv *etcd_find_ours(const struct etcd_op *op, const struct wire_result *result)
{
	for (size_t r = 0; r < result->range_count; r++) {
		for (size_t i = 0; i < result->ranges[r].count; i++) {
			const struct wire_kv *kv = &result->ranges[r].kv[i];
			if (etcd_is_op_key(op, kv))
				return kv;
		}
	}
	return NULL;
}

static int joined(struct etcd_op *op, const struct wire_result *result, struct queue_buffer *queue)
{
	const struct wire_kv *ours = etcd_find_ours(op, result);

	/* A store that has gone back in time: nothing in it is new enough to be shown. */
	if (!ours && result->revision <= op->known) {
		placed(op->etcd, op->place, result->revision);
		return 0;
	}
	/* This very transaction has put it, if not for the first time. */
	if (!ours || ours->modified != result->revision)
		return -EIO;
	placed(op->etcd, op->place, ours->created);
	read_queue(op, result->ranges, result->range_count, queue);
	return queue->directory ? -EISDIR : 0;
}

/*
 * The id of a place whose delete was told before its making was: NULL if there was none, or it
 * concerned an earlier key of the same name, which the answer to a lost attempt has put again.
 * Otherwise etcd_place_heed has to follow the answer.
 */
static char *deleted_before(struct etcd *etcd, const struct store_place *place)
{
	if (!place->placed || place->deleted <= place->token)
		return NULL;
	etcd_doubt_begin(etcd);
	return xstrdup(place->id);
}

static void on_joined(struct etcd_op *op, int error, const struct wire_result *answer)
{
	struct etcd *etcd = op->etcd;
	struct queue_buffer queue = {0};

	if (!error)
		error = joined(op, answer, &queue);
	struct store_queue view = {
		.revision = answer->revision, .contenders = queue.contenders, .count = queue.count};
	note_entry(op, error, answer);
	cleanup(free_ptr) char *gone = deleted_before(etcd, op->place);
	cleanup(free_ptr) char *path = gone ? xstrdup(op->path) : NULL;
	answer_queue(op, error, error ? NULL : &view);
	queue_buffer_fini(&queue);
	if (gone)
		etcd_place_heed(etcd, path, gone);
}

/* etcd looks at every key of a range, so a crowd of ours is left out: we know it. */
static void range_around_ours(struct wire_txn *txn, const struct etcd_op *op, const char *first,
	const char *end, const struct wire_range_options *options)
{
	uint64_t lease = op->etcd->lease.id;
	/* Those of our session have the lease and a dot in front; the slash comes behind the dot.
	 */
	cleanup(free_ptr) char *ours = xasprintf("%s%" PRIx64 ".", first, lease);
	cleanup(free_ptr) char *ours_end = xasprintf("%s%" PRIx64 "/", first, lease);
	cleanup(free_ptr) char *shared = xasprintf("%ss-%" PRIx64 ".", first, lease);
	cleanup(free_ptr) char *shared_end = xasprintf("%ss-%" PRIx64 "/", first, lease);

	wire_range(txn, op->key, NULL, options);
	wire_range(txn, first, ours, options);
	wire_range(txn, ours_end, shared, options);
	wire_range(txn, shared_end, end, options);
}

void etcd_join(struct store *store, struct store_place *place, uint64_t known, size_t crowd,
	store_queue_fn *fn, void *user)
{
	enum { CROWD = 32 };
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	struct wire_range_options options = {
		.keys_only = true, .created_from = known ? known + 1 : 0};
	cleanup(free_ptr) char *first = key_first(etcd->prefix, place->path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, place->path);

	enter_place(etcd, place);
	struct etcd_op *op = etcd_place_op(store, place, on_joined, user);
	op->queue = fn;
	op->known = known;
	etcd_put_place(&txn, op, place);
	if (crowd > CROWD)
		range_around_ours(&txn, op, first, end, &options);
	else
		wire_range(&txn, first, end, &options);
	etcd_op_send_steady(op, &txn, ETCD_BATCH_JOIN);
}

/* --- trying --- */

static int tried(struct etcd_op *op, const struct wire_result *result)
{
	const struct wire_kv *ours = etcd_find_ours(op, result);
	struct queue_buffer queue;

	if (op->place->shared && result->succeeded && !ours)
		return -EIO;
	/* What was made by an earlier attempt, whose answer was lost, has that one's token. */
	if (ours || result->succeeded) {
		placed(op->etcd, op->place, ours ? ours->created : result->revision);
		return 0;
	}
	read_queue(op, &result->ranges[result->range_count - 1], 1, &queue);
	bool directory = queue.directory;
	queue_buffer_fini(&queue);
	return directory ? -EISDIR : STORE_BUSY;
}

static void on_tried(struct etcd_op *op, int error, const struct wire_result *answer)
{
	struct etcd *etcd = op->etcd;

	if (!error)
		error = tried(op, answer);
	note_entry(op, error, answer);
	cleanup(free_ptr) char *gone = deleted_before(etcd, op->place);
	cleanup(free_ptr) char *path = gone ? xstrdup(op->path) : NULL;
	etcd_op_done(op, error);
	if (gone)
		etcd_place_heed(etcd, path, gone);
}

/* The range must be empty, but for shared places if ours is shared. */
static void compare_free(
	struct wire_txn *txn, const struct etcd_op *op, const char *first, const char *end)
{
	cleanup(free_ptr) char *shared_first = xasprintf("%ss-", first);
	cleanup(free_ptr) char *shared_end = xasprintf("%ss.", first);

	if (op->place->shared) {
		wire_if_absent(txn, first, shared_first);
		wire_if_absent(txn, shared_end, end);
	} else {
		wire_if_absent(txn, first, end);
	}
}

void etcd_try(struct store *store, struct store_place *place, store_done_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *first = key_first(etcd->prefix, place->path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, place->path);

	enter_place(etcd, place);
	struct etcd_op *op = etcd_place_op(store, place, on_tried, user);
	op->done = fn;
	compare_free(&txn, op, first, end);
	etcd_put_place(&txn, op, place);
	/* A shared place is not in its own way, so that it may have been there already. */
	if (place->shared)
		wire_range(&txn, op->key, NULL, &(struct wire_range_options){.keys_only = true});
	wire_txn_else(&txn);
	/* An exclusive one that an earlier attempt has made was the first, and so is it still. */
	if (place->shared)
		wire_range(&txn, op->key, NULL, &(struct wire_range_options){.keys_only = true});
	wire_range(&txn, first, end,
		&(struct wire_range_options){.keys_only = true, .by_creation = true, .limit = 1});
	etcd_op_send_timed(op, &txn, ETCD_BATCH_SOLE);
}

static int attempted(
	struct etcd_op *op, const struct wire_result *result, struct queue_buffer *queue)
{
	const struct wire_kv *ours = etcd_find_ours(op, result);

	if (ours || result->succeeded) {
		placed(op->etcd, op->place, ours ? ours->created : result->revision);
		return 0;
	}
	read_queue(op, &result->ranges[1], 1, queue);
	return queue->directory ? -EISDIR : STORE_BUSY;
}

static void on_attempted(struct etcd_op *op, int error, const struct wire_result *answer)
{
	struct etcd *etcd = op->etcd;
	struct queue_buffer queue = {0};

	if (!error)
		error = attempted(op, answer, &queue);
	note_entry(op, error, answer);
	struct store_queue view = {
		.revision = answer->revision, .contenders = queue.contenders, .count = queue.count};
	cleanup(free_ptr) char *gone = deleted_before(etcd, op->place);
	cleanup(free_ptr) char *path = gone ? xstrdup(op->path) : NULL;
	answer_queue(op, error, error == STORE_BUSY ? &view : NULL);
	queue_buffer_fini(&queue);
	if (gone)
		etcd_place_heed(etcd, path, gone);
}

void etcd_attempt(struct store *store, struct store_place *place, uint64_t revision,
	store_queue_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *first = key_first(etcd->prefix, place->path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, place->path);

	enter_place(etcd, place);
	struct etcd_op *op = etcd_place_op(store, place, on_attempted, user);
	op->queue = fn;
	wire_if_unchanged(&txn, first, end, revision);
	etcd_put_place(&txn, op, place);
	wire_txn_else(&txn);
	wire_range(&txn, op->key, NULL, &(struct wire_range_options){.keys_only = true});
	wire_range(&txn, first, end, &(struct wire_range_options){0});
	etcd_op_send_timed(op, &txn, ETCD_BATCH_SOLE);
}

/* --- leaving --- */

static void left(struct etcd_op *op)
{
	struct store_place *place = take(op->place);

	place->leave = NULL;
	forget_place(op->etcd, place);
	op->done(op->user, 0);
}

static void on_left(struct etcd_op *op, int error, const struct wire_result *answer)
{
	/* What was refused a place is refused this as well, and has nothing to give back. */
	if (error < 0 && op->token &&
		log_admits("locks that could not be given back", 0, loop_clock()))
		log_warning("lock %s could not be given back (%s); it is free with the lease",
			op->path, strerror(-error));
	if (op->place)
		left(op);
	if (!error && op->is_clean && !op->strays && answer->deleted == 1)
		keep_number(op, op->epoch, answer->revision);
	etcd_op_free(op);
}

void etcd_place_left(struct store_place *place)
{
	if (place->leave)
		left(place->leave);
}

void etcd_leave(struct store *store, struct store_place *place, store_done_fn *fn, void *user)
{
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_place_op(store, place, on_left, user);

	op->done = fn;
	op->is_clean = place->clean;
	op->epoch = place->epoch;
	place->leaving = true;
	place->leave = op;
	wire_delete(&txn, op->key);
	etcd_op_send_steady(op, &txn, ETCD_BATCH_ANY);
}

/* --- reading a queue --- */

static void send_queue(struct etcd_op *op, unsigned int limit, enum etcd_batch_kind kind);

static void on_queue_read(struct etcd_op *op, int error, const struct wire_result *answer)
{
	struct queue_buffer queue = {0};

	if (!error && answer->ranges[0].more) {
		send_queue(op, 0, ETCD_BATCH_ALONE);
		return;
	}
	if (!error)
		read_queue(op, answer->ranges, 1, &queue);
	struct store_queue view = {
		.revision = answer->revision, .contenders = queue.contenders, .count = queue.count};
	answer_queue(op, error, error ? NULL : &view);
	queue_buffer_fini(&queue);
}

static void send_queue(struct etcd_op *op, unsigned int limit, enum etcd_batch_kind kind)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *first = key_first(op->etcd->prefix, op->path);
	cleanup(free_ptr) char *end = key_end(op->etcd->prefix, op->path);

	wire_range(&txn, first, end,
		&(struct wire_range_options){.keys_only = !op->parts, .limit = limit});
	etcd_op_send_names(op, &txn, kind);
}

/* Most are short, and where many are read go together. */
void etcd_queue(struct store *store, const char *path, bool parts, store_queue_fn *fn, void *user)
{
	enum { SHORT = 16 };
	struct etcd_op *op = etcd_op_new(etcd_of(store), path, on_queue_read, user);

	op->queue = fn;
	op->parts = parts;
	send_queue(op, parts ? 0 : SHORT, parts ? ETCD_BATCH_ALONE : ETCD_BATCH_ANY);
}
