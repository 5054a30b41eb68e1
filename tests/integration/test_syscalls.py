# SPDX-License-Identifier: MIT
"""Every system call that a lock file does not support says so, with the errno of the manual."""

import json
import os

import pytest

from conftest import Pair
from support import PROGRAMS, checked
from test_lockfiles import EXCL

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
    "exec": "EACCES", "flock directory": "ok", "lease": "EAGAIN",
    "rename exchange": "EPERM", "rename whiteout": "EPERM",
    "pread negative": "EINVAL", "ftruncate negative": "EINVAL",
    "lseek hole": "ok", "lseek far": "ok", "lseek negative": "EINVAL",
    "lock far": "ok", "lock to the end": "ok", "lock beyond": "EOVERFLOW",
    "lock negative": "EINVAL", "lock of a directory": "ok",
    "fallocate size": "EOPNOTSUPP", "splice": "ok", "fadvise": "ok", "sync_file_range": "ok",
    "syncfs": "ok", "statfs": "ok", "inotify": "ok", "seals": "EINVAL",
    "name_to_handle_at": "ok", "ioctl FIONREAD": "ok", "ioctl FS_IOC_SETFLAGS": "ENOTTY",
    "ioctl FS_IOC_FSGETXATTR": "ENOTTY", "ioctl FITRIM": "ENOTTY",
    "ioctl of a directory": "ENOTTY", "execute permission": "no", "chdir": "ENOTDIR",
    "slash behind a file": "ENOTDIR", "slash behind a new file": "EISDIR",
    "directory: ftruncate": "EINVAL", "directory: write": "EBADF", "directory: mmap": "ENODEV",
    "directory: fallocate": "EBADF", "directory: copy_file_range": "EISDIR",
    "directory: O_EXCL": "EEXIST", "directory: O_TRUNC": "EISDIR", "directory: mkdir": "EEXIST",
    "directory: mknod": "EEXIST", "directory: rename over": "EISDIR",
    "directory: readlink": "EINVAL", "rmdir free": "ENOENT", "unlink free": "ENOENT",
    "mkdir long name": "ENAMETOOLONG", "setxattr security": "EOPNOTSUPP",
    "setxattr holder": "EOPNOTSUPP", "removexattr holder": "EOPNOTSUPP",
    "removexattr other": "EOPNOTSUPP", "getxattr other": "ENODATA", "reserved name": "EPERM",
    "others: truncate": "ok", "others: ftruncate": "ok", "others: O_TRUNC": "ok",
    "others: grow": "ok", "others: read": "theirs", "others: mmap private": "theirs",
    "others: write": "EPERM", "others: sendfile": "EPERM", "others: copy_file_range": "EPERM",
    "others: fallocate": "EOPNOTSUPP", "others: fsync": "EINVAL", "others: O_EXCL": "EEXIST",
    "others: flock": "EAGAIN", "others: fcntl": "EAGAIN", "others: rmdir": "ENOTDIR",
    "others: mkdir": "EEXIST", "others: symlink": "EEXIST", "others: link": "EPERM",
    "others: link to it": "EEXIST", "others: mknod": "EEXIST", "others: rename": "EPERM",
    "others: rename to it": "EPERM", "others: exchange": "EPERM", "others: chmod": "ok",
    "others: chown": "ok", "others: utime": "ok", "others: break": "EINVAL",
}
# Links need hold=process or hold=name.
NO_LINKS = {"symlink": "EPERM", "symlink long": "EPERM", "link": "EPERM"}
LINKS = dict.fromkeys(NO_LINKS, "ok")
BY_POLICY = {
    "hold=close": {**NO_LINKS, "others: unlink": "EBUSY", "names": "dir held others"},
    "hold=process": {**LINKS, "others: unlink": "EBUSY", "names": "dir held others"},
    "hold=name": {**LINKS, "others: unlink": "EBUSY", "names": "dir held others"},
}
# What a kernel may say in another way.
ALIASES = {"ENOTSUP": "EOPNOTSUPP"}


@pytest.mark.parametrize("policy", BY_POLICY)
def test_every_call(lab, policy):
    """All of them: on files held here, elsewhere and not at all, and on a directory."""
    pair = Pair(lab, policy)
    os.mkdir(pair.a / "dir")
    other = lab.agent()
    other.write(other.open(pair.b / "others", EXCL), b"theirs")
    said = json.loads(checked("/usr/bin/python3", PROGRAMS / "walk.py", pair.a,
                              lab.scratch("some text\n")))
    said = {name: ALIASES.get(word, word) for name, word in said.items()}
    assert said == {**EXPECTED, **BY_POLICY[policy]}
