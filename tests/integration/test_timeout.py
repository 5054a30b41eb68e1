# SPDX-License-Identifier: MIT
"""While etcd is away every call but a lock call that waits ends within the timeout."""

import sys

import pytest

from support import LONG, PROGRAMS, wait_until

# Each of them is under way when everything is called: on the file, the directory or the mount.
STATES = ("nothing", "join", "flock", "leave", "shrink", "write", "mkdir", "takeover")
# An order of magnitude more than the timeout, and less than the TTL.
TIMEOUT, BOUND = 1, 15


def stand_still(etcd):
    """It takes connections, and answers nothing."""
    etcd.pause()


def refuse(etcd):
    """Nobody is there."""
    etcd.kill()


@pytest.mark.limit(150)
@pytest.mark.parametrize("away", (stand_still, refuse))
@pytest.mark.parametrize("state", STATES)
def test_every_call_ends(bare_lab, state, away):
    """Whatever is under way, and whatever the call is answered."""
    etcd = bare_lab.own_etcd()
    mount = bare_lab.mount(f"timeout={TIMEOUT}", ttl=LONG).expect()
    caller = bare_lab.holder(sys.executable, PROGRAMS / "everycall.py", mount / "d",
                             mount / ".latchfs").await_held()
    ready, *calls = caller.lines()[0].split()
    assert ready == "ready"
    away(etcd)
    if state == "takeover":
        mount.kill_server()
    elif state != "nothing":
        caller.say(f"{state}\n".encode())
    caller.say(b"calls\n")

    def hanging():
        return set(calls) - {line.split()[0] for line in caller.lines()[1:]}

    try:
        wait_until(lambda: not hanging(), BOUND, "every call returns")
    except AssertionError as error:
        raise AssertionError(f"still hanging: {sorted(hanging())}\n{caller.output.decode()}") from error
