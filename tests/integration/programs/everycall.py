#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Every call there is, each in a thread, on a file and a directory with which something goes on.

everycall.py DIRECTORY STATUS: prepares the directory, says "ready"; begins what each line of its
input names, or with "calls" everything, and says for each call which returns its name and errno.
"""

import errno
import fcntl
import os
import select
import struct
import sys
import threading

RW = os.O_RDWR | os.O_CREAT
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
LOCKS = threading.Lock()


def lock(fd, command, kind, start, length):
    """An OFD lock of some bytes."""
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def part(path, start):
    """A handle that has ten bytes of a file."""
    fd = os.open(path, RW)
    lock(fd, OFD_SETLK, fcntl.F_WRLCK, start, 10)
    return fd


def taken(path):
    """A handle that has all of a file."""
    fd = os.open(path, RW)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def read_file(path):
    """All of it."""
    with open(path, "rb") as file:
        return file.read()


def say(*words):
    """A line, whole."""
    with LOCKS:
        print(*words, flush=True)


def begin(name, call):
    """Starts a call."""

    def run():
        try:
            call()
            say(name, 0)
        except OSError as error:
            say(name, errno.errorcode.get(error.errno, error.errno))

    threading.Thread(target=run, daemon=True).start()


def main():
    """See above."""
    top, status = sys.argv[1:]
    file, below, keep = f"{top}/f", f"{top}/below", f"{top}/keep"
    os.mkdir(top)
    os.mkdir(below)
    os.mkdir(keep)
    os.setxattr(keep, "user.latchfs.hold", b"name")
    os.mkdir(f"{top}/empty")
    one, two, three, four = (part(file, 20 * n) for n in range(4))
    spare = os.open(file, RW)
    waiter = os.open(file, RW)
    os.write(two, b"content")
    flocked, excl, closing = taken(f"{top}/g"), os.open(f"{top}/e", RW | os.O_EXCL), taken(f"{top}/c")
    gone = os.open(f"{top}/u", RW | os.O_EXCL)
    os.symlink("somewhere", f"{keep}/link")
    os.close(os.open(f"{keep}/e", RW | os.O_EXCL))
    token = read_file(f"{top}/g").split(b"\n", 1)[0].partition(b"=")[2]
    states = {
        "join": lambda: lock(waiter, OFD_SETLKW, fcntl.F_WRLCK, 0, 0),
        "flock": lambda: fcntl.flock(waiter, fcntl.LOCK_EX),
        "leave": lambda: lock(four, OFD_SETLK, fcntl.F_UNLCK, 0, 0),
        "shrink": lambda: lock(one, OFD_SETLK, fcntl.F_UNLCK, 0, 5),
        "write": lambda: os.write(one, b"first"),
        "mkdir": lambda: os.mkdir(f"{top}/m"),
    }
    calls = {
        "open": lambda: os.open(file, os.O_RDWR),
        "open a free name": lambda: os.open(f"{top}/new", RW),
        "create": lambda: os.open(f"{top}/created", RW | os.O_EXCL),
        "stat": lambda: os.stat(file),
        "stat of nothing": lambda: os.stat(f"{top}/nothing"),
        "access": lambda: os.access(f"{top}/g", os.R_OK),
        "listdir": lambda: os.listdir(top),
        "write": lambda: os.pwrite(one, b"x", 0),
        "write elsewhere": lambda: os.pwrite(excl, b"x", 0),
        "read": lambda: os.pread(one, 100, 0),
        "read without a lock": lambda: os.pread(spare, 100, 0),
        "ftruncate": lambda: os.ftruncate(two, 3),
        "fsync": lambda: os.fsync(two),
        "flock try": lambda: fcntl.flock(spare, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "unlock": lambda: fcntl.flock(flocked, fcntl.LOCK_UN),
        "set": lambda: lock(spare, OFD_SETLK, fcntl.F_WRLCK, 200, 5),
        "set more": lambda: lock(two, OFD_SETLK, fcntl.F_WRLCK, 220, 5),
        "unset a part": lambda: lock(two, OFD_SETLK, fcntl.F_UNLCK, 20, 5),
        "unset all": lambda: lock(three, OFD_SETLK, fcntl.F_UNLCK, 0, 0),
        "get": lambda: lock(spare, OFD_GETLK, fcntl.F_WRLCK, 0, 0),
        "close": lambda: os.close(closing),
        "unlink": lambda: os.unlink(f"{top}/u"),
        "unlink what is held": lambda: os.unlink(file),
        "link": lambda: os.link(f"{keep}/e", f"{keep}/linked"),
        "symlink": lambda: os.symlink("x", f"{keep}/s"),
        "readlink": lambda: os.readlink(f"{keep}/link"),
        "mkdir": lambda: os.mkdir(f"{top}/made"),
        "rmdir": lambda: os.rmdir(f"{top}/empty"),
        "chmod": lambda: os.chmod(below, 0o700),
        "chmod of a file": lambda: os.chmod(file, 0o600),
        "chown": lambda: os.chown(below, 1, 1),
        "utime": lambda: os.utime(below),
        "rename": lambda: os.rename(f"{top}/e", f"{top}/renamed"),
        "set a policy": lambda: os.setxattr(below, "user.latchfs.hold", b"name"),
        "get a policy": lambda: os.getxattr(below, "user.latchfs.hold"),
        "break": lambda: os.setxattr(f"{top}/g", "user.latchfs.break", token),
        "queue": lambda: os.getxattr(file, "user.latchfs.queue"),
        "holder": lambda: os.getxattr(file, "user.latchfs.holder"),
        "statfs": lambda: os.statvfs(top),
        "poll": lambda: select.select([two], [], [], 0),
        **{f"cat {name}": lambda name=name: read_file(f"{status}/{name}")
           for name in os.listdir(status)},
    }
    say("ready", *(name.replace(" ", "_") for name in calls))
    for line in sys.stdin:
        chosen = calls if line == "calls\n" else {line.strip(): states[line.strip()]}
        for name, call in chosen.items():
            begin("calls" if line != "calls\n" else name.replace(" ", "_"), call)
    del gone


main()
