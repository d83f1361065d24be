"""Block formats: scales by an independent rule, elements nearest, edges named one by one."""

from fractions import Fraction

import numpy as np
import pytest

from golden import blocks
from golden.blocks import dequantise, quantise
from golden.formats import decode, encode
from machine.errors import UserError
from machine.formats import FORMATS, Kind, sections

BLOCKS = [f for f in FORMATS.values() if f.kind is Kind.BLOCK]
POWER = [f for f in BLOCKS if FORMATS[f.scale].kind is Kind.POWER]
SYMMETRIC = [f for f in BLOCKS if f.name.startswith("int")]
ASYMMETRIC = [f for f in BLOCKS if f.name.startswith("uint")]
# exponent of the largest element, from the OCP MX table (arXiv 2310.10537); 0 for integers
LARGEST_EXPONENT = {"mxfp8_e4m3": 8, "mxfp8_e5m2": 15, "mxfp6_e2m3": 2, "mxfp6_e3m2": 4,
                    "mxfp4": 2}


def named(f):
    return f.name


def samples(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * np.ldexp(1.0, rng.integers(-6, 7, shape[:-1]))[..., None]


def element_values(fmt):
    """Every finite element of a block under scale 1, as fractions with their codes."""
    element = FORMATS[fmt.element]
    values = decode(np.arange(2**element.bits), element)
    place = Fraction(1) if element.is_float else Fraction(1, 2 ** (element.bits - 2))
    return [(Fraction(v) * place, c) for c, v in enumerate(values.tolist())
            if np.isfinite(v) and (element.is_float or v > -(2 ** (element.bits - 1)))]


@pytest.mark.parametrize("fmt", [f for f in POWER if f.bits <= 8], ids=named)
def test_power_scaled_block_equals_the_fraction_model(fmt):
    x = samples((4, 37), seed=fmt.code)
    parts = quantise(x, fmt)
    table = element_values(fmt)
    for row in range(4):
        for start in range(0, 37, 32):
            block = [Fraction(v) for v in x[row, start : start + 32]]
            scale = Fraction(2) ** -300
            while scale * 2 <= max(abs(v) for v in block):
                scale *= 2
            scale /= 2 ** LARGEST_EXPONENT.get(fmt.name, 0)
            assert Fraction(parts["scales"][row, start // 32]) == scale
            want = [min(table, key=lambda vc, v=v: (abs(vc[0] - v / scale), vc[1] % 2))[0] * scale
                    for v in block]
            assert [Fraction(v) for v in dequantise(parts, fmt)[row, start : start + 32]] == want


@pytest.mark.parametrize("fmt", BLOCKS, ids=named)
@pytest.mark.parametrize("group", [0, 5])
def test_sections_fit_their_formats_and_shapes(fmt, group):
    parts = quantise(samples((3, 70)), fmt, group)
    places = sections(fmt, (3, 70), group)
    assert set(parts) == set(places)
    for name, section in places.items():
        part = parts[name]
        assert part.shape == section.shape
        again = decode(encode(part, section.format), section.format)
        assert np.array_equal(again, part), "a section's number is not exact in its format"
        assert (part.dtype == np.int64) == (section.format.kind is Kind.INTEGER)


@pytest.mark.parametrize("fmt", BLOCKS, ids=named)
def test_quantising_zeros_gives_zeros(fmt):
    parts = quantise(np.zeros((2, 40)), fmt)
    assert not dequantise(parts, fmt).any()


@pytest.mark.parametrize("fmt", BLOCKS, ids=named)
@pytest.mark.parametrize("shape", [(0, 40), (2, 0)])
def test_an_empty_tensor_has_empty_sections(fmt, shape):
    parts = quantise(np.zeros(shape), fmt)
    assert {n: p.shape for n, p in parts.items()} == {
        n: s.shape for n, s in sections(fmt, shape).items()}
    assert dequantise(parts, fmt).shape == shape


@pytest.mark.parametrize("fmt", BLOCKS, ids=named)
def test_a_group_does_not_see_its_neighbours(fmt):
    x = samples((2, 64), seed=1)
    alone = quantise(x[:, :32], fmt, 32)
    if fmt.row_scale or fmt.tensor_scale:
        x[:, 32:] = 0
    both = quantise(x, fmt, 32)
    assert np.array_equal(both["elements"][:, :32], alone["elements"])
    assert np.array_equal(both["scales"][:, :1], alone["scales"])


@pytest.mark.parametrize("fmt", [f for f in BLOCKS if not f.row_scale], ids=named)
def test_a_short_last_group_is_a_group_of_its_own(fmt):
    x = samples((2, 40), seed=3) + 3
    x[:, :32] /= 8  # a tensor scale stays that of the tail
    whole, tail = quantise(x, fmt, 32), quantise(x[:, 32:], fmt, 8)
    assert np.array_equal(whole["elements"][:, 32:], tail["elements"])
    assert np.array_equal(whole["scales"][:, 1:], tail["scales"])


def test_mxfp4_clips_what_floor_log2_leaves_above_six():
    parts = quantise([[7.9, 1.0, -7.9, 0.3]], FORMATS["mxfp4"])
    assert parts["scales"].tolist() == [[1.0]]
    assert dequantise(parts, FORMATS["mxfp4"]).tolist() == [[6.0, 1.0, -6.0, 0.5]]


def test_mxint8_keeps_to_the_symmetric_range():
    parts = quantise([[1.999, -1.999, -2.0 + 2.0**-7, 1.0]], FORMATS["mxint8"])
    assert parts["elements"].tolist() == [[127, -127, -127, 64]]
    assert dequantise(parts, FORMATS["mxint8"])[0, 0] == 1.984375


@pytest.mark.parametrize("fmt", POWER, ids=named)
def test_power_scale_stops_at_both_ends(fmt):
    tiny = quantise([[2.0**-149, 0.0]], fmt)
    assert tiny["scales"].tolist() == [[2.0**-127]]
    assert quantise([[2.0**127, 0.0]], fmt)["scales"][0, 0] <= 2.0**127


@pytest.mark.parametrize("fmt", POWER, ids=named)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_spoils_its_own_power_scaled_block_only(fmt, odd):
    x = np.ones((1, 64))
    x[0, 40] = odd
    value = dequantise(quantise(x, fmt), fmt)
    assert (value[0, :32] == 1).all() and np.isnan(value[0, 32:]).all()


@pytest.mark.parametrize("fmt", [f for f in BLOCKS if f not in POWER], ids=named)
def test_other_blocks_refuse_numbers_that_are_not_finite(fmt):
    with pytest.raises(UserError, match=f"^{fmt.name} holds finite numbers only, not inf$"):
        quantise([[1.0, np.inf]], fmt)


@pytest.mark.parametrize("fmt", SYMMETRIC, ids=named)
def test_symmetric_group_is_the_nearest_multiple_of_its_scale(fmt):
    x, top = samples((3, 256), seed=fmt.code), 2 ** (fmt.bits - 1) - 1
    parts = quantise(x, fmt)
    for row in range(3):
        for g in range(2):
            block = x[row, 128 * g : 128 * g + 128]
            scale = np.float16(max(abs(v) for v in block) / top)  # one rounding more than none
            assert parts["scales"][row, g] == scale
            want = [max(-top, min(top, round(Fraction(v) / Fraction(float(scale)))))
                    for v in block.tolist()]
            assert parts["elements"][row, 128 * g : 128 * g + 128].tolist() == want


@pytest.mark.parametrize("fmt", [*ASYMMETRIC, FORMATS["qoq_kv4"]], ids=named)
def test_asymmetric_group_is_off_by_half_a_step_and_the_scale_rounding(fmt):
    x = samples((5, 200), seed=fmt.code) + 0.5
    parts = quantise(x, fmt)
    scale = np.repeat(parts["scales"], fmt.group, axis=-1)[:, :200]
    error = np.abs(dequantise(parts, fmt) - x)
    # a rounded zero point may push either end half a step further out
    assert (error <= scale * (1 + 2**fmt.bits * 2.0**-10)).all()
    assert (error <= scale * 0.51).mean() > 0.9


def test_asymmetric_integer_zero_point_represents_zero():
    parts = quantise([[3.0, 4.0, 0.0, 9.0], [-9.0, -3.0, 0.0, -1.0]], FORMATS["uint4_group"])
    value = dequantise(parts, FORMATS["uint4_group"])
    assert value[:, 2].tolist() == [0, 0]
    assert parts["zeros"].tolist() == [[0], [15]]


def test_a_constant_group_of_kv4_keeps_its_value():
    value = dequantise(quantise(np.full((1, 128), 3.0), FORMATS["qoq_kv4"]), FORMATS["qoq_kv4"])
    assert (value == 3.0).all()


def test_nvfp4_spends_the_range_of_its_group_scale():
    x = samples((4, 64), seed=8)
    parts = quantise(x, FORMATS["nvfp4"])
    assert parts["scales"].max() == 448
    assert parts["tensor_scale"] == np.float32(np.abs(x).max() / (6 * 448))
    assert np.abs(dequantise(parts, FORMATS["nvfp4"]) - x).max() <= np.abs(x).max() / 6


@pytest.mark.parametrize("protective, fits", [(119, True), (127, False)])
def test_qoq_stays_in_int8_because_of_its_protective_range(monkeypatch, protective, fits):
    """Every (low, high) of a group of two, as the protective range of arXiv 2405.04532 claims."""
    monkeypatch.setattr(blocks, "PROTECTIVE_RANGE", protective)
    low, high = np.meshgrid(np.arange(-protective, 1), np.arange(protective + 1))
    pairs = np.stack([low.ravel(), high.ravel()], axis=-1)
    # a second group of the full range pins the row scale to 1
    x = np.concatenate([pairs, np.full_like(pairs, protective)], axis=-1).astype(float)
    parts = quantise(x, FORMATS["qoq_w4"], group=2)
    assert set(parts["row_scales"].tolist()) == {1.0}
    first_level = dequantise(parts, FORMATS["qoq_w4"], group=2)
    assert (np.abs(first_level).max() <= 127) == fits


def test_qoq_equals_its_two_levels_in_fractions():
    x = samples((6, 250), seed=2)
    parts = quantise(x, FORMATS["qoq_w4"])
    for row in range(6):
        row_scale = float(np.float16(np.abs(x[row]).max() / 119))
        int8 = [max(-119, min(119, round(Fraction(v) / Fraction(row_scale))))
                for v in x[row].tolist()]
        assert parts["row_scales"][row] == row_scale
        for g in range(2):
            group = int8[128 * g : 128 * g + 128]
            low, high = min(0, *group), max(0, *group)
            scale = max(1, round(Fraction(high - low, 15)))
            zero = min(15, round(Fraction(-low, scale)))
            assert (parts["scales"][row, g], parts["zeros"][row, g]) == (scale, zero)
            want = [max(0, min(15, round(Fraction(w, scale)) + zero)) for w in group]
            assert parts["elements"][row, 128 * g : 128 * g + 128].tolist() == want
