"""T-MAC's layout: every index where the published layout has it, the product the plain one."""

import numpy as np
import pytest

from golden.tmac import lookup, pack, unpack

SIZES = [(1, 32, 8), (2, 64, 2), (3, 96, 4), (4, 128, 8), (4, 32, 1)]  # bits, bm, kfactor


def weights(rng, bits, rows=64, depth=64):
    return rng.integers(-(1 << bits - 1), 1 << bits - 1, (rows, depth))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("bits, bm, kfactor", SIZES)
def test_lookup_from_the_packed_bytes_is_the_plain_product(bits, bm, kfactor, mirrored):
    rng = np.random.default_rng(bits)
    rows = bm * (2 if bm == 32 and bits < 4 else 1)
    w = weights(rng, bits, rows)
    for a in (rng.integers(-128, 128, (5, 64)), np.full((1, 64), -128), np.full((1, 64), 127)):
        packed = pack(w, bits, bm=bm, kfactor=kfactor)
        got = lookup(packed, a, bits, kfactor=kfactor, mirrored=mirrored)
        assert got.tolist() == (a @ w.T).tolist()


@pytest.mark.parametrize("bits, bm, kfactor", SIZES)
def test_layout_is_the_published_sequence_of_reshapes(bits, bm, kfactor):
    # weights.py of T-MAC, step by step: planes, strips of 8 rows, halves of 32, tiles, K blocks.
    rng = np.random.default_rng(7)
    rows = bm
    w = weights(rng, bits, rows)
    u = w + (1 << bits - 1)
    index = np.zeros((rows, bits, 16), int)
    for row, plane, group in np.ndindex(index.shape):
        for j in range(4):
            index[row, plane, group] |= (u[row, 4 * group + j] >> plane & 1) << j
    lines = index.reshape(rows // 8, 8, bits, 16).transpose(0, 2, 1, 3).reshape(-1, 2, 16, 16)
    byte = lines[:, 0] | lines[:, 1] << 4  # [32 plane rows, lane, group]
    tiles = byte.reshape(rows * bits // bm, bm // 32, 16, 16 // kfactor, kfactor)
    want = tiles.transpose(0, 3, 1, 4, 2).reshape(rows * bits // bm, 16, bm // 2)
    assert pack(w, bits, bm=bm, kfactor=kfactor).tolist() == want.tolist()


def test_planes_of_three_bits_interleave_in_strips_of_eight():
    # T-MAC's own example: bit 0 in [0, 8), bit 1 in [8, 16), bit 2 in [16, 24), bit 0 in [24, 32).
    w = np.zeros((32, 4), int) - 4  # all planes 0
    w[:8, 0] += 1  # plane 0 of the first strip
    w[8:16, 1] += 1  # plane 0 of the second
    first = pack(w, 3, bm=96, kfactor=1)[0, 0, :16]
    assert first.tolist() == [0x01] * 8 + [0x20] * 8


@pytest.mark.parametrize("bits, bm, kfactor", SIZES)
def test_unpack_undoes_pack_and_nothing_is_stored_twice(bits, bm, kfactor):
    rng = np.random.default_rng(1)
    w = weights(rng, bits, bm)
    packed = pack(w, bits, bm=bm, kfactor=kfactor)
    assert packed.size * 8 == w.size * bits
    split = (w[None] + (1 << bits - 1)) >> np.arange(bits)[:, None, None] & 1
    want = split.reshape(bits, bm, 16, 4) @ np.array([1, 2, 4, 8])
    assert unpack(packed, bits, kfactor=kfactor).tolist() == want.tolist()


@pytest.mark.parametrize("sizes, sentence", [
    ({"bm": 48}, "bm must be a multiple of 32 that divides 64 rows x 2 bits, not 48"),
    ({"kfactor": 3}, "kfactor must be a divisor of 16 groups of 4, not 3"),
    ({"bits": 5}, "bits must be from 1 to 4, not 5"),
])
def test_sizes_that_do_not_divide_are_refused(sizes, sentence):
    given = {"bits": 2, "bm": 64, "kfactor": 4, **sizes}
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        pack(np.zeros((64, 64), int), given.pop("bits"), **given)
