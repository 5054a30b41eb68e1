/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/util.h"
#include "event/loop.h"
#include "options.h"
#include "store/etcd/etcd.h"
#include "store/etcd/probe.h"
#include "store/policy.h"

struct check {
	struct loop *loop;
	bool interrupted;
};

static void say(void *user, enum etcd_verdict verdict, const char *text)
{
	static const char *const words[] = {[ETCD_VERDICT_OK] = "ok",
		[ETCD_VERDICT_WARNING] = "warning",
		[ETCD_VERDICT_ERROR] = "error"};
	cleanup(free_ptr) char *printable = xstrdup(text);

	copy_printable(printable, strlen(printable) + 1, text);
	printf("%-8s%s\n", words[verdict], printable);
	fflush(stdout);
}

static void on_signal(void *user, int signal)
{
	struct check *check = user;

	/* The second one means it. */
	if (check->interrupted)
		_exit(EXIT_FAILURE);
	check->interrupted = true;
	loop_stop(check->loop);
}

/* --- what a mount would do --- */

static void add_login(struct buffer *text, const struct options *options)
{
	if (options->user)
		buffer_addf(text, ", as user %s", options->user);
	if (options->cert_file)
		buffer_addf(text, ", with certificate %s", options->cert_file);
	if (options->ca_file)
		buffer_addf(text, ", trusting %s", options->ca_file);
}

static void add_policies(struct buffer *text, const struct options *options)
{
	for (size_t i = 0; i < POLICY_COUNT; i++) {
		const char *value = policy_get(&options->policy, policy_name(i));
		if (value)
			buffer_addf(text, " %s=%s", policy_name(i), value);
	}
}

/* Behind the program's name and our own. */
static void add_fuse_options(struct buffer *text, const struct options *options)
{
	for (int i = 1; i < options->fuse_argc; i++) {
		const char *word = options->fuse_argv[i];
		if (strcmp(word, "-o") != 0 && !strstr(word, "subtype=latchfs"))
			buffer_addf(text, " %s", word);
	}
}

/* Without what is secret, or says where that is kept. */
static void say_options(const struct options *options)
{
	struct buffer text = {0}, policies = {0}, fuse = {0};

	buffer_addf(&text, "a mount would be %s in records, and ask etcd with ttl=%d timeout=%d",
		options->host, options->ttl, options->timeout / 1000);
	buffer_addf(&text, " max_claims=%d max_content=%d root_mode=%04o, keys below %s/",
		options->max_claims, options->max_content, options->root_mode,
		options->store.prefix);
	if (options->supervise)
		buffer_add_string(&text, ", with another process to go on if it dies");
	add_login(&text, options);
	say(NULL, ETCD_VERDICT_OK, text.data);
	add_policies(&policies, options);
	if (policies.size) {
		cleanup(free_ptr) char *line =
			xasprintf("policies of its root, if that has none:%s", policies.data);
		say(NULL, ETCD_VERDICT_OK, line);
	}
	add_fuse_options(&fuse, options);
	if (fuse.size) {
		cleanup(free_ptr) char *line =
			xasprintf("for FUSE, which was not asked about it:%s", fuse.data);
		say(NULL, ETCD_VERDICT_OK, line);
	}
	buffer_fini(&text);
	buffer_fini(&policies);
	buffer_fini(&fuse);
}

static void say_doubt(void *user, const char *text)
{
	say(user, ETCD_VERDICT_WARNING, text);
}

static void say_device(void)
{
	static const char device[] = "/dev/fuse";

	if (access(device, R_OK | W_OK) == 0)
		return;
	cleanup(free_ptr) char *line =
		xasprintf("no mount can be made on this machine: %s: %s", device, strerror(errno));
	say(NULL, ETCD_VERDICT_WARNING, line);
}

int check_run(const struct options *options, const struct etcd_options *etcd)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct check check = {.loop = loop_new()};

	if (!check.loop ||
		loop_signals(check.loop, signals, ARRAY_SIZE(signals), on_signal, &check) < 0) {
		log_error("the event loop can't be set up: %s", strerror(errno));
		loop_free(check.loop);
		return EXIT_FAILURE;
	}
	/* What goes wrong has its own line. */
	if (!options->trace)
		log_set_level(LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	bool is_good = etcd_probe(check.loop, etcd, &check.interrupted, say, NULL);
	say_options(options);
	options_each_doubt(options, say_doubt, NULL);
	say_device();
	loop_free(check.loop);
	return is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
