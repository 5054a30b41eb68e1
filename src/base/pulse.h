/* SPDX-License-Identifier: MIT */
/*
 * What a process shows of itself while it works to the one that watches over it, in memory that
 * both have: that it still turns, and at which request it is.
 *
 * The one rule: it is written by one process at a time, the worker; the supervisor writes only when
 * that one has ended.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pulse;

/* To be called before fork(2).  Lasts as long as the processes do.  NULL if there is no memory for
 * it, with errno set. */
struct pulse *pulse_new(void);

/* --- the worker; pulse may be NULL: nobody watches --- */

/* It turns. */
void pulse_beat(struct pulse *pulse);

/* It does not turn from now on, and that is in order. */
void pulse_rest(struct pulse *pulse);

/* It is at this request, until it says that it is at another, or, with 0, at none. */
void pulse_at(struct pulse *pulse, uint64_t request);

/* Whether two processes have died while they were at this request. */
bool pulse_is_deadly(const struct pulse *pulse, uint64_t request);

/* --- the supervisor --- */

/* Changes with every beat; 0: there was none yet, or it rests. */
uint64_t pulse_turns(const struct pulse *pulse);

/* The worker is dead. */
void pulse_died(struct pulse *pulse);
