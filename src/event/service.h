/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told, if it has started us and wants to know: that the mount works, that it ends,
 * and, as its watchdog asks, that the loop still turns.
 *
 * See sd_notify(3) and sd_watchdog_enabled(3).  Without libsystemd nothing is told.
 */
#pragma once

#include "event/loop.h"

struct service {
	struct loop_timer timer; /* of the watchdog's signs of life */
	int64_t period;
};

/*
 * The mount of source, which has no line breaks, works.  From now on the watchdog, if there is one,
 * hears from loop, also while the program ends.
 */
void service_ready(struct service *service, struct loop *loop, const char *source);

/* It ends. */
void service_stopping(void);
