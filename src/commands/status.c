/* SPDX-License-Identifier: MIT */
#include "commands/status.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "commands/files.h"

/* What `latchfs status` exits with; the last one if the mount says that it is not well. */
enum { STATUS_OK, STATUS_UNKNOWN, STATUS_TROUBLE };

/* --- a page of it --- */

/* Prints "NAME  TEXT", with the members named behind it for each %s of the format. */
static void print_line(const char *json, const char *label, const char *object,
	const char *const *names, const char *const *words)
{
	printf("  %-8s", label);
	for (; *words; words++) {
		cleanup(free_ptr) char *value =
			*names ? mount_member(json, object, *names++) : NULL;
		fputs(*words, stdout);
		if (value)
			fputs(value, stdout);
	}
	putchar('\n');
}

static void print_uptime(const char *json)
{
	enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };
	cleanup(free_ptr) char *text = mount_member(json, NULL, "uptime_seconds");
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
	cleanup(free_ptr) char *reachable = mount_member(json, "store", "reachable");
	cleanup(free_ptr) char *listening = mount_member(json, "store", "listening");

	print_line(json, "store", "store", (const char *const[]){"kind", "prefix", NULL},
		(const char *const[]){"", ", keys below ", NULL});
	for (const char *at = json; (at = strstr(at, url)); at++) {
		cleanup(free_ptr) char *value = mount_value(at + strlen(url));
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
	cleanup(free_ptr) char *left = mount_member(json, "lease", "lost_in_seconds");

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

static void print_queues(const char *mount)
{
	cleanup(free_ptr) char *table = mount_read(mount, "locks");
	const char *columns[COLUMNS];
	char *rest = table;
	bool any = false;

	if (!table) {
		printf("  queues  can't be had: %s\n", strerror(errno));
		return;
	}
	while (mount_next_lock(&rest, columns)) {
		if (strcmp(columns[COLUMN_STATE], "held") != 0 ||
			strcmp(columns[COLUMN_WAITERS], "0") == 0)
			continue;
		cleanup(free_ptr) char *name = xstrdup(columns[COLUMN_NAME]);
		copy_printable(name, strlen(name) + 1, columns[COLUMN_NAME]);
		printf("  %-8s%s wait for %s, held by process %s (%s) on %s since %s\n",
			any ? "" : "queues", columns[COLUMN_WAITERS], name, columns[COLUMN_PID],
			columns[COLUMN_COMMAND], columns[COLUMN_HOST], columns[COLUMN_SINCE]);
		any = true;
	}
	if (!any)
		printf("  queues  nobody waits, on any machine\n");
}

/* --- the command line --- */

static int show_status(const char *mount, bool as_json)
{
	cleanup(free_ptr) char *json = mount_read(mount, "status");
	cleanup(free_ptr) char *state = json ? mount_member(json, NULL, "state") : NULL;

	if (!state) {
		log_error("%s: %s", mount, mount_strerror(json ? ENOENT : errno));
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

int status_command(int argc, char **argv)
{
	const char *mount = NULL;
	bool as_json = false, is_wrong = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			as_json = true;
		else if (mount || *argv[i] == '-')
			is_wrong = true;
		else
			mount = argv[i];
	}
	if (!is_wrong && mount)
		return show_status(mount, as_json);
	log_error("usage: latchfs status [--json] MOUNTPOINT");
	return STATUS_UNKNOWN;
}
