# SPDX-License-Identifier: MIT
"""The files below .latchfs: what they say, who can read them, and that nothing changes them."""

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

import support
from support import SOON, Stopwatch, wait_until
from test_permissions import ALICE, BOB

FILES = ["capabilities", "status"]
REFUSED = errno.EPERM, errno.EACCES


def text(mount, name):
    """What one of the files says."""
    return Path(mount / f".latchfs/{name}").read_text(encoding="utf-8")


def status(mount):
    """The file `status`."""
    return json.loads(text(mount, "status"))


def await_state(mount, state):
    """Waits until the mount says that of itself."""
    wait_until(lambda: status(mount)["state"] == state, what=f"{mount} is {state}")


# The directory.


@pytest.mark.core
def test_the_files(lab):
    """They are listed in their directory and nowhere else, plain files for all to read."""
    mount = lab.mount()
    lab.agent().take(mount / "x")
    assert sorted(os.listdir(mount / ".latchfs")) == FILES
    assert mount.names() == ["x"]
    assert stat.S_IMODE(os.stat(mount / ".latchfs").st_mode) == 0o555
    for name in FILES:
        attr = os.stat(mount / f".latchfs/{name}")
        assert stat.S_ISREG(attr.st_mode) and stat.S_IMODE(attr.st_mode) == 0o444
        assert attr.st_ino == os.stat(mount / f".latchfs/{name}").st_ino
        assert text(mount, name).endswith("\n")
    assert not os.path.exists(mount / ".latchfs/other")
    assert not os.path.exists(mount / ".latchfs-status")
    os.mkdir(mount / "d")
    assert not os.path.exists(mount / "d/.latchfs")


@pytest.mark.parametrize("options", ["", "default_permissions", "names=always", "open=lock"])
def test_nothing_can_be_changed(lab, options):
    """No name can be made, removed, written, locked or given attributes, by root either."""
    mount = lab.mount(options)
    who = lab.agent()
    for name in (".latchfs/new", ".latchfs/status/new", ".latchfs/d/e"):
        assert who.error("take", mount / name) != 0
        assert who.error("mkdir", mount / name) != 0
        assert who.error("symlink", "t", mount / name) != 0
    for name in FILES:
        path = mount / f".latchfs/{name}"
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT):
            assert who.error("open", path, flags) in REFUSED
        assert who.error("open", path, os.O_RDWR | os.O_CREAT | os.O_EXCL) == errno.EEXIST
        for call in (("unlink", path), ("truncate", path, 0), ("chmod", path, 0o777),
                     ("chown", path, 1, 1), ("utime", path),
                     ("link", path, mount / ".latchfs/other"),
                     ("setxattr", path, "user.latchfs.break", b"7"),
                     ("removexattr", path, "user.latchfs.hold")):
            assert who.error(*call) in REFUSED
        assert who.error("link", path, mount / "other") != 0
        if options != "default_permissions":  # then the kernel answers, and root may do anything
            assert not who.access(path, os.W_OK)
        assert not who.access(path, os.X_OK)
        assert who.error("getxattr", path, "user.latchfs.holder") == errno.ENODATA
        assert who.listxattr(path) == []
        fd = who.open(path, os.O_RDONLY)
        assert who.error("flock", fd, fcntl.LOCK_SH | fcntl.LOCK_NB) == errno.EPERM
        assert who.error("control", fd, fcntl.F_SETLK, fcntl.F_RDLCK) == errno.EPERM
        who.flock(fd, fcntl.LOCK_UN)
        assert who.error("fsync", fd) == errno.EINVAL
        assert who.pread(fd, 1, 0)
        who.close(fd)
    for call in (("rmdir", mount / ".latchfs"), ("chmod", mount / ".latchfs", 0o777),
                 ("setxattr", mount / ".latchfs", "user.latchfs.hold", b"name")):
        assert who.error(*call) in REFUSED
    assert lab.etcd.keys(f"{lab.prefix}/") == []
    assert sorted(os.listdir(mount / ".latchfs")) == FILES


def test_other_users_read_it(lab):
    """Whoever the kernel lets into the mount can read every file."""
    mount = lab.mount("allow_other")
    for uid in (ALICE, BOB):
        who = lab.agent(user=uid, group=uid, extra_groups=[])
        assert sorted(who.listdir(mount / ".latchfs")) == FILES
        for name in FILES:
            fd = who.open(mount / f".latchfs/{name}", os.O_RDONLY)
            assert who.read(fd, 1 << 20)
            assert who.error("open", mount / f".latchfs/{name}", os.O_RDWR) == errno.EACCES
        assert who.error("mkdir", mount / ".latchfs/d") in REFUSED


def test_what_is_open_stays_as_it_was(lab):
    """A descriptor reads one state, in pieces of any size, again and again; a new one the next."""
    mount = lab.mount()
    who = lab.agent()
    with open(mount / ".latchfs/status", "rb", buffering=0) as before:
        whole = before.read()
        who.take(mount / "x")
        before.seek(0)
        pieces = b"".join(iter(lambda: before.read(7), b""))
        assert pieces == whole
        assert before.read(7) == b""
        before.seek(1 << 40)
        assert before.read(7) == b""
    assert json.loads(whole)["counts"]["held"] == 0
    assert status(mount)["counts"]["held"] == 1


# What `status` says.


@pytest.mark.core
def test_status(lab):
    """Who the mount is, its store, its lease and its options."""
    mount = lab.mount("timeout=7,hold=name,max_claims=55", ttl=200)
    seen = status(mount)
    assert seen["state"] == "ok"
    assert seen["node"] == "host-m1" and seen["pid"] == mount.pid
    assert seen["source"] == mount.source and seen["mountpoint"] == str(mount.path)
    assert seen["version"] in support.checked(mount.binary, "--version")
    assert 0 <= seen["uptime_seconds"] < SOON
    store = seen["store"]
    assert store["kind"] == "etcd" and store["prefix"] == lab.prefix
    assert store["reachable"] and store["listening"] and store["last_error"] is None
    assert store["endpoints"] == [{"url": lab.etcd.url, "answers": True}]
    lease = seen["lease"]
    assert lease["state"] == "held" and int(lease["id"], 16) in lab.etcd.leases()
    assert lease["ttl_seconds"] == 200
    assert 180 - SOON < lease["lost_in_seconds"] <= 180
    assert 0 <= lease["renewed_seconds_ago"] < SOON
    options = seen["options"]
    assert options["ttl"] == 200 and options["timeout"] == 7
    assert options["max_claims"] == 55 and options["max_content"] == 256
    assert options["hold"] == "name" and options["names"] == "held"
    assert options["login"] is False


def test_counts(lab):
    """Locks held and waited for, and what is open."""
    mount = lab.mount()
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    one.write(fd, b"12345")
    two.begin("take", mount / "x").await_waiting()
    wait_until(lambda: status(mount)["counts"]["waiting"] == 1, what="one waits")
    counts = status(mount)["counts"]
    assert counts["held"] == 1 and counts["lost"] == 0
    assert counts["content_bytes"] == 5
    assert counts["requests"] == 1  # the flock that waits
    assert counts["handles"] == 3  # two of x, and this file
    one.close(fd)
    two.finish()
    assert status(mount)["counts"]["waiting"] == 0


def test_names_are_quoted(lab):
    """What stands in options can't break the JSON."""
    mount = lab.mount('name=\u00e4"b\\\\c')
    assert status(mount)["node"] == '\u00e4"b\\c'


def test_no_secrets(bare_lab):
    """A password appears nowhere, and neither does where it is kept."""
    lab = bare_lab
    server = lab.own_etcd()
    server.etcdctl("user", "add", "root:hush-hush")
    server.etcdctl("user", "grant-role", "root", "root")
    server.etcdctl("auth", "enable")
    server.user = ("root", "hush-hush")
    secret = lab.scratch("hush-hush\n")
    secret.chmod(0o600)
    mount = lab.mount(f"user=root,password_file={secret}")
    assert status(mount)["options"]["login"] is True
    for name in FILES:
        assert "hush" not in text(mount, name) and str(secret) not in text(mount, name)


def test_capabilities(lab):
    """One word a line, each once."""
    words = text(lab.mount(), "capabilities").splitlines()
    assert "flock" in words and "status" in words
    assert len(set(words)) == len(words)
    assert all(word and word == "".join(word.split()) for word in words)


# While the store is away.


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_readable_while_the_store_is_down(bare_lab, how):
    """Reading goes on at once, and says what is wrong; and then that it is over."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=2").expect()
    assert status(mount)["state"] == "ok"
    server.pause() if how == "stopped" else server.kill()
    who = lab.agent()
    assert who.error("stat", mount / "x") == errno.EIO
    await_state(mount, "unreachable")
    watch = Stopwatch()
    seen = status(mount)
    text(mount, "capabilities")
    assert sorted(os.listdir(mount / ".latchfs")) == FILES
    assert watch.seconds < 1  # not the timeout, not even once
    assert not seen["store"]["reachable"]
    assert server.url in seen["store"]["last_error"]
    assert seen["store"]["endpoints"] == [{"url": server.url, "answers": False}]
    assert seen["lease"]["state"] == "held"
    server.resume() if how == "stopped" else server.start()
    await_state(mount, "ok")


def test_doubt_and_loss(bare_lab):
    """A lease in doubt, one that is lost, and the next."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1", ttl=4).expect()
    first = status(mount)["lease"]["id"]
    one = lab.agent()
    one.take(mount / "x")
    server.pause()
    await_state(mount, "doubtful")
    seen = status(mount)
    assert seen["lease"]["id"] == first and seen["lease"]["lost_in_seconds"] <= 2
    await_state(mount, "lost")
    seen = status(mount)
    assert seen["lease"] == {"state": "lost", "id": None}
    assert seen["counts"]["lost"] == 1 and seen["counts"]["held"] == 0
    server.resume()
    await_state(mount, "ok")
    assert status(mount)["lease"]["id"] not in (None, first)
