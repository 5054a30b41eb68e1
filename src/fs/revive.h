/* SPDX-License-Identifier: MIT */
/*
 * What another process needs to go on with our files, and going on with another's.
 *
 * The one rule: what the kernel is going to be told is entered into the ledger before, and what it
 * has given back is taken out before that is answered.  A request that was not answered is asked
 * again, so what was done for it is either found by its mark or undone in the end.
 */
#pragma once

#include <stdint.h>

struct fs;
struct handle;
struct hold;
struct node;
struct request;

/* Enters these as they are now. */
void node_enter(struct node *node);
void handle_enter(struct handle *handle);
void hold_enter(struct hold *hold);

/*
 * Makes everything that the ledger tells of, and adopts the locks.  The root is there, and nothing
 * else; the store has resumed its session.
 */
void fs_revive(struct fs *fs);

/* All requests that were not answered have been asked again. */
void fs_revived(struct fs *fs);
/* At the end of the program: ends a search that fs_revived has begun. */
void fs_forget_unsaid(struct fs *fs);

/* Gives a request that is asked again the aim that it had. */
void fs_recall(struct request *request);

/* What an earlier process has opened for the request of that mark, and may not have said so: the
 * kernel does not know of it. */
struct handle *fs_opened_before(struct fs *fs, uint64_t mark);
