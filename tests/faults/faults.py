# SPDX-License-Identifier: MIT
"""The faults of a campaign, one function each, and what must be spared by them.

A fault is a generator: it hurts something, yields for how many seconds that shall last (the
campaign goes on meanwhile), and mends it.  What it chooses by chance it draws from its machine's
dice, which the campaign has made for it from the seed.
"""

import contextlib
import contextlib
import errno
import signal
import time
from dataclasses import dataclass

from field import PASSWORD, PREFIX, TTL, until  # first: it knows where those below are
from etcdserver import encode, etcd_version
from mounting import abort_connection
from support import run

# Every holder survives an interruption of half the TTL, says the manual; mending takes a moment.
SHORT = TTL * 0.48
# Nobody is answered either while etcd looks for its leader, which takes it up to a second or so.
ELECTION = 1.2
LONG = TTL * 1.6

ALL = "nothing"
OTHERS = "only there"
ANYBODY = "everywhere"


@dataclass
class Fault:
    """One of them."""

    name: str
    run: object
    loses: str  # where a lock may be lost: nothing, only there (on one machine), everywhere
    cluster: bool  # hurts the cluster or all machines, so that another such fault may be too much
    errors: set  # what calls may be refused with (on one machine, if only that is hurt), beside EIO
    remounts: bool  # nobody may be left on the machine's mount


# The mount is gone.
GONE = {errno.ENOTCONN, errno.ECONNABORTED}

FAULTS = []


def fault(name, loses=ALL, cluster=False, errors=(), remounts=False):
    """Adds a fault to the list."""

    def add(function):
        FAULTS.append(Fault(name, function, loses, cluster, set(errors), remounts))
        return function

    return add


# The cluster.


@fault("a member is killed and restarted", cluster=True)
def member_killed(field, site):
    member = site.dice.choice(field.cluster.members)
    member.kill()
    yield SHORT
    member.launch()


@fault("the leader is killed and restarted", cluster=True)
def leader_killed(field, site):
    member = field.leader()
    member.kill()
    yield LONG
    member.launch()


# Longer than the TTL an etcd before the end of 2023 takes leases back that are not its own any more.
@fault("the leader stands still, less than half the TTL", cluster=True)
def leader_paused(field, site):
    member = field.leader()
    member.pause()
    yield SHORT
    member.resume()


@fault("the leader is cut off from its peers", cluster=True)
def leader_isolated(field, site):
    leader = field.leader()
    identity = f"{int(leader.call('/v3/maintenance/status')['header']['member_id']):x}"
    for name, wire in field.peer_wires.items():
        wire.isolate(None if name == leader.name else {identity})
    yield LONG
    for wire in field.peer_wires.values():
        wire.mend()


def takes_leases_back():
    """Whether a leader that was left behind ends leases when it is back (etcd issue 15247)."""
    version = tuple(int(number) for number in etcd_version().split("."))
    return version < (3, 4, 31) or (3, 5) <= version < (3, 5, 13)


def hang_disk(member, seconds):
    member.hang_disk()
    yield seconds
    member.mend_disk()


@fault("the disk of the leader hangs, less than half the TTL", cluster=True)
def leader_disk_short(field, site):
    yield from hang_disk(field.leader(), SHORT)


@fault("the disk of the leader hangs, longer than the TTL", cluster=True,
       loses=ANYBODY if takes_leases_back() else ALL)
def leader_disk_long(field, site):
    leader = field.leader()
    leader.hang_disk()
    yield LONG
    with contextlib.ExitStack() as breaking:
        # As if by an operator: who holds is told when it has happened.
        for one in field.sites if takes_leases_back() else []:
            breaking.enter_context(field.breaking(one))
        leader.mend_disk()
        yield 1


@fault("the disk of a follower hangs, less than half the TTL", cluster=True)
def follower_disk_short(field, site):
    yield from hang_disk(field.follower(site.dice), SHORT)


@fault("the disk of a follower hangs, longer than the TTL", cluster=True)
def follower_disk_long(field, site):
    yield from hang_disk(field.follower(site.dice), LONG)


@fault("two of three members stand still, less than half the TTL", cluster=True)
def no_quorum_short(field, site):
    yield from pause_two(field, site, SHORT - ELECTION)


@fault("two of three members stand still, longer than the TTL", loses=ANYBODY, cluster=True)
def no_quorum_long(field, site):
    yield from pause_two(field, site, LONG)


def pause_two(field, site, seconds):
    members = site.dice.sample(field.cluster.members, 2)
    for member in members:
        member.pause()
    yield seconds
    for member in members:
        member.resume()


@fault("a member is replaced by an empty one", cluster=True)
def member_replaced(field, site):
    member = site.dice.choice(field.cluster.members)
    yield from field.replace_member(member)


@fault("defragmentation of all members", cluster=True)
def defragmentation(field, site):
    for member in field.cluster.members:
        member.etcdctl("defrag")
        yield 0.1


@fault("compaction while a machine is cut off", cluster=True)
def compaction(field, site):
    cut(site)
    yield SHORT / 2
    field.any_member().compact()
    yield SHORT / 2
    mend(site)


@fault("the store is out of space (NOSPACE alarm)", cluster=True, errors={errno.ENOSPC})
def no_space(field, site):
    alarm(field, "ACTIVATE")
    yield LONG
    alarm(field, "DEACTIVATE")


def alarm(field, action):
    member = field.any_member()
    identity = member.call("/v3/maintenance/status")["header"]["member_id"]
    member.call("/v3/maintenance/alarm", action=action, memberID=identity, alarm="NOSPACE")


@fault("authentication is switched on, and off; tokens expire", cluster=True, errors={errno.EACCES})
def authentication(field, site):
    field.etcdctl("auth", "enable")
    for member in field.cluster.members:
        member.user = ("root", PASSWORD)
    yield LONG
    field.etcdctl("auth", "disable")
    for member in field.cluster.members:
        member.user = None


# The network of one machine.


def cut(site):
    for wire in site.wires:
        wire.cut()


def mend(site):
    for wire in site.wires:
        wire.mend()


def hurt(site, lasting, *, wires=None, how="stall", **options):
    """One kind of trouble on some wires of a machine, for a time."""
    for wire in site.wires if wires is None else wires:
        getattr(wire, how)(**options)
    yield lasting
    mend(site)


@fault("a machine is cut off from one member")
def cut_from_one(field, site):
    yield from hurt(site, LONG, wires=[site.dice.choice(site.wires)], how="cut")


@fault("a machine hears nothing of one member any more")
def stalled_by_one(field, site):
    yield from hurt(site, LONG, wires=[site.dice.choice(site.wires)])


@fault("a machine is cut off, less than half the TTL")
def cut_short(field, site):
    yield from hurt(site, SHORT, how="cut")


@fault("a machine is cut off, longer than the TTL", loses=OTHERS)
def cut_long(field, site):
    yield from hurt(site, LONG, how="cut")


@fault("connections are refused, less than half the TTL")
def refused(field, site):
    yield from hurt(site, SHORT, how="refuse")


@fault("connections stall, less than half the TTL")
def stall_short(field, site):
    yield from hurt(site, SHORT)


@fault("connections stall, longer than the TTL", loses=OTHERS)
def stall_long(field, site):
    yield from hurt(site, LONG)


@fault("what is asked gets lost, longer than the TTL", loses=OTHERS)
def requests_lost(field, site):
    yield from hurt(site, LONG, ways=(True,))


@fault("what is answered gets lost, less than half the TTL")
def answers_lost_short(field, site):
    yield from hurt(site, SHORT, ways=(False,))


@fault("what is answered gets lost, longer than the TTL", loses=OTHERS)
def answers_lost(field, site):
    yield from hurt(site, LONG, ways=(False,))


@fault("answers end in the middle")
def answers_torn(field, site):
    yield from hurt(site, SHORT, how="tear")


@fault("every packet comes 100 ms late")
def delayed(field, site):
    yield from hurt(site, LONG, how="delay", seconds=0.1)


@fault("requests are carried out late, after newer ones")
def carried_out_late(field, site):
    yield from hurt(site, LONG, how="come_late", part=4, seconds=TTL / 3)


@fault("connections are reset again and again")
def resets(field, site):
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        for wire in site.wires:
            wire.reset()
        yield 0.2


# Operators.


@fault("the lease is revoked by an operator", loses=OTHERS, cluster=True)
def lease_revoked(field, site):
    leases = {key.lease for key, name in field.our_keys() if name == site.name}
    with field.breaking(site):
        for lease in leases:
            field.etcdctl("lease", "revoke", f"{lease:x}")
    yield 0.5


@fault("keys are deleted by an operator", loses=OTHERS, cluster=True)
def keys_deleted(field, site):
    with field.breaking(site):
        for key, name in field.our_keys():
            if name == site.name:
                field.any_member().delete(key.name)
    yield 0.5


@fault("keys of a lock are deleted by prefix", loses=ANYBODY, cluster=True)
def keys_deleted_together(field, site):
    for _ in range(5):
        with contextlib.ExitStack() as broken:
            for each in field.sites:
                broken.enter_context(field.breaking(each))
            for keys in field.queues().values():
                field.any_member().call("/v3/kv/txn", success=[
                    {"requestDeleteRange": {"key": encode(key)}} for key in keys])
        yield 0.2


@fault("somebody else writes garbage among the keys", cluster=True)
def garbage(field, site):
    keys = [f"{PREFIX}/{place}" for place in
            ("0/x", "1/\0\xff", "2/s-", "3/ffffffffffffffff.ffffffffffffffff", "4/s-zz.1", "/", "5")]
    member = field.any_member()
    for number, key in enumerate(keys):
        member.call("/v3/kv/put", key=encode(key),
                    value=encode(("", "{", "[" * 999, '{"v":1,"pid":{}}')[number % 4]))
    yield SHORT
    for key in keys:
        field.any_member().delete(key)


@fault("the clock of a machine is stepped", cluster=True)
def clock_stepped(field, site):
    # Only the third machine looks at this clock.
    for seconds in 3600, -86400, 0:
        field.set_clock(seconds)
        yield TTL / 3


# Daemons and clients.


@fault("a daemon stands still, less than half the TTL")
def daemon_paused_short(field, site):
    site.mount.pause()
    yield SHORT
    site.mount.resume()


@fault("a daemon stands still, longer than the TTL", loses=OTHERS)
def daemon_paused_long(field, site):
    site.mount.pause()
    yield LONG
    site.mount.resume()


@fault("a daemon is killed", loses=OTHERS, errors=GONE, remounts=True)
def daemon_killed(field, site):
    site.open = False
    site.mount.kill()
    yield from until(lambda: not site.workers, "the clients notice")
    yield from until(lambda: not site.mount.mounted(), "it is unmounted")
    abort_connection(site.mount.path)
    yield from site.mount_again()


@fault("the process that serves a mount is killed, a hundred times a minute")
def worker_killed(field, site):
    if site.supervise == "no":
        site = field.sites[0]
    for _ in range(25):
        site.mount.kill_server()
        yield 0.6


@fault("the process that serves a mount stands still, longer than the TTL")
def worker_stalled(field, site):
    if site.supervise == "no":
        site = field.sites[0]
    site.mount.stall()
    yield LONG
    site.mount.resume()


@fault("the last clients of a lazily unmounted mount are killed", remounts=True)
def unmounted_lazily(field, site):
    site.open = False
    site.let_go()
    done = site.mount.unmount("-z")
    assert done.returncode == 0, done.stderr
    yield 1
    site.kill_clients()
    yield from until(lambda: not site.mount.alive(), "the daemon ends")
    assert site.mount.process.returncode == 0, site.mount.log()[-2000:]
    yield from site.mount_again()


@fault("an unmount meets a busy mount point")
def busy(field, site):
    for _ in range(5):
        done = run("umount", site.mount.path)
        assert done.returncode != 0 and "busy" in done.stderr, done
        yield 0.1


@fault("all clients of a machine are killed at once")
def clients_killed(field, site):
    site.kill_clients()
    yield 0.5


@fault("all clients of a machine stand still, longer than the TTL")
def clients_paused(field, site):
    site.pause_clients(signal.SIGSTOP)
    yield LONG
    site.pause_clients(signal.SIGCONT)
