# SPDX-License-Identifier: MIT
"""Many of everything: waiters on one lock, cycles, processes; nothing grows, nothing starves."""

import os
import re
from fcntl import LOCK_EX

import pytest

from mounting import PLAIN_BINARY, is_sanitized
from support import (
    IN_FULL, SOON, Stopwatch, checked, memory_kib, open_files, run, wait_until,
)

CYCLES = 500_000 if IN_FULL else 10_000
# KiB; the C library takes memory in pieces of half of that.
ROOM = 256
PROCESSES = 16


@pytest.mark.alone
@pytest.mark.limit(240)
def test_a_thousand_waiters_on_one_lock(pair, agent, programs):
    """1000 processes wait on one lock of one mount: others still answer, all get it in order."""
    one, log = agent(), pair.lab.scratch()
    fd = one.take(pair.a / "x")
    crowd = pair.lab.holder(programs["queue"], pair.a / "x", "1000", log)
    wait_until(lambda: pair.lab.etcd.count(pair.lab.key("x")) == 1001, 120, "all wait")
    watch = Stopwatch()
    assert run("stat", pair.a / "other").returncode == 1
    assert run("stat", pair.a / "x").returncode == 0
    assert run("flock", "-n", pair.a / "other", "true").returncode == 0
    assert run("flock", "-n", pair.a / "x", "true").returncode == 1
    one.fsync(fd)
    assert watch.seconds < SOON
    queue = pair.b.queue("x")
    assert len(queue) > 300
    assert len(queue) - 1 + queue[-1]["more"] == 1001
    one.close(fd)
    assert crowd.exit_status(180) == 0, crowd.output
    tokens = [int(line) for line in log.read_text(encoding="ascii").split()]
    assert len(tokens) == 1000
    assert tokens == sorted(set(tokens)), "granted out of queue order"
    wait_until(lambda: not pair.lab.etcd.count(pair.lab.key("x")), SOON, "no key is left")


def test_killing_a_crowd_of_waiters(pair, agent, programs):
    """300 waiters killed at once: all die, and the lock goes to who still wants it."""
    one, two, log = agent(), agent(), pair.lab.scratch()
    fd = one.take(pair.a / "x")
    crowd = pair.lab.holder(programs["queue"], pair.a / "x", "300", log)
    wait_until(lambda: pair.lab.etcd.count(pair.lab.key("x")) == 301, 60, "all wait")
    two.begin("take", pair.b / "x")
    pair.lab.await_keys("x", 302)
    crowd.kill()
    wait_until(lambda: pair.lab.etcd.count(pair.lab.key("x")) == 2, SOON + 20, "the crowd is gone")
    one.close(fd)
    two.finish(SOON)
    assert log.read_text(encoding="ascii") == ""


@pytest.mark.first
@pytest.mark.limit(4000 if IN_FULL else 400)
def test_nothing_grows_over_many_cycles(bare_lab, programs):
    """10,000 lock cycles in all the ways there are: no descriptor and not 26 bytes of each stay."""
    bare_lab.own_etcd(extra=["--auto-compaction-mode", "revision",
                             "--auto-compaction-retention", "1000"])
    sanitized = is_sanitized(PLAIN_BINARY)
    mount = bare_lab.mount(binary=PLAIN_BINARY)
    rounds = (CYCLES // 5 if sanitized else CYCLES) // PROCESSES

    def cycle(each):
        checked(programs["cycles"], mount.path, PROCESSES, each, timeout=3500 if IN_FULL else 350)
        wait_until(lambda: not bare_lab.etcd.count(f"{bare_lab.prefix}/"), SOON, "no keys")

    cycle(rounds // 5)
    files, memory = open_files(mount.server), memory_kib(mount.server)
    cycle(rounds)
    assert open_files(mount.server) <= files + 2
    if not sanitized:
        assert memory_kib(mount.server) <= memory + ROOM


def test_sanitized_daemon_is_silent_over_all_ways_to_lock(pair, programs):
    """The same cycles on the daemon under test, two machines at once."""
    work = [pair.lab.holder(programs["cycles"], mount.path, "8", "40") for mount in pair.each()]
    codes = [one.exit_status(80) for one in work]
    # Both machines use the same lock files, so that a lock file may be found taken.
    assert codes[0] in (0, 1) and codes[1] in (0, 1)
    for one in work:
        assert re.fullmatch(rb"(.*File exists\n)*", one.errors), one.errors
    wait_until(lambda: not pair.lab.etcd.count(f"{pair.lab.prefix}/"), SOON, "no keys")


def test_interrupted_cycles_leave_nothing(pair):
    """Waits given up by the hundred, on both machines, leave no key and no descriptor."""
    one = pair.lab.agent()
    fd = one.take(pair.a / "x")
    files = [open_files(mount.server) for mount in pair.each()]
    crowd = [pair.lab.agent() for _ in range(8)]
    for place, who in enumerate(crowd):
        handle = who.open(pair.each()[place % 2] / "x", os.O_RDWR)
        for _ in range(25):
            assert who.alarmed(0.002, "flock", handle, LOCK_EX) == "interrupted"
    pair.await_queue("x", 1)
    # Connections to etcd are kept, a dozen at the most; there were 100 waits on each machine.
    for mount, before in zip(pair.each(), files):
        assert open_files(mount.server) <= before + 16
    one.fsync(fd)
