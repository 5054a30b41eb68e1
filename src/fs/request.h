/* SPDX-License-Identifier: MIT */
/*
 * One request of the kernel, from its arrival to its one reply.
 *
 * The one rule: every reply function ends the request; it must not be touched afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/ledger.h"
#include "store/store.h"

struct fs;
struct handle;
struct holding;
struct node;
struct request;

typedef void request_fn(struct request *request);

struct request {
	struct fs *fs;
	void *fuse; /* libfuse's own */
	const char *name_of_op;
	uint64_t mark; /* which no other request of this mount has, ever */
	/*
	 * What it removes, as the store tells it from a later one of that name; 0: not known yet.
	 * If it is asked again that may be gone, and the name another's.
	 */
	uint64_t aim;
	ledger_slot slot; /* of it */
	uid_t uid;
	gid_t gid;
	pid_t pid; /* a thread's; 0 if not visible */

	/* What the operation is about, while it waits.  Nodes and handles are pinned by the kernel
	 * until the reply. */
	struct node *node;   /* the object, or the directory of a name */
	struct node *source; /* of a link: what is to get another name */
	struct handle *handle;
	char *path;       /* of the object; owned */
	const char *name; /* last component, within path */
	request_fn *next; /* what to do when the answer that is waited for has come */
	int flags, mask;
	mode_t mode;
	size_t size;
	off_t offset;
	char *data; /* owned */
	struct store_directory directory;
	uint64_t leaves; /* locks given back when it began */
	bool below;      /* it is about all that is below the path */
	bool again;      /* another process may have begun with it, but has not replied */
	bool recalled;   /* and had an aim: that this is gone is no error then */

	/* Of a lock that is being taken. */
	struct holding *holding; /* NULL when its answer has come */
	int kind;                /* enum stake_kind */
	uint64_t owner;
	uint64_t start, end;
	bool exclusive, wait;
	bool interruptible; /* request_on_interrupt was called */
	bool interrupted;   /* the caller has got a signal */
	unsigned int
		parts; /* locks, or parts of them, that are being given back before it goes on */
	bool retry;    /* another request of the handle got the lock: look again */
	/* In handle->pending, fs->unsurveyed, a table's requests, or fs->readlinks. */
	struct request *pending_prev, *pending_next;
	struct request *fcntl_prev, *fcntl_next; /* in node->pending */

	void (*on_interrupt)(struct request *request);
	struct request *prev, *next_request; /* in fs->requests */
};

void reply_error(struct request *request, int error); /* 0 or -errno */
void reply_entry(struct request *request, struct node *node, const struct stat *attr);
void reply_attr(struct request *request, const struct stat *attr);
/* Both: if the kernel does not take the reply, the handle is released. */
void reply_open(struct request *request, struct handle *handle);
void reply_create(struct request *request, struct handle *handle, const struct stat *attr);
void reply_data(struct request *request, const void *data, size_t size);
void reply_symlink(struct request *request, const char *text);
void reply_written(struct request *request, size_t size);
/* type: F_UNLCK if nothing is in the way; end: the last byte */
void reply_lock(struct request *request, int type, pid_t pid, uint64_t start, uint64_t end);
void reply_xattr_size(struct request *request, size_t size);
void reply_poll(struct request *request, unsigned int events);

/* A directory's entries, composed one after the other; false when the buffer is full. */
struct entry_buffer {
	char *data;
	size_t size, capacity;
};
bool add_entry(struct request *request, struct entry_buffer *buffer, const char *name,
	uint64_t inode, mode_t type, off_t next_offset);

/* Sets request->aim for good, before that is removed. */
void request_aim(struct request *request, uint64_t aim);

/* Carries out request->next, as a part of the request of which this process may die. */
void request_go_on(struct request *request);

/* fn is called, from the loop, when the caller gets a signal.  To be called last. */
void request_on_interrupt(struct request *request, void (*fn)(struct request *request));

/* The caller's supplementary groups, up to `room` of them; how many there are of these. */
int request_groups(const struct request *request, gid_t *groups, int room);
/* True if the caller is a member of that group. */
bool request_in_group(const struct request *request, gid_t gid);

/* Wakes those who poll, by the number that fs_poll was given. */
void poll_notify(struct fs *fs, uint64_t poll);
