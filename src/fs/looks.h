/* SPDX-License-Identifier: MIT */
/*
 * What a thread was told of a name a moment ago, for when the kernel asks again in the same call.
 *
 * The kernel looks a name up twice if it knew it before: to find that it has gone, and then to
 * create it; and behind most looks it asks for the attributes that it was just given.  For one
 * thread within half a millisecond that is one look: in less, nobody elsewhere can hear of the
 * first and take the lock.  Each note is good for one question.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

struct request;

struct look {
	uint64_t inode;
	pid_t thread;
	struct timespec at; /* on CLOCK_MONOTONIC */
	bool found;
	struct stat attr; /* if found */
};

enum { LOOKS = 16 };

/* The caller was told that there is no such name (attr NULL), or what it is. */
void look_note(const struct request *request, uint64_t inode, const struct stat *attr);

/* True if the caller was just told that there is no such name. */
bool look_missed(const struct request *request, uint64_t inode);

/* True if it was just told *attr. */
bool look_found(const struct request *request, uint64_t inode, struct stat *attr);
