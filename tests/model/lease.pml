/* SPDX-License-Identifier: MIT */
/*
 * How a lease is renewed, as a model for spin: src/store/etcd/lease.c, three members of etcd, and a
 * lock that somebody else is granted when the lease has ended.
 *
 *     cluster      elections; members learn of them late or never; the lease ends
 *     traffic      a renewal and its proof on their way: each step at any time
 *     mount        counts a renewal; gives the lease up at its deadline
 *     clock        time passes, but a deadline that is due comes first
 *
 * What is proved:
 *
 *   nobody_else_holds     When the lease has ended in the cluster, the mount has given it up.
 *
 * A reign is a leader with its term.  A member that has not learned of the last election is one
 * whose disk hangs, or which is cut off: it answers renewals from memory for as long as it likes,
 * as the leader that it was, or passes them on to the one that it knew.  What takes a majority, an
 * election, the confirmation of a read, the end of a lease, takes two members that have not heard
 * of a later reign.
 */

#define NOTHING		 0
#define RENEWAL_UNPROVEN 1 /* every answer counts */
#define TERM_IGNORED	 2 /* so does one with any read behind it */
#define READ_FROM_MEMORY 3 /* the read is answered by the member alone */
#ifndef BROKEN
#define BROKEN NOTHING
#endif

#define MEMBERS	  3
#define REIGNS	  3
#define TTL	  2
#define MARGIN	  1
#define END	  6

mtype = { IDLE, SENT, TAKEN_UP, ANSWERED, CONFIRMED, PROVEN };

/* --- etcd --- */

byte last;		   /* the last reign */
byte leader[REIGNS];	   /* its leader */
byte expires = TTL;	   /* the lease, for the last leader; others renew it for themselves alone */
byte heard[MEMBERS];	   /* the last reign that a member has heard of */
byte applied[MEMBERS];	   /* that whose entries it has applied, which its headers show */
bool ended;		   /* the lease */

/* --- the mount --- */

byte now;
bool held = true;
byte renewed_at;	   /* when the last renewal that counts was sent */
mtype renewal = IDLE;
byte sent_at;
byte member;		   /* that was asked */
byte target;		   /* the reign to whose leader it passes the renewal on */
byte term, read_term;	   /* what the two headers show */

hidden byte nobody_else_holds, i_;

c_decl {
	#define SIGHTS(X)                                                                          \
		X(renewed) X(elected) X(from_memory) X(passed_on) X(unproven) X(given_up)          \
		X(refused)
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

/* The leader of that reign takes itself for it, and has a majority that does so too. */
#define LEADS(r)	(heard[leader[r]] == (r))
#define FOLLOW(r)	((heard[0] == (r)) + (heard[1] == (r)) + (heard[2] == (r)))
#define HAS_MAJORITY(r) (LEADS(r) && FOLLOW(r) >= 2)

#define DEADLINE	(renewed_at + TTL - MARGIN)

/* By itself and n, and it gives the lease its whole TTL. */
inline elect(m, n)
{
	d_step {
		SAW(elected);
		last++;
		leader[last] = m;
		expires = now + TTL;
		heard[m] = last;
		heard[n] = last;
		applied[m] = last;
		printf("* member %d is elected, in %d\n", m, now)
	}
}

/* Nothing is remembered of a renewal that is over. */
inline forget()
{
	renewal = IDLE;
	sent_at = 0;
	member = 0;
	target = 0;
	term = 0;
	read_term = 0
}

inline send(m)
{
	d_step {
		member = m;
		sent_at = now;
		renewal = SENT
	}
}

proctype cluster()
{
end:	do
	/* Any member, by any other. */
	:: held && last < REIGNS - 1 -> elect(0, 1)
	:: held && last < REIGNS - 1 -> elect(0, 2)
	:: held && last < REIGNS - 1 -> elect(1, 0)
	:: held && last < REIGNS - 1 -> elect(1, 2)
	:: held && last < REIGNS - 1 -> elect(2, 0)
	:: held && last < REIGNS - 1 -> elect(2, 1)
	/* A member hears of the last reign, and later applies the entries of what it has heard of. */
	:: held && heard[0] < last -> heard[0] = last
	:: held && heard[1] < last -> heard[1] = last
	:: held && heard[2] < last -> heard[2] = last
	:: held && applied[0] < heard[0] -> applied[0] = heard[0]
	:: held && applied[1] < heard[1] -> applied[1] = heard[1]
	:: held && applied[2] < heard[2] -> applied[2] = heard[2]
	/* Somebody else is granted the lock. */
	:: d_step {
		!ended && now >= expires && HAS_MAJORITY(last) ->
		printf("* the lease ends, in %d\n", now);
		ended = true;
		nobody_else_holds = !held;
		assert(nobody_else_holds)
	   }
	od
}

proctype traffic()
{
end:	do
	:: renewal == IDLE && held -> send(0)
	:: renewal == IDLE && held -> send(1)
	:: renewal == IDLE && held -> send(2)
	/* The member writes the header, and then looks whom it takes for the leader. */
	:: d_step {
		renewal == SENT ->
		term = applied[member];
		target = applied[member];
		renewal = TAKEN_UP
	   }
	:: d_step {
		renewal == SENT && applied[member] < heard[member] ->
		term = applied[member];
		target = heard[member];
		renewal = TAKEN_UP
	   }
	:: d_step {
		renewal == TAKEN_UP ->
		if
		:: !LEADS(target) || (target == last && ended) ->
			SAW_IF(!LEADS(target), refused);
			forget()
		:: else ->
			SAW_IF(target < last, from_memory);
			SAW_IF(target < last && leader[target] != member, passed_on);
			expires = (target == last -> now + TTL : expires);
			renewal = ANSWERED
		fi
	   }
	/* The read: confirmed by a leader that has a majority, of whose reign the member applies. */
	:: d_step {
		renewal == ANSWERED && BROKEN != RENEWAL_UNPROVEN && BROKEN != READ_FROM_MEMORY &&
				HAS_MAJORITY(last) && heard[member] <= last ->
		heard[member] = last;
		applied[member] = last;
		renewal = CONFIRMED
	   }
	:: d_step {
		renewal == ANSWERED && BROKEN == READ_FROM_MEMORY -> renewal = CONFIRMED
	   }
	:: d_step {
		renewal == CONFIRMED ->
		read_term = applied[member];
		renewal = PROVEN
	   }
	:: d_step {
		renewal == ANSWERED && BROKEN == RENEWAL_UNPROVEN ->
		read_term = term;
		renewal = PROVEN
	   }
	/* No answer comes. */
	:: d_step { renewal != IDLE -> forget() }
	od
}

proctype mount()
{
end:	do
	:: d_step {
		renewal == PROVEN ->
		if
		:: held && (read_term == term || BROKEN == TERM_IGNORED) ->
			SAW(renewed);
			renewed_at = sent_at;
			printf("* a renewal of %d counts, in %d\n", sent_at, now)
		:: else -> SAW_IF(held, unproven)
		fi;
		forget()
	   }
	:: d_step {
		held && now >= DEADLINE ->
		SAW(given_up);
		printf("* the mount gives the lease up, in %d\n", now);
		held = false; /* and nothing matters any more */
		forget()
	   }
	od
}

proctype clock()
{
end:	do
	:: d_step { held && now < END && now < DEADLINE -> now++ }
	od
}

init {
	c_code {
		static int is_set;
		if (!is_set++)
			atexit(tell_sights);
	};
	atomic {
		run cluster();
		run traffic();
		run mount();
		run clock()
	}
}
