/* SPDX-License-Identifier: MIT */
/*
 * Numbers and texts as bytes, for another process of this program on this machine.
 *
 * What is unpacked has to be what was packed, in the same order; if it is not, `failed` is set and
 * everything from then on is 0.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;

void pack_u64(struct buffer *buffer, uint64_t number);
void pack_bytes(struct buffer *buffer, const void *data, size_t size);
void pack_string(struct buffer *buffer, const char *s); /* may be NULL */

struct unpack {
	const char *data; /* borrowed */
	size_t size;
	bool failed;
};

uint64_t unpack_u64(struct unpack *from);
/* To be of just that size. */
void unpack_bytes(struct unpack *from, void *to, size_t size);
/* A string, and how long it is (size may be NULL), which may be NULL; the caller frees it. */
char *unpack_string(struct unpack *from, size_t *size);
