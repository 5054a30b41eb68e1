/* SPDX-License-Identifier: MIT */
#include "store/etcd/lease.h"

#include <errno.h>
#include <inttypes.h>

#include "base/log.h"
#include "base/util.h"
#include "store/etcd/wire.h"

enum {
	RENEWALS_PER_TTL = 4,
	ATTEMPTS_PER_TTL = 16, /* one that is not answered is sent elsewhere as well, that soon, */
	SHORTEST_PATIENCE = 200, /* but not sooner than that */
	LONGEST_PATIENCE = 1000, /* nor later than that */
	/* So many times that long it may be answered; one is left when the next is to be sent. */
	PATIENCE_LASTS = ETCD_RENEWALS - 1,
	MARGIN_PART = 10, /* the deadline lies this part of the TTL before etcd's */
};

static void grant(struct etcd_lease *lease, int64_t deadline);
static void revoke_lost(struct etcd_lease *lease);

static void count_doubt(struct etcd_lease *lease, enum store_session state)
{
	struct etcd_lease_metrics *metrics = &lease->metrics;

	if (metrics->doubtful_from)
		metrics->doubtful += loop_clock() - metrics->doubtful_from;
	metrics->doubtful_from = state == STORE_SESSION_DOUBTFUL ? loop_clock() : 0;
}

static void set_state(struct etcd_lease *lease, enum store_session state)
{
	if (lease->state == state)
		return;
	count_doubt(lease, state);
	lease->state = state;
	lease->on_state(lease, state);
}

static void disarm(struct etcd_lease *lease)
{
	for (size_t i = 0; i < ETCD_RENEWALS; i++) {
		etcd_call_cancel(&lease->renewals[i].call);
		etcd_call_cancel(&lease->renewals[i].proof);
	}
	etcd_call_cancel(&lease->call);
	loop_timer_disarm(&lease->renew_timer);
	loop_timer_disarm(&lease->doubt_timer);
	loop_timer_disarm(&lease->deadline_timer);
	loop_timer_disarm(&lease->retry_timer);
}

int64_t etcd_lease_deadline(const struct etcd_lease *lease)
{
	return lease->renewed_at + lease->ttl - lease->ttl / MARGIN_PART;
}

/*
 * The lease is good as of a request that was sent then.  etcd may grant more than was asked for,
 * but who asked for little wants to know of a loss so soon, and an answer that promised too much
 * would have us hold what others may have.
 */
static void renewed(struct etcd_lease *lease, int64_t sent_at, int64_t ttl_seconds)
{
	int64_t ttl = ttl_seconds * 1000;

	lease->renewed_at = sent_at;
	lease->ttl = ttl < lease->wanted_ttl ? ttl : lease->wanted_ttl;
	lease->failures = 0;
	lease->begin_at = 0;
	loop_timer_arm(lease->loop, &lease->deadline_timer, etcd_lease_deadline(lease));
	loop_timer_arm(lease->loop, &lease->doubt_timer, sent_at + lease->ttl / 2);
	loop_timer_arm(lease->loop, &lease->renew_timer, sent_at + lease->ttl / RENEWALS_PER_TTL);
	if (lease->on_renewed)
		lease->on_renewed(lease);
}

static void lost(struct etcd_lease *lease, enum etcd_loss cause)
{
	static const char *const why[ETCD_LOSSES] = {
		[ETCD_LOSS_DEADLINE] = "it could not be renewed in time",
		[ETCD_LOSS_GONE] = "etcd does not know it any more",
		[ETCD_LOSS_DROPPED] = "etcd contradicts what it said when it granted it"};

	log_warning("lease %" PRIx64 " lost: %s", lease->id, why[cause]);
	lease->metrics.losses[cause]++;
	disarm(lease);
	lease->revoking = lease->id;
	lease->id = 0;
	lease->failures = 0;
	set_state(lease, STORE_SESSION_LOST);
	revoke_lost(lease);
}

void etcd_lease_gone(struct etcd_lease *lease)
{
	if (lease->id)
		lost(lease, ETCD_LOSS_GONE);
}

void etcd_lease_drop(struct etcd_lease *lease)
{
	lease->dropped = true;
	loop_timer_arm(lease->loop, &lease->deadline_timer, loop_clock());
}

static void on_deadline(struct loop_timer *timer)
{
	struct etcd_lease *lease = container_of(timer, struct etcd_lease, deadline_timer);

	lost(lease, lease->dropped ? ETCD_LOSS_DROPPED : ETCD_LOSS_DEADLINE);
}

static void on_doubt(struct loop_timer *timer)
{
	struct etcd_lease *lease = container_of(timer, struct etcd_lease, doubt_timer);

	int64_t now = loop_clock(), left = etcd_lease_deadline(lease) - now;

	/* After a pause of the process it may be long past. */
	log_warning("lease %" PRIx64 " is in doubt: no renewal for %" PRId64
		    " ms, all locks are lost in %" PRId64 " ms",
		lease->id, now - lease->renewed_at, left > 0 ? left : 0);
	set_state(lease, STORE_SESSION_DOUBTFUL);
}

/*
 * --- renewal, and its proof ---
 *
 * Only the leader of etcd's raft group extends leases, and it does so in its memory.  A leader that
 * the others have left behind, because its disk hangs or the network separates them, may go on to
 * extend them there while the lease expires for everybody else; and a member that takes it for the
 * leader passes renewals on to it.  So an answer counts only if a linearizable read, sent after it,
 * shows the same raft term.  Why that is enough:
 *
 *  1. A header shows the term of the last entry that its member had applied, and the header of a
 *     renewal's answer is made before the member looks for the leader.  By then it had applied an
 *     entry of that term, T, and so it knew the leader of T: before a member applies the entries of
 *     a new leader it ceases to lead, and to take another one for the leader.  So the renewal was
 *     carried out by the leader of T, or by one of a later term.
 *  2. The read was confirmed by a leader which heard from a majority after the read had arrived,
 *     hence after the renewal.  Its term is not later than T, for then an entry of that later term
 *     would have been applied before the read was answered; and not earlier, for an entry of T had
 *     been committed.  So the leader of T still had its majority, nobody had been elected for a
 *     later term, and it is the one that has carried out the renewal.
 *  3. So from that moment the lease has its TTL; for every leader that is elected later gives each
 *     lease its whole TTL again.
 *
 * The same goes for the answer that there is no such lease: a member that was left behind before
 * the lease was granted has never heard of it.
 *
 * It makes no difference whether the member leads or follows, or whether the read meets another
 * member, behind a balancer.  The read before the renewal that a proof seems to need is part of the
 * answer.  A lease that was just granted needs no proof: the grant is an entry of the log.
 */

static bool is_active(const struct etcd_renewal *renewal)
{
	return etcd_call_active(&renewal->call) || etcd_call_active(&renewal->proof);
}

static int read_proof(struct etcd_call *call, const char *body)
{
	struct etcd_renewal *renewal = container_of(call, struct etcd_renewal, proof);

	return wire_parse_origin(body, &renewal->origin);
}

static bool is_same_origin(const struct wire_origin *a, const struct wire_origin *b)
{
	return a->cluster && a->term && a->cluster == b->cluster && a->term == b->term;
}

static void on_proof(struct etcd_call *call, int result)
{
	struct etcd_renewal *renewal = container_of(call, struct etcd_renewal, proof);
	struct etcd_lease *lease = renewal->lease;

	if (!result && lease->revision)
		etcd_revision_heard(lease->revision, renewal->known, renewal->origin.revision);
	if (result || !is_same_origin(&renewal->answer.origin, &renewal->origin)) {
		lease->metrics.unproven++;
		return;
	}
	if (renewal->answer.ttl <= 0) {
		etcd_lease_gone(lease);
		return;
	}
	/* One that was sent earlier may be proven later. */
	if (renewal->call.sent_at <= lease->renewed_at)
		return;
	renewed(lease, renewal->call.sent_at, renewal->answer.ttl);
	lease->metrics.renewals++;
	lease->losses = 0;
	if (lease->state == STORE_SESSION_DOUBTFUL)
		log_warning("lease %" PRIx64 " is renewed again", lease->id);
	set_state(lease, STORE_SESSION_HELD);
}

/* A member that does not answer it is silent, whatever else it answers. */
static void prove(struct etcd_renewal *renewal)
{
	struct etcd_lease *lease = renewal->lease;
	struct wire_txn txn = {0};

	wire_range(&txn, lease->key, NULL,
		&(struct wire_range_options){.keys_only = true, .limit = 1});
	renewal->known = lease->revision ? lease->revision->latest : 0;
	renewal->proof = (struct etcd_call){.lane = ETCD_LANE_LEASE,
		.deadline = renewal->ends_at,
		.attempt_timeout = (int)(renewal->ends_at - loop_clock()),
		.begin_at = renewal->call.endpoint + 1,
		.at_one = true,
		.read = read_proof,
		.fn = on_proof};
	renewal->proof.body = wire_txn_body(&txn, &renewal->proof.rpc);
	wire_txn_fini(&txn);
	etcd_call_start(lease->client, &renewal->proof);
}

static int read_renewed(struct etcd_call *call, const char *body)
{
	struct etcd_renewal *renewal = container_of(call, struct etcd_renewal, call);

	return wire_parse_keepalive(body, renewal->lease->id, &renewal->answer);
}

static void on_renewed(struct etcd_call *call, int result)
{
	struct etcd_renewal *renewal = container_of(call, struct etcd_renewal, call);
	struct etcd_lease *lease = renewal->lease;

	/* Of a failure the timer takes care.  One that was sent earlier may be answered later. */
	lease->metrics.failures += result != 0;
	if (!result && (renewal->answer.ttl <= 0 || call->sent_at > lease->renewed_at))
		prove(renewal);
}

static int64_t patience_of(const struct etcd_lease *lease)
{
	int64_t patience = lease->ttl / ATTEMPTS_PER_TTL;

	if (patience < SHORTEST_PATIENCE)
		return SHORTEST_PATIENCE;
	return patience < LONGEST_PATIENCE ? patience : LONGEST_PATIENCE;
}

/*
 * One more attempt.  What was asked before may still be answered, if only the network is slow, so
 * it goes on for a while; also when another was answered, for that a member is silent is to be
 * known.
 */
static void send_renewal(struct etcd_lease *lease)
{
	struct etcd_renewal *idle = NULL;
	int64_t now = loop_clock(), patience = patience_of(lease);

	for (size_t i = 0; i < ETCD_RENEWALS; i++) {
		if (!is_active(&lease->renewals[i]))
			idle = &lease->renewals[i];
	}
	loop_timer_arm(lease->loop, &lease->renew_timer, now + patience);
	if (!idle) /* early, since etcd was found unreachable */
		return;
	int64_t end = now + patience * PATIENCE_LASTS, deadline = etcd_lease_deadline(lease);
	idle->lease = lease;
	idle->ends_at = end < deadline ? end : deadline;
	idle->call = (struct etcd_call){.rpc = "/v3/lease/keepalive",
		.body = wire_lease(lease->id),
		.lane = ETCD_LANE_LEASE,
		.deadline = idle->ends_at,
		.attempt_timeout = (int)(patience * PATIENCE_LASTS),
		.begin_at = lease->begin_at,
		.from_memory = true,
		.read = read_renewed,
		.fn = on_renewed};
	etcd_call_start(lease->client, &idle->call);
	lease->begin_at = idle->call.endpoint + 2;
}

void etcd_lease_renew(struct etcd_lease *lease)
{
	if (!lease->id)
		return;
	for (size_t i = 0; i < ETCD_RENEWALS; i++) {
		if (is_active(&lease->renewals[i]))
			return;
	}
	send_renewal(lease);
}

static void on_renew(struct loop_timer *timer)
{
	send_renewal(container_of(timer, struct etcd_lease, renew_timer));
}

/* --- granting --- */

static void start_done(struct etcd_lease *lease, int result)
{
	etcd_lease_done_fn *on_done = take(lease->on_done);

	if (on_done)
		on_done(lease, result);
}

static int read_granted(struct etcd_call *call, const char *body)
{
	return wire_parse_grant(body, &container_of(call, struct etcd_lease, call)->answer);
}

static void on_granted(struct etcd_call *call, int result)
{
	struct etcd_lease *lease = container_of(call, struct etcd_lease, call);
	const struct wire_lease *answer = &lease->answer;

	if (result) {
		if (lease->on_done)
			start_done(lease, result < 0 ? result : -EIO);
		else
			loop_timer_arm(lease->loop, &lease->retry_timer,
				loop_clock() + etcd_backoff(lease->failures++));
		return;
	}
	lease->id = answer->id;
	lease->granted_revision = answer->revision;
	lease->dropped = false;
	lease->metrics.grants++;
	renewed(lease, call->sent_at, answer->ttl);
	log_info("lease %" PRIx64 " granted for %" PRId64 " s", lease->id, lease->ttl / 1000);
	set_state(lease, STORE_SESSION_HELD);
	start_done(lease, 0);
}

static void grant(struct etcd_lease *lease, int64_t deadline)
{
	lease->call = (struct etcd_call){.rpc = "/v3/lease/grant",
		.body = wire_lease_grant(lease->wanted_ttl / 1000),
		.lane = ETCD_LANE_LEASE,
		.deadline = deadline,
		.read = read_granted,
		.fn = on_granted};
	etcd_call_start(lease->client, &lease->call);
}

/* --- after a loss --- */

static int read_revoked(struct etcd_call *call, const char *body)
{
	return wire_parse_nothing(body);
}

static void on_lost_revoked(struct etcd_call *call, int result)
{
	struct etcd_lease *lease = container_of(call, struct etcd_lease, call);

	/* If it is refused there is nothing left to do but to let it expire. */
	if (result < 0)
		log_warning(
			"lease %" PRIx64 " can't be revoked and has to expire", lease->revoking);
	lease->revoking = 0;
	/* Of leases that are lost before they were ever renewed there would be hundreds a second.
	 */
	if (lease->losses++)
		loop_timer_arm(lease->loop, &lease->retry_timer,
			loop_clock() + etcd_backoff(lease->losses));
	else
		grant(lease, 0);
}

static void start_revoke(struct etcd_lease *lease, uint64_t id, int64_t deadline, etcd_call_fn *fn)
{
	lease->call = (struct etcd_call){.rpc = "/v3/lease/revoke",
		.body = wire_lease(id),
		.lane = ETCD_LANE_LEASE,
		.deadline = deadline,
		.read = read_revoked,
		.fn = fn};
	etcd_call_start(lease->client, &lease->call);
}

static void revoke_lost(struct etcd_lease *lease)
{
	start_revoke(lease, lease->revoking, 0, on_lost_revoked);
}

static void on_retry(struct loop_timer *timer)
{
	grant(container_of(timer, struct etcd_lease, retry_timer), 0);
}

/* --- the interface --- */

void etcd_lease_init(struct etcd_lease *lease, struct loop *loop, struct etcd_client *client,
	const char *key, int ttl_seconds, etcd_lease_fn *on_state)
{
	*lease = (struct etcd_lease){
		.loop = loop,
		.client = client,
		.key = xstrdup(key),
		.wanted_ttl = (int64_t)ttl_seconds * 1000,
		.state = STORE_SESSION_LOST,
		.on_state = on_state,
		.renew_timer.fn = on_renew,
		.doubt_timer.fn = on_doubt,
		.deadline_timer.fn = on_deadline,
		.retry_timer.fn = on_retry,
	};
}

void etcd_lease_fini(struct etcd_lease *lease)
{
	disarm(lease);
	free(take(lease->key));
}

void etcd_lease_start(struct etcd_lease *lease, int64_t deadline, etcd_lease_done_fn *on_done)
{
	lease->on_done = on_done;
	grant(lease, deadline);
}

void etcd_lease_adopt(struct etcd_lease *lease, uint64_t id, int64_t ttl, int64_t renewed_at)
{
	lease->id = id;
	renewed(lease, renewed_at, ttl / 1000);
	set_state(lease, STORE_SESSION_HELD);
	send_renewal(lease);
}

static void on_stopped(struct etcd_call *call, int result)
{
	struct etcd_lease *lease = container_of(call, struct etcd_lease, call);

	if (result < 0)
		log_warning("the lease could not be revoked; its locks are free when it expires");
	lease->on_state = NULL;
	start_done(lease, result == ETCD_NO_LEASE ? 0 : result);
}

void etcd_lease_stop(struct etcd_lease *lease, int64_t deadline, etcd_lease_done_fn *on_done)
{
	uint64_t id = lease->id ? lease->id : lease->revoking;

	disarm(lease);
	lease->id = 0;
	lease->on_done = on_done;
	start_revoke(lease, id, deadline, on_stopped);
}
