/* SPDX-License-Identifier: MIT */
/* The engine, src/lock/lock.c: each inline has the name of the function that it stands for. */

hidden byte is_answered_once;

inline answer(c, how)
{
	if
	:: result[c] == UNANSWERED || BROKEN == ANSWERED_AGAIN ->
		is_answered_once = result[c] == UNANSWERED;
		assert(is_answered_once);
		result[c] = how;
		told[c] = !CAN_LOSE
	:: else
	fi
}

inline forget_request(c)
{
	request[c] = IDLE;
	answer_token[c] = 0;
	answer_revision[c] = 0;
	answer_seen[c] = 0
}

inline forget_place(c)
{
	token[c] = 0;
	gone_at[c] = 0;
	asked_after[c] = 0;
	forget_request(c)
}

inline over(c)
{
	forget_place(c);
	state[c] = OVER;
	canceled[c] = false;
	arrival[c] = 0
}

inline grant(c)
{
	SAW(granted);
	printf("* claim %d is granted, token %d\n", c, token[c]);
	state[c] = HELD;
	check_grant(c);
	answer(c, GRANTED)
}

/* Two tokens are never the same, unless something is wrong. */
#define IS_BEFORE(c, d) (token[c] < token[d] || (token[c] == token[d] && (c) < (d)))

/* evaluate's conditions, and may_be_preceded: is_ = somebody is, or may be, in its way. */
inline find_obstacle(m, c)
{
	is_ = false;
	may_ = false;
	for (p_ : 0 .. PLACES - 1) {
		is_ = is_ || (HAS(view[m], p_) && created[p_] < token[c] &&
				     CONFLICT(CLAIM_OF(p_), c) && BROKEN != HANDOVER_OVERTAKES)
	}
	for (d_ : 0 .. CLAIMS - 1) {
		if
		:: d_ == c || !IS_ON(d_, m) || !CONFLICT(c, d_)
		:: else ->
			is_ = is_ || (IS_IN_QUEUE(d_) && IS_BEFORE(d_, c) &&
					     !(REPLACES(c, d_) && state[d_] == HELD));
			may_ = may_ || (IS_ENTERING(d_) && !canceled[d_] &&
					       asked_after[d_] < token[c] &&
					       BROKEN != JOINS_IGNORED)
		fi
	}
	SAW_IF(may_ && !is_, waited_for_join);
	is_ = is_ || may_
}

inline evaluate(m)
{
	for (c_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(c_, m) && state[c_] == WAITING &&
				(session[m] || BROKEN == GRANTED_WHEN_LOST) ->
			find_obstacle(m, c_);
			if
			:: !is_ -> grant(c_)
			:: else
			fi
		:: else
		fi
	}
}

/* head_ = lock->entering, or CLAIMS. */
inline find_entering(m)
{
	head_ = CLAIMS;
	found_ = 255;
	for (d_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(d_, m) && state[d_] == NEW && arrival[d_] < found_ ->
			head_ = d_;
			found_ = arrival[d_]
		:: else
		fi
	}
}

/* lock_take, and enter_again behind all others. */
inline arrive(m, c)
{
	arrival[c] = 0;
	found_ = 0;
	for (d_ : 0 .. CLAIMS - 1) {
		found_ = (IS_ON(d_, m) && arrival[d_] > found_ -> arrival[d_] : found_)
	}
	arrival[c] = found_ + 1;
	state[c] = NEW
}

/* With lock_ops.place, and enter_place of places.c. */
inline ask(m, c)
{
	state[c] = JOINING;
	asked_after[c] = latest[m];
	id[c] = MAX(id[c] + 1, FIRST_ID(m));
	assert(id[c] <= IDS);
	later[ID_OF(c)] = second[m];
	request[c] = SENT;
	printf("* claim %d asks for a place\n", c)
}

/*
 * found_ = a try is under way; is_ = one here has, or waits for, what this try wants
 * (is_busy_here); may_ = it has to wait for what comes and goes.
 */
inline look_around(m, c)
{
	found_ = false;
	is_ = false;
	may_ = false;
	for (d_ : 0 .. CLAIMS - 1) {
		if
		:: IS_ON(d_, m) ->
			found_ = found_ || (state[d_] == JOINING && IS_TRY(d_) &&
						   BROKEN != TRIES_TOGETHER);
			is_ = is_ || (IS_TRY(c) && IS_IN_QUEUE(d_) && CONFLICT(c, d_) &&
					     !REPLACES(c, d_));
			may_ = may_ || (IS_TRY(c) && (state[d_] == LEAVING || IS_ENTERING(d_)))
		:: else
		fi
	}
}

inline send_next(m)
{
	do
	:: true ->
		find_entering(m);
		if
		:: head_ == CLAIMS || !session[m] -> break
		:: else
		fi;
		look_around(m, head_);
		if
		:: found_ -> break
		:: !found_ && is_ ->
			SAW(refused_here);
			printf("* claim %d is refused: one here has it\n", head_);
			answer(head_, REFUSED);
			over(head_)
		:: !found_ && !is_ && may_ -> break
		:: !found_ && !is_ && !may_ -> ask(m, head_)
		fi
	od
}

/*
 * How every event ends.  With the last claim the engine goes (named_settled); and a mount on which
 * no claim is still to come does not care for news.
 */
inline settle(m)
{
	evaluate(m);
	send_next(m);
	is_ = reading[m] != IDLE;
	may_ = is_;
	found_ = BREAKS || REVOKES || (!second[m] && (losses || ended[m]));
	for (d_ : 0 .. CLAIMS - 1) {
		is_ = is_ || (IS_ON(d_, m) && IS_ACTIVE(d_));
		may_ = may_ || (IS_ON(d_, m) && state[d_] != OVER);
		found_ = found_ || (IS_ON(d_, m) && (state[d_] == UNASKED || state[d_] == NEW))
	}
	known[m] = (is_ -> known[m] : 0);
	latest[m] = (is_ && found_ -> latest[m] : 0);
	view[m] = (is_ -> view[m] : 0);
	tombs[m] = (is_ -> tombs[m] : 0);
	news[m] = (may_ -> news[m] : 0);
	deaf = (may_ -> deaf : deaf | BIT(m));
	TIDY
}

inline note_revision(m, r)
{
	latest[m] = MAX(r, latest[m])
}

/* is_ = answers which show others' places may come. */
inline is_reading(m)
{
	is_ = reading[m] != IDLE;
	for (d_ : 0 .. CLAIMS - 1) {
		is_ = is_ || (IS_ON(d_, m) && IS_ENTERING(d_))
	}
}

/* The delete of an id's second key tells of the first as well. */
inline bury(m, set)
{
	view[m] = view[m] & ~((set) | IF(KEYS == 2, ((set) & SECOND_KEYS) >> 1))
}

inline forget_tombs(m)
{
	is_reading(m);
	for (p_ : 0 .. PLACES - 1) {
		tombs[m] = tombs[m] & ~IF(!is_ || deleted[p_] <= known[m], BIT(p_))
	}
}

inline learn(m, r, set)
{
	for (p_ : 0 .. PLACES - 1) {
		view[m] = view[m] |
			IF(HAS(set, p_) && created[p_] > known[m] && !IS_OF_SESSION(p_, m), BIT(p_))
	}
	known[m] = MAX(r, known[m]);
	SAW_IF(view[m] & tombs[m], buried);
	bury(m, tombs[m])
}

inline leave_place(c)
{
	forget_request(c);
	state[c] = LEAVING;
	canceled[c] = false;
	request[c] = SENT
}

inline lock_leave(c, how)
{
	printf("* claim %d leaves\n", c);
	answer(c, how);
	if
	:: state[c] == NEW || state[c] == LOST -> over(c)
	:: state[c] == JOINING -> canceled[c] = true
	:: IS_IN_QUEUE(c) -> leave_place(c)
	fi
}

inline lock_gone(m, c)
{
	printf("* claim %d hears that its place has gone\n", c);
	forget_place(c);
	if
	:: state[c] == HELD ->
		SAW(broken_holder);
		state[c] = LOST
	:: else ->
		SAW(broken_waiter);
		arrive(m, c)
	fi
}

/* lock_placed, of a join. */
inline joined(m, c)
{
	note_revision(m, answer_token[c]);
	note_revision(m, answer_revision[c]);
	learn(m, answer_revision[c], answer_seen[c]);
	token[c] = answer_token[c];
	asked_after[c] = 0;
	forget_request(c);
	printf("* claim %d has a place, token %d\n", c, token[c]);
	if
	:: canceled[c] && BROKEN == CANCELED_KEPT -> over(c)
	:: canceled[c] && BROKEN != CANCELED_KEPT -> leave_place(c)
	:: else -> state[c] = WAITING
	fi;
	forget_tombs(m)
}

/* lock_placed, of a try; try_succeeded. */
inline tried(m, c)
{
	note_revision(m, answer_token[c]);
	token[c] = answer_token[c];
	asked_after[c] = 0;
	forget_request(c);
	forget_tombs(m);
	if
	:: canceled[c] -> leave_place(c)
	:: else ->
		for (p_ : 0 .. PLACES - 1) {
			view[m] = view[m] &
				~IF(created[p_] < token[c] && CONFLICT(CLAIM_OF(p_), c), BIT(p_))
		}
		known[m] = (!IS_SHARED(c) || BROKEN == SHARED_TRY_KNOWS_ALL ->
				MAX(token[c], known[m]) : known[m]);
		grant(c)
	fi
}

inline lock_removed(m, p)
{
	note_revision(m, deleted[p]);
	bury(m, BIT(p));
	is_reading(m);
	tombs[m] = tombs[m] | IF(is_ && BROKEN != NEWS_FORGOTTEN, BIT(p))
}

inline lock_read_end(m)
{
	printf("* mount %d has read the queue\n", m);
	note_revision(m, read_revision[m]);
	for (p_ : 0 .. PLACES - 1) {
		is_ = HAS(view[m], p_) && created[p_] <= read_revision[m] && !HAS(read_seen[m], p_);
		SAW_IF(is_, read_showed);
		view[m] = view[m] & ~IF(is_, BIT(p_))
	}
	learn(m, read_revision[m], read_seen[m]);
	reading[m] = IDLE;
	read_revision[m] = 0;
	read_seen[m] = 0;
	forget_tombs(m)
}
