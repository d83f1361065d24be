"""Happens-before between queues: which instructions are certainly complete when one issues.

A queue's instructions complete in order, so what is known of a queue is a number: how many of its
instructions are complete. A vector of such numbers, one a queue, is the clock of an instruction.

Tokens are counting semaphores, so the c-th signal of producer p is certainly before a wait only if
the wait's cumulative need exceeds what all other producers can have given by then by at least c.
What they can have given is exact for a token with one waiting queue: it is counted in a run in
which the waiting queue stands still and every other runs as far as it can.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Blocked", "Event", "Order", "Segment", "order"]

Pairs = tuple[tuple[int, int], ...]


class Event(NamedTuple):
    """An instruction that takes or gives tokens; `number` counts all of its queue's."""

    number: int
    waits: Pairs  # (token, count), each token once
    signals: Pairs


class Segment(NamedTuple):
    """Instructions `start` to `stop` - 1 of a queue, which share one clock."""

    queue: int
    start: int
    stop: int
    clock: tuple[int, ...]  # of each queue, how many instructions are certainly complete


class Blocked(NamedTuple):
    """A queue that waits for ever: instruction `number` needs `need` of `token` and sees `have`."""

    queue: int
    number: int
    token: int
    need: int
    have: int


@dataclass
class Order:
    """What a run of the tokens shows."""

    blocked: list[Blocked] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # of each token at the end
    peaks: dict[int, int] = field(default_factory=dict)  # greatest counts, where above `limit`


class _Run:
    """Token counts while the queues advance event by event."""

    def __init__(self, events: Sequence[Sequence[Event]], initial: Sequence[int],
                 free: frozenset[int] = frozenset()):
        self.events = events
        self.counts = list(initial)
        self.peaks = list(initial)  # the greatest counts so far
        self.at = [0] * len(events)  # the next event of each queue
        self.given: dict[tuple[int, int], int] = {}  # by (token, queue)
        self._free = free  # tokens that never make a queue wait
        self._waiting: dict[int, list[int]] = {}
        for queue, listed in enumerate(events):
            for token in {token for event in listed for token, _ in event.waits}:
                self._waiting.setdefault(token, []).append(queue)

    def short(self, queue: int) -> tuple[int, int] | None:
        """Return the (token, count) that the next event of `queue` lacks, or None."""
        for token, count in self.events[queue][self.at[queue]].waits:
            if self.counts[token] < count and token not in self._free:
                return token, count
        return None

    def step(self, queue: int) -> list[int]:
        """Run the next event of `queue`; return the queues that its signals may wake."""
        event = self.events[queue][self.at[queue]]
        self.at[queue] += 1
        for token, count in event.waits:
            self.counts[token] -= count
        woken = []
        for token, count in event.signals:
            self.counts[token] += count
            self.peaks[token] = max(self.peaks[token], self.counts[token])
            key = token, queue
            self.given[key] = self.given.get(key, 0) + count
            woken += self._waiting.get(token, [])
        return woken

    def settle(self, before: Callable[[int], None] | None = None, still: int = -1) -> None:
        """Run every queue but `still` until it ends or lacks a token; `before` each event."""
        todo = deque(queue for queue in range(len(self.events)) if queue != still)
        while todo:
            queue = todo.popleft()
            while self.at[queue] < len(self.events[queue]) and self.short(queue) is None:
                if before is not None:
                    before(queue)
                todo.extend(q for q in self.step(queue) if q != queue and q != still)


class _Last:
    """A run in which one queue goes last: what the others can give before each of its events."""

    def __init__(self, events: Sequence[Sequence[Event]], initial: Sequence[int],
                 contended: frozenset[int], queue: int):
        self._run = _Run(events, initial, contended)
        self._queue = queue

    def before(self, position: int) -> _Run:
        """Return the run just before the queue's event number `position` (never descending)."""
        run = self._run
        run.settle(still=self._queue)
        while run.at[self._queue] < position and run.short(self._queue) is None:
            run.step(self._queue)
            run.settle(still=self._queue)
        return run


class _Clocks:
    """The clock of every queue while a run goes on."""

    def __init__(self, run: _Run, initial: Sequence[int], contended: frozenset[int]):
        self.run = run
        self.known = [(0,) * len(run.events) for _ in run.events]
        self._initial = initial
        self._contended = contended
        self._taken: dict[tuple[int, int], int] = {}  # by (token, queue)
        self._last: dict[int, _Last] = {}
        # Of each (token, queue): cumulative counts, the signalling instructions, their clocks.
        self._log: dict[tuple[int, int], tuple[list[int], list[int], list[tuple[int, ...]]]] = {}
        self._producers: dict[int, dict[int, int]] = {}  # token: {queue: all it ever gives}
        for queue, listed in enumerate(run.events):
            for event in listed:
                for token, count in event.signals:
                    total = self._producers.setdefault(token, {})
                    total[queue] = total.get(queue, 0) + count

    def before(self, queue: int) -> None:
        """Bring the clock of `queue` up to its next event, and note what the event signals."""
        event = self.run.events[queue][self.run.at[queue]]
        for token, count in event.waits:
            self._join(queue, token, count)
        for token, count in event.signals:
            counts, indices, clocks = self._log.setdefault((token, queue), ([], [], []))
            counts.append((counts[-1] if counts else 0) + count)
            indices.append(event.number)
            clocks.append(self.known[queue])

    def _join(self, queue: int, token: int, count: int) -> None:
        need = self._taken.get((token, queue), 0) + count
        self._taken[token, queue] = need
        need -= self._initial[token]
        if need <= 0:
            return
        most = self._most(queue, token)
        total = sum(most.values())
        for producer, own in most.items():
            certain = need - (total - own)
            if producer != queue and certain > 0:
                counts, indices, clocks = self._log[token, producer]
                at = bisect_left(counts, certain)
                known = [max(a, b) for a, b in zip(self.known[queue], clocks[at], strict=True)]
                known[producer] = max(known[producer], indices[at] + 1)
                self.known[queue] = tuple(known)

    def _most(self, queue: int, token: int) -> dict[int, int]:
        """Return the most that each producer can have given of `token` before this event."""
        producers = self._producers.get(token, {})
        if len(producers) < 2:
            return producers
        if queue not in self._last:
            self._last[queue] = _Last(self.run.events, self._initial, self._contended, queue)
        run = self._last[queue].before(self.run.at[queue])
        return {producer: run.given.get((token, producer), 0) for producer in producers}


def order(
    events: Sequence[Sequence[Event]],
    lengths: Sequence[int],
    initial: Sequence[int],
    visit: Callable[[Segment], None],
    limit: int,
) -> Order:
    """Run the queues' `events` and call `visit` with every segment, in an order that may happen.

    `lengths` counts the instructions of each queue, `initial` each token's count at the start.
    The result says which queues wait for ever and what the counts are at the end; a token several
    queues wait for is taken in one order of the possible ones, and the clocks make no use of it.
    `peaks` holds the greatest count, over all orders, of the tokens that can pass `limit` (in
    that one order, of a token several queues wait for).
    """
    contended = _contended(events)
    run = _Run(events, initial)
    clocks = _Clocks(run, initial, contended)
    for queue, listed in enumerate(events):
        visit(Segment(queue, 0, listed[0].number if listed else lengths[queue],
                      clocks.known[queue]))

    def before(queue: int) -> None:
        clocks.before(queue)
        listed, at = events[queue], run.at[queue]
        stop = listed[at + 1].number if at + 1 < len(listed) else lengths[queue]
        visit(Segment(queue, listed[at].number, stop, clocks.known[queue]))

    run.settle(before)
    found = Order(counts=run.counts)
    for queue, listed in enumerate(events):
        if run.at[queue] < len(listed):
            token, need = run.short(queue) or (0, 0)
            found.blocked.append(
                Blocked(queue, listed[run.at[queue]].number, token, need, run.counts[token]))
    found.peaks = _peaks(run, initial, contended, limit)
    return found


def _waiters(events: Sequence[Sequence[Event]]) -> dict[int, set[int]]:
    waiters: dict[int, set[int]] = {}
    for queue, listed in enumerate(events):
        for event in listed:
            for token, _ in event.waits:
                waiters.setdefault(token, set()).add(queue)
    return waiters


def _contended(events: Sequence[Sequence[Event]]) -> frozenset[int]:
    return frozenset(token for token, queues in _waiters(events).items() if len(queues) > 1)


def _peaks(run: _Run, initial: Sequence[int], contended: frozenset[int],
           limit: int) -> dict[int, int]:
    totals = list(initial)
    for listed in run.events:
        for event in listed:
            for token, count in event.signals:
                totals[token] += count
    waiters = _waiters(run.events)
    peaks = {}
    for token in [token for token, total in enumerate(totals) if total > limit]:
        peaks[token] = run.peaks[token]
        if len(waiters.get(token, ())) == 1:
            (queue,) = waiters[token]
            last = _Last(run.events, initial, contended, queue)
            steps = range(len(run.events[queue]) + 1)
            peaks[token] = max(_reached(last, queue, at, token) for at in steps)
    return {token: peak for token, peak in peaks.items() if peak > limit}


def _reached(last: _Last, queue: int, position: int, token: int) -> int:
    run = last.before(position)
    return run.counts[token] if run.at[queue] == position else 0
