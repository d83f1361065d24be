"""Every element format against ml_dtypes or a Fraction model, on every code and on hard values."""

from fractions import Fraction
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden.formats import decode, encode, integers, pack, round_to, unpack
from machine.errors import UserError
from machine.formats import FORMATS, Format, Kind

ELEMENTS = [f for f in FORMATS.values() if f.kind is not Kind.BLOCK]
SMALL = [f for f in ELEMENTS if f.bits <= 8]
FLOATS = [f for f in ELEMENTS if f.is_float]
INTEGERS = [f for f in ELEMENTS if f.kind is Kind.INTEGER]
ORACLE = {name: np.dtype(getattr(ml_dtypes, name)) for name in (
    "bfloat16", "float8_e4m3fn", "float8_e5m2", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
    "float8_e8m0fnu")} | {"float16": np.dtype(np.float16)}


def named(f: Format) -> str:
    return f.name


def legal_codes(fmt: Format) -> np.ndarray:
    codes = np.arange(2**fmt.bits)
    return codes[codes != 2] if fmt.kind is Kind.TERNARY else codes


def hard_values(fmt: Format) -> np.ndarray:
    """Every code's value, the midpoints between neighbours, and both neighbours of each."""
    exact = decode(legal_codes(fmt), fmt)
    exact = np.unique(exact[np.isfinite(exact)])
    step = fmt.largest - np.max(exact[exact < fmt.largest], initial=0.0)
    middles = np.concatenate([(exact[1:] + exact[:-1]) / 2, [fmt.largest + step / 2, -exact[-1]]])
    points = np.concatenate([exact, middles])
    return np.concatenate([points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)])


@cache
def finite_values(fmt: Format) -> list[tuple[Fraction, int]]:
    values = decode(legal_codes(fmt), fmt)
    return [(Fraction(v), c) for c, v in enumerate(values.tolist()) if np.isfinite(v)]


def nearest(value: float, fmt: Format) -> float:
    """Round by search over all finite values, with fractions; ties to the even code."""
    exact = Fraction(value)
    return float(min(finite_values(fmt), key=lambda vc: (abs(vc[0] - exact), vc[1] % 2))[0])


@pytest.mark.parametrize("fmt", SMALL, ids=named)
def test_every_code_round_trips(fmt):
    codes = legal_codes(fmt)
    values = decode(codes, fmt)
    again = encode(values[~np.isnan(values)], fmt)
    assert again.tolist() == codes[~np.isnan(values)].tolist()
    assert np.isnan(values).any() == fmt.has_nan


@pytest.mark.parametrize("fmt", [FORMATS[name] for name in ORACLE], ids=named)
def test_decode_equals_the_oracle_on_every_code(fmt):
    codes = np.arange(2**fmt.bits, dtype=np.uint8 if fmt.bits <= 8 else np.uint16)
    with np.errstate(invalid="ignore"):
        want = codes.view(ORACLE[fmt.name]).astype(np.float64)
    np.testing.assert_array_equal(decode(codes, fmt), want)


@pytest.mark.parametrize("fmt", [FORMATS[name] for name in ORACLE], ids=named)
def test_encode_equals_the_oracle_on_ties_and_random_values(fmt):
    rng = np.random.default_rng(0)
    noise = np.ldexp(rng.standard_normal(20_000), rng.integers(-145, 127, 20_000))
    near = rng.standard_normal(20_000) * fmt.largest / 2
    values = np.concatenate([hard_values(fmt), noise, near, [0.0, -0.0]])
    # ml_dtypes reads float64 through float32, so only float32 values reach it unrounded
    values = values[np.abs(values) < 2.0**127].astype(np.float32)
    if fmt.kind is Kind.POWER:
        values = values[values >= 2.0**-126]  # below, ml_dtypes rounds float32 subnormals up
    with np.errstate(over="ignore"):
        want = values.astype(ORACLE[fmt.name]).astype(np.float64)
    got = round_to(values, fmt)
    np.testing.assert_array_equal(got, want)
    number = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize("fmt", [f for f in FLOATS if f.bits <= 8], ids=named)
def test_encode_rounds_to_nearest_ties_to_even(fmt):
    values = hard_values(fmt)
    values = values[np.abs(values) <= fmt.largest]
    assert round_to(values, fmt).tolist() == [nearest(v, fmt) for v in values]


def test_float32_keeps_every_kind_of_float32():
    bits = np.array([0, 1, 0x80000000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x00800000], np.uint32)
    assert encode(bits.view(np.float32), FORMATS["float32"]).tolist() == bits.tolist()
    # halfway between 1 and its successor goes to the even one; just above it goes up
    assert encode([1 + 2.0**-24, 1 + 2.0**-24 + 2.0**-50], FORMATS["float32"]).tolist() == [
        0x3F800000, 0x3F800001]


@pytest.mark.parametrize("name, code", [
    ("float32", 0x7FC00000), ("float16", 0x7E00), ("bfloat16", 0x7FC0), ("float8_e5m2", 0x7E),
    ("float8_e4m3fn", 0x7F), ("float8_e8m0fnu", 0xFF)])
def test_nan_has_one_positive_quiet_code(name, code):
    fmt = FORMATS[name]
    assert encode([np.nan, -np.nan], fmt).tolist() == [code, code]
    if fmt.is_float:
        assert encode([np.nan], fmt, saturate=True).tolist() == [code]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float8_e5m2"])
def test_a_signalling_nan_is_a_nan_without_a_warning(name):
    fmt, signalling = FORMATS[name], np.array([0x7F800001], np.uint32)
    with np.errstate(all="raise"):
        assert np.isnan(decode(signalling, FORMATS["float32"])).all()
        assert np.isnan(round_to(signalling.view(np.float32), fmt)).all()


@pytest.mark.parametrize("fmt", [f for f in SMALL if not f.has_nan], ids=named)
def test_a_format_without_nan_refuses_it(fmt):
    with pytest.raises(UserError, match=f"^{fmt.name} holds no NaN, and element 1 is one$"):
        encode([0.0, np.nan], fmt)


@pytest.mark.parametrize("fmt", FLOATS, ids=named)
def test_saturation_stops_at_the_largest_finite_value(fmt):
    beyond = np.array([np.inf, -np.inf, 2 * fmt.largest, -2 * fmt.largest])
    want = [fmt.largest, -fmt.largest] * 2
    assert round_to(beyond, fmt, saturate=True).tolist() == want
    if not fmt.has_nan:
        assert round_to(beyond, fmt).tolist() == want


def test_e4m3fn_overflows_to_nan_only_past_the_tie():
    got = round_to([448, 464, np.nextafter(464, 500), np.inf], FORMATS["float8_e4m3fn"])
    np.testing.assert_array_equal(got, [448, 448, np.nan, np.nan])


def test_power_format_rules():
    got = encode([1, 1.49, 1.5, 3.0, 0.0, -1.0, 2.0**-140, 2.0**127 * 1.49, 2.0**127 * 1.5, np.inf],
                 FORMATS["float8_e8m0fnu"])
    assert got.tolist() == [127, 127, 128, 129, 255, 255, 0, 254, 255, 255]


@pytest.mark.parametrize("fmt", INTEGERS, ids=named)
def test_integers_round_to_even_and_saturate(fmt):
    low, high = (-(2 ** (fmt.bits - 1)), 2 ** (fmt.bits - 1) - 1) if fmt.signed else (
        0, 2**fmt.bits - 1)
    got = round_to([low, high, low - 1, high + 1, np.inf, -np.inf, high - 0.5, low + 0.5], fmt)
    even = [high - high % 2 if high else 0, low + low % 2]
    assert got[:6].tolist() == [low, high, low, high, high, low]
    assert got[6:].tolist() == even


def test_bipolar_holds_the_odd_numbers():
    fmt = FORMATS["bipolar3"]
    assert integers(np.arange(8), fmt).tolist() == [-7, -5, -3, -1, 1, 3, 5, 7]
    bits = (np.arange(8)[:, None] >> np.arange(3)) & 1
    assert integers(np.arange(8), fmt).tolist() == ((2 * bits - 1) * [1, 2, 4]).sum(1).tolist()
    assert round_to([0.1, -0.1, 9.0, -9.0, 2.1, np.inf], fmt).tolist() == [1, -1, 7, -7, 3, 7]
    # codes of -3, -1, 1, 3 are 2, 3, 4, 5: a tie goes to the even one
    assert round_to([-2.0, 0.0, 2.0], fmt).tolist() == [-3, 1, 1]


def test_shift_holds_signed_powers_without_zero():
    fmt = FORMATS["shift3"]
    assert integers(np.arange(8), fmt).tolist() == [1, 2, 4, 8, -1, -2, -4, -8]
    assert round_to([0.0, -0.0, 1.5, 3.0, 6.0, 2.9, 100.0, -0.3], fmt).tolist() == [
        1, -1, 1, 4, 4, 2, 8, -1]


def test_ternary_refuses_its_fourth_code():
    fmt = FORMATS["ternary"]
    assert round_to([-5, -0.5, -0.51, 0.5, 0.51, 7], fmt).tolist() == [-1, 0, -1, 0, 1, 1]
    with pytest.raises(UserError, match="^ternary code must be 0, 1 or 3, not 2$"):
        decode([2], fmt)


def test_a_block_format_is_not_an_element():
    with pytest.raises(ValueError, match="^mxfp4 is a block format"):
        encode([1.0], FORMATS["mxfp4"])


@pytest.mark.parametrize("fmt", ELEMENTS, ids=named)
@pytest.mark.parametrize("align_rows", [False, True])
def test_packing_round_trips_and_is_exact_to_the_bit(fmt, align_rows):
    rng = np.random.default_rng(fmt.code)
    codes = rng.integers(0, 2**fmt.bits, (3, 5), dtype=np.uint64)
    data = pack(codes, fmt, align_rows=align_rows)
    assert len(data) == (3 * -(-5 * fmt.bits // 8) if align_rows else -(-15 * fmt.bits // 8))
    assert unpack(data, fmt, (3, 5), align_rows=align_rows).tolist() == codes.tolist()


@given(st.integers(1, 32), st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_element_i_lies_at_bit_i_times_bits(bits, numbers):
    codes = [number % 2**bits for number in numbers]
    whole = sum(code << (i * bits) for i, code in enumerate(codes))
    want = whole.to_bytes(-(-len(codes) * bits // 8), "little")
    assert pack(np.array(codes, np.uint32), FORMATS[f"uint{bits}"]) == want
