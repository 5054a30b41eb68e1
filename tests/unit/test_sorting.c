/* SPDX-License-Identifier: MIT */
/* Sorting in steps, against qsort. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <string.h>

#include "base/sorting.h"
#include "base/util.h"

enum { LONGEST = 300, STEP = 7 };

struct item {
	int key, place;
};

static int by_key(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return (x->key > y->key) - (x->key < y->key);
}

static int by_key_and_place(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	int order = by_key(a, b);

	return order ? order : (x->place > y->place) - (x->place < y->place);
}

/* Any order will do, with equal ones. */
static int key_of(size_t place)
{
	return (int)(place * 7919 % 50);
}

static void check(size_t count)
{
	struct item *items = xzalloc(count * sizeof(*items));
	struct item *expected = xzalloc(count * sizeof(*items));
	struct sorting sorting;
	size_t steps = 0;

	for (size_t i = 0; i < count; i++)
		items[i] = (struct item){.key = key_of(i), .place = (int)i};
	memcpy(expected, items, count * sizeof(*items));
	qsort(expected, count, sizeof(*expected), by_key_and_place);
	sorting_init(&sorting, items, count, sizeof(*items), by_key);
	while (!sorting_step(&sorting, STEP))
		steps++;
	assert_true(count < 2UL * STEP || steps >= count / STEP);
	items = sorting_take(&sorting);
	assert_memory_equal(items, expected, count * sizeof(*items));
	free(items);
	free(expected);
}

static void test_like_qsort(void **state)
{
	for (size_t count = 0; count < LONGEST; count++)
		check(count);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_like_qsort)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
