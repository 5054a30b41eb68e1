/* SPDX-License-Identifier: MIT */
/*
 * Asks a cluster whether a mount could live with it: for people, before there is a mount.
 *
 * Everything is asked as a mount asks it, and one thing after the other; nothing of it stays.  The
 * one key that is written, with a lease, is below the prefix where mounts put what only those are
 * to hear who wait for it, so no mount takes it for a lock.
 */
#pragma once

#include <stdbool.h>

struct etcd_options;
struct loop;

enum etcd_verdict { ETCD_VERDICT_OK, ETCD_VERDICT_WARNING, ETCD_VERDICT_ERROR };

/* text: one line of what was found; borrowed. */
typedef void etcd_probe_fn(void *user, enum etcd_verdict verdict, const char *text);

/*
 * Runs the loop itself, and returns when all has been asked.  *interrupted may become true
 * meanwhile, with loop_stop: then nothing more is asked, but what was written is taken away.
 * Returns false if there was an error.
 */
bool etcd_probe(struct loop *loop, const struct etcd_options *options, const bool *interrupted,
	etcd_probe_fn *fn, void *user);
