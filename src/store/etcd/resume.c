/* SPDX-License-Identifier: MIT */
/* What another process needs to go on with our lease, and going on with another's. */
#include "base/buffer.h"
#include "base/ledger.h"
#include "base/log.h"
#include "base/pack.h"
#include "base/util.h"
#include "store/etcd/internal.h"

/* So many numbers are set aside at once. */
enum { NUMBERS = 4096 };

static void enter_session(struct etcd *etcd)
{
	struct buffer entry = {0};

	if (!etcd->store.ledger)
		return;
	pack_u64(&entry, etcd->lease.id);
	pack_u64(&entry, (uint64_t)etcd->lease.ttl);
	pack_u64(&entry, (uint64_t)etcd->lease.renewed_at);
	pack_u64(&entry, etcd->sequence_end);
	ledger_put(etcd->store.ledger, &etcd->session, LEDGER_SESSION, entry.data, entry.size);
	ledger_count(etcd->store.ledger, etcd->session,
		(uint64_t)(etcd->lease.id ? etcd_lease_deadline(&etcd->lease) : 0));
	buffer_fini(&entry);
}

void etcd_session_renewed(struct etcd_lease *lease)
{
	enter_session(container_of(lease, struct etcd, lease));
}

uint64_t etcd_next_sequence(struct etcd *etcd)
{
	if (etcd->sequence == etcd->sequence_end) {
		etcd->sequence_end += NUMBERS;
		enter_session(etcd);
	}
	return ++etcd->sequence;
}

struct session {
	ledger_slot slot;
	uint64_t lease, sequence_end;
	int64_t ttl, renewed_at;
};

static void read_session(
	void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	struct session *session = user;

	session->slot = slot;
	session->lease = unpack_u64(&from);
	session->ttl = (int64_t)unpack_u64(&from);
	session->renewed_at = (int64_t)unpack_u64(&from);
	session->sequence_end = unpack_u64(&from);
}

static void read_directory(
	void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	uint64_t revision = unpack_u64(&from);
	cleanup(free_ptr) char *path = unpack_string(&from, NULL);

	if (path)
		etcd_leased_revive(user, path, revision, slot);
}

/* The watch begins now: what happened before is what its gap is about. */
bool etcd_resume(struct store *store)
{
	struct etcd *etcd = etcd_of(store);
	struct session session = {0};

	ledger_each(store->ledger, LEDGER_SESSION, read_session, &session);
	if (!session.lease)
		return false;
	etcd->session = session.slot;
	etcd->sequence = etcd->sequence_end = session.sequence_end;
	etcd_lease_adopt(&etcd->lease, session.lease, session.ttl, session.renewed_at);
	/* What the former process has sent may still be on its way. */
	etcd_fence_lost(&etcd->fence);
	ledger_each(store->ledger, LEDGER_DIRECTORY, read_directory, etcd);
	etcd_watch_start(&etcd->watch, 0);
	return true;
}
