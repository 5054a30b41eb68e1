# SPDX-License-Identifier: MIT
"""Several owners of fcntl locks behind one descriptor, which may have the lock of the whole file.

A table of how the parent got its descriptor, how two children came by it and how they ask is
answered by a model of the rule, and by a local disk without the rule that one name is one lock.
"""

import errno
import itertools
import os
import tempfile
from fcntl import F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_UN

import pytest

from conftest import Pair
from support import SOON, checked, wait_until
from test_fcntl import F_OFD_SETLK, F_OFD_SETLKW
from test_loss import revoke
from test_lockfiles import EXCL
from test_ranges import Ranges
from test_semantics import semantics  # pylint: disable=unused-import
from test_supervise import TAKEN_OVER, kill, killed_while, ready

RW = os.O_RDWR | os.O_CREAT
KINDS = {"r": F_RDLCK, "w": F_WRLCK}

# How the parent gets what it has.
WAYS = {
    "O_EXCL": ["open 0 f rw excl"],
    "flock": ["open 0 f rw creat", "flock 0 ex"],
    "open=lock": ["open 0 lock/f rw creat"],
    "fcntl": ["open 0 f rw creat", "fcntl 0 set w 0 4"],
    "ofd": ["open 0 f rw creat", "fcntl 0 oset w 0 4"],
}
ASKS = ["flock {} ex nb", "fcntl {} set w 0 0", "fcntl {} set r 0 4", "fcntl {} oset w 2 4",
        "fcntl {} set w 8 4"]
# How the children d and e come by theirs: the slots in which they have it, and the steps.
TRANSFERS = {
    "inherited": ("00", [], ["a fork d", "a fork e"]),
    "passed": ("00", ["a fork d", "a fork e"], ["a pass 0", "d receive 0 f", "a pass 0",
                                                "e receive 0 f"]),
    "duplicated": ("12", [], ["a dup 0 1", "a dup 0 2", "a fork d", "a fork e"]),
    "opened again": ("11", [], ["a fork d", "a fork e", "d reopen 0 1", "e reopen 0 1"]),
}
FAR = ["b open 3 f rw creat", "b flock 3 ex nb", "b fcntl 3 set w 2 1", "b fcntl 3 set r 9 1"]


class Rule:
    """Who excludes whom.  one_lock: as one lock, as the manual says; else as on a local disk."""

    def __init__(self, one_lock):
        self.one_lock = one_lock
        self.whole = {}  # description -> the families in which it has the whole file
        self.ranges = Ranges()
        self.through = {}  # owner -> the description that it locked through

    def take(self, description, family):
        """It has the whole file, exclusively."""
        self.whole.setdefault(description, set()).add(family)

    def excluded(self, description, family):
        """Whether another description has the whole file."""
        return any(other != description and (self.one_lock or family in families)
                   for other, families in self.whole.items())

    def flock(self, description):
        """LOCK_EX: the answer."""
        others = [owner for owner in self.ranges.owners if self.through[owner] != description]
        if self.excluded(description, "flock") or (self.one_lock and others):
            return "EAGAIN"
        self.take(description, "flock")
        return "ok"

    def blocked(self, owner, description, kind, start, length):
        """Whether such a lock of that owner would have to wait."""
        return bool(self.ranges.blockers(owner, kind, start, length)) or \
            self.excluded(description, "fcntl")

    def fcntl(self, owner, description, kind, start, length):
        """F_SETLK: the answer."""
        if self.blocked(owner, description, kind, start, length):
            return "EAGAIN"
        self.through[owner] = description
        self.ranges.change(owner, kind, start, length)
        return "ok"

    def ask(self, who, description, call):
        """The answer to a step."""
        words = call.split()
        if words[0] == "flock":
            return self.flock(description)
        owner = description if words[2][0] == "o" else who
        arguments = (owner, description, KINDS[words[3]], *map(int, words[4:]))
        if words[2] == "get":
            return "taken" if self.blocked(*arguments) else "free"
        return self.fcntl(*arguments)


def begin(way, rule):
    """The parent's steps, with the answers; what they take only counts where names are locks."""
    for step in WAYS[way]:
        words = step.split()
        if words[0] == "open":
            if rule.one_lock and (way == "open=lock" or "excl" in words):
                rule.take("A", "open")
            yield f"a {step}", "ok"
        else:
            yield f"a {step}", rule.ask("a", "A", step)


def table_case(way, transfer, asks, rule):
    """The steps of one case, with the answers."""
    slots, before, behind = TRANSFERS[transfer]
    again = transfer == "opened again"
    for step in before:
        yield step, "ok"
    yield from begin(way, rule)
    for step in behind:
        yield step, "ok"
    children = [(who, slot, who.upper() if again else "A") for who, slot in zip("de", slots)]
    for (who, slot, description), ask in zip(children, asks):
        call = ask.format(slot)
        yield f"{who} {call}", rule.ask(who, description, call)
    for who, slot, description in children:
        for kind in "rw":
            call = f"fcntl {slot} get {kind} 0 0"
            yield f"{who} {call}", rule.ask(who, description, call)
    if way == "open=lock" and rule.one_lock:
        yield "b open 3 lock/f rw creat nonblock", "EAGAIN"
        return
    for step in FAR:
        who, call = step.split(" ", 1)
        open_it = call.startswith("open")
        yield step.replace(" f ", f" {file_of(way)} "), \
            "ok" if open_it else rule.ask(who, "B", call)


def file_of(way):
    """The name of a way's file."""
    return "lock/f" if way == "open=lock" else "f"


def table(way, one_lock):
    """All cases of a way: the text for the program, and the answers."""
    cases, expected = [], []
    for transfer, first, second in itertools.product(TRANSFERS, ASKS, ASKS):
        # To open such a file again is to ask for another lock of the whole file, and to wait.
        if way == "open=lock" and transfer == "opened again":
            continue
        name = f"{transfer}, {first}, {second}"
        cases.append(f"case {name}")
        for step, answer in table_case(way, transfer, (first, second), Rule(one_lock)):
            cases.append(step)
            expected.append(f"{name}: {step}: {answer}")
    return "\n".join(cases) + "\n", expected


def said(semantics, lab, text, first, second):
    """What the program says; of F_GETLK only whether something was in the way."""
    lines = checked(semantics, lab.scratch(text), first, second, timeout=250).splitlines()
    return [line if " get " not in line or line.endswith(": free")
            else line.rsplit(": ", 1)[0] + ": taken" for line in lines]


def require_equal(answers, expected):
    """All, or the first that differs, with what was before it in its case."""
    for number, (one, other) in enumerate(zip(answers, expected, strict=True)):
        if one != other:
            case = other.split(": ")[0]
            before = [line for line in expected[:number + 1] if line.startswith(case + ": ")]
            raise AssertionError("\n".join([*before, f"but {one}"]))


@pytest.mark.limit(300)
@pytest.mark.parametrize("way", WAYS)
def test_the_table_on_a_local_disk(semantics, bare_lab, way):
    """There the rule is the same, but that each family excludes only itself."""
    text, expected = table(way, False)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        os.mkdir(f"{memory}/lock")
        require_equal(said(semantics, bare_lab, text, memory, memory), expected)


@pytest.mark.limit(300)
@pytest.mark.parametrize("way", WAYS)
def test_the_table(semantics, lab, way):
    """The rule, and on another mount nobody gets in beside any of them."""
    pair = Pair(lab)
    os.mkdir(pair.a / "lock")
    os.setxattr(pair.a / "lock", "user.latchfs.open", b"lock")
    text, expected = table(way, True)
    require_equal(said(semantics, lab, text, pair.a.path, pair.b.path), expected)


# --- with what happens to mounts ---


def family(lab, path, flags=EXCL, count=2):
    """So many processes that have inherited one descriptor, and which it is."""
    fd = os.open(path, flags, 0o666)
    children = [lab.agent(pass_fds=[fd]) for _ in range(count)]
    os.close(fd)
    return (*children, fd)


def test_owners_live_on_with_another_worker(lab):
    """Owners in the lock of their descriptor, and one that waits for another of them."""
    mount, other = ready(lab.mount().expect(TAKEN_OVER)), lab.mount()
    one, two, three, fd = family(lab, mount / "x", count=3)
    one.control(fd, F_SETLK, F_WRLCK, 0, 10)
    two.control(fd, F_SETLK, F_RDLCK, 10, 10)
    three.begin("control", fd, F_SETLKW, F_WRLCK, 5, 1).await_waiting("fcntl")
    kill(mount, 2)
    assert not three.ready()
    assert two.error("control", fd, F_SETLK, F_RDLCK, 9, 1) == errno.EAGAIN
    assert one.error("control", fd, F_SETLK, F_WRLCK, 19, 1) == errno.EAGAIN
    assert one.conflict(fd, F_GETLK, F_WRLCK, 19, 1) == (F_RDLCK, 10, 10, two.pid)
    assert not lab.agent().attempt(other / "x")
    killed_while(mount, lambda: one.begin("control", fd, F_SETLK, F_UNLCK, 0, 10))
    one.finish()
    three.finish(SOON)
    assert one.error("control", fd, F_SETLK, F_RDLCK, 5, 1) == errno.EAGAIN


def test_parts_live_on_with_another_worker(lab):
    """What two owners keep of a lock that was given back as a whole."""
    mount, other = ready(lab.mount().expect(TAKEN_OVER)), lab.mount()
    one, two, fd = family(lab, mount / "x", RW)
    one.flock(fd, LOCK_EX)
    one.control(fd, F_SETLK, F_WRLCK, 0, 10)
    two.control(fd, F_SETLK, F_RDLCK, 20, 10)
    killed_while(mount, lambda: one.begin("flock", fd, LOCK_UN))
    one.finish()
    kill(mount)
    far = lab.agent()
    there = far.open(other / "x", RW)
    wait_until(lambda: not far.error("control", there, F_SETLK, F_WRLCK, 10, 10), SOON)
    far.control(there, F_SETLK, F_RDLCK, 29, 1)
    assert far.error("control", there, F_SETLK, F_RDLCK, 9, 1) == errno.EAGAIN
    assert far.error("control", there, F_SETLK, F_WRLCK, 20, 1) == errno.EAGAIN
    assert two.error("control", fd, F_SETLK, F_WRLCK, 9, 1) == errno.EAGAIN
    one.control(fd, F_SETLK, F_UNLCK, 5, 5)
    far.control(there, F_SETLK, F_WRLCK, 5, 5)
    for who in (one, two, far):
        who.kill()
    lab.await_keys("x", 0)


@pytest.mark.parametrize("command", [F_SETLKW, F_OFD_SETLKW])
def test_a_loss_ends_the_waiting_for_another_owner(pair, agent, command):
    """With EIO at once, although another machine has the lock by then and keeps it."""
    pair.a.expect()
    one, two, fd = family(pair.lab, pair.a / "x")
    one.control(fd, F_SETLK, F_WRLCK)
    two.begin("control", fd, command, F_WRLCK, 5, 1).await_waiting("fcntl")
    heir = agent()
    there = heir.open(pair.b / "x", RW)
    heir.begin("flock", there, LOCK_EX)
    pair.await_queue("x", 2)
    revoke(pair.lab, "x")
    with pytest.raises(OSError) as caught:
        two.finish(SOON)
    assert caught.value.errno == errno.EIO
    heir.finish(SOON)
    assert one.error("pread", fd, 10, 0) == errno.EIO


def lost_by_two(pair):
    """A descriptor that had the lock by flock, and an owner in it; all of it is lost."""
    pair.a.expect()
    one, two, fd = family(pair.lab, pair.a / "x", RW)
    one.flock(fd, LOCK_EX)
    two.control(fd, F_SETLK, F_WRLCK)
    revoke(pair.lab, "x")
    wait_until(lambda: one.error("pread", fd, 10, 0) == errno.EIO, SOON)
    return one, two, fd


def lost(who, fd):
    """What is EIO after a loss, on that descriptor."""
    return {who.error("pread", fd, 10, 0), who.error("pwrite", fd, b"x", 0),
            who.error("fsync", fd), who.error("flock", fd, LOCK_EX | LOCK_NB),
            who.error("control", fd, F_SETLK, F_WRLCK)} == {errno.EIO}


def test_an_owner_admits_only_its_own_loss(pair):
    """By F_UNLCK: the flock on the same descriptor is still lost, for whoever asks."""
    one, two, fd = lost_by_two(pair)
    two.control(fd, F_SETLK, F_UNLCK)
    assert lost(one, fd) and lost(two, fd)
    one.flock(fd, LOCK_UN)
    one.flock(fd, LOCK_EX | LOCK_NB)
    two.control(fd, F_SETLK, F_WRLCK)


def test_an_flock_admits_no_owner_s_loss(pair):
    """By LOCK_UN: an owner that had locked through the same descriptor is still told."""
    one, two, fd = lost_by_two(pair)
    one.flock(fd, LOCK_UN)
    assert lost(one, fd) and lost(two, fd)
    two.control(fd, F_SETLK, F_UNLCK)
    two.control(fd, F_SETLK, F_WRLCK)
    one.flock(fd, LOCK_EX | LOCK_NB)


@pytest.mark.parametrize("policy", ["close", "process", "name"])
def test_unlinking_leaves_other_owners_what_they_have(pair, agent, policy):
    """The lock file is given back, and what its maker had of it; not another process's part."""
    os.mkdir(pair.a / "d")
    os.setxattr(pair.a / "d", "user.latchfs.hold", policy.encode())
    maker, far = agent(), agent()
    fd = maker.open(pair.a / "d/x", EXCL)
    child = maker.fork_and_serve()
    there = far.open(pair.b / "d/x", RW)
    maker.control(fd, F_SETLK, F_WRLCK, 20, 10)
    assert not maker.served("control", fd, F_SETLK, F_WRLCK, 0, 10)
    maker.unlink(pair.a / "d/x")
    assert far.error("control", there, F_SETLK, F_WRLCK, 5, 1) == errno.EAGAIN
    assert far.error("unlink", pair.b / "d/x") == errno.EBUSY
    far.control(there, F_SETLK, F_WRLCK, 20, 10)
    assert not maker.served("control", fd, F_SETLK, F_UNLCK, 0, 10)
    far.control(there, F_SETLK, F_WRLCK, 5, 1)
    maker.end(child)


def test_the_death_of_its_maker_leaves_other_owners_what_they_have(pair, agent):
    """hold=process: the lock file ends with the process, and the part of its child does not."""
    os.mkdir(pair.a / "d")
    os.setxattr(pair.a / "d", "user.latchfs.hold", b"process")
    maker, far = agent(), agent()
    fd = maker.open(pair.a / "d/x", EXCL)
    child = maker.fork_and_wait_with("control", fd, F_SETLK, F_WRLCK, 0, 10)
    there = far.open(pair.b / "d/x", RW)
    assert far.error("control", there, F_SETLK, F_WRLCK, 10, 10) == errno.EAGAIN
    os.kill(maker.pid, 9)
    wait_until(lambda: not far.error("control", there, F_SETLK, F_WRLCK, 10, 10), SOON)
    assert far.error("control", there, F_SETLK, F_WRLCK, 5, 1) == errno.EAGAIN
    os.kill(child, 9)
    wait_until(lambda: not far.error("control", there, F_SETLK, F_WRLCK, 5, 1), SOON)


def test_getlk_names_the_process_of_a_thread(pair, agent):
    """Which is the one that owns the lock."""
    one, two = agent(), agent()
    a, b = one.open(pair.a / "x", RW), two.open(pair.a / "x", RW)
    one.threaded("control", a, F_SETLK, F_WRLCK)
    assert two.getlk(b, F_WRLCK) == (F_WRLCK, one.pid)


def test_owners_of_one_descriptor_wait_in_the_queue(pair):
    """For the whole file, where their descriptor has nothing: in turn with another machine."""
    first, second, far, fd = family(pair.lab, pair.a / "x", RW, count=3)
    there = far.open(pair.b / "x", RW)
    first.control(fd, F_SETLK, F_WRLCK)
    far.begin("control", there, F_SETLKW, F_WRLCK)
    pair.await_queue("x", 2)
    second.begin("control", fd, F_SETLKW, F_WRLCK)
    pair.await_queue("x", 3)
    first.control(fd, F_SETLK, F_UNLCK)
    far.finish(SOON)
    assert not second.ready()
    far.control(there, F_SETLK, F_UNLCK)
    second.finish(SOON)
    assert first.error("flock", fd, LOCK_EX | LOCK_NB) == 0
    assert first.error("control", fd, F_OFD_SETLK, F_RDLCK) == errno.EAGAIN
