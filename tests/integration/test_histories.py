# SPDX-License-Identifier: MIT
"""Names are linearizable between machines: what a call has returned, every later call sees."""

import errno
import os
import subprocess
import threading
import time

import pytest

from etcdserver import Cluster
from history import Call, check, contradiction
from support import PROGRAMS, check_watchers
from test_supervise import TAKEN_OVER, kill, ready

NAMES, EACH, SECONDS = 3, 2, 5


def history(mounts, accident, replaced=False):
    """Two processes on each machine call for some seconds, while an accident happens, or several:
    a generator, which is gone on with until the time is over.  replaced: daemons may be."""
    workers = [
        (number, subprocess.Popen(
            ["/usr/bin/python3", "-S", PROGRAMS / "calls.py", mount.path, f"{number} {turn}",
             str(NAMES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for number, mount in enumerate(mounts) for turn in range(EACH)]
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            check_watchers()
            next(accident, None)
            time.sleep(0.01)
        for _, worker in workers:
            worker.stdin.write("stop\n")
            worker.stdin.flush()
        said = [(number, list(iter(worker.stdout.readline, "\n"))) for number, worker in workers]
    finally:
        for _, worker in workers:
            worker.kill()
            worker.communicate()
    return [Call(name, what, number, int(result), float(begun), float(ended), replaced)
            for number, lines in said for line in lines
            for name, what, result, begun, ended in [line.split()]]


def examine(calls):
    """The history is right, and says something."""
    check(calls)
    done = [call.what for call in calls if call.result == 0]
    for what in ("create", "unlink", "mkdir", "rmdir", "open"):
        assert what in done, f"no {what} was successful"
    assert not [call for call in calls if call.result == errno.EIO]


def three(lab, options="", **extra):
    """Machines whose lock files stay while their creator lives."""
    return [ready(lab.mount(f"hold=process{options}", **extra)) for _ in range(3)]


@pytest.mark.core
@pytest.mark.limit(180)
def test_without_accidents(lab):
    """Three machines."""
    examine(history(three(lab), iter(())))


@pytest.mark.limit(180)
def test_while_daemons_are_replaced(lab):
    """What serves a mount is killed again and again: a call that it had begun is done once."""
    mounts = three(lab)

    def accidents():
        for turn in range(6):
            mounts[turn % 3].expect(TAKEN_OVER)
            kill(mounts[turn % 3])
            yield from (None for _ in range(30))

    examine(history(mounts, accidents(), replaced=True))


@pytest.mark.limit(180)
def test_while_a_member_stands_still(bare_lab):
    """The member that a machine talks to is stopped, and continues: another one answers."""
    cluster = Cluster(bare_lab.base)
    bare_lab.servers.extend(cluster.members)
    cluster.start()
    bare_lab.etcd = cluster.members[0]
    mounts = three(bare_lab, ",timeout=60", url=cluster.url)
    for mount in mounts:
        mount.expect()

    def accidents():
        for member in cluster.members[:2]:
            member.pause()
            yield from (None for _ in range(100))
            member.resume()
            yield from (None for _ in range(100))

    examine(history(mounts, accidents()))


def test_what_is_given_back_is_gone_everywhere(pair):
    """close does not wait; but when the name is gone here, no other machine finds it any more."""
    for _ in range(200):
        os.close(os.open(pair.a / "x", os.O_RDWR | os.O_CREAT | os.O_EXCL))
        while os.path.exists(pair.a / "x"):
            pass
        assert not os.path.exists(pair.b / "x")


def test_a_name_is_not_missed(pair):
    """That there was none a moment ago is no answer, when another machine has made it since."""
    made = threading.Event()
    for turn in range(200):
        made.clear()

        def make(name=f"x{turn}"):
            os.mkdir(pair.b / name)
            made.set()

        maker = threading.Thread(target=make)
        maker.start()
        while True:
            was_made = made.is_set()
            there = os.path.exists(pair.a / f"x{turn}")
            assert there or not was_made
            if was_made:
                break
        maker.join()


# The search itself.


def calls_of(*rows):
    """(what, machine, result, begun, ended), and perhaps True: the daemon was replaced."""
    return [Call("x", *row) for row in rows]


RIGHT = {
    "one after the other": [("create", 0, 0, 1, 2), ("stat", 1, 0, 3, 4), ("unlink", 0, 0, 5, 6),
                            ("stat", 1, errno.ENOENT, 7, 8)],
    "at the same time": [("create", 0, 0, 1, 4), ("create", 1, errno.EEXIST, 2, 3)],
    "seen before it returns": [("create", 0, 0, 1, 9), ("stat", 1, errno.ENOENT, 2, 3),
                               ("stat", 1, 0, 4, 5), ("stat", 2, 0, 6, 7)],
    "made, removed, made": [("mkdir", 0, 0, 1, 2), ("create", 1, 0, 3, 8), ("rmdir", 0, 0, 4, 7),
                            ("open", 2, errno.EISDIR, 5, 6)],
    "begun anew": [("create", 0, 0, 1, 9, True), ("stat", 1, 0, 2, 3),
                   ("stat", 1, errno.ENOENT, 4, 5)],
}
WRONG = {
    "two creators": [("create", 0, 0, 1, 4), ("create", 1, 0, 2, 3)],
    "missed": [("create", 0, 0, 1, 2), ("stat", 1, errno.ENOENT, 3, 4)],
    "back again": [("create", 0, 0, 1, 2), ("unlink", 0, 0, 3, 9), ("stat", 0, errno.ENOENT, 4, 5),
                   ("stat", 1, 0, 6, 7)],
    "there too long": [("create", 0, 0, 1, 2), ("unlink", 0, 0, 3, 4),
                       ("create", 1, errno.EEXIST, 5, 6)],
    "taken back too late": [("create", 0, 0, 1, 3, True), ("stat", 1, 0, 2, 4),
                            ("stat", 1, errno.ENOENT, 5, 6)],
    "not to be had": [("attach", 0, errno.ENOENT, 1, 2)],
    "another's": [("create", 0, 0, 1, 2), ("unlink", 1, 0, 3, 4)],
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name):
    """An order exists."""
    assert contradiction(calls_of(*RIGHT[name])) is None


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name):
    """No order exists."""
    assert contradiction(calls_of(*WRONG[name])) is not None
