/* SPDX-License-Identifier: MIT */
#include "base/buffer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

static void reserve(struct buffer *buffer, size_t size)
{
	if (buffer->data && size < buffer->capacity)
		return;
	buffer->capacity = buffer->capacity ? buffer->capacity : 64;
	while (buffer->capacity <= size)
		buffer->capacity *= 2;
	buffer->data = xrealloc(buffer->data, buffer->capacity, 1);
}

void buffer_add(struct buffer *buffer, const void *data, size_t size)
{
	reserve(buffer, buffer->size + size);
	if (size)
		memcpy(buffer->data + buffer->size, data, size);
	buffer->size += size;
	buffer->data[buffer->size] = '\0';
}

void buffer_add_string(struct buffer *buffer, const char *s)
{
	buffer_add(buffer, s, strlen(s));
}

void buffer_addf(struct buffer *buffer, const char *format, ...)
{
	va_list args, again;

	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n > 0) {
		reserve(buffer, buffer->size + (size_t)n);
		vsnprintf(buffer->data + buffer->size, (size_t)n + 1, format, again);
		buffer->size += (size_t)n;
	}
	va_end(again);
}

void buffer_add_seconds(struct buffer *buffer, int64_t milliseconds)
{
	uint64_t size = milliseconds < 0 ? -(uint64_t)milliseconds : (uint64_t)milliseconds;

	buffer_addf(buffer, "%s%" PRIu64 ".%03" PRIu64, milliseconds < 0 ? "-" : "", size / 1000,
		size % 1000);
}

void buffer_consume(struct buffer *buffer, size_t size)
{
	if (!size)
		return;
	buffer->size -= size;
	memmove(buffer->data, buffer->data + size, buffer->size + 1);
}

void buffer_resize(struct buffer *buffer, size_t size)
{
	reserve(buffer, size);
	if (size > buffer->size)
		memset(buffer->data + buffer->size, 0, size - buffer->size);
	buffer->size = size;
	buffer->data[size] = '\0';
}

char *buffer_take(struct buffer *buffer)
{
	if (!buffer->data)
		buffer_add(buffer, "", 0);
	char *data = buffer->data;
	*buffer = (struct buffer){0};
	return data;
}

void buffer_fini(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}
