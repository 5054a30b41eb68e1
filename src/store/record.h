/* SPDX-License-Identifier: MIT */
/* Who holds a lock or waits for it, as it is kept in the store for people and programs to read. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/ranges.h"

enum {
	RECORD_HOST_SIZE = 256,
	RECORD_COMMAND_SIZE = 64,
	RECORD_MAX_CGROUP = 511,        /* bytes in the path of a control group */
	RECORD_MAX_CONTENT = 64 * 1024, /* bytes that a holder may write into its lock file */
	RECORD_MAX_SYMLINK = 4095, /* bytes in the text of a symbolic link, as for the kernel */
};

/* How long a lock lives that O_EXCL has taken. */
enum store_hold {
	STORE_HOLD_INHERIT, /* of a policy: as the directory above says */
	STORE_HOLD_CLOSE,   /* until its last close */
	STORE_HOLD_PROCESS, /* until unlink, or the death of the process that created it */
	STORE_HOLD_NAME,    /* until unlink */
};

struct record {
	bool known; /* false: another program's lock; nothing below means anything */
	char host[RECORD_HOST_SIZE];
	char command[RECORD_COMMAND_SIZE];
	pid_t pid; /* on that host; 0 = not visible from there */
	uid_t uid;
	gid_t gid;
	int64_t since;        /* seconds since 1970, when the place in the queue was asked for */
	enum store_hold hold; /* PROCESS and NAME: it does not need an open file; else 0 */
	bool linked;          /* made by link(2): tells older daemons not to unlink it elsewhere */
	char *cgroup;         /* the control group; owned; NULL: none but the root, or not known */
	struct ranges ranges; /* what it has of the file; owned; none: all of it */
	char *symlink;        /* the text, if the lock is a symbolic link; owned; else NULL */
	char *content;        /* what the holder has written; owned; NULL if nothing */
	size_t content_size;
	uint64_t version; /* counted by who changes it, if it is to be known what was stored */
};

struct buffer;
struct unpack;

/* Frees what the record owns and empties it. */
void record_fini(struct record *record);

/* Copies everything; what the target owned is not freed. */
void record_copy(struct record *to, const struct record *from);

/* As bytes, see base/pack.h. */
void record_pack(struct buffer *buffer, const struct record *record);
void record_unpack(struct unpack *from, struct record *record);
