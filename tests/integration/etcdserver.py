# SPDX-License-Identifier: MIT
"""Real etcd servers on loopback ports, started and ended by the tests."""

import base64
import copy
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from support import checked, free_port, wait_until

# The server to test on.
ETCD = os.environ.get("LATCHFS_ETCD", "etcd")

# Part of the name of a session's key; those are there as long as their mounts are.
SESSIONS = "/.latchfs.session/"


@dataclass
class Key:
    """One key of the store, as it is right now."""

    name: str
    value: bytes
    create_revision: int
    lease: int


def encode(data):
    """Bytes or text as the gateway wants them."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def after(prefix):
    """The first key behind all keys that start with prefix."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


class Etcd:
    """One server with a data directory of its own."""

    def __init__(self, directory, name="one", extra=(), tls=None, peers=None, initial=None,
                 binary=ETCD):
        self.binary = binary
        self.name = name
        self.directory = directory
        self.tls = tls
        self.extra = list(extra)
        self.scheme = "https" if tls else "http"
        self.port = free_port()
        self.peer_port = free_port()
        self.peer_url = peers or f"http://127.0.0.1:{self.peer_port}"
        self.initial = initial or f"{name}={self.peer_url}"
        self.user = None
        self.process = None
        self.tracer = None  # which makes the disk hang
        self.log = directory / f"{name}.log"

    @property
    def host(self):
        """host:port of the client side."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self):
        """The client URL."""
        return f"{self.scheme}://{self.host}"

    def arguments(self):
        """The command line of the server."""
        words = [self.binary, "--name", self.name, "--data-dir", str(self.directory / self.name)]
        words += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        words += ["--listen-peer-urls", f"http://127.0.0.1:{self.peer_port}"]
        words += ["--initial-advertise-peer-urls", self.peer_url]
        words += ["--initial-cluster", self.initial, "--initial-cluster-state", "new"]
        words += ["--logger", "zap", "--log-level", "warn"]
        if self.tls:
            words += ["--cert-file", self.tls.server_cert, "--key-file", self.tls.server_key]
            words += ["--client-cert-auth", "--trusted-ca-file", self.tls.ca]
        return words + self.extra

    def launch(self):
        """Starts the server without waiting for it."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment,
            )

    def start(self):
        """Starts the server, with what data it has, and waits until it answers."""
        self.launch()
        wait_until(self.healthy, what=f"etcd answers, see {self.log}")
        return self

    def healthy(self):
        """Whether the server serves linearizable requests."""
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-2000:]
        try:
            with self.request("/health", timeout=2) as answer:
                return json.load(answer)["health"] == "true"
        except (OSError, ValueError, KeyError):
            return False

    def running(self):
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def stop(self, how=signal.SIGTERM):
        """Ends the server; its data stays."""
        self.mend_disk()
        if not self.running():
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self):
        """Ends the server as a power cut would."""
        self.stop(signal.SIGKILL)

    def back_up(self):
        """Keeps a copy of the data, for which the server is restarted."""
        self.stop()
        shutil.copytree(self.directory / self.name, self.directory / f"{self.name}.copy")
        self.start()

    def restore(self):
        """Kills the server, which comes back with the data that was kept."""
        self.kill()
        shutil.rmtree(self.directory / self.name)
        shutil.move(self.directory / f"{self.name}.copy", self.directory / self.name)
        self.start()

    def pause(self):
        """Stops the server without closing its connections."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Undoes pause()."""
        self.process.send_signal(signal.SIGCONT)

    def hang_disk(self):
        """From now on nothing that is logged reaches the disk, for as long as the test likes.

        That is all that hangs: what else the server does with the disk would keep it from answering
        anything, and that is the lesser trouble.
        """
        logs = (self.directory / self.name / "member" / "wal").glob("*.wal")
        self.tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(self.process.pid),
             *(word for log in logs for word in ("-P", log)),
             "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=1000s"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.is_traced, what="all threads of etcd are traced")

    def is_traced(self):
        """Whether somebody traces all threads of the server."""
        assert self.tracer.poll() is None, "strace ended"
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/status")
        return all(not re.search(r"^TracerPid:\s0$", task.read_text(), re.M) for task in tasks)

    def mend_disk(self):
        """Undoes hang_disk(); what was to be written is written."""
        if self.tracer:
            self.tracer.terminate()
            self.tracer.wait()
            self.tracer = None

    def remove(self):
        """Ends the server and throws its data away."""
        self.kill()
        shutil.rmtree(self.directory / self.name, ignore_errors=True)

    # What is asked of the store directly.

    def request(self, path, body=None, timeout=10, token=None):
        """One HTTP request of the gateway; the open answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)
        if token:
            request.add_header("Authorization", token)
        context = None
        if self.tls:
            context = ssl.create_default_context(cafile=self.tls.ca)
            context.check_hostname = False  # some of our servers have the wrong one on purpose
            context.load_cert_chain(self.tls.client_cert, self.tls.client_key)
        return urllib.request.urlopen(request, timeout=timeout, context=context)

    def call(self, path, **body):
        """One request of the v3 gateway; the parsed answer."""
        token = None
        if self.user:
            name, password = self.user
            with self.request("/v3/auth/authenticate", {"name": name, "password": password}) as got:
                token = json.load(got)["token"]
        with self.request(path, body, token=token) as answer:
            return json.load(answer)

    def handled(self, method):
        """How many calls of one kind have been answered, refused ones too."""
        with self.request("/metrics") as answer:
            text = answer.read().decode()
        line = rf'^grpc_server_handled_total{{.*grpc_method="{method}".*}} (\d+)$'
        return sum(int(number) for number in re.findall(line, text, re.M))

    def keys(self, prefix):
        """All keys that start with prefix, oldest first; without those of sessions."""
        return [key for key in self.all_keys(prefix) if SESSIONS not in key.name]

    def all_keys(self, prefix):
        """The same with them."""
        answer = self.call(
            "/v3/kv/range", key=encode(prefix), range_end=encode(after(prefix)),
            sort_target="CREATE", sort_order="ASCEND",
        )
        return [
            Key(
                base64.b64decode(kv["key"]).decode(errors="surrogateescape"),
                base64.b64decode(kv.get("value", "")),
                int(kv["create_revision"]),
                int(kv.get("lease", 0)),
            )
            for kv in answer.get("kvs", [])
        ]

    def count(self, prefix):
        """How many keys start with prefix; without those of sessions."""
        counts = [self.call("/v3/kv/range", key=encode(start), range_end=encode(after(start)),
                            count_only=True).get("count", 0)
                  for start in (prefix, f"{prefix.rstrip('/')}{SESSIONS}")]
        return int(counts[0]) - int(counts[1])

    def put(self, key, value, lease=0):
        """Writes one key."""
        return self.call("/v3/kv/put", key=encode(key), value=encode(value), lease=str(lease))

    def delete(self, key):
        """Deletes one key."""
        return self.call("/v3/kv/deleterange", key=encode(key))

    def revoke(self, lease):
        """Ends a lease, and with it all its keys."""
        return self.call("/v3/lease/revoke", ID=str(lease))

    def leases(self):
        """The leases that live."""
        return {int(one["ID"]) for one in self.call("/v3/lease/leases").get("leases", [])}

    def compact(self):
        """Throws all history away."""
        revision = self.call("/v3/kv/range", key=encode("\0"))["header"]["revision"]
        return self.call("/v3/kv/compaction", revision=revision, physical=True)

    def etcdctl_words(self, *words):
        """The command line of etcdctl for this server."""
        command = ["etcdctl", f"--endpoints={self.url}", "--dial-timeout=20s",
                   "--command-timeout=20s"]
        if self.tls:
            command += [f"--cacert={self.tls.ca}", f"--cert={self.tls.client_cert}",
                        f"--key={self.tls.client_key}"]
        if self.user:
            command += [f"--user={':'.join(self.user)}"]
        return [*command, *words]

    def etcdctl(self, *words, **options):
        """What etcdctl prints."""
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return checked(*self.etcdctl_words(*words), env=environment, **options)


class Cluster:
    """Three servers; peer traffic goes through proxies if `route` gives their URLs."""

    def __init__(self, directory, route=lambda member: member.peer_url):
        self.members = [
            Etcd(directory, name, ["--heartbeat-interval", "50", "--election-timeout", "500"])
            for name in ("one", "two", "three")
        ]
        for member in self.members:
            member.peer_url = route(member)
        initial = ",".join(f"{m.name}={m.peer_url}" for m in self.members)
        for member in self.members:
            member.initial = initial

    def start(self):
        """Starts all three and waits until all serve."""
        for member in self.members:
            member.launch()
        for member in self.members:
            wait_until(member.healthy, what=f"{member.name} answers")
        return self

    def remove(self):
        """Ends all three."""
        for member in self.members:
            member.remove()

    @property
    def url(self):
        """All client URLs, as latchfs takes them."""
        return ",".join(member.url for member in self.members)

    def leader(self):
        """The member that the members themselves say leads."""

        def find():
            for member in self.members:
                try:
                    status = member.call("/v3/maintenance/status")
                except (OSError, ValueError):
                    continue
                if status.get("leader") == status["header"]["member_id"]:
                    return member
            return None

        return wait_until(find, what="there is a leader")


class Certificates:
    """A certificate authority with one server and one client certificate."""

    def served_as(self, name, hosts):
        """The same with another certificate for the server."""
        other = copy.copy(self)
        other.server_cert, other.server_key = self.signed(name, hosts)
        return other

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        self.ca = str(directory / "ca.pem")
        self.make("ca", ["-x509", "-addext", "basicConstraints=critical,CA:TRUE"])
        self.server_cert, self.server_key = self.signed("server")
        self.client_cert, self.client_key = self.signed("client")
        self.other_ca = str(directory / "other.pem")
        self.make("other", ["-x509", "-addext", "basicConstraints=critical,CA:TRUE"])

    def make(self, name, words):
        """A key and a certificate (or request) for `name`."""
        checked("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout",
                self.directory / f"{name}.key", "-out", self.directory / f"{name}.pem", *words)

    def signed(self, name, hosts="IP:127.0.0.1"):
        """Paths of a certificate for these hosts signed by our authority, and of its key."""
        self.make(name, [])
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n", encoding="ascii")
        request, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate = self.directory / f"{name}.crt"
        checked("openssl", "x509", "-req", "-days", "2", "-in", request, "-CA", self.ca,
                "-CAkey", self.directory / "ca.key", "-CAcreateserial", "-extfile", extensions,
                "-out", certificate)
        return str(certificate), str(key)


def etcd_version(binary=ETCD):
    """As text, like 3.4.23."""
    return checked(binary, "--version").split()[2]
