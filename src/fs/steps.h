/* SPDX-License-Identifier: MIT */
/*
 * Steps that many operations begin with.  Each goes on with next(request), at once or later, or
 * replies with an error.
 */
#pragma once

#include "fs/request.h"

/*
 * With the attributes of request->node, a directory, not older than a second, and the permission to
 * do there what `mask` says (R_OK, W_OK, X_OK).
 */
void step_permitted(struct request *request, int mask, request_fn *next);

/*
 * With all locks given back that are just being given back here: of request->path, or, if `below`,
 * of everything below it.
 */
void step_settled(struct request *request, bool below, request_fn *next);

/* Whether the mode of a directory lets a user do that; is_member: of its group. */
bool mode_allows(const struct store_directory *directory, uid_t uid, bool is_member, int mask);
/* 0 or -EACCES: what the mode of a directory, as it was read last, lets the caller do. */
int check_permission(const struct request *request, const struct node *node, int mask);
/* 0 or -EPERM: whether the caller owns the directory. */
int check_owner(const struct request *request, const struct node *directory);
/* 0 or -EPERM: a directory with the sticky bit lets only owners remove what is in it. */
int check_sticky(const struct request *request, const struct node *directory, uid_t owner);

/* Sets request->path and request->name to the name in the directory request->node.
 * Returns 0, -ENAMETOOLONG, or -EPERM for names that are ours. */
int set_child(struct request *request, const char *name);
