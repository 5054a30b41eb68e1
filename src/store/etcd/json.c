/* SPDX-License-Identifier: MIT */
#include "store/etcd/json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

/* Every value but the first stands behind one of these. */
static bool has_too_many_values(const char *text)
{
	size_t count = 0;

	/* There is no need to count where there is no room for so many. */
	if (strnlen(text, JSON_MAX_VALUES) < JSON_MAX_VALUES)
		return false;
	for (; *text && count < JSON_MAX_VALUES; text++)
		count += *text == ',' || *text == ':' || *text == '[';
	return count == JSON_MAX_VALUES;
}

struct cJSON *json_parse(const char *text)
{
	return has_too_many_values(text) ? NULL : cJSON_ParseWithOpts(text, NULL, true);
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

static int read_number(const struct cJSON *item, uint64_t max, uint64_t *value)
{
	if (cJSON_IsString(item))
		return parse_u64(item->valuestring, 10, max, value);
	/* A double has no more digits. */
	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 9e15))
		return -EINVAL;
	*value = (uint64_t)item->valuedouble;
	return (double)*value < item->valuedouble ? -EINVAL : 0;
}

uint64_t json_u64(const struct cJSON *object, const char *name)
{
	uint64_t value = 0;

	return read_number(json_get(object, name), INT64_MAX, &value) < 0 ? 0 : value;
}

static uint64_t expect_number(const struct cJSON *object, const char *name, uint64_t max, bool *bad)
{
	const struct cJSON *item = json_get(object, name);
	uint64_t value = 0;

	if (!item)
		return 0;
	if (read_number(item, max, &value) == 0)
		return value;
	*bad = true;
	return 0;
}

uint64_t json_expect_u64(const struct cJSON *object, const char *name, bool *bad)
{
	return expect_number(object, name, INT64_MAX, bad);
}

uint64_t json_expect_id(const struct cJSON *object, const char *name, bool *bad)
{
	return expect_number(object, name, UINT64_MAX, bad);
}

bool json_expect_bool(const struct cJSON *object, const char *name, bool *bad)
{
	const struct cJSON *item = json_get(object, name);

	*bad = *bad || (item && !cJSON_IsBool(item));
	return cJSON_IsTrue(item);
}

const char *json_expect_string(const struct cJSON *object, const char *name, bool *bad)
{
	const struct cJSON *item = json_get(object, name);

	*bad = *bad || (item && !cJSON_IsString(item));
	return json_text(item);
}

const struct cJSON *json_expect_array(const struct cJSON *object, const char *name, bool *bad)
{
	const struct cJSON *item = json_get(object, name);

	*bad = *bad || (item && !cJSON_IsArray(item));
	return cJSON_IsArray(item) ? item : NULL;
}

const struct cJSON *json_expect_object(const struct cJSON *object, const char *name, bool *bad)
{
	const struct cJSON *item = json_get(object, name);

	*bad = *bad || (item && !cJSON_IsObject(item));
	return cJSON_IsObject(item) ? item : NULL;
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
