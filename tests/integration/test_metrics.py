# SPDX-License-Identifier: MIT
"""The metrics: what Prometheus makes of them, and that each moves when it should."""

import errno
import os
import re
import subprocess
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

import pytest

import support
from mounting import PLAIN_BINARY
from support import REPOSITORY, SOON, wait_until
from test_status import await_state, status, text

MANUAL = REPOSITORY / "contrib/man/latchfs.8"
SAMPLE = re.compile(r'^(\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)+)\})? (\S+)$')


def samples(mount):
    """Every value: {"name" or 'name{labels}': number}."""
    found = {}
    for line in text(mount, "metrics").splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = SAMPLE.match(line).groups()
        key = f"{name}{{{labels}}}" if labels else name
        assert key not in found, f"{key} twice"
        found[key] = float(value)
    return found


def kinds(mount):
    """What there is: {name: type}."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text(mount, "metrics"), re.M))


class Change:
    """What has changed since."""

    def __init__(self, mount):
        self.mount = mount
        self.before = samples(mount)

    def __getitem__(self, key):
        return samples(self.mount)[key] - self.before[key]

    def wait(self, **expected):
        """Waits until these have changed by so much: name=number or name__label__value=number."""
        for name, number in expected.items():
            name, *labels = name.split("__")
            key = f'{name}{{{labels[0]}="{labels[1]}"}}' if labels else name
            wait_until(lambda: self[key] == number, SOON, f"{key}: {self[key]}, not {number}")


# As text.


@pytest.mark.core
def test_promtool_has_no_complaint(lab):
    """`promtool check metrics` is silent, before and after everything has happened once."""
    mount = lab.mount('name=q"\u00e4')
    who = lab.agent()
    for _ in range(2):
        done = subprocess.run(["promtool", "check", "metrics"], input=text(mount, "metrics"),
                              capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        who.take(mount / "x", LOCK_SH)
        lab.agent().error("take", mount / "x", LOCK_EX | LOCK_NB)


def test_manual_has_them_all(lab):
    """What the manual lists and what there is is the same."""
    section = MANUAL.read_text(encoding="utf-8").partition(".Ss Metrics\n")[2]
    items = re.findall(r"^\.It (.*)$", section.partition("\n.Sh ")[0], re.M)
    documented = [name for item in items for name in re.findall(r"latchfs_\w+", item)]
    assert sorted(documented) == sorted(kinds(lab.mount()))


def test_labels_in_the_manual(lab):
    """The names of labels are those of the manual."""
    section = MANUAL.read_text(encoding="utf-8").partition(".Ss Metrics\n")[2]
    documented = {}
    for item in re.findall(r"^\.It Cm (.*)$", section.partition("\n.Sh ")[0], re.M):
        names, _, labels = item.partition(" Brq Cm ")
        for name in names.split(" , "):
            documented[name] = set(labels.split(" , ")) - {""}
    there = {}
    for key in samples(lab.mount()):
        name, _, labels = key.partition("{")
        base = re.sub("_(bucket|sum|count)$", "", name)
        name = base if base in documented else name
        there.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
        there[name].discard("le")
    assert there == documented


def test_as_many_with_many_locks(lab):
    """However many locks there are, there are as many values, and no lock is named."""
    mount = lab.mount()
    before = set(samples(mount))
    who = lab.agent()
    who.mkdir(mount / "direct-ory")
    who.take_many(str(mount.path), [f"direct-ory/some-lock{n}" for n in range(50)])
    assert set(samples(mount)) == before
    assert "some-lock" not in text(mount, "metrics") and "direct-ory" not in text(mount, "metrics")


# Locks.


def test_grants_and_refusals(pair, agent):
    """What is granted, and what is refused."""
    one, two = agent(), agent()
    change = Change(pair.a)
    fd = one.take(pair.a / "x")
    shared = one.take(pair.a / "y", LOCK_SH | LOCK_NB)
    assert not two.attempt(pair.a / "x")
    assert two.error("open", pair.a / "x", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    change.wait(latchfs_grants_total__mode__exclusive=1, latchfs_grants_total__mode__shared=1,
                latchfs_locks__state__held=2, latchfs_wait_seconds_count=1,
                latchfs_hold_seconds_count=0)
    assert change["latchfs_refused_total"] >= 1
    one.flock(fd, LOCK_UN)
    one.close(shared)
    change.wait(latchfs_locks__state__held=0, latchfs_hold_seconds_count=2,
                latchfs_locks__state__releasing=0)


def test_waits(pair, agent):
    """Waiting, how long, behind how many, and giving it up."""
    one, two, three, four = agent(), agent(), agent(), agent()
    fd = one.take(pair.b / "x")
    change = Change(pair.a)
    for number, who in enumerate((two, three)):
        who.begin("take", pair.a / "x")
        pair.await_queue("x", 2 + number)
    change.wait(latchfs_locks__state__waiting=2, latchfs_queue_longest=2,
                latchfs_requests_waiting=2)
    wait_until(lambda: change["latchfs_wait_longest_seconds"] > 0.15, SOON, "time goes by")
    assert four.alarmed(0.1, "take", pair.a / "x", LOCK_EX) == "interrupted"
    change.wait(latchfs_interrupted_total=1, latchfs_grants_total__mode__exclusive=0,
                latchfs_locks__state__waiting=2)
    one.close(fd)
    held = two.finish()
    change.wait(latchfs_grants_total__mode__exclusive=1, latchfs_locks__state__waiting=1)
    assert change["latchfs_wait_seconds_count"] == 1
    assert change["latchfs_wait_seconds_sum"] > 0.15
    assert change['latchfs_wait_seconds_bucket{le="0.1"}'] == 0
    assert change['latchfs_wait_seconds_bucket{le="604800"}'] == 1
    wait_until(lambda: change["latchfs_hold_longest_seconds"] > 0.15, SOON, "it is held for long")
    two.close(held)
    three.finish()
    change.wait(latchfs_wait_seconds_count=2, latchfs_hold_seconds_count=1)
    assert change["latchfs_hold_seconds_sum"] > 0.15
    assert change["latchfs_wait_longest_seconds"] == 0


def test_losses(pair, agent):
    """Locks lost one by one, by breaking and by their keys' end.  With the lease: an_outage."""
    pair.a.expect()
    one = agent()
    fds = [one.take(pair.a / name) for name in "xyz"]
    change = Change(pair.a)
    token = pair.a.holder("x")["token"]
    one.setxattr(pair.a / "x", "user.latchfs.break", str(token).encode())
    change.wait(latchfs_losses_total__cause__broken=1, latchfs_losses_total__cause__lease=0,
                latchfs_locks__state__lost=1, latchfs_hold_seconds_count=1)
    pair.lab.etcd.delete(pair.lab.keys("y")[0].name)
    change.wait(latchfs_losses_total__cause__broken=2, latchfs_locks__state__lost=2,
                latchfs_locks__state__held=-2, latchfs_losses_total__cause__lease=0)
    for fd in fds:
        one.close(fd)
    change.wait(latchfs_locks__state__lost=0, latchfs_hold_seconds_count=3)


def test_a_lease_that_is_gone(bare_lab):
    """Somebody revokes the lease: it is lost, and the next is granted."""
    mount = bare_lab.mount(url=bare_lab.own_etcd().url, ttl=6).expect()
    change = Change(mount)
    bare_lab.etcd.revoke(int(status(mount)["lease"]["id"], 16))
    change.wait(latchfs_lease_losses_total__cause__gone=1, latchfs_lease_grants_total=1,
                latchfs_lease_losses_total__cause__deadline=0, latchfs_lease_held=0)


def test_a_name_that_is_broken_is_a_loss(pair, agent):
    """A lock that goes by its name is not unlinked elsewhere, but broken; to unlink it is no loss."""
    mounts = [pair.lab.mount("hold=name") for _ in range(2)]
    change = Change(mounts[0])
    one = agent()
    one.close(one.open(mounts[0] / "x", os.O_CREAT | os.O_EXCL))
    change.wait(latchfs_locks__state__held=1)
    assert one.error("unlink", mounts[1] / "x") == errno.EBUSY
    one.unlink(mounts[0] / "x")
    change.wait(latchfs_locks__state__held=0, latchfs_hold_seconds_count=1)
    assert change['latchfs_losses_total{cause="broken"}'] == 0
    mounts[0].expect(r"lock x .* was lost")
    one.close(one.open(mounts[0] / "x", os.O_CREAT | os.O_EXCL))
    token = pair.lab.keys("x")[0].create_revision
    one.setxattr(mounts[1] / "x", "user.latchfs.break", b"%d" % token)
    wait_until(lambda: change['latchfs_losses_total{cause="broken"}'] == 1, SOON, "it is counted")


# The store.


@pytest.mark.core
def test_requests_and_batches(lab):
    """What goes to the store is counted, by lane, and so is what goes together."""
    mount = lab.mount()
    who = lab.agent()
    change = Change(mount)
    who.take_many(str(mount.path), [f"n{n}" for n in range(20)])
    places = change['latchfs_store_request_seconds_count{lane="places"}']
    assert 1 <= places <= 20 + 20  # the record may be written once more
    assert change['latchfs_store_batch_operations_count{lane="places"}'] == places
    assert change['latchfs_store_batch_operations_sum{lane="places"}'] >= 20
    assert change['latchfs_store_request_seconds_count{lane="names"}'] >= 1
    assert change['latchfs_store_request_seconds_sum{lane="places"}'] < SOON
    now = samples(mount)
    assert now["latchfs_store_up"] == now["latchfs_watch_up"] == now["latchfs_lease_held"] == 1
    assert now[f'latchfs_store_endpoint_up{{endpoint="{lab.etcd.url}"}}'] == 1
    assert now['latchfs_store_connections_total{lane="watch"}'] == 1
    assert now['latchfs_store_connections_total{lane="places"}'] >= 1
    assert now["latchfs_watch_streams_total"] == 1
    assert now['latchfs_store_request_failures_total{lane="places"}'] == 0


def test_an_outage(bare_lab):
    """The store is away until the lease is lost, and comes back."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1", ttl=4).expect()
    who = lab.agent()
    fd, other = who.take(mount / "x"), who.open(mount / "y", os.O_RDWR | os.O_CREAT)
    before = samples(mount)
    assert before["latchfs_lease_ttl_seconds"] == 4
    assert 0 < before["latchfs_lease_margin_seconds"] <= 3.6
    assert before["latchfs_doubtful_seconds_total"] == 0
    wait_until(lambda: samples(mount)['latchfs_lease_renewals_total{result="ok"}'] >= 2,
               what="it is renewed")
    change = Change(mount)
    server.kill()
    await_state(mount, "doubtful")
    wait_until(lambda: change["latchfs_doubtful_seconds_total"] > 0.05, SOON, "doubtful time")
    assert change["latchfs_lease_margin_seconds"] < 0
    change.wait(latchfs_store_up=-1, latchfs_store_outages_total=1, latchfs_watch_up=-1)
    await_state(mount, "lost")
    change.wait(latchfs_lease_losses_total__cause__deadline=1,
                latchfs_losses_total__cause__lease=1, latchfs_lease_held=-1)
    assert samples(mount)["latchfs_lease_margin_seconds"] == 0
    assert 1 < change["latchfs_doubtful_seconds_total"] < SOON
    assert change['latchfs_store_request_failures_total{lane="lease"}'] >= 1
    assert who.error("flock", other, LOCK_EX | LOCK_NB) == errno.EIO
    assert change['latchfs_failures_total{error="EIO"}'] >= 1
    server.start()
    await_state(mount, "ok")
    doubtful = change["latchfs_doubtful_seconds_total"]
    change.wait(latchfs_store_up=0, latchfs_lease_grants_total=1, latchfs_store_outages_total=1,
                latchfs_lease_held=0, latchfs_watch_up=0)
    assert change["latchfs_watch_streams_total"] >= 1
    assert change['latchfs_store_connections_total{lane="watch"}'] >= 1
    who.close(fd)
    assert change["latchfs_doubtful_seconds_total"] == doubtful


# The process.


def test_process(lab):
    """What the kernel says of the daemon."""
    mount = lab.mount(binary=PLAIN_BINARY)
    who = lab.agent()
    before = samples(mount)
    fds = [who.open(mount / f"n{n}", os.O_RDWR | os.O_CREAT) for n in range(30)]
    now = samples(mount)
    assert now["latchfs_handles"] - before["latchfs_handles"] == len(fds)
    assert now["latchfs_names"] - before["latchfs_names"] >= len(fds)
    memory = support.memory_kib(mount.server) * 1024
    assert 0.5 < now["latchfs_process_resident_memory_bytes"] / memory < 2
    assert now["latchfs_process_virtual_memory_bytes"] >= memory
    assert abs(now["latchfs_process_open_fds"] - support.open_files(mount.server)) <= 2
    assert now["latchfs_process_max_fds"] >= 1024
    cpu = support.cpu_seconds(mount.server)
    assert 0 < now["latchfs_process_cpu_seconds_total"] <= cpu + 0.5
    assert abs(now["latchfs_start_time_seconds"] - os.stat(f"/proc/{mount.server}").st_ctime) < SOON
