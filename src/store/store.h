/* SPDX-License-Identifier: MIT */
/*
 * What a lock store can do: the seam between the locks and etcd (or another store).
 *
 * A lock is a queue of places ordered by token; a token is larger than every earlier one of that
 * lock and names its holder to others (a fencing token).  Our places belong to a session which the
 * store may lose; then all of them are gone together.
 *
 * The one rule: every operation is answered exactly once, and never inside the call that started
 * it.  A result below 0 is -errno: -EACCES (refused), -ENOSPC, -EFBIG, -EISDIR, -EIO (not reachable
 * in time, or an answer that makes no sense).  Results above 0 are the outcomes below.
 *
 * A path is relative to the mount's root, without a slash at either end; "" is the root itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <uthash.h>

#include "store/record.h"

struct buffer;
struct ledger;
struct store;

enum store_outcome {
	STORE_BUSY = 1, /* a try met somebody */
	STORE_GONE,     /* the place is not in the queue any more */
	STORE_LOST,     /* the session was lost: nothing of it is held */
};

enum { STORE_ID_SIZE = 96 };

/* One of our places in the queue of a lock.  Embedded in its owner, who keeps it until it is left.
 */
struct store_place {
	/* Set by the owner before joining; borrowed until the place is left. */
	const char *path;
	bool shared;
	const struct record *record;
	/* Set by the owner when the record has fewer ranges: whoever waits is told with the next
	 * write, which takes it back. */
	bool shrunk;

	/* Set by the store when it has joined. */
	uint64_t token;
	/* Set by the store when it writes: of the record, which may be newer than when it was asked
	 * to. */
	uint64_t written_version;

	/* The store's own. */
	char id[STORE_ID_SIZE]; /* its name in the queue */
	uint64_t former;        /* what is older than this revision was another's of that name */
	bool placed;            /* known to be in the store */
	bool clean;             /* it was put there by one request, which was answered */
	unsigned int epoch;     /* of names, in which it was given this one */
	bool leaving;
	void *leave;        /* the operation that gives it back */
	uint64_t placed_at; /* when, on the store's own count */
	uint64_t deleted;   /* not placed: revision of a delete of which was told before */
	UT_hash_handle hh;
};

/* Anybody's place, as read from the store. */
struct store_contender {
	uint64_t token;
	bool shared;
	bool symlink;         /* see store_name */
	struct ranges ranges; /* what it has of the file; none: all of it */
	uint64_t changed;     /* the revision at which it had that; 0: when it joined */
	bool stale;           /* it may have less by now */
	const char *id;
	struct store_place *ours; /* NULL: somebody else's */
};

/* A lock's queue in the order of tokens, as it was at `revision`. */
struct store_queue {
	uint64_t revision;
	const struct store_contender *contenders;
	size_t count;
};

enum store_names { STORE_NAMES_INHERIT, STORE_NAMES_HELD, STORE_NAMES_ALWAYS };
enum store_open { STORE_OPEN_INHERIT, STORE_OPEN_PLAIN, STORE_OPEN_LOCK };
enum store_on_loss {
	STORE_ON_LOSS_INHERIT,
	STORE_ON_LOSS_ERROR,
	STORE_ON_LOSS_TERM,
	STORE_ON_LOSS_KILL
};
enum store_dirs { STORE_DIRS_INHERIT, STORE_DIRS_KEEP, STORE_DIRS_LEASE };
enum store_mkdir { STORE_MKDIR_INHERIT, STORE_MKDIR_WRITE, STORE_MKDIR_OWNER };
enum store_record { STORE_RECORD_INHERIT, STORE_RECORD_YES, STORE_RECORD_NO };

/* A directory's policies: INHERIT stands for "as the directory above". */
struct store_policy {
	enum store_hold hold;
	enum store_names names;
	enum store_open open;
	enum store_on_loss on_loss;
	enum store_dirs dirs;
	enum store_record record;
	enum store_mkdir mkdir;
};

/* Of a directory to which nobody has given a mode: all users may make names in it, and each may
 * remove the directories of his own. */
enum { STORE_DEFAULT_MODE = 01777 };

struct store_directory {
	mode_t mode; /* permission bits */
	uid_t uid;
	gid_t gid;
	struct timespec atime, mtime, ctime;
	struct store_policy policy;
	uint64_t created; /* as read: by this it is told from another of its name; 0: by nothing */
};

/* A change of a directory: the fields named in `mask` are set. */
enum {
	STORE_CHANGE_MODE = 1,
	STORE_CHANGE_UID = 2,
	STORE_CHANGE_GID = 4,
	STORE_CHANGE_ATIME = 8,
	STORE_CHANGE_MTIME = 16,
	/* The first policy, and then each has the next bit; see policy_change. */
	STORE_CHANGE_POLICY = 32,
	/* Only if the policies that are changed are not set (else -EEXIST), or are set (-ENODATA).
	 */
	STORE_CHANGE_CREATES = 1 << 29,
	STORE_CHANGE_REPLACES = 1 << 30,
};

enum store_kind { STORE_KIND_FREE, STORE_KIND_LOCK, STORE_KIND_DIRECTORY };

/* What a name is. */
struct store_view {
	enum store_kind kind;
	struct store_directory directory; /* of a directory */
	uint64_t token;                   /* of the first in a lock's queue, and the rest with it */
	bool shared;
	struct record record;
};

/* A name in a directory. */
struct store_name {
	char *name;
	bool directory;
	bool symlink; /* held, as a symbolic link */
};

enum store_session { STORE_SESSION_HELD, STORE_SESSION_DOUBTFUL, STORE_SESSION_LOST };

/* How a store is.  Strings are borrowed until its next callback. */
struct store_status {
	const char *kind;   /* "etcd" */
	const char *prefix; /* of what is kept in it */
	bool reachable;
	const char *reason; /* what went wrong last, if ever: "" */
	bool listening;     /* it is told of what others give back */
	enum store_session session;
	/* Of the session, as long as there is one. */
	char session_id[STORE_ID_SIZE]; /* "" while there is none */
	int64_t ttl;                    /* milliseconds */
	int64_t renewed_at, deadline;   /* on loop_clock() */
};

/* A place in a lock's queue, wherever that is. */
struct store_survey_place {
	const char *path;
	uint64_t token;
	bool shared;
	struct ranges ranges;       /* what it has of the file; none: all of it */
	const char *host, *command; /* NULL: another program's, and nothing below means anything */
	pid_t pid;
	uid_t uid;
	int64_t since; /* seconds since 1970 */
};

struct store_survey_directory {
	char *path;
	struct store_directory directory;
};

/* All that a store has. */
struct store_survey {
	struct store_survey_place *places; /* by path, and those of a path by token */
	size_t place_count;
	/* By path; those that only exist because something is below them are not here. */
	struct store_survey_directory *directories;
	size_t directory_count;
};

/* An address of the store; the URL is borrowed. */
struct store_endpoint {
	const char *url;
	bool answers; /* or was not asked yet */
};

/* News of the store.  Each is called from the loop, never inside a call to the store. */
struct store_events {
	/*
	 * The session's state has changed.  From the moment of LOST on nothing of ours is held;
	 * operations on places that were under way are answered with STORE_LOST before that.  HELD
	 * after LOST is a new session: what still waits has to join again.
	 */
	void (*session)(void *user, enum store_session state);
	/* A place of ours has gone without our doing.  The place is the owner's again. */
	void (*gone)(void *user, struct store_place *place);
	/* Somebody's place was given back: the places of that id whose token is below revision. */
	void (*removed)(void *user, const char *path, const char *id, uint64_t revision);
	/* Of what somebody has of that name, a part was given back, before that revision. */
	void (*shrunk)(void *user, const char *path, uint64_t revision);
	/*
	 * False: more news of the same moment are to come, and a place of ours may have gone of
	 * which `gone` was not told yet, so that nothing that waits may be granted.  True again:
	 * all was told.
	 */
	void (*grants)(void *user, bool allowed);
	/* News may have been missed: read the queues in which something of ours waits. */
	void (*recheck)(void *user);
	/* The store has gone back in time: what it has said of queues must not be relied on. */
	void (*went_back)(void *user);
	/* The store can be reached again, or not any more. */
	void (*reachable)(void *user, bool reachable);
};

typedef void store_done_fn(void *user, int result);
/* queue: what was learnt of it (see join); borrowed until the callback returns; NULL if result. */
typedef void store_queue_fn(void *user, int result, const struct store_queue *queue);
/* view: NULL if result; its record may be taken over with take(). */
typedef void store_view_fn(void *user, int result, struct store_view *view);
/* names: borrowed until the callback returns. */
typedef void store_list_fn(void *user, int result, const struct store_name *names, size_t count);
/*
 * holder: a JSON object, or NULL if the lock is free; queue: a JSON array of all who hold or wait,
 * of which the last element is {"more":N} if N of them found no room.  Borrowed.
 */
typedef void store_describe_fn(void *user, int result, const char *holder, const char *queue);
/* survey: the owner's from then on, who calls survey_free (see survey.h); NULL if result. */
typedef void store_survey_fn(void *user, int result, struct store_survey *survey);

struct store_ops {
	/*
	 * Connects and opens the session.  fn gets 0, or -errno when the store could not be reached
	 * within the timeout or refuses; why is in the log then.
	 */
	void (*start)(struct store *store, store_done_fn *fn, void *user);
	/*
	 * Instead of start: goes on with the session of another process, as it stands in the
	 * ledger. False if there is none; the session may be lost in the next turn.
	 */
	bool (*resume)(struct store *store);
	/* Ends the session, which gives back every place at once.  Answered within the timeout. */
	void (*stop)(struct store *store, store_done_fn *fn, void *user);
	void (*free)(struct store *store);

	/*
	 * Joins the queue at its end.  `known`: the caller knows all places up to this token, and
	 * the queue it is given need show only later ones, and of ours none.  `crowd`: about how
	 * many of ours are in it.  Tries for ever; ends with 0, STORE_LOST, -EISDIR, -EACCES,
	 * -ENOSPC, -EFBIG.
	 */
	void (*join)(struct store *store, struct store_place *place, uint64_t known, size_t crowd,
		store_queue_fn *fn, void *user);
	/*
	 * Takes the lock, of the whole file, if nobody is in its way: 0 or STORE_BUSY.  On -EIO the
	 * place may or may not be in the queue: leave it.
	 */
	void (*try)(struct store *store, struct store_place *place, store_done_fn *fn, void *user);
	/*
	 * Takes a place if nobody has come into the queue, or changed what he has, since that
	 * revision: 0 (and no queue); else STORE_BUSY and the queue.  Otherwise as `try`.
	 */
	void (*attempt)(struct store *store, struct store_place *place, uint64_t revision,
		store_queue_fn *fn, void *user);
	/* Of another process: the place is ours from now on.  False if it is not of the session
	 * that was resumed. */
	bool (*adopt)(
		struct store *store, struct store_place *place, const char *id, uint64_t token);
	/* Gives a place back; tries until the store has it or the session is lost (also 0). */
	void (*leave)(
		struct store *store, struct store_place *place, store_done_fn *fn, void *user);
	/* Asks whether the place is there now: 0, STORE_GONE, STORE_LOST. */
	void (*confirm)(
		struct store *store, struct store_place *place, store_done_fn *fn, void *user);
	/*
	 * Stores place->record, as it is when this is sent: 0, STORE_GONE, STORE_LOST.  If the
	 * place has shrunk it tries until it is stored.
	 */
	void (*write)(
		struct store *store, struct store_place *place, store_done_fn *fn, void *user);
	/*
	 * Takes somebody's place away, ours or another's: the one with that token, whoever holds it
	 * if uid is 0, else only if its record names that user (-EPERM).  STORE_GONE: there is no
	 * such token in the queue.  Of ours `gone` is told before the answer, if it was known.
	 */
	void (*evict)(struct store *store, const char *path, uint64_t token, uid_t uid,
		store_done_fn *fn, void *user);
	/* Reads the whole queue.  parts: with what everybody has of the file now. */
	void (*queue)(
		struct store *store, const char *path, bool parts, store_queue_fn *fn, void *user);
	/* The caller found by reading what it has not been told: if that stays so, listen anew. */
	void (*deaf)(struct store *store);
	/* Called now and then: gives back what memory it can do without. */
	void (*tidy)(struct store *store);

	/*
	 * These do not show places of ours that are being given back.  If the first has a part of
	 * the file and no content, lookup shows the content of the first behind it that has one.
	 */
	void (*lookup)(struct store *store, const char *path, store_view_fn *fn, void *user);
	/* room: the most bytes that the queue's text may have. */
	void (*describe)(struct store *store, const char *path, size_t room, store_describe_fn *fn,
		void *user);
	void (*list)(struct store *store, const char *path, store_list_fn *fn, void *user);
	/* Reads everything, in parts if that is much, and so at several moments.  -EFBIG if it is
	 * more than anybody should read. */
	void (*survey)(struct store *store, store_survey_fn *fn, void *user);
	/* -EEXIST if there is a lock or a directory of that name, but for one that the request of
	 * that mark has made before (0: none).  of_session: it goes with the session, whoever
	 * changes it meanwhile. */
	void (*mkdir)(struct store *store, const char *path,
		const struct store_directory *directory, bool of_session, uint64_t mark,
		store_done_fn *fn, void *user);
	/* -ENOTEMPTY, -ENOENT.  created: only the one that was created then; 0: whichever there is.
	 */
	void (*rmdir)(struct store *store, const char *path, uint64_t created, store_done_fn *fn,
		void *user);
	/* Changes nothing but what the mask says, in one step.  -ENOENT, -EEXIST, -ENODATA. */
	void (*change)(struct store *store, const char *path, unsigned int mask,
		const struct store_directory *to, store_done_fn *fn, void *user);

	/* False while the store is known not to answer. */
	bool (*reachable)(const struct store *store);
	enum store_session (*session)(const struct store *store);
	/* In words, what went wrong last; borrowed. */
	const char *(*reason)(const struct store *store);

	/* What the store knows of itself, without asking. */
	void (*status)(const struct store *store, struct store_status *status);
	/* Adds what it has counted, as base/metrics.h has it. */
	void (*metrics)(const struct store *store, struct buffer *text);
	/* One of the addresses that it is asked at; false if there are no more than `number`. */
	bool (*endpoint)(const struct store *store, size_t number, struct store_endpoint *endpoint);
};

/* The implementation embeds this. */
struct store {
	const struct store_ops *ops;
	const struct store_events *events; /* set by the owner before start; user goes with it */
	void *user;
	struct ledger *ledger; /* set by the owner before start; borrowed; NULL: none */
};
