/* SPDX-License-Identifier: MIT */
/*
 * What the policy on_loss says: signals to the processes that have lost a lock.
 *
 * All that is lost while a search for processes goes on is looked for in the next one: with a lease
 * all locks go at once.
 */
#pragma once

struct fs;
struct hold;

/* The hold was lost: in the next turn its holders get the signal that its policy says. */
void signals_add(struct hold *hold);

/* The hold is about to end because it was lost: its holders get their signal all the same. */
void signals_outlive(struct hold *hold);

/* The hold ends: its holders know, or are not to be told any more. */
void signals_remove(struct hold *hold);

/* The end of the program: none is sent any more. */
void signals_fini(struct fs *fs);
