# SPDX-License-Identifier: MIT
"""Who may do what: several users on one mount, users elsewhere, and root of a container."""

import errno
import itertools
import os
import pwd
import signal
import stat
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH
from pathlib import Path

import pytest

import support
from conftest import Pair
from mounting import PLAIN_BINARY
from support import SOON, wait_until

RW = os.O_RDWR | os.O_CREAT
EXCL = RW | os.O_EXCL
ALICE, BOB, GROUP = 10001, 10002, 10009
NOBODY = pwd.getpwnam("nobody").pw_uid  # fusermount3 wants a user with a name
DENIED = errno.EPERM, errno.EACCES
TRY = LOCK_EX | LOCK_NB
NOW = (0, 0x3FFFFFFF)  # UTIME_NOW
NUMBERS = itertools.count()
THEN = (1_000_000_000, 0)


def as_user(user, group=None):
    """The words that run a command as somebody."""
    return ["setpriv", f"--reuid={user}", f"--regid={group or user}", "--clear-groups"]


def daemon_of(user, group):
    """The same for a daemon; where /dev/fuse is not open to all, it needs the rights to mount."""
    words = as_user(user, group)
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        words += ["--inh-caps=+dac_override,+sys_admin", "--ambient-caps=+dac_override,+sys_admin"]
    return words


class People:
    """Two mounts for everybody, and agents of root, of Alice, and of Bob who is in GROUP."""

    def __init__(self, lab, options):
        self.lab = lab
        self.kernel_checks = "default_permissions" in options
        self.pair = Pair(lab, options)
        self.a, self.b = self.pair.a, self.pair.b
        self.root = lab.agent()
        self.alice = lab.agent(user=ALICE, group=ALICE, extra_groups=[])
        self.bob = lab.agent(user=BOB, group=BOB, extra_groups=[GROUP])

    def hers(self, name, mode, group=ALICE):
        """A directory of Alice's in which she holds `held`; what she has it open with."""
        self.alice.mkdir(self.a / name)
        self.root.chown(self.a / name, ALICE, group)
        fd = self.alice.take(self.a / f"{name}/held")
        self.alice.write(fd, b"hers\n")
        self.alice.chmod(self.a / name, mode)
        return fd


@pytest.fixture(params=["allow_other", "allow_other,default_permissions"], ids=["ours", "kernel's"])
def people(lab, request):
    """Permissions are checked by us, or by the kernel and by us."""
    return People(lab, request.param)


def allowed(who, directory):
    """What a process can do in a directory, as the letters of a mode."""
    new = f"{directory}/new{next(NUMBERS)}"
    denied = {
        "r": [who.error("listdir", directory)],
        "w": [who.error("mkdir", f"{directory}/sub"), who.error("take", f"{new}x", TRY),
              who.error("open", f"{new}y", EXCL)],
        "x": [who.error("stat", f"{directory}/held"), who.error("open", f"{directory}/held", RW),
              who.error("getxattr", f"{directory}/held", "user.latchfs.queue"),
              who.error("truncate", f"{directory}/held", 0)],
    }
    for kind, errors in denied.items():
        assert errors in ([0] * len(errors), [errno.EACCES] * len(errors)), (kind, errors)
    if not denied["w"][0]:
        who.rmdir(f"{directory}/sub")
    return "".join(kind for kind, errors in denied.items() if not errors[0])


# Without search permission the others mean nothing, but to list.
MODES = {0o000: "", 0o007: "rwx", 0o001: "x", 0o004: "r", 0o005: "rx", 0o003: "wx", 0o002: ""}


def test_modes_of_directories_bind_everybody(people):
    """Read to list, search to use what is there, write to create: for others and for a group."""
    for mode, expected in MODES.items():
        others, group = f"o{mode:o}", f"g{mode:o}"
        fds = people.hers(others, 0o700 | mode), people.hers(group, 0o700 | mode << 3, GROUP)
        assert allowed(people.bob, people.a / others) == expected, oct(mode)
        assert allowed(people.bob, people.b / group) == expected, oct(mode)
        assert allowed(people.alice, people.a / others) == "rwx"
        for fd in fds:
            people.alice.fsync(fd)
            assert people.alice.pread(fd, 99, 0) == b"hers\n"


def test_the_owner_is_bound_too(people):
    """It is the first set of bits that fits which counts; root is bound by none."""
    people.hers("d", 0o077)
    people.hers("e", 0o707, GROUP)
    assert allowed(people.alice, people.a / "d") == ""
    assert allowed(people.bob, people.a / "e") == ""
    assert allowed(people.root, people.a / "d") == "rwx"


def test_nobody_touches_anothers_lock(people):
    """Where all may lock: Bob reads and waits for what Alice holds, and can't change it."""
    people.root.mkdir(people.a / "d")
    people.root.chmod(people.a / "d", 0o777)
    alice, bob = people.alice, people.bob
    for name, flags in ("x", RW), ("y", EXCL):
        fd = alice.take(people.a / f"d/{name}", LOCK_EX, flags)
        alice.write(fd, b"hers\n")
        token = people.lab.keys(f"d/{name}")[0].create_revision
        for who, refusal in (bob, errno.EPERM), (people.root, 0):
            for mount in people.pair.each():
                path = mount / f"d/{name}"
                assert who.error("unlink", path) == errno.EBUSY
                handle = who.open(path, os.O_RDWR | os.O_TRUNC)
                assert who.error("pwrite", handle, b"mine", 0) == errno.EPERM
                who.ftruncate(handle, 0)
                assert who.pread(handle, 99, 0) == b"hers\n"
                assert who.error("flock", handle, TRY) == errno.EWOULDBLOCK
                if refusal:
                    value = b"%d" % token
                    assert who.error("setxattr", path, "user.latchfs.break", value) == refusal
                if who is people.root or not people.kernel_checks:
                    who.chmod(path, 0)
                    who.chown(path, BOB, BOB)
                else:
                    assert who.error("chmod", path, 0) == errno.EPERM
                who.close(handle)
        status = os.stat(people.b / f"d/{name}")
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (ALICE, 0o666)
        alice.fsync(fd)
    assert alice.error("unlink", people.b / "d/y") == errno.EBUSY
    assert len(people.lab.keys("d/y")) == 1
    alice.unlink(people.a / "d/y")
    assert not people.lab.keys("d/y")


def test_who_opens_is_whose_lock_it_is(people):
    """The user in the record is the opener; a mount elsewhere goes by the same number."""
    fd = people.alice.take(people.a / "x")
    record = people.b.record("x")
    assert (record["uid"], record["pid"]) == (str(ALICE), str(people.alice.pid))
    assert people.b.holder("x")["uid"] == ALICE
    assert os.stat(people.b / "x").st_uid == ALICE
    people.alice.fsync(fd)


OWNERS_CALLS = [
    ("chmod", 0o700), ("chown", BOB, BOB), ("chown", -1, BOB), ("chown", -1, GROUP),
    ("utime", (1, 1)), ("utimens", NOW, THEN), ("utimens", THEN, NOW),
    ("setxattr", "user.latchfs.names", b"always"), ("setxattr", "user.latchfs.on_loss", b"kill"),
]


def test_directories_are_changed_by_their_owner(people):
    """chmod, chown, times and policies: the owner and root, on every mount."""
    people.hers("d", 0o777)
    people.hers("e", 0o777, GROUP)
    alice, bob, root = people.alice, people.bob, people.root
    for path in people.a / "d", people.b / "e":
        for call in OWNERS_CALLS:
            assert bob.error(call[0], path, *call[1:]) == errno.EPERM, call
        alice.setxattr(path, "user.latchfs.on_loss", b"error")
        assert bob.error("removexattr", path, "user.latchfs.on_loss") == errno.EPERM
        bob.utime(path)  # to touch it, write permission is enough
        alice.utime(path, (1, 1))
        assert os.stat(path).st_mtime == 1
        alice.removexattr(path, "user.latchfs.on_loss")
        assert not alice.listxattr(path)
        for call in ("chown", BOB, -1), ("chown", -1, GROUP), ("chown", -1, 0):
            assert alice.error(call[0], path, *call[1:]) == errno.EPERM, call
        alice.chown(path, ALICE, ALICE)
        alice.chmod(path, 0o750)
        root.chown(path, BOB, GROUP)
        assert alice.error("chmod", path, 0o777) == errno.EPERM
        bob.chmod(path, 0o711)
        assert bob.error("chown", path, -1, ALICE) == errno.EPERM
        bob.chown(path, -1, BOB)
        root.setxattr(path, "user.latchfs.record", b"no")
        status = os.stat(path)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (BOB, BOB, 0o711)


def test_the_roots_policies_are_roots(people):
    """The mount's own directory is no exception, and neither are names that are not policies."""
    for who in people.alice, people.bob:
        for name, value in ("names", b"always"), ("on_loss", b"error"), ("open", b"lock"), \
                ("dirs", b"lease"):
            attribute = f"user.latchfs.{name}"
            assert who.error("setxattr", str(people.a), attribute, value) == errno.EPERM
        assert who.error("chmod", str(people.a), 0o700) == errno.EPERM
        assert who.error("chown", str(people.a), ALICE, ALICE) == errno.EPERM


def test_a_former_owner_changes_nothing(people):
    """Who may change a directory is decided by what is there now, also through a descriptor."""
    people.hers("d", 0o777)
    alice, path = people.alice, people.b / "d"
    fd = alice.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3):
        assert os.stat(path).st_uid == ALICE  # which the kernel remembers for a descriptor
        alice.chmod(fd, 0o777)
        people.root.chown(people.a / "d", BOB, BOB)
        assert alice.error("chmod", fd, 0o700) == errno.EPERM
        assert alice.error("setxattr", fd, "user.latchfs.names", b"always") == errno.EPERM
        assert alice.error("chmod", path, 0o700) == errno.EPERM
        people.root.chown(people.a / "d", ALICE, ALICE)


def test_the_groups_bit(people):
    """What is made in a set-group-id directory has its group; the bit is not set for others."""
    people.hers("d", 0o777, GROUP)
    assert stat.S_IMODE(os.stat(people.a / "d").st_mode) == 0o777
    people.alice.chmod(people.a / "d", 0o2777)  # she is not in it
    assert stat.S_IMODE(os.stat(people.a / "d").st_mode) == 0o777
    people.root.chmod(people.a / "d", 0o2777)
    people.bob.mkdir(people.b / "d/sub")
    status = os.stat(people.a / "d/sub")
    assert (status.st_uid, status.st_gid) == (BOB, GROUP) and status.st_mode & stat.S_ISGID


def test_removing_directories(people):
    """rmdir needs write permission above; with the sticky bit, to be an owner as well."""
    people.root.mkdir(people.a / "tmp")
    people.root.chmod(people.a / "tmp", 0o1777)
    people.alice.mkdir(people.a / "tmp/hers")
    people.alice.mkdir(people.a / "tmp/hers/inner")
    people.alice.mkdir(people.a / "tmp/hers/bobs")
    people.root.chown(people.a / "tmp/hers/bobs", BOB, BOB)
    for mount in people.pair.each():
        assert people.bob.error("rmdir", mount / "tmp/hers/inner") == errno.EACCES
        assert people.bob.error("rmdir", mount / "tmp/hers/bobs") == errno.EACCES
    people.alice.rmdir(people.b / "tmp/hers/bobs")
    people.alice.rmdir(people.a / "tmp/hers/inner")
    for mount in people.pair.each():
        assert people.bob.error("rmdir", mount / "tmp/hers") == errno.EPERM
    people.root.chown(people.a / "tmp", BOB, BOB)
    wait_until(lambda: people.bob.error("rmdir", people.b / "tmp/hers") == 0, SOON)


def test_a_mode_taken_away_is_followed(people):
    """A directory that is closed on one mount is closed on the other, within a second."""
    people.hers("d", 0o777)
    assert allowed(people.bob, people.b / "d") == "rwx"
    people.alice.chmod(people.a / "d", 0o700)
    assert allowed(people.bob, people.a / "d") == ""
    wait_until(lambda: people.bob.error("stat", people.b / "d/held") == errno.EACCES, SOON)
    assert allowed(people.bob, people.b / "d") == ""


# Whom the daemon signals.


def test_nobody_has_the_daemon_kill_others(lab):
    """A root process that works for Alice is not hers to kill, whatever policy she sets."""
    mount = lab.mount("allow_other").expect()
    alice, servant, hers = lab.agent(user=ALICE, group=ALICE), lab.agent(), lab.agent(user=ALICE)
    alice.mkdir(mount / "d")
    alice.setxattr(mount / "d", "user.latchfs.on_loss", b"kill")
    servant.seteuid(ALICE)
    fd = servant.take(mount / "d/x", LOCK_SH)
    servant.seteuid(0)
    hers.take(mount / "d/y")
    for name in "x", "y":
        token = b"%d" % lab.keys(f"d/{name}")[0].create_revision
        alice.setxattr(mount / f"d/{name}", "user.latchfs.break", token)
    wait_until(lambda: hers.ended() == -signal.SIGKILL, SOON, "her own process is killed")
    assert servant.error("pread", fd, 10, 0) == errno.EIO
    assert "process %d\n" % servant.pid not in mount.log()


def test_root_has_everybody_killed(lab):
    """A lock that root took is ended with its job, also after the job has become another user."""
    mount = lab.mount("allow_other,on_loss=term").expect()
    job = lab.holder("flock", mount / "x", "setpriv", f"--reuid={ALICE}", f"--regid={ALICE}",
                     "--clear-groups", "sh", "-c", "echo held; exec sleep 1000").await_held()
    token = b"%d" % lab.keys("x")[0].create_revision
    os.setxattr(mount / "x", "user.latchfs.break", token)
    assert job.exit_status(SOON) != 0


# Mounts of others, containers.


def test_without_allow_other(lab):
    """Then only the user who mounted comes in at all: neither a user, nor root at that user's."""
    mount = lab.mount()
    user = lab.agent(user=NOBODY, group=NOBODY, extra_groups=[])
    for call in ("stat", "x"), ("take", "x"), ("listdir", ""), ("mkdir", "d"):
        assert user.error(call[0], mount / call[1]) == errno.EACCES
    other = lab.mount(start=False, wrapper=daemon_of(NOBODY, NOBODY))
    other.path.mkdir()
    os.chown(other.path, NOBODY, NOBODY)
    other.start()
    fd = user.take(other / "x")
    for call in ("stat", "x"), ("take", "x"), ("listdir", ""), ("mkdir", "d"):
        assert lab.agent().error(call[0], other / call[1]) == errno.EACCES
    assert (mount.record("x")["uid"], mount.record("x")["host"]) == (str(NOBODY), "host-m2")
    user.fsync(fd)


def test_root_of_a_container_is_nobody_here(people):
    """Root of a user namespace has the rights of the user that it is outside, and no more."""
    boss = people.lab.agent(wrapper=[*as_user(BOB), "unshare", "--user", "--map-root-user"])
    people.hers("hers", 0o700)
    people.hers("open", 0o755)
    people.root.mkdir(people.a / "roots")
    people.root.chmod(people.a / "roots", 0o700)
    people.root.take(people.a / "roots/x")
    people.root.take(people.a / "x")
    assert boss.getuid() == 0
    for path in people.a / "hers", people.b / "roots":
        assert allowed(boss, path) == ""
    assert allowed(boss, people.a / "open") == "rx"
    for path in str(people.a), people.a / "open", people.b / "roots":
        assert boss.error("chmod", path, 0o777) == errno.EPERM
        assert boss.error("chown", path, 0, 0) == errno.EPERM
        assert boss.error("setxattr", path, "user.latchfs.names", b"always") in DENIED
    for name in "x", "open/held":
        token = b"%d" % people.lab.keys(name)[0].create_revision
        for mount in people.pair.each():
            assert boss.error("setxattr", mount / name, "user.latchfs.break", token) == errno.EPERM
            assert boss.error("unlink", mount / name) in (errno.EBUSY, errno.EACCES)
            handle = boss.open(mount / name, os.O_RDWR)
            assert boss.error("write", handle, b"x") == errno.EPERM
    # What is Bob's is the container's root's, within Bob's rights.
    people.a.expect()
    fd = people.bob.take(people.a / "bobs")
    token = b"%d" % people.lab.keys("bobs")[0].create_revision
    boss.setxattr(people.b / "bobs", "user.latchfs.break", token)
    wait_until(lambda: people.bob.error("fsync", fd) == errno.EIO, SOON)
    boss.mkdir(people.a / "new")
    boss.take(people.a / "new/x")
    assert os.stat(people.b / "new").st_uid == BOB
    assert people.b.record("new/x")["uid"] == str(BOB)
    boss.chmod(people.a / "new", 0o500)
    assert boss.error("mkdir", people.a / "new/d") == errno.EACCES


# What it leaves about.


def files_of(group, place):
    """What belongs to a group in a directory, without a look at what is mounted there."""
    mounted = support.mounts()
    for entry in os.scandir(place) if os.path.isdir(place) else ():
        if entry.path not in mounted and entry.stat(follow_symlinks=False).st_gid == group:
            yield entry.path


@pytest.mark.parametrize("user", [0, NOBODY])
def test_no_file_is_made(lab, user):
    """A daemon with a group (and user) of its own leaves nothing that belongs to them anywhere."""
    group = 54321
    mount = lab.mount(start=False, wrapper=daemon_of(user, group), binary=PLAIN_BINARY)
    mount.path.mkdir()
    os.chown(mount.path, user, 0)
    mount.start()
    who = lab.agent(user=user, group=group, extra_groups=[])
    who.mkdir(mount / "d")
    who.take(mount / "d/x")
    places = "/tmp", "/var/tmp", "/run", "/run/lock", "/dev/shm", "/var/lib", "/var/log", "/etc", \
        "/", str(Path.home()), os.getcwd(), str(lab.base)
    assert not [path for place in places for path in files_of(group, place)]
    for pid in mount.pid, mount.server:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            assert target.startswith(("socket:", "pipe:", "anon_inode:", "/dev/", "/memfd:")) or \
                target in (str(mount.log_path), os.getcwd()), target
