/* SPDX-License-Identifier: MIT */
/*
 * Composing JSON to be read by people and programs: one member a line, indented with tabs.
 *
 * A zeroed struct is an empty text.  The one rule: what is opened has to be closed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

struct json_text {
	struct buffer text;
	unsigned int depth;
	bool has_members; /* what is open */
};

/* All but the outermost and the elements of arrays have names; for those it is NULL. */
void json_text_open(struct json_text *json, const char *name, char bracket); /* '{' or '[' */
void json_text_close(struct json_text *json, char bracket);
/* What is no printable UTF-8 becomes '?'.  A NULL value is null. */
void json_text_string(struct json_text *json, const char *name, const char *value);
void json_text_number(struct json_text *json, const char *name, int64_t value);
/* Milliseconds, as seconds with three digits behind the point. */
void json_text_seconds(struct json_text *json, const char *name, int64_t milliseconds);
void json_text_bool(struct json_text *json, const char *name, bool value);

/* The text with a line's end behind it, for the caller to free. */
char *json_text_take(struct json_text *json);
