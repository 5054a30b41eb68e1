/* SPDX-License-Identifier: MIT */
/*
 * One line per thing worth telling: to stderr, or to syslog once the daemon is in the background.
 *
 * A line is logged once, where it is decided what to do about it.  Secrets never get here.  Nothing
 * here waits for a reader: lines that can't be written at once are lost, and counted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_TRACE };

/* Lines above this level are dropped.  LOG_LEVEL_INFO at start. */
void log_set_level(enum log_level level);

/* From now on lines go to syslog (facility daemon) instead of stderr. */
void log_to_syslog(void);

/* Before it, if lines were lost, it is said how many. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* True if a line of this level would be written: for traces that cost something to compose. */
int log_wants(enum log_level level);

/*
 * For what would be said over and over: true if it was not said in the last minute, and notes then
 * that it is said now.  Both times in milliseconds, on any clock that is never 0.
 */
bool log_is_due(int64_t *last, int64_t now);

/*
 * For a line that users of the mount can cause as often as they like: true if it may be written.  A
 * user has a number of lines a minute about one thing; how many more there were is said afterwards.
 * about: a plural, always the same literal; now: in milliseconds, on any clock that is never 0.
 */
bool log_admits(const char *about, uint64_t user, int64_t now);

/* For every now and again: says what is to be said of lines that were not written. */
void log_tidy(int64_t now);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_trace(...)                                                                             \
	do {                                                                                       \
		if (log_wants(LOG_LEVEL_TRACE))                                                    \
			log_line(LOG_LEVEL_TRACE, __VA_ARGS__);                                    \
	} while (0)
