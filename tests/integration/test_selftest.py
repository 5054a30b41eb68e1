# SPDX-License-Identifier: MIT
"""`latchfs selftest`: it tells locks that exclude each other from those that do not."""

import os
import re
import signal
import subprocess

import pytest

from mounting import BINARY, clean_environment
from support import SOON, Stopwatch, checked, run, wait_until

NOBODY = 65534
TESTS = 14


def selftest(*words, **options):
    """`latchfs selftest`: (exit status, lines of the output, errors)."""
    done = run(BINARY, "selftest", *words, env=clean_environment(), timeout=80, **options)
    return done.returncode, done.stdout.splitlines(), done.stderr


def verdicts(lines):
    """The first words of all lines but the last."""
    return [line.split()[0] for line in lines[:-1]]


@pytest.fixture
def tmpfs(lab):
    """Two file systems that have nothing to do with each other."""
    places = []
    for name in ("one", "two"):
        place = lab.base / name
        place.mkdir()
        checked("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", place)
        places.append(place)
    yield places
    for place in places:
        checked("umount", place)


def test_one_mount(lab):
    """Everything is good, and nothing is left."""
    mount = lab.mount()
    code, lines, errors = selftest(mount)
    assert (code, errors) == (0, "")
    assert verdicts(lines) == ["ok"] * TESTS
    assert lines[-1] == "locks there exclude each other"
    assert lab.etcd.keys(lab.prefix) == [] and os.listdir(mount.path) == []


def test_directory_in_a_mount(pair):
    """Not only at the root."""
    os.mkdir(pair.a / "jobs")
    code, lines, errors = selftest(pair.a / "jobs", pair.b / "jobs")
    assert (code, errors) == (0, "") and verdicts(lines) == ["ok"] * TESTS
    os.rmdir(pair.b / "jobs")


def test_two_mounts(pair):
    """As if on two machines."""
    code, lines, errors = selftest(pair.a, pair.b)
    assert (code, errors) == (0, "")
    assert verdicts(lines) == ["ok"] * TESTS
    assert lines[-1] == "locks in these directories exclude each other"
    assert pair.lab.etcd.keys(pair.lab.prefix) == []


def test_plain_user(lab):
    """Who may make a directory can test."""
    mount = lab.mount("allow_other")
    code, lines, errors = selftest(mount, user=NOBODY, group=NOBODY, extra_groups=[])
    assert (code, errors) == (0, "") and verdicts(lines) == ["ok"] * TESTS
    assert lab.etcd.keys(lab.prefix) == []


@pytest.mark.parametrize("policies", ["hold=name", "dirs=lease", "record=no"])
def test_policies(lab, policies):
    """These policies of the mount do not matter."""
    code, lines, errors = selftest(lab.mount(policies))
    assert (code, errors) == (0, "") and verdicts(lines) == ["ok"] * TESTS
    assert lab.etcd.keys(lab.prefix) == []


@pytest.mark.parametrize("policy", ["open=lock", "names=always"])
def test_policies_that_matter(lab, policy):
    """Where every name exists no directory can be made; but in one without the policy."""
    mount = lab.mount(policy)
    code, lines, errors = selftest(mount)
    assert (code, lines) == (1, []) and "names=always or open=lock; give one without" in errors
    assert errors.count("\n") == 1


def test_two_prefixes(lab):
    """Two mounts that share nothing."""
    one, two = lab.mount(), lab.mount(prefix=f"{lab.prefix}/other")
    code, lines, _ = selftest(one, two)
    assert code == 1 and verdicts(lines) == ["failed"] * (TESTS - 1) + ["ok"]  # tokens do grow
    assert lines[-1] == (f"{TESTS - 1} of {TESTS} tests failed: do not rely on locks between these "
                         "directories")
    assert lab.etcd.keys(lab.prefix) == []


def test_unrelated_directories(tmpfs):
    """Locks of two local file systems do not exclude each other, in no way."""
    code, lines, errors = selftest(*tmpfs)
    assert (code, errors) == (1, "")
    assert verdicts(lines) == ["failed"] * (TESTS - 1) + ["skipped"]
    assert 'open(O_CREAT|O_EXCL) gave "success" instead of "File exists"' in lines[0]
    assert sum("met another holder" in line for line in lines) == 3
    assert f"{tmpfs[1]}: " in lines[0]
    assert [os.listdir(place) for place in tmpfs] == [[], []]


def test_local_directory(tmpfs):
    """Within one they do, on this machine; who waits longest need not be the next."""
    code, lines, errors = selftest(tmpfs[0])
    assert (code, errors) == (0, "")
    assert set(verdicts(lines)) <= {"ok", "note", "skipped"}
    assert verdicts(lines).count("ok") >= TESTS - 2
    assert lines[-1].endswith("on this machine: it is no latchfs")
    assert os.listdir(tmpfs[0]) == []


def test_store_down(bare_lab):
    """Nothing can be tried: one line, and soon."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1").expect()
    server.kill()
    watch = Stopwatch()
    code, lines, errors = selftest(mount)
    assert (code, lines) == (1, []) and watch.seconds < SOON
    assert errors.startswith(f"latchfs: error: {mount}/latchfs-selftest.")
    assert errors.endswith(": Input/output error\n") and errors.count("\n") == 1


def test_store_goes_away(bare_lab):
    """Tests fail, each in its time, and what can't be removed is named."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1", ttl=300).expect()
    process = subprocess.Popen([str(BINARY), "selftest", str(mount)], env=clean_environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("ok")
    server.kill()
    output, errors = process.communicate(timeout=80)
    assert process.returncode == 1
    assert "failed" in output and "do not rely on locks there" in output
    assert re.search(r"warning: .*/latchfs-selftest\..* is left behind: ", errors)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(lab, number):
    """It cleans up first."""
    mount = lab.mount()
    process = subprocess.Popen([str(BINARY), "selftest", str(mount)], env=clean_environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("ok")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and errors == "latchfs: error: interrupted\n"
    wait_until(lambda: lab.etcd.keys(lab.prefix) == [], what="nothing is left")


def test_nobody_reads(lab):
    """Nothing is left then, either."""
    mount = lab.mount()
    process = subprocess.Popen([str(BINARY), "selftest", str(mount)], env=clean_environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1
    assert lab.etcd.keys(lab.prefix) == [] and os.listdir(mount.path) == []


@pytest.mark.parametrize("words", [(), ("-x",), ("--help",), ("/tmp", "/tmp", "/tmp")])
def test_wrong_usage(words):
    """One line."""
    code, lines, errors = selftest(*words)
    assert (code, lines) == (1, []) and "usage: latchfs selftest" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("where", ["/nonexistent", "/proc"])
def test_no_place(where):
    """Where nothing can be made it says so."""
    code, lines, errors = selftest(where)
    assert (code, lines) == (1, [])
    assert errors.startswith(f"latchfs: error: {where}/latchfs-selftest.")
