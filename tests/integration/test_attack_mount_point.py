# SPDX-License-Identifier: MIT
"""Attackers who own what is above a mount point: root mounts there, or not at all."""

import os
from pathlib import Path

import pytest

from support import SOON, mounts, wait_until
from test_permissions import BOB


def swap(bobs, target, how):
    """What bob does while no address of etcd answers."""
    if how == "symlink":
        os.rename(bobs / "d/locks", bobs / "d/old")
        os.symlink(target, bobs / "d/locks")
    elif how == "parent":
        os.rename(bobs / "d", bobs / "old")
        (bobs / "d").symlink_to(target)
    elif how == "another":
        os.rename(bobs / "d/locks", bobs / "d/old")
        (bobs / "d/locks").mkdir()
    elif how == "removed":
        (bobs / "d/locks").rmdir()
    elif how == "moved":
        os.rename(bobs / "d", bobs / "elsewhere")


def holds(mount):
    """Whether the daemon has its mount point open."""
    for descriptor in Path(f"/proc/{mount.server}/fd").iterdir():
        try:
            if os.readlink(descriptor) == str(mount.path):
                return True
        except OSError:
            pass
    return False


@pytest.mark.parametrize("how", ["symlink", "parent", "another", "removed", "moved"])
def test_it_is_mounted_where_it_was_said_or_nowhere(lab, how):
    """The mount point is swapped while etcd does not answer; what is mounted then is nothing."""
    lab.own_etcd()
    roots, bobs = lab.base / "roots", lab.base / "bobs"
    (roots / "locks").mkdir(parents=True)
    (bobs / "d/locks").mkdir(parents=True)
    for path in bobs, bobs / "d", bobs / "d/locks":
        os.chown(path, BOB, BOB)
    mount = lab.mount("timeout=30", name="bobs/d/locks", start=False)
    mount.log_path = lab.base / "log"
    mount.expect("moved or replaced").expected_exit = 1
    lab.etcd.pause()
    mount.launch()
    wait_until(lambda: mount.server and holds(mount), SOON, "it waits for etcd")
    swap(bobs, roots if how == "parent" else roots / "locks", how)
    lab.etcd.resume()
    assert mount.wait_exit() == 1
    assert f"can't mount at {mount.path}: it was moved or replaced meanwhile" in mount.log()
    assert not [path for path in mounts() if path.startswith(str(lab.base))]
