# SPDX-License-Identifier: MIT
"""Limits: of descriptors, the process, claims, contents, names; what was needed for a crowd is given back."""

import errno
import os
import re
import resource
import signal
import threading
from fcntl import F_RDLCK, F_SETLK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
from pathlib import Path

import pytest

from conftest import Pair
from etcdserver import encode
from mounting import BINARY, PLAIN_BINARY, is_sanitized
from support import (
    IN_FULL, LONG, PATIENCE, SOON, Stopwatch, cpu_seconds, memory_kib, open_files, wait_until,
)

RW = os.O_RDWR | os.O_CREAT
KIB = 1024
FULL = 64 * KIB  # the most that one lock file holds
# Of a crowd: full lock files, names, waiters; and how long one may take.
FULL_FILES, NAMES, WAITERS = (3000, 100_000, 10_000) if IN_FULL else (400, 4000, 1000)
AGES = 600 if IN_FULL else 60
GOES_ON = "was killed by signal 9 .*another one goes on"
SHORTAGE = "no connection to etcd can be opened: Too many open files"


# Descriptors.


def started_with(lab, limits):
    """A binary that runs the daemon after `ulimit`."""
    script = lab.scratch(f'#!/bin/sh\nulimit {limits}\nexec {BINARY} "$@"\n')
    script.chmod(0o755)
    return script


def descriptors(pid):
    """Descriptor -> whether it is a connection, of a process."""
    connections = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        connections.add(f"socket:[{line.split()[9]}]")
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}") in connections
        except FileNotFoundError:
            pass
    return found


def leave_room(pid, used, room):
    """Lowers the limit of open files to where, beside `used`, only so many find room."""
    limit = 0
    while limit in used or room > 0:
        room -= limit not in used
        limit += 1
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, most))
    return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


class Load:
    """Threads that look names up all the time, and count what fails."""

    def __init__(self, mount, threads=16):
        self.mount = mount
        self.done = self.failed = 0
        self.stopped = False
        self.threads = [threading.Thread(target=self.look) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def look(self):
        """One thread's work."""
        while not self.stopped:
            try:
                os.stat(self.mount / f"name-{threading.get_ident()}")
            except FileNotFoundError:
                self.done += 1
            except OSError:
                self.failed += 1

    def stop(self):
        """Ends all of them."""
        self.stopped = True
        for thread in self.threads:
            thread.join()


def test_too_few_descriptors_are_told(lab):
    """What the limit is and what is needed, in the one line before it ends."""
    mount = lab.mount(start=False, binary=started_with(lab, "-n 35")).expect("35 open files")
    mount.expected_exit = 1
    mount.launch()
    assert mount.wait_exit() == 1
    assert mount.log().count("\n") == 1
    assert "35 open files are too few, at least 36 are needed" in mount.log()


def test_few_descriptors_are_enough(lab, programs):
    """The least that is accepted is enough for everything, if not for all of the speed."""
    mount = lab.mount(binary=started_with(lab, "-n 36"))
    other = lab.mount()
    load = Load(mount)
    crowd = lab.holder(programs["exclusion"], "16", "40", "8", mount, other)
    assert crowd.exit_status(60) == 0, crowd.errors
    load.stop()
    assert load.done and not load.failed
    assert open_files(mount.server) <= 36


def test_a_soft_limit_is_raised(lab):
    """To the hard one."""
    mount = lab.mount(binary=started_with(lab, "-S -n 20"))
    soft, hard = resource.prlimit(mount.server, resource.RLIMIT_NOFILE)
    assert soft == hard > 20
    assert not mount.names(), "it serves: before that it would end as one that failed"


def test_watched_processes_leave_descriptors_to_connections(lab):
    """With hold=process each lock needs one: when they are used up that fails, and nothing else."""
    mount = lab.mount("hold=process", binary=started_with(lab, "-n 70")).expect("be watched")
    one, names = lab.agent(), [f"x{number}" for number in range(40)]
    codes = [one.error("open", mount / name, RW | os.O_EXCL) for name in names]
    kept = codes.count(0)
    assert 5 < kept < 40 and set(codes[kept:]) == {errno.ENOSPC}
    assert sorted(mount.names()) == sorted(names[:kept])
    load = Load(mount)
    wait_until(lambda: load.done > 200, what="names are looked up")
    load.stop()
    assert not load.failed
    assert lab.agent().attempt(mount / "other")
    one.unlink(mount / "x0")
    one.open(mount / names[-1], RW | os.O_EXCL)


def test_exhausted_while_all_is_well(lab):
    """Not one more can be opened: the connections that there are do for everybody."""
    mount = lab.mount("", ttl=3).expect(SHORTAGE)
    one, two = lab.agent(), lab.agent()
    held = one.take(mount / "held")
    restore = leave_room(mount.server, descriptors(mount.server), 0)
    files, watch = open_files(mount.server), Stopwatch()
    load = Load(mount)
    try:
        other = two.take(mount / "other")
        assert int(mount.record("other")["pid"]) == two.pid
        wait_until(lambda: watch.seconds > 7 and load.done > 100, what="two leases' time")
        one.fsync(held)
        two.fsync(other)
        assert open_files(mount.server) <= files
    finally:
        load.stop()
        restore()
    assert not load.failed


def test_exhausted_when_connections_are_lost(lab):
    """There is room for few new ones: renewals get them, nothing spins, and all comes back."""
    wire = lab.wire()
    mount = lab.mount("timeout=2", url=wire.url, ttl=5).expect()
    other = lab.mount(name="other")
    one, two = lab.agent(), lab.agent()
    held = one.take(mount / "held")
    before = descriptors(mount.server)
    used = [number for number, is_connection in before.items() if not is_connection]
    restore = leave_room(mount.server, used, 4)
    try:
        wire.cut()
        wire.mend()
        watch, cpu = Stopwatch(), cpu_seconds(mount.server)
        assert two.error("stat", mount / "any") == errno.EIO
        wait_until(lambda: watch.seconds > 11, what="two leases' time")
        assert cpu_seconds(mount.server) - cpu < watch.seconds / 3
        assert not two.attempt(other / "held")
    finally:
        restore()
    wait_until(lambda: two.error("stat", mount / "any") == errno.ENOENT, SOON, "names work again")
    one.fsync(held)
    one.flock(held, LOCK_UN)
    assert two.attempt(other / "held")
    two.close(two.take(mount / "any"))
    assert "lost" not in mount.log()
    assert mount.log().count(SHORTAGE) == 1
    assert len(descriptors(mount.server)) <= len(before) + 8


# Limits of the process.

# So many locks need more of the memory that the next process goes on from than one may have.
MANY_LOCKS, LITTLE = 300, 200_000
# More than the process at its start, and less than with so many full lock files; or what we may have.
MOST = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
ENOUGH_AT_FIRST = min(32 * KIB * KIB, MOST if MOST >= 0 else 32 * KIB * KIB)
NO_IPC_LOCK = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
CLOSED = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
LIMITED = {
    "file size, soft": ["prlimit", f"--fsize={LITTLE}:"],
    "processor time, soft": ["prlimit", "--cpu=1:"],
    "address space, soft": ["prlimit", f"--as={64 * KIB * KIB}:"],
    "data, soft": ["prlimit", f"--data={8 * KIB * KIB}:"],
    "locked memory": ["prlimit", f"--memlock={ENOUGH_AT_FIRST}:{ENOUGH_AT_FIRST}", *NO_IPC_LOCK],
    "no locked memory": ["prlimit", "--memlock=0:0", *NO_IPC_LOCK],
    "nothing open": CLOSED,
}


@pytest.mark.parametrize("wrapper", LIMITED.values(), ids=LIMITED)
def test_limits_of_the_process(lab, programs, wrapper):
    """Soft ones are raised, memory is locked only if that limits nothing, streams are not needed:
    everything works, and another process can go on with it."""
    # Sanitizers reserve terabytes.
    mount = lab.mount("max_content=64,write_rate=1000000", wrapper=wrapper, binary=PLAIN_BINARY)
    mount.expect(GOES_ON)
    other = lab.mount()
    hoard = lab.holder(programs["hoard"], mount, 0, MANY_LOCKS, FULL).await_held(60)
    server = mount.server
    mount.kill_server()
    wait_until(lambda: mount.server not in (None, server), what="another one serves it")
    assert not lab.agent().attempt(other / "hoard-7")
    assert hoard.release() == 0
    wait_until(lambda: not lab.etcd.count(f"{lab.prefix}/"), what="all is given back")


def test_a_full_temporary_directory(lab, shared):
    """Nothing is written there, nor in /run."""
    script = ("mount --make-private / && mount -t tmpfs -o size=4k none /run && "
              "! head -c 9999 /dev/zero >/run/full && exec \"$@\"")
    mount = lab.mount(name="shared/m", environment={"TMPDIR": "/run"}, start=False, wrapper=[
        "unshare", "--mount", "--propagation=unchanged", "sh", "-c", script, "sh"])
    mount.expect("head: error writing").start()
    assert lab.agent().attempt(mount / "x")


def test_a_limit_of_the_size_of_files(lab, programs):
    """What the next process would need counts as a file; that there is none is said once, and locks
    are as good as with supervise=no."""
    mount = lab.mount(wrapper=["prlimit", f"--fsize={LITTLE}:{LITTLE}"])
    mount.expect("there is no memory for what another process would need.*File too large")
    server = mount.server
    hoard = lab.holder(programs["hoard"], mount, 0, 3 * MANY_LOCKS, 0).await_held(60)
    assert mount.log().count("File too large") == 1
    assert mount.server == server and hoard.release() == 0


def test_a_limit_of_processor_time(lab):
    """The kernel kills a process that has used it up, and another one goes on."""
    mount = lab.mount(wrapper=["prlimit", "--cpu=1:1"]).expect(GOES_ON)
    one, server = lab.agent(), mount.server
    fd = one.take(mount / "x")
    load = Load(mount, 2)
    wait_until(lambda: mount.server not in (None, server), 60, "another one serves it")
    load.stop()
    one.fsync(fd)
    assert not load.failed and not lab.agent().attempt(lab.mount() / "x")


SCARCE = {
    "processes": (["prlimit", "--nproc=0:0", "setpriv", "--reuid=1234", "--clear-groups"], "fork"),
    "file size": (["prlimit", "--fsize=1000:1000"], "File too large"),
}


@pytest.mark.parametrize("wrapper,reason", SCARCE.values(), ids=SCARCE)
def test_too_little_to_start_with(lab, wrapper, reason):
    """Why is told in the one line before it ends."""
    mount = lab.mount(start=False, wrapper=wrapper, binary=PLAIN_BINARY).expect(reason)
    mount.expected_exit = 1
    mount.launch()
    assert mount.wait_exit() == 1
    assert mount.log().count("\n") == 1 and reason in mount.log()


# Claims.


def test_claims_are_bounded(lab):
    """Beyond max_claims every way to ask for a lock gives ENOSPC; nothing else is concerned."""
    pair = Pair(lab)
    mount = lab.mount("max_claims=5", name="c").expect(r"5 locks are held or waited for")
    one, waiter = lab.agent(), lab.agent()
    held = [one.take(mount / name) for name in "ab"] + [one.open(mount / "c", RW)]
    one.control(held[2], F_SETLK, F_RDLCK)
    held.append(one.take(mount / "d"))
    waiter.begin("take", mount / "a").await_waiting()
    lab.await_keys("a", 2)
    fd = one.open(mount / "e", RW)
    for operation in (LOCK_EX, LOCK_SH, LOCK_EX | LOCK_NB):
        assert one.error("flock", fd, operation) == errno.ENOSPC
    assert one.error("control", fd, F_SETLK, F_WRLCK) == errno.ENOSPC
    assert one.error("open", mount / "e", RW | os.O_EXCL) == errno.ENOSPC
    assert sorted(mount.names()) == pair.a.names() == list("abcd")
    assert lab.agent().attempt(pair.a / "e")
    one.flock(held[1], LOCK_SH | LOCK_NB)
    one.control(held[2], F_SETLK, F_WRLCK)
    one.close(held[3])
    one.flock(fd, LOCK_EX | LOCK_NB)
    assert one.error("flock", one.open(mount / "f", RW), LOCK_EX) == errno.ENOSPC
    assert mount.log().count("max_claims") == 1


def test_ranges_are_bounded(pair, agent):
    """An owner has up to 1024 ranges of a file, and can always lock or unlock all of it."""
    one = agent()
    fd = one.open(pair.a / "x", RW)
    one.control_each(fd, F_WRLCK, range(0, 2 * 1023, 2))
    one.control(fd, F_SETLK, F_WRLCK, 9000, 100)
    assert one.error("control", fd, F_SETLK, F_WRLCK, 90000, 1) == errno.ENOSPC
    assert one.error("control", fd, F_SETLK, F_UNLCK, 9050, 1) == errno.ENOSPC
    one.control(fd, F_SETLK, F_UNLCK, 0, 1)
    one.control(fd, F_SETLK, F_WRLCK, 90000, 1)
    one.control(fd, F_SETLK, F_WRLCK, 0, 0)
    one.control(fd, F_SETLK, F_UNLCK, 0, 0)
    assert agent().attempt(pair.b / "x")


# Contents.


def test_contents_are_bounded(lab):
    """Beyond max_content in all, writing gives ENOSPC; what was written stays as it is."""
    pair = Pair(lab, "max_content=1")
    pair.a.expect(r"\d+ bytes are the content of lock files")
    one = lab.agent()
    held = [one.take(pair.a / f"x{number}") for number in range(17)]
    for number in range(15):
        one.pwrite(held[number], bytes([number]) * FULL, 0)
    one.pwrite(held[15], b"y" * (FULL - 10), 0)
    assert one.error("pwrite", held[16], b"z" * 11, 0) == errno.ENOSPC
    assert one.error("ftruncate", held[16], 11) == errno.ENOSPC
    assert one.error("pwrite", held[16], b"z" * FULL, 1) == errno.EFBIG
    one.pwrite(held[16], b"z" * 10, 0)
    one.pwrite(held[3], b"3" * FULL, 0)
    assert Path(pair.b / "x15").read_bytes() == b"y" * (FULL - 10)
    assert Path(pair.b / "x16").read_bytes() == b"z" * 10
    one.ftruncate(held[0], 0)
    one.pwrite(held[16], b"z" * FULL, 0)
    one.close(held[15])
    one.pwrite(held[0], b"0" * (FULL - 10), 0)
    assert pair.a.log().count("max_content") == 1


# Shares: one user against all others.


ALICE, BOB = 10001, 10002


class Neighbours:
    """A mount for everybody, where Bob takes what he can, beside Alice and root."""

    def __init__(self, lab, options, **words):
        self.mount = lab.mount(f"allow_other,{options}", **words).expect(
            r"of user \d+ \(user_share of|was killed by signal 9|Too many open files")
        self.root = lab.agent()
        self.alice, self.bob = (lab.agent(user=uid, group=uid, extra_groups=[])
                                for uid in (ALICE, BOB))


def test_one_user_has_a_share_of_the_claims(lab):
    """Bob can't take all locks; Alice has hers, and root the reserve."""
    people = Neighbours(lab, "max_claims=160,hold=name")
    mount, bob = people.mount, people.bob
    for number in range(16):
        bob.close(bob.open(mount / f"b{number}", RW | os.O_EXCL))
    assert bob.error("open", mount / "more", RW | os.O_EXCL) == errno.ENOSPC
    fd = bob.open(mount / "more", RW)
    assert bob.error("flock", fd, LOCK_EX | LOCK_NB) == errno.ENOSPC
    assert bob.error("control", fd, F_SETLK, F_WRLCK) == errno.ENOSPC
    people.alice.take(mount / "a")
    for number in range(20):
        people.root.take(mount / f"r{number}")
    text = Path(mount / ".latchfs/metrics").read_text(encoding="ascii")
    assert 'latchfs_limit{resource="claims",of="user"} 16\n' in text
    assert 'latchfs_limit_refused_total{resource="claims",of="user"} 3\n' in text
    mount.kill_server()
    bob.unlink(mount / "b3")
    bob.flock(fd, LOCK_EX | LOCK_NB)
    assert bob.error("open", mount / "again", RW | os.O_EXCL) == errno.ENOSPC


def test_one_user_has_a_share_of_the_contents(lab):
    """Bob can't fill the lock files; Alice writes."""
    people = Neighbours(lab, "max_content=1")
    held = [people.bob.take(people.mount / f"b{number}") for number in range(2)]
    people.bob.pwrite(held[0], b"b" * FULL, 0)
    assert people.bob.error("pwrite", held[1], b"b" * FULL, 0) == errno.ENOSPC
    people.alice.pwrite(people.alice.take(people.mount / "a"), b"a" * FULL, 0)
    for number in range(3):
        people.root.pwrite(people.root.take(people.mount / f"r{number}"), b"r" * FULL, 0)


def test_one_user_has_a_share_of_the_handles(lab):
    """Bob can't open everything, in any way; what he closes he may open again."""
    people = Neighbours(lab, "max_handles=160,names=always")
    mount, bob = people.mount, people.bob
    fds = [bob.open(mount / f"b{number}", RW) for number in range(16)]
    for path, flags in ((mount / "x", RW), (mount / "x", os.O_RDONLY),
                        (mount.path, os.O_RDONLY | os.O_DIRECTORY),
                        (mount / ".latchfs/status", os.O_RDONLY)):
        assert bob.error("open", path, flags) == errno.ENFILE
    people.alice.open(mount / "a", RW)
    people.root.open(mount / "r", RW)
    mount.kill_server()
    bob.close(fds.pop())
    wait_until(lambda: not bob.error("open", mount / "x", RW), SOON, "what was closed is free")
    assert bob.error("open", mount / "y", RW) == errno.ENFILE


def test_one_user_has_a_share_of_the_watched_processes(lab):
    """With few descriptors Bob's hold=process locks leave some for Alice and root."""
    people = Neighbours(lab, "hold=process", binary=started_with(lab, "-n 120"))
    mount, bob = people.mount, people.bob
    for number in range(8):  # a tenth of 120, less what connections may need
        bob.open(mount / f"b{number}", RW | os.O_EXCL)
    assert bob.error("open", mount / "more", RW | os.O_EXCL) == errno.ENOSPC
    people.alice.open(mount / "a", RW | os.O_EXCL)
    mount.kill_server()
    people.root.open(mount / "r", RW | os.O_EXCL)
    assert bob.error("open", mount / "more", RW | os.O_EXCL) == errno.ENOSPC


# What was needed is given back.


@pytest.fixture
def counted(lab):
    """Mounts A, where every name exists, and B, whose memory counts."""
    pair = Pair(lab, "timeout=60", binary=PLAIN_BINARY)
    pair.a.stop()
    pair.a.options += ",names=always,max_claims=200000,max_content=1024,write_rate=1000000"
    pair.a.start()
    yield pair


def taken(pair, program, first, count, size=0):
    """A process that has taken so many locks of A, each with some content."""
    return pair.lab.holder(program, pair.a, first, count, size).await_held(AGES)


def all_free(pair):
    """Waits until no key is left."""
    wait_until(lambda: not pair.lab.etcd.count(f"{pair.lab.prefix}/"), AGES, "no key is left")


def sizes(pair):
    """Memory of both."""
    return [memory_kib(mount.server) for mount in pair.each()]


def full_contents(pair, program):
    """Many full lock files cost what they hold, and little more."""
    before = memory_kib(pair.a.server)
    hoard = taken(pair, program, 0, FULL_FILES, FULL)
    if not is_sanitized(PLAIN_BINARY):
        # Once here, and once for who may have to go on.
        assert memory_kib(pair.a.server) < before + 2 * FULL_FILES * 64 + FULL_FILES * 40
    assert Path(pair.b / f"hoard-{FULL_FILES - 1}").read_bytes() == b"x" * FULL
    assert hoard.release() == 0


def many_names(pair, program):
    """All are listed, each once, on another machine too; twice, with names never used before."""
    for first in (10_000, 10_000 + NAMES):
        # As many as one process may have open.
        each = min(NAMES, 10_000)
        hoards = [taken(pair, program, first + part, each) for part in range(0, NAMES, each)]
        for mount in pair.each():
            names = os.listdir(mount.path)
            assert len(names) == NAMES
            assert set(names) == {f"hoard-{number}" for number in range(first, first + NAMES)}
        assert [hoard.release() for hoard in hoards] == [0] * len(hoards)
        all_free(pair)
        assert not os.listdir(pair.b.path)


def killed_waiters(pair, program):
    """All die at once, and leave the queue to who still waits, here and elsewhere."""
    one, two = pair.lab.agent(), pair.lab.agent()
    fd, log = one.take(pair.a / "x"), pair.lab.scratch()
    crowd = pair.lab.holder(program, pair.a / "x", WAITERS, log)
    count = lambda: pair.lab.etcd.count(pair.lab.key("x"))
    wait_until(lambda: count() == WAITERS + 1, AGES, "all wait")
    two.begin("take", pair.b / "x")
    wait_until(lambda: count() == WAITERS + 2, what="one more waits")
    crowd.kill()
    wait_until(lambda: count() == 2, AGES, "they are gone")
    one.close(fd)
    two.close(two.finish(SOON))
    assert log.read_text(encoding="ascii") == ""


@pytest.mark.limit(4 * AGES)
def test_memory_and_descriptors_return(counted, programs):
    """Full lock files, many names, killed waiters: each is told right, then all is as before."""
    two = counted.lab.agent()
    two.attempt(counted.b / "first")
    before = sizes(counted)
    files = [open_files(mount.server) for mount in counted.each()]
    full_contents(counted, programs["hoard"])
    many_names(counted, programs["hoard"])
    killed_waiters(counted, programs["queue"])
    all_free(counted)
    for mount, number in zip(counted.each(), files):
        assert open_files(mount.server) <= number + 10, "connections, which are kept"
    if not is_sanitized(PLAIN_BINARY):
        wait_until(lambda: all(now < then + 4 * KIB for now, then in zip(sizes(counted), before)),
                   60, "the memory is given back")


def test_names_without_end_are_forgotten(counted):
    """The kernel is made to forget what nobody has open; what somebody has stays usable."""
    if is_sanitized(PLAIN_BINARY):
        pytest.skip("it counts memory")
    one = counted.lab.agent()
    path = os.open(counted.a / "kept", os.O_PATH)
    held = one.take(counted.a / "held")
    before = memory_kib(counted.a.server)
    for number in range(6000):
        assert os.path.exists(counted.a / f"name-{number}-{'x' * 200}")
    # They take more than 3 MiB, but not necessarily all at the same time.
    wait_until(lambda: memory_kib(counted.a.server) < before + 2 * KIB, 60, "names are forgotten")
    assert os.stat(f"/proc/self/fd/{path}").st_ino
    fd = os.open(f"/proc/self/fd/{path}", os.O_RDWR)
    os.close(fd)
    os.close(path)
    one.fsync(held)
    assert os.stat(counted.a / "held").st_uid == os.getuid()


def test_news_of_a_giant_lease(bare_lab):
    """A lease ends that has more keys than one message can hold: nobody misses his own among them.
    """
    lab, name = bare_lab, "n" * 200
    server = lab.own_etcd()
    lease = int(server.call("/v3/lease/grant", TTL=LONG)["ID"])
    long = f"{lab.prefix}/{'/'.join([name] * 39)}"
    server.put(lab.key("x") + "foreign", "", lease)
    for start in range(0, 3300, 100):
        server.call("/v3/kv/txn", success=[
            {"request_put": {"key": encode(f"{long}/{number}/key"), "lease": str(lease)}}
            for number in range(start, start + 100)
        ])
    mount, one = lab.mount(binary=PLAIN_BINARY), lab.agent()
    one.begin("take", mount / "x")
    lab.await_keys("x", 2)
    server.revoke(lease)
    one.finish(PATIENCE)


# What is done for a crowd is done at once.


def test_many_queues_are_read_together(bare_lab, programs):
    """The look at each contended lock, once per TTL, is not a request for each."""
    server = bare_lab.own_etcd()
    a, b = [bare_lab.mount("names=always", name=name, ttl=2, binary=PLAIN_BINARY) for name in "ab"]
    bare_lab.holder(programs["hoard"], a, 0, 64, 0).await_held()
    bare_lab.holder(programs["hoard"], b, 0, 64, 0)
    wait_until(lambda: server.count(f"{bare_lab.prefix}/") == 128, what="64 hold and 64 wait")
    reads = lambda: server.handled("Txn") + server.handled("Range")
    before, checks = reads(), server.handled("LeaseTimeToLive")
    wait_until(lambda: server.handled("LeaseTimeToLive") >= checks + 6, what="six checks")
    assert reads() - before < 64


def test_a_crowd_that_loses_all_is_told_at_once(bare_lab, programs):
    """With on_loss, a thousand locks that go at once are not a thousand searches."""
    bare_lab.own_etcd()
    mount = bare_lab.mount("names=always,on_loss=term", binary=PLAIN_BINARY).expect()
    other = bare_lab.holder(programs["hoard"], mount, 5000, 1, 0).await_held()
    hoard = bare_lab.holder(programs["hoard"], mount, 0, 1000, 0).await_held(60)
    lease = bare_lab.keys("hoard-0")[0].lease
    watch = Stopwatch()
    bare_lab.etcd.revoke(lease)
    assert hoard.exit_status(SOON) == other.exit_status(SOON) == -signal.SIGTERM
    assert bare_lab.agent().attempt(mount / "hoard-0")
    assert watch.seconds < 2 * SOON
    # Once for each lock, until the process has ended by it.
    assert 2 <= mount.log().count("signal 15 sent") <= 1001
