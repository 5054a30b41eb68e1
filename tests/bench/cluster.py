# SPDX-License-Identifier: MIT
"""What a measurement runs on: fresh servers, mounts and load programs, all of which it ends."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

# These are the test suite's, in the directory that was just added.
from children import end_group
from etcdserver import Etcd, etcd_version
from mounting import BINARY, Mount
from support import REPOSITORY, free_port, run, wait_until

PROGRAMS = Path(os.environ.get("LATCHFS_BENCH_PROGRAMS", ""))
PREFIX = "/latchfs"
NAMES = ("one", "two", "three", "four", "five", "six", "seven")


class Failed(Exception):
    """A measurement that could not be made."""


class Cluster:
    """One or more members with fresh data."""

    def __init__(self, directory, binary, size):
        self.members = [Etcd(directory, name, binary=binary) for name in NAMES[:size]]
        initial = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.initial = initial

    def __enter__(self):
        try:
            for member in self.members:
                member.launch()
            for member in self.members:
                wait_until(member.healthy, what=f"etcd answers, see {member.log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused):
        for member in self.members:
            member.remove()

    @property
    def url(self):
        """All client URLs."""
        return ",".join(member.url for member in self.members)

    def pids(self):
        """The processes."""
        return [member.process.pid for member in self.members]

    def count(self, prefix):
        """How many keys there are."""
        return self.members[0].count(prefix)

    def renewals(self):
        """How many requests to keep a lease alive the members have received."""
        pattern = re.compile(
            r'^grpc_server_msg_received_total\{grpc_method="LeaseKeepAlive".*\} (\S+)$', re.M)
        total = 0
        for member in self.members:
            with member.request("/metrics") as answer:
                total += sum(float(n) for n in pattern.findall(answer.read().decode()))
        return int(total)


class Program:
    """A program that is ended with all it has started."""

    def __init__(self, *command, **options):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(
            self.command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, **options,
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        end_group(self.process)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def check(self, code, errors):
        """Fails unless it did what it should."""
        if code != 0:
            raise Failed(f"{' '.join(self.command)}: {code}\n{errors[-2000:]}")


class Stage:
    """The servers and mounts of one measurement, in a directory of their own."""

    def __init__(self, setup, options):
        self.setup = setup
        self.options = options
        self.ends = contextlib.ExitStack()
        self.mounts = []

    def __enter__(self):
        with contextlib.ExitStack() as ends:
            self.directory = Path(tempfile.mkdtemp(prefix="latchfs-bench-"))
            ends.callback(shutil.rmtree, self.directory, ignore_errors=True)
            (self.directory / "local").mkdir()
            self.cluster = ends.enter_context(
                Cluster(self.directory, self.setup.binary, self.setup.members))
            self.ends = ends.pop_all()
        return self

    def __exit__(self, kind, *rest):
        # After a failure mounts are ended by force: their daemon may be what failed.
        try:
            if kind is None:
                for mount in self.mounts:
                    mount.stop()
                    mount.check()
            elif issubclass(kind, Exception):
                for mount in self.mounts:
                    print(f"{mount.log_path.name}:\n{mount.log()[-2000:]}", file=sys.stderr)
        finally:
            for mount in self.mounts:
                mount.destroy()
            self.ends.close()

    @property
    def local(self):
        """A directory on the local file system."""
        return self.directory / "local"

    def mount(self, number=0):
        """The first, second, ... mount, which stand for machines."""
        while len(self.mounts) <= number:
            name = f"mount{len(self.mounts)}"
            mount = Mount(self.cluster.url + PREFIX, self.directory / name, f"name={name}")
            self.mounts.append(mount)
            mount.start()
        return self.mounts[number]

    def redis(self):
        """The port of a Redis that keeps nothing on disk."""
        port = free_port()
        command = ("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
                   "--appendonly", "no", "--dir", self.directory, "--logfile", "redis.log")
        self.ends.enter_context(Program(*command, stdin=subprocess.DEVNULL))
        wait_until(lambda: run("redis-cli", "-p", port, "ping").returncode == 0, what="redis")
        return port

    def run(self, name, *words):
        """Runs one of our programs; the lines of JSON it prints."""
        limit = 120 + 20 * self.options.seconds
        environment = {**os.environ, "ETCDCTL_API": "3"}
        with Program(PROGRAMS / name, *words, stdin=subprocess.DEVNULL, env=environment) as program:
            try:
                output, errors = program.process.communicate(timeout=limit)
            except subprocess.TimeoutExpired as error:
                raise Failed(f"{' '.join(program.command)}: takes too long") from error
            program.check(program.process.returncode, errors)
        return [json.loads(line) for line in output.splitlines()]
