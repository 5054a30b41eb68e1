# SPDX-License-Identifier: MIT
"""An etcd that lies: whatever it answers, the daemon lives, in bounded memory, and answers its
users; it grants nothing by mistake, and goes on when the truth is told again.

The one place where a fake stands in for etcd, since a real one can't be made to lie; it is a proxy
before a real one, so that there is a truth to come back to.
"""

import concurrent.futures
import errno
import os
import re
import threading
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN
from pathlib import Path

import pytest

from etcdserver import encode
from fakeetcd import (
    HTTP_LIES, JSON_LIES, Fake, Mutant, bomb_in_transfer, body_of, endless, endless_head,
    endless_line, endless_promises, oversized, oversized_chunks, silence, truth_and_more, wait_told,
)
from mounting import PLAIN_BINARY, clean_environment, is_sanitized
from support import SOON, Stopwatch, run, wait_until

RW = os.O_RDWR | os.O_CREAT
AT_ONCE = 8  # daemons that are lied to at the same time
LIES = [*HTTP_LIES, *JSON_LIES]
# What these say is the truth in the end, and may be understood.
TRUE = {truth_and_more}
# And this is what etcd says of a range in which there is nothing.
NOTHING = "only_a_header"
REFUSED = {errno.EIO, errno.EWOULDBLOCK}


def together(work, items):
    """Does something with each, several at once; all that went wrong is told."""
    problems = []

    def one(item):
        try:
            work(item)
        except Exception as problem:  # of any kind, for the others still have to run
            name = getattr(item, "__name__", item)
            problems.append(f"{name}: {type(problem).__name__}: {problem}")

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, items))
    assert not problems, "\n\n".join(problems)


class Stage:
    """A mount behind a fake, for each thread; and an honest one, whose agent holds every lock."""

    def __init__(self, lab, **options):
        self.lab = lab
        self.options = {"ttl": 300, **options}
        self.honest = lab.mount(name="honest")
        self.keeper = lab.agent()
        self.local = threading.local()
        self.number = 0
        self.fakes = []

    def begin(self):
        """The calling thread's fake and mount, and an agent."""
        if not hasattr(self.local, "mount"):
            self.local.fake = fake = Fake(self.lab.etcd.port)
            self.fakes.append(fake)
            self.number += 1
            self.local.mount = self.lab.mount(
                "timeout=1", name=f"lied{self.number}", url=fake.url, **self.options).expect()
        self.local.fake.mend()
        return self.local.fake, self.local.mount, self.lab.agent()

    def held(self, name):
        """A lock that the honest mount holds, and the handle that holds it."""
        return self.keeper_call("take", self.honest / name)

    def keeper_call(self, *words):
        """A call of the agent that holds, one at a time."""
        with KEEPER:
            return getattr(self.keeper, words[0])(*words[1:])

    def close(self):
        """Ends the fakes."""
        for fake in self.fakes:
            fake.close()


KEEPER = threading.Lock()


@pytest.fixture
def stage(lab):
    """A stage with a TTL that never matters."""
    stage = Stage(lab)
    yield stage
    stage.close()


@pytest.fixture
def hasty_stage(lab):
    """A stage with the least TTL there is."""
    stage = Stage(lab, ttl=2)
    yield stage
    stage.close()


@pytest.fixture
def brisk_stage(lab):
    """A stage with a short TTL that is kept while one process plays eight etcds."""
    stage = Stage(lab, ttl=10)
    yield stage
    stage.close()


def definite(who, *call):
    """The errno of a call that has to end well before anybody would call it stuck."""
    watch = Stopwatch()
    error = who.error(*call)
    assert watch.seconds < SOON, f"{call[0]} took {watch.seconds:.1f} s"
    return error


def at_last(who, *call):
    """What a call gives when the daemon has got over what it was told before."""
    found = []

    def attempt():
        try:
            found.append(getattr(who, call[0])(*call[1:]))
        except OSError as error:
            assert error.errno in REFUSED, error
        return found

    wait_until(attempt, what=f"{call} succeeds")
    return found[0]


def interruptible(who, fd):
    """A waiting call ends with a signal, or has ended with an error; it is not granted."""
    watch = Stopwatch()
    try:
        assert who.alarmed(0.2, "flock", fd, LOCK_EX) == "interrupted"
    except OSError as error:
        assert error.errno in REFUSED
    assert watch.seconds < SOON


# Transactions, which carry all that is done to locks and names.


def lie_about_txn(stage, lie, enough=1, may_pass=False):
    """What is held is granted to nobody; look-ups fail; and then all is as it was."""
    fake, mount, one = stage.begin()
    name = lie.__name__
    held = stage.held(name)
    fd = at_last(one, "open", mount / name, RW)
    fake.lie("txn", lie)
    while True:
        assert definite(one, "flock", fd, LOCK_EX | LOCK_NB) in REFUSED
        interruptible(one, fd)
        if fake.told["txn"] >= enough:
            break
    for call in (("stat", mount / "other"), ("listdir", str(mount)), ("mkdir", mount / "dir"),
                 ("open", mount / name, RW | os.O_EXCL)):
        assert definite(one, *call) or may_pass or lie in TRUE or name == NOTHING, (
            f"{call[0]} succeeds")
    fake.mend()
    wait_until(lambda: one.error("flock", fd, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK)
    stage.keeper_call("close", held)
    at_last(one, "flock", fd, LOCK_EX | LOCK_NB)
    at_last(one, "fsync", fd)
    one.close(fd)
    assert not fake.strangers


@pytest.mark.limit(240)
def test_lies_about_transactions(stage):
    """Anything in place of the answer to a transaction."""
    together(lambda lie: lie_about_txn(stage, lie), LIES)


OTHER = encode("/somewhere/else/1.1")
PUT, RANGE = '{"response_put":{}}', '{"response_range":{}}'


def txn(name, *responses, succeeded="true", revision=1 << 40):
    """The answer to some transaction, as a lie."""
    return body_of(name, f'{{"header":{{"revision":"{revision}"}},"succeeded":{succeeded},'
                         f'"responses":[{",".join(responses)}]}}')


OTHER_ANSWERS = [
    txn("fewer"), txn("one", PUT), txn("two_puts", PUT, PUT), txn("more", PUT, RANGE, RANGE),
    txn("reverse", RANGE, PUT), txn("ranges", RANGE, RANGE, succeeded="false"),
    txn("failed", succeeded="false"), txn("many", *[RANGE] * 200),
    txn("deletes", '{"response_delete_range":{}}', RANGE),
    txn("of_another_name", PUT, '{"response_range":{"kvs":[{"key":"' + OTHER +
        '","create_revision":"5","mod_revision":"5"}]}}'),
    txn("of_the_future", PUT, '{"response_range":{"kvs":[{"key":"' + OTHER +
        '","create_revision":"9223372036854775807"}]}}'),
    txn("nested", '{"response_txn":{"succeeded":true,"responses":[' + PUT + "]}}"),
    txn("before_all", PUT, RANGE, revision=1), txn("of_no_time", PUT, RANGE, revision=0),
    txn("below_time", PUT, RANGE, revision=-5), txn("too_late", PUT, RANGE, revision=(1 << 63) - 1),
    txn("beyond_numbers", PUT, RANGE, revision=1 << 70),
    body_of("of_a_range", '{"header":{"revision":"9999"},"count":"1","kvs":[{"key":"' + OTHER +
            '","create_revision":"5","mod_revision":"5"}]}'),
    body_of("of_a_delete", '{"header":{"revision":"9999"},"deleted":"many"}'),
    txn("wordy", PUT, RANGE, succeeded='"true"'),
]


@pytest.mark.limit(180)
def test_answers_to_other_questions(stage):
    """An answer with other parts than were asked for is nobody's: no lock comes of it."""

    def work(lie):
        # A try, of which "one" is the answer, is for the others.
        fake, mount, one = stage.begin()
        held = stage.held(lie.__name__)
        fd = at_last(one, "open", mount / lie.__name__, RW)
        fake.lie("txn", lie)
        if lie.__name__ != "one":
            assert definite(one, "flock", fd, LOCK_EX | LOCK_NB) in REFUSED
        interruptible(one, fd)
        fake.mend()
        wait_until(lambda: one.error("flock", fd, LOCK_EX | LOCK_NB) == errno.EWOULDBLOCK)
        stage.keeper_call("close", held)
        at_last(one, "flock", fd, LOCK_EX | LOCK_NB)
        at_last(one, "fsync", fd)
        one.close(fd)

    together(work, OTHER_ANSWERS)


@pytest.mark.limit(180)
def test_fields_of_other_types(stage):
    """etcd's own answers, with a field at a time of another type: never a lock by mistake."""
    mutant = Mutant()

    def work(number):
        lie = lambda answer: mutant(answer)
        lie.__name__ = f"mutant{number}"
        lie_about_txn(stage, lie, enough=20, may_pass=True)

    together(work, range(AT_ONCE))
    assert mutant.turn >= 20 * AT_ONCE


# The lease.


def lie_about_renewal(stage, lie, call="keepalive"):
    """Who can't renew loses its locks before etcd gives them to others, and says so."""
    fake, mount, one = stage.begin()
    name = lie.__name__
    fd = at_last(one, "take", mount / name)
    fake.lie(call, lie)
    wait_told(fake, call, 2 if lie in TRUE else 1)

    def lost():
        present = stage.lab.keys(name)
        known = one.error("pread", fd, 10, 0) == errno.EIO
        assert present or known, "etcd has given it away and the holder does not know"
        return known

    if lie in TRUE:
        assert not lost()
    else:
        wait_until(lost)
    fake.mend()
    one.error("flock", fd, LOCK_UN)
    at_last(one, "flock", fd, LOCK_EX | LOCK_NB)
    at_last(one, "fsync", fd)
    one.close(fd)
    assert not fake.strangers


@pytest.mark.limit(240)
@pytest.mark.alone
def test_lies_about_renewals(hasty_stage):
    """Anything in place of the answer to a renewal."""
    other = body_of("other_lease", '{"result":{"header":{"revision":"7"},"ID":"7","TTL":"60"}}')
    together(lambda lie: lie_about_renewal(hasty_stage, lie), [*LIES, other])


def lie_about_proof(stage, lie):
    """Who can't prove a renewal loses its locks as if there had been none."""
    lie_about_renewal(stage, lie, "proof")


OTHER_TERMS = [
    body_of("another_term", '{"header":{"cluster_id":"7","revision":"7","raft_term":"77"}}'),
    body_of("no_term", '{"header":{"cluster_id":"7","revision":"7"}}'),
    body_of("no_cluster", '{"header":{"revision":"7","raft_term":"2"}}'),
]


@pytest.mark.limit(240)
@pytest.mark.alone
def test_lies_about_proofs(hasty_stage):
    """Anything in place of the answer to the read that proves a renewal."""
    together(lambda lie: lie_about_proof(hasty_stage, lie), [*LIES, *OTHER_TERMS])


def lie_about_timetolive(stage, lie):
    """What can't be understood of our keys is no reason to lose them."""
    fake, mount, one = stage.begin()
    fd = at_last(one, "take", mount / lie.__name__)
    fake.lie("timetolive", lie)
    wait_told(fake, "timetolive")
    try:
        at_last(one, "fsync", fd)
        fake.mend()
        at_last(one, "fsync", fd)
    except AssertionError as problem:
        raise AssertionError(f"{problem}\n{mount.log()[-2000:]}") from problem
    assert len(stage.lab.keys(lie.__name__)) == 1
    one.close(fd)


@pytest.mark.limit(240)
@pytest.mark.alone
def test_lies_about_our_keys(brisk_stage):
    """Anything in place of the list of our lease's keys: nothing is lost."""
    others = [
        body_of("other_lease", '{"header":{"revision":"7"},"ID":"7","TTL":"-1"}'),
        body_of("odd_time", '{"header":{"revision":"7"},"ID":"7","TTL":"soon","keys":[]}'),
    ]
    together(lambda lie: lie_about_timetolive(brisk_stage, lie), [*LIES, *others])


# The start, at which there is nothing else to go by.


def lie_at_start(lab, call, lie, options=""):
    """One plain line, in time, and nothing mounted; or, if it was the truth, a mount."""
    fake = Fake(lab.etcd.port)
    fake.lie(call, lie)
    patience = 30 if lie in TRUE else 2
    mount = lab.mount(f"timeout={patience}{options}", url=fake.url, name=f"{call}-{lie.__name__}",
                      start=False).expect()
    if lie in TRUE:
        mount.start()
        os.listdir(mount.path)  # before it is ready a signal means failure
        mount.stop()
        fake.close()
        return
    mount.path.mkdir()
    watch = Stopwatch()
    done = run(*mount.command(), env=clean_environment())
    assert watch.seconds < SOON and fake.told[call]
    assert done.returncode == 1, done
    assert re.fullmatch(r"latchfs: error: .*\n", done.stderr), done.stderr
    assert not mount.mounted() and not fake.strangers
    fake.close()


@pytest.mark.limit(180)
def test_lies_about_the_lease_at_the_start(lab):
    """Anything in place of a lease."""
    others = [
        body_of("no_lease", '{"header":{"revision":"7"},"TTL":"60"}'),
        body_of("no_time", '{"header":{"revision":"7"},"ID":"7"}'),
        body_of("too_long", '{"header":{"revision":"7"},"ID":"7","TTL":"9223372036854775807"}'),
    ]
    together(lambda lie: lie_at_start(lab, "grant", lie), [*LIES, *others])


@pytest.mark.limit(180)
def test_lies_about_the_watch_at_the_start(lab):
    """Anything in place of the watch's beginning."""
    together(lambda lie: lie_at_start(lab, "watch", lie), set(LIES) - {truth_and_more})


@pytest.fixture
def auth_lab(bare_lab):
    """A lab whose etcd wants a password."""
    server = bare_lab.own_etcd()
    for words in (["user", "add", "root:rootpw"], ["user", "grant-role", "root", "root"],
                  ["auth", "enable"]):
        server.etcdctl(*words)
    server.user = ("root", "rootpw")
    return bare_lab


@pytest.mark.limit(180)
def test_lies_about_the_token(auth_lab):
    """Anything in place of a token, and tokens that would be headers of their own."""
    secret = auth_lab.scratch("rootpw")
    secret.chmod(0o600)
    login = f",user=root,password_file={secret}"
    others = [
        body_of("two_lines", '{"header":{"revision":"7"},"token":"a\\r\\nX-Other: b"}'),
        body_of("no_token", '{"header":{"revision":"7"},"token":""}'),
        body_of("endless_token", '{"token":"' + "a" * 100000 + '"}'),
    ]
    together(lambda lie: lie_at_start(auth_lab, "authenticate", lie, login), [*LIES, *others])


def test_a_lease_that_is_promised_for_too_long(lab):
    """The TTL is never taken for longer than was asked: a loss is known in time."""
    fake = Fake(lab.etcd.port)

    def grant(answer):
        _, body = answer.real()
        answer.whole(body.replace(b'"TTL":"2"', b'"TTL":"86400"'))

    fake.lie("grant", grant)
    mount = lab.mount("timeout=1", url=fake.url, ttl=2).expect()
    one = lab.agent()
    fd = one.take(mount / "x")
    fake.lie("keepalive", silence)
    wait_until(lambda: one.error("pread", fd, 10, 0) == errno.EIO)
    fake.close()


def test_a_lease_of_the_future(lab):
    """A beginning that lies behind all that follows: it is given up, and the next one is right."""
    fake = Fake(lab.etcd.port)

    def grant(answer):
        _, body = answer.real()
        answer.whole(re.sub(rb'"revision":"\d+"', b'"revision":"%d"' % (1 << 50), body))
        fake.mend()

    fake.lie("grant", grant)
    mount = lab.mount("timeout=1", url=fake.url).expect()
    one = lab.agent()
    wait_until(lambda: one.error("take", mount / "x", LOCK_EX | LOCK_NB) == 0)
    fake.close()


# The watch.


def created(revision=7):
    """How a watch begins."""
    return f'{{"result":{{"header":{{"revision":"{revision}"}},"created":true}}}}'


def deletes(key, revision, told=None):
    """That a key was deleted at that revision, told at another."""
    return (f'{{"result":{{"header":{{"revision":"{told or revision}"}},"events":[{{"type":"DELETE",'
            f'"kv":{{"key":"{encode(key)}","mod_revision":"{revision}"}}}}]}}}}')


class WatchLies:
    """Streams that begin well, below a prefix with a lock that somebody holds."""

    def __init__(self, prefix, key, now):
        self.prefix = prefix
        self.key = key
        self.now = now  # the revision

    def stream(self, name, *lines, then=silence):
        """A lie of some lines, and what it does behind them."""
        def tell(answer):
            answer.stream(created(self.now), *lines)
            then(answer)

        tell.__name__ = name
        return tell

    def all(self):
        """All of them."""
        later = self.now + 1000
        yield self.stream("deaf")
        yield self.stream("a_line_without_end", then=lambda a: a.flood(b"10000\r\n%s\r\n" % (
            b"[" * 65536), None))
        yield self.stream("lines_without_end", then=lambda a: a.flood(b"2\r\n\n\n\r\n", None))
        yield self.stream("no_json", "{", "<html>", "}")
        yield self.stream("no_message", "{}", "[]")
        yield self.stream("bad_chunks", then=lambda a: a.send(b"zz\r\n"))
        yield self.stream("ends", then=lambda a: None)
        yield self.stream("begins_again", *[created(self.now)] * 100)
        yield self.stream("begins_long_ago", created(1))
        yield self.stream("begins_in_the_future", created(1 << 60))
        yield self.stream("progress_of_the_future",
                          f'{{"result":{{"header":{{"revision":"{1 << 60}"}}}}}}')
        yield self.stream("elsewhere", deletes("/somewhere/else", later),
                          deletes(self.prefix, later), deletes(f"{self.prefix}/", later + 1))
        yield self.stream("long_ago", deletes(self.key, 1, told=later))
        yield self.stream("too_late", deletes(self.key, (1 << 63) - 1))
        yield self.stream("later_than_told", deletes(self.key, later, told=self.now))
        yield self.stream("back_in_time", deletes(f"{self.prefix}/other/1", later),
                          deletes(self.key, self.now - 1, told=later))
        yield self.stream("of_no_time", deletes(self.key, 0, told=later))
        yield self.stream("without_a_key", deletes(self.key, later).replace('"key"', '"kee"'))
        yield self.stream("odd_type", deletes(self.key, later).replace('"DELETE"', "7"))
        yield self.stream("compacted", '{"result":{"canceled":true,"compact_revision":"99999"}}')
        yield self.stream("cancelled", '{"result":{"canceled":true,"cancel_reason":"so"}}')
        yield self.stream("failed", '{"error":{"grpc_code":"x","message":["y"]}}')
        yield self.stream("refused", '{"result":{"canceled":true,"cancel_reason":"etcdserver: '
                                     'permission denied"}}')


def lie_about_watch(stage, make):
    """Who waits is not granted, can be interrupted, and is granted when its time has come."""
    fake, mount, one = stage.begin()
    name = make.__name__ if callable(make) else make
    held = stage.held(name)
    if not callable(make):
        now = int(stage.lab.etcd.call("/v3/kv/range", key="AA==")["header"]["revision"])
        lies = WatchLies(stage.lab.prefix, stage.lab.keys(name)[0].name, now)
        make = next(lie for lie in lies.all() if lie.__name__ == name)
    fd = at_last(one, "open", mount / name, RW)
    one.begin("flock", fd, LOCK_EX)
    stage.lab.await_keys(name, 2)
    fake.lie("watch", make)
    wait_told(fake, "watch")
    two = stage.lab.agent()
    assert definite(two, "take", mount / name, LOCK_EX | LOCK_NB) in REFUSED
    at_last(two, "take", mount / f"{name}-free", LOCK_EX | LOCK_NB)
    two.kill()
    assert not one.ready(), "granted by mistake"
    fake.mend()
    stage.keeper_call("close", held)
    one.finish()
    at_last(one, "fsync", fd)
    one.close(fd)
    assert not fake.strangers


@pytest.mark.limit(240)
def test_lies_about_the_watch(stage):
    """Anything in place of the watch: nothing is granted before its time, or lost."""
    # Without news of deletes a grant may be late by a TTL, which here must not be long.
    stage.options["ttl"] = 4
    names = [lie.__name__ for lie in WatchLies("/x", "/x/y/1", 7).all()]
    together(lambda lie: lie_about_watch(stage, lie), [*names, *LIES])


# Memory.


def peak_kib(pid):
    """The most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M).group(1))


FLOODS = [
    oversized, oversized_chunks, endless, endless_line, endless_head, endless_promises,
    bomb_in_transfer, *(lie for lie in JSON_LIES if lie.__name__ in ("many_values", "deep_lists")),
    body_of("just_few_enough", '{"header":[' + "0," * 900000 + "0]}"),
    body_of("just_small_enough", '{"header":"' + "x" * (31 << 20) + '"}'),
]


def flood_all(lab, call):
    """Tells all floods about a call; how much memory the daemon had at most."""
    fake = Fake(lab.etcd.port)
    mount = lab.mount("timeout=1", name=call, url=fake.url, ttl=2, binary=PLAIN_BINARY).expect()
    one = lab.agent()
    fd = at_last(one, "open", mount / call, RW)
    before = peak_kib(mount.server)
    for lie in FLOODS:
        fake.lie(call, lie)
        if call == "txn":
            assert definite(one, "flock", fd, LOCK_EX | LOCK_NB) == errno.EIO
        wait_told(fake, call)
        fake.mend()
        at_last(one, "flock", fd, LOCK_EX | LOCK_NB)
        one.flock(fd, LOCK_UN)
    assert peak_kib(mount.server) - before < 256 << 10
    fake.close()


@pytest.mark.limit(180)
@pytest.mark.alone
@pytest.mark.skipif(is_sanitized(PLAIN_BINARY), reason="sanitizers keep what is freed")
def test_memory_is_bounded(lab):
    """However much comes, a daemon never has more than what one answer may take."""
    together(lambda call: flood_all(lab, call), ["txn", "watch", "timetolive"])
