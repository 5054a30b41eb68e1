// SPDX-License-Identifier: MIT
/*
 * locks [-m MODE] [-n PROCESSES] [-c] [-s SECONDS] [-w WARMUP] DIRECTORY...
 *
 * Processes that lock files, each its own or with -c all the same one.  Process i uses the i-th
 * directory, around and around.  The modes:
 *
 *   flock   flock(LOCK_EX) and flock(LOCK_UN) on a descriptor that stays open (the default)
 *   close   open and flock(LOCK_EX), then just close
 *   excl    open(O_CREAT | O_EXCL), then close
 */
#include "load.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* One process's lock. */
struct lock {
	char path[4096];
	int fd;
};

/* What the command line says; the processes inherit it. */
static struct load load = {.processes = 1, .warmup = 0.5, .seconds = 2};
static const char *mode = "flock";
static char **directories;
static int directory_count;

static int open_lock(const struct lock *lock, int flags)
{
	int fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0666);

	if (fd < 0)
		fail(lock->path);
	return fd;
}

static void *begin(int index)
{
	struct lock *lock = zeroed(1, sizeof(*lock));

	snprintf(lock->path, sizeof(lock->path), "%s/lock-%d", directories[index % directory_count],
		load.contended ? 0 : index);
	if (!strcmp(mode, "flock"))
		lock->fd = open_lock(lock, 0);
	return lock;
}

static void take_flock(void *self)
{
	struct lock *lock = self;

	if (flock(lock->fd, LOCK_EX) < 0)
		fail("flock");
}

static void give_flock(void *self)
{
	struct lock *lock = self;

	if (flock(lock->fd, LOCK_UN) < 0)
		fail("unlock");
}

static void take_opened(void *self)
{
	struct lock *lock = self;

	lock->fd = open_lock(lock, 0);
	take_flock(self);
}

static void take_exclusive(void *self)
{
	struct lock *lock = self;

	lock->fd = open_lock(lock, O_EXCL);
}

static void give_closed(void *self)
{
	struct lock *lock = self;

	if (close(lock->fd) < 0)
		fail("close");
}

static const struct {
	const char *name;
	void (*take)(void *self);
	void (*give)(void *self);
} modes[] = {
	{"flock", take_flock, give_flock},
	{"close", take_opened, give_closed},
	{"excl", take_exclusive, give_closed},
};

static bool choose_mode(void)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		if (strcmp(mode, modes[i].name) != 0)
			continue;
		load.take = modes[i].take;
		load.give = modes[i].give;
		return true;
	}
	return false;
}

static bool parse(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "m:n:cs:w:")) != -1) {
		if (c == 'm')
			mode = optarg;
		else if (c == 'n')
			load.processes = atoi(optarg);
		else if (c == 'c')
			load.contended = true;
		else if (c == 's')
			load.seconds = atof(optarg);
		else if (c == 'w')
			load.warmup = atof(optarg);
		else
			return false;
	}
	directories = argv + optind;
	directory_count = argc - optind;
	return directory_count > 0 && load.processes > 0 && choose_mode();
}

int main(int argc, char **argv)
{
	load.begin = begin;
	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: see the head of locks.c\n");
		return 2;
	}
	return load_run(&load);
}
