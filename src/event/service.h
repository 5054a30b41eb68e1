/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told, if it has started us and wants to know: that the mount works, that it ends,
 * and, as its watchdog asks, that the loop still turns; and what it keeps for us.
 *
 * See sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).  Without libsystemd nothing is
 * told, and nothing kept.
 */
#pragma once

#include <stddef.h>

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

/*
 * Has it keep a descriptor, by a name without colons, until the service is started again or has
 * stopped for good; waits until it has it.  The unit must allow that (FileDescriptorStoreMax=),
 * else it is not kept, which can't be seen.  Returns 0 or -errno: -ENOTCONN if nobody listens.
 */
int service_keep(const char *name, int fd);

/* The descriptors that were kept by these names, which are ours as well; -1 where there is none. */
void service_kept(const char *const *names, int *fds, size_t count);

/* They are kept no longer; waits until that is so. */
void service_forget(const char *const *names, size_t count);
