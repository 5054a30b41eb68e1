/* SPDX-License-Identifier: MIT */
#include "commands/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/util.h"

bool trial_fault(struct trial *trial, const char *format, ...)
{
	va_list args;
	char text[1024];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!trial->why)
		trial->why = xstrdup(text);
	return false;
}

/* The lock file of the trial, as that worker sees it. */
static void set_path(const struct trial *trial, int who, struct worker_task *task)
{
	snprintf(task->path, sizeof(task->path), "%s/%u", trial->places[who % 2], trial->number);
}

const char *task_name(const struct worker_task *task)
{
	bool waits = task->how == F_SETLKW;

	switch (task->call) {
	case WORKER_OPEN:
		return task->how & O_EXCL ? "open(O_CREAT|O_EXCL)" : "open(O_CREAT)";
	case WORKER_CLOSE:
		return "close";
	case WORKER_FLOCK:
		if (task->how == LOCK_UN)
			return "flock(LOCK_UN)";
		if (task->how & LOCK_SH)
			return task->how & LOCK_NB ? "flock(LOCK_SH|LOCK_NB)" : "flock(LOCK_SH)";
		return task->how & LOCK_NB ? "flock(LOCK_EX|LOCK_NB)" : "flock(LOCK_EX)";
	case WORKER_LOCK:
		if (task->type == F_UNLCK)
			return "fcntl(F_UNLCK)";
		if (task->type == F_RDLCK)
			return waits ? "fcntl(F_SETLKW, F_RDLCK)" : "fcntl(F_SETLK, F_RDLCK)";
		return waits ? "fcntl(F_SETLKW, F_WRLCK)" : "fcntl(F_SETLK, F_WRLCK)";
	case WORKER_UNLINK:
		return "unlink";
	case WORKER_MKDIR:
		return "mkdir";
	case WORKER_RMDIR:
		return "rmdir";
	case WORKER_SET_POLICY:
		return "setxattr";
	case WORKER_TOKEN:
		return "getxattr(user.latchfs.holder)";
	case WORKER_RACE:
		return "a race";
	}
	return "";
}

bool trial_begin(struct trial *trial, int who, struct worker_task task)
{
	if (!*task.path)
		set_path(trial, who, &task);
	if (*trial->ended_by)
		return trial_fault(trial, "interrupted");
	if (worker_begin(&trial->workers[who], &task))
		return true;
	return trial_fault(trial, "process %d has ended", who + 1);
}

bool trial_await(struct trial *trial, int who, const char *what, int milliseconds,
	struct worker_answer *answer)
{
	int result = worker_await(&trial->workers[who], milliseconds, answer);

	if (result > 0)
		return true;
	if (*trial->ended_by)
		return trial_fault(trial, "interrupted");
	if (result == 0)
		return trial_fault(trial, "process %d: %s was not answered within %d s", who + 1,
			what, milliseconds / 1000);
	return trial_fault(trial, "process %d has ended in %s", who + 1, what);
}

int trial_call(struct trial *trial, int who, struct worker_task task)
{
	struct worker_answer answer = {0};

	if (!trial_begin(trial, who, task) ||
		!trial_await(trial, who, task_name(&task), TRIAL_DEADLINE, &answer))
		return -1;
	return answer.error == EACCES && task.call == WORKER_LOCK ? EAGAIN : answer.error;
}

static const char *outcome(int error)
{
	return error ? strerror(error) : "success";
}

bool trial_expect(struct trial *trial, int who, struct worker_task task, int expected)
{
	int error = trial_call(trial, who, task);

	if (error == expected)
		return true;
	if (error < 0)
		return false;
	return trial_fault(trial, "process %d in %s: %s gave \"%s\" instead of \"%s\"", who + 1,
		trial->directories[who % 2], task_name(&task), outcome(error), outcome(expected));
}

struct worker_task task_open(int flags)
{
	return (struct worker_task){.call = WORKER_OPEN, .how = flags | O_RDWR | O_CREAT};
}

struct worker_task task_flock(int operation)
{
	return (struct worker_task){.call = WORKER_FLOCK, .how = operation};
}

struct worker_task task_lock(int how, short type, int64_t start, int64_t length)
{
	return (struct worker_task){
		.call = WORKER_LOCK, .how = how, .type = type, .start = start, .length = length};
}

struct worker_task task_close(void)
{
	return (struct worker_task){.call = WORKER_CLOSE};
}

struct worker_task task_unlink(void)
{
	return (struct worker_task){.call = WORKER_UNLINK};
}

bool trial_open_all(struct trial *trial, int count)
{
	for (int who = 0; who < count; who++) {
		if (!trial_expect(trial, who, task_open(0), 0))
			return false;
	}
	return true;
}

bool trial_begin_waiting(struct trial *trial, int who, struct worker_task task)
{
	struct worker_answer answer = {0};

	if (!trial_begin(trial, who, task))
		return false;
	int result = worker_await(&trial->workers[who], TRIAL_WAITS, &answer);
	if (result == 0)
		return true;
	if (result > 0)
		return trial_fault(trial, "process %d in %s: %s did not wait: \"%s\"", who + 1,
			trial->directories[who % 2], task_name(&task), outcome(answer.error));
	return trial_fault(trial, "process %d has ended in %s", who + 1, task_name(&task));
}

bool trial_expect_grant(struct trial *trial, int who, const char *when)
{
	struct worker_answer answer = {0};

	if (!trial_await(trial, who, when, TRIAL_DEADLINE, &answer))
		return false;
	return !answer.error ||
	       trial_fault(trial, "process %d: %s: %s", who + 1, when, strerror(answer.error));
}
