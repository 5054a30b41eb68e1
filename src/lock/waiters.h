/* SPDX-License-Identifier: MIT */
/*
 * Lists of those who wait for what is being done anyway.
 *
 * An empty list is NULL.  The owner tells or frees everybody before it ends.
 */
#pragma once

#include <stdint.h>

typedef void waiter_fn(void *user, int result);

struct waiter {
	waiter_fn *fn;
	void *user;
	uint64_t version; /* what is waited for, where that is counted */
	int64_t deadline; /* on loop_clock(), for waiters_expire; 0: none */
	struct waiter *prev, *next;
};

void waiters_add(struct waiter **list, waiter_fn *fn, void *user, uint64_t version);
/* Tells those that wait for a version up to this one, in their order; fn may add others. */
void waiters_tell(struct waiter **list, uint64_t version, int result);
/* The one that was added last waits until then. */
void waiters_limit(struct waiter *list, int64_t deadline);
/* All wait until then at the latest. */
void waiters_hurry(struct waiter *list, int64_t deadline);
/* Tells those whose deadline has come; returns the next deadline, or 0. */
int64_t waiters_expire(struct waiter **list, int64_t now, int result);
/* Nobody is told anything. */
void waiters_free(struct waiter **list);
