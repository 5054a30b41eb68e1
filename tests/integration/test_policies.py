# SPDX-License-Identifier: MIT
"""Policies: as mount options for the root, as extended attributes for directories."""

import errno
import os
import random
import signal
from fcntl import LOCK_EX, LOCK_NB

import pytest

from conftest import Pair
from support import SOON, checked, run, wait_until

RW = os.O_RDWR | os.O_CREAT
READ = os.O_RDONLY | os.O_CREAT
WRITE = os.O_WRONLY | os.O_CREAT


def set_policy(path, name, value):
    """setfattr."""
    return run("setfattr", "-n", f"user.latchfs.{name}", "-v", value, path)


def get_policy(path, name):
    """getfattr."""
    return checked("getfattr", "--only-values", "-n", f"user.latchfs.{name}", path)


@pytest.fixture(params=["option", "attribute", "inherited"])
def place(request, lab):
    """Makes a pair and a directory in it where a policy holds, given in one of three ways."""

    def make(name, value):
        if request.param == "option":
            return Pair(lab, f"{name}={value}"), ""
        pair = Pair(lab)
        # Where every name exists no directory can be made any more, so they come first.
        os.makedirs(pair.a / "d/e/f")
        assert set_policy(pair.a / "d", name, value).returncode == 0
        return pair, "d/" if request.param == "attribute" else "d/e/f/"

    return make


def test_names_always(lab, place):
    """names=always: every name exists, whether somebody holds it or not."""
    pair, where = place("names", "always")
    one, two = lab.agent(), lab.agent()
    for mount in pair.each():
        assert os.path.isfile(mount / f"{where}anything")
        assert os.stat(mount / f"{where}other").st_nlink >= 1
    fd = one.open(pair.a / f"{where}x", os.O_RDWR)
    one.flock(fd, LOCK_EX)
    assert not two.attempt(pair.b / f"{where}x")
    one.close(fd)
    wait_until(lambda: two.attempt(pair.b / f"{where}x"), SOON)


def test_names_held_is_the_default(lab):
    """Without a policy a free name does not exist."""
    mount = lab.mount()
    assert not os.path.exists(mount / "anything")
    assert not os.path.exists(lab.mount("names=held") / "anything")


@pytest.mark.core
def test_open_takes_the_lock(lab, place):
    """open=lock: opening for writing takes the exclusive lock and waits for it."""
    pair, where = place("open", "lock")
    one, two = lab.agent(), lab.agent()
    path = f"{where}x"
    fd = one.open(pair.a / path, WRITE)
    two.begin("open", pair.b / path, WRITE)
    pair.await_queue(path, 2)
    assert not two.ready()
    one.close(fd)
    fd = two.finish(SOON)
    two.fsync(fd)


def test_open_with_nonblock_tries(lab, place):
    """open=lock with O_NONBLOCK: EWOULDBLOCK instead of waiting, and no key is left."""
    pair, where = place("open", "lock")
    one, two = lab.agent(), lab.agent()
    path = f"{where}x"
    fd = one.open(pair.a / path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
    for mount in pair.each():
        for flags in (WRITE, READ, os.O_RDWR):
            error = two.error("open", mount / path, flags | os.O_NONBLOCK)
            assert error == errno.EWOULDBLOCK
    assert len(lab.keys(path)) == 1
    one.close(fd)
    wait_until(lambda: two.error("open", pair.b / path, WRITE | os.O_NONBLOCK) == 0, SOON)


def test_open_for_reading_shares(lab, place):
    """open=lock: read-only takes the shared lock; a writer waits for all readers."""
    pair, where = place("open", "lock")
    one, two, writer = lab.agent(), lab.agent(), lab.agent()
    path = f"{where}x"
    fds = [one.open(pair.a / path, READ), two.open(pair.b / path, os.O_RDONLY)]
    writer.begin("open", pair.a / path, os.O_RDWR)
    pair.await_queue(path, 3)
    one.close(fds[0])
    two.close(fds[1])
    writer.finish(SOON)


def test_waiting_open_can_be_interrupted(lab):
    """open=lock: a signal ends a waiting open, which leaves the queue."""
    pair = Pair(lab, "open=lock")
    one, two = lab.agent(), lab.agent()
    fd = one.open(pair.a / "x", WRITE)
    assert two.alarmed(0.2, "open", pair.b / "x", WRITE) == "interrupted"
    pair.await_queue("x", 1)
    two.begin("open", pair.b / "x", WRITE)
    pair.await_queue("x", 2)
    os.kill(two.pid, signal.SIGKILL)
    pair.await_queue("x", 1)
    one.close(fd)


def test_waiting_open_does_not_block_the_directory(lab):
    """While an open waits, other names of the directory answer."""
    pair = Pair(lab, "open=lock")
    one, two, three = lab.agent(), lab.agent(), lab.agent()
    one.open(pair.a / "x", WRITE)
    two.begin("open", pair.b / "x", WRITE)
    pair.await_queue("x", 2)
    three.stat(pair.b / "other")
    three.open(pair.b / "other", WRITE)
    three.stat(pair.b / "x")
    assert set(three.listdir(str(pair.b))) >= {"x", "other"}


def test_on_loss_policy_of_a_directory(lab, place):
    """on_loss=term from an option, an attribute or a directory above: SIGTERM at a loss."""
    pair, where = place("on_loss", "term")
    pair.a.expect()
    one = lab.agent()
    one.take(pair.a / f"{where}x")
    lab.etcd.revoke(lab.keys(f"{where}x")[0].lease)
    wait_until(lambda: one.ended() is not None, SOON)
    assert one.ended() == -signal.SIGTERM


def test_record_no(lab, place):
    """record=no: a lock file nobody has written into reads as empty; content reads as ever."""
    pair, where = place("record", "no")
    one = lab.agent()
    fd = one.take(pair.a / f"{where}x")
    for mount in pair.each():
        assert checked("cat", mount / f"{where}x") == ""
    one.write(fd, b"123\n")
    assert checked("cat", pair.b / f"{where}x") == "123\n"
    assert pair.b.holder(f"{where}x")["pid"] == one.pid


@pytest.mark.core
def test_policies_are_read_back_everywhere(lab):
    """What setfattr sets on A getfattr shows on B and on mounts that come later."""
    pair = Pair(lab)
    os.mkdir(pair.a / "d")
    values = {"names": "always", "on_loss": "kill", "record": "no", "open": "lock"}
    for name, value in values.items():
        assert set_policy(pair.a / "d", name, value).returncode == 0
    later = lab.mount(name="c")
    for name, value in values.items():
        assert get_policy(pair.b / "d", name) == value
        assert get_policy(later / "d", name) == value
        assert f"user.latchfs.{name}" in os.listxattr(pair.b / "d")


def test_policy_is_taken_away(lab):
    """setfattr -x ends a policy, and what is below follows."""
    pair = Pair(lab)
    os.mkdir(pair.a / "d")
    os.mkdir(pair.a / "d/e")
    assert set_policy(pair.a / "d", "names", "always").returncode == 0
    assert os.path.exists(pair.a / "d/e/any")
    assert run("setfattr", "-x", "user.latchfs.names", pair.a / "d").returncode == 0
    wait_until(lambda: not os.path.exists(pair.a / "d/e/any"), SOON)
    wait_until(lambda: not os.path.exists(pair.b / "d/e/any"), SOON)


def test_nearer_policy_wins(lab):
    """A directory's own policy stands before that of one above."""
    plain = lab.mount()
    os.mkdir(plain / "d")
    assert set_policy(plain / "d", "names", "held").returncode == 0
    pair = Pair(lab, "names=always")
    assert not os.path.exists(pair.a / "d/any")
    assert os.path.exists(pair.a / "any")
    with pytest.raises(FileExistsError):
        os.mkdir(pair.a / "e")
    wait_until(lambda: not os.path.exists(pair.b / "d/any"), SOON)


@pytest.mark.parametrize("name, value", [
    ("names", "sometimes"), ("open", ""), ("open", "LOCK"), ("on_loss", "panic"),
    ("record", "1"), ("names", "always\n"), ("open", "x" * 5000),
])
def test_bad_values_are_refused(lab, name, value):
    """A value that means nothing is EINVAL, and nothing changes."""
    mount = lab.mount()
    os.mkdir(mount / "d")
    with pytest.raises(OSError) as caught:
        os.setxattr(mount / "d", f"user.latchfs.{name}", value.encode())
    assert caught.value.errno == errno.EINVAL
    assert not os.path.exists(mount / "d/any")
    lab.agent().take(mount / "d/x")


def test_policies_belong_to_directories(lab):
    """A lock file has no policies, and its root has those of the options."""
    mount = lab.mount("names=always")
    lab.agent().take(mount / "x")
    with pytest.raises(OSError):
        os.setxattr(mount / "x", "user.latchfs.open", b"lock")
    assert get_policy(mount.path, "names") == "always"


def test_try_through_flock_on_an_open_lock_directory(lab):
    """open=lock: the handle holds, so that flock of the same descriptor is granted."""
    pair = Pair(lab, "open=lock")
    one = lab.agent()
    fd = one.open(pair.a / "x", RW)
    one.flock(fd, LOCK_EX | LOCK_NB)
    one.write(fd, b"me")
    assert one.error("open", pair.b / "x", READ | os.O_NONBLOCK) == errno.EWOULDBLOCK


# What is set at once, on three mounts: each value by its own, so that all must be there in the end.
CHANGES = [
    [("setxattr", "user.latchfs.hold", value) for value in (b"process", b"close", b"name")],
    [("setxattr", "user.latchfs.on_loss", value) for value in (b"kill", b"error", b"term")],
    [("setxattr", "user.latchfs.record", value) for value in (b"no", b"yes")],
    [("chmod", mode) for mode in (0o711, 0o750, 0o777)],
    [("chown", uid, -1) for uid in (1, 2, 3)],
    [("utimens", (seconds, 0), (seconds, 7)) for seconds in (1, 2, 3)],
]


def state(agent, path):
    """All that can be set of a directory, as it is."""
    attributes = agent.stat(path)
    policies = {name: agent.getxattr(path, name) for name in agent.listxattr(path)}
    return {"chmod": attributes.st_mode & 0o7777, "chown": attributes.st_uid,
            "utimens": attributes.st_mtime_ns // 10**9,
            **{name: value for name, value in policies.items() if name.startswith("user.latchfs.")}}


def what_it_sets(change):
    """Name and value, as state() has them."""
    call, value = change[0], change[1]
    if call == "setxattr":
        return change[1], change[2]
    return call, value[0] if call == "utimens" else value


def test_all_that_is_set_at_once_stays(lab):
    """Six processes on three mounts each change something else, all at the same time."""
    mounts = [lab.mount(name=name) for name in "abc"]
    agents = [lab.agent() for _ in CHANGES]
    for turn in range(30):
        path = f"d{turn}"
        agents[0].mkdir(mounts[0] / path)
        agents[0].setxattr(mounts[0] / path, "user.latchfs.names", b"held")
        chosen = [changes[turn % len(changes)] for changes in CHANGES]
        for number, (agent, change) in enumerate(zip(agents, chosen)):
            agent.begin(change[0], mounts[number % 3] / path, *change[1:])
        for agent in agents:
            agent.finish()
        wanted = dict(map(what_it_sets, chosen), **{"user.latchfs.names": b"held"})
        # The one who asks may have read it before the others' answers.
        for mount in mounts:
            wait_until(lambda: state(agents[0], mount / path) == wanted, SOON,
                       f"{wanted} instead of {state(agents[0], mount / path)}")


def test_taken_away_and_set_at_once(lab):
    """Of those who take a policy away, or make one, exactly one succeeds, and no other one goes."""
    mounts = [lab.mount(name=name) for name in "abc"]
    agents = [lab.agent() for _ in mounts]
    hold, kept = "user.latchfs.hold", "user.latchfs.on_loss"
    agents[0].mkdir(mounts[0] / "d")
    agents[0].setxattr(mounts[0] / "d", kept, b"term")
    for turn in range(20):
        made = turn % 2 == 0
        for agent, mount in zip(agents, mounts):
            arguments = (hold, b"name", os.XATTR_CREATE) if made else (hold,)
            agent.begin("setxattr" if made else "removexattr", mount / "d", *arguments)
        results = sorted(finished(agent) for agent in agents)
        refused = errno.EEXIST if made else errno.ENODATA
        assert results == [0, refused, refused]
        assert agents[turn % 3].getxattr(mounts[turn % 3] / "d", kept) == b"term"


def finished(agent):
    """The errno of a call that was begun, 0 if it succeeded."""
    try:
        agent.finish()
    except OSError as error:
        return error.errno
    return 0


def test_random_changes_on_three_mounts(lab):
    """One change after the other, each on another mount: all mounts say what was set last."""
    seed = int(os.environ.get("LATCHFS_SEED", random.randrange(1 << 32)))
    print(f"LATCHFS_SEED={seed}")
    dice, agent = random.Random(seed), lab.agent()
    mounts = [lab.mount(name=name) for name in "abc"]
    agent.mkdir(mounts[0] / "d")
    wanted = state(agent, mounts[0] / "d")
    for _ in range(150):
        mount, change = dice.choice(mounts), dice.choice(dice.choice(CHANGES))
        name, value = what_it_sets(change)
        if change[0] == "setxattr" and dice.random() < 0.3:
            result = agent.error("removexattr", mount / "d", name)
            assert result == (0 if wanted.pop(name, None) else errno.ENODATA)
            continue
        getattr(agent, change[0])(mount / "d", *change[1:])
        wanted[name] = value
        assert state(agent, mount / "d") == wanted
    for mount in mounts:
        wait_until(lambda: state(agent, mount / "d") == wanted, SOON)
