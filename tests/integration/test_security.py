# SPDX-License-Identifier: MIT
"""TLS with client certificates, users and passwords, and that no secret ever gets out."""

import errno
import os
import signal
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN
from pathlib import Path

import pytest

from conftest import Pair
from mounting import BINARY, clean_environment, daemons_of
from support import PATIENCE, SOON, Stopwatch, gone, run, wait_until

RW = os.O_RDWR | os.O_CREAT
SECRET = "s3cret-pass word"


def refused(lab, options, environment=None, url=None):
    """A mount that must fail: one plain line, non-zero, in time, and nothing mounted."""
    mount = lab.mount(f"timeout=3{options}", start=False, url=url, environment=environment)
    mount.path.mkdir()
    watch = Stopwatch()
    done = run(*mount.command(), env=clean_environment(**(environment or {})))
    assert done.returncode > 0
    assert not mount.mounted()
    assert watch.seconds < 3 + SOON
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("latchfs: "), done.stderr
    assert SECRET not in done.stderr + done.stdout
    lab.mounts.remove(mount)
    mount.path.rmdir()
    return lines[0]


def exercise(lab, pair):
    """The mount really locks."""
    one, two = lab.agent(), lab.agent()
    fd = one.take(pair.a / "x")
    assert not two.attempt(pair.b / "x")
    one.fsync(fd)
    one.close(fd)
    wait_until(lambda: two.attempt(pair.b / "x"), SOON)


def secret_file(lab, text=SECRET):
    """A file with a password, for nobody else to read."""
    path = lab.scratch(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def tls_lab(bare_lab, certificates):
    """A lab whose etcd demands client certificates."""
    bare_lab.own_etcd(tls=certificates)
    return bare_lab


def credentials(tls):
    """The options for our certificate."""
    return f"cacert={tls.ca},cert={tls.client_cert},key={tls.client_key}"


def test_tls_with_client_certificate(tls_lab, certificates):
    """https with CA, client certificate and key, given as options."""
    exercise(tls_lab, Pair(tls_lab, credentials(certificates)))


def test_tls_from_the_environment(tls_lab, certificates):
    """The same from etcdctl's environment variables."""
    environment = {
        "ETCDCTL_CACERT": certificates.ca, "ETCDCTL_CERT": certificates.client_cert,
        "ETCDCTL_KEY": certificates.client_key,
    }
    exercise(tls_lab, Pair(tls_lab, environment=environment))


@pytest.mark.parametrize("change", [
    {"cacert": "other"}, {"cacert": "/nonexistent/ca.pem"}, {"cert": "/nonexistent/cert.pem"},
    {"key": "/nonexistent/key.pem"}, {"cert": None, "key": None}, {"cacert": None},
    {"key": "other"}, {"cert": "garbage"},
])
def test_tls_refusals(tls_lab, certificates, change):
    """A wrong, missing or unreadable certificate: a clear line, and no mount."""
    words = {"cacert": certificates.ca, "cert": certificates.client_cert,
             "key": certificates.client_key}
    known = {"other": certificates.other_ca if "cacert" in change else certificates.server_key,
             "garbage": str(tls_lab.scratch("garbage\n"))}
    words.update({name: known.get(value, value) for name, value in change.items()})
    options = "".join(f",{name}={value}" for name, value in words.items() if value)
    refused(tls_lab, options)


def test_relative_paths_in_the_background(tls_lab, certificates):
    """The files are found by a daemon that has left our directory, for new connections too."""
    path, home = tls_lab.base / "place", Path(certificates.ca).parent
    path.mkdir()
    options = ",".join(f"{name}={os.path.relpath(file, home)}" for name, file in (
        ("cacert", certificates.ca), ("cert", certificates.client_cert),
        ("key", certificates.client_key)))
    done = run(BINARY, "-o", options, f"{tls_lab.etcd.url}{tls_lab.prefix}", path, cwd=home,
               env=clean_environment(), timeout=60)
    try:
        assert done.returncode == 0, done
        tls_lab.etcd.kill()
        tls_lab.etcd.start()
        one = tls_lab.agent()
        wait_until(lambda: one.error("take", path / "x") == 0, PATIENCE)
    finally:
        for pid in daemons_of(path):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: gone(pid), SOON)


def test_plain_http_to_a_tls_server(tls_lab):
    """http to a server that speaks https is refused in time."""
    refused(tls_lab, "", url=tls_lab.etcd.url.replace("https", "http"))


# Users.


@pytest.fixture
def auth_lab(bare_lab):
    """A lab whose etcd wants to know who is there; user locker may use the prefix."""
    server = bare_lab.own_etcd()
    prefix = bare_lab.prefix
    for words in (
        ["user", "add", "root:rootpw"], ["user", "grant-role", "root", "root"],
        ["role", "add", "locks"],
        ["role", "grant-permission", "locks", "--prefix=true", "readwrite", prefix],
        ["user", "add", f"locker:{SECRET}"], ["user", "grant-role", "locker", "locks"],
        ["user", "add", f"stranger:{SECRET}"], ["auth", "enable"],
    ):
        server.etcdctl(*words)
    server.user = ("root", "rootpw")
    return bare_lab


def login(lab, name="locker"):
    """Options for a user."""
    return f"user={name},password_file={secret_file(lab)}"


def test_user_and_password_file(auth_lab):
    """user= with password_file=."""
    exercise(auth_lab, Pair(auth_lab, login(auth_lab)))


def test_password_file_with_a_newline(auth_lab):
    """The newline an editor leaves at the end does not belong to the password."""
    path = secret_file(auth_lab, SECRET + "\n")
    exercise(auth_lab, Pair(auth_lab, f"user=locker,password_file={path}"))


@pytest.mark.parametrize("environment", [
    {"ETCDCTL_USER": "locker", "ETCDCTL_PASSWORD": SECRET}, {"ETCDCTL_USER": f"locker:{SECRET}"},
])
def test_user_from_the_environment(auth_lab, environment):
    """etcdctl's variables, in both of its spellings."""
    exercise(auth_lab, Pair(auth_lab, environment=environment))


def test_wrong_password_is_refused(auth_lab):
    """A wrong password, no password, no such user, an unreadable file: no mount."""
    wrong = secret_file(auth_lab, "wrong")
    refused(auth_lab, f",user=locker,password_file={wrong}")
    refused(auth_lab, f",user=nobody,password_file={secret_file(auth_lab)}")
    refused(auth_lab, ",user=locker,password_file=/nonexistent/password")
    refused(auth_lab, "")


def test_user_without_permission_is_refused(auth_lab):
    """A user who may not touch the prefix is refused at the mount, or at the first lock."""
    mount = auth_lab.mount(f"timeout=3,{login(auth_lab, 'stranger')}", start=False).expect(".")
    mount.expected_exit = None
    mount.launch()
    wait_until(lambda: mount.mounted() or not mount.alive())
    if mount.alive():
        mount.expected_exit = 0
        assert auth_lab.agent().error("take", mount / "x") == errno.EACCES
    else:
        assert mount.process.returncode > 0
        assert not mount.mounted()


def test_token_expiry(auth_lab):
    """When etcd no longer knows our token (a restart loses it), a new one is fetched quietly."""
    pair = Pair(auth_lab, login(auth_lab))
    pair.a.expect()
    pair.b.expect()
    one, two = auth_lab.agent(), auth_lab.agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    auth_lab.await_keys("x", 2)
    auth_lab.etcd.kill()
    auth_lab.etcd.start()
    wait_until(lambda: one.error("fsync", fd) == 0, what="fsync with a new token")
    one.close(fd)
    two.close(two.finish(PATIENCE))
    exercise(auth_lab, pair)


def test_permission_taken_away(auth_lab):
    """A role revoked under a running mount: EACCES, not a lock and not a hang."""
    mount = auth_lab.mount(login(auth_lab)).expect()
    one = auth_lab.agent()
    fd = one.open(mount / "x", RW)
    one.flock(fd, LOCK_EX | LOCK_NB)
    one.flock(fd, LOCK_UN)
    auth_lab.etcd.etcdctl("user", "revoke-role", "locker", "locks")
    assert one.error("flock", fd, LOCK_EX | LOCK_NB) == errno.EACCES
    assert one.error("flock", fd, LOCK_EX) == errno.EACCES
    assert one.error("mkdir", mount / "d") == errno.EACCES
    auth_lab.etcd.etcdctl("user", "grant-role", "locker", "locks")
    wait_until(lambda: one.error("flock", fd, LOCK_EX | LOCK_NB) == 0)


def test_a_refused_name_fails_alone(auth_lab, programs):
    """One name that etcd's user may not write, asked for among many that it may."""
    lab, etcd = auth_lab, auth_lab.etcd
    etcd.etcdctl("role", "revoke-permission", "locks", "--prefix=true", lab.prefix)
    for permission, place in ("read", ""), ("readwrite", "/0"), ("readwrite", "/1"):
        etcd.etcdctl("role", "grant-permission", "locks", "--prefix=true", permission,
                     lab.prefix + place)
    mount = lab.mount(login(lab)).expect(".")
    crowd = lab.holder(programs["exclusion"], "16", "60", "2", mount)
    one, refused = lab.agent(), 0
    while crowd.process.poll() is None:
        assert one.error("take", mount / "7") == errno.EACCES
        refused += 1
    assert refused > 1
    assert crowd.exit_status() == 0, crowd.errors
    wait_until(lambda: not etcd.count(f"{lab.prefix}/"), what="no key is left")


def test_password_is_never_seen(auth_lab):
    """Neither the command line, nor the mount table, nor the log, not even with -d."""
    mount = auth_lab.mount(login(auth_lab), words=["-d"])
    assert auth_lab.agent().attempt(mount / "x")
    command = Path(f"/proc/{mount.pid}/cmdline").read_bytes().decode()
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    mount.stop()
    assert mount.log()
    for place in (command, table, mount.log()):
        assert SECRET not in place and "s3cret" not in place


def test_password_option_is_refused(lab):
    """There is no way to give a password on the command line."""
    line = refused(lab, f",user=locker,password={SECRET.replace(' ', '')}")
    assert "s3cret" not in line
