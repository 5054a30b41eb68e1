/* SPDX-License-Identifier: MIT */
/*
 * Processes, as /proc shows them.
 *
 * The one rule: nothing here may follow a path of another process (its cwd, root or descriptors),
 * for that may lead into our own mount, and then we would wait for ourselves.  /proc/PID/comm,
 * status, cgroup, syscall, fdinfo, mountinfo and the link ns/mnt are read; cmdline is not, because
 * it may wait for the process.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_identity {
	pid_t thread;     /* that was asked about */
	pid_t pid;        /* of its process; 0 = not visible */
	char command[64]; /* printable; empty if not visible */
};

/* Who the thread of that id belongs to. */
void proc_identify(pid_t tid, struct proc_identity *identity);

/* The control group of the process that was asked for last. */
struct proc_cgroup {
	pid_t pid;
	char *path; /* owned; NULL: the root, or not visible */
};

/*
 * The control group of a process as our own namespace names it, or NULL for the root: printable,
 * and if it is longer than PROC_MAX_CGROUP, "..." and its end, where containers have their name.
 * Borrowed until the next call.  It is read when the cache has not that process: how long a kernel
 * before 6.8 takes for it depends on what else is done with control groups.
 */
enum { PROC_MAX_CGROUP = 511 };
char *proc_cgroup(struct proc_cgroup *cache, pid_t pid);

bool proc_is_alive(pid_t pid);

/* The users of a process that kill(2) looks at. */
struct proc_users {
	uid_t real, saved;
};
/* False if it is not visible. */
bool proc_users(pid_t pid, struct proc_users *users);
/* Whether a process of that user may send such a process signals, by kill(2)'s rule. */
bool proc_users_may_be_signalled(const struct proc_users *users, uid_t uid);
/* The same, of a process. */
bool proc_may_signal(uid_t uid, pid_t pid);

/*
 * A descriptor of a process (not of a thread) that becomes readable when it ends, however its
 * number is used afterwards; the caller closes it.  Or -errno of pidfd_open(2).
 */
int proc_open(pid_t pid);

/* When it was started, in some unit since the machine was: with its number it tells a process from
 * all others.  0 if it is not visible. */
uint64_t proc_started(pid_t pid);

/* 0 if it has none, or is not visible. */
pid_t proc_parent(pid_t pid);

/* The system call that a thread waits in, as far as it matters here. */
enum proc_call {
	PROC_CALL_READLINK, /* readlink(2) or readlinkat(2) */
	PROC_CALL_OTHER,
	PROC_CALL_NONE_YET, /* the thread runs, or waits for a processor */
	PROC_CALL_HIDDEN,   /* the thread is not visible, or we may not look into it */
};

/*
 * Looks into a thread that waits for our answer.  It takes the right to trace the thread, see
 * ptrace(2); a thread of 32 bits on a kernel of 64 has other numbers and is never in readlink(2).
 */
enum proc_call proc_call(pid_t thread);

/* A mount, as it stands in our own mountinfo. */
struct proc_mount {
	dev_t device;
	bool follows_no_symlinks; /* it has the flag nosymfollow, see mount(8) */
};

/* What is mounted at that path.  The last one mounted there counts.  Returns false if nothing is.
 */
bool proc_find_mount(const char *mount_point, struct proc_mount *mount);

/* The device of that. */
bool proc_mount_device(const char *mount_point, dev_t *device);

/*
 * Looks for files of a device among those that processes have open.  How long that takes is any
 * user's choice, so it is for processes that nobody waits for; nothing is freed before their end.
 */
struct proc_walk;
struct proc_walk *proc_walk_new(dev_t device);

struct proc_looker {
	bool (*wanted)(void *user, uint64_t inode);
	void (*found)(void *user, pid_t pid, uint64_t inode); /* one that is wanted */
	void *user;
};
void proc_walk_files(struct proc_walk *walk, pid_t pid, const struct proc_looker *looker);

/* Calls fn for each process that is visible. */
typedef void proc_each_fn(void *user, pid_t pid);
void proc_each(proc_each_fn *fn, void *user);
