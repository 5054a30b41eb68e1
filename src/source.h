/* SPDX-License-Identifier: MIT */
/* What SOURCE says: the addresses of an etcd cluster, and the prefix of the keys. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct source {
	char **endpoints; /* "http://host:port" */
	size_t endpoint_count;
	char *prefix; /* without a slash at its end */
};

/*
 * Reads "http://host:port,...[/prefix]".  A zeroed struct is an empty one; a prefix that stands in
 * it already goes before that of the text.  `elsewhere`, which may be NULL, has the addresses if
 * the text has none.  secure: an address without a scheme is https.
 * Returns 0, or -EINVAL after logging one line that says what is wrong.  The caller calls
 * source_fini in both cases.
 */
int source_parse(struct source *source, const char *text, const char *elsewhere, bool secure);

/* Whether what is asked there goes, in the clear, to anything but this machine itself. */
bool source_is_overheard(const struct source *source);

void source_fini(struct source *source);
