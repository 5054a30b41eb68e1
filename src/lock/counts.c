/* SPDX-License-Identifier: MIT */
/* How many locks there are, and what has become of those that were asked for. */
#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/util.h"
#include "lock/internal.h"

/* --- just now --- */

static void count_claim(const struct holding *holding, int64_t now, struct lockspace_counts *counts)
{
	int64_t waits = now - holding->asked_at;
	int64_t holds = now - holding->granted_at;
	/* Patient ones are in no queue while they wait. */
	bool is_waiting = holding->is_parked;

	switch (holding->claim.state) {
	case CLAIM_NEW:
	case CLAIM_JOINING:
	case CLAIM_WAITING:
		is_waiting = true;
		break;
	case CLAIM_HELD:
		counts->held++;
		if (holding->granted_at && holds > counts->longest_hold)
			counts->longest_hold = holds;
		break;
	case CLAIM_LOST:
		counts->lost++;
		break;
	case CLAIM_LEAVING:
		counts->releasing++;
		break;
	case CLAIM_OVER:
		break;
	}
	counts->waiting += is_waiting;
	if (is_waiting && waits > counts->longest_wait)
		counts->longest_wait = waits;
}

/* Who has a part of a file, or wants one, is never in the queue without having it. */
static size_t count_waiting(const struct named_lock *named)
{
	const struct lock_entry *entry;
	const struct holding *patient;
	bool any_before = false, exclusive_before = false;
	size_t waiting;

	DL_COUNT2(named->parked, patient, waiting, parked_next);
	DL_FOREACH(named->lock.view, entry) {
		if (!entry->ranges)
			waiting += entry->shared ? exclusive_before : any_before;
		any_before = true;
		exclusive_before = exclusive_before || !entry->shared;
	}
	return waiting;
}

void lockspace_count(const struct lockspace *space, struct lockspace_counts *counts)
{
	const struct holding *holding;
	const struct named_lock *named;
	int64_t now = loop_clock();

	*counts = (struct lockspace_counts){.content = space->content.used};
	DL_FOREACH2(space->all, holding, all_next) {
		count_claim(holding, now, counts);
	}
	for (named = space->locks; named; named = named->hh.next) {
		size_t waiting = count_waiting(named);
		if (waiting > counts->longest_queue)
			counts->longest_queue = waiting;
	}
}

/* --- so far --- */

static const struct {
	int error;
	const char *name;
} failures[LOCK_FAILURES] = {
	{-EIO, "EIO"}, {-ENOSPC, "ENOSPC"}, {-EACCES, "EACCES"}, {-EISDIR, "EISDIR"}, {0, "other"}};

static size_t failure_of(int error)
{
	size_t i = 0;

	while (i < LOCK_FAILURES - 1 && failures[i].error != error)
		i++;
	return i;
}

void count_answer(struct holding *holding, int result)
{
	struct lock_metrics *metrics = &holding->space->metrics;
	int64_t now = loop_clock();

	if (result == CLAIM_GRANTED) {
		holding->granted_at = now;
		metrics->grants[holding->claim.shared]++;
		if (!holding->claim.try || holding->patient)
			histogram_add(&metrics->waits, &scale_duration, now - holding->asked_at);
	} else if (result == CLAIM_BUSY) {
		metrics->refused++;
	} else if (result == -EINTR) {
		metrics->interrupted++;
	} else {
		metrics->failures[failure_of(result)]++;
	}
}

void count_release(struct holding *holding)
{
	if (!holding->granted_at)
		return;
	histogram_add(&holding->space->metrics.holds, &scale_duration,
		loop_clock() - holding->granted_at);
	holding->granted_at = 0;
}

void count_loss(struct holding *holding)
{
	struct lockspace *space = holding->space;

	count_release(holding);
	if (space->suspended)
		space->metrics.lost_with_lease++;
	else
		space->metrics.lost_alone++;
}

/* --- for Prometheus --- */

static void write_now(const struct lockspace *space, struct buffer *text)
{
	static const char locks[] = "latchfs_locks";
	struct lockspace_counts counts;

	lockspace_count(space, &counts);
	metric_head(text, locks, "gauge", "Locks of this mount.");
	metric_number(text, locks, "state=\"held\"", counts.held);
	metric_number(text, locks, "state=\"waiting\"", counts.waiting);
	metric_number(text, locks, "state=\"lost\"", counts.lost);
	metric_number(text, locks, "state=\"releasing\"", counts.releasing);
	metric_gauge_seconds(text, "latchfs_hold_longest_seconds", counts.longest_hold,
		"Since when the lock is held that is held longest.");
	metric_gauge_seconds(text, "latchfs_wait_longest_seconds", counts.longest_wait,
		"Since when the request waits that waits longest.");
	metric_gauge(text, "latchfs_queue_longest", counts.longest_queue,
		"How many wait for the lock with the longest queue, as far as is known here.");
	metric_gauge(text, "latchfs_content_bytes", counts.content, "What all lock files contain.");
}

static void write_failures(const struct lock_metrics *metrics, struct buffer *text)
{
	static const char name[] = "latchfs_failures_total";

	metric_head(text, name, "counter", "Requests for locks that failed, by error.");
	for (size_t i = 0; i < LOCK_FAILURES; i++) {
		cleanup(free_ptr) char *label = metric_label("error", failures[i].name);
		metric_number(text, name, label, metrics->failures[i]);
	}
}

void lockspace_shares(const struct lockspace *space, const struct shares **shares)
{
	shares[0] = &space->claims;
	shares[1] = &space->content;
}

void lockspace_metrics(const struct lockspace *space, struct buffer *text)
{
	static const char grants[] = "latchfs_grants_total", losses[] = "latchfs_losses_total";
	static const char waits[] = "latchfs_wait_seconds", holds[] = "latchfs_hold_seconds";
	const struct lock_metrics *metrics = &space->metrics;

	write_now(space, text);
	metric_head(text, grants, "counter", "Locks that were granted.");
	metric_number(text, grants, "mode=\"exclusive\"", metrics->grants[false]);
	metric_number(text, grants, "mode=\"shared\"", metrics->grants[true]);
	metric_counter(
		text, "latchfs_refused_total", metrics->refused, "Tries that met somebody else.");
	metric_counter(text, "latchfs_interrupted_total", metrics->interrupted,
		"Requests for locks that ended by a signal.");
	write_failures(metrics, text);
	metric_head(text, losses, "counter", "Held locks that were lost, by cause.");
	metric_number(text, losses, "cause=\"lease\"", metrics->lost_with_lease);
	metric_number(text, losses, "cause=\"broken\"", metrics->lost_alone);
	metric_head(text, waits, "histogram", "From asking to grant, where a request may wait.");
	metric_histogram(text, waits, NULL, &metrics->waits, &scale_duration);
	metric_head(text, holds, "histogram", "From grant to giving back or loss.");
	metric_histogram(text, holds, NULL, &metrics->holds, &scale_duration);
}
