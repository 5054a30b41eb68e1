# SPDX-License-Identifier: MIT
"""The checker finds what it is there to find, and nothing in a history that is as it should be."""

import errno

import pytest

import history

GOOD = {
    "a": """10 call 1 x X wait
11 granted 1 5
12 seen 1
13 write 1 5 1
14 seen 1
15 release 1
16 released 1
30 call 2 x S wait
31 granted 2 8
40 seen 2
41 release 2
42 released 2
43 end
""",
    "b": f"""12 call 1 x X wait
17 granted 1 6
18 seen 1
19 write 1 6 2
20 release 1
21 released 1
22 call 2 x X try
23 refused 2 {errno.EWOULDBLOCK} lock
32 call 3 x S wait
33 granted 3 9
39 seen 3
40 release 3
41 released 3
42 end
""",
    "c": """22 call 1 x X create
23 granted 1 7
24 seen 1
25 lost 1 5
26 stale 1 7
44 call 2 x X wait
""",
    "controller": "45 killed c\n",
}
REGISTERS = {"x": [(5, None), (5, 1), (6, None), (6, 2), (8, None)]}


def findings(tmp_path, files, registers=None):
    """What the checker says of a history."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    return history.check(history.read(tmp_path), REGISTERS if registers is None else registers)


def changed(client, old, new):
    """The good history, but for one thing."""
    assert GOOD[client].count(old) == 1
    return {**GOOD, client: GOOD[client].replace(old, new)}


def test_a_good_history(tmp_path):
    """Waiters, a try, shared holders at once, a loss, a refused write, a killed client."""
    assert findings(tmp_path, GOOD) == []


def refused(way, error, call="lock", end=60):
    """The good history and a client of the site d that was refused."""
    return {**GOOD, "d-1": f"50 call 1 x X {way}\n55 refused 1 {error} {call}\n57 end\n",
            "controller": f"{GOOD['controller']}40 hurts d {errno.EACCES}\n{end} mended\n"}


def test_what_a_fault_may_cause(tmp_path):
    """Errors while it lasts, to what had been asked for by then; EIO to who does not wait."""
    for way, error, call, end in (
            ("try", errno.EIO, "lock", 60), ("wait", errno.EIO, "open", 60),
            ("wait", errno.EACCES, "lock", 60), ("create", errno.EIO, "open", 60),
            ("try", errno.EACCES, "lock", 51)):
        assert findings(tmp_path, refused(way, error, call, end)) == []


def parts(*calls):
    """The good history and clients, beside each other, that each have a lock or a part of one."""
    return {**GOOD, **{
        f"d-{number}": f"{50 + number} call 1 y {call}\n{55 + number} granted 1 {70 + number}\n"
                       f"{65 + number} seen 1\n{70 + number} end\n"
        for number, call in enumerate(calls)}}


@pytest.mark.parametrize("calls", [
    ("X range 0 1", "X tryrange 2 2", "S range 3 4", "S range 4 9", "X range 10 10"),
    ("S range 1 2", "S wait", "S tryrange 0 3"),
])
def test_parts(tmp_path, calls):
    """What does not overlap, or is shared, may be held at once."""
    assert findings(tmp_path, parts(*calls)) == []


def heirs(first, second, client="d"):
    """The good history and two children of a client, or of two, that hold in these spans."""
    files = dict(GOOD)
    for number, (start, end) in enumerate((first, second), 1):
        name = client if number == 2 else "d"
        files[name] = files.get(name, "") + (
            f"{start} call {number} y X inherit\n{start} granted {number} 30\n"
            f"{end} seen {number}\n")
    for name in {"d", client}:
        files[name] += "99 end\n"
    return files


def test_heirs_have_one_token(tmp_path):
    """One after the other, with the token of the descriptor that they have inherited."""
    assert findings(tmp_path, heirs((50, 55), (60, 65))) == []


@pytest.mark.parametrize("files, word", [
    (heirs((50, 55), (54, 65)), "before d#1"),
    (heirs((50, 55), (60, 65), client="e"), "has the token of"),
])
def test_heirs_exclude_each_other(tmp_path, files, word):
    """Also where the token is one; and those of another client have another."""
    assert any(word in line for line in findings(tmp_path, files))


def test_a_lock_that_was_broken_on_purpose(tmp_path):
    """Its holder may hear of it later than the next one gets it; what it asks for later counts."""
    files = changed("c", "24 seen 1\n25 lost 1 5\n26 stale 1 7", "34 seen 1\n35 lost 1 5")
    assert findings(tmp_path, files)
    files["controller"] = "24 breaks c\n26 broke c\n45 killed c\n"
    assert findings(tmp_path, files) == []
    files["controller"] = "20 breaks c\n21 broke c\n45 killed c\n"
    assert findings(tmp_path, files)


BAD = {
    "two exclusive holders": (changed("a", "14 seen 1", "18 seen 1"), "before a#1"),
    "a shared and an exclusive holder": (changed("c", "24 seen 1", "34 seen 1"), "before c#1"),
    "an exclusive and a shared holder": (
        {**GOOD, "d": "34 call 1 x X wait\n35 granted 1 10\n36 seen 1\n37 end\n"}, "before"),
    "the same token twice": (changed("b", "granted 1 6", "granted 1 5"), "has the token of"),
    "a smaller token for a later holder": (changed("c", "granted 1 7", "granted 1 4"), "came after"),
    "a smaller token for a shared holder": (changed("a", "granted 2 8", "granted 2 3"),
                                            "came after"),
    "overtaken": (
        {**GOOD, "d": "50 call 1 x X wait\n51 granted 1 20\n52 seen 1\n53 end\n",
         "e": "54 call 1 x X wait\n55 granted 1 19\n56 seen 1\n57 end\n"}, "asked for after"),
    "overtaken in the queue": (
        {**GOOD, "d": "50 call 1 y X wait\n52 queued 1\n60 granted 1 0\n70 end\n",
         "e": "53 call 1 y X wait\n55 granted 1 0\n65 end\n"}, "overtook d#1"),
    "a call without an answer": (changed("b", "33 granted 3 9\n39 seen 3\n40 release 3\n"
                                         "41 released 3\n", ""), "never answered"),
    "a client that is neither dead nor done": ({**GOOD, "controller": ""}, "neither ended"),
    "ENOLCK": (changed("b", f"refused 2 {errno.EWOULDBLOCK}", f"refused 2 {errno.ENOLCK}"),
               "ENOLCK"),
    "EWOULDBLOCK for one who waits": (
        changed("a", "11 granted 1 5\n12 seen 1\n13 write 1 5 1\n14 seen 1\n15 release 1\n"
                "16 released 1\n", f"11 refused 1 {errno.EWOULDBLOCK} lock\n"), "EAGAIN"),
    "a line that says nothing": (changed("a", "43 end", "43 end of it\n44 what"), "no such line"),
    "nobody refused who went on after a loss": (
        {**GOOD, "d": "50 call 1 y X sit\n51 granted 1 20\n52 seen 1\n53 lost 1 5\n"
                      "54 write 1 20 1\n55 release 1\n56 released 1\n"
                      "57 call 2 y X try\n58 refused 2 11 lock\n59 end\n"},
        "never refused"),
    "a loss that is none": (changed("c", "lost 1 5", f"lost 1 {errno.EACCES}"), "lost with EACCES"),
    "parts that overlap": (parts("X range 0 1", "S tryrange 1 2"), "before d-0#1"),
    "a part and all": (parts("X range 2 2", "S wait"), "before d-0#1"),
    "all and a part": (parts("X wait", "X range 1 3"), "before d-0#1"),
    "a smaller token for a later part": (
        {**GOOD, "d": "50 call 1 y X range 1 3\n51 granted 1 30\n52 seen 1\n"
                      "53 call 2 y X range 0 1\n54 granted 2 29\n55 seen 2\n56 end\n"},
        "came after d#1 (exclusive range of y[1, 3]"),
    "EIO for one who waits": (refused("wait", errno.EIO), "EIO by lock"),
    "EIO for one who waits, whose place is taken away": (
        {**refused("wait", errno.EIO), "controller": "52 breaks d\n54 broke d\n"}, "EIO by lock"),
    "EIO for one who waits with an alarm": (refused("timed", errno.EIO), "EIO by lock"),
    "EINTR without an alarm": (refused("posix", errno.EINTR), "EINTR by lock"),
    "an error without a fault": (
        {**refused("try", errno.EACCES), "controller": ""}, "EACCES by lock"),
    "an error when all is well again": (refused("try", errno.EACCES, end=49), "EACCES by lock"),
    "an error of another fault": (refused("try", errno.ENOSPC), "ENOSPC by lock"),
    "an error on another machine": (
        {**refused("try", errno.EACCES), "controller": f"40 hurts a {errno.EACCES}\n"},
        "EACCES by lock"),
    "EEXIST by a lock call": (refused("create", errno.EEXIST), "EEXIST by lock"),
    "a torn line": (changed("b", "42 end\n", "42 e"), "within a line"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history(tmp_path, name):
    """Each rule, broken once, is found."""
    files, word = BAD[name]
    found = findings(tmp_path, files)
    assert any(word in line for line in found), found


@pytest.mark.parametrize("entries, word", [
    ([(5, None), (5, 1), (6, None), (5, None), (6, 2)], "took token 5 after 6"),
    ([(5, None), (6, None), (5, 1), (6, 2)], "took token 5 after 6"),
    ([(5, None), (6, None), (5, 1), (6, 1)], "went from 1 to 1"),
    ([(5, None), (5, 1), (6, None), (6, 3)], "went from 1 to 3"),
    ([(5, None), (5, 1), (6, None)], "its write of 2 is not in the register"),
])
def test_a_bad_register(tmp_path, entries, word):
    """An old token that was taken, an update that was lost, a write that is not there."""
    assert any(word in line for line in findings(tmp_path, GOOD, {"x": entries}))
