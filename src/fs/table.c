/* SPDX-License-Identifier: MIT */
#include "fs/table.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/ranges.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/steps.h"

static const char header[] =
	"name\tmode\tstate\thost\tpid\tuid\tcommand\tsince\ttoken\twaiters\tranges\n";

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

/* Those that are not in the survey have no key of their own, and are open to everybody. */
static bool may_list(
	struct request *request, const struct store_survey *survey, const char *path, size_t length)
{
	const struct store_directory *directory = find_directory(survey, path, length);

	return !directory || check_mode(request, directory, R_OK | X_OK) == 0;
}

/* Who could not find the name by listing is not to find it here. */
static bool may_see(struct request *request, const struct store_survey *survey, const char *path)
{
	if (request->uid == 0)
		return true;
	if (!may_list(request, survey, "", 0))
		return false;
	for (const char *slash = path; (slash = strchr(slash, '/')); slash++) {
		if (!may_list(request, survey, path, (size_t)(slash - path)))
			return false;
	}
	return true;
}

/* --- the text --- */

/* What separates columns or lines is written as in /proc/mounts, and so is what is not there. */
static void add_word(struct buffer *text, const char *word)
{
	if (!word || !*word)
		buffer_add_string(text, "-");
	for (; word && *word; word++) {
		unsigned char c = (unsigned char)*word;
		if (c <= ' ' || c == '\\' || c == 0x7f)
			buffer_addf(text, "\\%03o", c);
		else
			buffer_add(text, word, 1);
	}
	buffer_add_string(text, "\t");
}

static void add_who(struct buffer *text, const struct store_survey_place *place)
{
	char since[32];
	time_t seconds = (time_t)place->since;
	struct tm tm;

	if (!place->host) {
		buffer_add_string(text, "-\t-\t-\t-\t-\t");
		return;
	}
	strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
	add_word(text, place->host);
	buffer_addf(text, "%d\t%u\t", (int)place->pid, place->uid);
	add_word(text, place->command);
	buffer_addf(text, "%s\t", since);
}

/* What has come before a place in its queue. */
struct before {
	bool any, exclusive; /* at least in part */
	bool any_whole, exclusive_whole;
	struct ranges parts, exclusive_parts; /* all of them as if they were exclusive */
};

static bool is_barred(const struct before *before, const struct store_survey_place *place)
{
	if (!place->ranges.count)
		return place->shared ? before->exclusive : before->any;
	if (before->exclusive_whole || (before->any_whole && !place->shared))
		return true;
	for (size_t i = 0; i < place->ranges.count; i++) {
		struct range range = place->ranges.list[i];
		if (ranges_find_conflict(
			    range.exclusive ? &before->parts : &before->exclusive_parts, range))
			return true;
	}
	return false;
}

static void add_place(struct before *before, const struct store_survey_place *place)
{
	bool is_whole = !place->ranges.count;

	before->any = true;
	before->exclusive = before->exclusive || !place->shared;
	before->any_whole = before->any_whole || is_whole;
	before->exclusive_whole = before->exclusive_whole || (is_whole && !place->shared);
	for (size_t i = 0; i < place->ranges.count; i++) {
		struct range range = place->ranges.list[i];
		if (range.exclusive)
			ranges_set(&before->exclusive_parts, range);
		range.exclusive = true;
		ranges_set(&before->parts, range);
	}
}

/* Whoever has somebody in his way who came before waits.  Returns how many do. */
static size_t find_waiting(const struct store_survey_place *queue, size_t count, bool *waits)
{
	struct before before = {0};
	size_t waiting = 0;

	for (size_t i = 0; i < count; i++) {
		waits[i] = is_barred(&before, &queue[i]);
		waiting += waits[i];
		add_place(&before, &queue[i]);
	}
	ranges_fini(&before.parts);
	ranges_fini(&before.exclusive_parts);
	return waiting;
}

static void add_queue(struct buffer *text, const struct store_survey_place *queue, size_t count)
{
	cleanup(free_ptr) bool *waits = xzalloc(count * sizeof(waits[0]));
	size_t waiting = find_waiting(queue, count, waits);

	for (size_t i = 0; i < count; i++) {
		const struct ranges *ranges = &queue[i].ranges;
		bool is_part = ranges->count && !ranges_are_one(ranges, 0, RANGE_END);
		cleanup(free_ptr) char *part = is_part ? ranges_print(ranges) : NULL;
		add_word(text, queue[i].path);
		add_word(text, queue[i].shared ? "shared" : "exclusive");
		add_word(text, waits[i] ? "waiting" : "held");
		add_who(text, &queue[i]);
		buffer_addf(
			text, "%" PRIu64 "\t%zu\t%s\n", queue[i].token, waiting, part ? part : "-");
	}
}

static char *compose(struct request *request, const struct store_survey *survey)
{
	struct buffer text = {0};
	size_t next;

	buffer_add_string(&text, header);
	for (size_t i = 0; i < survey->place_count; i = next) {
		const char *path = survey->places[i].path;
		for (next = i + 1; next < survey->place_count; next++) {
			if (strcmp(survey->places[next].path, path) != 0)
				break;
		}
		if (may_see(request, survey, path))
			add_queue(&text, &survey->places[i], next - i);
	}
	return buffer_take(&text);
}

/* --- asking --- */

static void answer(struct request *request, int result, const struct store_survey *survey)
{
	if (result) {
		handle_free(take(request->handle));
		reply_error(request, result);
		return;
	}
	char *text = compose(request, survey);
	handle_set_text(request->handle, text, strlen(text));
	reply_open(request, request->handle);
}

static void begin(struct fs *fs);

static void on_surveyed(void *user, int result, const struct store_survey *survey)
{
	struct fs *fs = user;

	while (fs->surveyed) {
		struct request *request = fs->surveyed;
		DL_DELETE2(fs->surveyed, request, pending_prev, pending_next);
		answer(request, result, survey);
	}
	begin(fs);
}

/* One at a time, however many ask: it is the largest of questions, and everybody may ask it. */
static void begin(struct fs *fs)
{
	struct store *store = fs->store;

	fs->surveyed = take(fs->unsurveyed);
	if (fs->surveyed)
		store->ops->survey(store, on_surveyed, fs);
}

void table_open(struct request *request)
{
	struct fs *fs = request->fs;

	DL_APPEND2(fs->unsurveyed, request, pending_prev, pending_next);
	if (!fs->surveyed)
		begin(fs);
}
