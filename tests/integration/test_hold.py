# SPDX-License-Identifier: MIT
"""hold=process and hold=name: lock files that stay held when their creator has closed them."""

import errno
import os
import subprocess
import time
from fcntl import LOCK_EX, LOCK_NB
from pathlib import Path

import pytest

from conftest import Pair
from mounting import BINARY, parse_record
from support import SOON, Stopwatch, checked, gone, process_state, run, wait_until
from test_lockfiles import EXCL
from test_policies import place  # a fixture  # pylint: disable=unused-import

RW = os.O_RDWR


def create(who, path):
    """Takes a lock file and closes it at once."""
    who.close(who.open(path, EXCL))


def is_taken(lab, path):
    """Whether nobody else gets it."""
    return lab.agent().error("open", path, EXCL) == errno.EEXIST


def free_soon(lab, path):
    """Waits until somebody else gets it, who gives it back."""
    who = lab.agent()
    wait_until(lambda: who.error("open", path, EXCL) == 0, SOON, f"{path} is free")
    who.unlink(path)
    who.kill()


@pytest.mark.parametrize("hold", ["process", "name"])
def test_closing_does_not_release(lab, place, hold):
    """The file is there, taken and nobody else's, on both machines, until it is unlinked."""
    pair, where = place("hold", hold)
    name = f"{where}x"
    one, two = lab.agent(), lab.agent()
    create(one, pair.a / name)
    for mount in pair.each():
        assert os.path.isfile(mount / name)
        assert is_taken(lab, mount / name)
        assert not two.attempt(mount / name)
        assert mount.record(name)["hold"] == hold
        assert mount.holder(name)["hold"] == hold
    one.unlink(pair.a / name)
    assert not os.path.exists(pair.b / name)
    free_soon(lab, pair.b / name)


def test_process_death_releases(lab):
    """hold=process: kill -9 of the creator frees the lock at once, nobody waits for a TTL."""
    pair = Pair(lab, "hold=process")
    one, two = lab.agent(), lab.agent()
    create(one, pair.a / "x")
    two.begin("take", pair.b / "x")
    lab.await_keys("x", 2)
    assert not two.ready()
    watch = Stopwatch()
    one.kill()
    two.finish(SOON)
    assert watch.seconds < SOON


def test_child_does_not_keep_it(lab):
    """hold=process: it is the creator's life that counts, not that of whom it left the file."""
    pair = Pair(lab, "hold=process")
    one = lab.agent()
    one.open(pair.a / "x", EXCL)
    child = one.fork_and_wait()
    os.kill(one.pid, 9)
    free_soon(lab, pair.b / "x")
    assert not gone(child)


def test_reused_process_number(lab):
    """hold=process: another process of the creator's number does not keep its lock."""
    pair = Pair(lab, "hold=process")
    one = lab.agent()
    create(one, pair.a / "x")
    pair.a.pause()
    one.kill()
    wait_until(lambda: process_state(one.pid) is None, SOON)
    successor = None

    def reuse():
        nonlocal successor
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(one.pid - 1), encoding="ascii")
        successor = subprocess.Popen(["sleep", "1000"])
        if successor.pid == one.pid:
            return True
        successor.kill()
        successor.wait()
        return process_state(one.pid) is not None  # somebody else's process is as good

    try:
        wait_until(reuse, SOON, "the number is used again")
        pair.a.resume()
        free_soon(lab, pair.b / "x")
    finally:
        successor.kill()
        successor.wait()


def test_name_survives_its_creator(lab):
    """hold=name: a script that has ended still holds, until somebody removes the file."""
    pair = Pair(lab, "hold=name")
    for shell in "bash", "dash":
        checked(shell, "-c", 'set -C; echo $$ >"$1"', "sh", pair.a / "x")
        assert is_taken(lab, pair.b / "x")
        pid = int(Path(pair.b / "x").read_text(encoding="ascii"))
        assert pid > 1 and not os.path.exists(f"/proc/{pid}")
        checked("rm", pair.a / "x")
        free_soon(lab, pair.b / "x")


def test_name_is_unlinked_where_it_is_held(lab):
    """hold=name: its creator's uid and root unlink it on its mount; nobody does elsewhere."""
    pair = Pair(lab, "hold=name,allow_other")
    owner, stranger, root = lab.agent(user=1234), lab.agent(user=1235), lab.agent()
    for who in owner, root:
        create(owner, pair.a / "x")
        for mount in pair.each():
            assert stranger.error("unlink", mount / "x") == errno.EBUSY
        for each in owner, root:
            assert each.error("unlink", pair.b / "x") == errno.EBUSY
        who.unlink(pair.a / "x")
        assert root.error("unlink", pair.b / "x") == errno.ENOENT


@pytest.mark.parametrize("hold", ["process", "name"])
def test_what_looks_stale_elsewhere_stays(lab, hold):
    """A script that looks for the process, finds none here and removes the file: one holder."""
    pair = Pair(lab, f"hold={hold}")
    one = lab.agent()
    create(one, pair.a / "x")
    fd = one.open(pair.a / "x", RW)
    one.pwrite(fd, b"999999999\n", 0)
    look = 'set -C; kill -0 "$(cat "$1")" || rm -f "$1"; echo $$ >"$1"'
    assert run("dash", "-c", look, "sh", pair.b / "x").returncode != 0
    assert Path(pair.b / "x").read_bytes() == b"999999999\n"
    one.fsync(fd)


def test_process_is_unlinked_where_it_is_held(lab):
    """hold=process: a live lock of another machine can't be removed from here."""
    pair = Pair(lab, "hold=process")
    one, two = lab.agent(), lab.agent()
    create(one, pair.a / "x")
    assert two.error("unlink", pair.b / "x") == errno.EBUSY
    two.unlink(pair.a / "x")
    assert not os.path.exists(pair.b / "x")
    # Its creator's death must not take away what another has since.
    create(two, pair.a / "x")
    one.kill()
    wait_until(lambda: gone(one.pid), SOON)
    assert is_taken(lab, pair.b / "x")


@pytest.mark.parametrize("hold", ["process", "name"])
def test_opening_it_again(lab, hold):
    """Its user reads and rewrites what is in it, through new handles; others only read."""
    pair = Pair(lab, f"hold={hold},allow_other")
    owner, stranger = lab.agent(user=1234), lab.agent(user=1235)
    create(owner, pair.a / "x")
    fd = owner.open(pair.a / "x", RW)
    owner.pwrite(fd, b"4711\n", 0)
    owner.close(fd)
    assert Path(pair.b / "x").read_bytes() == b"4711\n"
    fd = owner.open(pair.a / "x", os.O_WRONLY | os.O_TRUNC)
    owner.pwrite(fd, b"12\n", 0)
    owner.fsync(fd)
    assert Path(pair.b / "x").read_bytes() == b"12\n"
    other = stranger.open(pair.a / "x", RW | os.O_TRUNC)
    assert stranger.error("pwrite", other, b"no", 0) == errno.EPERM
    elsewhere = owner.open(pair.b / "x", RW)
    assert owner.error("pwrite", elsewhere, b"no", 0) == errno.EPERM
    assert Path(pair.a / "x").read_bytes() == Path(pair.b / "x").read_bytes() == b"12\n"
    lab.agent().unlink(pair.a / "x")


@pytest.mark.parametrize("hold", ["process", "name"])
def test_it_never_looks_old(lab, hold):
    """The time of its last change is now, so that nobody calls it stale by its age."""
    pair = Pair(lab, f"hold={hold}")
    one = lab.agent()
    create(one, pair.a / "x")
    for mount in pair.each():
        for _ in range(20):
            before = time.time_ns()
            assert before <= os.stat(mount / "x").st_mtime_ns <= time.time_ns()


@pytest.mark.parametrize("hold", ["process", "name"])
def test_its_lease_ends_it(lab, hold):
    """When the mount's lease is lost, so is the lock; a descriptor still open says EIO."""
    pair = Pair(lab, f"hold={hold}")
    pair.a.expect()
    one = lab.agent()
    create(one, pair.a / "x")
    fd = one.open(pair.a / "open", EXCL)
    lab.etcd.revoke(lab.keys("x")[0].lease)
    wait_until(lambda: one.error("pread", fd, 9, 0) == errno.EIO, SOON)
    for name in "x", "open":
        free_soon(lab, pair.b / name)
    # And its name can be taken again here.
    free_soon(lab, pair.a / "x")


@pytest.mark.parametrize("hold", ["process", "name"])
def test_the_end_of_the_mount_ends_it(lab, hold):
    """Unmounting gives such locks back as well."""
    pair = Pair(lab, f"hold={hold}")
    create(lab.agent(), pair.a / "x")
    assert is_taken(lab, pair.b / "x")
    pair.a.stop()
    free_soon(lab, pair.b / "x")


def test_on_loss_spares_who_took_the_number_of_the_creator(lab):
    """hold=name with on_loss=kill: a creator that may be gone is not signalled."""
    mount = lab.mount("hold=name,on_loss=kill").expect()
    one = lab.agent()
    create(one, mount / "x")
    lab.etcd.delete(lab.keys("x")[0].name)
    wait_until(lambda: not os.path.exists(mount / "x"), SOON)
    assert one.ended() is None


def test_flock_is_as_ever(lab):
    """The policy is about O_EXCL only: flock ends with the close."""
    pair = Pair(lab, "hold=name")
    one = lab.agent()
    fd = one.take(pair.a / "x", LOCK_EX | LOCK_NB)
    assert is_taken(lab, pair.b / "x")
    one.close(fd)
    free_soon(lab, pair.b / "x")


def test_process_that_cannot_be_seen(lab):
    """hold=process: from a process without a number here EPERM, and the log says why."""
    wrapper = lab.scratch(f'#!/bin/sh\nexec unshare --pid --fork {BINARY} "$@"\n')
    wrapper.chmod(0o755)
    mount = lab.mount("hold=name", binary=wrapper)
    one = lab.agent()
    one.mkdir(mount / "p")
    one.setxattr(mount / "p", "user.latchfs.hold", b"process")
    one.close(one.open(mount / "t", EXCL))
    first = lab.etcd.handled("Txn")
    for call in (("open", mount / "p/x", EXCL), ("link", mount / "t", mount / "p/x"),
                 ("symlink", "web1:4711", mount / "p/x")):
        assert one.error(*call) == errno.EPERM
    assert lab.etcd.handled("Txn") == first  # no lock was tried
    assert mount.log().count("hold=process needs a process that can be seen from here") == 3
    one.unlink(mount / "t")
    fd = one.take(mount / "p/x")
    one.close(fd)
    # A signal would only reach unshare.
    wait_until(lambda: mount.unmount().returncode == 0, SOON)
    assert mount.wait_exit() == 0


def test_the_log_names_the_policy_that_was_wanted(lab):
    """Closed at once under hold=close: a hint, once for each program; not if it was unlinked."""
    mount = lab.mount()
    hint = "hold=process or hold=name"
    one = lab.agent()
    fd = one.open(mount / "x", EXCL)
    one.unlink(mount / "x")
    one.close(fd)
    run("flock", mount / "x", "true")
    assert hint not in mount.log()
    for _ in range(3):
        checked("bash", "-c", 'set -C; : >"$1"', "bash", mount / "x")
        wait_until(lambda: not os.path.exists(mount / "x"), SOON)
    create(one, mount / "y")
    wait_until(lambda: mount.log().count(hint) == 2, SOON)
    said = [line for line in mount.log().splitlines() if hint in line]
    assert "bash" in said[0] and "python3" in said[1]


def test_policy_is_listed(lab):
    """getfattr -d shows it, and it can't be anything else."""
    mount = lab.mount()
    os.mkdir(mount / "d")
    checked("setfattr", "-n", "user.latchfs.hold", "-v", "name", mount / "d")
    assert 'user.latchfs.hold="name"' in checked("getfattr", "-d", mount / "d")
    assert run("setfattr", "-n", "user.latchfs.hold", "-v", "ever", mount / "d").returncode == 1
    create(lab.agent(), mount / "d/x")
    record = parse_record(Path(mount / "d/x").read_text(encoding="utf-8"))
    assert record["hold"] == "name"
