# SPDX-License-Identifier: MIT
"""Symbolic links as locks: symlink takes, readlink says who has it, unlink gives back."""

import errno
import json
import os
import stat
from fcntl import LOCK_EX

import pytest

from conftest import Pair
from support import PROGRAMS, SOON, checked, run, wait_until
from test_hold import create, free_soon, is_taken
from test_lockfiles import EXCL
from test_policies import place  # a fixture  # pylint: disable=unused-import

RW = os.O_RDWR | os.O_CREAT
PYTHON = ("/usr/bin/python3", PROGRAMS / "pylock.py", "symlinklockfile")


@pytest.mark.parametrize("hold", ["process", "name"])
def test_symlink_takes_the_lock(lab, place, hold):
    """The link is there with its text on both machines, and nobody else's, until unlink."""
    pair, where = place("hold", hold)
    name = f"{where}x"
    one, two = lab.agent(), lab.agent()
    one.symlink("web1:1234", pair.a / name)
    for mount in pair.each():
        path = mount / name
        assert os.readlink(path) == "web1:1234"
        status = os.lstat(path)
        assert stat.S_ISLNK(status.st_mode) and status.st_size == len("web1:1234")
        assert status.st_nlink == 1
        assert os.path.islink(path) and not os.path.exists(path)
        assert checked("ls", "-l", path).strip().endswith("x -> web1:1234")
        assert [entry.is_symlink() for entry in os.scandir(mount / where)
                if entry.name == "x"] == [True]
        assert two.error("symlink", "b", path) == errno.EEXIST
    one.unlink(pair.a / name)
    assert not os.path.lexists(pair.b / name)
    two.symlink("b", pair.b / name)
    assert os.readlink(pair.a / name) == "b"


def test_only_one_of_many_wins(lab):
    """Twelve make the same link at the same time, on two machines, several times."""
    pair = Pair(lab, "hold=name")
    agents = [lab.agent() for _ in range(12)]
    for number in range(4):
        for place, who in enumerate(agents):
            who.begin("symlink", f"{place}", pair.each()[place % 2] / f"lock{number}")
        outcomes = []
        for who in agents:
            try:
                outcomes.append(who.finish())
            except OSError as error:
                outcomes.append(error.errno)
        assert outcomes.count(None) == 1 and outcomes.count(errno.EEXIST) == 11, outcomes
        for mount in pair.each():
            assert os.readlink(mount / f"lock{number}") == str(outcomes.index(None))


def test_excludes_every_other_lock(lab):
    """Whatever holds the name, no link can be made of it; where there is a link, nothing else."""
    pair = Pair(lab, "hold=name")
    one, two = lab.agent(), lab.agent()
    create(one, pair.a / "file")
    one.take(pair.a / "flocked")
    os.mkdir(pair.a / "directory")
    lab.etcd.put(f"{lab.prefix}/foreign/someone", "")
    for mount in pair.each():
        for name in "file", "flocked", "directory", "foreign":
            assert two.error("symlink", "t", mount / name) == errno.EEXIST, name
    one.symlink("t", pair.a / "link")
    for mount in pair.each():
        assert two.error("open", mount / "link", EXCL) == errno.EEXIST
        assert two.error("mkdir", mount / "link") == errno.EEXIST
        assert two.error("link", mount / "file", mount / "link") == errno.EEXIST
        assert two.error("rmdir", mount / "link") == errno.ENOTDIR
        assert two.error("link", mount / "link", mount / "other") == errno.EPERM
    assert len(lab.keys("link")) == 1


def test_flock_of_an_open_file_waits_for_the_link(lab):
    """A file opened before queues behind the link, which stays one for everybody until unlink."""
    pair = Pair(lab, "hold=name")
    one, two = lab.agent(), lab.agent()
    fd = two.open(pair.b / "x", RW)
    here = one.open(pair.a / "x", RW)
    inode = two.fstat(fd).st_ino
    one.symlink("t", pair.a / "x")
    two.begin("flock", fd, LOCK_EX)
    lab.await_keys("x", 2)
    for mount in pair.each():
        assert os.readlink(mount / "x") == "t"
        assert os.lstat(mount / "x").st_ino != inode
        assert stat.S_ISLNK(os.lstat(mount / "x").st_mode)
    assert stat.S_ISREG(one.fstat(here).st_mode)
    assert not two.ready()
    one.unlink(pair.a / "x")
    two.finish(SOON)
    for mount in pair.each():
        assert stat.S_ISREG(os.lstat(mount / "x").st_mode)
        assert os.lstat(mount / "x").st_ino == inode
        with pytest.raises(OSError):
            os.readlink(mount / "x")


@pytest.mark.parametrize("text", [
    b"x", b"/", b"a b\nc\x01\x7f", b'"quoted" \\ back', "ümläut-日本".encode(), b"caf\xe9-\xff\x80",
    b"n" * 4095,
], ids=range(7))
def test_texts_of_every_shape(lab, text):
    """What readlink gives is what was said, byte for byte, up to the longest there is."""
    pair = Pair(lab, "hold=name")
    os.symlink(text, os.fsencode(pair.a / "x"))
    for mount in pair.each():
        assert os.readlink(os.fsencode(mount / "x")) == text
        assert os.lstat(mount / "x").st_size == len(text)


def test_process_death_releases(lab):
    """hold=process: kill -9 of the program that made it frees the name at once."""
    pair = Pair(lab, "hold=process")
    one, two = lab.agent(), lab.agent()
    one.symlink("t", pair.a / "x")
    assert is_taken(lab, pair.b / "x")
    assert two.error("unlink", pair.b / "x") == errno.EBUSY
    one.kill()
    free_soon(lab, pair.b / "x")


def test_shell(lab):
    """hold=name: `ln -s "$HOST:$$"` survives ln and the shell, until somebody removes the link."""
    pair = Pair(lab, "hold=name")
    take = 'ln -s "web1:$$" "$1"'
    checked("dash", "-c", take, "sh", pair.a / "x")
    text = checked("readlink", pair.b / "x").strip()
    host, pid = text.split(":")
    assert host == "web1" and not os.path.exists(f"/proc/{pid}")
    for mount in pair.each():
        refused = run("bash", "-c", take, "bash", mount / "x")
        assert refused.returncode == 1 and "File exists" in refused.stderr
        assert run("test", "-L", mount / "x").returncode == 0
    assert "busy" in run("rm", "-f", pair.b / "x").stderr
    checked("rm", pair.a / "x")
    checked("dash", "-c", take, "sh", pair.b / "x")
    checked("rm", "-f", pair.b / "x")
    free_soon(lab, pair.a / "x")


def test_program_that_ends_at_once(lab):
    """hold=process: ln's link goes with ln, and the log says which policy was wanted."""
    pair = Pair(lab, "hold=process")
    for _ in range(3):
        checked("ln", "-s", "t", pair.a / "x")
        wait_until(lambda: not os.path.lexists(pair.b / "x"), SOON)
    hints = [line for line in pair.a.log().splitlines() if "needs hold=name" in line]
    assert len(hints) == 1 and "ln took it and ended at once" in hints[0]


def test_hold_close_has_no_links(lab):
    """hold=close: nothing is open, so EPERM; the log tells once what is needed; nothing is left."""
    mount = lab.mount()
    for _ in range(3):
        refused = run("ln", "-s", "t", mount / "x")
        assert refused.returncode == 1 and "Operation not permitted" in refused.stderr
    assert lab.agent().error("symlink", "t", mount / "x") == errno.EPERM
    assert not lab.keys("x") and mount.names() == []
    hints = [line for line in mount.log().splitlines() if "needs hold=name" in line]
    assert len(hints) == 2 and ": ln can't" in hints[0] and ": python3 can't" in hints[1]


def test_who_may_remove_it(lab):
    """hold=name: its user and root on its mount; the link and its record name that user."""
    pair = Pair(lab, "hold=name,allow_other")
    owner, stranger, root = lab.agent(user=1234, group=2345), lab.agent(user=1235), lab.agent()
    for who in owner, root:
        owner.symlink("t", pair.a / "x")
        for mount in pair.each():
            status = stranger.lstat(mount / "x")
            assert (status.st_uid, status.st_gid) == (1234, 2345)
            assert stranger.readlink(mount / "x") == "t"
            assert stranger.error("unlink", mount / "x") == errno.EBUSY
        assert who.error("unlink", pair.b / "x") == errno.EBUSY
        who.unlink(pair.a / "x")
        assert not os.path.lexists(pair.b / "x")
    owner.symlink("t", pair.a / "x")
    value = json.loads(lab.keys("x")[0].value)
    assert value["symlink"] == "t" and value["uid"] == 1234 and value["hold"] == "name"


def test_directory_decides(lab):
    """To make one needs write permission; where every name exists there is no room for one."""
    pair = Pair(lab, "hold=name,allow_other")
    user = lab.agent(user=1234, group=1234)
    os.mkdir(pair.a / "d")
    assert user.error("symlink", "t", pair.b / "d/x") == errno.EACCES
    checked("setfattr", "-n", "user.latchfs.names", "-v", "always", pair.a / "d")
    assert lab.agent().error("symlink", "t", pair.a / "d/x") == errno.EEXIST
    assert user.error("symlink", "t", pair.a / ("n" * 256)) == errno.ENAMETOOLONG
    assert user.error("symlink", "t", pair.a / ".latchfs-x") == errno.EPERM


def test_it_is_not_followed(lab):
    """Not even to another lock: a name leads to the lock of that name, or nowhere."""
    pair = Pair(lab, "hold=name")
    one = lab.agent()
    create(one, pair.a / "target")
    one.symlink("target", pair.a / "x")
    for mount in pair.each():
        assert one.error("open", mount / "x", os.O_RDWR) == errno.ELOOP
        assert os.path.realpath(mount / "x") == mount / "target"


def test_attributes_stay(lab):
    """To change its owner or times has no effect and does not fail, as with a lock file."""
    pair = Pair(lab, "hold=name")
    one = lab.agent()
    one.symlink("t", pair.a / "x")
    for mount in pair.each():
        checked("chown", "-h", "1234", mount / "x")
        checked("touch", "-h", "-d", "@77", mount / "x")
        status = os.lstat(mount / "x")
        assert status.st_uid == os.getuid() and status.st_mtime > 77
    one.unlink(pair.a / "x")
    assert run("touch", "-h", "-c", pair.a / "x").returncode == 0
    assert not os.path.lexists(pair.a / "x")


def test_its_lease_ends_it(lab):
    """When the mount's lease is lost, so is the link, and the name can be taken again."""
    pair = Pair(lab, "hold=name")
    pair.a.expect()
    one = lab.agent()
    one.symlink("t", pair.a / "x")
    lab.etcd.revoke(lab.keys("x")[0].lease)
    for mount in reversed(pair.each()):
        free_soon(lab, mount / "x")


def test_foreign_keys_are_lock_files(lab):
    """Only what is marked as one and has a text is a link; anything else is a lock, as ever."""
    pair = Pair(lab, "hold=name")
    record = '{"v":1,"host":"a","symlink":"t"}'
    lab.etcd.put(lab.key("unmarked") + "77.1", record)
    lab.etcd.put(lab.key("senseless") + "l-77.1", "x")
    for mount in pair.each():
        for name in "unmarked", "senseless":
            assert stat.S_ISREG(os.lstat(mount / name).st_mode)
            assert is_taken(lab, mount / name)
    lab.etcd.put(lab.key("link") + "l-77.1", record)
    assert os.readlink(pair.a / "link") == "t"


def test_python_lockfile(lab):
    """SymlinkLockFile: its twin is refused elsewhere, release frees, and so does kill -9."""
    pair = Pair(lab, "hold=process")
    busy = lambda mount: run(*PYTHON, mount / "p").returncode == 75
    first = lab.holder(*PYTHON, pair.a / "p").await_held()
    assert pair.b.names() == ["p.lock"] and str(first.pid) in os.readlink(pair.b / "p.lock")
    assert busy(pair.a) and busy(pair.b)
    assert first.release() == 0
    second = lab.holder(*PYTHON, pair.b / "p").await_held()
    assert busy(pair.a)
    second.kill()
    wait_until(lambda: run(*PYTHON, pair.a / "p").stdout == "held\n", SOON)


def test_python_lockfile_that_outlives_its_program(lab):
    """With hold=name it stays when its program is killed, until it is removed on its machine."""
    pair = Pair(lab, "hold=name")
    first = lab.holder(*PYTHON, pair.a / "p").await_held()
    first.kill()
    for mount in pair.each():
        assert run(*PYTHON, mount / "p").returncode == 75
    assert pair.b.names() == ["p.lock"]
    assert "busy" in run("rm", pair.b / "p.lock").stderr
    checked("rm", pair.a / "p.lock")
    assert run(*PYTHON, pair.b / "p").stdout == "held\n"
    assert pair.a.names() == []
