# SPDX-License-Identifier: MIT
"""Dotlocks: a file of some other name, and then a hard link of it to the lock's name."""

import errno
import os
from pathlib import Path

import pytest

from conftest import Pair
from support import SOON, Stopwatch, checked, run, wait_until
from test_hold import create, free_soon, is_taken
from test_lockfiles import EXCL


@pytest.fixture
def pair(lab):
    """Mounts with the policy that dotlocks need."""
    return Pair(lab, "hold=name,allow_other")


def test_link_takes_the_lock(lab, pair):
    """One wins, everybody else gets EEXIST; the two names are one file, here."""
    one, two = lab.agent(), lab.agent()
    create(one, pair.a / "tmp1")
    create(two, pair.b / "tmp2")
    one.link(pair.a / "tmp1", pair.a / "lock")
    assert two.error("link", pair.b / "tmp2", pair.b / "lock") == errno.EEXIST
    first, second = os.stat(pair.a / "tmp1"), os.stat(pair.a / "lock")
    assert first.st_ino == second.st_ino and first.st_nlink == second.st_nlink == 2
    assert os.stat(pair.b / "tmp2").st_nlink == 1
    assert is_taken(lab, pair.b / "lock")
    one.unlink(pair.a / "tmp1")
    third = os.stat(pair.a / "lock")
    assert third.st_ino == first.st_ino and third.st_nlink == 1
    assert is_taken(lab, pair.b / "lock")
    one.unlink(pair.a / "lock")
    two.link(pair.b / "tmp2", pair.b / "lock")
    assert os.stat(pair.b / "lock").st_nlink == 2


def test_only_one_of_many_links_wins(lab, pair):
    """Twelve link at the same time to one name, several times."""
    agents = [lab.agent() for _ in range(12)]
    for place, who in enumerate(agents):
        create(who, pair.each()[place % 2] / f"tmp{place}")
    for number in range(4):
        for place, who in enumerate(agents):
            mount = pair.each()[place % 2]
            who.begin("link", mount / f"tmp{place}", mount / f"lock{number}")
        outcomes = []
        for who in agents:
            try:
                outcomes.append(who.finish())
            except OSError as error:
                outcomes.append(error.errno)
        # Who has won before has two names already.
        assert outcomes.count(None) == 1, outcomes
        assert set(outcomes) <= {None, errno.EEXIST, errno.EMLINK}


def test_the_content_goes_with_it(lab, pair):
    """What was written under the first name is read under the second, on every machine."""
    one = lab.agent()
    fd = one.open(pair.a / "tmp", EXCL)
    one.pwrite(fd, b"4711\n", 0)
    one.close(fd)
    one.link(pair.a / "tmp", pair.a / "lock")
    one.unlink(pair.a / "tmp")
    for mount in pair.each():
        assert Path(mount / "lock").read_bytes() == b"4711\n"


def test_link_is_refused(lab, pair):
    """Of what one does not hold, to what there is, with hold=close, of a third name."""
    one, stranger = lab.agent(), lab.agent(user=1234)
    create(one, pair.a / "tmp")
    assert one.error("link", pair.b / "tmp", pair.b / "lock") == errno.EPERM
    assert stranger.error("link", pair.a / "tmp", pair.a / "lock") == errno.EPERM
    os.mkdir(pair.a / "d")
    assert one.error("link", pair.a / "tmp", pair.a / "d") == errno.EEXIST
    os.mkdir(pair.a / "close")
    checked("setfattr", "-n", "user.latchfs.hold", "-v", "close", pair.a / "close")
    assert one.error("link", pair.a / "tmp", pair.a / "close/lock") == errno.EPERM
    assert "that needs hold=process or hold=name" in pair.a.log()
    fd = one.take(pair.a / "flocked")
    assert one.error("link", pair.a / "flocked", pair.a / "lock") == errno.EPERM
    assert "flocked: that was not taken with O_EXCL" in pair.a.log()
    assert "tmp: that is another user's" in pair.a.log()
    assert "tmp: that is not held on this machine" in pair.b.log()
    assert one.error("link", pair.a / "tmp", pair.a / "flocked") == errno.EEXIST
    one.close(fd)
    one.link(pair.a / "tmp", pair.a / "lock")
    assert one.error("link", pair.a / "tmp", pair.a / "third") == errno.EMLINK
    assert pair.b.names() == ["close", "d", "lock", "tmp"]


def test_a_live_dotlock_of_another_machine_is_not_removed(lab, pair):
    """Whoever takes it for stale there, root included: EBUSY."""
    one, two = lab.agent(), lab.agent()
    create(one, pair.a / "tmp")
    one.link(pair.a / "tmp", pair.a / "lock")
    one.unlink(pair.a / "tmp")
    one.kill()
    assert two.error("unlink", pair.b / "lock") == errno.EBUSY
    two.unlink(pair.a / "lock")
    free_soon(lab, pair.b / "lock")


def test_hold_process_ends_both_names(lab):
    """hold=process: when the program dies between link and unlink, nothing of it stays."""
    pair = Pair(lab, "hold=process")
    one = lab.agent()
    create(one, pair.a / "tmp")
    one.link(pair.a / "tmp", pair.a / "lock")
    one.kill()
    for name in "lock", "tmp":
        free_soon(lab, pair.b / name)
    wait_until(lambda: pair.a.names() == [], SOON)


def test_dotlockfile(lab, pair):
    """dotlockfile -l, -c, -u: another machine is refused, and its rule for age never applies."""
    check = lambda mount, *words: run("dotlockfile", *words, mount / "box.lock").returncode
    assert check(pair.a, "-l", "-r", "0") == 0
    assert pair.b.names() == ["box.lock"]
    assert check(pair.b, "-c") == 0
    assert check(pair.b, "-l", "-r", "0") != 0
    assert check(pair.a, "-t") == 0
    check(pair.b, "-u")
    assert check(pair.a, "-c") == 0
    assert check(pair.a, "-u") == 0
    assert check(pair.b, "-c") != 0
    assert check(pair.b, "-l", "-r", "0") == 0
    assert check(pair.b, "-u") == 0


def test_dotlockfile_with_a_process_number(lab, pair):
    """-p: that no such process is here does not make the lock of another machine stale."""
    script = 'dotlockfile -l -p -r 0 "$1"'
    checked("sh", "-c", script, "sh", pair.a / "box.lock")
    assert run("sh", "-c", script, "sh", pair.b / "box.lock").returncode != 0
    assert os.path.exists(pair.a / "box.lock")
    assert lab.agent().error("open", pair.b / "box.lock", EXCL) == errno.EEXIST
    # On its own machine it is stale indeed: the shell that had it is gone.
    checked("sh", "-c", script, "sh", pair.a / "box.lock")


def test_procmail_lockfile(lab):
    """lockfile -r and -l: refused while held elsewhere, never forced by age, freed by rm -f."""
    # It wants a new file to be empty.
    pair = Pair(lab, "hold=name,record=no")
    checked("lockfile", "-r", "0", pair.a / "box.lock")
    assert run("lockfile", "-r", "0", pair.b / "box.lock").returncode != 0
    watch = Stopwatch()
    forced = run("lockfile", "-1", "-r", "2", "-l", "1", "-s", "0", pair.b / "box.lock")
    assert forced.returncode != 0 and watch.seconds < 30
    assert os.path.exists(pair.a / "box.lock")
    checked("rm", "-f", pair.a / "box.lock")
    checked("lockfile", "-r", "0", pair.b / "box.lock")
    checked("rm", "-f", pair.b / "box.lock")
    assert pair.a.names() == []
