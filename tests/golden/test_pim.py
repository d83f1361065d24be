"""Memory that computes: copies in channels, dot products, accumulation."""

import re

import numpy as np
import pytest

from golden.execute import execute
from golden.pim import members
from machine.assembly import parse
from machine.errors import UserError

HEAD = """
symbol X dram 0x0 float16 [2,8] input
symbol W dram 0x40 float16 [5,8] const
symbol Y dram 0x100 float32 [5] output
operand x0 dram 0x0 float16 [8] stride [1]
operand x1 dram 0x10 float16 [8] stride [1]
operand w dram 0x40 float16 [5,8] stride [8,1]
operand narrow dram 0x40 float16 [5,4] stride [8,1]
operand buffer pim_buffer 0x0 float16 [8] stride [1]
operand latch pim_latch 0x0 float32 [5] stride [1]
operand y dram 0x100 float32 [5] stride [1]
"""
RNG = np.random.default_rng(1)
TENSORS = {"X": RNG.normal(size=(2, 8)).astype(np.float16),
           "W": RNG.normal(size=(5, 8)).astype(np.float16)}


def run(*lines):
    body = "\n".join(["stream chip0.pim0", *lines, "halt"])
    program = parse(f"program test version 1\n{HEAD}\n{body}\n")
    return execute(program, TENSORS).tensors["Y"]


def dots(x, start=None):
    """Return W @ x with one float32 rounding an addition, from `start`."""
    total = np.zeros(5, np.float32) if start is None else start.copy()
    for k in range(8):
        for row in range(5):
            total[row] += np.float32(TENSORS["W"][row, k]) * np.float32(x[k])
    return total


def test_gemv_adds_in_ascending_k_in_float32():
    got = run("pim_gwrite src=x0 dst=buffer", "pim_gemv a=buffer w=w dst=latch",
              "pim_readres src=latch dst=y")
    np.testing.assert_array_equal(got, dots(TENSORS["X"][0]))


def test_gemv_accumulates_into_its_latches_when_asked():
    got = run("pim_gwrite src=x0 dst=buffer", "pim_gemv a=buffer w=w dst=latch",
              "pim_gwrite src=x1 dst=buffer",
              "pim_gemv a=buffer w=w dst=latch accumulate=accumulate",
              "pim_readres src=latch dst=y")
    np.testing.assert_array_equal(got, dots(TENSORS["X"][1], dots(TENSORS["X"][0])))


def test_each_channel_keeps_its_own_copy():
    lines = ["pim_gwrite src=x0 dst=buffer channels=0x5",
             "pim_gwrite src=x1 dst=buffer channels=0x2"]
    for channels, x in (("0x1", 0), ("0x4", 0), ("0x5", 0), ("0x2", 1)):
        got = run(*lines, f"pim_gemv a=buffer w=w dst=latch channels={channels}",
                  f"pim_readres src=latch dst=y channels={channels}")
        np.testing.assert_array_equal(got, dots(TENSORS["X"][x]), channels)


@pytest.mark.parametrize("lines, message", [
    (["pim_gwrite src=x0 dst=buffer channels=0x1", "pim_gwrite src=x1 dst=buffer channels=0x2",
      "pim_gemv a=buffer w=w dst=latch channels=0x3"],
     "test: chip0.pim0[2]: operand buffer must be the same in all 2 channels of the mask"),
    (["pim_gwrite src=x0 dst=buffer channels=0x0"],
     "test: chip0.pim0[0]: channels must name at least one channel, not 0x0"),
    (["pim_gemv a=buffer w=narrow dst=latch"],
     "test: chip0.pim0[0]: w [5, 4] by a [8] must give dst, which is [5]"),
])
def test_gemv_without_meaning_is_refused_with_its_place(lines, message):
    with pytest.raises(UserError, match="^" + re.escape(message) + "$"):
        run(*lines)


def test_members_of_a_mask_ascend():
    assert members(0b101001) == [0, 3, 5]
    assert members(0) == []
