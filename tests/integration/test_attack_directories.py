# SPDX-License-Identifier: MIT
"""Attackers who remove root's directories, or put one of their own in the place of a lock."""

import errno
import os
import stat

import pytest

from conftest import Pair
from support import SOON, checked, run, wait_until
from test_permissions import ALICE, BOB

MISLED = "opens the directory .* as a file"


def someone(lab, user):
    """A process of a user who is in no other group."""
    return lab.agent(user=user, group=user, extra_groups=[])


def mode_of(path):
    """Its permission bits."""
    return stat.S_IMODE(os.stat(str(path)).st_mode)


@pytest.mark.parametrize("options", ["allow_other", "allow_other,default_permissions"])
def test_a_new_root_keeps_directories_for_their_owners(lab, options):
    """README's mount as it is: everybody may lock in it, and remove no directory of another's."""
    pair = Pair(lab, options)
    alice, bob = someone(lab, ALICE), someone(lab, BOB)
    os.mkdir(pair.a / "batch")
    alice.mkdir(pair.a / "hers")
    for mount in pair.each():
        for name in "batch", "hers":
            assert bob.error("rmdir", mount / name) == errno.EPERM
        bob.take(mount / f"x{mount.path.name}")
    alice.rmdir(pair.b / "hers")
    os.rmdir(pair.b / "batch")
    # A kernel that saw the sticky bit would refuse them by fs.protected_regular.
    assert mode_of(pair.a) == (0o777 if "default" in options else 0o1777)
    for who in alice, lab.agent():
        assert not who.attempt(pair.b / "xa")


def test_directories_without_a_key_do_the_same(lab):
    """Those that are there only because of what is in them."""
    mount = lab.mount("allow_other")
    lab.etcd.put(lab.key("d/held") + "1.1", "")
    os.mkdir(mount / "d/roots")
    assert mode_of(mount / "d") == 0o1777
    assert someone(lab, BOB).error("rmdir", mount / "d/roots") == errno.EPERM


def test_root_mode(lab):
    """It is the root's until somebody changes that, whose change stays for all mounts."""
    a, b = lab.mount("allow_other,root_mode=755"), lab.mount("allow_other,root_mode=0700")
    bob = someone(lab, BOB)
    assert (mode_of(a), mode_of(b)) == (0o755, 0o700)
    for call in ("take", a / "x"), ("mkdir", a / "d"), ("listdir", b.path):
        assert bob.error(*call) == errno.EACCES
    os.chown(a.path, -1, 5)
    assert (mode_of(a), mode_of(b)) == (0o755, 0o755), "what it had is what it keeps"
    os.chmod(b.path, 0o1777)
    assert (mode_of(a), mode_of(b)) == (0o1777, 0o1777)
    bob.take(a / "x")
    a.stop()
    assert mode_of(a.start()) == 0o1777


def test_a_directory_in_the_place_of_a_lock(lab):
    """flock(1) locks it, which only this machine knows; the log says so, of root whatever others do;
    the guide's recipe refuses it."""
    mount = lab.mount("allow_other").expect(MISLED)
    bob = someone(lab, BOB)
    bob.mkdir(mount / "nightly")
    lab.etcd.put(lab.key("foreign/x") + "1.1", "")
    for _ in range(3):
        run("flock", "-n", mount / "nightly", "true", user=BOB, group=BOB, extra_groups=[])
    assert mount.log().count("as a file") == 1
    for name in "nightly", "foreign":
        assert run("flock", "-n", mount / name, "true").returncode == 0
    wait_until(lambda: mount.log().count("as a file") == 2, SOON)
    line = mount.log().splitlines()[-1]
    assert "warning: flock (process " in line and "of user 0) opens the directory nightly" in line
    for name in "nightly", "foreign":
        done = run("bash", "-c", 'exec 9<>"$1" && flock -n 9 && echo runs', "bash", mount / name)
        assert done.returncode == 1 and not done.stdout and "Is a directory" in done.stderr
    for program in ["setlock", "-n"], ["lckdo"]:
        assert run(*program, mount / "nightly", "echo", "runs").stdout == ""


def test_those_that_mean_a_directory_are_not_told_of(lab):
    """To list, to walk and to remove directories is no mistake."""
    mount = lab.mount("allow_other")
    os.makedirs(mount / "d/e")
    for words in ("ls", "-lR"), ("find",), ("du",), ("stat",), ("rm", "-r"):
        run(*words, mount / "d")
    assert "as a file" not in mount.log()


def test_only_owners_make_directories(lab):
    """mkdir=owner, for a directory in which others lock: they can't put one in a lock's place."""
    pair = Pair(lab, "allow_other")
    alice, bob = someone(lab, ALICE), someone(lab, BOB)
    os.mkdir(pair.a / "shared")
    os.chmod(pair.a / "shared", 0o1777)
    bob.mkdir(pair.b / "shared/before")
    os.setxattr(pair.a / "shared", "user.latchfs.mkdir", b"owner")
    for mount in pair.each():
        wait_until(lambda mount=mount: bob.error("mkdir", mount / "shared/x") == errno.EPERM, SOON)
        bob.take(mount / f"shared/{mount.path.name}")
        os.mkdir(mount / f"shared/root{mount.path.name}")
    # It is inherited, and his own directory is his.
    bob.mkdir(pair.a / "shared/before/x")
    assert alice.error("mkdir", pair.a / "shared/before/y") in (errno.EACCES, errno.EPERM)
    assert len([line for line in pair.b.log().splitlines() if "mkdir=owner" in line]) == 1
    os.setxattr(pair.a / "shared", "user.latchfs.mkdir", b"write")
    wait_until(lambda: bob.error("mkdir", pair.b / "shared/x") == 0, SOON)


def test_recipes_of_roots_directory(lab):
    """A directory that only root writes: nobody else can hold, hinder or replace what is in it."""
    mount = lab.mount("allow_other")
    checked("mkdir", "-m", "755", mount / "cron")
    bob = someone(lab, BOB)
    for call in ("mkdir", mount / "cron/nightly"), ("take", mount / "cron/nightly"), \
            ("symlink", "/etc/passwd", mount / "cron/nightly"), ("rmdir", mount / "cron"), \
            ("setxattr", mount / "cron", "user.latchfs.hold", b"name"):
        assert bob.error(*call) in (errno.EACCES, errno.EPERM)
    assert run("flock", "-n", mount / "cron/nightly", "true").returncode == 0
