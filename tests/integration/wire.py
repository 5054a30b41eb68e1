# SPDX-License-Identifier: MIT
"""A piece of network between two loopback ports, which tests can hurt in many ways and mend.

It can also keep a request back, whose sender sees a lost connection, and pass it on at any later
time; for that it reads what is asked (HTTP/1.1, and not encrypted).
"""

import base64
import http.client
import itertools
import json
import re
import socket
import struct
import threading
import time


# Parts of keys.
SESSIONS, NOTICES = "/.latchfs.session/", "/.latchfs.shrunk/"


def text_of(value):
    """What a field of bytes says."""
    return base64.b64decode(value or "").decode(errors="surrogateescape")


def kind_of_put(key, compares):
    """The kind of a request that puts a key, by what it compares."""
    targets = {compare.get("target"): compare for compare in compares}
    if key.endswith("/"):
        return "change" if "MOD" in targets else "mkdir"
    if "MOD" in targets:
        return "attempt"
    created = targets.get("CREATE")
    if created is None:
        return "join"
    return "try" if "range_end" in created else "write"


def kinds_of_part(compares, operations):
    """The kinds of requests in a transaction, or in a part of one."""
    read = {text_of(one["request_range"]["key"]) for one in operations if "request_range" in one}
    for one in operations:
        if "request_put" in one:
            key = text_of(one["request_put"]["key"])
            if SESSIONS in key:
                yield "fence"
            else:
                yield "shrink" if NOTICES in key else kind_of_put(key, compares)
        elif "request_delete_range" in one:
            key = text_of(one["request_delete_range"]["key"])
            if NOTICES in key:
                yield "notice"
            elif key.endswith("/"):
                yield "rmdir"
            elif compares:
                yield "evict"
            else:
                yield "orphan" if key in read else "leave"


def kinds_of(path, body):
    """Which kinds of requests that change something are on their way together."""
    if path == "/v3/kv/deleterange":
        return set(kinds_of_part([], [{"request_delete_range": json.loads(body)}]))
    if path != "/v3/kv/txn":
        return {path.rpartition("/")[2]}
    txn = json.loads(body)
    operations = txn.get("success", [])
    compares = [one for one in txn.get("compare", []) if SESSIONS not in text_of(one["key"])]
    kinds = set(kinds_of_part(compares, operations))
    for one in operations:
        if "request_txn" in one:
            part = one["request_txn"]
            kinds |= set(kinds_of_part(part.get("compare", []), part.get("success", [])))
    return kinds


def split_request(data):
    """Path, headers and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    return lines[0].split(" ")[1], headers, body


def is_whole(data):
    """Whether nothing of a request is missing."""
    if b"\r\n\r\n" not in data:
        return False
    _, headers, body = split_request(data)
    return len(body) >= int(headers.get("Content-Length", 0))


class Request:
    """A request that a wire has kept back."""

    def __init__(self, target, path, headers, body):
        self.target, self.path, self.headers, self.body = target, path, headers, body

    def comes(self):
        """It arrives now, and is carried out as far as that goes; the status of the answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.target, timeout=10)
        try:
            link.request("POST", self.path, self.body, self.headers)
            answer = link.getresponse()
            answer.read()
            return answer.status
        finally:
            link.close()


class Link:
    """One connection through a wire: two sockets and two threads that copy."""

    def __init__(self, wire, near, far):
        self.wire = wire
        self.sockets = (near, far)
        self.head = b""
        self.stalled = False
        for source, sink in ((near, far), (far, near)):
            threading.Thread(
                target=self.copy, args=(source, sink, source is near), daemon=True
            ).start()

    def copy(self, source, sink, outgoing):
        """Copies until one side ends; waits while the wire says so."""
        try:
            while data := source.recv(65536):
                if outgoing and len(self.head) < 4096:
                    self.head += data
                self.wire.pass_on(self, outgoing)
                if outgoing and self.wire.keeps:
                    data = self.whole(source, data)
                    if self.wire.keep_back(data):
                        self.stay(source)
                        break
                if not outgoing and self.wire.torn:
                    sink.sendall(data[:len(data) // 2])
                    break
                sink.sendall(data)
        except OSError:
            pass
        self.close()

    @staticmethod
    def whole(source, data):
        """The request that begins with this data, as far as it comes."""
        while data.startswith(b"POST ") and not is_whole(data):
            more = source.recv(65536)
            if not more:
                break
            data += more
        return data

    def stay(self, source):
        """Says nothing for as long as the wire is silent about what it keeps."""
        with self.wire.gate:
            while self.wire.is_silent and self in self.wire.links:
                self.wire.gate.wait()

    def close(self):
        """Ends both sides."""
        self.wire.forget(self)
        for end in self.sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def reset(self):
        """Ends both sides with a reset instead of an orderly end."""
        self.wire.forget(self)
        for end in self.sockets:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads, and sends nothing
            except OSError:
                pass
            end.close()


class Wire:
    """Listens on a loopback port and forwards to another one."""

    def __init__(self, port, listen=0):
        self.target = port
        self.links = set()
        self.gate = threading.Condition()
        self.concerns = None
        self.ways = (True, False)  # those that are stalled: outgoing?
        self.latency = 0
        self.torn = False
        self.is_cut = False
        self.keeps = None  # which requests are kept back: called with their kinds
        self.kept = []
        self.is_silent = False  # about requests that it keeps; else their connections end
        self.listen(listen)

    def listen(self, port):
        """Begins to take connections."""
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    @property
    def url(self):
        """Where a client of etcd finds it through this wire."""
        return f"http://127.0.0.1:{self.port}"

    def accept(self, listener):
        """Takes connections for ever; a cut wire drops them at once."""
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            with self.gate:
                self.links.add(Link(self, near, far))

    def forget(self, link):
        """A link that has ended."""
        with self.gate:
            self.links.discard(link)
            self.gate.notify_all()

    def pass_on(self, link, outgoing):
        """Called by a link before it forwards: blocks while that link is stalled."""
        time.sleep(self.latency)  # what the test asked for
        with self.gate:
            while self.stops(link, outgoing):
                self.gate.wait()

    def stops(self, link, outgoing):
        """Whether this link is stalled right now; a link that was stalled once stays so."""
        if link not in self.links:
            raise OSError("closed")
        if link.stalled:
            return True
        return (self.concerns is not None and outgoing in self.ways and
                self.concerns(link.head))

    def stall(self, concerns=lambda head: True, ways=(True, False)):
        """Connections stay open and carry nothing; only those whose first bytes concern us.

        ways: (True,) loses only what is asked, (False,) only what is answered.
        """
        with self.gate:
            self.concerns, self.ways = concerns, ways
        return self

    def delay(self, seconds):
        """Everything comes later by that much."""
        self.latency = seconds

    def tear(self):
        """Every connection ends in the middle of its next answer."""
        self.torn = True

    def reset(self):
        """Resets every connection; new ones are taken."""
        with self.gate:
            links = list(self.links)
        for link in links:
            link.reset()

    def refuse(self):
        """Resets every connection; nobody listens any more."""
        self.stop_listening()
        self.reset()

    def keep(self, kind, silent=False):
        """Keeps the next request of that kind back."""
        with self.gate:
            self.kept, self.is_silent = [], silent
            self.keeps = lambda kinds: kind in kinds and not self.kept
        return self

    def keep_back(self, data):
        """Whether a request is kept back."""
        if not data.startswith(b"POST ") or not is_whole(data):
            return False
        path, headers, body = split_request(data)
        with self.gate:
            if not self.keeps or not self.keeps(kinds_of(path, body)):
                return False
            self.kept.append(Request(self.target, path, headers, body))
            return True

    def come_late(self, part, seconds):
        """That part of the requests is carried out so much later, and its senders hear nothing."""
        count = itertools.count()

        def come(number):
            try:
                self.kept[number].comes()
            except OSError:
                pass  # nobody is there any more

        def keeps(kinds):
            if "watch" in kinds or next(count) % part:
                return False
            threading.Timer(seconds, come, [len(self.kept)]).start()
            return True

        with self.gate:
            self.kept, self.keeps = [], keeps

    def stall_watches(self):
        """Stalls the watch streams that are open now for ever, and nothing else."""
        with self.gate:
            for link in self.links:
                link.stalled = link.stalled or b"/v3/watch" in link.head.split(b"\r\n")[0]
            return sum(link.stalled for link in self.links)

    def cut(self):
        """Closes every connection and refuses new ones."""
        self.is_cut = True
        with self.gate:
            links = list(self.links)
        for link in links:
            link.close()

    def mend(self):
        """Everything goes through again."""
        self.is_cut = self.torn = False
        self.latency = 0
        with self.gate:
            self.concerns = self.keeps = None
            self.is_silent = False
            self.gate.notify_all()
        if self.listener is None:
            self.listen(self.port)

    def stop_listening(self):
        """Connections are refused."""
        listener, self.listener = self.listener, None
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        listener.close()

    def close(self):
        """Ends the wire."""
        self.cut()
        if self.listener is not None:
            self.stop_listening()


class PeerWire(Wire):
    """Stands before the peer port of one etcd member and knows which member each link is from.

    Member to member traffic is HTTP whose requests carry the sender's id in X-Server-From.
    """

    def isolate(self, ids):
        """Stalls all traffic of links that come from a member in `ids` (all when None)."""

        def concerns(head):
            sender = re.search(rb"X-Server-From: ([0-9a-f]+)", head, re.I)
            return ids is None or (sender is not None and sender.group(1).decode() in ids)

        return self.stall(concerns)
