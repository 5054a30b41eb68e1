# SPDX-License-Identifier: MIT
"""What all users may read costs others nothing: the table of locks, while it is large, and read by
many."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from etcdserver import encode
from mounting import PLAIN_BINARY
from support import IN_FULL, PROGRAMS

ALICE = 1234
# Locks, those who read the table of them at once, and requests for parts of one file.
NAMES, READERS, PARTS = (100_000, 1000, 100) if IN_FULL else (6000, 250, 60)
RANGES = 1024  # the most that one may have
HELD_UP = 5000  # milliseconds: less than a tenth of what it took in one piece


def record(**members):
    """What a holder's key says."""
    return json.dumps({"v": 1, "host": "h", "pid": 1, "uid": 0, "command": "c", **members})


def put_all(lab, keys, at_once):
    """Puts keys, in few transactions."""
    puts = [{"request_put": {"key": encode(key), "value": encode(value)}} for key, value in keys]
    for start in range(0, len(puts), at_once):
        lab.etcd.call("/v3/kv/txn", success=puts[start:start + at_once])


def put_names(lab, count=NAMES):
    """That many locks that somebody holds."""
    put_all(lab, ((lab.key(f"dir/n{number:06}") + "1-1.1", record()) for number in range(count)),
            100)


def put_parts(lab, name, count=PARTS):
    """That many holders of parts of one file, as many parts as one may have."""
    def ranges(number):
        starts = range(2 * number, 2 * count * RANGES, 2 * count)
        return ",".join(f"r{start}-{start}" for start in starts)

    put_all(lab, ((lab.key(name) + f"s-7.{number:x}r0-", record(ranges=ranges(number)))
                  for number in range(count)), 20)


class Pulse:
    """A process that locks all the time, and how long it was held up at most."""

    def __init__(self, lab, mount):
        self.holder = lab.holder("/usr/bin/python3", "-I", "-S", PROGRAMS / "pulse.py",
                                 mount / "pulse")
        self.holder.await_held()

    def longest(self):
        """Ends it; milliseconds."""
        assert self.holder.release() == 0
        longest, count = map(int, self.holder.lines()[1].split())
        print(f"longest of {count} beats: {longest} ms")
        return longest


def read_table(mount, count):
    """Reads the table by so many threads, each of which has it open until all have."""
    together, tables = threading.Barrier(count), []

    def read():
        with open(mount / ".latchfs/locks", "rb") as file:
            together.wait()
            tables.append(file.read())

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tables


def rows_of(table):
    """The lines, without the first."""
    return [line.split("\t") for line in table.decode().splitlines()[1:]]


@pytest.mark.limit(600 if IN_FULL else 120)
@pytest.mark.parametrize("what", ["names", "parts"])
def test_readers_hold_up_nobody(bare_lab, what):
    """Many readers of a large table, and one of a queue of many ranges: all get the whole of it, and
    a process that locks does not notice."""
    lab = bare_lab
    lab.own_etcd(extra=["--quota-backend-bytes", str(8 << 30)])
    mount = lab.mount("timeout=60", binary=PLAIN_BINARY)
    put_names(lab) if what == "names" else put_parts(lab, "parts")
    pulse = Pulse(lab, mount)
    tables = read_table(mount, READERS if what == "names" else 1)
    longest = pulse.longest()
    assert longest < HELD_UP
    for table in {bytes(table) for table in tables}:
        rows = [row for row in rows_of(table) if row[0] != "pulse"]
        assert len(rows) == (NAMES if what == "names" else PARTS)
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert {row[2] for row in rows} == {"held"}


def test_ranges_in_a_queue(lab):
    """Whoever has something earlier in his way waits, whatever the order and the overlaps."""
    mount = lab.mount()
    queue = [("w10-19,w30-39", "held"), ("r12-14", "waiting"), ("r20-29", "held"),
             ("r25-35", "waiting"), ("r40-", "held"), ("w21-21", "waiting"), ("w0-9", "held"),
             ("r50-60", "held"), ("w36-41", "waiting"), ("r36-36", "waiting")]
    for number, (ranges, _) in enumerate(queue):
        kind = "" if "w" in ranges else "s-"
        lab.etcd.put(lab.key("x") + f"{kind}7.{number}r0-", record(ranges=ranges))
    rows = rows_of(Path(mount / ".latchfs/locks").read_bytes())
    assert [(row[10], row[2]) for row in rows] == queue
    assert {row[9] for row in rows} == {str(sum(state == "waiting" for _, state in queue))}


def test_huge_values(lab):
    """Where few keys fill an answer, fewer are asked for; down to one."""
    mount = lab.mount("timeout=60")
    for number in range(12):
        lab.etcd.put(lab.key(f"n{number:02}") + "1", record(other="x" * 1_000_000))
    rows = rows_of(Path(mount / ".latchfs/locks").read_bytes())
    assert [row[0] for row in rows] == [f"n{number:02}" for number in range(12)]
    assert {row[3] for row in rows} == {"h"}


def test_each_user_sees_his_own(lab):
    """Those who ask together, and may not see the same."""
    mount = lab.mount("allow_other")
    os.mkdir(mount / "hidden")
    os.mkdir(mount / "hidden/below")
    os.mkdir(mount / "open")
    for name in ("a", "hidden/below/x", "hidden/y", "open/z", "q"):
        lab.etcd.put(lab.key(name) + "1", record())
    os.chmod(mount / "hidden", 0o700)
    agents = [lab.agent(user=user, group=user, extra_groups=[])
              for user in (0, ALICE, 0, ALICE, ALICE + 1)]
    for who in agents:
        who.begin("open", mount / ".latchfs/locks", os.O_RDONLY)
    seen = [[row[0] for row in rows_of(who.read(who.finish(), 1 << 20))] for who in agents]
    everything = ["a", "hidden/below/x", "hidden/y", "open/z", "q"]
    assert seen == [everything if user == 0 else ["a", "open/z", "q"] for user in (0, 1, 0, 1, 2)]


@pytest.mark.limit(240)
def test_tables_that_are_kept_open(lab):
    """Together they are bounded: the oldest can't be read any more, the newest can."""
    mount = lab.mount("timeout=60", binary=PLAIN_BINARY)
    put_all(lab, ((lab.key("/".join(["d" * 250] * 30) + f"/{number}") + "1", record())
                  for number in range(1500)), 50)
    first = open(mount / ".latchfs/locks", "rb", buffering=0)
    size = len(first.read(1 << 17))
    assert size == 1 << 17
    kept = []
    for _ in range(7):
        kept.append(open(mount / ".latchfs/locks", "rb", buffering=0))
        kept[-1].read(1)
    with pytest.raises(OSError, match="Stale"):
        first.read(1)
    assert len(rows_of(Path(mount / ".latchfs/locks").read_bytes())) == 1500
    for file in kept:
        file.close()
    first.close()
    assert mount.names() == ["d" * 250]


# What a user's crowd of descriptors costs others.

CROWD, DESCRIPTORS, BINDS = (36, 19_000, 30_000) if IN_FULL else (3, 12_000, 1500)


@pytest.mark.limit(600 if IN_FULL else 150)
def test_a_search_holds_up_nobody(lab):
    """A user breaks his own lock, with on_loss=term, which his processes have open through a crowd of
    descriptors and mounts: who has it gets the signal in the end, and others do not notice."""
    mount = lab.mount("allow_other", binary=PLAIN_BINARY).expect("was lost|took part|looked at")
    alice = lab.agent(user=ALICE, group=ALICE, extra_groups=[])
    alice.mkdir(mount / "hers")
    alice.setxattr(mount / "hers", "user.latchfs.on_loss", b"term")
    place = lab.base / "binds"
    place.mkdir()
    place.chmod(0o777)
    crowd = [lab.holder("/usr/bin/python3", "-I", "-S", PROGRAMS / "crowd.py", mount / "hers/x",
                        DESCRIPTORS, 0 if number else BINDS, place, "shared", user=ALICE,
                        group=ALICE, extra_groups=[]) for number in range(CROWD)]
    for holder in crowd:
        holder.await_held(120)
    pulse = Pulse(lab, mount)
    tokens = [place["token"] for place in mount.queue("hers/x")]
    assert len(tokens) == CROWD
    for token in tokens:
        alice.setxattr(mount / "hers/x", "user.latchfs.break", str(token).encode())
    for holder in crowd:
        assert holder.exit_status(120) == -signal.SIGTERM
    assert pulse.longest() < HELD_UP
    assert mount.log().count("signal 15 sent") == CROWD
