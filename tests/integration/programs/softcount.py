# SPDX-License-Identifier: MIT
"""Counts in a file, under a SoftFileLock: softcount.py LOCK FILE TIMES THREADS."""

import sys
import threading

from filelock import SoftFileLock


def count(lock, path, times):
    """Reads, adds one and writes, so often."""
    for _ in range(times):
        with SoftFileLock(lock).acquire(poll_interval=0.001):
            with open(path, encoding="ascii") as file:
                number = int(file.read())
            with open(path, "w", encoding="ascii") as file:
                file.write(str(number + 1))


def main():
    """Several threads at the same time."""
    lock, path, times, threads = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
    workers = [threading.Thread(target=count, args=(lock, path, times)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
