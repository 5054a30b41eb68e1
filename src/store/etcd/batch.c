/* SPDX-License-Identifier: MIT */
#include "store/etcd/batch.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "base/util.h"
#include "store/etcd/internal.h"

enum {
	MAX_TEXT = 1024 * 1024, /* etcd refuses requests of 1.5 MiB */
};

/* Operations under way together. */
struct etcd_batch {
	struct etcd_call call;
	struct etcd_line *line;
	struct etcd_op **ops;        /* in the order of their parts; NULL: dropped */
	struct wire_shape *shapes;   /* of each part */
	struct wire_result *answers; /* to each part; NULL until they have come */
	size_t count, live;          /* of ops; of those that are not dropped */
	uint64_t known;              /* the latest revision when it was sent */
	struct etcd_guard guard;
	bool settled; /* no copy of it can be carried out any more */
	bool delivering;
};

static void free_answers(struct etcd_batch *batch)
{
	for (size_t i = 0; batch->answers && i < batch->count; i++)
		wire_result_fini(&batch->answers[i]);
	free(take(batch->answers));
}

static void batch_free(struct etcd_batch *batch)
{
	struct etcd_line *line = batch->line;
	unsigned int copies = etcd_call_copies(&batch->call);

	etcd_call_cancel(&batch->call);
	if (batch->guard.is_on && !batch->settled && copies)
		etcd_fence_lost(&line->etcd->fence);
	line->batches--;
	loop_defer(line->etcd->loop, &line->task);
	free_answers(batch);
	free(batch->ops);
	free(batch->shapes);
	free(batch);
}

/* --- what may go together --- */

struct path_use {
	const char *path; /* borrowed from the first op of that path */
	unsigned int kinds;
	UT_hash_handle hh;
};

static bool can_share(unsigned int kinds, enum etcd_batch_kind kind)
{
	return kinds && kind && !(kinds & (unsigned int)kind & ETCD_BATCH_JOIN);
}

/* Notes that the batch uses op's path; false if it can't. */
static bool use_path(struct path_use **uses, const struct etcd_op *op)
{
	struct path_use *use;

	HASH_FIND_STR(*uses, op->path, use);
	if (use) {
		bool fits = can_share(use->kinds, op->batch_kind);
		use->kinds |= fits ? (unsigned int)op->batch_kind : 0;
		return fits;
	}
	use = xzalloc(sizeof(*use));
	use->path = op->path;
	use->kinds = (unsigned int)op->batch_kind;
	HASH_ADD_KEYPTR(hh, *uses, use->path, strlen(use->path), use);
	return true;
}

static void free_uses(struct path_use **uses)
{
	struct path_use *use, *next;

	HASH_ITER(hh, *uses, use, next) {
		HASH_DEL(*uses, use);
		free(use);
	}
}

/* --- sending --- */

static char *sole_body(struct etcd_batch *batch)
{
	batch->shapes[0] = batch->ops[0]->txn.shape;
	return wire_txn_body(&batch->ops[0]->txn, &batch->call.rpc);
}

/* One alone is nested: with the guard's it may have more operations than its etcd allows. */
static void add_part(struct etcd_batch *batch, size_t number, bool nested, struct wire_txn *txn)
{
	struct etcd_op *op = batch->ops[number];

	op->txn.shape.nested = nested;
	batch->shapes[number] = op->txn.shape;
	wire_add_part(txn, &op->txn);
}

static void add_whole(struct etcd_batch *batch, struct wire_txn *txn)
{
	batch->shapes[0] = batch->ops[0]->txn.shape;
	wire_add_whole(txn, &batch->ops[0]->txn);
}

/*
 * Each attempt leaves out what was dropped since the last one.  One alone is one with its guard, so
 * that etcd sees what it puts: within nested transactions it does not when it is full.
 */
static char *compose(struct etcd_call *call)
{
	struct etcd_batch *batch = container_of(call, struct etcd_batch, call);
	struct wire_txn txn = {0};
	size_t live = 0;
	bool writes = false;

	for (size_t i = 0; i < batch->count; i++) {
		if (!batch->ops[i])
			continue;
		batch->ops[live] = batch->ops[i];
		batch->ops[live]->batch_place = live;
		writes = writes || wire_writes(&batch->ops[live]->txn.shape);
		live++;
	}
	batch->count = live;
	batch->known = batch->line->etcd->revision.latest;
	batch->guard = (struct etcd_guard){0};
	if (live == 1 && !writes)
		return sole_body(batch);
	struct etcd_fence *fence = &batch->line->etcd->fence;
	bool raises = etcd_fence_is_due(fence, call->strays), merge = live == 1 && !raises;
	if (merge)
		add_whole(batch, &txn);
	for (size_t i = 0; i < live && !merge; i++)
		add_part(batch, i, live == 1, &txn);
	if (writes)
		etcd_fence_guard(fence, &batch->guard, raises, &txn);
	batch->guard.is_merged = merge;
	char *body = wire_txn_body(&txn, &call->rpc);
	wire_txn_fini(&txn);
	return body;
}

static void add_to(struct etcd_batch *batch, struct etcd_op *op)
{
	DL_DELETE2(batch->line->waiting, op, waiting_prev, waiting_next);
	op->batch = batch;
	op->batch_place = batch->count;
	batch->ops[batch->count++] = op;
	batch->live++;
}

static size_t weight_of(const struct etcd_op *op)
{
	size_t operations = wire_part_operations(&op->txn);

	return operations ? operations : 1;
}

static void complete(struct etcd_op *op)
{
	if (op->complete)
		op->complete(op);
	op->complete = NULL;
}

/* What writes without a session could be carried out at any time. */
static bool may_go(const struct etcd_op *op)
{
	return op->etcd->lease.id || !wire_writes(&op->txn.shape);
}

/* Fills the batch, which may stay empty. */
static void gather(struct etcd_batch *batch)
{
	enum { OF_THE_GUARD = 1 };
	struct etcd_line *line = batch->line;
	struct path_use *uses = NULL;
	struct etcd_op *op, *next;
	size_t text = 0, operations = OF_THE_GUARD;

	DL_FOREACH_SAFE2(line->waiting, op, next, waiting_next)
	{
		complete(op);
		size_t size = wire_part_size(&op->txn), weight = weight_of(op);
		bool is_full =
			operations + weight > line->etcd->batch_max || text + size > MAX_TEXT;
		if (batch->count && (is_full || op->goes_alone))
			break;
		if (!may_go(op) || !use_path(&uses, op))
			continue;
		text += size;
		operations += weight;
		add_to(batch, op);
		if (op->goes_alone)
			break;
	}
	free_uses(&uses);
}

/* NULL if nothing can be sent now. */
static struct etcd_batch *batch_new(struct etcd_line *line)
{
	size_t most = line->etcd->batch_max;
	struct etcd_batch *batch = xzalloc(sizeof(*batch));

	batch->line = line;
	batch->ops = xzalloc(most * sizeof(batch->ops[0]));
	batch->shapes = xzalloc(most * sizeof(batch->shapes[0]));
	gather(batch);
	if (batch->count) {
		line->batches++;
		return batch;
	}
	free(batch->ops);
	free(batch->shapes);
	free(batch);
	return NULL;
}

static size_t max_answer(const struct etcd_batch *batch)
{
	size_t of_sole = batch->count == 1 ? batch->ops[0]->max_answer : 0;

	return of_sole ? of_sole : ETCD_LARGE_ANSWER;
}

static int read_answers(struct etcd_call *call, const char *body);
static void on_batch_done(struct etcd_call *call, int result);

/* Sends what has gathered, as far as the number of batches under way allows. */
static void pump(struct loop_task *task)
{
	struct etcd_line *line = container_of(task, struct etcd_line, task);
	struct etcd_client *client = line->etcd->client;

	while (line->waiting && line->batches < line->width) {
		struct etcd_batch *batch = batch_new(line);
		if (!batch)
			break;
		histogram_add(&line->sizes, &scale_sizes, (int64_t)batch->count);
		batch->call = (struct etcd_call){.compose = compose,
			.max_answer = max_answer(batch),
			.lane = line->lane,
			.read = read_answers,
			.fn = on_batch_done};
		etcd_call_start(client, &batch->call);
	}
}

/* --- answers --- */

/* Back to where they came from: to go in smaller batches, or each alone. */
static void take_apart(struct etcd_batch *batch, bool alone)
{
	struct etcd_line *line = batch->line;
	unsigned int copies = etcd_call_copies(&batch->call);

	for (size_t i = batch->count; i-- > 0;) {
		struct etcd_op *op = batch->ops[i];
		if (!op)
			continue;
		op->batch = NULL;
		op->strays += copies;
		op->goes_alone = op->goes_alone || alone;
		DL_PREPEND2(line->waiting, op, waiting_prev, waiting_next);
	}
	batch_free(batch);
}

/* An answer to the operation and its guard in one: which of them does not hold shows in the key. */
static int parse_merged(struct etcd_batch *batch, const char *body, struct wire_result *guarded)
{
	const struct etcd_guard *guard = &batch->guard;
	struct wire_result *answer = &batch->answers[0];
	int error = wire_parse_txn(body, &guard->shape, answer);

	if (error)
		return error;
	*guarded = (struct wire_result){.revision = answer->revision, .succeeded = true};
	if (answer->succeeded)
		return 0;
	struct wire_kvs *found = &answer->ranges[--answer->range_count];
	guarded->succeeded = (found->count ? found->kv[0].modified : 0) == guard->revision;
	guarded->ranges[guarded->range_count++] = *found;
	*found = (struct wire_kvs){0};
	if (!guarded->succeeded || batch->shapes[0].conditional)
		return 0;
	wire_result_fini(guarded);
	return -EBADMSG;
}

static int parse_guarded(struct etcd_batch *batch, const char *body, struct wire_result *guarded)
{
	if (batch->guard.is_merged)
		return parse_merged(batch, body, guarded);
	return wire_parse_parts(
		body, batch->shapes, batch->answers, batch->count, &batch->guard.shape, guarded);
}

static int parse_answers(struct etcd_batch *batch, const char *body)
{
	const struct etcd_guard *guard = &batch->guard;
	struct wire_result guarded = {0};

	if (!guard->is_on && batch->count == 1)
		return wire_parse_txn(body, batch->shapes, batch->answers);
	if (!guard->is_on)
		return wire_parse_parts(
			body, batch->shapes, batch->answers, batch->count, NULL, NULL);
	int error = parse_guarded(batch, body, &guarded);
	if (!error)
		error = etcd_fence_answered(
			&batch->line->etcd->fence, guard, &guarded, batch->call.strays - 1);
	wire_result_fini(&guarded);
	batch->settled = !error;
	return error;
}

/* Each part's has to be about the name that was asked about. */
static int read_answers(struct etcd_call *call, const char *body)
{
	struct etcd_batch *batch = container_of(call, struct etcd_batch, call);
	size_t count = batch->count;

	batch->answers = xzalloc(count * sizeof(batch->answers[0]));
	int error = parse_answers(batch, body);
	for (size_t i = 0; i < count && !error; i++) {
		if (batch->ops[i] && !etcd_op_fits(batch->ops[i], &batch->answers[i]))
			error = -EBADMSG;
	}
	if (error)
		free_answers(batch);
	return error;
}

/* What the callbacks do may drop others of the batch. */
static void deliver(struct etcd_batch *batch, int result)
{
	batch->delivering = true;
	if (!result)
		etcd_revision_heard(
			&batch->line->etcd->revision, batch->known, batch->answers[0].revision);
	for (size_t i = 0; i < batch->count; i++) {
		struct etcd_op *op = batch->ops[i];
		if (!op)
			continue;
		etcd_batch_drop(op);
		op->strays += batch->call.strays;
		op->fn(op, result, result ? &etcd_no_answer : &batch->answers[i]);
	}
	batch_free(batch);
}

/* Without raising the fence it may be carried out. */
static bool is_for_raising(struct etcd_batch *batch, int result)
{
	return (result == -ENOSPC || (result == ETCD_TOO_MANY && batch->count == 1)) &&
	       etcd_fence_refused(&batch->line->etcd->fence, &batch->guard);
}

/* It may be that of an earlier session, which is known to have ended. */
static void on_no_lease(struct etcd_batch *batch)
{
	struct etcd *etcd = batch->line->etcd;
	bool is_news = batch->guard.lease == etcd->lease.id;

	take_apart(batch, false);
	if (is_news)
		etcd_lease_gone(&etcd->lease);
}

static void on_batch_done(struct etcd_call *call, int result)
{
	struct etcd_batch *batch = container_of(call, struct etcd_batch, call);
	struct etcd *etcd = batch->line->etcd;

	if (result == ETCD_NO_LEASE && batch->guard.is_on) {
		on_no_lease(batch);
	} else if (is_for_raising(batch, result)) {
		take_apart(batch, false);
	} else if (result == ETCD_TOO_MANY && batch->count > 1) {
		/* Its administrator allows fewer than the default. */
		etcd->batch_max = etcd->batch_max > 1 ? etcd->batch_max / 2 : 1;
		take_apart(batch, false);
	} else if (result && batch->count > 1) {
		/* Whom the refusal concerns will show when each goes alone. */
		take_apart(batch, true);
	} else {
		deliver(batch, result > 0 ? -EIO : result);
	}
}

/* --- the interface --- */

void etcd_line_init(
	struct etcd_line *line, struct etcd *etcd, enum etcd_lane lane, unsigned int width)
{
	*line = (struct etcd_line){.etcd = etcd, .lane = lane, .width = width, .task.fn = pump};
}

void etcd_line_fini(struct etcd_line *line)
{
	loop_undefer(line->etcd->loop, &line->task);
}

void etcd_batch_add(struct etcd_op *op)
{
	struct etcd_line *line = op->line;

	op->is_batched = true;
	DL_APPEND2(line->waiting, op, waiting_prev, waiting_next);
	loop_defer(op->etcd->loop, &line->task);
}

void etcd_batch_take_back(struct etcd_line *line)
{
	struct etcd_op *op, *next;

	DL_FOREACH_SAFE(line->etcd->ops, op, next) {
		struct etcd_batch *batch = op->line == line ? op->batch : NULL;
		if (batch && batch->guard.is_on && !batch->delivering)
			take_apart(batch, false);
	}
}

void etcd_batch_go_on(struct etcd_line *line)
{
	loop_defer(line->etcd->loop, &line->task);
}

void etcd_batch_drop(struct etcd_op *op)
{
	struct etcd_batch *batch = op->batch;

	if (!op->is_batched)
		return;
	op->is_batched = false;
	if (batch) {
		batch->ops[op->batch_place] = NULL;
		op->batch = NULL;
		batch->live--;
		if (!batch->live && !batch->delivering)
			batch_free(batch);
	} else {
		DL_DELETE2(op->line->waiting, op, waiting_prev, waiting_next);
	}
	wire_txn_fini(&op->txn);
}
