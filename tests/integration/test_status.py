# SPDX-License-Identifier: MIT
"""The files below .latchfs: what they say, who can read them, and that nothing changes them."""

import errno
import fcntl
import json
import os
import re
import stat
from pathlib import Path

import pytest

import support
from etcdserver import encode
from support import SOON, Stopwatch, wait_until
from test_fcntl import F_OFD_SETLK
from test_permissions import ALICE, BOB

FILES = ["capabilities", "locks", "metrics", "status"]
REFUSED = errno.EPERM, errno.EACCES


def text(mount, name):
    """What one of the files says."""
    return Path(mount / f".latchfs/{name}").read_text(encoding="utf-8")


def status(mount):
    """The file `status`."""
    return json.loads(text(mount, "status"))


def table(mount):
    """The file `locks`: a dictionary for each line."""
    lines = text(mount, "locks").splitlines()
    return [dict(zip(lines[0].split(), line.split(), strict=True)) for line in lines[1:]]


def await_state(mount, state):
    """Waits until the mount says that of itself."""
    wait_until(lambda: status(mount)["state"] == state, what=f"{mount} is {state}")


# The directory.


@pytest.mark.core
def test_the_files(lab):
    """They are listed in their directory and nowhere else, plain files for all to read."""
    mount = lab.mount()
    lab.agent().take(mount / "x")
    assert sorted(os.listdir(mount / ".latchfs")) == FILES
    assert mount.names() == ["x"]
    assert stat.S_IMODE(os.stat(mount / ".latchfs").st_mode) == 0o555
    for name in FILES:
        attr = os.stat(mount / f".latchfs/{name}")
        assert stat.S_ISREG(attr.st_mode) and stat.S_IMODE(attr.st_mode) == 0o444
        assert attr.st_ino == os.stat(mount / f".latchfs/{name}").st_ino
        assert text(mount, name).endswith("\n")
    assert not os.path.exists(mount / ".latchfs/other")
    assert not os.path.exists(mount / ".latchfs-status")
    os.mkdir(mount / "d")
    assert not os.path.exists(mount / "d/.latchfs")


@pytest.mark.parametrize("options", ["", "default_permissions", "names=always", "open=lock"])
def test_nothing_can_be_changed(lab, options):
    """No name can be made, removed, written, locked or given attributes, by root either."""
    mount = lab.mount(options)
    who = lab.agent()
    for name in (".latchfs/new", ".latchfs/status/new", ".latchfs/d/e"):
        assert who.error("take", mount / name) != 0
        assert who.error("mkdir", mount / name) != 0
        assert who.error("symlink", "t", mount / name) != 0
    for name in FILES:
        path = mount / f".latchfs/{name}"
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT):
            assert who.error("open", path, flags) in REFUSED
        assert who.error("open", path, os.O_RDWR | os.O_CREAT | os.O_EXCL) == errno.EEXIST
        for call in (("unlink", path), ("truncate", path, 0), ("chmod", path, 0o777),
                     ("chown", path, 1, 1), ("utime", path),
                     ("link", path, mount / ".latchfs/other"),
                     ("setxattr", path, "user.latchfs.break", b"7"),
                     ("removexattr", path, "user.latchfs.hold")):
            assert who.error(*call) in REFUSED
        assert who.error("link", path, mount / "other") != 0
        if options != "default_permissions":  # then the kernel answers, and root may do anything
            assert not who.access(path, os.W_OK)
        assert not who.access(path, os.X_OK)
        assert who.error("getxattr", path, "user.latchfs.holder") == errno.ENODATA
        assert who.listxattr(path) == []
        fd = who.open(path, os.O_RDONLY)
        assert who.error("flock", fd, fcntl.LOCK_SH | fcntl.LOCK_NB) == errno.EPERM
        assert who.error("control", fd, fcntl.F_SETLK, fcntl.F_RDLCK) == errno.EPERM
        who.flock(fd, fcntl.LOCK_UN)
        assert who.error("fsync", fd) == errno.EINVAL
        assert who.pread(fd, 1, 0)
        who.close(fd)
    for call in (("rmdir", mount / ".latchfs"), ("chmod", mount / ".latchfs", 0o777),
                 ("setxattr", mount / ".latchfs", "user.latchfs.hold", b"name")):
        assert who.error(*call) in REFUSED
    assert lab.etcd.keys(f"{lab.prefix}/") == []
    assert sorted(os.listdir(mount / ".latchfs")) == FILES


def test_other_users_read_it(lab):
    """Whoever the kernel lets into the mount can read every file."""
    mount = lab.mount("allow_other")
    for uid in (ALICE, BOB):
        who = lab.agent(user=uid, group=uid, extra_groups=[])
        assert sorted(who.listdir(mount / ".latchfs")) == FILES
        for name in FILES:
            fd = who.open(mount / f".latchfs/{name}", os.O_RDONLY)
            assert who.read(fd, 1 << 20)
            who.close(fd)
            assert who.error("open", mount / f".latchfs/{name}", os.O_RDWR) == errno.EACCES
        assert who.error("mkdir", mount / ".latchfs/d") in REFUSED


def test_what_is_open_stays_as_it_was(lab):
    """A descriptor reads one state, in pieces of any size, again and again; a new one the next."""
    mount = lab.mount()
    who = lab.agent()
    with open(mount / ".latchfs/status", "rb", buffering=0) as before:
        whole = before.read()
        who.take(mount / "x")
        before.seek(0)
        pieces = b"".join(iter(lambda: before.read(7), b""))
        assert pieces == whole
        assert before.read(7) == b""
        before.seek(1 << 40)
        assert before.read(7) == b""
    assert json.loads(whole)["counts"]["held"] == 0
    assert status(mount)["counts"]["held"] == 1


# What `status` says.


@pytest.mark.core
def test_status(lab):
    """Who the mount is, its store, its lease and its options."""
    mount = lab.mount("timeout=7,hold=name,max_claims=55", ttl=200)
    seen = status(mount)
    assert seen["state"] == "ok"
    assert seen["node"] == "host-m1" and seen["pid"] == mount.server
    assert seen["source"] == mount.source and seen["mountpoint"] == str(mount.path)
    assert seen["version"] in support.checked(mount.binary, "--version")
    assert 0 <= seen["uptime_seconds"] < SOON
    store = seen["store"]
    assert store["kind"] == "etcd" and store["prefix"] == lab.prefix
    assert store["reachable"] and store["listening"] and store["last_error"] is None
    assert store["endpoints"] == [{"url": lab.etcd.url, "answers": True}]
    lease = seen["lease"]
    assert lease["state"] == "held" and int(lease["id"], 16) in lab.etcd.leases()
    assert lease["ttl_seconds"] == 200
    assert 180 - SOON < lease["lost_in_seconds"] <= 180
    assert 0 <= lease["renewed_seconds_ago"] < SOON
    options = seen["options"]
    assert options["ttl"] == 200 and options["timeout"] == 7
    assert options["max_claims"] == 55 and options["max_content"] == 256
    assert options["hold"] == "name" and options["names"] == "held"
    assert options["login"] is False


def test_counts(lab):
    """Locks held and waited for, and what is open."""
    mount = lab.mount()
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    one.write(fd, b"12345")
    two.begin("take", mount / "x").await_waiting()
    wait_until(lambda: status(mount)["counts"]["waiting"] == 1, what="one waits")
    counts = status(mount)["counts"]
    assert counts["held"] == 1 and counts["lost"] == 0
    assert counts["content_bytes"] == 5
    assert counts["requests"] == 1  # the flock that waits
    assert counts["handles"] == 3  # two of x, and this file
    one.close(fd)
    two.finish()
    assert status(mount)["counts"]["waiting"] == 0


def test_names_are_quoted(lab):
    """What stands in options can't break the JSON."""
    mount = lab.mount('name=\u00e4"b\\\\c')
    assert status(mount)["node"] == '\u00e4"b\\c'


def test_no_secrets(bare_lab):
    """A password appears nowhere, and neither does where it is kept."""
    lab = bare_lab
    server = lab.own_etcd()
    server.etcdctl("user", "add", "root:hush-hush")
    server.etcdctl("user", "grant-role", "root", "root")
    server.etcdctl("auth", "enable")
    server.user = ("root", "hush-hush")
    secret = lab.scratch("hush-hush\n")
    secret.chmod(0o600)
    mount = lab.mount(f"user=root,password_file={secret}")
    assert status(mount)["options"]["login"] is True
    for name in FILES:
        assert "hush" not in text(mount, name) and str(secret) not in text(mount, name)


def test_capabilities(lab):
    """One word a line, each once."""
    words = text(lab.mount(), "capabilities").splitlines()
    assert "flock" in words and "status" in words
    assert len(set(words)) == len(words)
    assert all(word and word == "".join(word.split()) for word in words)


# What `locks` says.


@pytest.mark.core
def test_locks_of_the_cluster(pair, agent):
    """Every mount shows who holds and who waits, wherever that is, in the order of the queue."""
    one, two, three, four = agent(), agent(), agent(), agent()
    fd = one.take(pair.a / "x")
    for number, who in enumerate((two, three)):
        who.begin("take", pair.b / "x")
        pair.await_queue("x", 2 + number)
    os.mkdir(pair.a / "d")
    four.take(pair.b / "d/s", fcntl.LOCK_SH)
    agent().take(pair.a / "d/s", fcntl.LOCK_SH)
    pair.await_queue("d/s", 2)
    assert table(pair.a) == table(pair.b)
    rows = table(pair.a)
    assert [row["name"] for row in rows] == ["d/s", "d/s", "x", "x", "x"]
    assert [row["mode"] for row in rows] == ["shared"] * 2 + ["exclusive"] * 3
    assert [row["state"] for row in rows] == ["held"] * 3 + ["waiting"] * 2
    assert [row["waiters"] for row in rows] == ["0", "0", "2", "2", "2"]
    assert [row["host"] for row in rows] == ["host-b", "host-a", "host-a", "host-b", "host-b"]
    assert [int(row["pid"]) for row in rows[2:]] == [one.pid, two.pid, three.pid]
    assert {row["command"] for row in rows} == {"python3"} and {row["uid"] for row in rows} == {"0"}
    record = pair.b.record("x")
    assert rows[2]["token"] == record["token"] and rows[2]["since"] == record["since"]
    tokens = [key.create_revision for key in pair.lab.keys("x")]
    assert [int(row["token"]) for row in rows[2:]] == tokens
    one.close(fd)
    two.finish()
    wait_until(lambda: [row["waiters"] for row in table(pair.a)] == ["0", "0", "1", "1"],
               what="the next one holds")
    assert int(table(pair.a)[2]["pid"]) == two.pid


def test_shared_behind_exclusive_waits(pair, agent):
    """Of a queue only the shared ones at its beginning hold."""
    agent().take(pair.a / "x", fcntl.LOCK_SH)
    for number, operation in enumerate((fcntl.LOCK_EX, fcntl.LOCK_SH)):
        agent().begin("take", pair.b / "x", operation)
        pair.await_queue("x", 2 + number)
    assert [row["state"] for row in table(pair.a)] == ["held", "waiting", "waiting"]


def test_byte_ranges(pair, agent):
    """Parts of a file are held side by side; who wants it all waits, and so do others behind him."""
    one, two, three, four = agent(), agent(), agent(), agent()
    fds = []
    for number, (who, mount) in enumerate(((one, pair.a), (two, pair.b))):
        fds.append(who.open(mount / "x", os.O_RDWR | os.O_CREAT))
        who.control(fds[-1], fcntl.F_SETLK, fcntl.F_WRLCK, 10 * number, 10)
        pair.await_queue("x", number + 1)
    shared = one.open(pair.a / "x", os.O_RDWR)
    one.control(shared, F_OFD_SETLK, fcntl.F_RDLCK, 100, 0)
    pair.await_queue("x", 3)
    rows = table(pair.b)
    assert [row["ranges"] for row in rows] == ["w0-9", "w10-19", "r100-"]
    assert [row["mode"] for row in rows] == ["exclusive", "exclusive", "shared"]
    assert {row["state"] for row in rows} == {"held"} and rows[0]["waiters"] == "0"
    three.begin("take", pair.a / "x").await_waiting()
    pair.await_queue("x", 4)
    assert [row["state"] for row in table(pair.b)] == ["held"] * 3 + ["waiting"]
    assert {row["waiters"] for row in table(pair.a)} == {"1"}
    assert table(pair.a)[3]["ranges"] == "-"
    four.begin("control", four.open(pair.b / "x", os.O_RDWR), fcntl.F_SETLKW, fcntl.F_WRLCK, 0, 5)
    four.await_waiting("fcntl")  # in nobody's queue
    wait_until(lambda: status(pair.b)["counts"]["waiting"] == 1, what="it is counted")
    one.control(fds[0], fcntl.F_SETLK, fcntl.F_UNLCK, 2, 3)
    wait_until(lambda: table(pair.b)[0]["ranges"] == "w0-1,w5-9", what="less is held")
    assert {row["name"] for row in table(pair.b)} == {"x"}


@pytest.mark.parametrize("name", ["two words", "tab\there", "line\nend", "back\\slash", "\udcff",
                                  "-", "\u00e4\u00df", "\x7f\x01"])
def test_any_name_is_one_column(lab, name):
    """What separates columns is escaped, and can be had back."""
    mount = lab.mount()
    lab.agent().take(os.fsencode(mount / name))
    data = Path(mount / ".latchfs/locks").read_bytes()
    word = data.split(b"\n")[1].split(b"\t")[0]
    assert not any(byte <= 32 or byte == 127 for byte in word)
    assert support.unescape_mount(os.fsdecode(word)) == name


def test_awk_can_read_it(lab):
    """As the manual has it."""
    mount = lab.mount()
    lab.agent().take(mount / "two words")
    program = '$3 == "held" { print $1, $5 }'
    assert support.checked("awk", program, mount / ".latchfs/locks").startswith("two\\040words ")


@pytest.mark.parametrize("command", [
    'cat "$1"', 'cp "$1" "$2" && cat "$2"', 'head -n 1000 "$1"', 'tail -n 1000 "$1"',
    'grep "" "$1"', 'sed "" "$1"', 'dd if="$1" bs=5 status=none', 'sort -s -k 999 "$1"',
    'cat <"$1"', 'while read -r line; do printf "%s\\n" "$line"; done <"$1"'])
def test_usual_programs_can_read_it(lab, command):
    """Although its size is not known before."""
    mount = lab.mount()
    for name in ("locks", "capabilities"):
        path = mount / f".latchfs/{name}"
        out = support.checked("sh", "-c", command, "sh", path, lab.base / "copy")
        assert out == text(mount, name)


def test_foreign_keys(lab):
    """Locks of other programs are shown, with nobody's name, and senseless keys hurt nobody."""
    mount = lab.mount()
    put = lab.etcd.put
    put(lab.key("x") + "694d0", "not JSON")
    put(lab.key("y") + "s-1", '{"v":1,"host":"a b\\n","pid":-5,"uid":"x","command":""}')
    put(lab.key("z") + "a\0b", "")
    for key in (f"{lab.prefix}/top", f"{lab.prefix}//", f"{lab.prefix}//a", lab.key("n\0") + "1"):
        put(key, "")
    put(lab.key("dir"), "damaged")
    rows = table(mount)
    assert [row["name"] for row in rows] == ["x", "y", "z"]
    assert all(row["state"] == "held" for row in rows)
    assert rows[0]["host"] == rows[0]["pid"] == rows[0]["since"] == "-"
    assert rows[1]["host"] == "a\\040b?" and rows[1]["command"] == "-"
    assert rows[1]["mode"] == "shared" and rows[0]["mode"] == "exclusive"


def test_hidden_directories(lab):
    """Nobody finds a name in the table who could not find it by listing directories."""
    mount = lab.mount("allow_other")
    root = lab.agent()
    alice = lab.agent(user=ALICE, group=ALICE, extra_groups=[])
    bob = lab.agent(user=BOB, group=BOB, extra_groups=[ALICE])
    for name, mode in (("open", 0o755), ("hers", 0o700), ("group", 0o750), ("blind", 0o711)):
        alice.mkdir(mount / name)
        alice.mkdir(mount / f"{name}/below")
        alice.take(mount / f"{name}/below/lock")
        alice.chmod(mount / name, mode)

    def seen(who):
        fd = who.open(mount / ".latchfs/locks", os.O_RDONLY)
        lines = who.read(fd, 1 << 20).decode().splitlines()[1:]
        who.close(fd)
        return [line.split("/")[0] for line in lines]

    assert seen(root) == seen(alice) == ["blind", "group", "hers", "open"]
    assert seen(bob) == ["group", "open"]


def put_all(lab, names, value, at_once):
    """A key of another program for each name."""
    puts = [{"request_put": {"key": encode(lab.key(name) + "1"), "value": encode(value)}}
            for name in names]
    for start in range(0, len(puts), at_once):
        lab.etcd.call("/v3/kv/txn", success=puts[start:start + at_once])


def test_many_locks(lab):
    """More than one request is answered with: all are there, once each, in order."""
    mount = lab.mount()
    names = [f"n{number:05}" for number in range(5400)]
    put_all(lab, names, "", 100)
    assert [row["name"] for row in table(mount)] == names


def test_much_content(lab):
    """Where the answer would be larger than one may be, it comes in smaller parts."""
    mount = lab.mount().expect()
    content = encode("x" * 65536)
    put_all(lab, [f"n{number}" for number in range(400)],
            json.dumps({"v": 1, "host": "h", "data": content}), 10)
    rows = table(mount)
    assert len(rows) == 400 and {row["host"] for row in rows} == {"h"}


def test_many_who_ask_at_once(bare_lab):
    """Whoever comes while the store is being asked is served by the next answer, all by one."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=20").expect()
    lab.agent().take(mount / "x")
    sent = re.compile(r'^latchfs_store_batch_operations_count\{lane="names"\} (\d+)$', re.M)
    before = int(sent.search(text(mount, "metrics")).group(1))
    server.pause()
    agents = [lab.agent() for _ in range(10)]
    for who in agents:
        who.begin("open", mount / ".latchfs/locks", os.O_RDONLY)
    wait_until(lambda: status(mount)["counts"]["requests"] == 10, what="all have asked")
    server.resume()
    for who in agents:
        assert b"\nx\t" in who.read(who.finish(), 1000)
    assert int(sent.search(text(mount, "metrics")).group(1)) - before <= 2


# While the store is away.


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_readable_while_the_store_is_down(bare_lab, how):
    """Reading goes on at once, and says what is wrong; and then that it is over."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=2").expect()
    assert status(mount)["state"] == "ok"
    who = lab.agent()
    server.pause() if how == "stopped" else server.kill()
    watch = Stopwatch()
    assert who.error("open", mount / ".latchfs/locks", os.O_RDONLY) == errno.EIO
    assert watch.seconds < SOON
    await_state(mount, "unreachable")
    watch = Stopwatch()
    seen = status(mount)
    text(mount, "capabilities")
    assert sorted(os.listdir(mount / ".latchfs")) == FILES
    assert watch.seconds < 1  # not the timeout, not even once
    assert not seen["store"]["reachable"]
    assert server.url in seen["store"]["last_error"]
    assert seen["store"]["endpoints"] == [{"url": server.url, "answers": False}]
    assert seen["lease"]["state"] == "held"
    server.resume() if how == "stopped" else server.start()
    await_state(mount, "ok")
    assert table(mount) == []


def test_doubt_and_loss(bare_lab):
    """A lease in doubt, one that is lost, and the next."""
    lab = bare_lab
    server = lab.own_etcd()
    mount = lab.mount("timeout=1", ttl=4).expect()
    first = status(mount)["lease"]["id"]
    one = lab.agent()
    one.take(mount / "x")
    server.pause()
    await_state(mount, "doubtful")
    seen = status(mount)
    assert seen["lease"]["id"] == first and seen["lease"]["lost_in_seconds"] <= 2
    await_state(mount, "lost")
    assert re.search(r" is in doubt: no renewal for \d+ ms, all locks are lost in \d+ ms$",
                     mount.log(), re.M)
    assert re.search(rf" lock x \(token \d+, process {one.pid}, python3\) was lost: its lease was$",
                     mount.log(), re.M)
    seen = status(mount)
    assert seen["lease"] == {"state": "lost", "id": None}
    assert seen["counts"]["lost"] == 1 and seen["counts"]["held"] == 0
    server.resume()
    await_state(mount, "ok")
    assert status(mount)["lease"]["id"] not in (None, first)
