/* SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "store/etcd/json.h"

void fuzz_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
	abort();
}

char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = or_die(malloc(size + 1));

	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

char *fuzz_line(char **text)
{
	return strsep(text, "\n");
}

void fuzz_require_json(const char *text)
{
	struct cJSON *json = json_parse(text);

	require(json);
	json_free(json);
	while (*text)
		require(skip_printable(&text));
}

/* --- in place of base/log.c: what is logged is composed, and shown if FUZZ_LOG is set --- */

void log_set_level(enum log_level level)
{
}

void log_to_syslog(void)
{
}

int log_wants(enum log_level level)
{
	return 1;
}

bool log_is_due(int64_t *last, int64_t now)
{
	return true;
}

bool log_admits(const char *about, uint64_t user, int64_t now)
{
	return true;
}

void log_tidy(int64_t now)
{
}

void log_line(enum log_level level, const char *format, ...)
{
	char text[2048];
	va_list args;

	va_start(args, format);
	int length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	require(length >= 0);
	if (getenv("FUZZ_LOG"))
		fprintf(stderr, "%s\n", text);
}
