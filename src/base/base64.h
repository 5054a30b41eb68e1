/* SPDX-License-Identifier: MIT */
/* Base64 as etcd's JSON gateway uses it: RFC 4648, section 4, with padding. */
#pragma once

#include <stddef.h>

struct buffer;

/* Appends the encoding of `size` bytes. */
void base64_encode(struct buffer *to, const void *data, size_t size);

/* Appends what `text` stands for.  Returns 0, or -EBADMSG (then nothing was appended). */
int base64_decode(struct buffer *to, const char *text);
