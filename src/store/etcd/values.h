/* SPDX-License-Identifier: MIT */
/* What our keys hold: records of places, and directories, as JSON. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct record;
struct store_directory;

/* The value of a place's key; the caller frees it. */
char *value_of_record(const struct record *record, bool shared);

/* Reads such a value; one that is not ours, or not JSON, gives a record with known = false.  The
 * caller calls record_fini. */
void value_parse_record(const char *value, struct record *record);

/*
 * The same for the place of that id, as far as it may be so: only of some ids there are ranges, and
 * then there always are, or is the lock a symbolic link.  True if nothing of it is exclusive.
 */
bool value_parse_place(const char *id, const char *value, struct record *record);

/* A place as JSON for people: token and mode before what the record says; the caller frees it. */
char *value_describe(const struct record *record, bool shared, uint64_t token);

/* The value of a directory's key; `id` tells two attempts to make it apart, and may be NULL. */
char *value_of_directory(const struct store_directory *directory, const char *id);

/* Reads such a value; what is missing or senseless is as in a directory that has no key: mode
 * 01777, owned by root, at the epoch.  value may be NULL. */
void value_parse_directory(const char *value, struct store_directory *directory);

/* True if the value has that id. */
bool value_directory_has_id(const char *value, const char *id);
