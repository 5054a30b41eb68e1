/* SPDX-License-Identifier: MIT */
/*
 * SOURCE.  The first line is it, the second ETCDCTL_ENDPOINTS, the third prefix=; the last two may
 * be missing.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/util.h"
#include "fuzz.h"
#include "source.h"

static void check(const struct source *source)
{
	const char *prefix = source->prefix;

	require(source->endpoint_count);
	for (size_t i = 0; i < source->endpoint_count; i++) {
		const char *endpoint = source->endpoints[i];
		const char *host = strstr(endpoint, "://") + strlen("://");
		require(begins_with(endpoint, "http://") || begins_with(endpoint, "https://"));
		/* Nothing in it may mean something to libcurl but a host and a port. */
		require(!strpbrk(host, "/?#@ \t\r\n\\") && strrchr(host, ':'));
		for (const char *c = host; *c; c++)
			require(isgraph((unsigned char)*c));
	}
	require(*prefix == '/' && prefix[1] && prefix[strlen(prefix) - 1] != '/');
	require(!strstr(prefix, "//"));
	for (; *prefix; prefix++)
		require(!iscntrl((unsigned char)*prefix));
}

/* What was understood, written out, is understood in the same way. */
static void read_again(const struct source *source)
{
	struct buffer text = {0};
	struct source again = {0};

	for (size_t i = 0; i < source->endpoint_count; i++)
		buffer_addf(&text, "%s%s", i ? "," : "", source->endpoints[i]);
	buffer_add_string(&text, source->prefix);
	require(source_parse(&again, text.data, NULL, false) == 0);
	require(again.endpoint_count == source->endpoint_count);
	for (size_t i = 0; i < source->endpoint_count; i++)
		require(strcmp(again.endpoints[i], source->endpoints[i]) == 0);
	require(strcmp(again.prefix, source->prefix) == 0);
	source_fini(&again);
	buffer_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *rest = text;
	const char *line = fuzz_line(&rest), *elsewhere = fuzz_line(&rest);
	struct source source = {.prefix = xstrdup(fuzz_line(&rest))};

	if (source_parse(&source, line, elsewhere, size % 2) == 0) {
		check(&source);
		/* A comma within the prefix would end an address. */
		if (!strchr(source.prefix, ','))
			read_again(&source);
	}
	source_fini(&source);
	free(text);
	return 0;
}
