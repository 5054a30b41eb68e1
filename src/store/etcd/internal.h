/* SPDX-License-Identifier: MIT */
/* What the files of the etcd store share: the store itself, and one operation on it. */
#pragma once

#include "base/ledger.h"
#include "event/loop.h"
#include "store/etcd/batch.h"
#include "store/etcd/client.h"
#include "store/etcd/fence.h"
#include "store/etcd/lease.h"
#include "store/etcd/revision.h"
#include "store/etcd/watch.h"
#include "store/etcd/wire.h"
#include "store/store.h"

struct etcd_op;

struct etcd {
	struct store store;
	struct loop *loop;
	struct etcd_client *client;
	char *prefix;
	struct etcd_lease lease;
	struct etcd_watch watch;
	struct etcd_revision revision;
	struct etcd_fence fence;

	struct etcd_leased *leased;   /* directories that go with the lease, by path */
	struct store_place *places;   /* by id: ours that are, or may be, in the store */
	uint64_t sequence;            /* the last number that was given out for the first time */
	uint64_t sequence_end;        /* up to this one they are this process's, see the ledger */
	struct etcd_numbers *numbers; /* to be given out again, by path */
	size_t number_count;          /* how many */
	unsigned int numbers_epoch;   /* how often they were forgotten */
	unsigned int numbers_round;   /* how often it was tidied up */
	ledger_slot session;          /* in the ledger */
	uint64_t clock;               /* counts placements, for the comparison with etcd's list */
	struct etcd_op *ops;          /* under way */

	struct etcd_line places_line, names_line;
	size_t batch_max; /* operations in one transaction */

	/* Nothing may be granted while there are any: places that may have gone, each of which is
	 * asked for, answers that come late, deletes of which there are more. */
	unsigned int doubts;
	bool is_telling;

	struct loop_timer check_timer;
	struct etcd_call check_call;
	uint64_t check_clock, check_sequence; /* when the check was sent */
	mode_t root_mode;                     /* see etcd.h */
	int64_t check_ttl;                    /* what it was answered */
	struct wire_kvs check_keys;

	store_done_fn *start_fn, *stop_fn;
	void *start_user, *stop_user;
	struct loop_timer start_timer;
};

/*
 * result: 0, STORE_LOST, or -errno.  answer: borrowed; it fits the transaction, but is empty unless
 * result is 0.  Frees the op with etcd_op_free, or sends it again.
 */
typedef void etcd_op_fn(struct etcd_op *op, int result, const struct wire_result *answer);

/* One operation: how it is sent and what is needed to understand its answer. */
struct etcd_op {
	struct etcd *etcd;
	etcd_op_fn *fn;
	struct etcd_op *prev, *next; /* in etcd->ops */

	bool of_session;     /* answered with STORE_LOST when the session is lost */
	unsigned int strays; /* see struct etcd_call */
	struct etcd_line *line;
	struct wire_txn txn;     /* while it waits for a batch or is in one */
	bool is_batched;         /* it does */
	struct loop_timer timer; /* answers it with `verdict` if nothing else does */
	int verdict;
	enum etcd_batch_kind batch_kind;
	bool goes_alone;
	/* Or NULL: adds to txn, when it is about to be sent, what is too large to be kept. */
	void (*complete)(struct etcd_op *op);
	struct etcd_batch *batch; /* NULL: it waits for one */
	size_t batch_place;
	struct etcd_op *waiting_prev, *waiting_next; /* in line->waiting */

	struct store_place *place; /* borrowed */
	char *path, *key, *id;     /* owned */
	uint64_t token;            /* the place's */
	/* Of join: only what is newer is asked for. */
	uint64_t known;
	/* Of leave: of its place. */
	bool is_clean;
	unsigned int epoch;
	void *user;
	union {
		store_done_fn *done;
		store_queue_fn *queue;
		store_view_fn *view;
		store_describe_fn *describe;
		store_list_fn *list;
	};

	/* Of change: what to do once the directory was read. */
	unsigned int mask;
	struct store_directory directory;
	int64_t give_up_at;
	/* Of describe: how much text there may be. */
	size_t room;
	/* Of evict: who asks. */
	uid_t uid;
	/* Of survey: bytes of its answer, above which that is -EFBIG; 0: as of all others. */
	size_t max_answer;
	/* Of lookup: how many keys were asked for in the order of the queue; 0: none. */
	unsigned int limit;
	/* Of queue: with what everybody has of the file. */
	bool parts;
	/* Of write: the key of the news that goes with it; owned. */
	char *notice;
	/* Of list: what was found so far. */
	struct store_name *names;
	size_t name_count, name_capacity;
};

static inline struct etcd *etcd_of(struct store *store)
{
	return (struct etcd *)(void *)((char *)store - offsetof(struct etcd, store));
}

/* path is copied. */
struct etcd_op *etcd_op_new(struct etcd *etcd, const char *path, etcd_op_fn *fn, void *user);
void etcd_op_free(struct etcd_op *op);
/* Answers an op that has a `done`, and frees it. */
void etcd_op_done(struct etcd_op *op, int result);

/* Answers it with the verdict after so many milliseconds, unless something else does before. */
void etcd_op_pronounce(struct etcd_op *op, int verdict, int after);
extern const struct wire_result etcd_no_answer;

/* False if the answer has keys that are not of the operation's path, or older than the session. */
bool etcd_op_fits(struct etcd_op *op, const struct wire_result *answer);
/* True if that is the operation's own key. */
bool etcd_is_op_key(const struct etcd_op *op, const struct wire_kv *kv);

/*
 * All take the transaction over.  With a timeout an operation gives up after that, or at once while
 * the store is known not to answer; else never.
 */
/* For operations on places, which need the session: with and without a timeout. */
void etcd_op_send_timed(struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind);
void etcd_op_send_steady(struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind);
/* For reading and directories; with a timeout. */
void etcd_op_send_names(struct etcd_op *op, struct wire_txn *txn, enum etcd_batch_kind kind);

/* The place of ours in that queue; anybody can put a key of the same id into another one. */
struct store_place *etcd_find_place(struct etcd *etcd, const char *path, const char *id);
/* The store does not have that place of ours any more: tells its owner, unless it is known. */
void etcd_place_gone(struct etcd *etcd, const char *path, const char *id);
/*
 * The same for a place whose key was deleted at that revision.  Of one that is being made the
 * answer may still be on its way: etcd_place_heed is then to be called when that has come.
 */
void etcd_place_deleted(struct etcd *etcd, const char *path, const char *id, uint64_t revision);
void etcd_place_heed(struct etcd *etcd, const char *path, const char *id);
/* Nothing that waits may be granted until the doubt is over; both are to be paired. */
void etcd_doubt_begin(struct etcd *etcd);
void etcd_doubt_end(struct etcd *etcd);

/* numbers.c */
/* The number in a place's name; and the revision by which nothing was left of an earlier place that
 * had it, 0 if there was none. */
struct etcd_number {
	uint64_t number, gone;
};
struct etcd_number etcd_number_take(struct etcd *etcd, const char *path);
/* It may be used again, for that lock. */
void etcd_number_keep(struct etcd *etcd, const char *path, struct etcd_number number);
/* None of before is used again. */
void etcd_numbers_forget(struct etcd *etcd);
/* Forgets those of locks that nobody has taken for a while. */
void etcd_numbers_tidy(struct store *store);

/* resume.c */
/* A number that nobody had in this lease, whichever process gave it one. */
uint64_t etcd_next_sequence(struct etcd *etcd);
/* As etcd_lease_renewed_fn. */
void etcd_session_renewed(struct etcd_lease *lease);
bool etcd_resume(struct store *store);

/* etcd.c: true for an id that this session has given out */
bool etcd_is_of_session(const struct etcd *etcd, const char *id);

/* places.c */
/* The watch has told of a delete of ours, which it may do before the answer comes. */
void etcd_place_left(struct store_place *place);
/*
 * True for a key of our session, below a lock, that holds nothing: it is being deleted, or we do
 * not know of it.
 */
bool etcd_is_left_over(
	struct etcd *etcd, const char *path, const char *id, const struct wire_kv *kv);
void etcd_join(struct store *store, struct store_place *place, uint64_t known, size_t crowd,
	store_queue_fn *fn, void *user);
void etcd_try(struct store *store, struct store_place *place, store_done_fn *fn, void *user);
void etcd_attempt(struct store *store, struct store_place *place, uint64_t revision,
	store_queue_fn *fn, void *user);
bool etcd_adopt(struct store *store, struct store_place *place, const char *id, uint64_t token);
void etcd_leave(struct store *store, struct store_place *place, store_done_fn *fn, void *user);
void etcd_queue(struct store *store, const char *path, bool parts, store_queue_fn *fn, void *user);

/* An operation on a place, without an answer yet; and the put of its record. */
struct etcd_op *etcd_place_op(
	struct store *store, struct store_place *place, etcd_op_fn *fn, void *user);
void etcd_put_place(
	struct wire_txn *txn, const struct etcd_op *op, const struct store_place *place);
/* The operation's own key as the answer shows it, or NULL. */
const struct wire_kv *etcd_find_ours(const struct etcd_op *op, const struct wire_result *result);

/* presence.c */
void etcd_confirm(struct store *store, struct store_place *place, store_done_fn *fn, void *user);
/* The same, but it asks for as long as it takes, or until the session is lost. */
void etcd_ask_for(struct store *store, struct store_place *place, store_done_fn *fn, void *user);
void etcd_write(struct store *store, struct store_place *place, store_done_fn *fn, void *user);

/* leased.c: the directories of dirs=lease that this mount has made, to tell of their end */
void etcd_leased_add(struct etcd *etcd, const char *path, uint64_t revision);
/* One that is in the ledger. */
void etcd_leased_revive(struct etcd *etcd, const char *path, uint64_t revision, ledger_slot slot);
/* We are going to remove a directory; and what came of it: 0, or -errno. */
void etcd_leased_removing(struct etcd *etcd, const char *path);
void etcd_leased_removed(struct etcd *etcd, const char *path, int result);
/*
 * A key was deleted, which may be that of a directory; below: its path below the prefix.
 * True if it may have gone with the lease: the keys of that are to be read.
 */
bool etcd_leased_deleted(struct etcd *etcd, const char *below, uint64_t revision);
/* The keys of the lease were read: one of them, and then the end of them. */
void etcd_leased_seen(struct etcd *etcd, const char *below);
void etcd_leased_compare(struct etcd *etcd);
/* The lease was lost (and them with it), or is given back. */
void etcd_leased_end(struct etcd *etcd, bool lost);

/* status.c */
void etcd_status(const struct store *store, struct store_status *status);
void etcd_metrics(const struct store *store, struct buffer *text);
bool etcd_endpoint(const struct store *store, size_t number, struct store_endpoint *endpoint);

/* survey.c */
void etcd_survey(struct store *store, store_survey_fn *fn, void *user);

/* evict.c */
void etcd_evict(struct store *store, const char *path, uint64_t token, uid_t uid, store_done_fn *fn,
	void *user);

/* names.c */
void etcd_lookup(struct store *store, const char *path, store_view_fn *fn, void *user);
void etcd_describe(
	struct store *store, const char *path, size_t room, store_describe_fn *fn, void *user);
void etcd_list(struct store *store, const char *path, store_list_fn *fn, void *user);
void etcd_mkdir(struct store *store, const char *path, const struct store_directory *directory,
	bool of_session, uint64_t mark, store_done_fn *fn, void *user);
void etcd_rmdir(
	struct store *store, const char *path, uint64_t created, store_done_fn *fn, void *user);
void etcd_change(struct store *store, const char *path, unsigned int mask,
	const struct store_directory *to, store_done_fn *fn, void *user);
