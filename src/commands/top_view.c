/* SPDX-License-Identifier: MIT */
#include "commands/top_view.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "base/util.h"
#include "commands/files.h"
#include "commands/terminal.h"

enum { UNKNOWN = -1 };

/* Somebody who waits. */
struct waiting {
	char *name, *mode, *who; /* owned */
	int64_t waited;          /* seconds, or UNKNOWN */
};

/* A lock that somebody holds or waits for. */
struct hot {
	char *name, *mode, *holder; /* owned; holder: the first of them */
	size_t waiters, holders;
	uint64_t newest;                    /* token of a holder */
	size_t taken;                       /* since the moment before */
	int64_t longest_wait, longest_hold; /* seconds, or UNKNOWN */
};

struct list {
	struct hot *locks;
	size_t lock_count, lock_capacity;
	struct waiting *waits;
	size_t wait_count, wait_capacity;
};

struct top_view {
	char *mount;
	char *head;      /* lines about the mount */
	char *trouble;   /* why there is no table, or NULL */
	struct list now; /* locks by name until they have been ranked */
	/* Of the moment before, by name. */
	struct {
		char *name;
		uint64_t newest;
	} * before;
	size_t before_count;
	bool has_before, is_compared;
	uint64_t grants, refused;
	int64_t counted_at; /* 0: never */
};

/* --- the table --- */

static void list_clear(struct list *list)
{
	for (size_t i = 0; i < list->lock_count; i++) {
		free(list->locks[i].name);
		free(list->locks[i].mode);
		free(list->locks[i].holder);
	}
	for (size_t i = 0; i < list->wait_count; i++) {
		free(list->waits[i].name);
		free(list->waits[i].mode);
		free(list->waits[i].who);
	}
	free(list->locks);
	free(list->waits);
	*list = (struct list){0};
}

/* Room for one more, at the end. */
static void *grow(void *array, size_t count, size_t *capacity, size_t size)
{
	if (array && count < *capacity)
		return array;
	*capacity = *capacity ? 2 * *capacity : 64;
	return xrealloc(array, *capacity, size);
}

static struct hot *find_lock(struct list *list, const char *name)
{
	struct hot *last = list->lock_count ? &list->locks[list->lock_count - 1] : NULL;

	if (last && strcmp(last->name, name) == 0)
		return last;
	list->locks =
		grow(list->locks, list->lock_count, &list->lock_capacity, sizeof(list->locks[0]));
	last = &list->locks[list->lock_count++];
	*last = (struct hot){
		.name = xstrdup(name), .longest_wait = UNKNOWN, .longest_hold = UNKNOWN};
	return last;
}

/* Seconds since then, as the clock of the machine that wrote it has it. */
static int64_t age_of(const char *since, int64_t now)
{
	struct tm tm = {0};
	const char *end = strptime(since, "%Y-%m-%dT%H:%M:%SZ", &tm);

	if (!end || *end)
		return UNKNOWN;
	int64_t then = (int64_t)timegm(&tm);
	return then < now ? now - then : 0;
}

static char *who_of(const char *const *columns)
{
	if (strcmp(columns[COLUMN_HOST], "-") == 0 && strcmp(columns[COLUMN_PID], "-") == 0)
		return xstrdup("another program");
	return xasprintf(
		"%s:%s %s", columns[COLUMN_HOST], columns[COLUMN_PID], columns[COLUMN_COMMAND]);
}

static void add_holder(struct hot *lock, const char *const *columns, int64_t age)
{
	uint64_t token = 0;

	(void)parse_u64(columns[COLUMN_TOKEN], 10, UINT64_MAX, &token);
	if (!lock->holders++) {
		lock->holder = who_of(columns);
		lock->mode = xstrdup(columns[COLUMN_MODE]);
	}
	if (token > lock->newest)
		lock->newest = token;
	if (age > lock->longest_hold)
		lock->longest_hold = age;
}

static void add_waiting(
	struct list *list, struct hot *lock, const char *const *columns, int64_t age)
{
	lock->waiters++;
	if (age > lock->longest_wait)
		lock->longest_wait = age;
	list->waits =
		grow(list->waits, list->wait_count, &list->wait_capacity, sizeof(list->waits[0]));
	list->waits[list->wait_count++] = (struct waiting){.name = xstrdup(columns[COLUMN_NAME]),
		.mode = xstrdup(columns[COLUMN_MODE]),
		.who = who_of(columns),
		.waited = age};
}

/* Who holds a lock now and did not at the moment before.  The table is in the order of names. */
static void count_taken(
	struct top_view *view, const uint64_t *tokens, const size_t *lock_of, size_t count)
{
	size_t b = 0, last = SIZE_MAX;
	uint64_t newest = 0;

	for (size_t i = 0; view->has_before && i < count; i++) {
		struct hot *lock = &view->now.locks[lock_of[i]];
		if (lock_of[i] != last) {
			last = lock_of[i];
			while (b < view->before_count &&
				strcmp(view->before[b].name, lock->name) < 0)
				b++;
			bool was_there = b < view->before_count &&
					 strcmp(view->before[b].name, lock->name) == 0;
			newest = was_there ? view->before[b].newest : 0;
		}
		lock->taken += tokens[i] > newest;
	}
}

static void read_table(struct top_view *view, char *table, int64_t now)
{
	const char *columns[COLUMNS];
	cleanup(free_ptr) uint64_t *tokens = NULL;
	cleanup(free_ptr) size_t *lock_of = NULL;
	size_t held = 0, token_capacity = 0, lock_capacity = 0;

	while (mount_next_lock(&table, columns)) {
		struct hot *lock = find_lock(&view->now, columns[COLUMN_NAME]);
		int64_t age = age_of(columns[COLUMN_SINCE], now);
		if (strcmp(columns[COLUMN_STATE], "waiting") == 0) {
			add_waiting(&view->now, lock, columns, age);
			continue;
		}
		add_holder(lock, columns, age);
		tokens = grow(tokens, held, &token_capacity, sizeof(tokens[0]));
		lock_of = grow(lock_of, held, &lock_capacity, sizeof(lock_of[0]));
		tokens[held] = 0;
		(void)parse_u64(columns[COLUMN_TOKEN], 10, UINT64_MAX, &tokens[held]);
		lock_of[held++] = view->now.lock_count - 1;
	}
	count_taken(view, tokens, lock_of, held);
}

/* --- the order --- */

#define DESCENDING(a, b) (((b) > (a)) - ((b) < (a)))

static int by_heat(const void *a, const void *b)
{
	const struct hot *x = a, *y = b;
	int order = DESCENDING(x->waiters, y->waiters);

	if (!order)
		order = DESCENDING(x->taken, y->taken);
	if (!order)
		order = DESCENDING(x->longest_wait, y->longest_wait);
	if (!order)
		order = DESCENDING(x->longest_hold, y->longest_hold);
	return order ? order : strcmp(x->name, y->name);
}

static int by_wait(const void *a, const void *b)
{
	const struct waiting *x = a, *y = b;
	int order = DESCENDING(x->waited, y->waited);

	return order ? order : strcmp(x->name, y->name);
}

static void forget(struct top_view *view)
{
	for (size_t i = 0; i < view->before_count; i++)
		free(view->before[i].name);
	free(take(view->before));
	view->before_count = 0;
}

static void remember(struct top_view *view)
{
	forget(view);
	view->before_count = view->now.lock_count;
	view->before = xzalloc((view->before_count + 1) * sizeof(view->before[0]));
	for (size_t i = 0; i < view->before_count; i++) {
		view->before[i].name = xstrdup(view->now.locks[i].name);
		view->before[i].newest = view->now.locks[i].newest;
	}
}

static void rank(struct list *list)
{
	if (list->lock_count)
		qsort(list->locks, list->lock_count, sizeof(list->locks[0]), by_heat);
	if (list->wait_count)
		qsort(list->waits, list->wait_count, sizeof(list->waits[0]), by_wait);
}

/* --- the mount --- */

/* What all metrics of that name have together. */
static uint64_t sum_of(const char *metrics, const char *name)
{
	size_t length = strlen(name);
	uint64_t sum = 0;

	for (const char *line = metrics; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) == 0 &&
			(line[length] == ' ' || line[length] == '{'))
			sum += strtoull(line + length + strcspn(line + length, " \n"), NULL, 10);
	}
	return sum;
}

/* Adds a text with the members named behind it for each %s. */
static void add_members(struct buffer *to, const char *json, const char *object,
	const char *const *names, const char *const *words)
{
	for (; *words; words++) {
		cleanup(free_ptr) char *value =
			*names ? mount_member(json, object, *names++) : NULL;
		buffer_add_string(to, *words);
		text_add(to, value ? value : "", 0, TEXT_LEFT);
	}
}

static size_t count_of(const char *text, const char *what)
{
	size_t count = 0;

	while ((text = strstr(text, what))) {
		text += strlen(what);
		count++;
	}
	return count;
}

static void add_store(struct buffer *to, const char *json)
{
	cleanup(free_ptr) char *reachable = mount_member(json, "store", "reachable");
	cleanup(free_ptr) char *left = mount_member(json, "lease", "lost_in_seconds");
	size_t up = count_of(json, "\"answers\": true"),
	       down = count_of(json, "\"answers\": false");

	buffer_addf(to, "store   %zu of %zu addresses answer; lease ", up, up + down);
	if (left)
		add_members(to, json, "lease",
			(const char *const[]){"state", "lost_in_seconds", "ttl_seconds", NULL},
			(const char *const[]){"", ", if not renewed lost in ", " of ", " s", NULL});
	else
		add_members(to, json, "lease", (const char *const[]){"state", NULL},
			(const char *const[]){"", "", NULL});
	if (reachable && strcmp(reachable, "true") != 0)
		add_members(to, json, "store", (const char *const[]){"last_error", NULL},
			(const char *const[]){"\n        why: ", "", NULL});
	buffer_add_string(to, "\n");
}

static void add_counts(struct top_view *view, struct buffer *to, const struct top_look *look)
{
	uint64_t grants = sum_of(look->metrics, "latchfs_grants_total");
	uint64_t refused = sum_of(look->metrics, "latchfs_refused_total");
	double seconds = (double)(look->at - view->counted_at) / 1000;

	add_members(to, look->status, "counts",
		(const char *const[]){"held", "waiting", "lost", NULL},
		(const char *const[]){"mount   ", " held, ", " waited for, ", " lost", NULL});
	if (view->counted_at && seconds > 0 && grants >= view->grants && refused >= view->refused)
		buffer_addf(to, "; %.1f granted and %.1f refused a second",
			(double)(grants - view->grants) / seconds,
			(double)(refused - view->refused) / seconds);
	buffer_add_string(to, "\n");
	view->grants = grants;
	view->refused = refused;
	view->counted_at = look->metrics ? look->at : 0;
}

static void describe(struct top_view *view, const struct top_look *look)
{
	struct buffer head = {0};
	size_t holders = 0;

	for (size_t i = 0; i < view->now.lock_count; i++)
		holders += view->now.locks[i].holders;
	add_members(&head, look->status, NULL, (const char *const[]){"state", "node", NULL},
		(const char *const[]){": ", "; node ", "", NULL});
	buffer_add_string(&head, "\n");
	add_store(&head, look->status);
	add_counts(view, &head, look);
	if (look->locks)
		buffer_addf(&head, "cluster %zu locked, by %zu; %zu waiting\n",
			view->now.lock_count, holders, view->now.wait_count);
	free(view->head);
	view->head = buffer_take(&head);
}

/* --- the interface --- */

struct top_view *top_view_new(const char *mount)
{
	struct top_view *view = xzalloc(sizeof(*view));

	view->mount = xstrdup(mount);
	view->head = xstrdup("\n");
	return view;
}

void top_view_free(struct top_view *view)
{
	list_clear(&view->now);
	forget(view);
	free(view->mount);
	free(view->head);
	free(view->trouble);
	free(view);
}

void top_view_look(struct top_view *view, const struct top_look *look)
{
	bool is_there = look->locks != NULL;

	list_clear(&view->now);
	free(take(view->trouble));
	if (is_there)
		read_table(view, look->locks, look->now);
	else
		view->trouble = xasprintf(
			"the table of locks can't be had: %s", strerror(look->locks_error));
	remember(view);
	view->is_compared = view->has_before && is_there;
	view->has_before = is_there;
	describe(view, look);
	rank(&view->now);
}

/* --- the page --- */

static const char *print_seconds(int64_t seconds, char *text, size_t size)
{
	enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };
	long long s = seconds;

	if (s == UNKNOWN)
		copy_string(text, size, "-");
	else if (s < MINUTE)
		snprintf(text, size, "%llds", s);
	else if (s < HOUR)
		snprintf(text, size, "%lldm%02llds", s / MINUTE, s % MINUTE);
	else if (s < DAY)
		snprintf(text, size, "%lldh%02lldm", s / HOUR, s % HOUR / MINUTE);
	else
		snprintf(text, size, "%lldd%02lldh", s / DAY, s % DAY / HOUR);
	return text;
}

enum { MODE_WIDTH = 10, WHO_WIDTH = 28 };

static void add_lock(struct buffer *page, const struct hot *lock, bool is_compared)
{
	char wait[32], hold[32], taken[32] = "-";
	cleanup(free_ptr) char *more =
		lock->holders > 1 ? xasprintf("%s +%zu", lock->holder, lock->holders - 1) : NULL;

	if (is_compared)
		snprintf(taken, sizeof(taken), "%zu", lock->taken);
	buffer_addf(page, "%7zu %5s %7s %7s  ", lock->waiters, taken,
		print_seconds(lock->longest_wait, wait, sizeof(wait)),
		print_seconds(lock->longest_hold, hold, sizeof(hold)));
	text_add(page, lock->mode ? lock->mode : "-", MODE_WIDTH, TEXT_LEFT);
	text_add(page, more ? more : lock->holder ? lock->holder : "-", WHO_WIDTH, TEXT_LEFT);
	buffer_add_string(page, " ");
	text_add(page, lock->name, 0, TEXT_LEFT);
	buffer_add_string(page, "\n");
}

static void add_locks(struct buffer *page, const struct list *list, size_t rows, bool is_compared)
{
	buffer_addf(page, "%cWAITERS TAKEN  WAITED    HELD  %-*s%-*s LOCK\n", TERMINAL_HEADING,
		MODE_WIDTH, "MODE", WHO_WIDTH, "HOLDER");
	for (size_t i = 0; i < list->lock_count && i < rows; i++)
		add_lock(page, &list->locks[i], is_compared);
}

static void add_waits(struct buffer *page, const struct list *list, size_t rows)
{
	char wait[32];

	buffer_addf(page, "\n%c WAITED  %-*s%-*s FOR LOCK\n", TERMINAL_HEADING, MODE_WIDTH, "MODE",
		WHO_WIDTH, "WAITER");
	for (size_t i = 0; i < list->wait_count && i < rows; i++) {
		const struct waiting *waiting = &list->waits[i];
		buffer_addf(page, "%7s  ", print_seconds(waiting->waited, wait, sizeof(wait)));
		text_add(page, waiting->mode, MODE_WIDTH, TEXT_LEFT);
		text_add(page, waiting->who, WHO_WIDTH, TEXT_LEFT);
		buffer_add_string(page, " ");
		text_add(page, waiting->name, 0, TEXT_LEFT);
		buffer_add_string(page, "\n");
	}
}

char *top_view_page(const struct top_view *view, size_t lines, const char *complaint)
{
	const struct list *list = &view->now;
	struct buffer page = {0};
	size_t used = count_of(view->head, "\n") + 4; /* what is between the tables */
	size_t room = !lines ? SIZE_MAX : lines > used ? lines - used : 0;
	size_t waits = list->wait_count < room / 2 ? list->wait_count : room / 2;

	text_add(&page, view->mount, 0, TEXT_LEFT);
	if (complaint)
		buffer_addf(&page, ": %s\n", complaint);
	buffer_add_string(
		&page, complaint ? view->head + strcspn(view->head, "\n") + 1 : view->head);
	buffer_add_string(&page, "\n");
	if (view->trouble) {
		buffer_addf(&page, "%s\n", view->trouble);
		return buffer_take(&page);
	}
	add_locks(&page, list, room - waits, view->is_compared);
	if (list->lock_count < room - waits)
		waits = room - list->lock_count;
	add_waits(&page, list, waits);
	return buffer_take(&page);
}
