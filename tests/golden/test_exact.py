"""Integer rules against Python's own integers and fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden.exact import kulisch_matmul, matmul, round_shift, saturate, wrap
from golden.formats import decode, encode, round_to
from machine.formats import FORMATS

WIDE = st.integers(-(2**62), 2**62)


def python_matmul(a, b):
    return [[sum(int(x) * int(y) for x, y in zip(row, column, strict=True))
             for column in np.asarray(b).T] for row in np.asarray(a)]


@pytest.mark.parametrize("bits", [8, 16, 24, 31, 40, 63])
def test_matmul_is_exact_at_every_width(bits):
    rng = np.random.default_rng(bits)
    a = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (3, 9), endpoint=True)
    b = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (9, 4), endpoint=True)
    assert matmul(a, b).tolist() == python_matmul(a, b)


@pytest.mark.parametrize("bound, kind", [
    (2**53 - 1, np.int64), (2**53 + 1, np.int64), (2**63 - 1, np.int64), (2**63, object)])
def test_matmul_is_exact_on_both_sides_of_each_change_of_method(bound, kind):
    for one, other in ((bound, 1), (1, bound)):
        product = matmul(np.array([[one]], object), np.array([[other]], object))
        assert product.dtype == kind
        assert product.tolist() == [[bound]]


def test_matmul_broadcasts_over_leading_axes_and_takes_empty_depth():
    a, b = np.arange(24).reshape(2, 3, 4), np.arange(8).reshape(4, 2)
    assert matmul(a, b).tolist() == [python_matmul(part, b) for part in a]
    assert matmul(np.zeros((2, 0), int), np.zeros((0, 3), int)).tolist() == [[0] * 3] * 2


@given(WIDE, st.integers(2, 64))
def test_wrap_keeps_the_number_modulo_two_to_the_bits(x, bits):
    got = int(wrap([x], bits)[0])
    assert (got - x) % 2**bits == 0 and -(2 ** (bits - 1)) <= got < 2 ** (bits - 1)


@given(WIDE, st.integers(2, 63))
def test_saturate_is_the_nearest_number_in_range(x, bits):
    assert int(saturate([x], bits)[0]) == min(max(x, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)


@given(WIDE, st.integers(0, 40))
def test_round_shift_rounds_to_nearest_ties_to_even(x, shift):
    assert int(round_shift([x], shift)[0]) == round(Fraction(x, 2**shift))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "float16"])
@pytest.mark.parametrize("out", ["float32", "float16"])
def test_kulisch_rounds_the_exact_sum_once(name, out):
    fmt = FORMATS[name]
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 2**fmt.bits, (400,))
    codes = codes[np.isfinite(decode(codes, fmt))][:320]
    a, b = codes[:160].reshape(4, 40), codes[160:].reshape(40, 4)
    exact = [[sum(Fraction(x) * Fraction(y) for x, y in zip(row, column, strict=True))
              for column in decode(b, fmt).T] for row in decode(a, fmt)]
    got = round_to(kulisch_matmul(a, b, fmt, fmt), FORMATS[out])
    for value, want in zip(got.ravel(), np.array(exact).ravel(), strict=True):
        assert value == nearest_float(want, FORMATS[out])


def nearest_float(exact, fmt):
    """Round a fraction by Python integers: to units of the last place, ties to even."""
    if abs(exact) >= Fraction(fmt.largest) + Fraction(2) ** (
            fmt.largest_exponent - fmt.mantissa_bits - 1):
        return np.inf if exact > 0 else -np.inf
    steps = int(abs(exact) / Fraction(fmt.smallest)).bit_length()
    unit = Fraction(fmt.smallest) * 2 ** max(0, steps - fmt.mantissa_bits - 1)
    return float(round(exact / unit) * unit)


def test_kulisch_breaks_a_tie_with_bits_float64_has_no_room_for():
    fmt = FORMATS["float16"]
    a = encode([[2.0**15, 2.0**-9, 2.0**-24]], fmt)
    b = encode([[1.0], [1.0], [2.0**-24]], fmt)
    # 2^15 + 2^-9 is halfway between two float32; 2^-48 lies 63 bits below the top
    assert 2.0**15 + 2.0**-9 + 2.0**-48 == 2.0**15 + 2.0**-9
    got = round_to(kulisch_matmul(a, b, fmt, fmt), FORMATS["float32"])
    assert got.tolist() == [[2.0**15 + 2.0**-8]]
