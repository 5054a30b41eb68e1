/* SPDX-License-Identifier: MIT */
#include "commands/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/util.h"

char *mount_read(const char *mount, const char *name)
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

char *mount_value(const char *at)
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

char *mount_member(const char *json, const char *object, const char *name)
{
	cleanup(free_ptr) char *opening = xasprintf("\n\t\"%s\": {", object ? object : "");
	cleanup(free_ptr) char *member = xasprintf("\n%s\"%s\": ", object ? "\t\t" : "\t", name);
	const char *begin = object ? strstr(json, opening) : json;
	const char *end = begin && object ? strstr(begin, "\n\t}") : NULL;
	const char *at = begin ? strstr(begin, member) : NULL;

	return at && (!end || at < end) ? mount_value(at + strlen(member)) : NULL;
}

const char *mount_strerror(int error)
{
	if (error == ENOENT || error == ENOTDIR)
		return "no latchfs is mounted there";
	if (error == ENOTCONN || error == ECONNABORTED)
		return "the latchfs that was mounted there has died; unmount it (fusermount3 -u) "
		       "and mount anew";
	return strerror(error);
}

/* False if the line has fewer columns than the table. */
static bool split(char *line, const char **columns)
{
	for (int i = 0; i < COLUMNS; i++) {
		columns[i] = strsep(&line, "\t");
		if (!columns[i])
			return false;
	}
	return strcmp(columns[COLUMN_STATE], "held") == 0 ||
	       strcmp(columns[COLUMN_STATE], "waiting") == 0;
}

bool mount_next_lock(char **rest, const char **columns)
{
	char *line;

	while ((line = strsep(rest, "\n"))) {
		if (split(line, columns))
			return true;
	}
	return false;
}
