/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

enum { SILENCE = 60 * 1000 };

static enum log_level max_level = LOG_LEVEL_INFO;
static bool use_syslog;

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_to_syslog(void)
{
	/* Now, while there is a descriptor for it. */
	openlog("latchfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	use_syslog = true;
}

int log_wants(enum log_level level)
{
	return level <= max_level;
}

bool log_is_due(int64_t *last, int64_t now)
{
	if (*last && now - *last < SILENCE)
		return false;
	*last = now;
	return true;
}

/* Names of locks come from anybody: they must not be able to forge a line or drive a terminal. */
static void make_printable(char *text)
{
	for (; *text; text++) {
		if (iscntrl((unsigned char)*text))
			*text = '?';
	}
}

void log_line(enum log_level level, const char *format, ...)
{
	static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	static const char *const label[] = {"error: ", "warning: ", "", "trace: "};
	char text[2048];
	va_list args;

	if (!log_wants(level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	make_printable(text);
	if (use_syslog)
		syslog(priority[level], "%s%s", label[level], text);
	else
		fprintf(stderr, "latchfs: %s%s\n", label[level], text);
}
