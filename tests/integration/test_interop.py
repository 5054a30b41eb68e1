# SPDX-License-Identifier: MIT
"""Other clients of etcd and we take the same locks, in one queue."""

import errno
import json
import os
import re
import signal
from fcntl import (F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB,
                   LOCK_SH)
from pathlib import Path

import pytest

from mounting import parse_record
from support import SOON, checked, run, wait_until

HOLD = ("sh", "-c", "echo held; cat")


def etcdctl_lock(pair, name, *flags, **options):
    """`etcdctl lock`, which prints its key when it holds and lets go on SIGINT."""
    words = pair.lab.etcd.etcdctl_words("lock", *flags, f"{pair.lab.prefix}/{name}")
    return pair.lab.holder(*words, env={**os.environ, "ETCDCTL_API": "3"}, **options)


def go_lock(pair, program, name, ttl=60):
    """A Go program that says when it holds."""
    return pair.lab.holder(program, pair.lab.etcd.url, f"{pair.lab.prefix}/{name}",
                           env={**os.environ, "TTL": str(ttl)})


class Foreign:
    """A program that takes locks without us: how it is started, and told to give back."""

    def __init__(self, start, let_go):
        self.start = start
        self.let_go = let_go


@pytest.fixture(params=["etcdctl", "go"])
def foreigner(request, pair):
    """Each of them."""
    if request.param == "etcdctl":
        return Foreign(lambda name, ttl=60: etcdctl_lock(pair, name, f"--ttl={ttl}"),
                       lambda one: one.kill(signal.SIGINT))
    program = request.getfixturevalue("go_mutex")
    return Foreign(lambda name, ttl=60: go_lock(pair, program, name, ttl),
                   lambda one: one.process.stdin.close())


@pytest.mark.core
def test_etcdctl_lock_keeps_us_waiting(pair, holder):
    """While `etcdctl lock` holds, flock on B waits or fails, and gets the lock afterwards."""
    foreign = etcdctl_lock(pair, "z").await_held()
    assert run("flock", "-n", pair.b / "z", "true").returncode == 1
    assert run("flock", "-n", "-s", pair.b / "z", "true").returncode == 1
    ours = holder("flock", pair.b / "z", *HOLD)
    pair.await_queue("z", 2)
    assert not ours.holds()
    foreign.kill(signal.SIGINT)
    ours.await_held(SOON)


@pytest.mark.core
def test_we_keep_etcdctl_lock_waiting(pair, holder):
    """While flock holds on A, `etcdctl lock` waits."""
    ours = holder("flock", pair.a / "z", *HOLD).await_held()
    foreign = etcdctl_lock(pair, "z")
    pair.await_queue("z", 2)
    assert not foreign.holds()
    assert ours.release() == 0
    foreign.await_held(SOON)


def test_killed_foreign_holder_and_ours(pair, holder, foreigner):
    """kill -9 of `etcdctl lock` or Go costs the time of its lease; of a program here it costs none.
    """
    foreign = foreigner.start("z", ttl=2).await_held()
    lease = pair.lab.keys("z")[0].lease
    ours = holder("flock", pair.a / "z", *HOLD)
    pair.await_queue("z", 2)
    foreign.kill()
    assert not ours.holds()
    ours.await_held()
    assert lease not in pair.lab.etcd.leases()
    foreign = foreigner.start("z")
    pair.await_queue("z", 2)
    ours.kill()
    foreign.await_held(SOON)


def test_etcdctl_lock_runs_a_command_in_turn(pair, agent):
    """`etcdctl lock /prefix/z COMMAND` runs its command only when we have let go."""
    one, note = agent(), pair.lab.scratch()
    fd = one.take(pair.a / "z")
    words = pair.lab.etcd.etcdctl_words(
        "lock", f"{pair.lab.prefix}/z", "--", "sh", "-c", f"echo ran > {note}; echo done")
    job = pair.lab.holder(*words, env={**os.environ, "ETCDCTL_API": "3"})
    pair.await_queue("z", 2)
    assert note.read_text(encoding="ascii") == ""
    one.close(fd)
    job.await_held(SOON)
    assert note.read_text(encoding="ascii") == "ran\n"


@pytest.mark.core
def test_foreign_holder_is_shown_as_unknown(pair, agent):
    """A lock held by another client exists here, and its record says what is known: its token."""
    foreign = etcdctl_lock(pair, "z").await_held()
    key = pair.lab.keys("z")[0]
    assert pair.a.names() == pair.b.names() == ["z"]
    record = parse_record(checked("cat", pair.b / "z"))
    assert int(record["token"]) == key.create_revision
    assert record["mode"] == "exclusive"
    assert int(pair.a.holder("z")["token"]) == key.create_revision
    assert agent().error("open", pair.b / "z", os.O_RDWR | os.O_CREAT | os.O_EXCL) == errno.EEXIST
    assert agent().error("unlink", pair.b / "z") == errno.EBUSY
    foreign.kill(signal.SIGINT)
    wait_until(lambda: pair.b.names() == [], SOON)


@pytest.mark.core
def test_go_mutex_excludes_us_and_we_it(pair, agent, go_mutex):
    """A Go program on concurrency.Mutex waits for us, and we for it."""
    one, two = agent(), agent()
    fd = one.take(pair.a / "g")
    program = go_lock(pair, go_mutex, "g")
    pair.await_queue("g", 2)
    two.begin("take", pair.b / "g")
    pair.await_queue("g", 3)
    assert not program.holds()
    one.close(fd)
    program.await_held(SOON)
    assert not two.ready()
    assert agent().error("take", pair.a / "g", LOCK_SH | LOCK_NB) == errno.EWOULDBLOCK
    assert program.release() == 0
    two.finish(SOON)


@pytest.mark.core
def test_go_mutex_respects_shared_locks(pair, agent, go_mutex):
    """The Go program waits for all our readers; our later readers wait for it."""
    readers = [agent(), agent()]
    fds = [who.take(mount / "g", LOCK_SH) for who, mount in zip(readers, pair.each())]
    program = go_lock(pair, go_mutex, "g")
    pair.await_queue("g", 3)
    late = agent().begin("take", pair.b / "g", LOCK_SH)
    pair.await_queue("g", 4)
    readers[0].close(fds[0])
    pair.await_queue("g", 3)
    assert not program.holds() and not late.ready()
    readers[1].close(fds[1])
    program.await_held(SOON)
    assert not late.ready()
    assert program.release() == 0
    late.finish(SOON)


@pytest.mark.limit(180)
def test_go_and_flock_count_together(pair, holder, go_mutex):
    """Go goroutines and flock(1) loops on both mounts add up in one file: nothing is lost."""
    counter = pair.lab.scratch("0\n")
    words = [go_mutex, pair.lab.etcd.url, f"{pair.lab.prefix}/ctr", "25", "4"]
    go = holder(*words, env={**os.environ, "COUNTER": str(counter)})
    add = f"n=$(cat {counter}); echo $((n+1)) > {counter}"
    loop = 'for i in $(seq 25); do flock "$1" sh -c "$2" || exit 1; done'
    shells = [holder("bash", "-c", loop, "bash", mount / "ctr", add)
              for _ in range(2) for mount in pair.each()]
    assert [one.exit_status(150) for one in [go, *shells]] == [0] * 5
    assert counter.read_text(encoding="ascii") == "200\n"


# --- byte ranges, which are all of the file to others ---

# What one has of the file, and how.
LOCKED = {
    "write": [(F_WRLCK, 10, 5)],
    "read": [(F_RDLCK, 10, 5)],
    "shrunk": [(F_WRLCK, 0, 100), (F_UNLCK, 20, 50), (F_RDLCK, 10, 5)],
}
# What it gives up after that, while the other waits; the rest comes last.
SHRINKING = [(F_UNLCK, 0, 11), (F_RDLCK, 11, 4), (F_UNLCK, 80, 0), (F_UNLCK, 13, 67)]


@pytest.mark.core
@pytest.mark.parametrize("locked", LOCKED)
def test_others_wait_for_ranges(pair, agent, foreigner, locked):
    """`etcdctl lock` and Go wait for any range, and all the time that it shrinks."""
    one, far = agent(), agent()
    a, b = (who.open(mount / "x", os.O_RDWR | os.O_CREAT)
            for who, mount in zip((one, far), pair.each()))
    for kind, start, length in LOCKED[locked]:
        one.control(a, F_SETLK, kind, start, length)
    foreign = foreigner.start("x")
    pair.await_queue("x", 2)
    for kind, start, length in SHRINKING:
        one.control(a, F_SETLK, kind, start, length)
        # Nobody else gets what is free now, either: he would come after who waits for all of it.
        assert far.error("control", b, F_SETLK, F_RDLCK, 50, 1) == errno.EAGAIN
        assert not foreign.holds()
    assert len(pair.lab.keys("x")) == 2
    one.control(a, F_SETLK, F_UNLCK, 0, 0)
    foreign.await_held(SOON)
    assert one.error("control", a, F_SETLK, F_RDLCK, 0, 1) == errno.EAGAIN


@pytest.mark.core
def test_ranges_wait_for_others(pair, agent, foreigner):
    """Waiting for a range, of whichever kind and on either mount, lasts until the other is done."""
    foreign = foreigner.start("x").await_held()
    who = [agent() for _ in range(4)]
    fds = [each.open(mount / "x", os.O_RDWR) for each, mount in zip(who, pair.each() * 2)]
    for each, fd in zip(who, fds):
        assert each.error("control", fd, F_SETLK, F_RDLCK, 7, 1) == errno.EAGAIN
    for each, fd, (kind, start) in zip(who, fds, ((F_WRLCK, 0), (F_RDLCK, 5), (F_RDLCK, 5),
                                                  (F_WRLCK, 9))):
        each.begin("control", fd, F_SETLKW, kind, start, 3).await_waiting("fcntl")
    assert not any(each.ready() for each in who)
    foreigner.let_go(foreign)
    for each in who:
        each.finish(SOON)
    assert who[0].error("control", fds[0], F_SETLK, F_WRLCK, 5, 1) == errno.EAGAIN


# --- what others have written ---

GARBAGE = [
    b"", b"\0\xff\xfe", b"null", b"[1,2", b'"text"', b"12345678901234567890", b'{"v":99}',
    b'{"v":1,"pid":"abc","uid":-1,"mode":7,"host":["x"],"since":{},"command":null,"data":5}',
    b'{"v":1,"data":"***not base64***"}',
    b'{"v":1,"host":"a\\nstate=held\\nb","command":"\\u0000"}',
    b'{"v":1,"host":"a","cgroup":"/a\\nstate=lost\\u0001"}', b'{"v":1,"host":"a","cgroup":[{}]}',
    b"[" * 5000, b'{"v":1,"pid":1e400,"uid":99999999999999999999}', b"x" * 200000,
]


@pytest.mark.parametrize("value", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_lock_of_an_unknown_holder(pair, agent, value):
    """Whatever somebody wrote into a lock's key: held, readable, waited for, and never a crash."""
    pair.lab.etcd.put(pair.lab.key("j") + "someone", value)
    for mount in pair.each():
        assert mount.names() == ["j"]
        assert int(mount.record("j")["token"]) > 0
        assert len(mount.queue("j")) == 1
        assert not agent().attempt(mount / "j")
    assert checked("ls", "-l", pair.a.path)
    who = agent().begin("take", pair.a / "j")
    pair.await_queue("j", 2)
    pair.lab.etcd.delete(pair.lab.key("j") + "someone")
    who.finish(SOON)


@pytest.mark.core
def test_odd_keys_under_the_prefix(pair, agent):
    """Keys of strange shapes neither break listings nor stand in the way of other locks."""
    prefix = pair.lab.prefix
    odd = ["/", "//", "/direct", "/./k", "/../k", "/a//b/k", "/" + "n" * 300 + "/k",
           "/nul\0name/k", "/\xff\xfe/k", "/x/s-", "/x/.", "/deep/" + "d/" * 50 + "k"]
    for name in odd:
        pair.lab.etcd.put(prefix + name, "odd")
    for mount in pair.each():
        listed = checked("ls", "-la", mount.path)
        assert "deep" in listed
        run("find", mount.path)
        run("cat", mount / "direct")
    one, two = agent(), agent()
    one.take(pair.a / "fine")
    assert not two.attempt(pair.b / "fine")


@pytest.mark.core
def test_garbage_in_a_directory_key(pair, agent):
    """A directory whose key nobody can parse is still a directory one can lock in."""
    for number, value in enumerate(GARBAGE[:9]):
        pair.lab.etcd.put(f"{pair.lab.prefix}/d{number}/dir/", value)
    for number in range(9):
        path = pair.a / f"d{number}/dir"
        assert os.path.isdir(path)
        assert os.listdir(path) == []
        agent().take(f"{path}/x")
        assert os.listdir(pair.b / f"d{number}/dir") == ["x"]


@pytest.mark.core
def test_our_keys_follow_the_protocol(pair, agent):
    """<lease hex>.<sequence hex>, s- before it for shared, JSON as value, the mount's one lease."""
    one, two = agent(), agent()
    one.take(pair.a / "x")
    one.take(pair.a / "y", LOCK_SH)
    two.begin("take", pair.a / "x", LOCK_EX)
    pair.await_queue("x", 2)
    exclusive, waiting = pair.lab.keys("x")
    shared = pair.lab.keys("y")[0]
    lease = f"{exclusive.lease:x}"
    for key, pattern in ((exclusive, ""), (waiting, ""), (shared, "s-")):
        last = key.name.rpartition("/")[2]
        assert re.fullmatch(rf"{pattern}{lease}\.[0-9a-f]+", last), key
        assert f"{key.lease:x}" == lease
        value = json.loads(key.value)
        assert value["v"] == 1
        assert {"host", "pid", "uid", "gid", "command", "since", "mode"} <= set(value)
    assert Path(pair.b / "x").read_text(encoding="utf-8").startswith("token=")
