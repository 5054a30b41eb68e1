/* SPDX-License-Identifier: MIT */
/* Taking and giving back locks for requests of the kernel. */
#pragma once

#include "fs/request.h"
#include "fs/stake.h"

/*
 * Takes the lock request->node for request->handle: kind, owner, start, end, exclusive and wait say
 * how.  Goes on with request->next when it is held.  Otherwise replies with the error, after
 * freeing the handle if the lock was to be taken by opening it.
 */
void lock_for_request(struct request *request);

/* The same for one that makes a name, as O_EXCL does; refused if the policy can't be kept. */
void lock_to_create(struct request *request, request_fn *next);

/* As lock_for_request, for a request which is known to need a lock of its own. */
void lock_ask(struct request *request);

/* True if it has lost one, and has to say first that it knows. */
bool lock_has_lost(const struct request *request);

/* Replies to a request to unlock what is not held any more: another process may have begun that. */
void lock_given_back(struct request *request);

/* As lockspace_lost_fn, of a hold. */
void lock_lost(void *user);

/* Answers such a request with an error, and lets go of what was made for it. */
void lock_refuse(struct request *request, int error);
