/* SPDX-License-Identifier: MIT */
/* Everything at once: all places in all queues, and the directories. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"

enum {
	/* Most stores have fewer keys, and are read by one request. */
	PAGE = 5000,
	/* For when so many fill more than an answer can have, as they do if many have content. */
	SMALL_PAGE = 200,
	MAX_ENTRIES = 500 * 1000,
};

struct survey {
	store_survey_fn *fn;
	void *user;
	struct store_survey found;
	size_t places_capacity, directories_capacity;
};

static void survey_free(struct survey *survey)
{
	for (size_t i = 0; i < survey->found.place_count; i++) {
		ranges_fini(&survey->found.places[i].ranges);
		free(survey->found.places[i].path);
		free(survey->found.places[i].host);
		free(survey->found.places[i].command);
	}
	for (size_t i = 0; i < survey->found.directory_count; i++)
		free(survey->found.directories[i].path);
	free(survey->found.places);
	free(survey->found.directories);
	free(survey);
}

/* --- what is found --- */

static void *grow(void *list, size_t count, size_t *capacity, size_t size)
{
	if (count < *capacity)
		return list;
	*capacity = *capacity ? 2 * *capacity : 64;
	return xrealloc(list, *capacity, size);
}

static void add_place(struct survey *survey, char *path, const char *id, const struct wire_kv *kv)
{
	struct store_survey *found = &survey->found;
	struct record record;

	found->places = grow(found->places, found->place_count, &survey->places_capacity,
		sizeof(found->places[0]));
	bool shared = value_parse_place(id, kv->value, &record);
	found->places[found->place_count++] = (struct store_survey_place){.path = path,
		.token = kv->created,
		.shared = shared,
		.ranges = record.ranges,
		.host = record.known ? xstrdup(record.host) : NULL,
		.command = record.known ? xstrdup(record.command) : NULL,
		.pid = record.pid,
		.uid = record.uid,
		.since = record.since};
	record.ranges = (struct ranges){0}; /* taken over */
	record_fini(&record);
}

static void add_directory(struct survey *survey, char *path, const struct wire_kv *kv)
{
	struct store_survey *found = &survey->found;

	found->directories = grow(found->directories, found->directory_count,
		&survey->directories_capacity, sizeof(found->directories[0]));
	struct store_survey_directory *directory = &found->directories[found->directory_count++];
	directory->path = path;
	value_parse_directory(kv->value, &directory->directory);
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
	char *path = xasprintf("%.*s", (int)length, below);
	if (is_directory) {
		add_directory(survey, path, kv);
	} else if (key_noticed(path) || etcd_is_left_over(op->etcd, path, id, kv)) {
		free(path);
	} else {
		add_place(survey, path, id, kv);
	}
}

static int by_path_and_token(const void *a, const void *b)
{
	const struct store_survey_place *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order ? order : (x->token > y->token) - (x->token < y->token);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct store_survey_directory *)a)->path,
		((const struct store_survey_directory *)b)->path);
}

static void sort(struct store_survey *found)
{
	if (found->place_count)
		qsort(found->places, found->place_count, sizeof(found->places[0]),
			by_path_and_token);
	if (found->directory_count)
		qsort(found->directories, found->directory_count, sizeof(found->directories[0]),
			by_path);
}

/* --- asking --- */

static void end(struct etcd_op *op, int result)
{
	struct survey *survey = op->user;

	etcd_op_free(op);
	sort(&survey->found);
	survey->fn(survey->user, result, result ? NULL : &survey->found);
	survey_free(survey);
}

static void send_survey(struct etcd_op *op);

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
	return survey->found.place_count + survey->found.directory_count > MAX_ENTRIES ? -EFBIG : 0;
}

static void on_page(struct etcd_op *op, int error, const struct wire_result *answer)
{
	const struct wire_kvs *kvs = &answer->ranges[0];

	if (error == -EIO && op->limit > SMALL_PAGE && etcd_client_reachable(op->etcd->client)) {
		op->limit = SMALL_PAGE;
		send_survey(op);
		return;
	}
	if (!error)
		error = read_page(op, kvs);
	if (!error && kvs->more)
		send_survey(op);
	else
		end(op, error);
}

static void send_survey(struct etcd_op *op)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *last = key_end(op->etcd->prefix, "");

	wire_range(&txn, op->key, last, &(struct wire_range_options){.limit = op->limit});
	etcd_op_send_names(op, &txn, ETCD_BATCH_ALONE);
}

void etcd_survey(struct store *store, store_survey_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct survey *survey = xzalloc(sizeof(*survey));
	struct etcd_op *op = etcd_op_new(etcd, "", on_page, survey);

	survey->fn = fn;
	survey->user = user;
	op->key = key_first(etcd->prefix, "");
	op->limit = PAGE;
	send_survey(op);
}
