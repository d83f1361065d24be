"""LOAD and STORE: tiles moved between layouts and formats."""

import numpy as np
import pytest

from golden.dma import move
from golden.memory import Memory
from machine.control import Tile
from machine.errors import UserError
from machine.opcodes import Rounding
from machine.program import Gather, Operand, Space


def tile_of(fmt, shape, strides, space=Space.DRAM, gather=None):
    operand = Operand("x", space, 0, shape, strides, fmt, gather=gather)
    return Tile(operand, 0, 0, shape)


def moved(values, source, to, **options):
    """Write `values` to `source`, move it to `to` on chip 1, return what lies there."""
    memory = Memory()
    memory.write(1, source, np.asarray(values))
    move(memory, 1, source, to, **options)
    return memory.read(1, to)


PAD = Space.SCRATCHPAD


def test_a_transposed_tile_lands_row_after_row():
    values = np.arange(12).reshape(3, 4)
    memory = Memory()
    memory.write(0, tile_of("int8", (3, 4), (4, 1)), values)
    move(memory, 0, tile_of("int8", (4, 3), (1, 4)), tile_of("int8", (4, 3), (3, 1), PAD))
    np.testing.assert_array_equal(memory[0, PAD].view(np.int8).reshape(4, 3), values.T)


@pytest.mark.parametrize("fmt", ["int4", "uint8", "int16", "float16", "float32", "bfloat16"])
def test_small_integers_survive_every_format(fmt):
    values = [0, 1, 5, 7]
    got = moved(values, tile_of("int8", (4,), (1,)), tile_of(fmt, (4,), (1,), PAD))
    assert got.tolist() == values


def test_a_narrower_integer_saturates_unless_told_to_wrap():
    source, to = tile_of("int16", (3,), (1,)), tile_of("int4", (3,), (1,), PAD)
    assert moved([7, 8, -100], source, to).tolist() == [7, 7, -8]
    assert moved([7, 8, -100], source, to, saturate=False).tolist() == [7, -8, -4]


def test_floats_become_integers_by_the_rule_named():
    source, to = tile_of("float32", (3,), (1,)), tile_of("int8", (3,), (1,), PAD)
    values = np.array([1.5, -1.5, 300], np.float32)
    assert moved(values, source, to).tolist() == [2, -2, 127]
    assert moved(values, source, to, rounding=Rounding.FLOOR).tolist() == [1, -2, 127]


def test_one_format_is_copied_bit_for_bit_whatever_the_rule():
    source = tile_of("float16", (3,), (1,))
    values = np.array([np.inf, -0.0, 6e-8], np.float16)
    got = moved(values, source, tile_of("float16", (3,), (1,), PAD), rounding=Rounding.FLOOR)
    assert got.tobytes() == values.tobytes()


def test_gather_on_one_side_and_scatter_on_the_other():
    memory = Memory()
    memory.write(0, tile_of("int8", (5,), (1,)), np.array([10, 11, 12, 13, 14]))
    move(memory, 0, tile_of("int8", (3,), (1,), gather=Gather(0, 0)),
         tile_of("int8", (3,), (1,), PAD, gather=Gather(0, 0)), np.array([4, 0, 3]),
         np.array([2, 1, 0]))
    assert memory[0, PAD].tolist() == [13, 10, 14]


def test_shapes_must_agree():
    with pytest.raises(UserError, match=r"^shapes of src and dst must be equal, not "
                                        r"\(\(4,\), \(2, 2\)\)$"):
        move(Memory(), 0, tile_of("int8", (4,), (1,)), tile_of("int8", (2, 2), (2, 1), PAD))
