# SPDX-License-Identifier: MIT
"""Containers as people have them, by podman: users, processes and control groups of their own."""

import itertools
import json
import os
import re
import resource
import shutil

import pytest

from containers import attempt, holding
from mounting import PLAIN_BINARY, clean_environment
from support import REPOSITORY, SOON, checked, run, wait_until

CONTRIB = REPOSITORY / "contrib/container"
PLACE = "/run/latchfs"
FIRST_USER = 100000
OWN_USERS = ["--uidmap", f"0:{FIRST_USER}:65536", "--gidmap", f"0:{FIRST_USER}:65536"]
# On a machine with both versions of control groups it would not know which to use.  What is mounted
# in a container goes on to the machine.
IN_ORDER = """
both=/sys/fs/cgroup/unified
if mountpoint -q $both; then mount --make-rprivate /sys/fs/cgroup && umount -l $both; fi
exec podman "$@"
"""


class Podman:
    """Its containers have the machine's /usr, and otherwise an empty root directory."""

    def __init__(self, base):
        self.base = base
        self.root = base / "root"
        # Root in a container with users of its own can't make these.
        for name in "usr", "opt", "proc", "sys", "dev", "etc", "tmp", "locks", PLACE[1:]:
            (self.root / name).mkdir(parents=True)
        for name in "hosts", "hostname", "resolv.conf":
            (self.root / "etc" / name).touch()
        (self.root / "run/.containerenv").touch()
        for name in "bin", "lib", "lib64", "sbin":
            (self.root / name).symlink_to(f"usr/{name}")
        shutil.copy(PLAIN_BINARY, self.root / "opt/latchfs")
        shutil.copy(CONTRIB / "entrypoint", self.root / "opt/latchfs-container")
        self.numbers = itertools.count(1)
        self.names = []

    def words(self, *words):
        """A command of podman's, with places of its own."""
        places = [word for name in ("root", "runroot", "tmpdir")
                  for word in (f"--{name}", str(self.base / f"podman-{name}"))]
        return ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", IN_ORDER, "sh", *places,
                "--storage-driver", "vfs", "--events-backend", "none", "--cgroup-manager",
                "cgroupfs", "--log-level", "error", *map(str, words)]

    def run(self, *options, network="none"):
        """The words before a command that runs it in a new container."""
        self.names.append(f"latchfs-test-{os.getpid()}-{next(self.numbers)}")
        return self.words(
            "run", "--rm", "-i", "--name", self.names[-1], f"--network={network}", "--ulimit",
            "nofile=20000:20000", "--ulimit", "nproc=10000:10000", "-v", "/usr:/usr:ro", *options,
            "--rootfs", self.root)

    def kill(self, number="KILL"):
        """Ends the container that was started last."""
        checked(*self.words("kill", "-s", number, self.names[-1]))

    def id(self):
        """The name that podman itself gives to the container that was started last."""
        return json.loads(checked(*self.words("inspect", self.names[-1])))[0]["Id"]

    def end(self):
        """Ends them all."""
        for name in self.names:
            run(*self.words("rm", "-f", "-i", name))


@pytest.fixture
def podman(lab):
    """Ended before the lab, whose mounts its containers have."""
    if not shutil.which("podman"):
        pytest.skip("no podman")
    here = Podman(lab.base)
    yield here
    here.end()


@pytest.fixture
def nodes(lab):
    """Two mounts, open to all users."""
    return lab.mount("allow_other", name="a"), lab.mount("allow_other", name="b")


def test_containers_exclude_each_other(lab, nodes, podman):
    """With users and processes of their own, on one machine and on two."""
    a, b = ([*OWN_USERS, "-v", f"{mount}:/locks"] for mount in nodes)
    holder = lab.holder(*podman.run(*a), *holding("x")).await_held()
    assert not attempt(podman.run(*a), "x")
    assert not attempt(podman.run(*b), "x")
    assert run("flock", "-n", nodes[0] / "x", "true").returncode == 1
    waiting = lab.holder(*podman.run(*b), *holding("x"))
    lab.await_keys("x", 2)
    assert holder.release() == 0
    waiting.await_held(SOON)
    assert not attempt(podman.run(*a), "x")


def test_record_and_kill(lab, nodes, podman):
    """A record names process, user and container; with the container its locks are gone."""
    a, b = nodes
    holder = lab.holder(*podman.run(*OWN_USERS, "-v", f"{a}:/locks"), *holding("x")).await_held()
    record = b.record("x")
    status = checked("cat", f"/proc/{record['pid']}/status")
    # In there it has a number of its own.
    assert re.search(rf"^NSpid:\t{record['pid']}\t\d+$", status, re.M)
    assert (record["command"], int(record["uid"])) == ("flock", FIRST_USER)
    assert podman.id() in record["cgroup"]
    podman.kill()
    wait_until(lambda: run("flock", "-n", b / "x", "true").returncode == 0, SOON, "it is free")
    assert holder.exit_status() == 128 + 9


# The daemon in a container, as the head of the Dockerfile says.


def advised():
    """The options which that gives to docker."""
    text = (CONTRIB / "Dockerfile").read_text(encoding="utf-8")
    text = re.search(r"^# +docker run -d --name latchfs ((?:.*\\\n)+.*)\n", text, re.M).group(1)
    options, image, rest = text.replace("\\\n#", " ").partition(" latchfs -o ")
    assert image and rest.split()[-1] == f"{PLACE}/locks"
    words = options.split()
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY:
        at = words.index("memlock=-1")  # may not be had here
        del words[at - 1:at + 1]
    return words


def test_daemon_in_a_container(lab, shared, podman):
    """It mounts for the machine and for containers, who see its successor when it was killed."""
    options = [word.replace(f"{PLACE}:", f"{shared}:", 1) for word in advised()]
    assert f"{shared}:{PLACE}:rshared" in options
    other = lab.mount("allow_other")

    def start():
        words = podman.run(*options, "-e", "PATH=/opt:/usr/bin:/bin:/usr/sbin", network="host")
        daemon = lab.holder(*words, "/opt/latchfs-container", "-o", "allow_other,ttl=2,name=box",
                            f"{lab.etcd.url}{lab.prefix}", f"{PLACE}/locks",
                            env=clean_environment())
        wait_until(lambda: os.path.ismount(shared / "locks") or daemon.fail_if_ended(),
                   what="it mounts")
        return daemon, podman.names[-1]

    daemon, name = start()
    # With users of its own crun would give it the directory without what is mounted there.
    job = lab.agent(wrapper=podman.run("--user", "1000:1000", "-v", f"{shared}:{PLACE}:rslave"))
    job.take(f"{PLACE}/locks/x")
    record = other.record("x")
    assert (record["host"], record["uid"]) == ("box", "1000")
    assert os.readlink(f"/proc/{record['pid']}/exe").startswith("/usr/bin/python3")
    assert podman.id() in record["cgroup"]
    for number in "KILL", "TERM":
        checked(*podman.words("kill", "-s", number, name))
        assert daemon.exit_status() == (137 if number == "KILL" else 0)
        wait_until(lambda: not os.path.ismount(shared / "locks"), SOON, "the mount is gone")
        daemon, name = start()
        job.take(f"{PLACE}/locks/y{number}")
        assert int(other.record(f"y{number}")["pid"]) == int(record["pid"])
    checked(*podman.words("kill", "-s", "TERM", name))
    assert daemon.exit_status() == 0
