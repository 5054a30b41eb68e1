/* SPDX-License-Identifier: MIT */
#include "base/util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void *or_die(void *ptr)
{
	if (!ptr) {
		fputs("latchfs: out of memory\n", stderr);
		abort();
	}
	return ptr;
}

void *xzalloc(size_t size)
{
	return or_die(calloc(1, size ? size : 1));
}

void *xrealloc(void *ptr, size_t count, size_t size)
{
	return or_die(reallocarray(ptr, count ? count : 1, size));
}

char *xstrdup(const char *s)
{
	return s ? or_die(strdup(s)) : NULL;
}

char *xasprintf(const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	int n = vasprintf(&text, format, args);
	va_end(args);
	return or_die(n < 0 ? NULL : text);
}

void copy_string(char *to, size_t size, const char *from)
{
	size_t n = strnlen(from, size - 1);

	memcpy(to, from, n);
	to[n] = '\0';
}

int parse_u64(const char *s, int base, uint64_t max, uint64_t *value)
{
	char *end;

	if (!*s || s[strspn(s, "0123456789abcdefABCDEF")])
		return -EINVAL;
	errno = 0;
	unsigned long long n = strtoull(s, &end, base);
	if (errno || *end || n > max)
		return -EINVAL;
	*value = n;
	return 0;
}
