/* SPDX-License-Identifier: MIT */
#include "fs/table.h"

#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/lines.h"
#include "fs/shared.h"
#include "fs/steps.h"
#include "store/survey.h"

enum { SLICE_MS = 4, MAX_GROUPS = 256 };

/* Those who may see the same, and what they do. */
struct view {
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	int group_count;
	struct shared_text *text; /* NULL: not composed yet */
	struct buffer part;       /* of the text, if not all of it is to be seen */
	bool is_part;
	size_t next; /* lock */
	/* Of the directory that the last lock was in. */
	const char *directory;
	size_t directory_size;
	bool is_seen;
	struct view *next_view;
};

struct table {
	struct fs *fs;
	struct request *requests; /* that it is for */
	struct store_survey *survey;
	struct lines lines;
	struct shared_text *all; /* NULL: not composed yet */
	struct view *views;
	struct loop_task task;
};

/* --- what the caller may see --- */

static const struct store_directory *find_directory(
	const struct store_survey *survey, const char *path, size_t length)
{
	size_t low = 0, high = survey->directory_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const char *its_path = survey->directories[middle].path;
		int order = strncmp(its_path, path, length);
		if (!order)
			order = its_path[length] != '\0';
		if (!order)
			return &survey->directories[middle].directory;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static bool is_in_group(const struct view *view, gid_t gid)
{
	bool found = view->gid == gid;

	for (int i = 0; i < view->group_count && !found; i++)
		found = view->groups[i] == gid;
	return found;
}

/* Those that are not in the survey have no key of their own, and are open to everybody. */
static bool may_list(
	const struct view *view, const struct store_survey *survey, const char *path, size_t length)
{
	const struct store_directory *directory = find_directory(survey, path, length);

	return !directory ||
	       mode_allows(directory, view->uid, is_in_group(view, directory->gid), R_OK | X_OK);
}

/* Whoever could not find the name by listing is not to find it here. */
static bool may_see(
	const struct view *view, const struct store_survey *survey, const char *path, size_t length)
{
	if (!may_list(view, survey, "", 0))
		return false;
	for (size_t i = 1; i <= length; i++) {
		if ((i == length || path[i] == '/') && !may_list(view, survey, path, i))
			return false;
	}
	return true;
}

/* Those of one directory are seen or not together, and mostly come in a row. */
static bool sees(struct view *view, const struct store_survey *survey, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;

	if (view->uid == 0)
		return true;
	if (view->directory && view->directory_size == size &&
		memcmp(view->directory, path, size) == 0)
		return view->is_seen;
	view->directory = path;
	view->directory_size = size;
	view->is_seen = may_see(view, survey, path, size);
	return view->is_seen;
}

/* --- views --- */

/* That of the request's caller, which may be new. */
static struct view *view_of(struct table *table, const struct request *request)
{
	gid_t groups[MAX_GROUPS];
	int count = request_groups(request, groups, MAX_GROUPS);
	size_t size = (size_t)count * sizeof(groups[0]);
	struct view *view;

	LL_FOREACH2(table->views, view, next_view)
	{
		if (view->uid == request->uid && view->gid == request->gid &&
			view->group_count == count && memcmp(view->groups, groups, size) == 0)
			return view;
	}
	view = xzalloc(sizeof(*view));
	view->uid = request->uid;
	view->gid = request->gid;
	view->group_count = count;
	view->groups = xzalloc(size);
	memcpy(view->groups, groups, size);
	LL_PREPEND2(table->views, view, next_view);
	return view;
}

static void free_views(struct table *table)
{
	struct view *view, *next;

	LL_FOREACH_SAFE2(table->views, view, next, next_view) {
		shared_text_unref(view->text);
		buffer_fini(&view->part);
		free(view->groups);
		free(view);
	}
}

static void look_at_next(const struct table *table, struct view *view)
{
	const struct lines *lines = &table->lines;
	const struct lines_lock *lock = &lines->locks[view->next++];
	size_t end = view->next < lines->lock_count ? lock[1].at : table->all->size;
	bool is_seen = sees(view, table->survey, lock->path);

	if (!is_seen && !view->is_part) {
		view->is_part = true;
		buffer_add(&view->part, table->all->data, lock->at);
	} else if (is_seen && view->is_part) {
		buffer_add(&view->part, table->all->data + lock->at, end - lock->at);
	}
}

/* True when it is done. */
static bool compose_view(struct table *table, struct view *view, int64_t until)
{
	while (!view->text && view->next < table->lines.lock_count) {
		look_at_next(table, view);
		if (loop_clock() >= until)
			return false;
	}
	if (!view->text && view->is_part) {
		size_t size = view->part.size;
		view->text = shared_text_new(table->fs, buffer_take(&view->part), size);
	} else if (!view->text) {
		view->text = shared_text_ref(table->all);
	}
	return true;
}

/* --- answering --- */

static void begin(struct fs *fs);

static struct request *take_request(struct table *table)
{
	struct request *request = table->requests;

	DL_DELETE2(table->requests, request, pending_prev, pending_next);
	return request;
}

static void table_free(struct table *table)
{
	loop_undefer(table->fs->loop, &table->task);
	if (table->all)
		table->all->is_needed = false;
	shared_text_unref(table->all);
	free_views(table);
	lines_fini(&table->lines);
	if (table->survey)
		survey_free(table->survey);
	free(table);
}

/* The next one is for those who have asked meanwhile. */
static void end(struct table *table)
{
	struct fs *fs = table->fs;

	fs->table = NULL;
	table_free(table);
	begin(fs);
}

static void fail(struct table *table, int error)
{
	while (table->requests) {
		struct request *request = take_request(table);
		handle_free(take(request->handle));
		reply_error(request, error);
	}
	end(table);
}

/* True when all are answered. */
static bool answer_until(struct table *table, int64_t until)
{
	while (table->requests) {
		struct view *view = view_of(table, table->requests);
		if (!compose_view(table, view, until))
			return false;
		struct request *request = take_request(table);
		request->handle->shared = shared_text_ref(view->text);
		reply_open(request, request->handle);
		if (loop_clock() >= until)
			return !table->requests;
	}
	return true;
}

static void on_slice(struct loop_task *task)
{
	struct table *table = container_of(task, struct table, task);
	int64_t until = loop_clock() + SLICE_MS;
	struct buffer *text = &table->lines.text;
	int result = table->all ? 1 : lines_compose(&table->lines, until);

	if (result < 0) {
		fail(table, result);
		return;
	}
	if (result && !table->all) {
		size_t size = text->size;
		table->all = shared_text_new(table->fs, buffer_take(text), size);
		table->all->is_needed = true;
	}
	if (result && answer_until(table, until))
		end(table);
	else
		loop_defer(table->fs->loop, task);
}

/* --- asking --- */

static void on_surveyed(void *user, int result, struct store_survey *survey)
{
	struct table *table = user;

	if (result) {
		fail(table, result);
		return;
	}
	table->survey = survey;
	lines_init(&table->lines, survey);
	loop_defer(table->fs->loop, &table->task);
}

/* One at a time, however many ask: it is the largest of questions, and everybody may ask it. */
static void begin(struct fs *fs)
{
	struct store *store = fs->store;

	if (!fs->unsurveyed)
		return;
	struct table *table = xzalloc(sizeof(*table));
	table->fs = fs;
	table->task.fn = on_slice;
	table->requests = take(fs->unsurveyed);
	fs->table = table;
	store->ops->survey(store, on_surveyed, table);
}

void table_open(struct request *request)
{
	struct fs *fs = request->fs;

	DL_APPEND2(fs->unsurveyed, request, pending_prev, pending_next);
	if (!fs->table)
		begin(fs);
}

void table_fini(struct fs *fs)
{
	if (fs->table)
		table_free(take(fs->table));
}
