/* SPDX-License-Identifier: MIT */
/*
 * latchfs: a directory in which every file is a lock, shared by every machine that mounts it.
 *
 * The map of the program.  A file includes only what stands below it; news travels up through
 * callbacks.
 *
 *     main.c          wiring: start, background, signals, the end
 *     supervise       another process goes on if the one that serves the mount dies
 *     succession      another program goes on
 *     commands        what it does besides mounting: status, top, selftest
 *     check           whether a mount would work
 *     options         the command line and the environment
 *     help            what --help says
 *     helper          the command line as mount(8) writes it
 *     source          which etcd, and where in it: the addresses and the prefix
 *
 *     commands/       these, each in its file
 *       files         reading what a mount says of itself
 *       top, top_view  asking again and again; what is shown of that
 *       terminal      a screen that is left as it was
 *       selftest, trial, worker  what is tried; calls that have to end well; who does them
 *
 *     fs/             what the kernel asks, until its one reply
 *       mount         libfuse's session on the event loop
 *       attach        mount(2), at a directory that is held
 *       calls, reply  what it is asked by the kernel, and what is answered
 *       reaper        unmounts what a killed daemon leaves behind
 *       names         lookup, create, unlink
 *       link          dotlocks: a second name for a lock file
 *       symlink       locks that are symbolic links
 *       files         open, read, write, fsync, poll, close
 *       locks         taking locks; flock
 *       fcntl         byte ranges
 *       signals       to those who have lost a lock
 *       search, searcher  the processes that have a file open, by helper processes; what these do
 *       dirs          mkdir, rmdir, listing
 *       attr, xattr   attributes; who holds a lock, breaking it; a directory's policies
 *       steps         what many of these begin with: permissions, waiting for releases
 *       looks         what a thread was told a moment ago
 *       stake         why a lock is held: O_EXCL, flock, byte ranges
 *       keep          locks that need no open file (hold=process, hold=name)
 *       former        who has closed the file that he created, and may yet remove it
 *       hints         what the log says to who misreads lock files
 *       revive        what another process needs to go on, and going on with another's
 *       content, text what a lock file reads as
 *       status        the files below .latchfs
 *       report, table, lines, metrics  what they say
 *       shared        a text that many open files read as
 *       node, handle  names that the kernel knows, and open files
 *
 *     lock/           locks
 *       lockspace     all locks of a mount, driven by the store
 *       news          what the store tells it
 *       parts         tries, where some have only parts of a file; giving a part back
 *       contents      what holders write: how much, and how often
 *       waiters       who waits for what is being done anyway
 *       counts        how many locks there are, and what became of requests
 *       revive        the locks of another process
 *       lock, view    one lock's queue, as a state machine without I/O
 *
 *     store/          where locks are kept
 *       store.h       what a lock store can do: the seam
 *       policy, record  what it keeps of directories and holders
 *       survey        all that it has, for the table of locks
 *       etcd/etcd     the store on etcd: session, watch and places put together
 *       etcd/places   join, try, leave
 *       etcd/presence  is a place there; writing into it
 *       etcd/numbers  what places are named with, and again when that is safe
 *       etcd/evict    taking somebody's place away
 *       etcd/op, batch  one operation; many of them in one transaction
 *       etcd/fence    no copy of a request is carried out late
 *       etcd/names    lookup, listing, directories
 *       etcd/survey   everything at once
 *       etcd/lease    the lease and its deadline
 *       etcd/leased   directories that go with it
 *       etcd/revision  has it gone back in time
 *       etcd/resume   going on with another process's
 *       etcd/watch    the one watch
 *       etcd/status, metrics  what it tells of itself
 *       etcd/client   calls: retries, authentication
 *       etcd/endpoints  which addresses answer
 *       etcd/probe, ask  whether a mount could live with it; calls that are waited for
 *       etcd/wire, wire_parse, values, keys, json   what is written to etcd, and how it is read
 *
 *     event/          the one thread
 *       loop          descriptors, deadlines, signals
 *       http          libcurl on the loop
 *       service       what systemd is told, and keeps for us
 *
 *     base/           util, arena, buffer, base64, json_text, ledger, limits, log, memory,
 *                     metrics, outlet, pack, proc, pulse, ranges, regular_file, shares, sorting,
 * usage
 *
 * A program that locks a file: fs/calls -> fs/locks -> lock/lockspace -> lock/lock, which asks for
 * a place -> store/etcd/places -> batch -> client -> http.  The answer comes back the same way, or,
 * if there is a queue, store/etcd/watch tells of those who leave it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ledger.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/pulse.h"
#include "base/util.h"
#include "check.h"
#include "commands.h"
#include "event/loop.h"
#include "event/service.h"
#include "fs/mount.h"
#include "help.h"
#include "lock/lockspace.h"
#include "options.h"
#include "store/etcd/etcd.h"
#include "succession.h"
#include "supervise.h"

enum {
	TIDY_EVERY = 10 * 1000,
	/* A supervisor is patient for a quarter of the TTL, but for no shorter time than this. */
	MIN_PATIENCE_MS = 1000,
	/* In that time the loop shows so often that it turns. */
	BEATS = 8,
};

struct program {
	struct options options;
	struct loop *loop;
	struct store *store;
	struct lockspace *space;
	struct mount *mount;
	struct loop_timer tidy_timer, pulse_timer;
	struct service service;
	struct ledger *ledger; /* NULL if nobody supervises us */
	struct estate estate;  /* what was left to us */
	int supervisor;        /* -1 if there is none */
	char *served; /* where something is mounted that was left to us; NULL: nothing was */
	char **argv;
	int ready_fd; /* to the process that waits for us to get going; -1 = none */
	bool ready, stopping;
	int64_t stopping_at;
	int status; /* to exit with */
};

/* --- the end --- */

static void on_store_stopped(void *user, int result)
{
	struct program *program = user;

	loop_stop(program->loop);
}

/* Who has a file open learns that before anybody else can get the lock. */
static void stop(struct program *program, int status)
{
	if (program->stopping)
		return;
	program->stopping = true;
	program->stopping_at = loop_clock();
	program->status = status;
	service_stopping();
	if (program->supervisor >= 0)
		supervise_end(program->supervisor);
	mount_detach(program->mount);
	lockspace_end(program->space);
	program->store->ops->stop(program->store, on_store_stopped, program);
}

static void on_signal(void *user, int signal)
{
	struct program *program = user;

	if (signal == SIGUSR1 || signal == SIGUSR2) {
		if (program->supervisor < 0)
			log_warning("it is not replaced: nobody supervises it");
		return;
	}
	/* Who signals a whole group means it once; the supervisor passes that on. */
	if (program->supervisor >= 0 && program->stopping &&
		loop_clock() - program->stopping_at < SUPERVISE_ECHO_MS)
		return;
	log_info("ends by signal %d (%s)", signal, strsignal(signal));
	/* The second one means it. */
	if (program->stopping)
		loop_stop(program->loop);
	else
		stop(program, program->ready ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void on_mount_ended(void *user)
{
	struct program *program = user;

	if (!program->stopping)
		log_info("%s was unmounted", program->options.mount_point);
	stop(program, EXIT_SUCCESS);
}

/* --- the beginning --- */

/* Tells the process that started us how it went, and leaves its terminal. */
static void go_to_background(struct program *program)
{
	unsigned char status = EXIT_SUCCESS;

	if (program->options.foreground)
		return;
	/* Not earlier: on an automount point autofs lets only systemd's process group mount. */
	setsid();
	log_to_syslog();
	if (chdir("/") < 0)
		log_warning("chdir /: %s", strerror(errno));
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	if (program->ready_fd < 0)
		return;
	if (write(program->ready_fd, &status, sizeof(status)) < 0)
		log_warning("nobody waits for the start: %s", strerror(errno));
	close(program->ready_fd);
	program->ready_fd = -1;
}

static void tell_supervisor(const struct program *program)
{
	struct mount_ends ends = mount_ends(program->mount);
	bool resumable = mount_is_resumable(program->mount);

	supervise_tell(program->supervisor, program->estate.is_inherited ? NULL : &ends, resumable);
}

static void say_doubt(void *user, const char *text)
{
	log_warning("%s", text);
}

static void on_mount_ready(void *user, int error)
{
	struct program *program = user;

	if (error) {
		log_error("the kernel does not let FUSE file systems lock (flock and POSIX)");
		stop(program, EXIT_FAILURE);
		return;
	}
	program->ready = true;
	if (!program->options.trace)
		log_set_level(LOG_LEVEL_INFO);
	go_to_background(program);
	/* An echo: it goes on when what the former process has left is read. */
	if (program->estate.is_inherited)
		return;
	if (program->supervisor >= 0)
		tell_supervisor(program);
	if (program->supervisor >= 0 && !mount_is_resumable(program->mount))
		log_info("this kernel does not ask again, as Linux 6.9 does: if the process that "
			 "serves the mount is killed its locks are lost");
	log_info("%s mounted at %s", program->options.source, program->options.mount_point);
	options_each_doubt(&program->options, say_doubt, NULL);
	if (!mount_has_symlinks(program->mount))
		log_info(
			"no lock can be a symbolic link here, because opening it would lead to "
			"another file: to forbid that takes Linux 5.10, and to be mounted by root");
	service_ready(&program->service, program->loop, program->options.source);
}

static const struct mount_events mount_events = {.ready = on_mount_ready, .ended = on_mount_ended};

static void on_store_started(void *user, int result)
{
	struct program *program = user;

	if (program->stopping)
		return;
	if (!result && mount_attach(program->mount) == 0)
		return;
	if (result == -EACCES)
		log_error("%s refuses us: %s (latchfs check says more)", program->options.source,
			program->store->ops->reason(program->store));
	else if (result)
		log_error("%s can't be used: %s (latchfs check says more)", program->options.source,
			program->store->ops->reason(program->store));
	program->status = EXIT_FAILURE;
	/* Without a session there is nothing to give back. */
	if (result)
		loop_stop(program->loop);
	else
		stop(program, EXIT_FAILURE);
}

static struct etcd_options etcd_options_of(const struct options *options)
{
	return (struct etcd_options){
		.client = {.endpoints = options->store.endpoints,
			.endpoint_count = options->store.endpoint_count,
			.ca_file = options->ca_file,
			.cert_file = options->cert_file,
			.key_file = options->key_file,
			.user = options->user,
			.password = options->password,
			.timeout = options->timeout},
		.prefix = options->store.prefix,
		.ttl = options->ttl,
		.root_mode = options->root_mode,
	};
}

static int create_parts(struct program *program)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
	struct options *options = &program->options;
	struct etcd_options etcd = etcd_options_of(options);
	struct lockspace_limits limits = {.claims = (size_t)options->max_claims,
		.content = (size_t)options->max_content * 1024 * 1024,
		.write_rate = (size_t)options->write_rate * 1024,
		.user_share = (unsigned int)options->user_share};
	struct fs_options fs = {.host = options->host,
		.mount_point = options->mount_point,
		.policy = options->policy,
		.resumes = program->estate.is_inherited,
		.pulse = program->estate.pulse,
		.source = options->source,
		.ttl = options->ttl * 1000,
		.timeout = options->timeout,
		.max_claims = options->max_claims,
		.max_content = options->max_content,
		.max_handles = options->max_handles,
		.user_share = options->user_share,
		.write_rate = options->write_rate,
		.root_mode = options->root_mode,
		.login = options->user != NULL};

	program->loop = loop_new();
	if (!program->loop ||
		loop_signals(program->loop, signals, ARRAY_SIZE(signals), on_signal, program) < 0) {
		log_error("the event loop can't be set up: %s", strerror(errno));
		return -EIO;
	}
	program->store = etcd_new(program->loop, &etcd);
	options_forget_password(options);
	if (!program->store) {
		log_error("libcurl can't be set up");
		return -EIO;
	}
	program->store->ledger = program->ledger;
	program->space = lockspace_new(program->loop, program->store, options->timeout, &limits);
	return mount_new(program->loop, program->store, program->space, &fs, options->fuse_argc,
		options->fuse_argv, &mount_events, program, &program->mount);
}

static void free_parts(struct program *program)
{
	if (program->store)
		program->store->ops->free(program->store);
	lockspace_free(program->space);
	mount_free(program->mount);
	ledger_close(program->ledger);
	loop_free(program->loop);
}

static void on_tidy(struct loop_timer *timer)
{
	struct program *program = container_of(timer, struct program, tidy_timer);

	mount_tidy(program->mount);
	program->store->ops->tidy(program->store);
	ledger_tidy(program->ledger);
	memory_tidy();
	log_tidy(loop_clock());
	loop_timer_arm(timer->loop, timer, loop_clock() + TIDY_EVERY);
}

static int64_t patience_of(const struct options *options)
{
	int64_t quarter = (int64_t)options->ttl * 1000 / 4;

	return quarter < MIN_PATIENCE_MS ? MIN_PATIENCE_MS : quarter;
}

static void on_pulse(struct loop_timer *timer)
{
	struct program *program = container_of(timer, struct program, pulse_timer);

	pulse_beat(program->estate.pulse);
	loop_timer_arm(timer->loop, timer, loop_clock() + patience_of(&program->options) / BEATS);
}

/* What there is without connections to etcd, and one of each kind of these, with some to spare. */
static int check_file_limit(void)
{
	enum { NEEDED = 36 };
	unsigned long limit = limits_open_files();

	if (limit >= NEEDED)
		return 0;
	log_error("%lu open files are too few, at least %d are needed (ulimit -n, LimitNOFILE)",
		limit, NEEDED);
	return -EMFILE;
}

static int begin(struct program *program)
{
	struct store *store = program->store;

	if (!program->estate.is_inherited) {
		store->ops->start(store, on_store_started, program);
		return 0;
	}
	if (!store->ops->resume(store)) {
		log_error("the former process has left no session to go on with");
		return -EIO;
	}
	int error = mount_resume(program->mount, &program->estate.ends);
	if (error)
		return error;
	tell_supervisor(program);
	service_ready(&program->service, program->loop, program->options.source);
	return 0;
}

static int serve(struct program *program)
{
	srandom((unsigned int)getpid() ^ (unsigned int)loop_clock());
	memory_init();
	/* Until it runs there is one line to say, and that is why it does not. */
	log_set_level(program->options.trace ? LOG_LEVEL_TRACE : LOG_LEVEL_ERROR);
	program->status = EXIT_FAILURE;
	if (check_file_limit() == 0 && create_parts(program) == 0 && begin(program) == 0) {
		program->tidy_timer.fn = on_tidy;
		loop_timer_arm(program->loop, &program->tidy_timer, loop_clock() + TIDY_EVERY);
		program->pulse_timer.fn = on_pulse;
		if (program->estate.pulse)
			loop_timer_arm(program->loop, &program->pulse_timer, loop_clock());
		if (loop_run(program->loop) < 0)
			program->status = EXIT_FAILURE;
	}
	pulse_rest(program->estate.pulse);
	free_parts(program);
	return program->status;
}

static int serve_supervised(void *user, const struct estate *estate, int supervisor)
{
	struct program *program = user;

	if (program->ready_fd >= 0)
		close(program->ready_fd);
	program->ready_fd = -1;
	program->estate = *estate;
	program->supervisor = supervisor;
	program->ledger = ledger_open(estate->ledger);
	if (program->ledger && !estate->is_inherited)
		succession_begin(program->ledger, program->options.mount_point, program->argv);
	int status = program->ledger ? serve(program) : EXIT_FAILURE;
	close(supervisor);
	close(estate->ledger);
	return status;
}

static void on_worker_ready(void *user)
{
	struct program *program = user;

	log_set_level(program->options.trace ? LOG_LEVEL_TRACE : LOG_LEVEL_INFO);
	go_to_background(program);
}

/* What was taken out of the environment when we were started.  Who is only asked needs to know no
 * password, but that there is one. */
static void prepare_successor(void *user, bool is_asked)
{
	const struct options *options = &((const struct program *)user)->options;

	if (!options->password)
		return;
	setenv("ETCDCTL_USER", options->user, true);
	if (!options->password_of_file)
		setenv("ETCDCTL_PASSWORD", is_asked ? "-" : options->password, true);
}

static void undo_preparations(void *user)
{
	unsetenv("ETCDCTL_USER");
	unsetenv("ETCDCTL_PASSWORD");
}

static int serve_or_supervise(struct program *program)
{
	const struct supervision supervision = {.serve = serve_supervised,
		.ready = on_worker_ready,
		.prepare = prepare_successor,
		.stay = undo_preparations,
		.user = program,
		.estate = program->estate,
		.argv = program->argv,
		.patience = patience_of(&program->options),
		.mount_point = program->options.mount_point};

	limits_init();
	/* Also of a log whose reader has ended. */
	signal(SIGPIPE, SIG_IGN);
	if (!program->options.supervise)
		return serve(program);
	return supervise(&supervision);
}

/* What the process does that was started: it waits until the one in the background runs. */
static int wait_for_start(int fd, pid_t pid)
{
	unsigned char status;
	int wait_status;

	if (read(fd, &status, sizeof(status)) == (ssize_t)sizeof(status))
		return status;
	if (waitpid(pid, &wait_status, 0) == pid && WIFEXITED(wait_status))
		return WEXITSTATUS(wait_status);
	return EXIT_FAILURE;
}

static int serve_in_background(struct program *program)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0) {
		log_error("pipe: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	pid_t pid = fork();
	if (pid < 0) {
		log_error("fork: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (pid > 0) {
		close(fds[1]);
		return wait_for_start(fds[0], pid);
	}
	close(fds[0]);
	program->ready_fd = fds[1];
	return serve_or_supervise(program);
}

/* What is opened must not get the number of a standard stream, which others would then write to. */
static void open_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/*
 * What knows a password or a private key leaves no core, nor can others of its user look into it.
 * That goes for the children too.
 */
static int parse_options(struct program *program, int argc, char **argv, bool only_source)
{
	int was_dumpable = prctl(PR_GET_DUMPABLE);
	struct options *options = &program->options;
	int error;

	prctl(PR_SET_DUMPABLE, 0UL);
	if (only_source) {
		error = options_parse_source(options, argc, argv);
	} else {
		program->served = succession_find(&program->estate, argv);
		error = options_parse(options, argc, argv, program->served);
	}
	if (!error && !options->password && !options->key_file)
		prctl(PR_SET_DUMPABLE, (unsigned long)was_dumpable);
	return error;
}

static int check(const struct options *options)
{
	struct etcd_options etcd = etcd_options_of(options);

	return check_run(options, &etcd);
}

/* Whether we could take another program's place, with its command line. */
static int answer_question(struct options *options, int argc, char **argv, int status)
{
	prctl(PR_SET_DUMPABLE, 0UL);
	if (options_parse(options, argc, argv, argv[0]) < 0)
		status = EXIT_FAILURE;
	options_fini(options);
	return status;
}

int main(int argc, char **argv)
{
	struct program program = {.ready_fd = -1, .supervisor = -1, .argv = argv};
	bool is_check = argc > 1 && strcmp(argv[1], "check") == 0;
	int status = EXIT_SUCCESS;

	open_standard_streams();
	setvbuf(stderr, NULL, _IOLBF, 0);
	if (succession_is_question(&argc, &argv, &status))
		return answer_question(&program.options, argc, argv, status);
	if (command_run(argc, argv, &status))
		return fflush(stdout) == 0 ? status : EXIT_FAILURE;
	if (parse_options(&program, argc - is_check, argv + is_check, is_check) < 0)
		status = EXIT_FAILURE;
	else if (program.options.show_help)
		help_print();
	else if (program.options.show_version)
		puts("latchfs " LATCHFS_VERSION);
	else if (program.options.pretend)
		status = EXIT_SUCCESS;
	else if (is_check)
		status = check(&program.options);
	else if (program.options.foreground || program.served)
		status = serve_or_supervise(&program);
	else
		status = serve_in_background(&program);
	free(program.served);
	options_fini(&program.options);
	return status;
}
