# SPDX-License-Identifier: MIT
"""Measures latchfs and other ways to lock on etcd side by side: see tests/bench/run."""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import report
from cases import CASES, plain, rows
from cluster import BINARY, REPOSITORY, Failed, Stage, etcd_version
from crowd import PEERS as CROWDS
from crowd import room_for_processes

CROWD = "crowd"


@dataclass
class Setup:
    """A kind of cluster, and what was measured on it."""

    binary: str
    version: str
    members: int
    lines: dict = field(default_factory=dict)  # name of a case -> a list with peer -> line
    crowds: list = field(default_factory=list)

    @property
    def title(self):
        """For a heading."""
        return f"etcd {self.version}, {self.members} member{'s' if self.members > 1 else ''}"

    def rows(self):
        """All rows of the table."""
        for case in CASES:
            if case.name in self.lines:
                yield from rows(case, self.lines[case.name], self.version)


def parse():
    """The command line."""
    names = [case.name for case in CASES] + [CROWD]
    parser = argparse.ArgumentParser(
        prog="tests/bench/run", description="Measures ways to lock on etcd side by side.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help="how often each case is measured", default=5)
    parser.add_argument("--seconds", type=float, help="of one measurement", default=1.5)
    parser.add_argument("--warmup", type=float, help="seconds before it", default=0.5)
    parser.add_argument("--runs", type=int, help="of each command in a round", default=40)
    parser.add_argument("--crowd", type=int, help="locks held, and waiters", default=10000)
    parser.add_argument("--idle", type=float, help="seconds to watch the crowd", default=20)
    parser.add_argument("--quick", action="store_true", help="only see whether all of it works")
    parser.add_argument("--case", action="append", metavar="NAME", choices=names,
                        help=f"only these: {', '.join(names)}")
    parser.add_argument("--etcd", default=os.environ.get("LATCHFS_BENCH_ETCD"),
                        help="another etcd to measure on as well")
    parser.add_argument("--members", default="1", help="sizes of clusters, as in 1,3")
    parser.add_argument("--output", type=Path, default="build-tests/bench",
                        help="directory for the results, from the top of the repository")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.warmup = 1, 0.5, 0.2
        options.runs, options.crowd, options.idle = 20, 500, 5
    options.members = [int(size) for size in options.members.split(",")]
    return options


def setups(options):
    """The kinds of clusters."""
    binaries = [shutil.which("etcd")] + ([options.etcd] if options.etcd else [])
    return [Setup(binary, etcd_version(binary), members)
            for binary in binaries for members in options.members]


def say(text):
    """A line for who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def measure_case(setup, case, turn, options):
    """One case, once, on fresh servers."""
    with Stage(setup, options) as stage:
        lines = case.measure(stage, turn)
    setup.lines.setdefault(case.name, []).append(lines)
    for row in rows(case, [lines], setup.version):
        say(f"  {report.line(row)}")


def measure_crowds(setup, options):
    """The crowds, each on fresh servers."""
    for measure in CROWDS.values():
        with Stage(setup, options) as stage:
            setup.crowds.append(measure(stage))
        say(f"  {report.crowd_line(setup.crowds[-1])}")


def measure_all(found, options):
    """Everything, round by round."""
    chosen = options.case or [case.name for case in CASES] + [CROWD]
    for turn in range(options.rounds):
        for setup in found:
            say(f"round {turn + 1} of {options.rounds}, {setup.title}")
            for case in CASES:
                if case.name in chosen:
                    measure_case(setup, case, turn, options)
    for setup in found:
        if CROWD in chosen:
            say(f"a crowd, {setup.title}")
            measure_crowds(setup, options)


def write(found, options):
    """The table, the plot, and all figures."""
    options.output.mkdir(parents=True, exist_ok=True)
    text = report.markdown(found, options)
    (options.output / "table.md").write_text(text, encoding="utf-8")
    report.plot(found, options.output / "plot.svg")
    figures = [
        {"setup": setup.title, "rows": [plain(row) for row in setup.rows()],
         "rounds": setup.lines, "crowds": [vars(crowd) for crowd in setup.crowds]}
        for setup in found
    ]
    (options.output / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(f"\n{text}\nIn {options.output}: table.md, plot.svg, figures.json")


def end(number, frame):
    """On a signal: ends everything that was started, once."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def check(options):
    """What would only be noticed late."""
    if not BINARY.exists():
        sys.exit(f"{BINARY} does not exist; tests/bench/run builds it")
    if options.crowd > room_for_processes():
        options.crowd = max(room_for_processes(), 1)
        say(f"the limits of this machine allow only a crowd of {options.crowd}")


def main():
    """Measures, and writes what was found."""
    options = parse()
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, end)
    check(options)
    found = setups(options)
    options.load = os.getloadavg()[0]
    start = time.monotonic()
    failure = None
    try:
        measure_all(found, options)
    except (Failed, AssertionError) as error:
        failure = f"failed: {error}"
    options.took = time.monotonic() - start
    # What was measured until then is worth having.
    write([setup for setup in found if setup.lines or setup.crowds], options)
    sys.exit(failure)


if __name__ == "__main__":
    main()
