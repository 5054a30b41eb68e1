// SPDX-License-Identifier: MIT
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES_ALL = 4000000, SAMPLES_LEAST = 50000 };

enum phase { WARMUP, RECORD, STOP };

/* In memory that all processes share. */
struct stage {
	atomic_int ready;          /* processes that have begun */
	atomic_int phase;          /* enum phase, set by the parent */
	atomic_int inside;         /* who has what only one may have, plus one */
	atomic_int last;           /* who had it before, plus one */
	_Atomic uint64_t released; /* when that one began to give it back */
};

/* What one process measured: shared with the parent, written by that process alone. */
struct record {
	uint64_t cycles;
	size_t used, handed; /* of the arrays; those past the capacity are not kept */
	uint64_t *take, *give, *handover;
};

struct crew {
	const struct load *load;
	struct stage *stage;
	struct record *records;
	size_t capacity; /* of each array */
	int gate[2];     /* closed when all may start */
};

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void sleep_s(double seconds)
{
	struct timespec t = {.tv_sec = (time_t)seconds};

	t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

void fail(const char *what)
{
	perror(what);
	_exit(1);
}

void *zeroed(size_t n, size_t size)
{
	void *memory = calloc(n, size);

	if (!memory)
		fail("calloc");
	return memory;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void print_times(uint64_t *times, size_t n)
{
	qsort(times, n, sizeof(*times), compare);
	printf("{\"n\":%zu", n);
	if (n)
		printf(",\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f", (double)times[n / 2] / 1e3,
			(double)times[n - 1 - n / 100] / 1e3, (double)times[n - 1] / 1e3);
	printf("}");
}

static void *shared(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

/* Having taken: nobody else may have it now.  Returns the time since it was given back. */
static uint64_t enter(struct stage *stage, int who, uint64_t now)
{
	int other = 0;

	if (!atomic_compare_exchange_strong(&stage->inside, &other, who)) {
		fprintf(stderr, "MUTUAL EXCLUSION VIOLATED: %d and %d\n", other - 1, who - 1);
		abort();
	}
	if (!stage->last || stage->last == who)
		return 0;
	return now - stage->released;
}

static void leave(struct stage *stage, int who)
{
	stage->last = who;
	atomic_store(&stage->inside, 0);
	stage->released = now_ns();
}

static void keep(const struct crew *crew, struct record *record, const uint64_t *times)
{
	record->cycles++;
	if (record->used < crew->capacity) {
		record->take[record->used] = times[0];
		record->give[record->used++] = times[1];
	}
	if (times[2] && record->handed < crew->capacity)
		record->handover[record->handed++] = times[2];
}

/* One take and give; times: to take, to give, from the last one's giving to ours. */
static void cycle(const struct crew *crew, int who, void *self, uint64_t *times)
{
	uint64_t start = now_ns();

	crew->load->take(self);
	times[0] = now_ns() - start;
	times[2] = 0;
	if (crew->load->contended) {
		times[2] = enter(crew->stage, who, start + times[0]);
		leave(crew->stage, who);
	}
	start = now_ns();
	crew->load->give(self);
	times[1] = now_ns() - start;
}

static void work(const struct crew *crew, int index)
{
	struct record *record = &crew->records[index];
	uint64_t times[3];
	void *self;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(crew->gate[1]);
	self = crew->load->begin(index);
	crew->stage->ready++;
	if (read(crew->gate[0], &c, 1) < 0)
		fail("gate");
	while (crew->stage->phase != STOP) {
		cycle(crew, index + 1, self, times);
		if (crew->stage->phase == RECORD)
			keep(crew, record, times);
	}
	_exit(0);
}

/* Waits for the children that have ended, or with block for all; whether one failed. */
static bool reap(bool block)
{
	int status;

	while (waitpid(-1, &status, block ? 0 : WNOHANG) > 0)
		if (status)
			return true;
	return false;
}

static bool start(struct crew *crew)
{
	if (pipe(crew->gate) < 0)
		fail("pipe");
	for (int i = 0; i < crew->load->processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (!pid)
			work(crew, i);
	}
	close(crew->gate[0]);
	while (crew->stage->ready < crew->load->processes) {
		if (reap(false))
			return false;
		sleep_s(0.001);
	}
	close(crew->gate[1]);
	return true;
}

static void print_all(const struct crew *crew, const char *name, size_t array)
{
	size_t n = 0, room = 0;
	uint64_t *all;

	for (int i = 0; i < crew->load->processes; i++)
		room += crew->records[i].used + crew->records[i].handed;
	all = zeroed(room + 1, sizeof(*all));
	for (int i = 0; i < crew->load->processes; i++) {
		const struct record *r = &crew->records[i];
		const uint64_t *const arrays[] = {r->take, r->give, NULL, r->handover};

		for (size_t k = 0; k < (array == 3 ? r->handed : r->used); k++)
			all[n++] = array == 2 ? r->take[k] + r->give[k] : arrays[array][k];
	}
	printf(",\"%s\":", name);
	print_times(all, n);
	free(all);
}

static void print_line(const struct crew *crew, double seconds)
{
	static const char *const names[] = {"take", "give", "pair", "handover"};
	uint64_t cycles = 0;

	for (int i = 0; i < crew->load->processes; i++)
		cycles += crew->records[i].cycles;
	printf("{\"rate\":%.3f", (double)cycles / seconds);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		print_all(crew, names[i], i);
	printf("}\n");
}

static void make_records(struct crew *crew)
{
	size_t processes = (size_t)crew->load->processes;

	crew->capacity = SAMPLES_ALL / processes;
	if (crew->capacity < SAMPLES_LEAST)
		crew->capacity = SAMPLES_LEAST;
	crew->records = shared(processes * sizeof(*crew->records));
	for (size_t i = 0; i < processes; i++) {
		struct record *r = &crew->records[i];

		/* Only the pages that are written to take memory. */
		r->take = shared(3 * crew->capacity * sizeof(uint64_t));
		r->give = r->take + crew->capacity;
		r->handover = r->give + crew->capacity;
	}
}

int load_run(const struct load *load)
{
	struct crew crew = {.load = load, .stage = shared(sizeof(*crew.stage))};
	uint64_t begun;
	double seconds;

	make_records(&crew);
	if (!start(&crew))
		return 1;
	sleep_s(load->warmup);
	begun = now_ns();
	crew.stage->phase = RECORD;
	sleep_s(load->seconds);
	crew.stage->phase = STOP;
	seconds = (double)(now_ns() - begun) / 1e9;
	if (reap(true))
		return 1;
	print_line(&crew, seconds);
	return 0;
}
