/* SPDX-License-Identifier: MIT */
/* The command line: latchfs [-o opt,...] [-f] [-d] SOURCE MOUNTPOINT, and the environment. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "source.h"
#include "store/store.h"

struct options {
	/* What to do instead of mounting. */
	bool show_help, show_version;
	bool pretend; /* nothing: the options were right, and mount(8) had no more in mind */

	bool foreground, trace;
	bool supervise;    /* another process goes on if the one that serves the mount is killed */
	char *source;      /* as given, to be shown as the mounted device */
	char *mount_point; /* absolute */

	struct source store; /* what the source says */
	char *ca_file, *cert_file, *key_file;
	char *user, *password; /* the password: see options_forget_password */
	bool password_is_open; /* others may read its file */
	bool password_of_file; /* it is in a file, where it can be read again */
	char *host;            /* this node's name */
	int ttl;               /* seconds */
	int timeout;           /* milliseconds */
	int max_claims;
	int max_content; /* MiB */
	int max_handles;
	int write_rate; /* KiB of content a second */
	int user_share; /* percent of each limit that an ordinary user may have */
	mode_t root_mode;
	struct store_policy policy;

	/* FUSE's own options: a program name, then "-o", option, ... */
	int fuse_argc;
	char **fuse_argv;
	bool fuse_allocated; /* fuse_argv is ours, not main's */
};

/*
 * Reads everything, and takes the password out of the environment.  Returns 0, or -EINVAL after
 * logging one line that says what is wrong.  The caller calls options_fini in both cases.
 * served: where something is mounted already, whose requests this process is to answer, so that it
 * must not touch that itself; NULL: at the mount point, which has to be a directory.
 */
int options_parse(struct options *options, int argc, char **argv, const char *served);
/* The same without `served`, but the mount point may be missing: then it is NULL. */
int options_parse_source(struct options *options, int argc, char **argv);
void options_fini(struct options *options);

/* Wipes the password. */
void options_forget_password(struct options *options);

/* Calls say for each thing that works, but that nobody will have meant. */
void options_each_doubt(
	const struct options *options, void (*say)(void *user, const char *text), void *user);
