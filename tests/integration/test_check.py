# SPDX-License-Identifier: MIT
"""`latchfs check`: whether a mount would work, and nothing of it stays."""

import re
import signal
import subprocess

import pytest

from etcdserver import Cluster, Etcd, encode
from fakeetcd import Fake, garbage
from mounting import BINARY, clean_environment
from support import SOON, Stopwatch, run, wait_until
from test_security import SECRET, auth_lab, login, secret_file  # noqa: F401


def check(source, options="", *words, **environment):
    """`latchfs check`: (exit status, lines of the output, errors)."""
    command = [BINARY, "check", *words, *(["-o", options] if options else []), source]
    done = run(*command, env=clean_environment(**environment))
    return done.returncode, done.stdout.splitlines(), done.stderr


def source(lab, url=None):
    """What would be mounted."""
    return f"{url or lab.etcd.url}{lab.prefix}"


def lines_of(lines, verdict):
    """The lines of one kind, without the word."""
    return [line.split(None, 1)[1] for line in lines if line.split()[0] == verdict]


def one(lines, verdict, pattern):
    """The line of that kind with that pattern in it."""
    found = [line for line in lines_of(lines, verdict) if re.search(pattern, line)]
    assert len(found) == 1, (pattern, lines)
    return found[0]


def is_watch(head):
    """Whether a connection is for a watch, by its first bytes."""
    return b"/v3/watch" in head.split(b"\r\n")[0]


def left(server):
    """What a check could leave."""
    return server.leases(), server.keys("/")


@pytest.mark.core
def test_good(bare_lab):
    """Everything is asked, everything is good, and nothing is left."""
    lab = bare_lab
    server = lab.own_etcd()
    before = int(server.call("/v3/kv/range", key="AA==")["header"]["revision"])
    code, lines, errors = check(source(lab), "ttl=7,timeout=9,name=me,hold=name,allow_other")
    assert (code, errors) == (0, "")
    assert {line.split()[0] for line in lines} == {"ok"}
    one(lines, "ok", rf"^{server.url} answers: etcd 3\.\d+\.\d+, the leader, "
                     r"reads in \d+\.\d, \d+\.\d, \d+\.\d ms \(least, median, most\)$")
    one(lines, "ok", "^a lease of 7 s is granted as asked for$")
    one(lines, "ok", r"^a key below the prefix is written in \d+\.\d ms, deleted in \d+\.\d ms$")
    one(lines, "ok", r"^who waits hears of a release in \d+\.\d ms, by the watch$")
    one(lines, "ok", "^the lease is renewed$")
    one(lines, "ok", "^the lease is given back; nothing is left in etcd$")
    one(lines, "ok", f"^there is no key below {lab.prefix}/$")
    one(lines, "ok", "^a mount would be me in records, and ask etcd with ttl=7 timeout=9 .*, "
                     f"keys below {lab.prefix}/, with another process to go on if it dies$")
    one(lines, "ok", "^policies of its root, if that has none: hold=name$")
    one(lines, "ok", "^for FUSE, which was not asked about it: allow_other$")
    assert left(server) == (set(), [])
    # It did write, and that was the one key.
    after = int(server.call("/v3/kv/range", key="AA==")["header"]["revision"])
    assert after == before + 2


def test_beside_mounts(pair, agent):
    """Those who lock notice nothing."""
    holder, waiter = agent(), agent()
    fd = holder.take(pair.a / "x")
    waiter.begin("take", pair.b / "x").await_waiting()
    pair.await_queue("x", 2)
    keys = pair.lab.etcd.keys(pair.lab.prefix)
    code, lines, errors = check(source(pair.lab))
    assert (code, errors) == (0, "") and not lines_of(lines, "warning")
    one(lines, "ok", f"^2 keys below {pair.lab.prefix}/: 2 places in queues, 0 directories$")
    assert pair.lab.etcd.keys(pair.lab.prefix) == keys
    assert pair.a.names() == ["x"] and pair.a.holder("x")["pid"] == holder.pid
    holder.close(fd)
    waiter.finish()


def test_keys_of_others(lab):
    """What is no lock, and who else locks, is told."""
    lab.etcd.put(f"{lab.prefix}/config/port", "80")
    lab.etcd.put(f"{lab.prefix}/loose\x1b[2J", "80")
    mount = lab.mount()
    mount.path.joinpath("jobs").mkdir()
    code, lines, _ = check(source(lab))
    assert code == 0
    one(lines, "ok", f"^3 keys below {lab.prefix}/: 0 places in queues, 1 directories$")
    assert f"2 of them are other programs', such as {lab.prefix}/config/port: " in one(
        lines, "warning", "other programs'")
    lab.etcd.delete(f"{lab.prefix}/config/port")
    assert f"such as {lab.prefix}/loose?[2J: " in one(check(source(lab))[1], "warning", "such as")


def test_many_keys(lab):
    """They are read in pages."""
    for begin in range(0, 5200, 100):
        puts = [{"request_put": {"key": encode(f"{lab.prefix}/{i}/{i:x}.1"), "value": ""}}
                for i in range(begin, begin + 100)]
        lab.etcd.call("/v3/kv/txn", success=puts)
    one(check(source(lab))[1], "ok", f"^5200 keys below {lab.prefix}/: 5200 places in queues, ")


def test_unreachable(bare_lab):
    """Where nobody is."""
    lab = bare_lab
    server = lab.own_etcd()
    server.kill()
    code, lines, errors = check(source(lab), "timeout=1")
    assert (code, errors) == (1, "")
    one(lines, "warning", f"^{server.url} does not answer: [^:]*onnect")
    one(lines, "error", "^no address answers")
    one(lines, "ok", "^a mount would be ")


def test_one_address_is_dead(lab, bare_lab):
    """A mount would do with the other."""
    dead = Etcd(bare_lab.base).url
    code, lines, errors = check(source(lab, f"{dead},{lab.etcd.url}"), "timeout=2")
    assert (code, errors) == (0, "")
    one(lines, "warning", f"^{dead} does not answer: ")
    one(lines, "ok", f"^{lab.etcd.url} answers: ")
    assert not [line for line in lines if "no other address" in line]


def test_two_clusters(lab, bare_lab):
    """Addresses of different clusters would have different locks."""
    other = bare_lab.own_etcd()
    code, lines, _ = check(source(lab, f"{lab.etcd.url},{other.url}"))
    assert code == 1
    one(lines, "error", f"^{other.url} belongs to another cluster ")


def test_no_leader(bare_lab):
    """A member without the others."""
    cluster = Cluster(bare_lab.base)
    bare_lab.servers.extend(cluster.members)
    cluster.start()
    code, lines, _ = check(source(bare_lab, cluster.url))
    assert code == 0
    assert len([line for line in lines if ", a follower, " in line]) == 2
    for member in cluster.members[1:]:
        member.kill()
    def leader():
        return cluster.members[0].call("/v3/maintenance/status").get("leader")
    wait_until(lambda: not leader(), what="it knows")
    code, lines, _ = check(source(bare_lab, cluster.members[0].url), "timeout=2")
    assert code == 1
    one(lines, "error", f"^{cluster.members[0].url} has no leader")


def test_longer_lease(bare_lab):
    """etcd grants no shorter lease than its election takes."""
    bare_lab.own_etcd(extra=["--heartbeat-interval", "500", "--election-timeout", "5000"])
    code, lines, _ = check(source(bare_lab), "ttl=2")
    assert code == 0
    found = one(lines, "warning", r"^a lease of 2 s was asked for and one of \d+ s granted")
    assert int(re.search(r"one of (\d+)", found).group(1)) > 2


@pytest.mark.limit(120)
def test_full(bare_lab):
    """An etcd that takes no more."""
    server = bare_lab.own_etcd(extra=["--quota-backend-bytes", str(2 << 20)])
    def fill(number=iter(range(100))):
        try:
            server.put(f"/fill/{next(number)}", "x" * 500_000)
        except OSError:
            return True
        return False
    wait_until(fill, what="it is full")
    before = left(server)
    code, lines, _ = check(source(bare_lab))
    assert code == 1
    one(lines, "warning", f"^{server.url} reports: .*NOSPACE")
    one(lines, "error", "^writing a key below the prefix: .*no space|database space exceeded")
    assert left(server) == before


def test_login(auth_lab):  # noqa: F811
    """With the right password; and what is secret is not told."""
    code, lines, errors = check(source(auth_lab), login(auth_lab))
    assert (code, errors) == (0, "") and not lines_of(lines, "warning")
    assert ", as user locker" in one(lines, "ok", "^a mount would be ")
    assert SECRET not in "".join(lines) and "password" not in "".join(lines)
    assert left(auth_lab.etcd) == (set(), [])
    environment = {"ETCDCTL_USER": "locker", "ETCDCTL_PASSWORD": SECRET}
    assert check(source(auth_lab), **environment)[0] == 0


def test_refused(auth_lab):  # noqa: F811
    """Without a user, with a wrong password, and without permission."""
    wrong = secret_file(auth_lab, "wrong")
    for options, who in (("", "who gives no user"), (login(auth_lab, "stranger"), "stranger"),
                         (f"user=locker,password_file={wrong}", "locker")):
        code, lines, errors = check(source(auth_lab), options)
        assert (code, errors) == (1, "")
        one(lines, "error", f"^{auth_lab.etcd.url}: etcd refuses {who}: ")
        assert SECRET not in "".join(lines)


def test_may_only_read(auth_lab):  # noqa: F811
    """Who may read and not write could mount, and lock nothing."""
    server = auth_lab.etcd
    for words in (["role", "add", "look"], ["role", "grant-permission", "look", "--prefix=true",
                                            "read", auth_lab.prefix],
                  ["user", "grant-role", "stranger", "look"]):
        server.etcdctl(*words)
    code, lines, _ = check(source(auth_lab), login(auth_lab, "stranger"))
    assert code == 1
    one(lines, "error", "^writing a key below the prefix: etcd refuses stranger: ")
    one(lines, "ok", "^there is no key below")
    assert left(server) == (set(), [])


def test_watch_is_kept_back(lab):
    """Something between here and etcd lets no stream through."""
    wire = lab.wire()
    wire.stall(is_watch)
    code, lines, _ = check(source(lab, wire.url), "timeout=2")
    assert code == 1
    one(lines, "error", f"^the keys below {lab.prefix}/ can't be watched: ")
    one(lines, "ok", "nothing is left in etcd$")


@pytest.mark.parametrize("call, complaint", [
    ("status", "^no address answers"), ("txn", "^http://127.0.0.1:[0-9]*: [^h]"),
    ("grant", "^a lease: "), ("watch", "can't be watched"),
    ("timetolive", "^reading the keys of the lease: "),
    ("keepalive", "^renewing the lease: "),
    ("revoke", "^giving the lease back: .*; it ends by itself within 2 s"),
])
def test_no_etcd(lab, call, complaint):
    """Something that answers, but not as etcd does."""
    fake = Fake(lab.etcd.port)
    try:
        fake.lie(call, garbage)
        code, lines, errors = check(source(lab, fake.url), "timeout=1,ttl=2")
    finally:
        fake.close()
    assert (code, errors) == (1, "")
    one(lines, "error", complaint)
    assert lab.etcd.keys(lab.prefix) == []


def test_interrupted(bare_lab):
    """It ends at once, and takes away what it wrote."""
    bare_lab.own_etcd()
    wire = bare_lab.wire()
    wire.stall(is_watch)
    watch = Stopwatch()
    process = subprocess.Popen(
        [str(BINARY), "check", "-o", "timeout=300,ttl=300", source(bare_lab, wire.url)],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(bare_lab.etcd.leases, what="it has a lease")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, "") and watch.seconds < SOON
    one(output.splitlines(), "error", "")  # and nothing else
    one(output.splitlines(), "error", "^interrupted: not everything was asked$")
    assert left(bare_lab.etcd) == (set(), []), output


def test_interrupted_twice(bare_lab):
    """Where no answer comes, the second signal is heeded."""
    server = bare_lab.own_etcd()
    wire = bare_lab.wire()
    wire.stall(lambda head: b"/v3/lease/" in head.split(b"\r\n")[0])
    process = subprocess.Popen(
        [str(BINARY), "check", "-o", "timeout=300,ttl=2", source(bare_lab, wire.url)],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert " answers: " in process.stdout.readline()
    def interrupt():
        process.send_signal(signal.SIGINT)
        return process.poll() is not None
    wait_until(interrupt, SOON, "it ends")
    process.communicate()
    assert process.returncode == 1
    wait_until(lambda: left(server) == (set(), []), what="the lease ends")


@pytest.mark.parametrize("words, complaint", [
    ((), "a source is missing"), (("-o", "ttl=x", "http://h:1"), "ttl=x: a number"),
    (("http://h:1", "/nonexistent"), "mount point /nonexistent: "),
    (("-o", "password=x", "http://h:1"), "a password must not stand on a command line"),
    (("nonsense://h",), "nonsense"),
])
def test_wrong_usage(words, complaint):
    """The same line as of a mount."""
    done = run(BINARY, "check", *words, env=clean_environment())
    assert (done.returncode, done.stdout) == (1, "") and complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_supervised(lab):
    """That is said as well."""
    for options, expected in (("", True), ("supervise=no", False)):
        _, lines, _ = check(source(lab), options)
        said = one(lines, "ok", "^a mount would be")
        assert (", with another process to go on if it dies" in said) == expected


def test_mount_point(lab):
    """One may stand there, as in fstab, and is looked at; options may come behind."""
    done = run(BINARY, "check", source(lab), "/tmp", "-o", "ttl=5", env=clean_environment())
    assert done.returncode == 0 and "a lease of 5 s is granted" in done.stdout


def test_password_in_the_clear(lab):
    """http to another machine, and a password file that others may read: a warning each."""
    path = lab.scratch("secret")
    path.chmod(0o644)
    _, lines, _ = check("http://192.0.2.1:2379", f"timeout=1,user=me,password_file={path}")
    one(lines, "warning", "the password travels in the clear")
    one(lines, "warning", "others may read the password file")
    path.chmod(0o600)
    for url in "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://192.0.2.1:1":
        _, lines, _ = check(url, f"timeout=1,user=me,password_file={path}")
        assert not lines_of(lines, "warning") or "clear" not in str(lines_of(lines, "warning"))
