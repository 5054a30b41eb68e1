/* SPDX-License-Identifier: MIT */
/*
 * Directories that go with our lease.  Nobody holds them by a descriptor that could fail, so the
 * log is where their end is told.
 */
#include <string.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/pack.h"
#include "base/util.h"
#include "store/etcd/internal.h"

struct etcd_leased {
	char *path;
	uint64_t revision; /* when it was made */
	uint64_t made_at; /* the same on the store's own count, or when it was said to be deleted */
	bool seen, removing;
	ledger_slot slot;
	UT_hash_handle hh;
};

static void drop(struct etcd *etcd, struct etcd_leased *leased)
{
	HASH_DEL(etcd->leased, leased);
	ledger_drop(etcd->store.ledger, &leased->slot);
	free(leased->path);
	free(leased);
}

static struct etcd_leased *find(struct etcd *etcd, const char *path, size_t length)
{
	struct etcd_leased *leased;

	HASH_FIND(hh, etcd->leased, path, length, leased);
	return leased;
}

/* A directory's own key is its path with a slash behind it. */
static struct etcd_leased *find_below(struct etcd *etcd, const char *below)
{
	size_t length = below ? strlen(below) : 0;

	return length && below[length - 1] == '/' ? find(etcd, below, length - 1) : NULL;
}

void etcd_leased_revive(struct etcd *etcd, const char *path, uint64_t revision, ledger_slot slot)
{
	struct etcd_leased *leased = find(etcd, path, strlen(path));

	if (!leased) {
		leased = xzalloc(sizeof(*leased));
		leased->path = xstrdup(path);
		HASH_ADD_KEYPTR(hh, etcd->leased, leased->path, strlen(leased->path), leased);
	}
	leased->revision = revision;
	leased->made_at = ++etcd->clock;
	leased->removing = false;
	leased->slot = slot;
}

void etcd_leased_add(struct etcd *etcd, const char *path, uint64_t revision)
{
	const struct etcd_leased *former = find(etcd, path, strlen(path));
	ledger_slot slot = former ? former->slot : 0;
	struct buffer entry = {0};

	pack_u64(&entry, revision);
	pack_string(&entry, path);
	ledger_put(etcd->store.ledger, &slot, LEDGER_DIRECTORY, entry.data, entry.size);
	buffer_fini(&entry);
	etcd_leased_revive(etcd, path, revision, slot);
}

void etcd_leased_removing(struct etcd *etcd, const char *path)
{
	struct etcd_leased *leased = find(etcd, path, strlen(path));

	if (leased)
		leased->removing = true;
}

void etcd_leased_removed(struct etcd *etcd, const char *path, int result)
{
	struct etcd_leased *leased = find(etcd, path, strlen(path));

	if (leased && result)
		leased->removing = false;
	else if (leased && leased->removing)
		drop(etcd, leased);
}

/* Somebody may have removed it, or the lease is gone, of which the watch may be the first to tell.
 */
bool etcd_leased_deleted(struct etcd *etcd, const char *below, uint64_t revision)
{
	struct etcd_leased *leased = find_below(etcd, below);

	if (!leased || leased->revision >= revision)
		return false;
	if (leased->removing) {
		drop(etcd, leased);
		return false;
	}
	/* What is being read may not know it yet. */
	leased->made_at = ++etcd->clock;
	return true;
}

void etcd_leased_seen(struct etcd *etcd, const char *below)
{
	struct etcd_leased *leased = find_below(etcd, below);

	if (leased)
		leased->seen = true;
}

void etcd_leased_compare(struct etcd *etcd)
{
	struct etcd_leased *leased, *next;

	HASH_ITER(hh, etcd->leased, leased, next) {
		bool gone = !leased->seen && leased->made_at <= etcd->check_clock;
		leased->seen = false;
		if (gone)
			drop(etcd, leased);
	}
}

void etcd_leased_end(struct etcd *etcd, bool lost)
{
	struct etcd_leased *leased, *next;

	HASH_ITER(hh, etcd->leased, leased, next) {
		if (lost && log_admits("directories that go with the lease", 0, loop_clock()))
			log_warning("directory %s goes with the lease that was lost", leased->path);
		drop(etcd, leased);
	}
}
