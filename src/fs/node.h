/* SPDX-License-Identifier: MIT */
/*
 * Names that the kernel knows: a lock or a directory each.  A lock that is held as a symbolic link
 * is not the same node as the lock file of that name.
 *
 * A node lives as long as the kernel remembers it, one of its handles is open, or a node below it
 * lives.  Its inode number is made from its path, so it is the same on every mount, always; but
 * paths can be made up that would have one number: all but one of them get another, which they keep
 * while their node lives.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <uthash.h>

#include "base/ledger.h"
#include "store/store.h"

struct fs;
struct handle;
struct hold;
struct request;
struct status_entry;

enum { NODE_ROOT_INODE = 1 };

enum node_kind { NODE_FILE, NODE_DIRECTORY, NODE_SYMLINK };

struct node {
	struct fs *fs;
	uint64_t inode;
	char *path;
	bool is_directory, is_symlink;     /* else a file */
	const struct status_entry *status; /* NULL, unless it is ours: see status.h */
	struct node *parent;               /* NULL for the root */
	uint64_t references;               /* of the kernel's lookups, handles and nodes below */
	uint64_t lookups;                  /* the first of these */
	ledger_slot slot;                  /* while there are any */
	UT_hash_handle hh;                 /* by inode, in fs->nodes */
	UT_hash_handle path_hh;            /* by path, in fs->node_paths of its kind */

	/* Of a lock file that link(2) has given two names: the other name, and the number of both.
	 */
	struct node *twin;
	uint64_t shown_inode; /* 0: its own */

	struct handle *handles;
	struct hold *holds;      /* locks of it that are held here */
	size_t fcntl_stakes;     /* in these */
	struct request *pending; /* fcntl requests that wait for it */

	struct store_directory directory; /* as read last */
	int64_t read_at;                  /* on loop_clock(); 0 = never */
	bool has_learnt;                  /* which directories are in it, for names=always */
};

enum node_kind node_kind(const struct node *node);

/* The inode number of a path that no other node has. */
uint64_t node_inode(const char *path, enum node_kind kind);

/* Gives the node of a path, making it if need be, with one more reference. */
struct node *node_get(struct fs *fs, struct node *parent, const char *path, enum node_kind kind);

/* Or NULL; without a reference. */
struct node *node_find(struct fs *fs, const char *path, enum node_kind kind);
struct node *node_by_inode(struct fs *fs, uint64_t inode);
/* Gives it the number by which the kernel knows it from another process. */
void node_restore_inode(struct node *node, uint64_t inode);

void node_ref(struct node *node);
/* The node may be gone afterwards. */
void node_unref(struct node *node, uint64_t count);
/* A reference becomes the kernel's, or so many of the kernel's are gone. */
void node_looked_up(struct node *node);
void node_forget(struct node *node, uint64_t count);

/* Remembers what was just read of a directory. */
void node_set_directory(struct node *node, const struct store_directory *directory);
/* True if that was less than a second ago, or need not be newer because the store is not to be
 * asked for names (names=always). */
bool node_is_fresh(const struct node *node);

/* The policy in force for what is in a directory, or for a lock: with all that is inherited. */
struct store_policy node_policy(const struct node *node);

/* For stat(2). */
void node_directory_attr(const struct node *node, struct stat *attr);
/* What a lock is shown as, if its holder has made a symbolic link of it, or not. */
enum node_kind node_kind_shown(const struct fs *fs, bool is_symlink);
/* Of a lock; token 0: nobody holds it.  record may be NULL, but not of a symbolic link. */
void node_lock_attr(const struct node *node, const struct record *record, uint64_t token,
	bool shared, struct stat *attr);

/* What stat(2) says, and /proc. */
uint64_t node_shown_inode(const struct node *node);

/* From now on both are shown as one file, until node_unlink of either. */
void node_link(struct node *source, struct node *node);
/* The node's lock is given back; its twin is on its own. */
void node_unlink(struct node *node);

/* How many nodes of locks the kernel remembers though nobody has them open. */
size_t nodes_idle(const struct fs *fs);

/* path/name; the caller frees it. */
char *node_child_path(const struct node *directory, const char *name);

/* Makes the root of the file system, and frees all nodes. */
void nodes_init(struct fs *fs);
void nodes_fini(struct fs *fs);
