"""Block-scaled tiles: bits of scales and elements, quantised whole, read exactly."""

import ml_dtypes
import numpy as np
import pytest

from golden import blocks
from golden.execute import execute
from golden.memory import Memory
from machine.assembly import parse
from machine.control import Tile
from machine.errors import UserError
from machine.formats import FORMATS
from machine.program import Layout, Operand, Space

SCALED = Layout.BLOCK_SCALED
NOT_A_RUN = ("each row written in layout block_scaled must be one run that begins a block of 32, "
             "not ")


def tile_of(fmt, shape, strides, offset=0, layout=SCALED, address=3):
    operand = Operand("x", Space.DRAM, address, shape, strides, fmt, layout=layout)
    return Tile(operand, address, offset, shape)


def test_mxfp4_block_is_a_scale_and_then_sixteen_bytes_of_elements():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 64)) * 2.0 ** rng.integers(-5, 5, (2, 1))
    memory = Memory()
    memory.write(0, tile_of("mxfp4", (2, 64), (64, 1)), values)
    raw = memory[0, Space.DRAM][3:].reshape(4, 17)
    assert len(memory[0, Space.DRAM]) == 3 + 4 * 17
    for block, numbers in zip(raw, values.reshape(4, 32), strict=True):
        # The OCP rule: floor(log2(largest)) - 2, biased by 127; elements saturate.
        exponent = int(np.floor(np.log2(np.abs(numbers).max()))) - 2
        assert block[0] == exponent + 127
        scaled = np.clip(numbers / 2.0**exponent, -6, 6).astype(ml_dtypes.float4_e2m1fn)
        codes = scaled.view(np.uint8) & 15
        np.testing.assert_array_equal(block[1:], codes[::2] | codes[1::2] << 4)


@pytest.mark.parametrize("fmt", ["mxfp8_e4m3", "mxfp6_e3m2", "mxfp4", "mxint8", "bfp5",
                                 "int4_group"])
def test_what_is_quantised_is_read_back_exactly(fmt):
    row = FORMATS[fmt]
    values = np.random.default_rng(2).normal(size=(3, 2 * row.group + 5))
    pitch = 3 * row.group  # the last block of a row is short; the next row begins its own
    memory = Memory()
    memory.write(0, tile_of(fmt, values.shape, (pitch, 1)), values)
    expected = blocks.dequantise(blocks.quantise(values, row), row)
    np.testing.assert_array_equal(memory.read(0, tile_of(fmt, values.shape, (pitch, 1))), expected)
    part = tile_of(fmt, (4, 2), (1, pitch), offset=row.group - 2)
    np.testing.assert_array_equal(memory.read(0, part),
                                  expected[:2, row.group - 2 : row.group + 2].T)


def test_copy_keeps_scales_and_elements():
    values = np.random.default_rng(3).normal(size=(2, 32))
    memory = Memory()
    memory.write(0, tile_of("mxfp6_e2m3", (2, 32), (32, 1)), values)
    to = tile_of("mxfp6_e2m3", (2, 32), (64, 1), address=500)
    memory.copy(0, tile_of("mxfp6_e2m3", (2, 32), (32, 1)), to)
    held = memory[0, Space.DRAM]
    np.testing.assert_array_equal(held[500:525], held[3:28])
    np.testing.assert_array_equal(held[550:575], held[28:53])


@pytest.mark.parametrize("fmt, strides, offset, layout, message", [
    ("mxfp4", (48, 1), 0, SCALED, NOT_A_RUN + "0"),
    ("mxfp4", (64, 1), 16, SCALED, NOT_A_RUN + "16"),
    ("mxfp4", (64, 2), 0, SCALED, NOT_A_RUN + "0"),
    ("mxfp4", (64, 1), 0, Layout.ROW, "layout of x, being mxfp4, must be block_scaled, not 'row'"),
    ("nvfp4", (64, 1), 0, SCALED,
     "format of x must be one with nothing but a scale a block, not 'nvfp4'"),
])
def test_tiles_that_have_no_whole_blocks_are_refused(fmt, strides, offset, layout, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        Memory().write(0, tile_of(fmt, (2, 32), strides, offset, layout), np.ones((2, 32)))


def test_matmul_of_block_scaled_weights_adds_exact_products_in_float32():
    text = """
program test version 1
symbol A dram 0x0 float16 [2,64] input
symbol W dram 0x200 mxfp4 [3,64] const layout=block_scaled
symbol C dram 0x400 float32 [2,3] output
operand a_dram dram 0x0 float16 [2,64] stride [64,1]
operand w_dram dram 0x200 mxfp4 [3,64] stride [64,1] layout=block_scaled
operand a scratchpad 0x0 float16 [2,64] stride [64,1]
operand w_fill scratchpad 0x200 mxfp4 [3,64] stride [64,1] layout=block_scaled
operand w scratchpad 0x200 mxfp4 [64,3] stride [1,64] layout=block_scaled
operand c accumulator 0x0 float32 [2,3] stride [3,1]
operand c_dram dram 0x400 float32 [2,3] stride [3,1]
token go
token done
stream chip0.dma0
  load src=a_dram dst=a
  load src=w_dram dst=w_fill signal go:1
  store src=c dst=c_dram wait done:1
  halt
stream chip0.array0
  matmul a=a w=w acc=c wait go:1 signal done:1
  halt
"""
    rng = np.random.default_rng(4)
    a, w = rng.normal(size=(2, 64)).astype(np.float16), rng.normal(size=(3, 64))
    got = execute(parse(text), {"A": a, "W": w}).tensors["C"]
    fmt = FORMATS["mxfp4"]
    held = blocks.dequantise(blocks.quantise(w, fmt), fmt)
    for m, n in np.ndindex(2, 3):
        total = np.float32(0)
        for k in range(64):
            total = np.float32(float(total) + float(a[m, k]) * held[n, k])
        assert got[m, n] == total
