"""Values and codes: the short ways for common formats give what the formats' own codec gives."""

import numpy as np
import pytest

from golden import formats
from golden.convert import codes_of, values_of
from machine.errors import UserError
from machine.formats import FORMATS, Kind
from machine.opcodes import Rounding

ELEMENTS = [fmt for fmt in FORMATS.values() if fmt.kind is not Kind.BLOCK and fmt.bits <= 16]


@pytest.mark.parametrize("fmt", ELEMENTS, ids=lambda fmt: fmt.name)
def test_every_code_has_its_value_and_returns(fmt):
    every = np.arange(2**fmt.bits)
    if fmt.kind is Kind.TERNARY:
        every = np.array([0, 1, 3])
    codes = every.astype(np.uint8 if fmt.bits <= 8 else np.uint16)
    values = values_of(codes, fmt)
    with np.errstate(invalid="ignore"):  # a signalling not-a-number becomes a quiet one
        wide = values.astype(np.float64)
    np.testing.assert_array_equal(wide, formats.decode(codes, fmt))
    back = codes_of(values, fmt, saturate=False)
    # Not-a-number has many codes in some formats and one canonical one; the values are the same.
    np.testing.assert_array_equal(values_of(back, fmt), values)
    known = ~np.isnan(wide)
    np.testing.assert_array_equal(back[known], codes[known])


@pytest.mark.parametrize("saturate", [False, True])
def test_float32_becomes_float16_as_the_codec_has_it(saturate):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    near = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        halves = [np.nextafter(near, np.float32(s * np.inf)) for s in (1, -1)]
        ties = (near[:-1] + near[1:]) / 2
    values = np.concatenate([values, near, *halves, ties])
    expected = formats.encode(values, FORMATS["float16"], saturate=saturate)
    np.testing.assert_array_equal(codes_of(values, FORMATS["float16"], saturate=saturate), expected)


def test_integers_become_floats_with_one_rounding():
    values = np.array([2**24 + 1, 2**24 + 3, -(2**31), 65519, 65520], np.int32)
    float32 = values_of(codes_of(values, FORMATS["float32"]), FORMATS["float32"])
    assert float32.tolist() == [2**24, 2**24 + 4, -(2**31), 65519, 65520]
    float16 = values_of(codes_of(values, FORMATS["float16"], saturate=False), FORMATS["float16"])
    assert float16.tolist() == [np.inf, np.inf, -np.inf, 65504, np.inf]


@pytest.mark.parametrize("rounding", [Rounding.TOWARD_ZERO, Rounding.FLOOR])
def test_only_nearest_even_rounds_to_a_float(rounding):
    with pytest.raises(UserError, match="^rounding to float16 must be nearest_even, not "):
        codes_of(np.array([1.0], np.float32), FORMATS["float16"], rounding=rounding)
