# SPDX-License-Identifier: MIT
"""fcntl(2): the same lock as flock's, by the rules of POSIX and of open file descriptions."""

import errno
import os
from fcntl import F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK

import pytest

from support import SOON, wait_until

F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
RW = os.O_RDWR | os.O_CREAT
BUSY = (errno.EAGAIN, errno.EACCES)

pytestmark = pytest.mark.portable


def opened(pair, agent, mount=None, name="x"):
    """An agent and its handle."""
    who = agent()
    return who, who.open((mount or pair.a) / name, RW)


@pytest.mark.core
@pytest.mark.parametrize("command", [F_SETLK, F_OFD_SETLK])
def test_record_locks_exclude_the_other_machine(pair, agent, command):
    """Exclusive excludes both kinds, shared only exclusive; unlocking frees at once."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    one.control(a, command, F_WRLCK)
    assert two.error("control", b, command, F_WRLCK) in BUSY
    assert two.error("control", b, command, F_RDLCK) in BUSY
    one.control(a, command, F_RDLCK)
    two.control(b, command, F_RDLCK)
    assert two.error("control", b, command, F_WRLCK) in BUSY
    one.control(a, command, F_UNLCK)
    two.control(b, command, F_WRLCK)


@pytest.mark.core
@pytest.mark.parametrize("command", [F_SETLKW, F_OFD_SETLKW])
def test_record_locks_wait(pair, agent, command):
    """F_SETLKW waits for a holder on the other machine."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    one.control(a, command, F_WRLCK)
    two.begin("control", b, command, F_WRLCK)
    pair.await_queue("x", 2)
    assert not two.ready()
    one.control(a, command, F_UNLCK)
    two.finish(SOON)


def test_posix_lock_belongs_to_the_process(pair, agent):
    """Another handle of the same process is not excluded; any close of the file releases."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    again = one.open(pair.a / "x", RW)
    one.control(a, F_SETLK, F_WRLCK)
    one.control(again, F_SETLK, F_WRLCK)
    assert two.error("control", b, F_SETLK, F_WRLCK) in BUSY
    one.close(again)
    wait_until(lambda: two.error("control", b, F_SETLK, F_WRLCK) == 0, SOON)


def test_posix_lock_is_not_inherited(pair, agent):
    """A forked child neither holds its parent's POSIX lock nor releases it by leaving."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    one.control(a, F_SETLK, F_WRLCK)
    assert one.forked("control", a, F_SETLK, F_WRLCK) in BUSY
    assert two.error("control", b, F_SETLK, F_WRLCK) in BUSY


def test_open_file_description_lock_is_inherited(pair, agent):
    """An OFD lock excludes another handle of the same process, and lives with a child's copy."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    again = one.open(pair.a / "x", RW)
    one.control(a, F_OFD_SETLK, F_WRLCK)
    assert one.error("control", again, F_OFD_SETLK, F_WRLCK) in BUSY
    one.close(again)
    child = one.fork_and_wait()
    one.close(a)
    assert two.error("control", b, F_OFD_SETLK, F_WRLCK) in BUSY
    one.end(child)
    wait_until(lambda: two.error("control", b, F_OFD_SETLK, F_WRLCK) == 0, SOON)


@pytest.mark.parametrize("command", [F_SETLK, F_OFD_SETLK])
def test_kill_9_releases(pair, agent, command):
    """A killed process holds nothing."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    one.control(a, command, F_WRLCK)
    one.kill()
    wait_until(lambda: two.error("control", b, command, F_WRLCK) == 0, SOON)


@pytest.mark.core
def test_getlk_names_a_local_holder(pair, agent):
    """F_GETLK tells type and process of a holder on the same machine."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent)
    assert two.getlk(b, F_WRLCK)[0] == F_UNLCK
    one.control(a, F_SETLK, F_RDLCK)
    assert two.getlk(b, F_RDLCK)[0] == F_UNLCK
    assert two.getlk(b, F_WRLCK) == (F_RDLCK, one.pid)
    one.control(a, F_SETLK, F_WRLCK)
    assert two.getlk(b, F_RDLCK) == (F_WRLCK, one.pid)
    assert one.getlk(a, F_WRLCK)[0] == F_UNLCK


def test_getlk_sees_an_open_file_description_lock(pair, agent):
    """F_OFD_GETLK tells of a lock that another handle has."""
    one, a = opened(pair, agent)
    two, b = opened(pair, agent, pair.b)
    one.control(a, F_OFD_SETLK, F_WRLCK)
    assert two.getlk(b, F_WRLCK, F_OFD_GETLK)[0] == F_WRLCK
    assert one.getlk(a, F_WRLCK, F_OFD_GETLK)[0] == F_UNLCK


def test_record_locks_follow_the_access_mode(pair, agent):
    """As everywhere, a write lock needs a handle for writing and a read lock one for reading."""
    one = agent()
    reading = one.open(pair.a / "x", os.O_RDONLY | os.O_CREAT)
    writing = one.open(pair.a / "x", os.O_WRONLY | os.O_CREAT)
    assert one.error("control", reading, F_SETLK, F_WRLCK) == errno.EBADF
    assert one.error("control", writing, F_SETLK, F_RDLCK) == errno.EBADF
