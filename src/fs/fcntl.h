/* SPDX-License-Identifier: MIT */
/* The byte ranges of fcntl(2). */
#pragma once

#include <stdbool.h>

struct hold;
struct request;

/* Has the request lock its range, as lock_for_request does for whole files. */
void fcntl_lock(struct request *request);

/* It was granted what it did not have; the rest of what it asked for is in other holds. */
void fcntl_granted(struct request *request, const struct hold *hold);
