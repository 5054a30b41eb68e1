/* SPDX-License-Identifier: MIT */
/* The names and values of directory policies, as options, attributes and the store spell them. */
#pragma once

#include <stddef.h>

#include "store/store.h"

enum { POLICY_COUNT = 7 };

/* The name of the policy of that number, 0 to POLICY_COUNT - 1: "names", "open", ... */
const char *policy_name(size_t number);

/*
 * Sets a policy by name.  A NULL value means "inherit".
 * Returns 0, -ENODATA (no such policy) or -EINVAL (no such value).
 */
int policy_set(struct store_policy *policy, const char *name, const char *value);

/* The value in words; NULL if it is inherited or there is no such policy. */
const char *policy_get(const struct store_policy *policy, const char *name);

/* The bit of a policy in the mask of a change, and setting those of a mask as they are in `from`.
 */
unsigned int policy_change(const char *name);
void policy_apply(struct store_policy *to, const struct store_policy *from, unsigned int mask);
/* Those of the mask that are set, and those that are as in `other`. */
unsigned int policy_set_ones(const struct store_policy *policy, unsigned int mask);
unsigned int policy_equal_ones(
	const struct store_policy *policy, const struct store_policy *other, unsigned int mask);

/* Fills in what `policy` leaves to the directory above. */
void policy_inherit(struct store_policy *policy, const struct store_policy *above);
