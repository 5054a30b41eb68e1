/* SPDX-License-Identifier: MIT */
/*
 * What a process leaves to the one that takes its place: entries in shared memory.
 *
 * Whatever it is doing when it is killed, its successor finds each entry either as it was before
 * the last change or after it, never in between.  What an entry says is its owner's business.
 *
 * The one rule: one process at a time has it open.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger;

enum ledger_kind {
	LEDGER_NOTHING,
	LEDGER_MOUNT,     /* succession: what is mounted where */
	LEDGER_SESSION,   /* store/: the store's session; its number is when that is lost */
	LEDGER_DIRECTORY, /* store/: a directory that goes with it */
	LEDGER_CLAIM,     /* lock/: a lock that is asked for, held or given back */
	LEDGER_INIT,      /* fs/: how the kernel began the conversation */
	LEDGER_NODE,      /* fs/: a name that the kernel knows */
	LEDGER_HANDLE,    /* fs/: an open file */
	LEDGER_HOLD,      /* fs/: why a lock is held */
	LEDGER_AIM,       /* fs/: what a request is about to remove */
};

/* Where an entry is; 0: there is none. */
typedef uint64_t ledger_slot;

/* Returns the descriptor of an empty one, or -errno.  The caller closes it. */
int ledger_create(void);

/*
 * fd is borrowed until ledger_close.  Returns NULL, after logging why, if it can't be used: another
 * version of the program may have written it.
 */
struct ledger *ledger_open(int fd);
void ledger_close(struct ledger *ledger);

/*
 * Of a ledger that another process may have open: false if it can't be relied upon, because
 * something could not be entered, or it can't be read by this version of the program.
 */
bool ledger_is_good(int fd);

/* What this version writes and reads; it changes whenever what any owner enters changes its
 * meaning, or what the reaper is told. */
enum { LEDGER_FORMAT = 6 };

/* Enters it, in place of what is in *slot, if anything.  ledger may be NULL in these three: then
 * nothing happens. */
void ledger_put(struct ledger *ledger, ledger_slot *slot, enum ledger_kind kind, const void *data,
	size_t size);
/* A number beside an entry, 0 at first, which a later ledger_put leaves as it is. */
void ledger_count(struct ledger *ledger, ledger_slot slot, uint64_t count);
void ledger_drop(struct ledger *ledger, ledger_slot *slot);

/* Gives memory back that nothing is in, if it is worth it.  ledger may be NULL. */
void ledger_tidy(struct ledger *ledger);

/* Calls fn for each entry of a kind, in any order.  fn may put and drop; what it puts is not met.
 * data is borrowed until fn returns. */
typedef void ledger_fn(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size);
void ledger_each(struct ledger *ledger, enum ledger_kind kind, ledger_fn *fn, void *user);
