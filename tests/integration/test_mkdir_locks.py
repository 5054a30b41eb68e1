# SPDX-License-Identifier: MIT
"""Directories as locks: mkdir takes, rmdir gives back, and whose time is fresh is alive."""

import errno
import os
import signal
import time

import pytest

from conftest import Pair
from support import PROGRAMS, SOON, checked, run, wait_until

# Of utimensat(2), in place of nanoseconds.
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
NODE = {**os.environ, "NODE_PATH": "/usr/share/nodejs"}
PROPER = ("node", str(PROGRAMS / "proper-lockfile.js"))
STALE = 6.0

COUNT = """
i=0
while [ $i -lt "$3" ]; do
	until mkdir "$1" 2>/dev/null; do sleep 0.01; done
	n=$(cat "$2")
	echo $((n + 1)) >"$2"
	rmdir "$1" || exit 1
	i=$((i + 1))
done
"""
HOLD = 'mkdir "$1" || exit 75; echo held; read -r line; rmdir "$1"'


def times_of(path):
    """Both times that can be set."""
    status = os.stat(path)
    return status.st_atime_ns, status.st_mtime_ns


# --- times ---


@pytest.mark.portable
@pytest.mark.parametrize("when", [
    (0, 0), (0, 1), (1, 0), (1_700_000_000, 123_456_789), (1_700_000_000, 999_999_999),
    (-1, 0), (-1, 999_999_999), (-1, 1), (-2, 500_000_000), (-1_000_000_000, 987_654_321),
    (4_294_967_296, 7), (15_000_000_000, 1),
])
def test_times_read_back_to_the_nanosecond(pair, agent, when):
    """Whatever time is set on one machine the other reads at once, before 1970 too."""
    one = agent()
    os.mkdir(pair.a / "d")
    nanoseconds = when[0] * 10**9 + when[1]
    for writer, reader in (pair.each(), reversed(pair.each())):
        one.utimens(writer / "d", (5, 55), when)
        assert times_of(reader / "d") == (5_000_000_055, nanoseconds)
        one.utimens(writer / "d", when, (6, 66))
        assert times_of(reader / "d") == (nanoseconds, 6_000_000_066)


@pytest.mark.portable
def test_now_and_omit(pair, agent):
    """UTIME_NOW is now, UTIME_OMIT leaves the time as it is, both in any combination."""
    one = agent()
    os.mkdir(pair.a / "d")
    one.utimens(pair.a / "d", (-5, 500), (-7, 700))
    before = time.time_ns()
    one.utimens(pair.b / "d", (0, OMIT), (0, NOW))
    atime, mtime = times_of(pair.a / "d")
    assert atime == -4_999_999_500 and before - 10**8 <= mtime <= time.time_ns()
    one.utimens(pair.b / "d", (0, OMIT), (0, OMIT))
    assert times_of(pair.a / "d") == (atime, mtime)
    one.utimens(pair.a / "d", (0, NOW), (8, 800))
    atime, mtime = times_of(pair.b / "d")
    assert before - 10**8 <= atime <= time.time_ns() and mtime == 8_000_000_800
    one.utimens(pair.a / "d", (9, 900), (0, OMIT))
    assert times_of(pair.b / "d") == (9_000_000_900, mtime)


@pytest.mark.portable
def test_touch(pair):
    """touch -d with a fraction, touch -m, touch -a and touch -r, as scripts use them."""
    os.mkdir(pair.a / "d")
    os.mkdir(pair.a / "e")
    for date, expected in (("@1700000000.123456789", 1_700_000_000_123_456_789),
                           ("@-1.250000001", -1_250_000_001),
                           ("1969-12-31 23:59:59.75 UTC", -250_000_000)):
        checked("touch", "-d", date, pair.a / "d")
        assert times_of(pair.b / "d") == (expected, expected)
    checked("touch", "-m", "-d", "@77.000000007", pair.b / "d")
    assert times_of(pair.a / "d") == (-250_000_000, 77_000_000_007)
    checked("touch", "-r", pair.a / "d", pair.b / "e")
    assert times_of(pair.a / "e") == times_of(pair.a / "d")
    checked("touch", "-a", pair.a / "e")
    assert times_of(pair.b / "e")[0] > 10**18 and times_of(pair.b / "e")[1] == 77_000_000_007


@pytest.mark.portable
def test_open_directory_shows_the_present_times(pair):
    """Who watches a directory through a descriptor sees each change when it was made."""
    os.mkdir(pair.a / "d")
    fd = os.open(pair.b / "d", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(1, 30):
            os.stat(pair.b / "d")
            os.utime(pair.a / "d", ns=(number, number))
            assert os.fstat(fd).st_mtime_ns == number
    finally:
        os.close(fd)


def test_directory_without_a_key_of_its_own(lab):
    """The root, and what only deeper keys make a directory: changed once, its times are of then."""
    pair = Pair(lab)
    lab.etcd.put(f"{lab.prefix}/p/q/someone", "")
    before = time.time_ns() - 10**8
    for path in "", "p":
        os.chmod(pair.a / path, 0o1777)
        assert min(times_of(pair.b / path)) >= before
        os.utime(pair.a / path, ns=(3, 4))
        assert times_of(pair.b / path) == (3, 4)


# --- shells ---


@pytest.mark.portable
def test_shell_loops(pair, holder):
    """Four loops of `until mkdir` on two machines never count at the same time."""
    counter = pair.lab.scratch("0\n")
    loops = [holder("dash", "-c", COUNT, "sh", mount / "lock", counter, 15)
             for mount in pair.each() for _ in range(2)]
    for loop in loops:
        assert loop.exit_status() == 0, loop.errors
    assert counter.read_text(encoding="ascii") == "60\n"


@pytest.mark.portable
def test_killed_shell_leaves_its_directory(pair, holder):
    """A directory outlives who made it: EEXIST everywhere, until somebody removes it."""
    first = holder("bash", "-c", HOLD, "bash", pair.a / "lock").await_held()
    first.kill()
    for mount in pair.each():
        assert os.path.isdir(mount / "lock")
        refused = run("bash", "-c", HOLD, "bash", mount / "lock")
        assert refused.returncode == 75 and "File exists" in refused.stderr
    os.rmdir(pair.b / "lock")
    second = holder("bash", "-c", HOLD, "bash", pair.a / "lock").await_held()
    assert second.release() == 0
    assert not os.path.exists(pair.a / "lock")


def test_rmdir_is_the_owners(lab):
    """In a directory with the sticky bit only who made the lock removes it, on any machine."""
    pair = Pair(lab, "allow_other")
    owner, stranger = lab.agent(user=1234, group=1234), lab.agent(user=1235, group=1235)
    os.mkdir(pair.a / "locks")
    os.chmod(pair.a / "locks", 0o1777)
    owner.mkdir(pair.a / "locks/x")
    for mount in pair.each():
        assert stranger.error("mkdir", mount / "locks/x") == errno.EEXIST
        assert stranger.error("rmdir", mount / "locks/x") == errno.EPERM
    owner.rmdir(pair.b / "locks/x")
    stranger.mkdir(pair.a / "locks/x")
    assert owner.error("rmdir", pair.a / "locks/x") == errno.EPERM


# --- proper-lockfile ---


@pytest.fixture
def proper(holder):
    """Starts proper-lockfile."""
    return lambda how, path: holder(*PROPER, how, path, int(STALE * 1000), env=NODE)


def attempt(path):
    """What proper-lockfile says to one try."""
    return run(*PROPER, "try", path, int(STALE * 1000), env=NODE)


@pytest.mark.portable
def test_proper_lockfile_excludes(pair, proper):
    """Held on A, ELOCKED on both; given back on A, granted on B, whose waiting ends."""
    first = proper("wait", pair.a / "lock").await_held()
    for mount in pair.each():
        refused = attempt(mount / "lock")
        assert refused.returncode == 75 and refused.stdout == "ELOCKED\n", refused
    second = proper("wait", pair.b / "lock")
    assert first.release() == 0
    second.await_held(SOON)
    assert second.release() == 0
    assert not os.path.exists(pair.a / "lock")


@pytest.mark.portable
def test_proper_lockfile_stays_fresh(pair, proper):
    """Held for longer than it takes to be called stale: its updates, seen on B, keep it."""
    first = proper("wait", pair.a / "lock").await_held()
    second = proper("wait", pair.b / "lock")
    begin = os.stat(pair.b / "lock").st_mtime
    wait_until(lambda: os.stat(pair.b / "lock").st_mtime > begin + STALE + 2)
    assert attempt(pair.b / "lock").stdout == "ELOCKED\n"
    assert not second.holds()
    assert first.release() == 0
    assert first.lines() == ["held"]
    second.await_held(SOON)


@pytest.mark.portable
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_proper_lockfile_calls_a_dead_one_stale(pair, proper, number):
    """kill -9 on A: on B its own rule frees the lock; who was only stopped learns that it lost."""
    first = proper("wait", pair.a / "lock").await_held()
    assert attempt(pair.b / "lock").stdout == "ELOCKED\n"
    first.kill(number)
    second = proper("wait", pair.b / "lock").await_held()
    if number == signal.SIGSTOP:
        first.kill(signal.SIGCONT)
        wait_until(lambda: first.lines() == ["held", "compromised ECOMPROMISED"])
    assert not os.path.exists(pair.a / "lock") or attempt(pair.a / "lock").stdout == "ELOCKED\n"
    assert second.lines() == ["held"]
    assert second.release() == 0
