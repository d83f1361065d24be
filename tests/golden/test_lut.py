"""The lookup product equals the plain product, exhaustively where small."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from golden.lut import (
    lookup,
    lookup_float,
    lookup_scaled,
    planes,
    quantise_tables,
    reinterpret,
    remap,
    subset_sums,
    tables,
)
from golden.vector import table_precompute
from machine.errors import UserError
from machine.formats import FORMATS
from machine.vector import ScaleRule


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [1, 4, 6, 64])
def test_lookup_equals_the_product_with_reinterpreted_weights(bits, depth):
    rng = np.random.default_rng(bits)
    a = rng.integers(-128, 128, (5, depth))
    q = rng.integers(0, 2**bits, (7, depth))
    got = lookup(table_precompute(a), remap(q, bits))
    assert got.tolist() == (a @ (2 * q - (2**bits - 1)).T).tolist()


def test_lookup_of_every_two_bit_weight_group():
    q = np.array(list(itertools.product(range(4), repeat=4)))
    a = np.array([[3, -50, 7, 127], [-128, 1, 0, 99]])
    assert lookup(table_precompute(a), remap(q, 2)).tolist() == (a @ (2 * q - 3).T).tolist()


def test_lookup_broadcasts_over_leading_axes():
    rng = np.random.default_rng(0)
    a, q = rng.integers(-9, 9, (2, 3, 8)), rng.integers(0, 4, (5, 8))
    codes = remap(q, 2)
    want = [lookup(table_precompute(part), codes).tolist() for part in a]
    assert lookup(table_precompute(a), codes).tolist() == want


def test_remap_inverts_three_bits_where_the_fourth_is_one():
    # weights of one bit, listed a0 a1 a2 a3; equation 6: code = W3 ? ~W[2:0] : W[2:0], sign W3
    w = np.array([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]])
    assert remap(w, 1)[0, :, 0].tolist() == [0b0000, 0b0101, 0b1010, 0b1000]


def test_remap_refuses_a_weight_that_does_not_fit():
    with pytest.raises(UserError, match="^a weight to remap must be from 0 to 3, not 4$"):
        remap([[0, 3, 4]], 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_reinterpretation_is_exact(bits):
    scale, zero = 0.375, 3
    new_scale, new_zero = reinterpret(scale, zero, bits)
    for q in range(2**bits):
        want = Fraction(scale) * (q - zero)
        assert Fraction(float(new_scale)) * (2 * q - (2**bits - 1) - int(new_zero)) == want


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_tables_of_any_k_equal_the_product_with_reinterpreted_weights(k):
    rng = np.random.default_rng(k)
    a, q = rng.integers(-128, 128, (3, 25)), rng.integers(0, 8, (5, 25))
    got = lookup(tables(a, k), remap(q, 3, k))
    assert got.tolist() == (a @ (2 * q - 7).T).tolist()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_tables_by_hand_for_every_sign_pattern(k):
    acts = [3, -50, 7, 127][:k]
    signs = [[1 if j >> i & 1 else -1 for i in range(k)] for j in range(2 ** k)]
    want = [sum(s * a for s, a in zip(row, acts, strict=True)) for row in signs]
    assert tables([acts], k)[0, 0].tolist() == want[: 2 ** (k - 1)]
    some = [sum(a for i, a in enumerate(acts) if j >> i & 1) for j in range(2 ** k)]
    assert subset_sums([acts], k)[0, 0].tolist() == some


def test_tables_of_four_are_the_vector_units():
    a = np.random.default_rng(1).integers(-128, 128, (3, 22))
    assert tables(a).tolist() == table_precompute(a).tolist()


def test_subset_sums_of_the_planes_are_the_plain_product():
    rng = np.random.default_rng(2)
    a, q = rng.integers(-128, 128, (3, 10)), rng.integers(0, 16, (5, 10))
    found = np.take_along_axis(subset_sums(a)[:, None, None], planes(q, 4)[None, ..., None], -1)
    total = (found[..., 0].sum(axis=-1) << np.arange(4)[:, None]).sum(axis=1)
    assert total.tolist() == (a @ q.T).tolist()


def rounded(x: Fraction) -> float:
    """Return `x` rounded once to float32."""
    scale = Fraction(2) ** (24 - _exponent(x)) if x else Fraction(1)
    return float(round(x * scale) / scale)


def _exponent(x: Fraction) -> int:
    power = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    return power + (Fraction(2) ** power <= abs(x))


@pytest.mark.parametrize("rule, block", [(ScaleRule.TABLE, 1), (ScaleRule.BLOCK, 1),
                                         (ScaleRule.BLOCK, 4), (ScaleRule.BLOCK, 8)])
def test_table_quantisation_step_by_step(rule, block):
    rng = np.random.default_rng(3)
    t = tables(rng.integers(-128, 128, (3, 32)))
    t[0, :block] = 0  # a block of nothing
    codes, scales = quantise_tables(t, rule, block)
    assert codes.shape == t.shape and scales.shape == (3, 8 // block)
    for m, b in np.ndindex(scales.shape):
        part = slice(b * block, (b + 1) * block)
        entries = [int(e) for e in t[m, part].reshape(-1)]
        largest = max(map(abs, entries))
        factor = rounded(Fraction(127, largest)) if largest else 0.0
        want = [round(Fraction(rounded(Fraction(e) * Fraction(factor)))) for e in entries]
        assert codes[m, part].reshape(-1).tolist() == want
        assert float(scales[m, b]) == (rounded(Fraction(largest, 127)) if largest else 1.0)


def test_the_two_rules_give_different_bits():
    t = tables(np.random.default_rng(4).integers(-128, 128, (2, 64)))
    own, shared = quantise_tables(t, ScaleRule.TABLE, 1), quantise_tables(t, ScaleRule.BLOCK, 8)
    assert (own[0] != shared[0]).any()
    assert np.abs(own[0]).max(axis=-1).min() == 127, "every table uses the whole range"
    assert np.abs(shared[0]).reshape(2, 2, -1).max(axis=-1).min() == 127


def test_scaled_lookup_adds_block_after_block_with_three_roundings():
    rng = np.random.default_rng(5)
    a, q = rng.integers(-128, 128, (2, 32)), rng.integers(0, 4, (3, 32))
    for rule, block in ((ScaleRule.TABLE, 1), (ScaleRule.BLOCK, 4)):
        codes, scales = quantise_tables(tables(a), rule, block)
        want = np.zeros((2, 3), np.float32)
        for b in range(8 // block):
            part = slice(b * block, (b + 1) * block)
            whole = lookup(codes[:, part], remap(q, 2)[..., part]).astype(np.float32)
            want = want + whole * scales[:, b, None]
        got = lookup_scaled(codes, scales, remap(q, 2))
        assert got.dtype == np.float32 and got.tolist() == want.tolist()
        error = np.abs(got - a @ (2 * q - 3).T).max()
        assert 0 < error < 127 * 0.5 * scales.max() * 3 * 8


@pytest.mark.parametrize("rule, block, sentence", [
    (ScaleRule.STATIC, 1, "scale rule of tables must be table or block, not 'static'"),
    (ScaleRule.TABLE, 2, "block must be 1 for a scale a table, not 2"),
    (ScaleRule.BLOCK, 3, "block must be a divisor of 8 tables, not 3"),
])
def test_wrong_rules_of_table_quantisation_are_refused(rule, block, sentence):
    with pytest.raises(UserError, match=f"^{sentence}$"):
        quantise_tables(tables(np.zeros((1, 32), int)), rule, block)


@pytest.mark.parametrize("name, kind", [("float16", np.float16), ("float32", np.float32)])
def test_float_lookup_adds_plane_after_plane_with_one_rounding_each(name, kind):
    rng = np.random.default_rng(6)
    t = rng.normal(0, 100, (2, 5, 8)).astype(np.float16)
    t[0, 0] = [0.0, -0.0, 2**-24, -(2.0**-15), 65504, -65504, 1, 3]
    codes = rng.integers(0, 16, (8, 3, 5))
    want = np.zeros((2, 3), kind)
    with np.errstate(over="ignore", invalid="ignore"):
        for m, n in np.ndindex(2, 3):
            total = kind(0)
            for group in range(5):
                for b in range(8):
                    code = codes[b, n, group]
                    term = float(t[m, group, code & 7]) * 2**b * (-1 if code & 8 else 1)
                    total = kind(float(total) + term)
            want[m, n] = total
    np.testing.assert_array_equal(lookup_float(t, codes, FORMATS[name]), want)


def test_float_lookup_goes_on_from_a_sum_and_starts_from_plus_zero():
    t, codes = np.full((1, 1, 2), -0.0), np.zeros((1, 1, 1), int)
    found = lookup_float(t, codes, FORMATS["float32"])
    assert found.tolist() == [[0.0]] and not np.signbit(found).any()
    assert lookup_float(t, codes, FORMATS["float32"], [[1.5]]).tolist() == [[1.5]]
