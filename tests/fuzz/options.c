/* SPDX-License-Identifier: MIT */
/* A command line, an argument a line; those that begin with ETCDCTL_ are the environment. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz.h"

enum { MAX_ARGUMENTS = 64 };

static const char *const variables[] = {"ETCDCTL_ENDPOINTS", "ETCDCTL_CACERT", "ETCDCTL_CERT",
	"ETCDCTL_KEY", "ETCDCTL_USER", "ETCDCTL_PASSWORD"};

/* False if it is an argument. */
static bool set_variable(const char *line)
{
	const char *value = strchr(line, '=');

	for (size_t i = 0; value && i < ARRAY_SIZE(variables); i++) {
		if (strlen(variables[i]) == (size_t)(value - line) &&
			begins_with(line, variables[i])) {
			setenv(variables[i], value + 1, 1);
			return true;
		}
	}
	return false;
}

static void check(const struct options *options)
{
	require(options->source && options->mount_point && *options->mount_point == '/');
	require(options->store.endpoint_count && *options->store.prefix == '/');
	require(options->ttl >= 2 && options->ttl <= 86400);
	require(options->timeout >= 1000 && options->timeout <= 3600 * 1000);
	require(strlen(options->host) <= 255);
	for (const char *c = options->host; *c;)
		require(skip_printable(&c));
	require(!options->user || (options->password && !strchr(options->user, ':')));
	require(!options->cert_file == !options->key_file);
}

static void parse(int argc, char **argv)
{
	struct options options;

	if (options_parse(&options, argc, argv, NULL) == 0 && !options.show_help &&
		!options.show_version)
		check(&options);
	options_forget_password(&options);
	require(!options.password && !getenv("ETCDCTL_PASSWORD"));
	options_fini(&options);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *rest = text, *line;
	char name[] = "latchfs", *argv[MAX_ARGUMENTS + 1] = {name};
	int argc = 1;

	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	while ((line = fuzz_line(&rest)) && argc < MAX_ARGUMENTS) {
		if (!set_variable(line))
			argv[argc++] = line;
	}
	parse(argc, argv);
	free(text);
	return 0;
}
