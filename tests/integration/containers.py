# SPDX-License-Identifier: MIT
"""Containers by bubblewrap: with users and processes of their own, and a directory of the machine."""


from support import children, command_of, run


def container(directory, *options, place="/locks"):
    """The words before a command that runs it in a container which has a directory at a place."""
    root = ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for name in "bin", "lib", "lib64", "sbin":
        root += ["--symlink", f"usr/{name}", f"/{name}"]
    return ["bwrap", "--unshare-all", "--uid", "1000", "--gid", "1000", "--die-with-parent", *root,
            "--bind", str(directory), place, *options, "--"]


def holding(name, place="/locks"):
    """A command that holds a lock until its input ends."""
    return ["flock", f"{place}/{name}", "sh", "-c", "echo held; cat"]


def attempt(words, name, place="/locks"):
    """Whether a container gets a lock at once."""
    done = run(*words, "flock", "-n", "-E", "75", f"{place}/{name}", "true")
    assert done.returncode in (0, 75), done
    return done.returncode == 0


def inside(pid, name):
    """The process of a name below a process."""
    for child in children(pid):
        if command_of(child) == name:
            return int(child)
        if (found := inside(child, name)):
            return found
    return None
