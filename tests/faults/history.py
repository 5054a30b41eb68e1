# SPDX-License-Identifier: MIT
"""What clients of locks have seen, and the proof that nobody held against the rules.

A client keeps a file with one line for each thing that happened, with a time of CLOCK_MONOTONIC in
nanoseconds, which is the same for all processes of a machine:

    TIME call SEQ LOCK MODE HOW [FIRST LAST]
                                    asks for a lock; MODE X or S; HOW is its way
    TIME queued SEQ                 has been seen to stand in the queue
    TIME granted SEQ TOKEN          the call has returned; a token of 0 is not known
    TIME refused SEQ ERRNO CALL     the call has returned without the lock; CALL is open or lock
    TIME seen SEQ                   at TIME or later the lock was still held
    TIME lost SEQ ERRNO             a check said that it is held no longer
    TIME release SEQ                is about to be given back
    TIME released SEQ               has been given back
    TIME write SEQ TOKEN VALUE      the register took the value
    TIME stale SEQ TOKEN            the register refused: it had seen a larger token
    TIME end                        the client ended in good order

The controller's file, `controller`, has

    TIME killed CLIENT              written before the signal is sent
    TIME breaks SITE                an operator is about to take locks of SITE-... clients away
    TIME broke SITE                 and has done so
    TIME hurts SITE ERRNO...        from now on calls of SITE-... clients may be refused with these
    TIME mended                     no calls that begin from now on

A way is wait, try, timed (wait with an alarm), create, posix (wait with F_SETLKW), range and
tryrange (F_SETLKW and F_SETLK for a part of the lock); sit (wait, hold for long, and go on after a
loss until the register refuses a write), visit (wait, and hold for a moment only); line for a line
of clients that wait; mutex for what goes to etcd without us; inherit (F_SETLKW by a child, through
a descriptor that has the lock already, whose token all such children have).

What can be said for certain is that a lock was held from the return of its grant until the last
moment at which a check was *begun* that said so; without such a check nothing is certain, as the
loss may have come while the answer was on its way.  Two such spans that exclude each other and
overlap are a proof that mutual exclusion was broken.  Who breaks a lock on purpose gives it to the
next before its holder can hear of that, so what had been asked for until then counts as held only
until the breaking began.
"""

import errno
import math
from dataclasses import dataclass, field
from pathlib import Path

CONTROLLER = "controller"
# How late the answer to a call may be that began in a fault: several times the timeout of 2 s.
LATE = 10 * 10**9


@dataclass
class Request:
    """One call for a lock and what came of it; times in nanoseconds, None = did not happen."""

    client: str
    number: int
    lock: str
    shared: bool
    how: str
    called: int
    part: tuple = None  # of the lock: its first and its last byte
    queued: int = None
    answered: int = None
    token: int = None
    error: int = None
    refuser: str = None  # the call: open or lock
    seen: int = None
    lost: int = None
    loss: int = None  # the error
    release: int = None
    released: int = None

    def __str__(self):
        mode = "shared" if self.shared else "exclusive"
        lock = f"{self.lock}{list(self.part)}" if self.part else self.lock
        return f"{self.client}#{self.number} ({mode} {self.how} of {lock}, token {self.token})"

    @property
    def place(self):
        """The client's machine, or its program."""
        return self.client.partition("-")[0]

    @property
    def proven(self):
        """Whether it certainly held: from `answered` until `seen`."""
        return self.token is not None and self.seen is not None


@dataclass
class Write:
    """What a client believes it did to a register."""

    request: Request
    time: int
    token: int
    value: int = None
    stale: bool = False


@dataclass
class Hurt:
    """A time in which the clients of a site may be refused with some errors."""

    site: str
    errors: set
    start: int
    end: float = math.inf

    def excuses(self, request):
        """Whether a refusal is accounted for."""
        return (request.place == self.site and request.error in self.errors and
                self.start <= request.answered and request.called < self.end and
                request.answered < self.end + LATE)


@dataclass
class History:
    """All that was seen in one run."""

    requests: list = field(default_factory=list)
    writes: list = field(default_factory=list)
    ended: set = field(default_factory=set)
    killed: dict = field(default_factory=dict)
    breaks: list = field(default_factory=list)  # of [site, start, end]
    hurts: list = field(default_factory=list)
    broken: list = field(default_factory=list)

    def proven(self):
        """(lock, byte) -> the requests that certainly held it, by the time of the grant.

        For who locks all of them the bytes of a lock are those of which others lock parts, or one.
        """
        bytes_of = {}
        for request in self.requests:
            first, last = request.part or (0, 0)
            bytes_of.setdefault(request.lock, set()).update(range(first, last + 1))
        found = {}
        for request in sorted((r for r in self.requests if r.proven), key=lambda r: r.answered):
            first, last = request.part or (0, max(bytes_of[request.lock]))
            for byte in range(first, last + 1):
                found.setdefault((request.lock, byte), []).append(request)
        return found

    def losses(self, start, end):
        """The requests whose lock was found lost between two times."""
        return [r for r in self.requests if r.lost is not None and start <= r.lost < end]


def read_line(history, client, requests, words):
    """Adds one line of a client's file."""
    time, verb, *rest = words
    time = int(time)
    if verb == "end":
        history.ended.add(client)
        return
    number = int(rest[0])
    if verb == "call":
        request = Request(client, number, rest[1], rest[2] == "S", rest[3], time,
                          tuple(map(int, rest[4:6])) or None)
        requests[number] = request
        history.requests.append(request)
        return
    request = requests[number]
    if verb == "granted":
        request.answered, request.token = time, int(rest[1])
    elif verb == "refused":
        request.answered, request.error, request.refuser = time, int(rest[1]), rest[2]
    elif verb in ("queued", "seen", "lost", "release", "released"):
        setattr(request, verb, time)
        if verb == "lost":
            request.loss = int(rest[1])
    elif verb == "write":
        history.writes.append(Write(request, time, int(rest[1]), int(rest[2])))
    elif verb == "stale":
        history.writes.append(Write(request, time, int(rest[1]), stale=True))
    else:
        raise ValueError(verb)


def read_client(history, client, text):
    """Adds one client's file.  Its last line may be torn if the client was killed."""
    requests = {}
    lines = text.split("\n")
    for line in lines[:-1]:
        try:
            read_line(history, client, requests, line.split())
        except (ValueError, KeyError, IndexError):
            history.broken.append(f"{client}: no such line in a history: {line!r}")
    if lines[-1] and client not in history.killed:
        history.broken.append(f"{client}: ends within a line: {lines[-1]!r}")


def read(directory):
    """The history of all files in a directory."""
    history = History()
    controller = Path(directory) / CONTROLLER
    if controller.exists():
        for line in controller.read_text(encoding="ascii").splitlines():
            time, verb, *rest = line.split()
            if verb == "killed":
                history.killed[rest[0]] = int(time)
            elif verb == "breaks":
                history.breaks.append([rest[0], int(time), None])
            elif verb == "broke":
                [one for one in history.breaks if one[0] == rest[0]][-1][2] = int(time)
            elif verb == "hurts":
                history.hurts.append(Hurt(rest[0], set(map(int, rest[1:])), int(time)))
            elif verb == "mended":
                for hurt in history.hurts:
                    hurt.end = min(hurt.end, int(time))
    for path in sorted(Path(directory).iterdir()):
        if path.name != CONTROLLER:
            read_client(history, path.name, path.read_text(encoding="ascii", errors="replace"))
    for site, start, end in history.breaks:
        cut_short(history, site, start, end)
    return history


def cut_short(history, site, start, end):
    """Of what the clients of a site held while it was taken away nothing is certain any more."""
    for request in history.requests:
        if (request.place == site and request.called < end and
                request.seen is not None and request.seen > start):
            request.seen = start if request.answered <= start else None


# The rules.  Each gives a list of sentences, one for each time it was broken.


def check_exclusion(history):
    """Nobody holds while somebody else holds who excludes it."""
    found = []
    for requests in history.proven().values():
        # Whoever holds for longest among those that came before, of each kind.
        longest = {True: None, False: None}
        for request in requests:
            rivals = [longest[False]] if request.shared else list(longest.values())
            for rival in rivals:
                if rival and rival.seen > request.answered:
                    found.append(f"{request} was granted {rival.seen - request.answered} ns"
                                 f" before {rival} ended")
            former = longest[request.shared]
            if former is None or former.seen < request.seen:
                longest[request.shared] = request
    return found


def inherited(*requests):
    """Whether they were made through one descriptor."""
    return all(r.how == "inherit" for r in requests) and len({r.client for r in requests}) == 1


def check_tokens(history):
    """Tokens grow with every exclusive holder, and no two holders have the same one."""
    found = []
    for requests in history.proven().values():
        owners, newest, newest_exclusive = {}, None, None
        for request in requests:
            if not request.token:
                continue
            if request.token in owners and not inherited(request, owners[request.token]):
                found.append(f"{request} has the token of {owners[request.token]}")
            owners[request.token] = request
            before = newest_exclusive if request.shared else newest
            if before and before.token > request.token:
                found.append(f"{request} came after {before}")
            if newest is None or newest.token < request.token:
                newest = request
            if not request.shared:
                newest_exclusive = request
    return found


def check_order(history):
    """Who asked when another had its answer already stands behind that one in the queue."""
    found = []
    for requests in history.proven().values():
        known = [r for r in requests if r.token]
        answered = 0
        newest = None  # of those whose answer came before the request that is looked at
        for request in sorted(known, key=lambda r: r.called):
            while answered < len(known) and known[answered].answered < request.called:
                if newest is None or newest.token < known[answered].token:
                    newest = known[answered]
                answered += 1
            if newest and newest.token > request.token:
                found.append(f"{request} was asked for after {newest} had been granted")
    return found


def check_line(history):
    """Who asked when another stood in the queue is not granted the lock before that one."""
    found = []
    for request in history.requests:
        if request.queued is None or request.error is not None:
            continue
        for rival in history.requests:
            # What has inherited the lock need not stand in the queue.
            if (rival.lock == request.lock and request.queued < rival.called and
                    rival.token is not None and rival.how != "inherit" and
                    rival.answered < (request.answered or math.inf)):
                found.append(f"{rival} overtook {request} in the queue")
    return found


# What a call may be refused with in peace, by the way it was made.
# What a handle says that has lost its lock, or its mount.
LOSSES = {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED}
REFUSALS = {
    "wait": set(),
    "posix": set(),
    "timed": {errno.EINTR},
    "try": {errno.EWOULDBLOCK},
    "create": {errno.EEXIST},
    "sit": set(),
    "visit": set(),
    "line": set(),
    "range": set(),
    "tryrange": {errno.EWOULDBLOCK},
    "mutex": {errno.EINTR},
    "inherit": set(),
}
# Ways that end in a grant if nothing goes wrong, and all in which the lock call waits.
WAITS = {"wait", "posix", "range", "sit", "visit", "line"}
PATIENT = {*WAITS, "timed"}


def is_accounted_for(history, request):
    """Whether an error is an outcome, or what a fault may cause."""
    decides = "open" if request.how == "create" else "lock"
    if request.refuser == decides and request.error in REFUSALS[request.how]:
        return True
    if request.error == errno.EIO:
        return request.refuser != "lock" or request.how not in PATIENT
    return any(hurt.excuses(request) for hurt in history.hurts)


def check_answers(history):
    """Every call is answered, unless its client was killed, and only with what is promised.

    An error that is no outcome needs a fault that may cause it.  But EIO needs none: on a machine
    that is busy enough etcd takes too long.  A lock call that waits goes on doing so then.
    """
    found = [f"{client} neither ended nor was killed"
             for client in {r.client for r in history.requests}
             if client not in history.ended and client not in history.killed]
    for request in history.requests:
        if request.answered is None and request.client not in history.killed:
            found.append(f"{request} was never answered")
        if request.error is not None and not is_accounted_for(history, request):
            found.append(f"{request} was refused with {errno.errorcode.get(request.error)}"
                         f" by {request.refuser}")
        if request.loss is not None and request.loss not in LOSSES:
            found.append(f"{request} was lost with {errno.errorcode.get(request.loss)}")
    return found


def check_register(history, lock, entries):
    """The guarded register of a lock took no write of an old token, and no update was lost.

    entries: what the register has carried out, in order: (token, value), value None for a read.
    Every client reads and writes with its token and writes the value that it read plus 1.
    """
    found = []
    newest, value = 0, 0
    for token, written in entries:
        if token < newest:
            found.append(f"the register of {lock} took token {token} after {newest}")
        newest = max(newest, token)
        if written is None:
            continue
        if written != value + 1:
            found.append(f"the register of {lock} went from {value} to {written}")
        value = written
    carried_out = {entry for entry in entries if entry[1] is not None}
    for write in history.writes:
        if write.request.lock == lock and not write.stale:
            if (write.token, write.value) not in carried_out:
                found.append(f"{write.request}: its write of {write.value} is not in the register")
    return found


def check_fencing(history):
    """Who goes on after a loss is refused, once somebody else has the lock, which is soon."""
    refused = {id(write.request) for write in history.writes if write.stale}
    last = {request.client: request for request in history.requests}
    return [f"{request} went on after its loss and was never refused"
            for request in history.requests
            if request.how == "sit" and request.loss == errno.EIO and request.token
            and request.release is not None
            and id(request) not in refused and request is not last[request.client]]


def check(history, registers):
    """All rules; registers: lock -> entries."""
    found = list(history.broken)
    for rule in (check_exclusion, check_tokens, check_order, check_line, check_answers,
                 check_fencing):
        found += rule(history)
    for lock, entries in registers.items():
        found += check_register(history, lock, entries)
    return list(dict.fromkeys(found))
