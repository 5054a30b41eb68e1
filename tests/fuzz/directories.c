/* SPDX-License-Identifier: MIT */
/* The value of a directory's key: what is read from it can be written, and reads the same. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "store/etcd/values.h"
#include "store/policy.h"
#include "store/store.h"

static void compare_times(struct timespec a, struct timespec b)
{
	require(a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec);
	require(a.tv_nsec >= 0 && a.tv_nsec < 1000000000);
}

static void compare(const struct store_directory *a, const struct store_directory *b)
{
	require(a->mode == b->mode && a->mode <= 07777);
	require(a->uid == b->uid && a->gid == b->gid);
	compare_times(a->atime, b->atime);
	compare_times(a->mtime, b->mtime);
	compare_times(a->ctime, b->ctime);
	require(memcmp(&a->policy, &b->policy, sizeof(a->policy)) == 0);
}

/* Every policy in force is one that can be set. */
static void check_policy(const struct store_policy *policy)
{
	struct store_policy inherited = {0}, copy = {0};

	policy_inherit(&inherited, policy);
	for (size_t i = 0; i < POLICY_COUNT; i++) {
		const char *name = policy_name(i), *value = policy_get(policy, name);
		require(!value || policy_set(&copy, name, value) == 0);
	}
	require(memcmp(&inherited, policy, sizeof(copy)) == 0);
	require(memcmp(&copy, policy, sizeof(copy)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *value = fuzz_text(data, size);
	struct store_directory directory, again;

	value_parse_directory(value, &directory);
	check_policy(&directory.policy);
	char *ours = value_of_directory(&directory, "77.1");
	fuzz_require_json(ours);
	require(value_directory_has_id(ours, "77.1"));
	value_parse_directory(ours, &again);
	compare(&directory, &again);
	(void)value_directory_has_id(value, "77.1");
	free(ours);
	free(value);
	return 0;
}
