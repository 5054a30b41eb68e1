/* SPDX-License-Identifier: MIT */
/* Byte ranges, by random additions and removals against a map of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <string.h>

#include "base/util.h"
#include "fs/ranges.h"

enum { BYTES = 48, ROUNDS = 2000, STEPS = 40 };

/* The list says of each byte what the map says, and no byte is in it twice. */
static void check(const struct range *ranges, uint64_t base, const unsigned char *map)
{
	unsigned char found[BYTES] = {0};

	for (const struct range *range = ranges; range; range = range->next) {
		assert_true(range->start <= range->end);
		assert_true(range->start >= base && range->end - base < BYTES);
		for (uint64_t i = range->start - base; i <= range->end - base; i++)
			found[i]++;
	}
	assert_memory_equal(found, map, BYTES);
}

static unsigned int next_random(unsigned int *random, unsigned int below)
{
	*random = *random * 1103515245 + 12345;
	return (*random >> 16) % below;
}

static void run(uint64_t base, unsigned int random)
{
	unsigned char map[BYTES] = {0};
	struct range *ranges = NULL;

	for (int step = 0; step < STEPS; step++) {
		unsigned int start = next_random(&random, BYTES);
		unsigned int size = 1 + next_random(&random, BYTES - start);
		bool add = next_random(&random, 2);
		if (size > 8 && next_random(&random, 2))
			size = 1 + size % 8;
		if (add)
			ranges_add(&ranges, base + start, base + start + size - 1);
		else
			ranges_remove(&ranges, base + start, base + start + size - 1);
		memset(map + start, add, size);
		check(ranges, base, map);
	}
	ranges_clear(&ranges);
	assert_null(ranges);
}

/* At the beginning, somewhere, and at the very end, where counting further begins anew. */
static void test_random(void **state)
{
	static const uint64_t bases[] = {
		0, UINT64_C(1) << 40, INT64_MAX - 20, UINT64_MAX - BYTES + 1};

	for (unsigned int round = 0; round < ROUNDS; round++)
		run(bases[round % ARRAY_SIZE(bases)], round);
}

static void test_whole_file(void **state)
{
	struct range *ranges = NULL;

	ranges_add(&ranges, 0, UINT64_MAX);
	ranges_remove(&ranges, 0, 0);
	ranges_remove(&ranges, UINT64_MAX, UINT64_MAX);
	assert_non_null(ranges);
	assert_null(ranges->next);
	assert_true(ranges->start == 1 && ranges->end == UINT64_MAX - 1);
	ranges_remove(&ranges, 5, INT64_MAX);
	assert_true(ranges && ranges->next && !ranges->next->next);
	ranges_remove(&ranges, 0, UINT64_MAX);
	assert_null(ranges);
	ranges_remove(&ranges, 3, 4);
	ranges_clear(&ranges);
	assert_null(ranges);
}

/* What lies side by side is one range; of others there are only so many. */
static void test_bounded(void **state)
{
	struct range *ranges = NULL;
	uint64_t i;

	for (i = 0; i < RANGES_MAX; i++)
		ranges_add(&ranges, i, i);
	assert_non_null(ranges);
	assert_null(ranges->next);
	for (i = 1; i < RANGES_MAX; i++) {
		assert_true(ranges_may_change(ranges, 2 * i, 2 * i, false));
		ranges_add(&ranges, RANGES_MAX + 2 * i, RANGES_MAX + 2 * i);
	}
	assert_false(ranges_may_change(ranges, UINT64_MAX, UINT64_MAX, true));
	assert_false(ranges_may_change(ranges, 7, 7, false));
	assert_true(ranges_may_change(ranges, 0, 7, false));
	assert_true(ranges_may_change(ranges, RANGES_MAX + 3, RANGES_MAX + 3, true));
	assert_true(ranges_may_change(ranges, 0, UINT64_MAX, true));
	ranges_clear(&ranges);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_whole_file),
		cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
