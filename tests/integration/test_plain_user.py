# SPDX-License-Identifier: MIT
"""A user without any rights of root mounts, through fusermount3."""

import os
import pwd
import re
from pathlib import Path

import pytest

from support import SOON, checked, mounts, run, wait_until

NOBODY = pwd.getpwnam("nobody").pw_uid  # fusermount3 wants a user with a name
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
             "--inh-caps=-all", "--no-new-privs"]
AS_NOBODY_TO_MOUNT = AS_NOBODY[:-1]  # fusermount3 is set-user-ID
# A device that is open to everybody, as udev makes it.
OPEN_DEVICE = 'mount --bind "$0" /dev/fuse; exec "$@"'


@pytest.fixture
def device(lab):
    """The words before a command which is to find /dev/fuse open to all."""
    if os.stat("/dev/fuse").st_mode & 0o006 == 0o006:
        return []
    node = lab.base / "fuse"
    checked("mknod", "-m", "666", node, "c", "10", "229")
    return ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", OPEN_DEVICE, str(node)]


@pytest.fixture
def theirs(lab, device, shared):
    """A mount of the user's."""
    mount = lab.mount(name="shared/theirs", start=False, wrapper=[*device, *AS_NOBODY_TO_MOUNT])
    mount.path.mkdir()
    os.chown(mount.path, NOBODY, NOBODY)
    return mount.start()


def test_plain_user_mounts(lab, theirs):
    """Locks are the same as root's elsewhere; on this mount there is no other user, root neither."""
    status = Path(f"/proc/{theirs.pid}/status").read_text(encoding="ascii")
    assert re.search(rf"^Uid:\s+{NOBODY}\t{NOBODY}\t", status, re.M)
    assert re.search(r"^CapEff:\s+0+$", status, re.M), "no rights of root"
    mount = lab.mount()
    user = lab.agent(wrapper=AS_NOBODY)
    user.take(theirs / "x")
    assert int(mount.record("x")["uid"]) == NOBODY
    assert run("flock", "-n", mount / "x", "true").returncode == 1
    assert lab.agent().error("stat", theirs.path) == 13  # EACCES


def test_plain_user_unmounts(theirs):
    """By fusermount3 -u, upon which the daemon ends well."""
    checked(*AS_NOBODY_TO_MOUNT, "fusermount3", "-u", theirs.path)
    assert theirs.wait_exit() == 0
    assert str(theirs.path) not in mounts()


def test_plain_users_daemon_is_killed(lab, theirs):
    """What is left behind is unmounted, and it can be mounted again."""
    theirs.kill()
    wait_until(lambda: not theirs.mounted(), SOON, "the dead mount is gone")
    theirs.expected_exit = 0
    theirs.start()
    lab.agent(wrapper=AS_NOBODY).take(theirs / "x")


def test_allow_other_is_for_root_to_permit(lab, device, shared):
    """Without user_allow_other in /etc/fuse.conf the mount is refused, with the reason."""
    if "\nuser_allow_other" in Path("/etc/fuse.conf").read_text(encoding="utf-8"):
        pytest.skip("this machine permits it")
    place = shared / "refused"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    done = run(*device, *AS_NOBODY_TO_MOUNT, lab.mount(start=False).binary, "-f", "-o",
               "allow_other", f"{lab.etcd.url}{lab.prefix}", place)
    assert done.returncode == 1 and "user_allow_other" in done.stderr, done
    assert not os.path.ismount(place)
