# SPDX-License-Identifier: MIT
"""The control group in a record: that of the holder, as the machine calls it."""

import json
import os
from pathlib import Path

import pytest

from containers import container, holding

SYSTEMD, VERSION_2, OTHER = "name=systemd", "", "pids"


def hierarchies():
    """Where control groups can be made; the name of the hierarchy as in /proc/PID/cgroup."""
    found = {}
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2":
            found[VERSION_2] = Path(place)
        elif kind == "cgroup":
            found.update((name, Path(place)) for name in (SYSTEMD, OTHER)
                         if name in options.split(","))
    return {name: place for name, place in found.items() if os.access(place, os.W_OK)}


class Groups:
    """Control groups that a test makes."""

    def __init__(self):
        self.roots = hierarchies()
        self.made = []

    def move(self, pid, group):
        """Puts a process into a group."""
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def to_roots(self, pid):
        """Puts a process into no group but the roots."""
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, place, kind = line.split()[:3]
            if kind in ("cgroup", "cgroup2"):
                self.move(pid, Path(place))

    def make(self, hierarchy, *names):
        """A group, and one in that for each name."""
        if hierarchy not in self.roots:
            pytest.skip(f"no control groups can be made in {hierarchy or 'version 2'} here")
        group = self.roots[hierarchy] / f"latchfs-test-{os.getpid()}"
        for name in "", *names:
            group = group / name
            group.mkdir()
            self.made.append((group, self.roots[hierarchy]))
        return group

    def end(self):
        """Removes them all; who is in one goes to its root."""
        for group, root in reversed(self.made):
            for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                self.move(pid, root)
            group.rmdir()


@pytest.fixture
def groups(lab):
    """They are ended before the lab, whose processes may be in them."""
    here = Groups()
    yield here
    here.end()


def path_of(pid, hierarchy):
    """The group of a process in a hierarchy."""
    for line in Path(f"/proc/{pid}/cgroup").read_bytes().splitlines():
        _, name, path = line.split(b":", 2)
        if name.decode() == hierarchy:
            return path
    return None


def in_group(lab, groups, hierarchy, *names):
    """An agent in a group of one hierarchy alone, and the path of that."""
    agent = lab.agent()
    groups.to_roots(agent.pid)
    group = groups.make(hierarchy, *names)
    groups.move(agent.pid, group)
    path = path_of(agent.pid, hierarchy)
    assert path.endswith(os.fsencode(group.name)) and path.count(b"/") > len(names)
    return agent, path


@pytest.mark.parametrize("hierarchy", [VERSION_2, SYSTEMD, OTHER])
def test_group_of_a_holder(lab, groups, hierarchy):
    """The record, the attributes and etcd have it, of whichever hierarchy it is."""
    a, b = lab.mount(name="a"), lab.mount(name="b")
    agent, path = in_group(lab, groups, hierarchy, "service")
    agent.take(a / "x")
    assert b.record("x")["cgroup"] == a.record("x")["cgroup"] == path.decode()
    assert b.holder("x")["cgroup"] == b.queue("x")[0]["cgroup"] == path.decode()
    assert json.loads(lab.keys("x")[0].value)["cgroup"] == path.decode()


def test_systemds_hierarchy_is_asked_first(lab, groups):
    """Where version 1 is used beside version 2, containers are sure to be in that one."""
    mount = lab.mount()
    agent, _ = in_group(lab, groups, VERSION_2)
    groups.move(agent.pid, groups.make(SYSTEMD, "named"))
    agent.take(mount / "x")
    assert mount.record("x")["cgroup"].endswith("/named")


def test_root_is_not_told(lab, groups):
    """Who is in no group has no such line."""
    mount = lab.mount()
    agent = lab.agent()
    groups.to_roots(agent.pid)
    agent.take(mount / "x")
    assert "cgroup" not in mount.record("x") and "cgroup" not in mount.holder("x")


def test_odd_names(lab, groups):
    """What is not printable is a question mark, and of a long path there is the end."""
    mount = lab.mount()
    agent, path = in_group(lab, groups, VERSION_2, os.fsdecode(b"a\x01\xff b=\xc3\xa4"))
    agent.take(mount / "x")
    name = path.rpartition(b"/")[0].decode() + "/a?? b=ä"
    assert mount.record("x")["cgroup"] == mount.holder("x")["cgroup"] == name
    agent.kill()
    groups.end()
    groups.made.clear()
    agent, path = in_group(lab, groups, VERSION_2, *(letter * 100 for letter in "abcdef"))
    agent.take(mount / "y")
    assert mount.record("y")["cgroup"] == "..." + path[-508:].decode()


def test_group_of_a_container(lab, groups):
    """A container does not see the group that it is in, but the machine does."""
    mount = lab.mount("allow_other")
    group = groups.make(next(name for name in (SYSTEMD, VERSION_2, OTHER) if name in groups.roots),
                        "container")
    enter = ["sh", "-c", 'echo $$ >"$0"; exec "$@"', group / "cgroup.procs"]
    words = ["sh", "-c", 'cat /proc/self/cgroup >&2; exec "$@"', "sh", *holding("x")]
    holder = lab.holder(*enter, *container(mount), *words).await_held()
    assert mount.record("x")["cgroup"].endswith("/container")
    assert b"/container" not in holder.errors and b":/\n" in holder.errors
