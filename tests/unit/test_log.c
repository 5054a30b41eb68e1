/* SPDX-License-Identifier: MIT */
/* Which lines are written, of those that may be many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include "base/log.h"

enum { MINUTE = 60 * 1000, MANY = 1000 };

static const char one[] = "things", another[] = "other things";

static unsigned int admitted(const char *about, uint64_t user, int64_t now)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < MANY; i++)
		count += log_admits(about, user, now);
	return count;
}

/* As if some time had passed: nothing is left of what was before. */
static int64_t start(void)
{
	static int64_t now = 1;

	now += 10 * (int64_t)MINUTE;
	log_set_level(LOG_LEVEL_ERROR);
	log_tidy(now);
	return now;
}

static void test_a_minute(void **state)
{
	int64_t now = start();
	unsigned int budget = admitted(one, 1, now);

	assert_in_range(budget, 1, 100);
	assert_int_equal(admitted(one, 1, now + MINUTE - 1), 0);
	assert_int_equal(admitted(one, 1, now + MINUTE), budget);
	log_tidy(now + MINUTE);
	assert_int_equal(admitted(one, 1, now + MINUTE), 0);
	log_tidy(now + (int64_t)2 * MINUTE);
	assert_int_equal(admitted(one, 1, now + (int64_t)2 * MINUTE), budget);
}

static void test_others(void **state)
{
	int64_t now = start();
	unsigned int budget = admitted(one, 1, now);

	assert_int_equal(admitted(another, 1, now), budget);
	assert_int_equal(admitted(one, 2, now), budget);
	assert_int_equal(admitted(one, 0, now), budget);
}

/* However many users there are. */
static void test_crowd(void **state)
{
	int64_t now = start();
	unsigned int budget = admitted(one, 0, now), count = budget;

	for (uint64_t user = 1; user < MANY; user++)
		count += admitted(one, user, now);
	assert_in_range(count, budget, 100 * budget);
	assert_int_equal(admitted(one, MANY, now), 0);
	assert_int_equal(admitted(one, MANY, now + MINUTE), budget);
}

static void test_said_again(void **state)
{
	int64_t last = 0;

	assert_true(log_is_due(&last, 1));
	assert_false(log_is_due(&last, MINUTE));
	assert_true(log_is_due(&last, MINUTE + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_minute),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_said_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
