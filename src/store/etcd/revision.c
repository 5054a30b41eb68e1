/* SPDX-License-Identifier: MIT */
#include "store/etcd/revision.h"

#include "base/log.h"
#include "event/loop.h"

void etcd_revision_heard(struct etcd_revision *revision, uint64_t before, uint64_t answered)
{
	if (answered >= before) {
		if (answered > revision->latest)
			revision->latest = answered;
		return;
	}
	revision->latest = answered;
	if (log_is_due(&revision->told_at, loop_clock()))
		log_warning("etcd's revision went back; everything is read anew");
	revision->went_back(revision);
}
