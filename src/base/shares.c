/* SPDX-License-Identifier: MIT */
#include "base/shares.h"

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include <uthash.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/util.h"

enum { RESERVE_PART = 16 };

struct share {
	uid_t uid;
	size_t used;
	UT_hash_handle hh;
};

void shares_init(
	struct shares *shares, const struct shares_kind *kind, size_t limit, unsigned int percent)
{
	size_t each = limit / 100 * percent + limit % 100 * percent / 100;

	*shares = (struct shares){
		.kind = kind,
		.limit = limit,
		.each = each || !limit ? each : 1,
		.reserve = percent < 100 ? limit / RESERVE_PART : 0,
	};
}

void shares_fini(struct shares *shares)
{
	struct share *share, *next;

	HASH_ITER(hh, shares->users, share, next) {
		HASH_DEL(shares->users, share);
		free(share);
	}
}

static struct share *find(const struct shares *shares, uid_t uid)
{
	struct share *share;

	HASH_FIND(hh, shares->users, &uid, sizeof(uid), share);
	return share;
}

size_t shares_of(const struct shares *shares, uid_t uid)
{
	const struct share *share = find(shares, uid);

	return share ? share->used : 0;
}

static bool exceeds(size_t used, size_t more, size_t limit)
{
	return used > limit || more > limit - used;
}

static enum shares_verdict judge(const struct shares *shares, uid_t uid, size_t more)
{
	bool is_privileged = uid == 0 || uid == geteuid();

	if (!more)
		return SHARES_FIT;
	if (exceeds(shares->used, more, shares->limit - (is_privileged ? 0 : shares->reserve)))
		return SHARES_ALL_FULL;
	if (!is_privileged && exceeds(shares_of(shares, uid), more, shares->each))
		return SHARES_USER_FULL;
	return SHARES_FIT;
}

static void complain(const struct shares *shares, enum shares_verdict verdict, uid_t uid)
{
	const struct shares_kind *kind = shares->kind;

	if (verdict == SHARES_USER_FULL)
		log_warning("%zu %s of user %u (user_share of %s): asking for more fails with %s",
			shares_of(shares, uid), kind->what, (unsigned int)uid, kind->option,
			kind->error);
	else
		log_warning("%zu %s (%s): asking for more fails with %s", shares->used, kind->what,
			kind->option, kind->error);
}

bool shares_allow(struct shares *shares, uid_t uid, size_t more, int64_t now)
{
	enum shares_verdict verdict = judge(shares, uid, more);

	if (verdict == SHARES_FIT)
		return true;
	shares->refused[verdict]++;
	if (log_is_due(&shares->complained_at[verdict], now))
		complain(shares, verdict, uid);
	return false;
}

void shares_take(struct shares *shares, uid_t uid, size_t more)
{
	struct share *share = find(shares, uid);

	if (!more)
		return;
	if (!share) {
		share = xzalloc(sizeof(*share));
		share->uid = uid;
		HASH_ADD(hh, shares->users, uid, sizeof(share->uid), share);
	}
	share->used += more;
	shares->used += more;
}

void shares_give(struct shares *shares, uid_t uid, size_t less)
{
	struct share *share = find(shares, uid);

	if (!less || !share)
		return;
	share->used -= less;
	shares->used -= less;
	if (share->used)
		return;
	HASH_DEL(shares->users, share);
	free(share);
}

static void write_limits(struct buffer *text, const char *name, const struct shares *shares,
	size_t of_user, size_t of_mount)
{
	const char *resource = shares->kind->resource;
	cleanup(free_ptr) char *user = xasprintf("resource=\"%s\",of=\"user\"", resource);
	cleanup(free_ptr) char *mount = xasprintf("resource=\"%s\",of=\"mount\"", resource);

	metric_number(text, name, user, of_user);
	metric_number(text, name, mount, of_mount);
}

void shares_metrics(struct buffer *text, const struct shares *const *shares, size_t count)
{
	static const char limit[] = "latchfs_limit", refused[] = "latchfs_limit_refused_total";

	metric_head(
		text, limit, "gauge", "How much of a resource one user, or the mount, may have.");
	for (size_t i = 0; i < count; i++)
		write_limits(text, limit, shares[i], shares[i]->each, shares[i]->limit);
	metric_head(text, refused, "counter", "Requests that were refused for such a limit.");
	for (size_t i = 0; i < count; i++)
		write_limits(text, refused, shares[i], (size_t)shares[i]->refused[SHARES_USER_FULL],
			(size_t)shares[i]->refused[SHARES_ALL_FULL]);
}
