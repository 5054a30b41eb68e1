# SPDX-License-Identifier: MIT
"""open=lock: programs that only open a file wait in open, in one queue, as on dlmfs.

What the policy does to single calls is in test_policies.py.
"""

import errno
import os
import signal
from pathlib import Path

import pytest

from conftest import Pair
from support import PATIENCE, SOON, Stopwatch, checked, gone, run, wait_until
from test_semantics import parse, semantics  # a fixture  # pylint: disable=unused-import

# Nothing in these says that it locks.
REDIRECT = '( echo held; cat ) 9>"$1"'
APPEND = '( echo held; cat ) 9>>"$1"'
BOTH = '( echo held; cat ) 9<>"$1"'
READ = '( echo held; cat ) 9<"$1"'
JOB = "q/job"

EINTR_CASE = """case waiting
a open 0 q/x w creat
b open 0 q/x w creat &
signal b
b .
c open 0 q/x r creat nonblock
a close 0
b open 0 q/x w creat
"""


@pytest.fixture
def pair(lab):
    """Mounts with such a directory in them."""
    pair = Pair(lab)
    os.mkdir(pair.a / "q")
    os.setxattr(pair.a / "q", "user.latchfs.open", b"lock")
    # The other mount learns it when it next looks at the directory's attributes.
    wait_until(lambda: os.getxattr(pair.b / "q", "user.latchfs.open") == b"lock", SOON)
    return pair


def start(pair, mount, script=REDIRECT, shell="bash", count=None):
    """A shell that works under the redirection; once it holds or stands in the queue."""
    one = pair.lab.holder(shell, "-c", script, shell, mount / JOB)
    if count:
        pair.await_queue(JOB, count)
    else:
        one.await_held()
    return one


def none_holds(shells):
    """Whether all of them still wait."""
    return not any(shell.holds() for shell in shells)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_redirections_wait_in_order(pair, shell):
    """Three that wait on two machines get it in the order in which they came, one at a time."""
    first = start(pair, pair.a, shell=shell)
    waiting = []
    for mount, script in (pair.b, REDIRECT), (pair.a, APPEND), (pair.b, BOTH):
        waiting.append(start(pair, mount, script, shell, count=len(waiting) + 2))
    assert none_holds(waiting)
    while waiting:
        assert first.release() == 0
        first = waiting.pop(0).await_held(SOON)
        pair.await_queue(JOB, len(waiting) + 1)
        assert none_holds(waiting)
    assert first.release() == 0
    pair.await_queue(JOB, 0)


def test_killed_holder_passes_it_on(pair):
    """kill -9 of the shell that works: the next one, on the other machine, begins at once."""
    first = start(pair, pair.a)
    second = start(pair, pair.b, count=2)
    watch = Stopwatch()
    first.kill()
    second.await_held(SOON)
    assert watch.seconds < SOON
    assert second.release() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_the_waiting(pair, number):
    """Ctrl-C and kill end a shell that waits in open; it leaves the queue, others stay in it."""
    first = start(pair, pair.a)
    second = start(pair, pair.b, count=2)
    third = start(pair, pair.b, count=3)
    watch = Stopwatch()
    second.kill(number)
    wait_until(lambda: gone(second.pid), SOON)
    assert watch.seconds < SOON
    pair.await_queue(JOB, 2)
    assert none_holds([second, third])
    assert first.release() == 0
    third.await_held(SOON)
    assert third.release() == 0


def test_timeout_ends_the_waiting(pair):
    """timeout(1) around a redirection: it is not kept waiting, and nothing of it stays."""
    first = start(pair, pair.a)
    done = run("timeout", "0.3", "bash", "-c", 'echo no >"$1"', "bash", pair.b / JOB)
    assert done.returncode == 124
    pair.await_queue(JOB, 1)
    assert first.release() == 0


def test_waiting_open_fails_with_eintr(pair, semantics):
    """A signal with a handler that does not restart calls: EINTR, and the next open gets it."""
    path = pair.lab.scratch(EINTR_CASE)
    said = parse(checked(semantics, path, pair.a.path, pair.b.path))
    assert list(said.values()) == ["ok", "waits", "EINTR", "EAGAIN", "ok", "ok"]


def test_nonblock(pair):
    """O_NONBLOCK never waits: EWOULDBLOCK for a writer, and for a reader while somebody writes."""
    words = lambda mount, *flags: ("dd", "status=none", *flags, f"of={mount / JOB}", "if=/dev/null")
    first = start(pair, pair.a)
    for mount in pair.each():
        refused = run(*words(mount, "oflag=nonblock"))
        assert refused.returncode == 1 and os.strerror(errno.EWOULDBLOCK) in refused.stderr
        refused = run("dd", "status=none", "iflag=nonblock", f"if={mount / JOB}")
        assert refused.returncode == 1 and os.strerror(errno.EWOULDBLOCK) in refused.stderr
    pair.await_queue(JOB, 1)
    assert first.release() == 0
    wait_until(lambda: run(*words(pair.b, "oflag=nonblock")).returncode == 0, SOON)


@pytest.mark.parametrize("name", ["job", "new"])
def test_directory_goes_on_while_opens_wait(pair, agent, name):
    """Twelve wait for a name; in that directory, on that mount, everything else is answered.

    The kernel holds the directory while it creates, and would then hold up all of this, unkillable.
    """
    where, holder = Path(pair.b / "q"), agent()
    holder.open(pair.a / f"q/{name}", os.O_WRONLY | os.O_CREAT)
    crowd = [agent() for _ in range(12)]
    for place, who in enumerate(crowd):
        who.begin("open", where / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        pair.await_queue(f"q/{name}", place + 2)
    other = agent()
    for number in range(10):
        other.close(other.open(where / f"other{number}", os.O_RDWR | os.O_CREAT))
        other.stat(where / f"third{number}")
        assert other.error("mkdir", where / f"dir{number}") == errno.EEXIST
    other.stat(where / name)
    assert name in other.listdir(str(where))
    assert other.error("unlink", where / name) == errno.EBUSY
    for who in crowd:
        os.kill(who.pid, signal.SIGKILL)
    pair.await_queue(f"q/{name}", 1)


def test_cat_takes_and_drops_the_shared_lock(pair):
    """cat of a free name reads its own record, and leaves nothing; it waits for who writes."""
    said = checked("cat", pair.a / JOB)
    assert "mode=shared\n" in said and "command=cat\n" in said
    pair.await_queue(JOB, 0)
    first = start(pair, pair.a)
    second = start(pair, pair.b, 'cat "$1"', count=2)
    assert not second.holds()
    assert first.release() == 0
    assert second.exit_status() == 0
    assert "mode=shared" in second.lines() and "command=cat" in second.lines()
    pair.await_queue(JOB, 0)


def test_readers_go_together(pair):
    """Several have it open to read at once, on both machines; who writes waits for all of them."""
    readers = [start(pair, mount, READ) for mount in (pair.a, pair.b, pair.b)]
    assert "mode=shared\n" in checked("cat", pair.a / JOB, timeout=PATIENCE)
    writer = start(pair, pair.a, count=4)
    late = start(pair, pair.b, READ, count=5)
    for reader in readers:
        assert none_holds([writer, late])
        assert reader.release() == 0
    writer.await_held(SOON)
    assert not late.holds()
    assert writer.release() == 0
    late.await_held(SOON)
    assert late.release() == 0


def test_killed_reader_lets_the_writer_in(pair):
    """kill -9 of the last reader."""
    reader = start(pair, pair.a, READ)
    writer = start(pair, pair.b, count=2)
    reader.kill()
    writer.await_held(SOON)
    assert writer.release() == 0
