/* SPDX-License-Identifier: MIT */
#include "fs/table.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/steps.h"

static const char header[] = "name\tmode\tstate\thost\tpid\tuid\tcommand\tsince\ttoken\twaiters\n";

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

/* The first holds its lock, and if it is shared those do that follow and are shared too. */
static size_t count_holders(const struct store_survey_place *queue, size_t count)
{
	size_t holders = 1;

	while (queue[0].shared && holders < count && queue[holders].shared)
		holders++;
	return holders;
}

static void add_queue(struct buffer *text, const struct store_survey_place *queue, size_t count)
{
	size_t holders = count_holders(queue, count);

	for (size_t i = 0; i < count; i++) {
		add_word(text, queue[i].path);
		add_word(text, queue[i].shared ? "shared" : "exclusive");
		add_word(text, i < holders ? "held" : "waiting");
		add_who(text, &queue[i]);
		buffer_addf(text, "%" PRIu64 "\t%zu\n", queue[i].token, count - holders);
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
