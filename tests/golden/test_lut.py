"""The lookup product equals the plain product, exhaustively where small."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from golden.lut import lookup, reinterpret, remap
from golden.vector import table_precompute
from machine.errors import UserError


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
