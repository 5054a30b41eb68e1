# SPDX-License-Identifier: MIT
"""What latchfs does besides mounting: `latchfs status`, and what its commands have in common."""

import errno
import json
import os
import signal

import pytest

from etcdserver import Etcd
from mounting import BINARY, clean_environment
from support import checked, run, wait_until
from test_security import reaper_of
from test_status import text


def status(*words):
    """`latchfs status`: (exit status, output, errors)."""
    done = run(BINARY, "status", *words, env=clean_environment())
    return done.returncode, done.stdout, done.stderr


def test_page(pair, agent):
    """One page: the mount, its store, its lease, its locks, and who holds what others wait for."""
    one, two = agent(), agent()
    one.take(pair.b / "two words")
    one.take(pair.a / "free")
    two.begin("take", pair.a / "two words").await_waiting()
    pair.await_queue("two words", 2)
    code, page, errors = status(pair.a)
    assert (code, errors) == (0, "")
    lines = page.splitlines()
    assert lines[0] == f"{pair.a}: ok"
    assert f"process {pair.a.server}, calls itself host-a" in lines[1]
    assert lines[2].startswith("  runs    for 0 min ")
    assert f"  store   etcd, keys below {pair.lab.prefix}" in lines
    assert f"          {pair.lab.etcd.url} answers" in lines
    assert any(line.startswith("  lease   ") and " held; if not renewed, lost in " in line
               and line.endswith(" of 300.000 s") for line in lines)
    assert "  locks   1 held, 1 waited for, 0 lost" in lines
    since = pair.b.record("two words")["since"]
    assert lines[-1] == (f"  queues  1 wait for two\\040words, held by process {one.pid} (python3) "
                         f"on host-b since {since}")


def test_nobody_waits(lab):
    """Which the page says."""
    assert status(lab.mount())[1].splitlines()[-1] == "  queues  nobody waits, on any machine"


def test_json(lab):
    """The file as it is."""
    mount = lab.mount()
    code, output, errors = status("--json", mount)
    assert (code, errors) == (0, "")
    shown, there = json.loads(output), json.loads(text(mount, "status"))
    assert shown.keys() == there.keys()
    assert shown["options"] == there["options"] and shown["pid"] == mount.server
    assert status(mount, "--json")[0] == 0


def test_odd_names(lab):
    """Quotes and backslashes are shown as they are."""
    mount = lab.mount('name=q"u\\\\o')
    assert status(mount)[1].splitlines()[1].endswith(', calls itself q"u\\o')


def test_trouble(bare_lab):
    """The store is down: the page says so, and the exit status as well."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1").expect()
    server.kill()
    who = lab.agent()
    wait_until(lambda: who.error("stat", mount / "x") == errno.EIO and
               json.loads(text(mount, "status"))["state"] == "unreachable", what="it is known")
    code, page, errors = status(mount)
    assert (code, errors) == (2, "")
    lines = page.splitlines()
    assert lines[0] == f"{mount}: unreachable"
    assert f"          {server.url} does not answer" in lines
    assert any(line.startswith("          why: ") and server.url in line for line in lines)
    assert lines[-1] == "  queues  can't be had: Input/output error"
    assert status(mount, "--json")[0] == 2


@pytest.mark.parametrize("words", [(), ("-x", "/"), ("/", "/tmp"), ("--json",), ("--help", "/")])
def test_wrong_usage(words):
    """One line, and the exit status of what can't be known."""
    code, output, errors = status(*words)
    assert (code, output) == (1, "") and "usage: latchfs status" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("where", ["/", "/nonexistent", "/dev/null"])
def test_not_a_mount(where):
    """Neither is that."""
    code, output, errors = status(where)
    assert (code, output) == (1, "")
    assert errors == f"latchfs: error: {where}: no latchfs is mounted there\n"


def test_dead_mount(lab):
    """Of a daemon that died, and nobody has unmounted; what to do stands in the line."""
    mount = lab.mount()
    os.kill(reaper_of(mount), signal.SIGKILL)
    mount.kill()
    for words in (["status", mount], ["top", mount], ["-f", mount.source, mount]):
        done = run(BINARY, *words, env=clean_environment())
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
        assert f"{mount}: " in done.stderr and "has died; unmount it" in done.stderr
        assert "fusermount3 -u" in done.stderr
    checked("fusermount3", "-u", mount)


def test_mount_that_fails(bare_lab):
    """It names the command that says more."""
    url = Etcd(bare_lab.base).url
    done = run(BINARY, "-f", "-o", "timeout=1", url, bare_lab.base, env=clean_environment())
    assert done.returncode == 1
    assert done.stderr.startswith(f"latchfs: error: {url} can't be used: ")
    assert done.stderr.endswith(" (latchfs check says more)\n") and done.stderr.count("\n") == 1
