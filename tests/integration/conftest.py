# SPDX-License-Identifier: MIT
"""Fixtures: a real etcd, mounts A and B standing for two machines, and processes to steer.

LATCHFS_BINARY         the daemon under test (default build/src/latchfs)
LATCHFS_PLAIN_BINARY   a build without sanitizers, for the tests that count (default: the same)
LATCHFS_ETCD           the server to test on (default: etcd)

`pytest -n 3` runs three tests at a time, see workers.py.

`pytest --reference` runs the tests marked `portable` on a local directory instead of mounts, to
see that they ask for what every file system does.
"""

import faulthandler
import functools
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import etcdserver
import mounting
import support
import workers
from children import Agent, Holder
from etcdserver import Certificates, Etcd
from mounting import Mount
from support import LONG, PROGRAMS, checked, wait_until
from wire import Wire

DEFAULT_LIMIT = 90
# Programs that tests need are built in the setup of the first one.
SETUP_LIMIT = 300


def pytest_addoption(parser):
    """Our own option."""
    parser.addoption("--reference", action="store_true", help="on a local directory")


def pytest_configure(config):
    """Our own marks, and what there is for several processes."""
    config.addinivalue_line("markers", "limit(seconds): how long the test may take")
    config.addinivalue_line("markers", "portable: holds on every local file system too")
    config.addinivalue_line("markers", "core: for every etcd that is supported")
    config.pluginmanager.register(workers.Plugin(config), "workers")


def pytest_report_header():
    """What is tested on."""
    return f"etcd: {etcdserver.etcd_version()}"


def pytest_collection_modifyitems(config, items):
    """With --reference only what is portable; without a daemon nothing can run."""
    if not config.getoption("--reference"):
        return
    skip = pytest.mark.skip(reason="says something that only latchfs promises")
    for item in items:
        if not item.get_closest_marker("portable"):
            item.add_marker(skip)


# Nothing may hang: not a test, not the process that runs them.


class OutOfTime(Exception):
    """A test took longer than its limit."""


class Watchdog:
    """Frees a process that is stuck in a mount, then interrupts it."""

    def __init__(self):
        self.labs = []
        self.fired = False

    def fire(self):
        """Runs in a thread of its own: the main one may sit in a call nobody can interrupt."""
        self.fired = True
        faulthandler.dump_traceback(file=sys.__stderr__)
        for lab in self.labs:
            lab.abort()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    def interrupted(self, number, frame):
        """In the main thread, once it runs again."""
        if self.fired:
            self.fired = False
            raise OutOfTime("the test took too long")

    def phase(self, seconds):
        """Watches over one phase of a test."""
        self.fired = False
        timer = threading.Timer(seconds, self.fire)
        timer.daemon = True
        timer.start()
        yield
        timer.cancel()


WATCHDOG = Watchdog()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    """Limits the setup."""
    yield from WATCHDOG.phase(SETUP_LIMIT)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Limits the test."""
    mark = item.get_closest_marker("limit")
    yield from WATCHDOG.phase(mark.args[0] if mark else DEFAULT_LIMIT)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    """Limits the teardown."""
    yield from WATCHDOG.phase(DEFAULT_LIMIT)


def pytest_sessionstart():
    """The signal the watchdog sends."""
    signal.signal(signal.SIGALRM, WATCHDOG.interrupted)


# What lasts for the whole session.


@pytest.fixture(scope="session")
def suite(pytestconfig):
    """What all processes of the suite share."""
    return pytestconfig.pluginmanager.get_plugin("workers").suite


@pytest.fixture(scope="session")
def base():
    """A directory every user may pass through, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="latchfs-test-"))
    path.chmod(0o755)
    yield path
    left = [mount for mount in support.mounts() if mount.startswith(f"{path}/")]
    assert not left, f"still mounted: {left}"
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def shared_etcd(base):
    """One server for all tests that do not hurt it."""
    server = Etcd(base, "shared")
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def programs(suite):
    """Our helper programs, built; a dictionary of paths."""

    def build(name, target):
        checked("gcc", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-pthread", "-o", target,
                PROGRAMS / f"{name}.c")

    return {name: suite.once(name, functools.partial(build, name))
            for name in ("queue", "cycles", "exclusion", "hoard")}


def build_go(suite, name):
    """A Go program, built with Debian's packages."""
    environment = {
        **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "",
        "GOCACHE": os.environ.get("LATCHFS_GOCACHE", str(suite.place / "gocache")),
    }

    def build(target):
        checked("/usr/bin/go", "build", "-o", target, PROGRAMS / f"{name}.go", env=environment,
                cwd=suite.place, timeout=SETUP_LIMIT)

    return suite.once(f"{name}-go", build)


@pytest.fixture(scope="session")
def go_mutex(suite):
    """A Go program that locks with concurrency.Mutex."""
    return build_go(suite, "mutex")


@pytest.fixture(scope="session")
def go_flock(suite):
    """A Go program that locks with the system call."""
    return [str(build_go(suite, "flock"))]


@pytest.fixture(scope="session")
def java_lock(suite):
    """The command that runs the Java program."""

    def build(target):
        checked("javac", "-d", target, PROGRAMS / "LockFile.java", timeout=SETUP_LIMIT)

    classes = suite.once("java", build)
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", str(classes), "LockFile"]


@pytest.fixture(scope="session")
def certificates(base):
    """A certificate authority and what it signed."""
    return Certificates(base / "tls")


# What each test gets.


class Lab:
    """Everything one test has started, and its end."""

    counter = itertools.count(1)

    def __init__(self, base, etcd):
        self.number = next(self.counter)
        self.base = base / f"t{self.number}"
        self.base.mkdir()
        self.base.chmod(0o755)
        self.etcd = etcd
        self.prefix = f"/test/{self.number}"
        self.mounts = []
        self.children = []
        self.servers = []
        self.wires = []
        self.files = itertools.count(1)

    def check(self):
        """Fails when a daemon complains or has ended."""
        for mount in self.mounts:
            mount.check()

    # Starting things.

    def mount(self, options="", *, url=None, prefix=None, name=None, start=True, ttl=LONG, **extra):
        """A mount of this test's prefix."""
        name = name or f"m{len(self.mounts) + 1}"
        words = [f"ttl={ttl}", f"name=host-{name}", *([options] if options else [])]
        source = f"{url or self.etcd.url}{self.prefix if prefix is None else prefix}"
        mount = Mount(source, self.base / name, ",".join(words), **extra)
        self.mounts.append(mount)
        return mount.start() if start else mount

    def agent(self, **options):
        """A process that does single calls."""
        agent = Agent(**options)
        self.children.append(agent)
        return agent

    def holder(self, *command, **options):
        """A program that says when it holds."""
        holder = Holder(command, **options)
        self.children.append(holder)
        return holder

    def own_etcd(self, **options):
        """A server this test may hurt; becomes the store of the mounts that follow."""
        server = Etcd(self.base, f"own{len(self.servers)}", **options)
        self.servers.append(server)
        self.etcd = server.start()
        return server

    def wire(self, etcd=None):
        """A wire to a server."""
        wire = Wire((etcd or self.etcd).port)
        self.wires.append(wire)
        return wire

    def scratch(self, text=""):
        """A local file with some text."""
        path = self.base / f"file{next(self.files)}"
        path.write_text(text, encoding="utf-8")
        return path

    # Looking at the store.

    def key(self, name):
        """What the keys of a lock start with."""
        return f"{self.prefix}/{name}/"

    def keys(self, name):
        """The keys of one lock, in queue order."""
        start = self.key(name)
        return [key for key in self.etcd.keys(start) if "/" not in key.name[len(start):]]

    def await_keys(self, name, count):
        """Waits until so many hold or wait for a lock, anywhere; their keys."""
        wait_until(lambda: len(self.keys(name)) == count, what=f"{count} keys of {name}")
        return self.keys(name)

    # The end.

    def abort(self):
        """From another thread: nobody may be stuck any longer."""
        for server in self.servers:
            if server.running():
                server.resume()
        for mount in self.mounts:
            if mount.process is not None and mount.process.poll() is None:
                mount.process.kill()
            mounting.abort_connection(mount.path)

    def finish(self):
        """Ends everything in an order in which it should end well, and tells what did not."""
        problems, interrupted = [], False
        for step in self.steps():
            try:
                step()
            except KeyboardInterrupt:
                interrupted = True
            except Exception as error:  # whatever it is, the other steps must still run
                problems.append(str(error))
        if interrupted:
            raise KeyboardInterrupt
        if not problems:
            shutil.rmtree(self.base, ignore_errors=False)
        return problems

    def steps(self):
        """What finish() does."""
        yield from (child.destroy for child in reversed(self.children))
        yield from (wire.mend for wire in self.wires)
        yield from (server.resume for server in self.servers if server.running())
        yield from (mount.stop for mount in self.mounts)
        yield from (mount.check for mount in self.mounts)
        yield from (mount.destroy for mount in self.mounts)
        yield self.sweep
        yield from (wire.close for wire in self.wires)
        yield from (server.remove for server in self.servers)


    def sweep(self):
        """Ends daemons in the background which a failed test has left."""
        inside = [path for path in support.mounts() if path.startswith(f"{self.base}/")]
        daemons = mounting.daemons_of(self.base)
        for pid in daemons:
            os.kill(pid, signal.SIGKILL)
        for path in inside:
            support.run("umount", "-l", path)
        assert not inside and not daemons, f"left behind: {inside} {daemons}"


def open_lab(base, etcd):
    """A lab that is watched and ended."""
    lab = Lab(base, etcd)
    WATCHDOG.labs.append(lab)
    support.watchers.append(lab.check)
    yield lab
    support.watchers.remove(lab.check)
    problems = lab.finish()
    WATCHDOG.labs.remove(lab)
    assert not problems, "\n".join(problems)


@pytest.fixture
def bare_lab(base):
    """A lab without a store yet."""
    yield from open_lab(base, None)


@pytest.fixture
def lab(base, shared_etcd):
    """A lab on the shared store, with a prefix nobody else uses."""
    yield from open_lab(base, shared_etcd)


@pytest.fixture
def shared(lab):
    """A directory of the machine whose mounts containers, and other users, see."""
    path = lab.base / "shared"
    path.mkdir()
    checked("mount", "--bind", path, path)
    checked("mount", "--make-shared", path)
    yield path
    for mount in lab.mounts:
        mount.stop()
    checked("umount", "-R", "-l", path)


class Pair:
    """Mounts A and B of one prefix."""

    def __init__(self, lab, options="", **extra):
        self.lab = lab
        self.a = lab.mount(options, name="a", **extra)
        self.b = lab.mount(options, name="b", **extra)

    def await_queue(self, name, count):
        """Waits until so many hold or wait for a lock."""
        self.lab.await_keys(name, count)

    def each(self):
        """A and B."""
        return self.a, self.b


class Directory:
    """A local directory that looks like a mount."""

    def __init__(self, path):
        self.path = path

    def __truediv__(self, name):
        return f"{self.path}/{name}"

    def __str__(self):
        return str(self.path)


class ReferencePair:
    """One local directory instead of two mounts."""

    def __init__(self, lab):
        self.lab = lab
        self.a = self.b = Directory(lab.base / "local")
        self.a.path.mkdir()

    def await_queue(self, name, count):
        """Waits until so many entries of /proc/locks are about a file."""
        inode = os.stat(self.a / name).st_ino

        def entries():
            text = Path("/proc/locks").read_text(encoding="ascii")
            return len(re.findall(rf"^.*:{inode} \d+ \S+$", text, re.M)) == count

        wait_until(entries, what=f"{count} locks of {name}")

    def each(self):
        """Twice the same."""
        return self.a, self.b


@pytest.fixture
def pair(request):
    """Mounts A and B; under --reference a local directory in their place."""
    if request.config.getoption("--reference"):
        return ReferencePair(request.getfixturevalue("bare_lab"))
    return Pair(request.getfixturevalue("lab"))


@pytest.fixture
def agent(pair):
    """Makes agents."""
    return pair.lab.agent


@pytest.fixture
def holder(pair):
    """Makes programs that hold."""
    return pair.lab.holder
