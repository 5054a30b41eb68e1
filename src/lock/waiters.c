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

static void tell_all(struct waiter *list, int result)
{
	while (list) {
		struct waiter *waiter = list;
		DL_DELETE(list, waiter);
		waiter->fn(waiter->user, result);
		free(waiter);
	}
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
	tell_all(mine, result);
}

void waiters_limit(struct waiter *list, int64_t deadline)
{
	list->prev->deadline = deadline;
}

void waiters_hurry(struct waiter *list, int64_t deadline)
{
	struct waiter *waiter;

	DL_FOREACH(list, waiter) {
		if (!waiter->deadline || waiter->deadline > deadline)
			waiter->deadline = deadline;
	}
}

int64_t waiters_expire(struct waiter **list, int64_t now, int result)
{
	struct waiter *mine = NULL, *waiter, *next;
	int64_t first = 0;

	DL_FOREACH_SAFE(*list, waiter, next) {
		if (!waiter->deadline)
			continue;
		if (waiter->deadline > now) {
			first = first && first < waiter->deadline ? first : waiter->deadline;
			continue;
		}
		DL_DELETE(*list, waiter);
		DL_APPEND(mine, waiter);
	}
	tell_all(mine, result);
	return first;
}

void waiters_free(struct waiter **list)
{
	struct waiter *waiter, *next;

	DL_FOREACH_SAFE(*list, waiter, next) {
		DL_DELETE(*list, waiter);
		free(waiter);
	}
}
