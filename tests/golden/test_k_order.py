"""Products of floats in the order an instruction names: against exact fractions, rounded."""

from fractions import Fraction

import numpy as np
import pytest

from golden.k_order import accumulate_in_order
from machine.formats import FORMATS
from machine.opcodes import KOrder

FLOAT16 = FORMATS["float16"]


def rounded(x: Fraction, mantissa_bits: int, smallest_exponent: int) -> Fraction:
    """Return `x` rounded to nearest, ties to even, no overflow."""
    exponent = smallest_exponent
    while abs(x) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    step = Fraction(2) ** (exponent - mantissa_bits)
    return round(x / step) * step


def added(order: KOrder, size: int, acc: Fraction | None, products: list[Fraction], places):
    """Return the sum of `products` as the order's definition says, one addition at a time."""

    def total(start, terms):
        for term in terms:
            start = rounded(start + term, *places)
        return start

    match order:
        case KOrder.SEQUENTIAL:
            return total(acc or Fraction(0), products)
        case KOrder.DESCENDING:
            sums = [total(Fraction(0), reversed(products[at : at + size]))
                    for at in range(0, len(products), size)]
        case KOrder.INTERLEAVED:
            parts = [total(Fraction(0), products[first::size]) for first in range(size)]
            sums = [total(parts[0], parts[1:])]
    return total(sums[0], sums[1:]) if acc is None else total(acc, sums)


@pytest.mark.parametrize("kind, places", [(np.float32, (23, -126)), (np.float16, (10, -14))])
@pytest.mark.parametrize("order, size", [
    (KOrder.SEQUENTIAL, 0), (KOrder.DESCENDING, 1), (KOrder.DESCENDING, 4), (KOrder.DESCENDING, 99),
    (KOrder.INTERLEAVED, 1), (KOrder.INTERLEAVED, 3), (KOrder.INTERLEAVED, 16),
])
def test_every_order_adds_as_it_says_and_rounds_each_time(order, size, kind, places):
    rng = np.random.default_rng(size)
    for case in range(60):
        k = int(rng.integers(1, 14))
        a, w = (rng.normal(size=(2, k)) * 2.0 ** rng.integers(-3, 4, (2, k))).astype(np.float16)
        acc = kind(rng.normal())
        products = [Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, w, strict=True)]
        for sets in (False, True):
            got = accumulate_in_order(order, size, np.array([[acc]]), a[None], w[:, None], FLOAT16,
                                      FLOAT16, sets=sets)
            start = None if sets else Fraction(float(acc))
            assert got.dtype == kind
            assert Fraction(float(got[0, 0])) == added(order, size, start, products, places), (
                case, sets)


def test_a_tile_that_sets_keeps_a_negative_zero_and_one_that_accumulates_adds_it():
    # -2**-24 * 2**-24 rounds to -0 in float16, also from +0; +0 + -0 is +0.
    a, w = np.full((1, 1), -(2.0**-24), np.float16), np.full((1, 1), 2.0**-24, np.float16)
    zero = np.zeros((1, 1), np.float16)
    for order, size in ((KOrder.DESCENDING, 2), (KOrder.INTERLEAVED, 1)):
        left = accumulate_in_order(order, size, zero, a, w, FLOAT16, FLOAT16, sets=True)
        assert np.signbit(left[0, 0])
        left = accumulate_in_order(order, size, zero, a, w, FLOAT16, FLOAT16, sets=False)
        assert not np.signbit(left[0, 0])


def test_leading_axes_broadcast_in_every_order():
    rng = np.random.default_rng(5)
    a, w = rng.normal(size=(3, 2, 5)).astype(np.float16), rng.normal(size=(5, 4)).astype(np.float16)
    acc = rng.normal(size=(3, 2, 4)).astype(np.float32)
    for order, size in ((KOrder.SEQUENTIAL, 0), (KOrder.DESCENDING, 2), (KOrder.INTERLEAVED, 3)):
        whole = accumulate_in_order(order, size, acc, a, w, FLOAT16, FLOAT16, sets=False)
        for i in range(3):
            one = accumulate_in_order(order, size, acc[i], a[i], w, FLOAT16, FLOAT16, sets=False)
            np.testing.assert_array_equal(whole[i], one)
