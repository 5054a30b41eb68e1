# SPDX-License-Identifier: MIT
"""Where a campaign takes place: a cluster of etcd, three machines with mounts, clients on them.

Every machine reaches every member through a wire of its own, and so does every member its peers.
"""

import collections
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

# These are the test suite's, in the directory that was just added.
from children import Agent, end_group
from etcdserver import Cluster
from mounting import Mount
from support import PATIENCE, run, wait_until
from wire import PeerWire, Wire
from line import LOCK as LINE, Line  # which uses them

PREFIX = "/campaign"
SITES = "abc"
# Who has to be granted locks, and with which calls.
FAMILIES = {*SITES, "go", "etcdctl", "flock", "create", "fcntl", "inherit"}
CALLS = {"create": "create", "posix": "fcntl", "range": "fcntl", "tryrange": "fcntl",
         "inherit": "inherit", "mutex": "none of ours"}
# Within: the peers have leases of 15 s, and what one of them leaves behind stands in the way.
EVERYBODY = 60
LOCKS = 6
HOMES = LOCKS + 1
WORKERS = 6
# Of the clients of a machine, by the end of their names, one holds the machine's own lock for long,
# and one waits for that of the next machine.  The others want locks below LOCKS, and parts of the
# lock LOCKS.
ROLES = {"s": ("sit", 0), "v": ("visit", 1)}
TTL = 5
USER, PASSWORD = "locks", "campaign"
SANITIZER = {"ASAN_OPTIONS": "detect_leaks=1:exitcode=99:verify_asan_link_order=0"}


def until(condition, what, deadline=PATIENCE):
    """For what goes on beside others: yields pauses until a condition holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        yield 0.05


class Grants:
    """When who was granted a lock last, as the histories tell that are being written."""

    def __init__(self, histories):
        self.histories = histories
        self.read = {}  # file -> how many bytes of it
        self.calls = {}  # (client, number of its request) -> how it locks
        self.last = {}  # family -> nanoseconds

    def update(self):
        """Reads what is new."""
        for path in self.histories.iterdir():
            with open(path, "rb") as file:
                file.seek(self.read.get(path.name, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self.read[path.name] = self.read.get(path.name, 0) + len(whole + newline)
            for line in whole.decode("ascii").splitlines():
                self.add(path.name, *line.split())

    def add(self, client, time, verb, *words):
        """One line."""
        if verb == "call":
            self.calls[client, words[0]] = CALLS.get(words[3], "flock")
        elif verb == "granted":
            for name in (client.partition("-")[0], self.calls[client, words[0]]):
                self.last[name] = max(self.last.get(name, 0), int(time))


class Site:
    """One machine: a daemon, its wires to the members, and the clients on its mount."""

    def __init__(self, field, number, name, environment=None, supervise="yes"):
        self.field = field
        self.name = name
        self.number = number
        self.environment = environment or {}
        self.supervise = supervise
        self.wires = [Wire(member.port) for member in field.cluster.members]
        self.counter = itertools.count(1)
        self.workers = {}
        self.dying = []
        self.mount = None
        self.open = False  # clients are started anew
        self.probe = Agent()
        self.keeper = Agent()
        self.kept = None  # the keeper's handle
        self.heir = Agent()  # waits, on another machine, for what the keeper has
        self.dice = None  # of the fault that hurts it

    def mount_again(self):
        """A new daemon, as soon as the store lets one in."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.mount_it()
                return
            except AssertionError:
                if time.monotonic() > deadline or self.mount.process.poll() != 1:
                    raise
            yield 0.5

    def mount_it(self):
        """A new daemon."""
        url = ",".join(wire.url for wire in self.wires)
        options = [f"ttl={TTL}", "timeout=2", f"name={self.name}", f"user={USER}",
                   f"password_file={self.field.password}", f"supervise={self.supervise}"]
        self.mount = Mount(f"{url}{PREFIX}", self.field.base / self.name, ",".join(options),
                           environment=self.environment).expect().expect("can't be used")
        self.mount.expected_exit = None  # a store that lets nobody in is no failure
        self.mount.start()
        self.mount.expected_exit = 0
        self.open = True

    def fill(self):
        """Sees to it that enough clients work; what ended badly is a problem."""
        for name, process in list(self.workers.items()):
            if process.poll() is None:
                continue
            del self.workers[name]
            if process.returncode not in (0, -signal.SIGKILL):
                self.field.problem(f"client {name} ended with {process.returncode}")
        while self.open and len(self.workers) < WORKERS:
            role = next((role for role in ROLES
                         if not any(name.endswith(role) for name in self.workers)), "")
            name = f"{self.name}-{next(self.counter)}{role}"
            self.workers[name] = self.field.start(
                self.field.worker, name, self.field.dice(name).randrange(1 << 30), LOCKS,
                self.field.histories / name, self.field.registers, self.mount.path,
                *self.duty(*ROLES[role] if role else ()))

    def duty(self, what=None, whose=0):
        """What a client with a role is told to do: that, with the lock of a machine after us."""
        return [what, HOMES + (self.number + whose) % len(SITES)] if what else []

    def sits(self):
        """Whether one of our clients has our own lock."""
        start = f"{PREFIX}/{HOMES + self.number}/"
        holders = [name for key, name in self.field.our_keys() if key.name.startswith(start)]
        return holders[:1] == [self.name]

    def kill_clients(self, count=None):
        """Kills clients, in whatever they are doing."""
        victims = self.field.chance.sample(list(self.workers), count or len(self.workers))
        for name in victims:
            self.field.note("killed", name)
            self.workers[name].kill()
        # Who waits for a daemon that stands still dies only when that goes on.
        self.dying += [self.workers.pop(name) for name in victims]

    def pause_clients(self, number):
        """SIGSTOP or SIGCONT to all clients."""
        for process in self.workers.values():
            process.send_signal(number)

    def ask(self):
        """Lets the probe ask for a lock of its own."""
        self.probe.begin("take", self.mount / f"probe-{self.name}")

    def answered(self):
        """Whether the probe has its lock; asks again if it was refused."""
        if not self.probe.ready():
            return False
        try:
            self.probe.close(self.probe.finish())
            return True
        except OSError:
            self.ask()
            return False

    def keep(self, other):
        """Has a lock held from before a fault until after it; only another machine wants it."""

        def taken():
            try:
                self.kept = self.keeper.take(self.mount / f"kept-{self.name}")
            except OSError:
                return False
            return True

        wait_until(taken, what=f"{self.name} has the lock that it is to keep")
        self.heir.begin("take", other.mount / f"kept-{self.name}").await_waiting()

    def let_go(self):
        """Gives that lock back; whether it had been held all the time."""
        if self.kept is None:
            return True
        fd, self.kept = self.kept, None
        held = not self.keeper.error("pread", fd, 10, 0)
        if held:
            wait_until(lambda: not self.keeper.error("fsync", fd), TTL, "what is held is confirmed")
        if held and self.heir.ready():
            self.field.problem(f"somebody else has the lock that {self.name} keeps")
        self.keeper.error("close", fd)
        return held

    def pass_on(self):
        """Waits until the other machine has that lock."""

        def passed():
            self.field.tick()
            return self.heir.ready()

        wait_until(passed, 6 * TTL, f"another machine has what {self.name} kept")
        self.heir.close(self.heir.finish())

    def close(self):
        """Ends everything by force."""
        self.open = False
        if self.mount:
            self.mount.destroy()
        for process in [*self.workers.values(), *self.dying, self.probe.process,
                        self.keeper.process, self.heir.process]:
            end_group(process)
        for wire in self.wires:
            wire.close()


class Field:
    """All of it."""

    def __init__(self, base, programs, seed):
        self.base = base
        self.seed = seed
        self.chance = self.dice("chance")  # for what depends on how fast things go
        self.histories = base / "histories"
        self.registers = base / "registers"
        self.histories.mkdir()
        self.registers.mkdir()
        self.password = base / "password"
        self.password.write_text(PASSWORD, encoding="ascii")
        self.password.chmod(0o600)
        self.clock = base / "clock"
        self.worker, self.peer = programs / "worker", programs / "peer"
        self.problems = []
        self.stage = "the start"
        self.sites = []
        self.peers = {}
        self.peer_wires = {}
        self.grants = Grants(self.histories)
        self.prefix = PREFIX
        self.line = Line(self)
        self.controller = None
        self.cluster = None
        self.next_kill = 0

    def __enter__(self):
        try:
            self.controller = open(self.histories / "controller", "a", encoding="ascii")
            self.start_cluster()
            self.set_clock(0)
            library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
            faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                     "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1", **SANITIZER}
            for number, name in enumerate(SITES):
                last = number == len(SITES) - 1
                self.sites.append(Site(self, number, name, faked if last else None,
                                       "no" if last else "yes"))
                self.sites[-1].mount_it()
            self.start_peers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused):
        for site in self.sites:
            site.close()
        for process in self.peers.values():
            end_group(process)
        self.line.close()
        for wire in self.peer_wires.values():
            wire.close()
        if self.cluster:
            self.cluster.remove()
        if self.controller:
            self.controller.close()

    def start_cluster(self):
        """Three members; users exist, but nobody is asked for a password yet."""
        self.cluster = Cluster(self.base, self.route)
        for member in self.cluster.members:
            member.extra += ["--auth-token-ttl", "3"]
        self.cluster.start()
        for words in (["user", "add", f"root:{PASSWORD}"], ["user", "grant-role", "root", "root"],
                      ["role", "add", "locks"],
                      ["role", "grant-permission", "locks", "--prefix=true", "readwrite", PREFIX],
                      ["user", "add", f"{USER}:{PASSWORD}"],
                      ["user", "grant-role", USER, "locks"]):
            self.etcdctl(*words)

    def route(self, member):
        """The peers reach a member through a wire."""
        wire = self.peer_wires[member.name] = PeerWire(member.peer_port)
        return wire.url

    def start(self, *words, **options):
        """A process with a group of its own."""
        return subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL,
                                start_new_session=True, **options)

    def start_peers(self):
        """Other programs that use the same locks, directly on etcd."""
        urls = ",".join(member.url for member in self.cluster.members)
        environment = {**os.environ, "PEER_USER": USER, "PEER_PASSWORD": PASSWORD}
        for name in ("go-1", "go-2"):
            self.peers[name] = self.start(
                self.peer, urls, PREFIX, name, self.dice(name).randrange(1 << 30), LOCKS,
                self.histories / name, self.registers, env=environment,
                stderr=subprocess.DEVNULL)
        loop = ('trap "stop=1" TERM; n=0; while [ -z "$stop" ]; do n=$(( (n + 1) % $4 )); '
                'etcdctl --endpoints="$1" lock --ttl=15 "$2/$n" -- '
                '"$3" held etcdctl "$n" "$5" || sleep 0.1; done >/dev/null 2>&1')
        self.peers["etcdctl"] = self.start(
            "bash", "-c", loop, "bash", urls, PREFIX, self.worker, LOCKS,
            self.histories / "etcdctl", env={**os.environ, "ETCDCTL_API": "3"})

    def dice(self, *words):
        """Chance that the seed and these words alone decide."""
        return random.Random(" ".join(map(str, (self.seed, *words))))

    # What faults use.

    def set_clock(self, seconds):
        """Steps the clock that the third daemon sees."""
        self.clock.write_text(f"{seconds:+d}\n", encoding="ascii")

    def any_member(self):
        """A member that answers; health would say no to one that is full."""

        def answers(member):
            try:
                return member.running() and member.count("/") >= 0
            except OSError:
                return False

        return wait_until(lambda: next(filter(answers, self.cluster.members), None),
                          what="some member answers")

    def leader(self):
        """The member that leads."""
        return self.cluster.leader()

    def follower(self, dice):
        """A member that does not lead, by chance."""
        leader = self.leader()
        return dice.choice([member for member in self.cluster.members if member is not leader])

    def etcdctl(self, *words):
        """Any command, on a member that answers."""
        return self.any_member().etcdctl(*words)

    def our_keys(self):
        """(key, name of the site) of all claims of our mounts."""
        found = []
        for key in self.any_member().keys(f"{PREFIX}/"):
            try:
                found.append((key, json.loads(key.value)["host"]))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def queues(self):
        """The keys of each lock that our mounts have, in the order of their names.

        But for the line, in which everybody has to keep his place.
        """
        found = collections.defaultdict(list)
        for key, _ in self.our_keys():
            found[key.name.rpartition("/")[0]].append(key.name)
        found.pop(f"{self.prefix}/{LINE}", None)
        return {lock: sorted(keys) for lock, keys in found.items()}

    @contextlib.contextmanager
    def breaking(self, site):
        """While an operator takes locks of a machine away."""
        self.note("breaks", site.name)
        yield
        self.note("broke", site.name)

    def await_sitter(self, site):
        """Waits until a client of that machine has the lock that it holds for long."""

        def sits():
            self.tick()
            return site.sits()

        wait_until(sits, what=f"a client of {site.name} holds its lock for long")

    def replace_member(self, member):
        """Throws a member and its data away; the cluster then wants to add an empty one."""
        rest = [one for one in self.cluster.members if one is not member]
        identity = f"{int(member.call('/v3/maintenance/status')['header']['member_id']):x}"
        member.remove()
        wait_until(rest[0].healthy, what="the rest of the cluster answers")
        rest[0].etcdctl("member", "remove", identity)
        # etcd wants to have seen the others for a while before it takes one more.
        add = rest[0].etcdctl_words("member", "add", member.name, f"--peer-urls={member.peer_url}")
        yield from until(lambda: run(*add, env={**os.environ, "ETCDCTL_API": "3"}).returncode == 0,
                         "the new member is accepted")
        words = member.arguments()
        words[words.index("--initial-cluster-state") + 1] = "existing"
        member.arguments = lambda: words
        member.launch()

    # Running.

    def note(self, verb, *words):
        """A line of the controller's own history."""
        print(time.monotonic_ns(), verb, *words, file=self.controller, flush=True)

    def problem(self, text):
        """Something that must not be."""
        print(f"  PROBLEM: {self.stage}: {text}", flush=True)
        self.problems.append(f"{self.stage}: {text}")

    def tick(self):
        """Sees to the clients: kills one now and then, replaces those that have ended."""
        for site in self.sites:
            site.fill()
            site.mount.check()
        self.line.advance()
        if time.monotonic() > self.next_kill:
            self.next_kill = time.monotonic() + self.chance.uniform(0.2, 1.5)
            site = self.chance.choice(self.sites)
            if site.open and site.workers:
                site.kill_clients(1)
        for name, process in self.peers.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}")

    def await_members(self):
        """Waits until the cluster is whole."""

        def whole():
            self.tick()
            return all(member.healthy() for member in self.cluster.members)

        wait_until(whole, what="all members answer")

    def await_line(self, deadline):
        """Waits until nobody stands in line any more."""

        def is_empty():
            self.tick()
            return self.line.advance()

        wait_until(is_empty, deadline, "everybody in line has had the lock")

    def await_everybody(self, since):
        """Waits until somebody of every family has been granted a lock since some time."""
        missing = FAMILIES

        def all_work():
            nonlocal missing
            self.tick()
            self.grants.update()
            missing = {name for name in missing if self.grants.last.get(name, 0) <= since}
            return not missing

        try:
            wait_until(all_work, EVERYBODY)
        except AssertionError:
            raise AssertionError(f"no locks any more: {', '.join(sorted(missing))}") from None

    def quiet_end(self):
        """All clients end in good order, then all daemons; nothing is left in the store."""
        everybody = dict(self.peers)
        for site in self.sites:
            site.open = False
            everybody.update(site.workers)
        for process in everybody.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in everybody.items():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                self.problem(f"{name} does not end: what it asked for is not answered")
        for process in itertools.chain(*(site.dying for site in self.sites)):
            process.wait(PATIENCE)
        self.line.end()
        with open(self.histories / "etcdctl", "a", encoding="ascii") as history:
            print(time.monotonic_ns(), "end", file=history)
        for site in self.sites:
            site.mount.stop()
        member = self.any_member()
        wait_until(lambda: not member.count(f"{PREFIX}/"), what="no key is left")
        wait_until(lambda: not member.leases(), what="no lease is left")

    def register_entries(self):
        """lock -> [(token, value or None for a read)] of all registers."""
        found = {}
        for path in self.registers.iterdir():
            entries = []
            for line in path.read_text(encoding="ascii").splitlines():
                token, what = line.split()
                entries.append((int(token), None if what == "read" else int(what)))
            found[path.name] = entries
        return found
