"""The bytes of a machine's address spaces, and the tiles of elements in them."""

import numpy as np

from golden import block_scaled
from golden.convert import NATIVE, code_dtype, codes_of, values_of
from golden.tiles import extent, gather_bits, offsets, positions, scatter_bits, strided
from machine.control import Tile
from machine.errors import must_be
from machine.formats import FORMATS, Format, Kind, format_named
from machine.opcodes import Rounding
from machine.program import Layout, Space

__all__ = ["LIMIT_BYTES", "Memory"]

LIMIT_BYTES = 1 << 33  # a space that would grow beyond this is taken for a wrong address


class Memory:
    """The bytes of every address space of every chip.

    A space is zero until it is written and grows as far as it is touched.
    """

    def __init__(self) -> None:
        self._bytes: dict[tuple[int, Space], np.ndarray] = {}
        self._used: dict[tuple[int, Space], int] = {}

    def __contains__(self, place: tuple[int, Space]) -> bool:
        return place in self._bytes

    def __getitem__(self, place: tuple[int, Space]) -> np.ndarray:
        """Return the bytes touched so far of the space of `place`, uint8 [bytes], as a view."""
        found = self._bytes.get(place)
        return np.zeros(0, np.uint8) if found is None else found[: self._used[place]]

    @property
    def places(self) -> list[tuple[int, Space]]:
        """Every (chip, space) that was touched, in order."""
        return sorted(self._bytes)

    def read(self, chip: int, tile: Tile, index: np.ndarray | None = None) -> np.ndarray:
        """Return the exact values of `tile` on `chip`; `index` is the list of its gather.

        The array may be a view: the caller must not write to it. Raises `UserError` for an
        address outside any memory and for a block format that shares more than a scale.
        """
        fmt = _format(tile)
        if fmt.kind is Kind.BLOCK:
            codes = block_scaled.take(*self._blocks(chip, tile, fmt, index), fmt)
            return block_scaled.values_of_blocks(codes, fmt)
        native = NATIVE.get(fmt.name)
        if native is None:
            return values_of(self._codes(chip, tile, fmt, index), fmt)
        if index is None:
            return self._view(chip, tile, native)
        flat, at = self._flat(chip, tile, native, index)
        return flat[at]

    def write(
        self,
        chip: int,
        tile: Tile,
        values: np.ndarray,
        index: np.ndarray | None = None,
        *,
        rounding: Rounding = Rounding.NEAREST_EVEN,
        saturate: bool = True,
    ) -> None:
        """Write `values`, of the tile's shape, converted to the tile's format.

        Elements are converted by `codes_of`; to a block format, whole blocks are quantised.
        """
        if values.shape != tile.shape:
            raise must_be(f"result for {tile.operand.name}", f"of shape {list(tile.shape)}",
                          list(values.shape))
        fmt = _format(tile)
        if fmt.kind is Kind.BLOCK:
            raw, base, numbers = self._blocks(chip, tile, fmt, index)
            block_scaled.put(raw, base, numbers, block_scaled.quantised(values, numbers, fmt), fmt)
            return
        codes = codes_of(values, fmt, rounding=rounding, saturate=saturate)
        if fmt.bits not in (8, 16, 32):
            raw, at = self._bit_numbers(chip, tile, fmt, index)
            scatter_bits(raw, at, codes, fmt.bits)
        elif index is None:
            self._view(chip, tile, codes.dtype)[...] = codes
        else:
            flat, at = self._flat(chip, tile, codes.dtype, index)
            flat[at] = codes

    def copy(self, chip: int, source: Tile, to: Tile, source_index: np.ndarray | None = None,
             to_index: np.ndarray | None = None) -> None:
        """Copy `source` to `to`, of one shape and format, bit for bit."""
        fmt = _format(source)
        if fmt.kind is Kind.BLOCK:
            codes = block_scaled.take(*self._blocks(chip, source, fmt, source_index), fmt)
            block_scaled.put(*self._blocks(chip, to, fmt, to_index), codes, fmt)
            return
        moved = self._codes(chip, source, fmt, source_index)
        if fmt.bits not in (8, 16, 32):
            raw, at = self._bit_numbers(chip, to, fmt, to_index)
            scatter_bits(raw, at, moved, fmt.bits)
        elif to_index is None:
            self._view(chip, to, moved.dtype)[...] = moved
        else:
            flat, at = self._flat(chip, to, moved.dtype, to_index)
            flat[at] = moved

    def _codes(self, chip: int, tile: Tile, fmt: Format, index: np.ndarray | None) -> np.ndarray:
        if fmt.bits not in (8, 16, 32):
            raw, at = self._bit_numbers(chip, tile, fmt, index)
            return gather_bits(raw, at, fmt.bits)
        if index is None:
            return self._view(chip, tile, code_dtype(fmt.bits))
        flat, at = self._flat(chip, tile, code_dtype(fmt.bits), index)
        return flat[at]

    def _view(self, chip: int, tile: Tile, dtype: np.dtype) -> np.ndarray:
        """Return the tile as a view, for elements of whole bytes and no gather."""
        start = tile.address_bytes + tile.offset_elements * dtype.itemsize
        strides = tile.operand.strides
        low, high = extent(tile.shape, strides)
        raw = self._grown(chip, tile, start + low * dtype.itemsize,
                          start + (high + 1) * dtype.itemsize)
        return strided(raw, dtype, start, tile.shape, strides)

    def _flat(
        self, chip: int, tile: Tile, dtype: np.dtype, index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a one-dimensional view that spans the tile, and each element's place in it."""
        at = _element_offsets(tile, index)
        low, high = int(at.min()), int(at.max()) + 1
        start = tile.address_bytes + low * dtype.itemsize
        raw = self._grown(chip, tile, start, start + (high - low) * dtype.itemsize)
        return strided(raw, dtype, start, (high - low,), (1,)), at - low

    def _bit_numbers(
        self, chip: int, tile: Tile, fmt: Format, index: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        at = 8 * tile.address_bytes + _element_offsets(tile, index) * fmt.bits
        raw = self._grown(chip, tile, int(at.min()) >> 3, (int(at.max()) + fmt.bits + 7) >> 3)
        return raw, at

    def _blocks(
        self, chip: int, tile: Tile, fmt: Format, index: np.ndarray | None
    ) -> tuple[np.ndarray, int, np.ndarray]:
        """Return all bytes, the bit where element 0 of the tensor's blocks lies, and numbers."""
        numbers = _element_offsets(tile, index)
        low, high = block_scaled.span(fmt, numbers)
        base = 8 * tile.address_bytes
        return self._grown(chip, tile, (base + low) >> 3, (base + high + 7) >> 3), base, numbers

    def _grown(self, chip: int, tile: Tile, low: int, high: int) -> np.ndarray:
        """Return all bytes of the tile's space, at least `high` of them."""
        place = (chip, tile.operand.space)
        raw = self._bytes.get(place)
        if low >= 0 and raw is not None and high <= len(raw):
            if high > self._used[place]:
                self._used[place] = high
            return raw
        if low < 0 or high > LIMIT_BYTES:
            raise must_be(f"operand {tile.operand.name} in {tile.space.name.lower()}",
                          f"within bytes 0 to {LIMIT_BYTES}", (low, high))
        held = 0 if raw is None else len(raw)
        # Growth by half more keeps the cost of many small steps linear.
        wider = np.zeros(max(high, held + held // 2), np.uint8)
        if raw is not None:
            wider[:held] = raw
        self._bytes[place] = wider
        self._used[place] = high
        return wider


def _format(tile: Tile) -> Format:
    fmt = FORMATS.get(tile.operand.format) or format_named(tile.operand.format,
                                                           where=tile.operand.name)
    if fmt.kind is Kind.BLOCK:
        if tile.operand.layout is not Layout.BLOCK_SCALED:
            raise must_be(f"layout of {tile.operand.name}, being {fmt.name},", "block_scaled",
                          tile.operand.layout.name.lower())
        if not block_scaled.one_scale(fmt):
            raise must_be(f"format of {tile.operand.name}",
                          "one with nothing but a scale a block", fmt.name)
    return fmt


def _element_offsets(tile: Tile, index: np.ndarray | None) -> np.ndarray:
    """Return every element's offset from the tile's byte address, in elements."""
    gather = tile.operand.gather
    axes = [
        positions(size, index if gather and gather.axis == axis else None,
                  gather.granule if gather else 1)
        for axis, size in enumerate(tile.shape)
    ]
    return tile.offset_elements + offsets(axes, tile.operand.strides)
