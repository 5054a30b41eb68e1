# SPDX-License-Identifier: MIT
"""Attackers who plant a symbolic link where root locks: no name of a mount leads to another file."""

import ctypes
import errno
import json
import os
import shlex
import signal
import stat
from pathlib import Path

import pytest

from children import Agent
from containers import attempt
from support import SOON, checked, gone, mounts, run, wait_until
from test_invocation import (  # pylint: disable=unused-import
    background, installed, place, source,
)
from test_permissions import BOB
from test_plain_user import AS_NOBODY, device, theirs  # fixtures  # pylint: disable=unused-import
from test_podman import nodes, podman  # fixtures  # pylint: disable=unused-import

# What root does with the name $1, expecting a lock.
COMMANDS = [
    'flock -n "$1" true', 'flock -n -s "$1" true', 'exec 9>"$1"', 'exec 9>>"$1"', 'exec 9<>"$1"',
    'exec 9<"$1"', 'set -C; echo 1 >"$1"', 'echo 1 >"$1"', 'truncate -s 0 "$1"', 'touch "$1"',
    'cp /etc/hostname "$1"', 'dd if=/dev/zero of="$1" count=1', 'chmod 666 "$1"', 'chown 1 "$1"',
    'cat "$1"', 'stat -L "$1"', 'setfattr -n user.x -v y "$1"', 'sh "$1"', '"$1"', 'test -e "$1"',
    'mkdir "$1"', 'mkdir "$1/made"', 'touch "$1/made"', 'flock -n "$1/made" true', 'cd "$1"',
    'mv "$2" "$1/"', 'ln "$2" "$1/made"', 'ln -s x "$1/made"', 'rm "$1/kept"', 'rmdir "$1/."',
    'mv "$1/kept" "$1/moved"', 'ls "$1/"', 'setlock -n "$1" true', 'lckdo "$1" true',
]
MS_REMOUNT, MS_BIND = 32, 4096


class Victim:
    """Files of root's, in a directory that nobody else may enter."""

    def __init__(self, base):
        self.base = base / "roots"
        self.base.mkdir(0o700)
        (self.base / "file").write_text("#!/bin/sh\n", encoding="ascii")
        (self.base / "directory").mkdir()
        (self.base / "directory/kept").touch()
        self.before = self.look()

    def look(self):
        """Everything there is to see."""
        found = {}
        for path in sorted(self.base.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = status.st_mode, status.st_uid, status.st_mtime_ns, content
        return found

    def targets(self, mount):
        """Texts of links that lead there, each as bob would write it."""
        relative = os.path.relpath(self.base, mount.path / "batch")
        return {"file": f"{self.base}/file", "dangling": f"{self.base}/made",
                "directory": f"{self.base}/directory", "relative": f"{relative}/file",
                "relative_directory": f"{relative}/directory", "root": "/", "proc": "/proc/self/fd/9"}


def plant_by_symlink(mount, targets):
    """Bob, in a directory of his own; and a chain of links."""
    bob = Agent(user=BOB, group=BOB, extra_groups=[])
    try:
        bob.mkdir(mount / "batch")
        bob.setxattr(mount / "batch", "user.latchfs.hold", b"name")
        for name, text in targets.items():
            bob.symlink(text, mount / f"batch/{name}")
        bob.symlink("directory", mount / "batch/chain")
    finally:
        bob.destroy()


def plant_by_key(lab, targets):
    """Somebody who may write below the prefix, in root's name."""
    record = {"v": 1, "host": "web9", "pid": 1, "uid": 0, "gid": 0, "command": "cron"}
    for name, text in {**targets, "chain": "directory"}.items():
        lab.etcd.put(f"{lab.prefix}/batch/{name}/l-1234.1", json.dumps({**record, "symlink": text}))


def script(paths, spare):
    """One shell that tries every command on every name, and prints what did not fail."""
    lines = [f"try {shlex.quote(command)} {shlex.quote(str(path))}"
             for path in paths for command in COMMANDS]
    return "\n".join([
        'try() { (set -- "$2" "$spare" "$1"; eval "$3") >/dev/null 2>&1 </dev/null &&'
        ' echo "$1: $2"; }', f"spare={shlex.quote(str(spare))}", *lines, "true"])


@pytest.fixture
def victim(lab):
    """What is attacked."""
    return Victim(lab.base)


@pytest.fixture(params=["symlink", "key"])
def planted(request, lab, victim):
    """A mount with links in it, and their texts."""
    mount = lab.mount("allow_other")
    targets = victim.targets(mount)
    if request.param == "symlink":
        plant_by_symlink(mount, targets)
    else:
        plant_by_key(lab, targets)
    return mount, {**targets, "chain": "directory"}


def check_that_nothing_is_led_astray(where, targets, victim, spare):
    """No command of root's does anything to what the links name, and their texts can be read."""
    done = checked("bash", "-c", script([f"{where}/batch/{name}" for name in targets], spare),
                   timeout=80)
    assert done == ""
    assert victim.look() == victim.before
    for name, text in targets.items():
        path = f"{where}/batch/{name}"
        assert os.readlink(path) == text
        assert stat.S_ISLNK(os.lstat(path).st_mode)
        for flags in os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT, os.O_PATH:
            for more in 0, os.O_NOFOLLOW:
                if flags == os.O_PATH and more:
                    continue
                with pytest.raises(OSError) as caught:
                    os.close(os.open(path, flags | more))
                assert caught.value.errno == errno.ELOOP
        with pytest.raises(FileExistsError):
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def test_root_is_not_led_astray(lab, planted, victim):
    """Whoever has planted the link, with whichever text, and whatever root does with its name."""
    mount, targets = planted
    assert "nosymfollow" in flags_of(mount)
    check_that_nothing_is_led_astray(mount, targets, victim, lab.scratch("spare"))


def flags_of(path, table="/proc/self/mountinfo"):
    """The flags of what is mounted there."""
    for line in reversed(Path(table).read_text(encoding="utf-8").splitlines()):
        words = line.split()
        if words[4] == str(path):
            return words[5].split(",")
    return []


def test_nor_through_a_mount_without_the_flag(lab, planted, victim):
    """Those who mount it once more, with flags of their own, as container engines do."""
    mount, targets = planted
    elsewhere = lab.base / "elsewhere"
    elsewhere.mkdir()
    checked("mount", "--bind", mount, elsewhere)
    try:
        assert "nosymfollow" in flags_of(elsewhere), "a bind mount has the flags of the first"
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(None, os.fsencode(elsewhere), None, MS_REMOUNT | MS_BIND, None) == 0
        assert "nosymfollow" not in flags_of(elsewhere)
        check_that_nothing_is_led_astray(elsewhere, targets, victim, lab.scratch("spare"))
    finally:
        checked("umount", "-l", elsewhere)


def test_nor_in_a_container(lab, nodes, podman, victim):
    """Its root neither: the engine leaves the mount's flag out."""
    a, _ = nodes
    plant_by_symlink(a, {"made": "/tmp/made", "known": "/etc/hosts"})
    words = podman.run("-v", f"{a}:/locks")
    assert attempt(words, "free")
    for name in "made", "known":
        text = checked(*podman.run("-v", f"{a}:/locks"), "bash", "-c",
                       f"readlink /locks/batch/{name}\n" + script([f"/locks/batch/{name}"], "/x"))
        assert text == {"made": "/tmp/made\n", "known": "/etc/hosts\n"}[name]
    assert not (podman.root / "tmp/made").exists()
    assert victim.look() == victim.before


def test_no_copy_is_ever_without_the_flag(lab, shared):
    """What appears in another mount namespace, by itself, has it too."""
    other = lab.agent(wrapper=["unshare", "-m", "--propagation", "slave"])
    mount = lab.mount(name="shared/locks", start=False)
    mount.path.mkdir()
    mount.start()
    assert "nosymfollow" in flags_of(mount, f"/proc/{other.pid}/mountinfo")
    lab.agent().take(mount / "x")


def test_after_another_process_goes_on(lab, victim):
    """The next worker, and the next program, show links and lead nobody along them."""
    mount = lab.mount("allow_other").expect("another one goes on")
    targets = victim.targets(mount)
    plant_by_symlink(mount, targets)
    for number in signal.SIGKILL, signal.SIGUSR1:
        server = mount.server
        if number == signal.SIGKILL:
            mount.kill_server()
        else:
            mount.signal(number)
        wait_until(lambda: mount.server not in (None, server), SOON, "another one goes on")
        wait_until(lambda: os.readlink(mount / "batch/file") == targets["file"], SOON)
        assert run("flock", "-n", mount / "batch/dangling", "true").returncode != 0
        bob = lab.agent(user=BOB, group=BOB, extra_groups=[])
        bob.symlink("t", mount / f"batch/{number}")
    check_that_nothing_is_led_astray(mount, targets, victim, lab.scratch("spare"))


@pytest.mark.parametrize("options", [
    "", "noatime,nosuid", "ro", "default_permissions", "allow_root",
])
def test_flags_of_every_mount(lab, place, background, installed, options):
    """By mount(8), with whichever other flags; those are as they were said."""
    words = ",".join(filter(None, ["ttl=60", options]))
    done = run("mount", "-t", "fuse.latchfs", "-o", words, source(lab), place, env=installed)
    assert done.returncode == 0, done
    flags = flags_of(place)
    assert "nosymfollow" in flags
    for flag in "noatime", "ro", "nosuid":
        assert (flag in flags) == (flag in options.split(","))
    assert mounts()[str(place)][1] == "fuse.latchfs"
    pid = background()
    checked("umount", place)
    wait_until(lambda: gone(pid), SOON)


def test_user_mounts_have_no_links(lab, theirs):
    """fusermount3 can't forbid to follow them: none is made, and a foreign one is a held lock."""
    wait_until(lambda: "no lock can be a symbolic link here" in theirs.log())
    user = lab.agent(wrapper=AS_NOBODY)
    user.mkdir(theirs / "batch")
    user.setxattr(theirs / "batch", "user.latchfs.hold", b"name")
    assert user.error("symlink", "/etc/passwd", theirs / "batch/x") == errno.EPERM
    plant_by_key(lab, {"y": "/etc/passwd"})
    assert stat.S_ISREG(user.lstat(theirs / "batch/y").st_mode)
    assert user.error("readlink", theirs / "batch/y") == errno.EINVAL
    fd = user.open(theirs / "batch/y", os.O_RDWR | os.O_CREAT)
    assert not stat.S_ISLNK(user.fstat(fd).st_mode)
    assert user.error("open", theirs / "batch/y", os.O_RDWR | os.O_CREAT | os.O_EXCL) == \
        errno.EEXIST
    assert user.error("flock", fd, 6) == errno.EWOULDBLOCK
