/* SPDX-License-Identifier: MIT */
/* What stands between the engine and etcd: src/store/etcd/, src/lock/lockspace.c. */

/* --- the session: lease.c; on_lease_state; lock_suspend --- */

inline lose_session(m)
{
	printf("* mount %d has lost its session\n", m);
	session[m] = false;
	checking[m] = IDLE;
	check_issued[m] = 0;
	check_placed[m] = 0;
	check_seen[m] = 0;
	doubted[m] = 0;
	for (c_ : 0 .. CLAIMS - 1) {
		is_ = IS_ON(c_, m) && state[c_] == JOINING && request[c_] == SENT;
		strays = strays | IF(is_ && RETRIES, BIT(ID_OF(c_)));
		if
		:: IS_ON(c_, m) && state[c_] == HELD ->
			SAW(lost);
			forget_place(c_);
			state[c_] = LOST
		:: IS_ON(c_, m) && (state[c_] == LEAVING ||
					   (state[c_] == JOINING && canceled[c_])) ->
			over(c_)
		:: IS_ON(c_, m) && state[c_] == WAITING && BROKEN == WAITER_FORGOTTEN ->
			state[c_] = LOST
		:: IS_ON(c_, m) && ((state[c_] == JOINING && !canceled[c_]) ||
					   (state[c_] == WAITING && BROKEN != WAITER_FORGOTTEN &&
						   BROKEN != GRANTED_WHEN_LOST)) ->
			SAW(queued_again);
			forget_place(c_);
			state[c_] = NEW
		:: else
		fi
	}
}

/* --- the comparison with the lease's keys, and a queue that is read: etcd.c, lockspace.c --- */

inline start_check(m)
{
	checking[m] = SENT;
	for (p_ : 0 .. PLACES - 1) {
		d_ = CLAIM_OF(p_);
		if
		:: IS_OF_SESSION(p_, m) && p_ / KEYS < d_ * IDS + id[d_] ->
			check_issued[m] = check_issued[m] | BIT(p_);
			check_placed[m] = check_placed[m] | IF(HAS_PLACE(BIT(p_), d_), BIT(p_))
		:: else
		fi
	}
}

inline carry_out_check(m)
{
	checking[m] = DONE;
	for (p_ : 0 .. PLACES - 1) {
		check_seen[m] = check_seen[m] | IF(HAS(keys, p_) && IS_OF_SESSION(p_, m), BIT(p_))
	}
}

/* compare_places and check_key, which go by ids. */
inline end_check(m)
{
	for (q_ : 0 .. PLACES - 1) {
		if
		:: HAS(check_seen[m] & check_issued[m] & keys, q_) && !IS_OURS(q_, m) &&
				BROKEN != ORPHANS_KEPT ->
			SAW(orphan_deleted);
			revision++;
			take_out(q_)
		:: else
		fi
	}
	for (q_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(q_, m) && IS_IN_QUEUE(q_) && HAS_PLACE(check_placed[m], q_) ->
			doubted[m] = doubted[m] | IF(!HAS_ID(check_seen[m], q_), PLACE_OF(q_));
			check_notice(m, q_, check_seen[m])
		:: else
		fi
	}
	checking[m] = IDLE;
	check_issued[m] = 0;
	check_placed[m] = 0;
	check_seen[m] = 0
}

/* on_recheck: if a claim here waits behind somebody else (lock_is_contended). */
inline recheck(m)
{
	found_ = 255;
	for (d_ : 0 .. CLAIMS - 1) {
		found_ = (IS_ON(d_, m) && state[d_] == WAITING && token[d_] < found_ -> token[d_] :
					found_)
	}
	is_ = false;
	for (p_ : 0 .. PLACES - 1) {
		is_ = is_ || (found_ < 255 && HAS(view[m], p_) && created[p_] < found_)
	}
	reading[m] = (is_ && reading[m] == IDLE && BROKEN != QUEUE_NOT_READ -> SENT : reading[m])
}

/* etcd_place_doubted: on_confirmed. */
inline confirm(m)
{
	for (q_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(q_, m) && IS_IN_QUEUE(q_) && HAS_PLACE(doubted[m], q_) &&
				!HAS_PLACE(keys, q_) ->
			SAW(confirmed_gone);
			lock_gone(m, q_)
		:: else
		fi
	}
	doubted[m] = 0
}

/* --- the watch: etcd.c's on_deleted, on_gap --- */

/* found_ = the oldest news. */
inline next_news(m)
{
	found_ = PLACES;
	for (p_ : 0 .. PLACES - 1) {
		if
		:: HAS(news[m], p_) ->
			is_ = (found_ < PLACES -> deleted[p_] < deleted[found_] : true);
			found_ = (is_ -> p_ : found_)
		:: else
		fi
	}
}

inline hear(m)
{
	next_news(m);
	q_ = found_;
	news[m] = news[m] & ~BIT(q_);
	c_ = CLAIM_OF(q_);
	printf("* mount %d hears that a key of claim %d was deleted\n", m, c_);
	is_ = reading[m] != IDLE;
	for (d_ : 0 .. CLAIMS - 1) {
		is_ = is_ || (IS_ON(d_, m) && IS_ACTIVE(d_))
	}
	if
	:: !IS_OURS(q_, m) && is_ -> lock_removed(m, q_)
	:: IS_OURS(q_, m) && !token[c_] ->
		SAW(told_early);
		gone_at[c_] = deleted[q_]
	:: IS_OURS(q_, m) && token[c_] && token[c_] < deleted[q_] && state[c_] == LEAVING ->
		SAW(left_early);
		over(c_)
	:: IS_OURS(q_, m) && token[c_] && token[c_] < deleted[q_] && state[c_] != LEAVING ->
		lock_gone(m, c_)
	:: else
	fi
}

inline miss_news(m)
{
	SAW(gap);
	printf("* mount %d misses news\n", m);
	news[m] = 0;
	for (q_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(q_, m) && IS_IN_QUEUE(q_) && BROKEN != GAP_IGNORED ->
			doubted[m] = doubted[m] | PLACE_OF(q_)
		:: IS_ON(q_, m) && state[q_] == JOINING && BROKEN != GAP_IGNORED ->
			gone_at[q_] = PERHAPS
		:: else
		fi
	}
	recheck(m)
}

/* heed_early_news of places.c. */
inline heed_early_news(m, c)
{
	found_ = gone_at[c];
	gone_at[c] = 0;
	if
	:: IS_IN_QUEUE(c) ->
		if
		:: found_ == PERHAPS ->
			SAW(doubt);
			doubted[m] = doubted[m] | PLACE_OF(c)
		:: found_ != PERHAPS && found_ > token[c] && BROKEN != EARLY_NEWS_LOST ->
			lock_gone(m, c)
		:: else
		fi
	:: else
	fi;
	if
	:: IS_IN_QUEUE(c) -> check_notice(m, c, keys)
	:: else
	fi
}

/* --- requests, as etcd carries them out: places.c, batch.c --- */

/* Of what the range shows, only rivals that are not known yet matter. */
inline carry_out_join(m, c)
{
	put(BASE(c));
	request[c] = DONE;
	answer_token[c] = created[found_];
	answer_revision[c] = revision;
	for (p_ : 0 .. PLACES - 1) {
		is_ = HAS(keys, p_) && created[p_] > known[m] && !IS_OF_SESSION(p_, m);
		answer_seen[c] = answer_seen[c] | IF(is_, BIT(p_))
	}
	printf("* etcd has put claim %d's key, token %d\n", c, answer_token[c])
}

/* What the mount gives back goes in the same transaction. */
inline carry_out_leaves(m)
{
	for (d_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(d_, m) && state[d_] == LEAVING && request[d_] == SENT ->
			SAW(batch);
			take_out_id(BASE(d_));
			request[d_] = DONE
		:: else
		fi
	}
}

/* What is deliberately wrong: more joins, or tries, of the lock in the same transaction. */
inline carry_out_others(m, c, what)
{
	for (d_ : 0 .. CLAIMS - 1) {
		if
		:: d_ != c && IS_ON(d_, m) && state[d_] == JOINING && request[d_] == SENT &&
				IS_TRY(d_) == (what) ->
			revision--;
			put(BASE(d_));
			request[d_] = DONE;
			answer_token[d_] = created[found_];
			answer_revision[d_] = revision
		:: else
		fi
	}
}

/* The token is the transaction's revision, unless the key was there. */
inline carry_out_try(m, c)
{
	compare_free(c);
	if
	:: HAS_ID(keys, c) && !(is_ && IS_SHARED(c) && BROKEN == SHARED_TRY_PUT_AGAIN) ->
		SAW(found_itself);
		request[c] = DONE;
		answer_token[c] = created[BASE(c) + IF(!HAS(keys, BASE(c)), 1)]
	:: else ->
		if
		:: is_ ->
			put(BASE(c));
			printf("* etcd has put claim %d's key, token %d\n", c, created[found_]);
			request[c] = DONE;
			answer_token[c] = revision
		:: else -> request[c] = BUSY
		fi
	fi
}

/* q_ = a copy of a request of the claim. */
inline find_stray(c)
{
	q_ = (c) * IDS;
	do
	:: !HAS(strays, q_) -> q_++
	:: else -> break
	od
}

/* It comes when nobody waits for it. */
inline carry_out_stray(m, c)
{
	find_stray(c);
	strays = strays & ~BIT(q_);
	is_ = HAS_LEASE(m, q_);
	if
	:: is_ && IS_TRY(c) -> compare_free(c)
	:: else
	fi;
	q_ = q_ * KEYS;
	if
	:: is_ && !HAS(keys, q_) && !HAS(keys, q_ + 1) ->
		SAW(stray_key);
		printf("* a late copy of claim %d's request puts a key\n", c);
		put(q_)
	:: else
	fi
}
