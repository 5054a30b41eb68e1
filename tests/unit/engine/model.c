/* SPDX-License-Identifier: MIT */
/* The lock store in memory that test_lock.c runs engines on. */
#include "model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/util.h"

void model_init(struct model *model)
{
	*model = (struct model){.revision = 1};
}

void model_fini(struct model *model)
{
	while (model->places) {
		struct model_place *place = model->places;
		DL_DELETE(model->places, place);
		free(place);
	}
	for (struct model_watch *watch = model->watches; watch; watch = watch->next) {
		while (watch->events)
			free(model_watch_next(watch));
	}
}

void model_watch(struct model *model, struct model_watch *watch)
{
	watch->events = NULL;
	LL_PREPEND(model->watches, watch);
}

struct model_event *model_watch_next(struct model_watch *watch)
{
	struct model_event *event = watch->events;

	if (event)
		DL_DELETE(watch->events, event);
	return event;
}

unsigned int model_new_session(struct model *model)
{
	assert(model->sessions + 1 < MODEL_MAX_SESSIONS);
	return ++model->sessions;
}

void model_end_session(struct model *model, unsigned int session)
{
	struct model_place *place, *next;

	model->ended[session] = true;
	DL_FOREACH_SAFE(model->places, place, next) {
		if (place->session == session)
			model_delete(model, place);
	}
}

struct model_place *model_find(const struct model *model, const char *id)
{
	struct model_place *place;

	DL_FOREACH(model->places, place) {
		if (strcmp(place->id, id) == 0)
			return place;
	}
	return NULL;
}

struct model_place *model_put(
	struct model *model, const char *id, struct part part, unsigned int session)
{
	struct model_place *place = model_find(model, id);

	assert(!model->ended[session]);
	model->revision++;
	if (place)
		return place;
	place = xzalloc(sizeof(*place));
	place->token = model->revision;
	place->part = place->first = part;
	place->changed = model->revision;
	place->session = session;
	copy_string(place->id, sizeof(place->id), id);
	DL_APPEND(model->places, place);
	return place;
}

static void tell(struct model *model, const struct model_place *place, bool shrunk, bool more)
{
	for (struct model_watch *watch = model->watches; watch; watch = watch->next) {
		struct model_event *event = xzalloc(sizeof(*event));
		event->revision = model->revision;
		event->shrunk = shrunk;
		event->more = more;
		copy_string(event->id, sizeof(event->id), place->id);
		DL_APPEND(watch->events, event);
	}
}

void model_shrink(struct model *model, struct model_place *place, struct part part)
{
	place->part = part;
	place->changed = ++model->revision;
	model->revision++;
	tell(model, place, true, false);
}

static void delete_place(struct model *model, struct model_place *place, bool more)
{
	DL_DELETE(model->places, place);
	tell(model, place, false, more);
	free(place);
}

void model_delete(struct model *model, struct model_place *place)
{
	model->revision++;
	delete_place(model, place, false);
}

static struct model_place *first_by_id(const struct model *model)
{
	struct model_place *place, *first = model->places;

	DL_FOREACH(model->places, place) {
		if (strcmp(place->id, first->id) < 0)
			first = place;
	}
	return first;
}

void model_delete_all(struct model *model)
{
	model->revision++;
	while (model->places)
		delete_place(model, first_by_id(model), model->places->next != NULL);
}

bool model_is_free(const struct model *model, struct part part, const char *except)
{
	const struct model_place *place;

	DL_FOREACH(model->places, place) {
		if (strcmp(place->id, except) != 0 && model_conflict(part, place->part))
			return false;
	}
	return true;
}

void model_read(const struct model *model, uint64_t known, struct model_snapshot *snapshot)
{
	const struct model_place *place;

	snapshot->revision = model->revision;
	snapshot->count = 0;
	DL_FOREACH(model->places, place) {
		if (place->token <= known)
			continue;
		assert(snapshot->count < MODEL_MAX_PLACES);
		snapshot->places[snapshot->count++] = *place;
	}
}
