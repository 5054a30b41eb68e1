# SPDX-License-Identifier: MIT
"""pulse.py FILE: takes a lock and gives it back, all the time, until its input ends.

Says "beats" after the first time, and in the end how many milliseconds the longest one took.
"""

import fcntl
import os
import select
import sys
import time


def main():
    """Until the input ends."""
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
    longest, count = 0.0, 0
    while not select.select([0], [], [], 0)[0]:
        start = time.monotonic()
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_UN)
        longest = max(longest, time.monotonic() - start)
        count += 1
        if count == 1:
            print("beats", flush=True)
        time.sleep(0.001)
    print(f"{longest * 1000:.0f} {count}", flush=True)


main()
