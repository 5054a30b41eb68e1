/* SPDX-License-Identifier: MIT */
#include "base/sorting.h"

#include <string.h>

#include "base/util.h"

static size_t run_end(const struct sorting *sorting, size_t runs)
{
	size_t end = sorting->begin + runs * sorting->width;

	return end < sorting->count ? end : sorting->count;
}

void sorting_init(
	struct sorting *sorting, void *items, size_t count, size_t size, sorting_fn *compare)
{
	*sorting = (struct sorting){
		.items = items, .count = count, .size = size, .compare = compare, .width = 1};
	sorting->spare = xrealloc(NULL, count, size);
	sorting->right = run_end(sorting, 1);
}

static bool takes_left(const struct sorting *sorting)
{
	const char *items = sorting->items;
	size_t size = sorting->size;

	if (sorting->left == run_end(sorting, 1))
		return false;
	return sorting->right == run_end(sorting, 2) ||
	       sorting->compare(items + sorting->left * size, items + sorting->right * size) <= 0;
}

static void begin_pair(struct sorting *sorting, size_t begin)
{
	sorting->begin = sorting->left = begin;
	sorting->right = run_end(sorting, 1);
}

static void merge_one(struct sorting *sorting)
{
	size_t from = takes_left(sorting) ? sorting->left++ : sorting->right++;

	memcpy(sorting->spare + sorting->out++ * sorting->size,
		sorting->items + from * sorting->size, sorting->size);
	if (sorting->out < run_end(sorting, 2))
		return;
	if (sorting->out < sorting->count) {
		begin_pair(sorting, sorting->out);
		return;
	}
	char *items = sorting->items;
	sorting->items = sorting->spare;
	sorting->spare = items;
	sorting->width *= 2;
	sorting->out = 0;
	begin_pair(sorting, 0);
}

bool sorting_step(struct sorting *sorting, size_t comparisons)
{
	for (; sorting->width < sorting->count && comparisons; comparisons--)
		merge_one(sorting);
	return sorting->width >= sorting->count;
}

void *sorting_take(struct sorting *sorting)
{
	free(take(sorting->spare));
	return take(sorting->items);
}
