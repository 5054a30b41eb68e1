/* SPDX-License-Identifier: MIT */
/*
 * Attributes that a thread was told a moment ago, for when the kernel asks again in the same call.
 *
 * stat(2) is two requests: the kernel looks the name up, and then asks for the attributes that it
 * was just given.  The second one is answered from here if it comes from the same thread within
 * half a millisecond and nobody has the file open: then it can't be an fstat(2), but of a
 * descriptor that was opened with O_PATH, which the daemon does not see.  Each note is good for one
 * question.
 *
 * That there is no such name is never answered from memory: another machine may have taken the lock
 * meanwhile, and said so.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

struct request;

struct look {
	uint64_t inode;
	pid_t thread;       /* 0: there is no note */
	struct timespec at; /* on CLOCK_MONOTONIC */
	struct stat attr;
};

enum { LOOKS = 16 };

/* The caller, who looked a name up, was told this. */
void look_note(const struct request *request, uint64_t inode, const struct stat *attr);

/* True if the caller, who asks for the attributes of request->node, was just told *attr. */
bool look_found(const struct request *request, struct stat *attr);
