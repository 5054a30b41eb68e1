/* SPDX-License-Identifier: MIT */
/*
 * Small helpers that every other file may use.
 *
 * Running out of memory ends the process (the lease then protects everybody), so the x... functions
 * never return NULL; a size that comes from outside has to be bounded before it gets here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The structure of which ptr is the member of that name. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Runs fn(&variable) when the variable goes out of scope. */
#define cleanup(fn) __attribute__((cleanup(fn)))

/* Moves an owned pointer out of a cleanup variable. */
#define take(ptr)                                                                                  \
	({                                                                                         \
		__typeof__(ptr) taken_ = (ptr);                                                    \
		(ptr) = NULL;                                                                      \
		taken_;                                                                            \
	})

/* For `cleanup(free_ptr) char *s`. */
static inline void free_ptr(void *ptr)
{
	free(*(void **)ptr);
}

/* ptr, or the end of the process if it is NULL. */
void *or_die(void *ptr);

/* Zeroed memory; the caller frees it with free(). */
void *xzalloc(size_t size);

/* As realloc(3), for an array. */
void *xrealloc(void *ptr, size_t count, size_t size);

/* A copy of a string; the caller frees it.  NULL gives NULL. */
char *xstrdup(const char *s);

/* As asprintf(3); the caller frees the result. */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool begins_with(const char *s, const char *beginning);

/* Copies at most size - 1 bytes and always terminates; a string that does not fit is cut. */
void copy_string(char *to, size_t size, const char *from);

/* Steps over one character of UTF-8 of a text that is not empty.  False, and over one byte, if it
 * is none, or a control character. */
bool skip_printable(const char **text);

/* As copy_string, but what is no printable UTF-8 becomes '?', and no character is cut in two. */
void copy_printable(char *to, size_t size, const char *from);

/*
 * Reads a whole number in the given base and nothing else, without sign or blanks.
 * Returns 0, or -EINVAL with *value untouched if s is anything else or above max.
 */
int parse_u64(const char *s, int base, uint64_t max, uint64_t *value);
