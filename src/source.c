/* SPDX-License-Identifier: MIT */
#include "source.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

enum { MAX_PORT = 65535 };

static const char default_prefix[] = "/latchfs";

static int fail(const char *what, const char *argument)
{
	log_error("%s: %s", what, argument);
	return -EINVAL;
}

/* Where the host of an address begins: behind the scheme, if it has one. */
static const char *find_host(const char *address)
{
	const char *end = address + strcspn(address, ":/");

	return begins_with(end, "://") ? end + strlen("://") : address;
}

/* Where a host ends, which is at its port's colon if it has a port; at its beginning if it is none.
 */
static const char *find_host_end(const char *host)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	struct in6_addr binary;

	if (*host != '[')
		return host + strspn(host, plain);
	cleanup(free_ptr) char *address = xasprintf("%.*s", (int)strcspn(host + 1, "%]"), host + 1);
	const char *end = host + 1 + strlen(address);
	if (*end == '%') /* a zone */
		end += 1 + strspn(end + 1, plain);
	return *end == ']' && inet_pton(AF_INET6, address, &binary) == 1 ? end + 1 : host;
}

/* What is wrong with a host and port, NULL if nothing is. */
static const char *judge_host(const char *host)
{
	const char *end = find_host_end(host);
	uint64_t port;

	if (!*host || (*host == ':' && host[1] != ':'))
		return "a host is missing";
	if (*host != '[' && strchr(host, ':') != strrchr(host, ':'))
		return "one colon too many (an IPv6 address has to stand in brackets)";
	if (end == host || (*end && *end != ':') || strcmp(end, ":") == 0)
		return "not of the form http://HOST:PORT";
	if (*end && (parse_u64(end + 1, 10, MAX_PORT, &port) < 0 || port == 0))
		return "a port is a number from 1 to 65535";
	return NULL;
}

/*
 * Adds one address, which is changed.  What has no scheme or no port is a host of an etcd cluster
 * and gets etcd's.  Returns what is wrong, NULL if nothing is.
 */
static const char *add_endpoint(struct source *source, char *address, bool secure)
{
	char *host = address + (find_host(address) - address);
	char *path = host + strcspn(host, "/");
	const char *scheme = secure ? "https://" : "http://";

	if (host != address && !begins_with(address, "http://") &&
		!begins_with(address, "https://"))
		return "no such lock store";
	if (path[strspn(path, "/")])
		return "a path can stand only behind the last address";
	*path = '\0';
	const char *wrong = judge_host(host);
	if (wrong)
		return wrong;
	source->endpoints = xrealloc(
		source->endpoints, source->endpoint_count + 1, sizeof(source->endpoints[0]));
	source->endpoints[source->endpoint_count++] = xasprintf("%s%s%s",
		host == address ? scheme : "", address, *find_host_end(host) ? "" : ":2379");
	return NULL;
}

/* The list is the part of `whole` that holds the addresses. */
static int add_endpoints(struct source *source, const char *list, const char *whole, bool secure)
{
	cleanup(free_ptr) char *copy = xstrdup(list);
	char *rest = copy, *one;

	while ((one = strsep(&rest, ","))) {
		const char *wrong = *one ? add_endpoint(source, one, secure) : NULL;
		/* Not repeated in the message: it holds a secret. */
		if (wrong && strchr(whole, '@'))
			return fail("a password must not stand in a URL",
				"use user= and password_file=");
		if (wrong)
			return fail(wrong, one);
	}
	if (source->endpoint_count)
		return 0;
	log_error("no address of etcd in \"%s\": write http://HOST:2379/PREFIX, or set "
		  "ETCDCTL_ENDPOINTS",
		whole);
	return -EINVAL;
}

/* Where the path behind the last host begins; the end of the text if there is none. */
static const char *find_path(const char *text)
{
	const char *last = strrchr(text, ',') ? strrchr(text, ',') + 1 : text;
	const char *host = find_host(last);

	return host + strcspn(host, "/");
}

static void cut_slashes(char *text)
{
	size_t length = strlen(text);

	while (length && text[length - 1] == '/')
		text[--length] = '\0';
}

static int check_prefix(const char *prefix)
{
	if (*prefix != '/')
		return fail("a prefix has to begin with a slash and to name something", prefix);
	for (const char *part = prefix; *part; part += strcspn(part, "/")) {
		size_t length = strcspn(++part, "/");
		if (length == strspn(part, ".") && length <= 2)
			return fail("no part of a prefix can be empty, . or ..", prefix);
	}
	for (const char *c = prefix; *c; c++) {
		if (iscntrl((unsigned char)*c))
			return fail("a prefix can't have control characters", prefix);
	}
	return 0;
}

static bool is_plain(const char *endpoint)
{
	return begins_with(endpoint, "http://");
}

/* An attacker who makes the one fail is told by the other what was meant to be secret. */
static int check_schemes(const struct source *source, const char *text)
{
	for (size_t i = 1; i < source->endpoint_count; i++) {
		if (is_plain(source->endpoints[i]) != is_plain(source->endpoints[0]))
			return fail("http and https can't be mixed", text);
	}
	return 0;
}

static bool is_of_this_machine(const char *endpoint)
{
	const char *host = find_host(endpoint);
	bool is_number = strspn(host, "0123456789.") == strcspn(host, ":"); /* no name */

	return begins_with(host, "localhost:") || begins_with(host, "[::1]:") ||
	       (is_number && begins_with(host, "127."));
}

bool source_is_overheard(const struct source *source)
{
	for (size_t i = 0; i < source->endpoint_count; i++) {
		if (is_plain(source->endpoints[i]) && !is_of_this_machine(source->endpoints[i]))
			return true;
	}
	return false;
}

int source_parse(struct source *source, const char *text, const char *elsewhere, bool secure)
{
	const char *path = find_path(text);
	cleanup(free_ptr) char *hosts = xasprintf("%.*s", (int)(path - text), text);
	bool is_elsewhere = !*hosts && elsewhere && *elsewhere;

	if (add_endpoints(source, is_elsewhere ? elsewhere : hosts, is_elsewhere ? elsewhere : text,
		    secure) < 0 ||
		check_schemes(source, is_elsewhere ? elsewhere : hosts) < 0)
		return -EINVAL;
	if (!source->prefix)
		source->prefix = xstrdup(path[strspn(path, "/")] ? path : default_prefix);
	cut_slashes(source->prefix);
	return check_prefix(source->prefix);
}

void source_fini(struct source *source)
{
	for (size_t i = 0; i < source->endpoint_count; i++)
		free(source->endpoints[i]);
	free(source->endpoints);
	free(source->prefix);
	*source = (struct source){0};
}
