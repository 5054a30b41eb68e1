# SPDX-License-Identifier: MIT
"""The process that serves a mount is killed or replaced, and nobody notices."""

import errno
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from fcntl import LOCK_EX, LOCK_SH
from pathlib import Path

import pytest

from mounting import BINARY, PLAIN_BINARY, clean_environment, is_sanitized
from support import (
    LONG, PATIENCE, PROGRAMS, SOON, checked, gone, mounts, run, wait_until,
)
from test_lockfiles import EXCL
from test_permissions import NOBODY, daemon_of

RW = os.O_RDWR | os.O_CREAT
TAKEN_OVER = "another one goes on"


@pytest.fixture
def mount(lab):
    """A mount whose worker may be killed."""
    return ready(lab.mount().expect(TAKEN_OVER))


def ready(mount):
    """The same mount, when its supervisor knows that it is mounted."""
    wait_until(lambda: "mounted at" in mount.log(), what="it is ready")
    return mount


def settled(mount):
    """Waits until the store has answered whatever was asked; then all who wait have their place."""

    def idle():
        text = Path(mount / ".latchfs/metrics").read_text(encoding="utf-8")
        return 'requests_in_flight{lane="places"} 0\n' in text and \
            'operations_waiting{lane="places"} 0\n' in text

    wait_until(idle, what="the store has answered")


def kill(mount, times=1):
    """Kills who serves it, so many times; returns when another one does."""
    for _ in range(times):
        served = mount.server
        mount.kill_server()
        wait_until(lambda: mount.server not in (None, served), SOON, "there is another one")
        os.stat(mount.path)


def killed_while(mount, begin):
    """Kills who serves it while nobody is there to answer what is begun then."""
    os.kill(mount.pid, signal.SIGSTOP)
    server = mount.server
    os.kill(server, signal.SIGKILL)
    begin()
    os.kill(mount.pid, signal.SIGCONT)


def test_locks_of_every_kind_stay(lab, mount):
    """Who holds goes on to hold, with the same token; others are refused; all is given back."""
    other = lab.mount()
    one, two = lab.agent(), lab.agent()
    fds = {
        "flock": one.take(mount / "flock"),
        "shared": one.take(mount / "shared", LOCK_SH),
        "created": one.open(mount / "created", EXCL),
        "ranges": one.open(mount / "ranges", RW),
    }
    one.control(fds["ranges"], fcntl.F_SETLK, fcntl.F_WRLCK, 10, 5)
    one.control(fds["ranges"], fcntl.F_SETLK, fcntl.F_UNLCK, 12, 1)
    records = {name: one.pread(fd, 1000, 0) for name, fd in fds.items()}
    kill(mount, 3)
    for name, fd in fds.items():
        one.fsync(fd)
        assert one.pread(fd, 1000, 0) == records[name]
    for where in (mount, other):
        for name in ("flock", "created", "shared"):
            assert not two.attempt(where / name)
        fd = two.open(where / "ranges", RW)
        assert two.error("control", fd, fcntl.F_SETLK, fcntl.F_WRLCK, 11, 1) == errno.EAGAIN
        assert two.error("control", fd, fcntl.F_SETLK, fcntl.F_WRLCK, 14, 1) == errno.EAGAIN
        two.control(fd, fcntl.F_SETLK, fcntl.F_WRLCK, 12, 1)
        two.close(fd)
    for fd in fds.values():
        one.close(fd)
    for name in fds:
        lab.await_keys(name, 0)


def test_waiters_keep_their_place(lab, mount):
    """Two that wait, one on each machine's mount: in the order in which they came."""
    other = lab.mount()
    holder, first, second, third = (lab.agent() for _ in range(4))
    held = holder.take(mount / "x")
    for number, (who, where) in enumerate([(first, mount), (second, other), (third, mount)]):
        fd = who.open(where / "x", RW)
        who.begin("flock", fd, LOCK_EX)
        lab.await_keys("x", number + 2)
    settled(mount)
    before = lab.keys("x")
    kill(mount, 2)
    assert [(key.name, key.create_revision) for key in lab.keys("x")] == \
        [(key.name, key.create_revision) for key in before]
    holder.close(held)
    for who, rest in ((first, (second, third)), (second, (third,)), (third, ())):
        who.finish()
        assert not any(one.ready() for one in rest)
        who.close(3)


def test_asking_meanwhile(lab, mount):
    """What is asked while nobody serves the mount is answered by who comes next."""
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    killed_while(mount, lambda: two.begin("take", mount / "y"))
    new = two.finish()
    killed_while(mount, lambda: one.begin("close", fd))
    one.finish()
    wait_until(lambda: one.attempt(mount / "x"))
    assert not one.attempt(mount / "y")
    killed_while(mount, lambda: two.begin("open", mount / "z", EXCL))
    two.finish()
    assert one.error("open", mount / "z", EXCL) == errno.EEXIST
    two.fsync(new)


def test_killed_meanwhile(lab, mount):
    """Who is killed while nobody serves the mount holds nothing afterwards, nor waits."""
    holder, one, two = lab.agent(), lab.agent(), lab.agent()
    held = holder.take(mount / "x")
    one.take(mount / "y")
    fd = two.open(mount / "x", RW)
    two.begin("flock", fd, LOCK_EX)
    lab.await_keys("x", 2)

    def kill_them():
        one.process.kill()
        two.process.kill()

    killed_while(mount, kill_them)
    wait_until(lambda: gone(one.pid) and gone(two.pid))
    lab.await_keys("y", 0)
    lab.await_keys("x", 1)
    holder.fsync(held)


def test_interrupted_after_a_restart(lab, mount):
    """A signal ends the waiting that began before."""
    holder, waiter = lab.agent(), lab.agent()
    holder.take(mount / "x")
    fd = waiter.open(mount / "x", RW)
    waiter.begin("alarmed", 1.0, "flock", fd, LOCK_EX)
    lab.await_keys("x", 2)
    kill(mount)
    assert waiter.finish() == "interrupted"
    lab.await_keys("x", 1)


def test_content_stays(lab, mount):
    """What a holder has written is read afterwards, and can be changed."""
    one = lab.agent()
    fd = one.take(mount / "x")
    one.pwrite(fd, b"hello", 0)
    kill(mount)
    assert Path(mount / "x").read_bytes() == b"hello"
    one.pwrite(fd, b"HE", 0)
    kill(mount)
    assert one.pread(fd, 100, 0) == b"HEllo"


def test_locks_without_an_open_file(lab):
    """hold=process, hold=name, links, symbolic links and leased directories."""
    mount = ready(lab.mount("hold=process,dirs=lease").expect(TAKEN_OVER))
    one, two = lab.agent(), lab.agent()
    one.close(one.open(mount / "own", EXCL))
    one.link(mount / "own", mount / "linked")
    one.symlink("me", mount / "pointer")
    one.mkdir(mount / "dir")
    inode = os.stat(mount / "own").st_ino
    kill(mount, 2)
    for name in ("own", "linked"):
        status = os.stat(mount / name)
        assert (status.st_ino, status.st_nlink) == (inode, 2)
        assert two.error("open", mount / name, EXCL) == errno.EEXIST
    assert os.readlink(mount / "pointer") == "me"
    assert os.path.isdir(mount / "dir")
    one.unlink(mount / "own")
    assert os.stat(mount / "linked").st_nlink == 1
    os.kill(mount.pid, signal.SIGSTOP)
    os.kill(mount.server, signal.SIGKILL)
    one.process.kill()
    one.process.wait(PATIENCE)
    os.kill(mount.pid, signal.SIGCONT)
    for name in ("linked", "pointer"):
        lab.await_keys(name, 0)
    os.rmdir(mount / "dir")


def test_open_directories_and_names(lab, mount):
    """Names that were looked up, and directories that are open, go on to be."""
    os.makedirs(mount / "a/b")
    os.setxattr(mount / "a", "user.latchfs.open", b"lock")
    one, two = lab.agent(), lab.agent()
    here = os.open(mount / "a/b", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = one.open(mount / "a/b/x", os.O_WRONLY)
        kill(mount)
        assert os.listdir(here) == ["x"]
        two.begin("open", mount / "a/b/x", os.O_WRONLY)
        lab.await_keys("a/b/x", 2)
        kill(mount)
        one.close(fd)
        two.finish()
    finally:
        os.close(here)


@pytest.mark.parametrize("name", ["flocked", "ranges", "created"])
def test_a_loss_before_is_not_forgotten(lab, mount, name):
    """Who lost a lock and has not looked yet is told by whoever goes on."""
    mount.expect("was lost")
    one = lab.agent()
    fd = one.open(mount / name, EXCL if name == "created" else RW)
    if name == "ranges":
        one.control(fd, fcntl.F_SETLK, fcntl.F_WRLCK, 10, 5)
    else:
        one.flock(fd, LOCK_EX)
    lab.etcd.delete(lab.await_keys(name, 1)[0].name)
    wait_until(lambda: "was lost" in mount.log())
    kill(mount, 2)
    assert one.error("pread", fd, 10, 0) == errno.EIO
    assert one.error("flock", fd, LOCK_EX) == errno.EIO
    assert one.poll(fd, select.POLLPRI, 0) & select.POLLPRI
    one.close(fd)
    one.take(mount / name)


def test_a_part_is_given_back_while_the_lease_is_lost(lab):
    """The daemon goes on, with and without a supervisor: a write can end with the session."""
    wire = lab.wire()
    mounts_of = [lab.mount(f"{options}timeout=1", url=wire.url, ttl=2).expect()
                 for options in ("", "supervise=no,")]
    agents = [lab.agent() for _ in mounts_of]
    fds = []
    for one, mount in zip(agents, mounts_of):
        fds.append(one.open(mount / f"x{len(fds)}", RW))
        one.control(fds[-1], fcntl.F_SETLK, fcntl.F_WRLCK, 10, 5)
    wire.stall()
    for one, fd in zip(agents, fds):
        one.control(fd, fcntl.F_SETLK, fcntl.F_UNLCK, 12, 1)
    for one, fd in zip(agents, fds):
        wait_until(lambda one=one, fd=fd: one.error("pread", fd, 10, 0) == errno.EIO)
    wire.mend()
    for one, fd, mount in zip(agents, fds, mounts_of):
        one.close(fd)
        wait_until(lambda one=one, mount=mount: one.error("take", mount / mount.path.name) == 0)


def test_a_loss_while_nobody_serves(lab):
    """If it takes too long until another one goes on, the locks are lost, and that is told."""
    mount = lab.mount(ttl=2).expect(f"{TAKEN_OVER}|was lost|lease .* (lost|in doubt)")
    ready(mount)
    one = lab.agent()
    fd = one.take(mount / "x")
    one.begin("poll", fd, select.POLLPRI)
    one.await_waiting("poll")
    os.kill(mount.pid, signal.SIGSTOP)
    os.kill(mount.server, signal.SIGKILL)
    lab.await_keys("x", 0)
    os.kill(mount.pid, signal.SIGCONT)
    assert one.finish() & select.POLLPRI
    assert one.error("pread", fd, 10, 0) == errno.EIO
    assert one.error("fsync", fd) == errno.EIO
    one.close(fd)
    one.take(mount / "x")


def test_broken_while_nobody_serves(lab, mount):
    """An operator deletes the key meanwhile: the holder is told."""
    mount.expect("was lost")
    one = lab.agent()
    fd = one.take(mount / "x")
    os.kill(mount.pid, signal.SIGSTOP)
    os.kill(mount.server, signal.SIGKILL)
    lab.etcd.delete(lab.keys("x")[0].name)
    os.kill(mount.pid, signal.SIGCONT)
    wait_until(lambda: one.error("pread", fd, 10, 0) == errno.EIO)


def test_store_away_while_one_goes_on(lab):
    """Without the store another one goes on all the same; what is held is held."""
    wire = lab.wire()
    mount = lab.mount("timeout=1", url=wire.url, ttl=LONG).expect(TAKEN_OVER).expect()
    ready(mount)
    one = lab.agent()
    fd = one.take(mount / "x")
    wire.stall()
    server = mount.server
    mount.kill_server()
    wait_until(lambda: mount.server not in (None, server))
    assert b"token=" in one.pread(fd, 1000, 0)
    wire.mend()
    wait_until(lambda: one.error("fsync", fd) == 0)
    one.close(fd)
    lab.await_keys("x", 0)


def test_ends_in_order(lab, mount):
    """After a restart SIGTERM unmounts, gives everything back and exits 0, as before."""
    one = lab.agent()
    one.take(mount / "x")
    kill(mount, 2)
    mount.stop()
    assert not mount.mounted()
    assert not lab.keys("x")


def test_ended_while_nobody_serves(lab, mount):
    """Whoever comes next unmounts and gives everything back."""
    one = lab.agent()
    fd = one.take(mount / "x")
    killed_while(mount, lambda: mount.signal(signal.SIGTERM))
    assert mount.wait_exit() == 0
    assert not lab.keys("x") and not mount.mounted()
    assert one.error("pread", fd, 10, 0) == errno.ENOTCONN


def test_a_signal_to_all_of_it(lab, mount):
    """As systemd and a terminal send it: everything is given back."""
    one = lab.agent()
    fd = one.take(mount / "x")
    one.begin("poll", fd, select.POLLPRI)
    one.await_waiting("poll")
    kill(mount)
    os.killpg(mount.pid, signal.SIGTERM)
    assert one.finish() & select.POLLERR
    assert mount.wait_exit() == 0
    assert not lab.keys("x") and not mount.mounted()


def test_unmount(lab, mount):
    """After a restart umount ends all of it."""
    kill(mount)
    server = mount.server
    checked("umount", mount.path)
    assert mount.wait_exit() == 0
    wait_until(lambda: gone(server))


def test_killing_the_supervisor_ends_it(lab, mount):
    """Its death is that of the mount, whichever process served it, as without a supervisor."""
    one = lab.agent()
    fd = one.take(mount / "x")
    kill(mount)
    server = mount.server
    mount.kill()
    wait_until(lambda: gone(server) and not mount.mounted())
    assert one.error("pread", fd, 10, 0) == errno.ENOTCONN


def test_plain_user_in_the_background(lab):
    """Who is not root, with fusermount3, without -f."""
    path = lab.base / "own"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    source = f"{lab.etcd.url}{lab.prefix}"
    checked(*daemon_of(NOBODY, NOBODY), BINARY, "-o", f"ttl={LONG}", source, path,
            env=clean_environment())
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    one, two = lab.agent(**user), lab.agent(**user)
    try:
        fd = one.take(f"{path}/x")
        record = one.pread(fd, 1000, 0)
        status = two.open(f"{path}/.latchfs/status", os.O_RDONLY)
        server = json.loads(two.pread(status, 1 << 16, 0))["pid"]
        stat = Path(f"/proc/{server}/stat").read_text("ascii")
        supervisor = int(stat.rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        assert not two.attempt(f"{path}/x")
        one.fsync(fd)
        assert one.pread(fd, 1000, 0) == record
        one.close(fd)
    finally:
        two.kill()
        one.kill()
        checked("umount", path)
    wait_until(lambda: gone(supervisor) and str(path) not in mounts())


def test_started_by_one_who_ignores_children(lab):
    """What is inherited of that does not keep it from hearing of its own."""
    mount = ready(lab.mount(wrapper=["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"])
                  .expect(TAKEN_OVER))
    one = lab.agent()
    fd = one.take(mount / "x")
    kill(mount, 2)
    one.fsync(fd)
    mount.stop()


def test_a_newer_program(lab):
    """SIGUSR1: the program that lies there now goes on, as the same process, with the locks."""
    binary = lab.base / "latchfs"
    shutil.copy(BINARY, binary)
    mount = ready(lab.mount(binary=binary))
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    waiting = two.open(mount / "x", RW)
    two.begin("flock", waiting, LOCK_EX)
    lab.await_keys("x", 2)
    newer = lab.base / "newer"
    shutil.copy(BINARY, newer)
    os.rename(newer, binary)
    old = Path(f"/proc/{mount.pid}/exe")
    assert os.readlink(old).endswith("(deleted)")
    server = mount.server
    mount.signal(signal.SIGUSR1)
    wait_until(lambda: os.readlink(old) == str(binary), what="the newer program runs")
    wait_until(lambda: mount.server not in (None, server))
    one.fsync(fd)
    assert not two.ready()
    one.close(fd)
    two.finish()
    mount.expect(TAKEN_OVER)
    kill(mount)
    two.fsync(waiting)


@pytest.mark.parametrize("text", [
    "#!/bin/sh\nexit 1\n", "#!/bin/sh\ntest \"$1\" = --version\n", "no program at all",
], ids=["broken", "older", "garbage"])
def test_a_newer_program_that_can_not_go_on(lab, text):
    """Then the old one stays: also if the other runs but does not know what ours has written."""
    binary = lab.base / "latchfs"
    shutil.copy(BINARY, binary)
    mount = ready(lab.mount(binary=binary).expect("it is not replaced"))
    one = lab.agent()
    fd = one.take(mount / "x")
    newer = lab.scratch(text)
    newer.chmod(0o755)
    os.rename(newer, binary)
    server = mount.server
    mount.signal(signal.SIGUSR1)
    wait_until(lambda: "it is not replaced" in mount.log())
    assert mount.server == server
    one.fsync(fd)


def test_unmounted_while_a_newer_program_is_asked(lab):
    """It ends then, and is not mounted again."""
    binary = lab.base / "latchfs"
    shutil.copy(BINARY, binary)
    mount = ready(lab.mount(binary=binary))
    asked = lab.base / "asked"
    slow = lab.scratch(f"#!/bin/sh\ntouch {asked}\nsleep 60\n")
    slow.chmod(0o755)
    os.rename(slow, binary)
    mount.signal(signal.SIGUSR1)
    wait_until(asked.exists)
    checked("umount", mount.path)
    assert mount.wait_exit(SOON) == 0
    assert not mount.mounted()


def test_question_of_another_version(lab):
    """What it has written is not understood, whatever it would be."""
    for number in "0", "1", "1000000", "-f", "":
        done = run(BINARY, "--takes-over", number, "/x", "-f", lab.etcd.url, "/x",
                   env=clean_environment())
        assert done.returncode == 1


def test_without_a_supervisor(lab):
    """One process, which nothing can replace, and which does not die of the attempt."""
    mount = lab.mount("supervise=no").expect("it is not replaced: nobody supervises it")
    wait_until(lambda: "mounted at" in mount.log())
    one = lab.agent()
    fd = one.take(mount / "x")
    status = json.loads(Path(mount / ".latchfs/status").read_text(encoding="utf-8"))
    assert status["pid"] == mount.pid
    for count, number in enumerate((signal.SIGUSR1, signal.SIGUSR2), 1):
        mount.signal(number)
        wait_until(lambda count=count: mount.log().count("not replaced") == count)
    one.fsync(fd)


def test_a_kernel_that_says_it_is_old(lab):
    """What it can do counts: distributions give their kernels what newer ones can."""
    mount = ready(lab.mount(wrapper=["setarch", "--uname-2.6"]).expect(TAKEN_OVER))
    one = lab.agent()
    fd = one.take(mount / "x")
    kill(mount, 2)
    one.fsync(fd)


@pytest.fixture
def old_kernel(lab, suite):
    """A mount whose kernel does not say that it can ask again."""

    def build(target):
        checked("gcc", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", target,
                PROGRAMS / "old_kernel.c", "-ldl")

    mount = lab.mount(ttl=8, binary=PLAIN_BINARY,
                      environment={"LD_PRELOAD": str(suite.once("old_kernel", build))})
    assert "this kernel does not ask again" in ready(mount).log()
    return mount


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_old_kernel(lab, old_kernel, number):
    """No other process can go on: the mount ends, also if the one that there is stands still."""
    mount, other = old_kernel, lab.mount(ttl=8)
    mount.expect("it is not replaced|stood still|its locks are lost")
    one, two = lab.agent(), lab.agent()
    fd = one.take(mount / "x")
    two.begin("take", other / "x")
    lab.await_keys("x", 2)
    for count, signal_number in enumerate((signal.SIGUSR1, signal.SIGUSR2), 1):
        mount.signal(signal_number)
        wait_until(lambda count=count: mount.log().count("it is not replaced") == count)
    one.fsync(fd)
    mount.expected_exit = 1
    os.kill(mount.server, number)
    assert mount.wait_exit() == 1
    wait_until(lambda: one.error("pread", fd, 10, 0) == errno.ENOTCONN)
    assert not two.ready()
    two.finish()


def test_nobody_keeps_the_mount(lab, mount):
    """SIGUSR2 without a service manager: all stays as it is."""
    mount.expect("no service manager keeps the mount")
    one = lab.agent()
    fd = one.take(mount / "x")
    server = mount.server
    mount.signal(signal.SIGUSR2)
    wait_until(lambda: "no service manager" in mount.log())
    one.fsync(fd)
    assert mount.server == server


KINDS = ["flock", "exclusive", "ranges", "directory", "symlink", "link", "opened"]


def contend(mount, kind, marks, seed, lifeline):
    """One that takes locks of a kind over and over."""
    return subprocess.Popen(
        ["/usr/bin/python3", "-I", PROGRAMS / "contend.py", kind, str(mount), marks, str(seed)],
        stdin=lifeline, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True)


@pytest.mark.limit(150)
def test_killed_over_and_over(lab, mount):
    """At a hundred kills a minute and more no lock is lost, none is granted twice, nobody hangs."""
    kills, pause = 40, 1.0 if is_sanitized(BINARY) else 0.4
    other = lab.mount()
    for name, policy, value in (("named", "hold", b"name"), ("opened", "open", b"lock")):
        os.mkdir(mount / name)
        os.setxattr(mount / name, f"user.latchfs.{policy}", value)
    marks = lab.base / "marks"
    marks.mkdir()
    reading, writing = os.pipe()
    workers = [contend(where, kind, marks, seed, reading)
               for seed, kind in enumerate(KINDS) for where in (mount, mount, other)]
    holder = lab.agent()
    fd = holder.take(mount / "kept")
    record = holder.pread(fd, 1000, 0)
    try:
        for _ in range(kills):
            time.sleep(pause)  # the pace of the kills, nothing is waited for
            mount.kill_server()
        os.close(writing)
        for worker in workers:
            out, _ = worker.communicate(timeout=PATIENCE)
            assert worker.returncode == 0 and int(out) >= 0, f"{worker.args}: {out}"
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        os.close(reading)
    holder.fsync(fd)
    assert holder.pread(fd, 1000, 0) == record
    holder.close(fd)
    wait_until(lambda: not [key for key in lab.etcd.keys(f"{lab.prefix}/") if key.lease],
               what="nothing is left")
    assert mount.log().count("goes on with") >= kills * 3 // 4
