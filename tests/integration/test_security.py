# SPDX-License-Identifier: MIT
"""TLS with client certificates, users and passwords, and that no secret ever gets out."""

import errno
import os
import re
import shutil
import signal
import time
from fcntl import F_RDLCK, F_SETLK, F_SETLKW, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
from pathlib import Path

import pytest

from conftest import Pair
from mounting import BINARY, PLAIN_BINARY, clean_environment, daemons_of
from support import PATIENCE, SOON, Stopwatch, checked, gone, run, wait_until
from test_permissions import ALICE, NOBODY, daemon_of

RW = os.O_RDWR | os.O_CREAT
EXCL = RW | os.O_EXCL
TRY = LOCK_EX | LOCK_NB
SECRET = "s3cret-pass word"


def refused(lab, options, environment=None, url=None, **extra):
    """A mount that must fail: one plain line, non-zero, in time, and nothing mounted."""
    mount = lab.mount(f"timeout=3{options}", start=False, url=url, environment=environment, **extra)
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


@pytest.mark.core
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


def test_cacert_is_instead_of_what_the_system_trusts(tls_lab, certificates):
    """etcd's authority is one of the system's, and another is asked for: refused."""
    trusted = tls_lab.base / "certs"
    trusted.mkdir()
    number = checked("openssl", "x509", "-hash", "-noout", "-in", certificates.ca).strip()
    shutil.copy(certificates.ca, trusted / f"{number}.0")
    shutil.copy(certificates.ca, trusted / "ca-certificates.crt")
    inside = ["unshare", "-m", "sh", "-c",
              f'mount --bind {trusted} /etc/ssl/certs && exec "$@"', "sh"]
    own = f",cert={certificates.client_cert},key={certificates.client_key}"
    assert "certificate" in refused(
        tls_lab, f"{own},cacert={certificates.other_ca}", wrapper=inside)
    source = f"{tls_lab.etcd.url}{tls_lab.prefix}"
    trusting = run(*inside, BINARY, "check", "-o", own[1:], source, env=clean_environment())
    assert trusting.returncode == 0, trusting.stderr


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


@pytest.mark.parametrize("name, hosts, url", [
    ("etcd", "DNS:etcd.example,IP:127.0.0.2", "127.0.0.1"), ("127.0.0.1", "DNS:etcd", "127.0.0.1"),
    ("localhost", "DNS:localhost.example,IP:127.0.0.1", "localhost"),
])
def test_tls_for_another_host_is_refused(bare_lab, certificates, name, hosts, url):
    """A certificate of our authority, but for another name or address, whatever its CN says."""
    server = bare_lab.own_etcd(tls=certificates.served_as(name, hosts))
    line = refused(bare_lab, f",{credentials(certificates)}", url=f"https://{url}:{server.port}")
    assert re.search(r"name .*match", line), line


def test_tls_goes_by_the_name_in_the_url(bare_lab, certificates):
    """The name that was asked for counts, not the address; at every later connection too."""
    right = certificates.served_as("right", "DNS:localhost")
    server = bare_lab.own_etcd(tls=right)
    mount = bare_lab.mount(f"timeout=2,{credentials(certificates)}",
                           url=f"https://localhost:{server.port}").expect()
    one = bare_lab.agent()
    fd = one.take(mount / "x")
    server.kill()
    server.tls = certificates.served_as("wrong", "DNS:localhost.example,IP:127.0.0.1")
    server.start()
    assert one.error("fsync", fd) == errno.EIO
    wait_until(lambda: "name" in mount.log(), SOON, "the reason is told")
    server.kill()
    server.tls = right
    server.start()
    wait_until(lambda: one.error("fsync", fd) == 0, what="the right one is trusted again")


def test_plain_http_to_a_tls_server(tls_lab):
    """http to a server that speaks https is refused in time."""
    refused(tls_lab, "", url=tls_lab.etcd.url.replace("https", "http"))


# Users.


@pytest.fixture
def auth_lab(bare_lab):
    """A lab whose etcd wants to know who is there; user locker may use the prefix."""
    return wants_login(bare_lab)


def wants_login(bare_lab, **options):
    """The same, with an etcd of these options."""
    server = bare_lab.own_etcd(**options)
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


@pytest.mark.core
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


@pytest.mark.core
def test_wrong_password_is_refused(auth_lab):
    """A wrong password, no password, no such user, an unreadable file: no mount."""
    wrong = secret_file(auth_lab, "wrong")
    refused(auth_lab, f",user=locker,password_file={wrong}")
    refused(auth_lab, f",user=nobody,password_file={secret_file(auth_lab)}")
    refused(auth_lab, ",user=locker,password_file=/nonexistent/password")
    refused(auth_lab, "")


@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
def test_token_of_a_second(bare_lab):
    """Tokens that live for a second are fetched again and again, whoever holds or waits."""
    lab = wants_login(bare_lab, extra=["--auth-token-ttl", "1"])
    pair = Pair(lab, login(lab))
    one, two = lab.agent(), lab.agent()
    fd = one.take(pair.a / "x")
    two.begin("take", pair.b / "x")
    lab.await_keys("x", 2)
    logins = lab.etcd.handled("Authenticate")
    for number in range(3):
        time.sleep(2.5)  # nobody asks for anything, so the token grows old
        one.fsync(fd)
        assert lab.etcd.handled("Authenticate") > logins + number
    assert not two.ready()
    one.close(fd)
    two.close(two.finish(PATIENCE))
    exercise(lab, pair)


@pytest.mark.core
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


@pytest.mark.core
def test_a_refused_name_fails_alone(auth_lab, programs):
    """One name that etcd's user may not write, asked for among many that it may."""
    lab, etcd = auth_lab, auth_lab.etcd
    etcd.etcdctl("role", "revoke-permission", "locks", "--prefix=true", lab.prefix)
    for permission, place in (("read", ""), ("readwrite", "/.latchfs.session/"), ("readwrite", "/0"),
                              ("readwrite", "/1")):
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


# What etcd lets a user do.


def use_everything(lab, pair):
    """All that a mount is for; the other mount hears of it."""
    one, two = lab.agent(), lab.agent()
    os.makedirs(pair.a / "d/e")
    for place in "", "d/e/":
        for kind in LOCK_EX, LOCK_SH, TRY:
            fd = one.take(pair.a / f"{place}x", kind)
            assert one.pread(fd, 999, 0).startswith(b"token=")
            one.fsync(fd)
            two.begin("take", pair.b / f"{place}x")
            pair.await_queue(f"{place}x", 2)
            one.close(fd)
            two.close(two.finish(SOON))
            pair.await_queue(f"{place}x", 0)
        fd = one.open(pair.a / f"{place}y", EXCL)
        one.write(fd, b"mine\n")
        assert Path(pair.b / f"{place}y").read_bytes() == b"mine\n"
        assert "y" in pair.b.names(place or ".")
        one.unlink(pair.a / f"{place}y")
        one.control(fd, F_SETLKW, F_WRLCK)
        assert two.getlk(two.open(pair.b / f"{place}y", os.O_RDWR), F_RDLCK)[0] == F_WRLCK
        one.close(fd)
    os.chmod(pair.a / "d", 0o711)
    os.setxattr(pair.a / "d", "user.latchfs.record", b"no")
    assert os.stat(pair.b / "d").st_mode & 0o777 == 0o711
    fd = one.take(pair.a / "d/x")
    os.setxattr(pair.b / "d/x", "user.latchfs.break", b"%d" % pair.b.holder("d/x")["token"])
    wait_until(lambda: one.error("fsync", fd) == errno.EIO, SOON)
    one.close(fd)
    os.rmdir(pair.b / "d/e")
    wait_until(lambda: two.error("rmdir", pair.b / "d") == 0, SOON)


def test_a_user_of_one_prefix(auth_lab):
    """Read and write permission for what is below one prefix is enough for everything."""
    lab = auth_lab
    lab.etcd.etcdctl("role", "revoke-permission", "locks", "--prefix=true", lab.prefix)
    lab.etcd.etcdctl("role", "grant-permission", "locks", "--prefix=true", "readwrite",
                     f"{lab.prefix}/")
    watch = Stopwatch()
    pair = Pair(lab, login(lab), ttl=2)
    pair.a.expect("lock d/x .* was lost")
    one = lab.agent()
    fd = one.take(pair.a / "kept")
    lease = lab.keys("kept")[0].lease
    use_everything(lab, pair)
    # Once per TTL all our keys are compared with the lease's.
    wait_until(lambda: one.fsync(fd) is None and watch.seconds > 5)
    assert lab.keys("kept")[0].lease == lease
    pair.a.stop()
    pair.b.stop()
    assert not lab.etcd.count("/")


def test_a_user_who_may_only_read(auth_lab):
    """The mount works and shows everything; to lock or to change anything is EACCES."""
    lab, etcd = auth_lab, auth_lab.etcd
    for words in (["role", "add", "looks"], ["user", "grant-role", "stranger", "looks"],
                  ["role", "grant-permission", "looks", "--prefix=true", "read", lab.prefix]):
        etcd.etcdctl(*words)
    writer = lab.mount(login(lab), name="writer")
    reader = lab.mount(f"timeout=60,{login(lab, 'stranger')}", name="reader", ttl=2)
    reader.expect("etcd refuses: .*permission denied")
    one, two = lab.agent(), lab.agent()
    os.mkdir(writer / "d")
    held, content = one.take(writer / "d/x"), one.open(writer / "d/y", EXCL)
    one.write(content, b"text\n")
    assert reader.names() == ["d"] and reader.names("d") == ["x", "y"]
    assert "x" in checked("ls", "-l", reader / "d")
    assert reader.record("d/x")["host"] == "host-writer"
    assert Path(reader / "d/y").read_bytes() == b"text\n"
    assert len(reader.queue("d/x")) == 1 and reader.holder("d/x")["pid"] == one.pid
    keys = etcd.count("/")
    for path in reader / "d/x", reader / "d/free", reader / "top":
        fd = two.open(path, RW)
        for kind in LOCK_EX, LOCK_SH, TRY, LOCK_SH | LOCK_NB:
            assert two.error("flock", fd, kind) == errno.EACCES
        for command in F_SETLK, F_SETLKW:
            assert two.error("control", fd, command, F_WRLCK) == errno.EACCES
        assert two.getlk(fd, F_WRLCK)[0] == (F_WRLCK if path == reader / "d/x" else 2)
        two.flock(fd, LOCK_UN)
        two.close(fd)
    token = b"%d" % reader.holder("d/x")["token"]
    for call in (("open", reader / "new", EXCL), ("mkdir", reader / "new"),
                 ("chmod", reader / "d", 0),
                 ("setxattr", reader / "d", "user.latchfs.names", b"always"),
                 ("setxattr", reader / "d/x", "user.latchfs.break", token)):
        assert two.error(*call) == errno.EACCES, call
    assert two.error("unlink", reader / "d/x") == errno.EBUSY
    assert two.error("rmdir", reader / "d") in (errno.ENOTEMPTY, errno.EACCES)
    assert etcd.count("/") == keys
    one.fsync(held)
    one.close(held)
    wait_until(lambda: reader.names("d") == ["y"], SOON)


# Secrets.


def processes_of(mount):
    """All processes of a daemon."""
    return mount.pid, mount.server, reaper_of(mount)


def reaper_of(mount):
    """Who unmounts what is left."""
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "comm").read_text(encoding="utf-8") == "latchfs-reaper\n" and \
                    os.fsencode(mount.path) in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            pass
    raise AssertionError("there is no reaper")


@pytest.mark.parametrize("where", ["file", "environment", "user"])
def test_password_is_never_seen(auth_lab, where):
    """Not in the command line, the environment, of the children too, the mount table, the trace."""
    environment = {
        "file": {}, "environment": {"ETCDCTL_USER": "locker", "ETCDCTL_PASSWORD": SECRET},
        "user": {"ETCDCTL_USER": f"locker:{SECRET}"},
    }[where]
    options = login(auth_lab) if where == "file" else ""
    mount = auth_lab.mount(options, words=["-d"], environment=environment).expect(".")
    one = auth_lab.agent()
    fd = one.take(mount / "x")
    one.write(fd, b"content\n")
    places = [Path("/proc/self/mountinfo").read_bytes()]
    for pid in processes_of(mount):
        places += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    auth_lab.etcd.kill()
    auth_lab.etcd.start()
    wait_until(lambda: one.error("fsync", fd) == 0, what="it has logged in again")
    mount.stop()
    assert "FSYNC" in mount.log()
    for place in *places, mount.log().encode():
        assert b"s3cret" not in place and b"content" not in place
    # Nor is the token that etcd gives for it, which looks like this.
    assert not re.search(r"[A-Za-z]{16}\.\d+", mount.log())


@pytest.mark.parametrize("user", [True, False], ids=["user", "-"])
@pytest.mark.parametrize("password", [True, False], ids=["password", "-"])
def test_a_newer_program_that_is_asked_is_told_no_password(auth_lab, user, password):
    """
    Whether it can go on it says without, be user and password in the environment or in options; the
    one that goes on logs in.
    """
    binary, dump = auth_lab.base / "latchfs", auth_lab.base / "dump"
    shutil.copy(BINARY, binary)
    environment = {**({"ETCDCTL_USER": "locker"} if user else {}),
                   **({"ETCDCTL_PASSWORD": SECRET} if password else {})}
    options = [*([] if user else ["user=locker"]),
               *([] if password else [f"password_file={secret_file(auth_lab)}"])]
    mount = auth_lab.mount(
        ",".join(options), binary=binary, environment=environment).expect("replaced")
    wait_until(lambda: "mounted at" in mount.log())
    one = auth_lab.agent()
    fd = one.take(mount / "x")
    newer = auth_lab.scratch(f"#!/bin/sh\nenv >{dump}\nexit 1\n")
    newer.chmod(0o755)
    os.rename(newer, binary)
    mount.signal(signal.SIGUSR1)
    wait_until(lambda: "it is not replaced" in mount.log())
    assert "PATH=" in dump.read_text(encoding="utf-8")
    assert "s3cret" not in dump.read_text(encoding="utf-8")
    shutil.copy(BINARY, auth_lab.base / "again")
    os.rename(auth_lab.base / "again", binary)
    server = mount.server
    mount.signal(signal.SIGUSR1)
    wait_until(lambda: mount.server not in (None, server))
    one.fsync(fd)
    assert auth_lab.agent().error("take", mount / "y") == 0


def test_password_file_that_others_may_read(auth_lab):
    """It is used, and the log has a warning."""
    path = secret_file(auth_lab)
    path.chmod(0o640)
    mount = auth_lab.mount(f"user=locker,password_file={path}", start=False)
    mount.expect("others may read").start()
    wait_until(lambda: "warning: others may read the password file" in mount.log(), SOON)
    path.chmod(0o600)
    other = auth_lab.mount(f"user=locker,password_file={path}")
    wait_until(lambda: "mounted at" in other.log(), SOON)


def test_wrong_password_is_not_told(auth_lab):
    """One that is refused may be the right one of something else."""
    path = secret_file(auth_lab, SECRET + "2")
    mount = auth_lab.mount(f"timeout=3,user=locker,password_file={path}", words=["-d"], start=False)
    mount.path.mkdir()
    done = run(*mount.command(), env=clean_environment())
    auth_lab.mounts.remove(mount)
    assert done.returncode == 1 and "authentication failed" in done.stderr
    assert "s3cret" not in done.stderr


KNOWING = ["user=locker,password_file={secret}", "cert={plain},key={plain}"]


def mount_knowing(lab, options, **extra):
    """A mount that has been told a secret, which its etcd does not ask for."""
    secret, plain = secret_file(lab), lab.scratch("not looked at")
    os.chown(secret, NOBODY, NOBODY)
    mount = lab.mount(options.format(secret=secret, plain=plain), start=False, binary=PLAIN_BINARY,
                      **extra)
    mount.path.mkdir()
    os.chown(mount.path, NOBODY, NOBODY)
    return mount.start()


@pytest.mark.parametrize("options", ["", *KNOWING], ids=["nothing", "password", "key"])
def test_others_of_its_user_can_not_look_into_it(lab, options):
    """What knows a secret is not dumpable, so that what /proc tells of it belongs to root."""
    mount = mount_knowing(lab, options, wrapper=daemon_of(NOBODY, NOBODY))
    for pid in processes_of(mount):
        assert os.stat(f"/proc/{pid}/environ").st_uid == (0 if options else NOBODY)
    user = lab.agent(user=NOBODY, group=NOBODY, extra_groups=[])
    assert user.attempt(mount / "x")


@pytest.mark.parametrize("options", ["", *KNOWING], ids=["nothing", "password", "key"])
def test_no_core_holds_a_secret(lab, options):
    """What knows a secret leaves no core when it dies; what knows none does."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8")
    if pattern[0] in "|/":
        pytest.skip("cores of this machine go somewhere else")
    place = lab.base / "cores"
    place.mkdir()
    wrapper = ["prlimit", "--core=unlimited", "env", "-C", place]
    mount = mount_knowing(lab, options, wrapper=wrapper)
    assert lab.agent().attempt(mount / "x")
    mount.expect("another one goes on").expected_exit = -signal.SIGABRT
    server = mount.server
    os.kill(server, signal.SIGABRT)
    wait_until(lambda: mount.server not in (None, server), what="another one goes on")
    assert bool(list(place.iterdir())) == (not options)
    for core in place.iterdir():
        core.unlink()
    mount.signal(signal.SIGABRT)
    mount.wait_exit(SOON)
    assert bool(list(place.iterdir())) == (not options)


HARDENED = [
    "setpriv", "--no-new-privs", "--inh-caps=-all",
    "--bounding-set=-all,+sys_admin,+ipc_lock,+kill,+sys_ptrace", "prlimit", "--core=0",
]


def test_with_few_rights(lab):
    """With the few capabilities that the manual names: locks, signals at a loss, and unmounts."""
    mount = lab.mount("allow_other,on_loss=kill", wrapper=HARDENED, binary=PLAIN_BINARY).expect()
    status = Path(f"/proc/{mount.server}/status").read_text(encoding="ascii")
    rights = int(re.search(r"CapEff:\s+(\w+)", status).group(1), 16)
    assert rights == sum(1 << number for number in (5, 14, 19, 21))  # as of linux/capability.h
    assert re.search(r"NoNewPrivs:\s+1", status) and not re.search(r"VmLck:\s+0 kB", status)
    alice, one = lab.agent(user=ALICE, group=ALICE), lab.agent()
    alice.take(mount / "x")
    child = alice.fork_and_wait()
    os.setxattr(mount / "x", "user.latchfs.break", b"%d" % mount.holder("x")["token"])
    wait_until(lambda: alice.ended() == -signal.SIGKILL and gone(child), SOON, "both are killed")
    one.take(mount / "y")
    mount.kill()
    wait_until(lambda: not mount.mounted(), SOON, "the reaper unmounts")


def test_password_option_is_refused(lab):
    """There is no way to give a password on the command line."""
    line = refused(lab, f",user=locker,password={SECRET.replace(' ', '')}")
    assert "s3cret" not in line
