/* SPDX-License-Identifier: MIT */
/* Byte ranges, by random changes against a map of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/ranges.h"
#include "base/util.h"

enum { BYTES = 48, ROUNDS = 2000, STEPS = 40 };

/* What a byte of the map is. */
enum { FREE, SHARED, EXCLUSIVE };

struct sample {
	uint64_t base;
	unsigned char map[BYTES];
	struct ranges ranges;
};

static void fill(struct sample *sample, unsigned char *map)
{
	memset(map, FREE, BYTES);
	for (size_t i = 0; i < sample->ranges.count; i++) {
		const struct range *range = &sample->ranges.list[i];
		const struct range *last = i ? range - 1 : NULL;
		assert_true(range->start <= range->end);
		assert_true(range->start >= sample->base && range->end - sample->base < BYTES);
		/* In order; and what could be one range is one. */
		assert_true(!last || last->end < range->start);
		assert_true(!last || last->end + 1 < range->start ||
			    last->exclusive != range->exclusive);
		for (uint64_t b = range->start; b - sample->base < BYTES && b <= range->end; b++) {
			map[b - sample->base] = range->exclusive ? EXCLUSIVE : SHARED;
			if (b == UINT64_MAX)
				break;
		}
	}
}

/* The set says of each byte what the map says. */
static void check(struct sample *sample)
{
	unsigned char found[BYTES];
	bool exclusive = memchr(sample->map, EXCLUSIVE, BYTES);

	fill(sample, found);
	assert_memory_equal(found, sample->map, BYTES);
	assert_int_equal(ranges_are_exclusive(&sample->ranges), exclusive);
	assert_true(!sample->ranges.list == !sample->ranges.count);
}

static void check_text(struct sample *sample)
{
	cleanup(free_ptr) char *text = ranges_print(&sample->ranges);
	struct ranges again;

	if (!sample->ranges.count)
		return;
	assert_int_equal(ranges_parse(&again, text), 0);
	assert_true(ranges_equal(&again, &sample->ranges));
	ranges_fini(&again);
}

static unsigned int next_random(unsigned int *random, unsigned int below)
{
	*random = *random * 1103515245 + 12345;
	return (*random >> 16) % below;
}

static void check_conflict(struct sample *sample, unsigned int start, unsigned int size)
{
	for (int exclusive = 0; exclusive < 2; exclusive++) {
		struct range range = {.start = sample->base + start,
			.end = sample->base + start + size - 1,
			.exclusive = exclusive};
		struct ranges other = {0};
		bool conflict = false;
		for (unsigned int i = start; i < start + size; i++)
			conflict = conflict || sample->map[i] == EXCLUSIVE ||
				   (exclusive && sample->map[i] == SHARED);
		ranges_set(&other, range);
		assert_int_equal(ranges_conflict(&sample->ranges, &other), conflict);
		assert_int_equal(ranges_conflict(&other, &sample->ranges), conflict);
		assert_int_equal(ranges_find_conflict(&sample->ranges, range) != NULL, conflict);
		ranges_fini(&other);
	}
}

static void change(struct sample *sample, unsigned int what, unsigned int start, unsigned int size)
{
	uint64_t first = sample->base + start, last = first + size - 1;
	struct range range = {.start = first, .end = last, .exclusive = what == EXCLUSIVE};

	if (what == FREE)
		ranges_remove(&sample->ranges, first, last);
	else if (what <= EXCLUSIVE)
		ranges_set(&sample->ranges, range);
	else
		ranges_relax(&sample->ranges, first, last);
	for (unsigned int i = start; i < start + size; i++) {
		if (what <= EXCLUSIVE)
			sample->map[i] = (unsigned char)what;
		else if (sample->map[i] == EXCLUSIVE)
			sample->map[i] = SHARED;
	}
}

static void run(uint64_t base, unsigned int random)
{
	struct sample sample = {.base = base};

	for (int step = 0; step < STEPS; step++) {
		unsigned int start = next_random(&random, BYTES);
		unsigned int size = 1 + next_random(&random, BYTES - start);
		if (size > 8 && next_random(&random, 2))
			size = 1 + size % 8;
		check_conflict(&sample, start, size);
		change(&sample, next_random(&random, 4), start, size);
		check(&sample);
		check_text(&sample);
	}
	ranges_fini(&sample.ranges);
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
	struct ranges ranges = {0};

	ranges_set(&ranges, (struct range){.end = RANGE_END, .exclusive = true});
	assert_true(ranges_are_one(&ranges, 0, RANGE_END));
	ranges_remove(&ranges, 0, 0);
	ranges_remove(&ranges, RANGE_END, RANGE_END);
	assert_true(ranges_are_one(&ranges, 1, RANGE_END - 1));
	ranges_remove(&ranges, 5, INT64_MAX);
	assert_int_equal(ranges.count, 2);
	ranges_remove(&ranges, 0, RANGE_END);
	ranges_remove(&ranges, 3, 4);
	assert_int_equal(ranges.count, 0);
	assert_null(ranges.list);
}

static void assert_parsed(const char *text, bool good)
{
	struct ranges ranges;

	assert_int_equal(ranges_parse(&ranges, text), good ? 0 : -EINVAL);
	if (good) {
		cleanup(free_ptr) char *again = ranges_print(&ranges);
		assert_string_equal(again, text);
	} else {
		assert_int_equal(ranges.count, 0);
		assert_null(ranges.list);
	}
	ranges_fini(&ranges);
}

static void test_text(void **state)
{
	static const char *const bad[] = {"", "w", "w-", "w1", "0-1", "x0-1", "w0-1,", ",w0-1",
		"w2-1", "w0-1,w1-2", "w5-6,r0-1", "w0-,r5-6", "w0-1 ", "w-1-2", "w0--1",
		"w0-18446744073709551616", "w0-1;r2-3", "w0-1,,r2-3"};

	assert_parsed("w0-99,r200-", true);
	assert_parsed("r0-", true);
	assert_parsed("w5-5,r6-6,w7-18446744073709551614", true);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_parsed(bad[i], false);
}

/* Of more than there may be nothing is read. */
static void test_bounded(void **state)
{
	struct ranges ranges = {0};

	for (uint64_t i = 0; i <= RANGES_MAX; i++)
		ranges_set(&ranges, (struct range){.start = 2 * i, .end = 2 * i});
	cleanup(free_ptr) char *text = ranges_print(&ranges);
	assert_parsed(text, false);
	*strrchr(text, ',') = '\0';
	assert_parsed(text, true);
	ranges_fini(&ranges);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_whole_file),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
