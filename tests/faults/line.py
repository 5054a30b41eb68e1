# SPDX-License-Identifier: MIT
"""A line of clients that want the same lock, on several machines."""

import time

from children import Agent
from support import wait_until

LOCK = "line"
# So many stand in it.
PLACES = 5


class Line:
    """Who comes asks when the one before stands in the queue; the order of the grants is checked.

    Nothing here waits for a daemon, but for forming the line, so faults may happen meanwhile.
    """

    def __init__(self, field):
        self.field = field
        self.history = open(field.histories / LOCK, "a", encoding="ascii")
        self.agents = [Agent() for _ in range(PLACES)]
        self.places = []  # (number of the request, agent) of who waits or holds
        self.leaving = []  # agents
        self.number = 0
        self.opens = 0  # when the first one goes

    def note(self, verb, *words):
        """A line of its history."""
        print(time.monotonic_ns(), verb, *words, file=self.history, flush=True)

    def form(self, sites, seconds):
        """One after the other asks, on these machines in turn; the first goes after some time."""
        self.await_queue(0)
        for agent, site in zip(self.agents, sites):
            self.number += 1
            self.places.append((self.number, agent))
            self.note("call", self.number, LOCK, "X", "line")
            agent.begin("take", site.mount / LOCK)
            self.await_queue(len(self.places))
            self.note("queued", self.number)
        self.opens = time.monotonic() + seconds

    def await_queue(self, length):
        """Waits until so many stand in the queue."""
        member, keys = self.field.any_member(), f"{self.field.prefix}/{LOCK}/"
        wait_until(lambda: member.count(keys) == length, what=f"{length} stand in line")

    def advance(self):
        """Who has the lock by now goes; True when nobody is left."""
        self.leaving = [agent for agent in self.leaving if not self.is_free(agent)]
        for place in list(self.places) if time.monotonic() > self.opens else []:
            number, agent = place
            if not agent.ready():
                continue
            self.places.remove(place)
            try:
                handle = agent.finish()
            except OSError as error:
                self.note("refused", number, error.errno, "lock")
                continue
            self.note("granted", number, 0)
            agent.begin("close", handle)
            self.leaving.append(agent)
        return not self.places and not self.leaving

    def is_free(self, agent):
        """Whether it has closed its handle."""
        if agent.ready():
            agent.finish()
        return agent.busy is None

    def end(self):
        """Nobody asks any more."""
        self.note("end")

    def close(self):
        """Ends everything by force."""
        for agent in self.agents:
            agent.kill()
        self.history.close()
