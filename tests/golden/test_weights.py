"""Weights offline, each against a loop written out."""

import numpy as np
import pytest

from golden.weights import (
    interleave,
    pad_columns,
    plane_tiles,
    quantise_columns,
    quantise_planes,
    tiles,
)
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


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_codes_by_planes_are_the_nearest_odd_multiples_of_a_columns_step(bits):
    w = np.random.default_rng(bits).normal(size=(2, 40, 6)).astype(np.float32)
    w[1, :, 2] = 0
    q, scales = quantise_planes(w, bits)
    most = 2**bits - 1
    assert scales.dtype == np.float32 and scales[1, 2] == 1
    assert q.min() == 0 and q.max() == most
    for layer, column in np.ndindex(2, 6):
        got = (2 * q[layer, :, column] - most) * float(scales[layer, column])
        step = np.abs(w[layer, :, column]).max() / most or 1.0
        levels = step * np.arange(-most, most + 1, 2)
        nearest = np.abs(w[layer, :, column, None] - levels).min(axis=-1)
        assert np.allclose(np.abs(got - w[layer, :, column]), nearest, atol=1e-6)


def test_codes_in_planes_and_tiles_look_up_what_they_weigh():
    rng, bits, k, n = np.random.default_rng(0), 3, 8, 4
    q, a = rng.integers(0, 8, (20, 6)), rng.integers(-9, 9, 20)
    made = plane_tiles(q, bits, k, n)
    assert made.shape == (2, 3, bits, n, k // 4)
    padded = np.pad(a, (0, 4)).reshape(3, 2, 4)
    for column in range(6):
        total = 0
        for chunk, plane, group in np.ndindex(3, bits, 2):
            code = int(made[column // n, chunk, plane, column % n, group])
            signs = [1 if code >> i & 1 else -1 for i in range(3)] + [-1]
            found = sum(s * int(x) for s, x in zip(signs, padded[chunk, group], strict=True))
            total += (-found if code & 8 else found) << plane
        assert total == sum((2 * int(q[i, column]) - 7) * int(a[i]) for i in range(20))


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
