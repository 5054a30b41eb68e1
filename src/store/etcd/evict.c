/* SPDX-License-Identifier: MIT */
/* Taking somebody's place away. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"

static const struct wire_kv *find_place(struct etcd_op *op, const struct wire_kvs *kvs)
{
	for (size_t i = 0; i < kvs->count; i++) {
		const struct wire_kv *kv = &kvs->kv[i];
		if (kv->created != op->token)
			continue;
		op->id = key_place_id(op->etcd->prefix, op->path, kv->key, kv->key_size);
		if (op->id)
			return kv;
	}
	return NULL;
}

/* Whom an unknown record belongs to only root may decide. */
static int check_evictor(const struct wire_kv *kv, uid_t uid)
{
	struct record record;

	if (uid == 0)
		return 0;
	value_parse_record(kv->value, &record);
	bool is_own = record.known && record.uid == uid;
	record_fini(&record);
	return is_own ? 0 : -EPERM;
}

static void on_evicted(struct etcd_op *op, int error, const struct wire_result *answer)
{
	/* Gone already: an attempt whose answer was lost may have deleted it. */
	if (!error && !answer->succeeded && !op->strays)
		error = STORE_GONE;
	if (!error && answer->succeeded)
		etcd_place_deleted(op->etcd, op->path, op->id, answer->revision);
	etcd_op_done(op, error);
}

static void on_read_for_evict(struct etcd_op *op, int error, const struct wire_result *answer)
{
	const struct wire_kv *kv = NULL;
	struct wire_txn txn = {0};

	if (!error && !(kv = find_place(op, &answer->ranges[0])))
		error = STORE_GONE;
	if (!error)
		error = check_evictor(kv, op->uid);
	/* What others write may have a NUL in its name, which we can't say. */
	if (!error && strlen(kv->key) != kv->key_size)
		error = -EOPNOTSUPP;
	if (error) {
		etcd_op_done(op, error);
		return;
	}
	wire_if_created(&txn, kv->key, op->token);
	wire_delete(&txn, kv->key);
	op->fn = on_evicted;
	op->strays = 0;
	etcd_op_send_names(op, &txn, ETCD_BATCH_SOLE);
}

void etcd_evict(struct store *store, const char *path, uint64_t token, uid_t uid, store_done_fn *fn,
	void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_op_new(etcd, path, on_read_for_evict, user);
	cleanup(free_ptr) char *first = key_first(etcd->prefix, path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, path);

	op->done = fn;
	op->token = token;
	op->uid = uid;
	wire_range(&txn, first, end,
		&(struct wire_range_options){.created_from = token, .created_to = token});
	etcd_op_send_names(op, &txn, ETCD_BATCH_ANY);
}
