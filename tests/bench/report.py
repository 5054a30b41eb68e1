# SPDX-License-Identifier: MIT
"""What was measured, as lines, as a table in Markdown and as a plot."""

import os
import platform
import re
import tempfile
import time
from pathlib import Path

from cases import LATCHFS, LOCAL, REDIS, Spread
from cluster import BINARY, REPOSITORY
from crowd import AIMS
from support import run

# Numbers.


def number(value):
    """Three digits, or all of a large one."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(micros):
    """A time in the unit that suits it."""
    if micros < 1000:
        return f"{number(micros)} us"
    if micros < 1e6:
        return f"{number(micros / 1e3)} ms"
    return f"{number(micros / 1e6)} s"


def ratio(spread, one_round=False):
    """How many times, from how many to how many."""
    text = f"{number(spread.median)} x"
    if one_round or spread.least == spread.most:
        return text
    return f"{text} ({number(spread.least)}..{number(spread.most)})"


def middle(spread, form):
    """The median, or nothing."""
    return form(spread.median) if spread else ""


def verdict(reached):
    """In words."""
    return "reached" if reached else "**not reached**"


# Lines, while it runs.


def line(row):
    """One peer of a case."""
    text = (f"{row.case.name:16} {row.peer:24} {middle(row.rate, number):>9} /s"
            f"  p50 {middle(row.p50, duration):>8}  p99 {middle(row.p99, duration):>8}")
    if row.ratio:
        text += f"  {row.case.compare} {ratio(row.ratio)}"
    return text


def crowd_line(crowd):
    """One crowd."""
    return (f"{crowd.peer:32} {number(crowd.memory_waiting)} KiB a waiter, idle "
            f"{number(crowd.cpu)} %, etcd {number(crowd.etcd_cpu)} %, "
            f"done in {number(crowd.seconds_done)} s")


# The table.

HEAD = """\
| case | who | cycles/s | median | p99 | latchfs beside it | aim | |
|---|---|--:|--:|--:|---|---|---|"""

CROWD_HEAD = """\
| who | memory a lock | memory a waiter | idle CPU | etcd's idle CPU | renewals/s \
| look-up of a free name before / in the crowd, median (p99) | to take all | until all had theirs |
|---|--:|--:|--:|--:|--:|---|--:|--:|"""


def table(setup):
    """The rows of one kind of cluster."""
    yield HEAD
    case = None
    for row in setup.rows():
        beside = f"{row.case.compare} {ratio(row.ratio)}" if row.ratio else ""
        yield "| " + " | ".join((
            row.case.title if row.case is not case else "",
            f"**{row.peer}**" if row.peer == LATCHFS else row.peer,
            middle(row.rate, number), middle(row.p50, duration), middle(row.p99, duration),
            beside,
            "; ".join(aim.text for aim, _ in row.aims),
            "; ".join(verdict(reached) for _, reached in row.aims),
        )) + " |"
        case = row.case


def asked(times):
    """The time of a look-up."""
    return f"{duration(times['p50'])} ({duration(times['p99'])})"


def crowd_table(setup):
    """The crowds of one kind of cluster."""
    one = setup.crowds[0]
    yield f"{one.held:,} locks held and {one.waiting:,} waiting; processes on a mount, goroutines:"
    yield ""
    yield CROWD_HEAD
    for crowd in setup.crowds:
        yield "| " + " | ".join((
            f"**{crowd.peer}**" if crowd.peer == LATCHFS else crowd.peer,
            f"{number(crowd.memory_held)} KiB", f"{number(crowd.memory_waiting)} KiB",
            f"{crowd.cpu:.2f} %", f"{crowd.etcd_cpu:.2f} %", f"{crowd.renewals:.2f}",
            f"{asked(crowd.ask_before)} / {asked(crowd.ask)}",
            f"{number(crowd.seconds_held)} s", f"{number(crowd.seconds_done)} s",
        )) + " |"
    yield ""
    ours = next(crowd for crowd in setup.crowds if crowd.peer == LATCHFS)
    for name, aim in AIMS.items():
        value = getattr(ours, name)
        yield f"- {aim.text}: {number(value)}, {verdict(aim.reached(value))}"


LEGEND = """\
Every figure is the median over the rounds of that round's median, 99th percentile or rate; the
times are those of the pair, of the release until the next one has the lock in the cases of
hand-over, and of what the case names elsewhere.  "latchfs beside it" is the median (least..most)
of the ratio within a round: rate = its cycles a second over the peer's, time = its median over
the peer's, speed = the peer's median over its own.  The Go programs keep one session, but in the
cases of hand-over, where each goroutine has its own."""


def markdown(found, options):
    """All of it."""
    lines = list(environment(options))
    for setup in found:
        lines += ["", f"### {setup.title}"]
        if setup.lines:
            lines += ["", *table(setup)]
        if setup.crowds:
            lines += ["", *crowd_table(setup)]
    return "\n".join([*lines, "", LEGEND, ""])


# The machine.


def fsync_time(directory, times=200):
    """The median time to write 4 KiB to a file and fdatasync it, in microseconds."""
    taken = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(times):
            start = time.monotonic()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            taken.append((time.monotonic() - start) * 1e6)
    return Spread.of(taken).median


def first_line(*command):
    """What a program says, or nothing."""
    try:
        return run(*command).stdout.partition("\n")[0].strip()
    except OSError:
        return ""


def processor():
    """The model."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    return model.group(1) if model else platform.machine()


def environment(options):
    """The machine and the versions."""
    place = Path(tempfile.gettempdir())
    system = first_line("findmnt", "-n", "-o", "FSTYPE", "-T", place)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = first_line("git", "-C", REPOSITORY, "describe", "--always", "--dirty")
    yield (f"- {processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux "
           f"{platform.release()}; load average before the start: {options.load:.1f}")
    yield (f"- {first_line(BINARY, '-V')} ({commit}), libfuse "
           f"{first_line('pkg-config', '--modversion', 'fuse3')}, libcurl "
           f"{first_line('pkg-config', '--modversion', 'libcurl')}; "
           f"{first_line('/usr/bin/go', 'version')}; {first_line('redis-server', '--version')}")
    yield (f"- data of etcd below {place}: {system}, a write of 4 KiB with fdatasync takes "
           f"{duration(fsync_time(place))}; all traffic on loopback")
    rounds = f"{options.rounds} round{'s' if options.rounds > 1 else ''}"
    yield (f"- {rounds}, {number(options.seconds)} s a measurement, "
           f"{options.runs} runs of each command; took {options.took / 60:.1f} min")


# The plot.

# Who keeps nothing on disk or on the network, and is there as a limit only: in the table.
ASIDES = (LOCAL, REDIS)


def plotted(setup):
    """The rows of the peers that are compared."""
    return [row for row in setup.rows() if row.ratio and row.peer not in ASIDES]


def faster(row):
    """How many times as fast latchfs is as a peer; a spread."""
    if row.case.compare != "time":
        return row.ratio
    return Spread(1 / row.ratio.median, 1 / row.ratio.most, 1 / row.ratio.least)


def wanted(row):
    """The aims against the peer, on the same scale."""
    for aim, _ in row.aims:
        if aim.peer:
            yield 1 / aim.limit if row.case.compare == "time" else aim.limit


def plot(found, path):
    """How many times as fast latchfs is as each peer; one colour for each kind of cluster."""
    import matplotlib  # here, since it takes a second
    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    places = {}
    for setup in found:
        for row in plotted(setup):
            places.setdefault((row.case.title, row.peer), len(places))
    if not places:
        return
    figure, axes = pyplot.subplots(figsize=(12, 1.5 + 0.4 * len(places)))
    for index, setup in enumerate(found):
        draw(axes, setup, places, index, 0.6 * (index + 0.5) / len(found) - 0.3)
    labels = [f"{title.replace('`', '')}\nbeside {peer}" for title, peer in places]
    axes.set_yticks(range(len(places)), labels, fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the peer (median and range of the rounds; | is the aim)")
    axes.set_title("latchfs beside its peers")
    axes.legend(loc="best")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def draw(axes, setup, places, index, shift):
    """The points of one kind of cluster."""
    points = [(faster(row), places[row.case.title, row.peer] + shift, row)
              for row in plotted(setup)]
    axes.errorbar(
        [point.median for point, _, _ in points], [y for _, y, _ in points],
        xerr=[[point.median - point.least for point, _, _ in points],
              [point.most - point.median for point, _, _ in points]],
        fmt="o", color=f"C{index}", markersize=5, capsize=2, label=setup.title,
    )
    for _, y, row in points:
        for value in wanted(row):
            axes.plot([value], [y], marker="|", color=f"C{index}", markersize=9,
                      markeredgewidth=2)
