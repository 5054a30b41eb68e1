# SPDX-License-Identifier: MIT
"""latchfs as a service of systemd: what it says on NOTIFY_SOCKET, and what is kept for it."""

import errno
import fcntl
import os
import select
import signal
import socket

import pytest

from mounting import BINARY
from support import SOON, process_state, run, stuff, wait_until
from test_standing_still import renewed

PERIOD = 0.3  # of the watchdog; far less than any test waits


class Manager:
    """The socket on which systemd listens, what was said there, and what it keeps."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.said = []
        self.kept = {}  # descriptors, by their names

    def listen(self):
        """Takes what has come; returns all of it."""
        while select.select([self.socket], [], [], 0)[0]:
            text, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            lines = text.decode().splitlines()
            self.said += lines
            self.keep(lines, fds)
        return self.said

    def keep(self, lines, fds):
        """Keeps a descriptor that came, or does so no longer; a barrier is just to be closed."""
        name = dict(line.split("=", 1) for line in lines).get("FDNAME")
        if "FDSTORE=1" in lines:
            self.kept[name] = fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, 50)
        elif "FDSTOREREMOVE=1" in lines and name in self.kept:
            os.close(self.kept.pop(name))
        for fd in fds:
            os.close(fd)

    def launch(self, mount):
        """Starts the daemon again, with what is kept for it."""
        numbers = enumerate(self.kept.values(), 3)
        redirections = " ".join(f"{number}<&{fd}-" for number, fd in numbers)
        mount.passed = list(self.kept.values())
        mount.wrapper = ["bash", "-c", f"LISTEN_PID=$$ LISTEN_FDS={len(self.kept)} "
                         f"LISTEN_FDNAMES={':'.join(self.kept)} exec \"$@\" {redirections}", "bash"]
        mount.launch()

    def close(self):
        """Ends it."""
        self.socket.close()
        for fd in self.kept.values():
            os.close(fd)

    def count(self, word):
        """How often a line was said."""
        return self.listen().count(word)

    def hears(self, word, times=1):
        """Waits for a line."""
        wait_until(lambda: self.count(word) >= times, SOON, f"{word} is said")


@pytest.fixture
def manager(bare_lab):
    """A listening manager."""
    if "libsystemd" not in run("ldd", BINARY).stdout:
        pytest.skip("built without libsystemd")
    manager = Manager(bare_lab.base / "notify")
    yield manager
    manager.close()


def environment(manager, **extra):
    """What systemd gives a service with a watchdog."""
    return {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": str(int(PERIOD * 1e6)), **extra}


@pytest.fixture
def server(bare_lab):
    """An etcd that may be hurt."""
    return bare_lab.own_etcd()


def test_life_of_a_service(bare_lab, server, manager):
    """Ready with a status when it is mounted, signs of life from then on, and the end."""
    mount = bare_lab.mount(environment=environment(manager))
    manager.hears("READY=1")
    assert mount.mounted()
    assert f"STATUS={mount.source}" in manager.said
    manager.hears("WATCHDOG=1", 5)
    assert manager.said.index("READY=1") < manager.said.index("WATCHDOG=1")
    mount.stop()
    assert manager.count("STOPPING=1") == 1 and manager.count("READY=1") == 1


def test_signs_of_life_come_from_the_loop(bare_lab, server, manager):
    """A daemon that stands still gives none; it goes on when it does."""
    mount = bare_lab.mount(environment=environment(manager))
    manager.hears("WATCHDOG=1")
    mount.pause()
    before = manager.count("WATCHDOG=1")
    assert not select.select([manager.socket], [], [], 2 * PERIOD)[0]
    mount.resume()
    manager.hears("WATCHDOG=1", before + 2)


def test_a_manager_that_stands_still(bare_lab, server, manager):
    """Its queue is full: nobody waits for it."""
    mount = bare_lab.mount(ttl=2, environment=environment(manager)).expect()
    manager.hears("WATCHDOG=1")
    stuff(manager.path)
    count = renewed(mount)
    wait_until(lambda: renewed(mount) > count + 4, what="it goes on for a while")
    before = manager.count("WATCHDOG=1")
    manager.hears("WATCHDOG=1", before + 2)


def test_signs_of_life_while_it_ends(bare_lab, server, manager):
    """systemd must not kill one that gives its locks back to a slow store."""
    mount = bare_lab.mount("timeout=20", environment=environment(manager)).expect()
    bare_lab.agent().take(mount / "x")
    manager.hears("WATCHDOG=1")
    server.pause()
    wait_until(lambda: process_state(server.process.pid) == "T", what="etcd stands still")
    mount.signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    manager.hears("WATCHDOG=1", manager.count("WATCHDOG=1") + 3)
    assert mount.alive()
    server.resume()
    assert mount.wait_exit(SOON) == 0


@pytest.mark.parametrize("extra", [{"WATCHDOG_USEC": ""}, {"WATCHDOG_PID": str(os.getpid())}])
def test_no_watchdog(bare_lab, server, manager, extra):
    """Nobody waits for signs of life, or not for this process's: there are none."""
    mount = bare_lab.mount(environment=environment(manager, **extra))
    manager.hears("READY=1")
    mount.stop()
    assert manager.count("STOPPING=1") == 1 and manager.count("WATCHDOG=1") == 0


@pytest.fixture
def left(lab, manager):
    """A mount whose daemon has left it to the manager, one who holds x and one who waits for it."""
    mount = lab.mount(environment={"NOTIFY_SOCKET": manager.path}, ttl=5)
    manager.hears("READY=1")
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    waiting = two.open(mount / "x", os.O_RDWR)
    two.begin("flock", waiting, fcntl.LOCK_EX)
    lab.await_keys("x", 2)
    mount.signal(signal.SIGUSR2)
    manager.hears("FDSTORE=1", 3)
    wait_until(lambda: manager.listen() and mount.process.poll() is not None, what="it leaves")
    assert mount.process.returncode == 0 and mount.mounted()
    yield mount, (one, fd), two
    two.kill()


def test_kept_by_the_manager(lab, manager, left):
    """The next daemon goes on, with what was asked meanwhile too; then nothing is kept any more."""
    mount, (one, fd), two = left
    new = lab.agent()
    new.begin("take", mount / "y")
    new.await_waiting("open")
    manager.launch(mount)
    manager.hears("READY=1", 2)
    assert not manager.kept
    new.finish()
    one.fsync(fd)
    assert not two.ready()
    one.close(fd)
    two.finish()
    two.kill()
    mount.kill()
    wait_until(lambda: not mount.mounted(), SOON, "its reaper unmounts")


def begins_anew(manager, mount, one, fd, why):
    """The next daemon says that the locks are lost, and mounts anew."""
    mount.expect(why)
    manager.launch(mount)
    manager.hears("READY=1", 2)
    assert why in mount.log() and not manager.kept
    assert one.error("fsync", fd) == errno.ENOTCONN
    assert mount.mounted() and os.listdir(mount.path) is not None


def test_other_options_than_those_of_what_is_kept(lab, manager, left):
    """They can't be had with the same mount: the locks are lost, and free when the lease ends."""
    mount, (one, fd), two = left
    mount.options += ",names=always"
    begins_anew(manager, mount, one, fd, "what was mounted here before had other options")
    two.kill()
    lab.await_keys("x", 0)


@pytest.mark.parametrize("name, instead", [
    ("latchfs-device", None), ("latchfs-reaper", None), ("latchfs-ledger", None),
    ("latchfs-ledger", "/etc/passwd"),
])
def test_what_is_kept_is_of_no_use(manager, left, name, instead):
    """Something is missing, or is something else: the locks are lost, and that is told."""
    mount, (one, fd), _ = left
    os.close(manager.kept.pop(name))
    if name == "latchfs-reaper":
        wait_until(lambda: not mount.mounted(), SOON, "it unmounts")
    if instead:
        manager.kept[name] = os.open(instead, os.O_RDONLY)
    begins_anew(manager, mount, one, fd, "what was mounted here before is lost")


def test_unmounted_while_it_is_kept(manager, left):
    """Then it is mounted anew."""
    mount, (one, fd), _ = left
    assert mount.unmount("-z").returncode == 0
    begins_anew(manager, mount, one, fd, "is not there any more")


def test_nobody_goes_on(lab, manager, left):
    """Who holds a lock is told before another machine can get it, and the mount ends."""
    mount, (one, fd), _ = left
    one.begin("poll", fd, select.POLLPRI)
    one.await_waiting("poll")
    assert one.finish() & select.POLLERR
    assert len(lab.keys("x")) == 2
    assert one.error("fsync", fd) in (errno.ENOTCONN, errno.ECONNABORTED)
    wait_until(lambda: not mount.mounted(), SOON, "it is unmounted")
    lab.await_keys("x", 0)
    begins_anew(manager, mount, one, fd, "is not there any more")
