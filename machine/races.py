"""Accesses to memory: which conflict, and which of those no token orders."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from machine.footprint import ByteSet, Footprint, overlap
from machine.ordering import Segment
from machine.program import Space

__all__ = ["READ", "WRITE", "Access", "Area", "Place", "Races", "Region", "among_units"]

READ, WRITE = 1, 2


class Place(NamedTuple):
    """One address space; PIM buffers and latches are one for each unit and channel."""

    chip: int
    space: Space
    unit: int = 0
    channel: int = 0


@dataclass(eq=False, slots=True)
class Region:
    """The bytes of one tile, and when each queue last touched them."""

    footprint: Footprint
    exact: bool = True  # False: somewhere among these bytes
    readers: set[int] = field(default_factory=set)  # queues that ever read it
    writers: set[int] = field(default_factory=set)
    near: list["Region"] = field(default_factory=list)  # that may conflict with it
    last_read: dict[int, int] = field(default_factory=dict)  # queue: its instruction's number
    last_write: dict[int, int] = field(default_factory=dict)
    judged: int = 0  # the modes whose bounds were looked at
    filled: bool = False  # written in full
    checked: bool = False  # read, and found filled or reported


class Access(NamedTuple):
    """What an instruction does with a region: READ, WRITE or both."""

    region: Region
    mode: int
    area: "Area"


class Area:
    """All regions of one place, and the bytes of it that hold something."""

    def __init__(self, place: Place, filled: Iterable[tuple[int, int]]):
        self.place = place
        self.regions: list[Region] = []
        self.written = ByteSet()
        for low, high in filled:
            self.written.add(low, high)

    def link(self) -> None:
        """Tell each region which others share a byte with it and may conflict."""
        written: list[Region] = []
        read: list[Region] = []
        for region in sorted(self.regions, key=lambda r: r.footprint.low):
            low = region.footprint.low
            written = [other for other in written if other.footprint.high > low]
            others = written
            if region.writers:
                read = [other for other in read if other.footprint.high > low]
                others = written + read
            for other in others:
                if _conflict(region, other) and overlap(region.footprint, other.footprint):
                    region.near.append(other)
                    other.near.append(region)
            if _conflict(region, region):
                region.near.append(region)
            (written if region.writers else read).append(region)


def _conflict(one: Region, other: Region) -> bool:
    """Return whether two queues touch the regions, and at least one of them writes."""
    both = one.writers | other.writers
    users = both | one.readers | other.readers
    if len(users) < 2:
        return False
    return any(w != u for w in one.writers for u in other.writers | other.readers) or any(
        w != u for w in other.writers for u in one.writers | one.readers)


class Race(NamedTuple):
    """Access by instruction `number` of `queue` conflicts with an earlier one in no order."""

    queue: int
    number: int
    access: Access
    other_queue: int
    other_number: int
    other_writes: bool


class Stale(NamedTuple):
    """Instruction `number` of `queue` reads bytes that nothing wrote before."""

    queue: int
    number: int
    access: Access


class Races:
    """Visits a run's segments in order, and keeps what it finds wrong."""

    def __init__(self, accesses: Sequence[Sequence[tuple[Access, ...]]]):
        self._accesses = accesses
        self.races: list[Race] = []
        self.stale: list[Stale] = []

    def visit(self, segment: Segment) -> None:
        """Take in the accesses of a segment."""
        queue, clock = segment.queue, segment.clock
        of_queue = self._accesses[queue]
        for number in range(segment.start, segment.stop):
            for access in of_queue[number]:
                if access.region.near:
                    self._order(queue, number, access, clock)
                if not access.region.checked and access.mode & READ:
                    self._check(queue, number, access)
            for region, mode, area in of_queue[number]:
                if mode & WRITE:
                    region.last_write[queue] = number
                    if not region.filled:
                        _fill(region, area)
                if mode & READ:
                    region.last_read[queue] = number

    def _order(self, queue: int, number: int, access: Access, clock: tuple[int, ...]) -> None:
        for other in access.region.near:
            for owner, last in other.last_write.items():
                if owner != queue and last >= clock[owner]:
                    self.races.append(Race(queue, number, access, owner, last, True))
            if access.mode & WRITE:
                for owner, last in other.last_read.items():
                    if owner != queue and last >= clock[owner]:
                        self.races.append(Race(queue, number, access, owner, last, False))

    def _check(self, queue: int, number: int, access: Access) -> None:
        region, area = access.region, access.area
        if area.place.space != Space.DRAM and region.exact and not all(
                area.written.covers(low, high) for low, high in region.footprint.intervals):
            self.stale.append(Stale(queue, number, access))
        region.checked = True


def _fill(region: Region, area: Area) -> None:
    if area.place.space != Space.DRAM:
        for low, high in region.footprint.intervals:
            area.written.add(low, high)
    region.filled = True


def among_units(accesses: Sequence[tuple[int, Access]]) -> tuple[Access, Access] | None:
    """Return two accesses of one instruction on different units that conflict, or None.

    `accesses` are (rank of the unit, access).
    """
    ordered = sorted(accesses, key=lambda item: item[1].region.footprint.low)
    active: list[tuple[int, Access]] = []
    for rank, access in ordered:
        low = access.region.footprint.low
        active = [item for item in active if item[1].region.footprint.high > low]
        for other_rank, other in active:
            if (other_rank != rank and other.area is access.area
                    and (access.mode | other.mode) & WRITE
                    and overlap(access.region.footprint, other.region.footprint)):
                return other, access
        active.append((rank, access))
    return None
