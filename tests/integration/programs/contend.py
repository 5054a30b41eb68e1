# SPDX-License-Identifier: MIT
"""Takes locks of one kind over and over, and fails when somebody else holds one at the same time.

    contend.py KIND DIRECTORY MARKS SEED        until its standard input is closed

Who holds a lock makes a file below MARKS, on a local disk, which must not be there.  In the end it
says how often it held one.
"""

import errno
import fcntl
import os
import random
import select
import sys
import time

KIND, DIRECTORY, MARKS, SEED = sys.argv[1:]
RANDOM = random.Random(SEED)
RANGES = 8
# What asking for a lock that somebody has may be answered with.
REFUSED = (errno.EEXIST, errno.EWOULDBLOCK, errno.EACCES)


def mark(name):
    """While a lock is held nobody else does."""
    path = f"{MARKS}/{name}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    time.sleep(RANDOM.uniform(0, 0.003))  # what is done with the lock
    os.unlink(path)


def flock():
    """With a descriptor of its own, waiting or not."""
    fd = os.open(f"{DIRECTORY}/one", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | RANDOM.choice([0, 0, fcntl.LOCK_NB]))
        mark("one")
        os.fsync(fd)
        if RANDOM.random() < 0.5:
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def exclusive():
    """By creating the same name."""
    fd = os.open(f"{DIRECTORY}/one", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        mark("one")
        text = str(os.getpid()).encode()
        os.pwrite(fd, text, 0)
        assert os.pread(fd, 100, 0) == text
        if RANDOM.random() < 0.5:
            os.unlink(f"{DIRECTORY}/one")
    finally:
        os.close(fd)


def ranges():
    """One of several bytes."""
    fd = os.open(f"{DIRECTORY}/ranges", os.O_RDWR | os.O_CREAT)
    try:
        start = RANDOM.randrange(RANGES)
        how = fcntl.LOCK_EX | RANDOM.choice([0, 0, fcntl.LOCK_NB])
        fcntl.lockf(fd, how, RANDOM.randint(1, RANGES - start), start)
        mark(f"ranges{start}")
        fcntl.lockf(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def directory():
    """By mkdir."""
    path = f"{DIRECTORY}/directory"
    os.mkdir(path)
    mark("directory")
    os.rmdir(path)


def symlink():
    """By a symbolic link, in a directory with hold=name."""
    path = f"{DIRECTORY}/named/symlink"
    os.symlink("somewhere", path)
    assert os.readlink(path) == "somewhere"
    mark("symlink")
    os.unlink(path)


def link():
    """By a hard link to a file of its own, in the same directory."""
    path, own = f"{DIRECTORY}/named/link", f"{DIRECTORY}/named/own.{os.getpid()}"
    os.close(os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        os.link(own, path)
        assert os.stat(own).st_nlink == 2
        mark("link")
        os.unlink(path)
    finally:
        os.unlink(own)


def opened():
    """By opening, in a directory with open=lock."""
    fd = os.open(f"{DIRECTORY}/opened/it", os.O_WRONLY)
    mark("opened")
    os.close(fd)


def main():
    count = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            globals()[KIND]()
            count += 1
        except OSError as error:
            if error.errno not in REFUSED or MARKS in str(error):
                raise
            time.sleep(0.001)  # as programs do that try again
    print(count, flush=True)


main()
