/* SPDX-License-Identifier: MIT */
/*
 * The file system: what its files share.
 *
 * calls.c turns what the kernel asks into calls of the functions below; each gets a request and
 * answers it exactly once with one of the reply functions of request.h, at once or later.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "base/shares.h"
#include "event/loop.h"
#include "fs/hints.h"
#include "fs/looks.h"
#include "store/store.h"

struct handle;
struct hold;
struct keep;
struct ledger;
struct lockspace;
struct loss;
struct node;
struct pulse;
struct request;
struct search;
struct shared_text;
struct signal_search;
struct table;
struct unsaid_search;

struct fs_options {
	const char *host;           /* this node's name, for records */
	const char *mount_point;    /* absolute */
	struct store_policy policy; /* of the root, where the mount options say something */
	mode_t root_mode;           /* of the root, until the store says something else */
	bool resumes;               /* what another process has mounted is to be served */
	struct pulse *pulse;        /* ours; NULL: nobody watches it */

	/* To be shown only. */
	const char *source;
	int ttl, timeout; /* milliseconds */
	int max_claims, max_content, max_handles, user_share, write_rate;
	bool login; /* the store is told who we are */
};

struct fs {
	struct loop *loop;
	struct store *store;
	struct lockspace *space;
	struct ledger *ledger; /* for a process that takes our place; NULL: none will */
	struct fs_options options;
	struct node *nodes;          /* by inode number */
	struct node *node_paths[3];  /* the same by path, of each enum node_kind */
	size_t busy_nodes;           /* of these, that are open, or directories */
	struct shares handles;       /* open files and directories */
	struct shares watched;       /* processes whose death ends a lock, see keep.h */
	struct handle *handle_table; /* these, by number */
	uint64_t handle_numbers;     /* the last one */
	struct aim *aims;            /* of another process's requests */
	struct handle *unsaid; /* of another process, which may not have said that it is open */
	struct node *root;
	bool kernel_checks; /* permissions, too */
	/* Locks may be symbolic links: following one through this mount fails. */
	bool has_symlinks;
	struct request *readlinks; /* of threads that are not seen to wait yet */
	struct loop_timer readlink_timer;
	struct request *requests; /* not answered yet */
	/* When the log has last said of root, and of others, that flock(1) opens a directory. */
	int64_t misled[2];
	struct keep *keeps;                  /* locks that need no open file */
	struct former *formers;              /* who has closed the file that he created */
	struct search *search;               /* for processes that have files open */
	struct loss *losses;                 /* of locks: their holders are to be searched for */
	struct signal_search *signal_search; /* the search that goes on */
	struct loop_task signal_task;
	struct unsaid_search *unsaid_search; /* for whoever has a file open: see revive.h */
	struct loop_task loss_task; /* tells those that wait through a handle that has lost one */
	struct table *table;        /* of all locks, which is being composed */
	struct request *unsurveyed; /* to open one that is not begun yet */
	struct shared_text *shared_texts;
	size_t shared_size;      /* of these, in bytes */
	struct timespec started; /* by the calendar, and on loop_clock() */
	int64_t started_at;
	struct look looks[LOOKS]; /* by thread */
	struct hints hints;
};

enum { FS_NAME_MAX = 255, FS_PATH_MAX = 8192 };

/* names.c */
void fs_lookup(struct request *request, struct node *parent, const char *name);
void fs_create(struct request *request, struct node *parent, const char *name, int flags);
/* The same, when another process has done that already. */
void fs_created(struct request *request, struct handle *handle);
void fs_unlink(struct request *request, struct node *parent, const char *name);

/* link.c: gives the source another name, `name` in parent. */
void fs_link(struct request *request, struct node *source, struct node *parent, const char *name);

/* symlink.c */
void fs_symlink(struct request *request, struct node *parent, const char *name, const char *text);
void fs_readlink(struct request *request, struct node *node);
void fs_readlinks_fini(struct fs *fs);

/* dirs.c */
void fs_mkdir(struct request *request, struct node *parent, const char *name, mode_t mode);
void fs_rmdir(struct request *request, struct node *parent, const char *name);
void fs_opendir(struct request *request, struct node *node, int flags);
/* Replies with entries from the one numbered `offset` on, in at most `size` bytes. */
void fs_readdir(struct request *request, struct handle *handle, size_t size, off_t offset);
void fs_releasedir(struct request *request, struct handle *handle);

/* attr.c; handle may be NULL; changes is a mask of FS_SET_... */
enum {
	FS_SET_MODE = 1,
	FS_SET_UID = 2,
	FS_SET_GID = 4,
	FS_SET_SIZE = 8,
	FS_SET_ATIME = 16,
	FS_SET_MTIME = 32,
	FS_SET_ATIME_NOW = 64,
	FS_SET_MTIME_NOW = 128,
};
void fs_getattr(struct request *request, struct node *node, struct handle *handle);
void fs_setattr(struct request *request, struct node *node, struct handle *handle,
	const struct stat *to, unsigned int changes);
void fs_access(struct request *request, struct node *node, int mask);

/* files.c */
void fs_open(struct request *request, struct node *node, int flags);
void fs_read(struct request *request, struct handle *handle, size_t size, off_t offset);
void fs_write(struct request *request, struct handle *handle, const char *data, size_t size,
	off_t offset, bool append);
void fs_flush(struct request *request, struct handle *handle, uint64_t owner);
void fs_fsync(struct request *request, struct handle *handle);
void fs_release(struct request *request, struct handle *handle);
/* poll: the kernel's number for notifications; 0 if none is wanted. */
void fs_poll(struct request *request, struct handle *handle, uint64_t poll);

/* locks.c */
void fs_flock(struct request *request, struct handle *handle, uint64_t owner, int operation);

/* fcntl.c; a range's end is its last byte */
void fs_setlk(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end, bool wait);
void fs_getlk(struct request *request, struct handle *handle, uint64_t owner, int type,
	uint64_t start, uint64_t end);

/* xattr.c; a size of 0 asks how long the answer is */
void fs_getxattr(struct request *request, struct node *node, const char *name, size_t size);
void fs_listxattr(struct request *request, struct node *node, size_t size);
void fs_setxattr(struct request *request, struct node *node, const char *name, const char *value,
	size_t size, int flags);
void fs_removexattr(struct request *request, struct node *node, const char *name);

/* text.c: a holder's record as lines of key=value; state: "held" or "doubtful".  The caller frees
 * it. */
char *fs_record_text(const struct record *record, uint64_t token, bool shared, const char *state);
