# SPDX-License-Identifier: MIT
"""Directories and names: cluster-wide, persistent, and of any shape."""

import errno
import os
import stat
from fcntl import LOCK_EX
from pathlib import Path

import pytest

from conftest import Pair
from support import SOON, checked, run, wait_until

RW = os.O_RDWR | os.O_CREAT


@pytest.mark.core
def test_mkdir_and_rmdir_are_seen_everywhere(pair):
    """A directory made on A is there on B, and gone when B removes it."""
    os.mkdir(pair.a / "d")
    assert os.path.isdir(pair.b / "d")
    assert pair.b.names() == ["d"]
    with pytest.raises(FileExistsError):
        os.mkdir(pair.b / "d")
    os.rmdir(pair.b / "d")
    assert not os.path.exists(pair.a / "d")
    with pytest.raises(FileNotFoundError):
        os.rmdir(pair.a / "d")


@pytest.mark.core
def test_rmdir_of_a_directory_in_use(pair, agent):
    """ENOTEMPTY while there is a directory or a lock in it, wherever that is held."""
    one = agent()
    os.makedirs(pair.a / "d/e")
    assert one.error("rmdir", pair.b / "d") == errno.ENOTEMPTY
    os.rmdir(pair.b / "d/e")
    fd = one.take(pair.a / "d/x")
    assert one.error("rmdir", pair.b / "d") == errno.ENOTEMPTY
    assert one.error("rmdir", pair.a / "d") == errno.ENOTEMPTY
    one.close(fd)
    wait_until(lambda: one.error("rmdir", pair.b / "d") == 0, SOON)


def test_rmdir_and_unlink_mind_the_kind(pair, agent):
    """rmdir of a lock is ENOTDIR, unlink of a directory EISDIR, a lock is no directory."""
    one = agent()
    one.take(pair.a / "x")
    os.mkdir(pair.a / "d")
    assert one.error("rmdir", pair.b / "x") == errno.ENOTDIR
    assert one.error("unlink", pair.b / "d") == errno.EISDIR
    assert one.error("open", pair.b / "d", os.O_RDWR) == errno.EISDIR
    assert one.error("mkdir", pair.b / "x") == errno.EEXIST
    assert one.error("mkdir", pair.b / "x/y") == errno.ENOTDIR
    assert one.error("open", pair.b / "missing/y", RW) == errno.ENOENT


@pytest.mark.core
def test_lock_and_directory_exclude_each_other(pair, agent):
    """A handle opened while the name was free cannot lock once a directory stands there."""
    one = agent()
    fd = one.open(pair.a / "n", RW)
    os.mkdir(pair.b / "n")
    assert one.error("flock", fd, LOCK_EX) in (errno.EISDIR, errno.EEXIST, errno.EIO, errno.ENOENT)
    assert os.path.isdir(pair.a / "n")
    assert not [key for key in pair.lab.keys("n") if key.lease]


@pytest.mark.core
def test_attributes_of_directories_persist(lab):
    """chmod, chown and utimens are seen on other machines, and by mounts that come later."""
    pair = Pair(lab)
    path = pair.a / "d"
    os.mkdir(path, 0o750)
    assert stat.S_IMODE(os.stat(pair.b / "d").st_mode) == 0o750
    os.chmod(path, 0o1711)
    os.chown(path, 1234, 2345)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))

    def check(mount):
        status = os.stat(mount / "d")
        assert stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o1711
        assert (status.st_uid, status.st_gid) == (1234, 2345)
        assert status.st_atime_ns == 1_600_000_000_123_456_789
        assert status.st_mtime_ns == 1_500_000_000_987_654_321

    check(pair.a)
    check(pair.b)
    pair.a.stop()
    pair.b.stop()
    check(lab.mount(name="c"))


def test_times_read_back_exactly(pair):
    """Lock libraries that touch their directory compare the time they read back exactly."""
    os.mkdir(pair.a / "d")
    for milliseconds in (1, 999, 1_700_000_000_123, 1_700_000_001_000):
        os.utime(pair.a / "d", ns=(milliseconds * 10**6,) * 2)
        assert os.stat(pair.b / "d").st_mtime_ns == milliseconds * 10**6
    before = os.stat(pair.a / "d").st_mtime_ns
    checked("touch", pair.b / "d")
    assert os.stat(pair.a / "d").st_mtime_ns > before


def test_root_attributes_persist(lab):
    """The mount's own directory is a directory like the others: 01777 until somebody says else."""
    pair = Pair(lab)
    assert stat.S_IMODE(os.stat(pair.a.path).st_mode) == 0o1777
    os.chmod(pair.a.path, 0o755)
    assert stat.S_IMODE(os.stat(pair.b.path).st_mode) == 0o755


def test_permissions_of_directories_decide(lab):
    """Search permission to lock, write permission to create; a lock's own mode stops nobody."""
    mount = lab.mount("allow_other,default_permissions")
    user = lab.agent(user=1234, group=1234)
    one = lab.agent()
    for name, mode in (("open", 0o777), ("search", 0o711), ("closed", 0o700)):
        os.mkdir(mount / name)
        os.chmod(mount / name, mode)
        one.take(mount / f"{name}/held")
    user.take(mount / "open/new")
    assert user.error("take", mount / "search/new") == errno.EACCES
    assert user.error("open", mount / "search/held", os.O_RDWR) == 0
    assert user.error("flock", user.open(mount / "search/held", os.O_RDWR), 6) == errno.EWOULDBLOCK
    assert user.error("open", mount / "closed/held", os.O_RDWR) == errno.EACCES
    assert user.error("mkdir", mount / "search/sub") == errno.EACCES
    assert user.error("chmod", mount / "open", 0o700) == errno.EPERM


def test_owner_of_a_new_directory(lab):
    """A directory belongs to who made it."""
    a, b = lab.mount("allow_other"), lab.mount("allow_other")
    lab.agent(user=1234, group=2345).mkdir(a / "d")
    status = os.stat(b / "d")
    assert (status.st_uid, status.st_gid) == (1234, 2345)


def test_group_of_a_directory_in_a_setgid_one(lab):
    """As on every file system, set-group-ID is inherited, and with it the group."""
    mount = lab.mount("allow_other")
    os.mkdir(mount / "d")
    os.chown(mount / "d", 0, 2345)
    os.chmod(mount / "d", 0o2777)
    lab.agent(user=1234, group=1234).mkdir(mount / "d/e")
    status = os.stat(mount / "d/e")
    assert (status.st_uid, status.st_gid) == (1234, 2345)
    assert status.st_mode & stat.S_ISGID


def test_fsync_of_a_directory(pair):
    """Programs that sync a file's directory get what they expect."""
    os.mkdir(pair.a / "d")
    fd = os.open(pair.a / "d", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


@pytest.mark.core
def test_deeper_keys_make_a_directory(pair, agent):
    """A lock that another client holds at p/q/r makes p and p/q directories while it is there."""
    pair.lab.etcd.put(f"{pair.lab.prefix}/p/q/r/someone", "")
    for mount in pair.each():
        assert mount.names() == ["p"] and mount.names("p") == ["q"] and mount.names("p/q") == ["r"]
        assert os.path.isdir(mount / "p/q") and os.path.isfile(mount / "p/q/r")
    assert not agent().attempt(pair.a / "p/q/r")


NAMES = [
    "with space", " leading", "trailing ", "new\nline", "tab\tand\\backslash", "umläut-ß-€-𝄞-日本語",
    "-dash", "*?[x]", "'quote\"", "%41%2f", "a=b&c#d", "..x", "...", "s-", "s-x", "0", "x.y",
    "n" * 255, "ü" * 127 + "x", "\x01\x7f",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_every_shape(pair, agent, name):
    """Spaces, newlines, UTF-8, 255 bytes: each is a lock of its own, listed as it was written."""
    one, two = agent(), agent()
    fd = one.take(pair.a / name)
    assert pair.a.names() == pair.b.names() == [name]
    assert not two.attempt(pair.b / name)
    assert two.attempt(pair.b / (name[:-1] + "_"))
    assert f"pid={one.pid}\n" in Path(pair.b / name).read_text(encoding="utf-8")
    one.close(fd)
    wait_until(lambda: two.attempt(pair.b / name), SOON)
    os.mkdir(pair.a / name)
    one.take(pair.a / f"{name}/{name}")
    assert pair.b.names(name) == [name]


@pytest.mark.core
def test_name_that_is_not_utf8(pair, agent):
    """A file name is bytes, whatever they are."""
    one, two = agent(), agent()
    name = os.fsdecode(b"caf\xe9-\xff\x80")
    one.take(os.fsencode(pair.a / name))
    assert pair.b.names() == [name]
    assert not two.attempt(os.fsencode(pair.b / name))


def test_name_too_long(pair, agent):
    """256 bytes are ENAMETOOLONG for every call."""
    one = agent()
    path = pair.a / ("n" * 256)
    assert one.error("open", path, RW) == errno.ENAMETOOLONG
    assert one.error("mkdir", path) == errno.ENAMETOOLONG
    assert one.error("stat", path) == errno.ENAMETOOLONG


def test_reserved_names(pair, agent):
    """Names that begin with .latchfs in the root are ours; elsewhere they are names as any."""
    one = agent()
    assert one.error("take", pair.a / ".latchfs-x") != 0
    assert one.error("mkdir", pair.a / ".latchfs") != 0
    os.mkdir(pair.a / "d")
    one.take(pair.a / "d/.latchfs-x")


def test_deep_directories(pair, agent):
    """Forty levels down a lock works as at the top."""
    deep = "/".join(f"level{number}" for number in range(40))
    os.makedirs(pair.a / deep)
    one, two = agent(), agent()
    one.take(pair.a / f"{deep}/x")
    assert not two.attempt(pair.b / f"{deep}/x")
    assert pair.b.names(deep) == ["x"]
    assert checked("find", pair.b.path, "-type", "f").strip() == str(pair.b / f"{deep}/x")


@pytest.mark.core
def test_names_that_begin_alike(pair, agent):
    """x, x0, x/y and x-y are different things and never show up in each other's directory."""
    one = agent()
    os.mkdir(pair.a / "x")
    for name in ("x0", "x-y", "x.", "x/y", "x/yy", "xx"):
        one.take(pair.a / name)
    assert pair.b.names() == ["x", "x-y", "x.", "x0", "xx"]
    assert pair.b.names("x") == ["y", "yy"]


@pytest.mark.alone
@pytest.mark.limit(240)
def test_ten_thousand_locks_in_a_directory(pair):
    """10,000 locks of one directory are held together and listed by ls, on both machines."""
    os.mkdir(pair.a / "many")
    crowd = [pair.lab.agent() for _ in range(8)]
    for number, who in enumerate(crowd):
        who.begin("take_many", pair.a / "many", [f"lock-{number}-{i}" for i in range(1250)])
    for who in crowd:
        assert who.finish(180) == 1250
    for mount in pair.each():
        listed = checked("ls", mount / "many", timeout=60).split()
        assert len(listed) == len(set(listed)) == 10000
    assert listed == sorted(listed)
    assert run("flock", "-n", pair.b / "many/lock-3-77", "true").returncode == 1
    assert not crowd[0].attempt(pair.b / "many/lock-7-1249")
