/* SPDX-License-Identifier: MIT */
/*
 * The one watch of a mount: every delete below the prefix, in order, without gaps.
 *
 * A broken stream is opened again at the revision after the last event.  When that revision has
 * been compacted (or the cluster has gone back in time), events are missing: then on_gap is called,
 * after the new stream is open, so that what is read now misses nothing later.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "event/loop.h"

struct etcd_client;
struct etcd_watch;
struct http_request;

struct etcd_watch_events {
	/* A key was deleted at that revision.  The key is borrowed. */
	void (*deleted)(struct etcd_watch *watch, const char *key, size_t size, uint64_t revision);
	/* True: deletes are about to be told, some of one transaction; false: they all were. */
	void (*telling)(struct etcd_watch *watch, bool more);
	void (*gap)(struct etcd_watch *watch);
	/* The stream is open (again). */
	void (*open)(struct etcd_watch *watch);
};

struct etcd_watch {
	struct loop *loop;
	struct etcd_client *client;
	const struct etcd_watch_events *events;
	char *first, *end; /* what is watched */
	int idle_timeout;  /* milliseconds */
	uint64_t next;     /* revision to go on from; 0 = from now, with a gap */
	uint64_t doubted;  /* next, when something had not been told */
	bool is_open;
	bool is_telling; /* what was told last was not all of its revision */
	int64_t opened_at;
	unsigned int streams;  /* so far */
	unsigned int failures; /* since one was steady */
	bool said_broken;      /* in the log, and when */
	int64_t said_at;
	char *endpoint;
	struct http_request *request;
	struct buffer line;      /* what has arrived of the next message */
	struct loop_timer timer; /* until the stream is opened, given up, or believed in again */
};

/* first and end are copied. */
void etcd_watch_init(struct etcd_watch *watch, struct loop *loop, struct etcd_client *client,
	const char *first, const char *end, int idle_timeout,
	const struct etcd_watch_events *events);
void etcd_watch_fini(struct etcd_watch *watch);

/* Opens the stream, for deletes at or after that revision. */
void etcd_watch_start(struct etcd_watch *watch, uint64_t from);

/* Nothing is told any more. */
void etcd_watch_stop(struct etcd_watch *watch);

/*
 * There is something that has not been told yet.  It may be on its way, since another connection
 * may be faster: only if nothing arrives within the client's timeout, the stream is opened anew.
 */
void etcd_watch_doubt(struct etcd_watch *watch);

/* The stream can't be trusted: it is opened anew, at another member if there is one. */
void etcd_watch_restart(struct etcd_watch *watch, const char *reason);
