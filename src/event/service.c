/* SPDX-License-Identifier: MIT */
#include "event/service.h"

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "base/util.h"

#ifdef HAVE_SYSTEMD

enum { USEC_PER_MSEC = 1000 };

static void tell_of_life(struct service *service, struct loop *loop)
{
	sd_notify(0, "WATCHDOG=1");
	loop_timer_arm(loop, &service->timer, loop_clock() + service->period);
}

static void on_timer(struct loop_timer *timer)
{
	tell_of_life(container_of(timer, struct service, timer), timer->loop);
}

void service_ready(struct service *service, struct loop *loop, const char *source)
{
	uint64_t usec = 0;

	sd_notifyf(0, "READY=1\nSTATUS=%s", source);
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return;
	/* Half of it is recommended; a third also bears one that comes late. */
	service->period = (int64_t)(usec / USEC_PER_MSEC / 3) + 1;
	service->timer.fn = on_timer;
	tell_of_life(service, loop);
}

void service_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

#else

void service_ready(struct service *service, struct loop *loop, const char *source)
{
}

void service_stopping(void)
{
}

#endif
