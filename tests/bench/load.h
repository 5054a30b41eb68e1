/* SPDX-License-Identifier: MIT */
/*
 * What the load programs share: processes that take something and give it back, again and again,
 * and what is said about the time that took.
 *
 * A program fills a struct load and calls load_run, which prints one line of JSON:
 *
 *   {"rate":R,"take":T,"give":T,"pair":T,"handover":T}
 *
 * R in cycles a second; T is {"n":N,"p50":X,"p99":X,"max":X}, in microseconds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load {
	int processes;
	double warmup, seconds;    /* what is not counted, then what is */
	bool contended;            /* all take the same thing, which only one may have at a time */
	void *(*begin)(int index); /* in process number index; its result is for the others */
	void (*take)(void *self);  /* these end the process when they fail */
	void (*give)(void *self);
};

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t now_ns(void);

/* Sleeps for that many seconds. */
void sleep_s(double seconds);

/* Tells what failed, by errno, and ends the process with status 1. */
_Noreturn void fail(const char *what);

/* Memory of zeros; ends the process if there is none. */
void *zeroed(size_t n, size_t size);

/* Sorts times in nanoseconds and prints them as a T of the comment above. */
void print_times(uint64_t *times, size_t n);

/*
 * Runs the load and prints its line.  Returns 0, or 1 if a process failed or two had what only one
 * may have; standard error says which.
 */
int load_run(const struct load *load);
