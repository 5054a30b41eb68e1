/* SPDX-License-Identifier: MIT */
/*
 * Former holders: processes that have given a lock back by closing the file that they created, and
 * may yet remove it.
 *
 * On a local disk the file is there until then, so programs do both, in this order (Python's
 * SoftFileLock does).  Here somebody else may have the lock by then, and if he is of the same user
 * he would lose it.
 */
#pragma once

#include <stdbool.h>

struct fs;
struct handle;
struct hold;
struct request;

/* A handle is closed for the last time, and with it goes the lock that it created. */
void former_add(struct fs *fs, const struct handle *handle);

/*
 * True if the request, to remove the name of a lock that is held, comes from a thread which means
 * the one that it, its process or who started that has given back.  That counts once.
 */
bool former_means(const struct request *request, const struct hold *hold);

/* The request's thread was told that nobody has that name: so it means no lock of its own. */
void former_forget(const struct request *request, const char *path);

void formers_free(struct fs *fs);
