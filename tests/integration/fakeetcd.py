# SPDX-License-Identifier: MIT
"""A proxy before a real etcd which tells lies: the answers of some calls are what a test likes.

A lie is a function that gets an Answer, and with it the connection: it may send anything.  What is
not lied about passes through.
"""

import base64
import functools
import gzip
import http.client
import json
import socket
import struct
import threading
import time

CALLS = {
    "/v3/lease/grant": "grant", "/v3/lease/keepalive": "keepalive", "/v3/lease/revoke": "revoke",
    "/v3/lease/timetolive": "timetolive", "/v3/watch": "watch",
    "/v3/kv/txn": "txn", "/v3/kv/range": "txn", "/v3/kv/deleterange": "txn",
    "/v3/auth/authenticate": "authenticate", "/v3/maintenance/status": "status",
}
LARGE = 256 << 20  # more than anybody should read
PIECE = 1 << 16


def call_of(path, body):
    """What is asked for; None if nobody asks etcd for that."""
    if path == "/v3/kv/range" and b'"range_end"' not in body:
        # Of the key of the root alone, which proves that a renewal was one.
        if base64.b64decode(json.loads(body)["key"]).endswith(b"/"):
            return "proof"
    return CALLS.get(path)


class Answer:
    """What a lie has in its hands: a request, and the connection it came by."""

    def __init__(self, fake, connection, path, headers, body):
        self.fake = fake
        self.connection = connection
        self.path = path
        self.headers = headers
        self.body = body
        self.keep = False  # the connection is in order, and the next request may come
        self.story = fake.story

    def send(self, data):
        """Some bytes as they are."""
        self.connection.sendall(data)

    def head(self, *lines, status="200 OK"):
        """A head with these lines."""
        self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1"))

    def whole(self, body, *lines, status="200 OK"):
        """A whole answer, correct as far as HTTP is concerned."""
        body = body.encode() if isinstance(body, str) else body
        self.head("Content-Type: application/json", f"Content-Length: {len(body)}", *lines,
                  status=status)
        self.send(body)
        self.keep = True

    def stream(self, *lines, status="200 OK"):
        """The beginning of a stream of lines, and some of them; it stays open."""
        self.head("Content-Type: application/json", "Transfer-Encoding: chunked", status=status)
        for line in lines:
            self.chunk(line)

    def chunk(self, data):
        """A chunk of a stream: a line, or bytes as they are."""
        data = data.encode() + b"\n" if isinstance(data, str) else data
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def real(self):
        """What etcd says to it: status and body."""
        link = http.client.HTTPConnection("127.0.0.1", self.fake.target, timeout=10)
        try:
            link.request("POST", self.path, self.body, self.headers)
            got = link.getresponse()
            return got.status, got.read()
        finally:
            link.close()

    def lies_on(self):
        """Whether the lie is to go on; an endless one asks now and then."""
        return self.fake.story == self.story

    def hold(self):
        """Nothing more, until the lie or the connection ends."""
        self.connection.settimeout(0.1)
        while self.lies_on():
            try:
                if not self.connection.recv(PIECE):
                    return
            except TimeoutError:
                pass

    def drip(self, data):
        """A byte every 100 ms, over and over."""
        while self.lies_on():
            for byte in data:
                self.send(bytes([byte]))
                time.sleep(0.1)  # what it is about

    def flood(self, data, size=LARGE):
        """The same again and again, so many bytes or for ever (None).

        Not as fast as can be: others have to be lied to by this process as well.
        """
        piece = data * (PIECE // len(data) + 1)
        sent = 0
        while self.lies_on() and (size is None or sent < size):
            self.send(piece)
            sent += len(piece)
            time.sleep(0.001)


class Fake:
    """Listens on a loopback port, before the etcd of another."""

    def __init__(self, port):
        self.target = port
        self.lies = {}
        self.told = {}
        self.strangers = 0  # who asked for what nobody asks etcd for
        self.story = 0  # which lies, and truths, are being told
        self.streams = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        """Where a client of etcd finds it."""
        return f"http://127.0.0.1:{self.port}"

    def lie(self, call, how):
        """From now on a call is answered so; a watch that is open is ended."""
        self.story += 1
        self.told[call] = 0
        self.lies[call] = how
        if call == "watch":
            self.end_streams()

    def mend(self):
        """Nothing but the truth; lies that still go on end."""
        self.lies = {}
        self.story += 1

    def end_streams(self):
        """Ends the watches that are open."""
        with self.lock:
            streams = list(self.streams)
        for stream in streams:
            end(stream)

    def close(self):
        """Ends it."""
        self.mend()
        self.listener.close()
        self.end_streams()

    def accept(self):
        """Takes connections for ever."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        """One connection, until somebody has had enough."""
        try:
            with connection:
                while request := read_request(connection):
                    answer = Answer(self, connection, *request)
                    self.answer(answer)
                    if not answer.keep:
                        break
        except (OSError, ValueError, http.client.HTTPException):
            pass

    def answer(self, answer):
        """Answers one request, by a lie or the truth."""
        call = call_of(answer.path, answer.body)
        if call is None:
            self.strangers += 1
            return
        how = self.lies.get(call)
        if how:
            self.told[call] += 1
            how(answer)
        elif call == "watch":
            self.relay(answer)
        else:
            status, body = answer.real()
            answer.whole(body, status=f"{status} Whatever")

    def relay(self, answer):
        """Passes a stream through."""
        with socket.create_connection(("127.0.0.1", self.target)) as far:
            lines = [f"POST {answer.path} HTTP/1.1",
                     *(f"{name}: {value}" for name, value in answer.headers.items()), "", ""]
            far.sendall("\r\n".join(lines).encode() + answer.body)
            with self.lock:
                self.streams |= {far, answer.connection}
            if "watch" in self.lies:
                return  # since a moment ago
            watcher = threading.Thread(target=follow, args=(answer.connection, far), daemon=True)
            watcher.start()
            try:
                while data := far.recv(PIECE):
                    answer.send(data)
            finally:
                # Closing alone does not end what another thread reads from.
                end(answer.connection)
                with self.lock:
                    self.streams -= {far, answer.connection}


def end(link):
    """Ends a connection, whoever uses it."""
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def follow(near, far):
    """Ends the far side of a stream when the near one has ended."""
    try:
        near.recv(1)
    except OSError:
        pass
    end(far)


def read_request(connection):
    """Path, headers and body of the next request, None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(PIECE)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    while len(body) < int(headers["Content-Length"]):
        body += connection.recv(PIECE)
    return lines[0].split(" ")[1], headers, body


# Lies that are none of HTTP's: by what name, and how.


def silence(answer):
    """Nothing at all."""
    answer.hold()


def slow_head(answer):
    """Not even the head comes to an end."""
    answer.drip(b"HTTP/1.1 200 OK\r\nX-One: two\r\n")


def slow_body(answer):
    """A byte every 100 ms of something that begins well."""
    answer.head("Content-Length: 100000")
    answer.drip(b'{"header":{"revision":"7"},')


def hang_up(answer):
    """The connection ends without a word."""


def reset(answer):
    """The same, and rudely."""
    answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def garbage(answer):
    """No HTTP."""
    answer.send(bytes(range(256)) * 16)


def other_protocol(answer):
    """Nor is this."""
    answer.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    answer.hold()


def old_protocol(answer):
    """HTTP before it had a head."""
    answer.send(b'{"header":{"revision":"7"},"succeeded":true}\n')


def endless_line(answer):
    """A head of one line without end."""
    answer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    answer.flood(b"x", None)


def endless_head(answer):
    """A head of lines without end."""
    answer.send(b"HTTP/1.1 200 OK\r\n")
    answer.flood(b"X-Header: value\r\n", None)


def endless_promises(answer):
    """That the answer will come, again and again."""
    answer.flood(b"HTTP/1.1 100 Continue\r\n\r\n", None)


def oversized(answer):
    """It says beforehand how large it is."""
    answer.head(f"Content-Length: {LARGE}")
    answer.flood(b" ")


def oversized_chunks(answer):
    """It does not say."""
    answer.head("Transfer-Encoding: chunked")
    answer.flood(b"%x\r\n%s\r\n" % (PIECE, b"[" * PIECE))


def endless(answer):
    """It does not say, and does not end."""
    answer.head("Connection: close")
    answer.flood(b"0,", None)


def truncated(answer):
    """Half of the truth."""
    status, body = answer.real()
    answer.head(f"Content-Length: {len(body)}", status=f"{status} Whatever")
    answer.send(body[:len(body) // 2])


def wrong_length(answer):
    """Half of the truth, said to be all of it; the rest stands before the next answer."""
    _, body = answer.real()
    answer.head(f"Content-Length: {len(body) // 2}")
    answer.send(body)
    answer.keep = True


def negative_length(answer):
    """A length below nothing."""
    answer.head("Content-Length: -5")
    answer.send(b'{"header":{}}')
    answer.hold()


def immense_length(answer):
    """A length that no number holds."""
    answer.head("Content-Length: 99999999999999999999999")
    answer.send(b"{}")
    answer.hold()


def bad_chunks(answer):
    """Chunks whose sizes are none."""
    answer.head("Transfer-Encoding: chunked")
    answer.send(b"zz\r\n{}\r\n-1\r\n")
    answer.hold()


def immense_chunk(answer):
    """A chunk without end."""
    answer.head("Transfer-Encoding: chunked")
    answer.send(b"ffffffffffffffff\r\n{}")
    answer.hold()


@functools.cache
def packed():
    """Little that becomes much when it is unpacked."""
    return gzip.compress(b"[" * (LARGE // 4), 1)


def bomb(answer, *lines):
    """It is packed, which nobody asked for."""
    body = packed()
    answer.head(*(lines or ["Content-Encoding: gzip", f"Content-Length: {len(body)}"]))
    answer.send(body)


def bomb_in_transfer(answer):
    """The same, as HTTP itself may pack it."""
    bomb(answer, "Transfer-Encoding: gzip", "Connection: close")


def redirect(answer):
    """Go elsewhere; who goes there is counted."""
    answer.whole("", f"Location: {answer.fake.url}/elsewhere", status="307 Temporary Redirect")


def redirect_to_itself(answer):
    """For ever."""
    answer.whole("{}", f"Location: {answer.fake.url}{answer.path}", status="308 Permanent Redirect")


def status_of(status, body):
    """A lie of another status with an odd body."""
    def tell(answer):
        answer.whole(body, status=status)

    tell.__name__ = f"status_{status.split()[0]}"
    return tell


def body_of(name, body):
    """A lie of one body."""
    def tell(answer):
        answer.whole(body)

    tell.__name__ = name
    return tell


def half_truth(answer):
    """The truth with something behind it."""
    status, body = answer.real()
    answer.whole(body + b" {}", status=f"{status} Whatever")


def truth_and_more(answer):
    """The truth, and another answer on the same connection, which whoever asks next is not meant by."""
    status, body = answer.real()
    answer.whole(body, status=f"{status} Whatever")
    answer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def one_behind(answer):
    """An answer too many, and from then on to each question on this connection that of the last."""
    told = b"{}"
    while True:
        answer.whole(told)
        _, told = answer.real()
        request = read_request(answer.connection)
        if not request:
            answer.keep = False
            return
        answer = Answer(answer.fake, answer.connection, *request)


HTTP_LIES = [
    silence, slow_head, slow_body, hang_up, reset, garbage, other_protocol, old_protocol,
    endless_line, endless_head, endless_promises, oversized, oversized_chunks, endless, truncated,
    wrong_length, negative_length, immense_length, bad_chunks, immense_chunk, bomb,
    bomb_in_transfer, redirect, redirect_to_itself, half_truth, truth_and_more, one_behind,
    status_of("204 No Content", ""), status_of("206 Partial Content", '{"header":'),
    status_of("304 Not Modified", ""), status_of("402 Payment Required", "[" * 5000),
    status_of("404 Not Found", "<html>\0\x1b[2J</html>"), status_of("500 Oops", '{"error":{}}'),
    status_of("503 Service Unavailable", '{"code":14}'), status_of("999 What", "\0" * 100),
]
JSON_LIES = [
    body_of("nothing", ""), body_of("null", "null"), body_of("empty_object", "{}"),
    body_of("list", "[]"), body_of("number", "7"), body_of("page", "<html>hello</html>"),
    body_of("nul", '{"header":{"revision":"7"}\0}'), body_of("not_text", b"\xff\xfe\x00\x01" * 99),
    body_of("deep_lists", "[" * 1000000), body_of("deep_objects", '{"header":' * 100000),
    body_of("many_values", '{"header":[' + "0," * 5000000 + "0]}"),
    body_of("only_a_header", '{"header":{"revision":"7"}}'),
]

# Lies about the truth: etcd's own answer, with one field of another type.

ODD = [None, True, 7, -7, 1e300, "", "x", "-1", "9223372036854775808", [], [[]], {}, {"a": 0}]


def fields(value, path=()):
    """The paths of all fields of a JSON value."""
    items = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for name, inner in items:
        yield (*path, name)
        yield from fields(inner, (*path, name))


def changed(value, path, to):
    """The value with one field changed."""
    if not path:
        return to
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], to)
    return copy


# Of no interest to anybody, so that the answer stays true whatever they are.
IGNORED = {"cluster_id", "member_id", "raft_term", "version", "count", "deleted", "grantedTTL",
           "watch_id"}


def mutations(body):
    """The bodies with one field changed, field by field."""
    truth = json.loads(body)
    for path in fields(truth):
        if path[-1] in IGNORED or (path[-1] == "header" and len(path) > 2):
            continue
        for odd in ODD:
            yield json.dumps(changed(truth, path, odd))


class Mutant:
    """A lie that is another one each time."""

    def __init__(self):
        self.turn = 0
        self.lock = threading.Lock()
        self.__name__ = "mutant"

    def __call__(self, answer):
        _, body = answer.real()
        found = list(mutations(body))
        with self.lock:
            # All fields with one type, then with the next.
            place = self.turn * len(ODD) + self.turn * len(ODD) // len(found)
            self.turn += 1
        answer.whole(found[place % len(found)])


def wait_told(fake, call, count=1, deadline=30):
    """Waits until a lie has been told so often."""
    end = time.monotonic() + deadline
    while fake.told.get(call, 0) < count:
        assert time.monotonic() < end, f"nobody asked for {call}"
        time.sleep(0.005)
