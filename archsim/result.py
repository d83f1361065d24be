"""The outcome of a simulation: times, the books, the log and the counts."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from archsim.accounting import CLASSES, OpCycles, by_operation, classify
from archsim.dram.channels import DramCounters, DramEnergy
from archsim.engine import cells as c
from archsim.engine.layout import rows_of
from archsim.engine.work import Work
from archsim.log import Indices, InstructionLog
from archsim.pim import PimChannel
from archsim.pim_books import channel_accounts, counters, energy_of
from archsim.pim_books import total as summed
from machine.chip import Machine
from machine.control import units
from machine.program import Program, QueueKind

if TYPE_CHECKING:
    from archsim.engine.simulate import Engine

__all__ = ["SimResult", "collect"]

_UNITS = (QueueKind.ARRAY, QueueKind.VECTOR, QueueKind.DMA, QueueKind.LINK, QueueKind.PIM)
_HALTED = CLASSES.index("halted")


@dataclass(frozen=True)
class SimResult:
    """When a program did what, and where the cycles of every resource went.

    `accounts` gives ticks by resource and class (`archsim.accounting.CLASSES`); those of one
    resource sum to `ticks`. `parts` holds every execution on a unit: resource -> int64 [n, 9] of
    boundaries, and `rows` the row of the log each belongs to.
    """

    program: Program
    machine: Machine
    ticks: int  # the last completion
    log: InstructionLog
    accounts: dict[str, dict[str, int]]
    operations: list[OpCycles]
    work: list[Work]  # by chip
    dram: list[DramCounters]  # by chip, all channels
    dram_energy: list[DramEnergy]  # by chip
    parts: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    pim: list[list[PimChannel]] = field(default_factory=list)  # by chip, the channels that compute

    @property
    def tick_ps(self) -> Fraction:
        """A tick in picoseconds."""
        return self.machine.tick_ps

    @property
    def seconds(self) -> float:
        """The simulated time."""
        return float(self.ticks * self.tick_ps / 10**12)


def collect(engine: "Engine") -> SimResult:
    """Close the books of a simulation that has run to its end."""
    cells, lowered = engine.cells, engine.answers.lowered
    places = np.array(lowered.stream_places, np.int64)
    streams = cells[places[:, None] + np.arange(c.STREAM)]
    total = int(streams[:, [c.S_TIME, c.S_DONE]].max(initial=0))
    books = _Books(engine, streams, total)
    accounts: dict[str, dict[str, int]] = {}
    for chip in range(engine.program.chips):
        for kind in _UNITS:
            accounts |= books.units(chip, kind)
        accounts |= books.ports(chip)
        accounts |= _channels(engine, chip, total)
    log = _log(engine)
    outside = engine.answers.outside
    if outside is None:
        dram = [memory.total() for memory in engine.memories]
        dram_energy = [memory.energy() for memory in engine.memories]
        pim = []
    else:
        pim = [outside.memory.channels(chip) for chip in range(engine.program.chips)]
        dram = [summed(counters(channel) for channel in channels) for channels in pim]
        dram_energy = [energy_of(count, engine.machine.dram) for count in dram]
        found_parts, found_rows = outside.spans()
        books.parts |= found_parts
        books.rows |= found_rows
    return SimResult(
        program=engine.program, machine=engine.machine, ticks=total, log=log,
        accounts=accounts, operations=by_operation(log), work=engine.answers.work(),
        dram=dram, dram_energy=dram_energy, parts=books.parts, rows=books.rows, pim=pim,
    )


def _log(engine: "Engine") -> InstructionLog:
    """Return the instruction log as columns of its own."""
    rows = rows_of(engine.cells, c.LOG)
    columns = (c.I_STREAM, c.I_PC, c.I_LAYER, c.I_OP, c.I_MASK, c.I_ISSUE, c.I_START,
               c.I_COMPLETION)
    queue, pc, layer, op, mask, issue, start, completion = (rows[:, n].copy() for n in columns)
    indices = Indices(rows[:, c.I_DEPTH].copy(), rows[:, c.I_INDICES :].copy())
    queues = [str(stream.queue) for stream in engine.answers.lowered.streams]
    return InstructionLog(queues, queue, pc, indices, layer, op, mask, issue, start, completion)


class _Books:
    """Where the ticks of units and ports went; `parts` and `rows` are those of `SimResult`."""

    def __init__(self, engine: "Engine", streams: np.ndarray, total: int):
        self._cells, self._machine = engine.cells, engine.machine
        self._lowered, self._total = engine.answers.lowered, total
        self._streams = streams
        self._queues = [stream.queue for stream in self._lowered.streams]
        self._book = rows_of(self._cells, c.BOOK)
        self._book_streams = self._book[:, c.B_STREAM].copy()
        marks = rows_of(self._cells, c.MARK)
        self._marks = marks[marks[:, c.V_CLASS] != c.NONE]
        self._mark_streams = self._marks[:, c.V_STREAM].copy()
        self._known_marks: dict[int, np.ndarray] = {}
        self.parts: dict[str, np.ndarray] = {}
        self.rows: dict[str, np.ndarray] = {}

    def units(self, chip: int, kind: QueueKind) -> dict[str, dict[str, int]]:
        """Close the books of the units of one kind; equal units are counted once."""
        own = [(queue.kind, queue.chip) == (kind, chip) for queue in self._queues]
        mine = [number for number, is_own in enumerate(own) if is_own]
        records = self._book[np.array([*own, False])[self._book_streams]]
        masks = records[:, c.B_MASK].copy()
        accounts: dict[str, dict[str, int]] = {}
        known: dict[tuple[int, bytes], str] = {}
        for unit in range(self._machine.units(kind)):
            name = f"chip{chip}.{kind.name.lower()}{unit}"
            of = [n for n in mine if any(mask >> unit & 1 for mask in self._lanes(n)[:, c.L_MASK])]
            on_unit = (masks >> unit & 1).astype(bool)
            key = (of[0] if of else c.NONE, on_unit.tobytes())
            first = known.setdefault(key, name)
            if first == name:
                self.parts[name] = records[on_unit, c.B_MASK + 1 :]
                self.rows[name] = records[on_unit, c.B_ROW]
                marks = self._of_stream(of[0]) if of else np.array([[0, _HALTED]])
                accounts[name] = classify(self.parts[name], marks, self._total)
            else:
                accounts[name] = accounts[first]
                self.parts[name], self.rows[name] = self.parts[first], self.rows[first]
        return accounts

    def ports(self, chip: int) -> dict[str, dict[str, int]]:
        """Return the books of ports and crossbar: a word is a busy cycle."""
        routes = self._lowered.routes[chip]
        words = [0] * len(routes.names)
        for port, count in routes.granted(self._cells).items():
            words[port] += count
        for number, queue in enumerate(self._queues):
            if queue.chip != chip:
                continue
            for lane in self._lanes(number).tolist():
                for _, unit in units(lane[c.L_MASK]):
                    own = {route.port: route.slot for route in routes.of(queue.kind, unit).values()
                           if route.group == c.NONE}
                    for port, slot in own.items():
                        words[port] += lane[c.L_WORDS + slot]
        found = {}
        for name, count, period in zip(routes.names, words, routes.periods, strict=True):
            busy = count * period
            found[f"chip{chip}.{name}"] = _only(busy=busy, unused=self._total - busy)
        return found

    def _lanes(self, number: int) -> np.ndarray:
        """Return the lanes of a stream, a row each."""
        first, count = self._streams[number, [c.S_LANES, c.S_LANE_COUNT]].tolist()
        places = self._cells[first : first + count]
        return self._cells[places[:, None] + np.arange(c.LANE)]

    def _of_stream(self, number: int) -> np.ndarray:
        """Return the marks of a stream, (tick, class) a row, from the start on."""
        if number not in self._known_marks:
            marks = self._marks[self._mark_streams == number]
            self._known_marks[number] = marks[:, [c.V_TICK, c.V_CLASS]]
        return self._known_marks[number]


def _channels(engine: "Engine", chip: int, total: int) -> dict[str, dict[str, int]]:
    """Return the books of the DRAM channels, and of their units if they compute."""
    outside = engine.answers.outside
    if outside is not None:
        return _computing(engine, chip, total)
    memory, period = engine.memories[chip], engine.machine.ticks(engine.machine.dram.clock)
    if total // period > memory.now:
        memory.idle_until(total // period)
    found: dict[str, dict[str, int]] = {}
    known: dict[DramCounters, dict[str, int]] = {}
    for channel in range(engine.machine.dram.channels):
        count = memory.counters(channel)
        if count not in known:
            classes = _only(
                busy=count.busy_cycles * period,
                bus_conflict=count.bus_conflict_cycles * period,
                row_miss=count.row_miss_cycles * period,
                turnaround=count.turnaround_cycles * period,
                refresh=count.refresh_cycles * period,
                unused=(count.idle_cycles + count.late_cycles) * period,
            )
            classes["unused"] += total - sum(classes.values())
            known[count] = classes
        found[f"chip{chip}.dram{channel}"] = known[count]
    return found


def _computing(engine: "Engine", chip: int, total: int) -> dict[str, dict[str, int]]:
    """Return the books of channels that compute: the host's data bus, then the units."""
    outside, period = engine.answers.outside, engine.machine.ticks(engine.machine.dram.clock)
    assert outside is not None
    outside.memory.finish(total // period)
    each = [channel_accounts(channel, period, total) for channel in outside.memory.channels(chip)]
    return {f"chip{chip}.{name}{number}": rows[name]
            for name in ("dram", "bank_units") for number, rows in enumerate(each)}


def _only(**given: int) -> dict[str, int]:
    return {name: given.get(name, 0) for name in CLASSES}
