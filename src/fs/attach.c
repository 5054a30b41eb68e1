/* SPDX-License-Identifier: MIT */
#include "fs/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_opt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#ifndef MS_NOSYMFOLLOW
enum { MS_NOSYMFOLLOW = 256 }; /* since Linux 5.10; an older one ignores it */
#endif

enum key { KEY_READ_ONLY, KEY_DATA, KEY_SOURCE, KEY_TYPE };

static const struct flag {
	const char *name;
	unsigned long flag;
	bool is_off;
} flags[] = {
	{"ro", MS_RDONLY, false},
	{"rw", MS_RDONLY, true},
	{"nosuid", MS_NOSUID, false},
	{"suid", MS_NOSUID, true},
	{"nodev", MS_NODEV, false},
	{"dev", MS_NODEV, true},
	{"noexec", MS_NOEXEC, false},
	{"exec", MS_NOEXEC, true},
	{"sync", MS_SYNCHRONOUS, false},
	{"async", MS_SYNCHRONOUS, true},
	{"dirsync", MS_DIRSYNC, false},
	{"noatime", MS_NOATIME, false},
	{"atime", MS_NOATIME, true},
	{"nodiratime", MS_NODIRATIME, false},
	{"diratime", MS_NODIRATIME, true},
	{"relatime", MS_RELATIME, false},
	{"norelatime", MS_RELATIME, true},
	{"strictatime", MS_STRICTATIME, false},
	{"nostrictatime", MS_STRICTATIME, true},
};

/* Without the flags, which are looked up in their own table. */
static const struct fuse_opt table[] = {
	FUSE_OPT_KEY("-r", KEY_READ_ONLY),
	FUSE_OPT_KEY("fsname=", KEY_SOURCE),
	FUSE_OPT_KEY("subtype=", KEY_TYPE),
	FUSE_OPT_KEY("allow_other", KEY_DATA),
	FUSE_OPT_KEY("allow_root", KEY_DATA),
	FUSE_OPT_KEY("default_permissions", KEY_DATA),
	FUSE_OPT_KEY("max_read=", KEY_DATA),
	FUSE_OPT_KEY("blksize=", KEY_DATA),
	FUSE_OPT_KEY("context=", KEY_DATA),
	FUSE_OPT_KEY("fscontext=", KEY_DATA),
	FUSE_OPT_KEY("defcontext=", KEY_DATA),
	FUSE_OPT_KEY("rootcontext=", KEY_DATA),
	FUSE_OPT_END,
};

static void set_flag(struct attachment *attachment, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		if (strcmp(flags[i].name, name) != 0)
			continue;
		if (flags[i].is_off)
			attachment->flags &= ~flags[i].flag;
		else
			attachment->flags |= flags[i].flag;
	}
}

static void set_text(char **to, const char *beginning, const char *argument)
{
	free(*to);
	*to = xasprintf("%s%s", beginning, strchr(argument, '=') + 1);
}

static void add_data(struct attachment *attachment, const char *argument)
{
	cleanup(free_ptr) char *data = take(attachment->data);

	/* libfuse itself turns others than root away then. */
	if (strcmp(argument, "allow_root") == 0)
		argument = "allow_other";
	if (strcmp(argument, "default_permissions") == 0)
		attachment->has_default_permissions = true;
	attachment->data = xasprintf("%s%s%s", data ? data : "", data ? "," : "", argument);
}

/* 1: the argument stays where it is. */
static int on_option(void *user, const char *argument, int key, struct fuse_args *args)
{
	struct attachment *attachment = user;

	if (key == FUSE_OPT_KEY_OPT)
		set_flag(attachment, argument);
	else if (key == KEY_READ_ONLY)
		set_flag(attachment, "ro");
	else if (key == KEY_SOURCE)
		set_text(&attachment->source, "", argument);
	else if (key == KEY_TYPE)
		set_text(&attachment->type, "fuse.", argument);
	else if (key == KEY_DATA)
		add_data(attachment, argument);
	return 1;
}

void attachment_init(struct attachment *attachment, const struct fuse_args *args)
{
	struct fuse_args copy = FUSE_ARGS_INIT(0, NULL);

	*attachment = (struct attachment){.flags = MS_NOSUID | MS_NODEV | MS_NOSYMFOLLOW,
		.source = xstrdup("latchfs"),
		.type = xstrdup("fuse"),
		.place = -1};
	for (int i = 0; i < args->argc; i++)
		fuse_opt_add_arg(&copy, args->argv[i]);
	fuse_opt_parse(&copy, attachment, table, on_option);
	fuse_opt_free_args(&copy);
}

void attachment_fini(struct attachment *attachment)
{
	if (attachment->place >= 0)
		close(attachment->place);
	free(attachment->source);
	free(attachment->type);
	free(attachment->data);
	*attachment = (struct attachment){.place = -1};
}

/* --- the place --- */

/* Where the directory is now; NULL if that can't be told. */
static char *path_of(int place)
{
	cleanup(free_ptr) char *link = xasprintf("/proc/self/fd/%d", place);
	char path[PATH_MAX];
	ssize_t size = readlink(link, path, sizeof(path));

	if (size < 0 || size == (ssize_t)sizeof(path))
		return NULL;
	return xasprintf("%.*s", (int)size, path);
}

bool attachment_is_in_place(const struct attachment *attachment)
{
	cleanup(free_ptr) char *path = path_of(attachment->place);

	if (path && strcmp(path, attachment->where) == 0)
		return true;
	log_error("can't mount at %s: it was moved or replaced meanwhile", attachment->where);
	return false;
}

int attachment_hold(struct attachment *attachment, const char *where)
{
	attachment->where = where;
	attachment->place = open(where, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (attachment->place < 0) {
		int error = -errno;
		log_error("mount point %s: %s", where, strerror(errno));
		return error;
	}
	return attachment_is_in_place(attachment) ? 0 : -ESTALE;
}

/* --- mounting --- */

/* From wherever that is now. */
static void take_away(const struct attachment *attachment)
{
	cleanup(free_ptr) char *path = path_of(attachment->place);

	if (path)
		umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

static int mount_device(const struct attachment *attachment, int device)
{
	const char *data = attachment->data;
	cleanup(free_ptr) char *place = xasprintf("/proc/self/fd/%d", attachment->place);
	cleanup(free_ptr) char *all = xasprintf("fd=%d,rootmode=%o,user_id=%u,group_id=%u%s%s",
		device, (unsigned int)S_IFDIR, getuid(), getgid(), data ? "," : "",
		data ? data : "");

	if (mount(attachment->source, place, attachment->type, attachment->flags, all) < 0)
		return -errno;
	if (attachment_is_in_place(attachment))
		return 0;
	take_away(attachment);
	return -ESTALE;
}

int attachment_mount(const struct attachment *attachment)
{
	if (!attachment_is_in_place(attachment))
		return -ESTALE;
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -ENODEV;
	int error = mount_device(attachment, device);
	if (!error)
		return device;
	close(device);
	if (error != -EPERM && error != -ESTALE)
		log_error("can't mount at %s: %s", attachment->where, strerror(-error));
	return error == -ENODEV ? -EIO : error;
}
