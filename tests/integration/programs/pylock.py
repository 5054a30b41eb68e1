#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Locks a file with one of Python's lock libraries: pylock.py LIBRARY FILE.

Says "held", holds until its input ends; leaves with 75 when busy.
"""

import sys

BUSY = 75


def with_filelock(path):
    """The usual lock of filelock: flock, tried again and again."""
    import filelock

    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        sys.exit(BUSY)
    return lock.release


def with_softfilelock(path):
    """The lock file of filelock: O_EXCL, and the file is removed afterwards."""
    import filelock

    lock = filelock.SoftFileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        sys.exit(BUSY)
    return lock.release


def with_portalocker(path):
    """Portalocker, failing at once."""
    import portalocker

    lock = portalocker.Lock(path, "a", timeout=0, fail_when_locked=True)
    try:
        lock.acquire()
    except portalocker.exceptions.LockException:
        sys.exit(BUSY)
    return lock.release


def with_fasteners(path):
    """The interprocess lock of fasteners: lockf."""
    import fasteners

    lock = fasteners.InterProcessLock(path)
    if not lock.acquire(blocking=False):
        sys.exit(BUSY)
    return lock.release


def with_zc_lockfile(path):
    """Zope's lock file: flock, and the process number in it."""
    import zc.lockfile

    try:
        lock = zc.lockfile.LockFile(path)
    except zc.lockfile.LockError:
        sys.exit(BUSY)
    return lock.close


def with_symlinklockfile(path):
    """The symbolic link of lockfile."""
    from lockfile import AlreadyLocked
    from lockfile.symlinklockfile import SymlinkLockFile

    lock = SymlinkLockFile(path)
    try:
        lock.acquire(timeout=0)
    except AlreadyLocked:
        sys.exit(BUSY)
    return lock.release


def main():
    """Takes, says so, waits for the end of the input, releases."""
    release = globals()["with_" + sys.argv[1]](sys.argv[2])
    print("held", flush=True)
    sys.stdin.read()
    release()


main()
