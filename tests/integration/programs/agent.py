#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A process that does what a test tells it: requests come on stdin, answers go to stdout.

Each request is a pickled (name, arguments); each answer ("ok", value) or ("error", errno).
"""

import collections
import errno
import fcntl
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading

FLOCK = "hhqqi4x"
servants = []


class Interrupted(Exception):
    """The alarm rang while a call waited."""


def lock_struct(kind, start=0, length=0):
    """A struct flock from the beginning of the file."""
    return struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0)


def flock(fd, operation):
    """flock(2)."""
    fcntl.flock(fd, operation)


def control(fd, command, kind, start=0, length=0):
    """fcntl(2) with a struct flock: F_SETLK, F_SETLKW and their OFD forms."""
    fcntl.fcntl(fd, command, lock_struct(kind, start, length))


def control_each(fd, kind, starts):
    """The same for a byte each at all of these places; how many."""
    for start in starts:
        control(fd, fcntl.F_SETLK, kind, start, 1)
    return len(starts)


def repeated(times, calls):
    """Does calls one after the other, so often: how often each errno came, 0 for success."""
    return collections.Counter(
        outcome(lambda call=call: OPERATIONS[call[0]](*call[1:]))
        for _ in range(times) for call in calls)


def write_each(fds, times, size):
    """Writes so much into each of them, so often."""
    for n in range(times):
        for fd in fds:
            os.pwrite(fd, b"%c" % (97 + n % 26) * size, 0)


def getlk(fd, kind, command=fcntl.F_GETLK):
    """F_GETLK: (type, pid)."""
    answer = struct.unpack(FLOCK, fcntl.fcntl(fd, command, lock_struct(kind)))
    return answer[0], answer[4]


def conflict(fd, command, kind, start=0, length=0):
    """F_GETLK: (type, start, length, pid), or the type alone if nothing is in the way."""
    answer = struct.unpack(FLOCK, fcntl.fcntl(fd, command, lock_struct(kind, start, length)))
    return (answer[0], *answer[2:5]) if answer[0] != fcntl.F_UNLCK else answer[:1]


def take(path, operation=fcntl.LOCK_EX, flags=os.O_RDWR | os.O_CREAT):
    """Opens and locks; the descriptor."""
    fd = os.open(path, flags, 0o666)
    try:
        fcntl.flock(fd, operation)
    except OSError:
        os.close(fd)
        raise
    return fd


def take_many(directory, names):
    """Locks all of them; how many."""
    for name in names:
        take(os.path.join(directory, name))
    return len(names)


def attempt(path):
    """Whether a try gets the lock, which is given back at once."""
    try:
        fd = take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    return True


def ring(number, frame):
    """The alarm."""
    raise Interrupted


def alarmed(seconds, name, *arguments):
    """Does something, with a signal after some time: "interrupted", or the usual answer."""
    signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return OPERATIONS[name](*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupted:
        # Perhaps only after the call had returned: what it got is then found by the caller.
        return "interrupted"


def restart_on(number):
    """A handler after which the kernel restarts calls (SA_RESTART)."""
    signal.signal(number, lambda number, frame: None)
    signal.siginterrupt(number, False)


def poll(fd, events, timeout=None):
    """The events poll(2) reports, 0 for none."""
    poller = select.poll()
    poller.register(fd, events)
    return sum(what for _, what in poller.poll(timeout))


def epoll(fd, events, timeout=None):
    """The events epoll(7) reports, 0 for none."""
    with select.epoll() as poller:
        poller.register(fd, events)
        return sum(what for _, what in poller.poll(timeout))


def forked(name, *arguments):
    """Does something in a child; its answer as an errno, 0 for success."""
    child = os.fork()
    if child == 0:
        try:
            OPERATIONS[name](*arguments)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_wait():
    """A child that inherits everything and lives until told; its pid."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def fork_and_wait_with(name, *arguments):
    """The same of one that has done something first."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        OPERATIONS[name](*arguments)
        os.write(done, b".")
        signal.pause()
        os._exit(0)
    os.close(done)
    if not os.read(ready, 1):
        raise OSError(errno.ECHILD, "the child has failed")
    os.close(ready)
    return child


def fork_and_serve():
    """A child that inherits everything and does what served() says; its pid."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        while True:
            name, arguments = pickle.loads(its.recv(1 << 16))
            its.send(pickle.dumps(outcome(lambda: OPERATIONS[name](*arguments))))
    its.close()
    servants.append(mine)
    return child


def served(name, *arguments):
    """Has the newest such child do something; its answer as an errno, 0 for success."""
    servants[-1].send(pickle.dumps((name, arguments)))
    return pickle.loads(servants[-1].recv(1 << 16))


def threaded(name, *arguments):
    """Does something in another thread, which then ends."""
    thread = threading.Thread(target=OPERATIONS[name], args=arguments)
    thread.start()
    thread.join()


def end(pid):
    """Ends such a child."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def utimens(path, atime, mtime):
    """utimensat(2), which takes UTIME_NOW for one time and a number for the other."""
    import ctypes  # takes its time, and hardly any agent needs it

    times = (ctypes.c_long * 4)(*atime, *mtime)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.utimensat(-100, os.fsencode(path), times, 0) < 0:
        raise OSError(ctypes.get_errno(), "utimensat")


def fstat(fd):
    """What a test wants to know of fstat(2)."""
    return os.fstat(fd)


def probe(fd):
    """What each call on a handle answers: the errno, 0 for success."""
    calls = {
        "read": lambda: os.pread(fd, 100, 0),
        "write": lambda: os.pwrite(fd, b"x", 0),
        "ftruncate": lambda: os.ftruncate(fd, 0),
        "fsync": lambda: os.fsync(fd),
        "flock": lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    }
    return {name: outcome(call) for name, call in calls.items()}


def outcome(call):
    """The errno of a call, 0 for success."""
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


MINE = (flock, control, control_each, repeated, write_each, getlk, conflict, take, take_many, attempt,
        alarmed, restart_on, poll, epoll, forked, fork_and_wait, fork_and_wait_with, fork_and_serve,
        served, threaded, end, utimens, fstat, probe)
THEIRS = ("open", "close", "read", "write", "pread", "pwrite", "fsync", "ftruncate", "truncate",
          "unlink", "link", "symlink", "readlink", "mkdir", "rmdir", "chmod", "chown", "listdir",
          "stat", "lstat", "dup", "lseek", "getpid",
          "getxattr", "setxattr", "listxattr", "removexattr", "access", "utime", "kill", "getuid",
          "seteuid")
OPERATIONS = {**{name: getattr(os, name) for name in THEIRS}, **{f.__name__: f for f in MINE}}


def answer(name, arguments):
    """Carries one request out."""
    try:
        return "ok", OPERATIONS[name](*arguments)
    except OSError as error:
        return "error", error.errno or errno.EIO


def main():
    """Serves until there is nobody left to serve."""
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(name, arguments), sys.stdout.buffer)
        sys.stdout.buffer.flush()


main()
