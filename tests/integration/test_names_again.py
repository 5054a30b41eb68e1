# SPDX-License-Identifier: MIT
"""Keys are named again as those that have gone, so that a lock does not become slower each time it
is taken; but never while a request about the former one may still be under way."""

import errno
import os
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

import pytest

from etcdserver import encode
from fakeetcd import Fake
from support import wait_until
from test_supervise import TAKEN_OVER, kill, ready
from wire import kinds_of

RW = os.O_RDWR | os.O_CREAT


def revision(lab):
    """The revision of the store."""
    return int(lab.etcd.call("/v3/kv/range", key=encode("x"))["header"]["revision"])


def names_since(lab, name, first):
    """All names that keys of a lock have had since a revision."""
    start = lab.key(name)
    found = set()
    for number in range(first, revision(lab) + 1):
        answer = lab.etcd.call("/v3/kv/range", key=encode(start), range_end=encode(start[:-1] + "0"),
                               revision=str(number), keys_only=True)
        found |= {kv["key"] for kv in answer.get("kvs", [])}
    return found


def cycle_flock(who, path, fd, how):
    """Taken and given back with flock."""
    who.flock(fd, how)
    who.flock(fd, LOCK_UN)


def cycle_exclusive(who, path, fd, how):
    """Created and closed."""
    who.close(who.open(path, RW | os.O_EXCL))


@pytest.mark.parametrize("cycle, how", [
    (cycle_flock, LOCK_EX), (cycle_flock, LOCK_EX | LOCK_NB), (cycle_flock, LOCK_SH),
    (cycle_flock, LOCK_SH | LOCK_NB), (cycle_exclusive, None),
])
def test_one_lock_again_and_again(lab, cycle, how):
    """Thirty times one lock: a few names are enough."""
    mount, who = lab.mount(), lab.agent()
    fd = None if how is None else who.open(mount / "x", RW)
    first = revision(lab)
    for _ in range(30):
        cycle(who, mount / "x", fd, how)
    wait_until(lambda: not lab.keys("x"), what="the last one is given back")
    assert 1 <= len(names_since(lab, "x", first)) <= 3


def test_refused_tries(lab):
    """Who is refused does not use names up."""
    mount, who = lab.mount(), lab.agent()
    fd, other = who.open(mount / "x", RW), lab.agent()
    first = revision(lab)
    cycle_flock(who, None, fd, LOCK_EX)
    for _ in range(20):
        held = other.take(mount / "x")
        for _ in range(3):
            assert who.error("flock", fd, LOCK_EX | LOCK_NB)
        other.close(held)
    assert len(names_since(lab, "x", first)) <= 4


def test_a_crowd_on_two_mounts(lab):
    """Each mount has as many names as there were waiters at a time, and one for those who leave."""
    mounts = [lab.mount(), lab.mount()]
    crowd = [lab.agent() for _ in range(6)]
    first, left = revision(lab), {}
    for number, who in enumerate(crowd):
        left[who] = 12
        who.begin("take", mounts[number % 2] / "x")

    def step():
        for number, who in enumerate(crowd):
            if not left[who] or not who.ready():
                continue
            who.close(who.finish())
            left[who] -= 1
            if left[who]:
                who.begin("take", mounts[number % 2] / "x")
        return not any(left.values())

    wait_until(step, 30)
    wait_until(lambda: not lab.keys("x"), what="the last one is given back")
    assert len(names_since(lab, "x", first)) <= 2 * (3 + 3)


@pytest.fixture(name="between")
def between_fixture(lab):
    """A mount, and the fake by which it reaches its etcd."""
    fake = Fake(lab.etcd.port)
    yield lab.mount(url=fake.url).expect(), fake
    fake.close()


class Copy:
    """Keeps the first request of a kind back, and lets it through at any later time."""

    def __init__(self, fake, part):
        self.part = part
        self.kept = None
        fake.lie("txn", self)

    def __call__(self, answer):
        if self.part in answer.body and self.kept is None:
            self.kept = answer  # and its connection ends without a word
            return
        status, body = answer.real()
        answer.whole(body, status=f"{status} Whatever")

    def comes(self):
        """It was only late."""
        status, _ = self.kept.real()
        assert status == 200


def late_copy(lab, fake, who, fd, part):
    """Locks and unlocks, for which one request had to be sent twice: the first copy, and the name."""
    copy = Copy(fake, part)
    who.flock(fd, LOCK_EX)
    former = lab.keys("x")[0].name
    who.flock(fd, LOCK_UN)
    assert copy.kept
    return copy, former


def test_a_late_copy_of_giving_back(lab, between):
    """What gave a lock back is carried out again when somebody has it: it does not concern him."""
    mount, fake = between
    who = lab.agent()
    fd = who.open(mount / "x", RW)
    cycle_flock(who, None, fd, LOCK_EX)
    wait_until(lambda: not lab.keys("x"))
    copy, former = late_copy(lab, fake, who, fd, b"request_delete_range")
    for _ in range(5):
        who.flock(fd, LOCK_EX)
        assert lab.keys("x")[0].name != former
        copy.comes()
        who.fsync(fd)
        who.flock(fd, LOCK_UN)


def test_a_late_copy_of_taking(lab, between):
    """What made a place may be carried out once more: nobody has its name any longer."""
    mount, fake = between
    who = lab.agent()
    fd = who.open(mount / "x", RW)
    _, former = late_copy(lab, fake, who, fd, b"request_put")
    for _ in range(5):
        assert who.error("stat", mount / "y")  # by now all has been answered
        who.flock(fd, LOCK_EX)
        assert lab.keys("x")[0].name != former
        who.flock(fd, LOCK_UN)


def test_a_directory_that_was_removed_in_silence(lab, between):
    """The answer to rmdir is lost with a connection that was in use: it was removed all the same."""
    mount, fake = between
    who = lab.agent()

    def in_silence(answer):
        if answer.path == "/v3/kv/txn":
            answer.real()
            fake.mend()
        else:
            status, body = answer.real()
            answer.whole(body, status=f"{status} Whatever")

    for number in range(3):
        who.mkdir(mount / f"d{number}")
        who.stat(mount / f"d{number}")
        fake.lie("txn", in_silence)
        assert who.error("rmdir", mount / f"d{number}") == 0
        assert who.error("stat", mount / f"d{number}")


def test_a_name_that_the_dead_process_had_used_twice(lab):
    """
    Of the first who had it a write is still under way when the process is killed that serves the
    mount: who goes on knows that the name is the second one's.
    """
    fake = Fake(lab.etcd.port)
    mount = ready(lab.mount("timeout=60", url=fake.url).expect(f"{TAKEN_OVER}|the watch"))
    first, second, other = lab.agent(), lab.agent(), lab.agent()
    fd, kept = second.open(mount / "x", RW), []

    def but_writes(answer):
        if "write" in kinds_of(answer.path, answer.body) and not kept:
            kept.append(answer)
            answer.hold()
        else:
            status, body = answer.real()
            answer.whole(body, status=f"{status} Whatever")

    held = other.take(lab.mount() / "x")
    first.begin("take", mount / "x")
    lab.await_keys("x", 2)
    begun = time.time()
    wait_until(lambda: time.time() > begun + 2, what="it is granted at another time than asked")
    fake.lie("txn", but_writes)
    other.close(held)
    mine = first.finish()
    wait_until(lambda: kept, what="the time of the grant is written")
    name = lab.keys("x")[0].name
    first.flock(mine, LOCK_UN)
    wait_until(lambda: again(lab, second, fd, name), what="the name is used again")
    kill(mount)
    second.fsync(fd)
    lab.mounts[1].check()
    assert [key.name for key in lab.keys("x")] == [name]
    assert lab.agent().error("take", lab.mounts[1] / "x", LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK
    second.fsync(fd)
    fake.close()


def again(lab, who, fd, name):
    """Whether a lock that is taken now has that name; else it is given back."""
    who.flock(fd, LOCK_EX)
    if [key.name for key in lab.keys("x")] == [name]:
        return True
    who.flock(fd, LOCK_UN)
    return False
