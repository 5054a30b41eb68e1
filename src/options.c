/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_log.h>
#include <fuse_opt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/regular_file.h"
#include "base/util.h"
#include "helper.h"
#include "store/policy.h"

enum {
	DEFAULT_TTL = 10,
	MIN_TTL = 2, /* etcd grants no less */
	MAX_TTL = 86400,
	DEFAULT_TIMEOUT = 5,
	MAX_TIMEOUT = 3600,
	DEFAULT_CLAIMS = 100000,
	MAX_CLAIMS = 100000000,
	DEFAULT_CONTENT = 256, /* MiB */
	DEFAULT_HANDLES = 200000,
	DEFAULT_SHARE = 10, /* percent */
	DEFAULT_RATE = 128, /* KiB a second */
	MAX_RATE = 1024 * 1024,
	MAX_CONTENT = 65536,
	MAX_PASSWORD = 4096,
	MAX_NAME = 255, /* bytes */
};

enum key {
	KEY_HELP,
	KEY_VERSION,
	KEY_FOREGROUND,
	KEY_TRACE,
	KEY_TTL,
	KEY_TIMEOUT,
	KEY_PREFIX,
	KEY_CACERT,
	KEY_CERT,
	KEY_KEY,
	KEY_USER,
	KEY_PASSWORD_FILE,
	KEY_PASSWORD,
	KEY_NAME,
	KEY_MAX_CLAIMS,
	KEY_MAX_CONTENT,
	KEY_MAX_HANDLES,
	KEY_USER_SHARE,
	KEY_WRITE_RATE,
	KEY_ROOT_MODE,
	KEY_SUPERVISE,
	KEY_POLICY,
	KEY_IGNORED,
};

static const struct fuse_opt table[] = {
	FUSE_OPT_KEY("-h", KEY_HELP),
	FUSE_OPT_KEY("--help", KEY_HELP),
	FUSE_OPT_KEY("-V", KEY_VERSION),
	FUSE_OPT_KEY("--version", KEY_VERSION),
	FUSE_OPT_KEY("-f", KEY_FOREGROUND),
	FUSE_OPT_KEY("-d", KEY_TRACE),
	FUSE_OPT_KEY("ttl=", KEY_TTL),
	FUSE_OPT_KEY("timeout=", KEY_TIMEOUT),
	FUSE_OPT_KEY("prefix=", KEY_PREFIX),
	FUSE_OPT_KEY("cacert=", KEY_CACERT),
	FUSE_OPT_KEY("cert=", KEY_CERT),
	FUSE_OPT_KEY("key=", KEY_KEY),
	FUSE_OPT_KEY("user=", KEY_USER),
	FUSE_OPT_KEY("password_file=", KEY_PASSWORD_FILE),
	FUSE_OPT_KEY("password=", KEY_PASSWORD),
	FUSE_OPT_KEY("password", KEY_PASSWORD),
	FUSE_OPT_KEY("name=", KEY_NAME),
	FUSE_OPT_KEY("max_claims=", KEY_MAX_CLAIMS),
	FUSE_OPT_KEY("max_content=", KEY_MAX_CONTENT),
	FUSE_OPT_KEY("max_handles=", KEY_MAX_HANDLES),
	FUSE_OPT_KEY("user_share=", KEY_USER_SHARE),
	FUSE_OPT_KEY("write_rate=", KEY_WRITE_RATE),
	FUSE_OPT_KEY("root_mode=", KEY_ROOT_MODE),
	FUSE_OPT_KEY("supervise=", KEY_SUPERVISE),
	FUSE_OPT_KEY("hold=", KEY_POLICY),
	FUSE_OPT_KEY("names=", KEY_POLICY),
	FUSE_OPT_KEY("open=", KEY_POLICY),
	FUSE_OPT_KEY("record=", KEY_POLICY),
	FUSE_OPT_KEY("on_loss=", KEY_POLICY),
	FUSE_OPT_KEY("dirs=", KEY_POLICY),
	FUSE_OPT_KEY("mkdir=", KEY_POLICY),
	/* What fstab(5) says to others. */
	FUSE_OPT_KEY("_netdev", KEY_IGNORED),
	FUSE_OPT_KEY("nofail", KEY_IGNORED),
	FUSE_OPT_KEY("auto_unmount", KEY_IGNORED),
	FUSE_OPT_KEY("noauto", KEY_IGNORED),
	FUSE_OPT_KEY("auto", KEY_IGNORED),
	FUSE_OPT_KEY("user", KEY_IGNORED),
	FUSE_OPT_KEY("nouser", KEY_IGNORED),
	FUSE_OPT_KEY("users", KEY_IGNORED),
	FUSE_OPT_KEY("defaults", KEY_IGNORED),
	FUSE_OPT_KEY("comment=", KEY_IGNORED),
	FUSE_OPT_END,
};

/* What fuse_opt_parse hands around. */
struct parsing {
	struct options *options;
	char *password_file;
	char *mount_point;
	const char *served;
	bool only_source; /* there need not be a mount point */
};

static int fail(const char *what, const char *argument)
{
	log_error("%s: %s", what, argument);
	return -1;
}

static void set_string(char **to, const char *value)
{
	free(*to);
	*to = xstrdup(value);
}

static int set_number(int *to, const char *argument, const char *value, uint64_t min, uint64_t max,
	const char *unit)
{
	uint64_t number;

	if (parse_u64(value, 10, max, &number) < 0 || number < min) {
		log_error("%s: a number of %s from %llu to %llu is needed", argument, unit,
			(unsigned long long)min, (unsigned long long)max);
		return -1;
	}
	*to = (int)number;
	return 0;
}

static int set_mode(mode_t *to, const char *argument, const char *value)
{
	uint64_t bits;

	if (parse_u64(value, 8, 07777, &bits) < 0)
		return fail("a mode in octal is needed, as 755 or 1777", argument);
	*to = (mode_t)bits;
	return 0;
}

static int set_switch(bool *to, const char *argument, const char *value)
{
	*to = strcmp(value, "yes") == 0;
	return *to || strcmp(value, "no") == 0 ? 0 : fail("yes or no is needed", argument);
}

static int set_policy(struct options *options, const char *argument, const char *value)
{
	cleanup(free_ptr) char *name = xasprintf("%.*s", (int)(value - argument) - 1, argument);

	if (policy_set(&options->policy, name, value) == 0)
		return 0;
	return fail("no such policy", argument);
}

static int take_positional(struct parsing *parsing, const char *argument)
{
	if (!parsing->options->source)
		parsing->options->source = xstrdup(argument);
	else if (!parsing->mount_point)
		parsing->mount_point = xstrdup(argument);
	else
		return fail("one argument too many", argument);
	return 0;
}

/* Whether it is an option of the table that lacks its "=" and value. */
static bool lacks_value(const char *argument)
{
	size_t length = strlen(argument);

	for (const struct fuse_opt *option = table; option->templ; option++) {
		if (strncmp(option->templ, argument, length) == 0 &&
			strcmp(option->templ + length, "=") == 0)
			return true;
	}
	return false;
}

/* What the table does not have.  Returns as on_option. */
static int on_other_option(const char *argument)
{
	if (lacks_value(argument))
		return fail("a value is missing", argument);
	return begins_with(argument, "x-") ? 0 : 1; /* fstab(5) again */
}

/* Where an option goes that is a text and nothing more; NULL if it is another one. */
static char **text_of(struct parsing *parsing, enum key key)
{
	struct options *options = parsing->options;

	switch (key) {
	case KEY_PREFIX:
		return &options->store.prefix;
	case KEY_CACERT:
		return &options->ca_file;
	case KEY_CERT:
		return &options->cert_file;
	case KEY_KEY:
		return &options->key_file;
	case KEY_USER:
		return &options->user;
	case KEY_PASSWORD_FILE:
		return &parsing->password_file;
	case KEY_NAME:
		return &options->host;
	case KEY_HELP:
	case KEY_VERSION:
	case KEY_FOREGROUND:
	case KEY_TRACE:
	case KEY_TTL:
	case KEY_TIMEOUT:
	case KEY_MAX_CLAIMS:
	case KEY_MAX_CONTENT:
	case KEY_MAX_HANDLES:
	case KEY_USER_SHARE:
	case KEY_WRITE_RATE:
	case KEY_ROOT_MODE:
	case KEY_PASSWORD:
	case KEY_SUPERVISE:
	case KEY_POLICY:
	case KEY_IGNORED:
		break;
	}
	return NULL;
}

/* Of all the others.  Returns as on_option. */
static int set_option(
	struct options *options, enum key key, const char *argument, const char *value)
{
	switch (key) {
	case KEY_HELP:
		options->show_help = true;
		break;
	case KEY_VERSION:
		options->show_version = true;
		break;
	case KEY_TRACE:
		options->trace = true;
		options->foreground = true;
		break;
	case KEY_FOREGROUND:
		options->foreground = true;
		break;
	case KEY_TTL:
		return set_number(&options->ttl, argument, value, MIN_TTL, MAX_TTL, "seconds");
	case KEY_TIMEOUT:
		return set_number(&options->timeout, argument, value, 1, MAX_TIMEOUT, "seconds");
	case KEY_PASSWORD:
		return fail("a password must not stand on a command line", "use password_file=");
	case KEY_MAX_CLAIMS:
		return set_number(&options->max_claims, argument, value, 1, MAX_CLAIMS, "claims");
	case KEY_MAX_CONTENT:
		return set_number(&options->max_content, argument, value, 0, MAX_CONTENT, "MiB");
	case KEY_MAX_HANDLES:
		return set_number(&options->max_handles, argument, value, 1, MAX_CLAIMS, "files");
	case KEY_USER_SHARE:
		return set_number(&options->user_share, argument, value, 1, 100, "percent");
	case KEY_WRITE_RATE:
		return set_number(&options->write_rate, argument, value, 1, MAX_RATE, "KiB");
	case KEY_ROOT_MODE:
		return set_mode(&options->root_mode, argument, value);
	case KEY_SUPERVISE:
		return set_switch(&options->supervise, argument, value);
	case KEY_POLICY:
		return set_policy(options, argument, value);
	case KEY_PREFIX:
	case KEY_CACERT:
	case KEY_CERT:
	case KEY_KEY:
	case KEY_USER:
	case KEY_PASSWORD_FILE:
	case KEY_NAME:
	case KEY_IGNORED:
		break;
	}
	return 0;
}

/* 0: the option is ours; 1: it is FUSE's; -1: it is wrong, which was said. */
static int on_option(void *user, const char *argument, int key, struct fuse_args *args)
{
	struct parsing *parsing = user;
	const char *value = strchr(argument, '=') ? strchr(argument, '=') + 1 : "";

	if (key == FUSE_OPT_KEY_NONOPT)
		return take_positional(parsing, argument);
	if (key == FUSE_OPT_KEY_OPT)
		return on_other_option(argument);
	if (strchr(argument, '=') && !*value && key != KEY_PREFIX && key != KEY_IGNORED)
		return fail("a value is missing", argument);
	if (key == KEY_USER && strchr(value, ':'))
		return fail("a password must not stand on a command line", "use password_file=");
	char **text = text_of(parsing, (enum key)key);
	if (!text)
		return set_option(parsing->options, (enum key)key, argument, value);
	set_string(text, value);
	return 0;
}

/* --- credentials --- */

static int read_password(struct options *options, const char *file)
{
	char text[MAX_PASSWORD];
	struct stat attr;
	int fd = regular_file_open(file, &attr);
	ssize_t size = fd < 0 ? fd : read(fd, text, sizeof(text) - 1);

	if (size < 0)
		log_error("can't read the password file %s: %s", file,
			fd < 0 ? regular_file_reason(fd) : strerror(errno));
	if (fd >= 0)
		close(fd);
	if (size < 0)
		return -1;
	options->password_is_open = attr.st_mode & (S_IRGRP | S_IROTH);
	text[size] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	set_string(&options->password, text);
	options->password_of_file = true;
	explicit_bzero(text, sizeof(text));
	return 0;
}

static void set_from_environment(char **to, const char *name)
{
	const char *value = getenv(name);

	if (!*to && value && *value)
		*to = xstrdup(value);
}

static void wipe_environment(const char *name)
{
	char *value = getenv(name);

	if (value)
		explicit_bzero(value, strlen(value));
	unsetenv(name);
}

static int check_login(const struct options *options, const char *password_file)
{
	bool has_user = options->user && *options->user;

	if (password_file && !has_user)
		return fail("a password needs its user (user=)", password_file);
	if (options->user && !has_user)
		return fail("a name is missing", "ETCDCTL_USER");
	if (has_user && (!options->password || !*options->password))
		return fail("a user needs a password (password_file=, ETCDCTL_PASSWORD)",
			options->user);
	return 0;
}

static int read_credentials(struct options *options, const char *password_file)
{
	set_from_environment(&options->ca_file, "ETCDCTL_CACERT");
	set_from_environment(&options->cert_file, "ETCDCTL_CERT");
	set_from_environment(&options->key_file, "ETCDCTL_KEY");
	set_from_environment(&options->user, "ETCDCTL_USER");
	if (password_file && read_password(options, password_file) < 0)
		return -1;
	/* ETCDCTL_USER may be "name:password". */
	char *colon = options->user ? strchr(options->user, ':') : NULL;
	if (colon) {
		if (!options->password)
			options->password = xstrdup(colon + 1);
		explicit_bzero(colon, strlen(colon));
	}
	set_from_environment(&options->password, "ETCDCTL_PASSWORD");
	return check_login(options, password_file);
}

/* The files are read again whenever a connection is made, and then by a daemon that stands in /. */
static void make_absolute(char **file)
{
	cleanup(free_ptr) char *directory = *file && **file != '/' ? getcwd(NULL, 0) : NULL;
	cleanup(free_ptr) char *relative = NULL;

	if (!directory)
		return;
	relative = take(*file);
	*file = xasprintf("%s/%s", directory, relative);
}

static int check_file(const char *what, char **file)
{
	int error = *file ? regular_file_check(*file) : 0;

	if (error) {
		log_error("can't read the %s %s: %s", what, *file, regular_file_reason(error));
		return -1;
	}
	make_absolute(file);
	return 0;
}

static int check_files(struct options *options)
{
	if (options->cert_file && !options->key_file)
		return fail("a certificate needs its key (key=)", options->cert_file);
	if (options->key_file && !options->cert_file)
		return fail("a key needs its certificate (cert=)", options->key_file);
	if (check_file("CA certificate", &options->ca_file) < 0 ||
		check_file("certificate", &options->cert_file) < 0 ||
		check_file("key", &options->key_file) < 0)
		return -1;
	return 0;
}

void options_each_doubt(
	const struct options *options, void (*say)(void *user, const char *text), void *user)
{
	if (options->user && source_is_overheard(&options->store))
		say(user, "the password travels in the clear: etcd is asked by http");
	if (options->password_is_open)
		say(user, "others may read the password file");
}

void options_forget_password(struct options *options)
{
	if (options->password)
		explicit_bzero(options->password, strlen(options->password));
	free(take(options->password));
}

/* --- the rest --- */

static int set_mount_point(struct options *options, const struct parsing *parsing)
{
	const char *path = parsing->mount_point;
	struct stat attr;

	if (parsing->served) {
		set_string(&options->mount_point, parsing->served);
		return 0;
	}

	if (!path)
		return fail("a mount point is missing", "see latchfs --help");
	if (stat(path, &attr) < 0) {
		log_error("mount point %s: %s%s", path, strerror(errno),
			errno == ENOTCONN ? ": what was mounted there has died; unmount it first "
					    "(fusermount3 -u)"
					  : "");
		return -1;
	}
	if (!S_ISDIR(attr.st_mode))
		return fail("the mount point is not a directory", path);
	/* The working directory may have been deleted. */
	options->mount_point = realpath(path, NULL);
	return options->mount_point ? 0 : fail("the mount point has no path", path);
}

static int check_name(const char *name)
{
	if (strlen(name) > MAX_NAME)
		return fail("name= is longer than 255 bytes", name);
	for (const char *c = name; *c;) {
		if (!skip_printable(&c))
			return fail("name= has a control character, or is no UTF-8", name);
	}
	return 0;
}

static int complete(struct options *options, const struct parsing *parsing)
{
	char host[HOST_NAME_MAX + 1] = "";

	if (!options->source)
		return fail("a source is missing", "see latchfs --help");
	if (read_credentials(options, parsing->password_file) < 0 || check_files(options) < 0 ||
		source_parse(&options->store, options->source, getenv("ETCDCTL_ENDPOINTS"),
			options->ca_file || options->cert_file || options->key_file) < 0 ||
		((parsing->mount_point || !parsing->only_source) &&
			set_mount_point(options, parsing) < 0))
		return -1;
	if (options->host)
		return check_name(options->host);
	gethostname(host, sizeof(host) - 1);
	options->host = xzalloc(sizeof(host));
	copy_printable(options->host, sizeof(host), host);
	return 0;
}

/* Commas and backslashes in the source must survive FUSE's splitting of options. */
static char *escape(const char *text)
{
	struct buffer escaped = {0};

	for (; *text; text++) {
		if (*text == ',' || *text == '\\')
			buffer_add_string(&escaped, "\\");
		buffer_add(&escaped, text, 1);
	}
	return buffer_take(&escaped);
}

static void add_own_mount_options(const struct options *options, struct fuse_args *args)
{
	cleanup(free_ptr) char *source = escape(options->source);
	cleanup(free_ptr) char *own = xasprintf("-osubtype=latchfs,fsname=%s", source);

	fuse_opt_add_arg(args, own);
}

/* What libfuse's parser has to say, memory aside, is that an option, which can only be -o, has no
 * argument. */
__attribute__((format(printf, 2, 0))) static void on_fuse_log(
	enum fuse_log_level level, const char *format, va_list args)
{
	char text[256];

	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_error("%s", begins_with(text, "fuse: ") ? text + strlen("fuse: ") : text);
}

static int parse(
	struct options *options, int argc, char **argv, const char *served, bool only_source)
{
	bool pretend = helper_arguments(&argc, argv);
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct parsing parsing = {.options = options, .served = served, .only_source = only_source};
	int error = 0;

	*options = (struct options){.pretend = pretend,
		.supervise = true,
		.ttl = DEFAULT_TTL,
		.timeout = DEFAULT_TIMEOUT,
		.max_claims = DEFAULT_CLAIMS,
		.max_content = DEFAULT_CONTENT,
		.max_handles = DEFAULT_HANDLES,
		.user_share = DEFAULT_SHARE,
		.write_rate = DEFAULT_RATE,
		.root_mode = STORE_DEFAULT_MODE};
	fuse_set_log_func(on_fuse_log);
	if (fuse_opt_parse(&args, &parsing, table, on_option) < 0)
		error = -EINVAL;
	if (!error && !options->show_help && !options->show_version &&
		complete(options, &parsing) < 0)
		error = -EINVAL;
	/* Children have an environment as well, and all can be read in /proc. */
	wipe_environment("ETCDCTL_PASSWORD");
	wipe_environment("ETCDCTL_USER");
	if (!error && options->source)
		add_own_mount_options(options, &args);
	options->timeout *= 1000;
	options->fuse_argc = args.argc;
	options->fuse_argv = args.argv;
	options->fuse_allocated = args.allocated;
	free(parsing.password_file);
	free(parsing.mount_point);
	return error;
}

int options_parse(struct options *options, int argc, char **argv, const char *served)
{
	return parse(options, argc, argv, served, false);
}

int options_parse_source(struct options *options, int argc, char **argv)
{
	return parse(options, argc, argv, NULL, true);
}

void options_fini(struct options *options)
{
	struct fuse_args args = {.argc = options->fuse_argc,
		.argv = options->fuse_argv,
		.allocated = options->fuse_allocated};

	options_forget_password(options);
	source_fini(&options->store);
	free(options->source);
	free(options->mount_point);
	free(options->ca_file);
	free(options->cert_file);
	free(options->key_file);
	free(options->user);
	free(options->host);
	fuse_opt_free_args(&args);
}
