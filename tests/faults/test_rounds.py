# SPDX-License-Identifier: MIT
"""A seed is the same faults, on the same machines, with the same choices; a loss needs a fault."""

import itertools

import pytest

import campaign
import field
import history
from faults import FAULTS


class Sites(field.Field):
    """A field of which nothing is started."""

    def __init__(self, seed):
        self.seed = seed
        self.sites = [Site(name) for name in field.SITES]


class Site:
    """A machine that nothing runs on."""

    def __init__(self, name):
        self.name = name


def schedule(seed, only=()):
    """What a campaign of this seed does, each fault with what it would draw first."""
    place = Sites(seed)
    rounds = itertools.chain(
        campaign.singles(place, only), itertools.islice(campaign.mixed(place), 30))
    return [(one.name, [dice.random() for dice in campaign.dice_of(place, one)]) for one in rounds]


def test_a_seed_is_a_schedule():
    """The same one twice; another seed is another one."""
    assert schedule(1) == schedule(1) != schedule(2)


def test_a_fault_alone():
    """Picked with --fault, it happens as it does among all."""
    for entry in schedule(1, ["packet", "cut off"])[:-30]:
        assert entry in schedule(1)


def test_rounds_differ():
    """The same faults together again choose otherwise."""
    drawn = [numbers for _, numbers in schedule(1)]
    assert len(drawn) == len({tuple(numbers) for numbers in drawn})


@pytest.mark.parametrize("hurt, losers", [
    (["a: connections stall, less"], ""),
    (["a: connections stall, longer"], "a"),
    (["a: connections stall, longer", "b: answers end"], "a"),
    (["a: connections stall, longer", "b: a daemon is killed"], "ab"),
    (["a: connections stall, longer", "b: defragmentation"], "abc"),
    (["a: two of three members stand still, longer"], "abc"),
    (["a: the lease is revoked"], "a"),
    (["a: the disk of the leader hangs, less"], ""),
    (["a: the disk of a follower hangs, longer"], ""),
])
def test_who_may_lose(hurt, losers):
    """Whose losses are no finding, by the faults of a round."""
    faults = [(next(fault for fault in FAULTS if fault.name.startswith(words[3:])), Site(words[0]))
              for words in hurt]
    lost = [history.Request(f"{name}-1", 1, "x", False, "wait", 1) for name in field.SITES]
    unexpected = campaign.Round(faults, lost=lost).unexpected()
    assert [one.place for one in lost if one not in unexpected] == list(losers)
