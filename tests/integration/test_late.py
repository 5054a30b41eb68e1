# SPDX-License-Identifier: MIT
"""A copy of a request is carried out late, when newer ones have been, as by a member of etcd that
stood still: nothing that was given back comes back, nothing newer is overwritten, nobody is locked
out of what nobody has, and at the end no key is left.

Each kind of request that changes something is kept back once by the wire, its sender sees a lost
connection and repeats it, and the copy arrives at each moment at which it could do harm.
"""

import errno
import os
import threading
from fcntl import F_SETLK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

import pytest

from support import wait_until
from test_batches import all_is_free, contend
from test_supervise import TAKEN_OVER, kill, ready

RW = os.O_RDWR | os.O_CREAT
EXCL = RW | os.O_EXCL


class Stage:
    """A mount whose requests are kept back, another one, and a process on each."""

    def __init__(self, lab, members):
        self.wires = [lab.wire() for _ in range(members)]
        url = ",".join(wire.url for wire in self.wires)
        self.near = ready(lab.mount(url=url, name="near").expect(TAKEN_OVER))
        self.far = lab.mount(name="far")
        self.who, self.other = lab.agent(), lab.agent()
        self.lab = lab

    def keep(self, kind, **how):
        """Keeps the next request of that kind back."""
        for wire in self.wires:
            wire.keep(kind, **how)

    @property
    def kept(self):
        """What was kept back."""
        return [request for wire in self.wires for request in wire.kept]

    def let(self):
        """Nothing is kept back any more."""
        for wire in self.wires:
            wire.mend()

    def come(self):
        """What was kept back arrives."""
        for request in self.kept:
            request.comes()

    def free(self, name):
        """Whether the other one gets the lock at once; it is given back."""
        fd = self.other.open(self.far / name, RW)
        result = self.other.error("flock", fd, LOCK_EX | LOCK_NB)
        self.other.close(fd)
        return result == 0


# What is done: a generator, which yields whenever a late copy may come.


def join(stage, shared=False):
    """A lock that was waited for, and given back."""
    who = stage.who
    fd = who.open(stage.near / "x", RW)
    who.flock(fd, LOCK_SH if shared else LOCK_EX)
    yield
    if not shared:
        who.write(fd, b"new")
        yield
        assert stage.other.read(stage.other.open(stage.far / "x", os.O_RDONLY), 9) == b"new"
    who.fsync(fd)
    who.flock(fd, LOCK_UN)
    yield
    assert stage.free("x")


def join_shared(stage):
    """The same for a shared one."""
    yield from join(stage, True)


def attempt_whole(stage, how=LOCK_EX):
    """A lock that was tried."""
    who = stage.who
    fd = who.open(stage.near / "x", RW)
    who.flock(fd, how | LOCK_NB)
    yield
    who.fsync(fd)
    who.flock(fd, LOCK_UN)
    yield
    assert stage.free("x")


def attempt_shared(stage):
    """The same for a shared one."""
    yield from attempt_whole(stage, LOCK_SH)


def create(stage):
    """A lock that is a file."""
    fd = stage.who.open(stage.near / "x", EXCL)
    yield
    stage.who.close(fd)
    wait_until(lambda: not stage.lab.keys("x"), what="it is given back")
    yield
    stage.other.close(stage.other.open(stage.far / "x", EXCL))


def symlink(stage):
    """A lock that is a symbolic link."""
    stage.who.setxattr(stage.near.path, "user.latchfs.hold", b"name")
    stage.who.symlink("me", stage.near / "x")
    yield
    stage.who.unlink(stage.near / "x")
    yield
    stage.other.symlink("you", stage.far / "x")
    yield
    assert stage.who.readlink(stage.near / "x") == "you"
    stage.other.unlink(stage.far / "x")


def link(stage):
    """A lock that is a second name of another."""
    stage.who.setxattr(stage.near.path, "user.latchfs.hold", b"name")
    fd = stage.who.open(stage.near / "temporary", EXCL)
    stage.keep("try")
    stage.who.link(stage.near / "temporary", stage.near / "x")
    yield
    stage.who.unlink(stage.near / "x")
    yield
    assert stage.free("x")
    stage.who.unlink(stage.near / "temporary")
    stage.who.close(fd)


def part(stage):
    """A part of a file of which others have other parts."""
    fd, far = stage.who.open(stage.near / "x", RW), stage.other.open(stage.far / "x", RW)
    stage.other.control(far, F_SETLK, F_WRLCK, 200, 100)
    stage.who.control(fd, F_SETLK, F_WRLCK, 0, 10)
    yield
    stage.who.control(fd, F_SETLK, F_UNLCK, 0, 10)
    yield
    stage.other.control(far, F_SETLK, F_WRLCK, 0, 10)
    stage.other.close(far)


def leave(stage):
    """A lock that was given back is taken again, under whichever name."""
    who = stage.who
    fd = who.open(stage.near / "x", RW)
    stage.let()
    who.flock(fd, LOCK_EX)
    stage.keep("leave")
    who.flock(fd, LOCK_UN)
    for _ in range(3):
        who.flock(fd, LOCK_EX)
        yield
        who.fsync(fd)
        assert not stage.free("x")
        who.flock(fd, LOCK_UN)
        yield
    assert stage.free("x")


def write(stage):
    """What was written first does not come back."""
    fd, far = stage.who.open(stage.near / "x", EXCL), stage.other
    stage.who.pwrite(fd, b"one", 0)
    stage.who.pwrite(fd, b"two", 0)
    yield
    assert far.read(far.open(stage.far / "x", os.O_RDONLY), 9) == b"two"
    stage.who.close(fd)


def shrink(stage):
    """Bytes that were given back stay free."""
    fd, far = stage.who.open(stage.near / "x", RW), stage.other.open(stage.far / "x", RW)
    stage.who.control(fd, F_SETLK, F_WRLCK, 0, 100)
    stage.who.control(fd, F_SETLK, F_UNLCK, 80, 20)
    stage.who.control(fd, F_SETLK, F_UNLCK, 50, 30)
    yield
    stage.other.control(far, F_SETLK, F_WRLCK, 50, 50)
    yield
    assert stage.other.error("control", far, F_SETLK, F_WRLCK, 40, 20) in (
        errno.EAGAIN, errno.EACCES)
    stage.who.close(fd)
    stage.other.close(far)


def mkdir(stage):
    """A directory that somebody else has removed is not there again."""
    stage.who.mkdir(stage.near / "x")
    yield
    stage.other.rmdir(stage.far / "x")
    yield
    assert stage.who.error("stat", stage.near / "x") == errno.ENOENT
    stage.other.mkdir(stage.far / "x")
    yield
    stage.other.rmdir(stage.far / "x")


def mkdir_leased(stage):
    """The same of one that goes with the mount."""
    stage.who.setxattr(stage.near.path, "user.latchfs.dirs", b"lease")
    yield from mkdir(stage)
    stage.who.setxattr(stage.near.path, "user.latchfs.dirs", b"keep")


def rmdir(stage):
    """A directory that somebody else has made again stays."""
    stage.who.mkdir(stage.near / "x")
    stage.who.rmdir(stage.near / "x")
    yield
    stage.other.mkdir(stage.far / "x")
    yield
    stage.other.stat(stage.far / "x")
    stage.other.rmdir(stage.far / "x")


def change(stage):
    """A mode that somebody else has set later stays."""
    stage.other.mkdir(stage.far / "x")
    stage.who.chmod(stage.near / "x", 0o700)
    yield
    stage.other.chmod(stage.far / "x", 0o751)
    yield
    assert stage.other.stat(stage.far / "x").st_mode & 0o7777 == 0o751
    stage.who.rmdir(stage.near / "x")
    yield
    assert stage.other.error("stat", stage.far / "x") == errno.ENOENT


def change_without_key(stage):
    """The same of a directory that is there only because of a lock in it."""
    fd = stage.other.open(stage.far / "x", EXCL)
    (key,) = stage.lab.keys("x")
    stage.lab.etcd.put(stage.lab.key("d/y") + "1", "", key.lease)
    stage.who.chmod(stage.near / "d", 0o700)
    yield
    stage.lab.etcd.delete(stage.lab.key("d/y") + "1")
    stage.other.rmdir(stage.far / "d")
    yield
    assert stage.other.error("stat", stage.far / "d") == errno.ENOENT
    stage.other.close(fd)


def evict(stage):
    """A lock that was broken is taken again, and stays."""
    fd = stage.other.open(stage.far / "x", RW)
    stage.other.flock(fd, LOCK_EX)
    token = str(stage.lab.keys("x")[0].create_revision).encode()
    stage.far.expect("lock x .*was lost")
    stage.who.setxattr(stage.near / "x", "user.latchfs.break", token)
    wait_until(lambda: stage.other.error("fsync", fd) == errno.EIO, what="it is told")
    stage.other.close(fd)
    fd = stage.other.open(stage.far / "x", RW)
    stage.other.flock(fd, LOCK_EX)
    yield
    stage.other.fsync(fd)
    stage.other.close(fd)


KINDS = [
    ("join", join), ("join", join_shared), ("try", attempt_whole), ("try", attempt_shared),
    ("try", create), ("try", symlink), ("try", link), ("attempt", part), ("leave", join),
    ("leave", leave), ("leave", create), ("write", write), ("write", join), ("shrink", shrink),
    ("notice", shrink), ("mkdir", mkdir), ("mkdir", mkdir_leased), ("rmdir", rmdir),
    ("change", change), ("change", change_without_key), ("evict", evict), ("fence", join),
]


def play(stage, kind, story, between, **how):
    """Does it, and lets the copy come whenever it may; `between` is done before that."""
    stage.keep(kind, **how)
    for _ in story(stage):
        if stage.kept:
            stage.let()
            between()
            stage.come()
    assert stage.kept, f"nothing was asked that is a {kind}"
    stage.let()
    stage.come()
    settle(stage)


def settle(stage):
    """At the end no key is left, but for the root's."""
    wait_until(lambda: not [key for key in stage.lab.etcd.keys(f"{stage.lab.prefix}/")
                            if key.name != f"{stage.lab.prefix}/"], what="no key is left")


@pytest.mark.core
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("kind, story", KINDS)
def test_late(lab, kind, story, members):
    """The copy comes after each step."""
    play(Stage(lab, members), kind, story, lambda: None)


@pytest.mark.parametrize("kind, story", KINDS)
def test_late_after_a_restart(lab, kind, story):
    """The process that serves the mount has been replaced before the copy comes."""
    stage = Stage(lab, 2)
    play(stage, kind, story, lambda: kill(stage.near))


@pytest.mark.parametrize("story", [join, join_shared, part, shrink, leave, mkdir, rmdir, write])
def test_late_from_a_process_that_is_dead(lab, story):
    """The process is killed while its request is under way, which arrives when the next one serves."""
    stage = Stage(lab, 1)
    kinds = {join: "join", join_shared: "join", part: "attempt", shrink: "shrink", leave: "leave",
             mkdir: "mkdir", rmdir: "rmdir", write: "write"}

    def killed():
        wait_until(lambda: stage.kept, what="it is asked")
        kill(stage.near)
        stage.let()

    stage.keep(kinds[story], silent=True)
    killer = threading.Thread(target=killed)
    killer.start()
    for _ in story(stage):
        if not stage.kept:
            stage.keep(kinds[story], silent=True)
        stage.come()
    killer.join()
    settle(stage)


def test_late_in_a_crowd(lab, programs):
    """Two machines of many processes; of all that they ask a part comes a second late."""
    wires = [lab.wire() for _ in range(4)]
    mounts = [lab.mount(url=f"{one.url},{two.url}", name=name)
              for one, two, name in zip(wires[::2], wires[1::2], "ab")]
    for wire in wires:
        wire.come_late(7, 1)
    crowd = contend(lab, programs, *mounts, rounds=60)
    assert crowd.exit_status(80) == 0, crowd.errors
    assert sum(len(wire.kept) for wire in wires) > 10
    for wire in wires:
        wire.mend()
    all_is_free(lab)
