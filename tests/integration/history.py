# SPDX-License-Identifier: MIT
"""Histories of calls on names, and whether they are linearizable: whether each call can be put at
one moment between its beginning and its end so that one after the other gives the same answers.

A name is free, a directory, or a lock file of the machine that created it.  To create it while the
daemon is replaced may happen twice: the first lock may be given back, see REPLACING THE DAEMON in
latchfs(8); until then the name's state is that call.  The search goes through
what has begun and ended in the order of time and keeps every state that the name may be in, each
with the calls that have had their effect and have not returned yet.
"""

import errno
from dataclasses import dataclass, field

FREE, DIRECTORY = "free", "directory"


@dataclass(frozen=True)
class Call:
    """One call on one name: what, on which machine, its errno (0: success), and when."""

    name: str
    what: str
    machine: int
    result: int
    begun: float
    ended: float = field(compare=False)
    begun_anew: bool = field(default=False, compare=False)


def removed(call, state):
    """unlink: by the machine that created it; a directory can't be."""
    if state == FREE:
        return errno.ENOENT, state
    if state == DIRECTORY:
        return errno.EISDIR, state
    return (0, FREE) if state == call.machine else (errno.EBUSY, state)


# What a call answers in a state, and the state after it.
RULES = {
    "create": lambda call, state: (0, call.machine) if state == FREE else (errno.EEXIST, state),
    "mkdir": lambda call, state: (0, DIRECTORY) if state == FREE else (errno.EEXIST, state),
    "rmdir": lambda call, state: {FREE: (errno.ENOENT, FREE), DIRECTORY: (0, FREE)}.get(
        state, (errno.ENOTDIR, state)),
    "unlink": removed,
    "open": lambda call, state: (
        {FREE: errno.ENOENT, DIRECTORY: errno.EISDIR}.get(state, 0), state),
    # With O_CREAT, without O_EXCL: makes no name, and never misses one.
    "attach": lambda call, state: (errno.EISDIR if state == DIRECTORY else 0, state),
    "stat": lambda call, state: (errno.ENOENT if state == FREE else 0, state),
}


def outcomes(call, state):
    """The states that it may become by a call; whether the call has its effect with that."""
    result, after = RULES[call.what](call, FREE if state is call else state)
    if result == call.result:
        yield after, True
    if call.begun_anew and call.what == "create" and state in (FREE, call):
        yield (call if state == FREE else FREE), False


def effects(states, pending):
    """All that the states can become by calls that are under way, in any order."""
    found, new = set(states), set(states)
    while new:
        grown = set()
        for state, done in new:
            for call in pending - done:
                for after, is_done in outcomes(call, state):
                    grown.add((after, done | {call} if is_done else done))
        new = grown - found
        found |= new
    return found


def contradiction(calls):
    """The first call of one name that no order explains, with those around it; or None."""
    events = sorted([(call.begun, 0, call) for call in calls] +
                    [(call.ended, 1, call) for call in calls], key=lambda event: event[:2])
    states, pending = {(FREE, frozenset())}, frozenset()
    for moment, is_end, call in events:
        if not is_end:
            pending |= {call}
            continue
        states = {(state, done - {call})
                  for state, done in effects(states, pending) if call in done}
        pending -= {call}
        if not states:
            return [other for other in sorted(calls, key=lambda one: one.begun)
                    if other.begun <= moment and other.ended >= call.begun - 0.05]
    return None


def check(calls):
    """Fails if the history of some name is not linearizable."""
    names = {}
    for call in calls:
        names.setdefault(call.name, []).append(call)
    for name, history in names.items():
        found = contradiction(history)
        assert found is None, f"{name}:\n" + "\n".join(
            f"{call.begun:.6f} .. {call.ended:.6f} machine {call.machine}: {call.what}: "
            f"{errno.errorcode.get(call.result, 'done')}" for call in found)
