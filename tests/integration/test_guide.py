# SPDX-License-Identifier: MIT
"""Each example of the guide, latchfs(7), does what the guide says, as it stands there.

Only the places are others: the mount is at another path, and the programs, which are ours, and the
files of a server are below the test's directory.
"""

import os
import pwd
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support import REPOSITORY, SOON, checked, children, process_state, run, wait_until

GUIDE = REPOSITORY / "contrib/man/latchfs.7"
NOBODY = pwd.getpwnam("nobody").pw_uid
DISPLAY = re.compile(r'^\.\\" (.+)\n\.Bd -literal.*\n((?:.*\n)*?)\.Ed$', re.M)
EXAMPLES = dict(DISPLAY.findall(GUIDE.read_text(encoding="utf-8")))


class Stage:
    """A mount, and programs that the examples start."""

    def __init__(self, lab):
        self.lab = lab
        self.mount = lab.mount("allow_other")
        self.programs = lab.base / "bin"
        self.server = lab.base / "srv"
        self.programs.mkdir()
        self.server.mkdir()
        self.trace = lab.scratch()
        self.instead = ("", "")
        self.variables = {}

    def text(self, name):
        """An example with its places."""
        text = EXAMPLES[name].replace(*self.instead).replace("/locks", str(self.mount))
        return text.replace("/usr/local/bin", str(self.programs)).replace("/srv", str(self.server))

    def program(self, name, body=""):
        """A program that writes down that it ran, and what else it is to do."""
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "{name}${{1+ $1}}" >>{self.trace}\n{body}\n',
                        encoding="utf-8")
        path.chmod(0o755)

    def ran(self):
        """What has run since the last question."""
        text = self.trace.read_text(encoding="utf-8").split("\n")[:-1]
        self.trace.write_text("", encoding="utf-8")
        return text

    @property
    def environment(self):
        """With our programs before the system's."""
        return {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", **self.variables}

    def run(self, name):
        """An example as a script, to its end."""
        return run("bash", "-c", self.text(name), env=self.environment)

    def begin(self, name):
        """The same, to go on beside us."""
        return self.lab.holder("bash", "-c", self.text(name), env=self.environment)

    def hold(self, name, *options):
        """Somebody else who has a lock."""
        return self.lab.holder("flock", *options, self.mount / name, "sh", "-c",
                               "echo held; cat").await_held()


@pytest.fixture
def stage(lab):
    """A stage with the programs that most examples need."""
    return Stage(lab)


def test_try(stage):
    """One runs, the other does not wait."""
    stage.program("import")
    assert stage.run("try").returncode == 0 and stage.ran() == ["import"]
    stage.hold("import")
    assert stage.run("try").returncode == 1 and stage.ran() == []


def test_status(stage):
    """Busy, failed and done are told apart."""
    stage.program("import")
    assert stage.run("status").stdout == "done\n"
    stage.program("import", "exit 1")
    assert stage.run("status").stdout == "failed\n"
    stage.hold("import")
    assert stage.run("status").stdout == "host-m1 does it\n"


def test_part(stage):
    """The lock is held for a part of the script, and not by what stays behind."""
    stage.program("step1", f"! flock -n {stage.mount}/job true && readlink /proc/self/fd/9 && exit")
    stage.program("step2", f"! flock -n {stage.mount}/job true && ! readlink /proc/self/fd/9")
    done = stage.run("part")
    assert (done.returncode, done.stdout) == (0, f"{stage.mount}/job\n"), done
    assert stage.ran() == ["step1", "step2"]
    assert stage.mount.names() == []


def test_shared(stage):
    """Readers beside a reader, a writer only alone."""
    stage.program("report")
    stage.program("import")
    reader, writer = stage.text("shared").splitlines()
    stage.hold("data", "-s")
    checked("sh", "-c", reader)
    waiting = stage.lab.holder("sh", "-c", writer)
    stage.lab.await_keys("data", 2)
    assert stage.ran() == ["report"]
    waiting.kill()


def test_slots(stage):
    """Three may, a fourth may not."""
    stage.program("convert", "exec sleep 60")
    for _ in range(3):
        stage.begin("slots")
    wait_until(lambda: len(stage.mount.names()) == 3, what="three convert")
    done = stage.run("slots")
    assert done.returncode == 75 and "three are at it" in done.stderr
    wait_until(lambda: stage.ran() == ["convert"] * 3, what="three were started")


def test_look(stage):
    """The holder, and the queue."""
    stage.hold("job")
    done = stage.run("look")
    assert done.stdout.startswith("token=") and '"host":"host-m1"' in done.stdout.splitlines()[-1]


def test_container(stage):
    """The control group of the holder, if it is in one."""
    stage.hold("job")
    assert stage.run("container").stdout.strip() == stage.mount.record("job").get("cgroup", "")


@pytest.mark.parametrize("name, program, ran", [
    ("crontab", "nightly", ["nightly"]), ("crontab short", "short", ["short", "sleep 30"]),
])
def test_crontab(stage, name, program, ran):
    """Runs where the lock is free, and says nothing elsewhere; only root may write the directory."""
    checked("bash", "-c", stage.text("cron directory"))
    assert os.stat(stage.mount / "cron").st_mode & 0o777 == 0o755
    stage.program(program)
    stage.program("sleep")
    *fields, user, command = stage.text(name).strip().split(" ", 6)
    assert fields == ["0", "2", "*", "*", "*"] and user == "root"
    for expected in ran, []:
        done = run("sh", "-c", command, env=stage.environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert stage.ran() == expected
        if expected:
            stage.hold(f"cron/{program}")


def test_unit(stage):
    """systemd has nothing to say about the service; its command holds the lock, and ends with it."""
    assert stage.run("policy").returncode == 0
    assert os.getxattr(stage.mount / "services", "user.latchfs.on_loss") == b"term"
    place = stage.lab.base / "units"
    place.mkdir()
    stage.program("scheduler", "exec sleep 60")
    text = stage.text("unit scheduler.service")
    (place / "scheduler.service").write_text(text, encoding="utf-8")
    (place / "latchfs@.service").write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    if Path("/usr/bin/systemd-analyze").exists():
        done = run("systemd-analyze", "verify", "--man=no", place / "scheduler.service")
        assert (done.returncode, done.stderr) == (0, "")
    command = re.search(r"^ExecStart=(.*)$", text, re.M).group(1).split()
    lock = stage.mount / "services/scheduler"
    stage.mount.expect()
    for is_broken in True, False:
        service = stage.lab.holder(*command)
        wait_until(lambda: os.path.exists(lock) and stage.ran(), what="it holds")
        if is_broken:
            token = stage.mount.holder("services/scheduler")["token"]
            os.setxattr(lock, "user.latchfs.break", str(token).encode())
        else:
            service.process.terminate()
        assert service.exit_status() == -15
        wait_until(lambda: not os.path.exists(lock), SOON, "it is free")


def test_old(stage):
    """A lock file is one under this policy."""
    done = stage.run("old")
    assert done.returncode == 0, done
    assert stage.mount.names("old") == []


def test_mounted(stage):
    """A mount is told from a bare directory."""
    assert stage.run("mounted").returncode == 0
    text = stage.text("mounted").replace(str(stage.mount), str(stage.programs))
    assert run("bash", "-c", text).returncode == 1


def test_ask(stage):
    """A holder that asks stops after a loss."""
    stage.mount.expect()
    stage.program("step", f"[ $1 = 2 ] || exit 0\ntoken=$(sed -n s/^token=//p {stage.mount}/job)\n"
                          f"setfattr -n user.latchfs.break -v $token {stage.mount}/job")
    assert stage.run("ask").returncode == 1
    assert stage.ran() == ["step 1", "step 2"]
    stage.program("step")
    assert stage.run("ask").returncode == 0
    assert stage.ran() == ["step 1", "step 2", "step 3"]


def last_stands_still(holder):
    """Whether what a script has started last is stopped."""
    pid = holder.pid
    while found := children(pid):
        pid = found[-1]
    return process_state(pid) == "T"


def begin_and_break(stage, name, lock, begun):
    """Begins an example and breaks its lock while it is held."""
    stage.mount.expect()
    first = stage.begin(name)
    wait_until(lambda: begun(first), what="the first has the lock")
    token = stage.mount.holder(lock)["token"]
    os.setxattr(stage.mount / lock, "user.latchfs.break", str(token).encode())
    return first


def test_fenced_file(stage):
    """What comes late is refused by the file server."""
    fifo = stage.lab.base / "fifo"
    os.mkfifo(fifo)
    put = stage.programs / "fenced-put"
    put.write_text(stage.text("file fenced-put"), encoding="utf-8")
    put.chmod(0o755)
    stage.program("ssh", 'shift; exec "$@"')
    stage.program("report", f"cat {fifo}")
    first = begin_and_break(stage, "fenced file", "report", lambda _: "report" in stage.ran())
    stage.program("report", "echo second")
    assert stage.run("fenced file").returncode == 0
    report = stage.server / "report"
    assert report.read_text(encoding="utf-8") == "second\n"
    fifo.write_text("first\n", encoding="utf-8")
    assert first.exit_status() == 1
    assert re.search(rb"token \d+ is older than \d+", first.errors)
    assert report.read_text(encoding="utf-8") == "second\n"
    assert stage.run("fenced file").returncode == 0, "the third has a larger token"


class Sqlite:
    """The database of the example."""

    program = "sqlite3"

    def __init__(self, stage):
        self.path = stage.server / "stock.db"

    def ask(self, question):
        """What it answers."""
        return checked("sqlite3", self.path, question).strip()

    def end(self):
        """There is no server."""


class Postgres:
    """The other one, with a server of its own."""

    program = "psql"

    def __init__(self, stage):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.skip("no PostgreSQL")
        self.programs = found[-1].parent
        self.place = stage.lab.base / "postgres"
        self.place.mkdir()
        os.chown(self.place, NOBODY, NOBODY)
        stage.instead = re.search(r"^\.Ql (psql .*)\nin place of\n\.Ql (sqlite3 .*)$",
                                  GUIDE.read_text(encoding="utf-8"), re.M).groups()[::-1]
        stage.variables = {"PGHOST": str(self.place), "PGUSER": "postgres"}
        self.environment = stage.environment
        self.run("initdb", "-N", "-A", "trust", "-U", "postgres")
        self.run("pg_ctl", "-w", "-l", self.place / "log", "-o",
                 f"-F -c listen_addresses= -k {self.place}", "start")
        checked("createdb", "stock", env=self.environment)

    def run(self, name, *words):
        """A program of the server, which must not be root's."""
        checked("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                self.programs / name, "-D", self.place / "data", *words, cwd="/",
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, question):
        """What it answers."""
        return checked("psql", "-qtA", "-d", "stock", "-c", question, env=self.environment).strip()

    def end(self):
        """Ends the server."""
        self.run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(params=[Sqlite, Postgres])
def database(request, stage):
    """A database with the table of the example."""
    here = request.param(stage)
    column = re.search(r"^\.Ql (token BIGINT .*) \.$", GUIDE.read_text(encoding="utf-8"), re.M)
    try:
        here.ask(f"CREATE TABLE stock (article INTEGER, pieces INTEGER, {column.group(1)})")
        here.ask("INSERT INTO stock (article, pieces) VALUES (7, 10)")
        yield here
    finally:
        here.end()


def test_fenced_table(stage, database):
    """What comes late changes nothing in a database."""
    pieces = "SELECT pieces FROM stock"
    real = checked("sh", "-c", f"command -v {database.program}").strip()
    stage.program(database.program, f'kill -STOP $$; exec {real} "$@"')
    first = begin_and_break(stage, "fenced table", "stock", last_stands_still)
    (stage.programs / database.program).unlink()
    assert stage.run("fenced table").returncode == 0
    assert database.ask(pieces) == "9"
    os.killpg(first.pid, signal.SIGCONT)
    assert first.exit_status() == 1 and b"somebody else" in first.errors
    assert database.ask(pieces) == "9"


def test_etcd(stage):
    """etcd takes the options."""
    command, *options = stage.text("etcd").split()
    assert command == "etcd" and len(options) == 2
    server = stage.lab.own_etcd(extra=options)
    assert server.healthy()


def test_every_example_has_its_test():
    """No display of the guide stands there without having been run."""
    text = GUIDE.read_text(encoding="utf-8")
    assert text.count("\n.Bd ") == len(EXAMPLES) > 15
    source = Path(__file__).read_text(encoding="utf-8")
    for name in EXAMPLES:
        assert f'"{name}"' in source, name
    assert not [name for name, body in EXAMPLES.items() if "\\" in body]
