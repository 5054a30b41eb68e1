/* SPDX-License-Identifier: MIT */
/* etcd's part: keys, leases, news of deletes; and what must be true of every grant. */

hidden byte nobody_else_holds, key_is_there, nobody_is_overtaken, token_grows;
hidden byte loss_is_noticed;

/* found_ = the key of that id, which is there afterwards. */
inline put(base)
{
	revision++;
	if
	:: HAS(keys, base) -> found_ = base
	:: KEYS == 2 && HAS(keys, (base) + 1) -> found_ = (base) + 1
	:: else ->
		found_ = (created[base] -> (base) + 1 : (base));
		assert(found_ < (base) + KEYS && !created[found_]);
		created[found_] = revision;
		keys = keys | BIT(found_)
	fi
}

/* In a transaction that has its revision already. */
inline take_out(p)
{
	keys = keys & ~BIT(p);
	deleted[p] = revision;
	news[A] = news[A] | IF(!HAS(deaf, A), BIT(p));
	news[B] = news[B] | IF(!HAS(deaf, B), BIT(p))
}

inline take_out_id(base)
{
	if
	:: HAS(keys, base) -> take_out(base)
	:: KEYS == 2 && HAS(keys, (base) + 1) -> take_out((base) + 1)
	:: else
	fi
}

/* That of the mount's first session. */
inline end_lease(m, by_operator)
{
	printf("* the first lease of mount %d ends\n", m);
	ended[m] = true;
	revision++;
	for (p_ : 0 .. PLACES - 1) {
		if
		:: HAS(keys, p_) && IS_ON(CLAIM_OF(p_), m) && !later[p_ / KEYS] ->
			broken = broken | IF(by_operator, BIT(p_));
			take_out(p_)
		:: else
		fi
	}
}

/* is_ = nobody else is in the way of the try. */
inline compare_free(c)
{
	is_ = true;
	for (p_ : 0 .. PLACES - 1) {
		is_ = is_ && !(HAS(keys, p_) && CONFLICT(CLAIM_OF(p_), c) && CLAIM_OF(p_) != c &&
				     !REPLACES(c, CLAIM_OF(p_)))
	}
}

/* --- properties --- */

#define IS_BROKEN(c) HAS_PLACE(broken, c)

/*
 * No two hold it, unless an operator took the key of one of them away; who is granted it has its
 * key in the store, and before that key there are only those that its own mount does not need any
 * more; and its token is larger than that of every exclusive holder before it.
 */
inline check_grant(c)
{
	nobody_else_holds = true;
	nobody_is_overtaken = true;
	for (d_ : 0 .. CLAIMS - 1) {
		nobody_else_holds = nobody_else_holds &&
			!(d_ != c && state[d_] == HELD && CONFLICT(d_, c) && !REPLACES(c, d_) &&
				!IS_BROKEN(d_) && !IS_BROKEN(c));
		SAW_IF(d_ != c && state[d_] == HELD && !CONFLICT(d_, c), shared_together);
		SAW_IF(state[d_] == HELD && REPLACES(c, d_), upgraded)
	}
	for (p_ : 0 .. PLACES - 1) {
		d_ = CLAIM_OF(p_);
		nobody_is_overtaken = nobody_is_overtaken &&
			!(HAS(keys, p_) && created[p_] < token[c] && CONFLICT(d_, c) && d_ != c &&
				!IS_BROKEN(c) && !REPLACES(c, d_) &&
				(MOUNT_OF(d_) != MOUNT_OF(c) ||
					(IS_OURS(p_, MOUNT_OF(c)) && state[d_] != LEAVING &&
						!canceled[d_])))
	}
	nobody_is_overtaken = nobody_is_overtaken || EXCLUSION_ALONE;
	key_is_there = IS_BROKEN(c) || HAS_PLACE(keys, c) || EXCLUSION_ALONE;
	token_grows = IS_BROKEN(c) || token[c] > exclusive_token || EXCLUSION_ALONE;
	exclusive_token = (IS_BROKEN(c) || IS_SHARED(c) -> exclusive_token : token[c]);
	assert(nobody_else_holds);
	assert(key_is_there);
	assert(nobody_is_overtaken);
	assert(token_grows)
}

/* Of a claim in the queue: its key is there, or its mount is going to find out. */
inline check_notice(m, c, seen)
{
	loss_is_noticed = HAS_PLACE((seen) | news[m] | doubted[m], c) || HAS(DEAF, m);
	assert(loss_is_noticed)
}
