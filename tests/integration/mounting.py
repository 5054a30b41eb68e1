# SPDX-License-Identifier: MIT
"""Mounts of latchfs: started, watched while a test runs, and ended whatever happens."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import support
from support import PATIENCE, REPOSITORY, children, process_state, run, wait_until

BINARY = Path(os.environ.get("LATCHFS_BINARY", REPOSITORY / "build/src/latchfs"))
# A build without sanitizers, for what counts memory or many rounds.
PLAIN_BINARY = Path(os.environ.get("LATCHFS_PLAIN_BINARY", BINARY))

BAD_LINE = re.compile(
    r"\b(error|warning|assertion|fuse):|AddressSanitizer|LeakSanitizer|runtime error|"
    r"Sanitizer:|terminate called|[Ss]egmentation",
    re.I,
)
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error|Sanitizer:")
# What a daemon may say when its store or its lease was hurt on purpose.
TROUBLE = r"^latchfs: warning: "

# What it says to programs that close a lock file, as tests do; see test_lockfiles.py.
HINT = re.compile("took it with O_EXCL and gave it back by closing it at once")

CONNECTIONS = Path("/sys/fs/fuse/connections")


def clean_environment(**extra):
    """The environment for the daemon: nothing of the caller's etcd, sanitizers set up."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
    kept["ASAN_OPTIONS"] = "detect_leaks=1:abort_on_error=0:exitcode=99"
    kept["UBSAN_OPTIONS"] = "print_stacktrace=1"
    return {**kept, **extra}


def abort_connection(mountpoint):
    """Ends the FUSE connection below mountpoint, so that nobody waits in it any longer."""
    number = support.mounts().get(str(mountpoint), (None,))[0]
    if number is None:
        return
    try:
        (CONNECTIONS / str(number) / "abort").write_text("1", encoding="ascii")
    except OSError:
        pass


class Mount:
    """One latchfs in the foreground on one directory."""

    def __init__(self, source, directory, options="", *, binary=None, environment=None, words=(),
                 wrapper=()):
        self.source = source
        self.path = Path(directory)
        self.options = options
        self.binary = binary or BINARY
        self.environment = environment or {}
        self.words = list(words)
        self.wrapper = list(wrapper)
        self.passed = ()  # descriptors
        self.output = None  # a descriptor, in place of the log file
        self.process = None
        self.log_path = Path(f"{directory}.log")
        self.allowed = [HINT]
        self.expected_exit = 0
        self.stopped = []  # processes, by pause() and stall()

    def __truediv__(self, name):
        return f"{self.path}/{name}"

    def __str__(self):
        return str(self.path)

    def command(self):
        """The command line."""
        options = ["-o", self.options] if self.options else []
        words = ["-f", *self.words, *options, self.source, str(self.path)]
        return [*self.wrapper, str(self.binary), *words]

    def launch(self):
        """Starts the daemon without waiting for it."""
        if not self.mounted():
            self.path.mkdir(exist_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log if self.output is None else self.output,
                env=clean_environment(**self.environment), start_new_session=True,
                pass_fds=self.passed,
            )

    def start(self):
        """Starts the daemon and waits until it is mounted."""
        self.launch()
        wait_until(self.ready, what=f"{self.command()} is mounted")
        return self

    def ready(self):
        """Whether the mount is there; fails when the daemon is not."""
        assert self.alive(), f"daemon ended: {self.process.returncode}\n{self.log()}"
        return self.mounted()

    def alive(self):
        """Whether the daemon runs."""
        return self.process is not None and self.process.poll() is None

    def mounted(self):
        """Whether something is mounted at our directory."""
        return str(self.path) in support.mounts()

    @property
    def pid(self):
        """The daemon's process."""
        return self.process.pid

    # What it says.

    def expect(self, pattern=TROUBLE):
        """Lines of the daemon which this test provokes."""
        self.allowed.append(re.compile(pattern))
        return self

    def log(self):
        """Everything the daemon has said."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def complaints(self):
        """Lines nobody expected."""
        return [line for line in self.log().splitlines() if self.is_complaint(line)]

    def is_complaint(self, line):
        """Whether one line must fail the test."""
        if SANITIZER.search(line):
            return True
        return bool(BAD_LINE.search(line)) and not any(a.search(line) for a in self.allowed)

    def check(self):
        """Fails as soon as the daemon has complained or ended by itself."""
        if self.complaints():
            raise AssertionError(f"{self.path} complains:\n{self.log()[-6000:]}")
        if self.process is not None and self.expected_exit == 0:
            code = self.process.poll()
            if code not in (None, 0):
                raise AssertionError(f"{self.path} ended with {code}:\n{self.log()[-6000:]}")

    # What it is asked.

    def attribute(self, name, attribute):
        """A JSON attribute of a lock file."""
        return json.loads(os.getxattr(self / name, f"user.latchfs.{attribute}"))

    def holder(self, name):
        """Who holds the lock."""
        return self.attribute(name, "holder")

    def queue(self, name):
        """Who holds and who waits, in order."""
        return self.attribute(name, "queue")

    def record(self, name):
        """What reading the lock file says, as a dictionary."""
        return parse_record(Path(self / name).read_text(encoding="utf-8"))

    def names(self, directory="."):
        """What is listed."""
        return sorted(os.listdir(self / directory))

    # How it ends.

    @property
    def server(self):
        """The process that serves the mount: a supervisor's child, or the daemon itself."""
        if "supervise=no" in self.options:
            return self.pid
        found = children(self.pid)
        return int(found[0]) if found else None

    def kill_server(self):
        """Kills it, if there is one just now."""
        server = self.server
        if server and server != self.pid:
            os.kill(server, signal.SIGKILL)

    def signal(self, number):
        """Sends the daemon a signal."""
        self.process.send_signal(number)

    def pause(self):
        """Stops the daemon, as a suspended machine would; returns when it stands still."""
        for process in dict.fromkeys((self.pid, self.server)):
            self.stall(process)

    def stall(self, process=None):
        """Stops only the process that serves the mount; returns it when it stands still."""
        process = process or self.server
        os.kill(process, signal.SIGSTOP)
        self.stopped.append(process)
        wait_until(lambda: process_state(process) in ("T", None), what="the daemon is stopped")
        return process

    def resume(self):
        """Undoes pause() and stall()."""
        for process in self.stopped:
            try:
                os.kill(process, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.stopped = []

    def kill(self):
        """Ends the daemon with SIGKILL, which the test wants."""
        self.expected_exit = -signal.SIGKILL
        self.process.kill()
        self.process.wait(PATIENCE)

    def wait_exit(self, deadline=PATIENCE):
        """The exit status of a daemon that is about to end."""
        end = time.monotonic() + deadline
        while self.process.poll() is None:
            assert time.monotonic() < end, f"{self.path} does not end:\n{self.log()[-6000:]}"
            time.sleep(0.005)
        return self.process.returncode

    def stop(self):
        """Ends the daemon with SIGTERM and expects that it leaves nothing behind."""
        if not self.alive():
            return
        self.resume()
        self.signal(signal.SIGTERM)
        code = self.wait_exit()
        assert code == self.expected_exit, f"{self.path}: exit {code}\n{self.log()[-6000:]}"
        assert not self.mounted(), f"{self.path} is still mounted"

    def unmount(self, *options):
        """fusermount3 -u."""
        return run("fusermount3", "-u", *options, self.path)

    def destroy(self):
        """Ends everything by force; never fails, never blocks."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            abort_connection(self.path)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        for _ in range(5):
            if not self.mounted():
                return
            run("umount", "-l", self.path)


def daemons_of(path):
    """Processes of our binary with a mount point at or below path on their command line, without
    those that these have started."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            words = [os.fsdecode(word) for word in (entry / "cmdline").read_bytes().split(b"\0")]
            name = (entry / "comm").read_text(encoding="utf-8").strip()
            parent = int((entry / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        if name == "latchfs-reaper":
            continue  # the daemon's own, which ends after it
        if "latchfs" in Path(words[0]).name and any(within(word, path) for word in words[1:]):
            found[int(entry.name)] = parent
    return [pid for pid, parent in found.items() if parent not in found]


def within(word, path):
    """Whether a word of a command line is a path, or something below it."""
    return word == str(path) or word.startswith(f"{path}/")


def parse_record(text):
    """key=value lines as a dictionary."""
    return dict(line.split("=", 1) for line in text.splitlines())


def is_sanitized(binary):
    """Whether a binary was built with the address sanitizer."""
    return "libasan" in run("ldd", binary).stdout
