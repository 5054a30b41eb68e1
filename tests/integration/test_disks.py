# SPDX-License-Identifier: MIT
"""The disk of a member of etcd hangs: it answers from memory, and is believed no more than is right.

Covers src/store/etcd/lease.c, and what else trusts a member's answer.
"""

import errno
import os
import select
from fcntl import LOCK_EX, LOCK_NB

import pytest

from etcdserver import Cluster
from support import SOON, wait_until
from test_metrics import samples

TTL = 5
OK = 'latchfs_lease_renewals_total{result="ok"}'
FAILED = 'latchfs_lease_renewals_total{result="failed"}'
UNPROVEN = 'latchfs_lease_renewals_total{result="unproven"}'


class Disks:
    """Three members, of which one's disk can hang; a holder on machine A, a waiter on B."""

    def __init__(self, lab, hung, alone):
        self.lab = lab
        self.cluster = Cluster(lab.base)
        lab.servers.extend(self.cluster.members)
        self.cluster.start()
        leader = self.cluster.leader()
        rest = [member for member in self.cluster.members if member is not leader]
        self.hung = leader if hung == "leader" else rest[0]
        self.others = [member for member in self.cluster.members if member is not self.hung]
        lab.etcd = self.others[0]
        ours = [self.hung] if alone else [self.hung, *self.others]
        self.a = self.mount("a", ours)
        self.b = self.mount("b", self.others)
        self.one, self.two = lab.agent(), lab.agent()
        self.fd = self.one.take(self.a / "x")
        self.one.begin("poll", self.fd, select.POLLPRI).await_waiting("poll")
        self.two.begin("take", self.b / "x")
        lab.await_keys("x", 2)

    def mount(self, name, members):
        """A mount that prefers the first of these members."""
        return self.lab.mount("timeout=2", ttl=TTL, name=name,
                              url=",".join(member.url for member in members)).expect()

    def hang(self):
        """The disk hangs, and somebody notices: there is something to write."""
        self.hung.hang_disk()
        try:
            self.hung.request("/v3/kv/put", {"key": "YQ=="}, timeout=0.5).close()
        except OSError:
            pass


@pytest.fixture
def disks(bare_lab, request):
    """The disks of a cluster, one of which hangs by now."""
    disks = Disks(bare_lab, *request.param)
    disks.hang()
    yield disks
    disks.hung.mend_disk()


EACH = pytest.mark.parametrize("disks", [("leader", False), ("follower", False)], indirect=True,
                               ids=["leader", "follower"])
ALONE = pytest.mark.parametrize("disks", [("leader", True), ("follower", True)], indirect=True,
                                ids=["leader", "follower"])


def renewed(mount, times):
    """Waits until the lease was renewed so often."""
    until = samples(mount)[OK] + times
    wait_until(lambda: samples(mount)[OK] >= until, 20 * TTL, "the lease is renewed")


@pytest.mark.core
@EACH
def test_others_are_asked(disks):
    """For more than a TTL: the lease is renewed elsewhere, nothing is lost, nobody else granted."""
    renewed(disks.a, 8)
    assert not disks.one.ready() and not disks.two.ready()
    assert len(disks.lab.keys("x")) == 2
    disks.hung.mend_disk()


@pytest.mark.core
@ALONE
def test_told_before_the_next_is_granted(disks):
    """Who can't ask anybody else loses the lock, and knows when the next in line has it."""
    mine = disks.two.finish(20 * TTL)
    assert disks.one.ready(), "somebody else was granted what the holder believes to hold"
    assert disks.one.finish() & select.POLLERR
    assert disks.one.error("pread", disks.fd, 10, 0) == errno.EIO
    disks.two.fsync(mine)
    told = samples(disks.a)
    # A newer etcd refuses them itself.
    assert told[UNPROVEN] + told[FAILED] > 0


@ALONE
def test_nothing_is_confirmed_or_found(disks):
    """What is asked of the member itself is not answered from its memory."""
    assert disks.one.finish(20 * TTL) & select.POLLERR
    other = disks.lab.agent()
    assert other.error("stat", disks.a / "y") == errno.EIO
    assert other.error("take", disks.a / "y", LOCK_EX | LOCK_NB) == errno.EIO
    assert other.error("listdir", os.fspath(disks.a.path)) == errno.EIO
    assert disks.one.error("fsync", disks.fd) == errno.EIO


@EACH
def test_a_key_that_is_deleted_meanwhile(disks):
    """The watch moves away from a member that tells nothing: a lock that is broken is lost."""
    wait_until(lambda: disks.others[0].healthy(), what="the others have a leader")
    disks.lab.etcd.delete(disks.lab.keys("x")[0].name)
    assert disks.one.finish(4 * TTL) & select.POLLERR
    disks.two.fsync(disks.two.finish(SOON))
