/* SPDX-License-Identifier: MIT */
#include "store/policy.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

enum { MAX_VALUES = 3 };

/* Values stand in the order of their enums, of which 0 is "inherit". */
static const struct {
	const char *name;
	const char *values[MAX_VALUES];
} policies[POLICY_COUNT] = {
	{"hold", {"close", "process", "name"}},
	{"names", {"held", "always"}},
	{"open", {"plain", "lock"}},
	{"on_loss", {"error", "term", "kill"}},
	{"dirs", {"keep", "lease"}},
	{"record", {"yes", "no"}},
	{"mkdir", {"write", "owner"}},
};

const char *policy_name(size_t number)
{
	return policies[number].name;
}

static int number_of(const char *name)
{
	for (int i = 0; i < POLICY_COUNT; i++) {
		if (strcmp(policies[i].name, name) == 0)
			return i;
	}
	return -1;
}

static unsigned int read_value(const struct store_policy *policy, int number)
{
	switch (number) {
	case 0:
		return policy->hold;
	case 1:
		return policy->names;
	case 2:
		return policy->open;
	case 3:
		return policy->on_loss;
	case 4:
		return policy->dirs;
	case 5:
		return policy->record;
	default:
		return policy->mkdir;
	}
}

static void write_value(struct store_policy *policy, int number, unsigned int value)
{
	switch (number) {
	case 0:
		policy->hold = (enum store_hold)value;
		break;
	case 1:
		policy->names = (enum store_names)value;
		break;
	case 2:
		policy->open = (enum store_open)value;
		break;
	case 3:
		policy->on_loss = (enum store_on_loss)value;
		break;
	case 4:
		policy->dirs = (enum store_dirs)value;
		break;
	case 5:
		policy->record = (enum store_record)value;
		break;
	default:
		policy->mkdir = (enum store_mkdir)value;
		break;
	}
}

int policy_set(struct store_policy *policy, const char *name, const char *value)
{
	int number = number_of(name);

	if (number < 0)
		return -ENODATA;
	if (!value) {
		write_value(policy, number, 0);
		return 0;
	}
	for (unsigned int i = 0; i < MAX_VALUES && policies[number].values[i]; i++) {
		if (strcmp(policies[number].values[i], value) == 0) {
			write_value(policy, number, i + 1);
			return 0;
		}
	}
	return -EINVAL;
}

const char *policy_get(const struct store_policy *policy, const char *name)
{
	int number = number_of(name);

	if (number < 0)
		return NULL;
	unsigned int value = read_value(policy, number);
	return value ? policies[number].values[value - 1] : NULL;
}

static unsigned int bit_of(int number)
{
	return (unsigned int)STORE_CHANGE_POLICY << number;
}

unsigned int policy_change(const char *name)
{
	int number = number_of(name);

	return number < 0 ? 0 : bit_of(number);
}

void policy_apply(struct store_policy *to, const struct store_policy *from, unsigned int mask)
{
	for (int i = 0; i < POLICY_COUNT; i++) {
		if (mask & bit_of(i))
			write_value(to, i, read_value(from, i));
	}
}

unsigned int policy_equal_ones(
	const struct store_policy *policy, const struct store_policy *other, unsigned int mask)
{
	unsigned int found = 0;

	for (int i = 0; i < POLICY_COUNT; i++) {
		if (read_value(policy, i) == read_value(other, i))
			found |= bit_of(i) & mask;
	}
	return found;
}

unsigned int policy_set_ones(const struct store_policy *policy, unsigned int mask)
{
	const struct store_policy none = {0};

	return policy_equal_ones(policy, policy, mask) & ~policy_equal_ones(policy, &none, mask);
}

void policy_inherit(struct store_policy *policy, const struct store_policy *above)
{
	for (int i = 0; i < POLICY_COUNT; i++) {
		if (!read_value(policy, i))
			write_value(policy, i, read_value(above, i));
	}
}
