# SPDX-License-Identifier: MIT
"""latchfs as a service of systemd: what it says on NOTIFY_SOCKET."""

import os
import select
import signal
import socket

import pytest

from mounting import BINARY
from support import SOON, process_state, run, wait_until

PERIOD = 0.3  # of the watchdog; far less than any test waits


class Manager:
    """The socket on which systemd listens, and what was said there."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.said = []

    def listen(self):
        """Takes what has come; returns all of it."""
        while select.select([self.socket], [], [], 0)[0]:
            self.said += self.socket.recv(4096).decode().splitlines()
        return self.said

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
    manager.socket.close()


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
