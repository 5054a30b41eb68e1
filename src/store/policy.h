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

/* Fills in what `policy` leaves to the directory above. */
void policy_inherit(struct store_policy *policy, const struct store_policy *above);
