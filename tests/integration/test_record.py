# SPDX-License-Identifier: MIT
"""What a lock file says: who holds it, since when, with which token; or what the holder wrote."""

import datetime
import errno
import os
import stat
import time
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN
from pathlib import Path

import pytest

from etcdserver import encode
from mounting import parse_record
from support import SOON, Stopwatch, checked, run, wait_until
from test_supervise import TAKEN_OVER, kill, ready

RW = os.O_RDWR | os.O_CREAT
LIMIT = 64 * 1024


def record_of(who, fd):
    """The record as a handle reads it."""
    return parse_record(who.pread(fd, 4096, 0).decode())


@pytest.mark.core
def test_cat_tells_who_has_it(pair, agent):
    """`cat` on any machine gives the holder's record."""
    one = agent()
    before = time.time()
    one.take(pair.a / "x")
    for mount in pair.each():
        record = parse_record(checked("cat", mount / "x"))
        record.pop("cgroup", None)  # of test_cgroups.py
        assert list(record) == [
            "token", "mode", "host", "pid", "uid", "command", "since", "state"
        ]
        assert int(record["token"]) == pair.lab.keys("x")[0].create_revision
        assert record["mode"] == "exclusive"
        assert record["host"] == "host-a"
        assert record["pid"] == str(one.pid)
        assert record["uid"] == "0"
        assert record["command"].startswith("python3")
        assert record["state"] == "held"
        since = datetime.datetime.strptime(record["since"], "%Y-%m-%dT%H:%M:%SZ")
        since = since.replace(tzinfo=datetime.timezone.utc).timestamp()
        assert before - 2 < since < time.time() + 2


def test_record_of_a_shared_lock(pair, agent):
    """A shared holder's record says so."""
    one = agent()
    fd = one.take(pair.a / "x", LOCK_SH)
    assert record_of(one, fd)["mode"] == "shared"
    assert pair.b.record("x")["mode"] == "shared"


def test_ls_shows_owner_and_time(lab):
    """`ls -l` shows the holder's uid, gid and the time it was taken; the mode is always 0666."""
    a, b = lab.mount("allow_other"), lab.mount("allow_other")
    before = time.time()
    lab.agent(user=1234, group=2345).take(a / "x")
    for mount in (a, b):
        status = os.stat(mount / "x")
        assert (status.st_uid, status.st_gid) == (1234, 2345)
        assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o666
        assert before - 2 < status.st_mtime < time.time() + 2
        assert status.st_nlink >= 1
        line = checked("ls", "-ln", mount).splitlines()[-1].split()
        assert line[0].startswith("-rw-rw-rw-") and line[2:4] == ["1234", "2345"]


@pytest.mark.core
def test_tokens_grow(pair, agent):
    """Each next holder's token is larger, on whatever machine and by whatever call."""
    one, two = agent(), agent()
    tokens = []
    for number in range(6):
        who, mount = ((one, pair.a), (two, pair.b))[number % 2]
        fd = who.take(mount / "x") if number < 3 else who.open(mount / "x", RW | os.O_EXCL)
        tokens.append(int(record_of(who, fd)["token"]))
        assert tokens[-1] == int(pair.a.holder("x")["token"])
        who.close(fd)
        wait_until(lambda: not pair.lab.keys("x"), SOON)
    assert tokens == sorted(set(tokens))


def test_sed_reads_the_token_from_the_descriptor(pair):
    """`exec 9<>A/x; flock 9; sed -n s/^token=//p <&9` is the token of the shell's own lock."""
    script = 'exec 9<>"$1"; flock 9; sed -n "s/^token=//p" <&9; cat "$2"'
    lines = checked("bash", "-c", script, "bash", pair.a / "x", pair.b / "x").splitlines()
    assert lines[0].isdigit()
    assert lines[1] == f"token={lines[0]}"


def test_a_handle_reads_its_own_record(pair, agent):
    """Read through the handle that holds, the record is that handle's: not the first reader's."""
    one, two = agent(), agent()
    a, b = one.take(pair.a / "x", LOCK_SH), two.take(pair.a / "x", LOCK_SH)
    first, second = record_of(one, a), record_of(two, b)
    assert int(first["token"]) < int(second["token"])
    assert (first["pid"], second["pid"]) == (str(one.pid), str(two.pid))


def test_a_handle_without_a_lock_reads_the_holders_record(pair, agent):
    """An open handle that holds nothing shows who does, always anew."""
    one, two = agent(), agent()
    fd = two.open(pair.b / "x", RW)
    a = one.take(pair.a / "x")
    first = record_of(two, fd)
    assert first["pid"] == str(one.pid)
    one.flock(a, LOCK_UN)
    one.flock(a, LOCK_EX)
    assert int(record_of(two, fd)["token"]) > int(first["token"])


@pytest.mark.core
def test_attributes_tell_holder_and_queue(pair, agent):
    """user.latchfs.holder and .queue are JSON: who holds, and who waits in which order."""
    one, two, three = agent(), agent(), agent()
    one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    three.begin("take", pair.a / "x", LOCK_SH)
    pair.await_queue("x", 3)
    for mount in pair.each():
        holder = mount.holder("x")
        assert {"token", "mode", "host", "pid", "uid", "command", "since"} <= set(holder)
        assert (holder["host"], holder["pid"], holder["uid"]) == ("host-a", one.pid, 0)
        queue = mount.queue("x")
        assert [entry["pid"] for entry in queue] == [one.pid, two.pid, three.pid]
        assert [entry["host"] for entry in queue] == ["host-a", "host-b", "host-a"]
        assert [entry["mode"] for entry in queue] == ["exclusive", "exclusive", "shared"]
        tokens = [int(entry["token"]) for entry in queue]
        assert tokens == sorted(tokens)
        assert tokens == [key.create_revision for key in pair.lab.keys("x")]
    names = os.listxattr(pair.a / "x")
    assert {"user.latchfs.holder", "user.latchfs.queue"} <= set(names)
    assert '"host-a"' in checked("getfattr", "--only-values", "-n", "user.latchfs.holder",
                                 pair.b / "x")


def test_unknown_attributes(pair, agent):
    """Attributes we do not have are ENODATA, and those of a lock cannot be written."""
    agent().take(pair.a / "x")
    with pytest.raises(OSError) as caught:
        os.getxattr(pair.a / "x", "user.other")
    assert caught.value.errno == errno.ENODATA
    with pytest.raises(OSError) as caught:
        os.setxattr(pair.a / "x", "user.latchfs.holder", b"{}")
    assert caught.value.errno in (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL)


@pytest.mark.core
def test_what_the_holder_writes_is_read_everywhere(pair, agent):
    """Content replaces the record, for every machine, until the lock is given back."""
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    assert one.write(fd, b"12345\n") == 6
    assert Path(pair.b / "x").read_bytes() == b"12345\n"
    assert Path(pair.a / "x").read_bytes() == b"12345\n"
    assert os.stat(pair.b / "x").st_size == 6
    one.pwrite(fd, b"zz", 1)
    assert Path(pair.b / "x").read_bytes() == b"1zz45\n"
    one.pwrite(fd, b"!", 8)
    assert Path(pair.b / "x").read_bytes() == b"1zz45\n\0\0!"
    one.ftruncate(fd, 3)
    assert Path(pair.b / "x").read_bytes() == b"1zz"
    assert one.pread(fd, 100, 0) == b"1zz"
    assert one.pread(fd, 100, 1) == b"zz"
    one.close(fd)
    wait_until(lambda: not os.path.exists(pair.b / "x"), SOON)
    two.take(pair.b / "x")
    assert pair.a.record("x")["host"] == "host-b"


def test_shell_writes_its_pid(pair):
    """`set -C; echo $$ > lock` style: the pid in the file is what others read."""
    script = 'set -C; exec 9>"$1"; echo $$ >&9; cat "$2"; echo $$'
    said = checked("bash", "-c", script, "bash", pair.a / "x", pair.b / "x").split()
    assert said[0] == said[1]


def test_space_cannot_be_reserved(pair, agent):
    """fallocate says that it can't, which programs expect of many file systems."""
    one = agent()
    fd = one.take(pair.a / "x")
    done = run("fallocate", "-l", "10", pair.a / "x")
    assert done.returncode == 1 and "not supported" in done.stderr
    assert one.write(fd, b"still mine") == 10


def test_append_writes_at_the_end(pair, agent):
    """O_APPEND does what it says."""
    one = agent()
    fd = one.take(pair.a / "x", LOCK_EX, RW | os.O_APPEND)
    one.write(fd, b"one\n")
    one.write(fd, b"two\n")
    assert Path(pair.b / "x").read_bytes() == b"one\ntwo\n"


def test_binary_content_survives(pair, agent):
    """All bytes come back as they were."""
    one = agent()
    fd = one.take(pair.a / "x")
    data = bytes(range(256)) * 16
    one.pwrite(fd, data, 0)
    assert Path(pair.b / "x").read_bytes() == data


@pytest.mark.core
def test_content_limit(pair, agent):
    """64 KiB fit; one byte more is EFBIG, by write and by ftruncate, and changes nothing."""
    one = agent()
    fd = one.take(pair.a / "x")
    data = os.urandom(LIMIT)
    done = 0
    while done < LIMIT:
        done += one.pwrite(fd, data[done:], done)
    assert Path(pair.b / "x").read_bytes() == data
    assert one.error("pwrite", fd, b"x", LIMIT) == errno.EFBIG
    assert one.error("ftruncate", fd, LIMIT + 1) == errno.EFBIG
    assert one.error("pwrite", fd, b"x", 1 << 40) == errno.EFBIG
    assert Path(pair.b / "x").read_bytes() == data


def test_only_the_exclusive_holder_writes(pair, agent):
    """EPERM for a handle without a lock and for a shared holder, on every machine."""
    one, two = agent(), agent()
    fd = one.open(pair.a / "x", RW)
    assert one.error("write", fd, b"x") == errno.EPERM
    one.flock(fd, LOCK_SH)
    assert one.error("write", fd, b"x") == errno.EPERM
    one.flock(fd, LOCK_EX)
    one.write(fd, b"mine")
    for mount in pair.each():
        other = two.open(mount / "x", os.O_WRONLY)
        assert two.error("write", other, b"yours") == errno.EPERM
    assert Path(pair.b / "x").read_bytes() == b"mine"


def test_truncation_by_others_is_ignored(pair, agent):
    """O_TRUNC, truncate and ftruncate by somebody else succeed and change nothing."""
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    one.write(fd, b"mine")
    for mount in pair.each():
        two.truncate(mount / "x", 0)
        handle = two.open(mount / "x", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        two.ftruncate(handle, 0)
        two.close(handle)
    assert Path(pair.b / "x").read_bytes() == b"mine"


@pytest.mark.core
def test_fsync_confirms(pair, agent):
    """fsync succeeds for a handle that holds, of any mode, and is EINVAL for one that does not."""
    one = agent()
    fd = one.open(pair.a / "x", os.O_RDONLY | os.O_CREAT)
    assert one.error("fsync", fd) == errno.EINVAL
    one.flock(fd, LOCK_SH)
    one.fsync(fd)
    one.flock(fd, LOCK_UN)
    assert one.error("fsync", fd) == errno.EINVAL
    excl = one.open(pair.a / "y", RW | os.O_EXCL)
    one.fsync(excl)


def test_chmod_and_chown_change_nothing(pair, agent):
    """They succeed, so that no program fails on them; mode and owner stay."""
    agent().take(pair.a / "x")
    for mount in pair.each():
        os.chmod(mount / "x", 0o600)
        os.chown(mount / "x", 1234, 1234)
        status = os.stat(mount / "x")
        assert stat.S_IMODE(status.st_mode) == 0o666
        assert (status.st_uid, status.st_gid) == (0, 0)


def test_inode_numbers_are_stable(pair, agent):
    """A name keeps its inode number over holders, and two names have two."""
    one = agent()
    seen = set()
    for _ in range(3):
        fd = one.take(pair.a / "x")
        seen.add((os.stat(pair.a / "x").st_ino, one.fstat(fd).st_ino))
        one.close(fd)
    assert len(seen) == 1
    number, from_handle = seen.pop()
    assert number == from_handle
    one.take(pair.a / "y")
    assert os.stat(pair.a / "y").st_ino != number
    listed = {entry.name: entry.inode() for entry in os.scandir(pair.a.path)}
    assert listed["y"] == os.stat(pair.a / "y").st_ino


def test_an_open_file_keeps_its_number(lab):
    """Also if another name would have the same, was first, goes, and the daemon is replaced."""
    mount = ready(lab.mount().expect(TAKEN_OVER))
    one, two = lab.agent(), lab.agent()
    first, second = b"!0IC=VloaY", bytes.fromhex("d56bb95342870836")
    paths = [os.path.join(os.fsencode(mount.path), name) for name in (first, second)]
    fds = [one.open(path, RW) for path in paths]
    for fd in fds:
        one.flock(fd, LOCK_EX)
    numbers = [one.fstat(fd).st_ino for fd in fds]
    assert len(set(numbers)) == 2
    for _ in range(2):
        listed = {entry.name: entry.inode() for entry in os.scandir(os.fsencode(mount.path))}
        assert listed == dict(zip((first, second), numbers))
        assert [os.stat(path).st_ino for path in paths] == numbers
        kill(mount)
    one.close(fds[0])
    wait_until(lambda: not os.path.exists(paths[0]), what="the first name is gone")
    for _ in range(2):
        assert os.stat(paths[1]).st_ino == one.fstat(fds[1]).st_ino == numbers[1]
        assert two.error("open", paths[1], RW | os.O_EXCL) == errno.EEXIST
        kill(mount)


def test_command_of_flock_is_told(pair, holder):
    """A lock of flock(1) names a process that really was there, and its command."""
    job = holder("flock", pair.a / "x", "sh", "-c", "echo held; cat").await_held()
    record = pair.b.record("x")
    assert record["command"] == "flock"
    assert int(record["pid"]) == job.pid


def test_statfs_and_access(pair):
    """df and test -w on the mount work."""
    assert run("stat", "-f", pair.a.path).returncode == 0
    assert run("df", pair.a.path).returncode == 0
    assert os.access(pair.a.path, os.W_OK | os.X_OK)
    assert stat.S_IMODE(os.stat(pair.a.path).st_mode) & 0o777 == 0o777


# What is written into lock files, each time as a revision that etcd keeps until it compacts.

WRITES = 100
# Bytes that may be written at once, and in a second from then on; puts of one file, likewise.
SAVED, EACH_SECOND = 1024 * 1024, 128 * 1024
PUTS, PUTS_EACH_SECOND = 5, 10
ALICE, BOB = 10001, 10002


def content_revisions(etcd, key):
    """How often a key was put."""
    return int(etcd.call("/v3/kv/range", key=encode(key.name))["kvs"][0]["version"])


def test_writes_are_gathered(pair, agent):
    """Whoever writes one lock file again and again does not fill the store; the last one is read."""
    one, two, watch = agent(), agent(), Stopwatch()
    fd = one.open(pair.a / "x", RW | os.O_EXCL)
    one.write_each([fd], WRITES, 1024)
    puts = content_revisions(pair.lab.etcd, pair.lab.keys("x")[0]) - 1
    assert puts <= PUTS + PUTS_EACH_SECOND * watch.seconds
    one.pwrite(fd, b"z" * 1024, 0)
    assert two.pread(two.open(pair.b / "x", RW), 2000, 0) == b"z" * 1024


def test_a_flood_of_writes(lab):
    """One user's writes are bounded, and do not keep another one from writing his pid."""
    mount = lab.mount("allow_other,timeout=60")
    os.mkdir(mount / "d")
    os.chmod(mount / "d", 0o777)
    alice, bob = (lab.agent(user=uid, group=uid, extra_groups=[]) for uid in (ALICE, BOB))
    watch = Stopwatch()
    handles = [alice.open(mount / f"d/{n}", RW | os.O_EXCL) for n in range(4)]
    alice.begin("write_each", handles, 8, LIMIT)
    mine = bob.open(mount / "d/bob", RW | os.O_EXCL)
    wait_until(lambda: sum(content_revisions(lab.etcd, key) for n in range(4)
                           for key in lab.keys(f"d/{n}")) > 20, what="the flood has begun")
    bob.pwrite(mine, b"4711", 0)
    assert not alice.ready(), "who writes little does not wait for who writes much"
    alice.finish()
    puts = sum(content_revisions(lab.etcd, key) for n in range(4) for key in lab.keys(f"d/{n}")) - 4
    assert puts * LIMIT <= SAVED + EACH_SECOND * watch.seconds + 2 * LIMIT
