"""The outcome of a simulation: times, the books, the log and the counts."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from archsim.accounting import CLASSES, PARTS, OpCycles, by_operation, classify
from archsim.dram import DramCounters, DramEnergy
from archsim.log import InstructionLog
from archsim.work import Work
from machine.chip import Machine
from machine.program import Program, QueueKind

if TYPE_CHECKING:
    from archsim.engine import Engine

__all__ = ["SimResult", "collect"]

_UNITS = (QueueKind.ARRAY, QueueKind.VECTOR, QueueKind.DMA, QueueKind.LINK)


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
    total = max([0, *(max(s.time, s.done) for s in engine.streams)])
    accounts: dict[str, dict[str, int]] = {}
    parts: dict[str, np.ndarray] = {}
    rows: dict[str, np.ndarray] = {}
    for chip in range(engine.program.chips):
        for kind in _UNITS:
            _units(engine, chip, kind, total, accounts, parts, rows)
        accounts |= _ports(engine, chip, total)
        accounts |= _channels(engine, chip, total)
    return SimResult(
        program=engine.program, machine=engine.machine, ticks=total, log=engine.log,
        accounts=accounts, operations=by_operation(engine.log), work=engine.work,
        dram=[clock.memory.total() for clock in engine.memories.clocks],
        dram_energy=[clock.memory.energy() for clock in engine.memories.clocks],
        parts=parts, rows=rows,
    )


def _units(engine: "Engine", chip: int, kind: QueueKind, total: int,
           accounts: dict[str, dict[str, int]], parts: dict[str, np.ndarray],
           rows: dict[str, np.ndarray]) -> None:
    """Close the books of the units of one kind; equal units are counted once."""
    records = np.array(engine.parts.get((chip, kind), []), np.int64).reshape(-1, 3 + len(PARTS))
    known: dict[tuple[int, bytes], dict[str, int]] = {}
    for unit in range(engine.machine.units(kind)):
        name = f"chip{chip}.{kind.name.lower()}{unit}"
        mine = (records[:, 1] >> unit & 1).astype(bool)
        of = [s for s in engine.streams if (s.queue.kind, s.queue.chip) == (kind, chip)
              and any(unit in lane.units for lane in s.lanes)]
        key = (of[0].number if of else -1, mine.tobytes())
        if key not in known:
            marks = of[0].marks if of else [(0, "halted")]
            known[key] = classify(records[mine, 2:], marks, total)
        accounts[name] = known[key]
        parts[name], rows[name] = records[mine, 2:], records[mine, 0]


def _ports(engine: "Engine", chip: int, total: int) -> dict[str, dict[str, int]]:
    """Return the books of ports and crossbar: a word is a busy cycle."""
    ports = engine.ports[chip]
    words = dict.fromkeys([*ports.names, "crossbar"], 0) | ports.shared_words()
    for stream in engine.streams:
        if stream.queue.chip != chip:
            continue
        for lane in stream.lanes:
            for unit in lane.units:
                own = ports.routes(lane.kind, unit)
                moved = {own[way].port: lane.words[route.port]
                         for way, route in lane.routes.items() if route.group is None}
                for port, count in moved.items():
                    words[port] += count
    found = {}
    for port, count in words.items():
        busy = count * ports.periods[port]
        found[f"chip{chip}.{port}"] = _only(busy=busy, unused=total - busy)
    return found


def _channels(engine: "Engine", chip: int, total: int) -> dict[str, dict[str, int]]:
    """Return the books of the DRAM channels."""
    clock = engine.memories.clocks[chip]
    memory, period = clock.memory, clock.period
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


def _only(**given: int) -> dict[str, int]:
    return {name: given.get(name, 0) for name in CLASSES}
