/* SPDX-License-Identifier: MIT */
/*
 * etcd's v3 JSON gateway: composing requests and reading answers.
 *
 * Source: the gRPC API of etcd 3.4 and 3.5, as its gateway maps it to JSON: bytes are base64,
 * 64-bit numbers are strings, and zero or false fields are left out.  Every function that reads
 * takes anything and returns -EBADMSG for what makes no sense: what is not JSON, of wrong types,
 * contradicts itself or does not fit what was asked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* --- requests: each gives a body that the caller frees --- */

char *wire_authenticate(const char *user, const char *password);
char *wire_lease_grant(int64_t ttl_seconds);
char *wire_lease(uint64_t lease); /* keepalive and revoke */
char *wire_lease_keys(uint64_t lease);
/* Deletes of keys from `first` up to `end`, beginning with revision `from`. */
char *wire_watch(const char *first, const char *end, uint64_t from);

/* What was asked, as far as an answer has to fit it: the operations of both branches. */
enum { WIRE_MAX_OPERATIONS = 6 };
enum wire_kind { WIRE_PUT, WIRE_DELETE, WIRE_RANGE, WIRE_LIMITED_RANGE };
struct wire_branch {
	enum wire_kind kinds[WIRE_MAX_OPERATIONS];
	size_t count;
};
struct wire_shape {
	bool conditional; /* there are compares */
	bool nested;      /* as a part it is a transaction of its own even if there are none */
	struct wire_branch success, failure;
};
/* True for a single delete or range, which is no transaction on its way. */
bool wire_is_sole(const struct wire_shape *shape);
/* True if it may change something. */
bool wire_writes(const struct wire_shape *shape);

/*
 * A transaction: compares, the operations that are carried out if all of them hold, and behind
 * wire_txn_else those for when not.  A zeroed struct is an empty one; the caller ends it with
 * wire_txn_fini.
 */
struct wire_txn {
	struct buffer compares, success, failure;
	struct wire_shape shape; /* without the parts that were added to it */
	bool has_else;
};
void wire_txn_fini(struct wire_txn *txn);
/* Its body, which the caller frees, and which call takes it ("/v3/kv/txn"): a single delete or
 * range is asked for as such, which costs etcd less. */
char *wire_txn_body(const struct wire_txn *txn, const char **rpc);

/* Holds if no key from `first` up to `end` exists; end = NULL: that one key. */
void wire_if_absent(struct wire_txn *txn, const char *first, const char *end);
/* Holds if the key was created at (or last changed at) this revision. */
void wire_if_created(struct wire_txn *txn, const char *key, uint64_t revision);
void wire_if_modified(struct wire_txn *txn, const char *key, uint64_t revision);
/* Holds if no key from `first` up to `end` was changed, or made, after this revision. */
void wire_if_unchanged(struct wire_txn *txn, const char *first, const char *end, uint64_t revision);
/* Holds if the key exists. */
void wire_if_present(struct wire_txn *txn, const char *key);
void wire_txn_else(struct wire_txn *txn);
void wire_put(struct wire_txn *txn, const char *key, const char *value, uint64_t lease);
/* Of a key that exists (else etcd refuses): it stays with its lease. */
void wire_put_again(struct wire_txn *txn, const char *key, const char *value);
void wire_delete(struct wire_txn *txn, const char *key);

struct wire_range_options {
	bool keys_only;
	bool by_creation;      /* else by key */
	uint64_t created_from; /* only keys created at or after that revision */
	uint64_t created_to;   /* and at or before that one; 0 = any */
	unsigned int limit;    /* 0 = none */
};
/* end = NULL: that one key. */
void wire_range(struct wire_txn *txn, const char *first, const char *end,
	const struct wire_range_options *options);

/*
 * A transaction as a part of a larger one: its operations, if it is unconditional and not nested,
 * and else itself as one operation.
 */
void wire_add_part(struct wire_txn *txn, const struct wire_txn *part);
/* Adds all that another transaction has, to an empty one. */
void wire_add_whole(struct wire_txn *txn, const struct wire_txn *other);
/* How many operations of its own a part adds; 0: it is added as a nested transaction. */
size_t wire_part_operations(const struct wire_txn *part);
/* How much text it adds, in bytes. */
size_t wire_part_size(const struct wire_txn *part);

/* --- answers --- */

enum wire_error_kind {
	WIRE_ERROR_RETRY,   /* this member, or this moment */
	WIRE_ERROR_TOKEN,   /* no token, or one that is not valid any more */
	WIRE_ERROR_REFUSED, /* credentials or permission */
	WIRE_ERROR_NO_AUTH, /* authentication is switched off */
	WIRE_ERROR_NO_LEASE,
	WIRE_ERROR_COMPACTED,
	WIRE_ERROR_FULL,
	WIRE_ERROR_TOO_LARGE,
	WIRE_ERROR_TOO_MANY, /* operations in one transaction */
	WIRE_ERROR_OTHER,
};

struct wire_error {
	enum wire_error_kind kind;
	char message[200];
};

/* Classifies the body of an answer whose HTTP status is not 200.  What does not come from etcd, but
 * from something in between, is a matter of this member. */
void wire_parse_error(const char *body, int status, struct wire_error *error);

/* An answer of which nothing is of interest but that it is one: 0 or -EBADMSG. */
int wire_parse_nothing(const char *body);

/* The token of an answer to authenticate, which can stand in a header; NULL if there is none.  The
 * caller frees it. */
char *wire_parse_token(const char *body);

/*
 * The cluster that answered, and the raft term of the last entry that the member had applied by
 * then; 0 if it did not say.  In the answer to a keepalive that is the term before the renewal.
 */
struct wire_origin {
	uint64_t cluster, term;
	uint64_t revision;
};
/* Of any answer: 0 or -EBADMSG. */
int wire_parse_origin(const char *body, struct wire_origin *origin);

struct wire_lease {
	uint64_t id;
	int64_t ttl; /* seconds; 0 or less: the lease is gone */
	uint64_t revision;
	struct wire_origin origin;
};
int wire_parse_grant(const char *body, struct wire_lease *lease);
int wire_parse_keepalive(const char *body, uint64_t id, struct wire_lease *lease);

struct wire_kv {
	char *key; /* owned */
	size_t key_size;
	char *value; /* owned; NULL if empty or not asked for */
	uint64_t created, modified, lease;
};

struct wire_kvs {
	struct wire_kv *kv;
	size_t count;
	bool more; /* the limit cut it */
};

struct wire_result {
	uint64_t revision;
	bool succeeded; /* the compares held */
	/* Of the branch that was taken, in order, and as many as it has. */
	struct wire_kvs ranges[WIRE_MAX_OPERATIONS];
	size_t range_count;
	uint64_t deleted; /* how many keys */
};
/*
 * The answer to a transaction of that shape; and to one that was made of `count` parts: one result
 * for each.  guard: NULL, or what the transaction has besides its parts: compares, operations
 * behind the parts, and others instead of all that if the compares do not hold; then only *guarded
 * has a result.  On success the caller calls wire_result_fini; on error there is nothing to free.
 */
int wire_parse_txn(const char *body, const struct wire_shape *shape, struct wire_result *result);
int wire_parse_parts(const char *body, const struct wire_shape *shapes, struct wire_result *results,
	size_t count, const struct wire_shape *guard, struct wire_result *guarded);
void wire_result_fini(struct wire_result *result);

/* The keys of lease/timetolive, as kvs of which only the key is set; the caller calls
 * wire_kvs_fini. */
int wire_parse_lease_keys(const char *body, uint64_t id, int64_t *ttl, struct wire_kvs *keys);
void wire_kvs_fini(struct wire_kvs *kvs);

struct wire_watch_message {
	bool created, canceled;
	bool is_fragment;      /* there are more events of the last one's revision */
	uint64_t revision;     /* of the header: everything up to it has been told; 0 if canceled */
	uint64_t compacted_to; /* not 0: the revision asked for does not exist any more */
	struct wire_error error; /* if canceled, or the stream failed */
	/* key and `modified` = the revision of the delete; none is younger than `revision`. */
	struct wire_kvs deleted;
};
/* One line of a watch's stream; on success the caller calls wire_kvs_fini(&message->deleted). */
int wire_parse_watch(const char *line, struct wire_watch_message *message);
