# SPDX-License-Identifier: MIT
"""Lock files: open with O_EXCL takes, the last close or unlink gives back."""

import errno
import os
from fcntl import F_SETLK, F_WRLCK, LOCK_EX, LOCK_NB

import pytest

from support import PROGRAMS, SOON, checked, run, wait_until
from test_fcntl import F_OFD_SETLK

EXCL = os.O_RDWR | os.O_CREAT | os.O_EXCL
NOCLOBBER = """set -C
exec 9>"$1" || exit 1
echo held
read -r line
exec 9>&-
echo freed
read -r line
"""


@pytest.mark.core
@pytest.mark.portable
def test_o_excl_takes_and_everybody_else_gets_eexist(pair, agent):
    """O_EXCL on a held name is EEXIST on every machine, at once."""
    one, two = agent(), agent()
    one.open(pair.a / "y", EXCL)
    assert two.error("open", pair.b / "y", EXCL) == errno.EEXIST
    assert two.error("open", pair.a / "y", EXCL) == errno.EEXIST
    assert os.path.exists(pair.b / "y")


@pytest.mark.core
def test_last_close_frees_the_name(pair, agent):
    """The handle holds the lock: after its last close the name is gone and free."""
    one, two = agent(), agent()
    fd = one.open(pair.a / "y", EXCL)
    again = one.dup(fd)
    one.close(fd)
    assert two.error("open", pair.b / "y", EXCL) == errno.EEXIST
    one.close(again)
    wait_until(lambda: not os.path.exists(pair.b / "y"), SOON)
    two.open(pair.b / "y", EXCL)

@pytest.mark.parametrize("by_child", [False, True])
def test_who_has_closed_removes_nothing_of_another(pair, agent, by_child):
    """Close, then unlink: by then another has the lock, of the same user, and keeps it."""
    one, two = agent(), agent()
    one.close(one.open(pair.a / "y", EXCL))
    wait_until(lambda: not two.error("open", pair.a / "y", EXCL), SOON)
    remove = lambda: (one.forked if by_child else one.error)("unlink", pair.a / "y")
    assert remove() == errno.ENOENT
    assert agent().error("open", pair.b / "y", EXCL) == errno.EEXIST
    assert remove() == 0  # he insists, and it is his user's
    assert agent().error("open", pair.a / "y", EXCL) == 0


def test_who_has_closed_and_created_again_removes_his_own(pair, agent):
    """What is forgotten about a process is what it did with another file."""
    one = agent()
    for _ in range(3):
        one.close(one.open(pair.a / "y", EXCL))
        wait_until(lambda: not one.error("open", pair.a / "y", EXCL), SOON)
        one.unlink(pair.a / "y")
        assert pair.a.names() == pair.b.names() == []


@pytest.mark.limit(120)
def test_soft_file_locks_of_one_user(pair, holder):
    """Python's SoftFileLock closes and then removes: processes and threads lose no update."""
    count = pair.lab.scratch("0")
    crowd = [holder("/usr/bin/python3", PROGRAMS / "softcount.py", mount / "soft", count, 10, 2)
             for mount in (pair.a, pair.a, pair.a, pair.b)]
    for each in crowd:
        assert each.process.wait(100) == 0
    assert count.read_text(encoding="utf-8") == str(len(crowd) * 2 * 10)


def test_bash_noclobber(pair, holder):
    """`set -C; exec 9>file` takes; on B "cannot overwrite existing file"; `exec 9>&-` frees."""
    first = holder("bash", "-c", NOCLOBBER, "bash", pair.a / "y").await_held()
    refused = run("bash", "-c", NOCLOBBER, "bash", pair.b / "y")
    assert refused.returncode == 1
    assert "cannot overwrite existing file" in refused.stderr
    first.say()
    wait_until(lambda: first.lines() == ["held", "freed"], SOON)
    taken = lambda: run("bash", "-c", NOCLOBBER, "bash", pair.b / "y").stdout == "held\nfreed\n"
    wait_until(taken, SOON)


def test_o_excl_on_a_name_that_is_only_waited_for(pair, agent):
    """While a queue stands, O_EXCL never comes in between."""
    one, two, three = agent(), agent(), agent()
    fd = one.take(pair.a / "y")
    two.begin("take", pair.b / "y")
    pair.await_queue("y", 2)
    assert three.error("open", pair.a / "y", EXCL) == errno.EEXIST
    one.close(fd)
    assert three.error("open", pair.a / "y", EXCL) == errno.EEXIST
    two.finish(SOON)
    assert three.error("open", pair.a / "y", EXCL) == errno.EEXIST


@pytest.mark.core
@pytest.mark.portable
def test_exactly_one_of_many_wins(pair, agent):
    """When many open with O_EXCL at the same time, one gets it and all others EEXIST."""
    agents = [agent() for _ in range(12)]
    for number in range(5):
        for place, who in enumerate(agents):
            who.begin("open", pair.each()[place % 2] / f"race{number}", EXCL)
        outcomes = []
        for who in agents:
            try:
                who.finish()
                outcomes.append("won")
            except FileExistsError:
                outcomes.append("lost")
        assert outcomes.count("won") == 1


@pytest.mark.core
@pytest.mark.portable
def test_unlink_by_the_holder_releases(pair, agent):
    """The holder removes its lock file: when unlink returns, the name is free everywhere."""
    one, two = agent(), agent()
    for _ in range(20):
        fd = one.open(pair.a / "y", EXCL)
        one.unlink(pair.a / "y")
        fd2 = two.open(pair.b / "y", EXCL)
        two.unlink(pair.b / "y")
        one.close(fd)
        two.close(fd2)


def test_unlink_by_another_process_of_the_same_user(pair, agent):
    """On the holding mount the holder's user may remove the lock file, as `rm` in a trap does."""
    one, two = agent(), agent()
    one.open(pair.a / "y", EXCL)
    assert run("rm", pair.a / "y").returncode == 0
    two.open(pair.b / "y", EXCL)


def test_handle_stays_usable_after_unlink(pair, agent):
    """After unlink the handle holds nothing, and can lock again."""
    one = agent()
    fd = one.open(pair.a / "y", EXCL)
    one.unlink(pair.a / "y")
    assert one.fstat(fd).st_nlink > 0
    assert one.error("fsync", fd) == errno.EINVAL
    assert one.error("write", fd, b"x") == errno.EPERM
    one.flock(fd, LOCK_EX | LOCK_NB)
    assert pair.b.names() == ["y"]


@pytest.mark.core
def test_unlink_from_another_machine_is_busy(pair, agent):
    """Nobody removes a lock that is held on another machine, however it was taken."""
    one, two = agent(), agent()
    one.open(pair.a / "y", EXCL)
    one.take(pair.a / "z")
    assert two.error("unlink", pair.b / "y") == errno.EBUSY
    assert two.error("unlink", pair.b / "z") == errno.EBUSY
    assert pair.a.names() == ["y", "z"]


def test_unlink_by_another_user_is_busy(lab):
    """Nobody removes another user's lock file."""
    mount = lab.mount("allow_other")
    lab.agent(user=1234, group=1234).open(mount / "y", EXCL)
    other = lab.agent(user=4321, group=4321)
    assert other.error("unlink", mount / "y") == errno.EBUSY
    assert mount.names() == ["y"]


@pytest.mark.parametrize("call", [
    ("flock", LOCK_EX), ("control", F_SETLK, F_WRLCK), ("control", F_OFD_SETLK, F_WRLCK),
])
def test_unlink_of_a_flocked_file_changes_nothing(pair, agent, call):
    """Removing a file one has locked with flock or fcntl succeeds, and the lock stays."""
    one, two = agent(), agent()
    fd = one.open(pair.a / "y", os.O_RDWR | os.O_CREAT)
    one.begin(call[0], fd, *call[1:]).finish()
    one.unlink(pair.a / "y")
    assert not two.attempt(pair.b / "y")
    assert not two.attempt(pair.a / "y")
    assert pair.b.names() == ["y"]
    one.close(fd)
    wait_until(lambda: two.attempt(pair.b / "y"), SOON)


def test_unlink_of_a_free_name(pair, agent):
    """There is nothing to remove: ENOENT."""
    assert agent().error("unlink", pair.a / "y") == errno.ENOENT


@pytest.mark.portable
def test_kill_9_of_the_creator_frees(pair, agent, request):
    """A lock file does not outlive its creator."""
    if request.config.getoption("--reference"):
        pytest.skip("on a local disk it stays behind, which is the trouble with lock files")
    one, two = agent(), agent()
    one.open(pair.a / "y", EXCL)
    one.kill()
    wait_until(lambda: two.error("open", pair.b / "y", EXCL) == 0, SOON)


@pytest.mark.core
def test_mkdir_as_a_lock(pair, agent):
    """mkdir is atomic over all machines: one succeeds, the others get EEXIST, until rmdir."""
    agents = [agent() for _ in range(8)]
    for number in range(5):
        for place, who in enumerate(agents):
            who.begin("mkdir", pair.each()[place % 2] / f"dir{number}")
        failures = []
        for who in agents:
            try:
                who.finish()
            except OSError as error:
                failures.append(error.errno)
        assert failures == [errno.EEXIST] * 7
        agents[0].rmdir(pair.b / f"dir{number}")
        agents[1].mkdir(pair.a / f"dir{number}")


def test_rename_and_devices_are_refused(pair, agent):
    """A lock cannot be moved, one that needs an open file can be no symbolic link, and there are no device nodes: EPERM."""
    one = agent()
    one.take(pair.a / "y")
    for call in (
        lambda: os.rename(pair.a / "y", pair.a / "z"),
        lambda: os.mknod(pair.a / "n", 0o600 | 0o020000, os.makedev(1, 3)),
        lambda: os.symlink("y", pair.a / "s"),
        lambda: os.link(pair.a / "y", pair.a / "l"),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EPERM
    assert pair.b.names() == ["y"]


def test_a_lock_file_that_is_closed_at_once(lab):
    """The log says that it is free: to each program once for each directory, but not to one that has
    locked the file besides."""
    mount = lab.mount()
    locked = ("import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_RDWR); "
              "fcntl.flock(fd, fcntl.LOCK_EX); fcntl.flock(fd, fcntl.LOCK_UN); os.close(fd)")
    for directory in ("one", "two"):
        os.mkdir(mount / directory)
        checked("/usr/bin/python3", "-c", locked, mount / f"{directory}/x")
        for name in ("x", "y"):
            checked("sh", "-c", 'set -C; : >"$1"', "sh", mount / f"{directory}/{name}")
            wait_until(lambda path=f"{directory}/{name}": not os.path.exists(mount / path))
    said = [line for line in mount.log().splitlines() if "by closing it at once" in line]
    assert len(said) == 2 and all("warning: " in line and ": sh took it" in line for line in said)


def test_a_file_that_is_looked_for_later(lab):
    """Without O_EXCL nothing is taken: the log says so when the file is missed, once."""
    mount = lab.mount()
    os.mkdir(mount / "d")
    for name in ("x", "y"):
        checked("sh", "-c", ': >"$1"', "sh", mount / f"d/{name}")
        assert not os.path.exists(mount / f"d/{name}")
    assert not os.path.exists(mount / "d/z")
    assert mount.log().count("made this file without O_EXCL, locked nothing and closed it") == 1
    checked("flock", mount / "x", "true")
    assert not os.path.exists(mount / "x")
    assert mount.log().count("made this file") == 1
