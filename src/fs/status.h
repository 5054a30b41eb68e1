/* SPDX-License-Identifier: MIT */
/*
 * The files below .latchfs in the root: how the mount is, for people and programs.
 *
 * What such a file says is put together when it is opened, and is the same until it is closed.
 * Nothing of this asks the store, unless the file says so, or can be changed by anybody.
 */
#pragma once

#include <stdbool.h>

struct handle;
struct node;
struct request;
struct status_entry;

/* Which of them a name is; NULL if it is none. */
const struct status_entry *status_of(const struct node *parent, const char *name);

/* Answers the lookup and returns true, if the name is .latchfs in the root or below it. */
bool status_lookup(struct request *request, struct node *parent, const char *name);

/* All of these are for nodes with node->status. */
void status_getattr(struct request *request);
void status_access(struct request *request, int mask);
void status_open(struct request *request, struct node *node, int flags);
/* request->handle, size and offset are set. */
void status_read(struct request *request);
/* Gives the handle of the directory what is in it. */
void status_list(struct handle *handle);
