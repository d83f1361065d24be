"""Sums of products: floats against fractions, groups and integers against Python integers."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from golden.matmul import accumulate_float, accumulate_groups, accumulate_integers, check_operands
from machine.errors import UserError
from machine.formats import FORMATS

NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
         "int8": np.int8}


def rounded(x, mantissa_bits, smallest_exponent):
    """Return the fraction `x` rounded to nearest, ties to even, no overflow."""
    if x == 0:
        return x
    exponent = max(len(bin(abs(x.numerator))) - len(bin(x.denominator)), smallest_exponent)
    if abs(x) < Fraction(2) ** exponent and exponent > smallest_exponent:
        exponent -= 1
    step = Fraction(2) ** (exponent - mantissa_bits)
    return round(x / step) * step


def fraction_sum(acc, a, w, mantissa_bits=23, smallest_exponent=-126):
    """Return acc + sum of a[k] w[k] as `accumulate_float` states it, in exact fractions."""
    total = Fraction(float(acc))
    for x, y in zip(a, w, strict=True):
        total = rounded(total + Fraction(float(x)) * Fraction(float(y)), mantissa_bits,
                        smallest_exponent)
    return total


@pytest.mark.parametrize("a_name, w_name", [
    ("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "float32"),
    ("float16", "int8"), ("float32", "float16"),
])
def test_every_addition_of_an_exact_product_rounds_once(a_name, w_name):
    rng = np.random.default_rng(1)
    # Exponents far apart and nearly cancelling sums show a second rounding.
    shape = (300, 12)
    scale = 2.0 ** rng.integers(-7, 7, shape)
    a = (rng.normal(size=shape) * scale).astype(NUMPY[a_name])
    if w_name == "int8":
        w = rng.integers(-128, 128, shape).astype(np.int8)
    else:
        w = (rng.normal(size=shape) * scale[:, ::-1]).astype(NUMPY[w_name])
    acc = rng.normal(size=300).astype(np.float32)
    for i in range(300):
        got = accumulate_float(acc[i].reshape(1, 1), a[i][None].astype(np.float32),
                               w[i][:, None].astype(np.float32), FORMATS[a_name], FORMATS[w_name])
        assert Fraction(float(got[0, 0])) == fraction_sum(acc[i], a[i], w[i]), i


def test_a_product_just_below_a_tie_does_not_round_up():
    # 1 + 2**-23 + 2**-24 (1 - 2**-36): float64 sees a tie, which would go to even, upwards.
    acc = np.array([[1 + 2.0**-23]], np.float32)
    a = np.array([[2.0**-12 * (1 + 2.0**-18)]], np.float32)
    w = np.array([[2.0**-12 * (1 - 2.0**-18)]], np.float32)
    fmt = FORMATS["float32"]
    assert accumulate_float(acc, a, w, fmt, fmt)[0, 0] == np.float32(1 + 2.0**-23)
    up = accumulate_float(acc, -a, -np.nextafter(w, np.float32(1)), fmt, fmt)
    assert up[0, 0] == np.float32(1 + 2.0**-22)


def test_float16_accumulator_rounds_once_to_float16():
    rng = np.random.default_rng(2)
    a, w = rng.normal(size=(2, 200, 9)).astype(np.float16)
    for i in range(200):
        got = accumulate_float(np.zeros((1, 1), np.float16), a[i][None], w[i][:, None],
                               FORMATS["float16"], FORMATS["float16"])
        assert got.dtype == np.float16
        assert Fraction(float(got[0, 0])) == fraction_sum(0, a[i], w[i], 10, -14), i


def test_bfloat16_products_below_float32_are_not_lost_before_the_sum():
    fmt = FORMATS["bfloat16"]
    tiny = np.float32(2.0**-75)
    acc = np.zeros((1, 1), np.float32)
    got = accumulate_float(acc, np.array([[tiny]]), np.array([[tiny * 3]], np.float32), fmt, fmt)
    # 3 * 2**-150 is halfway between 2**-149 and 2**-148: to even.
    assert got[0, 0] == np.float32(2.0**-148)


@pytest.mark.parametrize("acc, a, w, expected", [
    (2.0**-149, 2.0**-75, 2.0**-75, 2.0**-148),  # 1.5 units: a tie, to even
    (-(2.0**127), 2.0**64, 2.0**64, 2.0**127),  # the product is beyond float32, the sum is not
])
def test_bfloat16_products_outside_float32_meet_the_sum_unrounded(acc, a, w, expected):
    one = [np.array([[number]], np.float32) for number in (acc, a, w)]
    assert accumulate_float(*one, FORMATS["bfloat16"], FORMATS["bfloat16"])[0, 0] == expected


def test_infinity_and_nan_pass_through():
    fmt = FORMATS["float32"]
    a = np.array([[np.inf, 1], [np.inf, -np.inf], [3e38, 3e38]], np.float32)
    got = accumulate_float(np.zeros((3, 1), np.float32), a, np.ones((2, 1), np.float32), fmt, fmt)
    assert got[0, 0] == np.inf and np.isnan(got[1, 0]) and got[2, 0] == np.inf


def test_integer_sums_wrap_like_python_integers_modulo_the_width():
    rng = np.random.default_rng(3)
    acc = rng.integers(-(1 << 31), 1 << 31, (4, 5))
    product = rng.integers(-(1 << 40), 1 << 40, (4, 5))
    got = accumulate_integers(acc, product, 32)
    for i, j in np.ndindex(4, 5):
        total = int(acc[i, j]) + int(product[i, j])
        assert got[i, j] == (total + (1 << 31)) % (1 << 32) - (1 << 31)


@pytest.mark.parametrize("with_sums", [False, True])
def test_group_sum_minus_zero_point_times_scale_is_three_roundings(with_sums):
    rng = np.random.default_rng(4)
    a, w = rng.integers(-128, 128, (3, 10)), rng.integers(0, 16, (10, 2))
    scales = rng.normal(size=(3, 2)).astype(np.float16)  # groups of 4, 4 and 2
    zeros = rng.integers(0, 16, (3, 2))
    start = rng.normal(size=(3, 2)).astype(np.float32)
    cuts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    sums = np.stack([a[:, cut].sum(axis=1) for cut in cuts], axis=1) if with_sums else None
    got = accumulate_groups(start, a, w, 4, scales, zeros, sums)
    for m, n in np.ndindex(3, 2):
        total = start[m, n]
        for g, cut in enumerate(cuts):
            whole = sum((int(w[k, n]) - int(zeros[g, n])) * int(a[m, k])
                        for k in range(10)[cut])
            total = np.float32(total + np.float32(np.float32(whole) * np.float32(scales[g, n])))
        assert got[m, n] == total


def test_given_activation_sums_are_used_not_recomputed():
    a, w = np.ones((1, 2), int), np.ones((2, 1), int)
    one = np.ones((1, 1), np.float32)
    start = np.zeros((1, 1), np.float32)
    assert accumulate_groups(start, a, w, 2, one, np.array([[1]]), None)[0, 0] == 0
    assert accumulate_groups(start, a, w, 2, one, np.array([[1]]), np.array([[5]]))[0, 0] == -3


@pytest.mark.parametrize("a, w, acc, fits", [
    ((2, 3), (3, 4), (2, 4), True),
    ((2, 3), (2, 4), (2, 4), False),
    ((2, 3), (3, 4), (2, 5), False),
    ((3,), (3, 4), (4,), False),
    ((5, 2, 3), (5, 3, 4), (5, 2, 4), True),
    ((5, 2, 3), (1, 3, 4), (5, 2, 4), True),
    ((5, 2, 3), (6, 3, 4), (5, 2, 4), False),
])
def test_shapes_that_do_not_multiply_are_refused(a, w, acc, fits):
    if fits:
        check_operands(np.zeros(a), np.zeros(w), acc)
    else:
        with pytest.raises(UserError, match="must give acc"):
            check_operands(np.zeros(a), np.zeros(w), acc)
