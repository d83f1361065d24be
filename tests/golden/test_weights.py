"""Weights offline, each against a loop written out."""

import numpy as np
import pytest

from golden.weights import interleave, pad_columns, quantise_columns, tiles
from machine.formats import FORMATS


@pytest.mark.parametrize("name, top", [("int8", 127), ("int4", 7)])
def test_a_column_is_scaled_by_its_largest_magnitude(name, top):
    w = np.random.default_rng(0).normal(size=(3, 40, 7)).astype(np.float32)
    codes, scales = quantise_columns(w, FORMATS[name])
    assert codes.shape == w.shape and scales.shape == (3, 7)
    largest = np.abs(w).max(axis=1)
    np.testing.assert_array_equal(scales, (largest / np.float32(top)).astype(np.float32))
    assert (np.abs(codes).max(axis=1) == top).all()
    error = np.abs(codes * scales[:, None, :].astype(np.float64) - w)
    assert (error <= scales[:, None, :] * 0.5001).all()


def test_a_column_of_zeros_stays_zero():
    codes, scales = quantise_columns(np.zeros((4, 2), np.float32), FORMATS["int8"])
    assert not codes.any() and (scales == 1).all()


@pytest.mark.parametrize("n, half", [(6, 2), (7, 4), (5, 5), (3, 8)])
def test_halves_alternate_by_half_a_tile(n, half):
    w = np.arange(1, 1 + 2 * 2 * n).reshape(2, 2 * n)
    got = interleave(w, half)
    blocks = -(-n // half)
    assert got.shape == (2, 2 * half * blocks)
    for row in range(2):
        for block in range(blocks):
            for which in range(2):
                for i in range(half):
                    column = block * half + i
                    want = w[row, which * n + column] if column < n else 0
                    assert got[row, block * 2 * half + which * half + i] == want


def test_padding_reaches_the_next_multiple_and_only_that():
    for n, multiple, want in ((6, 4, 8), (8, 4, 8), (1, 5, 5)):
        got = pad_columns(np.ones((2, n)), multiple)
        assert got.shape == (2, want) and got[:, :n].all() and not got[:, n:].any()


@pytest.mark.parametrize("k, n, tile", [(7, 5, (3, 2)), (8, 4, (4, 4)), (2, 9, (5, 4))])
def test_tiles_hold_every_element_at_its_place(k, n, tile):
    w = np.arange(1, 1 + 2 * k * n).reshape(2, k, n)
    got = tiles(w, *tile)
    high, wide = -(-k // tile[0]), -(-n // tile[1])
    assert got.shape == (2, wide, high, *tile)
    for layer, row, column in np.ndindex(2, high * tile[0], wide * tile[1]):
        want = w[layer, row, column] if row < k and column < n else 0
        block = got[layer, column // tile[1], row // tile[0]]
        assert block[row % tile[0], column % tile[1]] == want
