# SPDX-License-Identifier: MIT
"""The command line: what is right works in every form, what is wrong is told in one line."""

import fcntl
import http.server
import os
import re
import signal
import socket
import stat
import threading
from pathlib import Path

import pytest

import support
from mounting import BINARY, clean_environment, daemons_of
from support import SOON, Stopwatch, checked, free_port, gone, run, wait_until


def latchfs(*words, timeout=60, **environment):
    """Runs the daemon's binary to its end, or until it is in the background."""
    return run(BINARY, *words, env=clean_environment(**environment), timeout=timeout)


@pytest.fixture
def place(lab):
    """An empty directory to mount on, freed at the end."""
    path = lab.base / "place"
    path.mkdir()
    yield path
    while str(path) in support.mounts():
        support.run("umount", "-l", path)


@pytest.fixture
def background(place):
    """Mounts in the background and expects a daemon; ends it afterwards."""

    def started():
        wait_until(lambda: len(daemons_of(place)) == 1, SOON, "one daemon")
        assert str(place) in support.mounts()
        return daemons_of(place)[0]

    yield started
    for pid in daemons_of(place):
        os.kill(pid, signal.SIGTERM)
        try:
            wait_until(lambda pid=pid: gone(pid), SOON)
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise


def works(place):
    """The directory is a mount that locks."""
    text = checked("flock", "-n", place / "x", "cat", place / "x")
    assert text.startswith("token=")


def source(lab, suffix=""):
    """SOURCE for a test's prefix."""
    return f"{lab.etcd.url}{lab.prefix}{suffix}"


# Help.


def test_help():
    """--help tells the usage and every option on stdout, and leaves with 0."""
    done = latchfs("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "SOURCE MOUNTPOINT" in done.stdout
    for option in ("ttl=", "timeout=", "prefix=", "cacert=", "cert=", "key=", "user=",
                   "password_file=", "name=", "names=", "open=", "on_loss=", "record=",
                   "dirs=", "mkdir=", "root_mode=", "allow_other"):
        assert option in done.stdout, option
    assert latchfs("-h").stdout == done.stdout


def test_version():
    """--version names the program and its version."""
    done = latchfs("--version")
    assert done.returncode == 0
    assert re.search(r"^latchfs \d+\.\d+\.\d+", done.stdout)
    assert latchfs("-V").returncode == 0


# What is wrong.


def refusal(place, *words, environment=None, patience=SOON):
    """Must fail: one line on stderr, non-zero, no mount; both in the foreground and not."""
    lines = []
    for mode in ((), ("-f",)):
        watch = Stopwatch()
        done = latchfs(*mode, *words, **(environment or {}))
        assert done.returncode == 1, done
        assert watch.seconds < patience
        told = done.stderr.splitlines()
        assert len(told) == 1, done.stderr
        assert told[0].startswith("latchfs: error: ")
        assert done.stdout == ""
        assert str(place) not in support.mounts()
        assert daemons_of(place) == []
        lines.append(told[0])
    return lines[0]


def test_nothing_listens(lab, place):
    """A wrong endpoint is told at once; the line names it."""
    port = free_port()
    line = refusal(place, "-o", "timeout=2", f"http://127.0.0.1:{port}/x", place)
    assert str(port) in line or "refused" in line.lower()


def test_something_else_listens(lab, place):
    """A server that never answers is given up within the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        refusal(place, "-o", "timeout=2", url, place, patience=2 + SOON)


def test_something_that_speaks_another_language(lab, place):
    """A server that is no etcd is refused."""
    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers everything with a page."""

        def answer(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        do_GET = do_POST = answer

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        refusal(place, "-o", "timeout=2", url, place, patience=2 + SOON)
    finally:
        server.shutdown()
        server.server_close()


def test_mount_point_is_a_file(lab):
    """A file as mount point."""
    path = lab.scratch("text")
    line = refusal(path, source(lab), path)
    assert str(path) in line or "directory" in line.lower()
    assert path.read_text(encoding="ascii") == "text"


def test_mount_point_does_not_exist(lab):
    """No such directory."""
    path = lab.base / "missing"
    assert str(path) in refusal(path, source(lab), path)


@pytest.mark.parametrize("option", [
    "unknown", "unknown=1", "ttl=abc", "ttl=-1", "ttl=0", "ttl=", "ttl=99999999999999999999",
    "timeout=x", "timeout=0", "names=maybe", "open=shut", "on_loss=cry", "record=perhaps",
    "dirs=gone", "mkdir=all", "root_mode=888", "root_mode=-1", "root_mode=10000", "root_mode=rwx",
    "password=topsecret",
])
def test_bad_options(lab, place, option):
    """An option that is unknown or makes no sense: the line names it, nothing is mounted."""
    line = refusal(place, "-o", option, source(lab), place)
    assert option.split("=")[0] in line
    assert "topsecret" not in line


@pytest.mark.parametrize("option", [
    "ttl", "timeout", "cacert", "cert", "key", "password_file", "name", "hold", "names", "open",
    "record", "on_loss", "dirs", "mkdir", "root_mode", "prefix",
])
def test_option_without_its_value(lab, place, option):
    """An option that we know is not called unknown for lacking its value."""
    line = refusal(place, "-o", f"ro,{option}", source(lab), place)
    assert "value is missing" in line and option in line
    if option != "prefix":
        assert "value is missing" in refusal(place, "-o", f"{option}=", source(lab), place)


def test_o_without_an_argument(lab, place):
    """-o at the very end."""
    assert "-o" in refusal(place, source(lab), place, "-o")


@pytest.mark.parametrize("words", [[], ["--unknown"], ["only-source"], ["a", "b", "c"]])
def test_bad_usage(lab, place, words):
    """Too few or too many words, or a switch we do not have."""
    done = latchfs(*words)
    assert done.returncode > 0
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("latchfs: ")


@pytest.mark.parametrize("url, expected", [
    ("http://", "host"), ("http:///x", "host"), ("http://:24790", "host"), ("https://", "host"),
    (":24790", "host"), ("http://127.0.0.1,http://", "host"),
    ("http://127.0.0.1:99999/x", "port"), ("http://127.0.0.1:65536", "port"),
    ("http://127.0.0.1:0", "port"), ("http://127.0.0.1:abc", "port"), ("127.0.0.1:abc", "port"),
    ("http://127.0.0.1:-1", "port"), ("http://[::1]:99999", "port"), ("file:etc", "port"),
    ("redis://127.0.0.1/x", "store"), ("file:///etc", "store"), ("http://127.0.0.1,ftp://x", "store"),
    ("file:/etc", "HOST:PORT"), ("http:/127.0.0.1", "HOST:PORT"), ("http://127.0.0.1:", "HOST:PORT"),
    ("http://[::1", "HOST:PORT"), ("http://[nonsense]", "HOST:PORT"), ("http://[]", "HOST:PORT"),
    ("http://[::1]x", "HOST:PORT"), ("http://a b", "HOST:PORT"), ("::1", "brackets"),
    ("http://127.0.0.1/x,http://127.0.0.1/x", "path"),
    ("http://127.0.0.1,https://127.0.0.1", "mixed"), ("https://127.0.0.1,127.0.0.2/x", "mixed"),
    (",", "ETCDCTL_ENDPOINTS"), ("", "ETCDCTL_ENDPOINTS"), ("/x", "ETCDCTL_ENDPOINTS"),
])
def test_bad_sources(lab, place, url, expected):
    """A SOURCE that names no store we know: the line says what is wrong with it."""
    assert expected in refusal(place, url, place)


@pytest.mark.parametrize("url", [
    "http://user:topsecret@127.0.0.1/x", "redis://user:topsecret@127.0.0.1/x", "user:topsecret@h",
    "http://user:top/secret@127.0.0.1", "http://:topsecret@127.0.0.1",
])
def test_password_in_a_source(lab, place, url):
    """A password in SOURCE is refused and not repeated."""
    line = refusal(place, url, place)
    assert "password" in line and "top" not in line


def test_bad_endpoints_in_the_environment(lab, place):
    """ETCDCTL_ENDPOINTS is judged as SOURCE is."""
    line = refusal(place, "/x", place, environment={"ETCDCTL_ENDPOINTS": "http://127.0.0.1:abc"})
    assert "http://127.0.0.1:abc" in line
    assert "ETCDCTL_ENDPOINTS" in refusal(place, "/x", place,
                                          environment={"ETCDCTL_ENDPOINTS": ""})


@pytest.mark.parametrize("url", [
    "http://127.9.8.7", "https://127.9.8.7", "http://127.9.8.7/", "https://localhost/x",
    "http://[::ffff:127.9.8.7]", "https://[::ffff:127.9.8.7]/x", "127.9.8.7",
    "[::ffff:127.9.8.7]/x",
])
def test_default_port(lab, place, url):
    """Without a port it is 2379, with a scheme and without."""
    line = refusal(place, "-o", "timeout=2", url, place, patience=2 + SOON)
    assert re.search(r"//(127.9.8.7|localhost|\[::ffff:127.9.8.7\]):2379\b", line), line


@pytest.mark.parametrize("prefix", [
    "//a", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/a/..", "/a\tb", "/a\n", "/\x7f",
])
def test_bad_prefixes(lab, place, prefix):
    """A prefix that no lock's name could continue, in SOURCE and as an option."""
    assert "prefix" in refusal(place, f"{lab.etcd.url}{prefix}", place)
    assert "prefix" in refusal(place, "-o", f"prefix={prefix}", lab.etcd.url, place)


@pytest.mark.parametrize("prefix", ["", "/", "//", "a", "a/b"])
def test_prefix_that_names_nothing(lab, place, prefix):
    """prefix= begins with a slash and names something."""
    line = refusal(place, "-o", f"prefix={prefix}", lab.etcd.url, place)
    assert "begin with a slash" in line and "name something" in line


@pytest.mark.parametrize("name", [
    "n" * 256, "\u00e4" * 128, "a\nb", "a\tb", "\x7f", "a\u009bb", b"a\xff", b"a\xc3", b"\xc0\xaf",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\xaf", b"\x80", b"\xf8\x88\x80\x80\x80",
])
def test_bad_names(lab, place, name):
    """A name for this node that no record could show."""
    name = name.encode() if isinstance(name, str) else name
    assert "name=" in refusal(place, "-o", b"name=" + name, source(lab), place)


@pytest.mark.parametrize("name", ["n" * 255, "\u00e4" * 127, "web 1 \u20ac \U0001f512 \u00a0"])
def test_odd_names(lab, name):
    """A name that is odd and no more than that stands in the record."""
    mount = lab.mount(f"name={name}")
    lab.agent().take(mount / "x")
    assert mount.record("x")["host"] == name


# Files of credentials.


@pytest.fixture
def pem(lab):
    """A file that can be read."""
    return lab.scratch("not looked at")


@pytest.mark.parametrize("option", ["cacert", "cert", "key"])
@pytest.mark.parametrize("path, reason", [
    ("/nonexistent/x.pem", "No such file"), ("/etc", "directory"), ("/etc/passwd/x", "Not a dir"),
])
def test_unreadable_certificate(lab, place, pem, option, path, reason):
    """A file that is not there or not readable: the line names it and says why."""
    files = {"cert": pem, "key": pem, option: path}
    line = refusal(place, "-o", ",".join(f"{k}={v}" for k, v in files.items()), source(lab), place)
    assert path in line and reason in line


def test_certificate_that_may_not_be_read(lab, pem):
    """The same for one that is another user's."""
    lab.base.chmod(0o755)
    pem.chmod(0o600)
    path = lab.base / "others"
    path.mkdir()
    done = run("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", BINARY, "-o",
               f"cacert={pem}", source(lab), path, env=clean_environment(), timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"latchfs: error: can't read the CA certificate {pem}: Permission denied\n"


def test_certificate_and_key_belong_together(lab, place, pem):
    """One without the other is refused, wherever it comes from."""
    assert "needs its key" in refusal(place, "-o", f"cert={pem}", source(lab), place)
    assert "needs its cert" in refusal(place, "-o", f"key={pem}", source(lab), place)
    assert "needs its key" in refusal(place, source(lab), place,
                                      environment={"ETCDCTL_CERT": str(pem)})
    assert "needs its cert" in refusal(place, source(lab), place,
                                       environment={"ETCDCTL_KEY": str(pem)})


@pytest.mark.parametrize("option", ["cacert", "cert", "key", "password_file"])
def test_pipe_in_place_of_a_file(lab, place, pem, option):
    """It would have to be waited for, for ever: refused at once."""
    fifo = lab.base / "fifo"
    os.mkfifo(fifo)
    files = {"cert": pem, "key": pem, "user": "me", option: fifo}
    line = refusal(place, "-o", ",".join(f"{k}={v}" for k, v in files.items()), source(lab), place,
                   environment={"ETCDCTL_PASSWORD": "x"})
    assert str(fifo) in line and "not a regular file" in line


@pytest.mark.parametrize("options", ["cacert={0}", "cert={0},key={0}"])
def test_https_is_meant(place, pem, options):
    """Whoever names any certificate does not mean http."""
    line = refusal(place, "-o", f"timeout=2,{options.format(pem)}", "127.9.8.7", place,
                   patience=2 + SOON)
    assert "https://127.9.8.7:2379" in line


def test_unreadable_password_file(lab, place):
    """The same for a password file."""
    for path in "/nonexistent/pw", "/etc":
        line = refusal(place, "-o", f"user=me,password_file={path}", source(lab), place)
        assert path in line


def test_user_and_password_belong_together(lab, place):
    """A user without a password and a password file without a user."""
    secret, empty = lab.scratch("topsecret\n"), lab.scratch("\n")
    line = refusal(place, "-o", f"password_file={secret}", source(lab), place)
    assert "user=" in line and "topsecret" not in line
    for options, environment in (
        (["-o", "user=me"], {}), (["-o", f"user=me,password_file={empty}"], {}),
        ([], {"ETCDCTL_USER": "me"}), ([], {"ETCDCTL_USER": "me:"}),
        (["-o", "user=me"], {"ETCDCTL_PASSWORD": ""}),
    ):
        line = refusal(place, *options, source(lab), place, environment=environment)
        assert "password" in line and "me" in line
    line = refusal(place, source(lab), place, environment={"ETCDCTL_USER": ":topsecret"})
    assert "ETCDCTL_USER" in line and "topsecret" not in line


def test_password_behind_the_user(lab, place):
    """user=NAME:PASSWORD is a password on the command line too."""
    line = refusal(place, "-o", "user=me:topsecret", source(lab), place)
    assert "password_file=" in line and "topsecret" not in line


# What is right.


def test_foreground_ends_with_unmount(lab):
    """-f stays in the foreground until the mount is gone."""
    mount = lab.mount()
    works(mount.path)
    checked("fusermount3", "-u", mount.path)
    assert mount.wait_exit(SOON) == 0


def test_background(lab, place, background):
    """Without -f the command returns when the mount works; the daemon is on its own."""
    done = latchfs("-o", "ttl=60", source(lab), place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    works(place)
    pid = background()
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) != os.getsid(0)
    for number in range(3):
        assert os.readlink(f"/proc/{pid}/fd/{number}") == "/dev/null"
    key = f"{lab.prefix}/y/"
    holder = lab.holder("flock", place / "y", "sh", "-c", "echo held; cat").await_held()
    assert lab.etcd.count(key) == 1
    assert holder.release() == 0
    checked("fusermount3", "-u", place)
    wait_until(lambda: gone(pid), SOON)
    assert lab.etcd.count(key) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(lab, place, background, closed):
    """Started by something that closes descriptors: it mounts all the same."""
    checked("bash", "-c", f'"$@" {closed}', "bash", BINARY, source(lab), place)
    works(place)
    pid = background()
    checked("fusermount3", "-u", place)
    wait_until(lambda: gone(pid), SOON)


def test_background_daemon_ends_with_sigterm(lab, place, background):
    """SIGTERM ends a daemon in the background and its mount."""
    assert latchfs(source(lab), place).returncode == 0
    pid = background()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: gone(pid), SOON)
    assert str(place) not in support.mounts()


def test_relative_mount_point(lab, place, background):
    """A mount point relative to the current directory works in the background too."""
    done = run(BINARY, source(lab), place.name, cwd=place.parent, env=clean_environment())
    assert done.returncode == 0, done
    works(place)
    checked("fusermount3", "-u", place)
    wait_until(lambda: daemons_of(place.name) == [], SOON)


def test_options_behind_the_arguments(lab, place, background):
    """Options may follow SOURCE and MOUNTPOINT, as mount(8) writes them, and come one by one."""
    done = latchfs(source(lab), place, "-o", "rw,noatime", "-o", "ttl=60")
    assert done.returncode == 0, done
    works(place)
    background()


def test_options_for_others(lab, place, background):
    """What fstab says to other readers is left to them."""
    done = latchfs("-o", "x-systemd.automount,x-gvfs-hide,_netdev,user,comment=", source(lab), place)
    assert done.returncode == 0, done
    background()


def test_prefix_option(lab, place, background):
    """prefix= stands for the path of the URL; slashes at its ends do not matter."""
    done = latchfs("-o", f"prefix={lab.prefix}/deeper/", lab.etcd.url, place)
    assert done.returncode == 0, done
    background()
    lab.holder("flock", place / "x", "sh", "-c", "echo held; cat").await_held()
    assert lab.etcd.count(f"{lab.prefix}/deeper/x/") == 1


def test_slash_behind_the_prefix(lab):
    """A trailing slash in SOURCE makes no difference."""
    a, b = lab.mount(), lab.mount(prefix=f"{lab.prefix}/")
    lab.agent().take(a / "x")
    assert not lab.agent().attempt(b / "x")


def test_endpoints_from_the_environment(lab, place, background):
    """ETCDCTL_ENDPOINTS stands in where SOURCE is a prefix alone."""
    done = latchfs(lab.prefix, place, ETCDCTL_ENDPOINTS=lab.etcd.url)
    assert done.returncode == 0, done
    works(place)
    background()


def test_name_option_and_host_name(lab):
    """name= is the host others see; without it the host's own name."""
    mount = lab.mount()
    lab.agent().take(mount / "x")
    assert mount.record("x")["host"] == "host-m1"
    plain = lab.mount(start=False)
    plain.options = "ttl=60"
    plain.start()
    lab.agent().take(plain / "y")
    assert mount.record("y")["host"] == socket.gethostname()


@pytest.fixture
def installed():
    """The daemon where mount(8), which has a PATH of its own, finds it as latchfs."""
    place = Path("/usr/local/bin/latchfs")
    directory = os.open(place.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # other tests do the same
    before = place.is_symlink() or place.exists()
    if before:
        place.rename(f"{place}.before-test")
    place.symlink_to(Path(BINARY).resolve())
    yield clean_environment()
    place.unlink()
    if before:
        Path(f"{place}.before-test").rename(place)
    os.close(directory)


def test_mount_command(lab, place, background, installed):
    """`mount -t fuse.latchfs -o ... SOURCE DIR`."""
    done = run("mount", "-t", "fuse.latchfs", "-o", "ttl=60,allow_other,name=viamount",
               source(lab), place, env=installed, timeout=60)
    assert done.returncode == 0, done
    works(place)
    background()
    assert support.mounts()[str(place)][1] == "fuse.latchfs"
    lab.holder("flock", place / "x", "sh", "-c", "echo held; cat").await_held()
    assert b"host=viamount" in Path(place / "x").read_bytes()


def test_mount_command_refuses(lab, place, installed):
    """mount(8) fails, and says why, when the store is not there."""
    url = f"http://127.0.0.1:{free_port()}/x"
    done = run("mount", "-t", "fuse.latchfs", "-o", "timeout=2", url, place,
               env=installed, timeout=60)
    assert done.returncode != 0
    assert "latchfs: " in done.stderr
    assert str(place) not in support.mounts()


def test_fstab(lab, place, background, installed):
    """A line of /etc/fstab with the options such lines have; mounted and unmounted by name."""
    options = "ttl=60,noauto,_netdev,nofail,auto_unmount,noatime,allow_other,comment=locks"
    fstab = lab.scratch(f"{source(lab)} {place} fuse.latchfs {options} 0 0\n")
    done = run("mount", "-T", fstab, place, env=installed, timeout=60)
    assert done.returncode == 0, done
    works(place)
    pid = background()
    checked("umount", place)
    wait_until(lambda: gone(pid), SOON)
    assert str(place) not in support.mounts()


def test_trace(lab):
    """-d stays in the foreground and writes a readable trace of what happens."""
    mount = lab.mount(words=["-d"])
    works(mount.path)
    mount.stop()
    text = mount.log()
    assert len(text.splitlines()) > 5
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert re.search(r"\bx\b", text)


def test_ready_is_told_to_systemd(lab):
    """With NOTIFY_SOCKET the daemon says READY=1 once it is mounted."""
    if "libsystemd" not in run("ldd", BINARY).stdout:
        pytest.skip("built without libsystemd")
    path = str(lab.base / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(SOON)
        mount = lab.mount(environment={"NOTIFY_SOCKET": path})
        said = b""
        while b"READY=1" not in said:
            said = listener.recv(4096)
        assert mount.mounted()


def test_ordinary_permissions_of_the_root(lab):
    """The fresh mount is a directory everybody may lock in."""
    mount = lab.mount("allow_other")
    status = os.stat(mount.path)
    assert stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o1777
    lab.agent(user=1234, group=1234).take(mount / "x")
