/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_opt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/util.h"
#include "store/policy.h"

enum {
	DEFAULT_TTL = 10,
	MIN_TTL = 2, /* etcd grants no less */
	MAX_TTL = 86400,
	DEFAULT_TIMEOUT = 5,
	MAX_TIMEOUT = 3600,
	MAX_PASSWORD = 4096,
};

static const char default_prefix[] = "/latchfs";

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
	FUSE_OPT_KEY("name=", KEY_NAME),
	FUSE_OPT_KEY("hold=", KEY_POLICY),
	FUSE_OPT_KEY("names=", KEY_POLICY),
	FUSE_OPT_KEY("open=", KEY_POLICY),
	FUSE_OPT_KEY("record=", KEY_POLICY),
	FUSE_OPT_KEY("on_loss=", KEY_POLICY),
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
	FUSE_OPT_KEY("x-", KEY_IGNORED),
	FUSE_OPT_KEY("comment=", KEY_IGNORED),
	FUSE_OPT_END,
};

/* What fuse_opt_parse hands around. */
struct parsing {
	struct options *options;
	char *password_file;
	char *mount_point;
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

/* 0: the option is ours; 1: it is FUSE's; -1: it is wrong, which was said. */
static int on_option(void *user, const char *argument, int key, struct fuse_args *args)
{
	struct parsing *parsing = user;
	struct options *options = parsing->options;
	const char *value = strchr(argument, '=') ? strchr(argument, '=') + 1 : "";

	if (key == FUSE_OPT_KEY_NONOPT)
		return take_positional(parsing, argument);
	if (key == FUSE_OPT_KEY_OPT)
		return 1;
	switch ((enum key)key) {
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
	case KEY_PREFIX:
		set_string(&options->prefix, value);
		break;
	case KEY_CACERT:
		set_string(&options->ca_file, value);
		break;
	case KEY_CERT:
		set_string(&options->cert_file, value);
		break;
	case KEY_KEY:
		set_string(&options->key_file, value);
		break;
	case KEY_USER:
		set_string(&options->user, value);
		break;
	case KEY_PASSWORD_FILE:
		set_string(&parsing->password_file, value);
		break;
	case KEY_PASSWORD:
		return fail("a password must not stand on a command line", "use password_file=");
	case KEY_NAME:
		set_string(&options->host, value);
		break;
	case KEY_POLICY:
		return set_policy(options, argument, value);
	case KEY_IGNORED:
		break;
	}
	return 0;
}

/* --- the source --- */

static bool has_scheme(const char *s, const char *scheme)
{
	return strncmp(s, scheme, strlen(scheme)) == 0;
}

static int check_endpoint(const char *endpoint)
{
	const char *host = strstr(endpoint, "://") ? strstr(endpoint, "://") + 3 : endpoint;

	/* Not repeated in the message: it holds a secret. */
	if (strchr(host, '@'))
		return fail("a password must not stand in a URL", "use user= and password_file=");
	for (const char *c = host; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr(".-_:[]%", *c))
			return fail("not a host and port", endpoint);
	}
	return *host ? 0 : fail("a host is missing", endpoint);
}

/* What is not a URL is a host of an etcd cluster, with etcd's port if none is given. */
static char *with_scheme(const struct options *options, const char *host)
{
	const char *bracket = strrchr(host, ']');
	bool has_port = strchr(bracket ? bracket : host, ':');

	return xasprintf(
		"http%s://%s%s", options->ca_file ? "s" : "", host, has_port ? "" : ":2379");
}

static int add_endpoint(struct options *options, const char *text)
{
	bool known = has_scheme(text, "http://") || has_scheme(text, "https://");

	if (!known && strstr(text, "://"))
		return fail("no such lock store", text);
	if (check_endpoint(text) < 0)
		return -1;
	options->endpoints = xrealloc(
		options->endpoints, options->endpoint_count + 1, sizeof(options->endpoints[0]));
	options->endpoints[options->endpoint_count++] =
		known ? xstrdup(text) : with_scheme(options, text);
	return 0;
}

static int add_endpoints(struct options *options, const char *list)
{
	cleanup(free_ptr) char *copy = xstrdup(list);
	char *rest = copy, *one;

	while ((one = strsep(&rest, ","))) {
		size_t length = strlen(one);
		while (length && one[length - 1] == '/')
			one[--length] = '\0';
		if (length && add_endpoint(options, one) < 0)
			return -1;
	}
	return options->endpoint_count ? 0 : fail("no lock store is named", list);
}

/* Where the path behind the last host begins; the end of the text if there is none. */
static const char *find_path(const char *source)
{
	const char *last = strrchr(source, ',') ? strrchr(source, ',') + 1 : source;
	const char *host = strstr(last, "://") ? strstr(last, "://") + 3 : last;

	return host + strcspn(host, "/");
}

static int parse_source(struct options *options)
{
	const char *path = find_path(options->source);
	cleanup(free_ptr) char *hosts =
		xasprintf("%.*s", (int)(path - options->source), options->source);
	const char *environment = getenv("ETCDCTL_ENDPOINTS");

	if (!options->prefix)
		options->prefix = xstrdup(strlen(path) > 1 ? path : default_prefix);
	size_t length = strlen(options->prefix);
	while (length && options->prefix[length - 1] == '/')
		options->prefix[--length] = '\0';
	return add_endpoints(options, *hosts || !environment ? hosts : environment);
}

/* --- credentials --- */

static int read_password(struct options *options, const char *file)
{
	char text[MAX_PASSWORD];
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (size < 0)
		log_error("can't read the password file %s: %s", file, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (size < 0)
		return -1;
	text[size] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	set_string(&options->password, text);
	explicit_bzero(text, sizeof(text));
	return 0;
}

static void set_from_environment(char **to, const char *name)
{
	const char *value = getenv(name);

	if (!*to && value && *value)
		*to = xstrdup(value);
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
	return 0;
}

static int check_file(const char *what, const char *file)
{
	if (!file || access(file, R_OK) == 0)
		return 0;
	log_error("can't read the %s %s: %s", what, file, strerror(errno));
	return -1;
}

static void wipe_environment(const char *name)
{
	char *value = getenv(name);

	if (value)
		explicit_bzero(value, strlen(value));
	unsetenv(name);
}

void options_forget_password(struct options *options)
{
	if (options->password)
		explicit_bzero(options->password, strlen(options->password));
	free(take(options->password));
	wipe_environment("ETCDCTL_PASSWORD");
	wipe_environment("ETCDCTL_USER");
}

/* --- the rest --- */

static int set_mount_point(struct options *options, const char *path)
{
	struct stat attr;

	if (!path)
		return fail("a mount point is missing", "see latchfs --help");
	if (stat(path, &attr) < 0) {
		log_error("mount point %s: %s", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(attr.st_mode))
		return fail("the mount point is not a directory", path);
	options->mount_point = or_die(realpath(path, NULL));
	return 0;
}

static int complete(struct options *options, const struct parsing *parsing)
{
	char host[HOST_NAME_MAX + 1] = "";

	if (!options->source)
		return fail("a source is missing", "see latchfs --help");
	if (read_credentials(options, parsing->password_file) < 0 ||
		check_file("CA certificate", options->ca_file) < 0 ||
		check_file("certificate", options->cert_file) < 0 ||
		check_file("key", options->key_file) < 0 || parse_source(options) < 0 ||
		set_mount_point(options, parsing->mount_point) < 0)
		return -1;
	if (!options->host || !*options->host) {
		gethostname(host, sizeof(host) - 1);
		set_string(&options->host, host);
	}
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

int options_parse(struct options *options, int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct parsing parsing = {.options = options};
	int error = 0;

	*options = (struct options){.ttl = DEFAULT_TTL, .timeout = DEFAULT_TIMEOUT};
	if (fuse_opt_parse(&args, &parsing, table, on_option) < 0)
		error = -EINVAL;
	if (!error && !options->show_help && !options->show_version &&
		complete(options, &parsing) < 0)
		error = -EINVAL;
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

void options_fini(struct options *options)
{
	struct fuse_args args = {.argc = options->fuse_argc,
		.argv = options->fuse_argv,
		.allocated = options->fuse_allocated};

	options_forget_password(options);
	for (size_t i = 0; i < options->endpoint_count; i++)
		free(options->endpoints[i]);
	free(options->endpoints);
	free(options->source);
	free(options->mount_point);
	free(options->prefix);
	free(options->ca_file);
	free(options->cert_file);
	free(options->key_file);
	free(options->user);
	free(options->host);
	fuse_opt_free_args(&args);
}

void options_print_help(void)
{
	fputs("usage: latchfs [-o opt,...] [-f] [-d] SOURCE MOUNTPOINT\n"
	      "\n"
	      "Mounts a directory in which every file is a lock, shared by all who mount SOURCE.\n"
	      "\n"
	      "SOURCE is http://HOST:PORT[,...][/PREFIX] or https://..., of an etcd cluster;\n"
	      "the prefix of its keys is /latchfs if none is given.\n"
	      "\n"
	      "  -f                    stay in the foreground\n"
	      "  -d                    the same, and tell of every request\n"
	      "  -o ttl=SECONDS        a lock of a machine that died is free after that (10)\n"
	      "  -o timeout=SECONDS    patience with the store where nothing may wait (5)\n"
	      "  -o prefix=PREFIX      of the keys in the store\n"
	      "  -o cacert=FILE, cert=FILE, key=FILE\n"
	      "                        for https, in PEM form\n"
	      "  -o user=NAME, password_file=FILE\n"
	      "                        who we are to the store\n"
	      "  -o name=NAME          this node's name in records (the host name)\n"
	      "  -o names=held|always, open=plain|lock, record=yes|no, on_loss=error|term|kill,\n"
	      "     hold=close         policies of the root directory\n"
	      "  -o allow_other        let other users in, and FUSE's further options\n"
	      "  -h, --help            this text\n"
	      "  -V, --version         the version\n"
	      "\n"
	      "The environment variables ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT,\n"
	      "ETCDCTL_KEY, ETCDCTL_USER and ETCDCTL_PASSWORD stand in for what is not given.\n"
	      "See latchfs(8) for all of it.\n",
		stdout);
}
