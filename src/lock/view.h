/* SPDX-License-Identifier: MIT */
/* The engine's own: the places that it knows of, in the order of their tokens, and tombs. */
#pragma once

#include "lock/lock.h"

/* Puts an entry in its place. */
void view_insert(struct lock *lock, struct lock_entry *entry);
void view_remove(struct lock *lock, struct lock_entry *entry);
/* Removes a rival's, and gives the rival back. */
void view_drop_rival(struct lock *lock, struct lock_entry *entry);

/* The rival that has the same place, or NULL. */
struct rival *view_find_rival(const struct lock *lock, const struct rival *rival);
/* What is known of a place may be less than it once had: takes that over, if `seen` is newer. */
void view_update_rival(struct lock *lock, struct rival *rival, struct rival *seen);

/* Drops the place that is gone, if it is there; or those of all tombs. */
void view_bury(struct lock *lock, const struct rival *tomb);
void view_bury_all(struct lock *lock);
/* True while what is read may be older than news that have come. */
bool view_is_reading(const struct lock *lock);
/* Gives back the tombs that no read needs any more. */
void view_forget_tombs(struct lock *lock);

bool view_is_waiting(const struct lock_entry *entry);
/* True if both can't be held at once, unless it is held by the same user. */
bool view_is_barred_by(const struct claim *claim, const struct lock_entry *e);
bool view_is_held_kin(struct claim *claim, const struct lock_entry *e);
/* True if nothing gets past it but what is of the same user. */
bool view_is_wall(const struct lock_entry *e);
