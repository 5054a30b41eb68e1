/* SPDX-License-Identifier: MIT */
#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/util.h"

/* What `latchfs status` exits with; the last one if the mount says that it is not well. */
enum { STATUS_OK, STATUS_UNKNOWN, STATUS_TROUBLE };

/* --- the mount's files --- */

/* NULL with errno set; the caller frees it. */
static char *read_file(const char *mount, const char *name)
{
	cleanup(free_ptr) char *path = xasprintf("%s/.latchfs/%s", mount, name);
	struct buffer text = {0};
	char piece[64 * 1024];
	ssize_t size = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && (size = read(fd, piece, sizeof(piece))) > 0)
		buffer_add(&text, piece, (size_t)size);
	int error = errno;
	if (fd >= 0)
		close(fd);
	if (size == 0)
		return buffer_take(&text);
	buffer_fini(&text);
	errno = error;
	return NULL;
}

/* The value that begins there, without quotes.  The caller frees it. */
static char *value_at(const char *at)
{
	struct buffer value = {0};

	if (*at != '"')
		return xasprintf("%.*s", (int)strcspn(at, ",\n"), at);
	for (at++; *at && *at != '"'; at++) {
		at += *at == '\\' && at[1];
		buffer_add(&value, at, 1);
	}
	return buffer_take(&value);
}

/*
 * A member of the object, or of one in it, or NULL; the caller frees it.  The file has one member a
 * line, and a tab in front for each object that it is in.
 */
static char *get(const char *json, const char *object, const char *name)
{
	cleanup(free_ptr) char *opening = xasprintf("\n\t\"%s\": {", object ? object : "");
	cleanup(free_ptr) char *member = xasprintf("\n%s\"%s\": ", object ? "\t\t" : "\t", name);
	const char *begin = object ? strstr(json, opening) : json;
	const char *end = begin && object ? strstr(begin, "\n\t}") : NULL;
	const char *at = begin ? strstr(begin, member) : NULL;

	return at && (!end || at < end) ? value_at(at + strlen(member)) : NULL;
}

/* --- a page of it --- */

/* Prints "NAME  TEXT", with the members named behind it for each %s of the format. */
static void print_line(const char *json, const char *label, const char *object,
	const char *const *names, const char *const *words)
{
	printf("  %-8s", label);
	for (; *words; words++) {
		cleanup(free_ptr) char *value = *names ? get(json, object, *names++) : NULL;
		fputs(*words, stdout);
		if (value)
			fputs(value, stdout);
	}
	putchar('\n');
}

static void print_uptime(const char *json)
{
	enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };
	cleanup(free_ptr) char *text = get(json, NULL, "uptime_seconds");
	long seconds = text ? strtol(text, NULL, 10) : 0;

	if (seconds >= DAY)
		printf("  runs    for %ld d %ld h\n", seconds / DAY, seconds % DAY / HOUR);
	else if (seconds >= HOUR)
		printf("  runs    for %ld h %ld min\n", seconds / HOUR, seconds % HOUR / MINUTE);
	else
		printf("  runs    for %ld min %ld s\n", seconds / MINUTE, seconds % MINUTE);
}

static void print_store(const char *json)
{
	static const char url[] = "\n\t\t\t\t\"url\": ", answers[] = "\n\t\t\t\t\"answers\": ";
	cleanup(free_ptr) char *reachable = get(json, "store", "reachable");
	cleanup(free_ptr) char *listening = get(json, "store", "listening");

	print_line(json, "store", "store", (const char *const[]){"kind", "prefix", NULL},
		(const char *const[]){"", ", keys below ", NULL});
	for (const char *at = json; (at = strstr(at, url)); at++) {
		cleanup(free_ptr) char *value = value_at(at + strlen(url));
		const char *flag = strstr(at, answers);
		bool is_up = flag && begins_with(flag + strlen(answers), "true");
		printf("          %s %s\n", value, is_up ? "answers" : "does not answer");
	}
	if (reachable && strcmp(reachable, "true") != 0)
		print_line(json, "", "store", (const char *const[]){"last_error", NULL},
			(const char *const[]){"why: ", NULL});
	else if (listening && strcmp(listening, "true") != 0)
		printf("          does not tell of releases: grants may be late\n");
}

static void print_lease(const char *json)
{
	cleanup(free_ptr) char *left = get(json, "lease", "lost_in_seconds");

	if (left)
		print_line(json, "lease", "lease",
			(const char *const[]){
				"id", "state", "lost_in_seconds", "ttl_seconds", NULL},
			(const char *const[]){
				"", ", ", "; if not renewed, lost in ", " of ", " s", NULL});
	else
		print_line(json, "lease", "lease", (const char *const[]){"state", NULL},
			(const char *const[]){"", NULL});
}

static void print_page(const char *mount, const char *json, const char *state)
{
	printf("%s: %s\n", mount, state);
	print_line(json, "daemon", NULL, (const char *const[]){"version", "pid", "node", NULL},
		(const char *const[]){"latchfs ", ", process ", ", calls itself ", NULL});
	print_uptime(json);
	print_store(json);
	print_lease(json);
	print_line(json, "locks", "counts", (const char *const[]){"held", "waiting", "lost", NULL},
		(const char *const[]){"", " held, ", " waited for, ", " lost", NULL});
	print_line(json, "files", "counts", (const char *const[]){"handles", "content_bytes", NULL},
		(const char *const[]){"", " open, ", " bytes in them", NULL});
}

/* --- who holds what others wait for --- */

enum { COLUMNS = 10 }; /* and more, of no interest */
enum { NAME, MODE, STATE, HOST, PID, UID, COMMAND, SINCE, TOKEN, WAITERS };

/* Takes a line apart; false if it is not one of the table. */
static bool split(char *line, char **columns)
{
	for (int i = 0; i < COLUMNS; i++) {
		columns[i] = strsep(&line, "\t");
		if (!columns[i])
			return false;
	}
	return true;
}

static void print_queues(const char *mount)
{
	cleanup(free_ptr) char *table = read_file(mount, "locks");
	char *columns[COLUMNS], *rest = table, *line;
	bool any = false;

	if (!table) {
		printf("  queues  can't be had: %s\n", strerror(errno));
		return;
	}
	while ((line = strsep(&rest, "\n"))) {
		if (!split(line, columns) || strcmp(columns[STATE], "held") != 0 ||
			strcmp(columns[WAITERS], "0") == 0)
			continue;
		cleanup(free_ptr) char *name = xstrdup(columns[NAME]);
		copy_printable(name, strlen(name) + 1, columns[NAME]);
		printf("  %-8s%s wait for %s, held by process %s (%s) on %s since %s\n",
			any ? "" : "queues", columns[WAITERS], name, columns[PID], columns[COMMAND],
			columns[HOST], columns[SINCE]);
		any = true;
	}
	if (!any)
		printf("  queues  nobody waits, on any machine\n");
}

/* --- the command line --- */

static int show_status(const char *mount, bool as_json)
{
	cleanup(free_ptr) char *json = read_file(mount, "status");
	cleanup(free_ptr) char *state = json ? get(json, NULL, "state") : NULL;

	if (!state) {
		const char *why = json || errno == ENOENT || errno == ENOTDIR
					  ? "no latchfs is mounted there"
					  : strerror(errno);
		log_error("%s: %s", mount, why);
		return STATUS_UNKNOWN;
	}
	if (as_json) {
		fputs(json, stdout);
	} else {
		print_page(mount, json, state);
		print_queues(mount);
	}
	return strcmp(state, "ok") == 0 ? STATUS_OK : STATUS_TROUBLE;
}

bool command_run(int argc, char **argv, int *status)
{
	const char *mount = NULL;
	bool as_json = false, is_wrong = false;

	if (argc < 2 || strcmp(argv[1], "status") != 0)
		return false;
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			as_json = true;
		else if (mount || *argv[i] == '-')
			is_wrong = true;
		else
			mount = argv[i];
	}
	if (is_wrong || !mount) {
		log_error("usage: latchfs status [--json] MOUNTPOINT");
		*status = STATUS_UNKNOWN;
	} else {
		*status = show_status(mount, as_json);
	}
	return true;
}
