/* SPDX-License-Identifier: MIT */
#include "store/survey.h"

#include <string.h>

#include "base/arena.h"
#include "base/sorting.h"
#include "base/util.h"
#include "event/loop.h"

enum {
	MAX_ENTRIES = 500 * 1000,
	MAX_MEMORY = 256 * 1024 * 1024, /* bytes of strings and ranges */
	SORTED_AT_ONCE = 1000,          /* comparisons, before the clock is read */
};

struct survey {
	struct store_survey found;
	struct arena memory; /* of strings and ranges */
	size_t place_room, directory_room;
	bool is_sorting;
	struct sorting places, directories;
};

static struct survey *survey_of(struct store_survey *found)
{
	return container_of(found, struct survey, found);
}

struct store_survey *survey_new(void)
{
	struct survey *survey = xzalloc(sizeof(*survey));

	return &survey->found;
}

void survey_free(struct store_survey *found)
{
	struct survey *survey = survey_of(found);

	free(sorting_take(&survey->places));
	free(sorting_take(&survey->directories));
	free(found->places);
	free(found->directories);
	arena_fini(&survey->memory);
	free(survey);
}

static void *grow(void *list, size_t count, size_t *room, size_t size)
{
	if (count < *room)
		return list;
	*room = *room ? 2 * *room : 64;
	return xrealloc(list, *room, size);
}

/* Most come with others of the same lock. */
static const char *keep_path(struct survey *survey, const char *path)
{
	const struct store_survey *found = &survey->found;
	size_t count = found->place_count;

	if (count && strcmp(found->places[count - 1].path, path) == 0)
		return found->places[count - 1].path;
	return arena_strdup(&survey->memory, path);
}

void survey_add_place(struct store_survey *found, const struct store_survey_place *place)
{
	struct survey *survey = survey_of(found);
	struct store_survey_place added = *place;
	size_t ranges_size = place->ranges.count * sizeof(place->ranges.list[0]);

	added.path = keep_path(survey, place->path);
	added.host = arena_strdup(&survey->memory, place->host);
	added.command = arena_strdup(&survey->memory, place->command);
	if (ranges_size)
		added.ranges.list = arena_copy(&survey->memory, place->ranges.list, ranges_size);
	found->places = grow(found->places, found->place_count, &survey->place_room, sizeof(added));
	found->places[found->place_count++] = added;
}

void survey_add_directory(
	struct store_survey *found, const char *path, const struct store_directory *directory)
{
	struct survey *survey = survey_of(found);
	struct store_survey_directory added = {
		.path = arena_strdup(&survey->memory, path), .directory = *directory};

	found->directories = grow(
		found->directories, found->directory_count, &survey->directory_room, sizeof(added));
	found->directories[found->directory_count++] = added;
}

bool survey_is_too_large(struct store_survey *found)
{
	return found->place_count + found->directory_count > MAX_ENTRIES ||
	       survey_of(found)->memory.size > MAX_MEMORY;
}

/* --- sorting --- */

static int by_path_and_token(const void *a, const void *b)
{
	const struct store_survey_place *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order ? order : (x->token > y->token) - (x->token < y->token);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct store_survey_directory *)a)->path,
		((const struct store_survey_directory *)b)->path);
}

static bool sort_until(struct sorting *sorting, int64_t until)
{
	while (!sorting_step(sorting, SORTED_AT_ONCE)) {
		if (loop_clock() >= until)
			return false;
	}
	return true;
}

bool survey_sort(struct store_survey *found, int64_t until)
{
	struct survey *survey = survey_of(found);

	if (!survey->is_sorting) {
		survey->is_sorting = true;
		sorting_init(&survey->places, take(found->places), found->place_count,
			sizeof(found->places[0]), by_path_and_token);
		sorting_init(&survey->directories, take(found->directories), found->directory_count,
			sizeof(found->directories[0]), by_path);
	}
	if (!sort_until(&survey->places, until) || !sort_until(&survey->directories, until))
		return false;
	found->places = sorting_take(&survey->places);
	found->directories = sorting_take(&survey->directories);
	return true;
}
