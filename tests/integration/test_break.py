# SPDX-License-Identifier: MIT
"""Breaking a lock: setfattr -n user.latchfs.break -v TOKEN FILE, by root or the holder's user."""

import errno
import json
import os
import random
import re
import select
import signal
from fcntl import F_SETLK, F_SETLKW, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH

import pytest

from conftest import Pair
from support import LONG, SOON, checked, wait_until
from test_fcntl import F_OFD_SETLK, F_OFD_SETLKW

RW = os.O_RDWR | os.O_CREAT
EXCL = RW | os.O_EXCL
BREAK = "user.latchfs.break"
LOSS = r"^latchfs: warning: lock \S+ \(token \d+, process \d+, \S+\) was lost: its key was deleted$"
LOST = {name: errno.EIO for name in ("read", "write", "ftruncate", "fsync", "flock")}
ALICE, BOB = 10001, 10002


def tokens(lab, name):
    """The tokens of a queue, in order."""
    return [key.create_revision for key in lab.keys(name)]


def break_lock(path, token):
    """As root."""
    os.setxattr(path, BREAK, str(token).encode())


def refused(who, path, token):
    """The errno with which a process is refused."""
    return who.error("setxattr", path, BREAK, token if type(token) is bytes else b"%d" % token)


def await_loss(who, fd):
    """Waits until a handle knows."""
    wait_until(lambda: who.error("pread", fd, 10, 0) == errno.EIO, SOON, "reads fail with EIO")
    assert who.probe(fd) == LOST


@pytest.fixture
def victims(pair):
    """A pair whose daemons may say that a lock was lost, and nothing else."""
    pair.a.expect(LOSS)
    pair.b.expect(LOSS)
    return pair


HOW = {
    "flock": lambda who, path: who.take(path),
    "shared": lambda who, path: who.take(path, LOCK_SH),
    "posix": lambda who, path: record_lock(who, path, F_SETLK),
    "ofd": lambda who, path: record_lock(who, path, F_OFD_SETLK),
    "O_EXCL": lambda who, path: who.open(path, EXCL),
}


def record_lock(who, path, command):
    """A lock of all bytes."""
    fd = who.open(path, RW)
    who.control(fd, command, F_WRLCK)
    return fd


@pytest.mark.parametrize("how", HOW)
def test_the_holder_loses_it_and_the_next_gets_it(victims, agent, how):
    """EIO for the victim, here before setfattr returns; then the record is the next one's."""
    pair, lab = victims, victims.lab
    one, two = agent(), agent()
    other = one.take(pair.a / "y")
    for where in pair.each():
        fd = HOW[how](one, pair.a / "x")
        two.begin("take", pair.b / "x")
        pair.await_queue("x", 2)
        token, successor = tokens(lab, "x")
        checked("setfattr", "-n", BREAK, "-v", str(token), where / "x")
        if where is pair.a:
            assert one.error("pread", fd, 10, 0) == errno.EIO
        mine = two.finish(SOON)
        two.fsync(mine)
        await_loss(one, fd)
        for mount in pair.each():
            assert [place["token"] for place in mount.queue("x")] == [successor]
            assert mount.holder("x")["host"] == mount.record("x")["host"] == "host-b"
        one.close(fd)
        assert tokens(lab, "x") == [successor]
        two.close(mine)
        pair.await_queue("x", 0)
    one.fsync(other)


def test_both_daemons_tell(victims, agent):
    """Where it is done: who broke what; on the holder's mount: what was lost."""
    pair, one = victims, agent()
    one.take(pair.a / "x")
    token = tokens(pair.lab, "x")[0]
    checked("setfattr", "-n", BREAK, "-v", str(token), pair.b / "x")
    assert re.search(rf"^latchfs: user 0 \(process \d+, setfattr\) broke token {token} of lock x$",
                     pair.b.log(), re.M)
    lost = (f"latchfs: warning: lock x (token {token}, process {one.pid}, python3) was lost: "
            "its key was deleted\n")
    wait_until(lambda: lost in pair.a.log(), SOON, "a line about the loss")
    assert "broke" not in pair.a.log() and "lost" not in pair.b.log()


def test_poll_wakes_and_the_policy_is_carried_out(lab):
    """A broken lock is a lost lock: POLLERR, and on_loss."""
    pair = Pair(lab, "on_loss=term")
    pair.a.expect()
    one, two = lab.agent(), lab.agent()
    plain = lab.mount(name="plain").expect(LOSS)
    fd = one.take(plain / "x")
    one.begin("poll", fd, select.POLLPRI).await_waiting("poll")
    break_lock(pair.b / "x", tokens(lab, "x")[0])
    assert one.finish(SOON) & (select.POLLERR | select.POLLPRI)
    two.take(pair.a / "y")
    break_lock(pair.b / "y", tokens(lab, "y")[0])
    wait_until(lambda: two.ended() == -signal.SIGTERM, SOON, "the holder is ended")


def test_one_of_several_readers(victims, agent):
    """The token says which of the shared holders; the others go on."""
    pair, readers = victims, [agent() for _ in range(3)]
    fds = [who.take(pair.each()[n % 2] / "x", LOCK_SH) for n, who in enumerate(readers)]
    break_lock(pair.a / "x", tokens(pair.lab, "x")[1])
    await_loss(readers[1], fds[1])
    readers[0].fsync(fds[0])
    readers[2].fsync(fds[2])
    assert not agent().attempt(pair.b / "x")


def test_the_next_on_the_same_mount(victims, agent):
    """Holder and waiter of one daemon: the place is handed on here."""
    pair, one, two = victims, agent(), agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.a / "x")
    pair.await_queue("x", 2)
    break_lock(pair.a / "x", tokens(pair.lab, "x")[0])
    two.fsync(two.finish(SOON))
    await_loss(one, fd)
    assert not agent().attempt(pair.b / "x")


def test_a_lock_file(victims, agent):
    """After its lock is broken an O_EXCL file is gone, and its creator can't remove the next."""
    pair, one, two = victims, agent(), agent()
    fd = one.open(pair.a / "x", EXCL)
    one.write(fd, b"1\n")
    break_lock(pair.b / "x", tokens(pair.lab, "x")[0])
    assert not os.path.exists(pair.b / "x")
    await_loss(one, fd)
    assert not os.path.exists(pair.a / "x")
    new = two.open(pair.b / "x", EXCL)
    assert one.error("unlink", pair.a / "x") == errno.EBUSY
    one.close(fd)
    two.fsync(new)


@pytest.mark.parametrize("policy", ["process", "name"])
def test_a_lock_that_nobody_has_open(lab, policy):
    """hold=process and hold=name: what needs no open file can be broken; so can a linked name."""
    pair = Pair(lab, f"hold={policy}")
    pair.a.expect(LOSS)
    one, two = lab.agent(), lab.agent()
    for where in pair.each():
        one.close(one.open(pair.a / "x", EXCL))
        one.link(pair.a / "x", pair.a / "y")
        for name in "y", "x":
            assert two.error("open", pair.b / name, EXCL) == errno.EEXIST
            token = tokens(lab, name)[0]
            break_lock(where / name, token)
            new = two.open(pair.b / name, EXCL)
            wait_until(lambda: f"lock {name} (token {token}" in pair.a.log(), SOON, "A hears of it")
            assert one.error("unlink", pair.a / name) == errno.EBUSY
            two.fsync(new)
            two.unlink(pair.b / name)
            two.close(new)
        assert pair.a.names() == []


def test_a_waiter_goes_to_the_end_of_the_queue(victims, agent):
    """To break a place that only waits costs that place: the request queues again."""
    pair, lab = victims, victims.lab
    one, two, three = agent(), agent(), agent()
    fd = one.take(pair.a / "x")
    for count, who in enumerate((two, three), 2):
        who.begin("take", pair.b / "x")
        pair.await_queue("x", count)
    before = tokens(lab, "x")
    break_lock(pair.a / "x", before[1])
    wait_until(lambda: len(tokens(lab, "x")) == 3, SOON, "it queues again")
    after = tokens(lab, "x")
    assert after[:2] == [before[0], before[2]] and after[2] > before[2]
    one.fsync(fd)
    assert not two.ready() and not three.ready()
    one.close(fd)
    mine = three.finish(SOON)
    assert not two.ready()
    three.close(mine)
    two.finish(SOON)


# Who may, and what does not work.


@pytest.mark.parametrize("options", ["allow_other", "allow_other,default_permissions"])
def test_root_and_the_holders_user_may(lab, options):
    """On every mount, root and the user in the record; nobody else, group or not."""
    pair = Pair(lab, options)
    pair.a.expect(LOSS)
    alice, other = (lab.agent(user=ALICE, group=ALICE, extra_groups=[]) for _ in range(2))
    bob = lab.agent(user=BOB, group=ALICE, extra_groups=[0, ALICE])
    for mount in pair.each():
        for breaker in other, lab.agent():
            fd = alice.take(pair.a / "x")
            token = tokens(lab, "x")[0]
            assert refused(bob, mount / "x", token) == errno.EPERM
            alice.fsync(fd)
            breaker.setxattr(mount / "x", BREAK, b"%d" % token)
            await_loss(alice, fd)
            alice.close(fd)
    lab.agent().take(pair.a / "x")
    assert refused(alice, pair.b / "x", tokens(lab, "x")[0]) == errno.EPERM
    assert refused(alice, pair.a / "x", tokens(lab, "x")[0]) == errno.EPERM


def test_a_token_that_is_not_there_changes_nothing(pair, agent):
    """An old one, one of another lock, or one that never was: ESTALE."""
    lab, one, two = pair.lab, agent(), agent()
    one.close(one.take(pair.a / "x"))
    fd = one.take(pair.a / "x")
    old = tokens(lab, "x")[0]
    one.close(fd)
    wait_until(lambda: not lab.keys("x"), SOON)
    fds = one.take(pair.a / "x"), one.take(pair.a / "y")
    two.begin("take", pair.b / "x")
    pair.await_queue("x", 2)
    before = tokens(lab, "x")
    for token in old, *tokens(lab, "y"), before[0] - 1, before[0] + 1, before[1] + 1, 1, 2**63 - 1:
        if token not in before:
            for mount in pair.each():
                assert refused(agent(), mount / "x", token) == errno.ESTALE
    assert tokens(lab, "x") == before
    for fd in fds:
        one.fsync(fd)
    assert not two.ready()


NO_TOKENS = [
    b"", b"x", b"0", b"-1", b"+5", b" 5", b"5 ", b"5\n", b"5\0", b"0x5", b"05", b"5a", b"1e3",
    b"9223372036854775808", b"99999999999999999999", b"7" * 5000,
]


def test_what_is_no_token(lab):
    """EINVAL."""
    mount, one = lab.mount(), lab.agent()
    fd = one.take(mount / "x")
    for value in NO_TOKENS:
        assert refused(one, mount / "x", value) == errno.EINVAL, value
    one.fsync(fd)


def test_nobody_holds_it(lab, agent):
    """A free name does not exist; where every name does, there is no such token."""
    plain, always = lab.mount(), lab.mount("names=always")
    assert refused(agent(), plain / "x", 5) == errno.ENOENT
    assert refused(agent(), always / "x", 5) == errno.ESTALE


def test_the_attribute_can_only_be_set(victims, agent):
    """It is not listed, not read, not removed, and directories do not have it."""
    pair, one, who = victims, agent(), agent()
    one.take(pair.a / "x")
    os.mkdir(pair.a / "d")
    assert BREAK not in os.listxattr(pair.a / "x") + os.listxattr(pair.a / "d")
    assert who.error("getxattr", pair.a / "x", BREAK) == errno.ENODATA
    assert who.error("removexattr", pair.a / "x", BREAK) == errno.ENOTSUP
    token = b"%d" % tokens(pair.lab, "x")[0]
    assert who.error("setxattr", pair.a / "d", BREAK, token) == errno.ENOTSUP
    assert who.error("setxattr", pair.a / "x", BREAK, token, os.XATTR_REPLACE) == errno.ENODATA
    who.setxattr(pair.a / "x", BREAK, token, os.XATTR_CREATE)


def test_a_lock_of_another_program(pair, agent):
    """Nobody knows whose it is, so only root can break it; unless its value says a user."""
    lab = pair.lab
    pair.a.expect(LOSS)
    mount = lab.mount("allow_other", name="c")
    alice, one = lab.agent(user=ALICE, group=ALICE), agent()
    values = {"empty": b"", "junk": b"\xff{", "other": b'{"v":2,"host":"h","uid":10001}',
              "nobody": b'{"v":1,"host":"h"}', "odd": b'{"v":1,"host":"h","uid":"10001x"}',
              "hers": json.dumps({"v": 1, "host": "h", "uid": ALICE}).encode()}
    for name, value in values.items():
        lab.etcd.put(lab.key(name) + "someone", value)
        token = tokens(lab, name)[0]
        if name != "hers":
            assert refused(alice, mount / name, token) == errno.EPERM
        one.begin("take", pair.a / name)
        lab.await_keys(name, 2)
        (alice if name == "hers" else agent()).setxattr(mount / name, BREAK, b"%d" % token)
        one.finish(SOON)
    lab.etcd.put(lab.key("nul") + "some\0one", b"")
    assert refused(agent(), pair.a / "nul", tokens(lab, "nul")[0]) == errno.ENOTSUP
    assert len(tokens(lab, "nul")) == 1


def test_without_a_store(bare_lab):
    """EIO, and nothing is broken."""
    lab, server = bare_lab, bare_lab.own_etcd()
    mount = lab.mount("timeout=2,names=always").expect()
    one = lab.agent()
    fd = one.take(mount / "x")
    token = tokens(lab, "x")[0]
    server.kill()
    assert refused(lab.agent(), mount / "x", token) == errno.EIO
    server.start()
    wait_until(lambda: one.error("fsync", fd) == 0, what="fsync confirms")


# Races.


def test_many_break_the_same(victims, agent):
    """It is broken once: one succeeds, all others hear that there is no such token."""
    pair, crowd = victims, [agent() for _ in range(12)]
    one = agent()
    for _ in range(5):
        fd = one.take(pair.a / "x")
        token = b"%d" % tokens(pair.lab, "x")[0]
        for number, who in enumerate(crowd):
            who.begin("setxattr", pair.each()[number % 2] / "x", BREAK, token)
        results = []
        for who in crowd:
            try:
                results.append(who.finish())
            except OSError as error:
                assert error.errno in (errno.ESTALE, errno.ENOENT)
        assert results == [None]
        await_loss(one, fd)
        one.close(fd)


@pytest.mark.parametrize("how", [LOCK_EX, LOCK_EX | LOCK_NB, LOCK_SH | LOCK_NB, "behind another"])
def test_broken_before_the_holder_was_told(bare_lab, how):
    """
    The lock was taken, broken and taken by the next while the first answer was still on its way:
    what comes then must not be a grant.  Whoever waits joins again.
    """
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount("timeout=60", url=wire.url, name="a").expect(LOSS)
    b = lab.mount(name="b").expect(LOSS)
    one, two, seen = lab.agent(), lab.agent(), lab.agent()
    fd, witness = one.open(a / "x", RW), seen.take(a / "y")
    before = [two.take(b / "x")] if how == "behind another" else []
    wire.stall(lambda head: b"/v3/kv/txn" in head.split(b"\r\n")[0], ways=(False,))
    one.begin("flock", fd, how if isinstance(how, int) else LOCK_EX)
    lab.await_keys("x", len(before) + 1)
    break_lock(b / "x", tokens(lab, "x")[-1])
    break_lock(b / "y", tokens(lab, "y")[0])
    await_loss(seen, witness)  # so A has heard of the first, too
    if how in (LOCK_EX | LOCK_NB, LOCK_SH | LOCK_NB):
        mine = two.take(b / "x", LOCK_EX | LOCK_NB)
        wire.mend()
        with pytest.raises(OSError) as caught:
            one.finish()
        assert caught.value.errno == errno.EIO
        two.fsync(mine)
        assert len(tokens(lab, "x")) == 1
    else:
        mine = before[0] if before else two.take(b / "x")
        wire.mend()
        lab.await_keys("x", 2)
        assert not one.ready()
        two.close(mine)
        one.finish(SOON)
        one.fsync(fd)


def test_breaking_at_random(victims, agent):
    """Places of a busy queue are broken at all times: every request is answered, no key stays."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, pair, crowd = random.Random(seed), victims, [agent() for _ in range(8)]
    held, names, done = {}, ("x", "y"), 0
    outcomes = {0: 0, errno.ESTALE: 0, errno.ENOENT: 0}
    breaker = agent()

    def step():
        nonlocal done
        for number, who in enumerate(crowd):
            if who in held:
                who.close(held.pop(who))
                done += 1
            elif who.busy is None:
                name = dice.choice(names)
                mode = dice.choice((LOCK_EX, LOCK_SH, LOCK_EX | LOCK_NB))
                who.begin("take", pair.each()[number % 2] / name, mode)
            elif who.ready():
                try:
                    held[who] = who.finish()
                except OSError as error:
                    assert error.errno in (errno.EIO, errno.EWOULDBLOCK)
        name = dice.choice(names)
        queue = tokens(pair.lab, name)
        if queue:
            token = dice.choice(queue)
            outcomes[refused(breaker, dice.choice(pair.each()) / name, token)] += 1
        return done >= 150 and outcomes[0] >= 50

    wait_until(step, 60)
    for who in crowd:
        who.kill()
    wait_until(lambda: not pair.lab.etcd.count(f"{pair.lab.prefix}/"), SOON, "no key is left")


# All keys of a lock deleted in one transaction, in the order of whose names etcd tells of them: the
# holder's may come before those of waiters, which for that moment are the first.

OPEN_LOCK = "user.latchfs.open"


WAITS = {
    "flock": lambda who, path: who.begin("take", path),
    "shared": lambda who, path: who.begin("take", path, LOCK_SH),
    "posix": lambda who, path: who.begin("control", who.open(path, RW), F_SETLKW, F_WRLCK),
    "ofd": lambda who, path: who.begin("control", who.open(path, RW), F_OFD_SETLKW, F_WRLCK),
    "range": lambda who, path: who.begin("control", who.open(path, RW), F_SETLKW, F_WRLCK, 3, 5),
    "open": lambda who, path: who.begin("open", path, RW),
}
CALLS = {"flock": "flock", "shared": "flock", "open": "open"}


def delete_all(lab, name):
    """As README had it once, for taking a lock away."""
    lab.etcd.etcdctl("del", "--prefix", lab.key(name))


def each_in_turn(waiters, together):
    """Everybody gets what he waits for, without an error; alone, unless they share."""
    left = list(waiters)
    while left:
        wait_until(lambda: any(who.ready() for who in left), SOON, "one of them has it")
        holding = [who for who in left if who.ready()]
        assert together or len(holding) == 1
        for who in holding:
            who.finish()
            left.remove(who)
            who.kill()


@pytest.mark.parametrize("how", WAITS)
def test_waiters_wait_on_when_all_keys_are_deleted(victims, agent, how):
    """`etcdctl del --prefix`: only the holder is told; each of them is granted it later."""
    pair, lab = victims, victims.lab
    if how == "open":
        os.mkdir(pair.a / "d")
        os.setxattr(pair.a / "d", OPEN_LOCK, b"lock")
    for turn, mount in enumerate(pair.each()):
        name = f"d/{turn}" if how == "open" else str(turn)
        one = agent()
        fd = one.open(mount / name, RW if how == "open" else EXCL)
        waiters = [agent() for _ in range(24 if how == "flock" else 8)]
        for n, who in enumerate(waiters):
            WAITS[how](who, pair.each()[n % 2] / name).await_waiting(CALLS.get(how, "fcntl"))
        if how in CALLS:  # the others wait beside the queue
            pair.await_queue(name, 1 + len(waiters))
        delete_all(lab, name)
        await_loss(one, fd)
        one.kill()
        each_in_turn(waiters, how == "shared")
        pair.await_queue(name, 0)


def test_flock_with_a_limit_waits_on(victims, agent):
    """`flock -w` does not give up before its time for what an operator has deleted."""
    pair, one = victims, agent()
    fd = one.open(pair.a / "x", EXCL)
    programs = [pair.lab.holder("flock", "-w", str(LONG), mount / "x", "sh", "-c", "echo; read x")
                for _ in range(3) for mount in pair.each()]
    pair.await_queue("x", 7)
    delete_all(pair.lab, "x")
    await_loss(one, fd)
    one.close(fd)
    left = list(programs)
    while left:
        wait_until(lambda: any(program.holds() for program in left), SOON, "one of them has it")
        holding = [program for program in left if program.holds()]
        assert len(holding) == 1 and holding[0].release() == 1  # read's, at the end of its input
        left.remove(holding[0])


def test_one_waiter_is_deleted(victims, agent):
    """It joins again at the end; the holder keeps what it has."""
    pair, lab = victims, victims.lab
    one, two, three = agent(), agent(), agent()
    fd = one.take(pair.a / "x")
    for n, who in enumerate((two, three)):
        who.begin("take", pair.b / "x")
        pair.await_queue("x", 2 + n)
    second = lab.keys("x")[1]
    lab.etcd.delete(second.name)
    wait_until(lambda: [key.name for key in lab.keys("x")].count(second.name) == 0 and
               len(lab.keys("x")) == 3, SOON, "it has another place")
    one.fsync(fd)
    one.close(fd)
    mine = three.finish(SOON)
    assert not two.ready()
    three.close(mine)
    two.finish(SOON)


def test_a_lease_is_revoked_with_holder_and_waiters(victims, agent):
    """All of one mount go at one revision: its holder is told, its waiters wait on."""
    pair, lab = victims, victims.lab
    pair.a.expect()
    one, other = agent(), agent()
    fd = one.open(pair.a / "x", EXCL)
    waiters = [agent() for _ in range(8)]
    for who in waiters:
        who.begin("take", pair.a / "x").await_waiting()
    other.begin("take", pair.b / "x").await_waiting()
    pair.await_queue("x", 10)
    lab.etcd.etcdctl("lease", "revoke", f"{lab.keys('x')[0].lease:x}")
    await_loss(one, fd)
    one.kill()
    each_in_turn([*waiters, other], False)
