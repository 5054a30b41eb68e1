/* SPDX-License-Identifier: MIT */
/*
 * A terminal that is used as a screen for a while and then is as it was.
 *
 * Text is UTF-8.  Nothing that comes from outside gets to the terminal but through text_add.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

struct buffer;

/* A zeroed struct is a terminal that was not taken. */
struct terminal {
	bool is_taken, has_modes;
	struct termios before;
};

/* Standard output becomes a screen, and keys come by standard input at once, without an echo. */
void terminal_take(struct terminal *terminal);
/* The modes once more, which a shell may have changed while this process was stopped. */
void terminal_retake(struct terminal *terminal);
/* All as it was.  Harmless if it was not taken. */
void terminal_leave(struct terminal *terminal);

struct terminal_size {
	size_t lines, columns;
};
/* Of standard output; 24 to 80 if it does not know. */
struct terminal_size terminal_size(void);

/*
 * Shows a page from the upper left corner on and nothing else.  Lines that are too long are cut,
 * and so are lines too many.  One that begins with TERMINAL_HEADING is a heading.
 * False, with errno set, if there is no terminal any more.
 */
enum { TERMINAL_HEADING = '\1' };
bool terminal_show(const char *page, struct terminal_size size);
/* The same where there is no screen: all of it. */
void terminal_print(const char *page);

enum text_side { TEXT_LEFT, TEXT_RIGHT };
/*
 * Adds a text: what a terminal must not see is '?' there.  It gets blanks so that it takes `width`
 * columns, at its right or (TEXT_RIGHT) its left; longer ones stay as they are.
 */
void text_add(struct buffer *to, const char *text, size_t width, enum text_side side);
