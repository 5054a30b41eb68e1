/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzing targets share.  Each target is one program of libFuzzer: it gets bytes that
 * nobody meant for it, and ends by abort() when something that has to be true is not.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* libFuzzer calls it; always returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program unless the condition holds. */
#define require(condition)                                                                         \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fuzz_fail(#condition, __FILE__, __LINE__);                                 \
	} while (0)
_Noreturn void fuzz_fail(const char *what, const char *file, int line);

/* The bytes as a string in memory of just that size; the caller frees it. */
char *fuzz_text(const uint8_t *data, size_t size);

/* Cuts the first line off *text, which is changed; NULL if there is none left. */
char *fuzz_line(char **text);

/* Fails unless the text is one JSON value without control characters, in UTF-8. */
void fuzz_require_json(const char *text);
