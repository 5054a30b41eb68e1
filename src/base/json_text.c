/* SPDX-License-Identifier: MIT */
#include "base/json_text.h"

#include <inttypes.h>

#include "base/util.h"

static void begin_line(struct json_text *json)
{
	buffer_add_string(&json->text, "\n");
	for (unsigned int i = 0; i < json->depth; i++)
		buffer_add_string(&json->text, "\t");
}

static void add_quoted(struct json_text *json, const char *value)
{
	buffer_add_string(&json->text, "\"");
	while (*value) {
		const char *begin = value;
		if (!skip_printable(&value)) {
			buffer_add_string(&json->text, "?");
			continue;
		}
		if (*begin == '"' || *begin == '\\')
			buffer_add_string(&json->text, "\\");
		buffer_add(&json->text, begin, (size_t)(value - begin));
	}
	buffer_add_string(&json->text, "\"");
}

/* What stands before a value. */
static void begin_member(struct json_text *json, const char *name)
{
	if (json->has_members)
		buffer_add_string(&json->text, ",");
	if (json->depth)
		begin_line(json);
	json->has_members = true;
	if (!name)
		return;
	add_quoted(json, name);
	buffer_add_string(&json->text, ": ");
}

void json_text_open(struct json_text *json, const char *name, char bracket)
{
	begin_member(json, name);
	buffer_add(&json->text, &bracket, 1);
	json->depth++;
	json->has_members = false;
}

void json_text_close(struct json_text *json, char bracket)
{
	json->depth--;
	if (json->has_members)
		begin_line(json);
	buffer_add(&json->text, &bracket, 1);
	json->has_members = true;
}

void json_text_string(struct json_text *json, const char *name, const char *value)
{
	begin_member(json, name);
	if (value)
		add_quoted(json, value);
	else
		buffer_add_string(&json->text, "null");
}

void json_text_number(struct json_text *json, const char *name, int64_t value)
{
	begin_member(json, name);
	buffer_addf(&json->text, "%" PRId64, value);
}

void json_text_seconds(struct json_text *json, const char *name, int64_t milliseconds)
{
	begin_member(json, name);
	buffer_add_seconds(&json->text, milliseconds);
}

void json_text_bool(struct json_text *json, const char *name, bool value)
{
	begin_member(json, name);
	buffer_add_string(&json->text, value ? "true" : "false");
}

char *json_text_take(struct json_text *json)
{
	buffer_add_string(&json->text, "\n");
	return buffer_take(&json->text);
}
