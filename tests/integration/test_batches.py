# SPDX-License-Identifier: MIT
"""Group commit: many operations in one transaction, each as if it were alone."""

import errno
import os
from fcntl import LOCK_EX

import pytest

from mounting import PLAIN_BINARY
from support import PATIENCE, SOON, wait_until


def contend(lab, programs, *mounts, processes=24, rounds=40, locks=6):
    """Processes that see for themselves whether two are ever in at once."""
    return lab.holder(programs["exclusion"], str(processes), str(rounds), str(locks), *mounts)


def all_is_free(lab):
    """No key is left, which the daemon may find out only by its comparison once per TTL."""
    wait_until(lambda: not lab.etcd.count(f"{lab.prefix}/"), PATIENCE, "no key is left")


def revision(lab):
    """The store's revision: how many transactions have changed something."""
    return int(lab.etcd.call("/v3/kv/range", key="AA==")["header"]["revision"])


def test_a_crowd_needs_few_transactions(lab, programs):
    """What many do at the same time is far fewer commits than things done."""
    # The sanitizers make the daemon so slow that nothing gathers.
    mount = lab.mount(binary=PLAIN_BINARY).expect(".")
    before = revision(lab)
    crowd = contend(lab, programs, mount, processes=32, rounds=200, locks=32)
    assert crowd.exit_status(80) == 0, crowd.errors
    all_is_free(lab)
    # Each by itself, taking and giving back, would be nearly 12,000.
    assert revision(lab) - before < 6000


@pytest.mark.core
def test_batches_exclude(pair, programs):
    """On two machines, few locks, all ways to ask: never two in at once."""
    crowd = contend(pair.lab, programs, pair.a, pair.b)
    assert crowd.exit_status(80) == 0, crowd.errors
    all_is_free(pair.lab)


@pytest.mark.core
@pytest.mark.parametrize("most", ["3", "4", "7"])
def test_etcd_allows_few_operations(bare_lab, programs, most):
    """An etcd with a small --max-txn-ops: batches become as small as it wants them."""
    lab = bare_lab
    lab.own_etcd(extra=["--max-txn-ops", most])
    mounts = [lab.mount(name=name) for name in "ab"]
    for mount in mounts:
        mount.expect(".")
    crowd = contend(lab, programs, *mounts, rounds=30)
    assert crowd.exit_status(80) == 0, crowd.errors
    all_is_free(lab)


@pytest.mark.core
def test_answers_lost_in_the_middle_of_batches(bare_lab, programs):
    """Connections that break under a crowd: what was carried out is found, nothing done twice."""
    lab, server = bare_lab, bare_lab.own_etcd()
    wire = lab.wire(server)
    a = lab.mount("ttl=5", url=wire.url, name="a").expect()
    b = lab.mount("ttl=5", name="b")
    crowd = contend(lab, programs, a, b, rounds=150)
    seen = 0

    def break_it():
        # Whenever there was progress: without any, EIO would be the right answer.
        nonlocal seen
        now = revision(lab)
        if now > seen + 20:
            seen = now
            wire.cut()
            wire.mend()
        return crowd.process.poll() is not None

    wait_until(break_it, 80)
    assert crowd.exit_status() == 0, crowd.errors
    all_is_free(lab)


@pytest.mark.core
def test_a_name_that_is_a_directory_fails_alone(pair, agent, programs):
    """A lock call on what has become a directory, among many on locks."""
    one, two = agent(), agent()
    fd = one.open(pair.a / "x", os.O_RDWR | os.O_CREAT)
    two.mkdir(pair.b / "x")
    crowd = contend(pair.lab, programs, pair.a, processes=16, rounds=60, locks=8)
    while crowd.process.poll() is None:
        assert one.error("flock", fd, LOCK_EX) == errno.EISDIR
    assert crowd.exit_status() == 0, crowd.errors
    two.rmdir(pair.b / "x")
    all_is_free(pair.lab)
