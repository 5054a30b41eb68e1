/* SPDX-License-Identifier: MIT */
/*
 * How much each user has of something that there is only so much of.
 *
 * An ordinary user may have a share of it; all of them together leave a reserve.  Only the
 * privileged users, which are root and the user that the daemon runs as, may have everything.  So
 * one user can never take what is meant for all, and root can always act.
 *
 * The one rule: shares_allow decides, shares_take and shares_give only count.  What has to be
 * counted but can't be refused, as after a restart, is taken without asking.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buffer;
struct share;

enum shares_verdict {
	SHARES_FIT,
	SHARES_USER_FULL, /* that user has its share */
	SHARES_ALL_FULL,  /* there is no more, or only the reserve */
	SHARES_VERDICTS,
};

/* What it is, in words. */
struct shares_kind {
	const char *resource; /* the label's value in metrics: "claims" */
	const char *what;     /* there is so much of it: "locks are held or waited for" */
	const char *option;   /* the name of its limit */
	const char *error;    /* the error that a request for more fails with */
};

struct shares {
	/* To be read by the owner. */
	size_t used; /* by all */

	/* Its own. */
	const struct shares_kind *kind;
	size_t limit;   /* of all together */
	size_t each;    /* of an ordinary user */
	size_t reserve; /* that ordinary users leave; part of the limit */
	struct share *users;
	uint64_t refused[SHARES_VERDICTS];
	int64_t complained_at[SHARES_VERDICTS]; /* by the caller's clock; 0: never */
};

/* percent: the share of an ordinary user, from 1 to 100; kind is borrowed. */
void shares_init(
	struct shares *shares, const struct shares_kind *kind, size_t limit, unsigned int percent);
void shares_fini(struct shares *shares);

/*
 * Whether that user may have so much more.  A refusal is counted, and said in the log, but each
 * verdict at most once a minute; now: in milliseconds, on any clock that is never 0.
 */
bool shares_allow(struct shares *shares, uid_t uid, size_t more, int64_t now);

void shares_take(struct shares *shares, uid_t uid, size_t more);
void shares_give(struct shares *shares, uid_t uid, size_t less);

/* How much that user has. */
size_t shares_of(const struct shares *shares, uid_t uid);

/* Adds the limits and the refusals of all of these. */
void shares_metrics(struct buffer *text, const struct shares *const *shares, size_t count);
