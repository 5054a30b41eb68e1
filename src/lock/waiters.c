/* SPDX-License-Identifier: MIT */
#include "lock/waiters.h"

#include <utlist.h>

#include "base/util.h"

void waiters_add(struct waiter **list, waiter_fn *fn, void *user, uint64_t version)
{
	struct waiter *waiter = xzalloc(sizeof(*waiter));

	waiter->fn = fn;
	waiter->user = user;
	waiter->version = version;
	DL_APPEND(*list, waiter);
}

void waiters_tell(struct waiter **list, uint64_t version, int result)
{
	struct waiter *mine = NULL, *waiter, *next;

	DL_FOREACH_SAFE(*list, waiter, next) {
		if (waiter->version > version)
			continue;
		DL_DELETE(*list, waiter);
		DL_APPEND(mine, waiter);
	}
	while (mine) {
		waiter = mine;
		DL_DELETE(mine, waiter);
		waiter->fn(waiter->user, result);
		free(waiter);
	}
}

void waiters_free(struct waiter **list)
{
	struct waiter *waiter, *next;

	DL_FOREACH_SAFE(*list, waiter, next) {
		DL_DELETE(*list, waiter);
		free(waiter);
	}
}
