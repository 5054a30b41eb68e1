# SPDX-License-Identifier: MIT
"""A short run under valgrind: what the sanitizers do not see, and descriptors left open."""

import errno
import os
import re
import select
from fcntl import F_SETLKW, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH

import pytest

from mounting import PLAIN_BINARY, is_sanitized
from support import SOON, checked, run
from test_fcntl import F_OFD_SETLKW

RW = os.O_RDWR | os.O_CREAT
WAITS = [("flock", LOCK_EX), ("flock", LOCK_SH), ("control", F_SETLKW, F_WRLCK),
         ("control", F_OFD_SETLKW, F_WRLCK)]


@pytest.fixture
def watched(lab):
    """A mount whose daemon runs under valgrind, and what that reports: of the supervisor and who
    serves the mount, and of their other children."""
    if is_sanitized(PLAIN_BINARY):
        pytest.skip("valgrind needs a build without sanitizers")
    report = lab.base / "valgrind"
    words = ["valgrind", "--error-exitcode=99", "--leak-check=full", "--track-fds=yes",
             f"--log-file={report}.%p"]
    mount = lab.mount(binary=PLAIN_BINARY, wrapper=words)
    server = mount.server

    def reports():
        texts = {path.suffix: path.read_text(encoding="utf-8")
                 for path in lab.base.glob("valgrind.*")}
        return [texts.pop(f".{pid}") for pid in (mount.pid, server)], list(texts.values())

    return mount, reports


def contention(lab, mount):
    """Each way to lock, one granted after the other, some given up, one killed."""
    one, two, three = lab.agent(), lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    assert not two.attempt(mount / "x")
    assert two.error("open", mount / "x", RW | os.O_EXCL) == errno.EEXIST
    handle = two.open(mount / "x", RW)
    assert two.alarmed(0.5, "flock", handle, LOCK_EX) == "interrupted"
    three.begin("take", mount / "x")
    lab.await_keys("x", 2)
    three.kill()
    lab.await_keys("x", 1)
    for call, *arguments in WAITS:
        two.begin(call, handle, *arguments)
        lab.await_keys("x", 2)
        one.close(fd)
        two.finish()
        two.close(handle)
        lab.await_keys("x", 0)
        fd, handle = one.take(mount / "x"), two.open(mount / "x", RW)
    one.close(fd)


def files(lab, mount):
    """Content, records, attributes, directories, listings, a lock that an operator breaks."""
    one = lab.agent()
    os.makedirs(mount / "d/e")
    os.setxattr(mount / "d", "user.latchfs.names", b"always")
    fd = one.open(mount / "d/e/x", RW)
    one.flock(fd, LOCK_EX | LOCK_NB)
    one.write(fd, b"content")
    one.ftruncate(fd, 3)
    one.fsync(fd)
    assert mount.queue("d/e/x")[0]["pid"] == one.pid
    assert "d" in checked("ls", "-la", mount.path)
    one.begin("poll", fd, select.POLLPRI).await_waiting("poll")
    lab.etcd.delete(lab.keys("d/e/x")[0].name)
    assert one.finish() & select.POLLERR
    one.close(fd)
    assert run("rmdir", mount / "d").returncode == 1
    os.rmdir(mount / "d/e")
    os.rmdir(mount / "d")


def test_valgrind_finds_nothing(lab, watched):
    """Every kind of lock, contention, a loss, files, and the end: no error, no leak, no file."""
    mount, reports = watched
    mount.expect()
    contention(lab, mount)
    files(lab, mount)
    lab.agent().take(mount / "left")
    mount.stop()
    said, of_children = reports()
    # The helper that looks at processes is killed: it leaves no summary, but what was wrong before.
    killed = [text for text in of_children if "ERROR SUMMARY" not in text]
    assert len(killed) <= 1 and not any(" at 0x" in text for text in killed), killed
    for text in *said, *(text for text in of_children if text not in killed):
        assert "ERROR SUMMARY: 0 errors from 0 contexts" in text, text
    # The log itself, and whatever we were started with, are inherited.
    for text in said:
        lines = re.sub(r"^==\d+== *", "", text, flags=re.M).splitlines()
        places = [number for number, line in enumerate(lines) if re.match(r"Open .*:", line)]
        leaked = [lines[number:number + 5] for number in places
                  if "<inherited from parent>" not in lines[number + 1]]
        assert places and not leaked, leaked
