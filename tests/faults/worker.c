// SPDX-License-Identifier: MIT
/*
 * worker NAME SEED LOCKS HISTORY REGISTERS DIRECTORY: takes the locks 0..LOCKS-1 of a mount in
 * every way there is, at random, holds them for a while, and writes down what it sees (history.py
 * says how).  Ends in good order on SIGTERM; may be killed at any time.
 *
 * Of the lock LOCKS it wants mostly parts: some of its first PARTS bytes.
 *
 * worker ... sit LOCK: takes that one again and again and holds it for long.  If it is lost, goes
 * on as if it were not, until the register refuses that.
 *
 * worker ... visit LOCK: waits for that one again and again and holds it only for a moment.
 *
 * worker held NAME LOCK HISTORY: for who is called while something else holds that lock; writes
 * that down.
 *
 * A register is a file of entries of 64 bytes, "TOKEN read" or "TOKEN VALUE", which is only
 * appended to, under a local lock.  It refuses whom it knows to be late: a token below the last
 * one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENTRY = 64, MS = 1000000 };
/* So many bytes of a lock are locked each for itself. */
enum { PARTS = 4 };
/* After so long somebody else ought to have a lock that was lost. */
enum { PERSISTS = 20000 };

static int history, directory, registers;
static unsigned int seed;
static unsigned long number; /* of the request */
static bool sits, visits;
static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
	if (signal == SIGTERM)
		stop = 1;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 * MS + (uint64_t)time.tv_nsec;
}

static void rest(uint64_t nanoseconds)
{
	struct timespec time = {.tv_sec = (time_t)(nanoseconds / (1000 * MS)),
		.tv_nsec = nanoseconds % (1000 * MS)};

	nanosleep(&time, NULL);
}

static unsigned int below(unsigned int limit)
{
	return (unsigned int)rand_r(&seed) % limit;
}

static void fail(const char *what)
{
	perror(what);
	_exit(2);
}

/* One line, in one write: a killed worker leaves whole lines. */
static void note_at(uint64_t time, const char *format, ...)
{
	char line[256];
	int length = snprintf(line, sizeof(line), "%" PRIu64 " ", time);
	va_list arguments;

	va_start(arguments, format);
	length += vsnprintf(line + length, sizeof(line) - (size_t)length, format, arguments);
	va_end(arguments);
	line[length++] = '\n';
	if (write(history, line, (size_t)length) != length)
		fail("history");
}

/* --- the register --- */

struct entry {
	uint64_t token, value;
};

/* The newest token and the value; the register is locked. */
static struct entry newest(int fd)
{
	struct entry found = {0};
	char text[ENTRY + 1] = "";
	off_t end = lseek(fd, 0, SEEK_END);
	bool has_token = false;

	for (; end >= ENTRY; end -= ENTRY) {
		unsigned long long token, value;
		if (pread(fd, text, ENTRY, end - ENTRY) != ENTRY)
			fail("register");
		int fields = sscanf(text, "%llu %llu", &token, &value);
		if (!has_token)
			found.token = token;
		has_token = true;
		if (fields == 2) {
			found.value = value;
			break;
		}
	}
	return found;
}

static void append(int fd, uint64_t token, const char *what)
{
	char text[ENTRY + 1];

	snprintf(text, sizeof(text), "%-20" PRIu64 " %-42s\n", token, what);
	if (write(fd, text, ENTRY) != ENTRY)
		fail("register");
}

static int open_register(unsigned int lock)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", lock);
	int fd = openat(registers, name, O_RDWR | O_CREAT | O_APPEND, 0666);
	if (fd < 0)
		fail(name);
	while (flock(fd, LOCK_EX) < 0)
		;
	return fd;
}

/* False if the register has seen a larger token. */
static bool register_read(unsigned int lock, uint64_t token, uint64_t *value)
{
	int fd = open_register(lock);
	struct entry entry = newest(fd);
	bool fresh = entry.token <= token;

	if (fresh)
		append(fd, token, "read");
	*value = entry.value;
	close(fd);
	return fresh;
}

static bool register_write(unsigned int lock, uint64_t token, uint64_t value)
{
	char text[24];
	int fd = open_register(lock);
	bool fresh = newest(fd).token <= token;

	snprintf(text, sizeof(text), "%" PRIu64, value);
	if (fresh)
		append(fd, token, text);
	close(fd);
	return fresh;
}

/* Adds 1, as a client does that trusts its lock, and takes its time; false if it is refused. */
static bool count(unsigned int lock, uint64_t token, uint64_t pause)
{
	uint64_t value;
	bool fresh = register_read(lock, token, &value);

	if (fresh) {
		rest(pause);
		fresh = register_write(lock, token, value + 1);
	}
	if (fresh)
		note_at(now(), "write %lu %" PRIu64 " %" PRIu64, number, token, value + 1);
	else
		note_at(now(), "stale %lu %" PRIu64, number, token);
	return fresh;
}

/* --- holding --- */

enum how { WAIT, TRY, TIMED, CREATE, POSIX, RANGE, TRY_RANGE, SIT, VISIT, INHERIT };

static const char *const how_names[] = {
	"wait", "try", "timed", "create", "posix", "range", "tryrange", "sit", "visit", "inherit"};

/* What is asked for. */
struct wish {
	unsigned int lock;
	enum how how;
	bool shared;
	unsigned int start, length; /* of bytes; a length of 0 is the whole file */
};

/* The token as the handle's own record says it; 0 with errno if the lock is lost. */
static uint64_t read_token(int fd)
{
	char text[1024];
	unsigned long long token;
	ssize_t size = pread(fd, text, sizeof(text) - 1, 0);

	if (size < 0)
		return 0;
	text[size] = '\0';
	if (sscanf(text, "token=%llu", &token) == 1)
		return token;
	errno = EPROTO;
	return 0;
}

/* Looks again and again whether the lock is held, until `end`; 0, or the error that says no. */
static int watch_over(int fd, uint64_t token, uint64_t end)
{
	uint64_t noted = 0;

	for (;;) {
		uint64_t begun = now();
		uint64_t seen = read_token(fd);
		if (!seen && errno == EINTR && !stop)
			continue;
		if (seen != token) {
			int error = seen ? EPROTO : errno;
			note_at(now(), "lost %lu %d", number, error);
			return error;
		}
		bool last = begun >= end || stop;
		if (last || begun > noted + 20 * MS) {
			note_at(begun, "seen %lu", number);
			noted = begun;
		}
		if (last)
			return 0;
		rest((1 + below(4)) * MS);
	}
}

static uint64_t some_time(void)
{
	unsigned int dice = below(100);

	if (sits)
		return (2000 + below(8000)) * (uint64_t)MS;
	if (visits || dice < 80)
		return below(10) * MS;
	if (dice < 98)
		return below(100) * (uint64_t)MS;
	return below(4000) * (uint64_t)MS;
}

/* What a client does that has not heard of its loss. */
static void persist(unsigned int lock, uint64_t token)
{
	uint64_t end = now() + PERSISTS * (uint64_t)MS;

	while (!stop && now() < end && count(lock, token, 0))
		rest(50 * MS);
}

/* What one does with a lock.  One in fifty does not look whether it is still held. */
static void hold(int fd, const struct wish *wish, uint64_t token)
{
	/* A register is for one client at a time. */
	bool counts = !wish->shared && !wish->length;

	if (counts && !sits && !visits && below(50) == 0) {
		count(wish->lock, token, below(8000) * (uint64_t)MS);
		return;
	}
	uint64_t half = some_time() / 2;
	int error = watch_over(fd, token, now() + half);
	if (!error) {
		if (counts)
			count(wish->lock, token, below(3) * (uint64_t)MS);
		error = watch_over(fd, token, now() + half);
	}
	if (error == EIO && sits)
		persist(wish->lock, token);
}

/* --- taking --- */

static enum how some_way(void)
{
	unsigned int dice = below(100);

	return dice < 50 ? WAIT : dice < 70 ? TRY : dice < 80 ? TIMED : dice < 90 ? CREATE : POSIX;
}

static int set_range(int fd, int command, short type, const struct wish *wish)
{
	struct flock range = {.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = wish->start,
		.l_len = wish->length};

	return fcntl(fd, command, &range);
}

static void set_timer(unsigned int milliseconds)
{
	struct itimerval timer = {.it_value.tv_usec = milliseconds * 1000};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static int take(int fd, const struct wish *wish)
{
	int kind = wish->shared ? LOCK_SH : LOCK_EX, result;
	short type = wish->shared ? F_RDLCK : F_WRLCK;

	switch (wish->how) {
	case POSIX:
	case RANGE:
	case INHERIT:
		return set_range(fd, F_SETLKW, type, wish);
	case TRY_RANGE:
		return set_range(fd, F_SETLK, type, wish);
	case TRY:
		return flock(fd, kind | LOCK_NB);
	case TIMED:
		set_timer(1 + below(200));
		result = flock(fd, kind);
		set_timer(0);
		return result;
	case WAIT:
	case SIT:
	case VISIT:
	case CREATE:
		break;
	}
	return flock(fd, kind);
}

/* Opens the lock file and takes the lock; 0 or the error. */
static int open_and_take(int *fd, const struct wish *wish)
{
	int flags = O_RDWR | O_CREAT | (wish->how == CREATE ? O_EXCL : 0);
	char name[16];

	snprintf(name, sizeof(name), "%u", wish->lock);
	*fd = openat(directory, name, flags, 0666);
	if (*fd < 0 || (wish->how != CREATE && take(*fd, wish) < 0))
		return errno;
	return 0;
}

/* A lock file is given back by closing, the others mostly before that. */
static void give_back(int fd, const struct wish *wish)
{
	note_at(now(), "release %lu", number);
	if (wish->how == CREATE || below(4) == 0)
		return;
	if (wish->how == POSIX || wish->how == INHERIT || wish->length)
		set_range(fd, F_SETLK, F_UNLCK, wish);
	else
		flock(fd, LOCK_UN);
}

/* Holds what was granted, and gives it back; 0 or the error with which it was lost at once. */
static int use(int fd, const struct wish *wish, uint64_t answered)
{
	uint64_t token = read_token(fd);
	int error = token ? 0 : errno;

	note_at(answered, "granted %lu %" PRIu64, number, token);
	if (token)
		hold(fd, wish, token);
	else
		note_at(now(), "lost %lu %d", number, error);
	give_back(fd, wish);
	close(fd);
	note_at(now(), "released %lu", number);
	return error;
}

static void note_call(const struct wish *wish)
{
	char part[32] = "";

	if (wish->length)
		snprintf(part, sizeof(part), " %u %u", wish->start, wish->start + wish->length - 1);
	note_at(now(), "call %lu %u %c %s%s", number, wish->lock, wish->shared ? 'S' : 'X',
		how_names[wish->how], part);
}

/* One request; 0 or the error. */
static int cycle(const struct wish *wish)
{
	int fd;

	number++;
	note_call(wish);
	int error = open_and_take(&fd, wish);
	uint64_t answered = now();
	if (!error)
		return use(fd, wish, answered);
	note_at(answered, "refused %lu %d %s", number, error,
		fd < 0 || wish->how == CREATE ? "open" : "lock");
	if (fd >= 0)
		close(fd);
	return error;
}

/* One that has inherited the descriptor, and ends with its parent; its requests have a number each.
 */
static void be_heir(int fd, unsigned int lock)
{
	struct wish wish = {.lock = lock, .how = INHERIT};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	note_call(&wish);
	if (take(fd, &wish) < 0)
		note_at(now(), "refused %lu %d lock", number, errno);
	else
		use(fd, &wish, now());
	_exit(0);
}

/*
 * Children that lock, one after the other, through a descriptor that has the lock already.  How it
 * came to that is not written down; 0 or the error with which it did not.
 */
static int bequeath(unsigned int lock)
{
	enum { HEIRS = 2 };
	struct wish wish = {.lock = lock, .how = below(2) ? WAIT : CREATE};
	int fd, error = open_and_take(&fd, &wish);

	for (int heir = 0; !error && heir < HEIRS; heir++) {
		number++;
		seed++;
		if (fork() == 0)
			be_heir(fd, lock);
	}
	while (wait(NULL) > 0 || errno == EINTR)
		;
	if (fd >= 0)
		close(fd);
	return error;
}

/* The mount itself, so that later nothing but this mount is ever asked.  False if it is dead. */
static bool open_mount(const char *path)
{
	while (!stop) {
		directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (directory >= 0)
			return true;
		if (errno != EIO && errno != EACCES)
			return false;
		rest(20 * MS);
	}
	return false;
}

/* locks: how many there are beside the one for parts; or which one a client sits on or visits. */
static struct wish some_wish(unsigned int locks)
{
	struct wish wish = {.lock = locks, .how = sits ? SIT : VISIT};

	if (sits || visits)
		return wish;
	wish.lock = below(locks + 1);
	wish.how = some_way();
	if (wish.lock == locks && below(4) > 0) {
		wish.how = below(3) ? RANGE : TRY_RANGE;
		wish.start = below(PARTS);
		wish.length = 1 + below(PARTS - wish.start);
	}
	wish.shared = wish.how != CREATE && below(4) == 0;
	return wish;
}

static void work(unsigned int locks)
{
	while (!stop) {
		struct wish wish = some_wish(locks);
		bool inherits = !sits && !visits && wish.lock < locks && below(10) == 0;
		int error = inherits ? bequeath(wish.lock) : cycle(&wish);
		/* A mount that has died is not coming back for us. */
		if (error == ENOTCONN || error == ECONNABORTED)
			return;
		/* A store that is away is not asked in a tight loop. */
		rest(error == 0 || error == EWOULDBLOCK ? below(3) * (uint64_t)MS : 20 * MS);
	}
}

static int held(char **argv)
{
	history = open(argv[4], O_WRONLY | O_CREAT | O_APPEND, 0666);
	if (history < 0)
		fail(argv[4]);
	number = (unsigned long)now();
	note_at(now(), "call %lu %s X mutex", number, argv[3]);
	note_at(now(), "granted %lu 0", number);
	rest(5 * MS);
	note_at(now(), "seen %lu", number);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction alarm = {.sa_handler = on_signal}; /* interrupts what waits */
	struct sigaction end = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	if (argc == 5 && strcmp(argv[1], "held") == 0)
		return held(argv);
	sits = argc == 9 && strcmp(argv[7], "sit") == 0;
	visits = argc == 9 && strcmp(argv[7], "visit") == 0;
	if (argc != 7 && !sits && !visits)
		return 2;
	sigaction(SIGALRM, &alarm, NULL);
	sigaction(SIGTERM, &end, NULL);
	seed = (unsigned int)strtoul(argv[2], NULL, 10);
	unsigned int locks = (unsigned int)strtoul(argv[argc == 9 ? 8 : 3], NULL, 10);
	history = open(argv[4], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	registers = open(argv[5], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (history < 0 || registers < 0)
		fail(argv[1]);
	if (open_mount(argv[6]))
		work(locks);
	note_at(now(), "end");
	return 0;
}
