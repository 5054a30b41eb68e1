/* SPDX-License-Identifier: MIT */
/*
 * Locks that O_EXCL has taken and that do not need an open file (hold=process, hold=name).
 *
 * A keep is one more stake in the hold, with a handle of its own that no descriptor closes.  It
 * ends with unlink, with its process, or when the lock is lost.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "fs/stake.h"

struct fs;
struct keep;
struct request;

/* The limit of watched processes, by the descriptors that the process may have. */
void keeps_init(struct fs *fs);

/* False, with the reason in the log, if the process of the request's handle must be watched and
 * can't be seen. */
bool keep_is_possible(const struct request *request);

/*
 * The request, to create a lock file, was granted the hold: keeps it as the policy of its handle
 * says, which may be not at all.  The caller of the request still waits, so its process can't be
 * mistaken for another.  Returns 0, or -errno if the process can't be watched.
 */
int keep_begin(struct hold *hold, const struct request *request);

/*
 * That of another process, with its handle; started: as keep_started said there.  When the lock is
 * adopted, keep_revived; if it can't be, keep_drop frees both.
 */
void keep_revive(struct hold *hold, struct handle *handle, uint64_t started);
void keep_revived(struct hold *hold);
void keep_drop(struct hold *hold);
/* When the process was started whose death ends it; 0: there is none. */
uint64_t keep_started(const struct keep *keep);

/* The keep of a hold, or NULL. */
struct keep *keep_of(const struct hold *hold);

/* The hold was lost: ends its keep in the next turn. */
void keep_lost(struct keep *keep);

/* As hold_end, for a hold that may be kept. */
void keep_release(struct hold *hold, pid_t process, hold_done_fn *fn, void *user);

/*
 * The hold to read and write through a handle: one in which it has a stake, or else a kept one,
 * if the handle was opened by the user who created that, or by root; or NULL.
 */
struct hold *keep_hold_for(const struct handle *handle);
/* The kept hold of a name, if that user may change it; or NULL. */
struct hold *keep_hold_of(const struct node *node, uid_t uid);

/* Frees all keeps, at the end of the program. */
void keeps_free(struct fs *fs);
