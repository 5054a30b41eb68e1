/* SPDX-License-Identifier: MIT */
#include "store/etcd/fence.h"

#include <errno.h>

#include "base/util.h"
#include "store/etcd/internal.h"
#include "store/etcd/keys.h"

enum { REFUSED_MS = 1000 };

void etcd_fence_init(struct etcd_fence *fence, struct etcd *etcd)
{
	fence->etcd = etcd;
}

void etcd_fence_begin(struct etcd_fence *fence)
{
	if (fence->lease == fence->etcd->lease.id)
		return;
	fence->lease = fence->etcd->lease.id;
	fence->revision = 0;
	fence->fenced = fence->losses;
}

void etcd_fence_end(struct etcd_fence *fence)
{
	etcd_call_cancel(&fence->call);
	fence->lease = 0;
}

static bool is_refused(const struct etcd_fence *fence)
{
	return loop_clock() < fence->refused_until;
}

bool etcd_fence_is_due(const struct etcd_fence *fence, unsigned int strays)
{
	return (!fence->revision || strays || fence->losses != fence->fenced) && !is_refused(fence);
}

void etcd_fence_guard(
	struct etcd_fence *fence, struct etcd_guard *guard, bool raises, struct wire_txn *txn)
{
	struct etcd *etcd = fence->etcd;
	cleanup(free_ptr) char *key = key_session(etcd->prefix, etcd->lease.id);

	*guard = (struct etcd_guard){.is_on = true,
		.raises = raises,
		.lease = etcd->lease.id,
		.revision = fence->revision,
		.losses = fence->losses};
	wire_if_modified(txn, key, fence->revision);
	if (guard->raises)
		wire_put(txn, key, "", etcd->lease.id);
	wire_txn_else(txn);
	wire_range(txn, key, NULL, &(struct wire_range_options){.keys_only = true});
	guard->shape = txn->shape;
}

/* It was not carried out.  What others have learnt of the key meanwhile is newer than the answer.
 */
static void learn(
	struct etcd_fence *fence, const struct etcd_guard *guard, const struct wire_result *answer)
{
	const struct wire_kvs *found = &answer->ranges[0];

	if (guard->revision == fence->revision)
		fence->revision = found->count ? found->kv[0].modified : 0;
}

int etcd_fence_answered(struct etcd_fence *fence, const struct etcd_guard *guard,
	const struct wire_result *answer, unsigned int strays)
{
	if (guard->lease != fence->etcd->lease.id)
		return answer->succeeded && !strays ? 0 : -EAGAIN;
	if (!answer->succeeded) {
		learn(fence, guard, answer);
		return -EAGAIN;
	}
	if (guard->raises) {
		fence->revision = answer->revision;
		fence->fenced = guard->losses;
		return 0;
	}
	if (strays && !is_refused(fence))
		return -EAGAIN;
	fence->losses += strays;
	return 0;
}

bool etcd_fence_refused(struct etcd_fence *fence, const struct etcd_guard *guard)
{
	if (!guard->is_on || !guard->raises)
		return false;
	fence->refused_until = loop_clock() + REFUSED_MS;
	return true;
}

/* --- raising it without anything else --- */

static char *compose(struct etcd_call *call)
{
	struct etcd_fence *fence = container_of(call, struct etcd_fence, call);
	struct wire_txn txn = {0};

	etcd_fence_guard(fence, &fence->guard, etcd_fence_is_due(fence, call->strays), &txn);
	char *body = wire_txn_body(&txn, &call->rpc);
	wire_txn_fini(&txn);
	return body;
}

static int read_answer(struct etcd_call *call, const char *body)
{
	struct etcd_fence *fence = container_of(call, struct etcd_fence, call);
	struct wire_result answer;

	if (wire_parse_parts(body, NULL, NULL, 0, &fence->guard.shape, &answer) < 0)
		return -EBADMSG;
	int result = etcd_fence_answered(fence, &fence->guard, &answer, call->strays - 1);
	wire_result_fini(&answer);
	return result;
}

static void start(struct etcd_fence *fence);

/* If it failed, the next transaction that writes does the same. */
static void on_raised(struct etcd_call *call, int result)
{
	struct etcd_fence *fence = container_of(call, struct etcd_fence, call);

	if (result == -ENOSPC)
		(void)etcd_fence_refused(fence, &fence->guard);
	else if (result == ETCD_NO_LEASE)
		etcd_lease_gone(&fence->etcd->lease);
	else if (!result && fence->losses != fence->fenced)
		start(fence);
}

static void start(struct etcd_fence *fence)
{
	fence->call = (struct etcd_call){
		.compose = compose, .lane = ETCD_LANE_NAMES, .read = read_answer, .fn = on_raised};
	etcd_call_start(fence->etcd->client, &fence->call);
}

void etcd_fence_lost(struct etcd_fence *fence)
{
	fence->losses++;
	if (fence->etcd->lease.id && !etcd_call_active(&fence->call))
		start(fence);
}
