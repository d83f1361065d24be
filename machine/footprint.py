"""The bytes a tile covers, as intervals; and sets of bytes."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from math import prod

from machine.control import Tile
from machine.formats import FORMATS, Kind, packed_bytes
from machine.program import Layout, Symbol

__all__ = ["ByteSet", "Footprint", "overlap", "symbol_bytes"]

ROWS_LIMIT = 1 << 16  # a tile of more separate rows is taken as one interval, gaps included


def symbol_bytes(symbol: Symbol) -> int:
    """Return how many bytes `symbol` takes, packed to the bit, whole bytes at its end."""
    row = FORMATS[symbol.format]
    if row.kind is Kind.BLOCK:
        return packed_bytes(row, symbol.shape)
    return -(-prod(symbol.shape) * row.bits // 8)


class Footprint:
    """The bytes of one tile that is not empty: `low` to `high` - 1, and between them its rows.

    `positions` is the list of positions along the axis of a gather; without it, a gathered tile
    has its rows where they would lie without indirection.
    """

    __slots__ = ("_runs", "high", "low")

    def __init__(self, tile: Tile, positions: Sequence[int] | None = None):
        row = FORMATS[tile.operand.format]
        if tile.operand.layout == Layout.BLOCK_SCALED:
            size = packed_bytes(row, tile.shape)
            self._runs: _Runs | None = None
            self.low = tile.address_bytes + tile.offset_elements * row.bits // 8
            self.high = self.low + size
            return
        start = 8 * tile.address_bytes + tile.offset_elements * row.bits
        axes = [(size, stride * row.bits)
                for size, stride in zip(tile.shape, tile.operand.strides, strict=True)]
        listed: list[int] = []
        if positions is not None and tile.operand.gather is not None:
            _, stride = axes.pop(tile.operand.gather.axis)
            listed = [position * stride for position in positions]
        self._runs = runs = _Runs(start, row.bits, axes, listed)
        self.low, self.high = runs.low >> 3, (runs.high + 7) >> 3

    def cover(self, low: int, high: int) -> None:
        """Make it all the bytes from `low` to `high` - 1."""
        self._runs, self.low, self.high = None, low, high

    @property
    def intervals(self) -> Sequence[tuple[int, int]]:
        """Its bytes as ascending, disjoint intervals (first, last + 1)."""
        if self._runs is None or self._runs.count > ROWS_LIMIT:
            return ((self.low, self.high),)
        return self._runs.intervals()


class _Runs:
    """Equal runs of bits: the contiguous part of a tile, repeated along its other axes."""

    __slots__ = ("_intervals", "_outer", "_start", "_width", "count", "high", "low")

    def __init__(self, start: int, width: int, axes: list[tuple[int, int]], listed: list[int]):
        outer: list[Sequence[int]] = [listed] if listed else []
        for size, stride in sorted(axes, key=lambda axis: abs(axis[1])):
            if stride < 0:
                start, stride = start + (size - 1) * stride, -stride
            if size == 1 or stride == 0:
                continue
            if stride == width:
                width *= size
            else:
                outer.append(range(0, size * stride, stride))
        self._start, self._width, self._outer = start, width, outer
        self._intervals: list[tuple[int, int]] | None = None
        self.count = prod(len(offsets) for offsets in outer)
        self.low = start + sum(min(offsets) for offsets in outer)
        self.high = start + sum(max(offsets) for offsets in outer) + width

    def intervals(self) -> Sequence[tuple[int, int]]:
        if self._intervals is None:
            starts = [self._start]
            for offsets in self._outer:
                starts = [start + offset for start in starts for offset in offsets]
            width = self._width
            self._intervals = _merged(sorted((s >> 3, (s + width + 7) >> 3) for s in starts))
        return self._intervals


def _merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ascending intervals with those joined that touch or overlap."""
    found: list[tuple[int, int]] = []
    for low, high in intervals:
        if found and low <= found[-1][1]:
            if high > found[-1][1]:
                found[-1] = found[-1][0], high
        else:
            found.append((low, high))
    return found


def overlap(one: Footprint, other: Footprint) -> bool:
    """Return whether two footprints share a byte."""
    if one.low >= other.high or other.low >= one.high:
        return False
    few, many = sorted((one.intervals, other.intervals), key=len)
    ends = [high for _, high in many]
    for low, high in few:
        at = bisect_right(ends, low)
        if at < len(many) and many[at][0] < high:
            return True
    return False


class ByteSet:
    """A set of bytes as disjoint intervals."""

    def __init__(self) -> None:
        self._low: list[int] = []
        self._high: list[int] = []

    def add(self, low: int, high: int) -> None:
        """Add the bytes `low` to `high` - 1."""
        first = bisect_left(self._high, low)  # the first interval that ends at or after `low`
        last = bisect_right(self._low, high)  # the first that begins after `high`
        if first < last:
            low, high = min(low, self._low[first]), max(high, self._high[last - 1])
        self._low[first:last] = [low]
        self._high[first:last] = [high]

    def covers(self, low: int, high: int) -> bool:
        """Return whether every byte from `low` to `high` - 1 is in the set."""
        at = bisect_right(self._low, low) - 1
        return at >= 0 and self._high[at] >= high

    def meets(self, low: int, high: int) -> bool:
        """Return whether any byte from `low` to `high` - 1 is in the set."""
        at = bisect_right(self._high, low)
        return at < len(self._low) and self._low[at] < high
