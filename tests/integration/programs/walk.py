# SPDX-License-Identifier: MIT
"""walk.py DIRECTORY LOCAL: every system call a file may get, on a mount; prints what came of each.

DIRECTORY/held gets created with O_EXCL and is held, DIRECTORY/plain is only open, DIRECTORY/dir is
a directory; LOCAL is a file of some other file system.  DIRECTORY/others somebody else holds, on
another machine, and has written "theirs" into it.
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


def lock(fd, kind, start, length):
    """F_SETLK."""
    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def handle_of(path):
    """name_to_handle_at(2)."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    direct("name_to_handle_at", AT_FDCWD, path.encode(), handle, ctypes.byref(ctypes.c_int()), 0)


def watch(path):
    """inotify(7)."""
    fd = LIBC.inotify_init()
    direct("inotify_add_watch", fd, path.encode(), 0xfff)
    os.close(fd)


def splice(source, target):
    """splice(2), which needs a pipe at one end."""
    first, second = os.pipe()
    try:
        os.splice(source, second, 5, 0)
        os.splice(first, target, 5, None, 0)
    finally:
        os.close(first)
        os.close(second)


def text_of(path):
    """What a file reads as."""
    with open(path, "rb") as file:
        return file.read().decode()


def walk_others(base):
    """name -> what to call, with a lock of another machine."""
    path = f"{base}/others"
    fd = os.open(path, os.O_RDWR)
    return {
        "others: truncate": lambda: os.truncate(path, 0),
        "others: ftruncate": lambda: os.ftruncate(fd, 0),
        "others: O_TRUNC": lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        "others: grow": lambda: os.truncate(path, 1000),
        "others: read": lambda: text_of(path),
        "others: mmap private": lambda: mmap.mmap(fd, 6, flags=mmap.MAP_PRIVATE).read(6).decode(),
        "others: write": lambda: os.pwrite(fd, b"x", 0),
        "others: sendfile": lambda: os.sendfile(fd, fd, 0, 5),
        "others: copy_file_range": lambda: os.copy_file_range(fd, fd, 2, 0, 4),
        "others: fallocate": lambda: direct("fallocate", fd, 0, ctypes.c_long(0),
                                            ctypes.c_long(9)),
        "others: fsync": lambda: os.fsync(fd),
        "others: O_EXCL": lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL),
        "others: flock": lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "others: fcntl": lambda: lock(fd, fcntl.F_WRLCK, 0, 0),
        "others: rmdir": lambda: os.rmdir(path),
        "others: mkdir": lambda: os.mkdir(path),
        "others: symlink": lambda: os.symlink("text", path),
        "others: link": lambda: os.link(path, f"{base}/new"),
        "others: link to it": lambda: os.link(f"{base}/held", path),
        "others: mknod": lambda: os.mknod(path, stat.S_IFREG),
        "others: rename": lambda: os.rename(path, f"{base}/new"),
        "others: rename to it": lambda: os.rename(f"{base}/held", path),
        "others: exchange": lambda: rename(base, "held", "others", 2),
        "others: chmod": lambda: os.chmod(path, 0o600),
        "others: chown": lambda: os.chown(path, 1, 1),
        "others: utime": lambda: os.utime(path, (1, 1)),
        "others: break": lambda: os.setxattr(path, "user.latchfs.break", b"no token"),
        "others: unlink": lambda: os.unlink(path),
    }


def walk_more(base, held, inside):
    """name -> what to call: less common calls, odd values, a directory in the place of a file."""
    file, directory = f"{base}/held", f"{base}/dir"
    return {
        "rename exchange": lambda: rename(base, "held", "dir", 2),
        "rename whiteout": lambda: rename(base, "held", "new", 4),
        "symlink": lambda: os.symlink("text", f"{base}/new") or os.unlink(f"{base}/new"),
        "symlink long": lambda: os.symlink("t" * 4095, f"{base}/new") or os.unlink(f"{base}/new"),
        "link": lambda: os.link(file, f"{base}/new") or os.unlink(f"{base}/new"),
        "pread negative": lambda: os.pread(held, 1, -1),
        "ftruncate negative": lambda: direct("ftruncate", held, ctypes.c_long(-1)),
        "lseek hole": lambda: os.lseek(held, 0, os.SEEK_HOLE),
        "lseek far": lambda: os.lseek(held, (1 << 63) - 1, os.SEEK_SET),
        "lseek negative": lambda: os.lseek(held, -1, os.SEEK_SET),
        "lock far": lambda: lock(held, fcntl.F_WRLCK, 1 << 62, 100),
        "lock to the end": lambda: lock(held, fcntl.F_WRLCK, (1 << 63) - 1, 1),
        "lock beyond": lambda: lock(held, fcntl.F_WRLCK, (1 << 63) - 1, 2),
        "lock negative": lambda: lock(held, fcntl.F_WRLCK, -1, 1),
        "lock of a directory": lambda: lock(inside, fcntl.F_RDLCK, 0, 0),
        "fallocate size": lambda: direct("fallocate", held, 0, ctypes.c_long(0),
                                         ctypes.c_long(9)),
        "splice": lambda: splice(held, held),
        "fadvise": lambda: os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED),
        "sync_file_range": lambda: direct("sync_file_range", held, ctypes.c_long(0),
                                          ctypes.c_long(0), 7),
        "syncfs": lambda: direct("syncfs", held),
        "statfs": lambda: os.statvfs(base),
        "inotify": lambda: watch(file),
        "seals": lambda: fcntl.fcntl(held, 1033, 1),
        "name_to_handle_at": lambda: handle_of(file),
        "ioctl FIONREAD": lambda: fcntl.ioctl(held, 0x541b, bytes(8)),
        "ioctl FS_IOC_SETFLAGS": lambda: fcntl.ioctl(held, 0x40086602, bytes(8)),
        "ioctl FS_IOC_FSGETXATTR": lambda: fcntl.ioctl(held, 0x801c581f, bytes(28)),
        "ioctl FITRIM": lambda: fcntl.ioctl(inside, 0xc0185879, bytes(24)),
        "ioctl of a directory": lambda: fcntl.ioctl(inside, 0x5401, bytes(64)),
        "execute permission": lambda: "yes" if os.access(file, os.X_OK) else "no",
        "chdir": lambda: os.chdir(file),
        "slash behind a file": lambda: os.stat(f"{file}/"),
        "slash behind a new file": lambda: os.open(f"{base}/new/", os.O_RDWR | os.O_CREAT),
        "directory: ftruncate": lambda: os.ftruncate(inside, 0),
        "directory: write": lambda: os.write(inside, b"x"),
        "directory: mmap": lambda: mmap.mmap(inside, 7, mmap.MAP_PRIVATE, mmap.PROT_READ),
        "directory: fallocate": lambda: direct("fallocate", inside, 0, ctypes.c_long(0),
                                               ctypes.c_long(9)),
        "directory: copy_file_range": lambda: os.copy_file_range(held, inside, 5, 0, 0),
        "directory: O_EXCL": lambda: os.open(directory, os.O_RDWR | os.O_CREAT | os.O_EXCL),
        "directory: O_TRUNC": lambda: os.open(directory, os.O_WRONLY | os.O_TRUNC),
        "directory: mkdir": lambda: os.mkdir(directory),
        "directory: mknod": lambda: os.mknod(directory, stat.S_IFREG),
        "directory: rename over": lambda: os.rename(file, directory),
        "directory: readlink": lambda: os.readlink(directory),
        "rmdir free": lambda: os.rmdir(f"{base}/free"),
        "unlink free": lambda: os.unlink(f"{base}/free"),
        "mkdir long name": lambda: os.mkdir(f"{base}/{'n' * 256}"),
        "setxattr security": lambda: os.setxattr(file, "security.other", b"x"),
        "setxattr holder": lambda: os.setxattr(file, "user.latchfs.holder", b"x"),
        "removexattr holder": lambda: os.removexattr(file, "user.latchfs.holder"),
        "removexattr other": lambda: os.removexattr(file, "user.other"),
        "getxattr other": lambda: os.getxattr(file, "user.other"),
        "reserved name": lambda: os.mkdir(f"{base}/.latchfs-new"),
    }


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
        **walk_more(base, held, inside),
        **walk_others(base),
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
