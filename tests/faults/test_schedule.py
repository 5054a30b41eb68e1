# SPDX-License-Identifier: MIT
"""A seed means the same faults, on the same machines, with the same choices."""

import itertools

import campaign
import field


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
