"""One queue in the simulator: where it stands, and what its sequencer did when."""

from collections.abc import Iterable, Iterator, Mapping

from archsim.demand import Planner
from archsim.lanes import Lane
from archsim.ports import Ports
from machine.chip import Machine
from machine.control import Cursor, Step
from machine.program import Program, QueueKind
from machine.program import Stream as Instructions

__all__ = ["Stream"]


class Stream:
    """A queue's sequencer: the instruction at its head and the tick at which it came there.

    `marks` holds the states of the sequencer for the books, as (tick from which it holds, class).
    """

    def __init__(self, number: int, program: Program, stream: Instructions, planner: Planner,
                 values: Mapping[str, int]):
        self.number = number
        self.queue = stream.queue
        self.cursor = Cursor(program, stream, values, control=True)
        self.plans = planner.plans(stream)
        self.time = 0  # the head is there, or the sequencer is free, from this tick on
        self.head: Step | None = None
        self.issued = -1  # when the head's tokens were taken; -1: not yet
        self.row = -1  # of the head in the log, once issued
        self.resumes = -1  # the tick of the event that goes on with it; -1: none
        self.reading = False  # a READ waits for the memory
        self.halted = False
        self.waits_for = ""  # what holds the head, for a report of deadlock
        self.open = 0  # instructions whose completion is not known yet
        self.done = 0  # the latest completion known
        self.lanes: list[Lane] = []
        self.private = False  # no other queue sees what its units do
        self.marks: list[tuple[int, str]] = [(0, "control")]

    def mark(self, tick: int, name: str) -> None:
        """Note that the sequencer is in the class `name` from `tick` on."""
        last_tick, last = self.marks[-1]
        if last == name:
            return
        if last_tick == tick:
            self.marks.pop()
            if self.marks and self.marks[-1][1] == name:
                return
        self.marks.append((tick, name))

    def equip(self, machine: Machine, ports: Ports) -> None:
        """Make the lanes of the units that the instructions drive; equal private units share one.

        Ports decide: a unit that shares one with another unit stays alone.
        """
        kind = self.queue.kind
        mask = 0
        for plan in self.plans:
            mask |= plan.mask
        together: dict[int, list[int]] = {}
        for unit in range(machine.units(kind)):
            if not mask >> unit & 1:
                continue
            lane = Lane(kind, (unit,), ports.routes(kind, unit))
            if Lane.shareable and lane.private and kind in (QueueKind.ARRAY, QueueKind.VECTOR):
                block = machine.array_of(unit) if kind is QueueKind.ARRAY else machine.vector_of(
                    unit)
                together.setdefault(id(block), []).append(unit)
            else:
                self.lanes.append(lane)
        for members in together.values():
            self.lanes.append(Lane(kind, tuple(members), ports.routes(kind, members[0])))
        self.private = kind in (QueueKind.ARRAY, QueueKind.VECTOR) and all(
            lane.private for lane in self.lanes)

    def driven(self, mask: int) -> Iterator[Lane]:
        """Yield the lanes of the units in `mask`, parting those that are only partly in it."""
        for lane in list(self.lanes):
            inside = lane.mask & mask
            if not inside:
                continue
            if inside != lane.mask:
                yield self.part(lane, (unit for unit in lane.units if mask >> unit & 1))
            else:
                yield lane

    def part(self, lane: Lane, members: Iterable[int]) -> Lane:
        """Part `lane`; return the new lane of `members`."""
        other = lane.split(tuple(members))
        self.lanes.append(other)
        return other
