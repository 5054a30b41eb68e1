/* SPDX-License-Identifier: MIT */
/* What is different from case to case; tests/model/check says what. */

#ifndef CLAIMS
#define CLAIMS 3 /* at most 4; each wants the lock once */
#endif
#ifndef ON_B
#define ON_B 4 /* which of them are on mount B, one bit each; the others are on mount A */
#endif
#ifndef FOREIGN
#define FOREIGN 0 /* which is no mount's, but that of another program; it locks twice */
#endif
#ifndef SHARED
#define SHARED 0 /* which are shared */
#endif
#ifndef TRIES
#define TRIES 0 /* which want it now or not at all */
#endif
#ifndef IMPATIENT
#define IMPATIENT 0 /* which may be interrupted before they have it */
#endif
#ifndef FAILING
#define FAILING 0 /* whose requests may end with an error */
#endif
#ifndef UPGRADE
#define UPGRADE 0 /* 1: claim 1 is of the one who holds claim 0, which is not in its way */
#endif
#ifndef LOSSES
#define LOSSES 0 /* leases that are not renewed in time */
#endif
#ifndef REVOKES
#define REVOKES 0 /* leases that an operator revokes */
#endif
#ifndef BREAKS
#define BREAKS 0 /* keys that an operator deletes */
#endif
#ifndef RETRIES
#define RETRIES 0 /* requests that are sent again, for the answer was late or lost */
#endif
#ifndef BATCHES
#define BATCHES 0 /* 1: requests of a mount may be carried out together */
#endif
#ifndef GAPS
#define GAPS 0 /* how often a watch finds its revision compacted */
#endif
#ifndef DEAF
#define DEAF 0 /* mounts whose watch never tells anything, one bit each */
#endif
#ifndef CHECKS
#define CHECKS 0 /* how often a mount compares its keys, at any time */
#endif
#ifndef ROUNDS
#define ROUNDS 0 /* how often both do so when nothing else happens any more */
#endif
#ifndef EXCLUSION_ALONE
#define EXCLUSION_ALONE 0 /* 1: of a grant nothing else is asserted */
#endif

/* What is deliberately wrong. */
#define NOTHING		       0
#define EXPIRY_BEFORE_DEADLINE 1  /* etcd gives a lease up before its mount does */
#define GRANTED_WHEN_LOST      2  /* who waits is granted the lock after a loss */
#define JOINS_IGNORED	       3  /* a grant does not wait for joins that are under way */
#define HANDOVER_OVERTAKES     4  /* the next one here has it, whoever is between */
#define SHARED_TRY_KNOWS_ALL   5  /* a shared try is taken for proof that nobody was there */
#define TRIES_TOGETHER	       6  /* two tries of one lock in one transaction */
#define JOINS_TOGETHER	       7  /* two joins of one lock in one transaction */
#define SHARED_TRY_PUT_AGAIN   8  /* a shared try is repeated without looking for itself */
#define NEWS_FORGOTTEN	       9  /* news that comes during a read is not kept */
#define QUEUE_NOT_READ	       10 /* a contended queue is not read again */
#define WAITER_FORGOTTEN       11 /* who waits does not queue again after a loss */
#define ANSWERED_AGAIN	       12 /* that a claim was answered is not noted */
#define CANCELED_KEPT	       13 /* who left while it was joining keeps the place */
#define ORPHANS_KEPT	       14 /* keys that nobody knows of are not deleted */
#define EARLY_NEWS_LOST	       15 /* news of a place that is not known to be there is not kept */
#define GAP_IGNORED	       16 /* places are not confirmed after a gap */
#ifndef BROKEN
#define BROKEN NOTHING
#endif
