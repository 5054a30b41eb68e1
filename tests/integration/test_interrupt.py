# SPDX-License-Identifier: MIT
"""Waiting can always be given up: Ctrl-C, an alarm, kill -9."""

import os
import signal
from fcntl import F_SETLKW, F_WRLCK, LOCK_EX, LOCK_SH, LOCK_UN

import pytest

from support import SOON, Stopwatch, gone, wait_until
from test_fcntl import F_OFD_SETLKW

RW = os.O_RDWR | os.O_CREAT


@pytest.mark.core
@pytest.mark.portable
@pytest.mark.parametrize("call", [
    ("flock", LOCK_EX), ("flock", LOCK_SH), ("control", F_SETLKW, F_WRLCK),
    ("control", F_OFD_SETLKW, F_WRLCK),
])
def test_alarm_interrupts(pair, agent, call):
    """A signal during the wait ends it with EINTR and leaves nothing in the queue."""
    one, two = agent(), agent()
    holding = one.open(pair.a / "x", RW)
    one.begin(call[0], holding, *((LOCK_EX,) if call[0] == "flock" else call[1:])).finish()
    fd = two.open(pair.b / "x", RW)
    for _ in range(3):
        assert two.alarmed(0.1, call[0], fd, *call[1:]) == "interrupted"
    pair.await_queue("x", 1)
    one.close(holding)
    two.begin(call[0], fd, *call[1:]).finish(SOON)


@pytest.mark.portable
def test_ctrl_c_leaves_the_queue(pair, holder):
    """SIGINT to a waiting flock(1) ends it; those behind it are not disturbed."""
    first = holder("flock", pair.a / "x", "sh", "-c", "echo held; cat").await_held()
    second = holder("flock", pair.b / "x", "sh", "-c", "echo held; cat")
    pair.await_queue("x", 2)
    third = holder("flock", pair.b / "x", "sh", "-c", "echo held; cat")
    pair.await_queue("x", 3)
    second.kill(signal.SIGINT)
    assert second.exit_status(SOON) == -signal.SIGINT
    pair.await_queue("x", 2)
    assert not third.holds()
    assert first.release() == 0
    third.await_held(SOON)


@pytest.mark.core
@pytest.mark.portable
def test_kill_9_of_a_waiter(pair, agent):
    """kill -9 frees a waiting process at once, and its place in the queue."""
    one, two, three = agent(), agent(), agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    three.begin("take", pair.b / "x")
    pair.await_queue("x", 3)
    watch = Stopwatch()
    os.kill(two.pid, signal.SIGKILL)
    wait_until(lambda: gone(two.pid), SOON)
    assert watch.seconds < SOON
    pair.await_queue("x", 2)
    one.close(fd)
    three.finish(SOON)


@pytest.mark.portable
def test_restarted_wait_goes_on(pair, agent):
    """With SA_RESTART a signal does not end the wait, and the lock comes all the same."""
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    two.restart_on(signal.SIGUSR1)
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    for _ in range(5):
        os.kill(two.pid, signal.SIGUSR1)
    pair.await_queue("x", 2)
    assert not two.ready()
    one.close(fd)
    two.finish(SOON)


@pytest.mark.portable
def test_many_interrupted_at_once(pair, agent):
    """Twenty waiters killed together leave the holder alone and the lock usable."""
    one, crowd = agent(), [agent() for _ in range(20)]
    fd = one.take(pair.a / "x")
    for place, who in enumerate(crowd):
        who.begin("take", pair.each()[place % 2] / "x")
    pair.await_queue("x", 21)
    for who in crowd:
        os.kill(who.pid, signal.SIGKILL)
    pair.await_queue("x", 1)
    one.close(fd)
    wait_until(lambda: one.attempt(pair.b / "x"), SOON)


@pytest.mark.core
@pytest.mark.portable
def test_grant_and_signal_race(pair, agent):
    """Signals that arrive just as the lock comes never lose it or leave it behind."""
    one, two = agent(), agent()
    a, b = one.open(pair.a / "x", RW), two.open(pair.b / "x", RW)
    for number in range(30):
        one.flock(a, LOCK_EX)
        two.begin("alarmed", 0.01 + number % 5 * 0.001, "flock", b, LOCK_EX)
        two.ready(0.01)
        one.flock(a, LOCK_UN)
        two.finish(SOON)
        two.flock(b, LOCK_UN)
        assert two.attempt(pair.a / "x")
