# SPDX-License-Identifier: MIT
"""Byte ranges of fcntl(2) as programs use them: several at a time, spread over two mounts.

Whether each single answer is right is in test_ranges.py.
"""

import collections
import errno
import itertools
import os
from fcntl import F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK

import pytest

from support import SOON, wait_until
from test_fcntl import F_OFD_SETLK, F_OFD_SETLKW

RW = os.O_RDWR | os.O_CREAT
REFUSED = (errno.EAGAIN, errno.EACCES)

pytestmark = pytest.mark.portable


@pytest.fixture
def crowd(pair, agent):
    """Makes processes that have the file open, on A and B by turns; agents and descriptors."""

    def make(count):
        who = [agent() for _ in range(count)]
        mounts = itertools.cycle(pair.each())
        return who, [one.open(mount / "x", RW) for one, mount in zip(who, mounts)]

    return make


# Of sqlite3's os_unix.c: bytes far behind any data.
PENDING, RESERVED, SHARED, SHARED_SIZE = 0x40000000, 0x40000001, 0x40000002, 510


class Database:
    """A process that locks as sqlite3 does."""

    def __init__(self, who, fd):
        self.who = who
        self.fd = fd

    def lock(self, kind, start, length=1):
        """F_SETLK: whether it was granted."""
        error = self.who.error("control", self.fd, F_SETLK, kind, start, length)
        assert error in (0, *REFUSED)
        return error == 0

    def read(self):
        """From nothing to SHARED."""
        if not self.lock(F_RDLCK, PENDING):
            return False
        granted = self.lock(F_RDLCK, SHARED, SHARED_SIZE)
        assert self.lock(F_UNLCK, PENDING)
        return granted

    def write(self):
        """From RESERVED to EXCLUSIVE, if no reader is left."""
        return self.lock(F_WRLCK, PENDING) and self.lock(F_WRLCK, SHARED, SHARED_SIZE)

    def settle(self):
        """Back to SHARED."""
        assert self.lock(F_RDLCK, SHARED, SHARED_SIZE)
        assert self.lock(F_UNLCK, PENDING, 2)

    def end(self):
        """Back to nothing."""
        assert self.lock(F_UNLCK, 0, 0)

    def look(self):
        """Who keeps it from reading: type, start, length, process."""
        return self.who.conflict(self.fd, F_GETLK, F_RDLCK, SHARED, 1)


def test_locking_pattern_of_sqlite(pair, crowd):
    """Readers beside a writer who prepares, none beside one who writes; three processes."""
    one, two, three = (Database(*each) for each in zip(*crowd(3)))
    assert one.read() and two.read()
    assert one.lock(F_WRLCK, RESERVED)
    assert not two.lock(F_WRLCK, RESERVED) and not three.lock(F_WRLCK, RESERVED)
    assert three.read()
    assert not one.write()  # and keeps PENDING, so that the readers get fewer
    three.end()
    assert not three.read()
    two.end()
    assert one.write()
    assert not two.read()
    everything = (F_WRLCK, PENDING, SHARED_SIZE + 2, one.who.pid)
    assert three.look() == everything
    # On the other machine it has no number, and what was locked in several steps is not one.
    assert two.look() == (
        everything if pair.a is pair.b else (F_WRLCK, SHARED, SHARED_SIZE, 0))
    one.settle()
    assert two.read() and three.read()
    for each in (one, two, three):
        each.end()


# Of Samba's tdb: one byte says that the file is in use, others guard a chain each.
ACTIVE, CHAINS, CHAIN_COUNT = 4, 168, 64


def test_locking_pattern_of_tdb(crowd):
    """All share a byte, each chain is its own lock, and who reads all upgrades past who waits."""
    who, fds = crowd(4)
    for each, fd in zip(who, fds):
        each.control(fd, F_SETLKW, F_RDLCK, ACTIVE, 1)
    for i, (each, fd) in enumerate(zip(who, fds)):
        each.control(fd, F_SETLK, F_WRLCK, CHAINS + i, 1)
    who[0].begin("control", fds[0], F_SETLKW, F_WRLCK, CHAINS + 1, 1).await_waiting("fcntl")
    who[1].control(fds[1], F_SETLK, F_UNLCK, CHAINS + 1, 1)
    who[0].finish(SOON)
    for each, fd in zip(who, fds):
        each.control(fd, F_SETLK, F_UNLCK, CHAINS, CHAIN_COUNT)
    who[0].control(fds[0], F_SETLKW, F_RDLCK, CHAINS, CHAIN_COUNT)
    who[1].control(fds[1], F_SETLKW, F_RDLCK, CHAINS + 7, 1)
    for i in 2, 3:  # one on each machine
        who[i].begin("control", fds[i], F_SETLKW, F_WRLCK, CHAINS + 7 + i, 1)
        who[i].await_waiting("fcntl")
    who[0].begin("control", fds[0], F_SETLKW, F_WRLCK, CHAINS, CHAIN_COUNT)
    who[0].await_waiting("fcntl")
    # One who only waits is in nobody's way: not of another reader, nor of who upgrades.
    for i in 2, 3:
        who[1].control(fds[1], F_SETLK, F_RDLCK, CHAINS + 7 + i, 1)
        who[1].control(fds[1], F_SETLK, F_UNLCK, CHAINS + 7 + i, 1)
    who[1].control(fds[1], F_SETLK, F_UNLCK, CHAINS + 7, 1)
    who[0].finish(SOON)
    assert not who[2].ready() and not who[3].ready()
    who[0].control(fds[0], F_SETLK, F_UNLCK, CHAINS, CHAIN_COUNT)
    for i in 2, 3:
        who[i].finish(SOON)


@pytest.mark.parametrize("command", [F_SETLKW, F_OFD_SETLKW])
def test_wait_for_a_range_can_be_given_up(crowd, command):
    """A signal ends it with EINTR, kill -9 at once; the holder keeps what it has."""
    (one, two, three, four, five), (a, b, c, d, e) = crowd(5)
    one.control(a, F_SETLK, F_WRLCK, 0, 10)
    two.control(b, F_SETLK, F_WRLCK, 20, 10)
    for who, fd in ((two, b), (three, c)) * 3:
        assert who.alarmed(0.1, "control", fd, command, F_WRLCK, 5, 1) == "interrupted"
    for who, fd in (four, d), (five, e):
        who.begin("control", fd, command, F_RDLCK, 5, 1).await_waiting("fcntl")
        who.kill()
        wait_until(lambda who=who: who.ended() is not None, SOON)
    for who, fd in (two, b), (three, c):
        assert who.error("control", fd, F_SETLK, F_WRLCK, 5, 1) in REFUSED
    one.control(a, F_SETLK, F_UNLCK, 0, 10)
    for who, fd in (two, b), (three, c):
        who.control(fd, F_SETLK, F_WRLCK, 5, 1)
        who.control(fd, F_SETLK, F_UNLCK, 5, 1)


def test_killed_owner_leaves_the_others_theirs(crowd):
    """kill -9 of one of several owners frees its ranges and no other."""
    (one, two, three, four), (a, b, c, d) = crowd(4)
    one.control(a, F_SETLK, F_WRLCK, 0, 2)
    two.control(b, F_SETLK, F_WRLCK, 2, 1)
    three.begin("control", c, F_SETLKW, F_WRLCK, 0, 1).await_waiting("fcntl")
    four.begin("control", d, F_SETLKW, F_WRLCK, 1, 1).await_waiting("fcntl")
    one.kill()
    for who, fd in (three, c), (four, d):
        who.finish(SOON)
        assert who.error("control", fd, F_SETLK, F_RDLCK, 2, 1) in REFUSED
    two.control(b, F_SETLK, F_UNLCK, 2, 1)
    three.control(c, F_SETLK, F_WRLCK, 2, 1)


def test_disjoint_ranges_at_the_same_moment(crowd):
    """Processes that ask together for different bytes all get them, whoever is first."""
    who, fds = crowd(6)
    commands = [F_SETLK, F_SETLK, F_OFD_SETLK, F_OFD_SETLK, F_SETLKW, F_SETLKW]
    for turn in range(40):
        for i, (each, fd) in enumerate(zip(who, fds)):
            kind = F_RDLCK if (turn + i) % 3 == 0 else F_WRLCK
            each.begin("control", fd, commands[i], kind, i, 1)
        for each in who:
            each.finish(SOON)
        for i, (each, fd) in enumerate(zip(who, fds)):
            each.begin("control", fd, commands[i], F_UNLCK, 0, 0)
        for each in who:
            each.finish(SOON)


# Of four bytes which only one process uses: kind, place, count.
CHURN = [(F_WRLCK, 0, 4), (F_RDLCK, 1, 1), (F_UNLCK, 2, 1), (F_WRLCK, 1, 2), (F_UNLCK, 0, 1),
         (F_RDLCK, 0, 4), (F_WRLCK, 3, 1), (F_UNLCK, 0, 4)]


@pytest.mark.parametrize("commands", [(F_SETLK, F_SETLK), (F_SETLK, F_OFD_SETLK),
                                      (F_SETLKW, F_OFD_SETLKW)], ids=["try", "both", "wait"])
def test_disjoint_ranges_all_the_time(crowd, commands):
    """Each has bytes of its own, and asks for and gives back parts of them as fast as it can.

    However often somebody else is faster meanwhile, nobody is refused, and nothing fails.
    """
    who, fds = crowd(8)
    for i, (each, fd) in enumerate(zip(who, fds)):
        command = commands[i // 2 % 2]
        each.begin("repeated", 5, [("control", fd, command, kind, 4 * i + place, count)
                                   for kind, place, count in CHURN])
    answers = sum((each.finish(60) for each in who), collections.Counter())
    assert answers == {0: 8 * 5 * len(CHURN)}
    # And nothing of it is left.
    who[0].control(fds[0], F_SETLK, F_WRLCK, 0, 0)


def test_many_want_one_byte(crowd):
    """They get it one after the other, beside somebody who keeps another one all the time."""
    (one, *who), (other, *fds) = crowd(7)
    one.control(other, F_SETLK, F_RDLCK, 100, 1)
    for each, fd in zip(who, fds):
        each.begin("control", fd, F_SETLKW, F_WRLCK, 0, 1)
    waiting = list(range(len(who)))
    while waiting:
        wait_until(lambda: any(who[i].ready() for i in waiting), SOON)
        (first,) = [i for i in waiting if who[i].ready()]
        assert one.error("control", other, F_SETLK, F_RDLCK, 0, 1) in REFUSED
        assert [i for i in waiting if who[i].ready()] == [first]
        who[first].finish()
        waiting.remove(first)
        who[first].control(fds[first], F_SETLK, F_UNLCK, 0, 1)
