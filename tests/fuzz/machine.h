/* SPDX-License-Identifier: MIT */
/*
 * In place of event/: a loop whose time is what the test says, and HTTP requests that the test
 * answers.  Nothing happens but within the functions below.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct http_request;
struct loop;
struct machine;

/* There is one at a time. */
struct machine *machine_new(void);
/* Fails if a timer, a task or a request is left. */
void machine_free(struct machine *machine);
struct loop *machine_loop(struct machine *machine);

/* Runs what is due and what was put off, until there is nothing more of it. */
void machine_settle(struct machine *machine);
/* So many milliseconds pass at once. */
void machine_advance(struct machine *machine, int64_t milliseconds);

/* Of the requests under way, which are not streams, the one of that number (modulo). */
void machine_answer(struct machine *machine, unsigned int number, int status, const char *body);
void machine_fail(struct machine *machine, unsigned int number, int error);

/* The stream that was opened last; NULL if there is none. */
struct http_request *machine_stream(struct machine *machine);
void machine_stream_data(struct machine *machine, const char *data, size_t size);
/* Ends it: error as in http_result. */
void machine_stream_end(struct machine *machine, int error, int status, const char *body);
