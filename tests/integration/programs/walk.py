# SPDX-License-Identifier: MIT
"""walk.py DIRECTORY LOCAL: every system call a file may get, on a mount; prints what came of each.

DIRECTORY/held gets created with O_EXCL and is held, DIRECTORY/plain is only open, DIRECTORY/dir is
a directory; LOCAL is a file of some other file system.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import stat
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


def direct(name, *arguments):
    """A function of the C library which returns -1 and errno."""
    result = getattr(LIBC, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def bind(path):
    """A socket as a file."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def rename(base, source, target, flags):
    """renameat2(2)."""
    direct("renameat2", AT_FDCWD, f"{base}/{source}".encode(), AT_FDCWD,
           f"{base}/{target}".encode(), flags)


def walk(base, local_path):
    """name -> what to call."""
    held = os.open(f"{base}/held", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    plain = os.open(f"{base}/plain", os.O_RDWR | os.O_CREAT)
    local = os.open(local_path, os.O_RDWR)
    os.pwrite(held, b"content", 0)
    file, directory, root = f"{base}/held", f"{base}/dir", os.open(base, os.O_RDONLY)
    inside = os.open(directory, os.O_RDONLY)
    return {
        "rename file": lambda: os.rename(file, f"{base}/new"),
        "rename directory": lambda: os.rename(directory, f"{base}/new"),
        "rename from elsewhere": lambda: os.rename(local_path, f"{base}/new"),
        "rename without replacing": lambda: rename(base, "held", "new", 1),
        "mkfifo": lambda: os.mkfifo(f"{base}/new"),
        "mknod device": lambda: os.mknod(f"{base}/new", stat.S_IFCHR, os.makedev(1, 3)),
        "mknod file": lambda: os.mknod(f"{base}/new", stat.S_IFREG),
        "bind": lambda: bind(f"{base}/new"),
        "link directory": lambda: os.link(directory, f"{base}/new"),
        "truncate free": lambda: os.truncate(f"{base}/free", 0),
        "truncate directory": lambda: os.truncate(directory, 0),
        "ftruncate large": lambda: os.ftruncate(held, 1 << 40),
        "pwrite large": lambda: os.pwrite(held, b"x", 1 << 40),
        "pwrite largest": lambda: os.pwrite(held, b"x", (1 << 63) - 2),
        "pwrite negative": lambda: os.pwrite(held, b"x", -1),
        "pread large": lambda: os.pread(held, 9, 1 << 40),
        "write without holding": lambda: os.write(plain, b"x"),
        "truncate of others": lambda: os.ftruncate(plain, 0),
        "lseek data": lambda: os.lseek(held, 0, os.SEEK_DATA),
        "lseek end": lambda: os.lseek(held, 0, os.SEEK_END),
        "mmap shared": lambda: mmap.mmap(held, 7),
        "mmap private": lambda: mmap.mmap(held, 7, flags=mmap.MAP_PRIVATE).read(7).decode(),
        "O_TMPFILE": lambda: os.open(base, os.O_TMPFILE | os.O_RDWR),
        "O_DIRECT": lambda: os.close(os.open(file, os.O_RDONLY | os.O_DIRECT)),
        "O_PATH": lambda: os.close(os.open(file, os.O_PATH)),
        "fallocate": lambda: direct("fallocate", held, 3, ctypes.c_long(0), ctypes.c_long(9)),
        "copy_file_range in": lambda: os.copy_file_range(local, held, 5, 0, 0),
        "copy_file_range out": lambda: os.copy_file_range(held, local, 5, 0, 0),
        "copy_file_range within": lambda: os.copy_file_range(held, plain, 5, 0, 0),
        "sendfile": lambda: os.sendfile(local, held, 0, 5),
        "ioctl FS_IOC_GETFLAGS": lambda: fcntl.ioctl(held, 0x80086601, bytes(8)),
        "ioctl TCGETS": lambda: fcntl.ioctl(held, 0x5401, bytes(64)),
        "ioctl FICLONE": lambda: fcntl.ioctl(held, 0x40049409, local),
        "open directory to write": lambda: os.open(directory, os.O_RDWR),
        "open directory O_CREAT": lambda: os.open(directory, os.O_RDONLY | os.O_CREAT),
        "read directory": lambda: os.read(inside, 9),
        "name in a file": lambda: os.stat(f"{file}/x"),
        "file O_DIRECTORY": lambda: os.open(file, os.O_DIRECTORY),
        "mkdir in a file": lambda: os.mkdir(f"{file}/x"),
        "rmdir file": lambda: os.rmdir(file),
        "rmdir root": lambda: os.rmdir(base),
        "unlink directory": lambda: os.unlink(directory),
        "setxattr user": lambda: os.setxattr(file, "user.other", b"x"),
        "setxattr trusted": lambda: os.setxattr(directory, "trusted.other", b"x"),
        "setxattr ACL": lambda: os.setxattr(
            directory, "system.posix_acl_access", struct.pack("<I", 2)),
        "getxattr ACL": lambda: os.getxattr(directory, "system.posix_acl_access"),
        "chmod file": lambda: os.chmod(file, 0o600),
        "chown file": lambda: os.chown(file, 1, 1),
        "utime file": lambda: os.utime(file, (1, 1)),
        "mode of a file": lambda: f"{os.stat(file).st_mode:o}",
        "fsync": lambda: os.fsync(held),
        "fdatasync": lambda: os.fdatasync(held),
        "fsync without holding": lambda: os.fsync(plain),
        "fsync directory": lambda: os.fsync(root),
        "readlink": lambda: os.readlink(file),
        "long name": lambda: os.open(f"{base}/{'n' * 256}", os.O_RDWR | os.O_CREAT),
        "long path": lambda: os.mkdir("/".join([base, *["n" * 255] * 16])),
        "exec": lambda: os.execv(file, ["x"]),
        "flock directory": lambda: fcntl.flock(inside, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "lease": lambda: fcntl.fcntl(plain, fcntl.F_SETLEASE, fcntl.F_RDLCK),
        "names": lambda: " ".join(sorted(os.listdir(base))),
    }


def outcome(call):
    """The name of the error, or what was returned."""
    try:
        result = call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return result if isinstance(result, str) else "ok"


if __name__ == "__main__":
    CALLS = walk(*sys.argv[1:])
    print(json.dumps({name: outcome(call) for name, call in CALLS.items()}))
