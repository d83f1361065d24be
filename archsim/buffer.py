"""Ports and banks of a buffer: who gets a word in which cycle.

In every cycle a port grants one word to one of its clients that have words to move, in turn
(round-robin). A buffer with fewer banks than ports serves as many ports a cycle as it has banks,
in turn as well: the ports that have clients form a ring, and each cycle goes on where the last
one stopped. Word addresses are not compared: neighbouring words lie in neighbouring banks, so
streams that meet in a bank once are one bank apart ever after.

`Arbiter` gives the exact cycle of every grant without stepping through cycles: while the set of
active clients stays the same, the grants repeat with a fixed period.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Arbiter", "Grant", "words"]


def words(runs: int, run_bytes: int, word_bytes: int) -> int:
    """Return how many words `runs` contiguous runs of `run_bytes` take; each starts a word."""
    return runs * -(-run_bytes // word_bytes)


class Grant(NamedTuple):
    """The end of one job: when its last word was granted, and what it lost before."""

    job: int
    finish: int  # the cycle after its last grant
    port_lost: int  # cycles in which its port served another client
    bank_lost: int  # cycles in which its port was served by no bank


class _Client:
    """One client: the jobs it has queued, first in first out."""

    __slots__ = ("bank_lost", "bank_mark", "jobs", "left", "port_lost", "port_mark")

    def __init__(self) -> None:
        self.jobs: deque[list[int]] = deque()  # [job, words left]
        self.left = 0  # words of all jobs
        self.port_lost = self.bank_lost = 0
        self.port_mark = self.bank_mark = 0  # the counters when the first job came to the front


class Arbiter:
    """Round-robin over the clients of each port, and over the ports if `banks` are fewer.

    `clients` is the number of clients of each port. Time is in cycles of the buffer's clock.
    """

    def __init__(self, clients: Sequence[int], banks: int):
        self.now = 0
        self.granted = [0] * len(clients)  # words, by port
        self._ports = [[_Client() for _ in range(count)] for count in clients]
        self._turn = [count - 1 for count in clients]  # the client served last
        self._banks = banks
        self._port_turn = len(clients) - 1  # the port served last
        self._finish: int | None = None  # of the next job to end; None if not known
        self._live: dict[tuple[int, int], _Client] = {}  # clients with words to move

    def request(self, port: int, client: int, words: int, job: int, now: int) -> None:
        """Let `client` of `port` ask for `words` words from cycle `now` on, in front of nobody.

        Every job that ends at or before `now` must have been taken with `advance`.
        """
        assert words >= 1 and now >= self.now
        if now > self.now:
            ended = self.advance(now)
            assert not ended, "a job that ended was not taken"
        asked = self._ports[port][client]
        if not asked.jobs:
            asked.port_mark, asked.bank_mark = asked.port_lost, asked.bank_lost
            self._live[port, client] = asked
        asked.jobs.append([job, words])
        asked.left += words
        self._finish = None

    def next_finish(self) -> int | None:
        """Return the cycle at which the next job ends if nothing else is asked; None if idle."""
        if self._finish is None:
            if not self._live:
                return None
            if len(self._live) == 1:
                (alone,) = self._live.values()
                self._finish = self.now + alone.jobs[0][1]
                return self._finish
            rings = self._active()
            soonest = min(
                self._cycle_of(place, index + (client.jobs[0][1] - 1) * len(ring), len(rings))
                for place, (_, ring) in enumerate(rings)
                for index, (_, client) in enumerate(ring)
            )
            self._finish = self.now + soonest + 1
        return self._finish

    def advance(self, until: int) -> list[Grant]:
        """Move to the next cycle at which jobs end, at most `until`; return those jobs."""
        finish = self.next_finish()
        if finish is None or finish > until:
            if until > self.now:
                self._serve(until - self.now)
            return []
        ended = self._serve(finish - self.now)
        self._finish = None
        return ended

    def _active(self) -> list[tuple[int, list[tuple[int, _Client]]]]:
        """Return (port, ring of its active clients) in the order in which they come next."""
        rings = []
        count = len(self._ports)
        for step in range(1, count + 1):
            port = (self._port_turn + step) % count
            clients, turn = self._ports[port], self._turn[port]
            ring = [
                (index, clients[index])
                for index in ((turn + k) % len(clients) for k in range(1, len(clients) + 1))
                if clients[index].left
            ]
            if ring:
                rings.append((port, ring))
        return rings

    def _cycle_of(self, place: int, nth: int, active: int) -> int:
        """Return the cycle from now of the `nth` grant of the port at `place` of `active`."""
        if active <= self._banks:
            return nth
        return (place + nth * active) // self._banks

    def _grants_in(self, place: int, cycles: int, active: int) -> int:
        """Return how many grants the port at `place` of `active` gets within `cycles`."""
        if active <= self._banks:
            return cycles
        return max(0, -(-(cycles * self._banks - place) // active))

    def _serve(self, cycles: int) -> list[Grant]:
        """Grant `cycles` cycles in which the set of active clients does not change."""
        if len(self._live) <= 1:
            return self._serve_alone(cycles)
        rings = self._active()
        active = len(rings)
        self.now += cycles
        ended: list[Grant] = []
        last = self._port_turn
        for place, (port, ring) in enumerate(rings):
            got = self._grants_in(place, cycles, active)
            if active <= self._banks:
                last = port
            elif got and (cycles * self._banks - 1) % active == place:
                last = port
            self.granted[port] += got
            size = len(ring)
            for index, (number, client) in enumerate(ring):
                mine = max(0, -(-(got - index) // size))
                client.port_lost += got - mine
                client.bank_lost += cycles - got
                if mine and (got - 1) % size == index:
                    self._turn[port] = number
                if mine:
                    self._take((port, number), mine, ended)
        self._port_turn = last
        return ended

    def _serve_alone(self, cycles: int) -> list[Grant]:
        """As `_serve`, with one active client or none."""
        self.now += cycles
        ended: list[Grant] = []
        if cycles:
            for port, number in list(self._live):
                self._port_turn, self._turn[port] = port, number
                self.granted[port] += cycles
                self._take((port, number), cycles, ended)
        return ended

    def _take(self, place: tuple[int, int], mine: int, ended: list[Grant]) -> None:
        """Give the client at `place` `mine` words; its first job may end with the last of them."""
        client = self._live[place]
        client.left -= mine
        if not client.left:
            del self._live[place]
        front = client.jobs[0]
        front[1] -= mine
        assert front[1] >= 0, "a job ended inside the interval"
        if front[1] == 0:
            client.jobs.popleft()
            port_lost = client.port_lost - client.port_mark
            bank_lost = client.bank_lost - client.bank_mark
            ended.append(Grant(front[0], self.now, port_lost, bank_lost))
            client.port_mark, client.bank_mark = client.port_lost, client.bank_lost
