/* SPDX-License-Identifier: MIT */
#include "store/etcd/json.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"

struct cJSON *json_parse(const char *text)
{
	return cJSON_Parse(text);
}

void json_free(struct cJSON *json)
{
	cJSON_Delete(json);
}

void json_free_ptr(struct cJSON **json)
{
	cJSON_Delete(*json);
}

const struct cJSON *json_get(const struct cJSON *object, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(object, name);
}

const char *json_text(const struct cJSON *item)
{
	return cJSON_GetStringValue(item);
}

const char *json_string(const struct cJSON *object, const char *name)
{
	return json_text(json_get(object, name));
}

uint64_t json_u64(const struct cJSON *object, const char *name)
{
	const struct cJSON *item = json_get(object, name);
	uint64_t value = 0;

	if (cJSON_IsNumber(item))
		return item->valuedouble >= 0 && item->valuedouble < 9e15
			       ? (uint64_t)item->valuedouble
			       : 0;
	if (cJSON_IsString(item))
		(void)parse_u64(item->valuestring, 10, INT64_MAX, &value);
	return value;
}

bool json_bool(const struct cJSON *object, const char *name)
{
	return cJSON_IsTrue(json_get(object, name));
}

bool json_is_list(const struct cJSON *object, const char *name)
{
	const struct cJSON *item = json_get(object, name);

	return !item || cJSON_IsArray(item);
}

const struct cJSON *json_first(const struct cJSON *array)
{
	return cJSON_IsArray(array) ? array->child : NULL;
}

const struct cJSON *json_next(const struct cJSON *item)
{
	return item->next;
}

struct cJSON *json_object(void)
{
	return or_die(cJSON_CreateObject());
}

void json_add_string(struct cJSON *object, const char *name, const char *value)
{
	or_die(cJSON_AddStringToObject(object, name, value));
}

void json_add_u64(struct cJSON *object, const char *name, uint64_t value)
{
	char text[24];

	/* cJSON keeps numbers as doubles, which would round a large token. */
	snprintf(text, sizeof(text), "%" PRIu64, value);
	or_die(cJSON_AddRawToObject(object, name, text));
}

struct cJSON *json_add_object(struct cJSON *object, const char *name)
{
	return or_die(cJSON_AddObjectToObject(object, name));
}

char *json_print_free(struct cJSON *object)
{
	char *text = or_die(cJSON_PrintUnformatted(object));

	cJSON_Delete(object);
	return text;
}
