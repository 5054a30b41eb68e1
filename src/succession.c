/* SPDX-License-Identifier: MIT */
#include "succession.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/ledger.h"
#include "base/log.h"
#include "base/pack.h"
#include "base/proc.h"
#include "base/util.h"
#include "event/loop.h"
#include "event/service.h"

/* What becomes the same process finds the descriptors' numbers in the environment. */
static const char variable[] = "LATCHFS_SUPERVISOR";

/* What the service manager calls them. */
static const char ledger_name[] = "latchfs-ledger", device_name[] = "latchfs-device";

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
	successor->prepare(successor->user);
	if (fchdir(successor->directory) == 0)
		execv(successor->program, words);
	_exit(EXIT_FAILURE);
}

bool succession_is_possible(const struct successor *successor)
{
	enum { PATIENCE = 10 * 1000 };
	int64_t end = loop_clock() + PATIENCE;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		ask(successor);
	while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
		if (loop_clock() > end)
			kill(pid, SIGKILL);
		poll(NULL, 0, 1);
	}
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
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

static void keep_open(const struct estate *estate, bool open)
{
	const int fds[] = {estate->ledger, estate->ends.device, estate->ends.reaper};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fcntl(fds[i], F_SETFD, open ? 0 : FD_CLOEXEC);
}

void succession_exec(const struct successor *successor, const struct estate *estate)
{
	cleanup(free_ptr) char *numbers =
		xasprintf("%d %d %d", estate->ledger, estate->ends.device, estate->ends.reaper);

	setenv(variable, numbers, true);
	successor->prepare(successor->user);
	keep_open(estate, true);
	if (fchdir(successor->directory) == 0)
		execv(successor->program, successor->argv);
	log_error("%s can't be started: %s", successor->program, strerror(errno));
	keep_open(estate, false);
	unsetenv(variable);
}

static bool find_open(struct estate *estate)
{
	const char *numbers = getenv(variable);

	if (!numbers || sscanf(numbers, "%d %d %d", &estate->ledger, &estate->ends.device,
				&estate->ends.reaper) != 3)
		return false;
	unsetenv(variable);
	keep_open(estate, false);
	return true;
}

/* --- the service manager --- */

int succession_leave(const struct estate *estate)
{
	int error = service_keep(ledger_name, estate->ledger);

	if (!error)
		error = service_keep(device_name, estate->ends.device);
	if (error)
		log_warning("no service manager keeps the mount: %s", strerror(-error));
	return error;
}

static bool find_kept(struct estate *estate)
{
	const char *const names[] = {ledger_name, device_name};
	int fds[ARRAY_SIZE(names)];

	service_kept(names, fds, ARRAY_SIZE(names));
	*estate = (struct estate){
		.ledger = fds[0], .ends = {.device = fds[1], .reaper = -1 /* has gone */}};
	return estate->ledger >= 0 || estate->ends.device >= 0;
}

/* --- whichever it is --- */

static char *read_estate(const struct estate *estate, char *const *argv)
{
	struct reading reading = {.argv = argv};
	struct ledger *ledger = NULL;
	dev_t device;

	if (estate->ends.device < 0 || !ledger_is_good(estate->ledger) ||
		!(ledger = ledger_open(estate->ledger))) {
		log_error("what was mounted here before is lost, and its locks");
		return NULL;
	}
	ledger_each(ledger, LEDGER_MOUNT, read_mount, &reading);
	ledger_close(ledger);
	if (!reading.mount_point)
		log_error("what was mounted here before had other options: its locks are lost");
	else if (!proc_mount_device(reading.mount_point, &device))
		log_error("%s was unmounted meanwhile: its locks are lost", reading.mount_point);
	else
		return reading.mount_point;
	free(reading.mount_point);
	return NULL;
}

static void let_go(struct estate *estate)
{
	const int fds[] = {estate->ledger, estate->ends.device, estate->ends.reaper};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	*estate = (struct estate){0};
}

char *succession_find(struct estate *estate, char *const *argv)
{
	*estate = (struct estate){0};
	if (!find_open(estate) && !find_kept(estate))
		return NULL;
	char *mount_point = read_estate(estate, argv);
	if (mount_point)
		estate->is_inherited = true;
	else
		let_go(estate);
	return mount_point;
}
