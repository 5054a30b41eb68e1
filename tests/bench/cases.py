# SPDX-License-Identifier: MIT
"""The cases: what is measured, of whom, and what latchfs wants to reach."""

import dataclasses
from dataclasses import dataclass, field
from typing import Callable, Optional

LATCHFS = "latchfs"
GO = "Go Mutex"
FLOOR = "libcurl put and delete"
LOCAL = "flock, local disk"
ETCDCTL = "etcdctl lock"
TRY = "Go TryLock"
REDIS = "Redis SET NX"


@dataclass
class Aim:
    """What latchfs wants to reach, against a peer or, without one, by itself.

    The value is that of the case's comparison, or of `what`, one of "rate" and "p99".
    """

    limit: float
    text: str
    peer: Optional[str] = None
    what: Optional[str] = None
    at_most: bool = False

    def reached(self, value):
        """Whether a value is there and good enough."""
        if value is None:
            return False
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass
class Case:
    """One thing to measure.

    Each peer is a function of the stage that gives a line as in load.h.  `times` says which of its
    times is shown.  `compare` says how latchfs is put beside a peer: "rate", its cycles a second
    over the peer's; "time", its median over the peer's; "speed", the peer's median over its own.
    """

    name: str
    title: str
    peers: dict[str, Callable]
    aims: Callable = field(default=lambda version: [])
    times: str = "pair"
    compare: str = "rate"
    together: Optional[Callable] = None  # measures all peers at once: peer -> line

    def measure(self, stage, turn):
        """The lines of all peers; turn says who is first."""
        if self.together:
            return self.together(stage)
        names = list(self.peers)
        turn %= len(names)
        return {name: self.peers[name](stage) for name in names[turn:] + names[:turn]}


# How the peers are run.  Each gives a function of the stage.


def span(stage, number=1):
    """Arguments for how long to measure; longer for many at a time, who take long for a turn."""
    longer = 4 if number >= 1000 else 2 if number > 100 else 0
    return ["-s", max(stage.options.seconds, longer), "-w", max(stage.options.warmup, longer / 2)]


def locks(mode, processes, *, machines=1, directories=0, contended=False):
    """Processes on mounts; on directories below the first if there are any."""

    def measure(stage):
        places = [stage.mount(number).path for number in range(machines)]
        if directories:
            places = [places[0] / f"d{number}" for number in range(directories)]
            for place in places:
                place.mkdir(exist_ok=True)
        words = ["-m", mode, "-n", processes, *(["-c"] if contended else [])]
        return stage.run("locks", *words, *span(stage, processes), *places)[0]

    return measure


def local(mode, processes):
    """Processes that contend on the local file system."""

    def measure(stage):
        return stage.run("locks", "-m", mode, "-n", processes, "-c", *span(stage), stage.local)[0]

    return measure


def go(mode, goroutines, clients=1):
    """The Go program."""

    def measure(stage):
        words = ["-endpoints", stage.cluster.url, "-n", goroutines, "-clients", clients]
        return stage.run("peer", *words, *span(stage, goroutines), mode)[0]

    return measure


def floor(stage):
    """The libcurl program, on the first member."""
    seconds, warmup = stage.options.seconds, stage.options.warmup
    return stage.run("floor", stage.cluster.members[0].url, 1, seconds, warmup)[0]


def redis(processes):
    """The Redis program."""

    def measure(stage):
        seconds, warmup = stage.options.seconds, stage.options.warmup
        return stage.run("redis", stage.redis(), processes, seconds, warmup)[0]

    return measure


def commands(stage):
    """Whole commands, in turns."""
    lines = stage.run(
        "commands", stage.options.runs,
        "--", "flock", stage.mount() / "command", "true",
        "--", "etcdctl", f"--endpoints={stage.cluster.url}", "lock", "command", "true",
        "--", "flock", stage.local / "command", "true",
    )
    return dict(zip((LATCHFS, ETCDCTL, LOCAL), lines))


# The table.


def nested(version):
    """How many times Go's rate is wanted: nested transactions are slow on 3.4."""
    return 2 if version.startswith("3.4") else 3


def uncontended():
    """One process alone."""
    yield Case(
        "uncontended", "uncontended lock + unlock, 1 process",
        {LATCHFS: locks("flock", 1), FLOOR: floor, GO: go("lock", 1)},
        lambda version: [Aim(1.3, "at most 1.3 x the time", FLOOR, at_most=True)],
        compare="time",
    )
    yield Case(
        "close", "the close of a held lock; of the peers, their unlock",
        {LATCHFS: locks("close", 1), FLOOR: floor, GO: go("lock", 1)},
        lambda version: [Aim(0.2, "no round trip: at most 0.2 x the time", FLOOR, at_most=True)],
        times="give", compare="time",
    )


def distinct(number):
    """Many at a time, each on its own lock."""

    def aims(version):
        if number < 128:
            return []
        times = nested(version)
        return [Aim(times, f"{times} x the rate", GO)]

    return Case(
        f"distinct-{number}", f"lock + unlock on distinct locks, {number} at a time",
        {LATCHFS: locks("flock", number), GO: go("lock", number)}, aims,
    )


def between(number):
    """One lock, two mounts."""

    def aims(version):
        late = Aim(5000, "p99 under 5 ms", what="p99", at_most=True)
        return [late] if number == 64 else [late, Aim(10, "10 x the rate", GO)]

    return Case(
        f"between-{number}", f"hand-over between two mounts, {number} contenders",
        {LATCHFS: locks("flock", number, machines=2, contended=True),
         GO: go("contend", number, clients=2)},
        aims, times="handover",
    )


def inside():
    """One lock, one mount."""
    return Case(
        "inside", "hand-over inside one mount, 16 processes",
        {LATCHFS: locks("flock", 16, contended=True), GO: go("contend", 16),
         LOCAL: local("flock", 16)},
        lambda version: [Aim(5000, "5000 a second", what="rate")], times="handover",
    )


def command():
    """The flock command."""
    return Case(
        "command", "`flock FILE true`, the whole command",
        {LATCHFS: None, ETCDCTL: None, LOCAL: None},
        lambda version: [Aim(4, "4 x the speed", ETCDCTL)], compare="speed", together=commands,
    )


def exclusive(processes, directories):
    """O_EXCL."""
    places = "one directory" if directories == 1 else f"{directories} directories"
    who = f"{processes} process{'es' if processes > 1 else ''}"
    return Case(
        f"exclusive-{processes}-{directories}", f"O_EXCL create + close, {places}, {who}",
        {LATCHFS: locks("excl", processes, directories=directories), TRY: go("try", processes),
         REDIS: redis(processes)},
        lambda version: [Aim(2, "2 x the rate", TRY)],
    )


CASES = [
    *uncontended(),
    *(distinct(number) for number in (1, 16, 128, 1000)),
    *(between(number) for number in (2, 16, 64)),
    inside(),
    command(),
    exclusive(1, 1), exclusive(8, 1), exclusive(8, 8),
]


# What the rounds of a case say together.


@dataclass
class Spread:
    """A median, and between which values it lies."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        """Of one value a round."""
        ordered = sorted(values)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1:middle + 1]) / 2
        return cls(median, ordered[0], ordered[-1])


@dataclass
class Row:
    """One peer of a case, over all rounds; times in microseconds."""

    case: Case
    peer: str
    rate: Optional[Spread]
    p50: Optional[Spread]
    p99: Optional[Spread]
    ratio: Optional[Spread] = None  # latchfs beside this peer, within the round
    aims: list = field(default_factory=list)  # pairs of an aim and whether it is reached

    def value(self, what):
        """What an aim is about; None if nothing was measured."""
        spread_of = {None: self.ratio, "rate": self.rate, "p99": self.p99}[what]
        return spread_of and spread_of.median


def ratio(case, ours, theirs):
    """How latchfs compares in one round; None if somebody did not get as far as one cycle."""
    if case.compare == "rate":
        return ours["rate"] / theirs["rate"] if theirs["rate"] else None
    mine, other = ours[case.times].get("p50"), theirs[case.times].get("p50")
    if not mine or not other:
        return None
    return mine / other if case.compare == "time" else other / mine


def spread(values):
    """A spread of those values that exist."""
    known = [value for value in values if value is not None]
    return Spread.of(known) if known else None


def rows(case, rounds, version):
    """The rows of a case; rounds: one dictionary, peer -> line, each."""
    for peer in case.peers:
        lines = [each[peer] for each in rounds]
        row = Row(
            case, peer,
            spread(line.get("rate") for line in lines),
            spread(line[case.times].get("p50") for line in lines),
            spread(line[case.times].get("p99") for line in lines),
        )
        if peer != LATCHFS:
            row.ratio = spread(ratio(case, each[LATCHFS], each[peer]) for each in rounds)
        row.aims = [
            (aim, aim.reached(row.value(aim.what)))
            for aim in case.aims(version) if (aim.peer or LATCHFS) == peer
        ]
        yield row


def plain(row):
    """A row as a dictionary for JSON."""
    return {
        "case": row.case.name, "peer": row.peer,
        **{name: value and dataclasses.asdict(value) for name, value in
           (("rate", row.rate), ("p50", row.p50), ("p99", row.p99), ("ratio", row.ratio))},
        "aims": [{"aim": aim.text, "reached": reached} for aim, reached in row.aims],
    }
