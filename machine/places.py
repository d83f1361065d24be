"""The memory of a program: its symbols, and the regions that its instructions touch."""

from bisect import bisect_right
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from machine.control import Tile
from machine.faults import FaultKind
from machine.footprint import Footprint, symbol_bytes
from machine.formats import FORMATS
from machine.opcodes import OPCODES, Opcode
from machine.program import (
    Instruction,
    Launch,
    Program,
    QueueKind,
    Space,
    Symbol,
    SymbolKind,
)
from machine.races import READ, WRITE, Access, Area, Place, Region
from machine.wellformed import Sizes

__all__ = ["Places"]

Complaints = list[tuple[FaultKind, str]]

_FILLED = (SymbolKind.CONST, SymbolKind.INPUT, SymbolKind.STATE, SymbolKind.LAUNCH)


class _Range(NamedTuple):
    """The bytes of a symbol, `low` to `high` - 1."""

    low: int
    high: int
    symbol: Symbol


class Places:
    """Every address space a program uses, on `machine` if it is given."""

    def __init__(self, program: Program, launch: Launch, machine: Sizes | None):
        self._program = program
        self._launch = launch
        self._machine = machine
        self._areas: dict[Place, Area] = {}
        self._sizes: dict[tuple[int, Space], int | None] = {}
        self._regions: dict[tuple[object, ...], Region] = {}
        self._channels = _Channels(program)
        self._ranges: dict[tuple[int, Space], list[_Range]] = {}  # ascending
        self._const: dict[tuple[int, Space], list[_Range]] = {}
        self._launched: dict[tuple[int, Space], list[_Range]] = {}
        for symbol in program.symbols:
            span = _Range(symbol.address_bytes, symbol.address_bytes + symbol_bytes(symbol),
                          symbol)
            place = symbol.chip, symbol.space
            self._ranges.setdefault(place, []).append(span)
            if symbol.kind == SymbolKind.CONST:
                self._const.setdefault(place, []).append(span)
            if symbol.kind == SymbolKind.LAUNCH:
                self._launched.setdefault(place, []).append(span)
        for spans in self._ranges.values():
            spans.sort(key=lambda span: span.low)

    def link(self) -> None:
        """Find out which regions may conflict, once all are known."""
        for area in self._areas.values():
            area.link()

    def launched(self, chip: int, tile: Tile) -> list[int] | None:
        """Return the elements of a tile of the launch table, row by row, or None."""
        if tile.space != Space.DRAM:
            return None
        bits = FORMATS[tile.operand.format].bits
        first = 8 * tile.address_bytes + tile.offset_elements * bits
        for low, high, symbol in self._launched.get((chip, tile.space), []):
            listed = self._launch.tensors.get(symbol.name)
            if (listed is None or symbol.format != tile.operand.format
                    or not 8 * low <= first < 8 * high or (first - 8 * low) % bits):
                continue
            places = [(first - 8 * low) // bits]
            for size, stride in zip(tile.shape, tile.operand.strides, strict=True):
                places = [place + i * stride for place in places for i in range(size)]
            if all(0 <= place < prod(symbol.shape) for place in places):
                return [listed[place] if place < len(listed) else 0 for place in places]
        return None

    def access(
        self, queue: int, chip: int, unit: int, instruction: Instruction, tile: Tile, mode: int,
        index: Sequence[int] | None,
    ) -> tuple[list[Access], Complaints]:
        """Return what `queue` touches by `mode` of `tile` on `unit`, and what is wrong with it.

        `index` is the index list of the tile's gather, if it is known.
        """
        positions, faults = _positions(tile, index)
        if faults:
            return [], faults
        places = [Place(chip, tile.space)]
        if tile.space in (Space.PIM_BUFFER, Space.PIM_LATCH):
            places = [Place(chip, tile.space, unit, channel)
                      for channel in self._channels.of(instruction)]
        found = []
        for place in places:
            area = self._area(place)
            region = self._region(area, tile, positions)
            if mode & READ:
                region.readers.add(queue)
            if mode & WRITE:
                region.writers.add(queue)
            found.append(Access(region, mode, area))
        return found, self._wrong(chip, tile, found[0].region, mode) if found else []

    def _size(self, space: Space, chip: int) -> int | None:
        """Return the bytes of a space of the machine; None if it has no such space."""
        place = chip, space
        if self._machine is not None and place not in self._sizes:
            self._sizes[place] = self._machine.space_bytes(space, chip)
        return self._sizes.get(place)

    def shown(self, one: Access, other: Access) -> str:
        """Return the bytes that two accesses may share, as an error names them."""
        a, b = one.region.footprint, other.region.footprint
        low, high = max(a.low, b.low), min(a.high, b.high)
        place = one.area.place
        return f"{place.space.name.lower()} {low:#x} to {high - 1:#x} of chip {place.chip}"

    def _area(self, place: Place) -> Area:
        if place not in self._areas:
            filled = [(low, high) for low, high, symbol in
                      self._ranges.get((place.chip, place.space), []) if symbol.kind in _FILLED]
            self._areas[place] = Area(place, filled)
        return self._areas[place]

    def _region(self, area: Area, tile: Tile, positions: Sequence[int] | None) -> Region:
        operand = tile.operand
        listed = None if positions is None else tuple(positions)
        key = (area.place, operand.name, tile.address_bytes, tile.offset_elements, tile.shape,
               listed)
        region = self._regions.get(key)
        if region is None:
            footprint = Footprint(tile, positions)
            exact = operand.gather is None or positions is not None
            region = Region(footprint, exact)
            if not exact:
                self._widen(area.place, footprint)
            self._regions[key] = region
            area.regions.append(region)
        return region

    def _widen(self, place: Place, footprint: Footprint) -> None:
        """Take a gather whose index list is unknown as touching all of the tensor it begins in."""
        low, high = 0, footprint.high
        if self._machine is not None:
            high = max(high, self._size(place.space, place.chip) or 0)
        span = _around(self._ranges.get((place.chip, place.space), []), footprint.low,
                       footprint.low + 1)
        if span is not None:
            low, high = span.low, span.high
        footprint.cover(low, high)

    def _wrong(self, chip: int, tile: Tile, region: Region, mode: int) -> Complaints:
        footprint, space = region.footprint, tile.space
        shown = f"{tile.operand.name} covers {footprint.low:#x} to {footprint.high - 1:#x}"
        found: Complaints = []
        if mode and region.judged & mode == mode:
            return found
        region.judged |= mode
        size = self._size(space, chip)
        if self._machine is not None and size is None:
            message = f"space must be one the machine has, not {space.name.lower()}"
            found.append((FaultKind.BOUNDS, message))
        if footprint.low < 0 or (size is not None and footprint.high > size):
            limit = "" if size is None else f"below {size:#x}"
            message = f"bytes of {space.name.lower()} must be at least 0 {limit}, {shown}"
            found.append((FaultKind.BOUNDS, message))
        spans = self._ranges.get((chip, space), [])
        if space == Space.DRAM and _around(spans, footprint.low, footprint.high) is None:
            message = f"a tile in dram must lie within one symbol, {shown}"
            found.append((FaultKind.BOUNDS, message))
        if mode & WRITE:
            for low, high, symbol in self._const.get((chip, space), []):
                if footprint.low < high and low < footprint.high and any(
                        first < high and low < last for first, last in footprint.intervals):
                    message = f"const {symbol.name!r} must not be written, {shown}"
                    found.append((FaultKind.CONST, message))
        return found


def _around(spans: Sequence[_Range], low: int, high: int) -> _Range | None:
    """Return a range that holds the bytes `low` to `high` - 1; `spans` ascend by `low`."""
    for at in range(bisect_right(spans, low, key=lambda span: span.low) - 1, -1, -1):
        if spans[at].high >= high:
            return spans[at]
    return None


class _Channels:
    """PIM channels, those taken together that every instruction of the program treats alike."""

    def __init__(self, program: Program):
        masks = sorted({_mask(instruction) for stream in program.streams
                        if stream.queue.kind == QueueKind.PIM
                        for instruction in stream.instructions if _mask(instruction)})
        alike: dict[tuple[int, ...], int] = {}
        for channel in range(32):
            alike.setdefault(tuple(mask >> channel & 1 for mask in masks), channel)
        self._first = sorted(alike.values())

    def of(self, instruction: Instruction) -> list[int]:
        """Return one channel of each kind that `instruction` names."""
        mask = _mask(instruction)
        return [channel for channel in self._first if mask >> channel & 1]


def _mask(instruction: Instruction) -> int:
    """Return the channel mask of a PIM instruction, 0 for any other."""
    for field in OPCODES[Opcode(instruction.opcode)].fields:
        if field.name == "channels":
            return instruction.fields.get("channels", field.default)
    return 0


def _positions(tile: Tile, index: Sequence[int] | None) -> tuple[list[int] | None, Complaints]:
    """Return where the positions of a gather's axis lie, None without a gather or its list."""
    gather = tile.operand.gather
    if gather is None or index is None:
        return None, []
    size = tile.shape[gather.axis]
    needed = -(-size // gather.granule)
    if len(index) < needed:
        message = (f"index list of {tile.operand.name} must have at least {needed} entries, "
                   f"not {len(index)}")
        return None, [(FaultKind.SHAPE, message)]
    return [index[p // gather.granule] * gather.granule + p % gather.granule
            for p in range(size)], []
