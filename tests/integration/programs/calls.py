#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Calls on a few names of a directory, at random; says of each what it was, its errno and when.

calls.py DIRECTORY SEED NAMES: begins, says it when a line comes, and ends when its input does, for
what it holds ends with it.
"""

import os
import random
import select
import sys
import time

directory, seed, names = sys.argv[1], sys.argv[2], int(sys.argv[3])
choose = random.Random(seed)


def opened(flags):
    """What opens a file with flags and closes it."""
    return lambda path: os.close(os.open(path, os.O_RDWR | flags))


CALLS = {
    "create": opened(os.O_CREAT | os.O_EXCL),
    "attach": opened(os.O_CREAT),
    "open": opened(0),
    "stat": os.stat,
    "unlink": os.unlink,
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
}
ODDS = {"create": 4, "unlink": 5, "stat": 4, "open": 3, "attach": 3, "mkdir": 1, "rmdir": 2}

lines = []
while not select.select([sys.stdin], [], [], 0)[0]:
    name = f"n{choose.randrange(names)}"
    what = choose.choices(list(ODDS), list(ODDS.values()))[0]
    result, begun = 0, time.monotonic()
    try:
        CALLS[what](os.path.join(directory, name))
    except OSError as error:
        result = error.errno
    # open and close: the name's part is over before the file is closed, which is no earlier.
    lines.append(f"{name} {what} {result} {begun!r} {time.monotonic()!r}")
print("\n".join(lines), "", sep="\n", flush=True)
sys.stdin.read()
