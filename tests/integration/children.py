# SPDX-License-Identifier: MIT
"""Processes that tests steer: agents, which do single calls, and programs that hold a lock."""

import os
import pickle
import select
import signal
import subprocess
import threading
import time

from support import (
    PATIENCE, PROGRAMS, check_watchers, gone, in_syscall, process_state, wait_until,
)

# Numbers of system calls on x86-64, to see that an agent really sits in a call.
SYSCALLS = {"flock": 73, "fcntl": 72, "poll": 7, "select": 23, "epoll": 232, "open": 257}


class Agent:
    """A process which carries out one call after the other, see programs/agent.py.

    agent.flock(fd, operation) does it now; agent.begin("flock", fd, operation) only starts it, and
    finish() gives its result.  Errors come back as the OSError they were.
    """

    SOURCE = (PROGRAMS / "agent.py").read_text(encoding="utf-8")

    def __init__(self, wrapper=(), **options):
        # By its text, not its path, since it may run as a user who cannot read our directory.
        self.process = subprocess.Popen(
            [*wrapper, "/usr/bin/python3", "-I", "-S", "-c", self.SOURCE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            start_new_session=True, cwd="/", **options,
        )
        self.received = b""
        self.busy = None

    @property
    def pid(self):
        """Its process."""
        return self.process.pid

    def begin(self, name, *arguments):
        """Starts one call."""
        assert self.busy is None, f"the agent is still in {self.busy}"
        self.busy = name
        self.process.stdin.write(pickle.dumps((name, arguments)))
        return self

    def ready(self, seconds=0):
        """Whether the call has been answered."""
        if self.received:
            return True
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        self.received = os.read(self.process.stdout.fileno(), 1 << 20)
        assert self.received, f"the agent ended in {self.busy}"
        return True

    def waiting(self, call="flock"):
        """Whether it sits in that system call right now."""
        if os.uname().machine != "x86_64":
            return process_state(self.pid) in "SD" and not self.ready()
        return in_syscall(self.pid) == SYSCALLS[call]

    def await_waiting(self, call="flock"):
        """Waits until it sits in that system call."""
        wait_until(lambda: self.waiting(call), what=f"the agent waits in {call}")
        return self

    def finish(self, deadline=PATIENCE):
        """The result of the call that was begun."""
        wait_until(self.ready, deadline, f"the agent's {self.busy} returns")
        kind, value = self.message()
        self.busy = None
        if kind == "error":
            raise OSError(value, os.strerror(value))
        return value

    def message(self):
        """One whole answer."""
        data, self.received = self.received, b""
        while True:
            try:
                return pickle.loads(data)
            except (EOFError, pickle.UnpicklingError):
                more = os.read(self.process.stdout.fileno(), 1 << 20)
                assert more, "the agent ended"
                data += more

    def __getattr__(self, name):
        return lambda *arguments: self.begin(name, *arguments).finish()

    def error(self, name, *arguments):
        """The errno of a call which should fail; 0 if it does not."""
        try:
            self.begin(name, *arguments).finish()
        except OSError as error:
            return error.errno
        return 0

    def kill(self, number=signal.SIGKILL):
        """Ends it."""
        end_group(self.process, number)

    def ended(self):
        """Its exit status if it has ended."""
        return self.process.poll()

    def destroy(self):
        """Ends it and what it started."""
        end_group(self.process)
        self.process.stdin.close()
        self.process.stdout.close()


class Holder:
    """Any program that prints a line when it holds its lock, and lets go when its input ends."""

    def __init__(self, command, **options):
        self.command = [str(word) for word in command]
        options.setdefault("stdin", subprocess.PIPE)
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, bufsize=0, **options,
        )
        self.output = b""
        self.errors = b""
        self.readers = [
            self.collect("output", self.process.stdout), self.collect("errors", self.process.stderr)
        ]

    def collect(self, name, stream):
        """Keeps reading one stream into an attribute."""

        def read():
            while data := stream.read(4096):
                setattr(self, name, getattr(self, name) + data)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    @property
    def pid(self):
        """The process that was started."""
        return self.process.pid

    def lines(self):
        """What it printed so far."""
        return self.output.decode(errors="replace").splitlines()

    def holds(self):
        """Whether it has said so."""
        return b"\n" in self.output

    def await_held(self, deadline=PATIENCE):
        """Waits until it holds the lock."""
        wait_until(lambda: self.holds() or self.fail_if_ended(), deadline, f"{self.command} holds")
        return self

    def await_waiting(self, call):
        """Waits until it sits in that system call."""
        wait_until(lambda: in_syscall(self.pid) == SYSCALLS[call] or self.fail_if_ended(),
                   what=f"{self.command} waits in {call}")
        return self

    def fail_if_ended(self):
        """Fails when the program is gone without having held."""
        code = self.process.poll()
        if code is not None and not self.settle().holds():
            raise AssertionError(f"{self.command}: exit {code}: {self.errors.decode()}")
        return False

    def settle(self):
        """After its end: waits for the rest of its output."""
        for reader in self.readers:
            reader.join(1)
        return self

    def say(self, text=b"\n"):
        """Writes to its input."""
        self.process.stdin.write(text)

    def release(self):
        """Ends its input and waits until it has left; its exit status."""
        self.process.stdin.close()
        return self.exit_status()

    def exit_status(self, deadline=PATIENCE):
        """Waits for its end."""
        end = time.monotonic() + deadline
        while self.process.poll() is None:
            check_watchers()
            assert time.monotonic() < end, f"{self.command} does not end"
            time.sleep(0.005)
        self.settle()
        return self.process.returncode

    def kill(self, number=signal.SIGKILL):
        """Sends a signal to it and all it started."""
        end_group(self.process, number)

    def destroy(self):
        """Ends it and what it started."""
        end_group(self.process)
        if self.process.stdin:
            try:
                self.process.stdin.close()
            except OSError:
                pass
        self.settle()


def end_group(process, number=signal.SIGKILL):
    """Signals a process group of ours; with SIGKILL, waits for its leader as well.

    The number of a leader which is gone is not given away while its group lives: when there is a
    process of that number, it is somebody else's.
    """
    if process.poll() is not None and process_state(process.pid) is not None:
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    if number == signal.SIGKILL:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            if not gone(process.pid):
                raise
