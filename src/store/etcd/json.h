/* SPDX-License-Identifier: MIT */
/*
 * JSON by cJSON, with the reading that etcd's gateway wants: numbers may be strings, and whatever
 * is missing or of another type than expected reads as empty, never as a crash.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cJSON;

/* NULL if the text is not JSON.  The caller frees it with json_free. */
struct cJSON *json_parse(const char *text);
void json_free(struct cJSON *json);
/* For cleanup(json_free_ptr). */
void json_free_ptr(struct cJSON **json);

/* All of these take NULL or any type for `object`, and give borrowed results. */
const struct cJSON *json_get(const struct cJSON *object, const char *name);
const char *json_string(const struct cJSON *object, const char *name); /* NULL if there is none */
uint64_t json_u64(const struct cJSON *object, const char *name);       /* 0 if there is none */
bool json_bool(const struct cJSON *object, const char *name);
/* The text of a string itself, as an element of an array; NULL if it is not one. */
const char *json_text(const struct cJSON *item);

/* False if there is something of that name that is no array: it must not pass for an empty one. */
bool json_is_list(const struct cJSON *object, const char *name);

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
