/* SPDX-License-Identifier: MIT */
/*
 * JSON by cJSON, with the reading that etcd's gateway wants: numbers may be strings, and what is
 * zero, false or empty is missing.
 *
 * There are two ways to read.  For values, which anybody may have written, whatever is missing or
 * of another type than expected is empty.  For etcd's own answers, where a wrong type must not pass
 * for an empty queue, json_expect_...
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cJSON;

/*
 * NULL if the text is not JSON and nothing else, or is nested more than 1000 deep, or has more than
 * JSON_MAX_VALUES values in it: each takes about a hundred bytes of memory, and in the text no more
 * than two.  The caller frees it with json_free.
 */
enum { JSON_MAX_VALUES = 1000 * 1000 };
struct cJSON *json_parse(const char *text);
void json_free(struct cJSON *json);
/* For cleanup(json_free_ptr). */
void json_free_ptr(struct cJSON **json);

/* All of these take NULL or any type for `object`, and give borrowed results. */
const struct cJSON *json_get(const struct cJSON *object, const char *name);
const char *json_string(const struct cJSON *object, const char *name); /* NULL if there is none */
uint64_t json_u64(const struct cJSON *object, const char *name);       /* 0 if there is none */
/* The text of a string itself, as an element of an array; NULL if it is not one. */
const char *json_text(const struct cJSON *item);

/* For what has to be of the right type if it is there: else *bad is set, and the result empty. */
uint64_t json_expect_u64(const struct cJSON *object, const char *name, bool *bad);
/* The same for what is random in all its 64 bits: the names of clusters. */
uint64_t json_expect_id(const struct cJSON *object, const char *name, bool *bad);
bool json_expect_bool(const struct cJSON *object, const char *name, bool *bad);
const char *json_expect_string(const struct cJSON *object, const char *name, bool *bad);
const struct cJSON *json_expect_array(const struct cJSON *object, const char *name, bool *bad);
const struct cJSON *json_expect_object(const struct cJSON *object, const char *name, bool *bad);

/* Walks an array (anything else has no items). */
const struct cJSON *json_first(const struct cJSON *array);
const struct cJSON *json_next(const struct cJSON *item);
#define json_each(item, array)                                                                     \
	for (const struct cJSON *item = json_first(array); item; item = json_next(item))

/* Composing: the object is the caller's until json_print_free. */
struct cJSON *json_object(void);
void json_add_string(struct cJSON *object, const char *name, const char *value);
void json_add_u64(struct cJSON *object, const char *name, uint64_t value);
/* A new object within the object. */
struct cJSON *json_add_object(struct cJSON *object, const char *name);
/* The object as text on one line, which the caller frees; the object is gone. */
char *json_print_free(struct cJSON *object);
