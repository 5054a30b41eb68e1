/* SPDX-License-Identifier: MIT */
/*
 * The world that the lock engine is tested in: mounts with jobs, and one lock in a model store.
 *
 *     model      the store: places, sessions, news
 *     requests   what a mount has asked of the store, and what becomes of it
 *     mount      engine and store put together, as store/etcd and the lockspace do it
 *     restart    its process dies, and another one goes on
 *     rules      what has to be true after every event
 *     world      chance, and the people who want the lock
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"
#include "engine/model.h"
#include "lock/lock.h"

enum { MAX_MOUNTS = 3, MAX_FOREIGN = 3, MAX_JOBS = 6, MAX_REVIVED = 256 };

/* Somebody on a mount who wants the lock: until he was answered and the engine is through. */
struct job {
	struct mount *mount;
	struct claim claim;
	bool plain;           /* all of the file, for as long as it lasts */
	struct part part;     /* that it wants or has */
	struct ranges ranges; /* the same, for the claim; none if it is plain */
	unsigned int number;
	struct job *replaces; /* NULL, or a job which has not left */
	uint64_t arrival;     /* in what order they came, or came again */

	bool answered;
	bool held;
	bool left; /* or answered with anything but a grant */

	/* Its place, as store/etcd knows it. */
	char id[MODEL_ID_SIZE];
	bool known; /* the id is one of ours */
	bool placed;
	bool leaving;
	bool broken;        /* the key was deleted by somebody else, so nothing protects it */
	uint64_t broken_at; /* together with all others, then */
	uint64_t token;
	uint64_t placed_at;
	uint64_t deleted; /* of which was told before it was known to be there */

	struct job *prev, *next;
};

enum request_kind {
	REQUEST_JOIN,
	REQUEST_TRY,
	REQUEST_LEAVE,
	REQUEST_SHRINK,
	REQUEST_READ,
	REQUEST_CHECK
};

/* From a mount to the store, and the answer's way back. */
struct request {
	enum request_kind kind;
	struct mount *mount;
	struct job *job; /* NULL for READ and CHECK */

	/* What is asked. */
	char id[MODEL_ID_SIZE];
	char except[MODEL_ID_SIZE];
	struct part part;
	bool parts; /* of READ: with what everybody has now */
	unsigned int session;
	uint64_t known, token, clock;

	/* What is answered, once it was carried out. */
	bool done;
	int outcome;
	uint64_t placed_token;
	struct model_snapshot seen;

	struct request *prev, *next;
};

/* One machine: an engine, and what stands between it and the store. */
struct mount {
	struct world *world;
	unsigned int number;
	struct lock lock;
	struct model_watch watch;
	unsigned int session; /* 0: none */
	unsigned int losses;  /* sessions that were lost so far */
	bool losing;          /* the session is just being lost */
	uint64_t shrunk;      /* when somebody was last heard to have less */
	uint64_t heard;       /* the revision of the last news, or read, that came */
	bool missed;          /* some news never will come */
	bool partial;         /* of the last revision there are more */
	bool unread;          /* a read did not show a place of ours */
	struct job *jobs;     /* not over */
	struct request *requests;
	uint64_t clock; /* counts placements */
};

/* How likely things are in this sequence, in percent. */
struct odds {
	unsigned int shared, try, replace, failure, repeat, deaf, linger, parts;
};

struct world {
	uint64_t seed, random;
	bool trace;
	bool quiet; /* no more accidents: everything is delivered */
	struct model model;
	struct mount mounts[MAX_MOUNTS];
	unsigned int mount_count, foreign_count;
	struct mount *owner[MODEL_MAX_SESSIONS]; /* of a session; NULL: foreign */
	struct request *strays; /* copies of requests that nobody waits for any more */
	struct odds odds;
	unsigned int jobs; /* that there were, which makes names */
	uint64_t arrivals;
	size_t rivals;                   /* allocated */
	uint64_t exclusive[MODEL_BYTES]; /* the largest token with which each was held so */
};

/* A line of the sequence's history, if it is wanted. */
void world_trace(const struct world *world, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Ends the process. */
void world_broken_rule(const struct world *world, const char *rule, const char *function, int line)
	__attribute__((noreturn));

#define require(world, rule)                                                                       \
	do {                                                                                       \
		if (!(rule))                                                                       \
			world_broken_rule((world), #rule, __func__, __LINE__);                     \
	} while (0)

/* The same numbers for the same seed. */
unsigned int world_below(struct world *world, unsigned int n);
bool world_chance(struct world *world, unsigned int percent);
unsigned int world_pick(struct world *world, const unsigned int *values, size_t count);

#define PICK(world, ...)                                                                           \
	world_pick(world, (const unsigned int[]){__VA_ARGS__},                                     \
		ARRAY_SIZE(((const unsigned int[]){__VA_ARGS__})))

/* --- world.c: jobs --- */

struct job *job_of(struct claim *claim);
/* The job whose place has that id, as far as the mount knows. */
struct job *job_find(const struct mount *mount, const char *id);
/* The same, if it has not given the place back. */
struct job *job_at(const struct mount *mount, const struct model_place *place);
/* True if the store still protects what it holds. */
bool job_is_alive(const struct job *job);

/* Asks for the lock. */
struct job *job_new(struct mount *mount, struct part part, bool try, struct job *replaces);
/* Gives a part of what it holds back. */
void job_shrink_random(struct mount *mount);
void job_set_part(struct job *job, struct part part);
/* Gives it back, or leaves the queue. */
void job_end(struct job *job);

/* One that has not left; NULL if there is none. */
struct job *job_random(struct mount *mount, bool held);
void job_start_random(struct mount *mount);
void job_maybe_end(struct mount *mount);

/* --- rules.c --- */

/* To be called after every event. */
void rules_check(struct world *world);
/* Of a job that is just being granted the lock, refused it, or sent to the store. */
void rules_check_grant(const struct job *job);
void rules_check_busy(const struct job *job);
void rules_check_order(const struct job *job);
/* When all was delivered: who may have the lock has it. */
void rules_check_nobody_sleeps(const struct world *world);
/* When everything was read again: also, nothing is left of accidents. */
void rules_check_settled(const struct world *world);

/* --- requests.c --- */

/* job: NULL for REQUEST_READ and REQUEST_CHECK. */
struct request *request_new(struct mount *mount, enum request_kind kind, struct job *job);
void request_free(struct request *request);
bool request_exists(const struct mount *mount, enum request_kind kind);
/* One of the list (or those that end with the session); NULL if there is none. */
struct request *request_random(struct world *world, struct request *list, bool of_session);
/* Perhaps a copy of it is still on its way. */
void request_stray(struct request *request);
/* The store does it. */
void request_carry_out(struct world *world, struct request *request);
/* Brings any one of the mount's a step further. */
void request_move(struct world *world, struct mount *mount);
/* A copy that nobody waits for arrives. */
void request_move_stray(struct world *world);

/* --- mount.c --- */

extern const struct lock_ops mount_ops;

/* The answer to a request that was carried out; frees it. */
void mount_deliver(struct request *request);
/* The first piece of news, if any; deaf: it is lost. */
void mount_hear(struct mount *mount, bool deaf);
void mount_give_up_session(struct mount *mount);
void mount_start_session(struct mount *mount);
/* restart.c: its process dies, and another one goes on. */
void mount_restart(struct mount *mount);
/* Has the queue read (with what everybody has now), or the session's keys compared. */
void mount_start_read(struct mount *mount, bool parts);
void mount_start_check(struct mount *mount);
