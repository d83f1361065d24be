"""Tiles in memory: where each element's bits lie, and what is read and written."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.memory import LIMIT_BYTES, Memory
from machine.control import Tile
from machine.errors import UserError
from machine.opcodes import Rounding
from machine.program import Gather, Operand, Space

BITS = {"int8": 8, "uint4": 4, "int4": 4, "uint3": 3, "int12": 12, "int24": 24, "uint1": 1,
        "int16": 16, "uint32": 32}


def tile_of(fmt, shape, strides, address=0, offset=0, gather=None, space=Space.DRAM):
    operand = Operand("x", space, address, tuple(shape), tuple(strides), fmt, gather=gather)
    return Tile(operand, address, offset, tuple(shape))


def as_integer(memory, chip=0, space=Space.DRAM):
    """Return the whole space as one number, bit 0 first: the oracle of bit positions."""
    return int.from_bytes(memory[chip, space].tobytes(), "little")


def bits_at(number, start, bits, signed):
    code = (number >> start) & ((1 << bits) - 1)
    return code - (1 << bits) if signed and code >> (bits - 1) else code


@pytest.mark.parametrize("fmt", BITS)
def test_element_lies_at_its_bit_number(fmt):
    bits, signed = BITS[fmt], fmt.startswith("int")
    rng = np.random.default_rng(1)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    values = rng.integers(low, high, (3, 5))
    memory = Memory()
    memory.write(0, tile_of(fmt, (3, 5), (7, 1), address=11, offset=3), values)
    number = as_integer(memory)
    for i in range(3):
        for j in range(5):
            at = 8 * 11 + (3 + 7 * i + j) * bits
            assert bits_at(number, at, bits, signed) == values[i, j], (i, j)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back_and_nothing_else_changes(data):
    fmt = data.draw(st.sampled_from(sorted(BITS)))
    bits, signed = BITS[fmt], fmt.startswith("int")
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    # Strides of a row-major tensor wider than the tile, walked in any order of axes.
    room = [size + data.draw(st.integers(0, 2)) for size in shape]
    strides = [int(np.prod(room[axis + 1:], dtype=int)) for axis in range(len(shape))]
    offset = data.draw(st.integers(0, 9))
    tile = tile_of(fmt, shape, strides, address=data.draw(st.integers(0, 5)), offset=offset)
    memory = Memory()
    before = data.draw(st.integers(0, 255))
    memory.write(0, tile_of("uint8", (400,), (1,)), np.full(400, before, np.uint8))
    low = -(1 << bits - 1) if signed else 0
    seed = data.draw(st.integers(0, 1000))
    values = np.random.default_rng(seed).integers(low, low + (1 << bits), shape)
    memory.write(0, tile, values)
    np.testing.assert_array_equal(memory.read(0, tile), values)
    # The oracle: the same bits put into one Python integer, one element after the other.
    number = int.from_bytes(bytes([before] * 400), "little")
    for where in np.ndindex(*shape):
        at = 8 * tile.address_bytes + bits * (
            offset + sum(i * s for i, s in zip(where, strides, strict=True)))
        number &= ~(((1 << bits) - 1) << at)
        number |= (int(values[where]) & ((1 << bits) - 1)) << at
    assert as_integer(memory) == number


@pytest.mark.parametrize("fmt", ["int8", "int4", "float32"])
def test_gather_reads_position_p_at_index_granules(fmt):
    memory = Memory()
    stored = np.arange(24).reshape(12, 2) % 8
    memory.write(0, tile_of(fmt, (12, 2), (2, 1)), stored)
    pages = np.array([4, 0, 2])
    got = memory.read(0, tile_of(fmt, (5, 2), (2, 1), gather=Gather(0, 0, granule=2)), pages)
    np.testing.assert_array_equal(got, stored[[8, 9, 0, 1, 4]])


@pytest.mark.parametrize("fmt", ["int8", "uint4"])
def test_scatter_writes_only_the_positions_named(fmt):
    memory = Memory()
    memory.write(0, tile_of(fmt, (6, 3), (3, 1)), np.full((6, 3), 7))
    tile = tile_of(fmt, (2, 3), (3, 1), gather=Gather(0, 0))
    memory.write(0, tile, np.array([[1, 2, 3], [4, 5, 6]]), np.array([5, 1]))
    expected = np.full((6, 3), 7)
    expected[[5, 1]] = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(memory.read(0, tile_of(fmt, (6, 3), (3, 1))), expected)


def test_gather_list_that_is_too_short_is_refused():
    tile = tile_of("int8", (5, 1), (1, 1), gather=Gather(0, 0, granule=2))
    assert Memory().read(0, tile, np.array([0, 1, 2])).shape == (5, 1)
    with pytest.raises(UserError, match="^index list must be at least 3 entries for 5 positions, "
                                        "not 2$"):
        Memory().read(0, tile, np.array([0, 1]))


def test_negative_strides_read_backwards():
    memory = Memory()
    memory.write(0, tile_of("int8", (4,), (1,)), np.arange(4))
    np.testing.assert_array_equal(memory.read(0, tile_of("int8", (4,), (-1,), offset=3)),
                                  [3, 2, 1, 0])


def test_zero_stride_repeats_an_element():
    memory = Memory()
    memory.write(0, tile_of("int4", (2,), (1,)), np.array([5, -3]))
    np.testing.assert_array_equal(memory.read(0, tile_of("int4", (2, 3), (1, 0))),
                                  [[5, 5, 5], [-3, -3, -3]])


@pytest.mark.parametrize("fmt, oracle", [
    ("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16), ("float32", np.float32),
    ("float8_e4m3fn", ml_dtypes.float8_e4m3fn), ("float8_e5m2", ml_dtypes.float8_e5m2),
])
def test_floats_are_stored_as_ml_dtypes_stores_them(fmt, oracle):
    values = np.random.default_rng(2).normal(size=(5, 7)).astype(np.float32)
    memory = Memory()
    memory.write(0, tile_of(fmt, (5, 7), (7, 1)), values)
    assert memory[0, Space.DRAM].tobytes() == values.astype(oracle).tobytes()
    np.testing.assert_array_equal(memory.read(0, tile_of(fmt, (5, 7), (7, 1))),
                                  values.astype(oracle).astype(np.float32))


@pytest.mark.parametrize("rounding, expected", [
    (Rounding.NEAREST_EVEN, [2, -2, 2, 127, -128]),
    (Rounding.TOWARD_ZERO, [2, -2, 1, 127, -128]),
    (Rounding.FLOOR, [2, -3, 1, 127, -128]),
])
def test_floats_round_to_integers_by_the_rule_named(rounding, expected):
    memory = Memory()
    tile = tile_of("int8", (5,), (1,))
    memory.write(0, tile, np.array([2.5, -2.5, 1.75, 1e30, -np.inf], np.float32),
                 rounding=rounding)
    np.testing.assert_array_equal(memory.read(0, tile), expected)


def test_integers_saturate_or_wrap():
    memory = Memory()
    tile = tile_of("int8", (4,), (1,))
    values = np.array([127, 128, -129, 300], np.int32)
    memory.write(0, tile, values)
    np.testing.assert_array_equal(memory.read(0, tile), [127, 127, -128, 127])
    memory.write(0, tile, values, saturate=False)
    np.testing.assert_array_equal(memory.read(0, tile), values.astype(np.int8))


def test_infinity_is_kept_in_its_own_format_and_saturates_in_another():
    memory = Memory()
    values = np.array([np.inf, -np.inf], np.float32)
    memory.write(0, tile_of("float32", (2,), (1,)), values)
    np.testing.assert_array_equal(memory.read(0, tile_of("float32", (2,), (1,))), values)
    memory.write(0, tile_of("float16", (2,), (1,)), values)
    np.testing.assert_array_equal(memory.read(0, tile_of("float16", (2,), (1,))),
                                  np.array([65504, -65504], np.float16))


def test_nan_has_no_integer():
    with pytest.raises(UserError, match="^int8 holds no NaN$"):
        Memory().write(0, tile_of("int8", (1,), (1,)), np.array([np.nan]))


def test_spaces_and_chips_are_apart():
    memory = Memory()
    memory.write(0, tile_of("int8", (1,), (1,)), np.array([1]))
    memory.write(1, tile_of("int8", (1,), (1,)), np.array([2]))
    memory.write(0, tile_of("int8", (1,), (1,), space=Space.SCRATCHPAD), np.array([3]))
    assert memory.places == [(0, Space.DRAM), (0, Space.SCRATCHPAD), (1, Space.DRAM)]
    assert [int(memory[place][0]) for place in memory.places] == [1, 3, 2]


@pytest.mark.parametrize("address", [-1, LIMIT_BYTES])
def test_address_outside_memory_is_refused(address):
    with pytest.raises(UserError, match="operand x in dram must be within bytes 0 to"):
        Memory().read(0, tile_of("int8", (1,), (1,), address=address))


def test_last_byte_of_memory_is_readable_bit_by_bit():
    memory = Memory()
    memory.write(0, tile_of("uint8", (2,), (1,)), np.array([0xAB, 0xCD]))
    np.testing.assert_array_equal(memory.read(0, tile_of("uint4", (4,), (1,))), [11, 10, 13, 12])


def test_copy_keeps_the_bits_of_a_nan():
    memory = Memory()
    codes = np.array([0x7FA00001, 0xFFC12345], np.uint32)
    memory.write(0, tile_of("uint32", (2,), (1,)), codes)
    memory.copy(0, tile_of("float32", (2,), (1,)), tile_of("float32", (2,), (1,), address=64))
    np.testing.assert_array_equal(memory.read(0, tile_of("uint32", (2,), (1,), address=64)), codes)


@pytest.mark.parametrize("fmt", ["int8", "uint4", "float32"])
@pytest.mark.parametrize("shift", [-1, 1])
def test_copy_to_an_overlapping_tile_reads_everything_first(fmt, shift):
    memory = Memory()
    memory.write(0, tile_of(fmt, (8,), (1,)), np.arange(8))
    memory.copy(0, tile_of(fmt, (6,), (1,), offset=1), tile_of(fmt, (6,), (1,), offset=1 + shift))
    expected = np.arange(8)
    expected[1 + shift : 7 + shift] = np.arange(1, 7)
    np.testing.assert_array_equal(memory.read(0, tile_of(fmt, (8,), (1,))), expected)


def test_memory_reports_the_bytes_touched():
    memory = Memory()
    memory.write(0, tile_of("int8", (3,), (1,), address=5), np.ones(3, int))
    assert len(memory[0, Space.DRAM]) == 8
    memory.write(0, tile_of("int8", (1,), (1,), address=8), np.ones(1, int))
    assert len(memory[0, Space.DRAM]) == 9
