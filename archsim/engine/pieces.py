"""A strided tile as contiguous runs: what a port counts in words and the memory in bursts."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Piece", "gathered", "pieces", "runs"]


class Piece(NamedTuple):
    """`rows` runs of `row_bytes`, `stride_bytes` apart; the first `offset_bytes` from the tile."""

    offset_bytes: int
    row_bytes: int
    rows: int
    stride_bytes: int


def _merged(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """Return the elements of a contiguous run, and the (size, stride) of the axes outside it.

    An axis of stride 0 is outside all others: its run is read again for each position.
    """
    axes = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    run = 1
    axes.sort(key=lambda axis: (axis[1] == 0, abs(axis[1])), reverse=True)
    while axes and axes[-1][1] == run:
        run *= axes.pop()[0]
    outer: list[tuple[int, int]] = []
    for size, stride in axes:
        if outer and outer[-1][1] == size * stride:
            outer[-1] = (outer[-1][0] * size, stride)
        else:
            outer.append((size, stride))
    return run, outer


def runs(shape: Sequence[int], strides: Sequence[int], bits: int) -> tuple[int, int]:
    """Return how many contiguous runs a tile of `bits`-bit elements has, and the bytes of one."""
    if 0 in shape:
        return 0, 0
    run, outer = _merged(shape, strides)
    count = 1
    for size, _ in outer:
        count *= size
    return count, -(-run * bits // 8)


def pieces(shape: Sequence[int], strides: Sequence[int], bits: int) -> tuple[Piece, ...]:
    """Return a tile of `bits`-bit elements as two-dimensional pieces, in address order.

    A run that starts inside a byte counts from that byte.
    """
    if 0 in shape:
        return ()
    run, outer = _merged(shape, strides)
    row_bytes = -(-run * bits // 8)
    if not outer:
        return (Piece(0, row_bytes, 1, row_bytes),)
    rows, stride = outer[-1]
    corners = [0]
    for size, step in outer[:-1]:
        corners = [corner + index * step for corner in corners for index in range(size)]
    stride_bytes = stride * bits // 8
    return tuple(Piece(corner * bits // 8, row_bytes, rows, stride_bytes) for corner in corners)


def gathered(
    shape: Sequence[int], strides: Sequence[int], bits: int, *,
    axis: int, granule: int, index: Sequence[int],
) -> tuple[Piece, ...]:
    """Return the pieces of a tile whose positions along `axis` go through an index list.

    Position p lies at ``index[p // granule] * granule + p % granule``.
    """
    found: list[Piece] = []
    size, stride = shape[axis], strides[axis]
    for start in range(0, size, granule):
        part = list(shape)
        part[axis] = min(granule, size - start)
        moved = index[start // granule] * granule * stride * bits // 8
        found += [
            piece._replace(offset_bytes=piece.offset_bytes + moved)
            for piece in pieces(part, strides, bits)
        ]
    return tuple(found)
