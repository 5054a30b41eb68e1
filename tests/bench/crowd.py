# SPDX-License-Identifier: MIT
"""Ten thousand locks held and ten thousand waiting: what that costs while nothing happens."""

import dataclasses
import json
import os
import resource
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cases import Aim
from cluster import PREFIX, PROGRAMS, Failed, Program
from support import memory_kib, wait_until

LIMIT = 300  # seconds for one step

GO_ONE = "Go, one session, one watch"
GO_EACH = "Go, a session and a watch each"


@dataclass
class Crowd:
    """What one peer costs; processor time in percent of a core, times in microseconds."""

    peer: str
    held: int
    waiting: int
    memory_held: float     # KiB a lock
    memory_waiting: float  # KiB a waiter
    cpu: float             # of the daemon, or of the Go program
    etcd_cpu: float
    renewals: float        # requests a second to keep a lease alive
    ask_before: dict       # to look up a name nobody has
    ask: dict              # the same in the crowd
    seconds_held: float    # to take all
    seconds_done: float    # from the release of all until every waiter has had its lock


# What latchfs wants to reach: the field, the aim.
AIMS = {
    "memory_waiting": Aim(4, "at most 4 KiB", at_most=True),
    "cpu": Aim(1, "under 1 %", at_most=True),
    "renewals": Aim(0.5, "one renewal in TTL/3, 0.3 a second", at_most=True),
}


def processor_seconds(pids):
    """Processor time the processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def room_for_processes():
    """How many processes this machine lets us have, about."""
    limits = [int(Path(f"/proc/sys/kernel/{name}").read_text(encoding="ascii"))
              for name in ("pid_max", "threads-max")]
    limits += [limit for limit in resource.getrlimit(resource.RLIMIT_NPROC)[1:] if limit > 0]
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"):
            if controllers in ("", "pids"):
                try:
                    limits.append(int(Path(f"{base}{path}/pids.max").read_text(encoding="ascii")))
                except (OSError, ValueError):
                    pass
    return min(limits) - 2000


class Steps:
    """A program that goes from step to step."""

    def __init__(self, program):
        self.process = program.process
        self.program = program

    def expect(self, step):
        """The line of JSON that says it has reached a step."""
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            raise Failed(f"{self.program.command}: {step} takes too long")
        line = self.process.stdout.readline()
        if not line:
            self.program.check(self.process.wait(10), self.process.stderr.read())
            raise Failed(f"{self.program.command} has ended before {step}")
        said = json.loads(line)
        assert said["step"] == step, said
        return said

    def go_on(self):
        """Lets it go to the next step."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()


class Meter:
    """Processor time and renewals over a while."""

    def __init__(self, pid, cluster):
        self.pid, self.cluster = pid, cluster
        self.start = self.read()

    def read(self):
        """Everything now."""
        return (time.monotonic(), processor_seconds([self.pid]),
                processor_seconds(self.cluster.pids()), self.cluster.renewals())

    def result(self):
        """(percent of ours, percent of etcd, renewals a second)."""
        seconds, ours, etcd, renewals = (b - a for a, b in zip(self.start, self.read()))
        return 100 * ours / seconds, 100 * etcd / seconds, renewals / seconds


def measure(peer, stage, pid_of, command):
    """Leads one program through its steps; pid_of: its process -> the one to look at."""
    size, idle = stage.options.crowd, stage.options.idle
    with Program(*command, stdin=subprocess.PIPE) as program:
        steps = Steps(program)
        ready = steps.expect("ready")
        pid = pid_of(program.process)
        memory = [memory_kib(pid)]
        steps.go_on()
        holding = steps.expect("held")
        memory.append(memory_kib(pid))
        steps.go_on()
        steps.expect("waiting")
        wait_until(lambda: stage.cluster.count(PREFIX) == 2 * size, LIMIT, "all wait")
        memory.append(memory_kib(pid))
        time.sleep(2)  # what the queueing has left behind
        meter = Meter(pid, stage.cluster)
        time.sleep(idle)
        cpu, etcd_cpu, renewals = meter.result()
        steps.go_on()
        asked = steps.expect("asked")
        steps.go_on()
        done = steps.expect("done")
        steps.go_on()
        program.check(program.process.wait(LIMIT), "")
    return Crowd(
        peer, size, size, (memory[1] - memory[0]) / size, (memory[2] - memory[1]) / size,
        cpu, etcd_cpu, renewals, ready["ask"], asked["ask"], holding["seconds"], done["seconds"],
    )


def latchfs(stage):
    """Processes on a mount."""
    mount = stage.mount()
    size = stage.options.crowd
    return measure("latchfs", stage, lambda process: mount.server,
                   [PROGRAMS / "crowd", mount.path, size, size])


def go(stage, peer, *words):
    """Goroutines."""
    size = stage.options.crowd
    return measure(peer, stage, lambda process: process.pid,
                   [PROGRAMS / "peer", "-endpoints", stage.cluster.url, "-prefix", PREFIX,
                    "-held", size, "-waiting", size, *words, "crowd"])


PEERS = {
    "latchfs": latchfs,
    GO_ONE: lambda stage: go(stage, GO_ONE),
    GO_EACH: lambda stage: go(stage, GO_EACH, "-each"),
}


def plain(crowd):
    """As a dictionary for JSON."""
    return dataclasses.asdict(crowd)
