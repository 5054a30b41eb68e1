// SPDX-License-Identifier: MIT
/*
 * semantics CASES FIRST SECOND: what a file system answers to programs that lock, to compare two.
 *
 * CASES is a file of cases, each a list of steps, and each step a call of one process.  Processes a
 * and c work in the directory FIRST, b in SECOND, which is the same directory on another mount, or
 * simply the same.  For every step one line is printed: the case, the step, the answer.
 *
 *     case NAME           begins one, with new processes and files that nobody has used
 *     WHO CALL...         see `calls` below; a descriptor is a digit, a file a name
 *     WHO CALL... &       it may have to wait: the answer is "waits" if it does
 *     WHO .               the answer of that step, now that it should have come
 *     kill WHO            SIGKILL; returns when the process is gone
 *     signal WHO          SIGUSR1, which ends a waiting call; restart WHO: SIGUSR2, which does not
 *
 * A file name may begin with a directory, which then exists.  Ranges are START LENGTH as in struct
 * flock, both 0 if they are missing.
 */
#include "semantics.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
	PATIENCE = 10000, /* for an answer that has to come, in milliseconds */
	IMPATIENCE = 250, /* for one that seems to wait where the queue does not tell */
	PAUSE = 5,
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

struct role {
	pid_t pid; /* 0 when nobody plays it */
	bool is_child, is_busy;
	const char *directory;
	char file[SLOTS][64]; /* what its descriptors are */
	char *step;           /* that it is busy with */
};

static struct role roles[sizeof(ACTORS) - 1];
static const char *first, *second;
static char case_name[LINE];
static int case_number;

static struct role *role_of(char who)
{
	const char *place = strchr(ACTORS, who);

	if (!who || !place) {
		fprintf(stderr, "%s: nobody is called %c\n", case_name, who);
		exit(2);
	}
	return &roles[place - ACTORS];
}

static char name_of(const struct role *role)
{
	return ACTORS[role - roles];
}

static void open_channel(int number)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0)
		fail("socketpair");
	for (int end = 0; end < 2; end++) {
		dup2(ends[end], number + end);
		close(ends[end]);
	}
}

/* Nothing that an actor of an earlier case was told or has said is in them. */
static void open_channels(void)
{
	for (size_t i = 0; i < sizeof(ACTORS) - 1; i++)
		open_channel(channel_of(ACTORS[i]));
	open_channel(MAIL);
}

static void start(char who, const char *directory)
{
	struct role *role = role_of(who);
	struct actor actor = {.channel = channel_of(name_of(role)) + 1,
		.number = case_number,
		.directory = directory};

	memset(role, 0, sizeof(*role));
	memset(actor.fds, -1, sizeof(actor.fds));
	role->directory = directory;
	role->pid = fork();
	if (role->pid < 0)
		fail("fork");
	if (role->pid == 0)
		act(&actor);
}

/* Who has ended has no files any more, whether somebody has asked for its status or not. */
static bool is_gone(pid_t pid)
{
	char path[64], text[LINE] = "";
	FILE *stat;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	stat = fopen(path, "re");
	if (!stat)
		return true;
	fread(text, 1, sizeof(text) - 1, stat);
	fclose(stat);
	return !text[0] || strstr(text, ") Z ") || strstr(text, ") X ");
}

static void end(struct role *role)
{
	if (!role->pid)
		return;
	kill(role->pid, SIGKILL);
	if (!role->is_child)
		waitpid(role->pid, NULL, 0);
	while (!is_gone(role->pid))
		usleep(1000);
	free(role->step);
	memset(role, 0, sizeof(*role));
}

static void end_all(void)
{
	/* Children first, as long as those are there who take their end from them. */
	for (size_t i = sizeof(ACTORS) - 1; i > 0; i--)
		end(&roles[i - 1]);
	fflush(stdout);
}

/* --- who waits --- */

static int count_blocked(const char *path)
{
	char line[LINE], inode[32];
	struct stat status;
	int count = 0;
	FILE *locks = fopen("/proc/locks", "r");

	if (!locks || stat(path, &status) < 0)
		fail(path);
	snprintf(inode, sizeof(inode), ":%llu ", (unsigned long long)status.st_ino);
	while (fgets(line, sizeof(line), locks))
		count += strstr(line, "->") && strstr(line, inode);
	fclose(locks);
	return count;
}

/* Those behind one that excludes them; who changes from shared to exclusive stands there
 * twice. */
static int count_queued(const char *queue)
{
	enum { MANY = 32 };
	bool exclusive[MANY];
	int pids[MANY], count = 0, waiting = 0;

	for (const char *mode = queue; (mode = strstr(mode, "\"mode\":\"")) && count < MANY;
		mode++) {
		const char *pid = strstr(mode, "\"pid\":");
		bool waits = false;

		exclusive[count] = mode[8] == 'e';
		pids[count] = pid ? atoi(pid + 6) : 0;
		for (int i = 0; i < count; i++)
			waits |= exclusive[i] || (exclusive[count] && pids[i] != pids[count]);
		waiting += waits;
		count++;
	}
	return waiting;
}

static int count_waiters(const char *path)
{
	char queue[8192];
	ssize_t size = getxattr(path, "user.latchfs.queue", queue, sizeof(queue) - 1);

	if (size < 0)
		return errno == ENOENT ? 0 : count_blocked(path);
	queue[size] = '\0';
	return count_queued(queue);
}

/* --- steps --- */

/* A process is called by its name. */
static void print_answer(const char *step, char *answer)
{
	char *by = strstr(answer, " by ");
	int pid = by ? atoi(by + 4) : 0;

	for (size_t i = 0; by && i < sizeof(ACTORS) - 1; i++) {
		if (pid > 0 && roles[i].pid == pid)
			sprintf(by + 4, "%c", ACTORS[i]);
	}
	printf("%s: %s: %s\n", case_name, step, answer);
}

static bool has_answer(const struct role *role, int milliseconds)
{
	struct pollfd channel = {.fd = channel_of(name_of(role)), .events = POLLIN};

	return poll(&channel, 1, milliseconds) > 0;
}

static void receive(struct role *role, const char *step)
{
	char answer[LINE];
	ssize_t size = recv(channel_of(name_of(role)), answer, sizeof(answer) - 1, 0);

	answer[size < 0 ? 0 : size] = '\0';
	role->is_busy = false;
	if (strncmp(role->step + 2, "fork ", 5) == 0) {
		struct role *child = role_of(role->step[7]);

		*child = *role;
		child->pid = atoi(answer);
		child->step = NULL;
		child->is_child = true;
		strcpy(answer, "ok");
	}
	print_answer(step, answer);
}

static void await_answer(struct role *role, const char *step)
{
	if (has_answer(role, PATIENCE))
		receive(role, step);
	else
		print_answer(step, (char[]){"no answer"});
}

/* Whether a process sits in a call that may wait, rather than on its way there. */
static bool is_in_call(pid_t pid)
{
	char path[64], text[LINE] = "";
	FILE *file;
	long call;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return true;
	fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	call = atol(text);
	return call == SYS_fcntl || call == SYS_flock || call == SYS_openat;
}

/* Who waits for a part of a file does not show in the queue of latchfs. */
static void await_answer_or_waiter(struct role *role, const char *path, int before)
{
	for (int passed = 0; passed < PATIENCE; passed += PAUSE) {
		if (has_answer(role, PAUSE)) {
			receive(role, role->step);
			return;
		}
		if (count_waiters(path) > before || (passed >= IMPATIENCE && is_in_call(role->pid)))
			break;
	}
	print_answer(role->step, (char[]){"waits"});
}

static void note_file(struct role *role, char **words)
{
	if (strcmp(words[1], "open") == 0 || strcmp(words[1], "receive") == 0)
		strcpy(role->file[words[2][0] - '0'], words[3]);
	else if (strcmp(words[1], "dup") == 0 || strcmp(words[1], "reopen") == 0)
		strcpy(role->file[words[3][0] - '0'], role->file[words[2][0] - '0']);
}

static void begin(struct role *role, const char *step, char **words, bool may_wait)
{
	char path[512] = "", call[LINE];
	int before = 0;

	snprintf(call, sizeof(call), "%s", step + 2);
	free(role->step);
	role->step = strdup(step);
	role->is_busy = true;
	note_file(role, words);
	if (may_wait) {
		compose(path, sizeof(path), role->directory, case_number,
			role->file[words[2][0] - '0']);
		before = count_waiters(path);
	}
	send(channel_of(name_of(role)), call, strlen(call), 0);
	if (may_wait)
		await_answer_or_waiter(role, path, before);
	else
		await_answer(role, role->step);
}

static void do_signal(const char *what, struct role *role)
{
	if (strcmp(what, "kill") == 0)
		end(role);
	else
		kill(role->pid, strcmp(what, "signal") == 0 ? SIGUSR1 : SIGUSR2);
}

static void complain(const char *what, const char *line)
{
	fprintf(stderr, "%s: %s: %s\n", case_name, line, what);
	exit(2);
}

/* Of somebody who is alive. */
static void do_step(struct role *role, const char *line, char **words, bool may_wait)
{
	if (words[0][1])
		do_signal(words[0], role);
	else if (strcmp(words[1], ".") == 0 && role->is_busy)
		await_answer(role, line);
	else if (strcmp(words[1], ".") == 0 || role->is_busy)
		print_answer(line, role->is_busy ? (char[]){"is busy"} : (char[]){"has answered"});
	else
		begin(role, line, words, may_wait);
}

static void do_line(char *line)
{
	char *words[WORDS + 1], copy[LINE];
	size_t length = strlen(line);
	bool may_wait = length > 2 && strcmp(line + length - 2, " &") == 0;

	if (may_wait)
		line[length - 2] = '\0';
	strcpy(copy, line);
	if (split(copy, words) < 2)
		complain("no step", line);
	struct role *role = role_of(words[0][1] ? words[1][0] : words[0][0]);
	if (!role->pid)
		complain("nobody there", line);
	do_step(role, line, words, may_wait);
}

static void begin_case(const char *name)
{
	end_all();
	case_number++;
	strcpy(case_name, name);
	open_channels();
	start('a', first);
	start('b', second);
	start('c', first);
}

static void play(FILE *cases)
{
	char line[LINE];

	while (fgets(line, sizeof(line), cases)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "case ", 5) == 0)
			begin_case(line + 5);
		else if (line[0] && line[0] != '#')
			do_line(line);
	}
	end_all();
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "-actor") == 0)
		return act_again(argv);
	if (argc != 4)
		return 2;
	FILE *cases = fopen(argv[1], "re");
	if (!cases)
		fail(argv[1]);
	first = argv[2];
	second = argv[3];
	play(cases);
	return 0;
}
