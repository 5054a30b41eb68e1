/* SPDX-License-Identifier: MIT */
/* What the file `locks` says: all who hold a lock or wait for one, on all machines. */
#pragma once

struct request;

/* Asks the store, gives request->handle the text, and replies to the open. */
void table_open(struct request *request);
