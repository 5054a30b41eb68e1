# SPDX-License-Identifier: MIT
"""Byte ranges of fcntl(2): on one mount, and on two, exactly as on a local file.

Random operations of several processes are answered by a model, by a local file and by latchfs, all
of which must always agree.  Left out is waiting for a whole file, which is done in a queue.  What
programs do with ranges is in test_range_programs.py.
"""

import errno
import fcntl
import itertools
import os
import random
from fcntl import (F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB,
                   LOCK_SH, LOCK_UN)
from pathlib import Path

import pytest

from mounting import parse_record
from support import SOON, wait_until
from test_fcntl import F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
from test_loss import revoke
from test_supervise import settled

RW = os.O_RDWR | os.O_CREAT
SETLK, SETLKW, GETLK = (F_SETLK, F_OFD_SETLK), (F_SETLKW, F_OFD_SETLKW), (F_GETLK, F_OFD_GETLK)
# Bytes that the random operations are about; the last stands for all that follow.
BYTES = 16


# --- the model ---


class Ranges:
    """Who has locked which bytes, and how."""

    def __init__(self):
        self.owners = {}

    def blockers(self, owner, kind, start, length):
        """Owners who are in the way of such a lock."""
        wanted = span(start, length)
        return [other for other, held in self.owners.items() if other != owner and any(
            byte in held and F_WRLCK in (kind, held[byte]) for byte in wanted)]

    def change(self, owner, kind, start, length):
        """Locks or unlocks."""
        held = self.owners.setdefault(owner, {})
        for byte in span(start, length):
            if kind == F_UNLCK:
                held.pop(byte, None)
            else:
                held[byte] = kind
        if not held:
            del self.owners[owner]

    def runs(self, owner):
        """What it has, as ranges of one kind each."""
        found = []
        for byte, kind in sorted(self.owners[owner].items()):
            if found and found[-1][0] == kind and sum(found[-1][1:]) == byte:
                found[-1] = (kind, found[-1][1], found[-1][2] + 1)
            else:
                found.append((kind, byte, 1))
        return found

    def drop(self, *owners):
        """They have nothing any more."""
        for owner in owners:
            self.owners.pop(owner, None)


def span(start, length):
    """The bytes of a range."""
    return range(start, start + length if length else BYTES)


class Player:
    """A process with two handles of the file, and on a local file another that does the same."""

    def __init__(self, number, paths, agent, machine):
        self.number = number
        self.machine = machine
        self.paths = paths
        self.agents = [agent() for _ in paths]
        self.files = [[who.open(path, RW) for _ in range(2)]
                      for who, path in zip(self.agents, paths)]
        self.waiting = None

    def owner(self, ofd, handle):
        """Whose a lock is that is taken that way."""
        return self.number, handle if ofd else "process"

    def begin(self, name, handle, *arguments):
        """Starts a call everywhere."""
        for who, files in zip(self.agents, self.files):
            who.begin(name, files[handle], *arguments)

    def finish(self):
        """What it gives, everywhere: a value, or an errno."""
        return [outcome(who) for who in self.agents]

    def ready(self):
        """Whether it has been answered, everywhere."""
        return [who.ready() for who in self.agents]

    def call(self, name, handle, *arguments):
        """Both."""
        self.begin(name, handle, *arguments)
        return self.finish()

    def gone(self, handle):
        """The owners that have nothing any more when a handle is closed."""
        return [self.owner(False, handle), self.owner(True, handle)]

    def reopen(self, handle):
        """Closes a handle and opens it anew."""
        for who, files, path in zip(self.agents, self.files, self.paths):
            who.close(files[handle])
            files[handle] = who.open(path, RW)
        # Closing does not wait, and another machine may come before it.
        settled(Path(self.paths[-1]).parent)


class Sharer(Player):
    """One of several processes that have one description, by two descriptors that they inherited.

    On latchfs that has the lock of the whole file, or has not.
    """

    def __init__(self, number, inherited, agent):  # pylint: disable=super-init-not-called
        self.number = number
        self.machine = 0
        self.agents = [agent(pass_fds=fds) for fds in inherited]
        self.files = [list(fds) for fds in inherited]
        self.waiting = None

    def owner(self, ofd, handle):
        """A lock of the description is everybody's."""
        return ("all", "description") if ofd else (self.number, "process")

    def reopen(self, handle):
        """Closes a descriptor and makes it anew of the other one."""
        for who, files in zip(self.agents, self.files):
            who.close(files[handle])
            files[handle] = who.dup(files[1 - handle])

    def gone(self, handle):
        """The owners that have nothing any more when a descriptor is closed."""
        return [self.owner(False, handle)]


def outcome(who):
    """What an agent's call has come to."""
    try:
        return who.finish(SOON)
    except OSError as error:
        assert error.errno in (errno.EAGAIN, errno.EACCES), error
        return errno.EAGAIN


class Game:
    """Random operations, one after the other."""

    def __init__(self, seed, players):
        self.random = random.Random(seed)
        self.players = players
        self.model = Ranges()
        self.waiter = None
        self.history = [f"seed {seed}"]

    def some_range(self):
        """A range, rather a short one."""
        start = self.random.randrange(BYTES - 1)
        if self.random.random() < 0.15:
            return start, 0
        longest = min(BYTES - 1 - start, self.random.choice((1, 3, BYTES)))
        return start, self.random.randint(1, longest)

    def note(self, *words):
        """Remembers what was done, for when it turns out to have been wrong."""
        self.history.append(" ".join(str(word) for word in words))

    def require(self, condition):
        """Fails with the history."""
        assert condition, "\n".join(self.history[-60:])

    def step(self):
        """Any operation of any process that does not wait."""
        player = self.random.choice([p for p in self.players if not p.waiting])
        ofd, handle = self.random.randrange(2), self.random.randrange(2)
        kind = self.random.choice((F_RDLCK, F_WRLCK, F_WRLCK, F_UNLCK, F_UNLCK))
        self.act(player, ofd, handle, kind, *self.some_range())
        self.settle()

    def act(self, player, ofd, handle, kind, start, length):
        """What a step does."""
        owner = player.owner(ofd, handle)
        blockers = self.model.blockers(owner, kind, start, length)
        if kind == F_UNLCK:
            self.unlock(player, ofd, handle, start, length)
        elif self.random.random() < 0.3:
            self.look(player, ofd, handle, kind, start, length)
        elif blockers and (start or length) and self.may_wait(player, owner, blockers):
            self.note(owner, "waits for", kind, start, length)
            player.begin("control", handle, SETLKW[ofd], kind, start, length)
            player.waiting = (owner, kind, start, length)
        else:
            self.note(owner, "wants", kind, start, length, "but" if blockers else "", blockers)
            answers = player.call("control", handle, SETLK[ofd], kind, start, length)
            self.note("  gets", answers)
            self.judge(player, owner, kind, start, length, answers)

    def unlock(self, player, ofd, handle, start, length):
        """Gives back some bytes, or closes a handle."""
        if self.random.random() < 0.1:
            self.note(player.number, "closes", handle)
            player.reopen(handle)
            self.model.drop(*player.gone(handle))
            return
        self.note(player.owner(ofd, handle), "unlocks", start, length)
        player.call("control", handle, SETLK[ofd], F_UNLCK, start, length)
        self.model.change(player.owner(ofd, handle), F_UNLCK, start, length)

    def may_wait(self, player, owner, blockers):
        """One at a time, and never for itself."""
        return not any(p.waiting for p in self.players) and self.random.random() < 0.5 and not any(
            blocker[0] == player.number for blocker in blockers)

    def settle(self):
        """Who waits has the lock as soon as nobody is in the way."""
        for player in self.players:
            if not player.waiting:
                continue
            owner, *wanted = player.waiting
            if self.model.blockers(owner, *wanted):
                self.require(not any(player.ready()))
                continue
            wait_until(lambda: all(player.ready()), SOON, "\n".join(self.history[-60:]))
            player.finish()
            player.waiting = None
            self.note(owner, "has waited long enough")
            self.model.change(owner, *wanted)

    def finish(self):
        """Everybody lets go; who waits gets it."""
        for player in self.players:
            if player.waiting:
                continue
            for ofd, handle in itertools.product(range(2), range(2)):
                player.call("control", handle, SETLK[ofd], F_UNLCK, 0, 0)
                self.model.drop(player.owner(ofd, handle))
        self.settle()


    def judge(self, player, owner, kind, start, length, answers):
        """Granted exactly if nobody is in the way."""
        blocked = bool(self.model.blockers(owner, kind, start, length))
        self.require(answers == [errno.EAGAIN if blocked else None] * 2)
        if not blocked:
            self.model.change(owner, kind, start, length)

    def look(self, player, ofd, handle, kind, start, length):
        """F_GETLK: any range that is in the way, with its type and, on one machine, its process."""
        owner = player.owner(ofd, handle)
        answers = player.call("conflict", handle, GETLK[ofd], kind, start, length)
        self.note(owner, "looks at", kind, start, length, "and sees", *answers)
        blockers = self.model.blockers(owner, kind, start, length)
        for i, (found, *where) in enumerate(answers):
            self.require((found == F_UNLCK) == (not blockers))
            if blockers:
                self.require(any(self.is_seen(player, i, other, found, *where)
                                 for other in blockers))

    def is_seen(self, player, i, owner, kind, start, length, pid):
        """Whether that is what an owner has."""
        holders = self.players if owner[0] == "all" else [self.players[owner[0]]]
        is_far = i and holders[0].machine != player.machine
        runs = [run for run in self.model.runs(owner) if run[0] == kind]
        # A file's end is the model's too.
        mine = (kind, start, BYTES - start if not length else length)
        if not any(run == mine or (is_far and set(span(*mine[1:])) <= set(span(*run[1:])))
                   for run in runs):
            return False
        # The kernel names no process for a lock of an open file description, or to who asks so.
        return pid <= 0 or pid in [holder.agents[i].pid for holder in holders]


def play(game, steps):
    """A whole game."""
    for _ in range(steps):
        game.step()
    game.finish()
    assert not any(player.waiting for player in game.players)


@pytest.mark.limit(300)
@pytest.mark.parametrize("seed", range(6))
def test_answers_are_those_of_a_local_file(pair, agent, seed):
    """Granted, refused, waited for, F_GETLK: all the same, for process and OFD locks."""
    mounts = [pair.a, pair.b if seed % 2 else pair.a]
    local = pair.lab.scratch()
    players = [Player(n, [local, mounts[n % 2] / "x"], agent, n % 2 if seed % 2 else 0)
               for n in range(4)]
    play(Game(seed, players), 200)


@pytest.mark.limit(300)
@pytest.mark.parametrize("whole", ["O_EXCL", "flock", "nothing"])
def test_answers_are_those_of_a_local_file_through_one_descriptor(pair, agent, whole):
    """Which may have the lock of the whole file: each of its owners has its ranges all the same."""
    flags = RW | os.O_EXCL if whole == "O_EXCL" else RW
    inherited = []
    for path in (f"{pair.lab.scratch('')}.shared", pair.a / "x"):
        fd = os.open(path, flags, 0o666)
        inherited.append((fd, os.dup(fd)))
        if whole == "flock":
            fcntl.flock(fd, LOCK_EX)
    players = [Sharer(n, inherited, agent) for n in range(4)]
    for fd in itertools.chain(*inherited):
        os.close(fd)
    play(Game(len(whole), players), 250)
    far = agent()
    other = far.open(pair.b / "x", RW)
    assert far.error("control", other, F_SETLK, F_RDLCK, 0, 1) == \
        (0 if whole == "nothing" else errno.EAGAIN)


# --- what only latchfs says ---


def test_ranges_are_in_the_record(pair, agent):
    """What each owner has of the file can be read, and what it has given back can't any more."""
    one, two = agent(), agent()
    a, b = one.open(pair.a / "x", RW), two.open(pair.b / "x", RW)
    one.control(a, F_SETLK, F_WRLCK, 0, 100)
    two.control(b, F_SETLK, F_RDLCK, 100, 0)
    one.control(a, F_SETLK, F_UNLCK, 40, 20)
    one.control(a, F_SETLK, F_RDLCK, 70, 10)
    assert [(place["ranges"], place["pid"]) for place in pair.b.queue("x")] == [
        ("w0-39,w60-69,r70-79,w80-99", one.pid), ("r100-", two.pid)]
    assert parse_record(one.pread(a, 999, 0).decode())["ranges"] == "w0-39,w60-69,r70-79,w80-99"
    assert pair.b.holder("x")["mode"] == "exclusive"
    one.control(a, F_SETLK, F_RDLCK, 0, 100)
    assert pair.b.holder("x")["mode"] == "shared"
    one.control(a, F_SETLK, F_UNLCK, 0, 0)
    two.control(b, F_SETLK, F_UNLCK, 0, 0)
    pair.await_queue("x", 0)


def test_shrinking_keeps_the_place(pair, agent):
    """A part is given back under the same token; what is asked for more has one of its own."""
    one = agent()
    a = one.open(pair.a / "x", RW)
    one.control(a, F_SETLK, F_WRLCK, 0, 10)
    (before,) = pair.lab.keys("x")
    one.control(a, F_SETLK, F_UNLCK, 3, 2)
    (after,) = pair.lab.keys("x")
    assert after.create_revision == before.create_revision and after.name == before.name
    one.control(a, F_SETLK, F_WRLCK, 20, 1)
    assert len(pair.lab.keys("x")) == 2


def place_of(lab, name):
    """What must stay of the first place of a lock: its key and its token."""
    first = lab.keys(name)[0]
    return first.name, first.create_revision


def test_from_write_to_read_is_the_same_place(pair, agent):
    """No writer of the other mount gets in between, not even one who has waited all the time.

    A reader there is let in at once, so the change has arrived where the writer waits.
    """
    one, writer, reader = agent(), agent(), agent()
    a, b, c = (who.open(mount / "x", RW)
               for who, mount in ((one, pair.a), (writer, pair.b), (reader, pair.b)))
    one.control(a, F_SETLK, F_RDLCK, 0, 10)
    writer.begin("control", b, F_SETLKW, F_WRLCK, 5, 1).await_waiting("fcntl")
    for start, length in ((0, 10), (5, 1), (3, 4)) * 3:
        one.control(a, F_SETLK, F_WRLCK, 0, 10)
        assert reader.error("control", c, F_SETLK, F_RDLCK, 5, 1) == errno.EAGAIN
        before = place_of(pair.lab, "x")
        one.control(a, F_SETLK, F_RDLCK, start, length)
        assert place_of(pair.lab, "x") == before
        reader.control(c, F_SETLK, F_RDLCK, 5, 1)
        assert not writer.ready()
        reader.control(c, F_SETLK, F_UNLCK, 5, 1)
    one.control(a, F_SETLK, F_UNLCK, 0, 0)
    writer.finish(SOON)


def test_from_write_to_read_before_a_queue(pair, agent):
    """The same while an flock of the other mount stands behind: it keeps its place, and waits."""
    one, writer = agent(), agent()
    a, b = one.open(pair.a / "x", RW), writer.open(pair.b / "x", RW)
    one.control(a, F_SETLK, F_WRLCK, 0, 10)
    before = place_of(pair.lab, "x")
    writer.begin("flock", b, LOCK_EX)
    pair.await_queue("x", 2)
    behind = pair.lab.keys("x")[1]
    for start, length in ((5, 1), (3, 4), (0, 10)):
        one.control(a, F_SETLK, F_RDLCK, start, length)
        assert place_of(pair.lab, "x") == before
        assert pair.lab.keys("x")[1:] == [behind]
        assert not writer.ready()
    one.control(a, F_SETLK, F_UNLCK, 0, 10)
    writer.finish(SOON)
    assert place_of(pair.lab, "x") == (behind.name, behind.create_revision)


@pytest.mark.parametrize("taker", [LOCK_EX, LOCK_SH])
def test_who_waits_for_the_file_hears_of_shrinking(pair, agent, taker):
    """A part, and then the rest; an flock of the other mount gets it when nothing is in its way."""
    one, far = agent(), agent()
    a, b = one.open(pair.a / "x", RW), far.open(pair.b / "x", RW)
    one.control(a, F_SETLK, F_WRLCK, 0, 0)
    far.begin("flock", b, taker)
    pair.await_queue("x", 2)
    one.control(a, F_SETLK, F_UNLCK, 0, 100)
    one.control(a, F_SETLK, F_RDLCK, 100, 0)
    if taker == LOCK_EX:
        assert not far.ready()
        one.control(a, F_SETLK, F_UNLCK, 0, 0)
    far.finish(SOON)


def test_a_try_meets_what_is_there_now(pair, agent):
    """What was given back or made shared is free for tries elsewhere, flock's too, at once."""
    one, far = agent(), agent()
    a, b = one.open(pair.a / "x", RW), far.open(pair.b / "x", RW)
    one.control(a, F_SETLK, F_WRLCK, 0, 0)
    for _ in range(20):
        assert far.error("flock", b, LOCK_SH | LOCK_NB) == errno.EWOULDBLOCK
        assert far.error("control", b, F_SETLK, F_RDLCK, 5, 1) == errno.EAGAIN
        one.control(a, F_SETLK, F_UNLCK, 5, 1)
        far.control(b, F_SETLK, F_WRLCK, 5, 1)
        assert one.error("control", a, F_SETLK, F_RDLCK, 0, 0) == errno.EAGAIN
        far.control(b, F_SETLK, F_UNLCK, 5, 1)
        one.control(a, F_SETLK, F_RDLCK, 0, 0)
        far.flock(b, LOCK_SH | LOCK_NB)
        assert one.error("control", a, F_SETLK, F_WRLCK, 0, 0) == errno.EAGAIN
        far.flock(b, LOCK_UN)
        one.control(a, F_SETLK, F_WRLCK, 0, 0)


def test_flock_and_a_range_exclude_each_other(pair, agent):
    """Between processes, here and elsewhere; flock stands for the whole file."""
    one, two, three, far = agent(), agent(), agent(), agent()
    a, b, c = (each.open(pair.a / "x", RW) for each in (one, two, three))
    d = far.open(pair.b / "x", RW)
    one.control(a, F_SETLK, F_RDLCK, 3, 1)
    two.control(b, F_SETLK, F_RDLCK, 4, 1)
    for each, fd in ((three, c), (far, d)):
        assert each.error("flock", fd, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK
        each.flock(fd, LOCK_SH | LOCK_NB)
        assert one.error("control", a, F_SETLK, F_WRLCK, 3, 1) == errno.EAGAIN
        each.close(fd)
    wait_until(lambda: one.error("control", a, F_SETLK, F_WRLCK, 3, 1) == 0, SOON)
    # Through the handle that has a range already the ranges of others are in the way as well.
    assert one.error("flock", a, LOCK_SH | LOCK_NB) == 0
    assert two.error("control", b, F_SETLK, F_WRLCK, 4, 1) == errno.EAGAIN
    assert one.error("flock", a, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK
    one.begin("flock", a, LOCK_EX).await_waiting()
    two.control(b, F_SETLK, F_UNLCK, 4, 1)
    one.finish(SOON)


def test_loss_concerns_every_owner(pair, agent):
    """Each is told with EIO, until he himself unlocks; then it goes on under a new lease."""
    pair.a.expect()
    one, two, three = agent(), agent(), agent()
    a, b, c = (each.open(pair.a / "x", RW) for each in (one, two, three))
    one.control(a, F_SETLK, F_WRLCK, 0, 1)
    two.control(b, F_SETLK, F_WRLCK, 1, 1)
    two.control(b, F_SETLK, F_WRLCK, 3, 1)
    three.begin("control", c, F_SETLKW, F_WRLCK, 0, 1).await_waiting("fcntl")
    revoke(pair.lab, "x")
    for who, fd in ((one, a), (two, b)):
        wait_until(lambda: who.error("pread", fd, 10, 0) == errno.EIO, SOON)
        assert who.error("control", fd, F_SETLK, F_RDLCK, 7, 1) == errno.EIO
        assert who.error("fsync", fd) == errno.EIO
    three.finish(SOON)
    one.control(a, F_SETLK, F_UNLCK, 0, 1)
    one.control(a, F_SETLK, F_WRLCK, 5, 1)
    assert two.error("control", b, F_SETLK, F_RDLCK, 7, 1) == errno.EIO
    two.control(b, F_SETLK, F_UNLCK, 0, 0)
    two.control(b, F_SETLK, F_RDLCK, 7, 1)
    assert three.conflict(c, F_GETLK, F_WRLCK, 0, 0) == (F_WRLCK, 5, 1, one.pid)


def sizes(who, fd, *paths):
    """st_size of an open file, and of these names."""
    return {who.fstat(fd).st_size, *(who.stat(path).st_size for path in paths)}


@pytest.mark.parametrize("there", ["a", "b"])
def test_who_has_written_nothing_reads_what_another_has(pair, agent, there):
    """Of a part each holder has content of its own; others read the first that has any."""
    one, two, three = agent(), agent(), agent()
    paths = pair.a / "x", pair.b / "x"
    a, b, c = one.open(paths[0], RW), two.open(getattr(pair, there) / "x", RW), \
        three.open(paths[1], RW)
    one.control(a, F_SETLK, F_WRLCK, 0, 1)
    one.pwrite(a, b"S.........owner=web1", 0)
    assert three.pread(c, 99, 0) == b"S.........owner=web1"
    for kind in (F_RDLCK, F_WRLCK):
        two.control(b, F_SETLK, kind, 10, 10)
        assert two.pread(b, 99, 0) == b"S.........owner=web1"
        assert two.pread(b, 99, 10) == b"owner=web1"
        assert sizes(two, b, *paths) == {20}
    one.pwrite(a, b"T", 0)
    assert two.pread(b, 99, 0) == three.pread(c, 99, 0) == b"T.........owner=web1"
    two.pwrite(b, b"0123456789web2", 0)
    assert two.pread(b, 99, 0) == b"0123456789web2"
    assert two.lseek(b, 0, os.SEEK_END) == 14
    assert one.pread(a, 99, 0) == three.pread(c, 99, 0) == b"T.........owner=web1"
    assert sizes(one, a, *paths) == {20}
    one.control(a, F_SETLK, F_UNLCK, 0, 0)
    assert one.pread(a, 99, 0) == three.pread(c, 99, 0) == b"0123456789web2"
    two.ftruncate(b, 0)
    text = two.pread(b, 999, 0)
    assert parse_record(text.decode())["ranges"] == "w10-19"
    assert sizes(two, b, *paths) == {len(text)}


def test_what_one_of_many_has_written_is_read_by_all(pair, agent):
    """Also if it came after more of them than a look at a name usually shows."""
    crowd = [agent() for _ in range(9)]
    fds = [who.open(pair.each()[number % 2] / "x", RW) for number, who in enumerate(crowd)]
    for number, (who, fd) in enumerate(zip(crowd, fds)):
        who.control(fd, F_SETLK, F_WRLCK, number, 1)
        pair.await_queue("x", number + 1)
    crowd[7].pwrite(fds[7], b"seven", 0)
    assert {who.pread(fd, 99, 0) for who, fd in zip(crowd, fds)} == {b"seven"}
    assert {size for who, fd in zip(crowd, fds) for size in sizes(who, fd)} == {5}
    looker = agent()
    assert looker.pread(looker.open(pair.a / "x", os.O_RDONLY), 99, 0) == b"seven"
    assert looker.stat(pair.b / "x").st_size == 5


def test_a_holder_of_a_part_reads_its_record_while_the_store_is_away(pair, agent):
    """What others have written can't be told then; whether it holds can."""
    server = pair.lab.own_etcd()
    a, b = pair.lab.mount(name="c"), pair.lab.mount(name="d")
    for each in (a, b):
        each.expect()
    one, far = agent(), agent()
    fd, other = one.open(a / "x", RW), far.open(b / "x", RW)
    far.control(other, F_SETLK, F_WRLCK, 0, 1)
    far.pwrite(other, b"far", 0)
    one.control(fd, F_SETLK, F_RDLCK, 1, 1)
    assert one.pread(fd, 99, 0) == b"far"
    server.stop()
    assert parse_record(one.pread(fd, 999, 0).decode())["ranges"] == "r1-1"
    assert one.fstat(fd).st_size > 3
    server.start()
    wait_until(lambda: one.pread(fd, 99, 0) == b"far", SOON)


def test_unlocking_a_part_does_not_wait_for_a_store_that_is_away(pair, agent):
    """It takes effect there when it can; nobody gets it before."""
    server = pair.lab.own_etcd()
    a, b = pair.lab.mount(name="c"), pair.lab.mount(name="d")
    for each in (a, b):
        each.expect()
    one, far = agent(), agent()
    fd, other = one.open(a / "x", RW), far.open(b / "x", RW)
    one.control(fd, F_SETLK, F_WRLCK, 0, 10)
    far.begin("control", other, F_SETLKW, F_WRLCK, 0, 5)
    far.await_waiting("fcntl")
    server.stop()
    wait_until(lambda: one.error("fsync", fd) == errno.EIO, SOON)
    one.control(fd, F_SETLK, F_UNLCK, 0, 5)
    assert not far.ready()
    server.start()
    far.finish(SOON)
    assert far.error("control", other, F_SETLK, F_WRLCK, 5, 1) == errno.EAGAIN
