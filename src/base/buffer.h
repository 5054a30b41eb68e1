/* SPDX-License-Identifier: MIT */
/*
 * A growing string of bytes, always followed by a NUL.
 *
 * A zeroed struct is an empty buffer.  The owner calls buffer_fini.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buffer {
	char *data; /* owned; NULL while nothing was ever added */
	size_t size;
	size_t capacity;
};

void buffer_add(struct buffer *buffer, const void *data, size_t size);
void buffer_add_string(struct buffer *buffer, const char *s);
void buffer_addf(struct buffer *buffer, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Milliseconds, as seconds with three digits behind the point. */
void buffer_add_seconds(struct buffer *buffer, int64_t milliseconds);

/* Removes the first `size` bytes, of which there are at least so many. */
void buffer_consume(struct buffer *buffer, size_t size);

/* Cuts or extends (with zeros) to `size` bytes. */
void buffer_resize(struct buffer *buffer, size_t size);

/* Hands the bytes over as a string that the caller frees; the buffer is empty then. */
char *buffer_take(struct buffer *buffer);

void buffer_fini(struct buffer *buffer);
