# SPDX-License-Identifier: MIT
"""Containers: with users and processes of their own and a directory of the machine's, by bubblewrap;
and the files of contrib/container."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from containers import attempt, container, holding, inside
from mounting import BINARY, PLAIN_BINARY, clean_environment
from support import REPOSITORY, SOON, checked, children, run, wait_until

CONTRIB = REPOSITORY / "contrib/container"
ENTRYPOINT = CONTRIB / "entrypoint"
PLACE = "/run/latchfs"


@pytest.fixture
def nodes(lab):
    """Two mounts, open to all users."""
    return lab.mount("allow_other", name="a"), lab.mount("allow_other", name="b")


def test_containers_exclude_each_other(lab, nodes):
    """On one machine, on two, and with the machine itself; who waits gets the lock."""
    a, b = nodes
    first = lab.holder(*container(a), *holding("x")).await_held()
    assert not attempt(container(a), "x")
    assert not attempt(container(b), "x")
    assert run("flock", "-n", a / "x", "true").returncode == 1
    second = lab.holder(*container(b), *holding("x"))
    lab.await_keys("x", 2)
    assert first.release() == 0
    second.await_held(SOON)
    assert not attempt(container(a), "x")


def test_record_of_a_container(lab, nodes):
    """It names the process and the user as the machine numbers them."""
    a, b = nodes
    holder = lab.holder(*container(a), *holding("x")).await_held()
    record = b.record("x")
    pid = inside(holder.pid, "flock")
    assert (record["host"], int(record["pid"]), record["command"]) == ("host-a", pid, "flock")
    assert int(record["uid"]) == os.stat(f"/proc/{pid}").st_uid


def test_killed_container(lab, nodes):
    """A container that is killed gives back all that was held and waited for in it."""
    a, b = nodes
    holder = lab.holder(*container(a), "sh", "-c",
                        "exec 8<>/locks/x 9<>/locks/y; flock 8; flock 9; echo held; cat")
    holder.await_held()
    waiter = lab.holder(*container(a), *holding("x"))
    lab.await_keys("x", 2)
    holder.process.kill()
    waiter.await_held(SOON)
    wait_until(lambda: attempt(container(b), "y"), SOON, "the other lock is free")
    waiter.process.kill()
    wait_until(lambda: attempt(container(b), "x"), SOON, "the container's lock is free")


def test_daemon_in_a_container(lab, nodes):
    """A daemon with a process number of its own locks for what is in its container."""
    a, _ = nodes
    script = (f"mkdir /locks; {BINARY} -f -o ttl=300 {lab.etcd.url}{lab.prefix} /locks & daemon=$!; "
              "until mountpoint -q /locks; do sleep 0.01; done; "
              "flock /locks/x sh -c 'echo held; cat'; "
              "umount /locks; while [ -e /proc/$daemon ]; do sleep 0.01; done")
    words = ["bwrap", "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--die-with-parent",
             "--cap-add", "CAP_SYS_ADMIN", "--tmpfs", "/", "--ro-bind", "/usr", "/usr",
             "--ro-bind", BINARY, BINARY, "--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache",
             "--proc", "/proc", "--dev", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse"]
    for name in "bin", "lib", "lib64", "sbin":
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    holder = lab.holder(*words, "--", "sh", "-c", script, env=clean_environment()).await_held()
    record = a.record("x")
    assert record["command"] == "flock" and int(record["pid"]) < 100, "numbered as in there"
    assert not attempt(container(a), "x")
    assert holder.release() == 0, holder.errors
    assert attempt(container(a), "x")


# Mounts that come and go below a directory which is shared.


def test_new_mount_in_a_container(lab, shared):
    """Who has the parent sees the mount that follows a crash; who has the mount itself does not."""
    mount = lab.mount("allow_other", name="shared/locks", ttl=2)
    parent = lab.agent(wrapper=container(shared, place="/shared"))
    itself = lab.agent(wrapper=container(mount))
    parent.take("/shared/locks/x")
    assert itself.error("open", "/locks/x", os.O_CREAT | os.O_EXCL) == 17
    mount.kill()
    wait_until(lambda: not mount.mounted(), SOON, "the dead mount is gone")
    mount.expected_exit = 0
    mount.start()
    parent.take("/shared/locks/y")
    assert itself.error("open", "/locks/y", os.O_CREAT) == 107  # ENOTCONN


def launch(lab, shared, *words):
    """The entry point in a container whose mounts the machine sees; its process."""
    log = lab.scratch()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
             "unchanged", "sh", ENTRYPOINT, *words, shared / "locks"],
            env=clean_environment(PATH=f"{lab.base}/bin:{os.environ['PATH']}"),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    return process, log


def is_dead(path):
    """Whether a mount has no daemon any more."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == 107  # ENOTCONN
    return False


def test_entrypoint_after_a_kill(lab, shared):
    """A killed container leaves a dead mount, as nothing in it survives; the next one removes it."""
    (lab.base / "bin").mkdir()
    (lab.base / "bin/latchfs").symlink_to(PLAIN_BINARY.resolve())
    source = f"{lab.etcd.url}{lab.prefix}"
    job = container(shared, place="/shared")

    def works():
        return os.path.ismount(shared / "locks") and \
            run(*job, "flock", "-n", "/shared/locks/x", "true").returncode == 0

    for killed in True, False:
        process, log = launch(lab, shared, "-o", "allow_other,ttl=2", source)
        try:
            wait_until(works, what=f"the mount works, see {log}")
            number = int(children(process.pid)[0])
            if killed:  # it often has the time to unmount before the kernel ends it with the others
                reaper = wait_until(lambda: inside(number, "latchfs-reaper"), what="there it is")
                os.kill(reaper, signal.SIGKILL)
        finally:
            if killed:
                process.kill()
            else:
                os.kill(number, signal.SIGTERM)
            process.wait(SOON)
        if killed:
            wait_until(lambda: is_dead(shared / "locks"), SOON, "the mount is dead")
    assert not os.path.ismount(shared / "locks")
    (shared / "locks").rmdir()


# The files.


def documents(name):
    """The documents of a file, as a real parser has them."""
    with open(CONTRIB / name, encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


KINDS = {("v1", "Namespace"), ("v1", "Pod"), ("apps/v1", "DaemonSet"), ("batch/v1", "CronJob")}
SIMPLE = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}


def judge(client, value, kind, where):
    """Fails unless a value is what Kubernetes's API has at that place."""
    if (found := re.fullmatch(r"list\[(.*)\]", kind)):
        assert isinstance(value, list), where
        for number, item in enumerate(value):
            judge(client, item, found.group(1), f"{where}[{number}]")
    elif (found := re.fullmatch(r"dict\(str, (.*)\)", kind)):
        assert isinstance(value, dict), where
        for key, item in value.items():
            judge(client, item, found.group(1), f"{where}.{key}")
    elif kind in SIMPLE:
        assert isinstance(value, SIMPLE[kind]) and isinstance(value, bool) <= (kind == "bool"), where
    else:
        model = getattr(client, kind)
        names = {theirs: ours for ours, theirs in model.attribute_map.items()}
        assert isinstance(value, dict) and set(value) <= set(names), f"{where}: {value}"
        for key, item in value.items():
            judge(client, item, model.openapi_types[names[key]], f"{where}.{key}")
        model(**{names[key]: item for key, item in value.items()})  # refuses what is not complete


def manifests():
    """All of Kubernetes's documents."""
    return documents("kubernetes.yaml") + documents("sidecar.yaml")


def pod_of(document):
    """The specification of the pod in a document."""
    spec = document["spec"]
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def test_manifests_fit_the_schema():
    """Each document, by the types that Kubernetes's own client has."""
    client = pytest.importorskip("kubernetes.client")
    for document in manifests():
        assert (document["apiVersion"], document["kind"]) in KINDS
        judge(client, document, f"V1{document['kind']}", document["kind"])
    bad = documents("sidecar.yaml")[0]
    bad["spec"]["containers"][0]["volumeMounts"][0]["mountPropagations"] = "Bidirectional"
    with pytest.raises(AssertionError, match="volumeMounts"):
        judge(client, bad, "V1Pod", "Pod")


def test_manifests_hang_together():
    """The daemon's mounts go out, by right, and the jobs see those that come; selectors select."""
    for document in manifests()[1:]:
        pod = pod_of(document)
        for each in pod["containers"]:
            mount, = each["volumeMounts"]
            assert mount["mountPath"] == PLACE
            daemon = each["image"].startswith("latchfs:")
            assert mount["mountPropagation"] == ("Bidirectional" if daemon else "HostToContainer")
            context = {**pod.get("securityContext", {}), **each.get("securityContext", {})}
            assert context.get("privileged", False) == daemon
            assert context.get("runAsNonRoot", False) != daemon
            assert {volume["name"] for volume in pod["volumes"]} == {mount["name"]}
            if daemon:
                assert each["args"][-1] == f"{PLACE}/locks"
                assert {"readinessProbe", "livenessProbe"} <= set(each)
        if document["kind"] == "DaemonSet":
            spec = document["spec"]
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def version():
    """The project's."""
    text = (REPOSITORY / "meson.build").read_text(encoding="utf-8")
    return re.search(r"version: '([\d.]+)',", text).group(1)


def test_images_have_this_version():
    """The manifests ask for the image of these sources."""
    images = [each["image"] for document in manifests()[1:]
              for each in pod_of(document)["containers"]]
    assert {image for image in images if image.startswith("latchfs")} == {f"latchfs:{version()}"}


def probes():
    """All commands that ask how a daemon is."""
    for document in manifests()[1:]:
        for each in pod_of(document)["containers"]:
            yield from (value["exec"]["command"] for key, value in each.items() if "Probe" in key)
    services = documents("compose.yaml")[0]["services"].values()
    yield from (each["healthcheck"]["test"][1:] for each in services if "healthcheck" in each)


def test_probes(lab):
    """Each says yes of a mount that works, and no of a bare directory."""
    commands = list(probes())
    assert len(commands) == 7
    mount = lab.mount()
    if not os.path.exists(mount / ".latchfs/status"):
        pytest.skip("this daemon has no .latchfs/status")
    for command in commands:
        for place, status in (mount.path, 0), (lab.base, 2):
            words = [word.replace(f"{PLACE}/locks", str(place)) for word in command]
            assert run(*words).returncode == status, words


def commands_of_jobs():
    """What the examples run with a lock."""
    for document in manifests()[1:]:
        for each in pod_of(document)["containers"]:
            if "command" in each:
                yield each["command"]
    for each in documents("compose.yaml")[0]["services"].values():
        if "entrypoint" in each:
            yield each["entrypoint"] + each["command"]


def test_jobs(lab):
    """They hold the lock in a container, and the first two refuse a bare directory."""
    nightly, worker, *jobs = commands_of_jobs()
    assert len(jobs) == 2
    mount = lab.mount("allow_other")
    words = container(mount, place=f"{PLACE}/locks")
    done = run(*words, *nightly)
    assert (done.returncode, done.stdout) == (0, "this runs once\n"), done
    done = run(*words, *(word.replace("sleep 1", "true") for word in jobs[0]))
    assert (done.returncode, done.stdout) == (0, "host-m1\n"), done
    waiting = lab.holder(*words, *worker)
    lab.await_keys("worker", 1)
    waiting.kill()
    bare = container(lab.base, place=PLACE)
    for command in nightly, jobs[0]:
        assert run(*bare, *command).returncode == 1


def test_compose_file():
    """docker-compose understands all of it."""
    checked("docker-compose", "-f", CONTRIB / "compose.yaml", "config", "-q")


def packages(stage):
    """What a stage of the Dockerfile installs."""
    text = (CONTRIB / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[stage]
    found = re.search(r"--no-install-recommends \\\n((?:.*\\\n)*.*)", text).group(1)
    return set(found.split("&&")[0].replace("\\", " ").split())


def test_image_has_what_the_daemon_needs():
    """The libraries of the second stage are those that the daemon is linked with."""
    lines = checked("readelf", "-d", PLAIN_BINARY)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", lines)
    assert len(needed) > 3
    files = {next(Path("/usr/lib").glob(f"*/{name}")).resolve() for name in needed}
    places = [place for file in files for place in (file, str(file).removeprefix("/usr"))]
    owners = {line.split(":")[0] for line in run("dpkg", "-S", *places).stdout.splitlines()}
    # In every image of Debian, and libsystemd is of no use without systemd.
    assert owners - {"libc6", "libsystemd0"} == packages(2) - {"ca-certificates", "fuse3"}


def test_image_is_built_with_what_the_project_needs():
    """The first stage installs what Debian's package asks for, but for tests and systemd."""
    control = (REPOSITORY / "contrib/debian/control").read_text(encoding="utf-8")
    fields = re.search(r"^Build-Depends:\n((?: .*\n)*)", control, re.M).group(1)
    wanted = {line.split()[0].rstrip(",") for line in fields.splitlines()}
    assert packages(1) == wanted - {"debhelper-compat", "libcmocka-dev", "libsystemd-dev"} | {
        "gcc", "libc6-dev", "ninja-build"}
