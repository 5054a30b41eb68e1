# SPDX-License-Identifier: MIT
"""What `meson install` puts on a machine: the mount helper, the manual, completions."""

import fcntl
import os
import pty
import re
import select
import signal
import stat
import time
from pathlib import Path

import pytest

import support
from mounting import BINARY, PLAIN_BINARY, clean_environment, daemons_of, is_sanitized
from support import PATIENCE, REPOSITORY, SOON, checked, gone, run, wait_until

CONTRIB = REPOSITORY / "contrib"
COMPLETION = CONTRIB / "completion"
BUILD = PLAIN_BINARY.resolve().parent.parent

# The helper's place.


@pytest.fixture
def helper():
    """The daemon as mount.latchfs, where mount(8) looks for helpers."""
    place = Path("/sbin/mount.latchfs")
    directory = os.open(place.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # other tests do the same
    before = place.is_symlink() or place.exists()
    if before:
        place.rename(f"{place}.before-test")
    place.symlink_to(Path(BINARY).resolve())
    yield place
    place.unlink()
    if before:
        Path(f"{place}.before-test").rename(place)
    os.close(directory)


@pytest.fixture
def place(lab):
    """An empty directory to mount on; its mount and daemon are ended."""
    path = lab.base / "place"
    path.mkdir()
    yield path
    for pid in daemons_of(path):
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda pid=pid: gone(pid), SOON)
    assert str(path) not in support.mounts()


def mount(*words):
    """mount(8)."""
    return run("mount", *words, env=clean_environment(), timeout=60)


def works(place):
    """The directory is a mount that locks."""
    assert checked("flock", "-n", place / "x", "cat", place / "x").startswith("token=")


def source(lab):
    """SOURCE for a test's prefix."""
    return f"{lab.etcd.url}{lab.prefix}"


def mounted_times(place):
    """How many mounts lie on a directory."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return sum(line.split()[4] == str(place) for line in text.splitlines())


def test_mount_by_type(lab, place, helper):
    """`mount -t latchfs`, with the flags that it hands on; it ends by umount."""
    done = mount("-v", "-n", "-s", "-t", "latchfs", "-o", "ttl=60,noatime,x-systemd.requires=a.service",
                 source(lab), place)
    assert done.returncode == 0, done
    works(place)
    assert support.mounts()[str(place)][1] == "fuse.latchfs"
    pid, = daemons_of(place)
    checked("umount", place)
    wait_until(lambda: gone(pid), SOON)


def test_mount_by_subtype(lab, place, helper):
    """The helper called with -t, as mount(8) does for a type with a dot."""
    done = run(helper, source(lab), place, "-o", "rw,ttl=60", "-t", "latchfs.x", "-sn",
               env=clean_environment(), timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    works(place)


def test_mount_all_of_fstab(lab, place, helper):
    """`mount -a` mounts what is in fstab, and a second one finds it mounted."""
    line = f"{source(lab)} {place} latchfs ttl=60,allow_other,_netdev,nofail 0 0\n"
    fstab = lab.scratch(line)
    for _ in range(2):
        done = mount("-a", "-T", fstab)
        assert done.returncode == 0, done
        assert mounted_times(place) == 1
    works(place)


def test_pretended_mount(lab, place, helper):
    """`mount -f` mounts nothing, and still says what is wrong."""
    done = mount("-f", "-t", "latchfs", "-o", "ttl=60", source(lab), place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mounted_times(place) == 0 and daemons_of(place) == []
    done = mount("-f", "-t", "latchfs", "-o", "ttl=1", source(lab), place)
    assert done.returncode != 0 and "ttl=1" in done.stderr


def test_foreground_is_no_flag_of_the_helper(lab, place):
    """Under its own name -f is the foreground, whatever else contains the helper's name."""
    link = lab.base / "not-mount.latchfs"
    link.symlink_to(Path(BINARY).resolve())
    daemon = lab.mount(binary=link)
    works(daemon.path)


def test_remount_is_refused(lab, place, helper):
    """A remount changes nothing, adds nothing, and says so."""
    assert mount("-t", "latchfs", "-o", "ttl=60", source(lab), place).returncode == 0
    done = mount("-t", "latchfs", "-o", "remount,ro", source(lab), place)
    assert done.returncode != 0 and "remount" in done.stderr
    assert mounted_times(place) == 1
    works(place)


# What is installed.


@pytest.fixture(scope="module")
def installed(base):
    """The tree of `meson install`, without the part that depends on the prefix."""
    if not (BUILD / "build.ninja").exists():
        pytest.skip("the daemon does not come from a build of meson")
    target = base / "installed"
    checked("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", target, timeout=60)
    paths = [path for path in target.rglob("*") if path.is_symlink() or not path.is_dir()]
    yield {re.sub(r"^/usr/local", "", f"/{path.relative_to(target)}"): path for path in paths}


def test_installed_files(installed):
    """Each thing where its reader looks for it, and nothing else."""
    assert set(installed) == {
        "/bin/latchfs", "/bin/latchfs-textfile", "/sbin/mount.latchfs",
        "/share/man/man7/latchfs.7", "/share/man/man8/latchfs.8", "/share/man/man8/mount.latchfs.8",
        "/share/man/man8/latchfs-textfile.8", "/share/latchfs/prometheus/latchfs.rules.yml",
        "/share/latchfs/prometheus/latchfs.test.yml",
        "/share/latchfs/prometheus/latchfs.dashboard.json",
        "/share/licenses/latchfs/LICENSE",
        "/share/bash-completion/completions/latchfs", "/share/zsh/site-functions/_latchfs",
        "/share/fish/vendor_completions.d/latchfs.fish",
        "/lib/systemd/system/latchfs@.service", "/share/doc/latchfs/examples/fstab",
        "/share/doc/latchfs/examples/locks.conf", "/share/doc/latchfs/examples/locks.mount",
    }
    unit = installed["/lib/systemd/system/latchfs@.service"].read_text(encoding="ascii")
    assert "ExecStart=/usr/local/bin/latchfs -f" in unit
    assert os.readlink(installed["/sbin/mount.latchfs"]).endswith("/bin/latchfs")
    for path in installed.values():
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o755 if "bin" in path.parent.name else 0o644), path


def test_it_is_hardened(installed):
    """Position-independent, nothing to overwrite after the start, stacks and copies that are checked."""
    path = installed["/bin/latchfs"]
    head = checked("readelf", "-hldW", path)
    assert re.search(r"Type:\s+DYN .*Position-Independent", head)
    assert "GNU_RELRO" in head and "BIND_NOW" in head
    assert not re.search(r"GNU_STACK.*RWE", head)
    names = checked("readelf", "-W", "--dyn-syms", path)
    assert "__stack_chk_fail" in names
    # The sanitizers check copies themselves.
    assert is_sanitized(path) or re.search(r"__\w+_chk\b", names.replace("__stack_chk_fail", ""))


def test_helper_is_where_mount_looks():
    """A new build installs it into /sbin, whatever the prefix."""
    text = (REPOSITORY / "meson.build").read_text(encoding="utf-8")
    assert "'sbindir=/sbin'" in text


# The documents know every option.


def table():
    """The name of every option in src/options.c."""
    text = (REPOSITORY / "src/options.c").read_text(encoding="utf-8")
    return {name.lstrip("-") for name in re.findall(r'FUSE_OPT_KEY\("([^"=]+)=?", KEY_', text)}


def unnamed(text):
    """The options that a text does not name."""
    return table() - {word.lstrip("-") for word in re.findall(r"[\w-]+", text)}


# To be refused.
UNSAID = {"password"}
# For other readers of fstab.
OTHERS = {"auto", "noauto", "user", "nouser", "users", "defaults", "comment", "_netdev", "nofail",
          "auto_unmount"}


def test_table_is_read():
    """These tests see the options."""
    assert len(table()) > 30 and {"ttl", "help", "_netdev"} <= table()


def test_manual_has_every_option():
    """Each option has its place in the list of latchfs(8)."""
    text = (CONTRIB / "man/latchfs.8").read_text(encoding="utf-8")
    assert unnamed("\n".join(re.findall(r"^\.It (?:Cm|Fl) .*$", text, re.M))) == UNSAID


def test_help_has_every_option():
    """So does --help, but for what fstab says to others."""
    assert unnamed(checked(BINARY, "--help")) <= UNSAID | OTHERS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_every_option(shell):
    """So do the completions."""
    text = (COMPLETION / f"latchfs.{shell}").read_text(encoding="utf-8")
    assert unnamed(text) <= UNSAID | OTHERS - {"noauto", "_netdev", "nofail", "auto_unmount"}


def test_completions_know_each_policy():
    """And the values of policies and switches are those that latchfs takes."""
    help_text = checked(BINARY, "--help")
    policies = re.findall(r"\b(\w+)=(\w+(?:\|\w+)+)", help_text)
    assert len(policies) == 8
    for name, values in policies:
        values = values.split("|")
        bash = (COMPLETION / "latchfs.bash").read_text(encoding="utf-8")
        assert f"{name}=*) compgen -P {name}= -W '{' '.join(values)}'" in bash
        fish = (COMPLETION / "latchfs.fish").read_text(encoding="utf-8")
        assert all(re.search(rf"\b{name}={value}\b", fish) for value in values)
        zsh = (COMPLETION / "latchfs.zsh").read_text(encoding="utf-8")
        assert re.search(rf"'{name}\[.*\]:policy:\({' '.join(values)}\)'", zsh)


# Completion at work.

CASES = [
    ("latchfs -o tt", ["ttl="]),
    ("latchfs -o ttl=5,ho", ["hold="]),
    ("latchfs -o ttl=5,hold=pr", ["process"]),
    ("mount.latchfs http://h:2379/x /locks -o on_loss=te", ["term"]),
    ("latchfs -o password", ["password_file="]),
    ("latchfs --he", ["--help"]),
    ("latchfs sel", ["selftest"]),
    ("latchfs status --", ["--json"]),
    ("latchfs check -o ttl=5,ho", ["hold="]),
]


def bash(line, directory="/"):
    """What bash offers at the end of a line."""
    script = (f'source {COMPLETION}/latchfs.bash; compopt() {{ :; }}; COMP_LINE=$1; '
              'COMP_POINT=${#1}; _latchfs; printf "%s\\n" "${COMPREPLY[@]}"')
    return checked("bash", "-c", script, "bash", line, cwd=directory).split()


def fish(line, directory="/"):
    """What fish offers."""
    script = f"source {COMPLETION}/latchfs.fish; complete -C $argv[1]"
    output = checked("fish", "--no-config", "-c", script, line, cwd=directory)
    return [each.split("\t")[0] for each in output.splitlines()]


@pytest.mark.parametrize("line, expected", CASES)
def test_bash_completes(line, expected):
    """Bash replaces what stands behind the last = or :."""
    before = re.split(r"[=: ]", line)[-1]
    offered = bash(line)
    assert [word[word.rfind(",") + 1:] for word in offered] == expected
    assert all(word.startswith(before) for word in offered)


@pytest.mark.parametrize("line, expected", CASES)
def test_fish_completes(line, expected):
    """Fish replaces the word, and offers policies with their values."""
    offered = fish(line)
    if line.endswith("ho"):
        expected = ["hold=close", "hold=name", "hold=process"]
    assert len(offered) == len(expected)
    assert all(word.endswith(end) for word, end in zip(offered, expected))
    assert all(word.startswith(line.split()[-1]) for word in offered)


def test_bash_completes_files_and_directories(lab):
    """Mount points are directories, certificates files, and so it is behind a command."""
    (lab.base / "locks").mkdir()
    (lab.base / "locks.pem").write_text("", encoding="ascii")
    assert bash("latchfs http://h:2379 loc", lab.base) == ["locks"]
    assert bash("latchfs -o cacert=locks.", lab.base) == ["locks.pem"]
    assert bash("latchfs ht", lab.base) == []
    assert bash("latchfs top loc", lab.base) == ["locks"]
    assert bash("latchfs top -d loc", lab.base) == []
    assert bash("latchfs selftest locks ", lab.base) == ["locks"]


class Terminal:
    """A zsh at a terminal, with our completion."""

    def __init__(self, directory):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.environ.update(TERM="dumb", ZDOTDIR=str(directory))
            os.execlp("zsh", "zsh", "-f", "-i", "-o", "no_beep")
        self.text = ""

    def say(self, text):
        """Types."""
        os.write(self.fd, text.encode())

    def hear(self, pattern):
        """Waits until it has printed something; forgets that."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < end, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 4096).decode(errors="replace")
        self.text = self.text[found.end():]

    def end(self):
        """Ends it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(lab):
    """A zsh, set up."""
    functions = lab.base / "functions"
    functions.mkdir()
    (functions / "_latchfs").symlink_to(COMPLETION / "latchfs.zsh")
    shell = Terminal(lab.base)
    shell.say(f"PS1='> '; fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; "
              "print re''ady\n")
    shell.hear("ready")
    yield shell
    shell.end()


@pytest.mark.parametrize("typed, completed", [
    ("latchfs -o tt\t", "ttl="), ("latchfs -o ttl=5,max_cl\t", "max_claims="),
    ("latchfs -o ttl=5,hold=pr\t", "hold=process"), ("mount.latchfs --he\t", "--help"),
    ("latchfs sel\t", "selftest"), ("latchfs status --j\t", "--json"),
    ("latchfs check -o tt\t", "ttl="),
])
def test_zsh_completes(terminal, typed, completed):
    """Zsh completes in the line."""
    terminal.say(typed)
    terminal.hear(re.escape(completed))
