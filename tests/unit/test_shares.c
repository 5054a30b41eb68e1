/* SPDX-License-Identifier: MIT */
/* Shares of a bounded resource: by name, and by random users against plain sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/shares.h"
#include "base/util.h"

enum { LIMIT = 320, PERCENT = 10, SHARE = 32, RESERVE = 20, ALICE = 70001, USERS = 40 };

static const struct shares_kind kind = {
	.resource = "apples", .what = "apples are eaten", .option = "apples", .error = "ENOSPC"};

static bool eat(struct shares *shares, uid_t uid, size_t more)
{
	if (!shares_allow(shares, uid, more, 1))
		return false;
	shares_take(shares, uid, more);
	return true;
}

static void test_one_user_has_its_share(void **state)
{
	struct shares shares;

	shares_init(&shares, &kind, LIMIT, PERCENT);
	assert_true(eat(&shares, ALICE, SHARE - 1));
	assert_false(eat(&shares, ALICE, 2));
	assert_true(eat(&shares, ALICE, 1));
	assert_false(eat(&shares, ALICE, 1));
	assert_true(eat(&shares, ALICE, 0));
	assert_int_equal(shares_of(&shares, ALICE), SHARE);
	assert_true(eat(&shares, ALICE + 1, SHARE));
	shares_give(&shares, ALICE, SHARE);
	assert_int_equal(shares_of(&shares, ALICE), 0);
	assert_true(eat(&shares, ALICE, SHARE));
	shares_fini(&shares);
}

static void test_all_users_leave_the_reserve(void **state)
{
	struct shares shares;

	shares_init(&shares, &kind, LIMIT, PERCENT);
	for (uid_t uid = ALICE; eat(&shares, uid, 1) || shares_of(&shares, uid) == SHARE;)
		uid += shares_of(&shares, uid) == SHARE;
	assert_int_equal(shares.used, LIMIT - RESERVE);
	assert_true(eat(&shares, 0, RESERVE));
	assert_false(eat(&shares, 0, 1));
	shares_fini(&shares);
}

static void test_root_may_have_everything(void **state)
{
	struct shares shares;

	shares_init(&shares, &kind, LIMIT, PERCENT);
	assert_true(eat(&shares, 0, LIMIT));
	assert_false(eat(&shares, ALICE, 1));
	shares_fini(&shares);
}

static void test_the_whole_may_be_a_share(void **state)
{
	struct shares shares;

	shares_init(&shares, &kind, LIMIT, 100);
	assert_true(eat(&shares, ALICE, LIMIT));
	assert_false(eat(&shares, 0, 1));
	shares_fini(&shares);
}

static void test_small_and_large_limits(void **state)
{
	struct shares shares;

	shares_init(&shares, &kind, 3, PERCENT);
	assert_true(eat(&shares, ALICE, 1));
	assert_false(eat(&shares, ALICE, 1));
	shares_fini(&shares);
	shares_init(&shares, &kind, 0, PERCENT);
	assert_false(eat(&shares, 0, 1));
	shares_init(&shares, &kind, SIZE_MAX, PERCENT);
	assert_true(eat(&shares, ALICE, SIZE_MAX / 100 * PERCENT));
	assert_false(eat(&shares, ALICE, SIZE_MAX));
	shares_fini(&shares);
}

/* What a former process has allowed can't be refused, and leaves no room below zero. */
static void test_taken_beyond_the_limit(void **state)
{
	struct shares shares;

	shares_init(&shares, &kind, LIMIT, PERCENT);
	shares_take(&shares, ALICE, 2 * LIMIT);
	assert_false(eat(&shares, 0, 1));
	assert_false(eat(&shares, ALICE, 1));
	shares_give(&shares, ALICE, LIMIT + 1);
	assert_true(eat(&shares, 0, 1));
	shares_fini(&shares);
}

static void test_random_users(void **state)
{
	size_t has[USERS] = {0}, all = 0;
	struct shares shares;

	srandom(4);
	shares_init(&shares, &kind, LIMIT, PERCENT);
	for (int step = 0; step < 200000; step++) {
		size_t user = (size_t)random() % USERS, more = (size_t)random() % 20;
		size_t less = has[user] ? (size_t)random() % (has[user] + 1) : 0;
		if (random() % 2) {
			bool fits = has[user] + more <= SHARE && all + more <= LIMIT - RESERVE;
			assert_int_equal(eat(&shares, ALICE + (uid_t)user, more), fits || !more);
			has[user] += fits ? more : 0;
			all += fits ? more : 0;
		} else {
			shares_give(&shares, ALICE + (uid_t)user, less);
			has[user] -= less;
			all -= less;
		}
		assert_int_equal(shares_of(&shares, ALICE + (uid_t)user), has[user]);
		assert_int_equal(shares.used, all);
	}
	shares_fini(&shares);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_user_has_its_share),
		cmocka_unit_test(test_all_users_leave_the_reserve),
		cmocka_unit_test(test_root_may_have_everything),
		cmocka_unit_test(test_the_whole_may_be_a_share),
		cmocka_unit_test(test_small_and_large_limits),
		cmocka_unit_test(test_taken_beyond_the_limit),
		cmocka_unit_test(test_random_users),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
