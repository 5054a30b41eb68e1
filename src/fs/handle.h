/* SPDX-License-Identifier: MIT */
/* An open file or directory: what the kernel knows by its fh, never by an owner that it reuses. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uthash.h>

#include "base/ledger.h"
#include "base/proc.h"
#include "store/store.h"

struct fs;
struct keep;
struct node;
struct request;
struct shared_text;

struct handle {
	uint64_t number;   /* the kernel's fh; never used again, not by another process either */
	struct node *node; /* referenced */
	int flags;         /* of open(2) */
	uid_t uid;
	gid_t gid;
	struct proc_identity opener;
	struct proc_cgroup cgroup;  /* of who asked for a lock last */
	struct store_policy policy; /* as it was at open */
	uint64_t poll;              /* the kernel's number for who polls; 0: nobody */
	struct stake *stakes;       /* taken through it */
	struct keep *keep;          /* whose own it is; NULL: the kernel's */
	int64_t opened_at;          /* on loop_clock() */
	bool has_made_name;         /* it was opened by CREATE without O_EXCL */
	bool has_locked;            /* a lock was asked for with it */
	struct request *pending;    /* that wait for a lock */

	/* What reading began with, so that a reader in small pieces gets one whole. */
	char *text; /* owned */
	size_t text_size;
	struct shared_text *shared; /* of the table of locks, instead of that; or NULL */

	/* Of a directory: what it held when reading began. */
	struct store_name *names; /* owned */
	size_t name_count;
	bool is_listed; /* by this process */

	uint64_t mark; /* of the request that opened it, see request.h; 0: it was not told of it */
	ledger_slot slot; /* once the kernel knows of it */

	struct handle *prev, *next; /* in node->handles */
	UT_hash_handle hh;          /* by number, in fs->handle_table */
};

/* The limits of open files, by fs->options.max_handles and user_share. */
void handles_init(struct fs *fs);
/* False if the caller of the request may not have another one, which is in the log then. */
bool handle_is_possible(const struct request *request);
/* For the caller of the request. */
struct handle *handle_new(const struct request *request, struct node *node, int flags);
/* One of another process; handle_own is to follow. */
struct handle *handle_revive(struct node *node, uint64_t number);
/* It is that user's, and counts as one of its open files. */
void handle_own(struct handle *handle, uid_t uid, gid_t gid);
struct handle *handle_by_number(const struct fs *fs, uint64_t number);
void handle_free(struct handle *handle);

void handle_set_text(struct handle *handle, char *text, size_t size);
void handle_clear_names(struct handle *handle);
