# SPDX-License-Identifier: MIT
"""flock(1) and flock(2): one lock for all machines, first come first served."""

import errno
import os
import signal
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
from pathlib import Path

import pytest

from support import SOON, Stopwatch, checked, run, wait_until

HOLD = ("sh", "-c", "echo held; cat")
RW = os.O_RDWR | os.O_CREAT


def nonblocking(mount, name):
    """The exit status of `flock -n`."""
    return run("flock", "-n", mount / name, "true").returncode


@pytest.mark.core
@pytest.mark.portable
def test_flock_excludes_the_other_machine(pair, holder):
    """`flock -n` on B fails with 1 while a program holds the lock on A, and works afterwards."""
    first = holder("flock", "-n", pair.a / "x", *HOLD).await_held()
    assert nonblocking(pair.b, "x") == 1
    assert nonblocking(pair.a, "x") == 1
    assert first.release() == 0
    wait_until(lambda: nonblocking(pair.b, "x") == 0, SOON)


@pytest.mark.core
@pytest.mark.portable
def test_kill_9_of_the_holder_releases_at_once(pair, holder):
    """After kill -9 of the holder and its child B gets the lock now, not after the TTL."""
    first = holder("flock", "-n", pair.a / "x", "sh", "-c", "echo held; exec sleep 1000")
    first.await_held()
    second = holder("flock", pair.b / "x", *HOLD)
    pair.await_queue("x", 2)
    assert not second.holds()
    first.kill()
    second.await_held(SOON)


@pytest.mark.portable
def test_lock_lives_with_the_child_of_a_killed_flock(pair, holder):
    """The open file is the lock: while a child has it open, killing flock(1) frees nothing."""
    first = holder("flock", "-n", pair.a / "x", "sh", "-c", "echo held; exec sleep 1000")
    first.await_held()
    os.kill(first.pid, signal.SIGKILL)
    first.process.wait()
    assert nonblocking(pair.b, "x") == 1
    first.kill()
    wait_until(lambda: nonblocking(pair.b, "x") == 0, SOON)


@pytest.mark.portable
def test_last_close_releases(pair, agent):
    """Closing one of two descriptors of a handle keeps the lock, closing the last one frees it."""
    one, two = agent(), agent()
    fd = one.take(pair.a / "x")
    again = one.dup(fd)
    child = one.fork_and_wait()
    one.close(fd)
    one.close(again)
    assert not two.attempt(pair.b / "x")
    one.end(child)
    wait_until(lambda: two.attempt(pair.b / "x"), SOON)


def test_closed_lock_is_free_for_the_next_try_on_the_same_machine(pair, agent):
    """A try right behind a close on the same machine never meets the lock that was closed."""
    one, two = agent(), agent()
    for _ in range(100):
        one.close(one.take(pair.a / "x"))
        assert two.attempt(pair.a / "x")


@pytest.mark.core
def test_unlocked_is_free_everywhere(pair, agent):
    """When LOCK_UN returns, a try on any machine finds the lock free."""
    one, two = agent(), agent()
    a, b = one.open(pair.a / "x", RW), two.open(pair.b / "x", RW)
    for _ in range(50):
        one.flock(a, LOCK_EX | LOCK_NB)
        one.flock(a, LOCK_UN)
        two.flock(b, LOCK_EX | LOCK_NB)
        two.flock(b, LOCK_UN)


@pytest.mark.portable
def test_unlock_of_nothing_succeeds(pair, agent):
    """LOCK_UN on a handle without a lock is not an error, and locking again is none either."""
    one = agent()
    fd = one.open(pair.a / "x", RW)
    one.flock(fd, LOCK_UN)
    one.flock(fd, LOCK_EX)
    one.flock(fd, LOCK_EX | LOCK_NB)
    one.flock(fd, LOCK_UN)
    one.flock(fd, LOCK_UN)


@pytest.mark.portable
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_NONBLOCK])
def test_any_access_mode_can_lock(pair, agent, flags):
    """A lock is taken with flock through a handle of any access mode; opening takes nothing."""
    one, two = agent(), agent()
    fd = one.open(pair.a / "x", flags | os.O_CREAT)
    assert two.attempt(pair.b / "x")
    one.flock(fd, LOCK_EX)
    assert not two.attempt(pair.b / "x")


@pytest.mark.portable
def test_truncating_open_of_a_held_lock_takes_nothing(pair, agent):
    """`exec 9>file` on a held lock succeeds; only flock says that it is busy."""
    one, two = agent(), agent()
    one.take(pair.a / "x")
    fd = two.open(pair.b / "x", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert two.error("flock", fd, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK


def test_shell_idiom_with_a_descriptor(pair):
    """`exec 9>A/x; flock -n 9` holds for as long as the shell has 9 open."""
    script = ('exec 9>"$1"; flock -n 9 || exit 3; flock -n "$2" true; echo $?; '
              'exec 9>&-; flock "$2" true')
    assert checked("bash", "-c", script, "bash", pair.a / "x", pair.b / "x") == "1\n"


@pytest.mark.alone
@pytest.mark.limit(300)
def test_forty_contenders_count_to_a_thousand_in_queue_order(pair, holder):
    """Forty times 25 `flock FILE sh -c 'add one'` on both mounts: 1000, granted in queue order."""
    counter, order = pair.lab.scratch("0\n"), pair.lab.scratch()
    add = (f'n=$(cat {counter}); echo $((n+1)) > {counter}; '
           f'sed -n s/^token=//p <&3 >> {order}')
    loop = 'for i in $(seq 25); do flock "$1" sh -c "$2" || exit 1; done'
    workers = [
        holder("bash", "-c", loop, "bash", mount / "ctr", add)
        for _ in range(20) for mount in pair.each()
    ]
    assert [worker.exit_status(240) for worker in workers] == [0] * 40
    assert counter.read_text(encoding="ascii") == "1000\n"
    tokens = [int(line) for line in order.read_text(encoding="ascii").split()]
    assert len(tokens) == 1000
    assert tokens == sorted(set(tokens)), "granted out of queue order"


@pytest.mark.core
@pytest.mark.portable
def test_shared_on_both_and_a_writer_waits_for_both(pair, agent):
    """`flock -s` on A and B together; a writer waits until the last of them is gone."""
    readers, writer = [agent(), agent()], agent()
    fds = [who.take(mount / "x", LOCK_SH) for who, mount in zip(readers, pair.each())]
    assert nonblocking(pair.a, "x") == 1
    assert run("flock", "-n", "-s", pair.b / "x", "true").returncode == 0
    writer.begin("take", pair.a / "x")
    pair.await_queue("x", 3)
    readers[0].flock(fds[0], LOCK_UN)
    pair.await_queue("x", 2)
    assert not writer.ready()
    readers[1].flock(fds[1], LOCK_UN)
    writer.finish(SOON)


def test_later_readers_wait_behind_the_writer(pair, agent):
    """First come, first served: a reader that comes after a waiting writer is granted after it."""
    first, writer, later = agent(), agent(), agent()
    reading = first.take(pair.a / "x", LOCK_SH)
    writer.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    later.begin("take", pair.a / "x", LOCK_SH)
    pair.await_queue("x", 3)
    assert run("flock", "-n", "-s", pair.b / "x", "true").returncode == 1
    first.close(reading)
    writing = writer.finish(SOON)
    pair.await_queue("x", 2)
    assert not later.ready()
    writer.close(writing)
    later.finish(SOON)


def test_readers_behind_a_writer_come_together(pair, agent):
    """When the writer leaves, all readers behind it hold at the same time."""
    writer, readers = agent(), [agent() for _ in range(4)]
    fd = writer.take(pair.a / "x")
    for who, mount in zip(readers, [*pair.each(), *pair.each()]):
        who.begin("take", mount / "x", LOCK_SH)
    pair.await_queue("x", 5)
    writer.close(fd)
    for who in readers:
        who.finish(SOON)
    assert len(pair.lab.keys("x")) == 4


@pytest.mark.core
def test_waiters_are_served_in_order_across_machines(pair, agent):
    """Waiters that came one after the other, on A and B in turn, are granted in that order."""
    first = agent()
    fd = first.take(pair.a / "x")
    waiters = []
    for number in range(8):
        who = agent().begin("take", pair.each()[number % 2] / "x")
        pair.await_queue("x", number + 2)
        waiters.append(who)
    first.close(fd)
    for place, who in enumerate(waiters):
        fd = who.finish(SOON)
        assert not any(later.ready() for later in waiters[place + 1:])
        who.close(fd)


def test_flock_w_gives_up_and_leaves_no_key(pair, holder):
    """`flock -w 1` gives up after a second with 1, and etcd keeps nothing of it."""
    held = holder("flock", pair.a / "x", *HOLD).await_held()
    watch = Stopwatch()
    assert run("flock", "-w", "1", pair.b / "x", "true").returncode == 1
    assert 0.9 < watch.seconds < SOON
    wait_until(lambda: len(pair.lab.keys("x")) == 1, SOON, "only the holder's key")
    listing = pair.lab.etcd.etcdctl("get", "--prefix", "--keys-only", pair.lab.key("x"))
    assert len(listing.split()) == 1
    assert held.release() == 0
    wait_until(lambda: not pair.lab.keys("x"), SOON, "no key")


@pytest.mark.core
def test_failed_try_leaves_nothing_behind(pair, agent):
    """A try of a busy lock adds nothing to its queue."""
    one, two = agent(), agent()
    one.take(pair.a / "x")
    for _ in range(20):
        assert not two.attempt(pair.b / "x")
    assert len(pair.lab.keys("x")) == 1
    assert len(pair.b.queue("x")) == 1


@pytest.mark.core
@pytest.mark.portable
def test_conversion_gives_up_the_shared_lock_and_queues(pair, agent):
    """LOCK_SH to LOCK_EX waits for the other reader; two that convert do not block each other."""
    one, two = agent(), agent()
    a, b = one.take(pair.a / "x", LOCK_SH), two.take(pair.b / "x", LOCK_SH)
    one.begin("flock", a, LOCK_EX).await_waiting()
    assert not one.ready()
    two.begin("flock", b, LOCK_EX)
    wait_until(lambda: one.ready() or two.ready(), SOON)
    assert not (one.ready() and two.ready())
    first, second, fd = (one, two, a) if one.ready() else (two, one, b)
    first.finish()
    first.flock(fd, LOCK_UN)
    second.finish(SOON)


@pytest.mark.portable
def test_conversion_without_waiting_fails_when_others_read(pair, agent):
    """LOCK_EX|LOCK_NB by one of two readers is EWOULDBLOCK."""
    one, two = agent(), agent()
    a = one.take(pair.a / "x", LOCK_SH)
    two.take(pair.b / "x", LOCK_SH)
    assert one.error("flock", a, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK


@pytest.mark.portable
def test_downgrade_lets_readers_in(pair, agent):
    """LOCK_EX to LOCK_SH keeps writers out and lets readers in."""
    one, two = agent(), agent()
    a = one.take(pair.a / "x")
    one.flock(a, LOCK_SH)
    two.close(two.take(pair.b / "x", LOCK_SH | LOCK_NB))
    assert not two.attempt(pair.b / "x")


@pytest.mark.portable
def test_many_names_do_not_disturb_each_other(pair, agent):
    """Locks of different names are independent."""
    one, two = agent(), agent()
    one.take(pair.a / "x")
    two.take(pair.b / "y")
    two.take(pair.b / "xx")
    assert not two.attempt(pair.b / "x")
    assert not one.attempt(pair.a / "y")


def test_open_handle_makes_no_name(pair, agent):
    """A name exists while somebody holds or waits; a handle alone leaves no trace, yet works."""
    one = agent()
    fd = one.open(pair.a / "x", RW)
    assert pair.a.names() == pair.b.names() == []
    assert not os.path.exists(pair.b / "x")
    assert one.fstat(fd).st_nlink > 0
    one.flock(fd, LOCK_EX)
    assert pair.a.names() == pair.b.names() == ["x"]
    assert os.path.exists(pair.b / "x")
    one.flock(fd, LOCK_UN)
    assert pair.a.names() == pair.b.names() == []
    assert one.fstat(fd).st_nlink > 0
    assert not pair.lab.etcd.keys(pair.lab.key("x"))


def test_open_without_creating_needs_somebody_who_holds(pair, agent):
    """Opening a free name without O_CREAT is ENOENT; that of a held one works."""
    one, two = agent(), agent()
    assert two.error("open", pair.b / "x", os.O_RDWR) == errno.ENOENT
    one.take(pair.a / "x")
    assert two.error("open", pair.b / "x", os.O_RDWR) == 0


@pytest.mark.core
def test_default_prefix_and_plain_keys(bare_lab):
    """Without a path the prefix is /latchfs, and `etcdctl get` shows a lock's keys under it."""
    server = bare_lab.own_etcd()
    mount = bare_lab.mount(prefix="")
    bare_lab.agent().take(mount / "z")
    listing = server.etcdctl("get", "--prefix", "--keys-only", "/latchfs/z/")
    assert listing.split()[0].startswith("/latchfs/z/")
    assert Path(mount / "z").read_text(encoding="utf-8").startswith("token=")


@pytest.mark.parametrize("name", ["back\\slash", "a\\0b", "\\", "\\\\", "d\\/x"])
def test_names_with_backslashes(pair, agent, name):
    """Who waits for one hears at once that it was given back, who holds one that it was lost."""
    pair.b.expect()
    one, two = agent(), agent()
    if "/" in name:
        os.mkdir(pair.a / "d\\")
    fd = one.take(pair.a / name)
    two.begin("take", pair.b / name)
    pair.await_queue(name, 2)
    one.close(fd)
    held = two.finish(SOON)
    pair.lab.etcd.delete(pair.lab.keys(name)[0].name)
    wait_until(lambda: two.error("pread", held, 10, 0) == errno.EIO, SOON, "it is lost")
