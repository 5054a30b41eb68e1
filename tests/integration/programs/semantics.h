// SPDX-License-Identifier: MIT
/*
 * What the director of semantics.c and its actors share.
 *
 * Each actor has a socket pair: a step goes in as one message, its answer comes back as one.  The
 * descriptors have fixed numbers, so that forked and executed actors find theirs.
 */
#pragma once

#include <stddef.h>

enum {
	SLOTS = 8, /* descriptors of an actor */
	WORDS = 16,
	LINE = 256,
	FIRST_CHANNEL = 100,
	MAIL = 90, /* the socket pair by which they hand descriptors to each other */
};

#define ACTORS "abcde"

struct actor {
	int channel;
	int number; /* of the case */
	const char *directory;
	int fds[SLOTS];
	char path[512], other[512]; /* of path_of() */
	char answer[LINE];
};

/* The director's end of an actor's socket pair; the actor's is the next number. */
int channel_of(char who);

/* Takes a line apart; returns the number of words, which end with a NULL. */
int split(char *line, char *words[WORDS + 1]);

/* Each case has files of its own: d/x of case 7 is d/7.x. */
void compose(char *path, size_t size, const char *directory, int number, const char *name);

/* Carries steps out until it is killed. */
void act(struct actor *actor) __attribute__((noreturn));

/* The main function of an actor that goes on in a new program. */
int act_again(char **argv);
