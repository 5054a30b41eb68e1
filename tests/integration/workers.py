# SPDX-License-Identifier: MIT
"""The suite in several processes at once (pytest -n, Debian's python3-pytest-xdist).

Most tests wait rather than compute.  Each process has labs, servers and ports of its own; what
they share is here: a place for what is built only once, the kernel's list of FUSE connections, in
which order tests are begun, the mark `alone` for those that mind company, and an end which leaves
nothing behind.  All of it works in a suite of one process too.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

import mounting
import support

# For what a worker is in the middle of when the suite is interrupted.
LAST_TEST = 120


class Locked:
    """A file that processes lock, given back when they end, however they do."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="ascii")

    @contextlib.contextmanager
    def held(self, how=fcntl.LOCK_EX):
        """Waits for the lock and has it for a while."""
        fcntl.flock(self.file, how)
        try:
            yield
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)


class Suite:
    """What the processes of a suite share: a directory, and the locks in it."""

    def __init__(self, place):
        self.place = Path(place)
        self.door = Locked(self.place / "door")
        self.room = Locked(self.place / "room")

    def once(self, name, build):
        """Lets the first process that wants it build something in our place; its path."""
        target = self.place / name
        done = self.place / f"{name}.done"
        with Locked(self.place / f"{name}.lock").held():
            if not done.exists():
                build(target)
                done.touch()
        return target

    @contextlib.contextmanager
    def company(self, alone):
        """While a test runs: waits until no other one minds it.

        Who wants to be alone keeps the door shut until the room is empty; otherwise it would never
        be, since there is always somebody who comes in before the last one leaves.
        """
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with contextlib.ExitStack() as stack:
            with self.door.held(how):
                stack.enter_context(self.room.held(how))
                if alone:
                    yield
            if not alone:
                yield

    @contextlib.contextmanager
    def worker(self):
        """While this process is one."""
        path = self.place / f"worker.{os.getpid()}"
        path.touch()
        yield
        path.unlink()

    def interrupt_workers(self):
        """Lets the workers end what they are in, for as long as that may take."""
        end = time.monotonic() + LAST_TEST
        for pid in self.working():
            os.kill(pid, signal.SIGTERM)
        while self.working() and time.monotonic() < end:
            time.sleep(0.05)

    def working(self):
        """The workers which have not ended."""
        numbers = [int(path.suffix[1:]) for path in self.place.glob("worker.*")]
        return [pid for pid in numbers if not support.gone(pid)]


class Plugin:
    """What pytest and pytest-xdist tell us, in the first process and in the workers."""

    def __init__(self, config):
        self.is_first = not hasattr(config, "workerinput")
        self.suite = None
        self.ends = contextlib.ExitStack()

    def pytest_configure(self, config):
        """Our marks."""
        config.addinivalue_line("markers", "alone: no other test runs at the same time")
        config.addinivalue_line("markers", "first: takes so long that it is begun before all others")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session):
        """The first process makes what all share, before it starts the others."""
        if self.is_first:
            place = tempfile.mkdtemp(prefix="latchfs-suite-")
            os.chmod(place, 0o755)
            self.ends.callback(shutil.rmtree, place)
            self.ends.enter_context(fuse_connections())
            self.suite = Suite(place)
        else:
            self.suite = Suite(session.config.workerinput["latchfs_suite"])
            self.ends.enter_context(self.suite.worker())
            signal.signal(signal.SIGINT, interrupt_once)
        signal.signal(signal.SIGTERM, interrupt_once)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        """Tells a worker where to find what all share."""
        node.workerinput["latchfs_suite"] = str(self.suite.place)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self):
        """Ends the tests of the workers, who would otherwise be killed in the middle of one."""
        if self.is_first:
            self.suite.interrupt_workers()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config, log):
        """Who gives the tests to the workers."""
        return one_by_one(config, log) if config.getvalue("dist") == "load" else None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """The others go on beside what is marked `first`, and are through when one wants to be alone."""
        items.sort(key=lambda item: (item.get_closest_marker("first") is None,
                                     item.get_closest_marker("alone") is not None))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self):
        """The end of each process."""
        self.ends.close()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        """A test, with its setup and its end."""
        with self.suite.company(item.get_closest_marker("alone")):
            yield


def one_by_one(config, log):
    """Gives a worker its next test when it begins one; xdist's own gives it dozens in advance."""
    from xdist.scheduler.load import LoadScheduling  # only xdist asks for it

    class OneByOne(LoadScheduling):
        """The same with no more than what a worker needs."""

        def _send_tests(self, node, num):
            super()._send_tests(node, max(0, min(num, 2 - len(self.node2pending[node]))))

    return OneByOne(config, log)


def interrupt_once(number, frame):
    """What means the whole suite reaches a worker from its first process too: it is meant once."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: None)
    raise KeyboardInterrupt


@contextlib.contextmanager
def fuse_connections():
    """The kernel's list of connections is there, also on a machine which has not mounted it."""
    path = mounting.CONNECTIONS
    ours = not any(path.iterdir()) and str(path) not in support.mounts()
    if ours:
        support.run("mount", "-t", "fusectl", "none", path)
    yield
    if ours:
        support.run("umount", path)
