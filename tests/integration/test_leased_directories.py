# SPDX-License-Identifier: MIT
"""dirs=lease: a directory goes with the machine on which it was made."""

import errno
import os

import pytest

from conftest import Pair
from support import LONG, SOON, checked, wait_until
from test_policies import place  # a fixture  # pylint: disable=unused-import

WAIT = 'until mkdir "$1" 2>/dev/null; do sleep 0.05; done; echo held; read -r line; rmdir "$1"'


def lease_of(lab, name):
    """The lease of a directory's own key, 0 if it has none."""
    start = lab.key(name)
    return next(key.lease for key in lab.etcd.keys(start) if key.name == start)


def lease_of_mount(lab, mount):
    """The lease of a mount, as a lock that it holds shows it."""
    one = lab.agent()
    fd = one.take(mount / "probe")
    lease = lab.keys("probe")[0].lease
    one.close(fd)
    lab.await_keys("probe", 0)
    return lease


def test_directory_has_the_lease_of_its_mount(lab, place):
    """It is a lock as ever: EEXIST, rmdir on either machine; and depends on who made it."""
    pair, where = place("dirs", "lease")
    leases = [lease_of_mount(lab, mount) for mount in pair.each()]
    for (maker, other), lease in zip((pair.each(), reversed(pair.each())), leases):
        os.mkdir(maker / f"{where}x")
        assert lease_of(lab, f"{where}x") == lease
        for mount in pair.each():
            assert os.path.isdir(mount / f"{where}x")
            with pytest.raises(FileExistsError):
                os.mkdir(mount / f"{where}x")
        os.rmdir(other / f"{where}x")
        assert not os.path.exists(maker / f"{where}x")


def test_keep_is_the_default(lab):
    """Without the policy, and with dirs=keep, a directory depends on nobody."""
    mount, pair = lab.mount(), Pair(lab, "dirs=lease")
    os.mkdir(mount / "x")
    checked("setfattr", "-n", "user.latchfs.dirs", "-v", "keep", mount / "x")
    os.mkdir(pair.a / "x/y")
    os.mkdir(pair.a / "z")
    assert [bool(lease_of(lab, name)) for name in ("x", "x/y", "z")] == [False, False, True]
    pair.a.stop()
    assert pair.b.names() == ["x"] and pair.b.names("x") == ["y"]


def test_changes_leave_it_with_its_lease(lab):
    """chmod, utimens and policies, on the machine that made it and on others."""
    pair = Pair(lab, "dirs=lease")
    os.mkdir(pair.a / "x")
    lease = lease_of(lab, "x")
    assert lease
    for number, mount in enumerate(pair.each(), 1):
        os.utime(mount / "x", ns=(number, number))
        assert os.stat(pair.a / "x").st_mtime_ns == os.stat(pair.b / "x").st_mtime_ns == number
        os.chmod(mount / "x", 0o700 + number)
        checked("chown", "1234", mount / "x")
        checked("setfattr", "-n", "user.latchfs.hold", "-v", "name", mount / "x")
        checked("setfattr", "-x", "user.latchfs.hold", mount / "x")
        assert lease_of(lab, "x") == lease
    assert os.stat(pair.a / "x").st_mode & 0o777 == 0o702
    pair.a.stop()
    assert not os.path.exists(pair.b / "x")


def test_killed_daemon(lab):
    """kill -9: the directory is there for the rest of the TTL, and then a waiting loop makes it."""
    a, b = lab.mount("dirs=lease", ttl=4), lab.mount("dirs=lease", ttl=LONG)
    os.mkdir(a / "x")
    os.mkdir(a / "left")
    waiter = lab.holder("dash", "-c", WAIT, "sh", b / "x")
    a.kill()
    assert os.path.isdir(b / "x") and not waiter.holds()
    waiter.await_held()
    wait_until(lambda: not os.path.exists(b / "left"))
    assert waiter.release() == 0
    assert b.names() == []


def test_lost_lease_is_told_in_the_log(lab):
    """The log names each directory that goes, and none that was removed here before."""
    pair = Pair(lab, "dirs=lease")
    one = lab.agent()
    for name in "x", "removed", "y", "again":
        os.mkdir(pair.a / name)
    for name in "removed", "again":
        os.rmdir(pair.a / name)
    os.mkdir(pair.b / "again")
    pair.a.expect()
    lease = lease_of(lab, "x")
    lab.etcd.revoke(lease)
    wait_until(lambda: pair.a.log().count("goes with the lease that was lost") == 2, SOON)
    assert "directory x goes" in pair.a.log() and "directory y goes" in pair.a.log()
    for mount in pair.each():
        assert mount.names() == ["again"]
    wait_until(lambda: one.error("mkdir", pair.a / "x") == 0, SOON)
    assert lease_of(lab, "x") not in (0, lease)


def test_what_is_below_stays(lab):
    """Locks and directories of others in it are theirs; while there are any it exists, bare."""
    pair = Pair(lab, "dirs=lease")
    pair.a.expect()
    one, two = lab.agent(), lab.agent()
    os.mkdir(pair.a / "x", 0o700)
    os.mkdir(pair.b / "x/theirs")
    fd = two.take(pair.b / "x/lock")
    lab.etcd.revoke(lease_of(lab, "x"))
    for mount in pair.each():
        wait_until(lambda mount=mount: os.stat(mount / "x").st_mode & 0o777 == 0o777, SOON)
        assert mount.names("x") == ["lock", "theirs"]
        assert one.error("mkdir", mount / "x") == errno.EEXIST
        assert one.error("rmdir", mount / "x") == errno.ENOTEMPTY
    os.rmdir(pair.b / "x/theirs")
    assert not one.attempt(pair.b / "x/lock")
    two.close(fd)
    wait_until(lambda: not os.path.exists(pair.a / "x"), SOON)
    wait_until(lambda: one.error("mkdir", pair.a / "x") == 0, SOON)
