/* SPDX-License-Identifier: MIT */
/* The process's memory: that it stays in RAM, and is given back when a crowd has gone. */
#pragma once

/* Once, before much is allocated. */
void memory_init(void);

/*
 * Gives back to the system what is free, if that is worth it.  Takes a few milliseconds then, so it
 * is for every now and again.
 */
void memory_tidy(void);
