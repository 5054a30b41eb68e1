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

bool begins_with(const char *s, const char *beginning)
{
	return strncmp(s, beginning, strlen(beginning)) == 0;
}

void copy_string(char *to, size_t size, const char *from)
{
	size_t n = strnlen(from, size - 1);

	memcpy(to, from, n);
	to[n] = '\0';
}

bool skip_printable(const char **text)
{
	static const uint32_t least[] = {' ', 0xa0, 0x800, 0x10000};
	const unsigned char *s = (const unsigned char *)*text;
	int more = *s < 0x7f ? 0 : *s >> 5 == 6 ? 1 : *s >> 4 == 14 ? 2 : *s >> 3 == 30 ? 3 : -1;

	++*text;
	if (more < 0)
		return false;
	uint32_t character = *s & (0x7fu >> more);
	for (int i = 1; i <= more; i++) {
		if (s[i] >> 6 != 2)
			return false;
		character = character << 6 | (s[i] & 0x3f);
	}
	if (character < least[more] || character > 0x10ffff ||
		(character >= 0xd800 && character <= 0xdfff))
		return false;
	*text += more;
	return true;
}

void copy_printable(char *to, size_t size, const char *from)
{
	while (*from) {
		const char *character = from;
		bool printable = skip_printable(&from);
		size_t length = (size_t)(from - character);
		if (length >= size)
			break;
		memcpy(to, printable ? character : "?", length);
		to += length;
		size -= length;
	}
	*to = '\0';
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
