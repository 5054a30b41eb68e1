# SPDX-License-Identifier: MIT
"""`latchfs top`: which locks are the hottest, at a terminal and without one."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios

import pytest

from mounting import BINARY, clean_environment
from support import gone, process_state, run, wait_until

# A process that has a terminal of its own, as a shell has, and runs the rest of its command line
# in the foreground of it; it says which process that is, and how that ended.
SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.set_blocking(0, True)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])
with open(sys.argv[1], "w") as report:
    print(pid, file=report, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=report, flush=True)
"""

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


class Screen:
    """latchfs top at a terminal."""

    def __init__(self, lab, *words, lines=24, columns=100):
        self.report = lab.base / "report"
        self.report.write_text("", encoding="ascii")
        self.shell, self.fd = pty.fork()
        if self.shell == 0:
            self.resize(lines, columns, 0)
            os.execve("/usr/bin/python3", ["python3", "-c", SHELL, str(self.report), str(BINARY),
                                           "top", *map(str, words)], clean_environment())
        self.text = ""
        self.before = termios.tcgetattr(self.fd)
        wait_until(lambda: len(self.reported()) >= 1, what="it runs")
        self.pid = int(self.reported()[0])

    def reported(self):
        """What the shell has said."""
        return self.report.read_text(encoding="ascii").split()

    def resize(self, lines, columns, fd=None):
        """Gives the terminal another size."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.fd if fd is None else fd, termios.TIOCSWINSZ, size)

    def read(self):
        """Takes in what was printed."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                self.text += os.read(self.fd, 65536).decode()
            except OSError:
                return

    def page(self):
        """The lines of the newest page, as long as the screen is its own."""
        self.read()
        if ENTER not in self.text or self.text.rindex(ENTER) < self.text.rfind(LEAVE):
            return []
        pages = self.text[self.text.rindex(ENTER):].split("\x1b[H")
        if not pages[-1].endswith("\x1b[J"):
            pages.pop()  # it is still being printed
        if len(pages) < 2:
            return []
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pages[-1]).replace("\r", "").split("\n")

    def sees(self, pattern):
        """Waits for a page with such a line; the page."""
        def look():
            page = self.page()
            return page if any(re.search(pattern, line) for line in page) else None
        return wait_until(look, what=f"{pattern} is shown")

    def type(self, keys):
        """Presses keys."""
        os.write(self.fd, keys)

    def raw(self):
        """Whether keys come at once and without an echo."""
        return not termios.tcgetattr(self.fd)[3] & (termios.ICANON | termios.ECHO)

    def status(self):
        """How it ended."""
        wait_until(lambda: len(self.reported()) == 2, what="it ends")
        self.read()
        return int(self.reported()[1])

    def is_as_before(self):
        """Whether the terminal is as it was."""
        self.read()
        return (termios.tcgetattr(self.fd) == self.before
                and self.text.count(ENTER) == self.text.count(LEAVE)
                and self.text.rfind("\x1b[?25h") > self.text.rfind("\x1b[?25l"))

    def destroy(self):
        """Ends all of it."""
        for pid in (self.pid, self.shell):
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(self.shell, 0)
        os.close(self.fd)


@pytest.fixture
def screen():
    """Starts it at a terminal."""
    started = []

    def start(lab, *words, **options):
        started.append(Screen(lab, *words, **options))
        return started[-1]

    yield start
    for each in started:
        each.destroy()


def top(*words, **options):
    """`latchfs top` without a terminal: (exit status, output, errors)."""
    done = run(BINARY, "top", *words, env=clean_environment(), **options)
    return done.returncode, done.stdout, done.stderr


def contend(pair, name, count, agent):
    """Somebody on A holds a lock, and so many on B wait for it."""
    holder = agent()
    holder.fd = holder.take(pair.a / name)
    waiters = [agent() for _ in range(count)]
    for waiter in waiters:
        waiter.begin("take", pair.b / name).await_waiting()
    pair.await_queue(name, count + 1)
    return holder, waiters


def tables(page):
    """The rows of both tables, as words."""
    lines = page.splitlines() if isinstance(page, str) else page
    first = next(i for i, line in enumerate(lines) if line.startswith("WAITERS"))
    second = next(i for i, line in enumerate(lines) if line.startswith(" WAITED"))
    return ([line.split() for line in lines[first + 1:second] if line],
            [line.split() for line in lines[second + 1:] if line])


def test_ranks(pair, agent):
    """The lock that most wait for is the first, and everybody who waits is listed."""
    calm, _ = contend(pair, "a calm", 0, agent)
    warm, _ = contend(pair, "b-warm", 1, agent)
    hot, waiters = contend(pair, "c-hot", 2, agent)
    code, page, errors = top(pair.a)
    assert (code, errors) == (0, "") and "\x1b" not in page
    lines = page.splitlines()
    assert lines[0] == f"{pair.a}: ok; node host-a"
    assert lines[1].startswith("store   1 of 1 addresses answer; lease held, if not renewed lost ")
    assert lines[2] == "mount   3 held, 0 waited for, 0 lost"
    assert lines[3] == "cluster 3 locked, by 3; 3 waiting"
    locks, waits = tables(page)
    assert [row[0] for row in locks] == ["2", "1", "0"]
    assert [row[-1] for row in locks] == ["c-hot", "b-warm", "a\\040calm"]
    assert [row[5:7] for row in locks] == [
        [f"host-a:{who.pid}", "python3"] for who in (hot, warm, calm)]
    assert all(row[1] == "-" and row[4] == "exclusive" for row in locks)
    assert sorted(row[-1] for row in waits) == ["b-warm", "c-hot", "c-hot"]
    assert {f"host-b:{who.pid}" for who in waiters} < {row[2] for row in waits}


def test_shared(pair, agent):
    """Of many holders the first is named, and the others are counted."""
    one, two = agent(), agent()
    one.take(pair.a / "x", fcntl.LOCK_SH)
    two.take(pair.b / "x", fcntl.LOCK_SH)
    locks, _ = tables(top(pair.a)[1])
    assert locks[0][4:] == ["shared", f"host-a:{one.pid}", "python3", "+1", "x"]


def test_names_of_others(lab):
    """What would move the cursor, or the text, is not shown as it is."""
    mount = lab.mount()
    lab.etcd.put(f"{lab.prefix}/up\x1b[A\u009b2J\u202edrow/{1:x}.1", "")
    page = top(mount)[1]
    assert "up\\033[A??2J?drow" in page and "another program" in page
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", page)


def test_live(pair, agent, screen):
    """Pages follow each other, and q ends it; the terminal is as it was."""
    seen = screen(pair.lab, "-d", "0.2", pair.b)
    assert tables(seen.sees("^cluster 0 locked")) == ([], [])
    assert seen.raw()
    holder, waiters = contend(pair, "x", 1, agent)
    seen.sees(rf"^      1 +\d+ .* host-a:{holder.pid} python3 +x$")
    holder.close(holder.fd)
    waiters[0].finish()
    # Who has it now has taken it since the page before, and then not again.
    seen.sees(rf"^      0 +1 .* host-b:{waiters[0].pid} python3 +x$")
    seen.sees(rf"^      0 +0 .* host-b:{waiters[0].pid} python3 +x$")
    seen.sees(r"^mount   1 held, 0 waited for, 0 lost; \d+\.\d granted and 0.0 refused a second$")
    seen.type(b"q")
    assert seen.status() == 0
    assert seen.is_as_before()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(lab, screen, number):
    """It dies of the signal, and the terminal is as it was."""
    seen = screen(lab, lab.mount())
    seen.sees("^cluster")
    if number == signal.SIGINT:
        seen.type(b"\x03")
    else:
        os.kill(seen.pid, number)
    assert seen.status() == -number
    assert seen.is_as_before()


def test_stopped_and_continued(lab, screen):
    """While it is stopped the terminal is the shell's."""
    seen = screen(lab, "-d", "0.2", lab.mount())
    seen.sees("^cluster")
    seen.type(b"\x1a")
    wait_until(lambda: process_state(seen.pid) == "T", what="it is stopped")
    assert seen.is_as_before() and not seen.raw()
    os.kill(seen.pid, signal.SIGCONT)
    seen.sees("^cluster")
    assert seen.raw()
    seen.type(b"q")
    assert seen.status() == 0 and seen.is_as_before()


def test_window(lab, screen):
    """A page is never larger than the window, and follows it."""
    mount = lab.mount()
    for i in range(30):
        lab.etcd.put(f"{lab.prefix}/{'long' * 40}{i}/x", "")
        lab.etcd.put(f"{lab.prefix}/{'long' * 40}{i}/y", "")
    # Until the next page comes by itself it is long.
    seen = screen(lab, "-d", "3600", mount, lines=24, columns=80)
    page = seen.sees("^cluster 30 locked")
    assert len(page) == 24 and max(map(len, page)) == 79
    locks, waits = tables(page)
    assert len(locks) + len(waits) == 24 - 8 and abs(len(locks) - len(waits)) <= 1
    for lines, columns in ((10, 40), (3, 5), (1, 1), (40, 120)):
        seen.resize(lines, columns)
        wait_until(lambda: len(seen.page()) == lines, what=f"it has {lines} lines")
        assert max(map(len, seen.page())) <= columns - 1


def test_unmounted(lab, screen):
    """The mount goes away: it says so, on the screen as it was."""
    mount = lab.mount()
    seen = screen(lab, "-d", "0.2", mount)
    seen.sees("^cluster")
    mount.stop()
    assert seen.status() == 1
    assert seen.is_as_before()
    assert f"latchfs: error: {mount}: no latchfs is mounted there" in seen.text.rpartition(LEAVE)[2]


def test_store_down(bare_lab, screen):
    """The page shows the state, and goes on when the store is back."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1").expect()
    seen = screen(lab, "-d", "0.2", mount)
    seen.sees("^cluster")
    server.kill()
    seen.sees(": unreachable; node ")
    seen.sees("^store   0 of 1 addresses answer; lease ")
    seen.sees(rf"^        why: {server.url}: .*onnect")
    seen.sees("^the table of locks can't be had: Input/output error$")
    code, page, _ = top(mount)
    assert code == 1 and ": unreachable; node" in page.splitlines()[0]
    server.start()
    seen.sees(": ok; node ")
    seen.sees("^cluster")


def test_silent_daemon(lab, screen):
    """It says for how long there was no answer, and can be left."""
    mount = lab.mount()
    seen = screen(lab, "-d", "0.2", mount)
    seen.sees("^cluster")
    mount.pause()
    seen.sees(r": the mount has not answered for \d+ s$")
    seen.type(b"q")
    assert seen.status() == 0 and seen.is_as_before()
    mount.resume()


@pytest.mark.parametrize("where", ["/", "/nonexistent", "/dev/null"])
def test_not_a_mount(where, lab, screen):
    """One line, and no screen is taken for that."""
    assert top(where) == (1, "", f"latchfs: error: {where}: no latchfs is mounted there\n")
    seen = screen(lab, where)
    assert seen.status() == 1
    assert seen.text == f"latchfs: error: {where}: no latchfs is mounted there\r\n"


@pytest.mark.parametrize("words", [(), ("-x", "/"), ("/", "/tmp"), ("-d",), ("-d", "1")])
def test_wrong_usage(words):
    """One line."""
    code, output, errors = top(*words)
    assert (code, output) == (1, "") and "usage: latchfs top" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("interval", ["0", "-1", "x", "1s", "0.01", "3601", "nan", "inf", ""])
def test_wrong_interval(interval):
    """The line says what is possible."""
    code, output, errors = top("-d", interval, "/")
    assert (code, output) == (1, "") and "from 0.1 to 3600" in errors
