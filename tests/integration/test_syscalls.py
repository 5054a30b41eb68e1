# SPDX-License-Identifier: MIT
"""Every system call that a lock file does not support says so, with the errno of the manual."""

import json
import os

import pytest

from support import PROGRAMS, checked

# As the manual has them under SYSTEM CALLS; "ok" is what works, the rest what reading gives.
EXPECTED = {
    "rename file": "EPERM", "rename directory": "EPERM", "rename from elsewhere": "EXDEV",
    "rename without replacing": "EPERM",
    "mkfifo": "EPERM", "mknod device": "EPERM", "mknod file": "EPERM", "bind": "EPERM",
    "link directory": "EPERM", "truncate free": "ENOENT", "truncate directory": "EISDIR",
    "ftruncate large": "EFBIG", "pwrite large": "EFBIG", "pwrite largest": "EFBIG",
    "pwrite negative": "EINVAL", "pread large": "ok", "write without holding": "EPERM",
    "truncate of others": "ok", "lseek data": "ok", "lseek end": "ok",
    "mmap shared": "ENODEV", "mmap private": "content",
    "O_TMPFILE": "EOPNOTSUPP", "O_DIRECT": "ok", "O_PATH": "ok", "fallocate": "EOPNOTSUPP",
    "copy_file_range in": "EXDEV", "copy_file_range out": "EXDEV",
    "copy_file_range within": "EPERM", "sendfile": "ok",
    "ioctl FS_IOC_GETFLAGS": "ENOTTY", "ioctl TCGETS": "ENOTTY", "ioctl FICLONE": "EXDEV",
    "open directory to write": "EISDIR", "open directory O_CREAT": "EISDIR",
    "read directory": "EISDIR", "name in a file": "ENOTDIR", "file O_DIRECTORY": "ENOTDIR",
    "mkdir in a file": "ENOTDIR", "rmdir file": "ENOTDIR", "rmdir root": "EBUSY",
    "unlink directory": "EISDIR",
    "setxattr user": "EOPNOTSUPP", "setxattr trusted": "EOPNOTSUPP", "setxattr ACL": "EOPNOTSUPP",
    "getxattr ACL": "ENODATA",
    "chmod file": "ok", "chown file": "ok", "utime file": "ok", "mode of a file": "100666",
    "fsync": "ok", "fdatasync": "ok", "fsync without holding": "EINVAL", "fsync directory": "ok",
    "readlink": "EINVAL", "long name": "ENAMETOOLONG", "long path": "ENAMETOOLONG",
    "exec": "EACCES", "flock directory": "ok", "lease": "EAGAIN", "names": "dir held",
}
# What a kernel may say in another way.
ALIASES = {"ENOTSUP": "EOPNOTSUPP"}


@pytest.mark.parametrize("policy", ["hold=close", "hold=process", "hold=name"])
def test_every_call(lab, policy):
    """All of them, on a file that is held, one that is not, and a directory."""
    mount = lab.mount(policy)
    os.mkdir(mount / "dir")
    said = json.loads(checked("/usr/bin/python3", PROGRAMS / "walk.py", mount,
                              lab.scratch("some text\n")))
    assert {name: ALIASES.get(word, word) for name, word in said.items()} == EXPECTED
