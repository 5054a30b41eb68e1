# SPDX-License-Identifier: MIT
"""The same questions to a local disk and to latchfs, on one mount and on two: the same answers.

Where they are not, DIFFERENCES says which answer and under which heading of the manual's section
DIFFERENCES it stands.  One that does not occur any more fails the test as well.  The questions are
in programs/semantics.cases.
"""

import os
import random
import re
import tempfile

import pytest

from conftest import Pair
from support import PROGRAMS, REPOSITORY, checked

OBSTACLE = re.compile(r"(read|write)( \d+ \d+)? by .*")

MANUAL = REPOSITORY / "contrib/man/latchfs.8"
CASES = PROGRAMS / "semantics.cases"

ONE_LOCK = "One name is one lock"
NAMES = "A name is there while somebody holds or waits for its lock"
QUEUE = "First come, first served"
DEADLOCK = "Deadlocks are not detected"
UNLINKED = "A held lock keeps its name"
FOREIGN = "A lock of another machine is not unlinked"
CONTENT = "Only the holder writes"
PROCESS = "Processes of other machines have no number"
LINKS = "Links are locks"
RENAME = "Nothing is renamed"
DIRECTORY = "flock(2) of a directory stays on its mount"

# Heading in the manual -> case, step, answer on a local disk, on one mount, on two.
DIFFERENCES = {
    ONE_LOCK: [
        ("both: flock and fcntl", "b fcntl 0 set w", "ok", "EAGAIN", "EAGAIN"),
        ("both: flock and fcntl", "b fcntl 0 get w", "free", "write by a", "write by 0"),
        ("both: flock and fcntl", "a flock 0 ex nb", "ok", "EAGAIN", "EAGAIN"),
        ("both: through one descriptor", "b flock 0 ex nb", "ok", "EAGAIN", "EAGAIN"),
        ("both: a lock file and flock", "b flock 0 ex nb", "ok", "EAGAIN", "EAGAIN"),
        ("both: a lock file and flock", "b fcntl 0 get w", "free", "write by a", "write by 0"),
    ],
    NAMES: [
        ("lock file: in one that is open", "b open 0 f rw excl", "EEXIST", "ok", "ok"),
        ("lock file: closed at once", "b open 0 f rw excl", "EEXIST", "ok", "ok"),
        ("name: of a file that is open", "b exists f", "ok", "ENOENT", "ENOENT"),
        ("name: of a file that is open", "b open 0 f rw", "ok", "ENOENT", "ENOENT"),
        ("name: of a lock that is free again", "b exists f", "ok", "ENOENT", "ENOENT"),
        ("name: of a lock that is free again", "b open 0 f rw", "ok", "ENOENT", "ENOENT"),
    ],
    QUEUE: [
        ("flock: a reader behind a waiting writer", "c flock 0 sh nb", "ok", "EAGAIN", "EAGAIN"),
        ("flock: from exclusive to shared, while a writer waits", "a flock 0 sh nb",
         "ok", "EAGAIN", "EAGAIN"),
        ("range: another one, while somebody waits for the whole file", "a fcntl 0 set w 20 10",
         "ok", "EAGAIN", "EAGAIN"),
        ("fcntl: to shared and back, while a writer waits", "a fcntl 0 set w again",
         "ok", "EAGAIN", "EAGAIN"),
    ],
    DEADLOCK: [
        ("fcntl: two that wait for each other", "b fcntl 0 wait w", "EDEADLK", "waits", "waits"),
    ],
    UNLINKED: [
        ("name: unlinked while it is held", "a flinks 0", "0", "1", "1"),
        ("name: unlinked while it is held", "c flock 0 ex nb", "ok", "EAGAIN", "EAGAIN"),
        ("name: unlinked while it is held", "a same 0 f", "no", "yes", "yes"),
    ],
    FOREIGN: [
        ("lock file: unlinked by somebody else", "b unlink f", "ok", "ok", "EBUSY"),
        ("lock file: unlinked by somebody else", "b open 0 f rw excl", "ok", "ok", "EEXIST"),
        ("name: unlinked by somebody else while it is held", "b unlink f", "ok", "ok", "EBUSY"),
        ("kept: a lock file whose maker is killed", "b unlink kept/f", "ok", "ok", "EBUSY"),
        ("kept: a lock file whose maker is killed", "b open 0 kept/f w excl again",
         "ok", "ok", "EEXIST"),
        ("kept: a lock file whose maker is killed", "b unlink kept/f again", "ok", "ok", "EBUSY"),
        ("kept: a hard link whose maker is killed", "b unlink kept/f", "ok", "ok", "EBUSY"),
        ("kept: a hard link whose maker is killed", "c unlink kept/f", "ENOENT", "ENOENT", "ok"),
    ],
    CONTENT: [
        ("lock file: its content", "a read 0", '""', '"12"', '"12"'),
        ("lock file: its content", "b write 1 5678", "ok", "EPERM", "EPERM"),
        ("lock file: its content", "a read 0 again", '"5678"', '"12"', '"12"'),
        ("name: content of a file", "a write 0 1", "ok", "EPERM", "EPERM"),
        ("name: content of a file", "a read 0", '"1"', "the record", "the record"),
        ("range: counted from the end", "b fcntl 0 set w 0 1 end", "EAGAIN", "ok", "ok"),
    ],
    PROCESS: [
        ("fcntl: what is in the way", "b fcntl 0 get w again",
         "read by a", "read by a", "read by 0"),
        ("fcntl: what is in the way", "b fcntl 0 get r", "write by a", "write by a", "write by 0"),
        ("fcntl: from shared to exclusive and back, as others see it", "b fcntl 0 get r",
         "write by a", "write by a", "write by 0"),
        ("ofd: what is in the way", "b fcntl 0 get r", "write by -1", "write by a", "write by 0"),
        ("owners: a description is one as well", "a fcntl 0 get w",
         "write by -1", "write by d", "write by d"),
    ],
    LINKS: [
        ("kept: a third name", "a link kept/t kept/g", "ok", "EMLINK", "EMLINK"),
        ("kept: a third name", "a unlink kept/g", "ok", "ENOENT", "ENOENT"),
        ("a link in a directory that is not for it", "a link t f", "ok", "EPERM", "EPERM"),
        ("a link in a directory that is not for it", "a symlink web1:4711 l",
         "ok", "EPERM", "EPERM"),
    ],
    RENAME: [("name: renamed", "a rename f g", "ok", "EPERM", "EPERM")],
    DIRECTORY: [("flock: of a directory", "b flock 0 ex nb", "EAGAIN", "EAGAIN", "ok")],
}


@pytest.fixture(scope="session")
def semantics(suite):
    """The program that asks."""

    def build(target):
        checked("gcc", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-o", target,
                PROGRAMS / "semantics.c", PROGRAMS / "semantics_actor.c")

    return suite.once("semantics", build)


def parse(text):
    """(case, step) -> answer; a step that is there twice is "again" the second time."""
    answers = {}
    for line in text.splitlines():
        # Neither a step nor an answer contains a colon and a blank.
        case, step, answer = line.rsplit(": ", 2)
        while (case, step) in answers:
            step += " again"
        answers[case, step] = answer
    return answers


def ask(semantics, first, second):
    """All answers."""
    return parse(checked(semantics, CASES, first, second, timeout=150))


@pytest.fixture(scope="session")
def local(semantics):
    """What a local disk answers."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        os.mkdir(f"{memory}/kept")
        return ask(semantics, memory, memory)


def test_local_file_systems_agree(semantics, local, bare_lab):
    """The questions are about what every local file system does, not about one."""
    assert len(local) > 400
    assert not {"no answer", "is busy"} & set(local.values())
    os.mkdir(bare_lab.base / "kept")
    assert ask(semantics, bare_lab.base, bare_lab.base) == local


@pytest.mark.limit(180)
@pytest.mark.parametrize("mounts", [1, 2])
def test_answers_are_those_of_a_local_disk(semantics, local, lab, mounts):
    """But for the differences that the manual names."""
    pair = Pair(lab)
    second = pair.each()[mounts - 1]
    os.mkdir(pair.a / "kept")
    os.setxattr(pair.a / "kept", "user.latchfs.hold", b"name")
    said = ask(semantics, pair.a.path, second.path)
    assert list(said) == list(local)
    expected = dict(local)
    for difference in (one for several in DIFFERENCES.values() for one in several):
        case, step, *answers = difference
        assert local[case, step] == answers[0], f"{difference} is not what a local disk says"
        assert answers[0] not in answers[2:], f"{difference} is none"
        expected[case, step] = answers[mounts]
    wrong = {key: (said[key], expected[key]) for key in said if said[key] != expected[key]}
    assert not wrong, f"(said, expected): {wrong}"


class Questions:
    """Cases made up at random, of calls that do not wait, in one family of locks each."""

    # START LENGTH of fcntl; the whole file more often than each of the others.
    RANGES = ["", "", "", "0 1", "1 1", "2 1", "0 2", "1 2", "1 0", "2 0", "5 3", "2 -1", "-1 1",
              "0 1 cur", "-1 1 cur", "0 -2 cur", "1 -3 cur", "-2 0 cur"]
    SLOTS = 3
    # Those that have one description in common, if all have.
    SHARERS = "ade"

    def __init__(self, seed, closing):
        self.random = random.Random(seed)
        self.closing = closing

    def flock(self, who, slot):
        """Of flock(2)."""
        call = self.random.choice(["ex nb", "ex nb", "sh nb", "sh nb", "un"])
        return f"{who} flock {slot} {call}"

    def fcntl(self, who, slot):
        """Of fcntl(2), by both of its rules."""
        if self.random.random() < 0.15:
            return f"{who} lseek {slot} {self.random.choice(['0', '1', '2', '5'])} set"
        call = self.random.choice(["set", "set", "oset", "get"])
        kind = self.random.choice("rrww" if call == "get" else "rrwwu")
        return f"{who} fcntl {slot} {call} {kind} {self.random.choice(self.RANGES)}".rstrip()

    def either(self, who, slot):
        """Of both, through one description: flock is granted what that has, owners wait."""
        if self.closing and self.random.random() < 0.1:
            return f"{who} close {slot}\n{who} dup {(slot + 1) % self.SLOTS} {slot}"
        return self.random.choice([self.flock, self.fcntl, self.fcntl])(who, slot)

    def shared_steps(self):
        """What one case asks of processes that have inherited their descriptors."""
        yield f"a open 0 f rw {self.random.choice(['creat', 'excl'])}"
        yield from ("a dup 0 1", "a dup 0 2", "a fork d", "a fork e")
        for _ in range(25):
            yield self.either(self.random.choice(self.SHARERS), self.random.randrange(self.SLOTS))

    def steps(self, family):
        """What one case asks."""
        actors = ["a", "b", "c"]
        for who in actors:
            for slot in range(self.SLOTS - 1):
                yield f"{who} open {slot} f rw creat"
        yield "a dup 0 2"
        yield "b fork d"
        actors.append("d")
        for _ in range(20):
            who, slot = self.random.choice(actors), self.random.randrange(self.SLOTS)
            if self.closing and self.random.random() < 0.15:
                yield f"{who} close {slot}"
                yield f"{who} open {slot} f rw creat"
            else:
                yield family(who, slot)

    def text(self, count):
        """Cases for the program."""
        lines = []
        for number in range(count):
            steps = (self.steps(self.flock), self.steps(self.fcntl), self.shared_steps())
            lines += [f"case {number}", *steps[number % 3]]
        return "\n".join(lines) + "\n"


@pytest.mark.limit(180)
@pytest.mark.parametrize("mounts", [1, 2])
def test_random_questions(semantics, lab, mounts):
    """Whatever programs may try: as on a local disk, also between two mounts.

    What another mount has closed is free only a moment later, so there nothing is closed.
    """
    seed = int(os.environ.get("LATCHFS_SEED", random.randrange(1 << 32)))
    print(f"LATCHFS_SEED={seed}")
    pair = Pair(lab)
    cases = lab.scratch(Questions(seed, closing=mounts == 1).text(60))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        expected = checked(semantics, cases, memory, memory).splitlines()
    said = checked(semantics, cases, pair.a.path, pair.each()[mounts - 1].path, timeout=150)
    for number, (one, other) in enumerate(zip(said.splitlines(), expected, strict=True)):
        # Of several that are in the way any may be told, and its process in a way of its own.
        if re.sub(OBSTACLE, "taken", one) != re.sub(OBSTACLE, "taken", other):
            case = one.split(": ")[0]
            before = [line for line in expected[:number + 1] if line.split(": ")[0] == case]
            raise AssertionError("\n".join([*before, f"but {one}"]))


# Differences that last a moment, or for which these questions have no words: who tests them.
ELSEWHERE = {
    "Closing does not wait": "test_histories.test_what_is_given_back_is_gone_everywhere",
    "A lock that is taken away is there a little longer on its own mount":
        "test_break.test_the_holder_loses_it_and_the_next_gets_it",
    "A directory's mode and owner are known for a second":
        "test_permissions.test_a_mode_taken_away_is_followed",
    "A lock that is begun anew may have been seen":
        "test_histories.test_while_daemons_are_replaced",
    "Symbolic links are not followed": "test_symlinks.test_it_is_not_followed",
}


@pytest.mark.parametrize("heading", ELSEWHERE)
def test_other_differences_are_tested(heading):
    """The test that is named exists."""
    module, _, name = ELSEWHERE[heading].partition(".")
    text = (PROGRAMS.parent / f"{module}.py").read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(", text, re.M)


def test_manual_names_the_differences():
    """Each heading of the manual's section is one of ours, and the reverse."""
    text = MANUAL.read_text(encoding="utf-8")
    section = re.search(r"^\.Sh DIFFERENCES\n(.*?)^\.Sh ", text, re.M | re.S).group(1)
    headings = re.findall(r"^\.It Sy (.+)$", section, re.M)
    assert sorted(headings) == sorted([*DIFFERENCES, *ELSEWHERE])
