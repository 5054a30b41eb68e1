/* SPDX-License-Identifier: MIT */
/*
 * Which numbers places have in their names.
 *
 * etcd keeps every name that ever was until it is compacted, and looks at all of those in a range
 * that it reads: a lock of which each place had a name of its own would be slower each time it is
 * taken.  So the numbers of places that have gone are given to others of the same lock.
 *
 * One is only if nothing that was sent about its last place can still be under way: if each request
 * was sent once and answered.  What could be carried out late would concern somebody else.
 */
#include <string.h>

#include "base/util.h"
#include "store/etcd/internal.h"

/* How many are remembered; of the locks that were given back last, and lately. */
enum { NUMBERS_MAX = 4096 };

struct etcd_numbers {
	char *path;
	struct etcd_number *list;
	size_t count, capacity;
	unsigned int round; /* when one was added last, in tidyings */
	UT_hash_handle hh;
};

static void numbers_free(struct etcd *etcd, struct etcd_numbers *numbers)
{
	etcd->number_count -= numbers->count;
	HASH_DEL(etcd->numbers, numbers);
	free(numbers->path);
	free(numbers->list);
	free(numbers);
}

struct etcd_number etcd_number_take(struct etcd *etcd, const char *path)
{
	struct etcd_numbers *numbers;

	HASH_FIND_STR(etcd->numbers, path, numbers);
	if (!numbers)
		return (struct etcd_number){.number = etcd_next_sequence(etcd)};
	struct etcd_number number = numbers->list[--numbers->count];
	etcd->number_count--;
	if (!numbers->count)
		numbers_free(etcd, numbers);
	return number;
}

void etcd_number_keep(struct etcd *etcd, const char *path, struct etcd_number number)
{
	struct etcd_numbers *numbers;

	HASH_FIND_STR(etcd->numbers, path, numbers);
	if (!numbers) {
		numbers = xzalloc(sizeof(*numbers));
		numbers->path = xstrdup(path);
		HASH_ADD_KEYPTR(hh, etcd->numbers, numbers->path, strlen(numbers->path), numbers);
	}
	if (numbers->count == numbers->capacity) {
		numbers->capacity = numbers->capacity ? 2 * numbers->capacity : 1;
		numbers->list =
			xrealloc(numbers->list, numbers->capacity, sizeof(numbers->list[0]));
	}
	numbers->list[numbers->count++] = number;
	numbers->round = etcd->numbers_round;
	/* uthash has them in the order in which they came. */
	if (++etcd->number_count > NUMBERS_MAX)
		numbers_free(etcd, etcd->numbers);
}

/* Small things that stay for long keep large pieces of memory from being given back. */
void etcd_numbers_tidy(struct store *store)
{
	struct etcd *etcd = etcd_of(store);
	struct etcd_numbers *numbers, *next;

	HASH_ITER(hh, etcd->numbers, numbers, next) {
		if (numbers->round != etcd->numbers_round)
			numbers_free(etcd, numbers);
	}
	etcd->numbers_round++;
}

void etcd_numbers_forget(struct etcd *etcd)
{
	etcd->numbers_epoch++;
	while (etcd->numbers)
		numbers_free(etcd, etcd->numbers);
}
