# SPDX-License-Identifier: MIT
"""A piece of network between two loopback ports, which tests can hurt in many ways and mend."""

import re
import socket
import struct
import threading
import time


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
                if not outgoing and self.wire.torn:
                    sink.sendall(data[:len(data) // 2])
                    break
                sink.sendall(data)
        except OSError:
            pass
        self.close()

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
            self.concerns = None
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
