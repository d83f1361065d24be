"""The DMA engines in time: transfers between DRAM and the buffers.

A LOAD asks for its bursts ``setup_cycles`` after it starts. Its data crosses the crossbar and is
written to the buffer as it comes; the crossbar and the port are asked for from when the first data
of an unloaded memory could have crossed, ``bytes_per_cycle`` and one word a cycle. It completes
when the memory's last data has crossed and was written, one cycle, and both gave their last word.
A STORE asks for port and crossbar first and for its bursts once the first word has crossed; it
completes when its write is visible in DRAM and its last word has crossed. An engine holds at most
``outstanding`` transfers, starts one a cycle, and completes them in order.
"""

from collections.abc import Callable

from archsim.dram import Memory
from archsim.flight import At, Part
from archsim.pieces import Piece
from archsim.ports import Ports
from machine.chip import Machine
from machine.opcodes import Opcode

__all__ = ["Dma", "Memories", "MemoryClock"]

_NEVER = 1 << 60


class MemoryClock:
    """The memory of a chip in the engine's ticks, and who waits for each transfer."""

    def __init__(self, machine: Machine, *, ports: int):
        self.memory = Memory(machine.dram, ports=ports)
        self.period = machine.ticks(machine.dram.clock)
        self._waiting: dict[int, tuple[Callable[[int], None], int]] = {}  # tag -> (whom, left)
        self._whole: dict[int, int] = {}  # tag of a part of a transfer -> tag of the whole
        self._number = 0

    def start(self, port: int, found: tuple[Piece, ...], base: int, *, write: bool, now: int,
              done: Callable[[int], None]) -> None:
        """Start the transfer of `found`, `base` bytes into the memory; call `done` at its end."""
        cycle = max(-(-now // self.period), self.memory.now)
        whole = self._number
        lists = _lists(found, base)
        self._waiting[whole] = (done, len(lists))
        for row_bytes, addresses, piece in lists:
            self._whole[self._number] = whole
            if piece is not None:
                self.memory.start(
                    self._number, port, write=write, address_bytes=base + piece.offset_bytes,
                    row_bytes=row_bytes, rows=piece.rows, stride_bytes=piece.stride_bytes,
                    now=cycle)
            else:
                self.memory.start_list(
                    self._number, port, write=write, addresses_bytes=addresses,
                    row_bytes=row_bytes, now=cycle)
            self._number += 1

    def next_event(self) -> int | None:
        """Return a tick before which no transfer ends; None if none is under way."""
        event = self.memory.next_event()
        return None if event is None else event * self.period

    def advance(self, until: int, at: At) -> bool:
        """Go on to `until`, or to the first transfer that ends; return whether one did."""
        ended = self.memory.advance(max(self.memory.now, until // self.period))
        for completion in ended:
            whole = self._whole.pop(completion.tag)
            done, left = self._waiting.pop(whole)
            if left > 1:
                self._waiting[whole] = (done, left - 1)
            else:
                at(completion.done_cycle * self.period, done)
        return bool(ended)


class Memories:
    """The memories of all chips; each has a port for every DMA engine and a last one for READs."""

    def __init__(self, machine: Machine, chips: int):
        self.clocks = [MemoryClock(machine, ports=machine.dma.count + 1) for _ in range(chips)]

    def advance(self, until: int | None, at: At) -> bool:
        """Go on to `until`; return whether a transfer ended on the way, or more is to be done.

        None is no limit. No chip passes the end of another chip's transfer.
        """
        if len(self.clocks) == 1:
            (clock,) = self.clocks
            event = clock.next_event()
            if event is None or (until is not None and event > until):
                return False
            return clock.advance(_NEVER if until is None else until, at)
        ahead = [e for clock in self.clocks if (e := clock.next_event()) is not None]
        if not ahead or (until is not None and min(ahead) > until):
            return False
        # No transfer ends before the least of `ahead`; one cycle at least is gained.
        now = min(clock.memory.now * clock.period for clock in self.clocks)
        step = max(min(ahead), now + self.clocks[0].period)
        limit = step if until is None else min(step, until)
        ended = [clock.advance(limit, at) for clock in self.clocks]
        return any(ended) or until is None or limit < until


def _lists(found: tuple[Piece, ...], base: int) -> list[tuple[int, list[int], Piece | None]]:
    """Join pieces with runs of one size to lists of addresses; one piece alone stays one."""
    if len(found) == 1:
        return [(found[0].row_bytes, [], found[0])]
    lists: list[tuple[int, list[int], Piece | None]] = []
    for piece in found:
        if not lists or lists[-1][0] != piece.row_bytes:
            lists.append((piece.row_bytes, [], None))
        first = base + piece.offset_bytes
        lists[-1][1].extend(first + row * piece.stride_bytes for row in range(piece.rows))
    return lists


class Dma:
    """The DMA engines of one chip."""

    def __init__(self, machine: Machine, clock: MemoryClock, ports: Ports, at: At,
                 record: Callable[[Part, int, int], None],
                 retired: Callable[[Part, int, int], None]):
        self._clock, self._ports, self._at = clock, ports, at
        self._record, self._retired = record, retired
        self.outstanding = machine.dma.outstanding
        period = machine.ticks(machine.dma.clock)
        cross = machine.ticks(machine.crossbar.clock)
        self.period = period
        self._setup = machine.dma.setup_cycles * period
        self._latency = (
            machine.dram.read_latency_cycles - machine.dram.burst_cycles) * clock.period
        self._cross = machine.crossbar.latency_cycles * cross
        self._cross_period = cross
        self._width = machine.crossbar.bytes_per_cycle
        self._buffer = machine.scratchpad.latency_cycles * machine.ticks(machine.scratchpad.clock)

    def start(self, part: Part, found: tuple[Piece, ...], base: int, now: int) -> None:
        """Start a transfer at `now`; `found` are its pieces in DRAM."""
        lane = part.lane
        lane.in_flight.append(part)
        lane.last_start = now
        part.through = self._through
        load = part.flight.plan.opcode is Opcode.LOAD
        part.pending = 3  # the memory, the crossbar, and the ports until they are asked
        moves = now + self._setup
        if load:
            asks, data = moves, moves + self._latency + self._cross
        else:
            data, asks = moves, moves + self._buffer + self._cross
        # A word of the port and one of the crossbar is what a cycle moves, alone.
        words = max([-(-part.demand.moved_bytes // self._width),
                     *(use.words for use in part.demand.ports)])
        part.first = data
        part.work_end = max(data, lane.beats_end) + words * self._cross_period
        lane.beats_end = part.work_end

        def memory(now: int) -> None:
            self._clock.start(lane.units[0], found, base, write=not load, now=now,
                              done=lambda end: self._memory_done(part, end))

        self._at(asks, memory)
        self._at(data, lambda now: self._move(part, now))

    def _move(self, part: Part, now: int) -> None:
        """Ask for the crossbar and the ports."""
        route = self._ports.crossbar(part.lane.units[0])
        words = -(-part.demand.moved_bytes // self._width)
        route.group.ask(route, words, now, part)
        part.ask(now)
        part.came(now)

    def _memory_done(self, part: Part, now: int) -> None:
        part.last = now
        part.came(now)

    def _through(self, part: Part, now: int) -> None:
        """All three are through; complete in order, never before the transfer in front."""
        if part.flight.plan.opcode is Opcode.LOAD:
            end = max(part.last + self._cross + self._cross_period, part.port_end)
        else:
            end = max(part.last, part.port_end + self._cross)
        self._at(end, lambda now: self._ready(part, now))

    def _ready(self, part: Part, now: int) -> None:
        part.ready = True
        waiting = part.lane.in_flight
        while waiting and waiting[0].ready:
            front = waiting.popleft()
            self._record(front, max(front.port_end, front.last), now)
            self._retired(front, now, now)
