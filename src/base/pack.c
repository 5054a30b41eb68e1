/* SPDX-License-Identifier: MIT */
#include "base/pack.h"

#include <string.h>

#include "base/buffer.h"
#include "base/util.h"

void pack_u64(struct buffer *buffer, uint64_t number)
{
	buffer_add(buffer, &number, sizeof(number));
}

void pack_bytes(struct buffer *buffer, const void *data, size_t size)
{
	pack_u64(buffer, size);
	buffer_add(buffer, data, size);
}

void pack_string(struct buffer *buffer, const char *s)
{
	if (s)
		pack_bytes(buffer, s, strlen(s));
	else
		pack_u64(buffer, UINT64_MAX);
}

/* NULL if there are not so many bytes left. */
static const char *next(struct unpack *from, uint64_t size)
{
	if (from->failed || size > from->size) {
		from->failed = true;
		return NULL;
	}
	const char *data = from->data;
	from->data += size;
	from->size -= size;
	return data;
}

uint64_t unpack_u64(struct unpack *from)
{
	uint64_t number = 0;
	const char *data = next(from, sizeof(number));

	if (data)
		memcpy(&number, data, sizeof(number));
	return number;
}

void unpack_bytes(struct unpack *from, void *to, size_t size)
{
	if (unpack_u64(from) != size)
		from->failed = true;
	const char *data = next(from, size);
	if (data)
		memcpy(to, data, size);
	else
		memset(to, 0, size);
}

char *unpack_string(struct unpack *from, size_t *size)
{
	uint64_t length = unpack_u64(from);

	if (size)
		*size = 0;
	if (from->failed || length == UINT64_MAX)
		return NULL;
	const char *data = next(from, length);
	if (!data)
		return NULL;
	char *copy = xzalloc(length + 1);
	memcpy(copy, data, length);
	if (size)
		*size = length;
	return copy;
}
