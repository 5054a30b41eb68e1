/* SPDX-License-Identifier: MIT */
#include "commands/terminal.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/util.h"

/* As xterm(1) has them, and everything that calls itself one: the other screen, the cursor. */
static const char take_screen[] = "\033[?1049h\033[?25l";
static const char leave_screen[] = "\033[?25h\033[?1049l";
static const char home[] = "\033[H";
static const char clear_line[] = "\033[K", clear_below[] = "\033[J";
static const char reverse[] = "\033[7m", plain[] = "\033[m";

/* --- taking and leaving --- */

static bool put(const char *text, size_t size)
{
	return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

static void set_modes(const struct terminal *terminal)
{
	struct termios modes = terminal->before;

	/* Keys that are signals stay that. */
	modes.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	modes.c_cc[VMIN] = 1;
	modes.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &modes);
}

void terminal_take(struct terminal *terminal)
{
	if (terminal->is_taken)
		return;
	terminal->is_taken = true;
	terminal->has_modes = tcgetattr(STDIN_FILENO, &terminal->before) == 0;
	if (terminal->has_modes)
		set_modes(terminal);
	put(take_screen, strlen(take_screen));
}

void terminal_retake(struct terminal *terminal)
{
	if (terminal->is_taken && terminal->has_modes)
		set_modes(terminal);
}

void terminal_leave(struct terminal *terminal)
{
	if (!terminal->is_taken)
		return;
	terminal->is_taken = false;
	put(leave_screen, strlen(leave_screen));
	/* What was typed for us is not for the shell. */
	if (terminal->has_modes)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal->before);
}

struct terminal_size terminal_size(void)
{
	struct winsize size = {0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
		return (struct terminal_size){.lines = 24, .columns = 80};
	return (struct terminal_size){.lines = size.ws_row, .columns = size.ws_col};
}

/* --- text --- */

struct interval {
	uint32_t first, last;
};

/* Two columns: what is ideographic, and pictures. */
static const struct interval wide[] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},
	{0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60}, {0xffe0, 0xffe6}, {0x1f300, 0x1faff},
	{0x20000, 0x3fffd}};
/* None: what is put above or below others. */
static const struct interval combining[] = {{0x300, 0x36f}, {0x483, 0x489}, {0x1ab0, 0x1aff},
	{0x1dc0, 0x1dff}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
/* Printable, as Unicode sees it, but it moves what stands around it, or can't be seen. */
static const struct interval odd[] = {{0xad, 0xad}, {0x61c, 0x61c}, {0x200b, 0x200f},
	{0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}};

static bool is_in(const struct interval *list, size_t count, uint32_t character)
{
	for (size_t i = 0; i < count; i++) {
		if (character >= list[i].first && character <= list[i].last)
			return true;
	}
	return false;
}

/* Of valid UTF-8. */
static uint32_t decode(const char *text, size_t length)
{
	uint32_t character = (unsigned char)*text;

	if (length > 1)
		character &= 0x7fu >> length;
	for (size_t i = 1; i < length; i++)
		character = character << 6 | ((unsigned char)text[i] & 0x3f);
	return character;
}

/* Steps over a character; its width, or -1 if it must not be shown. */
static int step(const char **text)
{
	const char *begin = *text;

	if (!skip_printable(text))
		return -1;
	uint32_t character = decode(begin, (size_t)(*text - begin));
	if (is_in(odd, ARRAY_SIZE(odd), character))
		return -1;
	if (is_in(combining, ARRAY_SIZE(combining), character))
		return 0;
	return is_in(wide, ARRAY_SIZE(wide), character) ? 2 : 1;
}

void text_add(struct buffer *to, const char *text, size_t width, enum text_side side)
{
	struct buffer clean = {0};
	size_t used = 0;

	while (*text) {
		const char *begin = text;
		int columns = step(&text);
		if (columns < 0)
			buffer_add_string(&clean, "?");
		else
			buffer_add(&clean, begin, (size_t)(text - begin));
		used += columns < 0 ? 1 : (size_t)columns;
	}
	cleanup(free_ptr) char *result = buffer_take(&clean);
	int blanks = used < width ? (int)(width - used) : 0;
	if (side == TEXT_RIGHT)
		buffer_addf(to, "%*s%s", blanks, "", result);
	else
		buffer_addf(to, "%s%*s", result, blanks, "");
}

/* --- pages --- */

/* How many bytes of the line fit. */
static size_t cut(const char *line, size_t columns)
{
	const char *at = line;

	while (*at && *at != '\n') {
		const char *next = at;
		int width = step(&next);
		if ((width < 0 ? 1 : (size_t)width) > columns)
			break;
		columns -= width < 0 ? 1 : (size_t)width;
		at = next;
	}
	return (size_t)(at - line);
}

bool terminal_show(const char *page, struct terminal_size size)
{
	struct buffer screen = {0};

	buffer_add_string(&screen, home);
	for (size_t i = 0; *page && i < size.lines; i++) {
		bool is_heading = *page == TERMINAL_HEADING;
		page += is_heading;
		buffer_add_string(&screen, i ? "\r\n" : "");
		buffer_add_string(&screen, is_heading ? reverse : "");
		/* Behind a line that is full the cursor would stand on its last character, and
		 * clear it. */
		buffer_add(&screen, page, cut(page, size.columns - 1));
		buffer_add_string(&screen, is_heading ? plain : "");
		buffer_add_string(&screen, clear_line);
		page += strcspn(page, "\n");
		page += *page == '\n';
	}
	buffer_add_string(&screen, clear_below);
	bool is_shown = put(screen.data, screen.size);
	buffer_fini(&screen);
	return is_shown;
}

void terminal_print(const char *page)
{
	for (; *page; page++) {
		if (*page != TERMINAL_HEADING)
			putchar(*page);
	}
}
