/* SPDX-License-Identifier: MIT */
#include "base/base64.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/buffer.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char letter(uint32_t bits, int shift, bool is_used)
{
	if (!is_used)
		return '=';
	return alphabet[bits >> shift & 63];
}

void base64_encode(struct buffer *to, const void *data, size_t size)
{
	const unsigned char *in = data;

	for (size_t i = 0; i < size; i += 3) {
		size_t left = size - i;
		uint32_t bits = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
				(left > 2 ? in[i + 2] : 0);
		char out[4] = {letter(bits, 18, true), letter(bits, 12, true),
			letter(bits, 6, left > 1), letter(bits, 0, left > 2)};
		buffer_add(to, out, sizeof(out));
	}
}

static int digit(char c)
{
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

int base64_decode(struct buffer *to, const char *text)
{
	size_t length = strlen(text), start = to->size;

	if (length % 4)
		return -EBADMSG;
	for (size_t i = 0; i < length; i += 4) {
		size_t pad = 0;
		if (i + 4 == length)
			pad = text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
		uint32_t bits = 0;
		for (size_t k = 0; k < 4; k++) {
			int d = k < 4 - pad ? digit(text[i + k]) : 0;
			if (d < 0) {
				buffer_resize(to, start);
				return -EBADMSG;
			}
			bits = bits << 6 | (uint32_t)d;
		}
		unsigned char out[3] = {bits >> 16 & 255, bits >> 8 & 255, bits & 255};
		buffer_add(to, out, 3 - pad);
	}
	return 0;
}
