/* SPDX-License-Identifier: MIT */
#include "fs/former.h"

#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/stake.h"
#include "lock/lockspace.h"

/* How many are remembered, of those who closed last. */
enum { FORMERS_MAX = 512 };

struct former {
	char *key;        /* "PID PATH" */
	uint64_t started; /* when the process was, see proc.h */
	UT_hash_handle hh;
};

static char *key_of(pid_t thread, const char *path)
{
	return xasprintf("%d %s", (int)thread, path);
}

static struct former *find(const struct fs *fs, pid_t thread, const char *path)
{
	cleanup(free_ptr) char *key = key_of(thread, path);
	struct former *former;

	HASH_FIND_STR(fs->formers, key, former);
	return former;
}

static void former_free(struct fs *fs, struct former *former)
{
	HASH_DEL(fs->formers, former);
	free(former->key);
	free(former);
}

void former_add(struct fs *fs, const struct handle *handle)
{
	pid_t thread = handle->opener.thread;
	uint64_t started = thread ? proc_started(thread) : 0;
	struct former *former = find(fs, thread, handle->node->path);

	if (former)
		former_free(fs, former);
	if (!started)
		return; /* it has ended, or is of another namespace */
	former = xzalloc(sizeof(*former));
	former->key = key_of(thread, handle->node->path);
	former->started = started;
	HASH_ADD_KEYPTR(hh, fs->formers, former->key, strlen(former->key), former);
	/* uthash has them in the order in which they came. */
	if (HASH_COUNT(fs->formers) > FORMERS_MAX)
		former_free(fs, fs->formers);
}

static const struct proc_identity *creator_of(const struct hold *hold)
{
	const struct stake *stake;

	DL_FOREACH(hold->stakes, stake) {
		if (stake->kind == STAKE_CREATE)
			return &stake->handle->opener;
	}
	return NULL;
}

static bool has_given_back(struct fs *fs, pid_t thread, const char *path)
{
	struct former *former = find(fs, thread, path);
	bool given = former && former->started == proc_started(thread);

	if (former)
		former_free(fs, former);
	return given;
}

enum { GENERATIONS = 100 };

/* Who is nearest to who asks: the thread itself, its process, who started that. */
bool former_means(const struct request *request, const struct hold *hold)
{
	const struct proc_identity *creator = creator_of(hold);
	const char *path = hold->node->path;
	struct proc_identity who;

	if (!request->fs->formers || !creator || request->pid == creator->thread)
		return false;
	proc_identify(request->pid, &who);
	bool given = has_given_back(request->fs, who.thread, path);
	pid_t pid = who.pid;
	/* Anybody can have a process with thousands of ancestors. */
	for (int i = 0; i < GENERATIONS && !given && pid > 1 && pid != creator->pid; i++) {
		given = has_given_back(request->fs, pid, path);
		pid = proc_parent(pid);
	}
	if (given && log_admits("locks that were not removed", request->uid, loop_clock()))
		log_info("lock %s: process %d wanted to remove it, but means the one that was "
			 "given back when its file was closed",
			path, (int)who.pid);
	return given;
}

void former_forget(const struct request *request, const char *path)
{
	struct former *former = request->fs->formers ? find(request->fs, request->pid, path) : NULL;

	if (former)
		former_free(request->fs, former);
}

void formers_free(struct fs *fs)
{
	while (fs->formers)
		former_free(fs, fs->formers);
}
