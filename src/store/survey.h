/* SPDX-License-Identifier: MIT */
/*
 * Everything that a store has, as it is read: any user may ask for it, and there may be very much,
 * so it is bounded, sorted in steps and freed at once.
 */
#pragma once

#include <stdbool.h>

#include "store/store.h"

struct store_survey *survey_new(void);
void survey_free(struct store_survey *found);

/* Add one: what the argument points to is copied. */
void survey_add_place(struct store_survey *found, const struct store_survey_place *place);
void survey_add_directory(
	struct store_survey *found, const char *path, const struct store_directory *directory);
/* True if there is more than anybody should read. */
bool survey_is_too_large(struct store_survey *found);

/* Goes on with sorting until that time on loop_clock().  Returns whether it is done. */
bool survey_sort(struct store_survey *found, int64_t until);
