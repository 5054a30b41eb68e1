# SPDX-License-Identifier: MIT
"""When etcd restarts, stalls, is cut off or full: nobody holds twice, nobody waits for ever."""

import errno
import fcntl
import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
from pathlib import Path

import pytest

from conftest import Pair
from etcdserver import Cluster
from mounting import parse_record
from support import PATIENCE, SOON, Stopwatch, free_port, wait_until
from wire import PeerWire

RW = os.O_RDWR | os.O_CREAT


def contention(lab, pair, name="x"):
    """A holder on A and a waiter on B; (holder, its handle, waiter)."""
    one, two = lab.agent(), lab.agent()
    fd = one.take(pair.a / name)
    two.begin("take", pair.b / name)
    lab.await_keys(name, 2)
    return one, fd, two


def troubled(lab, options="", **extra):
    """A pair whose daemons may say that their store is in trouble."""
    pair = Pair(lab, options, **extra)
    pair.a.expect()
    pair.b.expect()
    return pair


def await_confirmed(who, fd):
    """Waits until the store confirms that a handle holds."""
    wait_until(lambda: who.error("fsync", fd) == 0, what="fsync confirms")


def is_of_places(head):
    """Whether a connection is used for transactions."""
    return b"/v3/kv/txn" in head.split(b"\r\n")[0]


def lost(who, fd):
    """Whether a handle knows that it holds no longer, asking nobody."""
    return who.error("pread", fd, 10, 0) == errno.EIO


# Restarts.


@pytest.mark.parametrize("how", ["try", "wait", "range", "create"])
def test_a_store_that_has_gone_back_in_time(bare_lab, how):
    """A restored backup lacks a lock: its holder is told, and who asks next is granted it."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab)
    server.back_up()
    one, two = lab.agent(), lab.agent()
    for name in ("other", "x", "x"):
        one.close(one.take(pair.a / name))
    fd = one.take(pair.a / "x")
    new = two.open(pair.a / "x", RW)
    server.restore()
    wait_until(lambda: lost(one, fd), what="the holder is told")
    if how == "create":
        two.open(pair.a / "x", RW | os.O_EXCL)
    elif how == "range":
        two.control(new, fcntl.F_SETLK, fcntl.F_WRLCK, 10, 5)
        with pytest.raises(OSError):
            one.control(one.open(pair.b / "x", RW), fcntl.F_SETLK, fcntl.F_WRLCK, 12, 1)
    else:
        two.flock(new, LOCK_EX | (LOCK_NB if how == "try" else 0))
    assert one.error("open", pair.b / "x", RW | os.O_EXCL) == errno.EEXIST


@pytest.mark.core
def test_what_came_while_the_store_was_older(bare_lab):
    """A waiter whose place a restored store has at a revision of long ago is overtaken by nobody."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab)
    reader, writer, late = lab.agent(), lab.agent(), lab.agent()
    first = reader.open(pair.a / "x", RW)
    reader.flock(first, LOCK_SH)
    server.back_up()
    for _ in range(20):
        fd = late.open(pair.a / "x", RW)
        late.flock(fd, LOCK_SH)
        late.close(fd)
    before = int(server.put("other", "x")["header"]["revision"])
    server.restore()
    writer.begin("take", pair.b / "x").await_waiting()
    wait_until(lambda: len(server.keys(f"{lab.prefix}/x/")) == 2, what="the writer is in the queue")
    wait_until(lambda: late.error("open", pair.a / "y", os.O_RDONLY) == errno.ENOENT,
               what="the mount has heard from the restored store")
    assert int(server.put("other", "x")["header"]["revision"]) < before
    while int(server.put("other", "x")["header"]["revision"]) <= before:
        pass
    late.begin("flock", late.open(pair.a / "x", RW), LOCK_SH).await_waiting()
    lab.await_keys("x", 3)
    reader.close(first)
    fd = writer.finish()
    assert not late.ready(), "a reader overtook the writer"
    writer.close(fd)
    late.finish()
    wait_until(lambda: "etcd's revision went back" in pair.a.log(), SOON, "the log says it")


@pytest.mark.core
def test_restart_within_the_ttl(bare_lab):
    """etcd is killed and comes back with its data in time: holder and waiter both go on."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab, "timeout=2")
    one, fd, two = contention(lab, pair)
    server.kill()
    assert one.error("fsync", fd) == errno.EIO
    assert not two.ready()
    server.start()
    await_confirmed(one, fd)
    assert not two.ready()
    assert len(lab.keys("x")) == 2
    one.flock(fd, LOCK_UN)
    mine = two.finish(SOON)
    two.fsync(mine)


@pytest.mark.core
def test_restart_beyond_the_ttl(bare_lab):
    """etcd is away for longer than the TTL: the holder gets EIO, the waiter later the lock."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab, "timeout=2", ttl=3)
    one, fd, two = contention(lab, pair)
    server.kill()
    wait_until(lambda: lost(one, fd), what="the holder is told while etcd is down")
    assert not two.ready()
    server.start()
    mine = two.finish()
    two.fsync(mine)
    assert lost(one, fd)
    assert one.error("fsync", fd) == errno.EIO
    one.flock(fd, LOCK_UN)
    wait_until(lambda: one.error("flock", fd, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK, SOON)


def test_restart_under_many_waiters(bare_lab):
    """Ten waiters on both mounts live through two restarts and are all granted, one by one."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab)
    one = lab.agent()
    fd = one.take(pair.a / "x")
    crowd = [lab.agent().begin("take", pair.each()[n % 2] / "x") for n in range(10)]
    lab.await_keys("x", 11)
    for _ in range(2):
        server.kill()
        server.start()
    await_confirmed(one, fd)
    one.close(fd)
    waiting = list(crowd)
    while waiting:
        wait_until(lambda: any(who.ready() for who in waiting))
        granted = [who for who in waiting if who.ready()]
        assert len(granted) == 1
        granted[0].close(granted[0].finish())
        waiting.remove(granted[0])


@pytest.mark.core
def test_while_etcd_is_down(bare_lab):
    """Tries and look-ups fail with EIO after the timeout, waiting goes on, unlocking returns."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab, "timeout=2")
    one, two = lab.agent(), lab.agent()
    fd = one.take(pair.a / "x")
    handle = two.open(pair.a / "y", RW)
    server.kill()
    watch = Stopwatch()
    assert two.error("flock", handle, LOCK_EX | LOCK_NB) == errno.EIO
    assert two.error("stat", pair.a / "z") == errno.EIO
    assert two.error("listdir", str(pair.a)) == errno.EIO
    assert two.error("mkdir", pair.a / "d") == errno.EIO
    assert two.error("open", pair.a / "z", RW | os.O_EXCL) == errno.EIO
    assert watch.seconds < PATIENCE
    assert two.alarmed(0.3, "flock", handle, LOCK_EX) == "interrupted"
    two.begin("flock", handle, LOCK_EX)
    watch = Stopwatch()
    one.flock(fd, LOCK_UN)
    one.close(fd)
    assert watch.seconds < SOON
    assert not two.ready()
    server.start()
    two.finish()
    wait_until(lambda: not lab.keys("x"), what="the unlock reached etcd")


def test_release_by_death_while_etcd_is_down(bare_lab):
    """A holder that dies while etcd is away does not hold after it is back."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab)
    one, _, two = contention(lab, pair)
    server.kill()
    one.kill()
    server.start()
    two.finish()


# A stalled or broken network.


def test_stall_shorter_than_the_ttl(bare_lab):
    """etcd stands still for a while: nothing is lost, and what was asked is answered afterwards."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab)
    one, fd, two = contention(lab, pair)
    server.pause()
    one.begin("flock", fd, LOCK_UN)
    assert not two.ready(0.5)
    server.resume()
    one.finish()
    two.finish()


@pytest.mark.core
def test_stall_longer_than_the_ttl(bare_lab):
    """etcd stands still beyond the TTL: the holder is told before etcd runs again."""
    lab, server = bare_lab, bare_lab.own_etcd()
    pair = troubled(lab, "timeout=2", ttl=3)
    one, fd, two = contention(lab, pair)
    server.pause()
    wait_until(lambda: lost(one, fd), what="the deadline")
    assert not two.ready()
    server.resume()
    mine = two.finish()
    two.fsync(mine)


def test_doubtful_state(bare_lab):
    """While renewals fail the record says doubtful; when they work again, held."""
    lab, server = bare_lab, bare_lab.own_etcd()
    mount = lab.mount("timeout=2", ttl=20).expect()
    one = lab.agent()
    fd = one.take(mount / "x")

    def state():
        return parse_record(one.pread(fd, 999, 0).decode())["state"]

    assert state() == "held"
    server.pause()
    wait_until(lambda: state() == "doubtful", what="state=doubtful")
    server.resume()
    wait_until(lambda: state() == "held", what="state=held")
    one.fsync(fd)


@pytest.mark.core
def test_partition_never_two_holders(bare_lab):
    """A is cut off: when B is granted the lock, the holder on A already gets EIO."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount("timeout=2", ttl=3, url=wire.url, name="a").expect()
    b = lab.mount("timeout=2", ttl=3, name="b")
    one, two = lab.agent(), lab.agent()
    for how in (wire.stall, wire.cut):
        fd = one.take(a / "x")
        two.begin("take", b / "x")
        lab.await_keys("x", 2)
        how()
        mine = two.finish()
        assert lost(one, fd)
        wire.mend()
        wait_until(lambda: one.error("fsync", fd) == errno.EIO)
        one.close(fd)
        two.close(mine)
        # While the store is known to be away, a try is answered with EIO at once.
        wait_until(lambda: one.error("attempt", a / "x") == 0)
        assert one.attempt(a / "x")


@pytest.mark.core
def test_partitioned_waiter_queues_again(bare_lab):
    """A waiter cut off beyond its TTL comes back under a new lease and gets the lock in the end."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount("timeout=2", ttl=3, url=wire.url, name="a").expect()
    b = lab.mount(name="b")
    one, two = lab.agent(), lab.agent()
    fd = one.take(b / "x")
    two.begin("take", a / "x")
    old = lab.await_keys("x", 2)[1]
    wire.cut()
    lab.await_keys("x", 1)
    wire.mend()
    new = lab.await_keys("x", 2)[1]
    assert new.lease != old.lease and not two.ready()
    one.close(fd)
    two.fsync(two.finish())


@pytest.mark.core
def test_stalled_watch_only_delays(bare_lab):
    """A watch that carries nothing any more delays a grant by about a TTL, and never loses it."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount("timeout=2", ttl=3, url=wire.url, name="a").expect()
    b = lab.mount(name="b")
    one, two = lab.agent(), lab.agent()
    fd = one.take(b / "x")
    two.begin("take", a / "x")
    lab.await_keys("x", 2)
    wait_until(wire.stall_watches, what="there is a watch, and it is stalled")
    one.close(fd)
    two.finish()
    wait_until(lambda: "broke: events are missing" in a.log(), what="another watch is opened")
    wait_until(lambda: "the watch goes on" in a.log(), what="it is open")
    wire.mend()


@pytest.mark.core
def test_late_watch_is_no_dead_one(bare_lab):
    """Events that are slower than what is read are not missing: nobody complains."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount("timeout=30", ttl=3, url=wire.url, name="a")
    b = lab.mount(name="b")
    one, two = lab.agent(), lab.agent()
    fd = one.take(b / "x")
    two.begin("take", a / "x")
    lab.await_keys("x", 2)
    wire.stall(lambda head: b"/v3/watch" in head.split(b"\r\n")[0])
    one.close(fd)
    mine = two.finish()
    wire.mend()
    for _ in range(3):
        one.begin("take", b / "x")
        lab.await_keys("x", 2)
        two.close(mine)
        fd = one.finish()
        two.begin("take", a / "x")
        lab.await_keys("x", 2)
        one.close(fd)
        mine = two.finish()


@pytest.mark.core
def test_stalled_watch_does_not_hide_an_operator(bare_lab):
    """Even with a dead watch a deleted key is noticed: once per TTL our keys are compared."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount(ttl=5, url=wire.url, name="a").expect()
    one = lab.agent()
    fd = one.take(a / "x")
    wait_until(wire.stall_watches, what="there is a watch, and it is stalled")
    server.delete(lab.keys("x")[0].name)
    wait_until(lambda: lost(one, fd), what="the loss is noticed")


@pytest.mark.core
def test_compaction_while_the_watch_is_down(bare_lab):
    """History compacted away while A is cut off: A reads anew and misses no release."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount(url=wire.url, name="a").expect()
    b = lab.mount(name="b")
    one, two, mine = lab.agent(), lab.agent(), lab.agent()
    fd = one.take(b / "x")
    kept, broken = mine.take(a / "kept"), mine.take(a / "broken")
    two.begin("take", a / "x")
    lab.await_keys("x", 2)
    wire.cut()
    one.close(fd)
    lab.await_keys("x", 1)
    server.delete(lab.keys("broken")[0].name)
    for number in range(20):
        server.put(f"/other/{number}", "noise")
    server.compact()
    wire.mend()
    two.finish()
    wait_until(lambda: lost(mine, broken), what="the deleted key is noticed")
    await_confirmed(mine, kept)


def test_key_that_came_back_while_the_watch_was_down(bare_lab):
    """An operator deletes A's key, and a late copy of A's request puts it there again: lost."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount(url=wire.url, name="a").expect()
    one = lab.agent()
    fd, kept = one.take(a / "x"), one.take(a / "kept")
    key, = lab.keys("x")
    wire.cut()
    server.delete(key.name)
    server.put(key.name, key.value, key.lease)
    server.compact()
    wire.mend()
    wait_until(lambda: lost(one, fd), SOON, "the loss is noticed")
    await_confirmed(one, kept)


def test_shared_try_whose_answer_is_lost(bare_lab):
    """The try is repeated and finds itself: the token is that of its key."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    mount = lab.mount(url=wire.url, name="a").expect()
    one = lab.agent()
    fd = one.open(mount / "x", RW)
    wire.stall(is_of_places, ways=(False,))
    one.begin("flock", fd, LOCK_SH | LOCK_NB)
    key, = lab.await_keys("x", 1)
    wire.cut()
    wire.mend()
    one.finish()
    assert parse_record(one.pread(fd, 999, 0).decode())["token"] == str(key.create_revision)
    one.fsync(fd)


@pytest.mark.core
def test_connection_broken_again_and_again(bare_lab):
    """Connections that are reset under load lose no count: a retried request finds itself."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount(url=wire.url, name="a").expect()
    b = lab.mount(name="b")
    counter = lab.scratch("0\n")
    add = f"n=$(cat {counter}); echo $((n+1)) > {counter}"
    loop = 'for i in $(seq 20); do flock "$1" sh -c "$2" || exit 1; done'
    shells = [lab.holder("bash", "-c", loop, "bash", mount / "ctr", add)
              for _ in range(4) for mount in (a, b)]

    seen = None

    def break_it():
        # Whenever there was progress: without any, EIO would be the right answer.
        nonlocal seen
        if counter.read_text() != seen:
            seen = counter.read_text()
            wire.cut()
            wire.mend()
        return all(shell.process.poll() is not None for shell in shells)

    wait_until(break_it, 80)
    assert [shell.exit_status() for shell in shells] == [0] * 8
    assert counter.read_text(encoding="ascii") == "160\n"
    wait_until(lambda: not lab.keys("ctr"), what="no key is left behind")


# Several endpoints.


def test_first_endpoint_refuses(bare_lab):
    """A dead first endpoint does not matter, with schemes and without."""
    lab, server = bare_lab, bare_lab.own_etcd()
    dead = f"127.0.0.1:{free_port()}"
    one, two = lab.agent(), lab.agent()
    a = lab.mount(url=f"http://{dead},{server.url}", name="a").expect()
    b = lab.mount(url=f"{dead},{server.host}", name="b").expect()
    fd = one.take(a / "x")
    assert not two.attempt(b / "x")
    one.fsync(fd)


@pytest.mark.core
def test_cluster_member_dies(bare_lab):
    """The member we talk to is killed: holder and waiter go on with another one."""
    lab = bare_lab
    cluster = Cluster(lab.base)
    lab.servers.extend(cluster.members)
    cluster.start()
    lab.etcd = cluster.members[2]
    pair = troubled(lab, url=cluster.url)
    one, fd, two = contention(lab, pair)
    cluster.members[0].kill()
    await_confirmed(one, fd)
    one.close(fd)
    two.finish()


@pytest.mark.core
def test_cluster_member_stalls(bare_lab):
    """The member we talk to stands still with its connections open: another one is taken."""
    lab = bare_lab
    cluster = Cluster(lab.base)
    lab.servers.extend(cluster.members)
    cluster.start()
    lab.etcd = cluster.members[2]
    # A member's silence is found out with the next renewal, a third of the TTL later.
    pair = troubled(lab, "timeout=2", ttl=10, url=cluster.url)
    one, fd, two = contention(lab, pair)
    cluster.members[0].pause()
    await_confirmed(one, fd)
    one.close(fd)
    two.finish()


@pytest.mark.core
def test_cluster_without_quorum(bare_lab):
    """Two of three stand still: nothing is granted and nothing confirmed until they are back."""
    lab = bare_lab
    cluster = Cluster(lab.base)
    lab.servers.extend(cluster.members)
    cluster.start()
    lab.etcd = cluster.members[0]
    pair = troubled(lab, "timeout=2", url=cluster.url)
    one, fd, two = contention(lab, pair)
    for member in cluster.members[1:]:
        member.pause()
    wait_until(lambda: one.error("fsync", fd) == errno.EIO, what="nothing can confirm")
    one.close(fd)
    assert not two.ready(0.5)
    for member in cluster.members[1:]:
        member.resume()
    two.fsync(two.finish())


@pytest.mark.core
def test_cluster_member_without_leader(bare_lab):
    """The member we watch loses its leader while the others go on: the watch moves over."""
    lab, wires = bare_lab, {}

    def route(member):
        wires[member.name] = PeerWire(member.peer_port)
        lab.wires.append(wires[member.name])
        return wires[member.name].url

    cluster = Cluster(lab.base, route)
    lab.servers.extend(cluster.members)
    cluster.start()
    alone, other = cluster.members[0], cluster.members[2]
    lab.etcd = other
    a = lab.mount("timeout=2", url=cluster.url, name="a").expect()
    b = lab.mount("timeout=2", url=other.url, name="b").expect()
    one, two = lab.agent(), lab.agent()
    fd = one.take(b / "x")
    two.begin("take", a / "x")
    lab.await_keys("x", 2)
    identity = f"{int(alone.call('/v3/maintenance/status')['header']['member_id']):x}"
    wires[alone.name].isolate(None)
    for name in ("two", "three"):
        wires[name].isolate({identity})
    await_confirmed(one, fd)
    one.close(fd)
    two.finish()
    for wire in wires.values():
        wire.mend()


# A full store.


@pytest.mark.core
def test_full_store(bare_lab):
    """A store out of space: ENOSPC for what is new, unlocking works, and it recovers."""
    lab = bare_lab
    server = lab.own_etcd(extra=["--quota-backend-bytes", str(4 << 20)])
    mount = lab.mount().expect()
    one = lab.agent()
    fd, free = one.take(mount / "x"), one.open(mount / "y", RW)
    with pytest.raises(OSError):
        for number in range(100):
            server.put(f"/filler/{number}", "x" * 500_000)
    assert one.error("flock", free, LOCK_EX | LOCK_NB) == errno.ENOSPC
    assert one.error("mkdir", mount / "d") == errno.ENOSPC
    one.fsync(fd)
    one.flock(fd, LOCK_UN)
    wait_until(lambda: not lab.keys("x"), SOON, "the unlock reached etcd")
    for number in range(100):
        server.delete(f"/filler/{number}")
    server.compact()
    server.etcdctl("defrag")
    server.etcdctl("alarm", "disarm")
    wait_until(lambda: one.error("flock", free, LOCK_EX | LOCK_NB) == 0)
    assert Path(mount / "y").read_text(encoding="utf-8").startswith("token=")
