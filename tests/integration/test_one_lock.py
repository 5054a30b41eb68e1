# SPDX-License-Identifier: MIT
"""One name is one lock: flock, fcntl and O_EXCL exclude each other, unlike on a local disk."""

import errno
import os
from fcntl import F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH

import pytest

from support import SOON, wait_until
from test_fcntl import BUSY, F_OFD_SETLK, F_OFD_SETLKW, RW, opened

TAKERS = {
    "flock": lambda who, path: who.flock(who.open(path, RW), LOCK_EX | LOCK_NB),
    "shared": lambda who, path: who.flock(who.open(path, RW), LOCK_SH | LOCK_NB),
    "posix": lambda who, path: who.control(who.open(path, RW), F_SETLK, F_WRLCK),
    "ofd": lambda who, path: who.control(who.open(path, RW), F_OFD_SETLK, F_WRLCK),
    "O_EXCL": lambda who, path: who.open(path, RW | os.O_EXCL),
}


@pytest.mark.parametrize("there", ["a", "b"])
@pytest.mark.parametrize("second", ["flock", "posix", "ofd", "O_EXCL"])
@pytest.mark.parametrize("first", TAKERS)
def test_each_excludes_each(pair, agent, first, second, there):
    """Whatever took the lock excludes every other way, on the same machine and on another."""
    one, two = agent(), agent()
    TAKERS[first](one, pair.a / "x")
    with pytest.raises(OSError) as caught:
        TAKERS[second](two, getattr(pair, there) / "x")
    expected = (errno.EEXIST,) if second == "O_EXCL" else BUSY
    assert caught.value.errno in expected


@pytest.mark.core
def test_a_handle_is_granted_what_it_has(pair, agent):
    """O_EXCL, then flock and fcntl on the same descriptor: all succeed, and it stays held.

    But for a second owner of fcntl locks, which is not let in by what their descriptor has.
    """
    one, two = agent(), agent()
    fd = one.open(pair.a / "x", RW | os.O_EXCL)
    one.flock(fd, LOCK_EX | LOCK_NB)
    one.control(fd, F_SETLK, F_WRLCK)
    assert one.error("control", fd, F_OFD_SETLK, F_WRLCK) in BUSY
    one.control(fd, F_SETLK, F_UNLCK)
    one.control(fd, F_OFD_SETLK, F_WRLCK)
    assert not two.attempt(pair.b / "x")
    one.close(fd)
    wait_until(lambda: two.attempt(pair.b / "x"), SOON)


def test_remote_holder_has_no_pid(pair, agent):
    """F_GETLK of a lock held on another machine answers the type, and 0 for the process."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    one.control(a, F_SETLK, F_WRLCK)
    assert two.getlk(b, F_WRLCK) == (F_WRLCK, 0)


def test_flock_holder_is_seen_by_getlk(pair, agent):
    """F_GETLK also sees a lock taken with flock."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent)
    one.flock(a, LOCK_EX)
    assert two.getlk(b, F_WRLCK)[0] == F_WRLCK


def test_f_unlck_is_free_everywhere(pair, agent):
    """When F_UNLCK returns, a try on any machine finds the lock free."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    for _ in range(50):
        one.control(a, F_SETLK, F_WRLCK)
        one.control(a, F_SETLK, F_UNLCK)
        two.control(b, F_SETLK, F_WRLCK)
        two.control(b, F_SETLK, F_UNLCK)


@pytest.mark.core
def test_writers_of_both_families_share_one_queue(pair, agent):
    """flock and fcntl waiters of both machines are granted in the order in which they came."""
    first = agent()
    fd = first.take(pair.a / "x")
    calls = [("flock", LOCK_EX), ("control", F_SETLKW, F_WRLCK),
             ("control", F_OFD_SETLKW, F_WRLCK), ("flock", LOCK_EX)]
    waiters = []
    for place, (call, *arguments) in enumerate(calls):
        who, handle = opened(pair, agent, pair.each()[place % 2])
        who.begin(call, handle, *arguments)
        pair.await_queue("x", place + 2)
        waiters.append((who, handle))
    first.close(fd)
    for who, handle in waiters:
        who.finish(SOON)
        who.close(handle)
