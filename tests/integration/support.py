# SPDX-License-Identifier: MIT
"""Small things every test needs: waiting for conditions, running programs, finding ports."""

import itertools
import os
import random
import re
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
REPOSITORY = HERE.parent.parent

# Far more than anything needs on a slow machine with a sanitizer, far less than a TTL of LONG.
PATIENCE = 30.0
# A TTL that no test may ever wait for.
LONG = 300
# "At once", with room for a busy machine: an order of magnitude less than LONG.
SOON = 10.0

# Crowds as large as are promised, instead of a tenth or so: for an hour, and a machine of one's own.
IN_FULL = os.environ.get("LATCHFS_IN_FULL") == "1"

# Called in every turn of every wait, so that a dead or complaining daemon ends a test early.
watchers = []


def check_watchers():
    """Lets every watcher raise what it has seen."""
    for watcher in list(watchers):
        watcher()


def wait_until(condition, deadline=PATIENCE, what=None):
    """Returns the first true value of condition(); fails with `what` after deadline seconds."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        check_watchers()
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {what or condition}")
        time.sleep(0.005)


class Stopwatch:
    """Tells how long something took, for "this was not waited for"."""

    def __init__(self):
        self.start = time.monotonic()

    @property
    def seconds(self):
        """Seconds since the start."""
        return time.monotonic() - self.start


def run(*command, timeout=PATIENCE, **options):
    """Runs a program to its end and returns the finished process, output as text."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [str(word) for word in command],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.PIPE),
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        check=False,
        **options,
    )


def checked(*command, **options):
    """Like run(), and fails unless the program leaves with 0; returns its output."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# Which process of the suite this is, and how many there are (pytest-xdist).
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % WORKERS

ports_given = set()


def free_port():
    """A loopback port nobody listens on, outside the range of outgoing connections.

    It may be some time until somebody listens there: no port is given away twice, and each
    process of the suite has its own.
    """
    while True:
        port = random.randrange(20000 + WORKER, 32000, WORKERS)
        if port in ports_given:
            continue
        ports_given.add(port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def stuff(path):
    """Sends so much there that nobody else can."""
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                for count in itertools.count():
                    sender.sendto(b"<30>STUFF=1", path)
            except BlockingIOError:
                if not count:
                    return


def process_state(pid):
    """The state letter of a process, None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[0]


def children(pid):
    """The processes that a process has started and that still exist, as strings, oldest first."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_of(pid):
    """The name of a process's program, None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def gone(pid):
    """Whether a process has ended (a zombie has)."""
    return process_state(pid) in (None, "Z", "X")


def in_syscall(pid):
    """The number of the system call a process sits in, None while it runs."""
    try:
        word = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()[0]
    except OSError:
        return None
    return int(word) if word.lstrip("-").isdigit() else None


def unescape_mount(text):
    """Undoes the octal escapes of /proc/self/mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), text)


def mounts():
    """Mount point -> (connection number, file system type, source) of everything mounted."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        kind, source = after.split()[:2]
        number = int(fields[2].split(":")[1])
        found[unescape_mount(fields[4])] = (number, kind, unescape_mount(source))
    return found


def memory_kib(pid):
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M).group(1))


def cpu_seconds(pid):
    """Processor time a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(pid):
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
