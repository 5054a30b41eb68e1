/* SPDX-License-Identifier: MIT */
/*
 * How paths are written as etcd keys.
 *
 * The lock or directory `a/b` under the prefix /p is everything from /p/a/b/ up to, but not
 * including, /p/a/b0 ('0' follows '/').  /p/a/b/ itself is a directory's key.  /p/a/b/ID is a place
 * in the queue of the lock; with a further slash in it, a key makes a/b a directory.
 *
 * An ID that begins with "s-" is a shared place, one that begins with "l-" an exclusive place that
 * is a symbolic link.  Then come our lease, a dot and a number, and behind that, in some, "r0-99",
 * the range of bytes that was asked for, without the second number if it has no end; what there is
 * now of it, or of the whole file, stands in the value.
 *
 * /p/.latchfs.shrunk/a/b/ID is put when that place has given a part back, and deleted at once, so
 * that those hear of it who wait for deletes.
 *
 * /p/.latchfs.session/LEASE is the key of the session which that lease, in hexadecimal, is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ranges.h"

/* First key of a path's range, which is also its directory key.  The caller frees it. */
char *key_first(const char *prefix, const char *path);
/* The end of the range, which is not part of it. */
char *key_end(const char *prefix, const char *path);
/* The key of a place. */
char *key_place(const char *prefix, const char *path, const char *id);

/*
 * The part of `key` below the path's range, NUL-terminated: "" for the directory's own key, an id,
 * or something with a slash in it.  NULL if the key is not in the range.  A NUL byte in it, and
 * every backslash, is written as \0 and \\, so that two keys never give the same text.
 * The caller frees it.
 */
char *key_below(const char *prefix, const char *path, const char *key, size_t size);

/* The same, but NULL as well for a key that is not that of a place in this path's queue. */
char *key_place_id(const char *prefix, const char *path, const char *key, size_t size);

/* Splits what key_below gave for the root at its last slash: "a/b/ID" into "a/b" and "ID".
 * Returns the ID within `below`, or NULL if it is not the key of a place. */
char *key_split_place(char *below);

/* The path below which the news of a lock's places are put, which the caller frees. */
char *key_notice_path(const char *path);
/* The path of the lock that such a path stands for, within it; NULL if it is none. */
const char *key_noticed(const char *path);

/* The key of a session, which the caller frees. */
char *key_session(const char *prefix, uint64_t lease);
/* True for what is below the root and yet no lock or directory of anybody: news, and sessions. */
bool key_is_hidden(const char *below);

/* What goes behind the id of a place for such a range of bytes, which the caller frees; and the
 * range that an id shows, false if there is none. */
char *key_range_mark(uint64_t start, uint64_t end);
bool key_id_range(const char *id, struct range *range);

/* Where, in a place's id, the lease stands that is part of it; as ours have it. */
const char *key_id_lease(const char *id);
/* The number in an id of ours; false if there is none. */
bool key_id_sequence(const char *id, uint64_t *sequence);

bool key_id_is_shared(const char *id);
bool key_id_is_symlink(const char *id);
