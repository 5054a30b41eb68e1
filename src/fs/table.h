/* SPDX-License-Identifier: MIT */
/*
 * What the file `locks` says: all who hold a lock or wait for one, on all machines.
 *
 * One survey of the store at a time answers all who had asked when it began.  Its text is composed
 * once, and once more for each set of user and groups that may not see all of it, in slices.
 */
#pragma once

struct fs;
struct request;

/* Asks the store, gives request->handle the text, and replies to the open. */
void table_open(struct request *request);
/* At the end of the program: what was asked is not answered any more. */
void table_fini(struct fs *fs);
