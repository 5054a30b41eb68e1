/* SPDX-License-Identifier: MIT */
/*
 * The lock protocol as a model for spin: one lock in etcd, two mounts, some who want it.
 *
 *     case.pml     what is different from case to case, and what may be deliberately wrong
 *     world.pml    words, variables, and which states are the same
 *     etcd.pml     keys, leases, news of deletes; what must be true of every grant
 *     engine.pml   src/lock/lock.c
 *     mount.pml    src/store/etcd/ and src/lock/lockspace.c
 *     lock.pml     the processes: every step is one turn of a daemon's loop, or one transaction
 *
 *     user         fs/ by way of lockspace_take, deliver, lockspace_cancel, lockspace_release
 *     traffic      a request for a place and its answer: op_place, on_joined, on_tried, op_leave,
 *                  on_left, on_verdict; batch.c; what client.c sends again; an operator's delete
 *     mount        the watch (on_deleted, on_gap), the lease (on_deadline, etcd_lease_gone,
 *                  on_granted, revoke_lost), the comparison of keys (on_check_due, on_checked),
 *                  etcd_place_doubted, and reading a queue (on_recheck, on_queue_read)
 *     foreign      a contender which is no latchfs: Go's concurrency.Mutex, etcdctl lock
 *     clock        what once per TTL comes to the rescue, when nothing else happens any more
 *
 * What is proved, of all executions of the cases that tests/model/check lists:
 *
 *   nobody_else_holds     No two handles that exclude each other believe at the same time that they
 *                         hold the lock, if leases end by the clock alone: a mount's deadline comes
 *                         before etcd's.  If an operator deletes a key or revokes a lease, its
 *                         holder believes until it is told; of two who believe one has lost its key
 *                         to an operator then.  So among those whose keys are in the store, nobody
 *                         ever holds what another one holds.
 *   key_is_there          Whoever is granted the lock has its key in the store, of that very token.
 *   nobody_is_overtaken   Before that key there is none that it has to wait for, but of its own
 *                         mount's which are being given back (the local handover).
 *   token_grows           Its token is larger than that of every exclusive holder before.
 *   loss_is_noticed       A mount knows that a key of its own has gone, or something is under way
 *                         that will tell it.
 *   is_answered_once      No claim is answered twice.
 *   everybody_is_through  When nothing happens any more, every claim was answered and is over: no
 *                         wake-up was lost.
 *   nothing_is_left       Then no key is left in the store.
 *
 * What was left out, and why nothing is lost by that:
 *
 *   Time.  What depends on it may happen at any moment; there is only an order: a mount gives its
 *   session up before etcd expires the lease, which lease.pml proves.  The periodic check need not
 *   come before everything else has happened, so a case without ROUNDS or CHECKS proves that news
 *   alone are enough.  After a gap they are not: a join that was under way may show who has gone,
 *   until the next check.
 *
 *   etcd is one linearizable store whose revisions only grow.  Its lists of a lease's keys are
 *   exact; the program takes them for hints, and asks again about each key that they lack.
 *
 *   Other locks.  Operations on several locks share transactions, but nothing else.
 *
 *   A delete which is sent twice: ids are never used again, so the second one finds nothing, or an
 *   orphan.  A session that is lost twice, and more than a few accidents in one execution: the
 *   numbers in case.pml bound them, so that the searches end.
 *
 *   Of claims that may wait in line to be asked for at once (MAX_JOINING) there are too few.
 *
 * Accidents come in any order and at any time.  To see the way to a bad state, go to the case's
 * directory below build-tests/model/ and run ./pan -r lock.pml.trail.  The numbers of revisions in
 * it are ranks, unless the case has -DPLAIN.
 */

#include "case.pml"
#include "world.pml"
#include "etcd.pml"
#include "engine.pml"
#include "mount.pml"

/* found_ = how many claims were granted the lock. */
inline count_granted(m)
{
	found_ = 0;
	for (d_ : 0 .. CLAIMS - 1) {
		found_ = found_ + (IS_ON(d_, m) && result[d_] == GRANTED)
	}
}

/*
 * Who upgrades has something to upgrade.  Two that are alike come in their order, as it makes no
 * difference which is which.
 */
#define ARE_ALIKE(c, d)                                                                            \
	(MOUNT_OF(c) == MOUNT_OF(d) && IS_SHARED(c) == IS_SHARED(d) && IS_TRY(c) == IS_TRY(d) &&   \
		HAS(IMPATIENT, c) == HAS(IMPATIENT, d) && HAS(FAILING, c) == HAS(FAILING, d))
#define MAY_COME(c)                                                                                \
	((!UPGRADE || (c) != 1 || state[0] == HELD || state[0] == LOST || state[0] == OVER) &&     \
		((c) == 0 || UPGRADE || !ARE_ALIKE((c) - 1, c) || state[(c) - 1] != UNASKED))

/*
 * Whoever wants the lock.  A grant is told some time after it was decided (deliver); by then it may
 * be lost.
 */
proctype user(byte c; byte m)
{
	d_step {
		MAY_COME(c) ->
		arrive(m, c);
		settle(m)
	}
	do
	:: d_step {
		(result[c] == UNANSWERED && HAS(IMPATIENT, c)) ||
				(result[c] != UNANSWERED && !told[c]) ||
				(told[c] && (state[c] == HELD || state[c] == LOST)) ->
		count_granted(m);
		q_ = found_ - (result[c] == GRANTED);
		SAW_IF(result[c] == UNANSWERED, interrupted);
		SAW_IF(result[c] == UNANSWERED && state[c] == JOINING, interrupted_join);
		if
		:: result[c] == UNANSWERED || told[c] -> lock_leave(c, INTERRUPTED)
		:: result[c] == GRANTED && !told[c] && state[c] == LOST ->
			SAW(lost_before_told);
			result[c] = FAILED;
			told[c] = true;
			lock_leave(c, FAILED)
		:: else -> told[c] = true
		fi;
		settle(m);
		count_granted(m);
		SAW_IF(found_ - (result[c] == GRANTED) > q_, handover);
		TIDY
	   }
	:: told[c] && state[c] == OVER -> break
	od
}

/* What becomes of a claim's requests, and of its key. */
proctype traffic(byte c; byte m)
{
end:	do
	:: d_step {
		request[c] == SENT && IS_ENTERING(c) && HAS_LEASE(m, ID_OF(c)) ->
		carry_out_join(m, c);
		TIDY
	   }
#if BATCHES
	:: d_step {
		request[c] == SENT && IS_ENTERING(c) && HAS_LEASE(m, ID_OF(c)) ->
		carry_out_join(m, c);
		carry_out_leaves(m);
		TIDY
	   }
#endif
	:: d_step {
		request[c] == SENT && state[c] == JOINING && IS_TRY(c) && HAS_LEASE(m, ID_OF(c)) ->
		carry_out_try(m, c);
		TIDY
	   }
#if BROKEN == JOINS_TOGETHER || BROKEN == TRIES_TOGETHER
	:: d_step {
		request[c] == SENT && state[c] == JOINING && HAS_LEASE(m, ID_OF(c)) ->
		if
		:: IS_TRY(c) -> carry_out_try(m, c)
		:: else -> carry_out_join(m, c)
		fi;
		if
		:: request[c] == DONE -> carry_out_others(m, c, BROKEN == TRIES_TOGETHER)
		:: else
		fi;
		TIDY
	   }
#endif
	:: d_step {
		request[c] == SENT && state[c] == LEAVING ->
		revision = revision + HAS_ID(keys, c);
		take_out_id(BASE(c));
		request[c] = DONE;
		TIDY
	   }
	/* An answer. */
	:: d_step {
		request[c] == DONE || request[c] == BUSY ->
		if
		:: request[c] == BUSY ->
			SAW(refused);
			printf("* claim %d is refused\n", c);
			answer(c, REFUSED);
			over(c)
		:: request[c] == DONE && state[c] == LEAVING ->
			printf("* claim %d's place is given back\n", c);
			over(c)
		:: request[c] == DONE && IS_ENTERING(c) ->
			joined(m, c);
			heed_early_news(m, c)
		:: else ->
			tried(m, c);
			heed_early_news(m, c)
		fi;
		settle(m)
	   }
	/* It is late, or lost: the request is sent again (client.c). */
	:: d_step {
		retries && request[c] != IDLE && state[c] == JOINING ->
		SAW(repeated);
		retries--;
		strays = strays | IF(request[c] == SENT, BIT(ID_OF(c)));
		forget_request(c);
		request[c] = SENT;
		TIDY
	   }
	/* It is an error, or takes too long (on_verdict): nobody knows what was done. */
	:: d_step {
		HAS(FAILING, c) && state[c] == JOINING ->
		SAW(failed);
		printf("* claim %d's request fails\n", c);
		strays = strays | IF(RETRIES && request[c] == SENT, BIT(ID_OF(c)));
		answer(c, FAILED);
		forget_place(c);
		leave_place(c);
		settle(m)
	   }
	/* A copy of a request arrives, or never does. */
	:: d_step {
		strays & ((BIT(IDS) - 1) << (c * IDS)) ->
		carry_out_stray(m, c);
		TIDY
	   }
	:: d_step {
		strays & ((BIT(IDS) - 1) << (c * IDS)) ->
		strays = strays & ~((BIT(IDS) - 1) << (c * IDS));
		TIDY
	   }
	/* An operator deletes the key. */
	:: d_step {
		breaks && HAS_ID(keys, c) ->
		printf("* an operator deletes claim %d's key\n", c);
		breaks--;
		revision++;
		broken = broken | (keys & (BIT(BASE(c)) | BIT(BASE(c) + KEYS - 1)));
		take_out_id(BASE(c));
		TIDY
	   }
	od
}

/* What a mount hears of its session, its keys, and others'. */
proctype mount(byte m)
{
end:	do
	:: d_step {
		news[m] ->
		hear(m);
		settle(m)
	   }
	:: d_step {
		gaps && news[m] ->
		gaps--;
		miss_news(m);
		TIDY
	   }
	/* The deadline has come, or etcd does not know the lease any more; then, a new session. */
	:: d_step {
		!session[m] || (!second[m] && (losses || ended[m])) ->
		if
		:: session[m] ->
			losses = losses - !ended[m];
			lose_session(m)
		:: else ->
			session[m] = true;
			second[m] = true
		fi;
		settle(m)
	   }
	/* What the old lease had goes with it, when it is revoked or expires. */
	:: d_step {
		!ended[m] && (!session[m] || second[m] ||
					 (BROKEN == EXPIRY_BEFORE_DEADLINE && losses)) ->
		losses = losses - (session[m] && !second[m]);
		end_lease(m, false);
		TIDY
	   }
	:: d_step {
		revokes && !ended[m] && session[m] ->
		revokes--;
		end_lease(m, true);
		TIDY
	   }
	/* Once per TTL. */
	:: d_step {
		checks && session[m] && checking[m] == IDLE ->
		checks--;
		start_check(m);
		TIDY
	   }
	:: d_step {
		checking[m] == SENT && !(ended[m] && !second[m]) ->
		carry_out_check(m);
		TIDY
	   }
	:: d_step {
		checking[m] == DONE ->
		end_check(m);
		recheck(m);
		TIDY
	   }
	:: d_step {
		doubted[m] ->
		confirm(m);
		settle(m)
	   }
	:: d_step {
		reading[m] == SENT ->
		reading[m] = DONE;
		read_revision[m] = revision;
		read_seen[m] = keys
	   }
	:: d_step {
		reading[m] == DONE ->
		lock_read_end(m);
		settle(m)
	   }
	od
}

/* A program with etcd's own recipe: it puts its key; whatever was there before has to go. */
proctype foreign(byte c)
{
	byte round;

	do
	:: d_step {
		round < 2 && !IS_IN_QUEUE(c) ->
		round++;
		id[c] = 1;
		ahead = keys;
		put(BASE(c));
		token[c] = created[found_];
		state[c] = WAITING;
		TIDY
	   }
	:: d_step {
		state[c] == WAITING && !(keys & ahead) ->
		SAW(foreign);
		printf("* the foreign claim holds\n");
		ahead = 0;
		state[c] = HELD;
		check_grant(c);
		TIDY
	   }
	:: d_step {
		state[c] == HELD ->
		revision++;
		take_out_id(BASE(c));
		token[c] = 0;
		state[c] = OVER;
		TIDY
	   }
	:: round == 2 && state[c] == OVER -> break
	od
}

hidden byte everybody_is_through, nothing_is_left;

/* When nothing happens any more, the mounts' checks are due; or it is the end. */
proctype clock()
{
	do
	:: timeout && rounds && !(ALL_ARE_OVER && !keys) ->
		d_step {
			rounds--;
			for (q_ : A .. B) {
				if
				:: session[q_] && checking[q_] == IDLE -> start_check(q_)
				:: else
				fi
			}
			TIDY
		}
	:: timeout && (!rounds || (ALL_ARE_OVER && !keys)) -> break
	od;
	skip;
	d_step {
		everybody_is_through = ALL_ARE_OVER;
		nothing_is_left = !keys;
		assert(everybody_is_through);
		assert(nothing_is_left)
	}
}

init {
	byte c;

	c_code {
		static int is_set;
		if (!is_set++)
			atexit(tell_sights);
	};
	atomic {
		run mount(A);
		run mount(B);
		run clock();
		for (c : 0 .. CLAIMS - 1) {
			if
			:: HAS(FOREIGN, c) -> run foreign(c)
			:: else ->
				run traffic(c, MOUNT_OF(c));
				run user(c, MOUNT_OF(c))
			fi
		}
	}
}
