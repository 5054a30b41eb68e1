# SPDX-License-Identifier: MIT
"""However a mount ends, no process is stuck, no mount is left, and the keys go."""

import errno
import os
import select
import signal
from fcntl import F_SETLKW, F_WRLCK

import pytest

from support import SOON, Stopwatch, gone, run, wait_until

RW = os.O_RDWR | os.O_CREAT
FREED = (errno.ECONNABORTED, errno.ENOTCONN, errno.EIO, errno.EINTR, errno.ENODEV)


@pytest.fixture
def busy(pair):
    """Holders and waiters of every kind on A, one waiter on B: (pair, processes of A, B's)."""
    lab = pair.lab
    agents = [lab.agent() for _ in range(6)]
    held = [agents[0].take(pair.a / "x"), agents[1].open(pair.a / "y", RW | os.O_EXCL)]
    agents[2].begin("take", pair.a / "x")
    lab.await_keys("x", 2)
    record = agents[3].open(pair.a / "x", RW)
    agents[3].begin("control", record, F_SETLKW, F_WRLCK)
    lab.await_keys("x", 3)
    job = lab.holder("flock", pair.a / "z", "sh", "-c", "echo held; exec sleep 1000").await_held()
    agents[4].begin("poll", agents[4].take(pair.a / "p"), select.POLLPRI)
    agents[5].begin("take", pair.b / "x")
    lab.await_keys("x", 4)
    return pair, (agents[:5], held, job), agents[5]


def nobody_is_stuck(agents):
    """All calls of the agents return, and all processes can be killed."""
    for who in agents[2:4]:
        with pytest.raises(OSError) as caught:
            who.finish(SOON)
        assert caught.value.errno in FREED
    for who in agents:
        os.kill(who.pid, signal.SIGKILL)
    wait_until(lambda: all(gone(who.pid) for who in agents), SOON, "all processes can be killed")


def no_keys_of(pair, waiter):
    """B is granted, and nothing of A is in the store any more."""
    fd = waiter.finish(SOON)
    assert len(pair.lab.etcd.keys(f"{pair.lab.prefix}/")) == 1
    waiter.close(fd)


@pytest.mark.core
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_with_holders_and_waiters(busy, number):
    """SIGTERM or SIGINT: everything is given back at once, the exit status is 0."""
    pair, (agents, held, job), waiter = busy
    leases = pair.lab.etcd.leases()
    lease = pair.lab.keys("x")[0].lease
    watch = Stopwatch()
    pair.a.signal(number)
    assert pair.a.wait_exit(SOON) == 0
    assert watch.seconds < SOON
    assert not pair.a.mounted()
    assert lease in leases and lease not in pair.lab.etcd.leases()
    no_keys_of(pair, waiter)
    assert agents[0].error("pread", held[0], 10, 0) in FREED
    nobody_is_stuck(agents)
    job.kill()


def test_lazy_unmount_with_holders_and_waiters(busy):
    """fusermount3 -u -z: holders go on holding; when the last handle closes the daemon ends."""
    pair, (agents, held, job), waiter = busy
    assert pair.a.unmount().returncode != 0
    assert pair.a.mounted()
    assert pair.a.unmount("-z").returncode == 0
    assert not pair.a.mounted()
    agents[0].fsync(held[0])
    assert not waiter.ready()
    for who in agents:
        who.kill()
    job.kill()
    assert pair.a.wait_exit(SOON) == 0
    no_keys_of(pair, waiter)


def test_forced_unmount_with_holders_and_waiters(busy):
    """umount -f frees every process; everything is given back."""
    pair, (agents, held, job), waiter = busy
    run("umount", "-f", "-l", pair.a.path)
    assert not pair.a.mounted()
    nobody_is_stuck(agents)
    job.kill()
    assert pair.a.wait_exit(SOON) == 0
    no_keys_of(pair, waiter)


def test_unmount_without_users(pair):
    """fusermount3 -u: the daemon ends with 0 and its lease is gone."""
    leases = pair.lab.etcd.leases()
    assert pair.a.unmount().returncode == 0
    assert pair.a.wait_exit(SOON) == 0
    assert len(leases - pair.lab.etcd.leases()) == 1


@pytest.mark.core
def test_kill_9_of_the_daemon(lab):
    """kill -9: nobody is stuck, the keys go with the TTL, a new mount takes the place."""
    a, b = lab.mount(ttl=3, name="a"), lab.mount(name="b")
    one, two, three, other = (lab.agent() for _ in range(4))
    fd = one.take(a / "x")
    two.begin("take", a / "x")
    lab.await_keys("x", 2)
    poller = three.take(a / "p")
    three.begin("poll", poller, select.POLLPRI).await_waiting("poll")
    other.begin("take", b / "x")
    lab.await_keys("x", 3)
    a.kill()
    with pytest.raises(OSError) as caught:
        two.finish(SOON)
    assert caught.value.errno in FREED
    three.finish(SOON)
    assert one.error("pread", fd, 10, 0) == errno.ENOTCONN
    other.close(other.finish())
    for who in (one, two, three):
        who.kill()
    wait_until(lambda: not a.mounted(), SOON)
    again = lab.mount(name="a")
    assert lab.agent().attempt(again / "x")


@pytest.mark.core
def test_sigterm_while_etcd_is_away(bare_lab):
    """Without its store the daemon still ends in time, frees everybody and leaves no mount."""
    lab, server = bare_lab, bare_lab.own_etcd()
    mount = lab.mount("timeout=2").expect()
    one, two = lab.agent(), lab.agent()
    one.take(mount / "x")
    two.begin("take", mount / "x")
    lab.await_keys("x", 2)
    server.pause()
    mount.signal(signal.SIGTERM)
    code = mount.wait_exit(2 + SOON)
    assert code >= 0
    mount.expected_exit = code
    assert not mount.mounted()
    with pytest.raises(OSError):
        two.finish(SOON)


def test_sigterm_twice(pair):
    """A second SIGTERM while ending does no harm."""
    pair.a.signal(signal.SIGTERM)
    try:
        pair.a.signal(signal.SIGTERM)
    except ProcessLookupError:
        pass
    assert pair.a.wait_exit(SOON) in (0, -signal.SIGTERM)
    assert not pair.a.mounted()
    pair.a.expected_exit = pair.a.process.returncode


@pytest.mark.core
def test_mount_again_after_the_end(lab):
    """Mounting, locking and ending several times in one directory leaves nothing in the store."""
    for _ in range(5):
        mount = lab.mount(name="again")
        lab.agent().take(mount / "x")
        mount.stop()
        assert not lab.etcd.keys(f"{lab.prefix}/")
