/* SPDX-License-Identifier: MIT */
/* Everything at once: all places in all queues, and the directories. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "event/loop.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"
#include "store/survey.h"

enum {
	/* How many keys are asked for at first, and at most. */
	FIRST_PAGE = 500,
	LARGEST_PAGE = 5000,
	/* Bytes of keys and values that a page is meant to have: to read it takes milliseconds. */
	GOOD_PAGE = 256 * 1024,
	/* Bytes of an answer, above which fewer keys are asked for, down to one. */
	MAX_PAGE = 2 * 1024 * 1024,
	FEWER = 8,
	SLICE_MS = 4, /* for which the loop may be held up */
};

struct survey {
	store_survey_fn *fn;
	void *user;
	struct store_survey *found;
	struct loop_task task; /* goes on with sorting */
	struct etcd_op *op;
};

/* --- what is found --- */

static void add_place(
	struct survey *survey, const char *path, const char *id, const struct wire_kv *kv)
{
	struct record record;
	bool shared = value_parse_place(id, kv->value, &record);

	survey_add_place(survey->found, &(struct store_survey_place){.path = path,
						.token = kv->created,
						.shared = shared,
						.ranges = record.ranges,
						.host = record.known ? record.host : NULL,
						.command = record.known ? record.command : NULL,
						.pid = record.pid,
						.uid = record.uid,
						.since = record.since});
	record_fini(&record);
}

static void add_directory(struct survey *survey, const char *path, const struct wire_kv *kv)
{
	struct store_directory directory;

	value_parse_directory(kv->value, &directory);
	survey_add_directory(survey->found, path, &directory);
}

/*
 * "a/b/ID" is a place, "a/b/" a directory, "" the root.  A name with a NUL in it is nobody's here;
 * a foreign ID may have one.
 */
static void add_key(struct etcd_op *op, struct survey *survey, const struct wire_kv *kv)
{
	cleanup(free_ptr) char *first = key_first(op->etcd->prefix, "");
	size_t skip = strlen(first);
	const char *below = kv->key + skip;
	const char *slash = memrchr(below, '/', kv->key_size - skip);
	size_t length = slash ? (size_t)(slash - below) : 0;
	const char *id = slash ? slash + 1 : below;
	bool is_directory = id == kv->key + kv->key_size;

	if (memchr(below, '\0', length) || (!length && (slash || !is_directory)))
		return;
	cleanup(free_ptr) char *path = xasprintf("%.*s", (int)length, below);
	if (is_directory)
		add_directory(survey, path, kv);
	else if (!key_is_hidden(path) && !etcd_is_left_over(op->etcd, path, id, kv))
		add_place(survey, path, id, kv);
}

/* --- asking --- */

static void end(struct etcd_op *op, int result)
{
	struct survey *survey = op->user;
	struct store_survey *found = take(survey->found);

	loop_undefer(op->etcd->loop, &survey->task);
	etcd_op_free(op);
	if (result)
		survey_free(take(found));
	survey->fn(survey->user, result, found);
	free(survey);
}

static void sort(struct loop_task *task)
{
	struct survey *survey = container_of(task, struct survey, task);

	if (survey_sort(survey->found, loop_clock() + SLICE_MS))
		end(survey->op, 0);
	else
		loop_defer(survey->op->etcd->loop, task);
}

static void send_survey(struct etcd_op *op);

/* How many keys to ask for next, if these have been what a page has. */
static unsigned int next_limit(unsigned int limit, const struct wire_kvs *kvs)
{
	size_t size = 1;

	for (size_t i = 0; i < kvs->count; i++)
		size += kvs->kv[i].key_size + (kvs->kv[i].value ? strlen(kvs->kv[i].value) : 0);
	size_t good = (size_t)GOOD_PAGE * kvs->count / size + 1, most = 2UL * limit;
	most = most < LARGEST_PAGE ? most : LARGEST_PAGE;
	return (unsigned int)(good < most ? good : most);
}

/* Takes a page in.  0, or -errno if it can't be one. */
static int read_page(struct etcd_op *op, const struct wire_kvs *kvs)
{
	struct survey *survey = op->user;
	cleanup(free_ptr) char *from = take(op->key);

	if (kvs->more && !kvs->count)
		return -EIO;
	for (size_t i = 0; i < kvs->count; i++)
		add_key(op, survey, &kvs->kv[i]);
	if (!kvs->more)
		return 0;
	/* Nobody's key is another's with a NUL behind it, so this is the next possible one. */
	op->key = xasprintf("%s\x01", kvs->kv[kvs->count - 1].key);
	if (strcmp(op->key, from) <= 0)
		return -EIO;
	op->limit = next_limit(op->limit, kvs);
	return survey_is_too_large(survey->found) ? -EFBIG : 0;
}

static void on_page(struct etcd_op *op, int error, const struct wire_result *answer)
{
	const struct wire_kvs *kvs = &answer->ranges[0];
	struct survey *survey = op->user;

	if (error == -EFBIG && op->limit > 1) {
		op->limit = op->limit > FEWER ? op->limit / FEWER : 1;
		send_survey(op);
		return;
	}
	if (!error)
		error = read_page(op, kvs);
	loop_timer_disarm(&op->timer);
	if (error)
		end(op, error);
	else if (kvs->more)
		send_survey(op);
	else
		loop_defer(op->etcd->loop, &survey->task);
}

static void send_survey(struct etcd_op *op)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *last = key_end(op->etcd->prefix, "");

	wire_range(&txn, op->key, last, &(struct wire_range_options){.limit = op->limit});
	op->max_answer = op->limit > 1 ? MAX_PAGE : 0;
	etcd_op_send_names(op, &txn, ETCD_BATCH_ALONE);
}

void etcd_survey(struct store *store, store_survey_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct survey *survey = xzalloc(sizeof(*survey));
	struct etcd_op *op = etcd_op_new(etcd, "", on_page, survey);

	survey->fn = fn;
	survey->user = user;
	survey->found = survey_new();
	survey->task.fn = sort;
	survey->op = op;
	op->key = key_first(etcd->prefix, "");
	op->limit = FIRST_PAGE;
	send_survey(op);
}
