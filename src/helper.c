/* SPDX-License-Identifier: MIT */
#include "helper.h"

#include <string.h>

#include "base/util.h"

static bool is_helper(const char *program)
{
	const char *slash = strrchr(program, '/');

	return begins_with(slash ? slash + 1 : program, "mount.");
}

/* Be lenient, pretend, write no mtab, tell more: single letters, or several in a word. */
static bool are_flags(const char *word)
{
	return word[0] == '-' && word[1] && strspn(word + 1, "sfnv") == strlen(word + 1);
}

bool helper_arguments(int *argc, char **argv)
{
	bool pretend = false;
	int kept = 1;

	if (*argc < 1 || !is_helper(argv[0]))
		return false;
	for (int i = 1; i < *argc; i++) {
		if (are_flags(argv[i]))
			pretend = pretend || strchr(argv[i], 'f');
		else if (strcmp(argv[i], "-t") == 0 && i + 1 < *argc)
			i++; /* the type, which our name says */
		else {
			argv[kept++] = argv[i];
			if (strcmp(argv[i], "-o") == 0 && i + 1 < *argc)
				argv[kept++] = argv[++i];
		}
	}
	argv[kept] = NULL;
	*argc = kept;
	return pretend;
}
