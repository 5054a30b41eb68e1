/* SPDX-License-Identifier: MIT */
/* One operation on the store: how it is sent, what its answer has to fit, and its end. */
#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"

struct etcd_op *etcd_op_new(struct etcd *etcd, const char *path, etcd_op_fn *fn, void *user)
{
	struct etcd_op *op = xzalloc(sizeof(*op));

	op->etcd = etcd;
	op->fn = fn;
	op->user = user;
	op->path = xstrdup(path);
	DL_APPEND(etcd->ops, op);
	return op;
}

void etcd_op_free(struct etcd_op *op)
{
	loop_timer_disarm(&op->timer);
	etcd_batch_drop(op);
	DL_DELETE(op->etcd->ops, op);
	for (size_t i = 0; i < op->name_count; i++)
		free(op->names[i].name);
	free(op->names);
	free(op->path);
	free(op->key);
	free(op->id);
	free(op->notice);
	free(op);
}

void etcd_op_done(struct etcd_op *op, int result)
{
	store_done_fn *fn = op->done;
	void *user = op->user;

	etcd_op_free(op);
	fn(user, result);
}

static bool has_places(const struct etcd *etcd)
{
	const struct store_place *place;

	for (place = etcd->places; place; place = place->hh.next) {
		if (place->placed)
			return true;
	}
	return false;
}

/*
 * A session knows at which revision it began, and nothing of it is older.  What says otherwise is
 * no answer to us, unless it was that revision which was wrong, as it may be while nothing is known
 * to be in the store.
 */
static bool is_of_session(struct etcd_op *op, const struct wire_result *answer)
{
	struct etcd *etcd = op->etcd;

	if (!op->of_session || !etcd->lease.id || answer->revision >= etcd->lease.granted_revision)
		return true;
	if (!has_places(etcd))
		etcd_lease_drop(&etcd->lease);
	return false;
}

static bool fits(const struct etcd_op *op, const char *first, const struct wire_kv *kv)
{
	size_t length = strlen(first);

	if (kv->key_size < length || memcmp(kv->key, first, length) != 0)
		return false;
	return !op->of_session || !etcd_is_op_key(op, kv) ||
	       kv->created > op->etcd->lease.granted_revision;
}

bool etcd_op_fits(struct etcd_op *op, const struct wire_result *answer)
{
	cleanup(free_ptr) char *first = key_first(op->etcd->prefix, op->path);

	for (size_t r = 0; r < answer->range_count; r++) {
		for (size_t i = 0; i < answer->ranges[r].count; i++) {
			if (!fits(op, first, &answer->ranges[r].kv[i]))
				return false;
		}
	}
	return is_of_session(op, answer);
}

bool etcd_is_op_key(const struct etcd_op *op, const struct wire_kv *kv)
{
	return op->key && kv->key_size == strlen(op->key) &&
	       memcmp(kv->key, op->key, kv->key_size) == 0;
}

const struct wire_result etcd_no_answer;

static void on_verdict(struct loop_timer *timer)
{
	struct etcd_op *op = container_of(timer, struct etcd_op, timer);

	etcd_batch_drop(op);
	op->fn(op, op->verdict, &etcd_no_answer);
}

void etcd_op_pronounce(struct etcd_op *op, int verdict, int after)
{
	op->timer.fn = on_verdict;
	op->verdict = verdict;
	loop_timer_arm(op->etcd->loop, &op->timer, loop_clock() + after);
}

static void op_send(struct etcd_op *op, struct etcd_line *line, struct wire_txn *txn,
	enum etcd_batch_kind kind, bool timed)
{
	struct etcd_client *client = op->etcd->client;

	op->line = line;
	op->txn = *txn;
	op->batch_kind = kind;
	op->goes_alone = kind == ETCD_BATCH_ALONE;
	if (timed)
		etcd_op_pronounce(
			op, -EIO, etcd_client_reachable(client) ? etcd_client_timeout(client) : 0);
	etcd_batch_add(op);
}

static void send_place(
	struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind, bool timed)
{
	struct etcd *etcd = op->etcd;

	op->of_session = true;
	if (etcd->lease.id) {
		op_send(op, &etcd->places_line, txn, kind, timed);
		return;
	}
	wire_txn_fini(txn);
	etcd_op_pronounce(op, STORE_LOST, 0);
}

void etcd_op_send_timed(struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind)
{
	send_place(op, txn, kind, true);
}

void etcd_op_send_steady(struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind)
{
	send_place(op, txn, kind, false);
}

void etcd_op_send_names(struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind)
{
	op_send(op, &op->etcd->names_line, txn, kind, true);
}
