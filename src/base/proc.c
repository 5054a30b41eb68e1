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
#include <uthash.h>

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

bool proc_users(pid_t pid, struct proc_users *users)
{
	cleanup(close_file) FILE *status = open_proc(pid, "status");
	char line[512];
	unsigned int real, saved;

	while (status && fgets(line, sizeof(line), status)) {
		if (sscanf(line, "Uid: %u %*u %u", &real, &saved) != 2)
			continue;
		*users = (struct proc_users){.real = real, .saved = saved};
		return true;
	}
	return false;
}

bool proc_users_may_be_signalled(const struct proc_users *users, uid_t uid)
{
	return uid == 0 || users->real == uid || users->saved == uid;
}

bool proc_may_signal(uid_t uid, pid_t pid)
{
	struct proc_users users;

	return uid == 0 || (proc_users(pid, &users) && proc_users_may_be_signalled(&users, uid));
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

/* --- open files --- */

/* The mounts of the device in a mount namespace, each of which has a number there. */
struct namespace
{
	uint64_t number;
	int *mounts; /* sorted */
	size_t count;
	UT_hash_handle hh;
};

struct proc_walk {
	dev_t device;
	struct namespace *namespaces; /* that were seen so far */
	struct namespace unnamed;     /* that of a process into which we may not look so far */
};

struct proc_walk *proc_walk_new(dev_t device)
{
	struct proc_walk *walk = xzalloc(sizeof(*walk));

	walk->device = device;
	return walk;
}

static int by_number(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* Any user can have a hundred thousand in a namespace of his own: they are read once. */
static void read_mounts(pid_t pid, dev_t device, struct namespace *namespace)
{
	cleanup(close_file) FILE *file = open_proc(pid, "mountinfo");
	cleanup(free_ptr) char *text = NULL;
	size_t size = 0, room = 0;
	struct mount_line line;

	free(take(namespace->mounts));
	namespace->count = 0;
	while (file && getline(&text, &size, file) > 0) {
		if (!parse_mount(text, &line) || line.device != device)
			continue;
		if (namespace->count == room) {
			room = room ? 2 * room : 4;
			namespace->mounts =
				xrealloc(namespace->mounts, room, sizeof(namespace->mounts[0]));
		}
		namespace->mounts[namespace->count++] = line.id;
	}
	if (namespace->count)
		qsort(namespace->mounts, namespace->count, sizeof(namespace->mounts[0]), by_number);
}

/* 0 if we may not know. */
static uint64_t namespace_of(pid_t pid)
{
	static const char before[] = "mnt:[";
	cleanup(free_ptr) char *path = xasprintf("/proc/%d/ns/mnt", (int)pid);
	char text[64];
	uint64_t number = 0;
	ssize_t size = readlink(path, text, sizeof(text) - 1);

	if (size < 0)
		return 0;
	text[size] = '\0';
	text[strcspn(text, "]")] = '\0';
	if (begins_with(text, before))
		(void)parse_u64(text + strlen(before), 10, UINT64_MAX, &number);
	return number;
}

static const struct namespace *find_namespace(struct proc_walk *walk, pid_t pid)
{
	uint64_t number = namespace_of(pid);
	struct namespace *namespace;

	if (!number) {
		read_mounts(pid, walk->device, &walk->unnamed);
		return &walk->unnamed;
	}
	HASH_FIND(hh, walk->namespaces, &number, sizeof(number), namespace);
	if (namespace)
		return namespace;
	namespace = xzalloc(sizeof(*namespace));
	namespace->number = number;
	read_mounts(pid, walk->device, namespace);
	HASH_ADD(hh, walk->namespaces, number, sizeof(number), namespace);
	return namespace;
}

/* Of the files of a process: from the first one that is wanted its namespace is known. */
static void check_file(struct proc_walk *walk, const struct namespace **namespace, pid_t pid,
	const char *fd, const struct proc_looker *looker)
{
	cleanup(free_ptr) char *name = xasprintf("fdinfo/%s", fd);
	cleanup(close_file) FILE *file = open_proc(pid, name);

	if (!file)
		return;
	/* mnt_id stands before ino. */
	int mount = (int)read_field(file, "mnt_id:", 10, 0);
	uint64_t inode = read_field(file, "ino:", 10, 0);
	if (!looker->wanted(looker->user, inode))
		return;
	if (!*namespace)
		*namespace = find_namespace(walk, pid);
	if ((*namespace)->count && bsearch(&mount, (*namespace)->mounts, (*namespace)->count,
					   sizeof(mount), by_number))
		looker->found(looker->user, pid, inode);
}

void proc_walk_files(struct proc_walk *walk, pid_t pid, const struct proc_looker *looker)
{
	cleanup(free_ptr) char *path = xasprintf("/proc/%d/fdinfo", (int)pid);
	cleanup(close_dir) DIR *dir = opendir(path);
	const struct namespace *namespace = NULL;
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			check_file(walk, &namespace, pid, entry->d_name, looker);
	}
}

void proc_each(proc_each_fn *fn, void *user)
{
	cleanup(close_dir) DIR *dir = opendir("/proc");
	const struct dirent *entry;
	uint64_t pid;

	while (dir && (entry = readdir(dir))) {
		if (parse_u64(entry->d_name, 10, INT32_MAX, &pid) == 0)
			fn(user, (pid_t)pid);
	}
}
