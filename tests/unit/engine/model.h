/* SPDX-License-Identifier: MIT */
/*
 * A lock store in memory, of one lock, for the test of the engine: a queue of places whose tokens
 * grow, sessions that end, and watches which are told of deletes whenever the test likes.
 *
 * Every function is one transaction.  Tokens are revisions, as in etcd.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODEL_ID_SIZE = 32, MODEL_MAX_PLACES = 64, MODEL_MAX_SESSIONS = 128 };

/* What somebody has, or wants, of a file of a few bytes: a bit for each. */
struct part {
	unsigned int read, write;
};

enum { MODEL_BYTES = 4, MODEL_ALL = (1 << MODEL_BYTES) - 1 };

struct model_place {
	uint64_t token;
	struct part part, first; /* now, and when it was put */
	uint64_t changed;        /* when it became so */
	bool seen_holding;       /* for the test's own use */
	char id[MODEL_ID_SIZE];
	unsigned int session;
	struct model_place *prev, *next; /* in the order of tokens */
};

/* A place of that id was deleted at that revision, or has less than before. */
struct model_event {
	bool shrunk;
	bool more; /* the next one is of the same revision */
	char id[MODEL_ID_SIZE];
	uint64_t revision;
	struct model_event *prev, *next;
};

/* Embedded in its owner, who takes the events out one by one. */
struct model_watch {
	struct model_event *events;
	struct model_watch *next;
};

struct model {
	uint64_t revision;
	struct model_place *places;
	struct model_watch *watches;
	unsigned int sessions; /* were given out so far, from 1 on */
	bool ended[MODEL_MAX_SESSIONS];
};

/* The queue as it was at some revision; only the values of places, no links. */
struct model_snapshot {
	uint64_t revision;
	size_t count;
	struct model_place places[MODEL_MAX_PLACES];
};

void model_init(struct model *model);
void model_fini(struct model *model);

/* From now on the watch is told of every delete. */
void model_watch(struct model *model, struct model_watch *watch);
/* Takes the first event, which the caller frees; NULL if there is none. */
struct model_event *model_watch_next(struct model_watch *watch);

unsigned int model_new_session(struct model *model);
/* Deletes all places of the session, one revision each. */
void model_end_session(struct model *model, unsigned int session);

struct model_place *model_find(const struct model *model, const char *id);
/* Puts a place at the end; one of that id which exists stays where it is. */
struct model_place *model_put(
	struct model *model, const char *id, struct part part, unsigned int session);
/* The place has only that any more. */
void model_shrink(struct model *model, struct model_place *place, struct part part);
void model_delete(struct model *model, struct model_place *place);
/* Deletes all places at one revision, of which is told in the order of their ids. */
void model_delete_all(struct model *model);

/* True if a try would succeed; `except` is the id of a place that does not count. */
bool model_is_free(const struct model *model, struct part part, const char *except);

/* The places whose tokens are larger than `known`. */
void model_read(const struct model *model, uint64_t known, struct model_snapshot *snapshot);

static inline bool model_conflict(struct part a, struct part b)
{
	return (a.write & (b.read | b.write)) || (b.write & a.read);
}

/* True if `more` is all of `part`, or more. */
static inline bool model_covers(struct part more, struct part part)
{
	return !(part.write & ~more.write) && !(part.read & ~(more.read | more.write));
}
