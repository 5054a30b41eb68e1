# SPDX-License-Identifier: MIT
"""The process that serves a mount does not die, but stands still."""

import errno
import os
import random
import select
import signal
import socket

import pytest

from mounting import PLAIN_BINARY
from support import PROGRAMS, SOON, checked, cpu_seconds, process_state, wait_until
from test_lockfiles import EXCL

RW = os.O_RDWR | os.O_CREAT
# A quarter of it is what it may stand still for, with room for a busy machine to go on from there.
TTL = 16
STOOD_STILL = "has stood still for|another one goes on|is in doubt|renewed again"


def ready(mount):
    """The same mount, when its supervisor knows that it is mounted and turns."""
    wait_until(lambda: "mounted at" in mount.log(), what="it is ready")
    os.stat(mount.path)
    return mount


def test_it_is_replaced(lab):
    """Before any lock is lost: who holds goes on to hold, who waits goes on to wait."""
    mount, other = ready(lab.mount(ttl=TTL).expect(STOOD_STILL)), lab.mount(ttl=TTL)
    one, two, three = (lab.agent() for _ in range(3))
    fd = one.take(mount / "x")
    for count, (agent, where) in enumerate(((two, mount), (three, other)), 2):
        agent.begin("take", where / "x")
        lab.await_keys("x", count)
    served = mount.stall()
    one.begin("fsync", fd)
    wait_until(lambda: mount.server not in (None, served), what="there is another one")
    one.finish()
    assert "stood still" in mount.log()
    assert not two.ready() and not three.ready()
    one.close(fd)
    two.close(two.finish())
    three.finish()


def test_it_spins(lab):
    """The same of one that has stood still again and again, each time at something else."""
    mount = ready(lab.mount(ttl=TTL).expect(STOOD_STILL))
    one = lab.agent()
    fd = one.take(mount / "x")
    for _ in range(3):
        served = mount.stall()
        wait_until(lambda served=served: mount.server not in (None, served))
        one.fsync(fd)
    assert mount.log().count("stood still") == 3


def test_the_machine_has_slept(lab):
    """Or all of the daemon was stopped: the worker is given its time to turn, and is not killed."""
    mount = ready(lab.mount(ttl=4).expect("lease|was lost"))
    one = lab.agent()
    fd = one.take(mount / "x")
    served = mount.server
    mount.pause()
    lab.await_keys("x", 0)  # which is far longer than a quarter of the TTL
    os.kill(mount.pid, signal.SIGCONT)
    before = cpu_seconds(mount.pid)
    wait_until(lambda: process_state(mount.pid) == "S" and cpu_seconds(mount.pid) >= before)
    mount.resume()
    wait_until(lambda: one.error("pread", fd, 10, 0) == errno.EIO)
    assert mount.server == served and "stood still" not in mount.log()


def test_a_slow_supervisor(lab):
    """It stands still over and over, each time longer than the worker may: that says nothing."""
    mount = ready(lab.mount(ttl=4))
    served = mount.server
    one = lab.agent()
    for _ in range(3):
        mount.stall(mount.pid)
        fd = one.take(mount / "x")
        renewals = renewed(mount)
        wait_until(lambda renewals=renewals: renewed(mount) >= renewals + 2, what="time passes")
        mount.resume()
        one.close(fd)
    assert mount.server == served and "stood still" not in mount.log()


def renewed(mount):
    """How often its lease was renewed."""
    with open(mount / ".latchfs/metrics", encoding="utf-8") as file:
        for line in file:
            if line.startswith("latchfs_lease_renewals_total"):
                return float(line.split()[-1])
    raise AssertionError("no such metric")


def test_sigterm_is_for_the_next_one(lab):
    """One that stands still can't give anything back; the one that takes its place does."""
    mount = ready(lab.mount(ttl=TTL).expect(STOOD_STILL))
    one = lab.agent()
    one.take(mount / "x")
    mount.stall()
    mount.signal(signal.SIGTERM)
    assert mount.wait_exit() == 0
    assert not mount.mounted() and not lab.keys("x")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_all(lab, number):
    """Long before the worker would be replaced; all who use the mount are told."""
    mount = ready(lab.mount().expect("does not end: it is killed"))
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    two.begin("take", mount / "x")
    lab.await_keys("x", 2)
    mount.stall()

    def end():
        if mount.alive():
            mount.signal(number)
        return not mount.alive()

    mount.expected_exit = 1
    wait_until(end, SOON, "it ends")
    assert mount.process.returncode == 1
    wait_until(lambda: not mount.mounted(), SOON)
    assert one.error("pread", fd, 10, 0) == errno.ENOTCONN
    with pytest.raises(OSError):
        two.finish(SOON)


def test_twice_the_same_signal(lab):
    """One key press or one stop of a service may come several times."""
    mount = ready(lab.mount())
    one = lab.agent()
    one.take(mount / "x")
    for _ in range(5):
        os.killpg(mount.pid, signal.SIGINT)
    assert mount.wait_exit() == 0
    assert not mount.mounted() and not lab.keys("x")


@pytest.fixture
def deadly(lab, suite):
    """A mount whose process stands still at whatever a process asks; that has to be told."""

    def build(target):
        checked("gcc", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", target,
                PROGRAMS / "stall.c", "-ldl")

    victim = lab.scratch()
    mount = lab.mount(ttl=TTL, binary=PLAIN_BINARY, start=False, environment={
        "LD_PRELOAD": str(suite.once("stall", build)), "STALL": str(victim)})
    mount.expect(STOOD_STILL + "|have died of one request|lease .* (in doubt|renewed again)")
    return ready(mount.start()), lambda pid: victim.write_text(str(pid), encoding="ascii")


def test_a_deadly_request(lab, deadly):
    """Two processes die of it; the third refuses it, and everything else goes on."""
    mount, is_deadly_for = deadly
    one, two, three = (lab.agent() for _ in range(3))
    fd = one.take(mount / "x")
    two.begin("take", mount / "x")
    lab.await_keys("x", 2)
    is_deadly_for(three.pid)
    assert three.error("open", mount / "y", EXCL) == errno.EIO
    assert mount.log().count("stood still") == 2
    assert "have died of one request (operation 35, user 0, process " in mount.log()
    one.fsync(fd)
    assert not two.ready()
    one.close(fd)
    two.finish()
    is_deadly_for(0)
    three.open(mount / "y", EXCL)


def test_no_worker_turns(lab, deadly):
    """Then the mount ends before its locks are anybody else's, and who holds one is told."""
    mount, is_deadly_for = deadly
    mount.expect("no process that serves the mount has turned before the deadline")
    other = lab.mount(ttl=TTL)
    one, two = lab.agent(), lab.agent()
    os.mkdir(mount / "d")
    os.setxattr(mount / "d", "user.latchfs.hold", b"process")
    fd = one.open(mount / "d/x", EXCL)
    two.begin("take", other / "d/x")
    lab.await_keys("d/x", 2)
    # The next one has to know whether the holder still runs.
    is_deadly_for(one.pid)
    mount.expected_exit = 1
    mount.kill_server()
    assert mount.wait_exit() == 1
    assert not two.ready()
    assert one.error("pread", fd, 10, 0) == errno.ENOTCONN
    two.finish()


# The daemon's machine asks a name server of the test's.
OWN_RESOLVER = """
mount --make-private /
mount --bind "$0" /etc/resolv.conf
exec "$@"
"""


@pytest.fixture
def deaf_resolver(lab):
    """The words before a command for which no name of a machine is ever resolved."""
    address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        yield server, ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", OWN_RESOLVER,
                       lab.scratch(f"nameserver {address}\n")]


def test_names_are_not_resolved(lab, shared, deaf_resolver):
    """A request to an address by such a name waits, and nothing else does, also not for its end."""
    server, wrapper = deaf_resolver
    wire = lab.wire()
    mount = lab.mount("timeout=30", ttl=8, name="shared/m", wrapper=wrapper,
                      url=f"{wire.url},http://nobody.example:2379")
    mount.expect("does not answer|answers again|the watch")
    ready(mount)
    one = lab.agent()
    fd = one.take(mount / "x")
    wire.stall()
    wait_until(lambda: select.select([server], [], [], 0)[0], what="it asks for the name")
    wire.mend()
    for _ in range(3):
        renewals = renewed(mount)
        wait_until(lambda renewals=renewals: renewed(mount) > renewals, what="the lease is renewed")
    one.fsync(fd)
