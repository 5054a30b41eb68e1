# SPDX-License-Identifier: MIT
"""A machine with a running systemd: namespaces of its own, on a copy of this machine's root.

Nothing of it is seen outside, and nothing outside is changed by it.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from support import PROGRAMS, children, run, wait_until

TARGET = """[Unit]
DefaultDependencies=no
Wants=etcd.service
"""
ETCD = """[Unit]
DefaultDependencies=no
[Service]
Type=notify
ExecStart=/usr/bin/etcd --data-dir /run/etcd
"""


def cgroups():
    """Where the unified hierarchy of control groups is mounted and this process in it, or None."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    found = re.search(r"^\S+ \S+ \S+ / (\S+) .* - cgroup2 ", text, re.M)
    own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(encoding="ascii"), re.M)
    return Path(found.group(1) + own.group(1)) if found and own else None


def lacks():
    """What this machine lacks for another one to run on it, None if nothing."""
    if not cgroups():
        return "no unified control groups"
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "no overlayfs"
    for need in "/lib/systemd/systemd", "/dev/autofs", "/usr/bin/etcd":
        if not Path(need).exists():
            return f"no {need}"
    return None


class Machine:
    """The machine; boot() it, end() it."""

    def __init__(self, directory):
        self.directory = directory
        self.files = directory / "files"
        self.cgroup = cgroups() / f"latchfs-test-{os.getpid()}"
        self.process = None
        for name in "files", "memory", "root":
            (directory / name).mkdir(parents=True)
        self.write("etc/systemd/system/test.target", TARGET)
        self.write("etc/systemd/system/etcd.service", ETCD)

    def write(self, path, text):
        """A file that it has in the beginning."""
        (self.files / path).parent.mkdir(parents=True, exist_ok=True)
        (self.files / path).write_text(text, encoding="utf-8")

    def install(self, path, source):
        """The same, a program of ours."""
        (self.files / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, self.files / path)

    def boot(self):
        """Starts it and waits until its etcd runs."""
        self.cgroup.mkdir()
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child",
                 "--mount", "--net", "--uts", "--ipc", "--cgroup", "--propagation", "private",
                 PROGRAMS / "machine", self.directory],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: (self.cgroup / "cgroup.procs").write_text("0", encoding="ascii"),
            )
        wait_until(lambda: self.run("systemctl", "is-active", "etcd").returncode == 0,
                   what=f"the machine boots, see {self.directory}/log")
        return self

    @property
    def first(self):
        """Its first process, None until that is systemd: before, it has our root, and our systemd."""
        for child in children(self.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if os.readlink(f"/proc/{child}/exe").endswith("/systemd"):
                    return child
        return None

    def run(self, *command, **options):
        """Runs a program there."""
        if self.first is None:
            return subprocess.CompletedProcess(command, 1, "", "")
        return run("nsenter", "-t", self.first, "-m", "-p", "-n", "-u", "-i", "-r", "-w", *command,
                   env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, **options)

    def checked(self, *command, **options):
        """The same, and it must work."""
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def show(self, unit, name):
        """A property of a unit."""
        return self.checked("systemctl", "show", "--value", "-p", name, unit).strip()

    def active(self, unit):
        """Whether a unit is active."""
        return self.show(unit, "ActiveState") == "active"

    def journal(self):
        """What was logged, its end."""
        return self.run("journalctl", "--no-pager", "-n", "40").stdout

    def mounted(self, path):
        """The type of what is mounted there, None if nothing is."""
        return self.run("findmnt", "-n", "-o", "FSTYPE", "-M", path).stdout.strip() or None

    def end(self):
        """Ends all of it."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        (self.cgroup / "cgroup.kill").write_text("1", encoding="ascii")
        wait_until(lambda: "populated 0" in
                   (self.cgroup / "cgroup.events").read_text(encoding="ascii"), what="its end")
        for path in sorted(self.cgroup.rglob("*/"), reverse=True):
            if path.is_dir():
                path.rmdir()
        self.cgroup.rmdir()
