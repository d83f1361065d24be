"""Where the elements of a tile lie, and how their bits are taken from memory and put back.

Codes are unsigned integers, one an element. Element i of a packed row stands at bits
i * bits ... of the little-endian byte stream, so formats of less than a byte are packed to the bit.
"""

from collections.abc import Sequence

import numpy as np

from golden.convert import code_dtype
from machine.errors import must_be

__all__ = ["extent", "fitted", "gather_bits", "offsets", "positions", "scatter_bits", "strided"]


def positions(size: int, index: np.ndarray | None, granule: int) -> np.ndarray:
    """Return where positions 0 ... size - 1 of an axis lie, int64 [size].

    `index` is the indirection list: position p lies at index[p // granule] * granule + p % granule.
    Raises `UserError` if the list is too short.
    """
    straight = np.arange(size, dtype=np.int64)
    if index is None:
        return straight
    needed = -(-size // granule)
    if len(index) < needed:
        raise must_be("index list", f"at least {needed} entries for {size} positions", len(index))
    return index.astype(np.int64)[straight // granule] * granule + straight % granule


def offsets(axes: Sequence[np.ndarray], strides: Sequence[int]) -> np.ndarray:
    """Return every element's offset in elements, int64 with one dimension an axis.

    `axes` holds each axis's positions, `strides` its elements a position.
    """
    total = np.zeros((1,) * len(axes), np.int64)
    for axis, (where, stride) in enumerate(zip(axes, strides, strict=True)):
        shape = [1] * len(axes)
        shape[axis] = len(where)
        total = total + (where * stride).reshape(shape)
    return total


def extent(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Return the smallest and the largest element offset of a non-empty strided tile."""
    low = high = 0
    for size, stride in zip(shape, strides, strict=True):
        reach = (size - 1) * stride
        if reach < 0:
            low += reach
        else:
            high += reach
    return low, high


def strided(
    memory: np.ndarray, dtype: np.dtype, start: int, shape: Sequence[int], strides: Sequence[int]
) -> np.ndarray:
    """Return a writable view of `shape` into the bytes `memory`, its first element at `start`.

    `strides` counts elements. The caller has checked that the view lies inside.
    """
    step = dtype.itemsize
    return np.ndarray(tuple(shape), dtype, memory, start, tuple(s * step for s in strides))


def gather_bits(memory: np.ndarray, at: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes of `bits` bits whose first bits are number `at` of the bytes `memory`."""
    span = (bits + 14) // 8  # bytes a code can touch
    first = at >> 3
    last = len(memory) - 1
    word = np.zeros(at.shape, np.uint64)
    for byte in range(span):
        # A byte past the end belongs to no code: the shift below drops it.
        taken = memory[np.minimum(first + byte, last)].astype(np.uint64)
        word |= taken << np.uint64(8 * byte)
    word >>= (at & 7).astype(np.uint64)
    return (word & np.uint64((1 << bits) - 1)).astype(code_dtype(bits))


def scatter_bits(memory: np.ndarray, at: np.ndarray, codes: np.ndarray, bits: int) -> None:
    """Put `codes` of `bits` bits at bit numbers `at` of the bytes `memory`; other bits stay."""
    at, codes = at.reshape(-1), codes.reshape(-1)
    low, high = int(at.min()) >> 3, (int(at.max()) + bits + 7) >> 3
    stream = np.unpackbits(memory[low:high], bitorder="little")
    for bit in range(bits):
        stream[at - 8 * low + bit] = (codes >> codes.dtype.type(bit)) & codes.dtype.type(1)
    memory[low:high] = np.packbits(stream, bitorder="little")


def fitted(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return `values` as `shape`, which may differ by axes of size 1; else raise `UserError`."""
    if [s for s in values.shape if s != 1] != [s for s in shape if s != 1]:
        raise must_be(name, f"of shape {list(values.shape)}", list(shape))
    return values.reshape(shape)
