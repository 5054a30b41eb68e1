/* SPDX-License-Identifier: MIT */
#include "fs/signals.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/search.h"
#include "fs/stake.h"
#include "lock/lockspace.h"

/* A lock that was lost, whose holders are to get a signal. */
struct loss {
	struct hold *hold; /* NULL: it has ended by the loss */
	char *path;
	int signal;               /* 0: not any more */
	bool is_sent, is_waiting; /* in fs->losses */
	struct search_target target;
	struct search_opener *openers; /* NULL until its search is prepared */
	struct loss *prev, *next;
};

/* Losses that are searched for together. */
struct signal_search {
	struct fs *fs;
	struct search_job job;
	struct loss **losses; /* by number of the target */
	size_t count;
};

static void loss_free(struct loss *loss)
{
	if (loss->hold)
		loss->hold->loss = NULL;
	free(loss->path);
	free(loss->openers);
	free(loss);
}

/* --- who holds it --- */

static bool has_stake_of(const struct hold *hold, const struct handle *handle)
{
	struct stake *stake;

	DL_FOREACH2(handle->stakes, stake, handle_next) {
		if (stake->hold == hold)
			return true;
	}
	return false;
}

/* Those that are concerned come first. */
static int by_pid(const void *a, const void *b)
{
	const struct search_opener *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return (x->is_concerned < y->is_concerned) - (x->is_concerned > y->is_concerned);
}

/* One of each process. */
static size_t drop_doubles(struct search_opener *openers, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if (!kept || openers[i].pid != openers[kept - 1].pid)
			openers[kept++] = openers[i];
	}
	return kept;
}

static void prepare(struct loss *loss)
{
	const struct hold *hold = loss->hold;
	const struct record *record = lockspace_record(hold->holding);
	const struct handle *handle;
	size_t count;

	DL_COUNT(hold->node->handles, handle, count);
	loss->openers = xzalloc(count * sizeof(loss->openers[0]));
	count = 0;
	DL_FOREACH(hold->node->handles, handle) {
		loss->openers[count++] = (struct search_opener){
			.pid = handle->opener.pid, .is_concerned = has_stake_of(hold, handle)};
	}
	if (count)
		qsort(loss->openers, count, sizeof(loss->openers[0]), by_pid);
	/* The creator of a lock that goes by its name only may be long gone, and its number
	 * reused. */
	loss->target = (struct search_target){.inode = node_shown_inode(hold->node),
		.uid = record->uid,
		.creator = record->hold == STORE_HOLD_NAME ? 0 : record->pid,
		.opener_count = drop_doubles(loss->openers, count)};
}

/* --- signalling them --- */

static void note_signal(struct loss *loss, pid_t pid)
{
	log_warning("lock %s was lost: signal %d sent to process %d", loss->path, loss->signal,
		(int)pid);
	loss->is_sent = true;
}

static int on_found(struct search_job *job, size_t target, pid_t pid)
{
	struct signal_search *search = container_of(job, struct signal_search, job);
	struct loss *loss = search->losses[target];

	if (!loss->signal || pid <= 1 || pid == getpid())
		return 0;
	note_signal(loss, pid);
	return loss->signal;
}

/* Without a search that is over: whoever asked for it at least. */
static void signal_creator(struct loss *loss)
{
	pid_t pid = loss->target.creator;

	if (loss->signal && !loss->is_sent && pid > 1 && pid != getpid() &&
		proc_may_signal(loss->target.uid, pid) && kill(pid, loss->signal) == 0)
		note_signal(loss, pid);
}

static void search_end(struct signal_search *search)
{
	struct fs *fs = search->fs;

	search_cancel(&search->job);
	for (size_t i = 0; i < search->count; i++)
		loss_free(search->losses[i]);
	free(search->losses);
	free(search);
	fs->signal_search = NULL;
	if (fs->losses)
		loop_defer(fs->loop, &fs->signal_task);
}

static void on_done(struct search_job *job, int result)
{
	struct signal_search *search = container_of(job, struct signal_search, job);

	if (result) {
		log_warning("not all processes could be looked at for locks that were lost: some "
			    "may not have got their signal");
		for (size_t i = 0; i < search->count; i++)
			signal_creator(search->losses[i]);
	}
	search_end(search);
}

/* Takes over all that has come so far. */
static void begin(struct fs *fs)
{
	struct signal_search *search = xzalloc(sizeof(*search));
	struct loss *loss, *next;

	search->fs = fs;
	search->job = (struct search_job){.found = on_found, .done = on_done};
	DL_COUNT(fs->losses, loss, search->count);
	search->losses = xzalloc(search->count * sizeof(search->losses[0]));
	search->count = 0;
	DL_FOREACH_SAFE(fs->losses, loss, next) {
		DL_DELETE(fs->losses, loss);
		loss->is_waiting = false;
		search->losses[search->count++] = loss;
		search_add(&search->job, &loss->target, loss->openers);
	}
	fs->signal_search = search;
	int error = search_start(fs->search, &search->job);
	if (error)
		on_done(&search->job, error);
}

static void on_signals(struct loop_task *task)
{
	struct fs *fs = container_of(task, struct fs, signal_task);
	struct loss *loss;

	/* Holds that end by the loss do so soon after. */
	DL_FOREACH(fs->losses, loss) {
		if (!loss->openers)
			prepare(loss);
	}
	if (fs->losses && !fs->signal_search)
		begin(fs);
}

void signals_add(struct hold *hold)
{
	struct fs *fs = hold->node->fs;
	enum store_on_loss on_loss =
		hold->stakes ? hold->stakes->handle->policy.on_loss : STORE_ON_LOSS_ERROR;

	if (on_loss != STORE_ON_LOSS_TERM && on_loss != STORE_ON_LOSS_KILL)
		return;
	struct loss *loss = xzalloc(sizeof(*loss));
	loss->hold = hold;
	loss->path = xstrdup(hold->node->path);
	loss->signal = on_loss == STORE_ON_LOSS_TERM ? SIGTERM : SIGKILL;
	loss->is_waiting = true;
	hold->loss = loss;
	DL_APPEND(fs->losses, loss);
	fs->signal_task.fn = on_signals;
	loop_defer(fs->loop, &fs->signal_task);
}

void signals_outlive(struct hold *hold)
{
	if (hold->loss && hold->loss->openers && !hold->stakes->next)
		take(hold->loss)->hold = NULL;
}

void signals_remove(struct hold *hold)
{
	struct loss *loss = take(hold->loss);

	if (!loss)
		return;
	loss->hold = NULL;
	loss->signal = 0;
	/* What is not searched for yet need not be. */
	if (loss->is_waiting) {
		DL_DELETE(hold->node->fs->losses, loss);
		loss_free(loss);
	}
}

void signals_fini(struct fs *fs)
{
	struct loss *loss, *next;

	loop_undefer(fs->loop, &fs->signal_task);
	DL_FOREACH_SAFE(fs->losses, loss, next) {
		DL_DELETE(fs->losses, loss);
		loss_free(loss);
	}
	if (fs->signal_search)
		search_end(fs->signal_search);
}
