/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#include "base/outlet.h"

enum {
	LOG_REPEAT_MS = 60 * 1000,
	/* Of one user and about one thing in that time. */
	LOG_BUDGET = 20,
	LOG_BUDGETS = 64,
};

struct log_budget {
	const char *about;
	uint64_t user;
	int64_t since; /* 0: free */
	unsigned long spent;
};

static enum log_level max_level = LOG_LEVEL_INFO;
static struct outlet outlet;
static unsigned long lost;
/* The last one is for whoever finds no other. */
static struct log_budget budgets[LOG_BUDGETS + 1];

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_to_syslog(void)
{
	/* Now, while there is a descriptor for it. */
	outlet_open_syslog(&outlet);
}

int log_wants(enum log_level level)
{
	return level <= max_level;
}

bool log_is_due(int64_t *last, int64_t now)
{
	if (*last && now - *last < LOG_REPEAT_MS)
		return false;
	*last = now;
	return true;
}

/* --- lines --- */

/* Names of locks come from anybody: they must not be able to forge a line or drive a terminal. */
static void make_printable(char *text)
{
	for (; *text; text++) {
		if (iscntrl((unsigned char)*text))
			*text = '?';
	}
}

static bool write_out(enum log_level level, const char *text)
{
	static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	if (outlet.kind == OUTLET_NONE)
		outlet_open(&outlet, STDERR_FILENO);
	return outlet_line(&outlet, LOG_DAEMON | priority[level], text);
}

/* Returns whether the reader knows by now of all that it has missed. */
static bool tell_of_loss(void)
{
	char text[128];

	if (!lost)
		return true;
	snprintf(text, sizeof(text), "warning: %lu lines of the log were lost: nobody took them",
		lost);
	if (!write_out(LOG_LEVEL_WARNING, text))
		return false;
	lost = 0;
	return true;
}

void log_line(enum log_level level, const char *format, ...)
{
	static const char *const label[] = {"error: ", "warning: ", "", "trace: "};
	char text[2048];
	va_list args;

	if (!log_wants(level))
		return;
	int size = snprintf(text, sizeof(text), "%s", label[level]);
	va_start(args, format);
	vsnprintf(text + size, sizeof(text) - (size_t)size, format, args);
	va_end(args);
	make_printable(text);
	if (!tell_of_loss() || !write_out(level, text))
		lost++;
}

/* --- lines that users cause --- */

static void close_budget(struct log_budget *budget)
{
	const struct log_budget closed = *budget;

	*budget = (struct log_budget){0};
	if (closed.spent <= LOG_BUDGET)
		return;
	if (budget == &budgets[LOG_BUDGETS])
		log_info("%lu more lines about what other users do were left out",
			closed.spent - LOG_BUDGET);
	else
		log_info("%lu more lines about %s, by user %llu, were left out",
			closed.spent - LOG_BUDGET, closed.about, (unsigned long long)closed.user);
}

static bool has_passed(const struct log_budget *budget, int64_t now)
{
	return budget->since && now - budget->since >= LOG_REPEAT_MS;
}

static struct log_budget *find_budget(const char *about, uint64_t user)
{
	struct log_budget *unused = &budgets[LOG_BUDGETS];

	for (size_t i = 0; i < LOG_BUDGETS; i++) {
		if (budgets[i].since && budgets[i].about == about && budgets[i].user == user)
			return &budgets[i];
		if (!budgets[i].since && unused == &budgets[LOG_BUDGETS])
			unused = &budgets[i];
	}
	return unused;
}

bool log_admits(const char *about, uint64_t user, int64_t now)
{
	struct log_budget *budget = find_budget(about, user);

	if (has_passed(budget, now))
		close_budget(budget);
	if (!budget->since)
		*budget = (struct log_budget){.about = about, .user = user, .since = now};
	return ++budget->spent <= LOG_BUDGET;
}

void log_tidy(int64_t now)
{
	tell_of_loss();
	for (size_t i = 0; i <= LOG_BUDGETS; i++) {
		if (has_passed(&budgets[i], now))
			close_budget(&budgets[i]);
	}
}
