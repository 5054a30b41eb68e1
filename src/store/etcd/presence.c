/* SPDX-License-Identifier: MIT */
/* Whether a place is in its queue: asking, and writing its record there. */
#include <errno.h>

#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"

static void answer_presence(struct etcd_op *op, int error, bool present)
{
	if (!error && !present) {
		const struct store_place *place = etcd_find_place(op->etcd, op->path, op->id);
		error = STORE_GONE;
		if (place && place->token == op->token)
			etcd_place_gone(op->etcd, op->path, op->id);
	}
	etcd_op_done(op, error);
}

static void on_confirmed(struct etcd_op *op, int error, const struct wire_result *answer)
{
	const struct wire_kv *ours = etcd_find_ours(op, answer);

	answer_presence(op, error, ours && ours->created == op->token);
}

static void on_told(struct etcd_op *op, int error, const struct wire_result *answer)
{
	etcd_op_done(op, error == STORE_LOST ? error : 0);
}

/* Everybody listens to deletes: so that of the news is what tells them. */
static void tell(struct etcd_op *op)
{
	struct wire_txn txn = {0};

	op->fn = on_told;
	loop_timer_disarm(&op->timer);
	wire_delete(&txn, op->notice);
	etcd_op_send_steady(op, &txn, ETCD_BATCH_ANY);
}

static void on_written(struct etcd_op *op, int error, const struct wire_result *answer)
{
	if (!error && answer->succeeded && op->notice) {
		tell(op);
		return;
	}
	op->place->shrunk = op->place->shrunk || op->notice;
	answer_presence(op, error, answer->succeeded);
}

static struct etcd_op *confirmation(struct store *store, struct store_place *place,
	store_done_fn *fn, void *user, struct wire_txn *txn)
{
	struct etcd_op *op = etcd_place_op(store, place, on_confirmed, user);

	op->done = fn;
	wire_range(txn, op->key, NULL, &(struct wire_range_options){.keys_only = true});
	return op;
}

void etcd_confirm(struct store *store, struct store_place *place, store_done_fn *fn, void *user)
{
	struct wire_txn txn = {0};
	struct etcd_op *op = confirmation(store, place, fn, user, &txn);

	etcd_op_send_timed(op, &txn, ETCD_BATCH_ANY);
}

void etcd_ask_for(struct store *store, struct store_place *place, store_done_fn *fn, void *user)
{
	struct wire_txn txn = {0};
	struct etcd_op *op = confirmation(store, place, fn, user, &txn);

	etcd_op_send_steady(op, &txn, ETCD_BATCH_ANY);
}

static void add_record(struct etcd_op *op)
{
	const struct store_place *place = op->place;
	struct etcd *etcd = op->etcd;

	op->place->written_version = place->record->version;
	etcd_put_place(&op->txn, op, place);
	if (!place->shrunk)
		return;
	cleanup(free_ptr) char *notices = key_notice_path(place->path);
	op->place->shrunk = false;
	op->notice = key_place(etcd->prefix, notices, place->id);
	wire_put(&op->txn, op->notice, "", etcd->lease.id);
}

void etcd_write(struct store *store, struct store_place *place, store_done_fn *fn, void *user)
{
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_place_op(store, place, on_written, user);

	op->done = fn;
	op->complete = add_record;
	wire_if_created(&txn, op->key, place->token);
	if (place->shrunk)
		etcd_op_send_steady(op, &txn, ETCD_BATCH_SOLE);
	else
		etcd_op_send_timed(op, &txn, ETCD_BATCH_SOLE);
}
