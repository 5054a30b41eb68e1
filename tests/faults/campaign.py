#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Faults, one after the other and then several at once, while clients lock on three machines.

Called by tests/campaign.  LATCHFS_BINARY is the daemon.
"""

import argparse
import collections
import contextlib
import itertools
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field as default
from pathlib import Path

import history
from faults import ALL, ANYBODY, FAULTS, OTHERS
from field import TTL, Field, wait_until

HERE = Path(__file__).resolve().parent
# Between two faults, so that everybody has locked in peace.
PAUSE = 0.5
# So long after the beginning of a fault the first in line goes.
OPENS = 0.3
# So long after a fault everybody goes on: leases have ended by then, which etcd sees a bit late.
BACK = TTL + 1
# So many rounds of several faults at once are part of the shortest campaign.
MIXED = 3


@dataclass
class Round:
    """One or more faults at once, and what came of them."""

    faults: list  # of (Fault, Site)
    number: int = 0  # of those with several faults
    start: int = 0
    mended: int = 0
    end: int = 0  # when service had resumed
    resumed: dict = default(default_factory=dict)  # site -> seconds after the end of the fault
    passed: dict = default(default_factory=dict)  # site -> until another one had what it kept
    lost: list = default(default_factory=list)
    unkept: list = default(default_factory=list)  # sites whose kept lock was lost

    @property
    def name(self):
        """What it is called."""
        return " + ".join(f"{fault.name} ({site.name})" for fault, site in self.faults)

    def back(self):
        """Seconds from the mending until every machine had a lock, and what another had kept."""
        return max([*self.resumed.values(), *self.passed.values()])

    def unexpected(self):
        """The losses that ought not to be.

        What hurts the cluster may be too much for a machine that is hurt as well.
        """
        if len(self.faults) > 1 and any(fault.cluster for fault, _ in self.faults):
            return []
        losers = {site.name for fault, site in self.faults if fault.loses == OTHERS}
        spared = all(fault.loses != ANYBODY for fault, _ in self.faults)
        return [request for request in self.lost if spared and request.place not in losers]


def dice_of(field, one):
    """What each fault of a round draws from.  Nothing that takes its time draws from these."""
    return [field.dice(one.number, fault.name, site.name) for fault, site in one.faults]


def run_faults(field, one):
    """Lets the faults of a round happen, side by side."""
    running = []
    for (fault, site), dice in zip(one.faults, dice_of(field, one)):
        site.dice = dice
        delay = site.dice.uniform(0, 1) if len(one.faults) > 1 else 0
        running.append((time.monotonic() + delay, fault.run(field, site)))
    try:
        run_side_by_side(field, running)
    except Exception:
        # What was hurt is mended before this is reported.
        for _, generator in running:
            collections.deque(generator, 0)
        raise


def run_side_by_side(field, running):
    """running: (time, generator) of each, when it goes on; empty in the end."""
    while running:
        running.sort(key=lambda entry: entry[0])
        due, generator = running[0]
        if time.monotonic() < due:
            field.tick()
            time.sleep(0.02)  # the pace of the campaign, nothing is waited for
            continue
        running.pop(0)
        try:
            running.append((time.monotonic() + next(generator), generator))
        except StopIteration:
            pass


def await_service(field, one):
    """Waits until every machine takes locks again; notes how long that took."""
    for site in field.sites:
        site.ask()
    waiting = list(field.sites)

    def answered():
        field.tick()
        for site in list(waiting):
            if site.answered():
                one.resumed[site.name] = (time.monotonic_ns() - one.mended) / 1e9
                waiting.remove(site)
        return not waiting

    wait_until(answered, 6 * TTL, "locks are taken again")


def check_kept(field, one):
    """What a single fault spares is held until its end, and what is lost was told."""
    fault, hit = one.faults[0]
    for site in field.sites:
        held = site.let_go()
        freed = time.monotonic_ns() if held else one.mended
        site.pass_on()
        one.passed[site.name] = (time.monotonic_ns() - freed) / 1e9
        if not held:
            one.unkept.append(site)
        if not held and (fault.loses == ALL or (fault.loses == OTHERS and site is not hit)):
            field.problem(f"{site.name} lost its lock")
        if held and fault.loses == OTHERS and site is hit:
            field.problem(f"{site.name} was not told that it lost its lock")


def prepare(field, fault, hit):
    """Before a single fault: has locks kept through it, and clients stand in line as it begins."""
    clients = [site for site in field.sites if not (fault.remounts and site is hit)]
    for site in field.sites:
        site.keep(next(other for other in clients if other is not site))
    if fault.loses == ALL:
        field.line.form(itertools.cycle(clients), OPENS)


def play(field, one):
    """One round."""
    is_single = len(one.faults) == 1
    for _, site in one.faults:
        field.await_sitter(site)
    if is_single:
        prepare(field, *one.faults[0])
    one.start = time.monotonic_ns()
    for fault, site in one.faults:
        for hurt in field.sites if fault.cluster else [site]:
            field.note("hurts", hurt.name, *fault.errors)
    run_faults(field, one)
    one.mended = time.monotonic_ns()
    await_service(field, one)
    field.note("mended")
    if is_single:
        check_kept(field, one)
    field.await_line(TTL)
    field.await_everybody(one.start)
    field.await_members()
    one.end = time.monotonic_ns()
    until = time.monotonic() + PAUSE
    while time.monotonic() < until:
        field.tick()
        time.sleep(0.02)  # the pace of the campaign
    print(f"{(one.end - one.start) / 1e9:6.1f} s  back after {one.back():4.1f} s  {one.name}",
          flush=True)
    if one.back() > BACK:
        field.problem(f"service resumed only {one.back():.1f} s after")


def singles(field, only):
    """Each fault once, on any machine."""
    for fault in FAULTS:
        if not only or any(word in fault.name for word in only):
            yield Round([(fault, field.dice(fault.name).choice(field.sites))])


def mixed(field):
    """Two or three faults at once, for ever; at most one of them hurts the cluster."""
    dice = field.dice("mixed")
    for number in itertools.count(1):
        sites = dice.sample(field.sites, dice.randint(2, 3))
        chosen, cluster = [], False
        for site in sites:
            fault = dice.choice([f for f in FAULTS if not (f.cluster and cluster)])
            cluster = cluster or fault.cluster
            chosen.append((fault, site))
        yield Round(chosen, number)


def verdict(field, rounds):
    """Reads the histories; prints what they show."""
    seen = history.read(field.histories)
    problems = history.check(seen, field.register_entries())
    for one in rounds:
        one.lost = seen.losses(one.start, one.end or math.inf)
        problems += [f"{request} was lost by: {one.name}" for request in one.unexpected()]
    lost = [request for one in rounds for request in one.lost]
    problems += [f"{request} was lost in peace" for request in seen.requests
                 if request.lost is not None and request not in lost]
    granted = [request for request in seen.requests if request.token is not None]
    waits = sorted(r.answered - r.called for r in granted if r.how in history.WAITS)
    print(f"{len(seen.requests)} requests of {len({r.client for r in seen.requests})} clients, "
          f"{len(granted)} granted, {sum(r.lost is not None for r in seen.requests)} lost, "
          f"{len(seen.killed)} clients killed; "
          f"{sum(not w.stale for w in seen.writes)} writes taken by the registers, "
          f"{sum(w.stale for w in seen.writes)} refused; "
          f"longest wait {waits[-1] / 1e9 if waits else 0:.1f} s")
    if not granted or not seen.writes:
        problems.append("nothing was granted or written, so nothing was shown")
    return problems


def markdown(rounds):
    """The table of the faults and their outcome."""
    lines = ["| fault | may lose locks | lost | back |", "|---|---|---|---|"]
    for one in rounds:
        if len(one.faults) == 1 and one.end:
            fault = one.faults[0][0]
            lines.append(f"| {fault.name} | {fault.loses} | {len(one.lost) + len(one.unkept)} | "
                         f"{one.back():.1f} s |")
    return "\n".join(lines) + "\n"


def build(programs):
    """The C and Go programs."""
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-o", programs / "worker",
                    HERE / "worker.c"], check=True)
    subprocess.run(["/usr/bin/go", "build", "-o", programs / "peer", HERE / "peer.go"], check=True)


@contextlib.contextmanager
def reported(field):
    """What goes wrong is told, and keeps nobody from reading the histories."""
    try:
        yield
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        field.problem(error)


def play_all(field, options, rounds):
    """All rounds; adds each to `rounds` when it begins."""
    end = time.monotonic() + options.minutes * 60
    everything = singles(field, options.fault)
    if not options.fault:
        everything = itertools.chain(everything, mixed(field))
    await_service(field, Round([]))
    field.await_everybody(0)
    field.line.form(itertools.cycle(field.sites), 0)
    field.await_line(TTL)
    for one in everything:
        if one.number > MIXED and time.monotonic() > end:
            break
        rounds.append(one)
        field.stage = one.name
        play(field, one)
    field.stage = "the last locks"
    field.await_everybody(time.monotonic_ns())


def run_campaign(field, options):
    """Everything from the start to the quiet end; the rounds that were played."""
    rounds = []
    with reported(field):
        play_all(field, options, rounds)
    field.stage = "the end"
    with reported(field):
        field.quiet_end()
    return rounds


def main():
    parser = argparse.ArgumentParser(prog="tests/campaign", description=__doc__.splitlines()[0])
    parser.add_argument("minutes", nargs="?", type=float, default=0,
                        help="go on with several faults at once until so much time has passed")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--fault", action="append", help="only those whose name has this word in it")
    parser.add_argument("--table", type=Path, help="where to write the outcome as Markdown")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and what was started is ended
    print(f"seed {options.seed}", flush=True)
    base = Path(tempfile.mkdtemp(prefix="latchfs-campaign-"))
    base.chmod(0o755)
    build(base)
    with Field(base, base, options.seed) as field:
        rounds = run_campaign(field, options)
        problems = field.problems + verdict(field, rounds)
    if options.table:
        options.table.write_text(markdown(rounds), encoding="utf-8")
    for problem in problems:
        print(f"BROKEN: {problem}")
    if problems:
        print(f"see {base}")
        return 1
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
