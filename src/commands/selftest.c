/* SPDX-License-Identifier: MIT */
#include "commands/selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/util.h"
#include "commands/terminal.h"
#include "commands/trial.h"

enum {
	RACE_DEADLINE = 60 * 1000,
	ROUNDS = 25, /* of each worker in a race */
};

enum verdict { OK, NOTE, SKIPPED, FAILED };

static volatile sig_atomic_t ended_by;

static void on_signal(int signal)
{
	ended_by = signal;
}

/* --- what is tested --- */

static bool test_create(struct trial *trial)
{
	return trial_expect(trial, ONE, task_open(O_EXCL), 0) &&
	       trial_expect(trial, OTHER, task_open(O_EXCL), EEXIST) &&
	       trial_expect(trial, THIRD, task_open(O_EXCL), EEXIST) &&
	       trial_expect(trial, ONE, task_unlink(), 0) &&
	       trial_expect(trial, ONE, task_close(), 0) &&
	       trial_expect(trial, OTHER, task_open(O_EXCL), 0) &&
	       trial_expect(trial, OTHER, task_unlink(), 0) &&
	       trial_expect(trial, OTHER, task_close(), 0);
}

static bool test_exclusive(struct trial *trial)
{
	return trial_open_all(trial, 3) &&
	       trial_expect(trial, ONE, task_flock(LOCK_EX | LOCK_NB), 0) &&
	       trial_expect(trial, OTHER, task_flock(LOCK_EX | LOCK_NB), EWOULDBLOCK) &&
	       trial_expect(trial, THIRD, task_flock(LOCK_SH | LOCK_NB), EWOULDBLOCK) &&
	       trial_expect(trial, ONE, task_flock(LOCK_UN), 0) &&
	       trial_expect(trial, OTHER, task_flock(LOCK_EX | LOCK_NB), 0) &&
	       trial_expect(trial, ONE, task_flock(LOCK_EX | LOCK_NB), EWOULDBLOCK);
}

static bool test_shared(struct trial *trial)
{
	return trial_open_all(trial, 3) &&
	       trial_expect(trial, ONE, task_flock(LOCK_SH | LOCK_NB), 0) &&
	       trial_expect(trial, OTHER, task_flock(LOCK_SH | LOCK_NB), 0) &&
	       trial_expect(trial, THIRD, task_flock(LOCK_EX | LOCK_NB), EWOULDBLOCK) &&
	       trial_expect(trial, ONE, task_flock(LOCK_UN), 0) &&
	       trial_expect(trial, THIRD, task_flock(LOCK_EX | LOCK_NB), EWOULDBLOCK) &&
	       trial_expect(trial, OTHER, task_flock(LOCK_UN), 0) &&
	       trial_expect(trial, THIRD, task_flock(LOCK_EX | LOCK_NB), 0);
}

static bool test_release(struct trial *trial)
{
	return trial_open_all(trial, 2) && trial_expect(trial, ONE, task_flock(LOCK_EX), 0) &&
	       trial_begin_waiting(trial, OTHER, task_flock(LOCK_EX)) &&
	       trial_expect(trial, ONE, task_close(), 0) &&
	       trial_expect_grant(trial, OTHER, "the lock that was released");
}

static bool test_killed(struct trial *trial)
{
	if (!trial_open_all(trial, 2) || !trial_expect(trial, ONE, task_flock(LOCK_EX), 0) ||
		!trial_begin_waiting(trial, OTHER, task_flock(LOCK_EX)))
		return false;
	worker_kill(&trial->workers[ONE]);
	return trial_expect_grant(trial, OTHER, "the lock of a process that was killed");
}

static bool test_order(struct trial *trial)
{
	struct worker_answer answer;
	static const int order[] = {OTHER, THIRD, FOURTH};

	if (!trial_open_all(trial, WORKERS) || !trial_expect(trial, ONE, task_flock(LOCK_EX), 0))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (!trial_begin_waiting(trial, order[i], task_flock(LOCK_EX)))
			return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (!trial_expect(trial, i ? order[i - 1] : ONE, task_flock(LOCK_UN), 0))
			return false;
		for (size_t later = i + 1; later < ARRAY_SIZE(order); later++) {
			if (worker_await(&trial->workers[order[later]], 0, &answer) == 0)
				continue;
			trial->only_order = true;
			return trial_fault(trial, "process %d came before process %d",
				order[later] + 1, order[i] + 1);
		}
		if (worker_await(&trial->workers[order[i]], TRIAL_DEADLINE / 10, &answer) <= 0) {
			trial->only_order = true;
			return trial_fault(trial, "process %d, the first in line, was not the next",
				order[i] + 1);
		}
	}
	return true;
}

/* A signal that comes before the call waits is for nobody: so there may be more of them. */
static bool test_interrupt(struct trial *trial)
{
	enum { EVERY = 100 };
	struct worker_answer answer = {0};
	int result = 0;

	if (!trial_open_all(trial, 2) || !trial_expect(trial, ONE, task_flock(LOCK_EX), 0) ||
		!trial_begin_waiting(trial, OTHER, task_flock(LOCK_EX)))
		return false;
	for (int i = 0; i < TRIAL_DEADLINE / EVERY && result == 0; i++) {
		worker_interrupt(&trial->workers[OTHER]);
		result = worker_await(&trial->workers[OTHER], EVERY, &answer);
	}
	if (result <= 0)
		return trial_fault(trial, "a signal does not end the wait for a lock");
	if (answer.error != EINTR)
		return trial_fault(trial, "a signal ended the wait with \"%s\"",
			answer.error ? strerror(answer.error) : "success");
	return trial_expect(trial, OTHER, task_flock(LOCK_EX | LOCK_NB), EWOULDBLOCK) &&
	       trial_expect(trial, ONE, task_flock(LOCK_UN), 0) &&
	       trial_expect(trial, OTHER, task_flock(LOCK_EX | LOCK_NB), 0);
}

static bool test_fcntl(struct trial *trial)
{
	return trial_open_all(trial, 3) &&
	       trial_expect(trial, ONE, task_lock(F_SETLK, F_WRLCK, 0, 0), 0) &&
	       trial_expect(trial, OTHER, task_lock(F_SETLK, F_WRLCK, 0, 0), EAGAIN) &&
	       trial_expect(trial, THIRD, task_lock(F_SETLK, F_RDLCK, 0, 0), EAGAIN) &&
	       trial_expect(trial, ONE, task_lock(F_SETLK, F_UNLCK, 0, 0), 0) &&
	       trial_expect(trial, OTHER, task_lock(F_SETLK, F_RDLCK, 0, 0), 0) &&
	       trial_expect(trial, THIRD, task_lock(F_SETLK, F_RDLCK, 0, 0), 0) &&
	       trial_expect(trial, ONE, task_lock(F_SETLK, F_WRLCK, 0, 0), EAGAIN);
}

static bool test_fcntl_release(struct trial *trial)
{
	return trial_open_all(trial, 2) &&
	       trial_expect(trial, ONE, task_lock(F_SETLKW, F_WRLCK, 0, 0), 0) &&
	       trial_begin_waiting(trial, OTHER, task_lock(F_SETLKW, F_WRLCK, 0, 0)) &&
	       trial_expect(trial, ONE, task_close(), 0) &&
	       trial_expect_grant(trial, OTHER, "the lock that was released");
}

static bool test_ranges(struct trial *trial)
{
	return trial_open_all(trial, 2) &&
	       trial_expect(trial, ONE, task_lock(F_SETLK, F_WRLCK, 0, 100), 0) &&
	       trial_expect(trial, OTHER, task_lock(F_SETLK, F_WRLCK, 100, 100), 0) &&
	       trial_expect(trial, OTHER, task_lock(F_SETLK, F_WRLCK, 50, 10), EAGAIN) &&
	       trial_expect(trial, ONE, task_lock(F_SETLK, F_RDLCK, 150, 10), EAGAIN) &&
	       trial_expect(trial, ONE, task_lock(F_SETLK, F_UNLCK, 50, 50), 0) &&
	       trial_expect(trial, OTHER, task_lock(F_SETLK, F_WRLCK, 50, 10), 0) &&
	       trial_expect(trial, OTHER, task_lock(F_SETLK, F_WRLCK, 40, 10), EAGAIN);
}

/* All at once, again and again: never are two of them in it together. */
static bool run_race(struct trial *trial, enum worker_race race)
{
	struct worker_task task = {.call = WORKER_RACE, .how = ROUNDS, .type = (short)race};
	struct worker_answer answer = {0};
	uint64_t met = 0;

	__atomic_store_n(&trial->shared->inside, 0, __ATOMIC_SEQ_CST);
	for (int who = 0; who < WORKERS; who++) {
		if (!trial_begin(trial, who, task))
			return false;
	}
	for (int who = 0; who < WORKERS; who++) {
		if (!trial_await(trial, who, "a race", RACE_DEADLINE, &answer))
			return false;
		if (answer.error)
			return trial_fault(
				trial, "process %d: %s", who + 1, strerror(answer.error));
		met += answer.number;
	}
	return !met ||
	       trial_fault(trial, "holders met another holder %" PRIu64 " times in %d turns", met,
		       WORKERS * ROUNDS);
}

static bool test_create_race(struct trial *trial)
{
	return run_race(trial, RACE_CREATE);
}

static bool test_flock_race(struct trial *trial)
{
	return run_race(trial, RACE_FLOCK);
}

static bool test_fcntl_race(struct trial *trial)
{
	return run_race(trial, RACE_FCNTL);
}

static bool test_tokens(struct trial *trial)
{
	struct worker_task task = {.call = WORKER_TOKEN};
	uint64_t before = 0;

	for (int who = 0; who < WORKERS; who++) {
		struct worker_answer answer = {0};
		if (!trial_expect(trial, who, task_open(0), 0) ||
			!trial_expect(trial, who, task_flock(LOCK_EX), 0) ||
			!trial_begin(trial, who, task) ||
			!trial_await(trial, who, task_name(&task), TRIAL_DEADLINE, &answer))
			return false;
		if (answer.error)
			return trial_fault(
				trial, "the token can't be read: %s", strerror(answer.error));
		if (answer.number <= before)
			return trial_fault(trial, "token %" PRIu64 " came after token %" PRIu64,
				answer.number, before);
		before = answer.number;
		if (!trial_expect(trial, who, task_close(), 0))
			return false;
	}
	return true;
}

static const struct {
	const char *name;
	bool (*run)(struct trial *trial);
	bool only_latchfs; /* has what it is about */
} tests[] = {
	{"O_EXCL creates a file once", test_create, false},
	{"an exclusive flock keeps others out", test_exclusive, false},
	{"shared flocks are held together", test_shared, false},
	{"who waits gets the lock when it is released", test_release, false},
	{"who waits gets the lock when its holder is killed", test_killed, false},
	{"who waits longest is the next", test_order, false},
	{"a signal ends the wait", test_interrupt, false},
	{"fcntl locks a file", test_fcntl, false},
	{"who waits in fcntl gets the lock", test_fcntl_release, false},
	{"fcntl locks ranges of bytes", test_ranges, false},
	{"four processes race for O_EXCL", test_create_race, false},
	{"four processes race for flock", test_flock_race, false},
	{"four processes race for fcntl", test_fcntl_race, false},
	{"fencing tokens grow", test_tokens, true},
};

/* --- before and after --- */

/* A call that has nothing to do with a test. */
static int ask(
	struct trial *trial, int who, enum worker_call what, const char *path, const char *value)
{
	struct worker_task task = {.call = what};

	copy_string(task.path, sizeof(task.path), path);
	copy_string(task.value, sizeof(task.value), value);
	return trial_call(trial, who, task);
}

static bool start_workers(struct trial *trial)
{
	for (int who = 0; who < WORKERS; who++) {
		int error = trial->workers[who].pid
				    ? 0
				    : worker_start(&trial->workers[who], trial->shared);
		if (error < 0) {
			log_error("fork: %s", strerror(-error));
			return false;
		}
	}
	return true;
}

static void end_workers(struct trial *trial)
{
	for (int who = 0; who < WORKERS; who++)
		worker_kill(&trial->workers[who]);
}

static bool complain(struct trial *trial, const char *what, int error)
{
	if (error < 0)
		log_error("%s: %s", what, trial->why);
	else
		log_error("%s: %s", what, strerror(error));
	free(take(trial->why));
	return false;
}

/* A directory of our own, without the policies under which the tests would mean something else. */
static bool make_places(struct trial *trial)
{
	uint32_t number = 0;

	(void)!getrandom(&number, sizeof(number), 0);
	for (int i = 0; i < 2; i++)
		trial->places[i] = xasprintf("%s/latchfs-selftest.%d.%08" PRIx32,
			trial->directories[i], (int)getpid(), number);
	int error = ask(trial, ONE, WORKER_MKDIR, trial->places[0], "");
	if (error == EEXIST) {
		log_error("%s: no directory can be made for the test where the policy is "
			  "names=always or open=lock; give one without it",
			trial->directories[0]);
		return false;
	}
	if (error)
		return complain(trial, trial->places[0], error);
	trial->has_place[0] = true;
	/* What is one directory is there already; else the tests are to say what that means. */
	error = ask(trial, OTHER, WORKER_MKDIR, trial->places[1], "");
	if (error && error != EEXIST)
		return complain(trial, trial->places[1], error);
	trial->has_place[1] = !error;
	/* Others take anything, or nothing of that kind. */
	trial->is_latchfs =
		ask(trial, ONE, WORKER_SET_POLICY, trial->places[0], "hold=?") == EINVAL;
	if (trial->is_latchfs)
		(void)ask(trial, ONE, WORKER_SET_POLICY, trial->places[0], "hold=close");
	return true;
}

static void remove_places(struct trial *trial)
{
	if (ended_by)
		log_error("interrupted");
	ended_by = 0;
	for (int i = 0; i < 2; i++) {
		/* Of a lock that is being given back, the name may still be there. */
		int error = EBUSY;
		for (int tries = 0; trial->has_place[i] && error && tries < 50; tries++) {
			struct timespec pause = {.tv_nsec = 20000000};
			error = ask(trial, i, WORKER_RMDIR, trial->places[i], "");
			if (error)
				nanosleep(&pause, NULL);
		}
		if (trial->has_place[i] && error)
			log_warning("%s is left behind: %s", trial->places[i],
				error < 0 ? trial->why : strerror(error));
	}
}

/* The test's file, on file systems where it stays. */
static void remove_files(struct trial *trial)
{
	cleanup(free_ptr) char *why = take(trial->why);

	if (start_workers(trial)) {
		(void)trial_call(trial, ONE, task_unlink());
		(void)trial_call(trial, OTHER, task_unlink());
	}
	free(trial->why);
	trial->why = take(why);
}

/* --- the verdicts --- */

static void say(enum verdict verdict, const char *name, const char *why)
{
	static const char *const words[] = {
		[OK] = "ok", [NOTE] = "note", [SKIPPED] = "skipped", [FAILED] = "failed"};
	struct buffer line = {0};

	buffer_addf(&line, "%-8s", words[verdict]);
	buffer_add_string(&line, name);
	if (why) {
		buffer_add_string(&line, ": ");
		text_add(&line, why, 0, TEXT_LEFT);
	}
	puts(line.data);
	fflush(stdout);
	buffer_fini(&line);
}

static void run_test(struct trial *trial, size_t i)
{
	bool is_good;

	trial->number = (unsigned int)i;
	if (tests[i].only_latchfs && !trial->is_latchfs) {
		say(SKIPPED, tests[i].name, "only latchfs has them");
		return;
	}
	is_good = start_workers(trial) && tests[i].run(trial);
	/* Whatever they hold goes with them, and who is stuck is not asked again. */
	end_workers(trial);
	remove_files(trial);
	bool is_note = !is_good && trial->only_order && !trial->is_latchfs;
	say(is_good ? OK : is_note ? NOTE : FAILED, tests[i].name, trial->why);
	trial->failed += !is_good && !is_note;
	trial->only_order = false;
	free(take(trial->why));
}

static int run_tests(struct trial *trial)
{
	const char *const *at = trial->directories;
	bool is_one = strcmp(at[0], at[1]) == 0;

	for (size_t i = 0; i < ARRAY_SIZE(tests) && !ended_by; i++)
		run_test(trial, i);
	if (ended_by)
		return EXIT_FAILURE;
	if (trial->failed)
		printf("%u of %zu tests failed: do not rely on locks %s\n", trial->failed,
			ARRAY_SIZE(tests), is_one ? "there" : "between these directories");
	else
		printf("locks %s exclude each other%s\n", is_one ? "there" : "in these directories",
			trial->is_latchfs ? "" : ", on this machine: it is no latchfs");
	return trial->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int selftest(const char *one, const char *other)
{
	struct trial trial = {.directories = {one, other}, .ended_by = &ended_by};
	struct sigaction action = {.sa_handler = on_signal};
	int status = EXIT_FAILURE;

	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	/* Who does not read to the end has us clean up all the same. */
	signal(SIGPIPE, SIG_IGN);
	trial.shared = mmap(NULL, sizeof(*trial.shared), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (trial.shared == MAP_FAILED) {
		log_error("mmap: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (start_workers(&trial) && make_places(&trial))
		status = run_tests(&trial);
	if (start_workers(&trial))
		remove_places(&trial);
	end_workers(&trial);
	munmap(trial.shared, sizeof(*trial.shared));
	for (int i = 0; i < 2; i++)
		free(trial.places[i]);
	free(trial.why);
	return status;
}

int selftest_command(int argc, char **argv)
{
	if (argc < 2 || argc > 3 || *argv[1] == '-' || (argc == 3 && *argv[2] == '-')) {
		log_error("usage: latchfs selftest DIRECTORY [DIRECTORY]");
		return EXIT_FAILURE;
	}
	return selftest(argv[1], argv[argc - 1]);
}
