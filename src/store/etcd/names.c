/* SPDX-License-Identifier: MIT */
/* Names: what they are, who holds them, directories and what is in them. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"
#include "store/etcd/values.h"
#include "store/policy.h"

enum { LIST_PAGE = 5000, MAX_NAMES = 1000000 };

/* --- looking a name up --- */

/* NULL if the key is not that of a place, but of something below the name. */
static char *place_id(const struct etcd_op *op, const struct wire_kv *kv)
{
	return key_place_id(op->etcd->prefix, op->path, kv->key, kv->key_size);
}

/* True for one of ours that is just being given back. */
static bool is_left_over(const struct etcd_op *op, const struct wire_kv *kv)
{
	cleanup(free_ptr) char *id = place_id(op, kv);

	return id && etcd_is_left_over(op->etcd, op->path, id, kv);
}

/* A directory's, which comes before all that is in it. */
static const struct wire_kv *own_key(const struct etcd_op *op, const struct wire_kvs *kvs)
{
	return kvs->count && etcd_is_op_key(op, kvs->kv) ? kvs->kv : NULL;
}

/* The first in the queue, NULL if there is none. */
static const struct wire_kv *first_place(const struct etcd_op *op, const struct wire_kvs *kvs)
{
	const struct wire_kv *first = NULL;

	for (size_t i = 0; kvs->kv && i < kvs->count; i++) {
		const struct wire_kv *kv = &kvs->kv[i];
		if ((!first || kv->created < first->created) && !is_left_over(op, kv))
			first = kv;
	}
	return first;
}

/* As the value of its key says, NULL if it has none. */
static void read_own(const struct etcd_op *op, const char *value, struct store_directory *directory)
{
	value_parse_directory(value, directory);
	if (!value && !*op->path)
		directory->mode = op->etcd->root_mode;
}

static void view_of(struct etcd_op *op, const struct wire_kvs *kvs, struct store_view *view)
{
	const struct wire_kv *own = own_key(op, kvs);

	*view = (struct store_view){.kind = STORE_KIND_FREE};
	if (own || !*op->path) {
		view->kind = STORE_KIND_DIRECTORY;
		read_own(op, own ? own->value : NULL, &view->directory);
		view->directory.created = own ? own->created : 0;
		return;
	}
	const struct wire_kv *first = first_place(op, kvs);
	if (!first)
		return;
	cleanup(free_ptr) char *id = place_id(op, first);
	if (!id) {
		view->kind = STORE_KIND_DIRECTORY;
		value_parse_directory(NULL, &view->directory);
		return;
	}
	view->kind = STORE_KIND_LOCK;
	view->token = first->created;
	view->shared = value_parse_place(id, first->value, &view->record);
}

/* True if others may have written what the file reads as: all that have parts of it. */
static bool lacks_content(const struct store_view *view)
{
	return view->kind == STORE_KIND_LOCK && view->record.ranges.count &&
	       !view->record.content_size;
}

/* The content of the first of them that has one becomes the view's. */
static void find_content(
	const struct etcd_op *op, const struct wire_kvs *kvs, struct store_view *view)
{
	uint64_t first = UINT64_MAX;

	for (size_t i = 0; kvs->kv && i < kvs->count; i++) {
		const struct wire_kv *kv = &kvs->kv[i];
		cleanup(free_ptr) char *id = place_id(op, kv);
		struct record record;
		if (!id || kv->created >= first || is_left_over(op, kv))
			continue;
		value_parse_place(id, kv->value, &record);
		if (record.content_size) {
			first = kv->created;
			free(view->record.content);
			view->record.content = take(record.content);
			view->record.content_size = record.content_size;
		}
		record_fini(&record);
	}
}

/* A few keys tell what most names are. */
static void send_lookup(struct etcd_op *op)
{
	enum { FEW = 3 };
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *end = key_end(op->etcd->prefix, op->path);

	/* The root is a directory in any case: only its own key is of interest. */
	wire_range(
		&txn, op->key, *op->path ? end : NULL, &(struct wire_range_options){.limit = FEW});
	etcd_op_send_names(op, &txn, ETCD_BATCH_ANY);
}

/* Of a crowd the first come first, for which etcd sorts them; it need not do so for a directory. */
static void send_lookup_in_order(struct etcd_op *op, unsigned int limit)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *end = key_end(op->etcd->prefix, op->path);

	op->limit = limit;
	wire_if_present(&txn, op->key);
	wire_range(&txn, op->key, NULL, &(struct wire_range_options){0});
	wire_txn_else(&txn);
	wire_range(&txn, op->key, end,
		&(struct wire_range_options){.by_creation = true, .limit = limit});
	etcd_op_send_names(op, &txn, ETCD_BATCH_ANY);
}

/* Behind a place of the whole file nobody has a part of it to write to. */
static bool may_find_content(
	const struct etcd_op *op, const struct wire_kvs *kvs, const struct store_view *view)
{
	struct range range;

	if (!kvs->kv || !lacks_content(view) || op->limit >= RANGES_MAX)
		return false;
	cleanup(free_ptr) char *last = place_id(op, &kvs->kv[kvs->count - 1]);
	return last && key_id_range(last, &range);
}

/* True if what was read is not all there is, and who is looked for may be behind it. */
static bool is_cut(
	const struct etcd_op *op, const struct wire_kvs *kvs, const struct store_view *view)
{
	if (!kvs->more || own_key(op, kvs))
		return false;
	return !op->limit || view->kind == STORE_KIND_FREE || may_find_content(op, kvs, view);
}

static void on_looked_up(struct etcd_op *op, int error, const struct wire_result *answer)
{
	const struct wire_kvs *kvs = &answer->ranges[0];
	struct store_view view = {0};
	store_view_fn *fn = op->view;
	void *user = op->user;

	if (!error)
		view_of(op, kvs, &view);
	if (!error && is_cut(op, kvs, &view)) {
		record_fini(&view.record);
		send_lookup_in_order(op, op->limit ? 2 * op->limit : 2);
		return;
	}
	if (!error && lacks_content(&view))
		find_content(op, kvs, &view);
	etcd_op_free(op);
	fn(user, error, error ? NULL : &view);
	record_fini(&view.record);
}

void etcd_lookup(struct store *store, const char *path, store_view_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct etcd_op *op = etcd_op_new(etcd, path, on_looked_up, user);

	op->view = fn;
	op->key = key_first(etcd->prefix, path);
	send_lookup(op);
}

/* --- describing a queue --- */

static char *describe_kv(struct etcd_op *op, const struct wire_kv *kv)
{
	struct record record;
	cleanup(free_ptr) char *id = place_id(op, kv);

	if (!id || etcd_is_left_over(op->etcd, op->path, id, kv))
		return NULL;
	bool shared = value_parse_place(id, kv->value, &record);
	char *text = value_describe(&record, shared, kv->created);
	record_fini(&record);
	return text;
}

static void on_described(struct etcd_op *op, int error, const struct wire_result *answer)
{
	struct buffer queue = {0};
	cleanup(free_ptr) char *holder = NULL;
	size_t left_out = 0, room = op->room - strlen(",{\"more\":18446744073709551615}]");
	store_describe_fn *fn = op->describe;
	void *user = op->user;

	buffer_add_string(&queue, "[");
	for (size_t i = 0; i < answer->ranges[0].count; i++) {
		char *text = describe_kv(op, &answer->ranges[0].kv[i]);
		if (!text)
			continue;
		if (left_out || queue.size + strlen(",") + strlen(text) > room)
			left_out++;
		else
			buffer_addf(&queue, "%s%s", holder ? "," : "", text);
		if (!holder)
			holder = take(text);
		free(text);
	}
	if (left_out)
		buffer_addf(&queue, "%s{\"more\":%zu}", queue.size > 1 ? "," : "", left_out);
	buffer_add_string(&queue, "]");
	etcd_op_free(op);
	fn(user, error, holder, queue.data);
	buffer_fini(&queue);
}

void etcd_describe(
	struct store *store, const char *path, size_t room, store_describe_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_op_new(etcd, path, on_described, user);
	cleanup(free_ptr) char *first = key_first(etcd->prefix, path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, path);

	op->describe = fn;
	op->room = room;
	wire_range(&txn, first, end, &(struct wire_range_options){.by_creation = true});
	etcd_op_send_names(op, &txn, ETCD_BATCH_ALONE);
}

/* --- listing a directory --- */

/* The name, for which there may be several keys. */
static struct store_name *add_name(struct etcd_op *op, const char *name, size_t length)
{
	struct store_name *last = op->name_count ? &op->names[op->name_count - 1] : NULL;

	if (last && strlen(last->name) == length && memcmp(last->name, name, length) == 0)
		return last;
	if (!op->names || op->name_count == op->name_capacity) {
		op->name_capacity = op->name_capacity ? 2 * op->name_capacity : 64;
		op->names = xrealloc(op->names, op->name_capacity, sizeof(op->names[0]));
	}
	last = &op->names[op->name_count++];
	*last = (struct store_name){.name = xasprintf("%.*s", (int)length, name)};
	return last;
}

/* What a file can't be called. */
static bool is_name(const char *text, size_t length)
{
	return length && length <= NAME_MAX && !(length <= 2 && strspn(text, ".") >= length);
}

/* "name/ID" is a lock, "name/" and "name/more/..." a directory; others are not below any name. */
static void list_key(struct etcd_op *op, const struct wire_kv *kv)
{
	/* A NUL can't be in a name of ours, and the rest of the key does not matter. */
	cleanup(free_ptr) char *first = key_first(op->etcd->prefix, op->path);
	const char *below = kv->key + strlen(first);
	const char *slash = strchr(below, '/');

	if (!slash || !is_name(below, (size_t)(slash - below)) ||
		(!*op->path && key_is_hidden(below)))
		return;
	bool directory = slash[1] == '\0' || strchr(slash + 1, '/');
	cleanup(free_ptr) char *path =
		xasprintf("%s%s%.*s", op->path, *op->path ? "/" : "", (int)(slash - below), below);
	if (!directory && etcd_is_left_over(op->etcd, path, slash + 1, kv))
		return;
	struct store_name *name = add_name(op, below, (size_t)(slash - below));
	name->directory = name->directory || directory;
	name->symlink = name->symlink || (!directory && key_id_is_symlink(slash + 1));
}

static void answer_list(struct etcd_op *op, int result)
{
	op->list(op->user, result, op->names, op->name_count);
	etcd_op_free(op);
}

static void send_list(struct etcd_op *op);

/* Reads a page; one behind which there are more is full, and begins where the last one ended. */
static int read_page(struct etcd_op *op, const struct wire_kvs *kvs)
{
	if (kvs->more && kvs->count < LIST_PAGE)
		return -EIO;
	for (size_t i = 0; i < kvs->count; i++)
		list_key(op, &kvs->kv[i]);
	if (!kvs->more)
		return 0;
	const char *last = kvs->kv[kvs->count - 1].key;
	if (op->key && strcmp(last, op->key) <= 0)
		return -EIO;
	free(op->key);
	op->key = xstrdup(last);
	return 0;
}

static void on_listed(struct etcd_op *op, int error, const struct wire_result *answer)
{
	const struct wire_kvs *kvs = &answer->ranges[0];

	if (!error)
		error = read_page(op, kvs);
	if (!error && op->name_count > MAX_NAMES)
		error = -EFBIG;
	if (!error && kvs->more)
		send_list(op);
	else
		answer_list(op, error);
}

/* Where the next page begins: behind everything below the name that the last key belongs to. */
static char *next_page(const struct etcd_op *op)
{
	cleanup(free_ptr) char *first = key_first(op->etcd->prefix, op->path);

	if (!op->key)
		return xstrdup(first);
	const char *slash = strchr(op->key + strlen(first), '/');
	return slash ? xasprintf("%.*s0", (int)(slash - op->key), op->key)
		     : xasprintf("%s\x01", op->key);
}

static void send_list(struct etcd_op *op)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *from = next_page(op);
	cleanup(free_ptr) char *end = key_end(op->etcd->prefix, op->path);

	wire_range(&txn, from, end,
		&(struct wire_range_options){.keys_only = true, .limit = LIST_PAGE});
	etcd_op_send_names(op, &txn, ETCD_BATCH_ALONE);
}

void etcd_list(struct store *store, const char *path, store_list_fn *fn, void *user)
{
	struct etcd_op *op = etcd_op_new(etcd_of(store), path, on_listed, user);

	op->list = fn;
	send_list(op);
}

/* --- directories --- */

static void on_made(struct etcd_op *op, int error, const struct wire_result *answer)
{
	if (error == STORE_LOST)
		error = -EIO;
	if (!error && !answer->succeeded) {
		/* An attempt whose answer was lost may have made it. */
		const struct wire_kvs *kvs = &answer->ranges[0];
		bool ours = kvs->count && value_directory_has_id(kvs->kv[0].value, op->id);
		error = ours ? 0 : -EEXIST;
	}
	if (!error && op->of_session)
		etcd_leased_add(op->etcd, op->path, answer->revision);
	etcd_op_done(op, error);
}

void etcd_mkdir(struct store *store, const char *path, const struct store_directory *directory,
	bool of_session, uint64_t mark, store_done_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_op_new(etcd, path, on_made, user);
	cleanup(free_ptr) char *first = key_first(etcd->prefix, path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, path);

	op->done = fn;
	op->id = mark ? xasprintf("%" PRIx64 ".m%" PRIx64, etcd->lease.id, mark)
		      : xasprintf("%" PRIx64 ".%" PRIx64, etcd->lease.id, etcd_next_sequence(etcd));
	cleanup(free_ptr) char *value = value_of_directory(directory, op->id);
	wire_if_absent(&txn, first, end);
	wire_put(&txn, first, value, of_session ? etcd->lease.id : 0);
	wire_txn_else(&txn);
	wire_range(&txn, first, NULL, &(struct wire_range_options){0});
	if (of_session)
		etcd_op_send_timed(op, &txn, ETCD_BATCH_SOLE);
	else
		etcd_op_send_names(op, &txn, ETCD_BATCH_SOLE);
}

/* Why a directory was not removed, by the first key of its name. */
static int refusal(const struct etcd_op *op, const struct wire_kvs *kvs)
{
	/* The one that was meant, or one without a key of its own. */
	bool own = kvs->count && etcd_is_op_key(op, kvs->kv);
	cleanup(free_ptr) char *id = kvs->count && !own ? place_id(op, kvs->kv) : NULL;

	if (own ? !op->token || kvs->kv->created == op->token : kvs->count && !id)
		return -ENOTEMPTY;
	/* Not there: an attempt whose answer was lost may have removed it. */
	if (op->strays)
		return 0;
	return id ? -ENOTDIR : -ENOENT;
}

static void on_removed(struct etcd_op *op, int error, const struct wire_result *answer)
{
	if (!error && !answer->succeeded)
		error = refusal(op, &answer->ranges[0]);
	etcd_leased_removed(op->etcd, op->path, error);
	etcd_op_done(op, error);
}

void etcd_rmdir(
	struct store *store, const char *path, uint64_t created, store_done_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct wire_txn txn = {0};
	struct etcd_op *op = etcd_op_new(etcd, path, on_removed, user);
	cleanup(free_ptr) char *first = key_first(etcd->prefix, path);
	cleanup(free_ptr) char *end = key_end(etcd->prefix, path);
	cleanup(free_ptr) char *after = xasprintf("%s\x01", first);

	op->done = fn;
	etcd_leased_removing(etcd, path);
	op->token = created;
	op->key = xstrdup(first);
	if (created)
		wire_if_created(&txn, first, created);
	else
		wire_if_present(&txn, first);
	wire_if_absent(&txn, after, end);
	wire_delete(&txn, first);
	wire_txn_else(&txn);
	wire_range(&txn, first, end, &(struct wire_range_options){.keys_only = true, .limit = 1});
	etcd_op_send_names(op, &txn, ETCD_BATCH_SOLE);
}

static void send_change(struct etcd_op *op);

static void apply_change(
	struct store_directory *to, const struct store_directory *from, unsigned int mask)
{
	if (mask & STORE_CHANGE_MODE)
		to->mode = from->mode;
	if (mask & STORE_CHANGE_UID)
		to->uid = from->uid;
	if (mask & STORE_CHANGE_GID)
		to->gid = from->gid;
	if (mask & STORE_CHANGE_ATIME)
		to->atime = from->atime;
	if (mask & STORE_CHANGE_MTIME)
		to->mtime = from->mtime;
	policy_apply(&to->policy, &from->policy, mask);
	clock_gettime(CLOCK_REALTIME, &to->ctime);
}

/* Whether the policies are as the change wants them to be.  An attempt whose answer was lost may
 * have made it. */
static int check_policies(const struct etcd_op *op, const struct store_directory *now)
{
	const struct store_policy *to = &op->directory.policy;
	unsigned int mask = op->mask, all = policy_equal_ones(to, to, mask);
	unsigned int set = policy_set_ones(&now->policy, mask);

	if (op->strays && policy_equal_ones(&now->policy, to, mask) == all)
		return 0;
	if ((mask & STORE_CHANGE_CREATES) && set)
		return -EEXIST;
	return (mask & STORE_CHANGE_REPLACES) && set != all ? -ENODATA : 0;
}

static void on_changed(struct etcd_op *op, int error, const struct wire_result *answer)
{
	bool again = !error && !answer->succeeded; /* somebody was faster */

	if (again && loop_clock() < op->give_up_at)
		send_change(op); /* on what is there now */
	else
		etcd_op_done(op, again ? -EIO : error);
}

static void on_read_for_change(struct etcd_op *op, int error, const struct wire_result *answer)
{
	struct store_directory now;

	const struct wire_kvs *own = &answer->ranges[0], *any = &answer->ranges[1];
	if (!error && !own->count && !any->count && *op->path)
		error = -ENOENT;
	if (error) {
		etcd_op_done(op, error);
		return;
	}
	read_own(op, own->count ? own->kv[0].value : NULL, &now);
	error = check_policies(op, &now);
	if (error) {
		etcd_op_done(op, error);
		return;
	}
	if (!own->count) {
		/* It gets a key of its own, and begins with that. */
		clock_gettime(CLOCK_REALTIME, &now.mtime);
		now.atime = now.mtime;
	}
	apply_change(&now, &op->directory, op->mask);
	cleanup(free_ptr) char *value = value_of_directory(&now, NULL);
	struct wire_txn txn = {0};
	wire_if_modified(&txn, op->key, own->count ? own->kv[0].modified : 0);
	/* One that goes with a lease, whosever, goes on to do so. */
	if (own->count && own->kv[0].lease)
		wire_put_again(&txn, op->key, value);
	else
		wire_put(&txn, op->key, value, 0);
	op->fn = on_changed;
	etcd_op_send_names(op, &txn, ETCD_BATCH_SOLE);
}

static void send_change(struct etcd_op *op)
{
	struct wire_txn txn = {0};
	cleanup(free_ptr) char *end = key_end(op->etcd->prefix, op->path);

	wire_range(&txn, op->key, NULL, &(struct wire_range_options){0});
	wire_range(&txn, op->key, end, &(struct wire_range_options){.keys_only = true, .limit = 1});
	op->fn = on_read_for_change;
	etcd_op_send_names(op, &txn, ETCD_BATCH_SOLE);
}

void etcd_change(struct store *store, const char *path, unsigned int mask,
	const struct store_directory *to, store_done_fn *fn, void *user)
{
	struct etcd *etcd = etcd_of(store);
	struct etcd_op *op = etcd_op_new(etcd, path, on_read_for_change, user);

	op->done = fn;
	op->mask = mask;
	op->directory = *to;
	op->give_up_at = loop_clock() + etcd_client_timeout(etcd->client);
	op->key = key_first(etcd->prefix, path);
	send_change(op);
}
