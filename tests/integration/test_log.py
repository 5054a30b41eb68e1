# SPDX-License-Identifier: MIT
"""A log that nobody reads: nobody waits for it, and what is missing in it is said."""

import fcntl
import json
import os
import pty
import pwd
import re
import select
import signal
import socket
import tty
from pathlib import Path

import pytest

from mounting import BINARY, SANITIZER, clean_environment
from support import LONG, SOON, checked, gone, mounts, stuff, wait_until
from test_permissions import daemon_of

NOBODY = pwd.getpwnam("nobody").pw_uid
LOST = re.compile(r"latchfs: warning: (\d+) lines of the log were lost")


class Output:
    """What a daemon writes its log to, of a kind, and a reader who reads only if he is told to."""

    def __init__(self, lab, kind):
        self.kind = kind
        self.text = ""
        self.other = None
        if kind == "pipe":
            self.reader, self.writer = os.pipe()
        elif kind == "fifo":
            path = lab.base / "fifo"
            os.mkfifo(path)
            self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self.writer = os.open(path, os.O_WRONLY)
        elif kind == "terminal":
            self.reader, self.writer = pty.openpty()
            tty.setraw(self.writer)
        else:
            ours, theirs = socket.socketpair()
            self.reader, self.writer = ours.detach(), theirs.detach()
        os.set_blocking(self.reader, False)

    def read(self):
        """All that is there."""
        while select.select([self.reader], [], [], 0)[0]:
            data = os.read(self.reader, 1 << 16)
            if not data:
                break
            self.text += data.decode(errors="replace")
        return self.text

    def lost(self):
        """How many lines it is said to lack by now."""
        return sum(int(number) for number in LOST.findall(self.read()))

    def close(self):
        """The end."""
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture(params=["pipe", "fifo", "terminal", "socket"])
def output(request, lab):
    """One of a kind."""
    output = Output(lab, request.param)
    yield output
    output.close()


def fill(mount, times=500):
    """Makes a daemon that traces say far more than any kind takes, and is answered all the time."""
    for _ in range(times):
        assert os.path.ismount(mount.path) and not os.path.exists(mount / "none")


def is_as_read(lab, mount, output):
    """What nobody reads holds nobody up; who reads later learns what is missing."""
    other = lab.mount()
    one, two = lab.agent(), lab.agent()
    fill(mount)
    fd = one.take(mount / "x")
    two.begin("take", other / "x")
    lab.await_keys("x", 2)
    one.close(fd)
    two.finish()
    wait_until(lambda: fill(mount, 1) or output.lost() > 100, what="it says what was lost")
    assert not SANITIZER.search(output.text)
    # Each line is whole, or is followed by a line that begins anew.
    assert not re.search(r".latchfs: warning: \d+ lines", output.text)


def test_nobody_reads(lab, output):
    """A pipe, a fifo, a terminal, a socket: the flags of what is shared with others stay."""
    mount = lab.mount(words=["-d"], start=False)
    mount.output = output.writer
    mount.start()
    is_as_read(lab, mount, output)
    assert not fcntl.fcntl(output.writer, fcntl.F_GETFL) & os.O_NONBLOCK
    fill(mount)
    mount.signal(signal.SIGTERM)
    assert mount.wait_exit(SOON) == 0
    assert not mount.mounted()


@pytest.mark.parametrize("output", ["pipe", "terminal"], indirect=True)
def test_somebody_elses(lab, output):
    """The same if the daemon may not open it once more, because it is another user's."""
    os.fchmod(output.writer, 0o600)
    mount = lab.mount("allow_other", words=["-d"], start=False,
                      wrapper=daemon_of(NOBODY, NOBODY))
    mount.path.mkdir()
    os.chown(mount.path, NOBODY, NOBODY)
    mount.output = output.writer
    mount.start()
    is_as_read(lab, mount, output)
    fill(mount)
    mount.signal(signal.SIGTERM)
    assert mount.wait_exit(SOON) == 0


def test_the_reader_has_ended(lab):
    """The supervisor's lines, too, which nobody hears, end nothing."""
    reader, writer = os.pipe()
    mount = lab.mount(start=False)
    mount.output = writer
    mount.start()
    os.close(writer)
    one = lab.agent()
    fd = one.take(mount / "x")
    os.close(reader)
    for _ in range(2):
        server = mount.server
        mount.kill_server()
        wait_until(lambda server=server: mount.server not in (None, server))
        one.fsync(fd)


# In the namespace of a daemon the system's log is a socket of the test's.
OWN_LOG = """
set -e
for node in null zero random urandom fuse; do
	touch "$0/$node"; mount --bind "/dev/$node" "$0/$node"
done
ln -s /proc/self/fd "$0/fd"
mount --make-private /
mount --rbind "$0" /dev
exec "$@"
"""


@pytest.fixture
def system_log(lab):
    """Who listens at /dev/log, and the words before a command for which that is so."""
    (lab.base / "dev").mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(lab.base / "dev/log"))
    listener.setblocking(False)
    stuff(str(lab.base / "dev/log"))
    yield listener, ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", OWN_LOG,
                     lab.base / "dev"]
    listener.close()


def test_the_system_log_is_stuck(lab, shared, system_log):
    """In the background, with a log daemon that takes nothing any more."""
    listener, words = system_log
    path = shared / "own"
    path.mkdir()
    source = f"{lab.etcd.url}{lab.prefix}"
    checked(*words, BINARY, "-o", f"ttl={LONG}", source, path, env=clean_environment())
    server = json.loads((path / ".latchfs/status").read_text(encoding="utf-8"))["pid"]
    stat = Path(f"/proc/{server}/stat").read_text("ascii")
    supervisor = int(stat.rpartition(")")[2].split()[1])
    one = lab.agent()
    text = []

    def provoke():
        one.close(one.open(path / "made", os.O_RDWR | os.O_CREAT | os.O_EXCL))
        for name in ("taken", "again"):
            fd = one.open(path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            token = os.getxattr(path / name, "user.latchfs.holder")
            os.setxattr(path / name, "user.latchfs.break",
                        str(json.loads(token)["token"]).encode())
            wait_until(lambda fd=fd: one.error("pread", fd, 10, 0) != 0)
            one.close(fd)

    def read():
        while select.select([listener], [], [], 0)[0]:
            text.append(listener.recv(1 << 16).decode())
        return LOST.search("".join(text).replace(f"latchfs[{server}]", "latchfs"))

    try:
        for _ in range(5):
            provoke()
        wait_until(lambda: provoke() or read(), what="it says what was lost")
        lines = [line for line in text if "lines of the log were lost" in line]
        assert re.fullmatch(r"<28>\w{3} [ \d]\d \d\d:\d\d:\d\d latchfs\[\d+\]: .*\0", lines[0])
    finally:
        os.kill(supervisor, signal.SIGTERM)
        wait_until(lambda: gone(supervisor) and str(path) not in mounts(), SOON)


def test_lines_that_users_cause(lab):
    """So many a minute, of each user; how many more there were is said."""
    mount = lab.mount("allow_other")
    one, two = lab.agent(), lab.agent(user=NOBODY, group=NOBODY, extra_groups=[])
    line = "can't be made a link of"
    for who, count in ((one, 200), (two, 1)):
        name = mount / f"file{who.pid}"
        fd = who.open(name, os.O_RDWR | os.O_CREAT)
        who.flock(fd, fcntl.LOCK_EX)
        for number in range(count):
            assert who.error("link", name, f"{name}.{number}") != 0
    lines = [text for text in mount.log().splitlines() if line in text]
    assert 10 <= len(lines) < 100 and f"file{two.pid}." in lines[-1]
