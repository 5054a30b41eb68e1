# SPDX-License-Identifier: MIT
"""Losing a lock: the holder is told, at once and on every call, before anybody else can have it."""

import errno
import os
import re
import select
import signal
from fcntl import F_SETLK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

import pytest

from conftest import Pair
from mounting import parse_record
from support import SOON, Stopwatch, gone, wait_until
from test_fcntl import F_OFD_SETLK

RW = os.O_RDWR | os.O_CREAT
LOST = {"read": errno.EIO, "write": errno.EIO, "ftruncate": errno.EIO, "fsync": errno.EIO,
        "flock": errno.EIO}


def revoke(lab, name):
    """Ends the lease of a lock's holder with etcdctl, behind the daemon's back."""
    lease = lab.keys(name)[0].lease
    lab.etcd.etcdctl("lease", "revoke", f"{lease:x}")


def await_loss(who, fd):
    """Waits until the handle knows; the whole answer must then be EIO everywhere."""
    wait_until(lambda: who.error("pread", fd, 10, 0) == errno.EIO, SOON, "reads fail with EIO")
    assert who.probe(fd) == LOST


def said_lost(mount):
    """Waits for the daemon's line about it."""
    wait_until(lambda: "lost" in mount.log().lower(), SOON, "a line about the lost lock")


@pytest.mark.core
@pytest.mark.parametrize("call", ["poll", "epoll"])
def test_revoked_lease_wakes_poll_and_fails_every_call(pair, agent, call):
    """`etcdctl lease revoke` behind our back: POLLERR|POLLPRI, then EIO from every call."""
    pair.a.expect()
    one = agent()
    fd = one.take(pair.a / "x")
    one.begin(call, fd, select.POLLPRI).await_waiting(call)
    revoke(pair.lab, "x")
    events = one.finish(SOON)
    assert events & select.POLLERR and events & select.POLLPRI
    assert one.probe(fd) == LOST
    said_lost(pair.a)


def test_poll_after_the_loss_returns_at_once(pair, agent):
    """Who polls only after the loss is told as well; while held, poll tells of no error."""
    pair.a.expect()
    one = agent()
    fd = one.take(pair.a / "x")
    assert one.poll(fd, select.POLLPRI, 0) & select.POLLERR == 0
    revoke(pair.lab, "x")
    await_loss(one, fd)
    assert one.poll(fd, select.POLLPRI, 0) & select.POLLERR


def test_unlock_or_close_ends_the_loss(pair, agent):
    """After LOCK_UN the same handle locks again, under a new lease; so does a new handle."""
    pair.a.expect()
    one = agent()
    fd, other = one.take(pair.a / "x"), one.take(pair.a / "y")
    token = int(parse_record(one.pread(fd, 999, 0).decode())["token"])
    revoke(pair.lab, "x")
    await_loss(one, fd)
    await_loss(one, other)
    one.flock(fd, LOCK_UN)
    wait_until(lambda: one.error("flock", fd, LOCK_EX | LOCK_NB) == 0, SOON)
    assert int(parse_record(one.pread(fd, 999, 0).decode())["token"]) > token
    one.fsync(fd)
    assert one.error("fsync", other) == errno.EIO
    one.close(other)
    one.take(pair.a / "y")


@pytest.mark.parametrize("how", ["shared", "posix", "ofd", "O_EXCL"])
def test_every_kind_of_lock_can_be_lost(pair, agent, how):
    """The same EIO for shared locks, record locks and lock files."""
    pair.a.expect()
    one = agent()
    fd = one.open(pair.a / "x", RW | (os.O_EXCL if how == "O_EXCL" else 0))
    if how == "shared":
        one.flock(fd, LOCK_SH)
    elif how != "O_EXCL":
        one.control(fd, {"posix": F_SETLK, "ofd": F_OFD_SETLK}[how], F_WRLCK)
    revoke(pair.lab, "x")
    wait_until(lambda: one.error("fsync", fd) == errno.EIO, SOON)
    assert one.error("pread", fd, 10, 0) == errno.EIO
    assert one.error("pwrite", fd, b"x", 0) == errno.EIO


@pytest.mark.core
def test_operator_deletes_the_key(pair, agent):
    """`etcdctl del` of the holder's key breaks that lock within an event, and no other."""
    pair.a.expect()
    one, two = agent(), agent()
    fd, other = one.take(pair.a / "x"), one.take(pair.a / "y")
    one.begin("poll", fd, select.POLLPRI).await_waiting("poll")
    watch = Stopwatch()
    pair.lab.etcd.etcdctl("del", pair.lab.keys("x")[0].name)
    assert one.finish(SOON) & select.POLLERR
    assert watch.seconds < SOON
    assert one.probe(fd) == LOST
    one.fsync(other)
    assert two.attempt(pair.b / "x")
    assert not two.attempt(pair.b / "y")
    said_lost(pair.a)


@pytest.mark.core
def test_the_log_says_why(lab):
    """A key that was deleted, or the lease; and no time is negative, however long nobody ran."""
    mount = lab.mount(ttl=2).expect()
    one = lab.agent()
    for name, reason in (("deleted", "its key was deleted"), ("paused", "its lease was")):
        fd = one.take(mount / name)
        if name == "deleted":
            lab.etcd.delete(lab.keys(name)[0].name)
        else:
            mount.pause()
            lab.await_keys(name, 0)
            mount.resume()
        await_loss(one, fd)
        assert re.search(rf"lock {name} .* was lost: {reason}", mount.log())
    assert not re.search(r"-\d+ ms", mount.log())


@pytest.mark.core
def test_operator_deletes_a_waiters_key(pair, agent):
    """A waiter whose key was deleted is not forgotten: it queues again and gets the lock."""
    pair.a.expect()
    pair.b.expect()
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    pair.lab.etcd.delete(pair.lab.keys("x")[1].name)
    pair.await_queue("x", 2)
    assert not two.ready()
    one.close(fd)
    two.finish(SOON)
    assert not one.attempt(pair.a / "x")


@pytest.mark.core
def test_waiter_queues_again_under_a_new_lease(pair, agent):
    """A waiting request survives the loss of its mount's lease, and is granted on a live key."""
    pair.b.expect()
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    old = pair.lab.keys("x")[1]
    pair.lab.etcd.revoke(old.lease)
    wait_until(lambda: [k.lease for k in pair.lab.keys("x")[1:]] not in ([], [old.lease]), SOON)
    assert not two.ready()
    one.close(fd)
    mine = two.finish(SOON)
    two.fsync(mine)
    assert pair.lab.keys("x")[0].lease != old.lease


@pytest.mark.core
def test_the_next_in_line_gets_a_lost_lock(pair, agent):
    """When the holder's lease is revoked, the waiter on the other machine is granted at once."""
    pair.a.expect()
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    revoke(pair.lab, "x")
    two.finish(SOON)
    await_loss(one, fd)


def test_granted_and_broken_in_one_breath(pair, agent):
    """The holder goes and then the waiter's key, all in one event: no grant, it waits on."""
    pair.a.expect()
    one, two = agent(), agent()
    fd = one.take(pair.b / "x")
    two.begin("take", pair.a / "x")
    pair.await_queue("x", 2)
    pair.a.pause()
    one.flock(fd, LOCK_UN)
    pair.lab.etcd.delete(pair.lab.keys("x")[0].name)
    fd = one.take(pair.b / "x")
    pair.a.resume()
    pair.await_queue("x", 2)
    assert not two.ready()
    one.fsync(fd)
    one.close(fd)
    two.fsync(two.finish(SOON))


CALLS = {
    "read": ("pread", 10, 0), "write": ("pwrite", b"x", 0), "fsync": ("fsync",),
    "ftruncate": ("ftruncate", 0), "flock": ("flock", LOCK_EX | LOCK_NB),
}


@pytest.mark.parametrize("call", CALLS)
def test_stopped_daemon_knows_with_its_first_answer(lab, call):
    """SIGSTOP of the daemon beyond the TTL, then SIGCONT: the very first answer is EIO."""
    pair = Pair(lab, ttl=2)
    pair.a.expect()
    one, two = lab.agent(), lab.agent()
    fd = one.take(pair.a / "x")
    pair.a.pause()
    two.begin("take", pair.b / "x")
    two.finish()
    name, *arguments = CALLS[call]
    one.begin(name, fd, *arguments)
    pair.a.resume()
    with pytest.raises(OSError) as caught:
        one.finish(SOON)
    assert caught.value.errno == errno.EIO
    assert one.probe(fd) == LOST
    said_lost(pair.a)
    pair.a.check()


@pytest.mark.core
def test_stopped_daemon_grants_nothing_from_before(lab):
    """A waiter of a daemon that slept beyond its TTL is not granted on the dead lease."""
    pair = Pair(lab, ttl=2)
    pair.a.expect()
    holder, sleeper, third = lab.agent(), lab.agent(), lab.agent()
    fd = holder.take(pair.b / "x")
    sleeper.begin("take", pair.a / "x")
    pair.await_queue("x", 2)
    pair.a.pause()
    wait_until(lambda: len(lab.keys("x")) == 1, what="the sleeper's key expires")
    holder.close(fd)
    wait_until(lambda: not lab.keys("x"), SOON)
    third.take(pair.b / "x")
    pair.a.resume()
    wait_until(lambda: len(lab.keys("x")) == 2, SOON, "the sleeper queues again")
    assert not sleeper.ready()
    third.kill()
    mine = sleeper.finish(SOON)
    sleeper.fsync(mine)


def test_stop_shorter_than_the_ttl_loses_nothing(pair, agent):
    """A short pause of the daemon is not noticed."""
    one = agent()
    fd = one.take(pair.a / "x")
    pair.a.pause()
    one.begin("fsync", fd)
    assert not one.ready(0.2)
    pair.a.resume()
    one.finish(SOON)


@pytest.mark.parametrize("number", ["term", "kill"])
def test_on_loss_signals_the_holder(lab, number):
    """on_loss=term|kill: every process with the lost handle open gets the signal, nobody else."""
    mount = lab.mount(f"on_loss={number}").expect()
    one, bystander = lab.agent(), lab.agent()
    one.take(mount / "x")
    child = one.fork_and_wait()
    bystander.open(mount / "y", RW)
    revoke(lab, "x")
    expected = -{"term": signal.SIGTERM, "kill": signal.SIGKILL}[number]
    wait_until(lambda: one.ended() is not None, SOON, "the holder gets its signal")
    assert one.ended() == expected
    wait_until(lambda: gone(child), SOON, "its child gets it too")
    assert bystander.ended() is None


def test_on_loss_spares_who_waits_or_looks(lab):
    """A script that waits by a helper, and the child of one that looks, are no holders."""
    mount = lab.mount("on_loss=kill").expect()
    holder = lab.holder("flock", mount / "x", "sh", "-c", "echo held; sleep 1000").await_held()
    waiter = lab.holder("bash", "-c", 'exec 9<>"$1"; flock 9 || exit 1; echo granted; read -r',
                        "bash", mount / "x")
    looker = lab.holder("bash", "-c", 'exec 8<"$1"; sleep 1000 & echo looks; wait $!; exit 3',
                        "bash", mount / "x").await_held()
    lab.etcd.delete(lab.await_keys("x", 2)[0].name)
    assert holder.exit_status() != 0
    waiter.await_held()
    assert looker.process.poll() is None
    assert waiter.release() == 1  # what read says at the end of input


def test_on_loss_ends_a_job_run_by_flock(lab):
    """`flock FILE job` with on_loss=term: the job itself is ended, as its lock is gone."""
    mount = lab.mount("on_loss=term").expect()
    job = lab.holder("flock", mount / "x", "sh", "-c", "echo held; exec sleep 1000").await_held()
    revoke(lab, "x")
    assert job.exit_status(SOON) != 0


def test_on_loss_error_signals_nobody(pair, agent):
    """By default a loss is told by EIO alone."""
    pair.a.expect()
    one = agent()
    fd = one.take(pair.a / "x")
    revoke(pair.lab, "x")
    await_loss(one, fd)
    assert one.ended() is None


@pytest.mark.core
def test_lease_is_kept_alive(lab):
    """With a TTL of 2 s a lock is still held after several TTLs, and nobody says a word."""
    pair = Pair(lab, ttl=2)
    one, two = lab.agent(), lab.agent()
    fd = one.take(pair.a / "x")
    lease = lab.keys("x")[0].lease
    watch = Stopwatch()
    wait_until(lambda: one.fsync(fd) is None and watch.seconds > 6)
    assert lab.keys("x")[0].lease == lease
    assert not two.attempt(pair.b / "x")
