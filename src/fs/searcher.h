/* SPDX-License-Identifier: MIT */
/* The other half of search.h: what its helper processes do, and are told. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* Then come the targets, each with its openers. */
struct searcher_request {
	uint64_t size; /* of these, in bytes */
	uint64_t target_count;
};

/* SEARCHER_END: it was all. */
enum { SEARCHER_END = INT32_MAX };
struct searcher_found {
	uint32_t target;
	int32_t pid;
};

/* One to each, in their order. */
struct searcher_verdict {
	int32_t signal; /* 0: none */
};

/*
 * In a child of the process `parent`, with which it ends: does what comes by that socket, each in a
 * process of its own: one end of a pair of stream sockets, by which the request comes.
 */
_Noreturn void searcher_run(int socket, pid_t parent, const char *mount_point);
