/* SPDX-License-Identifier: MIT */
/* The words of the model, what there is, and which states are the same. */

/*
 * A claim has one id after another, and of an id there may be a second key: when a late copy of the
 * request arrives after the delete.  So a place is a number, made of claim, id and key; what is
 * known of the queue is a set of these, and created[] puts it in order.
 */
#ifndef IDS
#define IDS (1 + LOSSES + 2 * REVOKES + BREAKS)
#endif
#if RETRIES || FOREIGN
#define KEYS 2
#else
#define KEYS 1
#endif
#define PLACES	    (CLAIMS * IDS * KEYS) /* at most 15, for there are sets of them */
#define SECOND_KEYS 715827882 /* every other bit */

#define CAN_LOSE (LOSSES || REVOKES || BREAKS)
#if BREAKS || REVOKES
#define FIRST_ID(m) 1
#else
#define FIRST_ID(m) (1 + second[m])
#endif

#define BIT(i)	     (1 << (i))
#define HAS(set, i)  (((set) >> (i)) & 1)
#define IF(c, set)   ((c) -> (set) : 0)
#define MAX(a, b)    ((a) > (b) -> (a) : (b))

#define A	       0
#define B	       1
#define NOWHERE	       2
#define MOUNT_OF(c)    (HAS(FOREIGN, c) -> NOWHERE : HAS(ON_B, c))
#define IS_SHARED(c)   HAS(SHARED, c)
#define IS_TRY(c)      HAS(TRIES, c)
#define CONFLICT(c, d) (!(IS_SHARED(c) && IS_SHARED(d)))
#define REPLACES(c, d) (UPGRADE && (c) == 1 && (d) == 0)

mtype = { UNASKED, NEW, JOINING, WAITING, HELD, LOST, LEAVING, OVER };
mtype = { UNANSWERED, GRANTED, REFUSED, INTERRUPTED, FAILED };
mtype = { IDLE, SENT, DONE, BUSY };

/* --- etcd --- */

byte revision = 1;
short keys;		  /* the places that are in the store */
byte created[PLACES];	  /* create_revision */
byte deleted[PLACES];	  /* the revision of the delete */
bool later[CLAIMS * IDS]; /* of an id: it is of its mount's second session */
bool ended[2];		  /* the lease of a mount's first session */
short strays;		  /* ids of which a copy of the request is still on its way */
short ahead;		  /* of the foreign claim: who was there before it */

/* --- claims: struct claim, struct store_place, struct etcd_op --- */

#define PERHAPS 255

mtype state[CLAIMS] = UNASKED;
mtype result[CLAIMS] = UNANSWERED;
bool told[CLAIMS];
bool canceled[CLAIMS];
byte arrival[CLAIMS];
byte asked_after[CLAIMS];
byte id[CLAIMS];      /* which of its ids it has; 0: none yet */
byte token[CLAIMS];   /* 0: not known to be placed */
byte gone_at[CLAIMS]; /* a delete that was told of before that; or PERHAPS */
mtype request[CLAIMS] = IDLE;
byte answer_token[CLAIMS];
byte answer_revision[CLAIMS];
short answer_seen[CLAIMS];

/* --- mounts: struct lock, struct etcd --- */

bool session[2] = true;
bool second[2]; /* it is the second one */
byte known[2];
byte latest[2];
short view[2]; /* rivals only */
short tombs[2];
short news[2];	  /* deletes that the watch has still to tell of */
byte deaf = DEAF; /* mounts that are told nothing, or want to hear nothing any more */
mtype reading[2] = IDLE;
byte read_revision[2];
short read_seen[2];
mtype checking[2] = IDLE;
short check_issued[2];
short check_placed[2];
short check_seen[2];
short doubted[2]; /* places of which the store is asked whether they are there */

/* --- what may still go wrong --- */

byte losses = LOSSES;
byte revokes = REVOKES;
byte breaks = BREAKS;
byte retries = RETRIES;
byte gaps = GAPS;
byte checks = CHECKS;
byte rounds = ROUNDS;

/* --- for the properties alone --- */

short broken; /* places that an operator took away */
byte exclusive_token;

/* --- within a step --- */

hidden byte c_, d_, p_, q_, found_, head_;
hidden byte is_, may_;

/* --- questions --- */

#define CLAIM_OF(p) ((p) / (IDS * KEYS))
#define ID_OF(c)    ((c) * IDS + id[c] - 1)
#define BASE(c)	    (ID_OF(c) * KEYS)

/* In the set there is a key of the claim's id; that very one which the claim has in mind. */
#define HAS_ID(set, c) (id[c] && (HAS(set, BASE(c)) || (KEYS == 2 && HAS(set, BASE(c) + 1))))
#define HAS_PLACE(set, c)                                                                          \
	(id[c] && token[c] &&                                                                      \
		((HAS(set, BASE(c)) && created[BASE(c)] == token[c]) ||                            \
			(KEYS == 2 && HAS(set, BASE(c) + 1) && created[BASE(c) + 1] == token[c])))
#define PLACE_OF(c) BIT(created[BASE(c)] == token[c] -> BASE(c) : BASE(c) + KEYS - 1)

#define IS_ON(c, m)	(MOUNT_OF(c) == (m))
#define IS_ACTIVE(c)	(state[c] != UNASKED && state[c] != OVER)
#define IS_IN_QUEUE(c)	(state[c] == WAITING || state[c] == HELD)
#define IS_ENTERING(c)	(state[c] == JOINING && !IS_TRY(c))
#define HAS_LEASE(m, i) (!(ended[m] && !later[i]))

/* The key carries the lease that the mount has now. */
#define IS_OF_SESSION(p, m)                                                                        \
	(IS_ON(CLAIM_OF(p), m) && session[m] && later[(p) / KEYS] == second[m])
/* Its id is that of a claim which has a place, or may have one (etcd->places). */
#define IS_OURS(p, m)                                                                              \
	(IS_OF_SESSION(p, m) && id[CLAIM_OF(p)] && (p) / KEYS == ID_OF(CLAIM_OF(p)) &&             \
		(state[CLAIM_OF(p)] == JOINING || IS_IN_QUEUE(CLAIM_OF(p)) ||                      \
			state[CLAIM_OF(p)] == LEAVING))

#define IS_OVER(c)   (state[(c) % CLAIMS] == OVER)
#define ALL_ARE_OVER (IS_OVER(0) && IS_OVER(1) && IS_OVER(2) && IS_OVER(3))

/* --- what was seen to happen, counted outside of the states --- */

c_decl {
	#define SIGHTS(X)                                                                          \
		X(granted) X(shared_together) X(handover) X(waited_for_join) X(refused)            \
		X(refused_here) X(interrupted) X(interrupted_join) X(failed) X(lost)               \
		X(queued_again) X(lost_before_told) X(repeated) X(found_itself) X(stray_key)       \
		X(orphan_deleted) X(batch) X(gap) X(read_showed) X(buried) X(broken_holder)        \
		X(broken_waiter) X(told_early) X(left_early) X(upgraded) X(foreign) X(doubt)       \
		X(confirmed_gone)
	#define NUMBER(name) SIGHT_##name,
	#define NAME(name)   #name,
	enum { SIGHTS(NUMBER) SIGHT_COUNT };
	static unsigned long sights[SIGHT_COUNT];
	static void tell_sights(void)
	{
		static const char *const names[] = {SIGHTS(NAME)};
		for (int i = 0; i < SIGHT_COUNT; i++)
			printf("saw %s %lu\n", names[i], sights[i]);
	}
}
#define SAW(what) c_code { sights[SIGHT_##what]++; }
#define SAW_IF(condition, what)                                                                    \
	if                                                                                         \
	:: condition -> SAW(what)                                                                  \
	:: else                                                                                    \
	fi

/* --- states which differ in nothing that matters become one --- */

c_code {
	/* What nobody can look at any more. */
	static void tidy_places(void)
	{
		int news = now.news[0] | now.news[1] | now.tombs[0] | now.tombs[1];
		int live = now.keys | now.view[0] | now.view[1] | now.read_seen[0] |
			   now.read_seen[1] | now.check_seen[0] | now.check_seen[1];

		for (int c = 0; c < CLAIMS; c++)
			live |= now.answer_seen[c];
		for (int p = 0; p < PLACES; p++) {
			int c = CLAIM_OF(p);
			int at = now.created[p];
			int in_mind = at && (at == now.token[c] || at == now.answer_token[c]);
			if (!in_mind && !HAS(live, p)) {
				now.created[p] = at != 0;
				now.broken &= ~BIT(p);
			}
			if (!HAS(news, p))
				now.deleted[p] = 0;
		}
	}

	/* Of claims that are over it does not matter how; of others, only who came first. */
	static void tidy_claims(void)
	{
		unsigned char rank[CLAIMS];

		for (int c = 0; c < CLAIMS; c++) {
			int ids = BIT(IDS) - 1, places = BIT(IDS * KEYS) - 1;
			rank[c] = now.arrival[c] != 0;
			for (int d = 0; rank[c] && d < CLAIMS; d++)
				rank[c] += HAS(ON_B, d) == HAS(ON_B, c) && now.arrival[d] &&
					   now.arrival[d] < now.arrival[c];
			if (!rank[c] && now.id[c] && !(now.strays >> c * IDS & ids) &&
				!(now.keys >> c * IDS * KEYS & places)) {
				now.id[c] = IDS;
				for (int i = 0; i < IDS; i++)
					now.later[c * IDS + i] = 0;
			}
		}
		for (int c = 0; c < CLAIMS; c++)
			now.arrival[c] = rank[c];
	}

	static unsigned char *revisions[2 * PLACES + 5 * CLAIMS + 8];
	static int revision_count;

	static void add_revisions(unsigned char *list, int count)
	{
		for (int i = 0; i < count; i++) {
			if (list[i] > 1 && list[i] != PERHAPS)
				revisions[revision_count++] = &list[i];
		}
	}

	/* Revisions are only compared, so they are numbered anew by their rank. */
	static void tidy(void)
	{
		unsigned char rank[256] = {0};
		int ranks = 1;

		tidy_places();
		tidy_claims();
		revision_count = 0;
		add_revisions(&now.revision, 1);
		add_revisions(&now.exclusive_token, 1);
		add_revisions(now.created, PLACES);
		add_revisions(now.deleted, PLACES);
		add_revisions(now.token, CLAIMS);
		add_revisions(now.gone_at, CLAIMS);
		add_revisions(now.asked_after, CLAIMS);
		add_revisions(now.answer_token, CLAIMS);
		add_revisions(now.answer_revision, CLAIMS);
		add_revisions(now.known, 2);
		add_revisions(now.latest, 2);
		add_revisions(now.read_revision, 2);
		for (int i = 0; i < revision_count; i++)
			rank[*revisions[i]] = 1;
		for (int r = 2; r < 256; r++)
			rank[r] = rank[r] ? ++ranks : 0;
		for (int i = 0; i < revision_count; i++)
			*revisions[i] = rank[*revisions[i]];
	}
}
#ifdef PLAIN
#define TIDY skip
#else
#define TIDY c_code { tidy(); }
#endif
