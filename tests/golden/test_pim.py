"""Memory that computes: copies in channels, dot products, accumulation."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest

from golden.execute import execute
from golden.formats import round_to
from golden.pim import bank_sum, bank_sum_integers, gemv, members
from machine.assembly import parse
from machine.errors import UserError
from machine.formats import FORMATS

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
    """Return W @ x as sixteen lanes add: neighbours first, lanes 8 to 15 zero."""
    total = np.zeros(5, np.float32) if start is None else start.copy()
    for row in range(5):
        p = [np.float32(TENSORS["W"][row, k]) * np.float32(x[k]) for k in range(8)]
        tree = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]))
        total[row] += tree
    return total


def test_gemv_adds_a_columns_products_as_a_tree_in_float32():
    got = run("pim_gwrite src=x0 dst=buffer", "pim_gemv a=buffer w=w dst=latch",
              "pim_readres src=latch dst=y")
    np.testing.assert_array_equal(got, dots(TENSORS["X"][0]))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_a_bank_sum_rounds_each_product_and_each_addition_once(fmt):
    # Against Fractions, rounded to float32 by hand: 24 bits, ties to even.
    rng = np.random.default_rng(4)
    w, a = (round_to(rng.standard_normal((3, 4)) * 2.0 ** rng.integers(-6, 7, (3, 4)),
                     FORMATS[fmt]) for _ in range(2))
    got = bank_sum(w, a, np.float32(0.5))
    total = Fraction(1, 2)
    for x, y in zip(w, a, strict=True):
        p = [rounded(Fraction(float(u)) * Fraction(float(v))) for u, v in zip(x, y, strict=True)]
        tree = rounded(rounded(p[0] + p[1]) + rounded(p[2] + p[3]))
        total = rounded(total + tree)
    assert Fraction(float(got)) == total


def rounded(x):
    """Return the fraction `x` to 24 significant bits, ties to even; normal numbers only."""
    if not x:
        return x
    power = Fraction(2) ** (math.frexp(float(abs(x)))[1] - 24)
    low, rest = divmod(x / power, 1)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2)
    return (low + up) * power


def test_a_product_past_float32_is_infinite_and_a_small_one_keeps_its_subnormal():
    got = bank_sum(np.array([[2.0**100, 2.0**-70]]), np.array([[2.0**100, 2.0**-70]]),
                   np.float32(0))
    assert np.isposinf(got)
    small = bank_sum(np.array([[2.0**-70, 0.0]]), np.array([[2.0**-70, 0.0]]), np.float32(0))
    assert float(small) == 2.0**-140


def test_integer_sums_are_exact_and_wrap():
    w = np.full((2, 16), -128)
    assert bank_sum_integers(w, w, np.array(7)) == 7 + 32 * 16384
    assert bank_sum_integers(w, w, np.array(2**31 - 1)) == -(2**31) + 32 * 16384 - 1


def test_columns_of_a_gemv_are_filled_with_zeros():
    rng = np.random.default_rng(5)
    w, a = rng.normal(size=(3, 21)).astype(np.float16), rng.normal(size=21).astype(np.float16)
    half = FORMATS["float16"]
    wide = np.zeros((2, 3, 16), np.float64)
    deep = np.zeros((2, 16), np.float64)
    for k in range(21):
        wide[k // 16, :, k % 16], deep[k // 16, k % 16] = w[:, k], a[k]
    want = bank_sum(wide.transpose(1, 0, 2), deep, np.zeros(3, np.float32))
    np.testing.assert_array_equal(gemv(w, a, np.zeros(3, np.float32), half, half), want)


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
