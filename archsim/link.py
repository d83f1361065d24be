"""Links between chips in time: messages matched by tag.

A SEND holds its direction of the link for ``bytes / bytes_per_cycle`` cycles, or as long as its
buffer port makes it wait, and completes with its last byte sent. The last byte arrives
``latency_cycles`` later. A RECV takes its chip's oldest message of the sender and tag, writes it
to the buffer as it comes, and completes one cycle after the last byte or with the last word
written. A message that comes before its RECV waits in the link; that store is not modelled. The
two directions of a link do not hinder each other; a queue starts a SEND while a RECV of it waits.
"""

from collections import deque
from collections.abc import Callable

from archsim.flight import At, Part
from archsim.stream import Stream
from machine.chip import Machine

__all__ = ["Links"]

Key = tuple[int, int, int]  # sender, receiver, tag


class _Message:
    """A message: when its first byte arrives, and its last once that is known."""

    __slots__ = ("first", "last", "part")

    def __init__(self, first: int):
        self.first = first
        self.last: int | None = None
        self.part: Part | None = None  # the RECV that takes it


class Links:
    """The links of all chips."""

    def __init__(self, machine: Machine, at: At, record: Callable[[Part, int, int], None],
                 retired: Callable[[Part, int, int], None]):
        assert machine.links is not None
        self._at, self._record, self._retired = at, record, retired
        self._period = machine.ticks(machine.links.clock)
        self._latency = machine.links.latency_cycles * self._period
        self._width = machine.links.bytes_per_cycle
        self._sent: dict[Key, deque[_Message]] = {}
        self._wanted: dict[Key, deque[Part]] = {}

    def send(self, part: Part, key: Key, now: int) -> None:
        """Start to send at `now`."""
        lane = part.lane
        lane.pending = True
        cycles = -(-part.demand.moved_bytes // self._width)
        part.work_end = now + cycles * self._period
        message = _Message(now + self._latency + self._period)
        part.pending = 2

        def through(part: Part, now: int) -> None:
            end = max(part.work_end, part.port_end)
            message.last = end + self._latency
            lane.pending = False
            lane.done = end
            self._record(part, end, end)
            self._retired(part, end, now)
            if message.part is not None:
                self._arrive(message.part, message)

        part.through = through
        part.ask(now)
        self._at(part.work_end, part.came)
        part.came(now)
        if self._wanted.get(key):
            self._match(self._wanted[key].popleft(), message, now)
        else:
            self._sent.setdefault(key, deque()).append(message)

    def receive(self, part: Part, key: Key, now: int) -> None:
        """Start to wait for a message at `now`."""
        part.lane.in_flight.append(part)
        part.pending = 2  # the last byte, and the ports
        part.through = self._written
        if self._sent.get(key):
            self._match(part, self._sent[key].popleft(), now)
        else:
            self._wanted.setdefault(key, deque()).append(part)

    def missing(self, stream: Stream) -> str:
        """Return the message that a queue's RECV has not got, in words; "" if there is none."""
        for (sender, _, tag), parts in self._wanted.items():
            if any(part.flight.stream is stream for part in parts):
                return f"the message of chip {sender} with tag {tag}"
        return ""

    def _match(self, part: Part, message: _Message, now: int) -> None:
        message.part = part
        part.filled = part.first = max(now, message.first)
        cycles = max([-(-part.demand.moved_bytes // self._width),
                      *(use.words for use in part.demand.ports)])
        part.work_end = part.first + cycles * self._period

        def write(now: int) -> None:
            part.ask(now)
            part.came(now)

        self._at(part.first, write)
        if message.last is not None:
            self._arrive(part, message)

    def _arrive(self, part: Part, message: _Message) -> None:
        assert message.last is not None
        part.last = message.last + self._period
        self._at(max(part.last, part.first), part.came)

    def _written(self, part: Part, now: int) -> None:
        end = max(part.last, part.port_end, now)
        part.lane.in_flight.popleft()
        self._record(part, end, end)
        self._at(end, lambda now: self._retired(part, now, now))
