# SPDX-License-Identifier: MIT
"""crowd.py FILE COUNT MOUNTS: has FILE open COUNT times, through MOUNTS bind mounts in turn, which
it makes in a mount namespace of its own; and 0 mounts: through the path itself.

Takes a lock of FILE through the first one, says "held", and ends by a signal or with its input.
"""

import ctypes
import fcntl
import os
import resource
import sys

CLONE_NEWUSER, CLONE_NEWNS, MS_BIND = 0x10000000, 0x00020000, 4096


def checked(result):
    """Fails as the call did."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def make_mounts(file, count):
    """Bind mounts of the file's directory at and below another one."""
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    directory, name = os.path.split(file)
    paths = []
    for number in range(count):
        place = os.path.join(sys.argv[4], str(number))
        os.makedirs(place, exist_ok=True)
        checked(libc.mount(directory.encode(), place.encode(), None, MS_BIND, None))
        paths.append(os.path.join(place, name))
    return paths


def main():
    """Until the input ends."""
    file, count, mounts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    paths = make_mounts(file, mounts) if mounts else []
    ends = [os.open(path, os.O_RDWR) for path in (paths[:1] + paths[-1:])] or [first]
    for number in range(min(count, most - 50)):
        os.dup(ends[number % len(ends)])
    fcntl.flock(first, fcntl.LOCK_EX if len(sys.argv) < 6 else fcntl.LOCK_SH)
    print("held", flush=True)
    sys.stdin.read()


main()
