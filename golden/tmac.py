"""T-MAC's packed weights, and the lookup product read from them: exact in integers.

Layout of arXiv 2407.00088 as its ``python/t_mac/weights.py`` makes it: weights are biased codes
u = w + 2**(bits-1), split in planes; four weights of a plane are one index of 4 bits. Strips of 8
rows have their planes below each other; 32 such plane rows make 16 bytes, the first 16 in the low
halves, so that one mask and one shift unpack them. Tiles of `bm` plane rows lie apart; in a tile
come `kfactor` groups of four, then its next 32 plane rows.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden import lut
from machine.config import require

__all__ = ["lookup", "pack", "unpack"]

K = 4  # weights of an index
STRIP = 8  # rows whose planes lie below each other
LANES = 16  # bytes that are looked up together; each holds two indices


def _places(rows: int, groups: int, bits: int, bm: int, kfactor: int) -> tuple[NDArray, NDArray]:
    """Return byte number and lowest bit of every index [bits, rows, groups]."""
    for name, holds, what, value in (
        ("bits", 1 <= bits <= 4, "from 1 to 4", bits),
        ("rows", rows % STRIP == 0, f"a multiple of {STRIP}", rows),
        ("bm", bm % (2 * LANES) == 0 and rows * bits % max(bm, 1) == 0,
         f"a multiple of {2 * LANES} that divides {rows} rows x {bits} bits", bm),
        ("kfactor", kfactor > 0 and groups % max(kfactor, 1) == 0,
         f"a divisor of {groups} groups of {K}", kfactor),
    ):
        require(holds, name, what, value)
    plane, row, group = np.ogrid[:bits, :rows, :groups]
    line = (row // STRIP * bits + plane) * STRIP + row % STRIP
    tile, line = line // bm, line % bm
    block, lane = line // (2 * LANES), line % (2 * LANES)
    run = group // kfactor * (bm // (2 * LANES)) + block
    byte = tile * (groups * bm // 2) + (run * kfactor + group % kfactor) * LANES + lane % LANES
    return byte, np.broadcast_to(lane // LANES * K, byte.shape)


def pack(weights: ArrayLike, bits: int, *, bm: int, kfactor: int) -> NDArray[np.uint8]:
    """Return signed `weights` [N, K] of `bits` bits as bytes [N * bits / bm, K / 4, bm / 2].

    Raises ``ValueError`` for sizes that do not divide, `UserError` for a weight out of range.
    """
    w = np.asarray(weights, np.int64)
    require(w.shape[1] % K == 0, "K", f"a multiple of {K}", w.shape[1])
    groups = w.shape[1] // K
    byte, shift = _places(len(w), groups, bits, bm, kfactor)
    indices = lut.planes(w + 2 ** (bits - 1), bits, K)
    packed = np.zeros(len(w) * bits * groups // 2, np.uint8)
    np.add.at(packed, byte, indices << shift.astype(np.uint8))
    return packed.reshape(len(w) * bits // bm, groups, bm // 2)


def unpack(packed: ArrayLike, bits: int, *, kfactor: int) -> NDArray[np.uint8]:
    """Return the indices [bits, N, K / 4] of what `pack` made; raises ``ValueError`` as it does."""
    given = np.asarray(packed, np.uint8)
    tiles, groups, half = given.shape
    byte, shift = _places(tiles * 2 * half // bits, groups, bits, 2 * half, kfactor)
    return given.reshape(-1)[byte] >> shift.astype(np.uint8) & 15


def lookup(
    packed: ArrayLike, a: ArrayLike, bits: int, *, kfactor: int, mirrored: bool = True
) -> NDArray[np.int64]:
    """Return integers `a` [M, K] times the packed weights, int64 [M, N]: the plain product.

    Plane b finds P_b, a sum of +-a. As w = (sum of 2**b * (+-1) - 1) / 2, the product is half of
    the sum of 2**b * P_b and of every table's entry 0, which is all minus: T-MAC's bias. `mirrored`
    keeps half of each table and negates, otherwise all 16 entries are kept.
    """
    indices = unpack(packed, bits, kfactor=kfactor).astype(np.int64)
    half = lut.tables(a, K)  # index bit 3 is 0
    groups = np.arange(half.shape[-2])[:, None]
    total = np.zeros((len(half), indices.shape[1]), np.int64)
    whole = np.concatenate([half, -half[..., ::-1]], axis=-1)
    for b, index in enumerate(indices):
        at = index.T
        if mirrored:
            upper = at >= 8
            entry = half[:, groups, np.where(upper, 15 - at, at)]
            found = np.where(upper, -entry, entry)
        else:
            found = whole[:, groups, at]
        total += found.sum(axis=1) << b
    return (total + half[..., 0].sum(axis=-1)[:, None]) // 2
