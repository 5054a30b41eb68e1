/* SPDX-License-Identifier: MIT */
#include "base/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"

static void close_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static FILE *open_proc(pid_t pid, const char *name)
{
	cleanup(free_ptr) char *path = xasprintf("/proc/%d/%s", (int)pid, name);

	return fopen(path, "re");
}

/* The number behind "label" at the beginning of a line, or fallback. */
static uint64_t read_field(FILE *file, const char *label, int base, uint64_t fallback)
{
	char line[512];
	uint64_t value = fallback;

	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, label, strlen(label)) != 0)
			continue;
		char *text = line + strlen(label) + strspn(line + strlen(label), " \t");
		text[strcspn(text, " \t\n")] = '\0';
		(void)parse_u64(text, base, UINT64_MAX, &value);
		break;
	}
	return value;
}

static void read_command(pid_t pid, char *command, size_t size)
{
	cleanup(close_file) FILE *file = open_proc(pid, "comm");

	if (!file || !fgets(command, (int)size, file)) {
		*command = '\0';
		return;
	}
	command[strcspn(command, "\n")] = '\0';
	/* It goes into records, which are JSON and lines of text. */
	for (char *c = command; *c; c++) {
		if (!isprint((unsigned char)*c))
			*c = '?';
	}
}

void proc_identify(pid_t tid, struct proc_identity *identity)
{
	*identity = (struct proc_identity){.thread = tid};
	if (tid <= 0)
		return;
	cleanup(close_file) FILE *status = open_proc(tid, "status");
	/* Without a descriptor to look: most threads are processes. */
	if (!status && (errno == EMFILE || errno == ENFILE))
		identity->pid = tid;
	if (!status)
		return;
	identity->pid = (pid_t)read_field(status, "Tgid:", 10, (uint64_t)tid);
	read_command(identity->pid, identity->command, sizeof(identity->command));
}

bool proc_is_alive(pid_t pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

bool proc_may_signal(uid_t uid, pid_t pid)
{
	cleanup(close_file) FILE *status = uid ? open_proc(pid, "status") : NULL;
	char line[512];
	unsigned int real, saved;

	while (status && fgets(line, sizeof(line), status)) {
		if (sscanf(line, "Uid: %u %*u %u", &real, &saved) == 2)
			return real == uid || saved == uid;
	}
	return uid == 0;
}

int proc_open(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : (int)fd;
}

uint64_t proc_started(pid_t pid)
{
	enum { FIELDS_BEFORE = 19 }; /* behind the command, which may have any character in it */
	cleanup(close_file) FILE *file = open_proc(pid, "stat");
	char line[1024];
	uint64_t started = 0;

	if (!file || !fgets(line, sizeof(line), file))
		return 0;
	char *rest = NULL, *at = strrchr(line, ')');
	char *field = at ? strtok_r(at + 1, " ", &rest) : NULL;
	for (int i = 0; field && i < FIELDS_BEFORE; i++)
		field = strtok_r(NULL, " ", &rest);
	if (field)
		(void)parse_u64(field, 10, UINT64_MAX, &started);
	return started;
}

pid_t proc_parent(pid_t pid)
{
	cleanup(close_file) FILE *status = open_proc(pid, "status");

	return status ? (pid_t)read_field(status, "PPid:", 10, 0) : 0;
}

/* --- what it is doing --- */

static bool is_readlink(long number)
{
#ifdef SYS_readlink
	if (number == SYS_readlink)
		return true;
#endif
	return number == SYS_readlinkat;
}

enum proc_call proc_call(pid_t thread)
{
	/* The numbers of a kernel of 64 bits are not known to a daemon of 32. */
	bool is_known = sizeof(long) == sizeof(uint64_t);
	cleanup(close_file) FILE *file =
		is_known && thread > 0 ? open_proc(thread, "syscall") : NULL;
	char line[256], *end;

	if (!file || !fgets(line, sizeof(line), file))
		return PROC_CALL_HIDDEN;
	if (begins_with(line, "running"))
		return PROC_CALL_NONE_YET;
	long number = strtol(line, &end, 10);
	return end > line && is_readlink(number) ? PROC_CALL_READLINK : PROC_CALL_OTHER;
}

/* --- control groups --- */

/*
 * Of the hierarchies of version 1, and 2 beside them, systemd's is the one in which services and
 * containers always are, if it is there.  0 is best.
 */
static int rank_hierarchy(const char *controllers, size_t length)
{
	static const char systemd[] = "name=systemd";

	if (length == strlen(systemd) && memcmp(controllers, systemd, length) == 0)
		return 0;
	return length ? 2 : 1;
}

static char *shorten(const char *path)
{
	size_t length = strlen(path);
	bool fits = length <= PROC_MAX_CGROUP;
	cleanup(free_ptr) char *end =
		fits ? xstrdup(path) : xasprintf("...%s", path + length - (PROC_MAX_CGROUP - 3));
	char *text = xzalloc(PROC_MAX_CGROUP + 1);

	copy_printable(text, PROC_MAX_CGROUP + 1, end);
	return text;
}

/* ID:CONTROLLERS:PATH.  NULL if that is the root. */
static char *parse_hierarchy(char *line, int *rank)
{
	char *controllers = strchr(line, ':');
	char *path = controllers ? strchr(++controllers, ':') : NULL;

	if (!path || path[1] != '/')
		return NULL;
	*rank = rank_hierarchy(controllers, (size_t)(path++ - controllers));
	path[strcspn(path, "\n")] = '\0';
	return path[1] ? path : NULL;
}

static char *read_cgroup(pid_t pid)
{
	cleanup(close_file) FILE *file = open_proc(pid, "cgroup");
	cleanup(free_ptr) char *line = NULL, *best = NULL;
	int best_rank = INT_MAX, rank;
	size_t size = 0;

	while (file && getline(&line, &size, file) > 0) {
		const char *path = parse_hierarchy(line, &rank);
		if (!path || rank >= best_rank)
			continue;
		free(best);
		best = shorten(path);
		best_rank = rank;
	}
	return take(best);
}

char *proc_cgroup(struct proc_cgroup *cache, pid_t pid)
{
	if (cache->pid == pid)
		return cache->path;
	free(cache->path);
	*cache = (struct proc_cgroup){.pid = pid, .path = read_cgroup(pid)};
	return cache->path;
}

/* --- mounts --- */

/* mountinfo writes blanks and such as octal escapes. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned int byte;
		if (from[0] == '\\' && sscanf(from + 1, "%3o", &byte) == 1) {
			*to = (char)byte;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

struct mount_line {
	int id;
	dev_t device;
	char *point, *flags; /* within the line that was parsed */
};

static bool parse_mount(char *line, struct mount_line *mount)
{
	unsigned int major, minor;
	int at = 0;

	/* id, parent, major:minor, root, mount point, ... */
	if (sscanf(line, "%d %*d %u:%u %*s %n", &mount->id, &major, &minor, &at) != 3 || !at)
		return false;
	mount->device = makedev(major, minor);
	mount->point = line + at;
	mount->flags = mount->point + strcspn(mount->point, " ");
	if (*mount->flags)
		*mount->flags++ = '\0';
	mount->flags[strcspn(mount->flags, " ")] = '\0';
	unescape(mount->point);
	return true;
}

static bool has_flag(char *flags, const char *wanted)
{
	char *rest = NULL;

	for (char *flag = strtok_r(flags, ",", &rest); flag; flag = strtok_r(NULL, ",", &rest)) {
		if (strcmp(flag, wanted) == 0)
			return true;
	}
	return false;
}

bool proc_find_mount(const char *mount_point, struct proc_mount *mount)
{
	cleanup(close_file) FILE *file = fopen("/proc/self/mountinfo", "re");
	cleanup(free_ptr) char *text = NULL;
	struct mount_line line;
	size_t size = 0;
	bool found = false;

	while (file && getline(&text, &size, file) > 0) {
		if (!parse_mount(text, &line) || strcmp(line.point, mount_point) != 0)
			continue;
		mount->device = line.device;
		mount->follows_no_symlinks = has_flag(line.flags, "nosymfollow");
		found = true;
	}
	return found;
}

bool proc_mount_device(const char *mount_point, dev_t *device)
{
	struct proc_mount mount;

	if (!proc_find_mount(mount_point, &mount))
		return false;
	*device = mount.device;
	return true;
}

/* A mount has another id in every namespace, so it is looked up in the process's own. */
static bool is_on_device(pid_t pid, int mount_id, dev_t device)
{
	cleanup(close_file) FILE *file = open_proc(pid, "mountinfo");
	cleanup(free_ptr) char *line = NULL;
	struct mount_line mount;
	size_t size = 0;

	while (file && getline(&line, &size, file) > 0) {
		if (parse_mount(line, &mount) && mount.id == mount_id)
			return mount.device == device;
	}
	return false;
}

/* One pass over what processes have open. */
struct search {
	dev_t device;
	proc_wanted_fn *wanted;
	proc_open_file_fn *fn;
	void *user;

	/* Of the process it is at: a mount of which it is known whether it is on the device. */
	int mount_id;
	bool is_on_device;
};

static void check_file(struct search *search, pid_t pid, const char *fd)
{
	cleanup(free_ptr) char *name = xasprintf("fdinfo/%s", fd);
	cleanup(close_file) FILE *file = open_proc(pid, name);

	if (!file)
		return;
	/* mnt_id stands before ino. */
	int mount_id = (int)read_field(file, "mnt_id:", 10, 0);
	uint64_t inode = read_field(file, "ino:", 10, 0);
	if (!search->wanted(search->user, inode))
		return;
	if (mount_id != search->mount_id)
		search->is_on_device = is_on_device(pid, mount_id, search->device);
	search->mount_id = mount_id;
	if (search->is_on_device)
		search->fn(search->user, pid, inode);
}

static void check_process(struct search *search, pid_t pid)
{
	cleanup(free_ptr) char *path = xasprintf("/proc/%d/fdinfo", (int)pid);
	cleanup(close_dir) DIR *dir = opendir(path);
	const struct dirent *entry;

	search->mount_id = -1;
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			check_file(search, pid, entry->d_name);
	}
}

void proc_find_open_files(dev_t device, proc_wanted_fn *wanted, proc_open_file_fn *fn, void *user)
{
	struct search search = {.device = device, .wanted = wanted, .fn = fn, .user = user};
	cleanup(close_dir) DIR *dir = opendir("/proc");
	const struct dirent *entry;
	uint64_t pid;

	while (dir && (entry = readdir(dir))) {
		if (parse_u64(entry->d_name, 10, INT32_MAX, &pid) == 0)
			check_process(&search, (pid_t)pid);
	}
}
