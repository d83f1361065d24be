"""MATMUL, PRELOAD and FLUSH on the units of a mask: what they leave in memory."""

import re

import numpy as np
import pytest

from golden.execute import execute
from machine.assembly import parse
from machine.errors import UserError


def run(body, head, tensors):
    """Execute the streams `body` under the declarations `head`."""
    return execute(parse(f"program test version 1\n{head}\n{body}"), tensors)


def test_each_unit_of_a_mask_works_on_its_own_rank():
    head = """
symbol A dram 0x0 int8 [2,2] input
symbol W dram 0x10 int8 [2,6] input
symbol C dram 0x40 int32 [2,6] output
operand a_dram dram 0x0 int8 [2,2] stride [2,1]
operand w_dram dram 0x10 int8 [2,6] stride [6,1]
operand a scratchpad 0x0 int8 [2,2] stride [2,1]
operand w_all scratchpad 0x10 int8 [2,6] stride [6,1]
operand w scratchpad 0x10 int8 [2,2] stride [6,1] loop 7:2 edge 1:5-7*2
operand c accumulator 0x0 int32 [2,2] stride [6,1] loop 7:2 edge 1:5-7*2
operand c_all accumulator 0x0 int32 [2,6] stride [6,1]
operand c_dram dram 0x40 int32 [2,6] stride [6,1]
token ready
token done
"""
    body = """
stream chip0.dma0
  load src=a_dram dst=a
  load src=w_dram dst=w_all signal ready:1
  store src=c_all dst=c_dram wait done:1
  halt
stream chip0.array0
  preload w=w units=0b11010 wait ready:1
  matmul a=a acc=c units=0b11010 signal done:1
  halt
"""
    rng = np.random.default_rng(1)
    a, w = rng.integers(-9, 9, (2, 2)), rng.integers(-9, 9, (2, 6))
    got = run(body, head, {"A": a, "W": w}).tensors["C"]
    # Ranks 0, 1, 2 take columns 0-1, 2-3 and, cut by the edge, 4.
    np.testing.assert_array_equal(got, np.concatenate([(a @ w)[:, :5], np.zeros((2, 1))], axis=1))


MATMUL = """
symbol A dram 0x0 {a} [2,3] input
symbol W dram 0x20 {w} [3,2] input
symbol C dram 0x40 {acc} [2,2] output
operand a_dram dram 0x0 {a} [2,3] stride [3,1]
operand w_dram dram 0x20 {w} [3,2] stride [2,1]
operand a scratchpad 0x0 {a} [2,3] stride [3,1]
operand w scratchpad 0x20 {w} [3,2] stride [2,1]
operand acc accumulator 0x0 {acc} [2,2] stride [2,1]
operand out scratchpad 0x40 int8 [2,2] stride [2,1]
operand c_dram dram 0x40 {acc} [2,2] stride [2,1]
operand out_dram dram 0x80 int8 [2,2] stride [2,1]
symbol OUT dram 0x80 int8 [2,2] output
operand tables scratchpad 0x100 int8 [1,1,8] stride [8,8,1]
operand codes scratchpad 0x108 uint4 [1,1,1] stride [1,1,1]
operand sums accumulator 0x100 int32 [1,1] stride [1,1]
operand float accumulator 0x100 float32 [1,1] stride [1,1]
token ready
token done
"""


def matmul(instructions, a, w, formats=("int8", "int8", "int32")):
    head = MATMUL.format(**dict(zip(("a", "w", "acc"), formats, strict=True)))
    body = ("stream chip0.dma0\nload src=a_dram dst=a\nload src=w_dram dst=w signal ready:1\n"
            "store src=acc dst=c_dram wait done:1\nstore src=out dst=out_dram\nhalt\n"
            f"stream chip0.array0\nnop wait ready:1\n{instructions}\nfence signal done:1\nhalt")
    return run(body, head, {"A": np.array(a), "W": np.array(w)}).tensors


INT_A, INT_W = [[100, 2, 3], [-4, 5, 6]], [[1, 2], [3, -4], [5, 6]]


def test_matmul_sets_or_accumulates():
    product = np.array(INT_A) @ np.array(INT_W)
    assert matmul("matmul a=a w=w acc=acc mode=accumulate\nmatmul a=a w=w acc=acc", INT_A,
                  INT_W)["C"].tolist() == product.tolist()
    assert matmul("matmul a=a w=w acc=acc\nmatmul a=a w=w acc=acc mode=accumulate", INT_A,
                  INT_W)["C"].tolist() == (2 * product).tolist()


def test_set_level_sets_in_the_first_pass_of_that_loop_only():
    product = np.array(INT_A) @ np.array(INT_W)
    body = "loop 2\nloop 3\nmatmul a=a w=w acc=acc set_level=1\nend\nend"
    assert matmul(body, INT_A, INT_W)["C"].tolist() == (3 * product).tolist()
    body = "loop 2\nloop 3\nmatmul a=a w=w acc=acc set_level=0\nend\nend"
    # Set at every inner step of outer 0, then accumulated three times.
    assert matmul(body, INT_A, INT_W)["C"].tolist() == (4 * product).tolist()


def test_integer_accumulator_wraps_at_its_width():
    product = np.array(INT_A) @ np.array(INT_W)
    got = matmul("loop 200\nmatmul a=a w=w acc=acc mode=accumulate\nend", INT_A, INT_W,
                 ("int8", "int8", "int16"))["C"]
    assert (200 * product).max() > 32767
    assert got.tolist() == (200 * product).astype(np.int16).tolist()


def test_out_is_the_accumulator_converted():
    product = np.array(INT_A) @ np.array(INT_W)
    got = matmul("matmul a=a w=w acc=acc out=out", INT_A, INT_W)
    assert got["C"].tolist() == product.tolist()
    assert got["OUT"].tolist() == product.clip(-128, 127).tolist()
    got = matmul("matmul a=a w=w acc=acc\nflush acc=acc out=out saturate=0", INT_A, INT_W)
    assert product.max() > 127
    assert got["OUT"].tolist() == product.astype(np.int8).tolist()


def test_flush_rounds_by_the_rule_named():
    a, w = [[2.5, 0, 0], [-1.5, 0, 0]], [[1, 1], [0, 0], [0, 0]]
    formats = ("float16", "float16", "float32")
    rules = {"nearest_even": [2, -2], "toward_zero": [2, -1], "floor": [2, -2]}
    for rule, expected in rules.items():
        flush = f"flush acc=acc out=out rounding={rule}"
        got = matmul(f"matmul a=a w=w acc=acc\n{flush}", a, w, formats)
        assert got["OUT"][:, 0].tolist() == expected, rule


def test_preloaded_weights_stay_until_the_next_preload():
    product = np.array(INT_A) @ np.array(INT_W)
    got = matmul("preload w=w\nmatmul a=a acc=acc\nmatmul a=a acc=acc mode=accumulate",
                 INT_A, INT_W)
    assert got["C"].tolist() == (2 * product).tolist()


@pytest.mark.parametrize("instructions, formats, message", [
    ("matmul a=a acc=acc", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: matmul without w must follow a preload on its array"),
    ("matmul a=w w=w acc=acc", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: a [3, 2] by w [3, 2] must give acc, which is [2, 2]"),
    ("matmul a=a w=w acc=acc", ("int8", "int8", "float32"),
     "test: chip0.array0[1]: accumulator of int8 x int8 must be "),
    ("matmul a=a w=w acc=acc k_order=descending", ("float16", "float16", "float32"),
     "test: chip0.array0[1]: k_size of descending must be at least 1, not 0"),
    ("matmul a=a w=w acc=acc group_end=1", ("int8", "int8", "float32"),
     "test: chip0.array0[1]: operand w must have groups with a scale along axis 0, its K, for "),
    ("matmul a=a w=w acc=acc tables=1", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: tables [2, 3] must be [M, K / 4, 8] and codes [3, 2] [bits, N, K "),
    ("matmul a=tables w=codes acc=sums tables=1 group_end=1", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: group_end with tables must be 0: table products have no group "),
    ("matmul a=tables w=codes acc=float tables=1", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: tables must be integers in an integer acc, not int8 in float32"),
])
def test_meaningless_matmul_is_refused_with_its_place(instructions, formats, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        matmul(instructions, INT_A, INT_W, formats)


def test_batched_matmul_broadcasts_leading_axes():
    head = """
symbol A dram 0x0 int8 [2,3,2,4] input
symbol W dram 0x40 int8 [2,1,4,5] input
symbol C dram 0x80 int32 [2,3,2,5] output
operand a_dram dram 0x0 int8 [2,3,2,4] stride [24,8,4,1]
operand w_dram dram 0x40 int8 [2,1,4,5] stride [20,20,5,1]
operand c_dram dram 0x80 int32 [2,3,2,5] stride [30,10,5,1]
operand a scratchpad 0x0 int8 [2,3,2,4] stride [24,8,4,1]
operand w scratchpad 0x40 int8 [2,1,4,5] stride [20,20,5,1]
operand c accumulator 0x0 int32 [2,3,2,5] stride [30,10,5,1]
token ready
token done
"""
    body = """
stream chip0.dma0
  load src=a_dram dst=a
  load src=w_dram dst=w signal ready:1
  store src=c dst=c_dram wait done:1
  halt
stream chip0.array0
  matmul a=a w=w acc=c wait ready:1 signal done:1
  halt
"""
    rng = np.random.default_rng(2)
    a, w = rng.integers(-9, 9, (2, 3, 2, 4)), rng.integers(-9, 9, (2, 1, 4, 5))
    np.testing.assert_array_equal(run(body, head, {"A": a, "W": w}).tensors["C"], a @ w)
