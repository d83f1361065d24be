"""The bytes of tiles, against sets of bits; sets of bytes, against sets of integers."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from machine.control import Tile
from machine.footprint import ByteSet, Footprint, overlap, symbol_bytes
from machine.formats import FORMATS
from machine.program import Gather, Layout, Operand, Space, Symbol, SymbolKind


@st.composite
def tiles(draw, gather=False):
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    strides = tuple(draw(st.lists(st.integers(-9, 20), min_size=rank, max_size=rank)))
    fmt = draw(st.sampled_from(["int8", "uint4", "int3", "uint1", "int16", "float32"]))
    axis = draw(st.integers(0, rank - 1)) if gather else None
    operand = Operand("x", Space.DRAM, 0, shape, strides, fmt,
                      gather=None if axis is None else Gather(axis, 0))
    return Tile(operand, draw(st.integers(100, 120)) * 4, draw(st.integers(-9, 9)), shape)


def bytes_of(tile, positions=None):
    """Return every byte that holds a bit of the tile, element by element."""
    operand, bits = tile.operand, FORMATS[tile.operand.format].bits
    found = set()
    for index in product(*map(range, tile.shape)):
        at = list(index)
        if positions is not None:
            at[operand.gather.axis] = positions[at[operand.gather.axis]]
        offset = tile.offset_elements + sum(
            i * stride for i, stride in zip(at, operand.strides, strict=True))
        first = 8 * tile.address_bytes + offset * bits
        found.update(bit >> 3 for bit in range(first, first + bits))
    return found


def spread(intervals):
    return [byte for low, high in intervals for byte in range(low, high)]


@given(tiles())
def test_a_footprint_holds_exactly_the_bytes_of_the_elements(tile):
    footprint = Footprint(tile)
    want = sorted(bytes_of(tile))
    assert spread(footprint.intervals) == want  # ascending, disjoint, complete
    assert (footprint.low, footprint.high) == (want[0], want[-1] + 1)


@given(tiles(gather=True), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_a_gathered_footprint_follows_the_index_list(tile, listed):
    positions = listed[: tile.shape[tile.operand.gather.axis]]
    want = sorted(bytes_of(tile, positions))
    assert spread(Footprint(tile, positions).intervals) == want


@given(tiles(), tiles())
def test_overlap_is_a_shared_byte(one, other):
    shared = bool(bytes_of(one) & bytes_of(other))
    assert overlap(Footprint(one), Footprint(other)) == shared
    assert overlap(Footprint(other), Footprint(one)) == shared


def test_interleaved_rows_do_not_overlap_and_neighbouring_nibbles_do():
    def columns(first, fmt="int8", width=4):
        operand = Operand("x", Space.SCRATCHPAD, 0, (8, width), (8, 1), fmt)
        return Footprint(Tile(operand, 0, first, (8, width)))

    assert not overlap(columns(0), columns(4))
    assert overlap(columns(0), columns(3))
    assert overlap(columns(0, "uint4", 3), columns(3, "uint4", 1))  # one byte, two nibbles


def test_many_rows_count_as_one_interval():
    operand = Operand("x", Space.DRAM, 0, (70000, 1), (2, 1), "int8")
    assert list(Footprint(Tile(operand, 0, 0, (70000, 1))).intervals) == [(0, 139999)]


RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=8)


@given(RANGES, RANGES)
def test_a_byte_set_is_a_set(added, asked):
    found, want = ByteSet(), set()
    for low, size in added:
        found.add(low, low + size)
        want.update(range(low, low + size))
    for low, size in asked:
        assert found.covers(low, low + size) == want.issuperset(range(low, low + size))
        assert found.meets(low, low + size) == bool(want.intersection(range(low, low + size)))


def test_a_symbol_is_packed_to_the_bit():
    def size(fmt, shape):
        return symbol_bytes(Symbol("s", SymbolKind.CONST, Space.DRAM, 0, shape, fmt))

    assert [size("int8", (3, 5)), size("uint4", (3, 5)), size("uint1", (9,))] == [15, 8, 2]
    assert size("mxfp4", (2, 64)) == 2 * 64 // 2 + 2 * 2  # elements, then a scale for each 32


def test_a_block_scaled_tile_spans_elements_and_scales():
    operand = Operand("x", Space.DRAM, 64, (2, 64), (64, 1), "mxfp4", Layout.BLOCK_SCALED)
    footprint = Footprint(Tile(operand, 64, 0, (2, 64)))
    assert list(footprint.intervals) == [(64, 64 + 68)]
