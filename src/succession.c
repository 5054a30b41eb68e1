/* SPDX-License-Identifier: MIT */
#include "succession.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/ledger.h"
#include "base/log.h"
#include "base/pack.h"
#include "base/util.h"
#include "event/loop.h"
#include "event/service.h"
#include "fs/reaper.h"

/* What becomes the same process finds the descriptors' numbers in the environment. */
static const char variable[] = "LATCHFS_SUPERVISOR";

/* What the service manager calls them. */
static const char *const names[] = {"latchfs-ledger", "latchfs-device", "latchfs-reaper"};

/* --- what is mounted where --- */

static void pack_words(struct buffer *words, char *const *argv)
{
	while (*argv)
		pack_string(words, *argv++);
}

void succession_begin(struct ledger *ledger, const char *mount_point, char *const *argv)
{
	struct buffer text = {0};
	ledger_slot slot = 0;

	pack_string(&text, mount_point);
	pack_words(&text, argv + 1);
	ledger_put(ledger, &slot, LEDGER_MOUNT, text.data, text.size);
	buffer_fini(&text);
}

struct reading {
	char *const *argv;
	char *mount_point; /* NULL: it is not for us */
};

static void read_mount(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct reading *reading = user;
	struct unpack from = {.data = data, .size = size};
	struct buffer words = {0};

	cleanup(free_ptr) char *mount_point = unpack_string(&from, NULL);
	pack_words(&words, reading->argv + 1);
	bool is_same = !from.failed && words.data && from.size == words.size &&
		       memcmp(from.data, words.data, words.size) == 0;
	if (is_same)
		reading->mount_point = take(mount_point);
	buffer_fini(&words);
}

/* --- a newer program --- */

/* The word after which a program is asked: the ledger's format, the mount point and its arguments
 * follow. */
static const char question[] = "--takes-over";

static void ask(const struct successor *successor)
{
	enum { OWN = 4 };
	size_t count = 0;
	int null = open("/dev/null", O_RDWR);

	while (successor->argv[count])
		count++;
	char **words = xzalloc((count + OWN) * sizeof(*words));
	words[0] = xstrdup(successor->program);
	words[1] = xstrdup(question);
	words[2] = xasprintf("%d", LEDGER_FORMAT);
	words[3] = xstrdup(successor->mount_point);
	memcpy(words + OWN, successor->argv + 1, (count - 1) * sizeof(*words));
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	successor->prepare(successor->user, true);
	if (fchdir(successor->directory) == 0)
		execv(successor->program, words);
	_exit(EXIT_FAILURE);
}

pid_t succession_ask(const struct successor *successor)
{
	pid_t pid = fork();

	if (pid == 0)
		ask(successor);
	return pid;
}

bool succession_is_question(int *argc, char ***argv, int *status)
{
	enum { OWN = 3 };
	uint64_t format;

	if (*argc <= OWN || strcmp((*argv)[1], question) != 0)
		return false;
	bool fits = parse_u64((*argv)[2], 10, UINT64_MAX, &format) == 0 && format == LEDGER_FORMAT;
	*status = fits ? EXIT_SUCCESS : EXIT_FAILURE;
	*argc -= OWN;
	*argv += OWN;
	return true;
}

struct ends {
	int fds[ARRAY_SIZE(names)];
};

static struct ends ends_of(const struct estate *estate)
{
	return (struct ends){{estate->ledger, estate->ends.device, estate->ends.reaper}};
}

static void set_ends(struct estate *estate, const struct ends *ends)
{
	estate->ledger = ends->fds[0];
	estate->ends = (struct mount_ends){.device = ends->fds[1], .reaper = ends->fds[2]};
}

static void keep_open(const struct ends *ends, bool open)
{
	for (size_t i = 0; i < ARRAY_SIZE(ends->fds); i++)
		fcntl(ends->fds[i], F_SETFD, open ? 0 : FD_CLOEXEC);
}

void succession_exec(const struct successor *successor, const struct estate *estate)
{
	struct ends ends = ends_of(estate);
	cleanup(free_ptr) char *numbers =
		xasprintf("%d %d %d", ends.fds[0], ends.fds[1], ends.fds[2]);

	setenv(variable, numbers, true);
	successor->prepare(successor->user, false);
	keep_open(&ends, true);
	if (fchdir(successor->directory) == 0)
		execv(successor->program, successor->argv);
	log_error("%s can't be started: %s", successor->program, strerror(errno));
	keep_open(&ends, false);
	unsetenv(variable);
}

static bool find_open(struct estate *estate)
{
	const char *numbers = getenv(variable);
	struct ends ends;

	if (!numbers || sscanf(numbers, "%d %d %d", &ends.fds[0], &ends.fds[1], &ends.fds[2]) != 3)
		return false;
	unsetenv(variable);
	keep_open(&ends, false);
	set_ends(estate, &ends);
	return true;
}

/* --- the service manager --- */

int succession_leave(const struct estate *estate)
{
	struct ends ends = ends_of(estate);
	int error = 0;

	for (size_t i = 0; !error && i < ARRAY_SIZE(names); i++)
		error = service_keep(names[i], ends.fds[i]);
	if (!error)
		return 0;
	log_warning("no service manager keeps the mount: %s", strerror(-error));
	service_forget(names, ARRAY_SIZE(names));
	return error;
}

static void read_deadline(
	void *user, ledger_slot slot, uint64_t number, const void *data, size_t size)
{
	int64_t *deadline = user;

	if ((int64_t)number < *deadline)
		*deadline = (int64_t)number;
}

int64_t succession_deadline(const struct estate *estate)
{
	int64_t deadline = INT64_MAX;
	struct ledger *ledger = ledger_open(estate->ledger);

	if (ledger)
		ledger_each(ledger, LEDGER_SESSION, read_deadline, &deadline);
	ledger_close(ledger);
	return ledger ? deadline : 0;
}

void succession_bound(const struct estate *estate)
{
	enum { PATIENCE = 60 * 1000 };
	int64_t latest = loop_clock() + PATIENCE, deadline = succession_deadline(estate);

	reaper_bound(estate->ends.reaper, deadline < latest ? deadline : latest);
}

static bool find_kept(struct estate *estate)
{
	struct ends ends;

	service_kept(names, ends.fds, ARRAY_SIZE(names));
	set_ends(estate, &ends);
	estate->is_kept = true;
	return ends.fds[0] >= 0 || ends.fds[1] >= 0 || ends.fds[2] >= 0;
}

/* --- whichever it is --- */

static void let_go(struct estate *estate)
{
	if (estate->is_kept)
		service_forget(names, ARRAY_SIZE(names));
	if (estate->ledger >= 0)
		close(estate->ledger);
	if (estate->ends.device >= 0)
		close(estate->ends.device);
	reaper_unmount(estate->ends.reaper);
	*estate = (struct estate){0};
}

static char *read_mount_point(const struct estate *estate, char *const *argv)
{
	struct reading reading = {.argv = argv};
	struct ledger *ledger = NULL;

	if (estate->ends.device < 0 || estate->ends.reaper < 0 || !ledger_is_good(estate->ledger) ||
		!(ledger = ledger_open(estate->ledger))) {
		log_error("what was mounted here before is lost, and its locks");
		return NULL;
	}
	ledger_each(ledger, LEDGER_MOUNT, read_mount, &reading);
	ledger_close(ledger);
	if (!reading.mount_point)
		log_error("what was mounted here before had other options: its locks are lost");
	return reading.mount_point;
}

char *succession_find(struct estate *estate, char *const *argv)
{
	*estate = (struct estate){0};
	if (!find_open(estate) && !find_kept(estate)) {
		*estate = (struct estate){0};
		return NULL;
	}
	char *mount_point = read_mount_point(estate, argv);
	if (mount_point)
		estate->is_inherited = true;
	else
		let_go(estate);
	return mount_point;
}

bool succession_take(struct estate *estate)
{
	if (estate->is_kept)
		service_forget(names, ARRAY_SIZE(names));
	estate->is_kept = false;
	if (reaper_keep(estate->ends.reaper))
		return true;
	log_error("what was mounted here before is not there any more: its locks are lost");
	let_go(estate);
	return false;
}
