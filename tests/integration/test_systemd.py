# SPDX-License-Identifier: MIT
"""The units of contrib/systemd, under a systemd of their own."""

import os
import re
from pathlib import Path

import pytest

import machine as machines
from mounting import PLAIN_BINARY
from support import REPOSITORY, checked, run, wait_until

UNITS = REPOSITORY / "contrib/systemd"
UNIT = "latchfs@locks.service"
SOURCE = "http://127.0.0.1:2379"
# Gives the service a mount namespace, or keeps /dev/fuse from it.
BREAKING = re.compile(
    r"^(Protect(?!Hostname)\w+|Private\w+|DynamicUser|ReadOnlyPaths|ReadWritePaths|BindPaths|"
    r"BindReadOnlyPaths|InaccessiblePaths|TemporaryFileSystem|RootDirectory|RootImage|MountFlags|"
    r"ExecPaths|NoExecPaths|ProcSubset)=", re.M)


def unit_text():
    """The service as it is installed."""
    return (UNITS / "latchfs@.service.in").read_text(encoding="utf-8").replace(
        "@latchfs@", "/usr/bin/latchfs")


def guide(name):
    """An example of latchfs(7)."""
    text = (REPOSITORY / "contrib/man/latchfs.7").read_text(encoding="utf-8")
    return re.search(rf'^\.\\" {name}\n\.Bd .*\n((?:.*\n)*?)\.Ed$', text, re.M).group(1)


@pytest.fixture(scope="module")
def machine(base):
    """A machine with latchfs installed and configured."""
    if machines.lacks():
        pytest.skip(machines.lacks())
    here = machines.Machine(base / f"machine{os.getpid()}")
    here.install("usr/bin/latchfs", PLAIN_BINARY)
    (here.files / "usr/sbin").mkdir()
    (here.files / "usr/sbin/mount.latchfs").symlink_to("/usr/bin/latchfs")
    here.write("etc/systemd/system/latchfs@.service", unit_text())
    here.write("etc/systemd/system/scheduler.service", guide("unit scheduler.service"))
    here.write("usr/local/bin/scheduler", "#!/bin/sh\nexec sleep 1000\n")
    (here.files / "usr/local/bin/scheduler").chmod(0o755)
    here.write("etc/latchfs/locks.conf", f"SOURCE={SOURCE}\nOPTIONS=allow_other,ttl=5\n")
    here.write("etc/fstab", f"{SOURCE} /locks3 latchfs allow_other,_netdev,noauto,"
                            "x-systemd.automount,x-systemd.mount-timeout=60 0 0\n"
                            "/latchfs /locks2 latchfs allow_other,_netdev,noauto,nofail,"
                            "x-systemd.requires=etcd.service 0 0\n")
    example = (UNITS / "locks.mount").read_text(encoding="utf-8")
    example = re.sub(r"^What=.*$", f"What={SOURCE}", example, flags=re.M)
    here.write("etc/systemd/system/locks4.mount", example.replace("/locks", "/locks4"))
    try:
        yield here.boot()
    finally:
        here.end()


@pytest.fixture
def service(machine):
    """The service, running; stopped afterwards."""
    machine.checked("systemctl", "start", UNIT)
    yield machine
    machine.checked("systemctl", "stop", UNIT)
    assert machine.mounted("/locks") is None


def locks(machine, *words, path="/locks"):
    """Whether a lock can be taken there and be seen as one."""
    done = machine.run(*words, "flock", "-n", f"{path}/x", "cat", f"{path}/x")
    return done.stdout.startswith("token=")


def works(machine):
    """The service runs, and another user can lock."""
    return machine.active(UNIT) and locks(
        machine, "setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")


def main_pid(machine):
    """The daemon's process."""
    return machine.show(UNIT, "MainPID")


def server(machine):
    """The process that serves the mount, if there is one just now."""
    main = main_pid(machine)
    children = machine.run("cat", f"/proc/{main}/task/{main}/children").stdout.split()
    return children[0] if children else None


def held(machine, name):
    """A lock that some process holds until it is killed: that process, and its record."""
    holder = machine.checked(
        "sh", "-c", f"setsid flock /locks/{name} sleep 1000 >/dev/null 2>&1 & "
                    f"until grep -qs token= /locks/{name}; do sleep 0.01; done; echo $!").strip()
    return holder, machine.checked("cat", f"/locks/{name}")


@pytest.fixture
def kept(service):
    """A lock that is held, and one process that waits for it."""
    holder, record = held(service, "kept")
    waiter = service.checked(
        "sh", "-c", "setsid flock /locks/kept echo got >/tmp/waiter 2>&1 & "
                    "until grep -q waiting /locks/.latchfs/locks; do sleep 0.01; done; "
                    "echo $!").strip()
    yield record
    service.run("pkill", "-P", holder)
    wait_until(lambda: service.run("kill", "-0", waiter).returncode, what="the waiter ends")
    assert service.checked("cat", "/tmp/waiter") == "got\n"


@pytest.mark.parametrize("replace", ["systemctl reload " + UNIT, "kill -KILL {}",
                                     "systemctl restart " + UNIT,
                                     "systemctl restart etcd " + UNIT,
                                     "systemctl kill -s USR1 " + UNIT])
def test_replaced_while_locks_are_held(service, kept, replace):
    """A reload, the death of who serves the mount, and a restart leave every lock where it is."""
    main = main_pid(service)
    for _ in range(3):
        before = server(service)
        service.checked(*replace.format(before).split())
        wait_until(lambda before=before: server(service) not in (None, before),
                   what="another one serves it")
        assert service.checked("cat", "/locks/kept") == kept
        assert service.run("flock", "-n", "/locks/kept", "true").returncode == 1
        assert works(service)
        assert len(service.run("pgrep", "-x", "latchfs-reaper").stdout.split()) == 1
    assert (main_pid(service) == main) == ("restart" not in replace)


def test_restarted_with_other_options(service):
    """Then the locks are given back, as they are by a stop: nobody has to wait for the lease."""
    holder, _ = held(service, "given")
    service.checked("cp", "/etc/latchfs/locks.conf", "/tmp/former.conf")
    try:
        service.checked("sed", "-i", "s/ttl=5/ttl=300/", "/etc/latchfs/locks.conf")
        service.checked("systemctl", "restart", UNIT)
        assert service.run("flock", "-n", "/locks/given", "true").returncode == 0
        service.checked("systemctl", "stop", UNIT)
        assert service.mounted("/locks") is None
    finally:
        service.checked("cp", "/tmp/former.conf", "/etc/latchfs/locks.conf")
        service.checked("systemctl", "restart", UNIT)
        service.run("pkill", "-P", holder)
    assert works(service)


def test_service(service):
    """Hardened as it is, it mounts for all, says so, and stops when it is told to."""
    assert works(service)
    assert service.mounted("/locks") == "fuse.latchfs"
    assert service.show(UNIT, "StatusText") == SOURCE
    assert service.show(UNIT, "WatchdogUSec") == "1min"
    status = service.checked("cat", f"/proc/{main_pid(service)}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert re.search(r"^Seccomp:\s+2$", status, re.M)


@pytest.mark.parametrize("whom", ["main", "all"])
def test_killed_service(service, whom):
    """It comes back after SIGKILL, also if the helper that cleans up was killed with it: nobody
    keeps the mount any more that was kept for a restart."""
    service.checked("systemctl", "restart", UNIT)
    before = main_pid(service)
    service.checked("systemctl", "kill", f"--kill-who={whom}", "-s", "KILL", UNIT)
    wait_until(lambda: main_pid(service) not in (before, "0") and works(service),
               what="the service is back")
    assert service.checked("findmnt", "-n", "-M", "/locks").count("\n") == 1


def test_watchdog(service):
    """A daemon that stands still is ended and started anew."""
    service.checked("mkdir", "-p", "/run/systemd/system/latchfs@.service.d")
    service.checked("sh", "-c", "printf '[Service]\\nWatchdogSec=1\\n' "
                                ">/run/systemd/system/latchfs@.service.d/short.conf")
    service.checked("systemctl", "daemon-reload")
    service.checked("systemctl", "restart", UNIT)
    before = main_pid(service)
    service.checked("kill", "-STOP", server(service))
    wait_until(lambda: main_pid(service) not in (before, "0") and works(service),
               what="the service is back")
    assert "Watchdog timeout" in service.journal()
    service.checked("rm", "-r", "/run/systemd/system/latchfs@.service.d")
    service.checked("systemctl", "daemon-reload")


def test_holders_are_signalled(service):
    """With its capabilities it still finds and ends another user's process that lost its lock."""
    service.checked("mkdir", "-m", "777", "/locks/batch")
    service.checked("setfattr", "-n", "user.latchfs.on_loss", "-v", "kill", "/locks/batch")
    done = service.run(
        "timeout", "20", "sh", "-c",
        "setpriv --reuid=1234 --regid=1234 --clear-groups flock /locks/batch/x sleep 60 & "
        "until token=$(sed -n s/^token=//p /locks/batch/x); do sleep 0.01; done; "
        "setfattr -n user.latchfs.break -v $token /locks/batch/x; wait $!; echo $?")
    # flock(1) and sleep have it open.
    assert done.stdout.strip() == "137", done


def test_job_of_the_guide(service):
    """It holds its lock, ends with the daemon, and comes back with the next."""
    service.checked("sh", "-c", guide("policy"))
    service.checked("systemctl", "enable", "--now", "scheduler")
    before = None
    for _ in range(2):

        def holds(before=before):
            now = service.show("scheduler", "MainPID")
            record = service.run("cat", "/locks/services/scheduler").stdout
            return now if now != before and f"\npid={now}\n" in record else None

        before = wait_until(holds, what="it has its lock")
        service.checked("systemctl", "kill", "--kill-who=all", "-s", "KILL", UNIT)
        wait_until(lambda before=before: service.show("scheduler", "MainPID") != before,
                   what="it ends, too")
    service.checked("systemctl", "disable", "--now", "scheduler")


def test_service_starts_when_the_store_does(machine):
    """Started before its store, it goes on trying."""
    machine.checked("systemctl", "stop", "etcd")
    machine.checked("systemctl", "start", "--no-block", UNIT)
    wait_until(lambda: int(machine.show(UNIT, "NRestarts")) > 0, what="it tries again")
    machine.checked("systemctl", "start", "etcd")
    wait_until(lambda: works(machine), what="it works")
    machine.checked("systemctl", "stop", UNIT)


@pytest.mark.parametrize("unit, path", [("locks2.mount", "/locks2"), ("locks4.mount", "/locks4")])
def test_mount_unit(machine, unit, path):
    """A line of fstab and a .mount unit mount and unmount."""
    if unit == "locks2.mount":
        assert "etcd.service" in machine.show(unit, "Requires").split()
        machine.checked("systemctl", "set-environment", f"ETCDCTL_ENDPOINTS={SOURCE}")
    assert "network-online.target" in machine.show(unit, "After").split()
    machine.checked("systemctl", "start", unit)
    assert machine.active(unit) and locks(machine, path=path)
    machine.checked("systemctl", "stop", unit)
    assert machine.mounted(path) is None


def test_automount(machine):
    """Mounted when somebody first looks."""
    machine.checked("systemctl", "start", "locks3.automount")
    assert locks(machine, path="/locks3")
    assert machine.active("locks3.mount")
    machine.checked("systemctl", "stop", "locks3.automount")


def test_no_option_hides_the_mount():
    """The service has none of the options which must not be used."""
    text = unit_text()
    assert not BREAKING.search(text)
    assert BREAKING.search(f"{text}\nProtectSystem=yes\n")


def test_manual_shows_the_options():
    """What latchfs(8) says about hardening is what the unit has."""
    manual = (REPOSITORY / "contrib/man/latchfs.8").read_text(encoding="utf-8")
    block = re.search(r"^\[Service\]\n(Type=notify\n.*?)^\.Ed", manual, re.M | re.S)
    shown = block.group(1).splitlines()
    assert len(shown) > 10 and set(shown) <= set(unit_text().splitlines())


def test_units_verify(base):
    """systemd-analyze verify has nothing to say."""
    if not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("no systemd-analyze")
    place = base / "verify"
    place.mkdir()
    text = unit_text().replace("/usr/bin/latchfs", str(PLAIN_BINARY.resolve()))
    (place / "latchfs@.service").write_text(text, encoding="utf-8")
    (place / "locks.mount").write_bytes((UNITS / "locks.mount").read_bytes())
    for name in "latchfs@locks.service", "locks.mount":
        done = run("systemd-analyze", "verify", "--man=no", place / name)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), done


def test_exposure(base):
    """What systemd itself says of the hardening does not become worse."""
    if not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("no systemd-analyze")
    unit = base / "exposure/latchfs@locks.service"
    unit.parent.mkdir()
    unit.write_text(unit_text(), encoding="utf-8")
    checked("systemd-analyze", "security", "--offline=true", "--threshold=48", unit)


def test_fstab_example(base):
    """findmnt finds no error in the example."""
    lines = (UNITS / "fstab").read_text(encoding="utf-8")
    copy = base / "fstab"
    copy.write_text(re.sub(r" /locks\d* ", f" {base} ", lines), encoding="utf-8")
    checked("findmnt", "--verify", "--tab-file", copy)
