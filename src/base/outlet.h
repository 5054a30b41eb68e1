/* SPDX-License-Identifier: MIT */
/*
 * Where lines go that nobody may have to wait for: standard error, whatever that is, or the
 * system's log.
 *
 * The one rule: nothing here ever waits for a reader.  A line that can't be taken at once is not
 * written, and the caller is told.  The descriptor's own flags stay as they are, because others
 * share them: the shell, and whatever else it has started.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum outlet_kind {
	OUTLET_NONE,
	OUTLET_FILE,   /* nobody reads it, so it takes everything */
	OUTLET_SOCKET, /* as journald gives one to a service */
	OUTLET_QUEUE,  /* a pipe or a terminal, by a description of our own, which does not block */
	OUTLET_POLLED, /* the same, if there can be no such description */
	OUTLET_SYSLOG,
};

struct outlet {
	enum outlet_kind kind;
	int fd;
	size_t piece; /* of OUTLET_POLLED: so many bytes fit if any do */
	bool is_torn; /* the last line has no end */
};

/* fd is borrowed for good. */
void outlet_open(struct outlet *outlet, int fd);

/* Connects to the system's log.  It is tried again with each line if nobody listens there. */
void outlet_open_syslog(struct outlet *outlet);

/* priority: of syslog(3), facility included; text: one line, without its end.  Returns whether it
 * was taken. */
bool outlet_line(struct outlet *outlet, int priority, const char *text);
