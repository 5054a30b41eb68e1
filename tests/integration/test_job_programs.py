# SPDX-License-Identifier: MIT
"""Programs that run jobs, or lock for scripts: each between two mounts, with kill -9 in the middle.

What locks as long as it has the file open is in test_programs.py.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess

import pytest

from conftest import Pair
from support import PROGRAMS, REPOSITORY, SOON, checked, gone, run, wait_until
from test_hold import free_soon, is_taken

MANUAL = REPOSITORY / "contrib/man/latchfs.8"
# What cron(8) gives to the commands of a crontab.
CRON = {"HOME": "/", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
WAIT = "&& echo held && cat"


def example(pattern):
    """An example of the manual."""
    return re.search(pattern, MANUAL.read_text(encoding="utf-8"), re.M | re.S).group(1)


# --- shells, and what locks for them ---


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_noclobber_with_a_descriptor(pair, shell):
    """set -C; exec 9>file: kill -9 frees it, and the other machine's shell gets it."""
    take = f'set -C; exec 9>"$1" {WAIT}'
    first = pair.lab.holder(shell, "-c", take, shell, pair.a / "x").await_held()
    assert run(shell, "-c", take, shell, pair.b / "x").returncode != 0
    first.kill()
    wait_until(lambda: run(shell, "-c", take, shell, pair.b / "x").returncode == 0, SOON)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_noclobber_that_goes_with_its_shell(lab, shell):
    """set -C; echo $$ >file with hold=process: closed, and free when the shell is killed."""
    pair = Pair(lab, "hold=process")
    take = f'set -C; echo $$ >"$1" {WAIT}'
    first = lab.holder(shell, "-c", take, shell, pair.a / "x").await_held()
    assert checked("cat", pair.b / "x") == f"{first.pid}\n"
    assert run(shell, "-c", take, shell, pair.b / "x").returncode != 0
    first.kill()
    wait_until(lambda: run(shell, "-c", take, shell, pair.b / "x").returncode == 0, SOON)


BY_NAME = {
    "noclobber": 'set -C; echo $$ >"$1"',
    "symlink": 'ln -s "web1:$$" "$1"',
    "dotlockfile": 'dotlockfile -l -r 0 "$1"',
    "procmail": 'lockfile -r 0 "$1"',
}


@pytest.mark.parametrize("how", BY_NAME)
@pytest.mark.parametrize("end", ["remove", "unmount"])
def test_lock_that_outlives_its_script(lab, how, end):
    """hold=name: the script is killed, its lock stays, until it is removed or its machine goes.

    It is removed where it was made, and nowhere else.
    """
    pair = Pair(lab, "hold=name,record=no,allow_other")
    attempt = lambda: run("dash", "-c", BY_NAME[how], "sh", pair.b / "x")
    first = lab.holder("dash", "-c", f"{BY_NAME[how]} {WAIT}", "sh", pair.a / "x").await_held()
    assert attempt().returncode != 0
    first.kill()
    assert attempt().returncode != 0 and os.path.lexists(pair.b / "x")
    if end == "unmount":
        pair.a.stop()
    else:
        assert "busy" in run("rm", pair.b / "x").stderr
        checked("rm", "-f", pair.a / "x")
    wait_until(lambda: attempt().returncode == 0, SOON)
    assert pair.b.names() == ["x"]
    checked("rm", "-f", pair.b / "x")


def test_lock_of_a_machine_that_died(lab):
    """hold=name, and the daemon is killed: taken until the lease has expired, then free."""
    pair = Pair(lab, "hold=name", ttl=3)
    checked("dash", "-c", BY_NAME["noclobber"], "sh", pair.a / "x")
    pair.a.kill()
    assert is_taken(lab, pair.b / "x")
    free_soon(lab, pair.b / "x")


def test_dotlockfile_of_a_killed_script(lab):
    """-p: on its own machine the next one sees that the script is dead; elsewhere it is refused."""
    pair = Pair(lab, "hold=name,allow_other")
    take = f'dotlockfile -l -p -r 0 "$1" {WAIT}'
    first = lab.holder("dash", "-c", take, "sh", pair.a / "x").await_held()
    assert run("dash", "-c", take, "sh", pair.a / "x").returncode != 0
    first.kill()
    assert run("dash", "-c", take, "sh", pair.b / "x").returncode != 0
    second = lab.holder("dash", "-c", take, "sh", pair.a / "x").await_held()
    assert second.release() == 0


# --- npm's lockfile ---


@pytest.fixture(scope="session")
def npm_lockfile(suite):
    """npm's lockfile, which Debian does not have; it needs a module that Debian has."""
    if not shutil.which("npm"):
        pytest.skip("no npm")

    def build(target):
        target.mkdir()
        npm = run("npm", "pack", "--silent", "lockfile@1.0.4", cwd=target, timeout=120)
        if npm.returncode == 0:
            checked("tar", "-xzf", target / npm.stdout.strip(), cwd=target)

    module = suite.once("npm-lockfile", build) / "package"
    if not module.is_dir():
        pytest.skip("npm can't get lockfile")
    return ["node", str(PROGRAMS / "npm-lockfile.js"), str(module)]


def test_npm_lockfile(lab, npm_lockfile):
    """hold=process: its twin is refused, its rule for age never applies, release and kill free."""
    pair = Pair(lab, "hold=process")
    environment = {**os.environ, "NODE_PATH": "/usr/share/nodejs"}
    attempt = lambda mount, stale=0: run(*npm_lockfile, mount / "x", stale, env=environment)
    start = lambda: lab.holder(*npm_lockfile, pair.a / "x", 0, env=environment).await_held()
    first = start()
    begin = os.stat(pair.b / "x").st_ctime
    wait_until(lambda: os.stat(pair.b / "x").st_ctime > begin + 2)
    for mount in pair.each():
        assert attempt(mount).returncode == 75
        assert attempt(mount, stale=1000).returncode == 75
    assert first.release() == 0
    assert attempt(pair.b).stdout == "held\n"
    start().kill()
    wait_until(lambda: attempt(pair.b).stdout == "held\n", SOON)


# --- cron ---


class Job:
    """A program that writes its number into a file, and then works for a long time."""

    def __init__(self, lab):
        self.log = lab.scratch()
        self.path = lab.scratch(f"#!/bin/sh\necho $$ >>{self.log}\nexec sleep 1000\n")
        self.path.chmod(0o755)

    def pids(self):
        """Those that have run."""
        return [int(line) for line in self.log.read_text(encoding="ascii").splitlines()]

    def kill(self):
        """Ends those that run; some programs give them a group of their own."""
        for pid in self.pids():
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda pid=pid: gone(pid), SOON)


@pytest.fixture
def job(pair):
    """A job that does not outlive the test."""
    one = Job(pair.lab)
    yield one
    one.kill()


@pytest.mark.parametrize("line", [
    "flock -n {lock} {job}", "flock -n {lock} chronic {job}", "chronic flock -n -E 0 {lock} {job}",
    "runlock -t 1 -f {lock} {job}", "lckdo -q {lock} {job}", "setlock -nX {lock} {job}",
])
def test_crontab_line(pair, job, line):
    """As cron runs it: one machine does the job, the other does not; kill -9, and it does."""
    words = lambda mount: ("/bin/sh", "-c", line.format(lock=mount / "nightly", job=job.path))
    options = {"env": CRON, "stdin": subprocess.DEVNULL}
    first = pair.lab.holder(*words(pair.a), **options)
    wait_until(lambda: len(job.pids()) == 1, SOON)
    for mount in pair.each():
        assert run(*words(mount), timeout=SOON, **options).stdout == ""
    assert len(job.pids()) == 1
    first.kill()
    job.kill()
    pair.await_queue("nightly", 0)
    pair.lab.holder(*words(pair.b), **options)
    wait_until(lambda: len(job.pids()) == 2, SOON)
    job.kill()


# What locks for a command, and whether that and the lock outlive it.
ALONE = {
    "flock -n": (True, True),
    "flock -n -o": (True, False),
    "lckdo -q": (True, False),
    "runlock -t 1 -f": (True, False),
    # These are the command, once they have the lock.
    "flock -n -F": (False, False),
    "setlock -n": (False, False),
    "chpst -L": (False, False),
    "with-lock-ex -f": (False, False),
}


@pytest.mark.parametrize("locker", ALONE)
def test_locker_is_killed_and_not_its_command(pair, job, locker):
    """kill -9 of that one process: what becomes of the command, and of the lock, on A and B."""
    goes_on, keeps = ALONE[locker]
    words = lambda mount: (*locker.split(), mount / "x", job.path)
    first = pair.lab.holder(*words(pair.a))
    wait_until(job.pids, SOON)
    (command,), places = job.pids(), pair.lab.keys("x")
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: gone(first.pid), SOON)
    if keeps:
        for mount in pair.each():
            assert run(*words(mount), timeout=SOON).returncode != 0
        assert [key.name for key in pair.lab.keys("x")] == [key.name for key in places]
        assert job.pids() == [command] and not gone(command)
        job.kill()
    pair.await_queue("x", 0)
    pair.lab.holder(*words(pair.b))
    wait_until(lambda: len(job.pids()) == 2, SOON)
    assert gone(command) == (keeps or not goes_on)


def test_crontab_of_the_manual(pair):
    """Its line, with other paths: refused with 1 while the other machine has the lock."""
    command = example(r"^0 2 \* \* \* root (flock -n /locks/cron/nightly) /usr/local/sbin/backup$")
    words = lambda mount: shlex.split(command.replace("/locks", str(mount.path)))
    os.mkdir(pair.a / "cron")
    first = pair.lab.holder(*words(pair.a), "sh", "-c", "echo held; cat").await_held()
    assert run(*words(pair.b), "true", env=CRON).returncode == 1
    first.kill()
    wait_until(lambda: run(*words(pair.b), "true", env=CRON).returncode == 0, SOON)


# --- systemd ---


def test_unit_of_the_manual(pair):
    """systemd accepts it; its command runs on one machine, elsewhere it ends as allowed."""
    text = example(r"^(\[Unit\]\n.*?RequiresMountsFor.*?)^\.Ed")
    unit = pair.lab.base / "backup.service"
    # systemd wants to see that there is such a program.
    unit.write_text(text.replace("/usr/local/sbin/backup", "/bin/true"), encoding="utf-8")
    done = run("systemd-analyze", "verify", unit)
    assert done.returncode == 0 and "backup.service" not in done.stderr, done
    command = re.search(r"^ExecStart=(.*) /usr/local/sbin/backup$", text, re.M).group(1)
    allowed = int(re.search(r"^SuccessExitStatus=(\d+)$", text, re.M).group(1))
    words = lambda mount: shlex.split(command.replace("/locks", str(mount.path)))
    os.mkdir(pair.a / "cron")
    first = pair.lab.holder(*words(pair.a), "sh", "-c", "echo held; cat").await_held()
    assert run(*words(pair.b), "true").returncode == allowed
    first.kill()
    wait_until(lambda: run(*words(pair.b), "true").returncode == 0, SOON)


# --- daemonize ---


class Daemonize:
    """Daemons that daemonize has started; it locks, and leaves the lock to them."""

    def __init__(self, lab):
        self.lab = lab
        self.pids = []

    def start(self, path):
        """Starts one with a lock file; its exit status."""
        file = self.lab.scratch()
        done = run("daemonize", "-p", file, "-l", path, "/bin/sleep", "1000")
        if done.returncode == 0:
            wait_until(lambda: file.read_text(encoding="ascii").endswith("\n"), SOON)
            self.pids.append(int(file.read_text(encoding="ascii")))
        return done.returncode

    def kill(self):
        """Ends them."""
        while self.pids:
            pid = self.pids.pop()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: gone(pid), SOON)


@pytest.fixture
def daemonize(pair):
    """Starts and ends daemons."""
    daemons = Daemonize(pair.lab)
    yield daemons
    daemons.kill()


def test_daemonize(pair, daemonize):
    """-l: one instance over both machines; kill -9 lets the other machine start it."""
    assert daemonize.start(pair.a / "x") == 0
    assert daemonize.start(pair.b / "x") != 0
    assert daemonize.start(pair.a / "x") != 0
    daemonize.kill()
    wait_until(lambda: daemonize.start(pair.b / "x") == 0, SOON)
    assert daemonize.start(pair.a / "x") != 0


# --- logrotate ---


def test_logrotate(pair, job):
    """A state file that all may read is no lock to it; flock around it is one."""
    log, settings = pair.lab.scratch("text\n"), pair.lab.scratch()
    settings.write_text(f"{log} {{\nrotate 1\n}}\n", encoding="ascii")
    done = run("logrotate", "-f", "-s", pair.a / "state", settings)
    assert done.returncode != 0 and "Skipping lock acquisition" in done.stderr, done
    wait_until(lambda: pair.a.names() == [], SOON)
    first = pair.lab.holder("flock", pair.a / "state", "sh", "-c", "echo held; cat").await_held()
    done = run("logrotate", "-f", "-s", pair.b / "state", settings)
    assert "Skipping lock acquisition" in done.stderr
    first.kill()
    settings.write_text(f"{log} {{\nprerotate\n{job.path}\nendscript\n}}\n", encoding="ascii")
    words = lambda mount: ("flock", "-n", mount / "rotate", "logrotate", "-f", "-s",
                           pair.lab.base / "status", settings)
    log.write_text("text\n", encoding="ascii")
    first = pair.lab.holder(*words(pair.a))
    wait_until(job.pids, SOON)
    assert run(*words(pair.b)).returncode == 1
    first.kill()
    job.kill()
    pair.await_queue("rotate", 0)
    second = pair.lab.holder(*words(pair.b))
    wait_until(lambda: len(job.pids()) == 2, SOON)
    second.kill()


# --- those that can't be served ---

PYTHON_LOCKFILE = ("import sys, lockfile.{0}lockfile as m\n"
                   "lock = m.{1}LockFile(sys.argv[1])\nlock.acquire(timeout=0.5)\n"
                   "lock.release()\nprint('held')\n")
REFUSED = {
    "git": ("git", "config", "-f"),
    "LockFile::Simple": ("perl", "-MLockFile::Simple", "-e", "LockFile::Simple->make(-max => 1, "
                         "-delay => 1, -warn => 0)->lock($ARGV[0]) or exit 75; print 'held'"),
    "File::NFSLock": ("perl", "-MFile::NFSLock", "-e", "new File::NFSLock {file => $ARGV[0], "
                      "lock_type => 6} or exit 75; print 'held'"),
    "LinkLockFile": ("/usr/bin/python3", "-c", PYTHON_LOCKFILE.format("link", "Link")),
    "mutt_dotlock": ("mutt_dotlock", "-r", "0"),
    "MkdirLockFile": ("/usr/bin/python3", "-c", PYTHON_LOCKFILE.format("mkdir", "Mkdir")),
}


@pytest.mark.parametrize("hold", ["close", "name"])
@pytest.mark.parametrize("program", REFUSED)
def test_what_cannot_be_served_is_told_so(lab, program, hold):
    """They fail on every machine, rather than go on without a lock.

    MkdirLockFile has one, but does not know it for its own when it is to give it back.
    """
    pair = Pair(lab, f"hold={hold}")
    for mount in pair.each():
        words = REFUSED[program]
        words = (*words, mount / "x", "a.b", "c") if words[-1] == "-f" else (*words, mount / "x")
        done = run(*words)
        assert done.returncode != 0 and "held" not in done.stdout, done
