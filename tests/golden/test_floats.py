"""Float arithmetic: one rounding an operation, sums in the order that was asked for."""

from fractions import Fraction

import numpy as np
import pytest

from golden.floats import (
    add,
    divide,
    dot,
    from_integer,
    matmul,
    multiply,
    reduce_max,
    reduce_sum,
    square_root,
    to_integer,
)
from golden.formats import decode, round_to
from machine.formats import FORMATS
from machine.vector import ReductionOrder

FORMAT_NAMES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
SEQUENTIAL, TREE = ReductionOrder


def numbers(fmt, count, seed):
    """Finite numbers of the format: a third over its whole range, the rest near one."""
    rng = np.random.default_rng(seed)
    wild = decode(rng.integers(0, 2**fmt.bits, count, dtype=np.uint64), fmt)
    wild = wild[np.isfinite(wild)]
    tame = round_to(rng.standard_normal(2 * count), fmt)
    return rng.permutation(np.concatenate([wild, tame]))


def rounded(exact: Fraction, fmt) -> float:
    """Round a fraction to the format by integers; overflow is not asked of it."""
    steps = int(abs(exact) / Fraction(fmt.smallest)).bit_length()
    unit = Fraction(fmt.smallest) * 2 ** max(0, steps - fmt.mantissa_bits - 1)
    return float(round(exact / unit) * unit)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("operation, exact", [
    (add, lambda a, b: a + b), (multiply, lambda a, b: a * b), (divide, lambda a, b: a / b)])
def test_an_operation_rounds_the_exact_result_once(name, operation, exact):
    fmt = FORMATS[name]
    a, b = numbers(fmt, 700, 1), numbers(fmt, 700, 2)
    a, b = a[: min(a.size, b.size)], b[: min(a.size, b.size)]
    a, b = a[b != 0], b[b != 0]
    got = operation(a, b, fmt)
    for x, y, z in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        if np.isfinite(z):
            assert z == rounded(exact(Fraction(x), Fraction(y)), fmt)
        else:
            half_place = Fraction(2) ** (fmt.largest_exponent - fmt.mantissa_bits - 1)
            assert abs(exact(Fraction(x), Fraction(y))) >= Fraction(fmt.largest) + half_place


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_square_root_rounds_once(name):
    fmt = FORMATS[name]
    x = np.abs(numbers(fmt, 700, 3))
    for value, root in zip(x.tolist(), square_root(x, fmt).tolist(), strict=True):
        # root is nearest if the value lies between the squares of its midpoints
        place = Fraction(rounded(Fraction(root) * Fraction(1, 2**fmt.mantissa_bits), fmt))
        below, above = Fraction(root) - place / 2, Fraction(root) + place / 2
        assert max(below, Fraction(0)) ** 2 <= Fraction(value) <= above**2


def test_integers_convert_with_one_rounding():
    x = np.array([2**24 + 1, 2**24 + 3, -(2**31), 2**31 - 1, 0])
    assert from_integer(x).tolist() == [2**24, 2**24 + 4, -(2**31), 2**31, 0]
    assert from_integer([2049, 2051], FORMATS["float16"]).tolist() == [2048, 2052]
    assert to_integer([0.5, 1.5, -2.5, 200.0, -200.0], 8).tolist() == [0, 2, -2, 127, -128]


def plain_sum(row, order, lanes, fmt):
    """The order of addition written out, one number at a time."""
    def plus(a, b):
        return float(np.float32(a) + np.float32(b) if fmt.bits == 32 else round_to(a + b, fmt))

    if order is SEQUENTIAL:
        total = row[0]
        for x in row[1:]:
            total = plus(total, x)
        return total
    level = []
    for lane in range(lanes):
        own = [row[i] if i < len(row) else 0.0 for i in
               range(lane, -(-len(row) // lanes) * lanes, lanes)]
        total = own[0]
        for x in own[1:]:
            total = plus(total, x)
        level.append(total)
    while len(level) > 1:
        if len(level) % 2:
            level.append(0.0)
        level = [plus(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("width, lanes", [(1, 4), (3, 4), (4, 4), (5, 4), (37, 8), (40, 6), (9, 1)])
@pytest.mark.parametrize("order", list(ReductionOrder))
def test_sum_follows_its_order(name, width, lanes, order):
    fmt = FORMATS[name]
    rows = round_to(np.random.default_rng(width).standard_normal((6, width)), fmt)
    got = reduce_sum(rows, order, lanes, fmt)
    assert got.tolist() == [plain_sum(row.tolist(), order, lanes, fmt) for row in rows]


def test_the_orders_differ_where_rounding_shows():
    row = np.array([2.0**24, 1.0, 1.0, 1.0])
    assert reduce_sum(row, SEQUENTIAL) == 2.0**24
    assert reduce_sum(row, TREE, 4) == 2.0**24 + 2
    assert reduce_sum(row, TREE, 2) == 2.0**24 + 2
    assert reduce_sum(row, TREE, 1) == 2.0**24


@pytest.mark.parametrize("order", list(ReductionOrder))
def test_an_empty_row_sums_to_zero(order):
    assert reduce_sum(np.zeros((3, 0)), order).tolist() == [0, 0, 0]


def test_maximum_rules():
    assert reduce_max([[-3.0, -1.0], [-np.inf, -np.inf]]).tolist() == [-1, -np.inf]
    assert np.isnan(reduce_max([1.0, np.nan, 3.0]))
    for zeros in ([-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]):
        assert not np.signbit(reduce_max(zeros)) and reduce_max(zeros) == 0
    assert reduce_max(np.zeros((2, 0))).tolist() == [-np.inf, -np.inf]


def test_dot_rounds_each_product_before_adding():
    # (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24 exactly; the rounded product loses it
    a, b = np.array([1 + 2.0**-12, -1.0]), np.array([1 + 2.0**-12, 1 + 2.0**-11])
    assert dot(a, b) == 0
    a, b = np.array([1 + 2.0**-6, -1.0]), np.array([1 + 2.0**-6, 1 + 2.0**-5])
    assert dot(a, b, fmt=FORMATS["float16"]) == 0 and dot(a, b) == 2.0**-12


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_matmul_adds_in_order_of_k(name):
    fmt = FORMATS[name]
    rng = np.random.default_rng(4)
    a, b = round_to(rng.standard_normal((2, 3, 7)), fmt), round_to(rng.standard_normal((7, 5)), fmt)
    want = [[[dot(row, column, fmt=fmt).item() for column in b.T] for row in part] for part in a]
    assert matmul(a, b, fmt).tolist() == want


def test_matmul_continues_from_a_start():
    a, b = np.float32([[2.0**24, 1.0, 1.0]]), np.ones((3, 1), np.float32)
    half = matmul(a[:, :2], b[:2])
    assert matmul(a[:, 2:], b[2:], start=half).tolist() == matmul(a, b).tolist() == [[2.0**24]]
    assert matmul(np.zeros((2, 0)), np.zeros((0, 3))).tolist() == [[0] * 3] * 2
