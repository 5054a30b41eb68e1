// SPDX-License-Identifier: MIT
/* The actors of semantics.c: processes that carry out one call after the other. */
#include "semantics.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int channel_of(char who)
{
	return FIRST_CHANNEL + 2 * (int)(strchr(ACTORS, who) - ACTORS);
}

int split(char *line, char *words[WORDS + 1])
{
	int count = 0;

	for (char *word = strtok(line, " "); word && count < WORDS; word = strtok(NULL, " "))
		words[count++] = word;
	words[count] = NULL;
	return count;
}

static void say(struct actor *actor, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(actor->answer, sizeof(actor->answer), format, arguments);
	va_end(arguments);
}

static void say_result(struct actor *actor, int result)
{
	say(actor, "%s", result < 0 ? strerrorname_np(errno) : "ok");
}

void compose(char *path, size_t size, const char *directory, int number, const char *name)
{
	const char *slash = strrchr(name, '/');
	int prefix = slash ? (int)(slash + 1 - name) : 0;

	snprintf(path, size, "%s/%.*s%d.%s", directory, prefix, name, number, name + prefix);
}

static const char *path_of(struct actor *actor, const char *name)
{
	compose(actor->path, sizeof(actor->path), actor->directory, actor->number, name);
	return actor->path;
}

static int *slot_of(struct actor *actor, const char *word)
{
	if (!word || word[1] || word[0] < '0' || word[0] >= '0' + SLOTS) {
		fprintf(stderr, "no descriptor: %s\n", word ? word : "");
		_exit(2);
	}
	return &actor->fds[word[0] - '0'];
}

static bool has_word(char **words, const char *word)
{
	for (; *words; words++) {
		if (strcmp(*words, word) == 0)
			return true;
	}
	return false;
}

static void call_open(struct actor *actor, char **words)
{
	static const struct {
		const char *word;
		int flag;
	} flags[] = {{"r", O_RDONLY}, {"w", O_WRONLY}, {"rw", O_RDWR}, {"excl", O_CREAT | O_EXCL},
		{"creat", O_CREAT}, {"trunc", O_TRUNC}, {"append", O_APPEND},
		{"nonblock", O_NONBLOCK}, {"cloexec", O_CLOEXEC}, {"path", O_PATH},
		{"directory", O_DIRECTORY}};
	int *slot = slot_of(actor, words[0]), all = 0;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		all |= has_word(words + 2, flags[i].word) ? flags[i].flag : 0;
	*slot = open(path_of(actor, words[1]), all, 0644);
	say_result(actor, *slot);
}

static void call_close(struct actor *actor, char **words)
{
	say_result(actor, close(*slot_of(actor, words[0])));
}

static void call_dup(struct actor *actor, char **words)
{
	int *slot = slot_of(actor, words[1]);

	*slot = dup(*slot_of(actor, words[0]));
	say_result(actor, *slot);
}

/* A new description of the same file. */
static void call_reopen(struct actor *actor, char **words)
{
	int *slot = slot_of(actor, words[1]);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", *slot_of(actor, words[0]));
	*slot = open(path, O_RDWR);
	say_result(actor, *slot);
}

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(int))];
};

static struct msghdr message_of(struct iovec *text, union control *control)
{
	return (struct msghdr){.msg_iov = text,
		.msg_iovlen = 1,
		.msg_control = control->room,
		.msg_controllen = sizeof(control->room)};
}

/* Whoever receives next has the same description. */
static void call_pass(struct actor *actor, char **words)
{
	struct iovec text = {.iov_base = (char[]){"."}, .iov_len = 1};
	union control control = {0};
	struct msghdr message = message_of(&text, &control);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), slot_of(actor, words[0]), sizeof(int));
	say_result(actor, (int)sendmsg(MAIL, &message, 0));
}

/* DESCRIPTOR FILE: what it is, for the director. */
static void call_receive(struct actor *actor, char **words)
{
	char letter;
	struct iovec text = {.iov_base = &letter, .iov_len = 1};
	union control control = {0};
	struct msghdr message = message_of(&text, &control);
	int result = (int)recvmsg(MAIL + 1, &message, 0);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	if (result > 0 && header)
		memcpy(slot_of(actor, words[0]), CMSG_DATA(header), sizeof(int));
	say_result(actor, result);
}

static void call_flock(struct actor *actor, char **words)
{
	int operation = has_word(words, "ex") ? LOCK_EX : has_word(words, "sh") ? LOCK_SH : LOCK_UN;

	say_result(actor, flock(*slot_of(actor, words[0]),
				  operation | (has_word(words, "nb") ? LOCK_NB : 0)));
}

static void say_lock(struct actor *actor, const struct flock *lock)
{
	const char *kind = lock->l_type == F_RDLCK ? "read" : "write";

	if (lock->l_type == F_UNLCK)
		say(actor, "free");
	else if (lock->l_start || lock->l_len)
		say(actor, "%s %lld %lld by %d", kind, (long long)lock->l_start,
			(long long)lock->l_len, (int)lock->l_pid);
	else
		say(actor, "%s by %d", kind, (int)lock->l_pid);
}

/* DESCRIPTOR COMMAND r|w|u [START LENGTH [set|cur|end]] */
static void call_fcntl(struct actor *actor, char **words)
{
	static const struct {
		const char *word;
		int command;
	} commands[] = {{"set", F_SETLK}, {"wait", F_SETLKW}, {"get", F_GETLK},
		{"oset", F_OFD_SETLK}, {"owait", F_OFD_SETLKW}, {"oget", F_OFD_GETLK}};
	const char *kind = words[2], *whence = words[3] && words[4] ? words[5] : NULL;
	int command = -1;

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		command = strcmp(words[1], commands[i].word) ? command : commands[i].command;
	struct flock lock = {.l_type = *kind == 'r'   ? F_RDLCK
				       : *kind == 'w' ? F_WRLCK
						      : F_UNLCK,
		.l_start = words[3] ? atoll(words[3]) : 0,
		.l_len = words[3] && words[4] ? atoll(words[4]) : 0};
	if (whence)
		lock.l_whence = *whence == 'c' ? SEEK_CUR : *whence == 'e' ? SEEK_END : SEEK_SET;
	int result = fcntl(*slot_of(actor, words[0]), command, &lock);
	if (result == 0 && (command == F_GETLK || command == F_OFD_GETLK))
		say_lock(actor, &lock);
	else
		say_result(actor, result);
}

/* DESCRIPTOR OFFSET set|cur */
static void call_lseek(struct actor *actor, char **words)
{
	off_t offset = lseek(*slot_of(actor, words[0]), atoll(words[1]),
		words[2][0] == 'c' ? SEEK_CUR : SEEK_SET);

	if (offset < 0)
		say_result(actor, -1);
	else
		say(actor, "%lld", (long long)offset);
}

static void call_unlink(struct actor *actor, char **words)
{
	say_result(actor, unlink(path_of(actor, words[0])));
}

static void call_link(struct actor *actor, char **words)
{
	strcpy(actor->other, path_of(actor, words[0]));
	say_result(actor, link(actor->other, path_of(actor, words[1])));
}

static void call_rename(struct actor *actor, char **words)
{
	strcpy(actor->other, path_of(actor, words[0]));
	say_result(actor, rename(actor->other, path_of(actor, words[1])));
}

static void call_symlink(struct actor *actor, char **words)
{
	say_result(actor, symlink(words[0], path_of(actor, words[1])));
}

static void call_readlink(struct actor *actor, char **words)
{
	char text[LINE / 2];
	ssize_t size = readlink(path_of(actor, words[0]), text, sizeof(text));

	if (size < 0)
		say_result(actor, -1);
	else
		say(actor, "\"%.*s\"", (int)size, text);
}

static void call_mkdir(struct actor *actor, char **words)
{
	say_result(actor, mkdir(path_of(actor, words[0]), 0755));
}

static void call_rmdir(struct actor *actor, char **words)
{
	say_result(actor, rmdir(path_of(actor, words[0])));
}

static void call_exists(struct actor *actor, char **words)
{
	say_result(actor, access(path_of(actor, words[0]), F_OK));
}

static void say_links(struct actor *actor, int result, const struct stat *status)
{
	if (result < 0)
		say_result(actor, -1);
	else
		say(actor, "%d", (int)status->st_nlink);
}

static void call_links(struct actor *actor, char **words)
{
	struct stat status;

	say_links(actor, stat(path_of(actor, words[0]), &status), &status);
}

static void call_flinks(struct actor *actor, char **words)
{
	struct stat status;

	say_links(actor, fstat(*slot_of(actor, words[0]), &status), &status);
}

/* Whether a descriptor's file is the one of that name, as with-lock-ex and others want to know. */
static void call_same(struct actor *actor, char **words)
{
	struct stat by_fd, by_name;

	if (fstat(*slot_of(actor, words[0]), &by_fd) < 0 ||
		stat(path_of(actor, words[1]), &by_name) < 0)
		say_result(actor, -1);
	else
		say(actor, by_fd.st_dev == by_name.st_dev && by_fd.st_ino == by_name.st_ino ? "yes"
											    : "no");
}

static void call_write(struct actor *actor, char **words)
{
	ssize_t size = pwrite(*slot_of(actor, words[0]), words[1], strlen(words[1]), 0);

	say_result(actor, (int)size);
}

static void call_read(struct actor *actor, char **words)
{
	char text[LINE / 2];
	ssize_t size = pread(*slot_of(actor, words[0]), text, sizeof(text), 0);

	if (size < 0)
		say_result(actor, -1);
	else if (memmem(text, (size_t)size, "token=", 6))
		say(actor, "the record");
	else
		say(actor, "\"%.*s\"", (int)size, text);
}

static void call_truncate(struct actor *actor, char **words)
{
	say_result(actor, ftruncate(*slot_of(actor, words[0]), atoll(words[1])));
}

/* The child has what a child inherits, and a channel of its own. */
static void call_fork(struct actor *actor, char **words)
{
	pid_t pid = fork();

	if (pid == 0) {
		actor->channel = channel_of(words[0][0]) + 1;
		actor->answer[0] = '\0'; /* it is the parent's to give */
	} else {
		say(actor, "%d", (int)pid);
	}
}

/* Goes on as a new program, which has what it inherits. */
static void call_exec(struct actor *actor, char **words)
{
	char state[8 * (SLOTS + 2)], *end = state;

	(void)words;
	end += sprintf(end, "%d %d", actor->channel, actor->number);
	for (int i = 0; i < SLOTS; i++)
		end += sprintf(end, " %d", actor->fds[i]);
	execl("/proc/self/exe", "semantics", "-actor", actor->directory, state, NULL);
	say_result(actor, -1);
}

static const struct {
	const char *name;
	void (*call)(struct actor *, char **);
} calls[] = {
	{"open", call_open},         /* 0 FILE [r|w|rw creat excl trunc ...] */
	{"close", call_close},       /* 0 */
	{"dup", call_dup},           /* 0 1 */
	{"reopen", call_reopen},     /* 0 1: through /proc/self/fd */
	{"pass", call_pass},         /* 0: over a socket, to who receives next */
	{"receive", call_receive},   /* 0 FILE */
	{"flock", call_flock},       /* 0 ex|sh|un [nb] */
	{"fcntl", call_fcntl},       /* 0 set|wait|get|oset|owait|oget r|w|u [START LENGTH] */
	{"lseek", call_lseek},       /* 0 OFFSET set|cur */
	{"unlink", call_unlink},     /* FILE */
	{"link", call_link},         /* FILE FILE */
	{"rename", call_rename},     /* FILE FILE */
	{"symlink", call_symlink},   /* TEXT FILE */
	{"readlink", call_readlink}, /* FILE */
	{"mkdir", call_mkdir},       /* FILE */
	{"rmdir", call_rmdir},       /* FILE */
	{"exists", call_exists},     /* FILE */
	{"links", call_links},       /* FILE */
	{"flinks", call_flinks},     /* 0 */
	{"same", call_same},         /* 0 FILE */
	{"write", call_write},       /* 0 TEXT */
	{"read", call_read},         /* 0 */
	{"truncate", call_truncate}, /* 0 SIZE */
	{"fork", call_fork},         /* WHO: the name of the child */
	{"exec", call_exec},
};

static void carry_out(struct actor *actor, char *line)
{
	char *words[WORDS + 1];

	if (split(line, words) == 0)
		return;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (strcmp(words[0], calls[i].name) == 0) {
			calls[i].call(actor, words + 1);
			return;
		}
	}
	fprintf(stderr, "no call: %s\n", words[0]);
	_exit(2);
}

static void on_signal(int number)
{
	(void)number;
}

void act(struct actor *actor)
{
	struct sigaction interrupting = {.sa_handler = on_signal};
	struct sigaction restarting = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct sigaction reaping = {.sa_handler = SIG_IGN};
	char line[LINE];
	ssize_t size;

	sigaction(SIGUSR1, &interrupting, NULL);
	sigaction(SIGUSR2, &restarting, NULL);
	sigaction(SIGCHLD, &reaping, NULL);
	while ((size = recv(actor->channel, line, sizeof(line) - 1, 0)) > 0) {
		line[size] = '\0';
		carry_out(actor, line);
		if (actor->answer[0])
			send(actor->channel, actor->answer, strlen(actor->answer), 0);
	}
	_exit(0);
}

int act_again(char **argv)
{
	struct actor actor = {.directory = argv[2]};
	char *words[WORDS + 1];

	split(argv[3], words);
	actor.channel = atoi(words[0]);
	actor.number = atoi(words[1]);
	for (int i = 0; i < SLOTS; i++)
		actor.fds[i] = atoi(words[2 + i]);
	send(actor.channel, "ok", 2, 0);
	act(&actor);
}
